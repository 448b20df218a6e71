"""A backtest as people read it: sentences, a table of what mattered, and one picture.

Shown are new alarms and changes of what is asked for; every verdict is in the JSON document.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlguard.deploy.rehearsal import Heard, Rehearsal
from mlguard.monitors.losses import reference_scale, row_losses
from mlguard.policy import Level
from mlguard.reports.drawing import draw_pictures
from mlguard.reports.view import Curve, CurveChart, CurveMark, Panel
from mlguard.results import Verdict
from mlguard.stats.means import mean_interval
from mlguard.wording import count, listed, moment, number, printable

#: Characters of a line, but for the indent of the terminal.
WIDTH = 76
#: Events shown before the rest is counted.
SHOWN = 20
#: Points of the picture's curve, and alarms marked on it.
_POINTS, _MARKED = 80, 6
#: Longest name of a monitor in the table, in characters.
_NAME = 32
_PICTURE_WIDTH = 720


def story(
    app: str, model: str, heard: Sequence[Heard], summary: Mapping[str, Any], *, timed: bool
) -> list[str]:
    """Return what would have happened, in lines that fit a terminal."""
    lines = _wrapped(
        f"{app}, {printable(model, 40)}: {count(summary['rows'])} rows from row "
        f"{summary['first_row']}, {count(summary['labels'])} labels; reference of "
        f"{count(summary['reference_rows'])} rows, loss {number(summary['reference_loss'])}."
    )
    told = f"Loss on these rows {number(summary['loss'], places=4)}"
    if summary["no_change_loss"] is not None:
        told += (
            f"; always repeating the last label loses {number(summary['no_change_loss'], places=4)}"
        )
    lines += _wrapped(f"{told}.")
    lines += _wrapped(_promise(summary))
    if not timed:
        lines += _wrapped("Without a time column rows are the clock: no grace, cooldown or bake.")
    shown = list(_mattering(heard))
    lines += ["", *_table(shown[:SHOWN], summary["change"], timed=timed)]
    if len(shown) > SHOWN:
        lines.append(f"and {len(shown) - SHOWN} more: --json")
    lines += ["", *_monitors(summary)]
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


def _promise(summary: Mapping[str, Any]) -> str:
    rho = summary["lag1_correlation"]
    follow = (
        ""
        if rho is None
        else f" Lag-1 correlation of the losses before it rose: {number(rho, places=2)} "
        f"(n = {count(summary['correlation_rows'])})."
    )
    if not summary["false_alarm_promise"]:
        return f"{summary['detector']} makes no promise about false alarms.{follow}"
    asked, kept = summary["average_run_length"], summary["kept_run_length"]
    text = f"Promise: a false alarm in {count(round(asked))} labels or less often.{follow}"
    if kept < asked * 0.9:
        text += (
            f" Errors in runs leave about {count(round(kept))} of it; block = "
            f"{summary['block_needed']} keeps it."
        )
    return text


def _mattering(heard: Sequence[Heard]) -> Iterator[Heard]:
    """Give new alarms, and every change of what a check asks for."""
    asked: dict[str, Level] = {}
    for one in heard:
        before = asked.get(one.result.name, Level.NONE)
        asked[one.result.name] = one.action.level
        if one.alarm or one.action.level is not before:
            yield one


def _table(shown: Sequence[Heard], change: int | None, *, timed: bool) -> list[str]:
    if not shown:
        return ["No alarm, and nothing was asked for."]
    head = f"{'row':>9}  {'monitor':<20} {'verdict':<11} {'value':>6} {'limit':>6}  asks for"
    lines = [head + ("" if change is None else "  (delay)")]
    for one in shown:
        found = one.result
        name = f"{one.monitor}[{found.subject}]" if found.subject else one.monitor
        line = (
            f"{one.row:>9}  {printable(name, 20):<20} "
            f"{found.verdict.mark + ' ' + found.verdict.word:<11} "
            f"{number(found.value):>6} {number(found.limit):>6}  {_asked(one)}"
        )
        if change is not None and one.row >= change:
            line += f" (+{one.row - change})"
        lines.append(line)
        if timed:
            lines.append(f"{'':>11}{moment(one.at)}")
    return lines


def _asked(one: Heard) -> str:
    level = one.action.level.word if one.action.level is not Level.NONE else "–"
    return f"{level} ({one.action.deferred})" if one.action.deferred else level


def _monitors(summary: Mapping[str, Any]) -> list[str]:
    """Count the verdicts of each monitor that gave any, and name the others."""
    silent = [str(name).replace("_", " ") for name in summary["not_heard"]]
    others = _wrapped(f"Without a verdict on these rows: {listed(silent, 20)}.") if silent else []
    if not summary["monitors"]:
        return others
    width = max(18, *(len(one["monitor"][:_NAME]) for one in summary["monitors"]), 0)
    lines = [f"{'monitor':<{width}} {'✓':>5} {'!':>5} {'✗':>5} {'?':>5}  alarms at row"]
    for one in summary["monitors"]:
        verdicts = one["verdicts"]
        counts = [
            verdicts.get(Verdict.PASSED.value, 0),
            verdicts.get(Verdict.WARNED.value, 0),
            verdicts.get(Verdict.FAILED.value, 0),
            sum(
                verdicts.get(key.value, 0)
                for key in (Verdict.INCONCLUSIVE, Verdict.ERRORED, Verdict.SKIPPED)
            ),
        ]
        shown = 4 if width <= 20 else 1  # what a line of the screen holds
        rows = ", ".join(str(row) for row in one["alarms"][:shown]) or "–"
        more = f" and {len(one['alarms']) - shown} more" if one["alarms"][shown:] else ""
        figures = " ".join(f"{n:>5}" for n in counts)
        lines.append(f"{printable(one['monitor'], _NAME):<{width}} {figures}  {rows}{more}")
    return [*lines, *others]


# --- the picture ---------------------------------------------------------------------------


def picture(
    rehearsal: Rehearsal,
    heard: Sequence[Heard],
    summary: Mapping[str, Any],
    file: Path,
    *,
    change: int | None,
) -> None:
    """Draw the loss over the rows, with what is acceptable and the alarms, as PNG."""
    rows, settings = rehearsal.rows, rehearsal.settings
    losses, judged = row_losses(
        rows, task=settings.app.task, scale=reference_scale(rehearsal.reference)
    )
    places = np.flatnonzero(judged)
    parts = np.array_split(places, max(1, min(_POINTS, places.size // 20)))
    parts = [one for one in parts if one.size]
    intervals = [mean_interval(losses[one]) for one in parts]
    middle = [float(rows.query_id[one].mean()) for one in parts]
    curve = Curve(
        name="loss of the model",
        x=tuple(middle),
        y=tuple(float(losses[one].mean()) for one in parts),
        low=tuple(one.low for one in intervals),
        high=tuple(one.high for one in intervals),
    )
    limit = next((one.result.limit for one in heard if one.result.id == "concept_drift.loss"), None)
    curves = [curve]
    if limit is not None and middle:
        ends = (middle[0], middle[-1])
        curves.append(Curve(name=f"acceptable, {number(limit)}", x=ends, y=(limit, limit)))
    marks = [
        CurveMark(
            curve=curve.name,
            label=f"{one.monitor} {one.row}",
            x=float(one.row),
            y=float(np.interp(one.row, middle, curve.y)),
        )
        for one in [one for one in heard if one.alarm][:_MARKED]
        if middle
    ]
    title = _finding(heard, change)
    chart = CurveChart(
        title=title,
        alt=f"{title} Loss {number(summary['loss'])} over {count(summary['rows'])} rows.",
        x_label="row",
        panels=(Panel(label="mean loss", curves=tuple(curves), marks=tuple(marks)),),
    )
    [drawn] = draw_pictures([chart], width=_PICTURE_WIDTH)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(drawn.png)


def _finding(heard: Sequence[Heard], change: int | None) -> str:
    alarms = [one for one in heard if one.alarm and (change is None or one.row >= change)]
    if not alarms:
        return "No monitor raises an alarm." if change is None else "The change is not found."
    first = alarms[0]
    if change is None:
        return f"{first.monitor} alarms first, at row {first.row}."
    return f"{first.monitor} finds the change at row {change} after {first.row - change} rows."
