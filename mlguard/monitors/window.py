"""A window of live traffic as plain arrays, and where one window ends and the next begins.

Rule 1: a window holds rows of one version in one generation.

Rule 2: it opens with a row and closes after so many rows or so many seconds, whichever comes
first.  No rows, no window: an idle app has nothing to judge and is never called broken.

Rule 3: where it closes depends on its rows alone, never on when somebody looked, so a restart
in the middle cuts the same windows again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from mlguard.data.logged_values import CLASHING, Objects, flags, objects, parsed
from mlguard.results import Window

if TYPE_CHECKING:
    import pyarrow as pa

    from mlguard.data.labels import Label
    from mlguard.data.profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How many of the labels that are due have come.

    Attributes
    ----------
    n_due, n_labelled : int
        Predictions older than ``[labels] delay``, and those of them with a label.
    """

    n_due: int
    n_labelled: int

    @property
    def share(self) -> float:
        """Labelled share of the due rows, 1 where none is due."""
        return self.n_labelled / self.n_due if self.n_due else 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProfileWindow:
    """What was counted of the rows of one version in one generation.

    Attributes
    ----------
    version : str
        Name of the version that answered.
    window : Window
        When it was, and how many rows it stands for.
    profile : Profile or None
        Of the valid rows' inputs and scores; None where they were not counted.
    refused : int or None
        Requests that were refused meanwhile as malformed; None where nobody counted.
    """

    version: str
    window: Window
    profile: Profile | None
    refused: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowData:
    """Rows of one version in one generation, all arrays of shape (n_rows,).

    Attributes
    ----------
    version : str
        Name of the version that answered.
    generation : int
        Generation that it answered in.
    query_id : ndarray of int64
    time : ndarray of float64
        Seconds since the epoch.
    columns : mapping of str to ndarray
        The logged features; a missing number is NaN, a missing text None.
    output : ndarray of object
        Answers, parsed from JSON.
    score : ndarray of float64
        Positive-class score or regression value, NaN where there is none.
    default, valid : ndarray of bool
        Whether the default was answered; whether the row passed the request schema.
    inputs_kept : ndarray of bool
        Whether the log has the row's inputs; where it has not, its columns say nothing.
    explanation : ndarray of object
        Why the default was answered, None elsewhere.
    groups : sequence of dict
        Groups that the caller named, attribute to value.
    label : ndarray of object
        Labels, None where there is none (see ``labelled``).
    labelled : ndarray of bool
    source : ndarray of object
        Who sent each label, None where there is none.
    seq : ndarray of int64
        Place of each label in the order of arrival, 0 where there is none.
    arrived : ndarray of float64
        When each label was stored, NaN where there is none.
    coverage : Coverage or None
        How mature the labels are; None where nobody counted.
    usual_sources : int
        Sources that labels usually come from; 0 where nobody counted.
    """

    version: str
    generation: int
    query_id: npt.NDArray[np.int64]
    time: npt.NDArray[np.float64]
    columns: Mapping[str, npt.NDArray[Any]]
    output: Objects
    score: npt.NDArray[np.float64]
    default: npt.NDArray[np.bool_]
    valid: npt.NDArray[np.bool_]
    inputs_kept: npt.NDArray[np.bool_]
    explanation: Objects
    groups: Sequence[Mapping[str, str]]
    label: Objects
    labelled: npt.NDArray[np.bool_]
    source: Objects
    seq: npt.NDArray[np.int64]
    arrived: npt.NDArray[np.float64]
    coverage: Coverage | None = None
    usual_sources: int = 0

    def __len__(self) -> int:
        return len(self.query_id)

    @property
    def window(self) -> Window:
        """When it was, and how many rows and labels it holds."""
        return Window(
            start=float(self.time.min()),
            end=float(self.time.max()),
            n_rows=len(self),
            n_labels=int(self.labelled.sum()),
            generation=self.generation,
        )

    def take(self, index: npt.NDArray[Any] | slice) -> Self:
        """Return some of the rows, by position or by mask."""
        places = np.arange(len(self))[index]
        changed: dict[str, Any] = {
            spec.name: getattr(self, spec.name)[places]
            for spec in dataclasses.fields(self)
            if isinstance(getattr(self, spec.name), np.ndarray)
        }
        changed["columns"] = {name: values[places] for name, values in self.columns.items()}
        changed["groups"] = [self.groups[place] for place in places]
        return dataclasses.replace(self, **changed)

    def attribute(self, name: str) -> Objects:
        """Return each row's group by one attribute, None where it is unknown.

        What the caller named wins over an input column of that name.
        """
        column = self.columns.get(name)
        found = np.full(len(self), None, dtype=object)
        for place, named in enumerate(self.groups):
            value = named.get(name)
            if value is None and column is not None:
                value = column[place]
                if value is not None and value != value:  # NaN is no group
                    value = None
            found[place] = None if value is None else str(value)
        return found

    def with_answers(self, output: Objects, score: npt.NDArray[np.float64] | None) -> Self:
        """Return the same rows as if another version had answered them."""
        n = len(self)
        return dataclasses.replace(
            self,
            output=output,
            score=np.full(n, np.nan) if score is None else score,
            default=np.zeros(n, dtype=bool),
            explanation=np.full(n, None, dtype=object),
        )


def window_data(
    table: pa.Table,
    *,
    version: str,
    labels: Mapping[int, Label] | None = None,
    coverage: Coverage | None = None,
) -> WindowData:
    """Return rows of the prediction log with their labels.

    Parameters
    ----------
    table : pyarrow.Table
        Rows of one version in one generation, as the prediction log gives them; at least one.
    version : str
        Name of that version.
    labels : mapping of int to Label, optional
        Labels by query id.
    coverage : Coverage, optional
        How mature the labels are.
    """
    from mlguard.data.prediction_log import FIXED_COLUMNS

    ids = table.column("query_id").to_numpy()
    joined = [(labels or {}).get(one) for one in ids.tolist()]
    texts = table.column("output").to_pylist()
    outputs = {one: parsed(one) for one in set(texts)}
    groups = {one: _group(one) for one in table.column("groups").unique().to_pylist()}
    return WindowData(
        version=version,
        generation=int(table.column("generation")[0].as_py()),
        query_id=ids.astype(np.int64),
        time=table.column("time").to_numpy().astype(np.float64),
        columns={
            name.removeprefix(CLASHING): _values(table.column(name))
            for name in table.column_names
            if name not in FIXED_COLUMNS
        },
        output=objects([outputs[one] for one in texts]),
        # Null becomes NaN.
        score=table.column("score").to_numpy().astype(np.float64),
        default=flags(table.column("default")),
        valid=flags(table.column("valid")),
        inputs_kept=kept_inputs(table),
        explanation=objects(table.column("explanation").to_pylist()),
        groups=[groups[one] for one in table.column("groups").to_pylist()],
        label=objects([None if one is None else one.value for one in joined]),
        labelled=np.array([one is not None for one in joined], dtype=bool),
        source=objects([None if one is None else one.source for one in joined]),
        seq=np.array([0 if one is None else one.seq for one in joined], dtype=np.int64),
        arrived=np.array([np.nan if one is None else one.at for one in joined], dtype=np.float64),
        coverage=coverage,
    )


def kept_inputs(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Return of which rows of the log the inputs were kept, as far as there are any."""
    if "inputs_kept" not in table.column_names:
        return np.ones(table.num_rows, dtype=bool)
    # Null in rows of older releases, which kept all or none.
    return np.array([one is not False for one in table.column("inputs_kept").to_pylist()], bool)


def _values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_floating(column.type) or (
        pa.types.is_integer(column.type) and not column.null_count
    ):
        return np.asarray(column.to_numpy())
    if pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy())
    return objects(column.to_pylist())


def _group(text: str | None) -> dict[str, str]:
    found = parsed(text) if text else {}
    return {str(key): str(value) for key, value in found.items()} if type(found) is dict else {}


def cut(
    times: npt.NDArray[np.float64], *, window_s: float, window_rows: int, now: float
) -> list[tuple[int, int]]:
    """Return the closed windows in a run of rows.

    Parameters
    ----------
    times : ndarray of float64, shape (n_rows,)
        When each row came, ascending; the first opens a window.
    window_s, window_rows : float, int
        A window closes after so many seconds or so many rows, whichever comes first.
    now : float
        Until when rows are complete; a window that may still grow is not returned.

    Returns
    -------
    list of (int, int)
        Start and stop of each closed window; rows after the last stop are still open.
    """
    closed = []
    start, n = 0, len(times)
    while start < n:
        ends = times[start] + window_s
        stop = int(np.searchsorted(times, ends, side="left"))
        if stop - start >= window_rows:
            stop = start + window_rows
        elif ends > now:
            break
        stop = max(stop, start + 1)
        closed.append((start, stop))
        start = stop
    return closed


def concat(parts: Sequence[WindowData]) -> WindowData:
    """Join stretches of rows of one version in one generation, in the order given.

    Columns that one of them lacks are left out.
    """
    first = parts[0]
    names = [name for name in first.columns if all(name in one.columns for one in parts)]
    joined: dict[str, Any] = {
        spec.name: np.concatenate([getattr(one, spec.name) for one in parts])
        for spec in dataclasses.fields(first)
        if isinstance(getattr(first, spec.name), np.ndarray)
    }
    return dataclasses.replace(
        first,
        **joined,
        columns={name: np.concatenate([one.columns[name] for one in parts]) for name in names},
        groups=[group for one in parts for group in one.groups],
    )
