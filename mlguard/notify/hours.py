"""Times of day in a zone: when the daily digest is due, and when people want to be left alone.

A day has one digest, also the day on which the clocks are changed: a time that does not exist
then is taken an hour later, and of one that comes twice the first is taken.  Times are seconds
since the epoch.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from mlguard.config import parse_daily, parse_span

_DAY = timedelta(days=1)


def _moment(day: date, minutes: int, zone: ZoneInfo) -> float:
    local = datetime(day.year, day.month, day.day, minutes // 60, minutes % 60, tzinfo=zone)
    return local.timestamp()


def _day_of(now: float, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(now, UTC).astimezone(zone).date()


def last_digest(daily: str, now: float) -> float:
    """Return the newest time, not after ``now``, at which a digest is due.

    Examples
    --------
    >>> last_digest("08:00 UTC", 1_795_357_320.0)  # Sunday, 2026-11-22 14:22
    1795334400.0
    """
    minutes, zone = parse_daily(daily)
    day = _day_of(now, zone) + _DAY
    while _moment(day, minutes, zone) > now:
        day -= _DAY
    return _moment(day, minutes, zone)


def next_digest(daily: str, now: float) -> float:
    """Return the first time after ``now`` at which a digest is due."""
    minutes, zone = parse_daily(daily)
    day = _day_of(now, zone) - _DAY
    while _moment(day, minutes, zone) <= now:
        day += _DAY
    return _moment(day, minutes, zone)


def quiet_until(quiet: str, now: float) -> float | None:
    """Return when the quiet hours that hold at ``now`` end; None where none hold.

    Examples
    --------
    >>> quiet_until("12:00 to 15:00 UTC", 1_795_357_320.0)
    1795359600.0
    >>> quiet_until("22:00 to 07:00 UTC", 1_795_357_320.0) is None
    True
    """
    if not quiet:
        return None
    start, end, zone = parse_span(quiet)
    today = _day_of(now, zone)
    for day in (today - _DAY, today):
        first = _moment(day, start, zone)
        last = _moment(day if end > start else day + _DAY, end, zone)
        if first <= now < last:
            return last
    return None
