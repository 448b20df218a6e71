"""How often the comparisons of a rollout err: measured, against what is promised.

Fixed seeds.  A promise "at most alpha" is refuted where the count of errors would come with
probability below 1e-4 if it held; a promise "at least" likewise from below.
"""

import numpy as np
import pytest
from scipy.stats import binom

from mlguard.stats.concurrent import Ceiling, Paired, TwoArms

RUNS, ALPHA, MARGIN = 120, 0.1, 0.02
#: Most and fewest of the runs that are still in line with a rate.
DOUBT = 1e-4


def at_most(rate):
    return binom.isf(DOUBT, RUNS, rate)


def at_least(rate):
    return binom.ppf(DOUBT, RUNS, rate)


def draws(rng, rate, n):
    return (rng.random(n) < rate).astype(float)


def compared(kind, new, other, *, n, seed):
    """Return how many runs were ever called worse, and how many were let through at a look."""
    worse = passed = 0
    for run in range(RUNS):
        rng = np.random.default_rng([seed, run])
        one = kind(margin=MARGIN, alpha=ALPHA, n_min=100)
        let = False
        for _ in range(n // 100):
            if kind is Paired:
                # The same rows: what is hard for the one is mostly hard for the other.
                both = rng.random(100)
                pair = (both < new).astype(float), (both < other).astype(float)
            else:
                pair = draws(rng, new, 100), draws(rng, other, 100)
            one.update(*pair)
            let = let or one.standing.state == "alike"
            if one.standing.state == "worse":
                break
        # A bound that was once passed stays passed: the last look tells of all.
        worse += one.standing.state == "worse"
        passed += let
    return worse, passed


@pytest.mark.parametrize("kind", [TwoArms, Paired])
@pytest.mark.parametrize(("new", "other"), [(0.1, 0.1), (0.12, 0.1), (0.02, 0.0)])
def test_a_version_within_the_margin_is_hardly_ever_called_worse(kind, new, other):
    """Looked at all the time over 600 rows, the false alarms keep alpha, at the margin too."""
    worse, _ = compared(kind, new, other, n=600, seed=1)
    assert worse <= at_most(ALPHA), worse


def test_a_limit_that_is_kept_is_hardly_ever_called_broken():
    """One version alone, exactly at its limit, over 400 rows."""
    broken = 0
    for run in range(RUNS):
        rng = np.random.default_rng([2, run])
        one = Ceiling(limit=0.05, alpha=ALPHA, n_min=20)
        one.update(draws(rng, 0.05, 400))
        broken += one.standing.state == "worse"
    assert broken <= at_most(ALPHA), broken


@pytest.mark.parametrize(("kind", "n"), [(TwoArms, 1200), (Paired, 600)])
def test_a_doubled_loss_is_found(kind, n):
    """0.4 beside 0.2: nearly always proven within the rows stated."""
    worse, _ = compared(kind, 0.4, 0.2, n=n, seed=3)
    assert worse >= at_least(0.95), worse


@pytest.mark.parametrize("kind", [TwoArms, Paired])
def test_a_doubled_loss_is_seldom_let_through(kind):
    """Passing rests on an estimate: of a doubled loss, 0.4, it lets at most 2 % through."""
    _, passed = compared(kind, 0.4, 0.2, n=800, seed=4)
    assert passed <= at_most(0.02), passed


@pytest.mark.parametrize("kind", [TwoArms, Paired])
def test_an_equal_version_gets_through(kind):
    """The estimate of an equal version keeps the margin at some look of the first 800 rows."""
    _, passed = compared(kind, 0.1, 0.1, n=800, seed=5)
    assert passed >= at_least(0.9), passed
