"""Model errors, default answers, and versions that load nowhere."""

import numpy as np
import pytest

from mlguard.config import ServiceMonitor
from mlguard.monitors.service import Service, judge_load
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
