"""The traffic of a period as plain arrays: what was asked, answered, and later found to be true.

Rows of all versions stand together; each row knows its version.  A label joins its prediction
by query id.  Default answers are nobody's predictions: they count for the service and for the
drift of inputs, never for errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from mlguard.data.logged_values import CLASHING, Objects, flags, objects, parsed

if TYPE_CHECKING:
    import pyarrow as pa

    from mlguard.data.labels import Label

#: Query ids asked of the label store at once.
_IDS = 50_000

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Labels(Protocol):
    """What a report needs of the label store."""

    def get(self, query_ids: Sequence[int], /) -> Mapping[int, Label]:
        """Return the labels of some predictions, by query id."""


class Log(Protocol):
    """What a report needs of the prediction log."""

    def read(
        self, app: str, *, version_id: int | None, since: float | None, until: float | None
    ) -> pa.Table:
        """Return the rows of one version in a period, oldest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Rows of one app and one period; arrays of shape (n_rows,), oldest first.

    Attributes
    ----------
    time : ndarray of float64
        Seconds since the epoch.
    version : ndarray of object
        Name of the version that answered.
    default, valid, labelled : ndarray of bool
    output, label : ndarray of object
        Parsed; None where there is none.
    score, latency_ms : ndarray of float64
        NaN where there is none.
    explanation : ndarray of object
        Why the default was answered.
    groups : list of dict
        What the callers said of each row.
    columns : dict of str to list of ndarray
        For each input the values of every version that has it.
    features : dict of str to ndarray of object
        The inputs that were asked for (``keep``), row by row, None where the version has none.
    """

    time: Floats
    version: Objects
    default: Flags
    valid: Flags
    labelled: Flags
    output: Objects
    label: Objects
    score: Floats
    latency_ms: Floats
    explanation: Objects
    groups: Sequence[Mapping[str, Any]]
    columns: Mapping[str, Sequence[npt.NDArray[Any]]]
    features: Mapping[str, Objects]

    def __len__(self) -> int:
        return len(self.time)

    @property
    def judged(self) -> Flags:
        """Rows that a version answered itself and whose label has come."""
        return self.labelled & ~self.default

    def attribute(self, name: str) -> Objects:
        """Return each row's group by one attribute, None where it is unknown.

        What the caller said wins over an input of that name.
        """
        column = self.features.get(name)
        found = np.full(len(self), None, dtype=object)
        for place, said in enumerate(self.groups):
            value = said.get(name)
            if value is None and column is not None:
                value = column[place]
            found[place] = None if value is None else str(value)
        return found


def read_traffic(
    log: Log,
    labels: Labels | None,
    app: str,
    versions: Iterable[tuple[int, str]],
    *,
    since: float,
    until: float,
    keep: Sequence[str] = (),
) -> Traffic:
    """Read the rows of a period with their labels.

    Parameters
    ----------
    log : PredictionLog
    labels : LabelStore or None
        None where there are no labels.
    app : str
    versions : iterable of (int, str)
        Id and name of every version that may have answered.
    since, until : float
        Answered at or after, and before; seconds since the epoch.
    keep : sequence of str
        Inputs to keep row by row, e.g. sensitive attributes.
    """
    parts = []
    for version_id, name in versions:
        table = log.read(app, version_id=version_id, since=since, until=until)
        if table.num_rows:
            parts.append((name, table))
    whole = _joined(parts, keep)
    order = np.argsort(whole["time"], kind="stable")
    ids = whole["query_id"][order]
    known = _labels_of(labels, ids.tolist())
    label = objects([known[one].value if one in known else None for one in ids.tolist()])
    return Traffic(
        time=whole["time"][order],
        version=whole["version"][order],
        default=whole["default"][order],
        valid=whole["valid"][order],
        labelled=np.array([one in known for one in ids.tolist()], dtype=bool),
        output=objects([parsed(one) for one in whole["output"][order]]),
        label=label,
        score=whole["score"][order],
        latency_ms=whole["latency_ms"][order],
        explanation=whole["explanation"][order],
        groups=[_said(one) for one in whole["groups"][order]],
        columns=_columns([(name, _with_inputs(table)) for name, table in parts]),
        features={name: whole["feature:" + name][order] for name in keep},
    )


def _with_inputs(table: pa.Table) -> pa.Table:
    """Return the rows whose inputs the log kept; of the others its columns say nothing."""
    if "inputs_kept" not in table.column_names:
        return table
    return table.filter([one is not False for one in table.column("inputs_kept").to_pylist()])


def _joined(
    parts: Sequence[tuple[str, pa.Table]], keep: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    kinds: dict[str, Callable[[pa.ChunkedArray], npt.NDArray[Any]]] = {
        "time": _floats,
        "query_id": lambda column: np.asarray(column.to_numpy(), np.int64),
        "default": flags,
        "valid": flags,
        "output": _texts,
        "score": _floats,
        "latency_ms": _floats,
        "explanation": _texts,
        "groups": _texts,
    }
    empty: dict[str, Any] = {"time": float, "query_id": np.int64, "default": bool, "valid": bool}
    empty |= {"score": float, "latency_ms": float}
    joined: dict[str, npt.NDArray[Any]] = {}
    for name, read in kinds.items():
        found = [read(table.column(name)) for _, table in parts]
        joined[name] = np.concatenate(found) if found else np.empty(0, empty.get(name, object))
    names = [np.full(table.num_rows, name, dtype=object) for name, table in parts]
    joined["version"] = np.concatenate(names) if names else np.empty(0, object)
    for name in keep:
        found = [_kept(table, name) for _, table in parts]
        joined["feature:" + name] = np.concatenate(found) if found else np.empty(0, object)
    return joined


def _kept(table: pa.Table, name: str) -> Objects:
    for column in (CLASHING + name, name):
        if column in table.column_names and (column != name or not _fixed(name)):
            return _texts(table.column(column))
    return np.full(table.num_rows, None, dtype=object)


def _fixed(name: str) -> bool:
    from mlguard.data.prediction_log import FIXED_COLUMNS

    return name in FIXED_COLUMNS


def _columns(parts: Sequence[tuple[str, pa.Table]]) -> dict[str, list[npt.NDArray[Any]]]:
    """Return every input's values, version by version: one without it is no missing value."""
    found: dict[str, list[npt.NDArray[Any]]] = {}
    for _, table in parts:
        for column in table.column_names:
            if not _fixed(column):
                found.setdefault(column.removeprefix(CLASHING), []).append(
                    _values(table.column(column))
                )
    return found


def _values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return _floats(column)
    return _texts(column)


def _floats(column: pa.ChunkedArray) -> Floats:
    import pyarrow as pa

    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _texts(column: pa.ChunkedArray) -> Objects:
    return objects(column.to_pylist())


def _said(text: str | None) -> Mapping[str, Any]:
    found = parsed(text) if text else None
    return found if isinstance(found, dict) else {}


def _labels_of(labels: Labels | None, ids: Sequence[int]) -> dict[int, Label]:
    found: dict[int, Label] = {}
    if labels is not None:
        for start in range(0, len(ids), _IDS):
            found |= labels.get(ids[start : start + _IDS])
    return found


def positive_class(reference: Mapping[str, Any] | None) -> Any:
    """Return the class that scores are of: of two the second; None where there are not two."""
    classes = list((reference or {}).get("classes") or [])
    return classes[1] if len(classes) == 2 else None


def class_name(value: Any) -> str:
    """Return the one way to write a class, so that ``1``, ``1.0`` and ``"1"`` are one."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
