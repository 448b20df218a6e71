"""An interval of a quantile from order statistics, whatever the distribution.

How many of n values lie below the true quantile is binomial, so two order statistics hold it
with a probability that is known without knowing anything else.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from mlguard.errors import UsageError
from mlguard.stats.interval import Interval, tail_error


def quantile_interval(
    values: npt.ArrayLike, q: float, *, confidence_level: float = 0.95
) -> Interval:
    """Return an interval of a quantile.

    Parameters
    ----------
    values : array_like of shape (n,)
        Independent values; no NaN.
    q : float
        Which quantile, in (0, 1).
    confidence_level : float, default 0.95
        Least coverage, in (0, 1).

    Returns
    -------
    Interval
        In the unit of the values.  A bound for which there are too few values is infinite: of
        the 0.99 quantile an upper one takes about 370 values at the 0.95 level.

    Raises
    ------
    UsageError
        If there are no values, one is NaN, or ``q`` lies outside (0, 1).

    References
    ----------
    Conover (1999), Practical Nonparametric Statistics, 3rd edition, section 3.2.

    Examples
    --------
    >>> quantile_interval(range(1, 101), 0.5)
    Interval(low=40.0, high=61.0)
    """
    x = np.sort(np.asarray(values, float))
    if x.size == 0 or np.isnan(x).any() or not 0 < q < 1:
        raise UsageError(
            f"a quantile needs numbers and q between 0 and 1, got {x.size} values and q = {q}",
            hint="leave out what was not measured",
        )
    tail = tail_error(confidence_level)
    n = int(x.size)
    below = int(stats.binom.ppf(tail, n, q))
    # The largest rank r with P(fewer than r values lie below) at most the tail.
    low = below if stats.binom.cdf(below, n, q) <= tail else below - 1
    high = int(stats.binom.ppf(1 - tail, n, q)) + 1
    return Interval(
        float(x[low]) if low >= 0 else -math.inf, float(x[high - 1]) if high <= n else math.inf
    )
