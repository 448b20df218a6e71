"""The pictures of a mail: those its facts hold, or the figure that the mail is about over time.

Facts are written in the transaction that decides and hold no drawings.  When the mail is sent,
this reads what the monitors recorded of the figure in question and draws it in a child process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlguard.reports.drawing import Picture, draw_pictures
from mlguard.reports.happenings import marks_of
from mlguard.reports.view import Chart, Point, TimeChart, chart_from_json
from mlguard.wording import estimate, moment, number, printable

if TYPE_CHECKING:
    from mlguard.registry import Event, Registry
    from mlguard.results import MonitorResult

#: Kinds of mail that are about one figure.
KINDS = frozenset({"rolled_back", "default_output", "frozen", "alert", "cleared"})
#: Recorded verdicts of the figure that are drawn.
POINTS = 60
MOST = 6
#: CSS pixels: a phone shows it nearly at its own size.
WIDTH = 400


class Illustrator:
    """Draws the pictures of a mail.

    Parameters
    ----------
    registry : Registry
        Where monitors record their verdicts.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __call__(self, kind: str, facts: Mapping[str, Any]) -> Sequence[Picture]:
        """Draw the pictures for facts of one kind.

        Raises
        ------
        DrawingError
            If the child process failed.
        """
        charts = [chart_from_json(one) for one in (facts.get("charts") or [])[:MOST]]
        if not charts and kind in KINDS:
            found = figure_over_time(self._registry, facts)
            charts = [] if found is None else [found]
        return draw_pictures(charts, width=WIDTH)


def figure_over_time(registry: Registry, facts: Mapping[str, Any]) -> Chart | None:
    """Return the figure that an event is about, as its monitor recorded it.

    None where fewer than two verdicts with a number were recorded.
    """
    app, check = facts.get("app"), facts.get("check") or facts.get("monitor")
    if not isinstance(app, str) or not isinstance(check, str):
        return None
    name, _, subject = check.rstrip("]").partition("[")
    subject = subject or str(facts.get("subject") or "")
    recorded = registry.monitor_results(app, monitor=name, limit=POINTS * 8)
    mine = [
        (at, one)
        for at, one in recorded
        if one.value is not None
        and math.isfinite(one.value)
        and (not subject or one.subject == subject)
    ]
    ids = {one.id for _, one in mine}
    if len(ids) > 1:
        # A monitor's name stands for several figures: show the one that is furthest out.
        worst = max(mine, key=lambda pair: (pair[1].verdict.severity, pair[0]))[1]
        mine = [(at, one) for at, one in mine if (one.id, one.subject) == (worst.id, worst.subject)]
    return recorded_chart(mine, registry.events(app, limit=400), name)


def recorded_chart(
    recorded: Sequence[tuple[float, MonitorResult]], events: Iterable[Event], name: str = ""
) -> TimeChart | None:
    """Return one figure over time, as its monitor recorded it.

    Parameters
    ----------
    recorded : sequence of (float, MonitorResult)
        Verdicts on one figure, with the time of each; those without a number are left out.
    events : iterable of Event
        The audit trail: moves and incidents become marks.
    name : str
        What people call the figure; default: its check.

    Returns
    -------
    TimeChart or None
        None where fewer than two verdicts have a number.
    """
    mine = [(at, one) for at, one in recorded if _finite(one.value) is not None]
    mine = sorted(mine, key=lambda pair: pair[0])[-POINTS:]
    if len(mine) < 2:  # one point is no line
        return None
    points = tuple(
        Point(
            at=at if one.window is None else (one.window.start + one.window.end) / 2,
            value=one.value,
            low=None if one.interval is None else _finite(one.interval[0]),
            high=None if one.interval is None else _finite(one.interval[1]),
            n=one.n,
        )
        for at, one in mine
    )
    last = mine[-1][1]
    name = name or last.id
    since = min(one.at for one in points)
    marks = [one for one in marks_of(events) if one.at >= since]
    label = printable(name if not last.subject else f"{name} of {last.subject}", 100)
    highest = max(points, key=lambda one: one.value or 0.0)
    said = estimate(highest.value, (highest.low, highest.high), highest.n)
    limit = _finite(last.limit)
    over = limit is not None and (highest.value or 0.0) > limit
    return TimeChart(
        title=f"{label} went up to {number(highest.value)}, over its limit of {number(limit)}"
        if over
        else f"{label} was {number(highest.value)} at most"
        + ("" if limit is None else f"; its limit is {number(limit)}"),
        alt=f"{label} over time, highest {said} around {moment(highest.at)}"
        + (f"; limit {number(limit)}." if limit is not None else "."),
        metric=label,
        points=tuple(sorted(points, key=lambda one: one.at)),
        marks=tuple(marks[-6:]),
        limit=limit,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
