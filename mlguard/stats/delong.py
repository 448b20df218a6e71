"""DeLong's interval for areas under the ROC curve, and for the difference of two on one sample.

The area is the mean of a comparison over all pairs of a positive and a negative row.  Each
row's own share of wins (its placement) carries the variance, and placements of two models on
the same rows carry their covariance.  Placements come from ranks, in O(n log n).

Where no pair at all is ranked wrongly, placements do not vary and the normal interval would
have no width.  Then disjoint pairs, of which there are as many as rows of the rarer class, are
independent trials that all came out the same way: the exact binomial bound holds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.stats.interval import FloatArray, Interval, Side, critical_value
from mlguard.stats.proportions import clopper_pearson_interval


class AreaEstimate(NamedTuple):
    """An area under the curve, or a difference of two, with its interval."""

    value: float
    interval: Interval


def delong(
    y_true: npt.ArrayLike,
    scores: npt.ArrayLike,
    other: npt.ArrayLike | None = None,
    *,
    confidence_level: float = 0.95,
    side: Side = "both",
) -> AreaEstimate:
    """Area under the ROC curve with DeLong's interval, or the difference of two areas.

    Parameters
    ----------
    y_true : array_like of bool, shape (n_rows,)
        Whether each row is positive.
    scores : array_like of float, shape (n_rows,)
        Scores, larger for positive; ties count one half.
    other : array_like of float, shape (n_rows,), optional
        Scores of a second model on the same rows; the difference is ``scores - other``.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).
    side : {"both", "low", "high"}, default "both"
        Which bound carries the error.

    Returns
    -------
    AreaEstimate

    Raises
    ------
    UsageError
        If a class has fewer than two rows, shapes differ, or a score is NaN.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44:837-845; by ranks: Sun and Xu
    (2014), IEEE Signal Process. Lett. 21:1389-1393.

    Examples
    --------
    >>> area = delong([0, 0, 0, 1, 1, 1], [0.1, 0.4, 0.3, 0.35, 0.8, 0.9])
    >>> f"{area.value:.3f} {area.interval.low:.3f} {area.interval.high:.3f}"
    '0.889 0.581 1.000'
    """
    positive = np.asarray(y_true, bool)
    models = [np.asarray(one, float) for one in (scores, other) if one is not None]
    if any(one.shape != positive.shape or bool(np.isnan(one).any()) for one in models):
        raise UsageError(f"scores of shape {positive.shape} without NaN expected")
    n_positive = int(np.count_nonzero(positive))
    if min(n_positive, positive.size - n_positive) < 2:  # a variance needs two
        raise UsageError(
            f"{n_positive} positives and {positive.size - n_positive} negatives",
            hint="the area has no variance with fewer than two rows of each class",
        )
    placements = [_placements(positive, one) for one in models]
    of_positives, of_negatives = placements[0]
    lowest, highest = 0.0, 1.0
    if other is not None:
        of_positives = of_positives - placements[1][0]
        of_negatives = of_negatives - placements[1][1]
        lowest = -1.0
    value = float(of_positives.mean())
    variance = of_positives.var(ddof=1) / of_positives.size
    variance += of_negatives.var(ddof=1) / of_negatives.size
    if other is None and value in (0.0, 1.0):
        pairs = min(n_positive, positive.size - n_positive)
        return AreaEstimate(
            value,
            clopper_pearson_interval(
                int(value) * pairs, pairs, confidence_level=confidence_level, side=side
            ),
        )
    half = critical_value(confidence_level, side) * math.sqrt(variance)
    return AreaEstimate(
        value,
        Interval(
            lowest if side == "high" else max(lowest, value - half),
            highest if side == "low" else min(highest, value + half),
        ),
    )


def _placements(
    positive: npt.NDArray[np.bool_], scores: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the share of negatives below each positive, and of positives above each negative."""
    ups, downs = np.sort(scores[positive]), np.sort(scores[~positive])
    below = np.searchsorted(downs, scores[positive], "left")
    below = below + np.searchsorted(downs, scores[positive], "right")
    above = np.searchsorted(ups, scores[~positive], "left")
    above = above + np.searchsorted(ups, scores[~positive], "right")
    return below / (2 * downs.size), 1 - above / (2 * ups.size)
