"""Labels that arrive before the log is flushed wait; nothing about them is an error."""

import pyarrow as pa
import pytest

from mlguard.data.labels import Label
from mlguard.deploy.watch_labels import Answerer, LabelReader


class Log:
    """A log that holds some of the predictions so far."""

    late_s = 0.0

    def __init__(self, query_ids):
        self.query_ids = query_ids

    def read(self, app, *, version_id, generation, query_ids):
        ids = [one for one in query_ids if one in self.query_ids]
        return pa.table({"query_id": pa.array(ids, pa.int64())})


class Labels:
    """A store of labels in order of arrival."""

    def __init__(self, labels):
        self.labels = labels

    def after(self, cursor, limit=2000):
        return [one for one in self.labels if one.seq > cursor][:limit]


@pytest.mark.parametrize("logged", [[], [11]], ids=["nothing is logged", "a later row is logged"])
def test_a_label_whose_row_is_on_its_way_stops_the_reading(logged):
    """Where the first of the labels has no row yet, none is taken, and nothing breaks."""
    labels = [Label(seq, query_id, 1, "default", 100.0) for seq, query_id in ((1, 10), (2, 11))]
    reader = LabelReader(
        labels=Labels(labels),
        log=Log(logged),
        app="loan",
        now=101.0,
        who=lambda _: Answerer(1, 1),
        name_of=lambda _: "v1",
    )
    assert list(reader.read(0)) == []
