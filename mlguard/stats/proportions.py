"""Intervals for proportions, and for the difference and ratio of two of them.

Wilson's limits are the building block.  Two independent estimates are combined by MOVER, the
method of variance estimates recovery: the distance from each estimate to its own limit stands
for its uncertainty on that side, so skewness near 0 and 1 is kept.  The ``*_limits`` functions
take and give arrays, the others plain numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from mlguard.errors import UsageError
from mlguard.stats.interval import FloatArray, Interval, Side, critical_value, tail_error


def wilson_limits(
    successes: npt.ArrayLike, n: npt.ArrayLike, z: float
) -> tuple[FloatArray, FloatArray]:
    """Wilson score limits at the critical value ``z``, elementwise.

    Parameters
    ----------
    successes, n : array_like of float
        Counts that broadcast together, ``0 <= successes <= n``, ``n > 0``.
    z : float
        Standard normal quantile.

    Returns
    -------
    low, high : ndarray
        Ratios in [0, 1]; exactly 0 without successes and exactly 1 without failures.

    Examples
    --------
    >>> low, high = wilson_limits([0, 81], [20, 263], 1.959964)
    >>> [f"{value:.4f}" for value in (*low, *high)]
    ['0.0000', '0.2553', '0.1611', '0.3662']
    """
    x, total = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    scale = total + z * z
    centre = (x + z * z / 2) / scale
    half = z / scale * np.sqrt(x * (total - x) / total + z * z / 4)
    low = np.where(x <= 0, 0.0, np.maximum(centre - half, 0.0))
    high = np.where(x >= total, 1.0, np.minimum(centre + half, 1.0))
    return low, high


def wilson_interval(
    successes: float, n: float, *, confidence_level: float = 0.95, side: Side = "both"
) -> Interval:
    """Wilson score interval of a binomial proportion.

    Parameters
    ----------
    successes : float
        Number of positive outcomes, ``0 <= successes <= n``.
    n : float
        Number of independent trials, at least 1.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).
    side : {"both", "low", "high"}, default "both"
        Which bound carries the error; the other one is then 0 or 1.

    Returns
    -------
    Interval
        Ratios in [0, 1].  No continuity correction: coverage holds on average over
        proportions, and may be a little lower at single ones.

    Raises
    ------
    UsageError
        If ``n < 1`` (without rows there is no estimate) or the counts do not fit.

    References
    ----------
    Wilson (1927), J. Am. Stat. Assoc. 22:209-212; Newcombe (1998), Stat. Med. 17:857-872,
    method 3.

    Examples
    --------
    >>> low, high = wilson_interval(81, 263)
    >>> f"{low:.4f} {high:.4f}"
    '0.2553 0.3662'
    """
    _check_counts(successes, n)
    low, high = wilson_limits(successes, n, critical_value(confidence_level, side))
    return _one_sided(float(low), float(high), side)


def clopper_pearson_interval(
    successes: int, n: int, *, confidence_level: float = 0.95, side: Side = "both"
) -> Interval:
    """Clopper-Pearson ("exact") interval of a binomial proportion.

    Coverage is never below ``confidence_level``; the price is width.

    Parameters
    ----------
    successes, n : int
        Positive outcomes among ``n`` independent trials.
    confidence_level : float, default 0.95
        Least coverage, in (0, 1).
    side : {"both", "low", "high"}, default "both"
        Which bound carries the error.

    Returns
    -------
    Interval
        Ratios in [0, 1].

    Raises
    ------
    UsageError
        If ``n < 1`` or the counts do not fit.

    References
    ----------
    Clopper and Pearson (1934), Biometrika 26:404-413.

    Examples
    --------
    >>> low, high = clopper_pearson_interval(81, 263)
    >>> f"{low:.4f} {high:.4f}"
    '0.2527 0.3676'
    """
    _check_counts(successes, n)
    error = tail_error(confidence_level, side)
    low = 0.0 if successes <= 0 else special.betaincinv(successes, n - successes + 1, error)
    high = 1.0 if successes >= n else special.betaincinv(successes + 1, n - successes, 1 - error)
    return _one_sided(float(low), float(high), side)


def mover_difference(
    first: npt.ArrayLike,
    first_limits: tuple[npt.ArrayLike, npt.ArrayLike],
    second: npt.ArrayLike,
    second_limits: tuple[npt.ArrayLike, npt.ArrayLike],
) -> tuple[FloatArray, FloatArray]:
    """Limits of ``first - second`` for independent estimates of anything, elementwise.

    Parameters
    ----------
    first, first_limits : array_like, tuple of array_like
        An estimate and its ``(low, high)``.
    second, second_limits : array_like, tuple of array_like
        The other one, its limits at the same level.

    Returns
    -------
    low, high : ndarray

    References
    ----------
    Zou and Donner (2008), Stat. Med. 27:1693-1702.

    Examples
    --------
    >>> low, high = mover_difference(0.5, (0.3, 0.7), 0.4, (0.25, 0.55))
    >>> f"{low:.2f} {high:.2f}"
    '-0.15 0.35'
    """
    p1, p2 = np.asarray(first, float), np.asarray(second, float)
    (l1, u1), (l2, u2) = _as_arrays(first_limits), _as_arrays(second_limits)
    low = p1 - p2 - np.hypot(p1 - l1, u2 - p2)
    high = p1 - p2 + np.hypot(u1 - p1, p2 - l2)
    return low, high


def newcombe_difference(
    successes_1: float,
    n_1: float,
    successes_2: float,
    n_2: float,
    *,
    confidence_level: float = 0.95,
    side: Side = "both",
) -> Interval:
    """Newcombe's hybrid score interval of the difference of two independent proportions.

    Parameters
    ----------
    successes_1, n_1, successes_2, n_2 : float
        Counts of the two samples, each ``n`` at least 1.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).
    side : {"both", "low", "high"}, default "both"
        Which bound carries the error.

    Returns
    -------
    Interval
        Bounds on ``p_1 - p_2``, in [-1, 1].

    Raises
    ------
    UsageError
        If a sample is empty or its counts do not fit.

    References
    ----------
    Newcombe (1998), Stat. Med. 17:873-890, method 10.

    Examples
    --------
    >>> low, high = newcombe_difference(56, 70, 48, 80)
    >>> f"{low:.4f} {high:.4f}"
    '0.0524 0.3339'
    """
    _check_counts(successes_1, n_1)
    _check_counts(successes_2, n_2)
    z = critical_value(confidence_level, side)
    low, high = mover_difference(
        successes_1 / n_1,
        wilson_limits(successes_1, n_1, z),
        successes_2 / n_2,
        wilson_limits(successes_2, n_2, z),
    )
    return _one_sided(float(low), float(high), side, lowest=-1.0, highest=1.0)


def mover_ratio_limits(
    first: npt.ArrayLike,
    first_limits: tuple[npt.ArrayLike, npt.ArrayLike],
    second: npt.ArrayLike,
    second_limits: tuple[npt.ArrayLike, npt.ArrayLike],
) -> tuple[FloatArray, FloatArray]:
    """Limits of ``first / second`` for independent non-negative estimates, elementwise.

    The limits are the ratios ``r`` at which the MOVER interval of ``first - r * second`` just
    touches 0.

    Parameters
    ----------
    first, first_limits : array_like, tuple of array_like
        An estimate and its ``(low, high)``, at least 0.
    second, second_limits : array_like, tuple of array_like
        The other one, its limits at the same level.

    Returns
    -------
    low, high : ndarray
        ``high`` is ``inf`` where the second may be 0.

    References
    ----------
    Donner and Zou (2012), Stat. Methods Med. Res. 21:347-359.

    Examples
    --------
    >>> low, high = mover_ratio_limits(0.2, (0.1, 0.3), 0.4, (0.3, 0.5))
    >>> f"{low:.3f} {high:.3f}"
    '0.243 0.824'
    """
    p1, p2 = np.asarray(first, float), np.asarray(second, float)
    (l1, u1), (l2, u2) = _as_arrays(first_limits), _as_arrays(second_limits)
    product = p1 * p2
    # Written with the root in the denominator of the lower limit: the textbook form divides
    # 0 by 0 where the second estimate is half its own upper limit.
    upper_2 = u2 * (2 * p2 - u2)
    lower_2 = l2 * (2 * p2 - l2)
    lower_1 = l1 * (2 * p1 - l1)
    upper_1 = u1 * (2 * p1 - u1)
    divisor = product + np.sqrt(np.maximum(product**2 - lower_1 * upper_2, 0.0))
    low = np.divide(lower_1, divisor, out=np.zeros(np.shape(divisor)), where=divisor > 0)
    top = product + np.sqrt(np.maximum(product**2 - upper_1 * lower_2, 0.0))
    high = np.divide(top, lower_2, out=np.full(np.shape(top), np.inf), where=lower_2 > 0)
    return low, high


def mover_ratio(
    successes_1: float,
    n_1: float,
    successes_2: float,
    n_2: float,
    *,
    confidence_level: float = 0.95,
    side: Side = "both",
) -> Interval:
    """MOVER-R interval of the ratio of two independent proportions, on Wilson's limits.

    Parameters
    ----------
    successes_1, n_1, successes_2, n_2 : float
        Counts of the two samples, each ``n`` at least 1.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).
    side : {"both", "low", "high"}, default "both"
        Which bound carries the error.

    Returns
    -------
    Interval
        Bounds on ``p_1 / p_2``; the upper one is ``inf`` without successes in the second.

    Raises
    ------
    UsageError
        If a sample is empty or its counts do not fit.

    References
    ----------
    Donner and Zou (2012), Stat. Methods Med. Res. 21:347-359; recommended by Fagerland,
    Lydersen and Laake (2015), Stat. Methods Med. Res. 24:224-254.

    Examples
    --------
    >>> low, high = mover_ratio(56, 70, 48, 80)
    >>> f"{low:.3f} {high:.3f}"
    '1.078 1.663'
    """
    _check_counts(successes_1, n_1)
    _check_counts(successes_2, n_2)
    z = critical_value(confidence_level, side)
    low, high = mover_ratio_limits(
        successes_1 / n_1,
        wilson_limits(successes_1, n_1, z),
        successes_2 / n_2,
        wilson_limits(successes_2, n_2, z),
    )
    return _one_sided(float(low), float(high), side, highest=float("inf"))


def _as_arrays(limits: tuple[npt.ArrayLike, npt.ArrayLike]) -> tuple[FloatArray, FloatArray]:
    return np.asarray(limits[0], float), np.asarray(limits[1], float)


def _check_counts(successes: float, n: float) -> None:
    if not (n >= 1 and 0 <= successes <= n):
        raise UsageError(
            f"{successes} successes among {n} trials are no sample; expected 0 <= successes <= n"
            " and n >= 1",
            hint="without rows there is no estimate: report it as undecided",
        )


def _one_sided(
    low: float, high: float, side: Side, *, lowest: float = 0.0, highest: float = 1.0
) -> Interval:
    return Interval(lowest if side == "high" else low, highest if side == "low" else high)
