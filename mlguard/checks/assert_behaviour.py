"""Assertions about how a model behaves, for people's own tests and notebooks.

They ask what ``[gate.behaviour]`` asks (:mod:`mlguard.checks.behaving`), on whatever rows and
changes a test chooses.  Each returns the :class:`~mlguard.results.CheckResult` it found and
raises :class:`~mlguard.checks.explain.CheckFailedError` where it would close a gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlguard.checks.asserts import OnInconclusive, asserted
from mlguard.checks.evidence import as_judged
from mlguard.checks.labels import some_rows
from mlguard.config import CalibrationRule, DirectionalRule, InvarianceRule, MinimumRule, Table
from mlguard.errors import UsageError
from mlguard.results import CheckResult, Enforcement
from mlguard.wording import printable

if TYPE_CHECKING:
    import pandas as pd

    from mlguard.stats.decision import Decide

__all__ = [
    "assert_calibrated",
    "assert_directional",
    "assert_invariant",
    "assert_minimum_functionality",
]


def assert_invariant(
    candidate: Any,
    frame: pd.DataFrame,
    *,
    column: str,
    change: Literal["typo", "case", "space", "noise", "swap"],
    at_most: float = 0.05,
    size: float = 0.01,
    values: Sequence[Any] = (),
    tolerance: float = 0.0,
    target: str = "",
    confidence_level: float = 0.95,
    decide: Decide = "evidence",
    on_inconclusive: OnInconclusive = "block",
) -> CheckResult:
    """Assert that a change of one column does not change the answers.

    Parameters
    ----------
    candidate : JudgedModel or estimator
        The fixture ``candidate``, or a model with ``predict``.
    frame : pandas.DataFrame
        Rows to change; labels are not needed.
    column : str
        Column that is changed.
    change : {"typo", "case", "space", "noise", "swap"}
        What is done to it: two neighbouring letters change places, other capitals, a blank at
        both ends, a shift up or down by ``size`` standard deviations (of whole numbers at least
        1), or the next one of ``values``.
    at_most : float, default 0.05
        Largest share of the changed rows that may be answered anew, in [0, 1).
    size : float, default 0.01
        Of the shift, in standard deviations of the column.
    values : sequence, optional
        Values that are swapped; default all that occur in the column.
    tolerance : float, default 0
        Change of a regression's answer that is ignored, in its unit.
    target : str
        Column that holds the truth; the fixture knows it.
    confidence_level : float, default 0.95
        Of the interval of the share.
    decide : {"evidence", "proof", "estimate"}, default "evidence"
        How the interval is held against the limit.
    on_inconclusive : {"block", "warn"}, default "block"
        Whether too little data fails the test.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If too many answers change, or nobody can tell.
    DataError
        If the column is not there, the change does not fit it, or no row is changed by it.
    """
    __tracebackhide__ = True
    from mlguard.checks.behaving import find_invariance

    rule = _rule(
        InvarianceRule,
        column=column,
        change=change,
        at_most=at_most,
        size=size,
        values=[str(one) for one in values],
        tolerance=tolerance,
        confidence_level=confidence_level,
        decide=decide,
    )
    found = find_invariance(as_judged(candidate, target=target or "y"), some_rows(frame), rule)
    return asserted(found, on_inconclusive, subject=f"{column}, {change}")


def assert_directional(
    candidate: Any,
    frame: pd.DataFrame,
    *,
    column: str,
    add: float | None = None,
    multiply: float | None = None,
    expect: Literal["not_lower", "not_higher"] = "not_lower",
    of: Any = "",
    at_most: float = 0.05,
    tolerance: float = 1e-9,
    target: str = "",
    confidence_level: float = 0.95,
    decide: Decide = "evidence",
    on_inconclusive: OnInconclusive = "block",
) -> CheckResult:
    """Assert that a change whose direction is known does not move scores the wrong way.

    Parameters
    ----------
    candidate : JudgedModel or estimator
        The fixture ``candidate``, or a model with scores or numbers as answers.
    frame : pandas.DataFrame
        Rows to change; labels are not needed.
    column : str
        Column of numbers that is changed.
    add, multiply : float
        What is added to it, or what it is multiplied by; exactly one of them.
    expect : {"not_lower", "not_higher"}, default "not_lower"
        What the score, or a regression's answer, must not become.
    of : label, optional
        Class whose score is meant; default the second of two classes.
    at_most : float, default 0.05
        Largest share of rows that may move the wrong way, in [0, 1).
    tolerance : float, default 1e-9
        Move that is ignored, in the score's unit.
    target, confidence_level, decide, on_inconclusive
        As in :func:`assert_invariant`.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If too many scores move the wrong way, or nobody can tell.
    UsageError
        If not exactly one change is given, or the model gives no scores.
    DataError
        If the column holds no numbers.
    """
    __tracebackhide__ = True
    from mlguard.checks.behaving import find_directional

    rule = _rule(
        DirectionalRule,
        column=column,
        add=add,
        multiply=multiply,
        expect=expect,
        of=str(of),
        at_most=at_most,
        tolerance=tolerance,
        confidence_level=confidence_level,
        decide=decide,
    )
    found = find_directional(as_judged(candidate, target=target or "y"), some_rows(frame), rule)
    return asserted(found, on_inconclusive, subject=column)


def assert_minimum_functionality(
    candidate: Any,
    cases: pd.DataFrame | Path | str,
    *,
    at_least: float = 1.0,
    tolerance: float = 0.0,
    target: str = "",
) -> CheckResult:
    """Assert that cases with a known answer are answered right.

    Parameters
    ----------
    candidate : JudgedModel or estimator
        The fixture ``candidate``, or a model with ``predict``.
    cases : pandas.DataFrame or path
        Labelled rows, or a CSV or Parquet file of them.  Each counts as it stands: they are no
        sample of anything.
    at_least : float, default 1
        Share of them that must be right, in [0, 1].
    tolerance : float, default 0
        Error of a regression that still counts as right, in its unit.
    target : str
        Column that holds the truth; the fixture knows it.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If fewer are answered right.
    DataError
        If there are no cases, or none has a label.
    """
    __tracebackhide__ = True
    from mlguard.checks.behaving import find_minimum

    subject = ""
    if isinstance(cases, Path | str):
        from mlguard.data.frames import read_frame

        subject = Path(cases).name
        cases = read_frame(str(cases))
    rule = _rule(MinimumRule, file=subject or "cases", at_least=at_least, tolerance=tolerance)
    found = find_minimum(as_judged(candidate, target=target), some_rows(cases), rule)
    return asserted(found, "block", subject=subject)


def assert_calibrated(
    candidate: Any,
    frame: pd.DataFrame,
    *,
    at_most: float = 0.1,
    target: str = "",
    confidence_level: float = 0.95,
    decide: Decide = "evidence",
    on_inconclusive: OnInconclusive = "block",
) -> CheckResult:
    """Assert that a classifier's scores are frequencies.

    Parameters
    ----------
    candidate : JudgedModel or estimator
        The fixture ``candidate``, or a classifier with ``predict_proba``.
    frame : pandas.DataFrame
        Labelled rows.
    at_most : float, default 0.1
        Largest expected calibration error over ten classes of the score, in (0, 1).
    target, confidence_level, decide, on_inconclusive
        As in :func:`assert_invariant`.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If the scores are further off, or nobody can tell.
    UsageError
        If the model gives no probabilities.
    """
    __tracebackhide__ = True
    from mlguard.checks.steadiness import find_calibration

    rule = _rule(CalibrationRule, at_most=at_most, confidence_level=confidence_level, decide=decide)
    found = find_calibration(as_judged(candidate, target=target), some_rows(frame), rule)
    return asserted(found, on_inconclusive)


def _rule(kind: type[Table], **values: Any) -> Any:
    """Return a rule, held to what app.toml is held to."""
    from pydantic import ValidationError

    values.setdefault("on_inconclusive", Enforcement.BLOCK)
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(one) for one in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        given = f" is {printable(repr(first['input']), 60)}" if where else ""
        raise UsageError(
            f"{where}{given}: {said[:1].lower()}{said[1:]}" if where else said,
            hint="its docstring says what each argument may be",
        ) from None
