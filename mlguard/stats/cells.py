"""Groups by cells: all that rates, composites and their bootstrap need to know of the rows.

:class:`Cells` counts rows once per group and cell, a cell being an outcome of the confusion
table.  With weights it keeps, beside the count, the sum of the weights and of their squares:
the sum alone says nothing about spread, and a bootstrap of aggregated weights that forgets the
squares is wrong by half.

A weighted rate becomes a :class:`~mlguard.stats.rates.Rate` of as many equally weighted rows as
say as much, by its linearised variance (Kish's design effect where the rate is 0 or 1, and
wherever that says less), rounded down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.stats.comparison import Overall
from mlguard.stats.interval import FloatArray
from mlguard.stats.rates import PARTS, Rate, RateMetric

#: Cells of a confusion table, in the order of the last axis.
CONFUSION = ("tp", "fp", "fn", "tn")


@dataclass(frozen=True, slots=True)
class Cells:
    """Rows per group and cell.

    Attributes
    ----------
    names : tuple of str
        Groups, in the order of the first axis.
    count : ndarray of shape (n_groups, n_cells)
        Rows.
    weight, square : ndarray of shape (n_groups, n_cells)
        Sums of their weights and of the weights' squares; both the count where rows have none.
    weighted : bool
        Whether rows have weights.

    Examples
    --------
    >>> cells = Cells.confusion([1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1], ["a", "b"])
    >>> cells.rates("false_positive_rate")
    {'a': Rate(successes=1, n=1), 'b': Rate(successes=0, n=1)}
    """

    names: tuple[str, ...]
    count: FloatArray
    weight: FloatArray
    square: FloatArray
    weighted: bool = False

    @classmethod
    def tally(
        cls,
        codes: npt.NDArray[np.integer],
        cells: npt.NDArray[np.integer],
        names: Sequence[str],
        n_cells: int,
        *,
        weights: FloatArray | None = None,
    ) -> Self:
        """Count rows by the index of their group and of their cell.

        Parameters
        ----------
        codes, cells : ndarray of int, shape (n_rows,)
            Index of each row's group and cell.
        names : sequence of str
            Groups.
        n_cells : int
            Cells there are.
        weights : ndarray of shape (n_rows,), optional
            Weight of each row, at least 0.

        Returns
        -------
        Cells

        Raises
        ------
        UsageError
            If a weight is negative, infinite or missing.
        """
        place = codes * n_cells + cells
        size, shape = len(names) * n_cells, (len(names), n_cells)
        if weights is None:
            count = np.bincount(place, minlength=size).reshape(shape).astype(float)
            return cls(tuple(names), count, count, count)
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise UsageError("a weight is negative, infinite or missing; weights are at least 0")

        def total(one: FloatArray) -> FloatArray:
            return np.bincount(place, weights=one, minlength=size).astype(float).reshape(shape)

        # A row of weight 0 is no row.
        rows = (weights > 0).astype(float)
        return cls(tuple(names), total(rows), total(weights), total(weights**2), weighted=True)

    @classmethod
    def confusion(
        cls,
        is_true: npt.ArrayLike,
        is_predicted: npt.ArrayLike,
        codes: npt.ArrayLike,
        names: Sequence[str],
        *,
        weights: FloatArray | None = None,
    ) -> Self:
        """Count the four outcomes of a classifier per group.

        Parameters
        ----------
        is_true, is_predicted : array_like of bool, shape (n_rows,)
            Whether truth and prediction are the positive class.
        codes, names, weights
            As in :meth:`tally`.
        """
        true, predicted = np.asarray(is_true, bool), np.asarray(is_predicted, bool)
        # 0 where both, 1 predicted only, 2 true only, 3 neither: the order of CONFUSION.
        cells = np.where(predicted & true, 0, np.where(predicted, 1, np.where(true, 2, 3)))
        return cls.tally(np.asarray(codes, np.intp), cells, names, len(CONFUSION), weights=weights)

    def rates(self, metric: RateMetric) -> dict[str, Rate]:
        """Return one metric of every group; the cells are those of a confusion table."""
        above, below = _places(metric)
        return {name: _rate(self, group, above, below) for group, name in enumerate(self.names)}

    def overall(self, metric: RateMetric) -> Overall:
        """Return what each group is compared with where it is compared with everybody."""
        _, below = _places(metric)
        share = self.weight[:, below].sum(axis=1)
        total = share.sum()
        return Overall(
            others=self.others().rates(metric),
            shares={
                name: float(one / total) if total else 0.0
                for name, one in zip(self.names, share, strict=True)
            },
        )

    def others(self) -> Self:
        """Return, under each group's name, the rows that are not in it."""
        count, weight, square = (
            one.sum(axis=0) - one for one in (self.count, self.weight, self.square)
        )
        return type(self)(self.names, count, weight, square, weighted=self.weighted)

    def effective(self) -> FloatArray:
        """Return how many equally weighted rows say as much as each group's, shape (n_groups,)."""
        weight, square = self.weight.sum(axis=1), self.square.sum(axis=1)
        rows: FloatArray = np.divide(
            weight**2, square, out=np.zeros(weight.shape), where=square > 0
        )
        return rows


def _places(metric: RateMetric) -> tuple[list[int], list[int]]:
    if metric == "accuracy":
        return [0, 3], [0, 1, 2, 3]
    above, below = PARTS[metric]
    return [CONFUSION.index(one) for one in above], [CONFUSION.index(one) for one in below]


def _rate(cells: Cells, group: int, above: list[int], below: list[int]) -> Rate:
    hits, rows = cells.weight[group, above].sum(), cells.weight[group, below].sum()
    if not cells.weighted:
        return Rate(int(hits), int(rows))
    if rows <= 0:
        return Rate(0, 0)
    share = float(hits / rows)
    of_hits, of_rows = cells.square[group, above].sum(), cells.square[group, below].sum()
    effective = float(rows**2 / of_rows)
    variance = ((1 - share) ** 2 * of_hits + share**2 * (of_rows - of_hits)) / rows**2
    if 0 < share < 1 and variance > 0:
        effective = min(effective, share * (1 - share) / float(variance))
    n = max(1, int(effective * (1 + 1e-12)))
    return Rate(share * n, n)


def equal_rows(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return as many equally weighted values as say as much as weighted ones.

    The values are sorted and cut into slices of equal weight, each standing for its mean, so
    the mean of all is kept exactly.

    Parameters
    ----------
    values, weights : ndarray of shape (n_rows,)
        Values and their weights, at least 0.

    Returns
    -------
    ndarray of shape (n_effective,)
        Empty where no row has weight.

    Examples
    --------
    >>> equal_rows(np.array([1.0, 3.0]), np.array([1.0, 1.0])).tolist()
    [1.0, 3.0]
    >>> float(equal_rows(np.array([0.0, 1.0, 1.0]), np.array([2.0, 1.0, 1.0])).mean())
    0.5
    """
    used = weights > 0
    values, weights = values[used], weights[used]
    total = float(weights.sum())
    if not values.size:
        return values
    mean = float(values @ weights) / total
    spread = (values - mean) ** 2
    effective = total**2 / float(weights @ weights)
    linearised = float(spread @ weights**2)
    if linearised > 0:
        effective = min(effective, total * float(spread @ weights) / linearised)
    n = max(1, int(effective * (1 + 1e-12)))
    order = np.argsort(values, kind="stable")
    mass = np.concatenate([[0.0], np.cumsum(weights[order])]) / total
    sums = np.concatenate([[0.0], np.cumsum(values[order] * weights[order])]) / total
    cut = np.interp(np.arange(n + 1) / n, mass, sums)
    # Rounding may carry a slice's mean past the values it is made of.
    return np.clip(np.diff(cut) * n, values.min(), values.max())
