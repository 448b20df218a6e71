"""What runs of errors leave of the promise, and the block that keeps it."""

from itertools import pairwise

import numpy as np
import pytest

from mlguard.stats.run_length import (
    block_correlation,
    block_needed,
    kept_run_length,
    proven_correlation,
)
from mlguard.stats.sequential import lag1_correlation


def chain(p, rho, n, seed=0):
    """Errors of a two-state Markov chain."""
    draws, found, last = np.random.default_rng(seed).random(n), np.empty(n), 0.0
    for t in range(n):
        last = float(draws[t] < p + rho * (last - p))
        found[t] = last
    return found


def test_measured_cells():
    """The cells of the table are given back, and independent losses lose nothing."""
    assert kept_run_length(10_000, 0.2) == pytest.approx(1500)
    assert kept_run_length(1000, 0.5) == pytest.approx(158)
    for rho in (0.0, -0.3, float("nan")):
        assert kept_run_length(100_000, rho) == 100_000


@pytest.mark.parametrize("goal", [100, 1000, 12_345, 1e5, 1e7])
def test_more_correlation_keeps_less(goal):
    """Monotone in rho, between 1 and what was asked; and a longer promise loses more of itself."""
    kept = [kept_run_length(goal, rho) for rho in np.linspace(0, 0.99, 40)]
    assert all(a >= b for a, b in pairwise(kept))
    assert 1 <= kept[-1] <= kept[0] == goal


@pytest.mark.parametrize("rho", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("block", [1, 4, 25])
def test_means_of_blocks_are_less_correlated(rho, block):
    """The closed form against a long chain."""
    found = chain(0.3, rho, 200_000).reshape(-1, block).mean(axis=1)
    assert block_correlation(rho, block) == pytest.approx(lag1_correlation(found), abs=0.03)


def test_the_block_that_is_proposed_keeps_the_promise():
    """And none is proposed where nothing is lost."""
    assert block_needed(10_000, 0.0) == 1
    for rho in (0.1, 0.3, 0.5):
        block = block_needed(10_000, rho)
        assert block > 1
        assert kept_run_length(10_000, rho, block=block) >= 9000


def test_chance_is_no_correlation():
    """Of 300 independent streams at most one shows a correlation; one of 0.2 is seen."""
    rng = np.random.default_rng(5)
    seen = [proven_correlation(lag1_correlation(rng.random(500) < 0.1), 500) for _ in range(300)]
    assert sum(one > 0 for one in seen) <= 3
    assert proven_correlation(lag1_correlation(chain(0.2, 0.3, 2000)), 2000) > 0.2
    assert proven_correlation(0.9, 50) == 0
