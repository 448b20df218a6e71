"""Could the data have shown a breach?  Power, and the sample sizes that follow from it.

A small sample that stays within a limit has shown nothing, so a check may only pass unproven
where it has *support*: if the truth were twice as bad as the limit, the lower bound would have
exceeded the limit with probability of at least 0.8.

What "twice as bad" means, for a limit

- on the gap between two rates: a gap of twice the limit around the pooled rate, moved inside
  [0, 1] as a whole where it would stick out;
- on the ratio of two rates: a ratio as far again from 1 as the limit is, around the pooled rate;
- on one rate or one mean loss: twice the limit.

The power of a pair is computed from the binomial distributions themselves: for representative
outcomes of one group the outcome of the other from which the interval breaches is found by
bisection, and its exact probability is averaged.  That costs milliseconds, holds near rates of
0 and 1, and is vectorised over pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from mlguard.stats.interval import FloatArray
from mlguard.stats.proportions import mover_difference, mover_ratio_limits, wilson_limits

Aggregate: TypeAlias = Literal["difference", "ratio"]

#: Probability with which a breach of twice the limit must show.
POWER = 0.8
#: Standard normal quantile of that probability.
POWER_Z = float(special.ndtri(POWER))
#: Sample size beyond which nobody is told "about so many rows would tell".
MOST_ROWS = 10_000_000
_OUTCOMES = 48
#: Distance from the power that counts within which the normal approximation decides nothing.
_DOUBT = 0.12
#: Hits and misses that it needs in each group.
_NORMAL_COUNT = 25


def breached_rates(
    pooled: npt.ArrayLike, limit: float, aggregate: Aggregate = "difference"
) -> tuple[FloatArray, FloatArray]:
    """Return the two rates of a breach twice as bad as the limit, the higher one first.

    Parameters
    ----------
    pooled : array_like
        Rate of both groups together, in [0, 1].
    limit : float
        Largest gap, or smallest ratio, in [0, 1].
    aggregate : {"difference", "ratio"}, default "difference"
        What the limit is about.

    Returns
    -------
    higher, lower : ndarray
        Rates in [0, 1].

    Examples
    --------
    >>> [float(rate) for rate in breached_rates(0.5, 0.125)]
    [0.625, 0.375]
    >>> [float(rate) for rate in breached_rates(0.0, 0.125)]
    [0.25, 0.0]
    """
    p = np.asarray(pooled, float)
    if aggregate == "difference":
        half = min(limit, 0.5)
        centre = np.clip(p, half, 1 - half)
        return centre + half, centre - half
    ratio = max(0.0, 1 - 2 * (1 - limit))
    higher = np.minimum(2 * p / (1 + ratio), 1.0)
    return higher, ratio * higher


def pair_power(
    n_high: npt.ArrayLike,
    n_low: npt.ArrayLike,
    higher: npt.ArrayLike,
    lower: npt.ArrayLike,
    *,
    limit: float,
    z: float,
    aggregate: Aggregate = "difference",
) -> FloatArray:
    """Return the probability that the interval of a pair breaches the limit, elementwise.

    Parameters
    ----------
    n_high, n_low : array_like of int
        Rows in the denominators of the group with the higher and with the lower rate.
    higher, lower : array_like of float
        True rates.
    limit : float
        Largest gap, or smallest ratio, that is allowed.
    z : float
        Critical value of the intervals.
    aggregate : {"difference", "ratio"}, default "difference"
        Breach: lower bound of the difference above the limit, or upper bound of the ratio
        ``lower / higher`` below it.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> power = pair_power(320, 320, 0.4, 0.2, limit=0.1, z=1.96)
    >>> bool(0.79 < power < 0.83)
    True
    """
    arrays = np.broadcast_arrays(n_high, n_low, higher, lower)
    n_1, n_2, p_1, p_2 = (np.asarray(one, float)[..., None] for one in arrays)
    # Equally likely outcomes stand for the distribution of the higher group's successes.
    share = (np.arange(_OUTCOMES) + 0.5) / _OUTCOMES
    x_1 = _binomial_quantile(share, n_1, p_1)
    q_1 = x_1 / n_1
    limits_1 = wilson_limits(x_1, n_1, z)

    def breaches(x_2: FloatArray) -> npt.NDArray[np.bool_]:
        q_2 = x_2 / n_2
        limits_2 = wilson_limits(x_2, n_2, z)
        if aggregate == "difference":
            return mover_difference(q_1, limits_1, q_2, limits_2)[0] > limit
        return mover_ratio_limits(q_2, limits_2, q_1, limits_1)[1] < limit

    # The fewer successes the lower group has, the clearer the breach.
    most = _last_true(breaches, np.broadcast_to(n_2, x_1.shape))
    below = special.bdtr(np.maximum(most, 0.0), np.broadcast_to(n_2, x_1.shape).astype(int), p_2)
    power: FloatArray = np.where(most >= 0, below, 0.0).mean(axis=-1)
    return power


def _binomial_quantile(share: FloatArray, n: FloatArray, p: FloatArray) -> FloatArray:
    """Return the smallest counts whose cumulative probability reaches ``share``.

    A guess with the distribution's skewness, moved to the exact count in steps of one: scipy's
    inverse is ten times slower, and this is where the time goes.
    """
    n, p, share = np.broadcast_arrays(n, p, share)
    trials = n.astype(int)
    spread = np.sqrt(n * p * (1 - p))
    z = special.ndtri(share)
    guess = n * p + spread * z + (1 - 2 * p) * (z * z - 1) / 6
    count = np.clip(np.rint(guess), 0.0, n)
    while bool(np.any(short := special.bdtr(count, trials, p) < share)):
        count = np.where(short, count + 1, count)
    while bool(
        np.any(over := (count > 0) & (special.bdtr(np.maximum(count - 1, 0), trials, p) >= share))
    ):
        count = np.where(over, count - 1, count)
    return count


def _last_true(
    condition: Callable[[FloatArray], npt.NDArray[np.bool_]], n: FloatArray
) -> FloatArray:
    """Return the largest count in 0..n for which a falling condition holds; -1 for none."""
    true, false = np.full(n.shape, -1.0), n + 1.0
    while bool(np.any(false - true > 1)):
        middle = np.floor((true + false) / 2)
        inside = np.clip(middle, 0.0, n)
        holds = condition(inside) & (middle >= 0) & (middle <= n)
        true, false = np.where(holds, middle, true), np.where(holds, false, middle)
        # Converged elements keep their bounds.
        false = np.maximum(false, true + 1)
    return true


def pair_support(
    n_1: npt.ArrayLike,
    n_2: npt.ArrayLike,
    pooled: npt.ArrayLike,
    *,
    limit: float,
    z: float,
    aggregate: Aggregate = "difference",
) -> FloatArray:
    """Return the probability that a breach of twice the limit would show, elementwise.

    Parameters
    ----------
    n_1, n_2 : array_like of int
        Rows in the two denominators; whichever group is the worse one, the lesser power counts.
    pooled : array_like of float
        Rate of both groups together.
    limit : float
        Largest gap, or smallest ratio, that is allowed.
    z : float
        Critical value of the intervals.
    aggregate : {"difference", "ratio"}, default "difference"
        What the limit is about.

    Returns
    -------
    ndarray
        At least :data:`POWER` where the data has support.

    Examples
    --------
    >>> power = pair_support([109, 500], [200, 500], 0.3, limit=0.1, z=1.96)
    >>> [bool(one >= POWER) for one in power]
    [False, True]
    """
    n_a, n_b, p = np.broadcast_arrays(n_1, n_2, pooled)
    higher, lower = breached_rates(p, limit, aggregate)
    power = pair_power(
        np.stack((n_a, n_b)),
        np.stack((n_b, n_a)),
        higher,
        lower,
        limit=limit,
        z=z,
        aggregate=aggregate,
    )
    lesser: FloatArray = power.min(axis=0)
    return lesser


def pair_support_of_many(
    n_1: npt.ArrayLike,
    n_2: npt.ArrayLike,
    pooled: npt.ArrayLike,
    *,
    limit: float,
    z: float,
    aggregate: Aggregate = "difference",
) -> FloatArray:
    """Return :func:`pair_support` of many pairs, exact for those that are in doubt.

    Where the normal approximation holds and is far from the power that counts, it is returned
    itself: on which side of it a pair lies is the same.

    Parameters
    ----------
    n_1, n_2, pooled, limit, z, aggregate
        As in :func:`pair_support`.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> n = [40, 500, 5000]
    >>> power = pair_support_of_many(n, n, 0.3, limit=0.1, z=1.96)
    >>> [bool(one >= POWER) for one in power]
    [False, True, True]
    """
    n_a, n_b, p = (np.atleast_1d(one) for one in np.broadcast_arrays(n_1, n_2, pooled))
    higher, lower = breached_rates(p, limit, aggregate)
    found = np.ones(p.shape)
    counted = np.full(p.shape, np.inf)
    for high_n, low_n in ((n_a, n_b), (n_b, n_a)):
        spread = higher * (1 - higher) / high_n, lower * (1 - lower) / low_n
        # A ratio breaches where `lower - limit * higher` lies below 0.
        factor = 1.0 if aggregate == "difference" else limit
        distance = higher - lower - limit if aggregate == "difference" else limit * higher - lower
        variance = factor**2 * spread[0] + spread[1]
        power = special.ndtr(distance / np.sqrt(np.maximum(variance, 1e-300)) - z)
        found = np.minimum(found, power)
        for n, rate in ((high_n, higher), (low_n, lower)):
            counted = np.minimum(counted, n * np.minimum(rate, 1 - rate))
    doubt = (np.abs(found - POWER) < _DOUBT) | (counted < _NORMAL_COUNT)
    if doubt.any():
        found[doubt] = pair_support(
            n_a[doubt], n_b[doubt], p[doubt], limit=limit, z=z, aggregate=aggregate
        )
    return found


def pair_rows_needed(
    pooled: float, *, limit: float, z: float, aggregate: Aggregate = "difference"
) -> int | None:
    """Return the least rows in each of two groups that give support, to two digits.

    Parameters
    ----------
    pooled : float
        Rate of both groups together.
    limit : float
        Largest gap, or smallest ratio, that is allowed.
    z : float
        Critical value of the intervals.
    aggregate : {"difference", "ratio"}, default "difference"
        What the limit is about.

    Returns
    -------
    int or None
        None where no number of rows up to :data:`MOST_ROWS` is enough.

    Examples
    --------
    >>> pair_rows_needed(0.3, limit=0.1, z=1.96)
    330
    """

    def power(n: int) -> float:
        return float(pair_support(n, n, pooled, limit=limit, z=z, aggregate=aggregate))

    return least_rows(power)


def pair_rows_to_tell(
    higher: float,
    lower: float,
    *,
    limit: float,
    z: float,
    aggregate: Aggregate = "difference",
) -> int | None:
    """Return the rows in each of two groups that would prove a breach, if the rates are these.

    Parameters
    ----------
    higher, lower : float
        The rates, taken as true.
    limit, z, aggregate
        As in :func:`pair_power`.

    Returns
    -------
    int or None
        To two digits; None where no number of rows up to :data:`MOST_ROWS` is enough.

    Examples
    --------
    >>> pair_rows_to_tell(0.40, 0.25, limit=0.1, z=1.96)
    1400
    """

    def power(n: int) -> float:
        return float(pair_power(n, n, higher, lower, limit=limit, z=z, aggregate=aggregate))

    return least_rows(power)


def least_rows(shown: Callable[[int], float], *, power: float = POWER) -> int | None:
    """Return the smallest sample size with enough power, rounded up to two digits.

    Power rises with the sample size but for the steps of counting, so bisection finds a size
    that is near the least one, and what is told is a size that has the power itself.

    Parameters
    ----------
    shown : callable
        From a sample size to the probability that a breach shows.
    power : float, default 0.8
        Probability that is enough.

    Returns
    -------
    int or None
        None where :data:`MOST_ROWS` is not enough.

    Examples
    --------
    >>> least_rows(lambda n: n / 1000)
    800
    """
    if shown(MOST_ROWS) < power:
        return None
    few, enough = 1, MOST_ROWS
    while enough - few > 1:
        # In the logarithm while the bounds are far apart, by halves when they are near.
        middle = math.isqrt(few * enough) if enough > 4 * few else (few + enough) // 2
        few, enough = (few, middle) if shown(middle) >= power else (middle, enough)
    told = two_digits(enough)
    while shown(told) < power:
        told = two_digits(told + 1)
    return told


def two_digits(n: int) -> int:
    """Return a count rounded up to two digits, as people are told it.

    Examples
    --------
    >>> two_digits(317), two_digits(96), two_digits(12345)
    (320, 96, 13000)
    """
    step: int = 10 ** max(0, len(str(n)) - 2)
    return -(-n // step) * step


def smallest_limit(supported: Callable[[float], bool], *, worst: float = 0.5) -> float | None:
    """Return the tightest limit that data could judge, rounded up to a hundredth.

    Parameters
    ----------
    supported : callable
        Whether the data has support for a limit; it rises with the limit.
    worst : float, default 0.5
        Loosest limit tried; twice as much is the end of the scale.

    Returns
    -------
    float or None
        None where even ``worst`` has no support.

    Examples
    --------
    >>> smallest_limit(lambda limit: limit > 0.173)
    0.18
    """
    steps = round(100 * worst)
    few, enough = 0, steps
    if not supported(worst):
        return None
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if supported(middle / 100) else (middle, enough)
    return enough / 100


def rate_power(n: int, rate: float, *, limit: float, z: float) -> float:
    """Return the probability that the lower bound of one rate exceeds a limit.

    Parameters
    ----------
    n : int
        Rows.
    rate : float
        True rate.
    limit : float
        Largest rate that is allowed.
    z : float
        Critical value of the interval.

    Returns
    -------
    float

    Examples
    --------
    >>> round(rate_power(1000, 0.02, limit=0.01, z=1.96), 2)
    0.78
    """
    low, high = -1, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        over = float(wilson_limits(middle, n, z)[0]) > limit
        low, high = (low, middle) if over else (middle, high)
    return 0.0 if high > n else 1.0 - (float(special.bdtr(high - 1.0, n, rate)) if high else 0.0)


def rate_support(n: int, *, limit: float, z: float) -> float:
    """Return the probability that a rate of twice the limit would show.

    Examples
    --------
    >>> rate_support(100, limit=0.01, z=1.96) < POWER < rate_support(2000, limit=0.01, z=1.96)
    True
    """
    return rate_power(n, min(1.0, 2 * limit), limit=limit, z=z)


def rate_rows_needed(*, limit: float, z: float) -> int | None:
    """Return the least rows that give support to a limit on one rate.

    Examples
    --------
    >>> rate_rows_needed(limit=0.01, z=1.96)
    960
    """
    return least_rows(lambda n: rate_support(n, limit=limit, z=z))


def mean_support(standard_error: float, *, limit: float, z: float) -> float:
    """Return the probability that an estimate of twice the limit would show, if it is normal.

    Parameters
    ----------
    standard_error : float
        Of the estimate, at least 0.
    limit : float
        Largest value that is allowed.
    z : float
        Critical value of the interval.

    Returns
    -------
    float

    Examples
    --------
    >>> mean_support(0.1, limit=0.1, z=1.96) < POWER < mean_support(0.03, limit=0.1, z=1.96)
    True
    """
    if standard_error == 0:
        return 1.0
    return float(special.ndtr(limit / standard_error - z))
