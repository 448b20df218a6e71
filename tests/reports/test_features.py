"""Drift per feature: what is counted, what is drawn, and who is not named."""

import numpy as np
import pytest

from mlguard.config import DataDriftMonitor
from mlguard.data.profile import Profile
from mlguard.reports.features import feature_drift
from mlguard.reports.traffic import Traffic
from mlguard.results import Verdict


def traffic(**columns):
    n = len(next(iter(columns.values())))
    nothing = np.full(n, None, dtype=object)
    return Traffic(
        time=np.arange(n, dtype=float), version=np.full(n, "v1", dtype=object),
        default=np.zeros(n, bool), valid=np.ones(n, bool), labelled=np.zeros(n, bool),
        output=nothing, label=nothing, score=np.full(n, np.nan), latency_ms=np.full(n, np.nan),
        explanation=nothing, groups=[{}] * n,
        columns={name: [np.asarray(one)] for name, one in columns.items()}, features={},
    )  # fmt: skip


def judge(before, now, kind):
    reference = {
        "profile": Profile.reference({"x": before}, {"x": kind}).to_json(),
        "kinds": {"x": kind},
    }
    found = feature_drift(reference, traffic(x=now), DataDriftMonitor())
    return found[0] if found else None


def texts(*values):
    return np.array(values, dtype=object)


def test_a_person_is_not_named_by_a_chart():
    """Categories of fewer than ten rows are drawn together, without their names."""
    before = texts(*["car"] * 500, *[f"person {place}" for place in range(60)])
    found = judge(before, texts(*["car"] * 300, "person 3", "somebody new"), "category")
    assert set(found.chart.labels) == {"car", "(rare values)", "(new values)"}
    assert sum(found.chart.reference) == pytest.approx(1)
    assert sum(found.chart.current) == pytest.approx(1)


def test_missing_values_that_came_are_the_finding():
    """A feature whose values stay alike but go missing is told by its missing share."""
    random = np.random.default_rng(0)
    before, now = random.normal(size=3000), random.normal(size=1500)
    now[:600] = np.nan
    found = judge(before, now, "number")
    assert found.measure == "missing"
    assert found.figure.verdict is Verdict.FAILED
    assert "rose from 0 % to 40 %" in found.figure.summary


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (np.ones(100), np.ones(100)),
        (np.ones(100), np.full(100, 7.0)),
        (np.arange(100.0), np.full(5, np.nan)),
        (np.full(100, np.nan), np.arange(100.0)),
        (np.arange(1000.0), np.array([1e300, -1e300, np.inf])),
        (np.array([0.0, 1.0] * 500), np.array([0.0, 1.0, 2.0] * 100)),
    ],
)
def test_strange_columns_are_judged_or_left_out(before, now):
    """Constant, empty, infinite and far away: a verdict, and an outline that adds up."""
    found = judge(before, now, "number")
    assert found.figure.verdict in tuple(Verdict)
    if found.chart is not None:
        assert np.all(np.diff(found.chart.edges) > 0)
        assert sum(found.chart.current) == pytest.approx(1)


def test_times_are_compared_as_times():
    """The log has text, the reference has seconds; both are the same moments."""
    days = np.arange("2026-01-01", "2026-11-01", dtype="datetime64[D]").astype("datetime64[ns]")
    text = texts(*(f"{one}Z" for one in days.astype("datetime64[s]")))
    assert judge(days, text, "time").figure.value == pytest.approx(0.0)


def test_what_cannot_be_compared_is_left_out():
    """Text where the reference has numbers is no drift figure, and no crash."""
    assert judge(np.arange(100.0), texts("a", "b", "c"), "number") is None


def test_without_a_reference_there_is_nothing_to_compare():
    """No reference, no verdict."""
    assert feature_drift(None, traffic(x=np.ones(3)), DataDriftMonitor()) == ()
