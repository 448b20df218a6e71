"""The watcher on real rows, labels, models and a real registry."""

from __future__ import annotations

import numpy as np
import pytest

from mlguard.policy import Level
from mlguard.registry import Mode, State
from mlguard.results import Verdict

OLD, NEW = (1.0, 0.9), (1.0, 1.0)
#: v1 looks at income alone, v2 at both.
NARROW, WIDE = (1.0, 0.0), (1.0, 1.0)


def kinds(events):
    return [one.kind for one in events if one.kind != "verdict"]


def debt_breaks(rows):
    """What an upstream change does to a feature: its sign is turned."""
    return rows * np.array([1.0, -3.0])


def everything_breaks(rows):
    """All inputs come from somewhere else now."""
    return np.random.default_rng(5).normal(size=rows.shape)


@pytest.fixture
def two(world):
    """An old version that looks at income alone, and a new one that looks at debt too."""
    world.deploy("v1", NARROW)
    world.pass_time(3600)
    world.deploy("v2", WIDE)
    return world


def test_healthy_traffic_moves_nothing(two):
    """A version that is as good as on its reference raises no alarm."""
    watcher = two.watcher()
    for _ in range(3):
        two.traffic(600)
        events = two.run(watcher)
        assert kinds(events) == []
    assert two.active() == "v2"
    assert two.registry.incidents("loan") == []
    assert {one.verdict for one in two.results("concept_drift")} == {Verdict.PASSED}
    assert {one.verdict for one in two.results("data_drift")} == {Verdict.PASSED}


def test_a_feature_that_only_the_new_version_uses_breaks(two):
    """The concept-drift alarm asks for a rollback, the old version qualifies, and serves."""
    watcher = two.watcher()
    two.traffic(600)
    two.run(watcher)
    two.traffic(200, see=debt_breaks)
    events = two.run(watcher)
    assert "rolled_back" in kinds(events)
    assert two.active() == "v1"
    state = two.registry.app("loan")
    assert state.mode is Mode.SERVE
    assert two.registry.version("loan", "v2").state is State.QUARANTINED
    incident = two.registry.incidents("loan")[-1]
    assert (incident.monitor, incident.level, incident.state) == (
        "concept_drift.loss",
        "rollback",
        "open",
    )
    facts = incident.facts
    assert facts["value"] > facts["limit"]
    assert facts["trials"][0]["outcome"] == "qualified"
    # The change lies within a few labels of where the feature broke.
    assert abs(facts["change_point"]["label"] - 600) < 20
    assert two.registry.holds("loan")[0].after_move
    mail = two.registry.outbox.rows()[0]
    told = mail.facts
    assert mail.kind == "rolled_back"
    assert (told["from"], told["to"], told["check"]) == ("v2", "v1", "concept_drift.loss")
    assert "v1" in told["why"]
    assert two.run(watcher) == []


def test_an_alarm_of_a_few_labels_is_compared_again_as_they_come(two):
    """Where an alarm rests on too few labels to compare versions, it holds, then moves."""
    watcher = two.watcher()
    two.traffic(600)
    two.run(watcher)
    rows = two.rows(200)
    ids = two.serve(debt_breaks(rows))
    seen = []
    for start in range(0, 200, 8):
        part = slice(start, start + 8)
        two.label(ids[part], two.truth(rows[part]))
        seen += kinds(two.run(watcher, passes=1))
        if "rolled_back" in seen:
            break
    assert seen == ["frozen", "rolled_back"]
    assert two.active() == "v1"
    assert len(two.registry.incidents("loan")) == 1


def test_a_gap_between_groups_is_qualified_by_the_same_check(world):
    """A version that errs on one group alone goes back to one that does not."""
    world.configure(
        "[monitor.fairness]\nenabled = false",
        "[monitor.fairness]\nwindow_rows = 400\n[monitor.concept_drift]\nenabled = false",
    )
    world.deploy("v1", NARROW)
    world.pass_time(60)
    world.deploy("v2", WIDE)
    watcher = world.watcher()
    seen = []
    for _ in range(3):
        rows = world.rows(410)
        women = np.arange(410) % 2 == 1
        shown = rows.copy()
        shown[women] = debt_breaks(rows[women])
        ids = world.serve(shown, sex=np.where(women, "F", "M"))
        world.label(ids, world.truth(rows))
        seen += kinds(world.run(watcher))
    assert world.results("fairness")[0].verdict is Verdict.FAILED
    assert "rolled_back" in seen
    assert world.active() == "v1"


def test_a_break_that_hits_both_versions_is_no_reason_to_go_back(two):
    """Where the old version would do no better, promotions are held and nothing is switched."""
    watcher = two.watcher()
    two.traffic(600)
    two.run(watcher)
    two.traffic(300, see=everything_breaks)
    events = two.run(watcher)
    assert "frozen" in kinds(events)
    assert two.active() == "v2"
    [hold] = two.registry.holds("loan")
    assert not hold.after_move
    facts = two.registry.incident(hold.incident).facts
    assert facts["trials"][0]["outcome"] == "unhelpful"
    assert "rollback would not help" in facts["why"]
    assert not facts["no_target"]
    assert two.replays == 1
    # The same failure is answered once.
    assert kinds(two.run(watcher)) == []
    assert two.replays == 1


def test_one_version_alone_freezes_where_there_is_nothing_to_go_back_to(world):
    """With default settings and one label source, a drifted only version is frozen, said so."""
    world.deploy("v1", WIDE)
    watcher = world.watcher()
    world.traffic(300)
    world.run(watcher)
    world.traffic(300, see=debt_breaks)
    assert "frozen" in kinds(world.run(watcher))
    assert world.active() == "v1"
    assert world.registry.incidents("loan")[0].facts["no_target"]


def test_no_target_may_mean_the_default_output(world):
    """on_no_target = "default_output" chooses the safe answer instead of the drifted one."""
    world.configure('grace = "0s"', 'grace = "0s"\non_no_target = "default_output"')
    world.deploy("v1", WIDE)
    watcher = world.watcher()
    world.traffic(300, see=debt_breaks)
    assert "default_output" in kinds(world.run(watcher))
    state = world.registry.app("loan")
    assert state.mode is Mode.DEFAULT_OUTPUT
    assert state.active is None


def test_an_idle_app_is_idle(two):
    """Without traffic nothing is judged, nothing is blind, nothing is frozen, for a month."""
    watcher = two.watcher()
    for _ in range(30):
        two.pass_time(86400)
        assert kinds(two.run(watcher, passes=1)) == []
    assert two.registry.holds("loan") == []
    assert two.registry.incidents("loan") == []
    from mlguard.deploy.conditions import conditions

    found = conditions(two.registry, two.registry.app("loan"))
    assert set(found.values()) == {"idle"}


def test_traffic_without_labels_that_are_due_is_waiting(two):
    """Labels that cannot have come yet are no fault: the monitor waits."""
    from mlguard.deploy.conditions import conditions

    watcher = two.watcher()
    for _ in range(5):
        two.serve(two.rows(600))
        assert kinds(two.run(watcher)) == []
    found = conditions(two.registry, two.registry.app("loan"))
    assert found["concept_drift"] == "waiting"
    assert found["data_drift"] == "armed"
    assert two.registry.holds("loan") == []


def test_labels_that_never_come_make_the_monitor_blind(two):
    """When labels are due and do not come for three windows, promotions are held, no more."""
    watcher = two.watcher()
    for _ in range(4):
        two.serve(two.rows(600))
        two.run(watcher)
    two.pass_time(8 * 86400)
    events = two.run(watcher)
    assert "frozen" in kinds(events)
    assert two.active() == "v2"
    assert {one.reason for one in two.results("concept_drift")} == {"no_labels"}
    assert len(two.registry.holds("loan")) == 1


def test_late_labels_are_credited_to_the_version_that_answered(two):
    """Labels of a version that was rolled back by hand do not move the one that serves now."""
    watcher = two.watcher()
    rows = two.rows(400)
    ids = two.serve(debt_breaks(rows))
    two.run(watcher)
    two.registry.rollback("loan", automatic=False, reason="by hand")
    assert two.active() == "v1"
    before = two.registry.app("loan").generation
    two.label(ids, two.truth(rows))
    events = two.run(watcher)
    assert kinds(events) == []
    assert two.registry.app("loan").generation == before
    [alarm] = [one for one in two.results("concept_drift") if one.verdict is Verdict.FAILED][:1]
    assert alarm.version == "v2"
    assert two.registry.incidents("loan") == []


def test_a_restart_in_the_middle_changes_nothing(world):
    """Verdicts are the same whether one watcher made all passes or each was made by a new one."""
    world.deploy("v1", WIDE)
    moments = []
    for n in (130, 170, 250, 90, 420):
        world.traffic(n)
        world.pass_time(20)
        moments.append(world.clock.now)

    def found():
        return [
            (one.name, one.verdict, one.value, one.n, one.window)
            for name in ("data_drift", "concept_drift", "service")
            for one in world.results(name)
        ]

    steady = world.watcher()
    for moment in moments:
        steady.tick(moment)
    once = found()
    assert len(once) > 4
    world.restart(steady)
    world.registry.forget_observations(world.clock.now + 1)
    assert found() == []
    for moment in moments:
        fresh = world.watcher()
        fresh.tick(moment)
        world.restart(fresh)
    assert found() == once


def test_a_pass_that_dies_between_result_and_state_repeats_nothing(world, monkeypatch):
    """A result that was recorded before its state was stored is not recorded again."""
    world.deploy("v1", WIDE)
    world.traffic(1200)
    first = world.watcher()

    original = world.registry.set_monitor_state
    calls = []

    def once(app, version_id, generation, monitor, state):
        if monitor == "data_drift" and not calls:
            calls.append(monitor)
            raise KeyboardInterrupt
        original(app, version_id, generation, monitor, state)

    monkeypatch.setattr(world.registry, "set_monitor_state", once)
    world.pass_time(5)
    with pytest.raises(KeyboardInterrupt):
        first.tick()
    world.restart(first)
    world.run(world.watcher())
    found = world.results("data_drift")
    assert len(found) == 2
    assert len({one.window.start for one in found}) == 2


def test_model_errors_on_valid_rows_roll_back_within_a_few_rows(two):
    """A hard check acts at its first failing look, without waiting for a window to fill."""
    watcher = two.watcher()
    two.serve(two.rows(25), defaults=np.ones(25, dtype=bool))
    events = two.run(watcher)
    assert "rolled_back" in kinds(events)
    assert two.active() == "v1"
    [failed] = [one for one in two.results("service") if one.verdict is Verdict.FAILED][:1]
    assert failed.id == "service.model_errors"
    assert failed.n == 20


def die(world, n, *, server="s1", apart_s=10.0):
    """Let a server tell of some deaths of the active version's processes."""
    state = world.registry.app("loan")
    for _ in range(n):
        told = [(world.clock.now, "The model's process died while it worked on this query")]
        world.registry.note_crashes("loan", state.active.id, state.generation, server, told)
        world.pass_time(apart_s)


def test_three_deaths_within_five_minutes_roll_back(two):
    """Two deaths are a warning; a third, told by another server, is a failure that acts."""
    watcher = two.watcher()
    die(two, 2)
    assert "rolled_back" not in kinds(two.run(watcher, passes=1))
    assert [one.verdict for one in two.results("service.crash")] == [Verdict.WARNED]
    die(two, 1, server="s2")
    events = two.run(watcher, passes=1)
    assert "rolled_back" in kinds(events)
    assert two.active() == "v1"
    incident = two.registry.incidents("loan")[0]
    assert (incident.monitor, incident.level) == ("service.crash", "rollback")
    # The deaths were those of a generation that is over.
    assert "rolled_back" not in kinds(two.run(watcher))


def test_deaths_that_are_far_apart_move_nothing(two):
    """One death every six minutes for two hours warns, alerts, and never moves traffic."""
    watcher = two.watcher()
    seen = []
    for _ in range(20):
        die(two, 1, apart_s=355.0)
        seen += kinds(two.run(watcher, passes=1))
    assert set(seen) <= {"alert"}
    assert two.active() == "v2"
    assert {one.verdict for one in two.results("service.crash")} == {Verdict.WARNED}


def test_an_incident_of_deaths_clears_when_they_are_over(two):
    """With action = "alert" three deaths tell people, and a quarter of an hour of peace clears."""
    two.configure("[monitor.requests]", '[monitor.service]\naction = "alert"\n[monitor.requests]')
    watcher = two.watcher()
    die(two, 3)
    assert kinds(two.run(watcher, passes=1)) == ["alert"]
    seen = []
    for _ in range(5):
        two.pass_time(301)
        seen += kinds(two.run(watcher, passes=2))
    assert seen == ["cleared"]
    verdicts = [one.verdict for one in two.results("service.crash")]
    assert verdicts == [Verdict.FAILED, *[Verdict.PASSED] * 3]
    assert two.active() == "v2"


def test_a_lone_version_that_dies_gives_the_default_output(world):
    """Where there is nothing to go back to, a version that crashes answers nobody any more."""
    world.deploy("v1", (1.0, 1.0))
    watcher = world.watcher()
    die(world, 3)
    assert "default_output" in kinds(world.run(watcher))
    assert world.registry.app("loan").mode is Mode.DEFAULT_OUTPUT


def test_a_slow_machine_is_no_model_error(two):
    """Answers that came too late are counted as default answers, never as the model's fault."""
    watcher = two.watcher()
    late = "Failed to retrieve a prediction response within the specified latency SLO"
    two.serve(two.rows(60), defaults=np.ones(60, dtype=bool), explanation=late)
    events = two.run(watcher)
    assert two.active() == "v2"
    assert "rolled_back" not in kinds(events)
    names = {one.id for one in two.results("service") if one.verdict is Verdict.FAILED}
    assert names == {"service.default_ratio"}


def test_the_budget_bounds_automatic_moves(world):
    """After two automatic moves in a day the third wish only freezes."""
    world.configure('grace = "0s"', 'grace = "0s"\ncooldown = "1s"')
    for place, weights in enumerate([(1.0, 0.0), (1.0, 0.1), (1.0, 0.2), (1.0, 0.3)]):
        world.deploy(f"v{place + 1}", weights)
        world.pass_time(60)
    watcher = world.watcher()
    moves = []
    for _ in range(3):
        world.serve(world.rows(25), defaults=np.ones(25, dtype=bool))
        moves += kinds(world.run(watcher))
        world.pass_time(60)
    assert moves.count("rolled_back") == 2
    assert moves.count("frozen") == 1
    assert world.active() == "v2"
    assert "budget" in world.registry.incidents("loan", open_only=True)[0].facts["why"]


def test_the_cooldown_defers_and_does_not_forget(world):
    """A wish within the pause after a move freezes at once and moves when the pause is over."""
    for place, weights in enumerate([(1.0, 0.0), (1.0, 0.1), (1.0, 0.2)]):
        world.deploy(f"v{place + 1}", weights)
        world.pass_time(60)
    watcher = world.watcher()
    for _ in range(2):
        world.serve(world.rows(25), defaults=np.ones(25, dtype=bool))
        events = world.run(watcher)
    assert world.active() == "v2"
    assert "frozen" in kinds(events)
    world.pass_time(1900)
    assert "rolled_back" in kinds(world.run(watcher))
    assert world.active() == "v1"


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
def test_a_clock_that_jumps_shortens_no_guard(world, jump):
    """A day forward or back ends neither cooldown nor bake, and no row is judged twice."""
    for place, weights in enumerate([(1.0, 0.0), (1.0, 0.1), (1.0, 0.2)]):
        world.deploy(f"v{place + 1}", weights)
        world.pass_time(60)
    watcher = world.watcher()
    world.serve(world.rows(25), defaults=np.ones(25, dtype=bool))
    world.run(watcher)
    assert world.active() == "v2"
    world.clock.advance(jump)
    world.serve(world.rows(25), defaults=np.ones(25, dtype=bool))
    events = world.run(watcher, passes=8)
    assert world.active() == "v2"
    assert "rolled_back" not in kinds(events)
    world.serve(world.rows(600))
    world.run(watcher, passes=3)
    judged = [one for one in world.results("data_drift") if one.version == "v2"]
    assert sum(one.n for one in judged) <= 625


def test_grace_defers_and_does_not_forget(two):
    """An alarm within the grace after a switch acts when the grace is over."""
    two.configure('"0s"', '"10m"')
    watcher = two.watcher()
    two.run(watcher, passes=1)
    two.traffic(200, see=debt_breaks)
    assert kinds(two.run(watcher)) == ["deferred"]
    assert two.active() == "v2"
    two.pass_time(600)
    assert "rolled_back" in kinds(two.run(watcher, passes=1))
    assert two.active() == "v1"


def test_baking_is_confirmed_by_time_that_was_served(world):
    """A new version is confirmed after its bake time, counted while a server answers with it."""
    world.deploy("v1", NARROW)
    world.deploy("v2", WIDE, confirm=False)
    watcher = world.watcher()
    world.run(watcher, passes=1)
    for _ in range(3):
        world.pass_time(600)
        assert kinds(world.run(watcher, passes=1)) == []
    assert world.registry.app("loan").active.state is State.BAKING
    world.serving()
    world.run(watcher, passes=1)
    world.clock.advance(86400)
    world.serving()
    assert kinds(world.run(watcher, passes=1)) == []
    for _ in range(3):
        world.pass_time(250)
        world.serving()
        events = world.run(watcher, passes=1)
    assert kinds(events) == ["confirmed"]
    assert world.registry.app("loan").active.state is State.LIVE


def test_a_failing_version_is_not_confirmed(world):
    """While a monitor fails, bake time makes no rollback target of what it fails on."""
    world.deploy("v1", NARROW)
    world.deploy("v2", WIDE, confirm=False)
    watcher = world.watcher()
    world.serve(world.rows(600) + 3.0)
    world.serving()
    assert kinds(world.run(watcher, passes=1)) == ["alert"]
    for _ in range(4):
        world.pass_time(250)
        world.serving()
        world.run(watcher, passes=1)
    assert world.registry.app("loan").active.state is State.BAKING


def test_an_alert_clears_when_the_inputs_are_back(two):
    """Three windows in order end the incident of a monitor that may only alert."""
    watcher = two.watcher()
    two.serve(two.rows(600) + 3.0)
    assert kinds(two.run(watcher)) == ["alert"]
    seen = []
    for _ in range(4):
        two.serve(two.rows(600))
        seen += kinds(two.run(watcher))
    assert seen == ["cleared"]
    assert two.registry.incidents("loan")[0].state == "cleared"
    # What flaps within a day is one thread.
    two.serve(two.rows(1200) + 3.0)
    assert "alert" in kinds(two.run(watcher))
    assert len(two.registry.incidents("loan")) == 1


def test_incidents_of_a_version_that_was_replaced_are_cleared(two):
    """What a version that does not serve any more did wrong holds nobody up."""
    watcher = two.watcher()
    two.serve(two.rows(600) + 3.0)
    two.run(watcher)
    two.deploy("v3", NEW)
    assert kinds(two.run(watcher)) == ["cleared"]
    assert two.registry.incidents("loan", open_only=True) == []


def test_only_one_watcher_is_the_leader(two):
    """A second watcher does nothing while the first is alive."""
    first, second = two.watcher(), two.watcher()
    two.traffic(600)
    assert two.run(first, passes=1)
    assert two.run(second, passes=1) == []


def test_a_monitor_that_raises_is_blind_not_failing(two):
    """A reference that cannot be read: ERRORED, nothing moves, frozen after three windows."""
    digest = two.registry.version("loan", "v2").digest
    torn = {"n_rows": 4000, "features": {"income": {"shape": "number"}}}
    reference = two.registry.reference("loan", digest)
    two.registry.set_reference("loan", digest, {**reference, "profile": torn})
    two.configure("window_rows = 500", 'window_rows = 500\naction = "rollback"')
    watcher = two.watcher()
    seen = []
    for _ in range(3):
        two.serve(two.rows(600))
        seen += kinds(two.run(watcher))
    # What answers are compared with stands in the same document; that monitor only alerts.
    assert set(seen) == {"frozen", "alert"}
    assert two.active() == "v2"
    assert {one.verdict for one in two.results("data_drift")} == {Verdict.ERRORED}


def test_one_app_in_trouble_leaves_the_others_watched(two):
    """An app whose settings are broken keeps the last good ones; the pass goes on."""
    watcher = two.watcher()
    two.run(watcher, passes=1)
    (two.root / "serving/loan/app.toml").write_text("[app\n")
    two.traffic(200, see=debt_breaks)
    assert "rolled_back" in kinds(two.run(watcher))


def test_a_version_that_no_server_can_load_is_rolled_back(two):
    """A promoted version that loads nowhere is a hard failure."""
    two.serving()
    active = two.registry.app("loan").active
    two.registry.server_beat("s1", observed={}, loaded=[], failed={active.id: "no such type"})
    events = two.run(two.watcher(), passes=1)
    assert "rolled_back" in kinds(events)
    assert two.active() == "v1"


def test_a_corrupt_target_is_passed_over(world):
    """A target whose bytes changed is refused by name, and the next one is taken."""
    for name, weights in (("v1", (1.0, 0.0)), ("v2", (1.0, 0.05)), ("v3", WIDE)):
        version = world.deploy(name, weights)
        world.pass_time(60)
        if name == "v2":
            path = world.registry.artifacts.get(version.manifest["model_sha256"])
    watcher = world.watcher()
    world.traffic(600)
    world.run(watcher)
    path.chmod(0o644)
    path.write_bytes(b"not what it was")
    world.traffic(200, see=debt_breaks)
    assert "rolled_back" in kinds(world.run(watcher))
    assert world.active() == "v1"
    trials = world.registry.incidents("loan")[-1].facts["trials"]
    assert [(one["version"], one["outcome"]) for one in trials] == [
        ("v2", "unfit"),
        ("v1", "qualified"),
    ]


def test_switched_off_automatic_moves_freeze_instead(two):
    """[auto] rollback = false: the machine says so and a human decides."""
    two.configure('grace = "0s"', 'grace = "0s"\nrollback = false')
    watcher = two.watcher()
    two.traffic(300, see=debt_breaks)
    assert "frozen" in kinds(two.run(watcher))
    assert two.active() == "v2"


def test_a_rollback_is_qualified_in_a_child_process(two):
    """The target answers the failing window in a process of its own."""
    watcher = two.watcher(replay=None)
    two.traffic(300, see=debt_breaks)
    assert "rolled_back" in kinds(two.run(watcher))
    assert two.active() == "v1"


def test_levels_are_those_of_the_incidents():
    """Every level that is acted on has a name that the registry knows."""
    from mlguard.registry.incidents import LEVELS

    assert tuple(one.word for one in Level if one) == LEVELS
