"""Data drift on windows of rows."""

import json

import numpy as np
import pytest

from mlguard.config import DataDriftMonitor
from mlguard.data.profile import Profile
from mlguard.monitors.data_drift import DataDrift
from mlguard.results import MonitorResult, Verdict

KINDS = {"income": "number", "job": "category", "age": "integer"}


def table(rng, n, *, shift=0.0, jobs=("a", "b", "c")):
    return {
        "income": rng.normal(shift, 1, n),
        "job": rng.choice(np.array(jobs, dtype=object), n),
        "age": rng.integers(18, 90, n),
    }


@pytest.fixture
def monitor(app):
    columns = table(np.random.default_rng(0), 4000)
    document = {"profile": Profile.reference(columns, KINDS).to_json()}
    return DataDrift(DataDriftMonitor(), json.loads(json.dumps(document)), app)


def judge(monitor, make_window, columns, **named):
    n = len(columns["income"])
    [found] = monitor.judge(make_window(n, columns=columns, **named))
    assert MonitorResult.from_json(json.loads(json.dumps(found.to_json()))) == found
    return found


def test_like_the_reference(monitor, make_window):
    """A window from the same distribution passes and names the furthest feature."""
    found = judge(monitor, make_window, table(np.random.default_rng(1), 600))
    assert found.verdict is Verdict.PASSED
    assert "none of 3 features moved" in found.summary


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        ({"shift": 1.0}, "income"),
        ({"jobs": ("a", "a", "a", "c")}, "job"),
        ({"jobs": ("a", "b", "c", "new")}, "job"),
    ],
)
def test_a_feature_that_moved_is_named(monitor, make_window, changes, feature):
    """A shifted number, a changed mix and an unseen category each fail, by name."""
    found = judge(monitor, make_window, table(np.random.default_rng(1), 600, **changes))
    assert found.verdict is Verdict.FAILED
    assert found.details["feature"] == feature
    assert found.value > found.limit
    assert found.interval[0] > found.limit


def test_rows_outside_the_sample_say_nothing(monitor, make_window):
    """Where the log keeps the inputs of one row in two, the others are not missing values."""
    columns = table(np.random.default_rng(1), 1600)
    kept = np.arange(1600) % 2 == 0
    for name, values in columns.items():
        emptied = values.astype(object if values.dtype == object else float)
        emptied[~kept] = None if emptied.dtype == object else np.nan
        columns[name] = emptied
    assert judge(monitor, make_window, columns).verdict is Verdict.FAILED
    found = judge(monitor, make_window, columns, inputs_kept=kept)
    assert found.verdict is Verdict.PASSED
    assert found.n == 800


def test_missing_values_are_found(monitor, make_window):
    """A rise of the missing share fails even where what is left looks alike."""
    columns = table(np.random.default_rng(1), 600)
    columns["income"][:150] = np.nan
    found = judge(monitor, make_window, columns)
    assert found.verdict is Verdict.FAILED
    assert "income (missing)" in found.details["drifted"]


def test_a_column_that_vanished_from_the_values(monitor, make_window):
    """A column of nothing but missing values fails as missing."""
    columns = table(np.random.default_rng(1), 600)
    columns["income"][:] = np.nan
    found = judge(monitor, make_window, columns)
    assert found.verdict is Verdict.FAILED
    assert found.details["statistic"] == "share_increase"


@pytest.mark.parametrize("n", [1, 20, 100])
def test_too_few_rows(monitor, make_window, n):
    """Below what the limit asks for the window is undecided, and says how many it needs."""
    found = judge(monitor, make_window, table(np.random.default_rng(1), n))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == "few"
    assert found.n < found.n_min


def test_invalid_requests_are_no_drift(monitor, make_window):
    """Rows that did not pass the request schema are not judged."""
    columns = table(np.random.default_rng(1), 800)
    columns["income"][600:] = 1e9
    found = judge(monitor, make_window, columns, valid=np.arange(800) < 600)
    assert found.verdict is Verdict.PASSED


def test_no_reference_or_no_inputs(monitor, make_window, app):
    """Without one or the other nothing is judged, and it says which."""
    bare = DataDrift(DataDriftMonitor(), {}, app)
    [found] = bare.judge(make_window(100, columns={"income": np.zeros(100)}))
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "no_reference")
    [found] = monitor.judge(make_window(100))
    assert "no logged inputs" in found.summary


def test_false_alarms_are_rare(monitor, make_window):
    """Of 200 windows without drift hardly any fails, over all features together."""
    rng = np.random.default_rng(2)
    found = [judge(monitor, make_window, table(rng, 500)).verdict for _ in range(200)]
    assert found.count(Verdict.FAILED) == 0
    assert found.count(Verdict.PASSED) > 190
