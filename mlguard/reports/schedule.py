"""When a report is due by itself, and putting it on its way.

A weekly report covers Monday to Monday, a daily one midnight to midnight, both UTC.  A period
is reported once: the audit trail remembers it.  After a pause only the last whole period is
made up for; an app that never served has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlguard.reports.facts import report_facts
from mlguard.wording import rfc3339

if TYPE_CHECKING:
    from mlguard.registry import Registry
    from mlguard.reports.view import ReportView

#: Kind of the event that remembers a scheduled report.
EVENT = "reported"
_DAY = 86400.0
#: The epoch was a Thursday; weeks are counted from the Monday after it.
_FIRST_MONDAY = 4 * _DAY
_LENGTHS = {"daily": _DAY, "weekly": 7 * _DAY}


def last_period(schedule: str, now: float) -> tuple[float, float] | None:
    """Return the last whole period of a schedule, None where there is no schedule.

    Examples
    --------
    >>> last_period("daily", 3.5 * 86400)
    (172800.0, 259200.0)
    >>> last_period("none", 3.5 * 86400) is None
    True
    """
    length = _LENGTHS.get(schedule)
    if length is None:
        return None
    start = _FIRST_MONDAY if schedule == "weekly" else 0.0
    until = start + (now - start) // length * length
    return until - length, until


def due(registry: Registry, app: str, schedule: str, now: float) -> tuple[float, float] | None:
    """Return the period that is to be reported now, None where none is.

    Parameters
    ----------
    registry : Registry
    app : str
    schedule : {"weekly", "daily", "none"}
        ``[report] schedule``.
    now : float
        Seconds since the epoch.
    """
    period = last_period(schedule, now)
    if period is None:
        return None
    launched = [one for one in registry.versions(app) if one.activated_at is not None]
    if not launched or min(one.activated_at or now for one in launched) >= period[1]:
        return None
    reported = registry.events(app, kind=EVENT, limit=1)
    if reported and float(reported[0].detail.get("until_s", 0.0)) >= period[1]:
        return None
    return period


def last_report(registry: Registry, app: str, until: float) -> float | None:
    """Return until when the last scheduled report before a time went; None without one."""
    reported = (
        float(one.detail.get("until_s", 0.0)) for one in registry.events(app, kind=EVENT, limit=50)
    )
    return max((one for one in reported if 0.0 < one < until), default=None)


def send(registry: Registry, view: ReportView, *, link: str = "", scheduled: bool = False) -> None:
    """Put a report into the outbox; a scheduled one is remembered as reported.

    Parameters
    ----------
    registry : Registry
    view : ReportView
    link : str
        Where the whole report can be read.
    scheduled : bool
        Whether it was due by itself.
    """
    registry.outbox.enqueue(view.app, "report", report_facts(view, link=link))
    if scheduled:
        registry.record(
            view.app,
            EVENT,
            "the scheduled report",
            since=rfc3339(view.since),
            until=rfc3339(view.until),
            until_s=view.until,
        )
