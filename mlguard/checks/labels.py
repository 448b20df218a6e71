"""Truth and predictions side by side, across the types that files and models give them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from mlguard.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def labelled_rows(frame: Any, target: str) -> Any:
    """Return the rows that have a label; the same frame where all have one.

    Raises
    ------
    DataError
        If the target is absent or no row has a label.
    """
    if target not in frame.columns:
        raise DataError(
            f"the data has no target column {target!r}" + nearest(target, frame.columns),
            hint='name it: target="y", or [data] target in app.toml',
        )
    present = frame[target].notna()
    if not present.any():
        raise DataError(f"no row has a label in {target!r}", hint="hand in rows that have one")
    return frame if present.all() else frame[present]


def equal_labels(truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return where two label arrays agree, across storage types, shape (n,)."""
    import numpy as np

    # Text against numbers would compare as unequal with a warning or as a scalar.
    return np.fromiter(
        (one == other for one, other in zip(truth.tolist(), labels.tolist(), strict=True)),
        dtype=bool,
        count=len(truth),
    )


def some_rows(frame: pd.DataFrame, *, to: str = "judge on") -> pd.DataFrame:
    """Return a frame as it is, if it has rows.

    Raises
    ------
    DataError
        If it has none: nothing passes vacuously.
    """
    if frame.empty:
        raise DataError(
            f"there are no rows to {to}, and nothing passes vacuously",
            hint="hand in a frame that has rows",
        )
    return frame


def finite(values: np.ndarray) -> np.ndarray:
    """Return which values are usable predictions: not missing, not NaN, not infinite."""
    import numpy as np
    import pandas as pd

    missing = np.asarray(pd.isna(values))
    if values.dtype.kind == "f":
        missing = missing | ~np.isfinite(values)
    return ~missing


def attribute(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column that tells groups apart, as objects with None for missing."""
    values = frame[column].astype(object)
    return values.where(values.notna(), None).to_numpy()


def nearest(name: str, known: Any) -> str:
    """Return ``" (did you mean 'x'?)"`` where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, [str(one) for one in known], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def as_numbers(values: np.ndarray, *, whose: str) -> np.ndarray:
    """Return values as float64, shape (n,).

    Raises
    ------
    DataError
        If they are no numbers; names whose they are.
    """
    import numpy as np

    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"an absolute error needs numbers, and {whose} holds {values[0]!r}",
            hint="choose another metric, or correct [data] target",
        ) from error
