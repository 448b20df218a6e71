"""How well the answers agreed with the labels: over time, and by what the scores promised.

The loss is that of the concept-drift monitor: 1 for a wrong class and 0 for the right one; for
a regression the absolute error, at most the scale that the reference states.  A bin with fewer
than :data:`~mlguard.wording.SMALL_GROUP` labels is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlguard.reports.traffic import Flags, Floats, Traffic, class_name
from mlguard.reports.view import (
    CalibrationPoint,
    Mark,
    Point,
    SquareChart,
    TimeChart,
)
from mlguard.stats.means import mean_interval
from mlguard.stats.proportions import wilson_interval
from mlguard.wording import SMALL_GROUP, count, estimate, moment, number

#: Bins of the time axis, at most, and the labels each should have on average.
BINS, LABELS_PER_BIN = 28, 60
#: Bins of a calibration chart.
_SQUARES = 10


def losses(traffic: Traffic, *, regression: bool, scale: float) -> tuple[Floats, Flags]:
    """Return each row's loss (NaN where it has none), and which rows have one.

    Classes lose 0 or 1; numbers their absolute error in the target's unit, at most ``scale``.
    """
    found = np.full(len(traffic), np.nan)
    for place in np.flatnonzero(traffic.judged):
        output, label = traffic.output[place], traffic.label[place]
        if not regression:
            found[place] = float(class_name(output) != class_name(label))
            continue
        try:
            found[place] = min(abs(float(output) - float(label)), scale)
        except (TypeError, ValueError):
            continue
    return found, ~np.isnan(found)


def over_time(
    traffic: Traffic,
    reference: Mapping[str, Any] | None,
    *,
    regression: bool,
    limit: float | None,
    marks: Sequence[Mark],
    since: float,
    until: float,
    confidence_level: float = 0.95,
) -> TimeChart | None:
    """Return the loss over time, None where no label has come.

    Parameters
    ----------
    traffic : Traffic
    reference : mapping or None
        States the scale of a regression's error.
    regression : bool
    limit : float or None
        Largest loss in [0, 1] that the concept-drift monitor accepts.
    marks : sequence of Mark
        Versions and incidents.
    since, until : float
        The period.
    """
    scale = _scale(reference) if regression else 1.0
    values, judged = losses(traffic, regression=regression, scale=scale)
    if judged.sum() < SMALL_GROUP:
        return None
    times, values = traffic.time[judged], values[judged]
    start = max(since, float(times[0]))
    bins = int(np.clip(len(times) // LABELS_PER_BIN, 4, BINS))
    edges = np.linspace(start, max(until, start + 1), bins + 1)
    # The last label belongs to the last bin, not to one of its own.
    places = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, bins - 1)
    points = tuple(
        _point((edges[one] + edges[one + 1]) / 2, values[places == one], scale, confidence_level)
        for one in range(bins)
    )
    metric = "absolute error" if regression else "error"
    bound = None if limit is None else limit * scale
    return TimeChart(
        title=_title(metric, points, bound),
        alt=_alt(metric, points, bound, marks),
        metric=metric,
        points=points,
        marks=tuple(mark for mark in marks if start <= mark.at <= until),
        limit=bound,
        limit_label="" if bound is None else f"acceptable up to {number(bound)}",
    )


def _scale(reference: Mapping[str, Any] | None) -> float:
    return float(((reference or {}).get("loss") or {}).get("scale") or 1.0)


def _point(at: float, values: Floats, scale: float, confidence_level: float) -> Point:
    if len(values) < SMALL_GROUP:
        return Point(at=float(at), value=None, n=None)
    low, high = mean_interval(values / scale, confidence_level=confidence_level)
    return Point(
        at=float(at),
        value=float(values.mean()),
        low=low * scale,
        high=high * scale,
        n=len(values),
    )


def _title(metric: str, points: Sequence[Point], limit: float | None) -> str:
    """Say the finding: over the limit, since when, or level."""
    known = [(one.at, one.value, one) for one in points if one.value is not None]
    if not known:
        return f"Too few labels to see the {metric} over time"
    name = metric.capitalize()
    if limit is not None:
        over = [one for _, _, one in known if one.low is not None and one.low > limit]
        if over:
            worst = max(over, key=lambda one: one.value or 0.0)
            said = f"{name} rose to {number(worst.value)}, over the {number(limit)} it may have"
            back = known[-1][1] <= limit and known[-1][0] > over[-1].at
            return said + (", and is back" if back else "")
    values = [value for _, value, _ in known]
    if min(values) == max(values):
        return f"{name} is {number(values[0])}"
    return f"{name} lies between {number(min(values))} and {number(max(values))}"


def _alt(metric: str, points: Sequence[Point], limit: float | None, marks: Sequence[Mark]) -> str:
    known = [one for one in points if one.value is not None]
    if not known:
        return f"{metric.capitalize()} over time: too few labels."
    first, last = known[0], known[-1]
    worst = max(known, key=lambda one: one.value or 0.0)
    parts = [
        f"{metric.capitalize()} over time: {_said(first)} around {moment(first.at)}",
        f"highest {_said(worst)} around {moment(worst.at)}",
        f"{_said(last)} around {moment(last.at)}.",
    ]
    text = ", ".join(parts)
    if limit is not None:
        text += f" Limit {number(limit)}."
    for mark in list(marks)[:4]:
        text += f" {mark.label} at {moment(mark.at)}."
    return text


def _said(point: Point) -> str:
    return estimate(point.value, (point.low, point.high), point.n)


def calibration(traffic: Traffic, positive: Any) -> SquareChart | None:
    """Return stated scores against what came true, None where there are none to compare.

    Parameters
    ----------
    traffic : Traffic
    positive : object or None
        The class that the score is of; None where there is no such class.
    """
    usable = traffic.judged & np.isfinite(traffic.score)
    usable &= (traffic.score >= 0) & (traffic.score <= 1)
    if positive is None or usable.sum() < SMALL_GROUP * _SQUARES:
        return None
    scores = traffic.score[usable]
    wanted = class_name(positive)
    true = np.array([class_name(one) == wanted for one in traffic.label[usable]])
    points = _squares(scores, true)
    if len(points) < 3:  # two points say nothing of a curve
        return None
    off = [one for one in points if not one.low <= one.predicted <= one.high]
    if not off:
        title = "Scores agree with what came true, within their intervals"
    else:
        worst = max(off, key=lambda one: abs(one.predicted - one.observed))
        more = "more" if worst.predicted > worst.observed else "less"
        title = f"Scores near {number(worst.predicted)} promise {more} than comes true"
    said = "; ".join(
        f"score {number(one.predicted)} came true {estimate(one.observed, (one.low, one.high))}"
        for one in points[:: max(1, len(points) // 4)]
    )
    return SquareChart(
        title=title, alt=f"{title}: {said}; {count(len(scores))} labels.", points=points
    )


def _squares(scores: Floats, true: npt.NDArray[np.bool_]) -> tuple[CalibrationPoint, ...]:
    order = np.argsort(scores, kind="stable")
    points = []
    for part in np.array_split(order, _SQUARES):
        n, hits = len(part), int(true[part].sum())
        low, high = wilson_interval(hits, n)
        points.append(
            CalibrationPoint(
                predicted=float(scores[part].mean()), observed=hits / n, low=low, high=high, n=n
            )
        )
    return tuple(points)
