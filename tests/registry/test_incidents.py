"""Incidents, holds, mail and monitors' memory, on both databases."""

import pytest

from mlguard.errors import NotFoundError, UsageError
from mlguard.results import MonitorResult, Verdict, Window

SERVICE = {
    "monitor": "service",
    "summary": "5 % of rows failed",
    "facts": {"check": "service.model_errors", "value": 0.05, "limit": 0.01, "n": 200},
    "level": "alert",
}


@pytest.fixture
def live(house):
    """An app with one live version."""
    house.version = house.deploy("one")
    return house


def test_one_incident_per_monitor_and_version(live):
    """Opening what is open returns it: a flapping metric is one thread (fault 28)."""
    registry = live.registry
    first = registry.open_incident("iris", version_id=live.version.id, **SERVICE)
    assert registry.open_incident("iris", version_id=live.version.id, **SERVICE) == first
    other = registry.open_incident("iris", version_id=None, **SERVICE)
    assert other.id != first.id
    assert first.version == "v1"
    assert first.generation == 1
    assert registry.incident(first.id) == first
    assert [one.id for one in registry.incidents("iris")] == [other.id, first.id]
    assert len(registry.outbox.rows()) == 4
    with pytest.raises(NotFoundError, match="no incident 77"):
        registry.incident(77)


def test_an_incident_clears_once_and_is_told_once(live):
    """Newer facts replace older ones; a mail of kind cleared goes out."""
    registry = live.registry
    incident = registry.open_incident("iris", version_id=None, mail=None, **SERVICE)
    live.clock.advance(60)
    registry.update_incident(incident.id, level="freeze", facts={"value": 0.07})
    cleared = registry.update_incident(incident.id, state="cleared")
    assert (cleared.level, cleared.state) == ("freeze", "cleared")
    assert cleared.facts == {**SERVICE["facts"], "value": 0.07}
    assert cleared.updated_at == live.clock.now
    events = len(registry.events())
    assert registry.update_incident(incident.id, state="cleared") == cleared
    assert len(registry.events()) == events
    mail = registry.outbox.rows()
    assert [one.kind for one in mail] == ["cleared", "cleared"]
    assert registry.incidents("iris", open_only=True) == []
    again = registry.open_incident("iris", version_id=None, **SERVICE)
    assert again.id != incident.id
    closed = registry.update_incident(again.id, state="closed", cause="a broken sensor")
    assert closed.cause == "a broken sensor"


def test_levels_and_states_are_checked(live):
    """A word that nobody knows is refused with those that are known."""
    registry = live.registry
    with pytest.raises(UsageError, match="alert, freeze, rollback, default_output"):
        registry.open_incident("iris", version_id=None, **{**SERVICE, "level": "panic"})
    incident = registry.open_incident("iris", version_id=None, **SERVICE)
    with pytest.raises(UsageError, match="open, cleared, closed"):
        registry.update_incident(incident.id, state="gone")


def test_a_hold_lasts_until_it_is_lifted_or_expires(live):
    """Holding again for the same reason is the same hold; resuming twice lifts once."""
    registry = live.registry
    hold = registry.hold("iris", "release freeze")
    assert registry.hold("iris", "release freeze") == hold
    until = registry.hold("iris", "night", expires=live.clock.now + 3600)
    assert [one.id for one in registry.holds("iris")] == [hold.id, until.id]
    live.clock.advance(3600)
    assert registry.holds("iris") == [hold]
    assert registry.resume("iris", "freeze is over") == [hold]
    assert registry.resume("iris", "freeze is over") == []
    assert [one.kind for one in registry.events("iris", limit=2)] == ["resumed", "hold"]


def test_a_monitor_lifts_its_own_hold_only(live):
    """Not another's, and not one that an automatic move set."""
    registry = live.registry
    incident = registry.open_incident("iris", version_id=None, **SERVICE)
    registry.hold("iris", "by hand")
    mine = registry.hold("iris", "errors", incident=incident.id)
    assert registry.hold("iris", "other words", incident=incident.id) == mine
    assert registry.resume("iris", "cleared", incident=incident.id) == [mine]
    live.deploy("two", confirm=False) if not registry.holds("iris") else None
    registry.resume("iris", "all")
    live.deploy("two")
    registry.rollback("iris", automatic=True, reason="errors", incident=incident.id)
    assert registry.resume("iris", "cleared", incident=incident.id) == []
    assert len(registry.holds("iris")) == 1


def test_mail_of_a_hold_says_what_to_do(live):
    """Kind frozen, with the incident's numbers and the command that lifts it."""
    registry = live.registry
    incident = registry.open_incident("iris", version_id=None, mail=None, **SERVICE)
    registry.hold("iris", "errors", incident=incident.id)
    mail = registry.outbox.rows()
    assert {one.kind for one in mail} == {"frozen"}
    facts = mail[0].facts
    assert (facts["value"], facts["incident"], facts["app"]) == (0.05, incident.id, "iris")
    assert facts["environment"] == "prod"
    assert facts["at"].endswith("Z")
    assert "mlguard resume iris" in facts["next"]


def test_facts_of_a_recorded_event(live):
    """An event that moves nothing has the generation it happened in, and its numbers."""
    registry = live.registry
    event = registry.record("iris", "monitor_error", "it raised", version="v1", times=5)
    assert (event.generation, event.moved, event.version) == (1, False, "v1")
    assert registry.events("iris", limit=1) == [event]
    assert registry.record("never", "note", "seen").generation == 0


# --- what monitors remember --------------------------------------------------------------


def test_a_monitor_s_state_survives_per_version_and_generation(house):
    """A restart finds it; another generation does not."""
    registry = house.registry
    assert registry.monitor_state("iris", 1, 1, "concept_drift") is None
    registry.set_monitor_state("iris", 1, 1, "concept_drift", {"e": 1.5})
    registry.set_monitor_state("iris", 1, 1, "concept_drift", {"e": 2.5, "cursor": 9})
    again = house.again().registry
    assert again.monitor_state("iris", 1, 1, "concept_drift") == {"e": 2.5, "cursor": 9}
    assert again.monitor_state("iris", 1, 2, "concept_drift") is None
    assert again.monitor_state("iris", 2, 1, "concept_drift") is None
    again.close()


def test_results_come_back_as_they_were_newest_first(house):
    """By monitor, by family, from a time on, and only so many."""
    registry = house.registry
    stored = []
    for number, name in enumerate(["data_drift.ks", "data_drift.psi", "service.errors"]):
        result = MonitorResult(
            id=name,
            verdict=Verdict.FAILED,
            summary="…",
            value=0.1 * number,
            interval=(0.0, 0.5),
            window=Window(start=1.0, end=2.0, n_rows=500, n_labels=0, generation=1),
            version="v1",
        )
        registry.record_monitor_result("iris", result)
        stored.append((house.clock.now, result))
        house.clock.advance(60)
    assert registry.monitor_results("iris") == stored[::-1]
    assert registry.monitor_results("iris", monitor="data_drift") == stored[1::-1]
    assert registry.monitor_results("iris", monitor="data_drift.ks") == stored[:1]
    assert registry.monitor_results("iris", since=stored[1][0]) == stored[:0:-1]
    assert registry.monitor_results("iris", limit=1) == stored[2:]
    assert registry.monitor_results("credit") == []
    assert registry.forget_observations(stored[1][0]) == 1
    assert registry.monitor_results("iris") == stored[:0:-1]
