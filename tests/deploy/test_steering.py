"""What humans do to a rollout, on a real registry: refused, done, said twice; and rehearsals."""

import shutil

import numpy as np
import pytest

from mlguard.config import ApproveTable
from mlguard.deploy.rollout import Rollout
from mlguard.deploy.standby import Rehearsed
from mlguard.deploy.steering import abort, approve, confirm, promote
from mlguard.errors import ConflictError, NotFoundError, RefusedError, UsageError
from mlguard.policy import gate_decision
from mlguard.registry import State
from mlguard.results import CheckResult, Verdict

LIVE, ALIKE, WORSE = (1.0, 1.0), (1.0, 0.95), (1.0, 0.0)
HALF = 0.5


@pytest.fixture
def now(rolling):
    """`promote` in this world."""
    return lambda **how: promote(rolling.project, rolling.settings, rolling.registry, **how)


def unlabelled(world, stepper):
    """Rows of both versions, and no label: the loss stays undecided."""
    for version in ("v1", "v2"):
        stepper.answer(world.registry.version("loan", version), world.rows(200))
    world.pass_time(20)


def test_promote_goes_on_where_nothing_is_undecided(rolling, stepper, now):
    """Before the step's time is over a human may; said twice, the second changes nothing."""
    stepper.begin(ALIKE, [HALF])
    watcher = rolling.watcher()
    stepper.shared(300)
    stepper.run(watcher, passes=3)
    done = now()
    assert (done.exit_code, done.changed, done.from_, done.to) == (0, True, "v1", "v2"), done
    assert rolling.active() == "v2"
    again = now()
    assert (again.exit_code, again.changed) == (0, False)


def test_promote_is_undecided_until_somebody_answers_for_it(rolling, stepper, now):
    """Exit 5 names what is open; accepted with a reason, it goes on, and the history says so."""
    stepper.begin(ALIKE, [HALF])
    unlabelled(rolling, stepper)
    stepper.run(rolling.watcher(), passes=2)
    refused = now()
    assert refused.exit_code == 5
    assert "--accept-inconclusive rollout.loss" in refused.next_step
    assert rolling.active() == "v1"
    with pytest.raises(UsageError, match="why"):
        now(accept=["rollout.loss"])
    with pytest.raises(UsageError, match="no comparison"):
        now(accept=["loos"], reason="r")
    done = now(accept=["loss"], reason="labels take a week")
    assert (done.exit_code, done.changed) == (0, True)
    event = rolling.registry.events("loan", kind="promoted")[0]
    assert event.detail["accepted"] == ["rollout.loss"]
    assert event.reason == "labels take a week"


def test_nobody_promotes_a_version_that_failed(rolling, stepper, now):
    """A proven failure is no matter of opinion, whatever is accepted."""
    one = stepper.begin(ALIKE, [HALF])
    rolling.registry.set_monitor_state(
        "loan",
        one.version.id,
        one.operation.expected_generation,
        f"rollout/{one.operation.id}/0",
        {
            "findings": [
                CheckResult(id="rollout.loss", verdict=Verdict.FAILED, summary="worse").to_json()
            ]
        },
    )
    with pytest.raises(RefusedError, match="worse than what serves"):
        now(accept=["loss", "errors", "failures"], reason="r")
    assert rolling.active() == "v1"


def test_promote_under_a_hold_or_while_loading_is_refused(rolling, stepper, now):
    """A hold stands in its way (1); a version that is being loaded is a matter of time (4)."""
    one = stepper.begin(ALIKE, [HALF])
    rolling.registry.hold("loan", "freeze week")
    with pytest.raises(RefusedError, match="freeze week"):
        now(accept=["loss", "errors", "failures"], reason="r")
    rolling.registry.resume("loan", "over")
    rolling.registry.abort(one.operation, "again")
    operation = rolling.registry.begin("loan", one.version.id, steps=[HALF])
    rolling.registry.stage(operation)
    with pytest.raises(ConflictError, match="being loaded"):
        now()


def test_promote_says_how_the_last_rollout_ended(rolling, stepper, now):
    """Where nothing is being rolled out because it was withdrawn, that is no success."""
    one = stepper.begin(ALIKE, [HALF])
    rolling.registry.withdraw(one.operation, "undecided for 6 h")
    with pytest.raises(RefusedError, match="undecided for 6 h"):
        now()


def test_abort_drains_and_may_be_repeated(rolling, stepper):
    """Traffic is gone at once; the second time there is nothing to do."""
    stepper.begin(ALIKE, [HALF])
    done = abort(rolling.registry, "loan", reason="a bad feeling")
    assert (done.exit_code, done.changed) == (0, True)
    assert rolling.registry.rolling("loan") is None
    assert rolling.registry.version("loan", "v2").state is State.PASSED
    assert rolling.registry.events("loan", kind="aborted")[0].reason == "a bad feeling"
    assert abort(rolling.registry, "loan").changed is False


def test_confirm_before_the_time_is_over(rolling, stepper):
    """A human may, where nothing speaks against it; then it can be gone back to."""
    rolling.deploy("v2", ALIKE, confirm=False)
    done = confirm(rolling.registry, "loan", reason="looks well")
    assert (done.exit_code, done.changed) == (0, True)
    assert rolling.registry.app("loan").active.state is State.LIVE
    assert rolling.registry.events("loan", kind="confirmed")[0].reason == "looks well"
    assert confirm(rolling.registry, "loan").changed is False


def test_confirm_is_refused_while_an_incident_is_open(rolling, stepper):
    """What a monitor has found is not talked away."""
    version = rolling.deploy("v2", ALIKE, confirm=False)
    rolling.registry.open_incident(
        "loan",
        monitor="data_drift.ks",
        version_id=version.id,
        summary="income has moved",
        facts={},
        level="alert",
    )
    with pytest.raises(RefusedError, match="income has moved"):
        confirm(rolling.registry, "loan")


# --- approval ------------------------------------------------------------------------------


@pytest.fixture
def held(rolling, stepper):
    """A version that the gate could not decide on."""
    one = stepper.begin(ALIKE, [HALF])
    registry = rolling.registry
    registry.abort(one.operation, "again")
    registry.mark(one.version.id, State.VERIFIED, reason="again")
    check = CheckResult(id="fairness.gap", verdict=Verdict.INCONCLUSIVE, summary="12 rows")
    registry.record_evidence(
        "loan",
        one.version.digest,
        gate_decision("loan", "v2", [check]).to_json(),
        policy_digest="policy",
        data_digest="data",
        code_version="code",
        mail=False,
    )
    registry.mark(one.version.id, State.HELD, reason="undecided")
    return rolling


def test_approve_lets_through_what_waits(held, stepper):
    """HELD becomes PASSED, with evidence that names who; said twice it is done once."""
    settings, registry = held.settings, held.registry
    done = approve(settings, registry, reason="seen by the board")
    assert (done.exit_code, done.changed) == (0, True)
    version = registry.version("loan", "v2")
    assert version.state is State.PASSED
    newest = registry.evidence("loan", version.digest)[0]
    assert (newest.decision["approved_by"], newest.decision["approved_because"]) == (
        "ann",
        "seen by the board",
    )
    assert held.active() == "v1"
    assert approve(settings, registry, reason="again").changed is False
    with pytest.raises(RefusedError, match="does not wait"):
        approve(settings, registry, version="v1", reason="r")


def test_the_registrar_alone_is_not_enough_where_a_second_person_is_asked_for(held, stepper):
    """`[approve] required`: not by who registered it; `not_by_registrar = false`: by anybody."""
    both = held.settings.model_copy(update={"approve": ApproveTable(required=True)})
    with pytest.raises(RefusedError, match="somebody else has to approve"):
        approve(both, held.registry, reason="mine is fine")
    assert held.registry.version("loan", "v2").state is State.HELD
    held.registry.actor = "bob"
    assert approve(both, held.registry, reason="seen").changed is True


def test_nothing_to_approve_is_said(rolling, stepper):
    """No version waits: exit 2 with what to look at."""
    with pytest.raises(NotFoundError, match="waits"):
        approve(rolling.settings, rolling.registry, reason="r")
    with pytest.raises(UsageError, match="reason"):
        approve(rolling.settings, rolling.registry, reason=" ")


def test_where_approval_is_required_a_passed_version_waits(rolling, stepper):
    """What the gate allows is HELD until its evidence names who approved."""
    settings = rolling.settings.model_copy(update={"approve": ApproveTable(required=True)})
    rollout = Rollout(rolling.project, settings, rolling.registry, clock=rolling.clock)
    version = rolling.registry.app("loan").active
    (known,) = rolling.registry.evidence("loan", version.digest)
    assert rollout._needs_approval(known)
    assert not Rollout(rolling.project, rolling.settings, rolling.registry)._needs_approval(known)


# --- quarantine by hand ------------------------------------------------------------------


def test_a_quarantine_by_hand_holds_until_a_human_resumes(rolling, stepper):
    """T11 by hand: bytes condemned, incident open, promotions held, budget untouched."""
    version = rolling.deploy("v2", WORSE)
    registry = rolling.registry
    registry.rollback("loan", automatic=False, quarantine=True, reason="it insults people")
    assert rolling.active() == "v1"
    assert registry.version("loan", "v2").state is State.QUARANTINED
    incident = registry.quarantined("loan", version.digest).incident
    assert registry.incident(incident).state == "open"
    (hold,) = registry.holds("loan")
    assert (hold.after_move, hold.incident) == (True, incident)
    assert registry.automatic_moves("loan") == []
    # The watcher's tidying leaves it: only a human ends it.
    stepper.run(rolling.watcher(), passes=3)
    assert registry.incident(incident).state == "open"
    assert registry.holds("loan")
    registry.resume("loan", "understood")
    assert registry.holds("loan") == []


def test_a_quarantine_by_hand_takes_the_incident_that_is_open(rolling, stepper):
    """What a monitor had found is what the condemned version is on record for."""
    version = rolling.deploy("v2", WORSE)
    found = rolling.registry.open_incident(
        "loan",
        monitor="data_drift.ks",
        version_id=version.id,
        summary="income has moved",
        facts={},
        level="freeze",
    )
    rolling.registry.rollback("loan", automatic=False, quarantine=True, reason="it is the model")
    assert rolling.registry.quarantined("loan", version.digest).incident == found.id
    stepper.run(rolling.watcher(), passes=2)
    assert rolling.registry.incident(found.id).level == "rollback"
    assert rolling.registry.incident(found.id).state == "open"


# --- rehearsal -----------------------------------------------------------------------------


@pytest.fixture
def rehearsed(rolling, stepper):
    """Two versions, and a watcher that notes what it rehearses."""
    rolling.deploy("v2", ALIKE)
    tried = []

    def watcher(ok=True):
        def rehearsal(_project, _settings, _registry, version):
            tried.append(version.name)
            return Rehearsed(version.name, ok, "fine" if ok else "it does not load")

        return rolling.watcher(rehearsal=rehearsal)

    return rolling, watcher, tried


def test_the_standby_is_rehearsed_once_a_day(rehearsed, stepper):
    """Not while it served a moment ago, then once in 24 hours."""
    world, make, tried = rehearsed
    watcher = make()
    stepper.run(watcher, passes=3)
    assert tried == []
    for _ in range(2):
        world.pass_time(86_400)
        stepper.run(watcher, passes=3)
    assert tried == ["v1", "v1"]


def test_a_standby_that_does_not_load_is_broken_and_told(rehearsed, stepper):
    """Tried twice, then BROKEN: no rollback target any more, and a mail says so."""
    world, make, tried = rehearsed
    world.pass_time(86_400)
    events = stepper.run(make(ok=False), passes=2)
    assert tried == ["v1", "v1"]
    assert "rehearsed" in [one.kind for one in events]
    assert world.registry.version("loan", "v1").state is State.BROKEN
    assert world.registry.rollback_targets("loan") == []
    told = world.registry.outbox.rows()[0].facts
    assert told["version"] == "v1"
    assert "no rollback target" in told["did"]


def test_never_is_never(rehearsed, stepper):
    """`rehearse = "never"` loads nothing."""
    world, make, tried = rehearsed
    world.configure("[auto]\n", '[auto]\nrehearse = "never"\n')
    world.pass_time(2 * 86_400)
    stepper.run(make(), passes=2)
    assert tried == []


def test_a_rehearsal_is_the_real_thing(rolling, stepper):
    """A child loads the standby and asks it test rows; changed bytes are found out."""
    import pandas as pd

    from mlguard.deploy.standby import rehearse

    rows = np.random.default_rng(0).normal(size=(30, 2))
    frame = pd.DataFrame(rows, columns=["income", "debt"])
    frame["paid"] = (rows.sum(axis=1) > 0).astype(int)
    frame["sex"] = np.where(np.arange(30) % 2, "F", "M")
    frame.to_csv(rolling.root / "serving" / "loan" / "test.csv", index=False)
    rolling.deploy("v2", LIVE)
    registry = rolling.registry
    version = registry.version("loan", "v1")
    before = registry.events("loan", limit=1)
    found = rehearse(rolling.project, rolling.settings, registry, version)
    assert found.ok, found
    assert "20 rows answered the same twice" in found.reason
    shutil.rmtree(rolling.root / ".mlguard" / "artifacts")
    found = rehearse(rolling.project, rolling.settings, registry, version)
    assert not found.ok
    # It only looks: what to make of it is its caller's.
    assert registry.events("loan", limit=1) == before
