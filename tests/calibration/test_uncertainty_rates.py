"""How often conformal sets, calibration errors, quantiles and group comparisons hold the truth.

Held to the same bands as the other intervals: 3.3 standard errors of the simulation.
"""

import math

import numpy as np
import pytest

from mlguard.checks.baseline_groups import judge_groups
from mlguard.checks.side_by_side import Answers
from mlguard.results import Verdict
from mlguard.stats.composites import calibration_figure, judge_composite_gap
from mlguard.stats.conformal import conformal_threshold
from mlguard.stats.delong import delong
from mlguard.stats.quantiles import quantile_interval


def band(rate, n):
    """Half-width of the band around a promised rate over n repetitions."""
    return 3.3 * math.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [20, 99, 400])
def test_conformal_intervals_cover(n, coverage):
    """Residuals with heavy tails: at least what is promised, at most one row in n + 1 more."""
    rng = np.random.default_rng(n)
    repeats = 4000
    strange = np.abs(rng.standard_t(2, size=(repeats, n + 1)))
    held = [row[-1] <= conformal_threshold(row[:-1], coverage) for row in strange]
    found = np.mean(held)
    assert found >= coverage - band(coverage, repeats)
    assert found <= coverage + 1 / (n + 1) + band(coverage, repeats)


def test_conformal_sets_cover_whatever_the_model():
    """Four classes, a model whose probabilities are badly off: the sets still cover."""
    rng = np.random.default_rng(11)
    repeats, n, k = 3000, 60, 4
    truth = rng.integers(0, k, size=(repeats, n + 1))
    logits = rng.normal(size=(repeats, n + 1, k))
    np.put_along_axis(
        logits, truth[..., None], np.take_along_axis(logits, truth[..., None], 2) + 1.0, 2
    )
    # Four times too sure of itself.
    shares = np.exp(4 * logits)
    shares /= shares.sum(axis=2, keepdims=True)
    strange = 1 - np.take_along_axis(shares, truth[..., None], 2)[..., 0]
    held = [row[-1] <= conformal_threshold(row[:-1], 0.9) for row in strange]
    assert 0.9 - band(0.9, repeats) <= np.mean(held) <= 0.9 + 1 / (n + 1) + band(0.9, repeats)


@pytest.mark.parametrize("boast", [0.0, 0.15])
def test_calibration_errors_are_covered(boast):
    """A calibrated model and one that is off by up to 15 points: 95 %, or more near zero."""
    rng = np.random.default_rng(5)
    repeats, n, covered = 200, 1500, 0
    # The true error by the same ten classes, from a sample so large that it has no error left.
    score = rng.beta(2, 2, 2_000_000)
    rate = np.clip(score - boast * (score - 0.5) * 2, 0, 1)
    place = np.minimum((score * 10).astype(int), 9)
    off = np.bincount(place, rate - score, minlength=10)
    truth = np.abs(off).sum() / len(score)
    for _ in range(repeats):
        score = rng.beta(2, 2, n)
        rate = np.clip(score - boast * (score - 0.5) * 2, 0, 1)
        happened = rng.random(n) < rate
        figure = calibration_figure(happened, score, np.zeros(n, int), ["all"])
        judged = judge_composite_gap(
            figure, limit=0.5, aggregate="group_max", family_error=0.05, confidence_level=0.95
        )
        covered += truth in judged.interval
    assert covered / repeats >= 0.95 - band(0.95, repeats)


@pytest.mark.parametrize(("n", "q"), [(400, 0.99), (50, 0.5), (1000, 0.99)])
def test_quantiles_are_covered(n, q):
    """At least 95 %, whatever the distribution: only ranks count."""
    rng = np.random.default_rng(n)
    repeats = 2000
    values = rng.exponential(size=(repeats, n))
    truth = -math.log(1 - q)
    held = np.mean([truth in quantile_interval(row, q) for row in values])
    assert held >= 0.95 - band(0.95, repeats)
    assert held <= 0.995


def test_an_area_is_covered():
    """DeLong's interval of one area, at a separation where the area is known in closed form."""
    rng = np.random.default_rng(6)
    repeats, covered = 800, 0
    truth = 0.5 * (1 + math.erf(1.2 / 2))  # Phi(shift / sqrt 2) of two normals 1.2 apart
    for _ in range(repeats):
        y = np.arange(300) < 90
        covered += truth in delong(y, 1.2 * y + rng.normal(size=300)).interval
    assert covered / repeats == pytest.approx(0.95, abs=band(0.95, repeats) + 0.01)


def test_groups_that_are_alike_are_seldom_called_worse():
    """Five groups in which both are equally good: a group fails by luck in at most 5 %."""
    rng = np.random.default_rng(8)
    repeats, n, wrong, outside = 400, 1000, 0, 0
    group = np.arange(n) % 5
    parts = {f"g={place}": group == place for place in range(5)}
    for _ in range(repeats):
        y = np.ones(n, int)
        ours, theirs = (rng.random((2, n)) < 0.85).astype(int)
        every = np.ones(n, bool)
        found = Answers(
            candidate="ours",
            baseline="theirs",
            target="y",
            metric="accuracy",
            truth=y,
            ours=ours,
            theirs=theirs,
            usable=every,
            other_usable=every,
        )
        judged = judge_groups(
            found, parts, check="baseline.no_worse_in", limit=0.0, min_group_size=30
        )
        wrong += judged.verdict is Verdict.FAILED
        outside += any(not one.low <= 0 <= one.high for one in judged.measurements)
    # Five two-sided intervals together: a miss of any in 5 %, half of them on the losing side.
    assert outside / repeats <= 0.05 + band(0.05, repeats)
    assert wrong / repeats <= 0.025 + band(0.025, repeats)
