"""Changes to one column of a table that people make every day: slips, capitals, blanks, noise.

Each change is a pure function of the values and a seed, so the same rows are changed alike in
every run.  What is missing stays missing, and a value that a change leaves as it is (a text
without letters has no capitals) is told apart: only rows that were changed say anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlguard.checks.labels import nearest
from mlguard.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_SEED = 20_240_503
#: Shortest text in which two neighbouring letters can change places.
_PAIR = 2


def changed_rows(
    frame: pd.DataFrame,
    column: str,
    change: str,
    *,
    size: float = 0.01,
    values: Sequence[Any] = (),
    seed: int = _SEED,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows that a change touches, as they are and as it leaves them.

    Parameters
    ----------
    frame : pandas.DataFrame of shape (n_rows, n_columns)
        Any rows; it is not changed itself.
    column : str
        The column to change, one of the frame's.
    change : {"typo", "case", "space", "noise", "swap"}
        What is done to it.
    size : float, default 0.01
        Of noise, in standard deviations of the column.
    values : sequence, optional
        Values that are swapped, each for the next; default: all that occur.
    seed : int
        Which letters change places, and which numbers go up.

    Returns
    -------
    before, after : pandas.DataFrame
        Equal but for the column, in the order of the frame; without the rows that the change
        leaves as they are.

    Raises
    ------
    DataError
        If the change does not fit the column's values.
    """
    import numpy as np

    old = frame[column]
    random = np.random.default_rng(seed)
    if change == "noise":
        new = _shifted(old, size, random)
    elif change == "swap":
        new = _swapped(old, values)
    else:
        new = _rewritten(
            old, {"typo": _slip, "case": _other_case, "space": _blanks}[change], random
        )
    touched = old.notna().to_numpy() & (old.astype(object) != new.astype(object)).to_numpy()
    before = frame[touched]
    after = before.copy()
    after[column] = new[touched]
    return before, after


def _rewritten(
    old: pd.Series[Any],
    rewrite: Callable[[str, np.random.Generator], str],
    random: np.random.Generator,
) -> pd.Series[Any]:
    values = old.astype(object)
    present = values.notna()
    if not present.any() or not all(isinstance(one, str) for one in values[present]):
        raise DataError(
            f"the column {old.name!r} holds no text, and only text can be written differently",
            hint='for a column of numbers use change = "noise"',
        )
    return values.map(lambda one: rewrite(one, random) if isinstance(one, str) else one)


def _slip(text: str, random: np.random.Generator) -> str:
    """Let two neighbouring letters that differ change places."""
    places = [
        place
        for place in range(len(text) - 1)
        if text[place] != text[place + 1] and text[place : place + _PAIR].isalnum()
    ]
    if not places:
        return text
    place = places[int(random.integers(len(places)))]
    return text[:place] + text[place + 1] + text[place] + text[place + _PAIR :]


def _other_case(text: str, _: np.random.Generator) -> str:
    return text.lower() if text.upper() == text else text.upper()


def _blanks(text: str, _: np.random.Generator) -> str:
    return f" {text} "


def _shifted(old: pd.Series[Any], size: float, random: np.random.Generator) -> pd.Series[Any]:
    import numpy as np
    from pandas.api import types

    if not types.is_numeric_dtype(old.dtype) or types.is_bool_dtype(old.dtype):
        raise DataError(
            f"the column {old.name!r} holds no numbers, and only numbers have noise",
            hint='for a column of text use change = "typo", "case" or "space"',
        )
    spread = float(old.std())
    if not spread > 0:
        raise DataError(
            f"the column {old.name!r} has one value only, so it has no spread to measure noise by",
            hint="name another column",
        )
    signs = np.where(random.random(len(old)) < 0.5, -1.0, 1.0)  # a coin
    shift = signs * size * spread
    if types.is_integer_dtype(old.dtype):
        # A whole number stays one; the smallest step is 1.
        shift = signs * max(1, round(size * spread))
        return old + shift.astype(np.int64)
    return old + shift


def _swapped(old: pd.Series[Any], values: Sequence[Any]) -> pd.Series[Any]:
    known = sorted(old.dropna().unique().tolist(), key=str)
    by_text = {str(one): one for one in known}
    absent = [str(one) for one in values if str(one) not in by_text]
    if absent:
        raise DataError(
            f"the column {old.name!r} has no value {absent[0]!r}" + nearest(absent[0], by_text),
            hint=f"values: {', '.join(list(by_text)[:12])}",
        )
    ring = [by_text[str(one)] for one in values] or known
    if len(set(ring)) < _PAIR:
        raise DataError(
            f"the column {old.name!r} has one value only, so nothing can be swapped",
            hint="name another column, or rows in which it differs",
        )
    following = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    return old.map(lambda one: following.get(one, one), na_action="ignore")
