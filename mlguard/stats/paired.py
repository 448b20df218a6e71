"""Two answers to the same rows: intervals and tests for paired proportions.

Rows are counted in a 2 x 2 table: both right, only the first, only the second, neither.  The
rows on which both agree carry no information about the difference, but they say how strongly
the two are correlated, and so how wide the interval must be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import special

from mlguard.errors import UsageError
from mlguard.stats.interval import Interval, Side, critical_value
from mlguard.stats.proportions import wilson_limits


@dataclass(frozen=True, slots=True)
class PairedTable:
    """How often two answers to the same rows were right.

    Attributes
    ----------
    both, first_only, second_only, neither : int
        Rows that both, only the first, only the second or neither got right.
    """

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def n(self) -> int:
        """Rows in all."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def difference(self) -> float:
        """Share right of the first minus that of the second; ``nan`` without rows."""
        return (self.first_only - self.second_only) / self.n if self.n else math.nan

    @property
    def identical(self) -> bool:
        """Whether no row tells the two apart."""
        return self.first_only == self.second_only == 0

    @classmethod
    def count(cls, first: npt.ArrayLike, second: npt.ArrayLike) -> Self:
        """Count the table from two boolean arrays of shape (n_rows,).

        Raises
        ------
        UsageError
            If the two do not have the same number of rows.

        Examples
        --------
        >>> PairedTable.count([True, True, False], [True, False, False])
        PairedTable(both=1, first_only=1, second_only=0, neither=1)
        """
        a, b = np.asarray(first, bool), np.asarray(second, bool)
        if a.shape != b.shape:
            raise UsageError(f"paired rows expected, got {a.shape} and {b.shape}")
        both = int(np.count_nonzero(a & b))
        only_a, only_b = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
        return cls(both, only_a, only_b, a.size - both - only_a - only_b)


def newcombe_paired(
    table: PairedTable, *, confidence_level: float = 0.95, side: Side = "both"
) -> Interval:
    """Newcombe's interval of the difference of two paired proportions.

    Parameters
    ----------
    table : PairedTable
        At least one row.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).
    side : {"both", "low", "high"}, default "both"
        Which bound carries the error.

    Returns
    -------
    Interval
        Bounds on ``table.difference``, in [-1, 1].

    Raises
    ------
    UsageError
        If the table has no row.

    References
    ----------
    Newcombe (1998), Stat. Med. 17:2635-2650, method 10 (score intervals, correlation with
    continuity correction).

    Examples
    --------
    >>> low, high = newcombe_paired(PairedTable(36, 12, 2, 0))
    >>> f"{low:.4f} {high:.4f}"
    '0.0569 0.3404'
    """
    n = table.n
    if n < 1:
        raise UsageError("no paired rows, so there is no difference to bound")
    z = critical_value(confidence_level, side)
    right = np.array([table.both + table.first_only, table.both + table.second_only], float)
    p = right / n
    low, high = wilson_limits(right, n, z)
    phi = _correlation(table)
    down_1, down_2 = p - low
    up_1, up_2 = high - p
    # Rounding can make a sum of squares that vanishes exactly a little negative.
    below = math.sqrt(max(down_1**2 - 2 * phi * down_1 * up_2 + up_2**2, 0.0))
    above = math.sqrt(max(up_1**2 - 2 * phi * up_1 * down_2 + down_2**2, 0.0))
    return Interval(
        -1.0 if side == "high" else float(table.difference - below),
        1.0 if side == "low" else float(table.difference + above),
    )


def _correlation(table: PairedTable) -> float:
    """Return the phi coefficient, shrunk by half a row as method 10 asks."""
    a, b, c, d = table.both, table.first_only, table.second_only, table.neither
    margins = math.sqrt(a + b) * math.sqrt(c + d) * math.sqrt(a + c) * math.sqrt(b + d)
    if margins == 0:
        return 0.0
    cross = a * d - b * c
    return (max(cross - table.n / 2, 0.0) if cross > 0 else cross) / margins


def mcnemar_exact(first_only: int, second_only: int) -> float:
    """Exact McNemar test that two answers are right equally often.

    Parameters
    ----------
    first_only, second_only : int
        Rows that only the first, or only the second, got right.

    Returns
    -------
    float
        Two-sided p-value; 1 where nothing tells the two apart.

    Notes
    -----
    It tests "no difference" and nothing else: whether a difference exceeds a margin is a
    question for :func:`newcombe_paired`.

    References
    ----------
    McNemar (1947), Psychometrika 12:153-157, with the binomial distribution of the
    discordant rows.

    Examples
    --------
    >>> round(mcnemar_exact(12, 2), 4)
    0.0129
    """
    discordant = first_only + second_only
    if discordant == 0:
        return 1.0
    tail = special.bdtr(float(min(first_only, second_only)), discordant, 0.5)
    return float(min(1.0, 2 * tail))
