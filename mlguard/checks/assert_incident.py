"""Assertions about rows on which a version failed in service, for the checks made of incidents.

``mlguard incident N --as-check`` writes a test that calls one of them, or
:func:`~mlguard.checks.asserts.assert_no_gap`.  They serve as well for any set of rows that
people have chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlguard.checks.asserts import OnInconclusive, asserted
from mlguard.checks.evidence import JudgedModel, as_judged
from mlguard.checks.labels import equal_labels, some_rows
from mlguard.errors import DataError, UsageError
from mlguard.results import CheckResult, Finding, Verdict
from mlguard.wording import count, estimate, number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from mlguard.stats.decision import Decide, Judgement, Support

__all__ = ["assert_answers", "assert_loss"]

LOSS, ANSWERS = "incident.loss", "incident.answers"


def assert_loss(
    candidate: Any,
    frame: pd.DataFrame,
    *,
    at_most: float,
    scale: float | None = None,
    target: str = "",
    confidence_level: float = 0.95,
    decide: Decide = "evidence",
    on_inconclusive: OnInconclusive = "block",
) -> CheckResult:
    """Assert that a model's mean loss on some rows is at most a limit.

    Parameters
    ----------
    candidate : JudgedModel or estimator
        The fixture ``candidate``, or a model with ``predict``.
    frame : pandas.DataFrame
        Labelled rows.
    at_most : float
        Largest mean loss, in [0, 1).
    scale : float, optional
        Of a regression: the absolute error that counts as a loss of 1, as does any larger one.
        Without it a row loses 1 where the answer is another class, else 0.
    target : str
        Column that holds the truth; the fixture knows it.
    confidence_level : float, default 0.95
        Of the interval of the mean.
    decide : {"evidence", "proof", "estimate"}, default "evidence"
        How the interval is held against the limit.  ``"estimate"`` takes the rows as the whole
        that is asked about, not as a sample.
    on_inconclusive : {"block", "warn"}, default "block"
        Whether too little data fails the test.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If the loss is larger, the model gives no answer to a row, or nobody can tell.
    DataError
        If there are no rows, or one has no label.
    UsageError
        If the limit or the scale is not possible.
    """
    __tracebackhide__ = True
    if not 0 <= at_most < 1 or (scale is not None and not scale > 0):
        raise UsageError(
            f"at_most is {at_most}, scale {scale}: no mean loss could be judged so",
            hint="at_most lies in [0, 1), scale is larger than 0",
        )
    model = as_judged(candidate, target=target)
    losses = _losses(model, frame, scale)
    judged = _judged(losses, at_most, confidence_level, decide)
    interval = None if judged.interval is None else (judged.interval.low, judged.interval.high)
    found = Finding(
        id=LOSS,
        verdict=judged.verdict,
        summary=f"mean loss {estimate(judged.value, interval, len(losses))}; "
        f"at most {number(at_most)} is allowed"
        + (f"; {judged.explain()}" if judged.verdict is Verdict.INCONCLUSIVE else ""),
        value=judged.value,
        limit=at_most,
        interval=interval,
        n=len(losses),
        reason=judged.reason,
        next_step=""
        if judged.verdict is Verdict.PASSED
        else judged.next_step or "judge it on more rows"
        if judged.verdict is Verdict.INCONCLUSIVE
        else "train on rows like these, or mend what feeds the model",
    )
    return asserted(found, on_inconclusive, subject=model.name)


def assert_answers(candidate: Any, frame: pd.DataFrame, *, target: str = "") -> CheckResult:
    """Assert that a model gives a usable prediction on every one of some rows.

    Parameters
    ----------
    candidate : JudgedModel or estimator
        The fixture ``candidate``, or a model with ``predict``.
    frame : pandas.DataFrame
        Rows; labels are not needed.
    target : str
        Column that would hold the truth; the fixture knows it.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If it raises, or its prediction is not finite, on any row.
    DataError
        If there are no rows.
    """
    __tracebackhide__ = True
    import numpy as np

    model = as_judged(candidate, target=target)
    valid = np.asarray(model.predict(some_rows(frame)).valid, bool)
    lost = int((~valid).sum())
    found = Finding(
        id=ANSWERS,
        verdict=Verdict.FAILED if lost else Verdict.PASSED,
        summary=f"no usable prediction on {count(lost)} of {count(len(valid))} rows"
        if lost
        else f"a usable prediction on all {count(len(valid))} rows",
        value=lost / len(valid),
        limit=0.0,
        n=len(valid),
        reason="limit_exceeded" if lost else "",
        next_step="let the model handle every row of the file" if lost else "",
    )
    return asserted(found, "block", subject=model.name)


def _losses(model: JudgedModel, frame: pd.DataFrame, scale: float | None) -> np.ndarray:
    import numpy as np

    if model.target not in frame.columns:
        raise DataError(
            f"the rows have no column {model.target!r}, which would hold the truth",
            hint=f"columns: {', '.join(map(str, frame.columns[:12]))}",
        )
    truth = some_rows(frame)[model.target]
    if truth.isna().any():
        raise DataError(
            f"{count(int(truth.isna().sum()))} of {count(len(truth))} rows have no label in "
            f"{model.target!r}",
            hint="leave out the rows whose truth is not known",
        )
    answer = model.predict(frame)
    valid = np.asarray(answer.valid, bool)
    if scale is None:
        losses = (~equal_labels(truth.to_numpy(), np.asarray(answer.labels))).astype(float)
    else:
        error = np.abs(truth.to_numpy(float) - np.asarray(answer.labels, float))
        losses = np.minimum(error / scale, 1.0)
    # No answer is the worst one.
    return np.where(valid, losses, 1.0)


def _judged(
    losses: np.ndarray, at_most: float, confidence_level: float, decide: Decide
) -> Judgement:
    import numpy as np

    from mlguard.stats.decision import judge_limit, judge_rate
    from mlguard.stats.means import mean_interval

    n = len(losses)
    # On rows that are the whole, any number of them is enough.
    least = 1 if decide == "estimate" else 30
    if np.isin(losses, (0.0, 1.0)).all():
        return judge_rate(
            int(losses.sum()),
            n,
            limit=at_most,
            min_rows=least,
            decide=decide,
            confidence_level=confidence_level,
        )

    def support() -> Support:
        # A mean of losses varies no more than a share of errors with that mean.
        from mlguard.stats.decision import Support
        from mlguard.stats.interval import critical_value
        from mlguard.stats.support import POWER, rate_support

        power = rate_support(n, limit=at_most, z=critical_value(confidence_level))
        return Support(enough=power >= POWER, sizes=(n,))

    return judge_limit(
        float(losses.mean()),
        mean_interval(losses, confidence_level=confidence_level),
        limit=at_most,
        n=n,
        min_rows=least,
        decide=decide,
        confidence_level=confidence_level,
        support=support,
    )
