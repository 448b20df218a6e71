"""Power: against enumeration, and against what the interval really does."""

import numpy as np
import pytest
from scipy import stats

from mlguard.stats.interval import critical_value
from mlguard.stats.multiplicity import sidak
from mlguard.stats.proportions import mover_difference, mover_ratio_limits, wilson_limits
from mlguard.stats.support import (
    POWER,
    breached_rates,
    least_rows,
    mean_support,
    pair_power,
    pair_rows_needed,
    pair_rows_to_tell,
    pair_support,
    pair_support_of_many,
    rate_power,
    rate_rows_needed,
    rate_support,
    smallest_limit,
)

Z = critical_value(0.95)


def enumerated(  # noqa: PLR0917 - the parameters of one case
    n_high, n_low, higher, lower, limit, aggregate
):
    """Power over all pairs of outcomes."""
    x_1, x_2 = np.arange(n_high + 1)[:, None], np.arange(n_low + 1)
    first, second = wilson_limits(x_1, n_high, Z), wilson_limits(x_2, n_low, Z)
    p_1, p_2 = x_1 / n_high, x_2 / n_low
    if aggregate == "difference":
        breach = mover_difference(p_1, first, p_2, second)[0] > limit
    else:
        breach = mover_ratio_limits(p_2, second, p_1, first)[1] < limit
    chance = stats.binom.pmf(x_1, n_high, higher) * stats.binom.pmf(x_2, n_low, lower)
    return float((chance * breach).sum())


@pytest.mark.parametrize(
    ("n_high", "n_low", "higher", "lower", "limit", "aggregate"),
    [
        (320, 320, 0.4, 0.2, 0.1, "difference"),
        (109, 200, 0.4, 0.2, 0.1, "difference"),
        (200, 109, 0.2, 0.0, 0.1, "difference"),
        (40, 40, 1.0, 0.6, 0.2, "difference"),
        (30, 600, 0.55, 0.35, 0.1, "difference"),
        (470, 470, 0.375, 0.225, 0.8, "ratio"),
        (100, 300, 0.6, 0.2, 0.5, "ratio"),
    ],
)
def test_power_is_the_enumerated_one(  # noqa: PLR0917 - the parameters of one case
    n_high, n_low, higher, lower, limit, aggregate
):
    """Representative outcomes come within a hundredth of all outcomes."""
    found = pair_power(n_high, n_low, higher, lower, limit=limit, z=Z, aggregate=aggregate)
    expected = enumerated(n_high, n_low, higher, lower, limit, aggregate)
    assert float(found) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("n", "rate", "limit"), [(1000, 0.02, 0.01), (50, 0.2, 0.1), (30, 1.0, 0.5)]
)
def test_rate_power_is_the_enumerated_one(n, rate, limit):
    """The power of one rate is a binomial tail."""
    x = np.arange(n + 1)
    expected = stats.binom.pmf(x, n, rate)[wilson_limits(x, n, Z)[0] > limit].sum()
    assert rate_power(n, rate, limit=limit, z=Z) == pytest.approx(expected)


def test_power_of_a_rate_that_can_never_breach():
    """Too few rows for any outcome to prove a breach have no power."""
    assert rate_power(1, 1.0, limit=0.9, z=Z) == 0.0


@pytest.mark.parametrize(
    ("n_groups", "pooled", "expected"),
    [(2, 0.3, 330), (2, 0.4, 380), (3, 0.4, 500), (5, 0.4, 630), (10, 0.4, 800)],
)
def test_rows_needed(n_groups, pooled, expected):
    """Rows a group that were simulated for a limit of 0.1, at Sidak's level over all pairs."""
    level = 1 - sidak(0.05, n_groups * (n_groups - 1) // 2)
    assert pair_rows_needed(pooled, limit=0.1, z=critical_value(level)) == expected


@pytest.mark.parametrize("aggregate", ["difference", "ratio"])
def test_a_breach_is_twice_as_bad_as_the_limit(aggregate):
    """The pair of rates lies in [0, 1] and has the gap that it stands for."""
    limit = 0.1 if aggregate == "difference" else 0.9
    pooled = np.linspace(0.01, 0.99, 99)
    higher, lower = breached_rates(pooled, limit, aggregate)
    assert np.all((lower >= 0) & (higher <= 1))
    if aggregate == "difference":
        assert higher - lower == pytest.approx(np.full(99, 0.2))
    else:
        assert lower / higher == pytest.approx(np.full(99, 0.8))


def test_limits_beyond_a_half_stay_on_the_scale():
    """Twice a limit above one half is the whole scale."""
    higher, lower = breached_rates(0.5, 0.7)
    assert (float(higher), float(lower)) == (1.0, 0.0)


def test_support_takes_the_worse_of_both_directions():
    """Which of two unequal groups is worse off does not matter."""
    one = pair_support(60, 400, 0.2, limit=0.1, z=Z)
    assert one == pytest.approx(pair_support(400, 60, 0.2, limit=0.1, z=Z))


def test_rows_needed_are_enough():
    """With the rows asked for there is support, with a tenth fewer there is none."""
    for pooled in (0.0, 0.05, 0.3, 0.9):
        n = pair_rows_needed(pooled, limit=0.1, z=Z)
        assert float(pair_support(n, n, pooled, limit=0.1, z=Z)) >= POWER - 0.01
        fewer = int(0.85 * n)
        assert float(pair_support(fewer, fewer, pooled, limit=0.1, z=Z)) < POWER


def test_what_no_data_could_show_needs_no_rows():
    """A ratio of rates that are both 0, or a breach that does not exist, has no sample size."""
    assert pair_rows_needed(0.0, limit=0.8, z=Z, aggregate="ratio") is None
    assert pair_rows_to_tell(0.3, 0.25, limit=0.1, z=Z) is None
    assert least_rows(lambda n: 0.5) is None
    assert smallest_limit(lambda limit: False) is None


def test_rows_to_tell_grow_as_the_breach_shrinks():
    """A small breach takes more rows to prove than a large one."""
    small = pair_rows_to_tell(0.42, 0.3, limit=0.1, z=Z)
    large = pair_rows_to_tell(0.6, 0.3, limit=0.1, z=Z)
    assert small > 10 * large


def test_support_of_one_rate_grows_with_the_rows():
    """The rows asked for are enough, half of them are not."""
    n = rate_rows_needed(limit=0.05, z=Z)
    assert rate_support(n, limit=0.05, z=Z) >= POWER > rate_support(n // 2, limit=0.05, z=Z)


def test_a_mean_without_spread_has_support():
    """Where nothing varies, one row shows everything."""
    assert mean_support(0.0, limit=0.1, z=Z) == 1.0


def test_power_of_a_million_rows_is_quick_and_certain():
    """Cost does not grow with the rows."""
    assert float(pair_power(10**6, 10**6, 0.4, 0.2, limit=0.1, z=Z)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("aggregate", "limit"), [("difference", 0.02), ("difference", 0.2), ("ratio", 0.8)]
)
@pytest.mark.parametrize("z", [1.96, 3.2])
def test_the_support_of_many_pairs_is_that_of_each(aggregate, limit, z):
    """What is approximated lies on the same side of the power that counts."""
    random = np.random.default_rng(1)
    n_1, n_2 = np.exp(random.uniform(np.log(40), np.log(20_000), (2, 300))).astype(int)
    rates = random.uniform(0.02, 0.98, 300)
    asked = {"limit": limit, "z": z, "aggregate": aggregate}
    exact = pair_support(n_1, n_2, rates, **asked)
    quick = pair_support_of_many(n_1, n_2, rates, **asked)
    assert ((exact >= POWER) == (quick >= POWER)).all()
    assert (exact != quick).any()
    assert np.abs(exact - quick)[exact != quick].max() < 0.25
