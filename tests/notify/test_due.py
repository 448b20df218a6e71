"""Reminders and the daily digest, against a real registry and a real mail server."""

import pytest

from mlguard.notify.due import promise_due
from mlguard.notify.email import Email
from mlguard.notify.hours import last_digest, next_digest
from mlguard.notify.outbox import deliver, rules_for
from mlguard.results import MonitorResult, Verdict
from mlguard.server_app import mail_due

HOUR, DAY = 3600.0, 86400.0


@pytest.fixture
def house(project, post_office, open_registry):
    post = post_office()
    settings = project(smtp=f"smtp://127.0.0.1:{post.port}", insecure=True)
    return settings, open_registry(settings), post


def carry(house, now):
    """Do what the watcher does: promise what is due, then send."""
    settings, registry, _ = house
    promised = promise_due(settings, registry, now)
    deliver(registry, [Email(settings)], now, rules=rules_for(settings.notify))
    return promised


def subjects(post):
    return [message["Subject"] for _, message in post.arrived]


def test_an_open_incident_is_reminded_of_after_four_hours_and_then_daily(house, clock):
    """In its thread, with how long it is open; a cleared one is left alone."""
    _, registry, post = house
    registry.set_reference("credit", "0" * 64, {})
    facts = {"check": "drift", "value": 0.4, "limit": 0.1, "n": 900, "happened": "old words"}
    incident = registry.open_incident(
        "credit", monitor="drift", version_id=None, summary="s", facts=facts, level="alert"
    )
    start = clock.now
    for quarter in range(4 * 60):
        clock.now = start + quarter * HOUR / 4
        carry(house, clock.now)
    registry.update_incident(incident.id, state="cleared")
    for hour in range(60, 120):
        clock.now = start + hour * HOUR
        carry(house, clock.now)
    states = [one.partition("]")[0].strip("[") for one in subjects(post)]
    assert states == ["FIRING", "STILL OPEN FOR 4 H", "STILL OPEN FOR 28 H", "STILL OPEN FOR 2 D",
                      "CLEARED"]  # fmt: skip
    assert {one.partition("]")[2] for one in subjects(post)} == {
        f" mlguard prod credit: drift, incident {incident.id}"
    }
    reminder = post.arrived[1][1].get_body(("plain",)).get_content()
    assert "0.40, n = 900" in reminder
    assert "old words" not in reminder
    assert post.arrived[1][1]["In-Reply-To"] == post.arrived[0][1]["Message-ID"]


def test_a_digest_tells_once_a_day_what_was_warned_of(house, clock):
    """Each check once, the worst first; a day without warnings has none."""
    _, registry, post = house
    clock.now = last_digest("08:00 UTC", clock.now) + HOUR
    assert carry(house, clock.now) == []
    registry.set_reference("credit", "0" * 64, {})
    for check, value in (("prediction_drift.psi", 0.08), ("data_drift.features", 0.095)):
        for _ in range(2):
            result = MonitorResult(
                id=check, verdict=Verdict.WARNED, summary="s", value=value, limit=0.1, n=700,
                version="v7",
            )  # fmt: skip
            registry.record_monitor_result("credit", result)
    registry.set_monitor_state(
        "credit", 0, 0, "rehearsal",
        {"at": clock.now, "version": "v6", "ok": True, "reason": "intact"},
    )  # fmt: skip
    assert carry(house, clock.now + HOUR) == []
    due = next_digest("08:00 UTC", clock.now)
    clock.now = due + 60
    assert carry(house, clock.now) == ["digest"]
    assert carry(house, clock.now + 60) == []
    clock.now -= DAY
    assert carry(house, clock.now) == []
    ((_, message),) = post.arrived
    assert message["Subject"] == "[DIGEST] mlguard prod: digest of 2026-11-23"
    text = message.get_body(("plain",)).get_content()
    assert text.index("data_drift.features in 2 windows") < text.index("prediction_drift.psi")
    assert "✓ credit: v6" in text
    clock.now = due + DAY + 60
    assert carry(house, clock.now) == []


def test_what_the_cap_held_back_is_in_the_digest(project, post_office, open_registry, clock, facts):
    """Nobody is flooded, and nobody misses anything: headline, app and time of each."""
    post = post_office()
    settings = project(smtp=f"smtp://127.0.0.1:{post.port}", insecure=True)
    notify = settings.notify.model_copy(update={"cap_per_day": 2})
    house = settings.model_copy(update={"notify": notify}), open_registry(settings), post
    for number in range(4):
        facts = {**facts, "incident": None, "check": f"check.{number}"}
        house[1].outbox.enqueue("credit", "alert", facts)
    house[1].outbox.enqueue("credit", "rolled_back", facts)
    carry(house, clock.now)
    assert len(post.arrived) == 3
    clock.now = next_digest("08:00 UTC", clock.now) + 1
    carry(house, clock.now)
    assert len(post.arrived) == 4
    text = post.arrived[-1][1].get_body(("plain",)).get_content()
    assert "2 messages above the daily cap" in text
    assert "check.2 of credit" in text
    assert "check.3 of credit" in text
    assert house[1].outbox.counts()["SENT"] == 5


def test_what_metrics_call_late_is_late(house, clock):
    """An alert in quiet hours is not; a rollback that nobody takes is, since it happened."""
    settings, registry, _ = house
    quiet = settings.model_copy(
        update={"notify": settings.notify.model_copy(update={"quiet": "00:00 to 23:59 UTC"})}
    )
    start = clock.now
    assert mail_due(quiet, registry, start + HOUR) is None
    registry.outbox.enqueue("credit", "report", {})
    assert mail_due(quiet, registry, start + HOUR) is None
    assert mail_due(settings, registry, start + HOUR) == start
    clock.now = start + 60
    registry.outbox.enqueue("credit", "rolled_back", {})
    assert mail_due(quiet, registry, start + HOUR) == start + 60
