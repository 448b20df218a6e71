"""A deployment with steps, as whoever typed it sees it: alive, how far it is, why it ended.

The watcher judges and moves (:mod:`mlguard.deploy.watch_rollout`); the process that deploys keeps
the lease alive and tells.  So a deployment that is killed costs the candidate its traffic within
the lease, and one whose watcher is gone ends at its deadline all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlguard.config import RolloutTable
from mlguard.deploy.step_record import step_findings, step_words
from mlguard.errors import ConflictError, RefusedError
from mlguard.registry import Operation, Registry, Rolling, State, Version
from mlguard.wording import duration

#: How often the registry is asked how far it is, in seconds.
POLL_S = 0.25
#: How often the lease is renewed, and the grounds are looked at again.
BEAT_S = 5.0
#: The watcher ends an undecided step; this much later the deployment does so itself.
_PATIENCE_S = 60.0
#: Events that end a rollout.
_ENDS = ("rollout_failed", "withdrawn", "aborted", "rolled_back", "blocked", "default_output")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a rollout ended that did not make its version serve.

    Attributes
    ----------
    exit_code : int
        6 where it had answered callers and was worse, 1 where it was refused or drained, 5 where
        it stayed undecided.
    because : str
        One sentence.
    incident : int or None
        On record as this one, where it was condemned.
    """

    exit_code: int
    because: str
    incident: int | None = None


@dataclass(slots=True, kw_only=True)
class Follower:
    """Follows one rollout to its end.

    Attributes
    ----------
    registry : Registry
    rules : RolloutTable
        ``[rollout]``.
    operation : Operation
        One's own; its version is staged.
    version : Version
    progress, elapsed, sleep : callable
        As those of the deployment.
    """

    registry: Registry
    rules: RolloutTable
    operation: Operation
    version: Version
    progress: Callable[[str], None]
    elapsed: Callable[[], float]
    sleep: Callable[[float], None]
    _told: str = ""
    _reached: str | float = ""

    def follow(self, reason: str) -> Ending | None:
        """Take the first step and wait for the last; None where the version serves then.

        Parameters
        ----------
        reason : str
            Why it is deployed, for the audit trail.

        Raises
        ------
        RefusedError
            If what let it through the gate does not any more, or a hold stands in its way.
        """
        try:
            self._wait(self.registry.advance(self.operation, reason=reason))
        except BaseException:
            # Whatever went wrong (Ctrl-C too), the candidate must not linger.
            self._abort()
            raise
        return self._ending()

    def _wait(self, rolling: Rolling | None) -> None:
        beaten = began = self.elapsed()
        step = -1
        while rolling is not None and rolling.operation.id == self.operation.id:
            now, at = self.elapsed(), rolling.operation
            if at.step != step:
                step, began = at.step, now
                self._reached = at.steps[step]
            self._tell(rolling, waited_s=now - began)
            if now - beaten >= BEAT_S:
                beaten = now
                if not self._still_ours(at):
                    return
            if now - began > self.rules.step_deadline + _PATIENCE_S:
                longest = duration(self.rules.step_deadline)
                self._withdraw(at, f"nobody decided {step_words(at)} within {longest}")
                return
            self.sleep(POLL_S)
            rolling = self.registry.rolling(self.version.app)

    def _still_ours(self, at: Operation) -> bool:
        try:
            self.registry.beat(at)
            self.registry.recheck(at)
        except ConflictError:
            return False
        return True

    def _withdraw(self, at: Operation, reason: str) -> None:
        try:
            self.registry.withdraw(at, reason)
        except ConflictError:
            # The watcher was faster.
            return

    def _abort(self) -> None:
        try:
            self.registry.abort(self.operation, "the deployment did not finish")
        except ConflictError:
            return

    def _tell(self, rolling: Rolling, *, waited_s: float) -> None:
        name = self.version.name
        said = f"{name}: {step_words(rolling.operation)}"
        findings = step_findings(self.registry, rolling)
        if findings:
            said += "; " + "; ".join(f"{one.verdict.mark} {one.summary}" for one in findings)
        elif waited_s > _PATIENCE_S / 4:
            said += "; nobody judges it yet: are the monitors running (mlguard serve)?"
        if said != self._told:
            self._told = said
            self.progress(said)

    def _ending(self) -> Ending | None:
        now = self.registry.version_by_id(self.version.id)
        if now.state in (State.BAKING, State.LIVE):
            return None
        events = self.registry.events(self.version.app, limit=50)
        promoted = next((one for one in events if one.kind == "promoted"), None)
        if promoted is not None and promoted.detail.get("operation") == self.operation.id:
            # It served, and was taken out again before anybody looked.
            return None
        last = next((one for one in events if one.kind in _ENDS), None)
        because = last.reason if last is not None else f"it is {now.state}"
        if now.state is State.QUARANTINED:
            return Ending(1 if self._reached == "shadow" else 6, because, now.incident)
        return Ending(5 if last is not None and last.kind == "withdrawn" else 1, because)


def refuse_other_inputs(version: Version, active: Version) -> None:
    """Refuse a candidate that cannot answer the callers of what serves.

    Raises
    ------
    RefusedError
        If it reads another kind of input, or a column that they do not send.
    """
    ours, theirs = (one.manifest["input_schema"] for one in (version, active))
    names = [[one["name"] for one in schema["features"]] for schema in (ours, theirs)]
    missing = [name for name in names[0] if name not in names[1]]
    if ours["input"] == theirs["input"] and not (
        missing if ours["input"] == "table" else len(names[0]) != len(names[1])
    ):
        return
    what = f"columns that they do not send: {', '.join(missing)}" if missing else "another input"
    raise RefusedError(
        f"{version.name} cannot share the callers of {active.name}: it reads {what}",
        hint="deploy it as an app of its own, or without [rollout] steps once callers have changed",
        clause="schema",
    )
