"""Rows that are erased before their time: from closed segments, growing ones, and labels."""

import sqlite3

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlguard.data.labels import LabelStore, default_url
from mlguard.data.mirrored import mirrored_folder
from mlguard.data.prediction_log import PredictionLog


def rows(ids, uid="ann", at=100.0):
    return [
        {"query_id": one, "time": at + one, "generation": 1, "default": False, "uid": uid}
        for one in ids
    ]


def write(log, ids, *, version_id=1, process="p", uid="ann", close=True):
    writer = log.writer("app", version_id, process)
    writer.append(rows(ids, uid))
    writer.flush()
    if close:
        writer.close()
    return writer


def ids_of(log, **wanted):
    return log.read("app", **wanted)["query_id"].to_pylist()


def on_disk(root):
    return sorted(
        one
        for path in root.glob("app/*/*.parquet")
        for one in pq.read_table(path)["query_id"].to_pylist()
    )


def test_rows_leave_closed_segments(tmp_path):
    """They are on no disk any more, the others are as they were."""
    log = PredictionLog(tmp_path)
    write(log, range(10))
    write(log, range(10, 20), process="q")
    assert log.erase("app", [3, 4, 15], at=0.0) == 3
    left = [one for one in range(20) if one not in (3, 4, 15)]
    assert ids_of(log) == left == on_disk(tmp_path)
    assert ids_of(PredictionLog(tmp_path)) == left
    assert log.erase("app", [3, 4, 15], at=0.0) == 0


def test_rows_of_a_growing_segment_are_unreadable_at_once_and_gone_when_it_closes(tmp_path):
    """Its live writer goes on undisturbed; nobody sees the rows from now on."""
    log = PredictionLog(tmp_path)
    writer = write(log, range(5), close=False)
    other = PredictionLog(tmp_path)
    assert ids_of(other) == [0, 1, 2, 3, 4]
    assert log.erase("app", [2], at=50.0) == 1
    assert ids_of(other) == ids_of(log) == [0, 1, 3, 4]
    writer.append(rows([5]))
    writer.close()
    assert on_disk(tmp_path) == [0, 1, 2, 3, 4, 5]
    PredictionLog(tmp_path).prune(older_than=10.0)
    assert on_disk(tmp_path) == ids_of(log) == [0, 1, 3, 4, 5]


def test_a_note_is_dropped_when_the_log_keeps_nothing_so_old(tmp_path):
    """What was noted before the retention began is needed no more."""
    log = PredictionLog(tmp_path)
    write(log, range(5))
    log.erase("app", [2], at=50.0)
    log.prune(older_than=49.0)
    assert "2" in (tmp_path / "app/erased.json").read_text()
    log.prune(older_than=51.0)
    assert (tmp_path / "app/erased.json").read_text() == "[]"


def test_a_segment_with_nothing_left_is_removed(tmp_path):
    """No empty files stay behind."""
    log = PredictionLog(tmp_path)
    write(log, [1, 2])
    assert log.erase("app", [1, 2], at=0.0) == 2
    assert list(tmp_path.glob("app/1/*.parquet")) == []


def test_a_caller_is_found_in_every_version_and_among_the_mirrored(tmp_path):
    """A person does not care which version answered, or was only shown the row."""
    log = PredictionLog(tmp_path)
    write(log, [1, 2], version_id=1)
    write(log, [3], version_id=2, uid="bob")
    write(log, [4], version_id=0)
    write(log, [1, 5], version_id=mirrored_folder(2))
    write(log, [6], version_id=2, process="live", close=False)
    assert log.ids_of("app", uid="ann") == [1, 2, 4, 5, 6]
    assert log.ids_of("app", uid="eve") == []
    assert log.ids_of("nobody", uid="ann") == []
    assert log.erase("app", log.ids_of("app", uid="ann"), at=0.0) == 6
    assert ids_of(log) == [3]
    assert ids_of(log, version_id=mirrored_folder(2)) == []


def test_two_that_erase_at_once_lose_nothing(tmp_path):
    """Each adds to the note that it finds."""
    one, two = PredictionLog(tmp_path), PredictionLog(tmp_path)
    write(one, range(6), close=False)
    one.erase("app", [1], at=0.0)
    two.erase("app", [2], at=0.0)
    assert ids_of(one) == ids_of(two) == [0, 3, 4, 5]


def test_labels_are_erased_with_what_was_refused(tmp_path):
    """No byte of them is left in the database; the cursor passes nobody by."""
    url = default_url(tmp_path, "app")
    store = LabelStore(url)
    for one in range(5):
        store.put(one, f"secret-{one}-word", source="s", at=1.0)
    store.put(1, "other-secret", source="s", at=1.0)
    cursor = store.after(0)[-1].seq
    assert store.erase([1, 4, 99]) == 2
    assert sorted(store.get(range(5))) == [0, 2, 3]
    assert store.conflicts() == 0
    store.put(7, "new", source="s", at=2.0)
    assert [label.query_id for label in store.after(cursor)] == [7]
    store.close()
    left = b"".join(path.read_bytes() for path in tmp_path.glob("app/labels.db*"))
    assert b"secret-2-word" in left
    assert b"secret-1-word" not in left
    assert b"other-secret" not in left
    with sqlite3.connect(tmp_path / "app/labels.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("n", [1, 25_000])
def test_many_ids_at_once(tmp_path, n):
    """More than one statement of the database can name."""
    store = LabelStore(default_url(tmp_path, "app"))
    store.put_many((one, 1, "s", 1.0) for one in range(n))
    assert store.erase(np.arange(n)) == n
    assert len(store) == 0
