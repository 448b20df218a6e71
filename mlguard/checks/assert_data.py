"""Assertions about data for people's own tests: no leakage, no personal data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

from mlguard.config import LeakageCheck
from mlguard.results import CheckResult

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["assert_no_leakage", "assert_no_pii"]

#: Rows that are looked at; more of them show nothing else.
_MOST_ROWS = 50_000
_SEED = 20_240_508


def assert_no_leakage(
    frame: pd.DataFrame,
    *,
    target: str,
    features: Sequence[str] = (),
    at_most: float = 0.99,
    regression: bool = False,
    confidence_level: float = 0.95,
    on_inconclusive: Literal["block", "warn"] = "block",
) -> CheckResult:
    """Assert that no column alone predicts the target almost perfectly.

    Parameters
    ----------
    frame : pandas.DataFrame
        Rows with the target; those without a label are left out.
    target : str
        Column that holds the truth.
    features : sequence of str
        Columns that are asked; default all but the target.
    at_most : float, default 0.99
        Largest AUC of one column alone, or rank correlation for a regression.
    regression : bool, default False
        Whether the target is a number rather than a class.
    confidence_level : float, default 0.95
        Of the interval.
    on_inconclusive : {"block", "warn"}, default "block"
        Whether too little data fails the test.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If a column knows the answer, or nobody can tell.
    DataError
        If the frame lacks a column, or no row has a label.
    """
    __tracebackhide__ = True
    from mlguard.checks.asserts import asserted
    from mlguard.checks.labels import labelled_rows
    from mlguard.checks.leakage import find_leakage
    from mlguard.data.frames import select_columns

    rows = labelled_rows(frame, target)
    names = list(features) or [name for name in rows.columns if name != target]
    select_columns(rows, names, where="the frame")
    if len(rows) > _MOST_ROWS:
        rows = rows.sample(_MOST_ROWS, random_state=_SEED)
    policy = LeakageCheck(at_most=at_most, confidence_level=confidence_level)
    found = find_leakage([rows], names, target, policy, regression=regression)
    return asserted(found, on_inconclusive)


def assert_no_pii(
    frame: pd.DataFrame, *, columns: Sequence[str] = (), allow: Collection[str] = ()
) -> CheckResult:
    """Assert that no column seems to hold names, mails, phones, card numbers or ids of people.

    Parameters
    ----------
    frame : pandas.DataFrame
        The rows.
    columns : sequence of str
        Columns that are looked at; default all.
    allow : collection of str
        Columns that may hold personal data.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If a column does; it is named with what it seems to hold, never with a value.
    DataError
        If the frame has no rows, or lacks a column.
    """
    __tracebackhide__ = True
    from mlguard.checks.asserts import asserted
    from mlguard.checks.labels import some_rows
    from mlguard.checks.privacy import pii_finding
    from mlguard.data.frames import select_columns
    from mlguard.data.pii import find_personal_data

    some_rows(frame, to="look for personal data in")
    names = [one for one in (columns or frame.columns) if one not in allow]
    rows = select_columns(frame, names, where="the frame")
    if len(rows) > _MOST_ROWS:
        rows = rows.sample(_MOST_ROWS, random_state=_SEED)
    found = {}
    for name in names:
        if rows[name].dtype.kind == "f":
            continue  # a number with decimals is no number of anybody
        one = find_personal_data(str(name), rows[name].dropna().astype(str))
        if one is not None:
            found[str(name)] = one
    result = pii_finding(
        found,
        features=list(found),
        logged=[],
        n=len(frame),
        looked_at=len(names),
        allowed="allow",
        seen=False,
    )
    return asserted(result, "block")
