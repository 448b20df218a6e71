"""What one column of a part of a table holds, in bounded memory; parts merge to the whole.

Counts, ranges and kinds of the parts merge to exactly those of the whole, in any order and
grouping; moments up to rounding.  Two things are bounded: values are counted one by one only
while there are at most :data:`MOST_COUNTED` different ones, and beyond that only a
value that holds most rows of its batch is followed (``common``), whose count is then a lower
bound: one that holds nearly all rows is not missed, and rarer ones do not matter to anyone.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from mlguard.data.frames import NOT_A_NUMBER
from mlguard.data.schema import FEW_CATEGORIES, MOST_CATEGORIES, Column

#: How a file stores a column; text is what a CSV file holds of any kind.
Storage = Literal["number", "integer", "boolean", "time", "text", "other"]

#: Most different values of a column that are counted one by one.
MOST_COUNTED = 500
#: A text longer than this is no category, and none is kept.
LONGEST = 500
#: Values that are followed where there are too many to count.
_MOST_COMMON = 64
_TRUTH = frozenset({"True", "TRUE", "true", "False", "FALSE", "false"})


@dataclass(frozen=True, slots=True)
class Numbers:
    """Moments and range of numbers; empty by default.

    Attributes
    ----------
    n : int
        Finite numbers.
    mean, squares : float
        Their mean, and the sum of squared distances from it.
    low, high : float
        Smallest and largest of all, infinite ones among them.
    whole : bool
        Whether all are whole numbers as they are written.
    n_infinite : int
        Infinite numbers.
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    whole: bool = True
    n_infinite: int = 0

    def merge(self, other: Numbers) -> Numbers:
        """Return what both hold together."""
        n = self.n + other.n
        apart = other.mean - self.mean
        share = other.n / n if n else 0.0
        return Numbers(
            n,
            self.mean + apart * share,
            self.squares + other.squares + apart * apart * self.n * share,
            min(self.low, other.low),
            max(self.high, other.high),
            self.whole and other.whole,
            self.n_infinite + other.n_infinite,
        )

    @property
    def deviation(self) -> float:
        """Population standard deviation; NaN without numbers."""
        return math.sqrt(self.squares / self.n) if self.n else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnScan:
    """What one column holds.

    Attributes
    ----------
    name : str
        The column.
    storage : {"number", "integer", "boolean", "time", "text", "other"}
        How its file stores it.
    n_rows, missing : int
        Cells, and those of them that are missing by the rules of :mod:`mlguard.data.frames`.
    named_missing : int
        Further cells that say "NA" or the like, which are missing if the rest are numbers.
    numbers : Numbers or None
        Of a number, a truth value or a time (seconds since the epoch); of text where every
        value is a number; else None.
    times : tuple of float or None
        Earliest and latest, where every text is a time.
    counts : Counter or None
        How often each value occurs; None where there are too many different ones.
    common : Counter
        Lower bounds of how often the commonest ones occur, where ``counts`` is None.
    outside : int
        Values that the reference never held: beyond its range, or none of its categories.
    """

    name: str
    storage: Storage
    n_rows: int = 0
    missing: int = 0
    named_missing: int = 0
    numbers: Numbers | None = field(default_factory=Numbers)
    times: tuple[float, float] | None = None
    counts: Counter[Any] | None = field(default_factory=Counter)
    common: Counter[Any] = field(default_factory=Counter)
    outside: int = 0

    def merge(self, other: Self) -> Self:
        """Return the scan of both parts together."""
        counts = None
        if self.counts is not None and other.counts is not None:
            counts = self.counts + other.counts
            if len(counts) > MOST_COUNTED:
                counts = None
        common: Counter[Any] = Counter()
        if counts is None:
            common = _largest(_followed(self) + _followed(other))
        storage = self.storage if self.storage == other.storage else "other"
        return type(self)(
            name=self.name,
            storage=storage,
            n_rows=self.n_rows + other.n_rows,
            missing=self.missing + other.missing,
            named_missing=self.named_missing + other.named_missing,
            numbers=None
            if self.numbers is None or other.numbers is None
            else self.numbers.merge(other.numbers),
            times=_hull(self, other),
            counts=counts,
            common=common,
            outside=self.outside + other.outside,
        )

    # --- what it means ---

    @property
    def _texts(self) -> int:
        """Cells that hold a text which is no spelling of "missing"."""
        return self.n_rows - self.missing - self.named_missing

    @property
    def _numeric(self) -> bool:
        if self.storage != "text":
            return self.storage in ("number", "integer")
        return self.numbers is not None and self._texts > 0

    @property
    def n_missing(self) -> int:
        """Missing cells, those among them that say so in words."""
        return self.missing + (self.named_missing if self._numeric else 0)

    @property
    def n(self) -> int:
        """Cells that hold a value."""
        return self.n_rows - self.n_missing

    @property
    def missing_share(self) -> float:
        """Share of missing cells; 0 without rows."""
        return self.n_missing / self.n_rows if self.n_rows else 0.0

    @property
    def tally(self) -> Counter[Any] | None:
        """How often each value occurs, missing ones left out; None: too many different ones."""
        if self.counts is None or not (self.named_missing and self._numeric):
            return self.counts
        return Counter({key: n for key, n in self.counts.items() if key not in NOT_A_NUMBER})

    @property
    def top(self) -> tuple[Any, int] | None:
        """The commonest value and how often it occurs at least; None where nobody knows."""
        tally = self.tally
        found = (tally if tally is not None else self.common).most_common(1)
        return found[0] if found else None

    @property
    def constant(self) -> bool:
        """Whether all its values are the same one."""
        tally = self.tally
        return tally is not None and len(tally) == 1

    @property
    def column(self) -> Column:
        """The column as :func:`mlguard.data.schema.infer_schema` describes it."""
        if self.storage == "boolean" or self._says_truth:
            return Column(self.name, "boolean", self.missing_share)
        if self._numeric:
            numbers = self.numbers or Numbers()
            whole = self.n_missing == 0 and (
                self.storage == "integer" or (self.storage == "text" and numbers.whole)
            )
            kind: Literal["integer", "number"] = "integer" if whole else "number"
            return Column(
                self.name, kind, self.missing_share, _bound(numbers.low), _bound(numbers.high)
            )
        if self.storage == "time" or (self.times is not None and self._texts == self.n > 0):
            low, high = self.times or (math.inf, -math.inf)
            return Column(self.name, "time", self.missing_share, _bound(low), _bound(high))
        if self.storage == "text" and not self.n:
            # A column of a CSV file without a value is read as a number.
            return Column(self.name, "number", self.missing_share)
        different = len(self.counts) if self.counts is not None else math.inf
        repeated = different <= MOST_CATEGORIES and self.n >= 2 * different
        if self.counts is not None and (different <= FEW_CATEGORIES or repeated):
            names = tuple(sorted(map(str, self.counts)))
            return Column(self.name, "category", self.missing_share, categories=names)
        return Column(self.name, "text", self.missing_share)

    @property
    def _says_truth(self) -> bool:
        return (
            self.storage == "text"
            and self.counts is not None
            and len(self.counts) > 0
            and self.counts.keys() <= _TRUTH
        )


def _followed(one: ColumnScan) -> Counter[Any]:
    return one.common if one.counts is None else one.counts


def _largest(counts: Counter[Any]) -> Counter[Any]:
    return Counter(dict(counts.most_common(_MOST_COMMON)))


def _hull(one: ColumnScan, other: ColumnScan) -> tuple[float, float] | None:
    """Return the times of both; a part without any text refutes nothing."""
    parts = [part for part in (one, other) if part.n_rows > part.missing]
    if not parts:
        return None
    spans = [part.times for part in parts]
    known = [span for span in spans if span is not None]
    if len(known) < len(spans):
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def _bound(value: float) -> float | None:
    return value if math.isfinite(value) else None
