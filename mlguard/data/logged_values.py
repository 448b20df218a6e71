"""Values as the prediction log gives them back, as plain arrays: for monitors and for reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

#: Put by the log before the name of a feature that one of its own columns has too.
CLASHING = "feature:"

Objects = npt.NDArray[np.object_]


def objects(values: Sequence[Any]) -> Objects:
    """Return values of any kind as an array of shape (n,).

    Element by element: numpy would unpack equally long lists into a second dimension.
    """
    found = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        found[place] = value
    return found


def flags(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return a column of truth values; null is False."""
    return np.array([bool(one) for one in column.to_pylist()], dtype=bool)


def parsed(text: str | None) -> Any:
    """Return an output as it was answered: JSON, or the text that it was."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        # A default output is whatever app.toml says, JSON or not.
        return text
