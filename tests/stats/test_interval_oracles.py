"""Intervals against scipy, statsmodels, scikit-learn and published worked examples."""

import math

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from mlguard.errors import UsageError
from mlguard.stats.betting import _lower_bound
from mlguard.stats.intervals import (
    BettingSequence,
    Interval,
    PairedTable,
    betting_interval,
    clopper_pearson_interval,
    delong,
    mcnemar_exact,
    mean_interval,
    mover_ratio,
    newcombe_difference,
    newcombe_paired,
    wilson_interval,
)

COUNTS = [(0, 1), (1, 1), (0, 20), (3, 20), (81, 263), (263, 263), (1, 100_000)]


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "n"), COUNTS)
def test_wilson_is_statsmodels_wilson(successes, n, level):
    """Wilson's limits agree with statsmodels at every level, ends included."""
    expected = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    found = wilson_interval(successes, n, confidence_level=level)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_reproduces_newcombe_1998(successes, n, low, high):
    """Newcombe (1998), Stat. Med. 17:857-872, table I, method 3."""
    found = wilson_interval(successes, n)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize(("successes", "n"), COUNTS)
def test_clopper_pearson_is_scipy_exact(successes, n):
    """The exact interval agrees with scipy's."""
    expected = stats.binomtest(successes, n).proportion_ci(method="exact")
    assert clopper_pearson_interval(successes, n) == pytest.approx(tuple(expected), abs=1e-10)


def test_one_sided_bound_is_the_two_sided_one_at_twice_the_error():
    """A one-sided 95 % bound is a bound of the two-sided 90 % interval."""
    for method in (wilson_interval, clopper_pearson_interval):
        both = method(7, 90, confidence_level=0.9)
        assert method(7, 90, side="high") == pytest.approx((0.0, both.high))
        assert method(7, 90, side="low") == pytest.approx((both.low, 1.0))


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((10, 10, 0, 10), 0.6075, 1.0),
    ],
)
def test_difference_reproduces_newcombe_1998(counts, low, high):
    """Newcombe (1998), Stat. Med. 17:873-890, table II, method 10."""
    found = newcombe_difference(*counts)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_difference_is_statsmodels_newcombe():
    """Newcombe's difference agrees with statsmodels."""
    expected = confint_proportions_2indep(30, 200, 55, 210, method="newcomb", compare="diff")
    assert newcombe_difference(30, 200, 55, 210) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("counts", [(56, 70, 48, 80), (7, 34, 1, 34), (4, 16, 1, 25), (0, 9, 5, 9)])
def test_ratio_is_where_the_difference_touches_zero(counts):
    """MOVER-R limits are the ratios r at which the MOVER interval of p1 - r p2 ends at 0."""
    x_1, n_1, x_2, n_2 = counts
    p_1, p_2 = x_1 / n_1, x_2 / n_2
    (l_1, u_1), (l_2, u_2) = wilson_interval(x_1, n_1), wilson_interval(x_2, n_2)

    def lower(r):
        return p_1 - r * p_2 - math.hypot(p_1 - l_1, r * (u_2 - p_2))

    def upper(r):
        return p_1 - r * p_2 + math.hypot(u_1 - p_1, r * (p_2 - l_2))

    found = mover_ratio(*counts)
    ratio = p_1 / p_2
    if l_1 > 0:
        assert found.low == pytest.approx(optimize.brentq(lower, 1e-9, ratio), rel=1e-6)
    else:
        assert found.low == 0
    assert found.high == pytest.approx(optimize.brentq(upper, max(ratio, 1e-9), 1e6), rel=1e-6)


def test_ratio_without_successes_below_is_unbounded():
    """Where the second rate may be 0, the ratio may be anything above."""
    found = mover_ratio(5, 50, 0, 50)
    assert found.high == math.inf
    assert found.low > 0


def test_ratio_of_two_rates_of_zero_says_nothing():
    """Nothing divided by nothing may be anything."""
    assert mover_ratio(0, 50, 0, 50) == (0.0, math.inf)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((35, 14, 0, 1), 0.1461, 0.4175),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((2, 97, 1, 0), 0.8721, 0.9854),
        ((0, 29, 1, 0), 0.6666, 0.9882),
    ],
)
def test_paired_reproduces_newcombe_1998(table, low, high):
    """Newcombe (1998), Stat. Med. 17:2635-2650, table III, method 10."""
    found = newcombe_paired(PairedTable(*table))
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize(("first", "second"), [(12, 2), (0, 0), (5, 5), (0, 9), (1680, 681)])
def test_mcnemar_is_statsmodels_exact(first, second):
    """The exact McNemar test agrees with statsmodels and with the binomial test."""
    found = mcnemar_exact(first, second)
    expected = mcnemar([[9, first], [second, 4]], exact=True).pvalue if first + second else 1.0
    assert found == pytest.approx(expected, rel=1e-9)


def test_paired_table_counts_rows():
    """The four cells add up to the rows, and arrays of other lengths are refused."""
    rng = np.random.default_rng(1)
    first, second = rng.random(200) < 0.7, rng.random(200) < 0.6
    table = PairedTable.count(first, second)
    assert table.n == 200
    assert table.difference == pytest.approx(first.mean() - second.mean())
    assert PairedTable.count(first, first).identical
    with pytest.raises(UsageError, match="paired rows"):
        PairedTable.count(first, second[:-1])


def test_delong_is_the_area_and_its_brute_force_variance():
    """Area as in scikit-learn; variance as the covariance of placements over all pairs."""
    rng = np.random.default_rng(3)
    y = rng.random(300) < 0.3
    a = np.round(y * 0.8 + rng.normal(size=300), 1)
    b = np.round(y * 0.4 + rng.normal(size=300), 1)
    wins = [(one[y][:, None] > one[~y]) + 0.5 * (one[y][:, None] == one[~y]) for one in (a, b)]
    found = delong(y, a, b)
    assert delong(y, a).value == pytest.approx(roc_auc_score(y, a))
    assert found.value == pytest.approx(roc_auc_score(y, a) - roc_auc_score(y, b))
    difference = wins[0] - wins[1]
    variance = difference.mean(axis=1).var(ddof=1) / y.sum()
    variance += difference.mean(axis=0).var(ddof=1) / (~y).sum()
    assert found.interval.width == pytest.approx(2 * 1.959964 * math.sqrt(variance), rel=1e-6)


@pytest.mark.parametrize("side", ["both", "low", "high"])
def test_an_area_without_a_wrong_pair_is_still_not_certain(side):
    """All pairs right, or all wrong: as many trials as the rarer class has rows, exactly."""
    y = np.repeat([False, True], [70, 10])
    for scores, right in ((y, 10), (~y, 0)):
        found = delong(y, scores.astype(float), side=side, confidence_level=0.9)
        assert found.value == right / 10
        alternative = {"both": "two-sided", "low": "greater", "high": "less"}[side]
        expected = stats.binomtest(right, 10, alternative=alternative).proportion_ci(0.9, "exact")
        assert found.interval == pytest.approx((expected.low, expected.high))


def test_delong_refuses_what_has_no_variance():
    """One positive row, other shapes and NaN scores are refused."""
    with pytest.raises(UsageError, match="1 positives"):
        delong([1, 0, 0], [0.1, 0.2, 0.3])
    with pytest.raises(UsageError, match="without NaN"):
        delong([1, 1, 0, 0], [0.1, 0.2, 0.3, math.nan])


def test_mean_of_many_ordinary_losses_is_students():
    """With both tails present the interval is Student's t."""
    x = np.random.default_rng(0).beta(2, 3, 2000)
    expected = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert mean_interval(x) == pytest.approx(tuple(expected), abs=1e-12)


def test_mean_of_zeros_and_ones_is_wilson():
    """A 0/1 loss is a proportion."""
    x = np.repeat([0.0, 1.0], [950, 50])
    assert mean_interval(x) == pytest.approx(wilson_interval(50, 1000))


def test_mean_with_a_missing_tail_is_bounded_by_betting():
    """A few large losses, or none seen yet, leave the normal interval unused."""
    calm = np.linspace(0.0, 0.02, 200)
    assert mean_interval(calm) == betting_interval(calm)
    spiked = np.concatenate((np.linspace(0.0, 0.02, 500), [1.0, 1.0]))
    assert mean_interval(spiked) == betting_interval(spiked)


def test_betting_takes_any_scale_and_any_order():
    """The interval moves with the scale of the values and ignores how a file is sorted."""
    x = np.random.default_rng(5).random(400)
    low, high = betting_interval(x)
    scaled = betting_interval(10 * x - 5, low=-5, high=5)
    assert scaled == pytest.approx((10 * low - 5, 10 * high - 5))
    sorted_interval = betting_interval(np.sort(x))
    assert sorted_interval.width < 2 * (high - low)


def test_betting_on_nothing_but_zeros_still_leaves_room():
    """A sample without a loss bounds the mean from above, near log(1/error)/n."""
    low, high = betting_interval(np.zeros(300))
    assert low == 0
    assert 0.01 < high < 0.03


@pytest.mark.parametrize("bad", [[], [0.5, math.nan], [1.5], [-0.1]])
@pytest.mark.parametrize("method", [mean_interval, betting_interval])
def test_means_refuse_what_is_not_on_the_scale(method, bad):
    """No values, NaN and values outside the bounds are refused, never ignored."""
    with pytest.raises(UsageError):
        method(bad)


@pytest.mark.parametrize("arguments", [(1, 0), (-1, 5), (6, 5)])
@pytest.mark.parametrize("method", [wilson_interval, clopper_pearson_interval])
def test_proportions_refuse_counts_that_do_not_fit(method, arguments):
    """Without rows there is no estimate, so there is no interval either."""
    with pytest.raises(UsageError, match="no sample"):
        method(*arguments)


@pytest.mark.parametrize("level", [0, 1, 95, math.nan])
def test_level_must_be_a_probability(level):
    """95 instead of 0.95 is refused by name."""
    with pytest.raises(UsageError, match="confidence_level"):
        wilson_interval(1, 10, confidence_level=level)


def test_interval_knows_what_it_holds():
    """Bounds belong to the interval; text does not."""
    assert 0.1 in Interval(0.1, 0.2)
    assert "0.1" not in Interval(0.1, 0.2)


def test_betting_without_a_sequence_or_a_table_is_refused():
    """No paired rows, and a scale without cells."""
    with pytest.raises(UsageError, match="no paired rows"):
        newcombe_paired(PairedTable(0, 0, 0, 0))
    for scale in ({"low": 1.0, "high": 0.0}, {"cells": 1}):
        with pytest.raises(UsageError, match="is no scale"):
            BettingSequence(**scale)


def test_a_bound_never_passes_the_mean():
    """Wealth won on the way may rule out the mean itself; the interval still holds it."""
    sorted_down = np.repeat([1.0, 0.0], 60)
    assert _lower_bound(sorted_down, 0.05) == 0.5
