"""How often the rule for gaps between groups is right.

Rates are held to what is promised inside a binomial band of 3.3 standard errors; seeds fixed.
"""

import math
from collections import Counter

import numpy as np
import pytest

from mlguard.results import Verdict
from mlguard.stats.groups import Rate, judge_gap, judge_mean_gap
from mlguard.stats.interval import critical_value
from mlguard.stats.multiplicity import sidak
from mlguard.stats.support import pair_rows_needed
from mlguard.stats.two_sample import judge_drift


def band(rate, n):
    """Half-width of the band around a promised rate over n repetitions."""
    return 3.3 * math.sqrt(rate * (1 - rate) / n)


def verdicts(rates, n, repeats, *, seed=0, **policy):
    """Share of each verdict over simulated groups of n rows with these rates."""
    rng = np.random.default_rng(seed)
    found = Counter()
    for hits in rng.binomial(n, rates, (repeats, len(rates))):
        table = {str(index): Rate(int(one), n) for index, one in enumerate(hits)}
        found[judge_gap(table, **policy).verdict] += 1
    return {verdict: found[verdict] / repeats for verdict in Verdict}


@pytest.mark.parametrize("n", [100, 800])
def test_ten_identical_groups_seldom_fail(n):
    """A limit of 0.1 fails at most 5 % of the time, at a tenth of the rows too."""
    found = verdicts([0.3] * 10, n, 60, limit=0.1)
    assert found[Verdict.FAILED] <= 0.05


@pytest.mark.parametrize("limit", [0.0001, 0.02])
def test_ten_identical_groups_fail_at_most_at_the_family_error(limit):
    """Even a limit near zero fails at most `family_error` of the time."""
    repeats = 2000
    found = verdicts([0.3] * 10, 300, repeats, limit=limit, decide="proof")
    assert found[Verdict.FAILED] <= 0.05 + band(0.05, repeats)


@pytest.mark.parametrize(("rate", "n"), [(0.1, 260), (0.3, 400), (0.5, 460)])
def test_two_identical_groups_with_support_are_let_through(rate, n):
    """Blocked (failed or undecided) at most 1 % of the time."""
    repeats = 400
    found = verdicts([rate] * 2, n, repeats, limit=0.1, seed=1)
    blocked = found[Verdict.FAILED] + found[Verdict.INCONCLUSIVE]
    assert blocked <= 0.01 + band(0.01, repeats)


@pytest.mark.parametrize("n_groups", [2, 3])
def test_a_gap_of_twice_the_limit_fails(n_groups):
    """With the rows that give support, at least 80 % of the time."""
    level = 1 - sidak(0.05, n_groups * (n_groups - 1) // 2)
    n = pair_rows_needed(0.4, limit=0.1, z=critical_value(level))
    repeats = 500
    rates = [0.3, 0.5, *[0.4] * (n_groups - 2)]
    found = verdicts(rates, n, repeats, limit=0.1, seed=2)
    assert found[Verdict.FAILED] >= 0.8 - band(0.8, repeats)
    assert found[Verdict.WARNED] <= 0.2 + band(0.2, repeats)
    assert found[Verdict.PASSED] <= 0.01


def test_a_ratio_twice_as_bad_as_the_limit_fails():
    """With the rows that give support, at least 80 % of the time."""
    n = pair_rows_needed(0.4, limit=0.8, z=critical_value(0.95), aggregate="ratio")
    repeats = 500
    found = verdicts([0.3, 0.5], n, repeats, limit=0.8, aggregate="ratio", seed=3)
    assert found[Verdict.FAILED] >= 0.8 - band(0.8, repeats)


def test_tiny_samples_neither_pass_nor_fail_by_luck():
    """Forty rows a group are undecided, whether the groups differ a little or not at all."""
    for rates in ([0.3, 0.3], [0.25, 0.35]):
        found = verdicts(rates, 40, 60, limit=0.1, seed=4)
        assert found[Verdict.PASSED] == 0
        assert found[Verdict.FAILED] <= 0.05


def test_mean_gaps_keep_both_promises():
    """Equal means are let through, means two limits apart fail, with the rows asked for."""
    rng = np.random.default_rng(5)
    repeats, n = 200, 300
    alike = apart = 0
    for _ in range(repeats):
        base = rng.beta(2, 5, (2, n))
        alike += judge_mean_gap({"f": base[0], "m": base[1]}, limit=0.05, scale=1.0).verdict is (
            Verdict.PASSED
        )
        moved = {"f": base[0] + 0.1, "m": base[1]}
        apart += judge_mean_gap(moved, limit=0.05, scale=1.1).verdict is Verdict.FAILED
    assert alike / repeats >= 0.99 - band(0.99, repeats)
    assert apart / repeats >= 0.8 - band(0.8, repeats)


@pytest.mark.parametrize("statistic", ["ks", "psi"])
@pytest.mark.parametrize("n_features", [1, 13])
def test_drift_monitors_keep_both_promises(statistic, n_features):
    """Windows without drift seldom fail; drift of twice the tolerance fails with support."""
    rng = np.random.default_rng(6)
    cells, repeats = (50, 300) if statistic == "ks" else (10, 300)
    tolerance = 0.1 if statistic == "ks" else 0.2
    p = np.full(cells, 1 / cells)
    # Mass moved from the lower to the upper half: KS of 0.2, and PSI of 0.4.
    share = 0.4 if statistic == "ks" else 0.59
    q = p * np.where(np.arange(cells) < cells / 2, 1 - share, 1 + share)
    reference = np.round(p * 50_000)
    policy = {"statistic": statistic, "tolerance": tolerance, "n_features": n_features}
    n = judge_drift(reference, np.ones(cells), **policy).n_needed
    calm = [judge_drift(reference, one, **policy).verdict for one in rng.multinomial(n, p, repeats)]
    assert calm.count(Verdict.PASSED) / repeats >= 0.99 - band(0.99, repeats)
    moved = [
        judge_drift(reference, one, **policy).verdict for one in rng.multinomial(n, q, repeats)
    ]
    assert moved.count(Verdict.FAILED) / repeats >= 0.8 - band(0.8, repeats)


@pytest.mark.soak
@pytest.mark.parametrize(("n_groups", "n"), [(5, 630), (10, 800)])
def test_many_groups_keep_both_promises(n_groups, n):
    """With the rows that give support: two apart fail, all alike are let through."""
    repeats = 600
    rates = [0.3, 0.5, *[0.4] * (n_groups - 2)]
    apart = verdicts(rates, n, repeats, limit=0.1, seed=7)
    assert apart[Verdict.FAILED] >= 0.78 - band(0.8, repeats)
    assert apart[Verdict.PASSED] <= 0.01
    # Support comes and goes with the pooled rate just at the rows it needs.
    alike = verdicts([0.4] * n_groups, int(1.1 * n), repeats, limit=0.1, seed=8)
    assert alike[Verdict.FAILED] <= 0.01
    assert alike[Verdict.INCONCLUSIVE] <= 0.02
