"""Any sequence of commands and faults: the invariants of the life-cycle hold after each.

Two deployers, a monitor, a human, a server, a clock that jumps, artifacts that rot and processes
that forget their operation act on one app.  After every step I1, I2, I3 are asserted; where a
command succeeds, what it may not do (I6 to I10); where it is refused, that nothing changed.
Two versions share each content, so that names and bytes are told apart (I7).
"""

import shutil

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event

from mlguard.config import AutoTable
from mlguard.errors import IntegrityError, MlguardError, RefusedError
from mlguard.registry import Mode, State

APP = "iris"
CONTENTS = ("a", "b", "c", "d")
LIMITS = AutoTable()
WHO = st.sampled_from(["ann", "bob"])
PICK = st.integers(0, 9)
STEPS = st.sampled_from([(), (), ("shadow",), (0.5,), ("shadow", 0.05, 0.5)])
OPTIONS = st.fixed_dictionaries(
    {
        "supersede": st.booleans(),
        "replace_candidate": st.booleans(),
        "resolves": st.sampled_from([None, None, 1, 2]),
        "steps": STEPS,
    }
)


class Life(RuleBasedStateMachine):
    """The commands, the faults, and what must never be."""

    # One house for all examples, so that its statements are compiled once; set by the tests.
    house = None
    pristine = None

    def __init__(self) -> None:
        super().__init__()
        registry = self.house.registry
        registry.close()
        folder = registry.database.path.parent
        for leftover in folder.glob("registry.db*"):
            leftover.unlink()
        shutil.rmtree(folder / "artifacts", ignore_errors=True)
        shutil.copy(self.pristine, folder / "registry.db")
        self.house.clock.now = 1_790_000_000.0
        self.registry = registry
        self.operations = {}
        self.confirmed: set[int] = set()
        self.names = 0
        self.house.deploy("a")
        self.note_confirmed()

    # --- help ----------------------------------------------------------------------------

    def pick(self, number: int):
        versions = self.registry.versions(APP)
        return versions[number % len(versions)]

    def attempt(self, command):
        """Give a command; where it is refused, nothing may have changed."""
        before = self.house.facts()
        try:
            return command()
        except IntegrityError:
            # Bytes that are not what they were are marked BROKEN: that is a change.
            return None
        except MlguardError as error:
            refusal = error
        if not refusal.data.get("refused"):
            assert self.house.facts() == before, f"{refusal.message} changed something"
        return None

    def note_confirmed(self) -> None:
        self.confirmed |= {
            one.id for one in self.registry.versions(APP) if one.confirmed_seq is not None
        }

    def intact(self, version) -> bool:
        try:
            self.registry.artifacts.get(version.manifest["model_sha256"])
        except IntegrityError:
            return False
        return True

    # --- deployers -----------------------------------------------------------------------

    @rule(content=st.sampled_from(CONTENTS), named=st.booleans())
    def register(self, content, named):
        self.names += 1
        self.house.register(content, name=f"n{self.names}" if named else None)

    @rule(number=PICK, allowed=st.sampled_from([True, True, True, False]))
    def gate(self, number, allowed):
        self.judge(self.pick(number), allowed=allowed)

    def judge(self, version, *, allowed):
        mark = self.registry.mark
        if version.state in (State.REGISTERED, State.PASSED, State.REJECTED, State.HELD):
            mark(version.id, State.VERIFIED, reason="gate")
        self.house.judge(version, allowed=allowed)
        # What failed may be waived, until the waiver ends.
        newest = self.registry.evidence(APP, version.digest)[0]
        let = self.registry.decision_now(newest).allowed
        self.attempt(
            lambda: mark(version.id, State.PASSED if let else State.REJECTED, reason="gate")
        )

    @rule(who=WHO, number=PICK, options=OPTIONS)
    def begin(self, who, number, options):
        self.start(who, self.pick(number), **options)

    def start(self, who, version, **options):
        operation = self.attempt(lambda: self.registry.begin(APP, version.id, **options))
        if operation is not None:
            self.operations[who] = operation

    @precondition(lambda self: self.operations)
    @rule(who=WHO)
    def stage(self, who):
        if who in self.operations:
            self.attempt(lambda: self.registry.stage(self.operations[who]))

    @precondition(lambda self: self.operations)
    @rule(who=WHO)
    def promote(self, who):
        if who not in self.operations:
            return
        operation = self.operations[who]
        registry = self.registry
        running = registry.operation(APP)
        holds = registry.holds(APP)
        known = registry.version_by_id(operation.version_id)
        barred = registry.quarantined(APP, known.digest)
        evidence = registry.evidence(APP, known.digest)
        before = registry.app(APP)
        state = self.attempt(lambda: registry.promote(operation, reason="promoted"))
        if state is None:
            return
        if state.generation <= before.generation:
            assert registry.app(APP) == before, "a repeated promotion is no second one"
            return
        assert running is not None
        assert (running.id, running.fence) == (operation.id, operation.fence), "I9"
        assert before.generation == operation.expected_generation, "I9"
        assert all(
            one.incident is not None and one.incident == operation.resolves for one in holds
        ), "I10"
        assert barred is None, "I7"
        assert registry.decision_now(evidence[0]).allowed, "I4"
        assert before.active is None or before.active.state is State.LIVE or operation.supersede
        assert registry.app(APP).active.state is State.BAKING

    @precondition(lambda self: self.operations)
    @rule(who=WHO, stale=st.booleans())
    def advance(self, who, stale):
        """T8: one step further, by whoever read the deployment; never twice for one reading."""
        # Called by a rule as well, where there may be no operation.
        if who not in self.operations:
            return
        registry = self.registry
        mine = self.operations[who]
        running = registry.operation(APP)
        read = mine if stale or running is None or running.id != mine.id else running
        holds, state = registry.holds(APP), registry.app(APP)
        after = self.attempt(lambda: registry.advance(read, reason="passed"))
        if after is None:
            return
        assert (running.id, running.fence, running.step) == (mine.id, mine.fence, read.step), "I9"
        assert state.generation == mine.expected_generation, "I9"
        assert state.mode is Mode.SERVE
        assert all(one.incident is not None and one.incident == mine.resolves for one in holds)
        assert after.operation.step == read.step + 1
        what = mine.steps[after.operation.step]
        assert after.version.state is (State.SHADOW if what == "shadow" else State.CANARY)
        assert after.weight == (0.0 if what == "shadow" else what)
        known = registry.evidence(APP, after.version.digest)[0]
        assert registry.decision_now(known).allowed, "I4"
        assert registry.quarantined(APP, after.version.digest) is None, "I7"
        assert registry.app(APP) == state, "a step moves no pointer"

    @rule(how=st.sampled_from(["withdraw", "fail", "recheck"]))
    def judged(self, how):
        """The watcher ends a step: undecided, worse, or groundless."""
        registry = self.registry
        rolling = registry.rolling(APP)
        if rolling is None:
            return
        operation, state = rolling.operation, registry.app(APP)
        if how == "recheck":
            self.attempt(lambda: registry.recheck(operation))
            return
        if how == "withdraw":
            self.attempt(lambda: registry.withdraw(operation, "undecided"))
        else:
            self.attempt(lambda: registry.fail(operation, "worse", check="rollout.loss"))
        assert registry.rolling(APP) is None
        assert registry.candidate(APP) is None
        assert registry.app(APP) == state, "what serves goes on serving"
        now = registry.version_by_id(rolling.version.id)
        if how == "fail" and (
            state.active is None or state.active.digest != rolling.version.digest
        ):
            assert now.state is State.QUARANTINED
            assert registry.quarantined(APP, now.digest) is not None, "I7"
            assert registry.incident(now.incident).state == "open"
        elif now.id in self.confirmed and rolling.version.confirmed_seq is not None:
            assert now.state is State.STANDBY, "a target is not lost to a rollout"

    @rule(content=st.sampled_from(CONTENTS), seconds=st.sampled_from([20.0, 40_000.0]))
    def waive(self, content, seconds):
        """What a gate fails on is let through until a date."""
        version = self.house.register(content)
        self.attempt(
            lambda: self.registry.waive(
                APP,
                "fairness.accuracy_difference",
                subject=None,
                digest=version.digest,
                owner="ann",
                reason="known",
                ticket="",
                expires=self.house.clock.now + seconds,
            )
        )

    @rule(number=PICK)
    def undecided(self, number):
        """The gate cannot decide: the version waits for a human."""
        version = self.pick(number)
        if version.state in (State.PASSED, State.REJECTED):
            version = self.registry.mark(version.id, State.VERIFIED, reason="gate")
        self.attempt(lambda: self.registry.mark(version.id, State.HELD, reason="undecided"))

    @rule(number=PICK)
    def approve(self, number):
        version = self.pick(number)
        if version.state is not State.HELD:
            return
        done = self.attempt(
            lambda: self.registry.mark(version.id, State.PASSED, reason="seen and accepted")
        )
        if done is not None:
            assert "approved_by" in self.registry.evidence(APP, version.digest)[0].decision
            again = self.registry.mark(version.id, State.PASSED, reason="again")
            assert again == done, "said twice, it is done once"

    @rule(who=WHO)
    def beat(self, who):
        if who in self.operations:
            self.attempt(lambda: self.registry.beat(self.operations[who]))

    @rule(who=WHO, by_name=st.booleans())
    def abort(self, who, by_name):
        if by_name:
            self.registry.abort(APP, "by name")
            assert self.registry.candidate(APP) is None
        elif who in self.operations:
            self.attempt(lambda: self.registry.abort(self.operations[who], "own"))

    @rule(who=WHO, content=st.sampled_from(CONTENTS), confirm=st.booleans())
    def deploy(self, who, content, confirm):
        """A whole deployment, so that long sequences get somewhere."""
        version = self.house.register(content)
        if version.state is State.QUARANTINED:
            return
        self.judge(version, allowed=True)
        self.start(who, version, supersede=True)
        self.stage(who)
        self.promote(who)
        if confirm:
            self.confirm()

    @rule(who=WHO, content=st.sampled_from(CONTENTS), steps=STEPS, upto=st.integers(0, 4))
    def roll_out(self, who, content, steps, upto):
        """A deployment that gets some steps far, and perhaps to the end."""
        version = self.house.register(content)
        if version.state is State.QUARANTINED:
            return
        self.judge(version, allowed=True)
        self.start(who, version, supersede=True, steps=steps)
        self.stage(who)
        for _ in range(upto):
            self.advance(who, stale=False)
        if upto > len(steps):
            self.promote(who)

    # --- monitor -------------------------------------------------------------------------

    @rule()
    def confirm(self):
        self.registry.confirm(APP, served_s=1)
        self.note_confirmed()

    @rule(behind=st.sampled_from([0, 0, 0, 1]), block=st.booleans())
    def automatic(self, behind, block):
        registry = self.registry
        before = registry.app(APP)
        barred = {one.digest for one in registry.versions(APP)} - {
            one.digest
            for one in registry.versions(APP)
            if registry.quarantined(APP, one.digest) is None
        }
        moves = len(registry.automatic_moves(APP))
        command = registry.block if block else registry.rollback
        state = self.attempt(
            lambda: command(
                APP,
                reason="bad",
                automatic=True,
                expected_generation=before.generation - behind,
            )
        )
        if state is None or state.generation == before.generation:
            return
        assert behind == 0, "a stale judgement moved"
        assert before.mode is Mode.SERVE
        times = registry.automatic_moves(APP)
        assert len(times) == moves + 1
        recent = [at for at in times if at > self.house.clock.now - LIMITS.budget_window]
        assert len(recent) <= LIMITS.budget, "I8"
        assert registry.operation(APP) is None
        assert registry.candidate(APP) is None
        assert registry.quarantined(APP, before.active.digest) is not None
        assert any(one.after_move for one in registry.holds(APP))
        if not block:
            assert state.active.digest not in barred | {before.active.digest}, "I7"
            assert state.active.id in self.confirmed, "I6"
            assert self.intact(state.active), "I6"

    # --- humans --------------------------------------------------------------------------

    @rule(quarantine=st.booleans())
    def manual(self, quarantine):
        registry = self.registry
        moves = registry.automatic_moves(APP)
        holds = registry.holds(APP)
        state = self.attempt(
            lambda: registry.rollback(APP, automatic=False, reason="by hand", quarantine=quarantine)
        )
        if state is not None:
            assert state.active.id in self.confirmed, "I6"
            assert self.intact(state.active), "I6"
        assert registry.automatic_moves(APP) == moves
        if quarantine and state is not None:
            # T11 by hand: nothing new goes live until a human resumes, or resolves it.
            assert any(one.after_move and one.incident for one in registry.holds(APP))
        else:
            assert registry.holds(APP) == holds

    @rule()
    def step_back(self):
        """I11: from whatever serves, one step back is there, whatever else is going on."""
        registry = self.registry
        before = registry.app(APP)
        if before.active is None or before.mode is Mode.DEFAULT_OUTPUT:
            return
        targets = [one for one in registry.rollback_targets(APP) if self.intact(one)]
        if targets:
            state = registry.rollback(APP, automatic=False, reason="panic")
            assert state.active.id == targets[0].id
        else:
            with pytest.raises(RefusedError, match="nothing to go back to"):
                registry.rollback(APP, automatic=False, reason="panic")
            state = registry.block(APP, "panic")
            assert state.mode is Mode.DEFAULT_OUTPUT
        assert state.generation == before.generation + 1

    @rule(on=st.booleans())
    def block(self, on):
        command = self.registry.block if on else self.registry.unblock
        self.attempt(lambda: command(APP, "by hand"))

    @rule(expires=st.sampled_from([None, 60.0]))
    def hold(self, expires):
        until = None if expires is None else self.house.clock.now + expires
        self.registry.hold(APP, f"hold {expires}", expires=until)

    @rule()
    def resume(self):
        self.registry.resume(APP, "by hand")
        assert self.registry.holds(APP) == []

    @rule(number=PICK)
    def release(self, number):
        for one in self.registry.incidents(APP, open_only=True):
            self.registry.update_incident(one.id, state="closed", cause="known")
        self.attempt(lambda: self.registry.release(APP, self.pick(number).name, "by hand"))

    @rule(number=PICK)
    def archive(self, number):
        self.attempt(lambda: self.registry.archive(self.pick(number).id, "old"))

    # --- faults --------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 31.0, 1801.0, 86401.0, -86400.0, 8 * 86400.0]))
    def clock(self, seconds):
        self.house.clock.advance(seconds)

    @rule(who=WHO)
    def crash(self, who):
        """A deployer dies: nobody knows its operation any more."""
        self.operations.pop(who, None)

    @rule(number=PICK, whole=st.booleans())
    def rot(self, number, whole):
        """Stored bytes change, or vanish."""
        store = self.registry.artifacts
        sha256 = self.pick(number).manifest["model_sha256"]
        if whole or not store.exists(sha256):
            store.delete(sha256)
            return
        blob = store.blobs.path(sha256)
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes() + b"!")

    @rule(content=st.sampled_from(CONTENTS))
    def restore(self, content):
        """The same file is put back: what is served is what was registered (I5)."""
        version = self.house.register(content)
        assert self.registry.artifacts.get(version.manifest["model_sha256"]).read_text() == content

    @rule(up=st.booleans(), loads=st.booleans())
    def server(self, up, loads):
        registry = self.registry
        if not up:
            registry.server_bye("s1")
            return
        registry.server_hello("s1", host="h", pid=1, url="")
        loaded = [one.id for one in registry.versions(APP)] if loads else []
        registry.server_beat("s1", observed={}, loaded=loaded, failed={})

    @rule()
    def reconcile(self):
        """I13: doing it twice is doing it once."""
        self.registry.reconcile()
        after = self.house.facts()
        assert self.registry.reconcile() == []
        assert self.house.facts() == after

    # --- always --------------------------------------------------------------------------

    @invariant()
    def holds_together(self):
        self.house.check(APP)
        for one in self.registry.versions(APP):
            if one.state is State.STANDBY:
                assert one.id in self.confirmed, "I6"

    def teardown(self):
        """L1: when faults stop, everything settles."""
        self.house.clock.advance(31)
        self.registry.reconcile()
        assert self.registry.operation(APP) is None
        assert self.registry.candidate(APP) is None
        self.house.check(APP)


def run(house, pristine, *, examples: int, steps: int, repeatable: bool) -> None:
    Life.house, Life.pristine = house, pristine
    # What is tried here is logic; that a commit is on the disk is what the kills are for.
    event.listen(
        house.registry.database.engine,
        "connect",
        lambda connection, _: connection.execute("PRAGMA synchronous=OFF"),
    )
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=repeatable,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_any_sequence_keeps_the_invariants(sqlite_house, empty_database):
    """A bounded search, the same in every run."""
    run(sqlite_house, empty_database, examples=30, steps=30, repeatable=True)


@pytest.mark.soak
def test_any_long_sequence_keeps_the_invariants(sqlite_house, empty_database):
    """A long search, another one in every run."""
    run(sqlite_house, empty_database, examples=150, steps=50, repeatable=False)
