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
    CalibrationRule,
    DirectionalRule,
    FlipsRule,
    InvarianceRule,
    MinimumRule,
    ReproducibilityRule,
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
#: Rows that are asked one by one when answers are compared.
_SINGLES = 20


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
        says=f"{what} changes the answer on",
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
        summary += "; wrong: row " + _listed(wrong)
    return Finding(
        id="behaviour.minimum_functionality",
        verdict=Verdict.PASSED if passed else Verdict.FAILED,
        summary=f"{summary} (at least {share(rule.at_least)} must be)",
        value=good / n,
        limit=rule.at_least,
        n=n,
        reason="" if passed else "limit_exceeded",
        next_step="" if passed else "look at these rows of the file of cases, counted from 0",
        measurements=(Measurement(name="right", group="cases", value=good / n, n=n),),
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
        advice="look at rows that the two answer differently before anybody else does",
    )


def find_reproducibility(
    model: JudgedModel, frame: pd.DataFrame, rule: ReproducibilityRule
) -> Finding:
    """Whether the same input gets the same answer: again, in another order, alone.

    Parameters
    ----------
    model : JudgedModel
        The model under judgement.
    frame : pandas.DataFrame
        Rows; labels are not needed.
    rule : ReproducibilityRule
        How many rows, and which difference of scores is ignored.
    """
    import numpy as np

    rows = frame.head(rule.rows)
    n = len(rows)
    first = _answers(model, rows.copy())
    again = _answers(model, rows.copy())
    turned = _answers(model, rows.iloc[::-1])
    singles = min(n, _SINGLES)
    alone = [_answers(model, rows.iloc[[place]]) for place in range(singles)]
    tolerance = rule.tolerance
    by_way = {
        "asked again": _unlike(first, again, tolerance),
        "asked in another order": _unlike(first, _turned(turned), tolerance),
        "asked alone": np.array(
            [
                bool(_unlike(_part(first, place), one, tolerance)[0])
                for place, one in enumerate(alone)
            ]
            + [False] * (n - singles)
        ),
    }
    counts = {way: int(differ.sum()) for way, differ in by_way.items()}
    worst = max(counts, key=lambda way: counts[way])
    passed = not any(counts.values())
    return Finding(
        id="behaviour.reproducibility",
        verdict=Verdict.PASSED if passed else Verdict.FAILED,
        summary=f"the same {count(n)} rows get the same answers: again, in another order, alone"
        if passed
        else f"{count(counts[worst])} of {count(n)} rows get another answer when {worst}",
        value=float(max(counts.values())) / n,
        limit=0.0,
        n=n,
        reason="" if passed else "limit_exceeded",
        next_step=""
        if passed
        else "fix the model's random state; an answer may not depend on its neighbours in a batch",
        measurements=tuple(
            Measurement(
                name="answered otherwise",
                group=way,
                value=found / (singles if way == "asked alone" else n),
                n=singles if way == "asked alone" else n,
            )
            for way, found in counts.items()
        ),
    )


def find_calibration(model: JudgedModel, frame: pd.DataFrame, rule: CalibrationRule) -> Finding:
    """Whether scores are frequencies: the expected calibration error with its interval.

    Of more than two classes the score of the answered class is compared with how often that
    answer is right.

    Parameters
    ----------
    model : JudgedModel
        A classifier with scores.
    frame : pandas.DataFrame
        Labelled rows.
    rule : CalibrationRule
        The largest error.
    """
    import numpy as np

    from mlguard.stats.composites import calibration_figure, judge_composite_gap

    rows = labelled_rows(frame, model.target)
    truth = rows[model.target].to_numpy()
    answer = model.predict(rows)
    scores = answer.scores if answer.scores is not None else model.probabilities(rows)
    if scores is None or model.classes is None or len(model.classes) < _TWO:
        raise UsageError(
            f"{model.name} gives no probabilities, so there is nothing to calibrate",
            hint="calibration is for classifiers with predict_proba",
        )
    classes = np.empty(len(model.classes), dtype=object)
    classes[:] = list(model.classes)
    if scores.ndim == 1:
        true = equal_labels(truth, np.full(len(truth), classes[-1], dtype=object))
        said = f"the score of {classes[-1]}"
    else:
        true = equal_labels(truth, classes[np.argmax(scores, axis=1)])
        scores = scores.max(axis=1)
        said = "the score of the answer"
    valid = np.asarray(answer.valid, bool) & np.isfinite(scores)
    if not valid.all():
        return _unusable("behaviour.calibration", model, int((~valid).sum()), len(valid))
    figure = calibration_figure(true, scores, np.zeros(len(true), int), ["all"])
    judged = judge_composite_gap(
        figure,
        limit=rule.at_most,
        aggregate="group_max",
        confidence_level=rule.confidence_level,
        family_error=1 - rule.confidence_level,
        decide=rule.decide,
    )
    off = f"off by {estimate(judged.value, judged.interval, len(true))} on average"
    return Finding(
        id="behaviour.calibration",
        verdict=judged.verdict,
        summary=f"{said} is {off}; limit {number(rule.at_most)}" + _undecided(judged),
        value=judged.value,
        limit=rule.at_most,
        interval=judged.interval,
        n=len(true),
        n_min=judged.n_needed,
        reason=judged.reason,
        next_step=""
        if judged.verdict is Verdict.PASSED
        else "calibrate the scores on held-out "
        "rows (CalibratedClassifierCV), or judge them on more test rows",
        measurements=_by_score(true, scores),
    )


def _by_score(true: np.ndarray, scores: np.ndarray) -> tuple[Measurement, ...]:
    """Return how often the event happens per tenth of the score."""
    import numpy as np

    from mlguard.stats.proportions import wilson_interval

    place = np.minimum((scores * 10).astype(int), 9)
    found = []
    for tenth in np.unique(place):
        here = place == tenth
        n, happened = int(here.sum()), int(true[here].sum())
        low, high = wilson_interval(happened, n)
        group = f"score {tenth / 10:.1f} to {(tenth + 1) / 10:.1f}"
        found.append(
            Measurement(name="comes true", group=group, value=happened / n, n=n, low=low, high=high)
        )
    return tuple(found)


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
            hint=f"columns: {', '.join(map(str, frame.columns[:12]))}",
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


def _unlike(old: Any, new: Any, tolerance: float) -> np.ndarray:
    """Return where two answers differ in label, or in score by more than is ignored."""
    import numpy as np

    differ: np.ndarray = np.asarray(old.valid, bool) != np.asarray(new.valid, bool)
    if old.labels.dtype.kind == "f" and new.labels.dtype.kind == "f":
        far = np.abs(old.labels - new.labels) > tolerance * np.maximum(1, np.abs(old.labels))
        differ |= far
    else:
        differ |= ~equal_labels(old.labels, new.labels)
    if old.scores is not None and new.scores is not None:
        far = np.abs(old.scores - new.scores) > tolerance * np.maximum(1, np.abs(old.scores))
        differ |= far if far.ndim == 1 else far.any(axis=1)
    return differ


class _Part:
    """Some rows of an answer, in the same shape."""

    def __init__(self, answer: Any, places: Any) -> None:
        self.labels = answer.labels[places]
        self.scores = None if answer.scores is None else answer.scores[places]
        self.valid = answer.valid[places]


def _part(answer: Any, place: int) -> _Part:
    return _Part(answer, [place])


def _turned(answer: Any) -> _Part:
    return _Part(answer, slice(None, None, -1))


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
        f"{estimate(wrong / n, judged.interval)}; limit {number(rule.at_most)}"
        + _undecided(judged),
        value=wrong / n,
        limit=rule.at_most,
        interval=judged.interval,
        n=n,
        n_min=judged.n_needed or judged.n_to_tell,
        reason=judged.reason,
        next_step="" if passed else advice,
        measurements=(
            Measurement(name="share", group=of, value=wrong / n, n=n, low=low, high=high),
        ),
        details={"rows": places[:1000], "notes": [f"it happens on row {_listed(places)}"]},
    )


def _undecided(judged: Judgement) -> str:
    return f"; {judged.explain()}" if judged.verdict is Verdict.INCONCLUSIVE else ""


def _unusable(name: str, model: JudgedModel, wrong: int, n: int) -> Finding:
    return Finding(
        id=name,
        verdict=Verdict.FAILED,
        summary=f"{model.name} gave no usable score (NaN, infinite or missing) on {count(wrong)} "
        f"of {count(n)} rows",
        value=wrong / n,
        limit=0.0,
        n=n,
        reason="not_finite",
        next_step="find the rows on which the model gives NaN, and let it handle them",
    )


def _listed(places: Any) -> str:
    shown = ", ".join(str(one) for one in places[:_NAMED])
    return f"{shown} and {len(places) - _NAMED} more" if len(places) > _NAMED else shown
