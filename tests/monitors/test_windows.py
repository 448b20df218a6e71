"""Where windows begin and end, and what is in them."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.data.labels import Label
from mlguard.data.prediction_log import LogSchema, PredictionLog
from mlguard.data.schema import Feature
from mlguard.monitors.window import concat, cut, window_data


def test_a_window_closes_by_rows_or_by_time():
    """Whichever comes first closes it; the rest stays open."""
    times = np.array([0.0, 1, 2, 3, 100, 101])
    assert cut(times, window_s=50, window_rows=3, now=120) == [(0, 3), (3, 4)]
    assert cut(times, window_s=50, window_rows=3, now=151) == [(0, 3), (3, 4), (4, 6)]
    assert cut(times, window_s=50, window_rows=100, now=50) == [(0, 4)]


def test_no_rows_no_window():
    """Time alone closes nothing: an idle app has no windows."""
    assert cut(np.array([]), window_s=1, window_rows=1, now=1e9) == []


@given(
    st.lists(st.floats(0, 1000), max_size=60).map(sorted),
    st.floats(1, 300),
    st.integers(1, 30),
    st.lists(st.floats(0, 2000), max_size=5).map(sorted),
)
def test_when_somebody_looks_makes_no_difference(times, window_s, window_rows, looks):
    """Windows cut at any moments are those cut at the end, in the same places."""
    every = np.array(times)
    whole = cut(every, window_s=window_s, window_rows=window_rows, now=1e9)
    done = []
    for now in [*looks, 1e9]:
        start = done[-1][1] if done else 0
        here = every[start:]
        here = here[here <= now]
        done += [
            (start + a, start + b)
            for a, b in cut(here, window_s=window_s, window_rows=window_rows, now=now)
        ]
    assert done == whole
    assert [b for _, b in whole[:-1]] == [a for a, _ in whole[1:]]


@pytest.fixture
def logged(tmp_path):
    features = (
        Feature("income", "number"),
        Feature("job", "category"),
        Feature("children", "integer"),
        Feature("time", "number"),
    )
    log = PredictionLog(tmp_path)
    writer = log.writer("loan", 1, "p", features)
    writer.append(
        [
            {
                "query_id": place,
                "time": 100.0 + place,
                "generation": 7,
                "default": place == 2,
                "explanation": "the model raised" if place == 2 else None,
                "output": "1" if place != 2 else "None",
                "score": 0.5 if place else None,
                "groups": json.dumps({"sex": "F"}) if place == 1 else None,
                "valid": True,
                "feature:time": 9.0,
                "income": None if place == 1 else 5.0,
                "job": None if place == 1 else "nurse",
                "children": None if place == 1 else 2,
            }
            for place in range(3)
        ]
    )
    writer.close()
    return log.read("loan")


def test_rows_of_the_log_become_arrays(logged):
    """Missing numbers are NaN, missing texts None, answers are parsed, clashing names undone."""
    labels = {1: Label(4, 1, 1, "ann", 200.0)}
    found = window_data(logged, version="v1", labels=labels)
    assert len(found) == 3
    assert found.generation == 7
    np.testing.assert_array_equal(found.columns["income"], [5.0, np.nan, 5.0])
    np.testing.assert_array_equal(found.columns["children"], [2.0, np.nan, 2.0])
    assert found.columns["job"].tolist() == ["nurse", None, "nurse"]
    assert "time" in found.columns
    assert found.output.tolist() == [1, 1, "None"]
    assert found.default.tolist() == [False, False, True]
    assert found.labelled.tolist() == [False, True, False]
    assert found.seq.tolist() == [0, 4, 0]
    assert (found.window.n_rows, found.window.n_labels, found.window.start) == (3, 1, 100.0)


def test_groups_come_from_the_request_or_the_inputs(logged):
    """What the caller named wins over a column; a missing value is no group."""
    found = window_data(logged, version="v1")
    assert found.attribute("sex").tolist() == [None, "F", None]
    assert found.attribute("job").tolist() == ["nurse", None, "nurse"]
    assert found.attribute("income").tolist() == ["5.0", None, "5.0"]


def test_parts_can_be_taken_and_joined(logged):
    """Taking rows apart and joining them gives the same rows."""
    whole = window_data(logged, version="v1")
    again = concat([whole.take(slice(0, 1)), whole.take(np.array([False, True, True]))])
    assert again.query_id.tolist() == whole.query_id.tolist()
    assert again.groups == list(whole.groups)
    assert again.columns["job"].tolist() == whole.columns["job"].tolist()


def test_the_schema_of_an_empty_log_is_enough():
    """No rows have no columns of features."""
    assert LogSchema().arrow.names
    assert isinstance(LogSchema().arrow.empty_table(), pa.Table)
