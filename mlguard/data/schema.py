"""What a table looks like: each column's kind, range, categories and share of missing cells.

A schema is inferred from data, written to JSON and compared by whoever judges a table or a
request.  Kinds are about meaning rather than storage:

``number``
    Floating point; the only kind whose missing cells are NaN.
``integer``
    Whole numbers without a missing cell (one missing cell makes a column of a CSV file a
    number).
``boolean``
    Two truth values.
``category``
    Text with few different values, each seen more than once.
``text``
    Any other text.
``time``
    A point in time; text counts when every value is ISO 8601 with a date.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["number", "integer", "boolean", "category", "text", "time"]

#: A text column with more different values than this is no category.
MOST_CATEGORIES = 200
#: Up to so many different values a column is a category even where each occurs once.
FEW_CATEGORIES = 20


@dataclass(frozen=True, slots=True)
class Feature:
    """One input of a model.

    Attributes
    ----------
    name : str
        Name of the column.
    kind : Kind
        What its values mean.
    low, high : float or None
        Smallest and largest value seen; None for anything but numbers.
    categories : tuple of str or None
        Values seen, sorted; None for anything but categories.
    missing : bool or None
        True where some cells were missing; None where none was, or nobody looked.
    """

    name: str
    kind: Kind
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] | None = None
    missing: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the feature as JSON values."""
        return _without_none(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the feature from :meth:`to_json`."""
        return cls(**_with_tuple(cls, document))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: a feature's facts and its share of missing cells.

    Attributes
    ----------
    name, kind, low, high, categories
        As in :class:`Feature`; for ``time``, ``low`` and ``high`` are seconds since the epoch.
    missing_share : float
        Share of missing cells, in [0, 1]; 0 for a table without rows.
    """

    name: str
    kind: Kind
    missing_share: float = 0.0
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] | None = None

    @property
    def feature(self) -> Feature:
        """The column as an input of a model."""
        missing = True if self.missing_share > 0 else None
        return Feature(self.name, self.kind, self.low, self.high, self.categories, missing)

    def to_json(self) -> dict[str, Any]:
        """Return the column as JSON values."""
        return _without_none(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the column from :meth:`to_json`."""
        return cls(**_with_tuple(cls, document))


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of a table, in order."""

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON values."""
        return {"columns": [column.to_json() for column in self.columns]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the schema from :meth:`to_json`."""
        return cls(tuple(Column.from_json(one) for one in document["columns"]))


def infer_schema(frame: pd.DataFrame) -> TableSchema:
    """Describe a table by what is in it.

    Parameters
    ----------
    frame : pandas.DataFrame of shape (n_rows, n_columns)
        NaN, None and NaT count as missing.

    Returns
    -------
    TableSchema
        One column for each of the frame's, in its order.
    """
    return TableSchema(tuple(_column(str(name), frame[name]) for name in frame.columns))


def _column(name: str, values: pd.Series[Any]) -> Column:
    from pandas.api import types

    present = values.dropna()
    missing = 1.0 - len(present) / len(values) if len(values) else 0.0
    if types.is_bool_dtype(values.dtype) or (
        len(present) and values.dtype == object and all(isinstance(one, bool) for one in present)
    ):
        return Column(name, "boolean", missing)
    if types.is_numeric_dtype(values.dtype):
        kind: Kind = "integer" if types.is_integer_dtype(values.dtype) else "number"
        low, high = _range(float(one) for one in (present.min(), present.max()))
        return Column(name, kind, missing, low, high)
    if types.is_datetime64_any_dtype(values.dtype):
        low, high = _range(one.timestamp() for one in (present.min(), present.max()))
        return Column(name, "time", missing, low, high)
    return _text_column(name, present.astype(str), missing)


def _text_column(name: str, present: pd.Series[Any], missing: float) -> Column:
    different = [str(one) for one in present.unique()]
    times = _times(different)
    if times:
        return Column(name, "time", missing, min(times), max(times))
    few = len(different) <= FEW_CATEGORIES
    repeated = len(different) <= MOST_CATEGORIES and len(present) >= 2 * len(different)
    if few or repeated:
        return Column(name, "category", missing, categories=tuple(sorted(different)))
    return Column(name, "text", missing)


def _range(bounds: Iterable[float]) -> tuple[float | None, float | None]:
    """Return low and high as strict JSON numbers: None for a bound that is NaN or infinite."""
    low, high = bounds
    return (low if math.isfinite(low) else None, high if math.isfinite(high) else None)


def _times(texts: list[str]) -> list[float]:
    """Return the times that all texts stand for, or nothing if one of them is no time."""
    found = []
    for text in texts:
        # Without the dash, "20260131" and "1200" would be times.
        if len(text) < len("2026-01-31") or text[4] != "-":
            return []
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return []
        found.append(_as_utc(moment).timestamp())
    return found


def _as_utc(moment: datetime) -> datetime:
    from datetime import UTC

    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _without_none(one: Feature | Column) -> dict[str, Any]:
    document = {spec.name: getattr(one, spec.name) for spec in dataclasses.fields(one)}
    if one.categories is not None:
        document["categories"] = list(one.categories)
    return {key: value for key, value in document.items() if value is not None}


def _with_tuple(cls: type[Feature | Column], document: Mapping[str, Any]) -> dict[str, Any]:
    names = {spec.name for spec in dataclasses.fields(cls)}
    known = {key: value for key, value in document.items() if key in names}
    if known.get("categories") is not None:
        known["categories"] = tuple(known["categories"])
    return known
