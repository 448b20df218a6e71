"""Estimated performance: what scores alone can tell, and what they cannot."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mlguard.config import EstimatedPerformanceMonitor
from mlguard.monitors.estimated_performance import EstimatedPerformance, Hindsight
from mlguard.results import Verdict
from mlguard.stats.estimated import (
    ESTIMATED,
    calibrate,
    estimate_performance,
    realised_performance,
)


def drawn(n, seed, *, sure=0.6):
    """Return scores and labels that follow them; ``sure`` below 1 pushes scores apart."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(sure, sure, n)
    return scores, rng.random(n) < scores


@pytest.fixture(scope="module")
def reference():
    """Reference of a calibrated version, as the gate writes it."""
    scores, truth = drawn(4000, 1)
    calibration = calibrate(scores, truth)
    answered = scores >= 0.5
    figures = {
        metric: {
            "value": realised_performance(truth, answered, scores, metric),
            "error": estimate_performance(scores, answered, metric).error,
        }
        for metric in ESTIMATED
    }
    return {
        "classes": [0, 1],
        "estimation": {"calibration": calibration.to_json(), "figures": figures},
    }


def window(make_window, scores, truth=None):
    answers = (scores >= 0.5).astype(int).tolist()
    label = None if truth is None else truth.astype(int).tolist()
    return make_window(len(scores), output=answers, label=label, score=scores)


@pytest.mark.parametrize("metric", ESTIMATED)
def test_as_on_the_test_data_passes(make_window, app, reference, metric):
    """And the interval that is shown holds the figure that the labels would give."""
    scores, truth = drawn(1000, 2)
    monitor = EstimatedPerformance(EstimatedPerformanceMonitor(metric=metric), reference, app)
    [found] = monitor.judge(window(make_window, scores))
    assert found.verdict is Verdict.PASSED
    assert found.id == "estimated_performance.estimate"
    realised = realised_performance(truth, scores >= 0.5, scores, metric)
    low, high = found.interval
    assert low <= realised <= high
    if metric == "auc":
        assert realised == pytest.approx(roc_auc_score(truth, scores))


@pytest.mark.parametrize("metric", ESTIMATED)
def test_inputs_on_which_the_model_is_unsure_fail(make_window, app, reference, metric):
    """Scores near a half are right half the time, and no label is needed to know it."""
    scores, _ = drawn(500, 3, sure=8)
    monitor = EstimatedPerformance(EstimatedPerformanceMonitor(metric=metric), reference, app)
    [found] = monitor.judge(window(make_window, scores))
    assert found.verdict is Verdict.FAILED
    assert found.value < found.limit


def test_concept_drift_is_not_seen_until_labels_come(make_window, app, reference):
    """The same scores, and every second label turned round: the estimate says all is well."""
    scores, truth = drawn(1000, 4)
    turned = truth ^ (np.arange(1000) % 2 == 0)
    rows = window(make_window, scores, turned)
    [estimated] = EstimatedPerformance(EstimatedPerformanceMonitor(), reference, app).judge(rows)
    assert estimated.verdict is Verdict.PASSED
    [found] = Hindsight(EstimatedPerformanceMonitor(), reference, app).judge(rows)
    assert found.verdict is Verdict.WARNED
    assert found.reason == "outside_interval"
    assert "no longer mean" in found.summary
    assert found.value < 0.6 < estimated.value


@pytest.mark.parametrize("metric", ESTIMATED)
def test_hindsight_confirms_a_right_estimate(make_window, app, reference, metric):
    """Labels that follow the scores lie in the interval."""
    monitor = Hindsight(EstimatedPerformanceMonitor(metric=metric), reference, app)
    [found] = monitor.judge(window(make_window, *drawn(1000, 6)))
    assert found.verdict is Verdict.PASSED


def test_scores_that_were_not_calibrated_are_mapped_first(make_window, app):
    """A model that claims too little gets the estimate that its test data supports."""
    scores, truth = drawn(4000, 7)
    reference = {
        "classes": ["no", "yes"],
        "estimation": {
            "calibration": calibrate(scores**3, truth).to_json(),
            "figures": {"accuracy": {"value": 0.8, "error": 0.006}},
        },
    }
    fresh, fresh_truth = drawn(2000, 8)
    answers = np.where(fresh**3 >= 0.5, "yes", "no")
    monitor = EstimatedPerformance(EstimatedPerformanceMonitor(), reference, app)
    [found] = monitor.judge(make_window(2000, output=answers.tolist(), score=fresh**3))
    assert found.details["scores"] == "mapped to what they meant"
    realised = np.mean((answers == "yes") == fresh_truth)
    assert found.value == pytest.approx(realised, abs=0.03)
    raw = estimate_performance(fresh**3, answers == "yes").value
    assert abs(raw - realised) > 0.05


def test_few_rows_and_no_scores_are_no_verdict(make_window, app, reference):
    """Undecided below the least number of rows, skipped where nothing can be estimated."""
    monitor = EstimatedPerformance(EstimatedPerformanceMonitor(), reference, app)
    [few] = monitor.judge(window(make_window, drawn(20, 9)[0]))
    assert (few.verdict, few.reason, few.n_min) == (Verdict.INCONCLUSIVE, "few", 30)
    [bare] = EstimatedPerformance(EstimatedPerformanceMonitor(), {}, app).judge(
        window(make_window, drawn(100, 9)[0])
    )
    assert bare.verdict is Verdict.SKIPPED


def test_an_estimate_can_never_be_told_to_move_traffic():
    """``freeze`` is the highest level that app.toml may give it."""
    with pytest.raises(ValueError, match="freeze"):
        EstimatedPerformanceMonitor(action="rollback")
    assert EstimatedPerformanceMonitor().action == "freeze"
