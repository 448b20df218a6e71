"""Deploy, promote, confirm, roll back, block: the same contract on SQLite and PostgreSQL."""

import pytest

from mlguard.config import AutoTable
from mlguard.errors import (
    ConflictError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from mlguard.registry import Mode, State

ANY = AutoTable(cooldown=0, budget=99)


def test_an_app_that_was_never_seen(house):
    """Generation 0, nothing active, nothing to go back to; asking is no error."""
    state = house.registry.app("iris")
    assert (state.generation, state.mode, state.active) == (0, Mode.SERVE, None)
    assert house.registry.apps() == []
    assert house.registry.versions("iris") == []
    assert house.registry.rollback_targets("iris") == []
    assert house.registry.candidate("iris") is None
    assert house.registry.operation("iris") is None
    assert house.registry.holds("iris") == []
    assert house.registry.events("iris") == []
    for command in (
        lambda: house.registry.rollback("iris", automatic=False, reason="?"),
        lambda: house.registry.block("iris", "?"),
        lambda: house.registry.hold("iris", "?"),
        lambda: house.registry.abort("iris", "?"),
        lambda: house.registry.begin("iris", 1),
    ):
        with pytest.raises(NotFoundError, match="never deployed"):
            command()


def test_the_first_version_is_live_at_once(house):
    """It has nothing to be compared with (T9a)."""
    version = house.passed("one")
    state = house.registry.promote(house.staged(version), reason="first")
    assert (state.generation, state.mode) == (1, Mode.SERVE)
    assert state.active.name == "v1"
    assert state.active.state is State.LIVE
    assert state.active.confirmed_at == house.clock.now
    assert (state.since, state.reason) == (house.clock.now, "first")
    assert house.registry.operation("iris") is None
    house.check()


def test_a_second_version_bakes_and_is_confirmed(house):
    """LIVE goes to STANDBY; the new one is BAKING until it is confirmed (T9, T10)."""
    house.deploy("one")
    second = house.deploy("two", confirm=False)
    assert house.states() == {"v1": State.STANDBY, "v2": State.BAKING}
    assert second.confirmed_at is None
    house.check()
    confirmed = house.registry.confirm("iris", served_s=601.5, rows=7, expected_generation=2)
    assert confirmed.state is State.LIVE
    assert confirmed.baked_s == 601.5
    assert house.registry.app("iris").generation == 2
    assert house.registry.confirm("iris", served_s=1) is None
    assert house.registry.events("iris", kind="confirmed")[0].detail == {
        "served_s": 601.5,
        "rows": 7,
    }


def test_a_confirmation_of_another_generation_conflicts(house):
    """Only observations of the current generation count."""
    house.deploy("one")
    house.deploy("two", confirm=False)
    with pytest.raises(ConflictError, match="generation 2, not 1"):
        house.registry.confirm("iris", served_s=600, expected_generation=1)
    assert house.states()["v2"] is State.BAKING


def test_watched_time_adds_up_within_one_generation(house):
    """Seconds of another generation, and negative ones, are not counted."""
    house.deploy("one")
    house.deploy("two", confirm=False)
    assert house.registry.note_baked("iris", 2, 5.0) == 5.0
    assert house.registry.note_baked("iris", 2, 2.5) == 7.5
    assert house.registry.note_baked("iris", 1, 100.0) == 0.0
    assert house.registry.note_baked("iris", 2, -3.0) == 7.5


def test_one_deployment_at_a_time(house):
    """The second is told who runs the first, for how long, and under which number."""
    first, second = house.passed("one"), house.passed("two")
    operation = house.registry.begin("iris", first.id)
    house.clock.advance(5)
    with pytest.raises(ConflictError, match=f"deploy {operation.id} for 5 s") as caught:
        house.registry.begin("iris", second.id)
    assert caught.value.exit_code == 4
    assert caught.value.data["clause"] == "lease"
    assert "--replace-candidate" in caught.value.hint
    assert house.registry.operation("iris") == operation


def test_a_heartbeat_keeps_the_lease(house):
    """A deployment that beats is not taken over, however long it lasts."""
    first, second = house.passed("one"), house.passed("two")
    operation = house.registry.begin("iris", first.id)
    for _ in range(5):
        house.clock.advance(20)
        house.registry.beat(operation)
    with pytest.raises(ConflictError):
        house.registry.begin("iris", second.id)


def test_a_fenced_out_deployer_changes_nothing(house):
    """Silent past its lease, overtaken, awake again: every command of it conflicts (I9)."""
    house.deploy("zero")
    first, second = house.passed("one"), house.passed("two")
    asleep = house.staged(first)
    house.clock.advance(31)
    winner = house.staged(second)
    assert winner.fence > asleep.fence
    assert house.registry.version_by_id(first.id).state is State.PASSED
    before = house.facts()
    for command in (
        lambda: house.registry.beat(asleep),
        lambda: house.registry.stage(asleep),
        lambda: house.registry.promote(asleep, reason="late"),
        lambda: house.registry.abort(asleep, "late"),
    ):
        with pytest.raises(ConflictError, match="has ended") as caught:
            command()
        assert caught.value.data["clause"] == "fence"
    assert house.facts() == before
    house.registry.promote(winner, reason="in time")
    assert house.active() == "v3"
    house.check()


def test_replacing_a_candidate_fences_out_a_living_deployment(house):
    """`--replace-candidate` does not wait for the lease."""
    first, second = house.passed("one"), house.passed("two")
    operation = house.staged(first)
    house.staged(second, replace_candidate=True)
    assert house.states() == {"v1": State.PASSED, "v2": State.STAGED}
    with pytest.raises(ConflictError):
        house.registry.promote(operation, reason="late")


def test_the_same_key_gives_the_same_answer(house):
    """Whoever does not know whether the promotion happened asks again with its key."""
    version = house.passed("one")
    operation = house.registry.begin("iris", version.id, key="commit-1")
    assert house.registry.begin("iris", version.id, key="commit-1") == operation
    house.registry.stage(operation)
    state = house.registry.promote(operation, reason="first")
    assert house.registry.promote(operation, reason="again") == state
    house.deploy("two")
    again = house.registry.begin("iris", version.id, key="commit-1")
    assert again.result["generation"] == 1
    told = house.registry.promote(again, reason="again")
    assert (told.generation, told.active.id, told.reason) == (1, version.id, "first")
    assert house.registry.app("iris").generation == 2
    house.check()


def test_moves_with_a_key_happen_once(house):
    """Rollback, block and unblock answer a second call with what the first came to."""
    house.deploy("one")
    house.deploy("two")
    registry = house.registry
    for command in (
        lambda: registry.rollback("iris", automatic=False, reason="bad", key="a"),
        lambda: registry.block("iris", "stop", key="b"),
        lambda: registry.unblock("iris", "go", key="c"),
    ):
        first = command()
        events = len(registry.events())
        again = command()
        assert (again.generation, again.mode) == (first.generation, first.mode)
        assert len(registry.events()) == events
    assert registry.app("iris").generation == 5
    house.check()


def test_a_deployment_is_aborted_by_its_owner_or_by_name(house):
    """Its candidate goes back to PASSED; aborting nothing is no error (T16)."""
    house.deploy("one")
    version = house.passed("two")
    operation = house.staged(version)
    assert house.registry.candidate("iris").id == version.id
    drained = house.registry.abort(operation, "changed my mind")
    assert (drained.id, drained.state) == (version.id, State.PASSED)
    assert house.registry.operation("iris") is None
    assert house.registry.abort("iris", "anything left?") is None
    house.staged(version)
    assert house.registry.abort("iris", "by name").id == version.id
    house.check()


def test_a_standby_that_is_deployed_again_stays_a_standby_where_that_fails(house):
    """A deployment that is aborted costs no rollback target."""
    first = house.deploy("one")
    house.deploy("two")
    operation = house.staged(first)
    assert house.registry.rollback_targets("iris") == []
    house.registry.abort(operation, "no")
    assert [one.id for one in house.registry.rollback_targets("iris")] == [first.id]
    again = house.staged(first)
    house.registry.promote(again, reason="again")
    assert house.states() == {"v1": State.BAKING, "v2": State.STANDBY}
    house.check()


def test_what_serves_is_not_deployed_again(house):
    """Neither begun nor promoted twice."""
    version = house.deploy("one")
    with pytest.raises(RefusedError, match="serves already"):
        house.registry.begin("iris", version.id)


def test_a_version_of_another_app_is_refused(house):
    """Versions do not cross apps."""
    house.passed("one")
    other = house.passed("one", app="credit")
    with pytest.raises(RefusedError, match="no version of iris"):
        house.registry.begin("iris", other.id)


# --- guards of a promotion ---------------------------------------------------------------


def test_a_baking_version_bars_the_next_unless_superseded(house):
    """Exit 4 with what to do; superseded it is PASSED, and the standby stays (T7, T9)."""
    house.deploy("one")
    house.deploy("two", confirm=False)
    third = house.passed("three")
    operation = house.registry.begin("iris", third.id)
    with pytest.raises(ConflictError, match="v2 is still being watched") as caught:
        house.registry.stage(operation)
    assert "--supersede" in caught.value.hint
    house.registry.abort(operation, "try again")
    house.registry.promote(house.staged(third, supersede=True), reason="superseded")
    assert house.states() == {"v1": State.STANDBY, "v2": State.PASSED, "v3": State.BAKING}
    assert [one.name for one in house.registry.rollback_targets("iris")] == ["v1"]
    house.check()


def test_a_hold_bars_promotion_but_the_one_that_is_resolved(house):
    """Before and after staging; fixing forward lifts that one hold (I10)."""
    house.deploy("one")
    second = house.passed("two")
    incident = house.registry.open_incident(
        "iris",
        monitor="service",
        version_id=None,
        summary="5 % of rows failed",
        facts={"value": 0.05, "n": 200},
        level="freeze",
    )
    operation = house.staged(second)
    house.registry.hold("iris", "too many errors", incident=incident.id)
    before = house.facts()
    with pytest.raises(RefusedError, match="on hold") as caught:
        house.registry.promote(operation, reason="hurry")
    assert caught.value.data["clause"] == "hold"
    assert f"--resolves {incident.id}" in caught.value.hint
    assert house.facts() == before
    house.registry.abort(operation, "held")
    with pytest.raises(RefusedError, match="on hold"):
        house.staged(second)
    house.registry.abort("iris", "held")
    fix = house.staged(second, resolves=incident.id)
    house.registry.promote(fix, reason="the fix")
    assert house.registry.holds("iris") == []
    assert house.registry.incident(incident.id).state == "cleared"
    with pytest.raises(NotFoundError, match="no incident 99"):
        house.registry.begin("iris", house.passed("three").id, resolves=99)
    house.check()


def test_another_hold_is_not_resolved_with_it(house):
    """Only the named incident's hold is passed."""
    house.deploy("one")
    registry = house.registry
    named = {"monitor": "a", "version_id": None, "summary": "s", "facts": {}, "level": "freeze"}
    incident = registry.open_incident("iris", **named)
    registry.hold("iris", "known", incident=incident.id)
    registry.hold("iris", "release freeze")
    with pytest.raises(RefusedError, match="release freeze"):
        house.staged(house.passed("two"), resolves=incident.id)


def test_evidence_must_exist_allow_be_fresh_and_of_the_policy(house):
    """Each way in which evidence does not open the gate is named."""
    house.deploy("one")
    version = house.passed("two")
    registry = house.registry

    def refused(match, **options):
        operation = registry.begin("iris", version.id, **options)
        with pytest.raises(RefusedError, match=match) as caught:
            registry.stage(operation)
        assert caught.value.data["clause"] == "evidence"
        registry.abort(operation, "refused")

    refused("another policy", policy_digest="stricter")
    house.clock.advance(10 * 86400)
    refused("judged 10.0 days ago", evidence_max_age=9 * 86400.0)
    # A clock that goes back does not make it fresh: the largest time seen counts.
    registry.record("iris", "note", "time passes")
    house.clock.advance(-9 * 86400)
    refused("judged 10.0 days ago", evidence_max_age=9 * 86400.0)
    house.judge(version, allowed=False)
    refused("the gate refused it")
    house.judge(version)
    registry.stage(registry.begin("iris", version.id, policy_digest="policy"))


def test_evidence_that_turns_in_mid_rollout_bars_the_promotion(house):
    """What was fine when it was staged is looked at again (fault 37)."""
    house.deploy("one")
    version = house.passed("two")
    operation = house.staged(version)
    house.judge(version, allowed=False)
    with pytest.raises(RefusedError, match="refused it"):
        house.registry.promote(operation, reason="go")
    assert house.active() == "v1"


def test_a_version_without_evidence_is_not_marked_passed(house):
    """PASSED is what evidence says, not what a caller says (T4)."""
    version = house.register("one")
    registry = house.registry
    registry.mark(version.id, State.VERIFIED, reason="ok")
    with pytest.raises(RefusedError, match="no evidence"):
        registry.mark(version.id, State.PASSED, reason="trust me")
    house.judge(version, allowed=False)
    with pytest.raises(RefusedError, match="no evidence"):
        registry.mark(version.id, State.PASSED, reason="trust me")
    assert registry.mark(version.id, State.REJECTED, reason="gate").state is State.REJECTED
    registry.mark(version.id, State.VERIFIED, reason="deployed again")
    house.judge(version)
    assert registry.mark(version.id, State.PASSED, reason="gate").state is State.PASSED


def test_every_live_server_must_have_loaded_the_candidate(house):
    """One that is missing conflicts, one that failed refuses, one that is gone is forgotten."""
    house.deploy("one")
    version = house.passed("two")
    registry = house.registry
    registry.server_hello("s1", host="here", pid=1, url="http://here")
    operation = house.staged(version)
    with pytest.raises(ConflictError, match="not loaded yet by s1") as caught:
        registry.promote(operation, reason="go")
    assert caught.value.data["clause"] == "not_loaded"
    registry.server_beat("s1", observed={"iris": 1}, loaded=[], failed={version.id: "no module"})
    with pytest.raises(RefusedError, match="no module") as caught:
        registry.promote(operation, reason="go")
    assert caught.value.data["clause"] == "load_failed"
    registry.server_beat("s1", observed={"iris": 1}, loaded=[version.id], failed={})
    registry.promote(operation, reason="go")
    third = house.staged(house.passed("three"), supersede=True)
    house.clock.advance(31)
    registry.beat(third)
    registry.promote(third, reason="the server is gone")
    house.check()


def test_changed_bytes_are_not_staged(house):
    """They are BROKEN; putting the same file back repairs the version (T3)."""
    house.deploy("one")
    version = house.passed("two")
    blob = house.registry.artifacts.get(version.manifest["model_sha256"])
    blob.chmod(0o644)
    blob.write_text("changed")
    operation = house.registry.begin("iris", version.id)
    with pytest.raises(IntegrityError, match="has changed"):
        house.registry.stage(operation)
    assert house.states()["v2"] is State.BROKEN
    repaired = house.register("two")
    assert (repaired.id, repaired.state) == (version.id, State.REGISTERED)
    assert house.registry.artifacts.get(version.manifest["model_sha256"]).read_text() == "two"


# --- backward ----------------------------------------------------------------------------


def test_a_human_goes_back_step_by_step_and_never_forward(house):
    """LIVE to STANDBY, no hold, no quarantine; at the end there is nothing to go back to."""
    for content in ("one", "two", "three"):
        house.deploy(content)
    registry = house.registry
    assert [one.name for one in registry.rollback_targets("iris")] == ["v2", "v1"]
    assert registry.rollback("iris", automatic=False, reason="bad").active.name == "v2"
    assert registry.rollback("iris", automatic=False, reason="worse").active.name == "v1"
    with pytest.raises(RefusedError, match="nothing to go back to") as caught:
        registry.rollback("iris", automatic=False, reason="again")
    assert caught.value.exit_code == 1
    assert "--to-default" in caught.value.hint
    assert registry.holds("iris") == []
    assert registry.automatic_moves("iris") == []
    assert house.states() == {"v1": State.LIVE, "v2": State.STANDBY, "v3": State.STANDBY}
    assert house.check().generation == 5


def test_a_human_may_name_any_standby(house):
    """Also a later one: that is a decision, not a default."""
    for content in ("one", "two", "three"):
        house.deploy(content)
    registry = house.registry
    state = registry.rollback(
        "iris", to=registry.version("iris", "v1"), automatic=False, reason="far back"
    )
    assert state.active.name == "v1"
    state = registry.rollback(
        "iris", to=registry.version("iris", "v3"), automatic=False, reason="v3 was right"
    )
    assert state.active.name == "v3"
    with pytest.raises(RefusedError, match="serves already"):
        registry.rollback("iris", to=state.active, automatic=False, reason="?")
    with pytest.raises(RefusedError, match="cannot restore"):
        registry.rollback("iris", to=house.passed("four"), automatic=False, reason="?")
    house.check()


def test_leaving_a_baking_version_by_hand_makes_it_passed(house):
    """It was never confirmed, so it is no target."""
    house.deploy("one")
    house.deploy("two", confirm=False)
    house.registry.rollback("iris", automatic=False, reason="not yet")
    assert house.states() == {"v1": State.LIVE, "v2": State.PASSED}
    house.check()


def test_a_human_may_quarantine(house):
    """T11 by hand: bytes barred under any name, promotions held, an incident; no budget."""
    house.deploy("one")
    second = house.deploy("two")
    house.registry.rollback("iris", automatic=False, quarantine=True, reason="poisoned")
    assert house.states()["v2"] is State.QUARANTINED
    assert house.registry.quarantined("iris", second.digest).reason == "poisoned"
    (hold,) = house.registry.holds("iris")
    assert hold.after_move
    assert house.registry.incident(hold.incident).state == "open"
    assert house.registry.automatic_moves("iris") == []
    house.check()


def test_an_automatic_rollback_condemns_holds_and_is_charged(house):
    """Quarantine, hold, budget, incident, event and one mail per recipient: one commit (T11)."""
    house.deploy("one")
    second = house.deploy("two", confirm=False)
    registry = house.registry
    facts = {"check": "concept_drift.loss", "value": 0.31, "limit": 0.12, "n": 420}
    incident = registry.open_incident(
        "iris",
        monitor="concept_drift",
        version_id=second.id,
        summary="loss rose to 0.31",
        facts=facts,
        level="alert",
        mail=None,
    )
    state = registry.rollback(
        "iris",
        automatic=True,
        reason="loss rose",
        expected_generation=2,
        incident=incident.id,
        detail={"window": "10:00-11:00"},
    )
    assert (state.generation, state.active.name) == (3, "v1")
    assert house.states() == {"v1": State.LIVE, "v2": State.QUARANTINED}
    assert registry.version_by_id(second.id).incident == incident.id
    assert registry.quarantined("iris", second.digest).incident == incident.id
    (hold,) = registry.holds("iris")
    assert (hold.after_move, hold.incident, hold.expires) == (True, incident.id, None)
    assert registry.automatic_moves("iris") == [house.clock.now]
    assert registry.automatic_moves("iris", house.clock.now + 1) == []
    assert registry.incident(incident.id).level == "rollback"
    event = registry.events("iris", limit=1)[0]
    assert (event.kind, event.moved, event.generation) == ("rolled_back", True, 3)
    assert (event.detail["from"], event.detail["to"]) == ("v2", "v1")
    mail = registry.outbox.rows()[1::-1]
    assert [one.recipient for one in mail] == ["ann@example.com", "bob@example.com"]
    assert mail[0].kind == "rolled_back"
    told = {"from": "v2", "to": "v1", "value": 0.31, "n": 420, "window": "10:00-11:00"}
    assert told.items() <= mail[0].facts.items()
    assert mail[0].facts["project"] == "example"
    assert "mlguard resume iris" in mail[0].facts["next"]
    house.check()


def test_an_automatic_rollback_without_an_incident_opens_one(house):
    """What is quarantined always has a number to ask about."""
    house.deploy("one")
    second = house.deploy("two")
    house.registry.rollback("iris", automatic=True, reason="crashes")
    number = house.registry.quarantined("iris", second.digest).incident
    assert house.registry.incident(number).level == "rollback"


def test_quarantined_bytes_do_not_come_back_under_another_name(house):
    """A new version of the same content is refused with the incident (fault 30)."""
    house.deploy("one")
    house.deploy("two")
    house.registry.rollback("iris", automatic=True, reason="bad")
    again = house.passed("two", name="hotfix")
    with pytest.raises(RefusedError, match=r"quarantine \(incident 1\)") as caught:
        house.registry.begin("iris", again.id)
    assert caught.value.data["incident"] == 1
    house.registry.begin("iris", house.passed("two", name="tuned", threshold=0.6).id)


def test_rollback_fences_out_a_running_deployment(house):
    """It neither waits for it nor is undone by it (fault 9)."""
    house.deploy("one")
    house.deploy("two")
    third = house.passed("three")
    operation = house.staged(third)
    house.registry.rollback("iris", automatic=True, reason="bad")
    assert house.registry.version_by_id(third.id).state is State.PASSED
    with pytest.raises(ConflictError):
        house.registry.promote(operation, reason="late")
    assert house.active() == "v1"
    house.check()


def test_a_stale_judgement_moves_nothing(house):
    """A monitor that judged an older generation conflicts."""
    house.deploy("one")
    house.deploy("two")
    before = house.facts()
    for command in (house.registry.rollback, house.registry.block):
        with pytest.raises(ConflictError, match="generation 2, not 1"):
            command("iris", reason="old news", automatic=True, expected_generation=1)
    assert house.facts() == before


def test_budget_and_cooldown_bound_automatic_moves(house):
    """I8: the second must wait, the third in a day is refused; a human is not bound."""
    registry = house.registry
    for content in ("one", "two", "three", "four"):
        house.deploy(content)
    registry.rollback("iris", automatic=True, reason="a")
    with pytest.raises(RefusedError, match="after 30 min") as caught:
        registry.rollback("iris", automatic=True, reason="b")
    assert caught.value.data["clause"] == "cooldown"
    house.clock.advance(1800)
    registry.rollback("iris", automatic=True, reason="b")
    house.clock.advance(20 * 3600)
    with pytest.raises(RefusedError, match="budget is 2") as caught:
        registry.rollback("iris", automatic=True, reason="c")
    assert caught.value.data["clause"] == "budget"
    with pytest.raises(RefusedError, match="budget is 2"):
        registry.block("iris", "c", automatic=True)
    registry.rollback("iris", automatic=True, reason="c", auto=ANY)
    assert house.active() == "v1"
    registry.block("iris", "by hand")
    house.check()


def test_targets_with_changed_bytes_are_passed_over_and_told(house):
    """The next one is used; event and mail name the refused; it is BROKEN (fault 15)."""
    first = house.deploy("one")
    second = house.deploy("two")
    house.deploy("three")
    registry = house.registry
    blob = registry.artifacts.get(second.manifest["model_sha256"])
    blob.unlink()
    state = registry.rollback("iris", automatic=True, reason="bad")
    assert state.active.id == first.id
    assert house.states()["v2"] is State.BROKEN
    assert "v2: artifact" in registry.events("iris", kind="rolled_back")[0].detail["refused"][0]
    house.check()


def test_no_intact_target_is_nothing_to_go_back_to(house):
    """Every refusal is listed; nothing moved."""
    first = house.deploy("one")
    house.deploy("two")
    house.registry.artifacts.delete(first.manifest["model_sha256"])
    with pytest.raises(RefusedError, match="nothing to go back to: v1: artifact") as caught:
        house.registry.rollback("iris", automatic=True, reason="bad")
    assert caught.value.data["clause"] == "no_target"
    assert house.active() == "v2"
    house.check()


def test_a_named_target_with_changed_bytes_is_an_integrity_error(house):
    """Who names a version gets that one or none."""
    first = house.deploy("one")
    house.deploy("two")
    house.registry.artifacts.delete(first.manifest["model_sha256"])
    with pytest.raises(IntegrityError, match="missing"):
        house.registry.rollback("iris", to=first, automatic=False, reason="bad")
    assert house.states()["v1"] is State.BROKEN
    house.check()


# --- default output ----------------------------------------------------------------------


def test_blocking_by_hand_is_undone_by_unblocking(house):
    """The pointer is kept (T13); repeating either is no new generation."""
    house.deploy("one")
    registry = house.registry
    state = registry.block("iris", "stop", expected_generation=1)
    assert (state.generation, state.mode, state.active.name) == (2, Mode.DEFAULT_OUTPUT, "v1")
    assert registry.block("iris", "stop").generation == 2
    house.check()
    state = registry.unblock("iris", "go on")
    assert (state.generation, state.mode, state.active.name) == (3, Mode.SERVE, "v1")
    assert registry.unblock("iris", "go on").generation == 3
    assert registry.holds("iris") == []
    house.check()


def test_the_automatic_default_output_condemns(house):
    """With no target: pointer empty, quarantine, hold; left by a fix that resolves it (T12)."""
    first = house.deploy("one")
    registry = house.registry
    state = registry.block("iris", "every row crashes", automatic=True)
    assert (state.generation, state.mode, state.active) == (2, Mode.DEFAULT_OUTPUT, None)
    assert registry.block("iris", "still", automatic=True).generation == 2
    assert house.states() == {"v1": State.QUARANTINED}
    incident = registry.quarantined("iris", first.digest).incident
    assert registry.incident(incident).level == "default_output"
    assert len(registry.automatic_moves("iris")) == 1
    with pytest.raises(RefusedError, match="no active version"):
        registry.unblock("iris", "?")
    fix = house.passed("two")
    with pytest.raises(RefusedError, match="on hold"):
        house.staged(fix)
    registry.abort("iris", "held")
    state = registry.promote(house.staged(fix, resolves=incident), reason="fixed")
    assert (state.mode, state.active.state) == (Mode.SERVE, State.BAKING)
    assert registry.holds("iris") == []
    house.check()


def test_automation_does_not_lift_a_human_s_block(house):
    """An automatic rollback would answer with a model again; it is refused."""
    house.deploy("one")
    house.deploy("two")
    house.registry.block("iris", "stop")
    with pytest.raises(RefusedError, match="only a human") as caught:
        house.registry.rollback("iris", automatic=True, reason="bad")
    assert caught.value.data["clause"] == "blocked"
    state = house.registry.rollback("iris", automatic=False, reason="v1 is fine")
    assert (state.mode, state.active.name) == (Mode.SERVE, "v1")
    house.check()


def test_blocking_drains_a_running_deployment(house):
    """Nothing is promoted out of a block by a deployment that began before it."""
    house.deploy("one")
    operation = house.staged(house.passed("two"))
    house.registry.block("iris", "stop")
    with pytest.raises(ConflictError):
        house.registry.promote(operation, reason="late")
    house.check()


# --- release, archive, reconcile ---------------------------------------------------------


def test_release_needs_a_closed_incident_and_a_new_judgement(house):
    """QUARANTINED to VERIFIED for every version of the digest (T14)."""
    house.deploy("one")
    second = house.deploy("two")
    registry = house.registry
    registry.rollback("iris", automatic=True, reason="bad")
    with pytest.raises(RefusedError, match="is open"):
        registry.release("iris", "v2", "looks fine")
    registry.update_incident(1, state="closed", cause="sensor was broken")
    released = registry.release("iris", "v2", "sensor was broken")
    assert (released.state, released.incident) == (State.VERIFIED, None)
    assert registry.quarantined("iris", second.digest) is None
    with pytest.raises(RefusedError, match="not in quarantine"):
        registry.release("iris", "v2", "again")


def test_the_last_three_confirmed_are_not_archived(house):
    """They are what can be gone back to (T15)."""
    versions = [house.deploy(content) for content in ("one", "two", "three", "four")]
    registry = house.registry
    with pytest.raises(RefusedError, match="last 3 confirmed"):
        registry.archive(versions[1].id, "old")
    assert registry.archive(versions[0].id, "old").state is State.ARCHIVED
    assert registry.archive(versions[0].id, "old").state is State.ARCHIVED
    assert [one.name for one in registry.rollback_targets("iris")] == ["v3", "v2"]


def test_nothing_is_archived_while_an_incident_is_open(house):
    """A rollback may be near."""
    versions = [house.deploy(content) for content in ("one", "two", "three", "four")]
    house.registry.open_incident(
        "iris", monitor="m", version_id=None, summary="s", facts={}, level="alert"
    )
    with pytest.raises(RefusedError, match="incident 1"):
        house.registry.archive(versions[0].id, "old")


def test_reconcile_ends_what_was_abandoned_and_is_idempotent(house):
    """A silent deployment, an expired hold, an unapproved version, a dead server (I13, L1)."""
    house.deploy("one")
    registry = house.registry
    held = house.register("three")
    registry.mark(held.id, State.VERIFIED, reason="ok")
    registry.mark(held.id, State.HELD, reason="undecided")
    house.staged(house.passed("two"))
    registry.hold("iris", "until noon", expires=house.clock.now + 60)
    registry.server_hello("s1", host="h", pid=1, url="")
    assert registry.reconcile() == []
    house.clock.advance(8 * 86400)
    said = registry.reconcile()
    assert [part in " ".join(said) for part in ("deployment", "1 hold", "v2", "s1")] == [True] * 4
    assert registry.operation("iris") is None
    assert registry.candidate("iris") is None
    assert registry.version_by_id(held.id).state is State.VERIFIED
    after = house.facts()
    assert registry.reconcile() == []
    assert house.facts() == after
    house.check()


def test_approval_writes_its_own_evidence(house):
    """HELD to PASSED: who let it through stands beside what the gate found (T6)."""
    version = house.register("one")
    registry = house.registry
    registry.mark(version.id, State.VERIFIED, reason="ok")
    registry.mark(version.id, State.HELD, reason="undecided")
    with pytest.raises(RefusedError, match="nothing to approve"):
        registry.mark(version.id, State.PASSED, reason="I looked at it")
    house.judge(version, allowed=False)
    registry.mark(version.id, State.PASSED, reason="I looked at it")
    newest, older = registry.evidence("iris", version.digest)
    assert (newest.allowed, older.allowed) == (True, False)
    assert newest.decision["approved_by"] == "ann"
    assert registry.events("iris", limit=1)[0].kind == "approved"
    registry.promote(house.staged(version), reason="approved")


def test_a_clock_a_day_back_orders_nothing_anew(house):
    """Rollback targets are ordered by events, not by times (fault 31)."""
    house.deploy("one")
    house.clock.advance(-86400)
    house.deploy("two")
    house.clock.advance(2 * 86400)
    house.deploy("three")
    house.clock.advance(-3 * 86400)
    assert [one.name for one in house.registry.rollback_targets("iris")] == ["v2", "v1"]
    house.registry.rollback("iris", automatic=False, reason="bad")
    assert house.active() == "v2"
    house.check()


def test_a_lease_written_by_a_clock_that_went_back_is_void(house):
    """A dead deployment does not block for the length of the jump."""
    house.staged(house.passed("one"))
    house.clock.advance(-86400)
    house.staged(house.passed("two"))
    assert house.states() == {"v1": State.PASSED, "v2": State.STAGED}


@pytest.mark.parametrize("jump_s", [86400.0, -86400.0])
def test_a_clock_that_jumps_a_day_moves_nothing(house, jump_s):
    """In mid-deployment and mid-watch: same pointer, same bake; who beats goes on, and serves."""
    registry = house.registry
    house.deploy("one")
    house.clock.advance(60)
    house.deploy("two", confirm=False)
    registry.note_baked("iris", 2, 5.0)
    registry.server_hello("s1", host="h", pid=1, url="")
    assert registry.lease("monitors", "s1", 10)
    operation = house.staged(house.passed("three"), supersede=True)
    loaded = {"observed": {"iris": 2}, "loaded": [operation.version_id], "failed": {}}
    registry.server_beat("s1", **loaded)
    before = house.states()

    house.clock.advance(jump_s)
    assert house.states() == before
    assert registry.note_baked("iris", 2, 5.0) == 10.0
    # Whoever gives a sign of life has it believed at once.
    registry.beat(operation)
    assert registry.server_beat("s1", **loaded)
    assert registry.lease("monitors", "s1", 10)
    assert not registry.lease("monitors", "s2", 10)
    assert registry.reconcile() == []
    with pytest.raises(ConflictError, match="has been running"):
        registry.begin("iris", house.passed("four").id)
    assert registry.promote(operation, reason="deployed").generation == 3
    assert [one.id for one in registry.live_servers()] == ["s1"]
    assert registry.rollback("iris", automatic=True, reason="bad").active.name == "v1"
    assert registry.automatic_moves("iris")
    assert registry.verify() == []
    house.check()


def test_documents_are_strict_json(house):
    """NaN is refused before anything is written."""
    house.deploy("one")
    before = house.facts()
    with pytest.raises(UsageError, match="strict JSON"):
        house.registry.record("iris", "note", "odd", value=float("nan"))
    assert house.facts() == before
