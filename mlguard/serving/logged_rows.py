"""Answered rows as the log takes them: whose they are, what is known of them, column by column."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from mlguard.data.input_sample import in_sample
from mlguard.data.same import Same
from mlguard.serving.replica import as_table

_ENCODER = msgspec.json.Encoder()
#: Values of one such type are equal only where their JSON is.
_ALIKE = ({int}, {str}, {bool})

#: Answered rows: a column for each of ``FACTS``, all of one length.
Facts = dict[str, Sequence[Any]]
#: What is known of an answered row; ``row`` is as the model got it.
FACTS = (
    "query_id",
    "time",
    "generation",
    "default",
    "explanation",
    "output",
    "score",
    "uid",
    "groups",
    "latency_ms",
    "valid",
    "row",
)


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where the rows of one version go, and what is kept of their inputs.

    Attributes
    ----------
    app : str
        The app.
    version_id : int or str
        0 where no version answered; the name of a folder where what it answered reaches nobody.
    features : tuple of Feature
        The version's inputs, in the order of a row.
    redact : tuple of str
        Columns that are never written.
    inputs : bool
        Whether inputs are written at all.
    rate : float
        Share of the rows whose inputs are written.
    grid : Profile or None
        Profile of the version's reference, on whose grid its inputs are counted; None: they
        are not.
    """

    app: str
    version_id: int | str
    features: tuple[Any, ...] = ()
    redact: tuple[str, ...] = ()
    inputs: bool = True
    rate: float = 1.0
    grid: Any = None


def joined(parts: list[Facts]) -> Facts:
    """Return batches as one, column by column; what is the same in all of them stays one value."""
    return {name: _one_column([part[name] for part in parts]) for name in FACTS}


def _one_column(parts: list[Any]) -> Any:
    kinds = set(map(type, parts))
    if kinds == {Same} and len({one.value for one in parts}) == 1:
        return Same(parts[0].value, sum([one.n for one in parts]))
    if kinds == {range}:
        return np.concatenate([np.arange(one.start, one.stop) for one in parts])
    if kinds == {np.ndarray}:
        return np.concatenate(parts)
    parts = [one.tolist() if isinstance(one, np.ndarray) else one for one in parts]
    return list(chain.from_iterable(parts))


def columns_of(
    target: LogTarget, facts: Facts
) -> tuple[Mapping[str, Sequence[Any]], Sequence[Sequence[Any]] | None]:
    """Return the log's columns, and the rows of inputs where they are kept."""
    columns = facts | {"output": _as_json(facts["output"])}
    rows: Sequence[Any] = columns.pop("row")
    keeps = target.inputs and bool(target.features)
    kept: Sequence[bool] = Same(keeps, len(rows))
    if keeps and target.rate < 1:
        kept = in_sample(columns["query_id"], target.rate).tolist()
    columns["inputs_kept"] = kept
    if not any(kept):
        return columns, None
    if isinstance(rows, np.ndarray):
        if not all(kept):
            rows = np.where(np.array(kept)[:, np.newaxis], rows, np.nan)
    elif not all(kept):
        nothing = [None] * len(target.features)
        rows = [_cells(row) if one else nothing for row, one in zip(rows, kept, strict=True)]
    elif type(rows[0]) is not list:
        # A string or bytes is a row of one column; a list is its cells.
        rows = [_cells(one) for one in rows]
    return columns, rows


def as_numbers(target: LogTarget, rows: Sequence[Any]) -> Any:
    """Return rows of nothing but numbers as one array, column after column; others as they are."""
    if not target.features or any(one.kind != "number" for one in target.features):
        return rows
    found = as_table(rows)
    # Rows of an app that changed its columns are no table.
    return rows if found is None else np.asfortranarray(found)


def _cells(row: Any) -> Sequence[Any]:
    """Return a row as its cells, as the log holds them."""
    if type(row) is list:
        return row
    return [base64.b64encode(row).decode() if type(row) is bytes else row]


def _as_json(outputs: Sequence[Any]) -> list[str]:
    """Return outputs as JSON texts; a classifier has few that differ."""
    if set(map(type, outputs)) in _ALIKE:
        texts = {one: _ENCODER.encode(one).decode() for one in set(outputs)}
        return [texts[one] for one in outputs]
    return [_ENCODER.encode(one).decode() for one in outputs]
