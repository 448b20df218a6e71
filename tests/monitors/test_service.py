"""Model errors, default answers, and versions that load nowhere."""

import numpy as np
import pytest

from mlguard.config import ServiceMonitor
from mlguard.monitors.service import CRASH_S, Service, judge_crashes, judge_load
from mlguard.results import Verdict

LATE = "Failed to retrieve a prediction response within the specified latency SLO"


def judge(make_window, app, n, n_default, *, explanation="the model raised", **named):
    default = np.arange(n) < n_default
    window = make_window(
        n,
        default=default,
        explanation=[explanation if one else None for one in default],
        **named,
    )
    return {one.id: one for one in Service(ServiceMonitor(), {}, app).judge(window)}


@pytest.mark.parametrize(
    ("n", "n_default", "verdict"),
    [
        (500, 0, Verdict.PASSED),
        (500, 4, Verdict.PASSED),
        (500, 8, Verdict.WARNED),
        (500, 30, Verdict.FAILED),
        (20, 20, Verdict.FAILED),
        (19, 19, Verdict.INCONCLUSIVE),
        (1, 1, Verdict.INCONCLUSIVE),
    ],
)
def test_model_errors(make_window, app, n, n_default, verdict):
    """The share of model errors is judged by its interval, from twenty rows on."""
    found = judge(make_window, app, n, n_default)
    assert found["service.model_errors"].verdict is verdict


def test_a_cause_is_told_once(make_window, app):
    """Late answers are default answers and no model errors; model errors are not both."""
    late = judge(make_window, app, 100, 50, explanation=LATE)
    assert late["service.model_errors"].verdict is Verdict.PASSED
    assert late["service.default_ratio"].verdict is Verdict.FAILED
    raised = judge(make_window, app, 100, 50)
    assert raised["service.model_errors"].verdict is Verdict.FAILED
    assert raised["service.default_ratio"].verdict is Verdict.PASSED


def test_a_bad_client_is_no_model_error(make_window, app):
    """Rows that did not pass the request schema are the caller's."""
    found = judge(make_window, app, 100, 50, valid=np.arange(100) >= 50)
    assert found["service.model_errors"].value == 0
    assert found["service.model_errors"].n == 50


def test_looks_are_paid_for(make_window, app):
    """A look at an open window needs more evidence than the closed window would."""
    monitor = Service(ServiceMonitor(), {}, app)
    assert monitor.looks == (20, 40, 80, 160, 320)
    default = np.arange(20) < 2
    window = make_window(20, default=default, explanation=["raised"] * 20)
    assert monitor.judge(window)[0].verdict is Verdict.FAILED
    assert monitor.look(window)[0].verdict is Verdict.WARNED


def test_loading():
    """A version fails where no server could load it, not where one of two could not."""
    assert judge_load("v2", {}, 0) is None
    assert judge_load("v2", {"a": "no such type"}, 2).verdict is Verdict.PASSED
    failed = judge_load("v2", {"a": "no such type"}, 1)
    assert failed.verdict is Verdict.FAILED
    assert "no such type" in failed.summary


def crashes(*times, since=0.0, now=1000.0, limit=3):
    told = [(at, "The model's process died") for at in times]
    return judge_crashes("v2", told, limit=limit, since=since, now=now, generation=4)


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ((), Verdict.PASSED),
        ((990.0,), Verdict.WARNED),
        ((800.0, 990.0), Verdict.WARNED),
        ((800.0, 900.0, 990.0), Verdict.FAILED),
        # Three, and never three within five minutes.
        ((300.0, 620.0, 940.0), Verdict.WARNED),
        # The watcher was away: it is over, and it happened.
        ((100.0, 200.0, 300.0), Verdict.FAILED),
        # The server's clock is ahead of the watcher's.
        ((1100.0, 1200.0, 1300.0), Verdict.FAILED),
    ],
)
def test_crashes(times, verdict):
    """Three deaths within any five minutes that nobody has judged yet are a failure."""
    found = crashes(*times)
    assert found.verdict is verdict
    assert found.window.generation == 4
    assert (found.n or 0) >= (found.n_min or 0)


def test_crashes_that_were_judged_are_not_judged_again():
    """What an earlier look has seen fails no later one by itself, but counts with a new death."""
    old = (700.0, 705.0, 710.0)
    assert crashes(*old, since=720.0, now=720.0 + CRASH_S).verdict is Verdict.PASSED
    assert crashes(*old, 900.0, since=720.0).verdict is Verdict.FAILED
    assert crashes(*old, 900.0, since=720.0, limit=5).verdict is Verdict.WARNED
