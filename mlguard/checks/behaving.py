"""How a model behaves: what must not matter to it, what must, and cases it has to get right.

The three kinds of tests are those of CheckList (Ribeiro, Wu, Guestrin and Singh 2020, ACL,
4902-4912): *invariance* (a change that must not matter), *directional* (a change whose
direction is known) and *minimum functionality* (simple cases with a known answer).  Beside
them: the same input gets the same answer, and scores are frequencies.

Every function takes a model and rows and returns a finding; rates are held against their limit
by the rule of :mod:`mlguard.stats.decision`.  A model that answers every changed row as before
passes however few the rows, since nothing is left to be uncertain about.  No row that was
changed at all is an error: nothing passes vacuously.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlguard.checks.labels import as_numbers, equal_labels, labelled_rows, nearest
from mlguard.checks.perturbing import changed_rows
from mlguard.config import (
    DirectionalRule,
    FlipsRule,
    InvarianceRule,
    MinimumRule,
)
from mlguard.errors import DataError, UsageError
from mlguard.results import Finding, Measurement, Verdict
from mlguard.stats.decision import Judgement, judge_rate
from mlguard.wording import count, estimate, number, share

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from mlguard.checks.evidence import JudgedModel

#: Places of failing rows that a result names.
_NAMED = 10
_TWO = 2


def find_invariance(model: JudgedModel, frame: pd.DataFrame, rule: InvarianceRule) -> Finding:
    """Whether a change of one column that must not matter changes answers.

    Parameters
    ----------
    model : JudgedModel
        The model under judgement.
    frame : pandas.DataFrame
        Rows to change; labels are not needed.
    rule : InvarianceRule
        The change, and the share of answers that it may change.
    """
    what = f"{_CHANGES[rule.change]} in {rule.column}"
    if not _matters(model, frame, rule.column):
        return Finding(
            id="behaviour.invariance",
            verdict=Verdict.SKIPPED,
            summary=f"{model.name} does not see {rule.column}, so {what} cannot change an answer",
            reason="not_seen",
        )
    before, after = changed_rows(
        frame, rule.column, rule.change, size=rule.size, values=rule.values
    )
    if before.empty:
        raise DataError(
            f"no row is changed by {what}, so nothing is shown",
            hint="choose another change, or rows that it can be made to",
        )
    old, new = _answers(model, before), _answers(model, after)
    moved = _differ(model, old, new, rule.tolerance)
    return _share_of_rows(
        "behaviour.invariance",
        moved,
        rule,
        labels=before.index,
        says=f"{what} {'change' if rule.change in _PLURAL else 'changes'} the answer on",
        of="changed rows",
        advice=f"train with such changes of {rule.column}, or clean it before the model sees it",
    )


_CHANGES = {
    "typo": "a typing slip",
    "case": "other capitals",
    "space": "stray blanks",
    "noise": "a small shift",
    "swap": "another value",
}


_PLURAL = ("case", "space")


def find_directional(model: JudgedModel, frame: pd.DataFrame, rule: DirectionalRule) -> Finding:
    """Whether a change whose direction is known moves the score in the wrong direction.

    Parameters
    ----------
    model : JudgedModel
        The model under judgement; it needs scores, or numbers as answers.
    frame : pandas.DataFrame
        Rows to change; labels are not needed.
    rule : DirectionalRule
        The change, and the share of rows that it may move wrongly.
    """
    import numpy as np
    from pandas.api import types

    done = f"+{number(rule.add)}" if rule.add is not None else f"× {number(rule.multiply)}"
    if rule.add is not None and rule.add < 0:
        done = number(rule.add)
    what = f"{rule.column} {done}"
    if not _matters(model, frame, rule.column):
        return Finding(
            id="behaviour.directional",
            verdict=Verdict.SKIPPED,
            summary=f"{model.name} does not see {rule.column}, so {what} cannot move a score",
            reason="not_seen",
        )
    old = frame[rule.column]
    if not types.is_numeric_dtype(old.dtype) or types.is_bool_dtype(old.dtype):
        raise DataError(
            f"{rule.column!r} is no column of numbers, and only numbers can be raised",
            hint="name a column of numbers that the model sees",
        )
    present = old.notna().to_numpy()
    before = frame[present]
    after = before.copy()
    moved: Any = old[present]
    moved = moved + rule.add if rule.add is not None else moved * rule.multiply
    whole = types.is_integer_dtype(old.dtype) and bool((moved == np.trunc(moved)).all())
    if types.is_integer_dtype(old.dtype) and not whole:
        # Whole numbers stay whole, as callers would send them.
        moved = np.round(moved)
    after[rule.column] = moved.astype(old.dtype)
    differs = (after[rule.column] != before[rule.column]).to_numpy()
    before, after = before[differs], after[differs]
    if before.empty:
        raise DataError(
            f"no row has a value that {what} changes, so nothing is shown",
            hint="choose another change, or rows that have values",
        )
    gain = _scores(model, after, rule.of) - _scores(model, before, rule.of)
    wrong = gain < -rule.tolerance if rule.expect == "not_lower" else gain > rule.tolerance
    # A score that is no number has not kept its direction.
    wrong |= ~np.isfinite(gain)
    direction = "lowers" if rule.expect == "not_lower" else "raises"
    return _share_of_rows(
        "behaviour.directional",
        wrong,
        rule,
        labels=before.index,
        says=f"{what} {direction} the {'score of ' + rule.of if rule.of else 'score'} on",
        of="rows",
        advice=f"look at what the model has learnt of {rule.column}; a monotonic constraint or "
        "other features may be needed",
    )


def find_minimum(model: JudgedModel, cases: pd.DataFrame, rule: MinimumRule) -> Finding:
    """Whether cases with a known answer are answered right.

    They are no sample of anything: each counts as it stands, without an interval.

    Parameters
    ----------
    model : JudgedModel
        The model under judgement.
    cases : pandas.DataFrame
        Labelled rows.
    rule : MinimumRule
        The share that must be right.
    """
    import numpy as np

    rows = labelled_rows(cases, model.target)
    truth = rows[model.target].to_numpy()
    answer = model.predict(rows)
    if model.classes is None and answer.labels.dtype.kind == "f":
        wanted = as_numbers(truth, whose=model.target)
        right = np.abs(wanted - as_numbers(answer.labels, whose=model.name)) <= rule.tolerance
    else:
        right = equal_labels(truth, answer.labels)
    right &= np.asarray(answer.valid, bool)
    n, good = len(right), int(right.sum())
    passed = good >= rule.at_least * n - 1e-9
    wrong = [int(one) for one in np.flatnonzero(~right)]
    summary = f"{count(good)} of {count(n)} cases are answered right"
    if wrong:
        summary += "; wrong: " + ("rows " if len(wrong) > 1 else "row ") + _listed(wrong)
    return Finding(
        id="behaviour.minimum_functionality",
        verdict=Verdict.PASSED if passed else Verdict.FAILED,
        summary=f"{summary} (at least {share(rule.at_least)} must be)",
        value=good / n,
        limit=rule.at_least,
        n=n,
        reason="" if passed else "limit_exceeded",
        next_step=""
        if passed
        else "look at these cases, counted from 0: is the model wrong, or "
        "the answer that is expected?",
        measurements=(Measurement(name="cases answered right", value=good / n, n=n),),
        details={"wrong_rows": wrong[:1000]},
    )


def find_flips(
    model: JudgedModel, active: JudgedModel, frame: pd.DataFrame, rule: FlipsRule
) -> Finding:
    """How many rows are answered otherwise than by the version that serves.

    Parameters
    ----------
    model, active : JudgedModel
        The candidate and the live version.
    frame : pandas.DataFrame
        Rows; labels are not needed.
    rule : FlipsRule
        The share that may differ.
    """
    old, new = _answers(active, frame), _answers(model, frame)
    return _share_of_rows(
        "behaviour.flips",
        _differ(model, old, new, rule.tolerance),
        rule,
        labels=frame.index,
        says=f"{model.name} answers otherwise than {active.name} on",
        of="rows",
        advice="look at some of these rows: which of the two answers is the better one?",
    )


# --- what the tests share ------------------------------------------------------------------


def _matters(model: JudgedModel, frame: pd.DataFrame, column: str) -> bool:
    """Whether a column can change an answer: as a feature, or by a group's threshold.

    Raises
    ------
    DataError
        If the rows have no such column.
    """
    if column not in frame.columns:
        raise DataError(
            f"there is no column {column!r} to change" + nearest(column, frame.columns),
            hint=f"name one that is there: {', '.join(map(str, frame.columns[:12]))}",
        )
    by_group = any(key.startswith(f"{column}=") for key in model.thresholds)
    return not model.features or column in model.features or by_group


def _answers(model: JudgedModel, rows: pd.DataFrame) -> Any:
    return model.predict(rows)


def _differ(model: JudgedModel, old: Any, new: Any, tolerance: float) -> np.ndarray:
    """Return where two answers to the same rows are not the same, shape (n,)."""
    import numpy as np

    valid, other = np.asarray(old.valid, bool), np.asarray(new.valid, bool)
    if model.classes is None and old.labels.dtype.kind == new.labels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            same = np.abs(old.labels - new.labels) <= tolerance
    else:
        same = equal_labels(old.labels, new.labels)
    # Two answers that are none are no sign of stability.
    differ: np.ndarray = (valid != other) | (valid & other & ~same) | ~(valid | other)
    return differ


def _scores(model: JudgedModel, rows: pd.DataFrame, of: str) -> np.ndarray:
    """Return the score of a class, or a regression's answer, shape (n,)."""
    import numpy as np

    answer = model.predict(rows)
    scores = answer.scores
    if scores is None and model.classes is not None:
        scores = model.probabilities(rows)
    if scores is None:
        if model.classes is None:
            return as_numbers(answer.labels, whose=model.name)
        raise UsageError(
            f"{model.name} gives no scores, so none can rise or fall",
            hint="directional tests need predict_proba, or a regression",
        )
    classes = [str(one) for one in model.classes or ()]
    if of and of not in classes:
        raise UsageError(
            f"{model.name} knows no class {of!r}", hint=f"classes: {', '.join(classes) or 'none'}"
        )
    if scores.ndim == 1:
        first = of and len(classes) == _TWO and of == classes[0]
        return np.asarray(1 - scores if first else scores, float)
    if not of:
        raise UsageError(
            f"{model.name} tells {len(classes)} classes apart, and nobody said whose score counts",
            hint=f'name one: of = "{classes[0]}"',
        )
    return np.asarray(scores[:, classes.index(of)], float)


def _share_of_rows(
    name: str,
    bad: np.ndarray,
    rule: Any,
    *,
    labels: pd.Index[Any],
    says: str,
    of: str,
    advice: str,
) -> Finding:
    """Hold the share of rows that behave badly against its limit."""
    import numpy as np

    n, wrong = len(bad), int(bad.sum())
    judged = judge_rate(
        wrong,
        n,
        limit=rule.at_most,
        decide=rule.decide,
        confidence_level=rule.confidence_level,
    )
    if wrong == 0:
        # By identity: every row was answered as before.
        return Finding(
            id=name,
            verdict=Verdict.PASSED,
            summary=f"{says} none of {count(n)} {of}",
            value=0.0,
            limit=rule.at_most,
            interval=judged.interval,
            n=n,
            reason="identical",
        )
    places = [str(one) for one in labels[np.flatnonzero(bad)]]
    passed = judged.verdict is Verdict.PASSED
    low, high = judged.interval or (None, None)
    return Finding(
        id=name,
        verdict=judged.verdict,
        summary=f"{says} {count(wrong)} of {count(n)} {of}: "
        f"{estimate(wrong / n, judged.interval)}; limit {number(rule.at_most)}" + undecided(judged),
        value=wrong / n,
        limit=rule.at_most,
        interval=judged.interval,
        n=n,
        n_min=judged.n_needed or judged.n_to_tell,
        reason=judged.reason,
        next_step=""
        if passed
        else judged.next_step or "test on more rows"
        if judged.verdict is Verdict.INCONCLUSIVE
        else advice,
        measurements=(
            Measurement(name=f"share of {of}", value=wrong / n, n=n, low=low, high=high),
        ),
        details={"rows": places[:1000], "notes": [f"it happens on rows {_listed(places)}"]},
    )


def undecided(judged: Judgement) -> str:
    """Return what an undecided sentence needs to say more; nothing where it is decided."""
    return f"; {judged.explain()}" if judged.verdict is Verdict.INCONCLUSIVE else ""


def _listed(places: Any) -> str:
    shown = ", ".join(str(one) for one in places[:_NAMED])
    return f"{shown} and {len(places) - _NAMED} more" if len(places) > _NAMED else shown
