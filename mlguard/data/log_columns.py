"""Columns of the prediction log: which there are, and how rows become them.

Arrays and scalars are built from numpy buffers: ``pyarrow.array`` and ``pyarrow.scalar`` import
pandas, which a serving process does not carry.  A value that does not fit its column becomes
null and harms no other.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from mlguard.data.same import Same
from mlguard.data.schema import Kind

#: The columns that every log has, beside one for each feature.
FIXED_COLUMNS: dict[str, pa.DataType] = {
    "query_id": pa.int64(),
    "time": pa.float64(),
    "generation": pa.int64(),
    "default": pa.bool_(),
    "explanation": pa.string(),
    "output": pa.string(),
    "score": pa.float64(),
    "uid": pa.string(),
    "groups": pa.string(),
    "latency_ms": pa.float32(),
    "valid": pa.bool_(),
    # Null, in rows of older releases: they were kept where there are columns of inputs.
    "inputs_kept": pa.bool_(),
}
#: Columns that rows are found by: they are written even where they are redacted.
_NEEDED = frozenset({"query_id", "time", "generation", "default", "valid", "inputs_kept"})
_PREFIX = "feature:"
_TYPES: dict[Kind, pa.DataType] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "time": pa.string(),
}


class NamedColumn(Protocol):
    """What the log needs to know of a model's input."""

    @property
    def name(self) -> str:
        """Name of the column."""

    @property
    def kind(self) -> Kind:
        """What its values mean."""


def feature_column(name: str) -> str:
    """Return the log's column for a feature: its name, unless a fixed column has that name."""
    clashes = name in FIXED_COLUMNS or name.startswith(_PREFIX)
    return _PREFIX + name if clashes else name


def feature_of(column: str) -> str:
    """Return the feature that a column of the log holds."""
    return column.removeprefix(_PREFIX)


@dataclass(frozen=True)
class LogSchema:
    """The columns of one writer's segments.

    Attributes
    ----------
    features : tuple of NamedColumn
        The model's inputs, in the order in which rows give them.
    redact : frozenset of str
        Features, group attributes and fixed columns (``"uid"``, ``"score"``, …) whose values
        are never written.
    inputs : bool
        Whether features are written at all.
    """

    features: tuple[NamedColumn, ...] = ()
    redact: frozenset[str] = frozenset()
    inputs: bool = True

    @property
    def kept(self) -> tuple[NamedColumn, ...]:
        """The features that are written."""
        if not self.inputs:
            return ()
        return tuple(one for one in self.features if one.name not in self.redact)

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema: the fixed columns, then the features."""
        fields = [pa.field(name, kind) for name, kind in FIXED_COLUMNS.items()]
        fields += [pa.field(feature_column(one.name), _TYPES[one.kind]) for one in self.kept]
        return pa.schema(fields)

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        """Turn rows into columns; a value that does not fit its column becomes null."""
        arrays = [array(self._fixed(rows, name), kind) for name, kind in FIXED_COLUMNS.items()]
        kept = {one.name for one in self.kept}
        inputs = [row.get("features") for row in rows]
        for place, one in enumerate(self.features):
            if one.name in kept:
                values = [
                    _feature(row, given, one.name, place)
                    for row, given in zip(rows, inputs, strict=True)
                ]
                arrays.append(array(values, _TYPES[one.kind]))
        return pa.RecordBatch.from_arrays(arrays, schema=self.arrow)

    def columns(
        self, columns: Mapping[str, Sequence[Any]], inputs: Sequence[Sequence[Any]] | None
    ) -> pa.RecordBatch:
        """Turn columns into a batch, as :meth:`batch` does rows, at a tenth of the cost.

        Parameters
        ----------
        columns : mapping of str to sequence
            All of :data:`FIXED_COLUMNS`; ``groups`` as mappings or null.
        inputs : sequence of sequence, or ndarray of shape (n_rows, n_features), optional
            The rows' features, in order; None: all null.
        """
        nothing = Same(None, len(columns["query_id"]))
        arrays = []
        for name, kind in FIXED_COLUMNS.items():
            values = columns[name]
            if name in self.redact and name not in _NEEDED:
                values = nothing
            elif name == "groups" and any(values):
                values = [self._shown(one) for one in values]
            arrays.append(array(values, kind))
        kept = {one.name for one in self.kept}
        by_feature: Sequence[Any] = [nothing] * len(self.features)
        if isinstance(inputs, np.ndarray):
            by_feature = inputs.T
        elif inputs:
            by_feature = list(zip(*inputs, strict=True))
        for place, one in enumerate(self.features):
            if one.name in kept:
                arrays.append(array(by_feature[place], _TYPES[one.kind]))
        return pa.RecordBatch.from_arrays(arrays, schema=self.arrow)

    def _fixed(self, rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
        if name in self.redact and name not in _NEEDED:
            return [None] * len(rows)
        values = [row.get(name) for row in rows]
        return [self._shown(one) for one in values] if name == "groups" else values

    def _shown(self, groups: Any) -> str | None:
        """Return a row's groups as JSON text without the redacted ones."""
        if groups is None or (isinstance(groups, str) and not self.redact):
            return groups
        try:
            known = json.loads(groups) if isinstance(groups, str) else groups
            shown = {key: one for key, one in known.items() if key not in self.redact}
            return json.dumps(shown, ensure_ascii=False, sort_keys=True)
        except (AttributeError, TypeError, ValueError):
            return None  # what cannot be read cannot be redacted


def _feature(row: Mapping[str, Any], given: Any, name: str, place: int) -> Any:
    if given is None:
        return row.get(feature_column(name))
    if isinstance(given, Mapping):
        return given.get(name)
    return given[place] if place < len(given) else None


# --- arrays without pandas -----------------------------------------------------------------


def array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Build an Arrow array; None, NaN and what does not fit become null."""
    whole = _of_one_type(values, kind)
    if whole is not None:
        return whole
    if pa.types.is_string(kind):
        return _string_array([_as_text(one) for one in values])
    if pa.types.is_boolean(kind):
        present = np.array([isinstance(one, (bool, np.bool_)) for one in values], np.bool_)
        truth = np.array([one is not None and bool(one) for one in values], np.bool_) & present
        return _assemble(kind, present, pa.py_buffer(_bits(truth)))
    if pa.types.is_integer(kind):
        numbers_or_none = [_as_int(one) for one in values]
        present = np.array([one is not None for one in numbers_or_none], np.bool_)
        numbers = np.array([one or 0 for one in numbers_or_none], np.int64)
        return _assemble(kind, present, pa.py_buffer(numbers))
    try:
        reals = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        reals = np.array([_as_float(one) for one in values], np.float64)
    with np.errstate(over="ignore"):  # too large for float32: infinite
        data = reals.astype(kind.to_pandas_dtype())
    return _assemble(kind, ~np.isnan(reals), pa.py_buffer(data))


def _of_one_type(values: Sequence[Any], kind: pa.DataType) -> pa.Array | None:
    """Build an Arrow array of values that are all null, or all of the column's own type.

    Most columns are; None for the others, whose values are looked at one by one.
    """
    n = len(values)
    if isinstance(values, np.ndarray):
        if values.dtype != kind.to_pandas_dtype():
            return None
        data = pa.py_buffer(np.ascontiguousarray(values))
        absent = np.isnan(values) if values.dtype.kind == "f" else None
        if absent is not None and np.count_nonzero(absent):
            return _assemble(kind, ~absent, data)
        return pa.Array.from_buffers(kind, n, [None, data])
    types = {type(values.value)} if isinstance(values, Same) else set(map(type, values))
    present = np.ones(n, np.bool_)
    found = None
    if types == {type(None)}:
        found = _nulls(n, kind)
    elif types == {bool} and pa.types.is_boolean(kind):
        found = _assemble(kind, present, pa.py_buffer(_bits(np.fromiter(values, np.bool_, n))))
    elif types == {int} and pa.types.is_integer(kind):
        with contextlib.suppress(OverflowError):  # one of them is no 64-bit integer
            found = _assemble(kind, present, pa.py_buffer(np.fromiter(values, np.int64, n)))
    elif types == {str} and pa.types.is_string(kind):
        joined = "".join(values)
        if joined.isascii():
            offsets = np.zeros(n + 1, np.int32)
            np.cumsum(np.fromiter(map(len, values), np.int64, n), out=offsets[1:])
            data = (pa.py_buffer(offsets), pa.py_buffer(joined.encode("ascii")))
            found = _assemble(kind, present, *data)
    return found


def scalar(value: float, kind: pa.DataType) -> pa.Scalar:
    """Build an Arrow scalar."""
    return array([value], kind)[0]


def _assemble(kind: pa.DataType, present: np.ndarray[Any, Any], *data: pa.Buffer) -> pa.Array:
    validity = None if present.all() else pa.py_buffer(_bits(present))
    return pa.Array.from_buffers(kind, len(present), [validity, *data])


def _nulls(n: int, kind: pa.DataType) -> pa.Array:
    empty = pa.py_buffer(bytes((n + 7) // 8))
    if pa.types.is_string(kind):
        return pa.Array.from_buffers(
            kind, n, [empty, pa.py_buffer(bytes(4 * (n + 1))), pa.py_buffer(b"")]
        )
    width = kind.bit_width
    zeros = pa.py_buffer(bytes((n * width + 7) // 8))
    return pa.Array.from_buffers(kind, n, [empty, zeros])


def _bits(flags: np.ndarray[Any, Any]) -> bytes:
    return np.packbits(flags, bitorder="little").tobytes()


def _string_array(texts: Sequence[str | None]) -> pa.Array:
    # JSON may carry half a surrogate pair, which UTF-8 cannot.
    encoded = [b"" if one is None else one.encode("utf-8", "replace") for one in texts]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    present = np.array([one is not None for one in texts], np.bool_)
    return _assemble(pa.string(), present, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)


def _as_int(value: Any) -> int | None:
    if isinstance(value, (float, np.floating)) and not float(value).is_integer():
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -(2**63) <= number < 2**63 else None


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def alike(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Make a column text in all tables where versions disagree about what it is."""
    kinds: dict[str, set[str]] = {}
    for table in tables:
        for one in table.schema:
            kinds.setdefault(one.name, set()).add(_family(one.type))
    mixed = {name for name, found in kinds.items() if len(found) > 1}
    return [_as_texts(table, mixed) for table in tables]


def _family(kind: pa.DataType) -> str:
    """Return what a type can be promoted within: integers and floats are both numbers."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return str(kind)


def _as_texts(table: pa.Table, names: set[str]) -> pa.Table:
    fields = [one.with_type(pa.string()) if one.name in names else one for one in table.schema]
    return table.cast(pa.schema(fields))
