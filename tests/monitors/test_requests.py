"""Requests: rows unlike the reference, and requests that were refused."""

import json

import numpy as np
import pytest

from mlguard.config import RequestsMonitor
from mlguard.data.profile import Profile
from mlguard.monitors.requests import Requests
from mlguard.monitors.window import ProfileWindow
from mlguard.results import Verdict, Window

KINDS = {"age": "number", "job": "category"}
WINDOW = Window(start=0.0, end=1.0, n_rows=300, n_labels=0, generation=1)


def rows(n, seed, **changed):
    rng = np.random.default_rng(seed)
    columns = {"age": rng.normal(40, 9, n), "job": rng.choice(["a", "b", "c"], n).astype(object)}
    return columns | changed


@pytest.fixture
def monitor(app):
    """A monitor on a reference of 1,000 rows, as it comes back from the registry."""
    document = {"profile": Profile.reference(rows(1000, 1), KINDS).to_json()}
    return Requests(RequestsMonitor(), json.loads(json.dumps(document)), app)


def judged(monitor, make_window, columns):
    [found] = monitor.judge(make_window(len(columns["age"]), columns=columns))
    return found


def test_rows_like_the_reference_pass(monitor, make_window):
    """What chance brings is no finding."""
    found = judged(monitor, make_window, rows(500, 2))
    assert (found.id, found.verdict) == ("requests.unusual", Verdict.PASSED)
    assert found.limit == pytest.approx(0.05 + 2 / 1001)


@pytest.mark.parametrize(
    ("column", "bad"),
    [("age", 400.0), ("age", -5.0), ("age", np.nan), ("job", "astronaut"), ("job", None)],
)
def test_every_kind_of_unusual_value_counts(monitor, make_window, column, bad):
    """Out of range on either side, missing where nothing was, never seen: by the row."""
    columns = rows(500, 3)
    columns[column][:100] = bad
    found = judged(monitor, make_window, columns)
    assert found.verdict is Verdict.FAILED
    assert found.value == pytest.approx(0.2, abs=0.01)
    assert found.summary.count(f"{column} 20 %") == 1


def test_a_row_counts_once_however_odd_it_is(monitor, make_window):
    """Two odd values in a row are one unusual row; two rows are two."""
    columns = rows(500, 4)
    columns["age"][:50], columns["job"][:50] = 999.0, "z"
    together = judged(monitor, make_window, columns)
    columns = rows(500, 4)
    columns["age"][:50], columns["job"][50:100] = 999.0, "z"
    apart = judged(monitor, make_window, columns)
    assert apart.value == pytest.approx(together.value + 0.1, abs=1e-9)


def test_missing_values_that_the_reference_has_are_usual(app, make_window):
    """A column that was missing before may be missing now; how often is data_drift's question."""
    before = rows(1000, 5)
    before["age"][:10] = np.nan
    document = {"profile": Profile.reference(before, KINDS).to_json()}
    now = rows(500, 6)
    now["age"][:200] = np.nan
    [found] = Requests(RequestsMonitor(), document, app).judge(make_window(500, columns=now))
    assert found.verdict is Verdict.PASSED


def test_refused_requests_are_held_against_their_limit(monitor):
    """Their share among refused and answered, with an exact interval."""
    profile = monitor.profile.summarise(rows(300, 7))
    for refused, verdict in [(10, Verdict.PASSED), (100, Verdict.FAILED)]:
        _, found = monitor.judge_profile(
            ProfileWindow(version="v1", window=WINDOW, profile=profile, refused=refused)
        )
        assert (found.id, found.verdict) == ("requests.refused", verdict)
        assert found.value == pytest.approx(refused / (300 + refused))


def test_a_version_without_a_reference_is_not_judged(app, make_window):
    """It says so, and what to do."""
    [found] = Requests(RequestsMonitor(), {}, app).judge(make_window(50, columns=rows(50, 8)))
    assert found.verdict is Verdict.SKIPPED
    assert found.next_step == "mlguard deploy loan"
