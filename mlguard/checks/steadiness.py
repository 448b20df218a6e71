"""Whether answers can be relied on: the same again for the same input, scores that are frequencies.

Both are functions of a model and rows that return a finding, as in
:mod:`mlguard.checks.behaving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlguard.checks.labels import equal_labels, labelled_rows
from mlguard.config import CalibrationRule, ReproducibilityRule
from mlguard.errors import UsageError
from mlguard.results import Finding, Measurement, Verdict
from mlguard.wording import count, estimate, number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from mlguard.checks.evidence import JudgedModel
    from mlguard.stats.decision import Judgement

#: Rows that are asked one by one when answers are compared.
_SINGLES = 20
_TWO = 2


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
    first = model.predict(rows.copy())
    again = model.predict(rows.copy())
    turned = model.predict(rows.iloc[::-1])
    singles = min(n, _SINGLES)
    alone = [model.predict(rows.iloc[[place]]) for place in range(singles)]
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
    few = judged.value is None
    off = f"off by {estimate(judged.value, judged.interval, len(true))} on average"
    if few:
        off = f"judged on at least {judged.n_needed} rows, and there are {count(len(true))}"
    return Finding(
        id="behaviour.calibration",
        verdict=judged.verdict,
        summary=f"{said} is {off}; limit {number(rule.at_most)}"
        + ("" if few else _reach(judged, len(true))),
        value=judged.value,
        limit=rule.at_most,
        interval=judged.interval,
        n=len(true),
        n_min=judged.n_needed,
        reason=judged.reason,
        next_step=""
        if judged.verdict is Verdict.PASSED
        else "judge them on more test rows"
        if judged.verdict is Verdict.INCONCLUSIVE
        else "calibrate the scores on held-out rows (CalibratedClassifierCV)",
        measurements=_by_score(true, scores),
    )


def _reach(judged: Judgement, n: int) -> str:
    """Return what an undecided judgement could have judged; nothing where it is decided."""
    if judged.verdict is not Verdict.INCONCLUSIVE:
        return ""
    smallest = judged.smallest_limit
    can = "no limit" if smallest is None else f"no limit below {number(smallest)}"
    return f"; undecided: {count(n)} rows can judge {can}"


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
