"""Mergeable summaries of columns: what drift is judged on.

A reference table fixes a grid for every feature; a summary counts on that grid.  Summaries of
parts merge to the summary of the whole (counts exactly, moments up to rounding), in any order
and grouping, so each process summarises its own traffic and a verdict costs the same however
many rows it stands for.

The grid of a number has a cell for each different value of the reference where there are at
most :data:`CELLS` of them, else cells of about equal mass between its quantiles.  A cell
holds its upper edge; below the smallest and above the largest value lie two cells that are
empty in the reference.  A summary of a number takes at most 4 kB as JSON.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from mlguard.data.joint import (
    ANSWER,
    ATTRIBUTES,
    Joint,
    JointCounts,
    coarse_places,
    merged,
)
from mlguard.data.schema import Kind
from mlguard.results import finite_or_none

#: Most cells of a number's grid, without the two beyond the reference's range.
CELLS = 96
#: Most categories counted by name; rarer ones of the reference share one count.
NAMED_CATEGORIES = 200
#: What the score's profile is called among the features.
SCORE = "score"

Shape = Literal["number", "category"]
#: A column as it is counted: numbers, or places of categories.
Read = npt.NDArray[np.float64] | npt.NDArray[np.int64]
_SHAPES: dict[Kind, Shape] = {
    "number": "number",
    "integer": "number",
    "time": "number",
    "boolean": "category",
    "category": "category",
    "text": "category",
}


@dataclass(frozen=True, slots=True, eq=False)
class FeatureProfile:
    """Counts of one column on a fixed grid.

    Attributes
    ----------
    shape : {"number", "category"}
        Which of the two grids it has.
    edges : ndarray of float64, shape (n_edges,)
        Upper edges of the cells of a number, rising; empty for a category.
    categories : tuple of str
        Categories counted by name, sorted; empty for a number.
    counts : ndarray of int64
        For a number ``(n_edges + 1,)``: cell i holds ``edges[i-1] < x <= edges[i]``.  For a
        category ``(n_categories + 2,)``: the named ones, the reference's unnamed ones, unseen.
    missing : int
        Missing cells, NaN among them; not in ``counts``.
    shift : float
        What moments are measured from (the reference's mean), so that they keep their digits.
    total, squares : float
        Sum of ``x - shift`` and of its square over the finite values.
    low, high : float
        Smallest and largest value; inf and -inf where there is none.
    rare : frozenset of str
        Categories of the reference that are not counted by name.
    """

    shape: Shape
    edges: npt.NDArray[np.float64]
    categories: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    missing: int = 0
    shift: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    rare: frozenset[str] = frozenset()
    _places: dict[str | None, int] = field(default_factory=dict, init=False, repr=False)

    @property
    def n(self) -> int:
        """Values counted, without the missing ones."""
        return int(self.counts.sum())

    @property
    def n_rows(self) -> int:
        """Values counted and missing cells together."""
        return self.n + self.missing

    @property
    def missing_share(self) -> float:
        """Share of missing cells; NaN without rows."""
        return self.missing / self.n_rows if self.n_rows else math.nan

    @property
    def unseen_share(self) -> float:
        """Share of values that the reference never had; NaN without values, 0 for a number."""
        if not self.n:
            return math.nan
        return 0.0 if self.shape == "number" else int(self.counts[-1]) / self.n

    @property
    def mean(self) -> float:
        """Mean of the finite values; NaN for a category or without any."""
        n = self.n if self.shape == "number" else 0
        return self.shift + self.total / n if n else math.nan

    @property
    def variance(self) -> float:
        """Population variance of the finite values; NaN for a category or without any."""
        n = self.n if self.shape == "number" else 0
        return max(self.squares / n - (self.total / n) ** 2, 0.0) if n else math.nan

    @classmethod
    def reference(cls, values: npt.ArrayLike, kind: Kind) -> Self:
        """Make the grid from a column and count the column on it.

        Parameters
        ----------
        values : array_like of shape (n_rows,)
            None and NaN are missing.
        kind : Kind
            Text is counted like categories, booleans as ``"True"`` and ``"False"``.
        """
        if _SHAPES[kind] == "number":
            numbers = _numbers(values)
            finite = numbers[np.isfinite(numbers)]
            shift = _mean(finite)
            edges = _edges(finite)
            empty = cls("number", edges, (), np.zeros(len(edges) + 1, np.int64), shift=shift)
            return empty.summarise(numbers)
        seen = Counter(_texts(values))
        seen.pop(None, None)
        named = sorted(key for key, _ in seen.most_common(NAMED_CATEGORIES) if key is not None)
        rare = frozenset(key for key in seen if key is not None) - frozenset(named)
        counts = np.zeros(len(named) + 2, np.int64)
        empty = cls("category", np.empty(0), tuple(named), counts, rare=rare)
        return empty.summarise(values)

    def summarise(self, values: npt.ArrayLike) -> Self:
        """Return the counts of another column on this grid.

        Parameters
        ----------
        values : array_like of shape (n_rows,)
            None and NaN are missing; infinite numbers fall into the outermost cells and are
            left out of the moments.
        """
        return self.count(self.read(values))[0]

    def read(self, values: npt.ArrayLike) -> Read:
        """Return a column as it is counted: numbers, or the place of each category."""
        return self._places_of(values) if self.shape == "category" else _numbers(values)

    def count(self, read: Read) -> tuple[Self, npt.NDArray[np.bool_]]:
        """Return the counts of another column on this grid, and which of its cells are unusual.

        Parameters
        ----------
        read : ndarray of shape (n_rows,)
            The column as :meth:`read` gives it.

        Returns
        -------
        counts : FeatureProfile
            As from :meth:`summarise`.
        unusual : ndarray of bool, shape (n_rows,)
            Missing where the reference never was, outside its range, or a category that it
            never had.
        """
        if self.shape == "category":
            there = read[read >= 0]
            counts = np.bincount(there.astype(np.int64), minlength=len(self.categories) + 2)
            found = self.counted(counts.astype(np.int64), missing=int(read.size - there.size))
            unseen = np.asarray(read == len(self.categories) + 1)
            return found, unseen if self.missing else unseen | (read < 0)
        numbers = read.astype(np.float64, copy=False)
        # Sorted once, counts are places of the edges: ten times as fast as looking up each value.
        # And the ends tell whether there is anything to look for: a slice of a few hundred rows
        # costs its calls of numpy, not its values.
        ordered = np.sort(numbers)  # NaN comes last
        present = ordered
        if ordered.size and np.isnan(ordered[-1]):
            present = ordered[: ordered.searchsorted(np.nan)]
        missing = numbers.size - present.size
        unusual = np.zeros(numbers.size, np.bool_)
        edges = self.edges
        if edges.size and present.size and not edges[0] < present[0] <= present[-1] <= edges[-1]:
            unusual = np.asarray((numbers <= edges[0]) | (numbers > edges[-1]))
        if missing and not self.missing:
            unusual |= np.isnan(numbers)
        return self._numbers_of(present, missing), unusual

    def _numbers_of(self, present: npt.NDArray[np.float64], missing: int) -> Self:
        """Count sorted numbers without NaN."""
        reached = present.searchsorted(self.edges, side="right")
        counts = np.empty(len(self.edges) + 1, np.int64)
        counts[:-1] = reached
        counts[-1] = present.size
        counts[1:] -= reached
        finite = present
        if present.size and not (present[0] > -np.inf and present[-1] < np.inf):
            finite = present[
                present.searchsorted(-np.inf, side="right") : present.searchsorted(np.inf)
            ]
        with np.errstate(over="ignore"):  # numbers near the largest float have no squares
            distance = finite - self.shift
            total = float(distance.sum())
            # Not a dot product: BLAS would wake its threads for it.
            squares = float(np.square(distance).sum())
        return self.counted(
            counts,
            missing=missing,
            total=total,
            squares=squares,
            low=float(finite[0]) if finite.size else math.inf,
            high=float(finite[-1]) if finite.size else -math.inf,
        )

    def _places_of(self, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the cell of each value: named, then the rare ones', then unseen; -1: missing."""
        places = self._places
        unseen = len(self.categories) + 1
        if not places:
            places.update(dict.fromkeys(self.rare, unseen - 1))
            places.update({key: place for place, key in enumerate(self.categories)})
            places[None] = -1
        column = _plain_texts(values)
        return np.fromiter(map(places.get, column, repeat(unseen)), np.int64, len(column))

    def counted(
        self,
        counts: npt.NDArray[np.int64],
        *,
        missing: int,
        total: float = 0.0,
        squares: float = 0.0,
        low: float = math.inf,
        high: float = -math.inf,
    ) -> Self:
        """Return other counts on this grid; see the attributes."""
        return type(self)(
            self.shape,
            self.edges,
            self.categories,
            counts,
            missing=missing,
            shift=self.shift,
            total=total,
            squares=squares,
            low=low,
            high=high,
            rare=self.rare,
        )

    def merge(self, other: Self) -> Self:
        """Return the summary of both parts together.

        Raises
        ------
        ValueError
            If the two were counted on different grids.
        """
        same = self._same_objects(other) or (
            self.shape == other.shape
            and self.categories == other.categories
            and self.rare == other.rare
            and self.shift == other.shift
            and np.array_equal(self.edges, other.edges)
        )
        if not same:
            raise ValueError("two summaries merge only on the same grid")
        return self.counted(
            self.counts + other.counts,
            missing=self.missing + other.missing,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )

    def _same_objects(self, other: Self) -> bool:
        """Whether both were counted by one object's grid, which is told without looking."""
        return (
            self.edges is other.edges
            and self.categories is other.categories
            and self.rare is other.rare
        )

    def to_json(self) -> dict[str, Any]:
        """Return the profile as strict JSON values."""
        document: dict[str, Any] = {
            "shape": self.shape,
            "counts": self.counts.tolist(),
            "missing": self.missing,
        }
        if self.shape == "category":
            return document | {"categories": list(self.categories), "rare": sorted(self.rare)}
        return document | {
            "edges": self.edges.tolist(),
            "shift": self.shift,
            "total": finite_or_none(self.total),
            "squares": finite_or_none(self.squares),
            "low": finite_or_none(self.low),
            "high": finite_or_none(self.high),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the profile from :meth:`to_json`."""
        low, high = document.get("low"), document.get("high")
        return cls(
            document["shape"],
            np.asarray(document.get("edges", ()), np.float64),
            tuple(document.get("categories", ())),
            np.asarray(document["counts"], np.int64),
            missing=document["missing"],
            shift=document.get("shift", 0.0),
            total=_or_nan(document.get("total", 0.0)),
            squares=_or_nan(document.get("squares", 0.0)),
            low=math.inf if low is None else low,
            high=-math.inf if high is None else high,
            rare=frozenset(document.get("rare", ())),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Summaries of a table's columns, on the grids of one reference.

    Attributes
    ----------
    features : dict of str to FeatureProfile
        One for each column of the reference; scores stand under :data:`SCORE` if the caller
        passed them as a column.
    n_rows : int
        Rows summarised.
    n_unusual : int
        Rows with a value that is unlike the reference: outside its range, a category that it
        never had, or missing where it never was.  Scores are not looked at.
    joint : dict of str to dict of str to JointCounts
        For each attribute the columns, scores and answers counted by group; empty where that
        was not counted.
    """

    features: dict[str, FeatureProfile] = field(default_factory=dict)
    n_rows: int = 0
    n_unusual: int = 0
    joint: Joint = field(default_factory=dict)

    def __getitem__(self, name: str) -> FeatureProfile:
        return self.features[name]

    def only(self, names: Collection[str]) -> Self:
        """Return the same counts of some of the columns; names that it lacks are ignored."""
        kept = {name: one for name, one in self.features.items() if name in names}
        joint = {
            attribute: {name: one for name, one in columns.items() if name in names}
            for attribute, columns in self.joint.items()
        }
        return type(self)(kept, self.n_rows, self.n_unusual, joint)

    def without_scores(self) -> Self:
        """Return the same counts of the inputs alone."""
        return self.only(self.features.keys() - {SCORE})

    @classmethod
    def reference(
        cls,
        columns: Mapping[str, npt.ArrayLike],
        kinds: Mapping[str, Kind] | None = None,
        *,
        groups: Mapping[str, Sequence[str | None]] | None = None,
        answers: Sequence[str] = (),
        classes: Sequence[str] = (),
    ) -> Self:
        """Make the grids from a reference table and summarise it.

        Parameters
        ----------
        columns : mapping of str to array_like of shape (n_rows,)
            The reference, by column.
        kinds : mapping of str to Kind, optional
            Kind of each column; one that is not named is a number.
        groups : mapping of str to sequence of str or None, optional
            Each row's group by attribute; the first :data:`~mlguard.data.joint.ATTRIBUTES` are
            counted.
        answers : sequence of str
            The class that each row was answered with; none of a regression.
        classes : sequence of str
            All classes, the most important last.

        Raises
        ------
        ValueError
            If columns differ in length.
        """
        given = kinds or {}
        n_rows = _length(columns)
        features = {
            name: FeatureProfile.reference(values, given.get(name, "number"))
            for name, values in columns.items()
        }
        joint: Joint = {}
        for attribute, named in list((groups or {}).items())[:ATTRIBUTES]:
            joint[attribute] = {
                name: JointCounts.reference(
                    _numbers(values) if features[name].shape == "number" else _texts(values),
                    named,
                    names=_most_frequent(features[name]),
                )
                for name, values in columns.items()
            }
            if len(answers):
                known = list(reversed(classes)) or sorted(set(answers))
                joint[attribute][ANSWER] = JointCounts.reference(answers, named, names=known)
        return cls(features, n_rows, 0, joint)

    def summarise(
        self,
        columns: Mapping[str, npt.ArrayLike],
        *,
        groups: Mapping[str, Sequence[str | None]] | None = None,
        answers: Sequence[str | None] | None = None,
    ) -> Self:
        """Summarise other rows on the same grids.

        Parameters
        ----------
        columns : mapping of str to array_like of shape (n_rows,)
            Columns that the reference does not have are ignored; a column that is absent
            counts as missing in every row.
        groups : mapping of str to sequence of str or None, optional
            Each row's group by attribute.  Default: nothing is counted by group.
        answers : sequence of str or None, optional
            The class that each row was answered with; None where the model did not answer.

        Raises
        ------
        ValueError
            If columns differ in length.
        """
        n_rows = _length(columns)
        absent = np.full(n_rows, None, dtype=object)
        features = {}
        unusual = np.zeros(n_rows, np.bool_)
        reads: dict[str, Read] = {}
        for name, one in self.features.items():
            reads[name] = one.read(columns.get(name, absent))
            features[name], odd = one.count(reads[name])
            if name in columns and name != SCORE:
                unusual |= odd
        joint = {} if groups is None else self._jointly(reads, groups, answers, n_rows)
        return type(self)(features, n_rows, int(unusual.sum()), joint)

    def _jointly(
        self,
        reads: Mapping[str, Read],
        groups: Mapping[str, Sequence[str | None]],
        answers: Sequence[str | None] | None,
        n_rows: int,
    ) -> Joint:
        nobody = [None] * n_rows
        cells: dict[str, npt.NDArray[np.int64]] = {}
        found: Joint = {}
        for attribute, by_column in self.joint.items():
            found[attribute] = {}
            first = next(iter(by_column.values()), None)
            # An attribute has the same groups for every column, a column the same cells for
            # every attribute.
            codes = None if first is None else first.codes(groups.get(attribute, nobody))
            for name, one in by_column.items():
                if name not in cells:
                    if name not in self.features:
                        cells[name] = one.cells(nobody if answers is None else answers)
                    elif one.names is None:
                        cells[name] = one.cells(reads[name])
                    else:
                        coarse = coarse_places(self.features[name].categories, one.names)
                        cells[name] = coarse[reads[name].astype(np.int64)]
                assert codes is not None
                found[attribute][name] = one.summarise(cells[name], codes)
        return found

    def merge(self, other: Self) -> Self:
        """Return the summary of both parts together.

        Raises
        ------
        ValueError
            If the two were made on different references.
        """
        if self.features.keys() != other.features.keys():
            raise ValueError("two summaries merge only with the same columns")
        features = {name: one.merge(other.features[name]) for name, one in self.features.items()}
        return type(self)(
            features,
            self.n_rows + other.n_rows,
            self.n_unusual + other.n_unusual,
            merged(self.joint, other.joint),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the profile as strict JSON values."""
        features = {name: one.to_json() for name, one in self.features.items()}
        document = {"n_rows": self.n_rows, "n_unusual": self.n_unusual, "features": features}
        if self.joint:
            document["joint"] = {
                attribute: {name: one.to_json() for name, one in columns.items()}
                for attribute, columns in self.joint.items()
            }
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the profile from :meth:`to_json`."""
        features = {
            name: FeatureProfile.from_json(one) for name, one in document["features"].items()
        }
        joint = {
            attribute: {name: JointCounts.from_json(one) for name, one in columns.items()}
            for attribute, columns in document.get("joint", {}).items()
        }
        return cls(features, document["n_rows"], document.get("n_unusual", 0), joint)


def _length(columns: Mapping[str, npt.ArrayLike]) -> int:
    lengths = {
        len(values) if isinstance(values, (list, tuple)) else len(np.asarray(values))
        for values in columns.values()
    }
    if len(lengths) > 1:
        raise ValueError(f"columns of different length: {sorted(lengths)}")
    return lengths.pop() if lengths else 0


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _mean(finite: npt.NDArray[np.float64]) -> float:
    """Return the mean as a place to measure from; 0 where there is none."""
    with np.errstate(over="ignore"):
        mean = float(finite.mean()) if finite.size else 0.0
    return mean if math.isfinite(mean) else 0.0


def _edges(finite: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the upper edges: of nothing and the least value, then of the reference's cells."""
    if not finite.size:
        return np.empty(0)
    different = np.unique(finite)
    if len(different) > CELLS:
        shares = np.linspace(0, 1, CELLS + 1)[1:]
        # Quantiles that occur in the data keep a heavily repeated value in a cell of its own.
        different = np.unique(np.quantile(finite, shares, method="inverted_cdf"))
    below = math.nextafter(float(finite.min()), -math.inf)
    return np.concatenate([[below], different]) if math.isfinite(below) else different


def _numbers(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return a column as float64 with NaN for what is missing."""
    column = np.asarray(values)
    if np.issubdtype(column.dtype, np.datetime64):
        seconds = column.astype("datetime64[ns]").astype(np.int64) / 1e9
        return np.where(np.isnat(column), np.nan, seconds)
    return column.astype(np.float64)  # None becomes NaN


def _texts(values: npt.ArrayLike) -> list[str | None]:
    """Return a column as text with None for what is missing."""
    column: list[Any] = np.asarray(values, dtype=object).tolist()
    # NaN is the one value that differs from itself.
    return [None if one is None or one != one else str(one) for one in column]


def _plain_texts(values: npt.ArrayLike) -> Sequence[str | None]:
    """Return a column as :func:`_texts` does, as it stands where it holds nothing but texts."""
    column: Any = values if isinstance(values, (list, tuple)) else np.asarray(values).tolist()
    return column if set(map(type, column)) <= {str, type(None)} else _texts(values)


def _most_frequent(one: FeatureProfile) -> list[str] | None:
    """Return the named categories of a column, the most frequent first; None for a number."""
    if one.shape == "number":
        return None
    order = np.argsort(-one.counts[: len(one.categories)], kind="stable")
    return [one.categories[place] for place in order]
