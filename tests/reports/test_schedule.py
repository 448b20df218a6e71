"""Reports that come by themselves: once a period, and never twice."""

import pytest

from mlguard.reports.build import build_report
from mlguard.reports.schedule import due, last_period, send

DAY = 86_400.0


def test_a_week_runs_from_monday_to_monday():
    """UTC, whatever the hour of the asking."""
    from datetime import UTC, datetime

    since, until = last_period("weekly", 1_795_357_320.0)
    assert datetime.fromtimestamp(until, UTC).isoformat() == "2026-11-16T00:00:00+00:00"
    assert until - since == 7 * DAY


def test_no_schedule_is_never_due(lived, now):
    """[report] schedule = "none" is kept."""
    lived.deploy("v1")
    assert due(lived.registry, "credit", "none", now) is None


@pytest.mark.parametrize("schedule", ["daily", "weekly"])
def test_a_period_is_reported_once(lived, now, schedule):
    """Sent, it is remembered; the next one is due when it has ended."""
    lived.deploy("v1")
    lived.now = now + 7 * DAY
    period = due(lived.registry, "credit", schedule, lived.now)
    assert period is not None
    view = build_report(
        lived.project, lived.settings, lived.registry, lived.log, lived.labels,
        since=period[0], until=period[1], now=lived.now,
    )  # fmt: skip
    send(lived.registry, view, scheduled=True)
    assert due(lived.registry, "credit", schedule, lived.now) is None
    assert [row.kind for row in lived.registry.outbox.rows()][:1] == ["report"]
    after = period[1] + (period[1] - period[0])
    assert due(lived.registry, "credit", schedule, after + 1) == (period[1], after)


def test_an_app_that_never_served_has_no_report(lived, now):
    """Nobody gets a weekly mail about nothing."""
    assert due(lived.registry, "credit", "weekly", now) is None


def test_a_report_on_request_does_not_replace_the_scheduled_one(lived, now):
    """Asking for a report today leaves the one of the week due."""
    lived.deploy("v1")
    lived.now = now + 7 * DAY
    view = build_report(
        lived.project, lived.settings, lived.registry, lived.log, lived.labels,
        since=now, until=lived.now, now=lived.now,
    )  # fmt: skip
    send(lived.registry, view)
    assert due(lived.registry, "credit", "weekly", lived.now) is not None
