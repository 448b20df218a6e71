"""Distances and their judgements, against scipy and the shared streams' known figures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from scipy.spatial import distance

from mlguard.errors import UsageError
from mlguard.results import Verdict
from mlguard.stats.distances import ks_most
from mlguard.stats.two_sample import (
    effective_size,
    jensen_shannon,
    judge_drift,
    judge_share_increase,
    ks_distance,
    ks_interval,
    psi,
    psi_interval,
    psi_rows_needed,
    share_increase,
    wasserstein_normed,
)

counts = st.integers(2, 30).flatmap(
    lambda cells: st.tuples(
        *[
            arrays.arrays(np.int64, cells, elements=st.integers(0, 500)).filter(np.any)
            for _ in range(2)
        ]
    )
)


def on_grid(reference, window, cells):
    """Count two samples between the reference's quantiles."""
    edges = np.unique(np.quantile(reference, np.arange(1, cells) / cells))
    return [
        np.bincount(np.searchsorted(edges, one), minlength=edges.size + 1)
        for one in (reference, window)
    ]


@settings(max_examples=40, deadline=None)
@given(counts)
def test_ks_on_single_values_is_scipys(pair):
    """Where every cell is one value, the distance is ks_2samp's."""
    reference, window = (np.repeat(np.arange(one.size), one) for one in pair)
    expected = stats.ks_2samp(reference, window, method="asymp").statistic
    assert ks_distance(*pair) == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("cells", [5, 20, 100])
def test_ks_on_a_grid_brackets_scipys(shift, cells):
    """The grid's distance is a lower bound, with what cells may hide an upper one."""
    rng = np.random.default_rng(int(10 * shift) + cells)
    reference, window = rng.normal(size=4000), rng.normal(shift, 1.3, 700)
    pair = on_grid(reference, window, cells)
    exact = stats.ks_2samp(reference, window).statistic
    assert ks_distance(*pair) <= exact + 1e-12 <= ks_most(*pair) + 2e-12
    masses = [one / one.sum() for one in pair]
    assert ks_most(*pair) <= ks_distance(*pair) + max(one.max() for one in masses) + 1e-12


@settings(max_examples=40, deadline=None)
@given(counts)
def test_jensen_shannon_is_scipys(pair):
    """The distance agrees with scipy's in base 2, and is symmetric."""
    expected = distance.jensenshannon(*[one / one.sum() for one in pair], base=2)
    assert jensen_shannon(*pair) == pytest.approx(expected, abs=1e-7)
    assert jensen_shannon(*pair) == pytest.approx(jensen_shannon(*pair[::-1]))


@settings(max_examples=40, deadline=None)
@given(counts)
def test_wasserstein_is_scipys(pair):
    """Mass moves as far as in scipy, in units of the reference's spread."""
    positions = np.linspace(-3, 5, pair[0].size)
    expected = stats.wasserstein_distance(positions, positions, *pair)
    assert wasserstein_normed(*pair, positions, scale=1.0) == pytest.approx(expected, abs=1e-9)
    spread = np.repeat(positions, pair[0]).std()
    if spread > 1e-9:
        assert wasserstein_normed(*pair, positions) == pytest.approx(expected / spread, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(counts)
def test_psi_is_both_relative_entropies(pair):
    """The index is the sum of both relative entropies of the smoothed shares, symmetric."""
    p, q = ((one + 0.5) / (one + 0.5).sum() for one in pair)
    expected = stats.entropy(p, q) + stats.entropy(q, p)
    assert psi(*pair) == pytest.approx(expected, abs=1e-9)
    assert psi(*pair) == pytest.approx(psi(*pair[::-1]))


@settings(max_examples=40, deadline=None)
@given(counts)
def test_intervals_hold_the_estimate_and_nest(pair):
    """Both intervals hold what was measured and widen with the level."""
    for interval, value in ((ks_interval, ks_distance), (psi_interval, psi)):
        inner, outer = (interval(*pair, confidence_level=level) for level in (0.8, 0.99))
        estimate = value(*pair)
        assert 0 <= outer.low <= inner.low <= estimate + 1e-9
        assert estimate <= inner.high + 1e-9 <= outer.high + 2e-9


@settings(max_examples=40, deadline=None)
@given(counts, st.integers(2, 9))
def test_the_same_shares_are_never_drift(pair, times):
    """A window with the reference's own shares is not drifted, at any size."""
    for statistic in ("ks", "psi"):
        judged = judge_drift(pair[0], times * pair[0], statistic=statistic, tolerance=0.1)
        assert judged.outcome != "drifted"
        assert judged.value == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    ("cells", "limit", "expected"), [(10, 0.2, 210), (2, 0.2, 82), (10, 0.1, 419)]
)
def test_psi_rows_are_a_chi_squared_quantile(cells, limit, expected):
    """Effective rows: 1.5 times the 99.9 % quantile over the limit."""
    assert psi_rows_needed(cells, limit) == expected
    assert expected == math.ceil(1.5 * stats.chi2.isf(0.001, cells - 1) / limit)


@pytest.mark.parametrize("n", [1000, 10_000, 3_000_000])
def test_the_rule_is_the_same_at_every_size(n):
    """A change within the tolerance passes, one beyond it fails, in any number of rows."""
    reference = np.full(50, n // 50 * 10)
    within = np.where(np.arange(50) < 25, 0.96, 1.04) * n / 50
    beyond = np.where(np.arange(50) < 25, 0.6, 1.4) * n / 50
    assert judge_drift(reference, within, tolerance=0.1).verdict is Verdict.PASSED
    assert judge_drift(reference, beyond, tolerance=0.1).outcome == "drifted"


def test_no_p_value_makes_a_small_change_drift():
    """In millions of rows a tiny change is significant to a test, and no drift here."""
    reference, window = np.array([5_000_000, 5_000_000]), np.array([498_000, 502_000])
    assert stats.chi2_contingency([reference, window]).pvalue < 0.001
    for statistic in ("ks", "psi"):
        judged = judge_drift(reference, window, statistic=statistic, tolerance=0.1, discrete=True)
        assert judged.outcome == "equivalent"


def test_a_coarse_grid_proves_no_equivalence():
    """Half of the mass may hide in one cell, so only drift can be proven on it."""
    reference = window = np.array([50_000, 50_000])
    assert judge_drift(reference, window, tolerance=0.1).outcome == "undecided"
    assert judge_drift(reference, window, tolerance=0.1, discrete=True).outcome == "equivalent"


def test_few_rows_are_undecided():
    """A window below the least rows says nothing, however different it looks."""
    reference = np.full(10, 1000)
    window = np.array([20] + [0] * 9)
    judged = judge_drift(reference, window, tolerance=0.1)
    assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "few")
    judged = judge_drift(reference, window * 5, statistic="psi", tolerance=0.2)
    assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "few")
    assert effective_size(10_000, judged.n_needed) >= psi_rows_needed(10, 0.2)


def test_without_support_a_window_says_what_it_needs():
    """The rows asked for are enough for a window that has not moved."""
    reference = np.full(100, 1000)
    judged = judge_drift(reference, np.full(100, 1), tolerance=0.1, n_features=13)
    assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "no_support")
    assert judged.smallest_limit > 0.1
    enough = np.full(100, judged.n_needed // 100 + 1)
    assert judge_drift(reference, enough, tolerance=0.1, n_features=13).verdict is Verdict.PASSED


def test_a_reference_that_is_too_small_is_named():
    """No window makes up for a reference of a few rows."""
    for statistic in ("ks", "psi"):
        judged = judge_drift(
            np.full(10, 4), np.full(10, 10_000), statistic=statistic, tolerance=0.1
        )
        assert judged.verdict is Verdict.INCONCLUSIVE
        assert judged.n_needed is None
        assert judged.n_reference == 40


def test_no_rows_are_undefined():
    """An empty window or reference is undecided, not equivalent."""
    for pair in (([10, 10], [0, 0]), ([0, 0], [10, 10])):
        judged = judge_drift(*pair, tolerance=0.1)
        assert (judged.outcome, judged.reason) == ("undecided", "undefined")
    assert judge_share_increase(0, 0, 5, 10).reason == "undefined"


def test_rare_categories_are_counted_together():
    """Hundreds of rare categories are noise, not drift; a new common one is drift."""
    rng = np.random.default_rng(0)
    shares = np.concatenate(([0.5, 0.3], np.full(200, 0.001)))
    reference = rng.multinomial(20_000, shares)
    window = rng.multinomial(1000, shares)
    judged = judge_drift(reference, window, statistic="psi", tolerance=0.2)
    assert judged.verdict is Verdict.PASSED
    assert psi(reference, window) > 2 * judged.value
    moved = np.concatenate(([0.2, 0.1], np.full(200, 0.0035)))
    window = rng.multinomial(1000, moved)
    assert judge_drift(reference, window, statistic="psi", tolerance=0.2).outcome == "drifted"


def test_unseen_categories_are_drift():
    """A cell that the reference never filled counts as soon as it is not rare."""
    judged = judge_drift([500, 500, 0], [200, 200, 200], statistic="psi", tolerance=0.2)
    assert judged.outcome == "drifted"


def test_more_features_ask_for_more_evidence():
    """Features share one error, so each interval widens."""
    reference, window = np.full(50, 100), np.where(np.arange(50) < 25, 8, 12)
    one = judge_drift(reference, window, tolerance=0.1)
    many = judge_drift(reference, window, tolerance=0.1, n_features=40)
    assert many.interval.low < one.interval.low
    assert many.confidence_level > one.confidence_level == 0.95


def test_shares_that_rise():
    """A rise beyond the tolerance fails, a fall never does, few rows say what they need."""
    assert judge_share_increase(10, 1000, 120, 1000).outcome == "drifted"
    assert judge_share_increase(300, 1000, 0, 1000).outcome == "equivalent"
    assert judge_share_increase(10, 1000, 30, 1000).verdict is Verdict.PASSED
    between = judge_share_increase(10, 1000, 65, 1000)
    assert (between.verdict, between.outcome) == (Verdict.WARNED, "undecided")
    few = judge_share_increase(10, 1000, 2, 60)
    assert (few.verdict, few.reason) == (Verdict.INCONCLUSIVE, "no_support")
    assert few.n_needed > 60
    assert few.smallest_limit > 0.05
    small = judge_share_increase(1, 20, 2, 60)
    assert small.n_needed is None
    assert share_increase(10, 1000, 40, 500).low == pytest.approx(0.0475, abs=1e-3)


def test_counts_that_do_not_fit_are_refused():
    """Other grids, negative counts, NaN and positions that do not rise."""
    for pair in (([1, 2], [1, 2, 3]), ([1, -1], [1, 1]), ([1, math.nan], [1, 1]), ([], [])):
        with pytest.raises(UsageError, match="cells"):
            ks_distance(*pair)
    with pytest.raises(UsageError, match="no rows"):
        psi([0, 0], [1, 1])
    with pytest.raises(UsageError, match="positions"):
        wasserstein_normed([1, 1], [1, 1], [2.0, 1.0])


def test_a_constant_reference_has_no_unit():
    """Where the reference does not vary, any move is infinitely far."""
    assert wasserstein_normed([5, 0], [0, 5], [0.0, 1.0]) == math.inf
    assert wasserstein_normed([5, 0], [9, 0], [0.0, 1.0]) == 0.0


def test_a_monitor_may_ask_for_less_power_than_a_gate():
    """Fewer rows have support where half of the breaches need to show."""
    reference, window = np.full(100, 1000), np.full(100, 1)
    gate = judge_drift(reference, window, tolerance=0.1)
    monitor = judge_drift(reference, window, tolerance=0.1, power=0.5)
    assert monitor.n_needed < gate.n_needed
    gate = judge_share_increase(100, 10_000, 1, 60, tolerance=0.05)
    monitor = judge_share_increase(100, 10_000, 1, 60, tolerance=0.05, power=0.5)
    assert monitor.n_needed is None or monitor.n_needed < gate.n_needed
