"""Steps of a rollout, driven by the watcher on real rows, labels, models and a real registry."""

from __future__ import annotations

import numpy as np
import pytest

from mlguard.data.mirrored import mirrored_folder
from mlguard.deploy.following import Ending, Follower
from mlguard.errors import RefusedError
from mlguard.models.bundle import Manifest
from mlguard.models.formats import save_model
from mlguard.models.schema import Feature, InputSchema
from mlguard.policy import gate_decision
from mlguard.registry import State
from mlguard.results import CheckResult, Verdict

#: v1 looks at both features; as good: a little less debt; worse: income alone.
LIVE, ALIKE, WORSE = (1.0, 1.0), (1.0, 0.95), (1.0, 0.0)
FEATURES = ("income", "debt")
SHADOW, HALF = "shadow", 0.5


def kinds(events):
    return [one.kind for one in events if one.kind != "verdict"]


def test_a_healthy_version_goes_through_every_step(rolling, stepper):
    """Shadow, canary, everybody: each step passes on the rows and labels of its own traffic."""
    stepper.begin(ALIKE, [SHADOW, HALF])
    watcher = rolling.watcher()
    stepper.shadowed(300)
    assert "advanced" in kinds(stepper.run(watcher))
    one = rolling.registry.rolling("loan")
    assert (one.version.state, one.weight) == (State.CANARY, HALF)
    stepper.shared(300)
    assert "promoted" in kinds(stepper.run(watcher))
    assert rolling.active() == "v2"
    state = rolling.registry.app("loan")
    assert state.active.state is State.BAKING
    assert rolling.registry.version("loan", "v1").state is State.STANDBY
    promoted = rolling.registry.events("loan", kind="promoted")[0]
    assert [one["id"] for one in promoted.detail["findings"]] == [
        "rollout.errors",
        "rollout.failures",
        "rollout.loss",
    ]


@pytest.mark.parametrize("step", [SHADOW, HALF])
def test_a_worse_version_is_condemned(rolling, stepper, step):
    """A loss that is proven larger ends the rollout: no weight, quarantine, incident, mail."""
    one = stepper.begin(WORSE, [step])
    watcher = rolling.watcher()
    events = []
    for _ in range(6):
        (stepper.shadowed if step == SHADOW else stepper.shared)(500)
        events += stepper.run(watcher)
        if rolling.registry.rolling("loan") is None:
            break
    assert "rollout_failed" in kinds(events)
    registry = rolling.registry
    version = registry.version("loan", "v2")
    assert version.state is State.QUARANTINED
    assert registry.quarantined("loan", version.digest).incident == version.incident
    assert registry.operation("loan") is None
    assert rolling.active() == "v1"
    assert registry.app("loan").generation == one.operation.expected_generation
    incident = registry.incident(version.incident)
    assert incident.facts["check"] == "rollout.loss"
    assert incident.facts["interval"][0] > incident.facts["limit"]
    mail = registry.outbox.rows()[0]
    assert (mail.kind, mail.facts["version"]) == ("refused", "v2")
    # What failed stays refused, whatever it is called, until a human closes the incident.
    with pytest.raises(RefusedError):
        registry.begin("loan", version.id)
    assert stepper.run(watcher, passes=1) == []


def test_model_errors_fail_without_a_label(rolling, stepper):
    """A candidate that raises on a tenth of its rows is out before any label comes."""
    stepper.begin(ALIKE, [HALF])
    watcher = rolling.watcher()
    for version, broken in (("v1", None), ("v2", 10)):
        found = rolling.registry.version("loan", version)
        failing = None if broken is None else np.arange(400) % broken == 0
        stepper.answer(found, rolling.rows(400), broken=failing)
    rolling.pass_time(60)
    events = stepper.run(watcher)
    assert "rollout_failed" in kinds(events)
    said = next(one for one in events if one.kind == "rollout_failed")
    assert said.detail["check"] == "rollout.errors"


def test_an_undecided_step_waits_then_drains(rolling, stepper):
    """Without labels the loss stays open: it waits for the deadline, is HELD then, and tells."""
    rolling.configure("1h", "4m")
    stepper.begin(ALIKE, [HALF])
    watcher = rolling.watcher()
    for version in ("v1", "v2"):
        stepper.answer(rolling.registry.version("loan", version), rolling.rows(300))
    rolling.pass_time(60)
    assert kinds(stepper.run(watcher)) == []
    events = []
    for _ in range(20):
        events += stepper.run(watcher, passes=1)
        if rolling.registry.rolling("loan") is None:
            break
    assert "withdrawn" in kinds(events)
    assert rolling.registry.version("loan", "v2").state is State.HELD
    last = rolling.registry.events("loan", kind="withdrawn")[0]
    assert "rollout.loss" in [one["id"] for one in last.detail["findings"]]
    assert "100 are needed" in last.reason


def test_where_labels_are_late_by_nature_failures_alone_decide(rolling, stepper):
    """`compare = ["failures"]`: the loss is still looked at, and only its absence is no bar."""
    rolling.configure("alpha = 0.05\n", 'alpha = 0.05\ncompare = ["failures"]\n')
    stepper.begin(ALIKE, [HALF])
    watcher = rolling.watcher()
    for version in ("v1", "v2"):
        stepper.answer(rolling.registry.version("loan", version), rolling.rows(300))
    rolling.pass_time(60)
    assert "promoted" in kinds(stepper.run(watcher, passes=6))


def test_a_restart_judges_no_row_twice(rolling, stepper):
    """Another process goes on with the state that the first one stored."""
    stepper.begin(ALIKE, [HALF])
    first = rolling.watcher()
    stepper.shared(80)
    stepper.run(first)
    one = rolling.registry.rolling("loan")
    from mlguard.deploy.step_record import step_findings

    before = {found.id: found.n for found in step_findings(rolling.registry, one)}
    assert before == {"rollout.errors": 80, "rollout.failures": 80, "rollout.loss": 80}
    rolling.registry.give_up_lease("monitors", first.owner)
    second = rolling.watcher()
    stepper.run(second)
    after = {found.id: found.n for found in step_findings(rolling.registry, one)}
    assert after == before
    stepper.shared(40)
    stepper.run(second)
    assert {found.n for found in step_findings(rolling.registry, one)} == {120}


def test_a_silent_deployer_costs_its_candidate_the_traffic(rolling, stepper):
    """Nobody beats for longer than the lease: weight 0 at once, and drained in the next pass."""
    stepper.begin(ALIKE, [HALF])
    watcher = rolling.watcher()
    rolling.pass_time(31)
    assert rolling.registry.rolling("loan").weight == 0.0
    assert "reconciled" in kinds(watcher.tick())
    assert rolling.registry.rolling("loan") is None
    assert rolling.registry.version("loan", "v2").state is State.PASSED
    assert rolling.active() == "v1"


def test_a_waiver_that_ends_in_mid_canary_drains(rolling, stepper):
    """What the gate let through on a promise until a date is out when the date has passed."""
    registry = rolling.registry
    path = rolling.root / "v3.skops"
    save_model(rolling.model(ALIKE), path)
    schema = InputSchema(
        "table", "classification", tuple(Feature(one, "number") for one in FEATURES), (0, 1)
    )
    manifest = Manifest.of(path, schema, rolling.settings.model)
    version = registry.register("loan", name="v3", manifest=manifest, model_file=path)
    registry.mark(version.id, State.VERIFIED, reason="smoke test passed")
    registry.waive(
        "loan",
        "fairness.gap",
        subject=None,
        digest=version.digest,
        owner="ann",
        reason="known",
        ticket="",
        expires=rolling.clock.now + 300,
    )
    check = CheckResult(id="fairness.gap", verdict=Verdict.FAILED, summary="differs")
    registry.record_evidence(
        "loan",
        version.digest,
        gate_decision("loan", "v3", [check]).to_json(),
        policy_digest="policy",
        data_digest="data",
        code_version="code",
        mail=False,
    )
    registry.mark(version.id, State.PASSED, reason="gate")
    operation = registry.begin("loan", version.id, steps=[HALF])
    registry.stage(operation)
    registry.advance(operation, reason="try it")
    watcher = rolling.watcher()
    assert kinds(stepper.run(watcher)) == []
    rolling.pass_time(300)
    registry.beat(registry.rolling("loan").operation)
    events = watcher.tick()
    assert kinds(events) == ["drained"]
    assert "waiver" in events[-1].summary
    assert registry.version("loan", "v3").state is State.PASSED
    assert rolling.active() == "v1"


def test_rules_that_change_in_mid_canary_drain(rolling, stepper):
    """The gate's rules are edited: what was let through by the old ones goes no further."""
    stepper.begin(ALIKE, [HALF], policy_digest="policy")
    events = stepper.run(rolling.watcher(), passes=1)
    assert kinds(events) == ["drained"]
    assert "rules" in events[-1].summary


def test_a_hold_keeps_a_step_waiting(rolling, stepper):
    """Under a hold nothing is promoted; lifted, the rollout goes on where it was."""
    stepper.begin(ALIKE, [HALF])
    watcher = rolling.watcher()
    hold = rolling.registry.hold("loan", "freeze week")
    stepper.shared(300)
    events = stepper.run(watcher)
    assert set(kinds(events)) == {"deferred"}
    assert rolling.active() == "v1"
    assert hold.reason in events[-1].summary
    rolling.registry.resume("loan", "over")
    assert "promoted" in kinds(stepper.run(watcher))


def test_mirrored_rows_are_no_live_traffic(rolling, stepper):
    """What a mirror answered stands in no report, count or window of live answers."""
    stepper.begin(ALIKE, [SHADOW])
    stepper.shadowed(50)
    version = rolling.registry.version("loan", "v2")
    assert rolling.log.read("loan").num_rows == 50
    assert rolling.log.read("loan", version_id=version.id).num_rows == 0
    assert rolling.log.read("loan", version_id=mirrored_folder(version.id)).num_rows == 50


def test_what_is_watched_for_too_long_is_told_once(rolling, stepper):
    """A version that is not confirmed within max_bake is mailed about, and only once."""
    rolling.configure("alpha = 0.05\n", 'alpha = 0.05\nbake_min_rows = 100000\nmax_bake = "2h"\n')
    rolling.deploy("v2", ALIKE, confirm=False)
    watcher = rolling.watcher()
    watcher.tick()
    events = []
    for _ in range(3):
        rolling.pass_time(3600)
        events += watcher.tick()
    assert kinds(events).count("unconfirmed") == 1
    told = rolling.registry.outbox.rows()[0].facts
    assert told["version"] == "v2"
    assert "mlguard confirm loan" in told["next"]
    assert rolling.registry.app("loan").active.state is State.BAKING


# --- whoever typed it ----------------------------------------------------------------------


def follow(world, one, act):
    """Follow a rollout; `act(n)` is what happens meanwhile, at each look."""
    looks = []

    def sleep(seconds):
        world.pass_time(seconds)
        act(len(looks))
        looks.append(seconds)

    said = []
    follower = Follower(
        registry=world.registry,
        rules=world.settings.rollout,
        operation=one,
        version=world.registry.version_by_id(one.version_id),
        progress=said.append,
        elapsed=world.clock,
        sleep=sleep,
    )
    return follower.follow("try it"), said


def staged(world, stepper, weights, steps):
    path = stepper.begin(weights, steps)
    world.registry.abort(path.operation, "again, by hand")
    version = world.registry.version("loan", "v2")
    operation = world.registry.begin("loan", version.id, steps=steps)
    world.registry.stage(operation)
    return operation


def test_the_deployer_sees_its_version_through(rolling, stepper):
    """It beats, tells where the rollout is, and ends well when the version serves."""
    operation = staged(rolling, stepper, ALIKE, [HALF])

    def act(n):
        if n == 80:
            one = rolling.registry.rolling("loan")
            rolling.registry.promote(one.operation, reason="passed")

    ending, said = follow(rolling, operation, act)
    assert ending is None
    assert said[0] == "v2: 0.5 of the callers (step 1 of 1)"
    assert "monitors running" in said[-1]


def test_the_deployer_ends_what_nobody_judges(rolling, stepper):
    """No watcher: at the deadline the deployment takes the traffic away itself, exit 5."""
    rolling.configure("1h", "2m")
    operation = staged(rolling, stepper, ALIKE, [HALF])
    skip = lambda n: rolling.pass_time(4.0)
    ending, _ = follow(rolling, operation, skip)
    assert ending.exit_code == 5
    assert rolling.registry.version("loan", "v2").state is State.HELD


@pytest.mark.parametrize(("step", "code"), [(SHADOW, 1), (HALF, 6)])
def test_the_exit_code_tells_whether_callers_saw_it(rolling, stepper, step, code):
    """A version that failed as a shadow answered nobody (1); as a canary it did (6)."""
    operation = staged(rolling, stepper, ALIKE, [step])

    def act(n):
        if n == 3:
            one = rolling.registry.rolling("loan")
            rolling.registry.fail(one.operation, "worse", check="rollout.loss")

    ending, _ = follow(rolling, operation, act)
    assert ending == Ending(code, "worse", 1)


def test_an_interrupt_leaves_no_candidate(rolling, stepper):
    """Ctrl-C in mid-canary: no traffic any more, the old version serves, nothing is blocked."""
    operation = staged(rolling, stepper, ALIKE, [HALF])

    def act(n):
        if n == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(rolling, operation, act)
    assert rolling.registry.rolling("loan") is None
    assert rolling.registry.version("loan", "v2").state is State.PASSED
