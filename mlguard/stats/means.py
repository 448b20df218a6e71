"""The mean of a loss, with the interval that its sample supports.

Three cases, from cheap to careful: values that are only 0 or 1 are a proportion (Wilson); a
sample of at least 100 with both tails present is normal enough (Student's t); everything else
is bounded by betting, which needs nothing but the scale.

A tail is present if many values make it, not a single outlier, and if what may have stayed
unseen could not matter: a hundred losses near 0.01 say little about the one in a hundred that
is 1, and a normal interval around them would be confidently wrong.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from mlguard.errors import UsageError
from mlguard.stats.betting import betting_interval, unit_values
from mlguard.stats.interval import FloatArray, Interval, Side, tail_error
from mlguard.stats.proportions import wilson_interval

#: Rows from which a mean may be called normal.
NORMAL_ROWS = 100
#: Full-sized deviations that a tail needs to be called present.
NORMAL_TAIL = 20.0


def mean_interval(
    values: npt.ArrayLike,
    *,
    low: float = 0.0,
    high: float = 1.0,
    confidence_level: float = 0.95,
    side: Side = "both",
) -> Interval:
    """Interval of the mean of bounded values.

    Parameters
    ----------
    values : array_like of shape (n,)
        Exchangeable values in ``[low, high]``; no NaN.
    low, high : float, default 0 and 1
        Bounds that hold for every value, seen or not.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).
    side : {"both", "low", "high"}, default "both"
        Which bound carries the error.

    Returns
    -------
    Interval
        In the unit of the values; holds their mean.

    Raises
    ------
    UsageError
        If there are no values, or one is NaN or outside the bounds.

    Examples
    --------
    >>> interval = mean_interval([0.1, 0.3] * 100)
    >>> f"{interval.low:.3f} {interval.high:.3f}"
    '0.180 0.222'
    """
    x = unit_values(values, low=low, high=high)
    if x.size == 0:
        raise UsageError("no values, so there is no mean to bound")
    span = high - low
    if bool(np.all((x == 0) | (x == 1))):
        bottom, top = wilson_interval(
            float(x.sum()), x.size, confidence_level=confidence_level, side=side
        )
    elif (normal := _normal(x, confidence_level, side)) is not None:
        bottom, top = normal
    else:
        bottom, top = betting_interval(x, confidence_level=confidence_level, side=side)
    return Interval(low + span * bottom, low + span * top)


def tails(values: FloatArray) -> tuple[float, float]:
    """Return how many full-sized deviations lie below and above the mean.

    The squared deviations of a tail in units of its largest one: for 0/1 values simply the
    number of zeros and of ones, and 1 for a single outlier, however many values are on its side.

    Examples
    --------
    >>> tails(np.array([0.0, 0.0, 0.0, 1.0]))
    (3.0, 1.0)
    """
    deviations = values - values.mean()
    counts = []
    for tail in (np.minimum(deviations, 0.0) ** 2, np.maximum(deviations, 0.0) ** 2):
        largest = float(tail.max())
        counts.append(float(tail.sum()) / largest if largest > 0 else 0.0)
    return counts[0], counts[1]


def _normal(x: FloatArray, confidence_level: float, side: Side) -> Interval | None:
    """Return the normal interval, or None where the sample does not support it."""
    if x.size < NORMAL_ROWS or min(tails(x)) < NORMAL_TAIL:
        return None
    error = tail_error(confidence_level, side)
    mean = float(x.mean())
    half = float(special.stdtrit(x.size - 1, 1 - error)) * float(x.std(ddof=1))
    half /= math.sqrt(x.size)
    # As much mass as stays unseen with probability `error`, at the far end of the scale.
    if math.log(1 / error) / x.size * max(mean, 1 - mean) > half:
        return None
    return Interval(
        0.0 if side == "high" else max(0.0, mean - half),
        1.0 if side == "low" else min(1.0, mean + half),
    )
