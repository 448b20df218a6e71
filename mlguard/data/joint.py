"""Counts of a column together with the groups of an attribute: who got which values and answers.

A profile counts each column for itself; here a few coarse cells of it are counted for each group,
so that what is asked of groups can be judged on merged counts of all servers, too.  The grid is
that of a reference: cells of about equal mass, or the most frequent categories, and the most
frequent groups.  What lies outside is counted under one name and never dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mlguard.wording import SMALL_GROUP

#: Cells of a column, and groups of an attribute, that are told apart.
CELLS, GROUPS = 8, 8
#: Attributes that are counted; each takes at most half a kilobyte of a column's profile.
ATTRIBUTES = 2
#: What answers are called among the columns.
ANSWER = "answer"
#: Groups that the reference did not name.
OTHERS = "others"


def class_name(value: Any) -> str:
    """Return the one way to write a class, so that ``1``, ``1.0`` and ``"1"`` are one."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


@dataclass(frozen=True, slots=True, eq=False)
class JointCounts:
    """Counts of one column's coarse cells in each group of one attribute.

    Attributes
    ----------
    groups : tuple of str
        Groups counted by name, sorted.
    edges : ndarray of float64, shape (n_edges,)
        Upper edges of all cells of a number but the last, rising.
    names : tuple of str or None
        Categories counted by name, sorted; None for a number.
    counts : ndarray of int64, shape (n_groups + 2, n_cells + 1)
        A row for each named group, one for others, one for rows that name none; a column for each
        cell (of categories the last is for those without a name), then one for missing values.
    """

    groups: tuple[str, ...]
    edges: npt.NDArray[np.float64]
    names: tuple[str, ...] | None
    counts: npt.NDArray[np.int64]

    @classmethod
    def reference(
        cls,
        values: npt.NDArray[np.float64] | Sequence[str | None],
        groups: Sequence[str | None],
        *,
        names: Sequence[str] | None = None,
    ) -> Self:
        """Make the grid from a column and its groups, and count them on it.

        Parameters
        ----------
        values : ndarray of float64 or sequence of str or None, shape (n_rows,)
            Numbers with NaN where one is missing, or texts and None where ``names`` is given.
        groups : sequence of str or None
            Group of each row; None: it names none.
        names : sequence of str, optional
            Categories, the most important first; default: the column is one of numbers.
        """
        named = Counter(one for one in groups if one is not None)
        kept = tuple(sorted(key for key, _ in named.most_common(GROUPS)))
        edges = np.empty(0)
        if names is None:
            numbers = np.asarray(values, np.float64)
            finite = numbers[np.isfinite(numbers)]
            if finite.size:
                shares = np.arange(1, CELLS) / CELLS
                edges = np.unique(np.quantile(finite, shares, method="inverted_cdf"))
        told = None if names is None else tuple(sorted(names[: CELLS - 1]))
        n_cells = (len(edges) if told is None else len(told)) + 1
        empty = cls(kept, edges, told, np.zeros((len(kept) + 2, n_cells + 1), np.int64))
        return empty.summarise(empty.cells(values), empty.codes(groups))

    def codes(self, groups: Sequence[str | None]) -> npt.NDArray[np.int64]:
        """Return the row of the counts that each group is counted in."""
        places: dict[str | None, int] = {key: place for place, key in enumerate(self.groups)}
        others = len(self.groups)
        places[None] = others + 1
        return np.fromiter(map(places.get, groups, repeat(others)), np.int64, len(groups))

    def cells(self, values: Any) -> npt.NDArray[np.int64]:
        """Return the column of the counts that each value is counted in."""
        if self.names is None:
            numbers = np.asarray(values, np.float64)
            found = np.searchsorted(self.edges, numbers, side="left")
            found[np.isnan(numbers)] = len(self.edges) + 1
            return found.astype(np.int64)
        places: dict[str | None, int] = {key: place for place, key in enumerate(self.names)}
        places[None] = len(self.names) + 1
        return np.fromiter(map(places.get, values, repeat(len(self.names))), np.int64, len(values))

    def summarise(self, cells: npt.NDArray[np.int64], codes: npt.NDArray[np.int64]) -> Self:
        """Return the counts of other rows on this grid, from their :meth:`cells` and codes."""
        rows, columns = self.counts.shape
        flat = np.bincount(codes * columns + cells, minlength=rows * columns)
        return self.counted(flat.reshape(rows, columns).astype(np.int64))

    def counted(self, counts: npt.NDArray[np.int64]) -> Self:
        """Return other counts on this grid; see the attributes."""
        return type(self)(self.groups, self.edges, self.names, counts)

    def merge(self, other: Self) -> Self:
        """Return the counts of both parts together.

        Raises
        ------
        ValueError
            If the two were counted on different grids.
        """
        same = (
            self.groups == other.groups
            and self.names == other.names
            and np.array_equal(self.edges, other.edges)
        )
        if not same:
            raise ValueError("two counts merge only on the same grid")
        return self.counted(self.counts + other.counts)

    def of_groups(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return the counts of each group that has rows, without its missing values.

        Groups without a name of their own stand together under :data:`OTHERS`.
        """
        names = (*self.groups, OTHERS)
        return {name: row[:-1] for name, row in zip(names, self.counts, strict=False) if row.sum()}

    @property
    def n_unknown(self) -> int:
        """Rows that name no group."""
        return int(self.counts[-1].sum())

    def told(self, least: int = SMALL_GROUP) -> list[list[int | None]]:
        """Return the counts as they may be shown: small ones are None.

        Parameters
        ----------
        least : int
            Counts from 1 up to below this are hidden.

        Returns
        -------
        list of list of int or None
            As ``counts``.  Where a row hides one count only, its next smallest is hidden, too:
            the row's total would tell it.
        """
        shown: list[list[int | None]] = []
        for row in self.counts.tolist():
            hidden = {place for place, n in enumerate(row) if 0 < n < least}
            left = [place for place in range(len(row)) if place not in hidden and row[place]]
            if len(hidden) == 1 and left:
                hidden.add(min(left, key=row.__getitem__))
            shown.append([None if place in hidden else n for place, n in enumerate(row)])
        return shown

    def to_json(self) -> dict[str, Any]:
        """Return the counts as strict JSON values."""
        grid = {"edges": self.edges.tolist()} if self.names is None else {"names": [*self.names]}
        return {"groups": list(self.groups), **grid, "counts": self.counts.tolist()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the counts from :meth:`to_json`."""
        names = document.get("names")
        return cls(
            tuple(document["groups"]),
            np.asarray(document.get("edges", ()), np.float64),
            None if names is None else tuple(names),
            np.asarray(document["counts"], np.int64),
        )


@lru_cache(maxsize=1024)
def coarse_places(categories: tuple[str, ...], names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return the coarse cell of each place of a category's fine grid.

    Parameters
    ----------
    categories, names : tuple of str
        What the fine and the coarse grid count by name; the fine one has two more places, for
        rare and unseen categories, and -1 for missing.
    """
    places = {key: place for place, key in enumerate(names)}
    found = [places.get(one, len(names)) for one in categories]
    return np.array([*found, len(names), len(names), len(names) + 1], np.int64)


#: Attribute -> column -> counts.
Joint = dict[str, dict[str, JointCounts]]


def merged(one: Joint, other: Joint) -> Joint:
    """Return the joint counts of two parts; nothing where only one of them was counted."""
    if one.keys() != other.keys():
        return {}
    found: Joint = {}
    for attribute, columns in one.items():
        if columns.keys() != other[attribute].keys():
            return {}
        found[attribute] = {
            name: counts.merge(other[attribute][name]) for name, counts in columns.items()
        }
    return found
