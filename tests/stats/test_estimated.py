"""Performance estimated from scores: against enumeration, sklearn and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from mlguard.stats.estimated import (
    ESTIMATED,
    calibrate,
    estimate_performance,
    realised_performance,
)

ORACLES = {"accuracy": accuracy_score, "f1": f1_score}


@pytest.mark.parametrize("metric", ESTIMATED)
def test_realised_figures_are_sklearns(metric):
    """The figure that an estimate is held against is the textbook's, ties included."""
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 12, 400) / 11
    truth = rng.random(400) < scores
    answered = scores >= 0.5
    expected = roc_auc_score(truth, scores) if metric == "auc" else ORACLES[metric](truth, answered)
    assert realised_performance(truth, answered, scores, metric) == pytest.approx(expected)


def test_accuracy_is_the_mean_over_all_labellings():
    """Every possible labelling of six rows, weighed by its probability: mean and deviation."""
    p = np.array([0.1, 0.4, 0.5, 0.7, 0.9, 0.95])
    answered = p >= 0.5
    weights, values = [], []
    for labels in itertools.product([False, True], repeat=len(p)):
        y = np.array(labels)
        weights.append(float(np.prod(np.where(y, p, 1 - p))))
        values.append(realised_performance(y, answered, p))
    found = estimate_performance(p, answered)
    mean = np.average(values, weights=weights)
    assert found.value == pytest.approx(mean)
    assert found.error == pytest.approx(
        math.sqrt(np.average((values - mean) ** 2, weights=weights))
    )


@pytest.mark.parametrize("metric", ["f1", "auc"])
def test_others_are_the_mean_and_deviation_of_drawn_labels(metric):
    """For 800 rows, whose labels are drawn 2,000 times from their scores."""
    rng = np.random.default_rng(5)
    p = rng.beta(1.2, 1.8, 800).round(2)
    answered = p >= 0.5
    draws = [realised_performance(rng.random(800) < p, answered, p, metric) for _ in range(2000)]
    found = estimate_performance(p, answered, metric)
    assert found.value == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / math.sqrt(2000))
    assert found.error == pytest.approx(np.std(draws), rel=0.08)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.sampled_from(ESTIMATED))
def test_an_estimate_is_a_share_or_nothing(scores, metric):
    """Whatever the scores: a figure in [0, 1], or NaN where it is not defined."""
    found = estimate_performance(scores, np.array(scores) >= 0.5, metric)
    assert found.n == len(scores)
    if not math.isnan(found.value):
        assert -1e-9 <= found.value <= 1 + 1e-9
        low, high = found.interval(0.95)
        assert 0 <= low <= high <= 1


def test_nothing_is_estimated_from_nothing():
    """No rows, or one certain class only: no figure rather than a guess."""
    assert math.isnan(estimate_performance([], [], "accuracy").value)
    assert math.isnan(estimate_performance([1.0, 1.0], [True, True], "auc").value)
    assert math.isnan(estimate_performance([0.0], [False], "f1").value)


@pytest.mark.parametrize("bad", [[-0.1], [1.1], [math.nan]])
def test_what_is_no_probability_is_refused(bad):
    """A logit is no chance."""
    with pytest.raises(ValueError, match="probability"):
        estimate_performance(bad, [True])


def test_calibrated_scores_stay_as_they_are_and_others_are_mapped():
    """Squared scores claim too little; the map brings back what they mean."""
    rng = np.random.default_rng(8)
    p = rng.random(4000)
    truth = rng.random(4000) < p
    assert calibrate(p, truth).calibrated
    assert calibrate(p, truth).probabilities([0.3]) == pytest.approx([0.3])
    wrong = calibrate(p**2, truth)
    assert not wrong.calibrated
    assert wrong.probabilities(p**2) == pytest.approx(p, abs=0.12)
    # A margin has no scale at all.
    margin = calibrate(np.log(p / (1 - p)), truth)
    assert not margin.calibrated
    assert margin.probabilities([-9.0, 0.0, 9.0]) == pytest.approx([0, 0.5, 1], abs=0.1)


def test_spiegelhalters_statistic_is_that_of_the_paper():
    """By its definition: sum (y - s)(1 - 2 s), over its standard deviation."""
    s, y = np.array([0.2, 0.6, 0.9]), np.array([False, True, True])
    top = (0 - 0.2) * 0.6 + (1 - 0.6) * -0.2 + (1 - 0.9) * -0.8
    below = math.sqrt(0.36 * 0.16 + 0.04 * 0.24 + 0.64 * 0.09)
    assert calibrate(s, y).z == pytest.approx(top / below)
