"""How often intervals hold the truth.

Every rate is compared with what is promised inside a binomial band of the simulation: 3.3
standard errors, which one in a thousand correct rates leaves.  Seeds are fixed.

Wilson's and Newcombe's coverage is nominal on average over proportions and may be lower at
single ones, so it is averaged over proportions drawn at random.  Exact and betting intervals
promise their level everywhere, so they are held to it at chosen hard ones.
"""

import math

import numpy as np
import pytest

from mlguard.stats.betting import BettingSequence, betting_interval
from mlguard.stats.delong import delong
from mlguard.stats.interval import critical_value
from mlguard.stats.means import mean_interval
from mlguard.stats.paired import PairedTable, newcombe_paired
from mlguard.stats.proportions import (
    clopper_pearson_interval,
    mover_difference,
    mover_ratio_limits,
    wilson_limits,
)
from mlguard.stats.two_sample import ks_interval, psi_interval

Z = critical_value(0.95)
N = 20_000


def band(rate, n):
    """Half-width of the band around a promised rate over n repetitions."""
    return 3.3 * math.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize("n", [30, 100, 1000])
def test_wilson_covers_on_average(n):
    """95 % over proportions from 0 to 1."""
    rng = np.random.default_rng(n)
    p = rng.random(N)
    low, high = wilson_limits(rng.binomial(n, p), n, Z)
    covered = ((low <= p) & (p <= high)).mean()
    assert covered == pytest.approx(0.95, abs=band(0.95, N) + 0.003)


@pytest.mark.parametrize("p", [0.001, 0.02, 0.3])
def test_clopper_pearson_covers_everywhere(p):
    """At least 95 %, also at rare events."""
    x = np.random.default_rng(1).binomial(200, p, 2000)
    intervals = {int(one): clopper_pearson_interval(int(one), 200) for one in np.unique(x)}
    covered = np.mean([p in intervals[int(one)] for one in x])
    assert covered >= 0.95 - band(0.95, 2000)


@pytest.mark.parametrize(("n_1", "n_2"), [(30, 300), (100, 100), (1000, 400)])
def test_differences_and_ratios_cover_on_average(n_1, n_2):
    """95 % over pairs of proportions; a little more where the two are near an end."""
    rng = np.random.default_rng(n_1 + n_2)
    p_1, p_2 = rng.uniform(0.03, 0.97, (2, N))
    x_1, x_2 = rng.binomial(n_1, p_1), rng.binomial(n_2, p_2)
    first, second = wilson_limits(x_1, n_1, Z), wilson_limits(x_2, n_2, Z)
    low, high = mover_difference(x_1 / n_1, first, x_2 / n_2, second)
    assert 0.945 < ((low <= p_1 - p_2) & (p_1 - p_2 <= high)).mean() < 0.965
    low, high = mover_ratio_limits(x_1 / n_1, first, x_2 / n_2, second)
    assert 0.945 < ((low <= p_1 / p_2) & (p_1 / p_2 <= high)).mean() < 0.965


@pytest.mark.parametrize("agreement", [0.0, 0.6, 0.95])
def test_paired_differences_cover(agreement):
    """95 %, whether the two answers are independent or nearly the same."""
    rng = np.random.default_rng(int(100 * agreement))
    n, repeats, covered = 150, 1500, 0
    for _ in range(repeats):
        p_1, p_2 = rng.uniform(0.6, 0.95, 2)
        first = rng.random(n) < p_1
        second = np.where(rng.random(n) < agreement, first, rng.random(n) < p_2)
        truth = p_1 - (agreement * p_1 + (1 - agreement) * p_2)
        covered += truth in newcombe_paired(PairedTable.count(first, second))
    assert covered / repeats >= 0.95 - band(0.95, repeats)


HARD = {
    "ordinary": (lambda rng, n: rng.beta(2, 5, n), 2 / 7),
    "skewed": (lambda rng, n: rng.beta(0.1, 2, n), 0.1 / 2.1),
    "rare spikes": (
        lambda rng, n: np.where(rng.random(n) < 0.01, 1.0, 0.02 * rng.random(n)),
        0.01 + 0.99 * 0.01,
    ),
    "two points": (lambda rng, n: 0.1 + 0.8 * (rng.random(n) < 0.03), 0.124),
}


@pytest.mark.parametrize("n", [40, 150, 600])
@pytest.mark.parametrize("name", HARD)
def test_means_cover(name, n):
    """At least 95 %, for ordinary losses and for those that break the normal interval."""
    draw, mean = HARD[name]
    rng = np.random.default_rng(n)
    repeats = 400
    covered = sum(mean in mean_interval(draw(rng, n)) for _ in range(repeats))
    assert covered / repeats >= 0.95 - band(0.95, repeats)


@pytest.mark.parametrize("p", [0.005, 0.1, 0.5])
def test_betting_covers_zeros_and_ones(p):
    """At least 95 %, and never more than three times as wide as the normal interval."""
    rng = np.random.default_rng(8)
    n, repeats = 400, 300
    intervals = [betting_interval(rng.random(n) < p) for _ in range(repeats)]
    assert np.mean([p in one for one in intervals]) >= 0.95 - band(0.95, repeats)
    width = np.mean([one.width for one in intervals])
    assert width < 3 * 2 * Z * math.sqrt(p * (1 - p) / n) + 2 / n


def test_a_betting_sequence_covers_at_all_times():
    """Looked at after every batch and stopped when it looks worst, it holds in 95 %."""
    rng = np.random.default_rng(5)
    repeats, wrong = 200, 0
    for _ in range(repeats):
        sequence = BettingSequence(cells=100)
        for _ in range(8):
            low, high = sequence.update(rng.random(100) < 0.2)
        # Bounds only narrow, so the last one has been wrong if any was.
        wrong += not low <= 0.2 <= high
    assert wrong / repeats <= 0.05 + band(0.05, repeats)


def test_delong_covers():
    """95 % for the difference of two areas on the same rows."""
    rng = np.random.default_rng(6)
    repeats, covered = 600, 0
    # Two equally good scores: the areas are equal, whatever they are.
    for _ in range(repeats):
        y = np.arange(300) < 90
        shared = rng.normal(size=300)
        one, other = (y + 0.7 * shared + 0.7 * rng.normal(size=300) for _ in range(2))
        covered += 0.0 in delong(y, one, other).interval
    assert covered / repeats == pytest.approx(0.95, abs=band(0.95, repeats) + 0.005)


@pytest.mark.parametrize("moved", [0.0, 0.15, 0.5])
@pytest.mark.parametrize(("m", "n"), [(2000, 100), (500, 500)])
def test_ks_intervals_cover(moved, m, n):
    """At least 95 %, without drift and with it, on a grid of twenty cells."""
    rng = np.random.default_rng(n)
    p = np.full(20, 0.05)
    q = np.where(np.arange(20) < 10, 0.05 * (1 - 2 * moved), 0.05 * (1 + 2 * moved))
    truth = np.abs(np.cumsum(p - q)).max()
    repeats = 1000
    reference, window = rng.multinomial(m, p, repeats), rng.multinomial(n, q, repeats)
    covered = sum(
        truth in ks_interval(one, other, discrete=True)
        for one, other in zip(reference, window, strict=True)
    )
    assert covered / repeats >= 0.95 - band(0.95, repeats)


@pytest.mark.parametrize("tilt", [0.0, 0.35, 0.6])
@pytest.mark.parametrize(("m", "n"), [(20_000, 500), (1000, 1000)])
def test_psi_intervals_cover(tilt, m, n):
    """About 95 %, at an index of 0, of 0.1 and of 0.4, from the least rows on."""
    rng = np.random.default_rng(n)
    p = np.full(10, 0.1)
    q = np.linspace(1 - tilt, 1 + tilt, 10) / 10
    truth = float(((p - q) * np.log(p / q)).sum())
    repeats = 1000
    reference, window = rng.multinomial(m, p, repeats), rng.multinomial(n, q, repeats)
    covered = sum(
        truth in psi_interval(one, other) for one, other in zip(reference, window, strict=True)
    )
    assert covered / repeats >= 0.95 - band(0.95, repeats) - 0.01
