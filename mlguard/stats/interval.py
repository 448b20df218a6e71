"""What an interval is, and what its confidence level means.

An interval is closed, holds its estimate, and covers the truth at least
``confidence_level`` of the time.  A one-sided interval (``side="low"`` or ``"high"``) puts the
whole error on the bound that is asked for and leaves the other at the end of the scale.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from mlguard.errors import UsageError

FloatArray: TypeAlias = npt.NDArray[np.float64]
#: Which bounds carry the error: both (half each), or only the lower or the upper one.
Side: TypeAlias = Literal["both", "low", "high"]


class Interval(NamedTuple):
    """Bounds of an estimate; ``low, high = interval`` works.

    Attributes
    ----------
    low, high : float
        Closed bounds; ``nan`` where there is no estimate.

    Examples
    --------
    >>> 0.25 in Interval(0.1, 0.3)
    True
    >>> round(Interval(0.1, 0.3).width, 3)
    0.2
    """

    low: float
    high: float

    @property
    def width(self) -> float:
        """Distance between the bounds."""
        return self.high - self.low

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


def critical_value(confidence_level: float, side: Side = "both") -> float:
    """Return the standard normal quantile that belongs to a confidence level.

    Parameters
    ----------
    confidence_level : float
        In (0, 1).
    side : {"both", "low", "high"}, default "both"
        Two-sided, or one-sided.

    Returns
    -------
    float

    Raises
    ------
    UsageError
        If the level is not inside (0, 1).

    Examples
    --------
    >>> round(critical_value(0.95), 4)
    1.96
    >>> round(critical_value(0.95, "high"), 4)
    1.6449
    """
    return float(special.ndtri(1 - tail_error(confidence_level, side)))


def tail_error(confidence_level: float, side: Side = "both") -> float:
    """Return the error that one bound may make.

    Raises
    ------
    UsageError
        If the level is not inside (0, 1).

    Examples
    --------
    >>> round(tail_error(0.95), 3), round(tail_error(0.95, "low"), 3)
    (0.025, 0.05)
    """
    if not 0 < confidence_level < 1:
        raise UsageError(
            f"confidence_level is {confidence_level}, expected a number between 0 and 1",
            hint="write 0.95 for 95 %",
        )
    error = 1 - confidence_level
    return error / 2 if side == "both" else error
