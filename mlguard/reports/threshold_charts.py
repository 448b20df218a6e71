"""Charts of threshold policies: ROC, outcome curve, rates by threshold, calibration.

Each title is a finding with its number, and so is the text that stands for the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from mlguard.reports.view import Curve, CurveChart, CurveMark, Panel
from mlguard.stats.delayed_impact import outcome_curve
from mlguard.stats.interval import FloatArray
from mlguard.stats.proportions import wilson_interval
from mlguard.stats.score_table import Operating, ScoreTable
from mlguard.wording import number, printable, share

#: Points of a curve that are drawn; more cannot be seen.
POINTS = 160
#: Bins of a calibration curve, each with as many rows.
BINS = 8
#: Rows that a bin needs.
BIN_ROWS = 20

#: The points of one policy, under the name that people know it by.
Points = Mapping[str, Mapping[str, Operating]]


def roc_chart(by: str, tables: Mapping[str, ScoreTable], policies: Points) -> CurveChart:
    """Return the ROC of each group with the thresholds that each policy chose.

    Parameters
    ----------
    by : str
        The attribute.
    tables : mapping of str to ScoreTable
        The groups.
    policies : mapping of str to mapping of str to Operating
        Each policy's point of each group.
    """
    curves, marks, told = [], [], []
    for name, one in tables.items():
        curves.append(_curve(name, one.false_positives(), one.true_positives()))
    for policy, points in policies.items():
        for name, at in points.items():
            if at.true_positive_rate is None or at.false_positive_rate is None:
                continue
            marks.append(_mark(name, policy, at.false_positive_rate, at.true_positive_rate))
        told.append(f"{policy}: " + ", ".join(_rates(name, at) for name, at in points.items()))
    policy, wide = max(
        ((policy, _spread(points)) for policy, points in policies.items()),
        key=lambda one: one[1][0],
    )
    gap, high, low = wide
    return CurveChart(
        title=f"With {policy}, a positive of {by}={low} is refused more often than one of "
        f"{high}, by {number(100 * gap, places=0)} points"
        if gap
        else f"True positive rates do not differ by {by}",
        alt=f"ROC by {by}. " + "; ".join(told) + ".",
        x_label="false positive rate",
        panels=(Panel(label="true positive rate", curves=tuple(curves), marks=tuple(marks)),),
        guide="diagonal",
    )


def _rates(name: str, at: Operating) -> str:
    return (
        f"{printable(name, 28)} from {number(at.cut.threshold)}, TPR "
        f"{number(at.true_positive_rate)}, FPR {number(at.false_positive_rate)}"
    )


def _spread(points: Mapping[str, Operating]) -> tuple[float, str, str]:
    """Return by how much true positive rates differ, and which two groups do."""
    known = {
        name: at.true_positive_rate
        for name, at in points.items()
        if at.true_positive_rate is not None
    }
    high, low = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    return known[high] - known[low], printable(high, 28), printable(low, 28)


def outcome_chart(
    by: str, score: str, tables: Mapping[str, ScoreTable], policies: Points
) -> CurveChart:
    """Return the mean change of each group's score along its selection rate.

    Parameters
    ----------
    by, score : str
        The attribute, and the score that changes.
    tables, policies
        As in :func:`roc_chart`; with the impact of a yes.
    """
    curves, marks, told = [], [], []
    for name, one in tables.items():
        found = outcome_curve(one)
        curves.append(_curve(name, found.selection_rate, found.impact))
        zero = "never below 0" if found.zero is None else f"below 0 from {share(found.zero)}"
        told.append(
            f"{printable(name, 28)} gains most, {number(found.best_impact)}, at "
            f"{share(found.best)} answered yes, {zero}"
        )
    for policy, points in policies.items():
        for name, at in points.items():
            if at.impact is not None:
                marks.append(_mark(name, policy, at.selection_rate, at.impact))
    policy, name, lowest = min(
        (
            (policy, name, at.impact)
            for policy, points in policies.items()
            for name, at in points.items()
            if at.impact is not None
        ),
        key=lambda one: one[2],
    )
    whose = f"{by}={printable(name, 28)}"
    title = (
        f"With {policy} the mean {score} of {whose} falls by {number(-lowest)}"
        if lowest < 0
        else f"No policy lowers a mean {score}; the smallest rise is {number(lowest)}, of {whose} "
        f"with {policy}"
    )
    return CurveChart(
        title=title,
        alt=f"Mean change of the {score} against the share answered yes. " + "; ".join(told) + ".",
        x_label="share answered yes",
        panels=(
            Panel(label=f"mean change of the {score}", curves=tuple(curves), marks=tuple(marks)),
        ),
        guide="zero",
    )


def rates_chart(by: str, tables: Mapping[str, ScoreTable], policies: Points) -> CurveChart:
    """Return selection rate, error rates and delayed impact against the threshold.

    Parameters
    ----------
    by, tables, policies
        As in :func:`roc_chart`.
    """
    measures: dict[str, Callable[[ScoreTable], FloatArray]] = {
        "share answered yes": ScoreTable.selection,
        "true positive rate": ScoreTable.true_positives,
        "false positive rate": ScoreTable.false_positives,
    }
    values: dict[str, Callable[[Operating], float | None]] = {
        "share answered yes": lambda at: at.selection_rate,
        "true positive rate": lambda at: at.true_positive_rate,
        "false positive rate": lambda at: at.false_positive_rate,
        "delayed impact": lambda at: at.impact,
    }
    if all(one.impact is not None for one in tables.values()):
        measures["delayed impact"] = lambda one: outcome_curve(one).impact
    panels = []
    for label, measure in measures.items():
        curves = [_curve(name, one.scores, measure(one)[1:]) for name, one in tables.items()]
        marks = [
            _mark(name, policy, at.cut.threshold, value)
            for policy, points in policies.items()
            for name, at in points.items()
            if (value := values[label](at)) is not None and np.isfinite(at.cut.threshold)
        ]
        panels.append(Panel(label=label, curves=tuple(curves), marks=tuple(marks)))
    single = next(iter(policies.values()))
    rates = {name: at.selection_rate for name, at in single.items()}
    high, low = max(rates, key=rates.__getitem__), min(rates, key=rates.__getitem__)
    at = number(single[high].cut.threshold)
    told = "; ".join(
        f"{policy}: "
        + ", ".join(
            f"{printable(name, 28)} {number(one.cut.threshold)}" for name, one in points.items()
        )
        for policy, points in policies.items()
    )
    return CurveChart(
        title=f"From {at} on for all, {printable(high, 28)} is answered yes more often than "
        f"{printable(low, 28)}: {share(rates[high])} against {share(rates[low])}",
        alt=f"Rates by {by} against the threshold. Thresholds: {told}.",
        x_label="threshold",
        panels=tuple(panels),
        guide="zero",
    )


def calibration_chart(
    by: str,
    scores: npt.ArrayLike,
    truth: npt.ArrayLike,
    groups: Mapping[str, npt.NDArray[np.bool_]],
) -> CurveChart | None:
    """Return stated against realised probability in each group; None where rows are too few.

    Parameters
    ----------
    by : str
        The attribute.
    scores, truth : array_like of shape (n_rows,)
        Scores in [0, 1], and whether the truth is positive.
    groups : mapping of str to ndarray of bool, shape (n_rows,)
        Which rows are in each.
    """
    stated, positive = np.asarray(scores, float), np.asarray(truth, bool)
    curves, far = [], (0.0, "", 0.0, 0.0)
    for name, mine in groups.items():
        rows = np.flatnonzero(mine)
        bins = min(BINS, rows.size // BIN_ROWS)
        if bins < 2:  # one point is no curve
            continue
        parts = np.array_split(rows[np.argsort(stated[rows], kind="stable")], bins)
        x = [float(stated[one].mean()) for one in parts]
        y = [float(positive[one].mean()) for one in parts]
        intervals = [wilson_interval(float(positive[one].sum()), one.size) for one in parts]
        curves.append(
            Curve(
                name=printable(name, 40),
                x=tuple(x),
                y=tuple(y),
                low=tuple(one.low for one in intervals),
                high=tuple(one.high for one in intervals),
            )
        )
        furthest = max(zip(x, y, strict=True), key=lambda one: abs(one[0] - one[1]))
        if abs(furthest[0] - furthest[1]) >= far[0]:
            far = (abs(furthest[0] - furthest[1]), printable(name, 28), *furthest)
    if not curves:
        return None
    _, name, x_far, y_far = far
    return CurveChart(
        title=f"Furthest from what is stated: {by}={name}, stated {number(x_far)}, came true "
        f"{number(y_far)}",
        alt=f"Share that came true against the stated probability, by {by}. "
        + "; ".join(
            f"{one.name}: "
            + ", ".join(f"{number(a)}→{number(b)}" for a, b in zip(one.x, one.y, strict=True))
            for one in curves
        )
        + ".",
        x_label="stated probability",
        panels=(Panel(label="share that came true", curves=tuple(curves)),),
        guide="diagonal",
    )


def _curve(name: str, x: FloatArray, y: FloatArray) -> Curve:
    kept = np.unique(np.linspace(0, x.size - 1, min(POINTS, x.size)).round().astype(int))
    return Curve(name=printable(name, 40), x=tuple(x[kept].tolist()), y=tuple(y[kept].tolist()))


def _mark(name: str, policy: str, x: float, y: float) -> CurveMark:
    return CurveMark(curve=printable(name, 40), label=policy, x=x, y=y)
