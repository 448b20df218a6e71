"""Rows of a frame as callers send them: lists or objects of JSON values."""

from __future__ import annotations

import base64
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from mlguard.data.frames import select_columns

if TYPE_CHECKING:
    import pandas as pd

    from mlguard.models.schema import InputSchema


def request_rows(frame: pd.DataFrame, schema: InputSchema) -> list[Any]:
    """Return the inputs of rows in the shape that the app's input type has.

    Parameters
    ----------
    frame : pandas.DataFrame of shape (n_rows, n_columns)
        Holds the schema's features; more columns are left out.
    schema : InputSchema
        Of the version that is asked.

    Returns
    -------
    list
        One list of values, one mapping by name or one single value per row; missing is None.

    Raises
    ------
    DataError
        If the frame lacks a feature.
    """
    names = list(schema.names)
    columns = [
        [_plain(value) for value in select_columns(frame, [name], where="the rows")[name]]
        for name in names
    ]
    if schema.input in ("strings", "bytes"):
        return columns[0]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in rows] if schema.input == "table" else rows


def as_json(row: Any) -> Any:
    """Return a row with what JSON does not have written as the server reads it."""
    if isinstance(row, dict):
        return {name: as_json(value) for name, value in row.items()}
    if isinstance(row, list):
        return [as_json(value) for value in row]
    if isinstance(row, bytes):
        return base64.b64encode(row).decode("ascii")
    return row.isoformat() if isinstance(row, datetime | date) else row


def _plain(value: Any) -> Any:
    found = value.item() if hasattr(value, "item") else value
    # NaN and NaT are the values that differ from themselves.
    return None if found is None or found != found else found
