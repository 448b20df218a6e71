"""One deployment: a model file becomes a version, is judged, loaded everywhere, made live.

The order is that of the life-cycle: look at the file, register it, verify it, let the gate
decide, stage it on every server, promote it in one transaction, wait until every server says
that it serves it.  Each step writes what it found before the next begins, so a deployment that
is killed anywhere can be typed again and goes on from there.

The gate runs before anything is reserved: a bad candidate is told so even while another
deployment is under way.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlguard.checks.runner import Progress as GateStep
from mlguard.checks.runner import run_gate
from mlguard.config import AppSettings, ProjectSettings
from mlguard.deploy.candidate import Candidate, inspect_candidate
from mlguard.deploy.compiled import on_compilation, with_compilation
from mlguard.deploy.fingerprints import Grounds
from mlguard.deploy.following import Ending, Follower, refuse_other_inputs
from mlguard.deploy.known_bytes import known_manifest
from mlguard.deploy.outcome import Outcome
from mlguard.deploy.servers import Servers
from mlguard.deploy.training import Progress
from mlguard.errors import ConflictError, RefusedError
from mlguard.models.environment import environment_lock
from mlguard.registry import AppState, Evidence, Mode, Operation, Registry, State, Version
from mlguard.results import GateDecision
from mlguard.wording import Step, duration, rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What ``mlguard deploy`` was asked to do.

    Attributes
    ----------
    model : Path
        The candidate's file.
    version : str or None
        Name for the version; None: the known name of these bytes, or the next ``vN``.
    message : str
        What is new in it.
    dry_run : bool
        Judge only.
    wait : bool
        Return when the version is confirmed, not when it is active.
    supersede, replace_candidate : bool
        Displace a version that is being watched, or one that is staged.
    resolves : int or None
        Incident that this version fixes.
    failures_dir : Path or None
        Where rows that broke a check are listed; the gate runs then, whatever is on record.
    """

    model: Path
    version: str | None = None
    message: str = ""
    dry_run: bool = False
    wait: bool = False
    supersede: bool = False
    replace_candidate: bool = False
    resolves: int | None = None
    failures_dir: Path | None = None


class Rollout:
    """Carries one deployment of one app through.

    Parameters
    ----------
    project, settings : ProjectSettings, AppSettings
        What is deployed, and by which rules.
    registry : Registry
        Where it is decided and recorded.
    progress : callable
        Told in one line what is going on.
    clock : callable
        Seconds since the epoch: how old evidence is.
    elapsed : callable
        Seconds that nobody can set: how long servers are waited for.
    sleep : callable
        Pauses for some seconds.  Handed in, as the clocks, so that tests need no time.
    """

    def __init__(
        self,
        project: ProjectSettings,
        settings: AppSettings,
        registry: Registry,
        *,
        progress: Progress = lambda _: None,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.project = project
        self.settings = settings
        self.registry = registry
        self.progress = progress
        self.clock = clock
        self.elapsed = elapsed
        self.sleep = sleep

    @property
    def app(self) -> str:
        """Name of the app."""
        return self.settings.name

    def run(self, request: Request) -> Outcome:
        """Carry out a request.

        Returns
        -------
        Outcome
            Exit code 0 where the version is active (or was already), 1 where the gate or a step
            refused it, 5 where one could not decide or approval is missing, 6 where it answered
            callers and was taken out again.

        Raises
        ------
        MlguardError
            For everything that is not a verdict: a file that is no model, a quarantined
            digest, a deployment by somebody else, a server that cannot load the version.
        """
        candidate = self._candidate(request.model)
        if request.dry_run:
            return self._dry_run(request, candidate)
        state = self.registry.app(self.app)
        self._refuse_quarantined(candidate)
        if self._already_serves(state, candidate, request):
            return self._unchanged(state, request)
        version = self._version(request, candidate)
        decision, evidence, reused = self._judge(request, candidate, version)
        if not decision.allowed:
            return self._refused(version, decision, reused=reused)
        if version.state is not State.STANDBY and self._needs_approval(evidence):
            return self._awaits_approval(version, decision, reused=reused)
        operation = self.registry.begin(
            self.app,
            version.id,
            supersede=request.supersede,
            replace_candidate=request.replace_candidate,
            resolves=request.resolves,
            policy_digest=evidence.policy_digest,
            evidence_max_age=self.settings.rollout.evidence_max_age,
            steps=self._steps(version),
        )
        before = self.registry.app(self.app).active
        self._stage(operation, version)
        reason = request.message or "deployed"
        if operation.steps:
            ending = self._follow(operation, version, reason)
            if ending is not None:
                return self._not_promoted(version, before, decision, ending, reused=reused)
            after = self.registry.app(self.app)
        else:
            after = self._promote(operation, reason)
        self._servers.follow(after)
        if request.wait:
            after = self._servers.confirm(version)
        return self._promoted(version, before, after, decision, reused=reused)

    def _candidate(self, model: Path) -> Candidate:
        """Describe the candidate; bytes that a version holds already are not loaded again."""
        known = known_manifest(self.registry, self.settings, model)
        if known is not None:
            return Candidate(manifest=known, file=model, load_s=0.0)
        self.progress(f"loading {model.name} in a process of its own")
        return inspect_candidate(self.project, self.settings, model)

    # --- before the gate -----------------------------------------------------------------

    def _dry_run(self, request: Request, candidate: Candidate) -> Outcome:
        decision = with_compilation(self._gate(request), candidate.manifest)
        return self._outcome(
            self.registry.app(self.app),
            decision=decision,
            exit_code=decision.exit_code,
            lines=("Dry run: nothing was changed.",),
            next_step=f"mlguard deploy {self.app}" if decision.allowed else "",
        )

    def _refuse_quarantined(self, candidate: Candidate) -> None:
        # However it is run: another runtime is another version, and no way out of quarantine.
        known = [
            self.registry.quarantined(self.app, digest) for digest in candidate.manifest.any_runtime
        ]
        found = next((one for one in known if one is not None), None)
        if found is None:
            return
        incident = "" if found.incident is None else f" by incident {found.incident}"
        raise RefusedError(
            f"these bytes are quarantined{incident}: {found.reason}",
            hint="deploy a model that fixes it; the same bytes under a new name stay refused",
            app=self.app,
            incident=found.incident,
        )

    def _already_serves(self, state: AppState, candidate: Candidate, request: Request) -> bool:
        active = state.active
        return (
            active is not None
            and active.digest == candidate.digest
            and request.version in (None, active.name)
        )

    def _unchanged(self, state: AppState, request: Request) -> Outcome:
        active = state.active
        assert active is not None
        lines = [f"{active.name} serves these bytes already. Nothing was changed."]
        silent = self._servers.silent(state)
        if silent:
            lines.append(
                f"{', '.join(silent)} cannot be heard and may still answer with an older version."
            )
        then = f"mlguard status {self.app}"
        if request.failures_dir is not None and not silent:
            lines.append("Nothing was judged, so no rows are listed.")
            then = f"mlguard check {self.app} --failures-dir {request.failures_dir}"
        return self._outcome(
            state, exit_code=7 if silent else 0, lines=tuple(lines), next_step=then
        )

    def _version(self, request: Request, candidate: Candidate) -> Version:
        """Return the version of these bytes, registered and verified."""
        known = self.registry.version_by_digest(self.app, candidate.digest)
        if known is not None and request.version in (None, known.name):
            version = known
        else:
            version = self._registered(request, candidate)
        if version.state in (State.STAGED, State.SHADOW, State.CANARY):
            raise ConflictError(
                f"{version.name} is being deployed already (it is {version.state})",
                hint="wait for that deployment, or type --replace-candidate",
                app=self.app,
            )
        if version.state in (State.VERIFIED, State.STANDBY):
            return version
        reason = "deployed again"
        if candidate.load_s:
            reason = f"loaded in {candidate.load_s:.1f} s and answered the same twice"
        return self.registry.mark(version.id, State.VERIFIED, reason=reason)

    def _registered(self, request: Request, candidate: Candidate) -> Version:
        with tempfile.TemporaryDirectory(prefix="mlguard-compiled-") as scratch:
            compiled = None
            if candidate.compiled:
                compiled = Path(scratch) / "compiled"
                compiled.write_bytes(candidate.compiled)
            return self.registry.register(
                self.app,
                name=request.version,
                manifest=candidate.manifest,
                model_file=candidate.file,
                compiled_file=compiled,
                message=request.message,
                commit=git_commit(self.project.root),
            )

    # --- the gate ------------------------------------------------------------------------

    def _judge(
        self, request: Request, candidate: Candidate, version: Version
    ) -> tuple[GateDecision, Evidence, bool]:
        """Return the gate's decision, from earlier evidence where nothing has changed."""
        # Rows are listed by the run that finds them.
        fresh = None if request.failures_dir else self._fresh_evidence(candidate)
        reused = fresh is not None
        if fresh is None:
            grounds = self._grounds()
            decision = with_compilation(
                self._gate_and_keep_reference(request, candidate, version), candidate.manifest
            )
            self.registry.record_evidence(
                self.app,
                candidate.digest,
                decision.to_json() | {"environment": environment_lock()},
                policy_digest=grounds.policy,
                data_digest=grounds.data,
                code_version=grounds.code,
            )
            fresh = self.registry.evidence(self.app, candidate.digest)[0]
        else:
            self.progress("the gate judged these bytes on the same data before; reusing that")
        # Waivers come and go while evidence stays: what counts is those that are valid now.
        decision = dataclasses.replace(
            self.registry.decision_now(fresh), candidate=f"{version.name} ({request.model.name})"
        )
        # A standby stays one, whatever a gate says of it today: it may be all there is to go
        # back to.
        if version.state is not State.STANDBY:
            target = _state_after_gate(decision)
            if target is State.PASSED and self._needs_approval(fresh):
                target = State.HELD
            self.registry.mark(version.id, target, reason=decision.because, evidence_id=fresh.id)
        return decision, fresh, reused

    def _needs_approval(self, evidence: Evidence) -> bool:
        return self.settings.approve.required and "approved_by" not in evidence.decision

    def _fresh_evidence(self, candidate: Candidate) -> Evidence | None:
        """Return evidence that still holds: same bytes, data, policy and code, not too old."""
        oldest = self.clock() - self.settings.rollout.evidence_max_age
        # Bytes that were released from quarantine must pass again: what let them through
        # before they failed in service proves nothing.
        released = [
            one.at
            for one in self.registry.events(self.app, kind="released")
            if one.detail.get("digest") == candidate.digest
        ]
        oldest = max([oldest, *released])
        known = self.registry.evidence(self.app, candidate.digest)
        return self._grounds().reusable(known, oldest=oldest)

    def _grounds(self) -> Grounds:
        active = self.registry.app(self.app).active
        return Grounds.of(self.project, self.settings, active.digest if active else "")

    def _gate(
        self, request: Request, *, name: str = "", reference: Path | None = None
    ) -> GateDecision:
        model = request.model
        return run_gate(
            self.project.root,
            self.app,
            model=model,
            failures_dir=request.failures_dir,
            candidate=f"{name} ({model.name})" if name else model.name,
            reference=reference,
            on_progress=lambda step: self.progress(gate_step(step)),
        )

    def _gate_and_keep_reference(
        self, request: Request, candidate: Candidate, version: Version
    ) -> GateDecision:
        """Run the gate; keep what it measured on the test data for the monitors."""
        with tempfile.TemporaryDirectory(prefix="mlguard-deploy-") as scratch:
            reference = Path(scratch) / "reference.json"
            decision = self._gate(request, name=version.name, reference=reference)
            if reference.is_file():
                document = json.loads(reference.read_text(encoding="utf-8"))
                self.registry.set_reference(self.app, candidate.digest, document)
        return decision

    def _refused(self, version: Version, decision: GateDecision, *, reused: bool) -> Outcome:
        state = self.registry.app(self.app)
        serving = (
            f"{state.active.name} keeps serving. No traffic was moved."
            if state.active is not None
            else "Nothing serves this app yet."
        )
        advice = [one.next_step for one in decision.blocking if one.next_step]
        return self._outcome(
            state,
            decision=decision,
            reused_evidence=reused,
            exit_code=decision.exit_code,
            changed=True,
            lines=(f"{version.name} was refused: {decision.because}.", serving),
            next_step=advice[0] if advice else f"mlguard history {self.app}",
        )

    # --- onto the servers ----------------------------------------------------------------

    def _stage(self, operation: Operation, version: Version) -> None:
        """Have every live server load the version while the old one answers."""
        try:
            self.registry.stage(operation)
            self._servers.load(operation, version)
        except BaseException:
            # Whatever went wrong, the candidate must not linger: the next deployment is free.
            self.registry.abort(operation, "the deployment did not finish")
            raise

    def _promote(self, operation: Operation, reason: str) -> AppState:
        try:
            return self.registry.promote(operation, reason=reason)
        except RefusedError:
            # Something was forbidden meanwhile (a hold, a waiver that ended): unload it.
            self.registry.abort(operation, "the promotion was refused")
            raise

    def _steps(self, version: Version) -> list[str | float]:
        """Return the steps that there is anybody to take them beside, and on."""
        steps: list[str | float] = list(self.settings.rollout.steps)
        state = self.registry.app(self.app)
        if not steps or state.active is None or state.mode is not Mode.SERVE:
            return []
        if not self.registry.live_servers():
            self.progress("no server is running, so there are no callers to try it on")
            return []
        refuse_other_inputs(version, state.active)
        return steps

    def _follow(self, operation: Operation, version: Version, reason: str) -> Ending | None:
        return Follower(
            registry=self.registry,
            rules=self.settings.rollout,
            operation=operation,
            version=version,
            progress=self.progress,
            elapsed=self.elapsed,
            sleep=self.sleep,
        ).follow(reason)

    @property
    def _servers(self) -> Servers:
        return Servers(
            registry=self.registry,
            app=self.app,
            rules=self.settings.rollout,
            progress=self.progress,
            elapsed=self.elapsed,
            sleep=self.sleep,
        )

    # --- what to say ---------------------------------------------------------------------

    def _promoted(
        self,
        version: Version,
        before: Version | None,
        after: AppState,
        decision: GateDecision,
        *,
        reused: bool,
    ) -> Outcome:
        now = self.registry.version_by_id(version.id) or version
        came_from = f", {before.name} before" if before else ""
        lines = [f"{version.name} is live (generation {after.generation}{came_from})."]
        exit_code = 0
        if now.state is State.BAKING:
            lines.append(
                f"It is being watched for {duration(self.settings.rollout.bake)} before it counts "
                "as confirmed."
            )
        elif now.state is State.QUARANTINED:
            exit_code = 6
            serving = after.active.name if after.active else "the default output"
            lines = [f"{version.name} was rolled back by itself; {serving} serves."]
        compilation = on_compilation(decision)
        if compilation is not None:
            lines.append(compilation.summary[:1].upper() + compilation.summary[1:] + ".")
        if version.manifest.get("model_format") == "pickle":
            lines.append("Its file is a pickle, which runs code whenever it is loaded.")
        next_step = f"mlguard status {self.app}"
        if not self.registry.live_servers():
            next_step = "mlguard serve  (no server is running, so nothing answers yet)"
        return self._outcome(
            after,
            decision=decision,
            reused_evidence=reused,
            changed=True,
            exit_code=exit_code,
            from_=before.name if before else None,
            to=version.name,
            lines=tuple(lines),
            next_step=next_step,
        )

    def _not_promoted(
        self,
        version: Version,
        before: Version | None,
        decision: GateDecision,
        ending: Ending,
        *,
        reused: bool,
    ) -> Outcome:
        serving = "" if before is None else f"{before.name} answers everybody."
        next_step = f"mlguard history {self.app}"
        if ending.incident is not None:
            next_step = f"mlguard deploy {self.app} --resolves {ending.incident}"
        return self._outcome(
            self.registry.app(self.app),
            decision=decision,
            reused_evidence=reused,
            changed=True,
            exit_code=ending.exit_code,
            incident=ending.incident,
            lines=(f"{version.name} was not promoted: {ending.because}.", serving),
            next_step=next_step,
        )

    def _awaits_approval(
        self, version: Version, decision: GateDecision, *, reused: bool
    ) -> Outcome:
        return self._outcome(
            self.registry.app(self.app),
            decision=decision,
            reused_evidence=reused,
            changed=True,
            exit_code=5,
            lines=(
                f"{version.name} passed the gate and waits for approval. No traffic was moved.",
            ),
            next_step=f'mlguard approve {self.app} {version.name} --reason "…"',
        )

    def _outcome(self, state: AppState, **fields: Any) -> Outcome:
        return Outcome(
            command="deploy", app=self.app, **state_fields(self.registry, state), **fields
        )


def state_fields(registry: Registry, state: AppState) -> dict[str, Any]:
    """Return the fields of an outcome that say what serves and what a rollback would do."""
    active = state.active
    targets = registry.rollback_targets(state.app)
    return {
        "generation": state.generation,
        "active": None
        if active is None
        else {
            "version": active.name,
            "digest": active.digest,
            "state": active.state.value,
            "since": rfc3339(state.since) if state.since is not None else None,
        },
        "rollback_target": targets[0].name if targets else None,
    }


def _state_after_gate(decision: GateDecision) -> State:
    if decision.allowed:
        return State.PASSED
    return State.REJECTED if decision.exit_code == 1 else State.HELD


def gate_step(step: GateStep) -> str:
    """Return one step of a running gate as a line of progress."""
    if step.verdict is None:
        return f"gate: {step.name}"
    text = f"gate {step.done}/{step.total}: {step.verdict.mark} {step.name}"
    return Step(text, step.done, max(1, step.total))


def git_commit(folder: Path) -> str:
    """Return the commit that the folder's git repository is at, or an empty string."""
    try:
        done = subprocess.run(  # noqa: S603  no shell, and the folder is the project's own
            ["git", "-C", str(folder), "rev-parse", "HEAD"],  # noqa: S607  the user's own git
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
