"""Performance estimated without labels: how often the realised figure lies where it was said."""

import numpy as np
import pytest
from scipy import stats

from mlguard.stats.estimated import ESTIMATED, estimate_performance, realised_performance

REPETITIONS, ROWS, LEVEL = 600, 400, 0.95


@pytest.mark.parametrize("metric", ESTIMATED)
def test_the_realised_figure_lies_in_the_interval_at_the_stated_rate(metric):
    """Labels drawn from calibrated scores of changing shape: 95 %, give or take chance."""
    rng = np.random.default_rng(20)
    inside = 0
    for _ in range(REPETITIONS):
        scores = rng.beta(*rng.uniform(0.5, 3, 2), ROWS)
        answered = scores >= 0.5
        truth = rng.random(ROWS) < scores
        low, high = estimate_performance(scores, answered, metric).interval(LEVEL)
        inside += low <= realised_performance(truth, answered, scores, metric) <= high
    # A false alarm of this test in one seed of a thousand, and 1 % for the linearisation.
    least, most = stats.binom.ppf([5e-4, 1 - 5e-4], REPETITIONS, [LEVEL - 0.01, LEVEL + 0.01])
    assert least <= inside <= most


def test_concept_drift_goes_unnoticed():
    """Where labels stop following the scores, the interval misses nearly always."""
    rng = np.random.default_rng(21)
    inside = 0
    for _ in range(100):
        scores = rng.beta(0.6, 0.6, ROWS)
        answered = scores >= 0.5
        truth = (rng.random(ROWS) < scores) ^ (rng.random(ROWS) < 0.3)
        low, high = estimate_performance(scores, answered).interval(LEVEL)
        inside += low <= realised_performance(truth, answered, scores) <= high
    assert inside <= 2
