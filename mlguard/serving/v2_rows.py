"""Tensors of the Open Inference Protocol v2 → rows in Clipper's form → tensors again; pure.

How tensors are rows
--------------------
* ``doubles``, ``floats``, ``ints``: one tensor of shape ``[n, features]``; or one tensor for
  each feature, by name, of shape ``[n]`` or ``[n, 1]``.
* ``strings``, ``bytes``: one BYTES tensor of shape ``[n]`` or ``[n, 1]``.
* ``table``: one tensor for each feature, by name; features may be BYTES, BOOL or numbers.  A
  NaN in a floating point tensor is a missing cell.

How sure an answer is
---------------------
Where a version says so (``[app] uncertainty``), it has one output more.  ``prediction_set`` is
BOOL of shape ``[n, classes]``: which classes are in each row's set; its parameters name the
classes in order.  ``interval`` is FP64 of shape ``[n, 2]``: the bounds.  A default output has an
empty set, or NaN for its bounds.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mlguard.serving.answers import as_output
from mlguard.serving.v2_tensors import FLOATING, Tensor, TensorError

if TYPE_CHECKING:
    from mlguard.config import InputType
    from mlguard.models.schema import Feature, InputSchema
    from mlguard.models.uncertainty import Uncertainty

_FEATURE_TYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}
_ROW_TYPES = {"doubles": "FP64", "floats": "FP32", "ints": "INT64"}
#: Every output there may be, in order: the label, its score, whether it is the default, the id of
#: the query, how sure the answer is.
OUTPUTS = ("output", "score", "default", "query_id", "prediction_set", "interval")
_BOUNDS = 2


def rows_of(tensors: Sequence[Tensor], kind: InputType, features: Sequence[Feature]) -> list[Any]:
    """Return rows as Clipper's contract has them: JSON values, or base64 of bytes.

    Parameters
    ----------
    tensors : sequence of Tensor
        The inputs.
    kind : InputType
        Of the app.
    features : sequence of Feature
        Of the version that answers; empty where unknown.

    Raises
    ------
    TensorError
        If the tensors are no rows of this app.
    """
    if not tensors:
        raise TensorError("the request has no inputs")
    names = [one.name for one in features]
    by_name = {one.name: one for one in tensors}
    if len(by_name) != len(tensors):
        raise TensorError("two inputs have the same name")
    whole = tensors[0] if len(tensors) == 1 else None
    if kind in ("strings", "bytes"):
        if whole is None or len(whole.values) != whole.shape[0]:
            raise TensorError("this app takes one BYTES tensor of shape [n] or [n, 1]")
        return _texts(whole, kind)
    if whole is not None and kind != "table" and (len(whole.shape) == 2 or len(names) != 1):
        n_columns = whole.shape[1] if len(whole.shape) == 2 else 0
        wanted = str(len(names) or "features")
        if not n_columns or (names and n_columns != len(names)):
            shape = list(whole.shape)
            raise TensorError(f"{whole.name}: shape {shape}, the model takes [n, {wanted}]")
        cells = _numbers(whole)
        return [cells[at : at + n_columns] for at in range(0, len(cells), n_columns)]
    return _from_columns(by_name, names or list(by_name), table=kind == "table")


def _from_columns(by_name: Mapping[str, Tensor], names: Sequence[str], *, table: bool) -> list[Any]:
    missing = [name for name in names if name not in by_name]
    if missing:
        raise TensorError(f"no tensor for {', '.join(map(repr, missing))}")
    columns = []
    for name in names:
        one = by_name[name]
        if len(one.values) != one.shape[0]:
            raise TensorError(f"{name}: shape {list(one.shape)}, a column is [n] or [n, 1]")
        columns.append(_cells(one) if table else _numbers(one))
    if len({len(column) for column in columns}) > 1:
        raise TensorError("the tensors have different numbers of rows")
    rows = zip(*columns, strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows] if table else [*map(list, rows)]


def _numbers(one: Tensor) -> list[Any]:
    if one.datatype in ("BYTES", "BOOL"):
        raise TensorError(f"{one.name}: {one.datatype} where the app takes numbers")
    for index, value in enumerate(one.values):
        if value is None or not math.isfinite(value):
            raise TensorError(f"{one.name}: value {index} is not finite")
    return [float(value) for value in one.values] if one.datatype in FLOATING else one.values


def _cells(one: Tensor) -> list[Any]:
    if one.datatype == "BYTES":
        return _texts(one, "strings")
    cells = []
    for index, value in enumerate(one.values):
        if value is not None and math.isinf(value):
            raise TensorError(f"{one.name}: value {index} is not finite")
        cells.append(None if value is None or value != value else value)  # NaN
    return cells


def _texts(one: Tensor, kind: str) -> list[str]:
    if one.datatype != "BYTES":
        raise TensorError(f"{one.name}: {one.datatype} where the app takes BYTES")
    texts = []
    for index, value in enumerate(one.values):
        raw = value if isinstance(value, bytes) else None
        if kind == "bytes":
            # JSON cannot carry any bytes: there, as in Clipper's contract, they are base64.
            texts.append(value if raw is None else base64.b64encode(raw).decode())
            continue
        try:
            texts.append(value if raw is None else raw.decode())
        except UnicodeDecodeError:
            raise TensorError(f"{one.name}: element {index} is not UTF-8") from None
    return texts


def outputs_of(
    answers: Sequence[Mapping[str, Any]],
    scores: Sequence[float | None],
    schema: InputSchema | None,
    uncertainty: Uncertainty | None = None,
    *,
    wanted: Collection[str] = (),
) -> list[Tensor]:
    """Return the outputs of an answer.

    Labels have the datatype that the metadata says; where a default output is among them that
    it cannot carry, they are BYTES: text as it is, anything else as JSON.  ``score`` is there where
    every row has one; where it is wanted by name, rows without one have NaN.

    Parameters
    ----------
    answers : sequence of mapping
        In Clipper's form.
    scores : sequence of float or None
        One for each answer.
    schema : InputSchema or None
        Of the version that answered; None: no version.
    uncertainty : Uncertainty or None
        What that version says of how sure it is.
    wanted : collection of str
        Outputs that are asked for by name; each one that may be there is there.
    """
    n = len(answers)
    labels, kind = [one["output"] for one in answers], "BYTES"
    if schema is not None:
        kind = label_type(schema)
    kind, labels = _labels(labels, kind)
    found = [Tensor("output", (n,), kind, labels)]
    if "score" in wanted or (answers and None not in scores):
        cells = [math.nan if one is None else one for one in scores]
        found.append(Tensor("score", (n,), "FP64", cells))
    found.append(Tensor("default", (n,), "BOOL", [one["default"] for one in answers]))
    found.append(Tensor("query_id", (n,), "INT64", [one["query_id"] for one in answers]))
    given = None if uncertainty is None else uncertainty.kind
    if given == "set" or "prediction_set" in wanted:
        found.append(_sets(answers, uncertainty))
    if given == "interval" or "interval" in wanted:
        found.append(_intervals(answers, uncertainty))
    return found


def _sets(answers: Sequence[Mapping[str, Any]], uncertainty: Uncertainty | None) -> Tensor:
    classes = [] if uncertainty is None else [as_output(one) for one in uncertainty.classes]
    kept = [one.get("uncertainty", {}).get("set", ()) for one in answers]
    cells = [label in one for one in kept for label in classes]
    about = _about(uncertainty)
    return Tensor("prediction_set", (len(answers), len(classes)), "BOOL", cells, about)


def _intervals(answers: Sequence[Mapping[str, Any]], uncertainty: Uncertainty | None) -> Tensor:
    none = [math.nan] * _BOUNDS
    found = [one.get("uncertainty", {}).get("interval", none) for one in answers]
    cells = [float(bound) for bounds in found for bound in bounds]
    return Tensor("interval", (len(answers), _BOUNDS), "FP64", cells, _about(uncertainty))


def _about(uncertainty: Uncertainty | None) -> dict[str, Any]:
    """Return what has to be known of a set or an interval to read it."""
    if uncertainty is None:
        return {}
    about: dict[str, Any] = {"coverage": uncertainty.coverage}
    if uncertainty.kind == "set":
        about["classes"] = [as_output(one) for one in uncertainty.classes]
    return about


def _labels(labels: list[Any], datatype: str) -> tuple[str, list[Any]]:
    kinds: dict[str, tuple[type, ...]] = {"INT64": (int,), "FP64": (int, float), "BOOL": (bool,)}
    good = kinds.get(datatype, (str,))
    fits = all(type(label) in good for label in labels)
    if fits and datatype == "INT64":
        fits = all(-(2**63) <= label < 2**63 for label in labels)
    if fits:
        return datatype, labels
    return "BYTES", [
        label if isinstance(label, str) else msgspec.json.encode(label).decode() for label in labels
    ]


# --- metadata ----------------------------------------------------------------------------


def label_type(schema: InputSchema) -> str:
    """Return the datatype of a version's labels."""
    if schema.task == "regression":
        return "FP64"
    kinds = {type(label) for label in schema.classes or ()}
    return {frozenset({int}): "INT64", frozenset({float}): "FP64", frozenset({bool}): "BOOL"}.get(
        frozenset(kinds), "BYTES"
    )


def input_tensors(schema: InputSchema) -> list[dict[str, Any]]:
    """Return what the metadata says of a version's inputs; -1 is any number of rows."""
    if schema.input in _ROW_TYPES:
        shape = [-1, len(schema.features)]
        return [{"name": "input", "datatype": _ROW_TYPES[schema.input], "shape": shape}]
    if schema.input != "table":
        return [{"name": "input", "datatype": "BYTES", "shape": [-1]}]
    return [
        {"name": one.name, "datatype": _FEATURE_TYPES.get(one.kind, "BYTES"), "shape": [-1]}
        for one in schema.features
    ]


def output_tensors(
    schema: InputSchema, uncertainty: Uncertainty | None = None
) -> list[dict[str, Any]]:
    """Return what the metadata says of a version's outputs."""
    types = dict(zip(OUTPUTS, (label_type(schema), "FP64", "BOOL", "INT64"), strict=False))
    if schema.task == "classification" and len(schema.classes or ()) != 2:
        del types["score"]  # of many classes none is the positive one
    found: list[dict[str, Any]] = [
        {"name": name, "datatype": kind, "shape": [-1]} for name, kind in types.items()
    ]
    if uncertainty is not None:
        empty = (_sets if uncertainty.kind == "set" else _intervals)([], uncertainty)
        found.append(
            {
                "name": empty.name,
                "datatype": empty.datatype,
                "shape": [-1, empty.shape[1]],
                "parameters": dict(empty.parameters),
            }
        )
    return found
