"""What humans do to a rollout: promote it, abort it, confirm what serves, approve what waits.

Each is idempotent: said twice, the second time changes nothing and ends well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlguard.config import AppSettings, ProjectSettings
from mlguard.deploy.conditions import conditions
from mlguard.deploy.fingerprints import policy_digest
from mlguard.deploy.outcome import Outcome
from mlguard.deploy.rollout import state_fields
from mlguard.deploy.step_record import COMPARISONS, ERRORS, check_id, step_findings, step_words
from mlguard.errors import ConflictError, NotFoundError, RefusedError, UsageError
from mlguard.policy import step_decision
from mlguard.registry import AppState, Registry, State, Version
from mlguard.results import GateDecision, Verdict
from mlguard.wording import duration


def _outcome(registry: Registry, command: str, app: str, **fields: Any) -> Outcome:
    state = registry.app(app)
    return Outcome(command=command, app=app, **{**state_fields(registry, state), **fields})


def _accepted(names: Sequence[str], reason: str) -> list[str]:
    known = [check_id(one) for one in COMPARISONS]
    found = [one if one in known else check_id(one) for one in names]
    for name, given in zip(found, names, strict=True):
        if name not in known:
            raise UsageError(f"no comparison {given!r}", hint=f"they are: {', '.join(known)}")
    if found and not reason.strip():
        raise UsageError("say why it is acceptable undecided: --reason TEXT")
    return found


def promote(
    project: ProjectSettings,
    settings: AppSettings,
    registry: Registry,
    *,
    accept: Sequence[str] = (),
    reason: str = "",
) -> Outcome:
    """Let the version that is being rolled out answer everybody now, further steps or not.

    Parameters
    ----------
    project, settings : ProjectSettings, AppSettings
        Whose app.
    registry : Registry
    accept : sequence of str
        Comparisons that are taken undecided, for this rollout only.
    reason : str
        Why; needed where something is accepted.

    Returns
    -------
    Outcome
        Exit code 0 where it serves, also where it did already; 5 where something is undecided
        that is not accepted.

    Raises
    ------
    ConflictError
        If it is being loaded still, or somebody else moved the app.
    RefusedError
        If a comparison failed, a hold stands in the way, what let it through the gate does not
        any more, or nothing is being rolled out.
    """
    app = settings.name
    accepted = _accepted(accept, reason)
    rolling, state = registry.rolling(app), registry.app(app)
    if rolling is None:
        return _promoted_already(registry, state)
    operation, name = rolling.operation, rolling.version.name
    if operation.step < 0:
        raise ConflictError(
            f"{name} is being loaded", hint="try again in a moment", clause="loading", app=app
        )
    active = state.active
    policy = policy_digest(project, settings, "" if active is None else active.digest)
    if operation.policy_digest not in (None, policy):
        raise RefusedError(
            f"the rules that {name} was judged by have changed meanwhile",
            hint=f"deploy it again: mlguard deploy {app}",
            clause="evidence",
            app=app,
        )
    findings = step_findings(registry, rolling)
    # A human need not wait for the time of a step, only for what is found in it.
    decision = step_decision(
        findings,
        [check_id(one) for one in (ERRORS, *settings.rollout.compare)],
        settings.rollout,
        elapsed_s=settings.rollout.step_min_time,
        accepted=accepted,
    )
    judged = GateDecision(
        app=app,
        candidate=name,
        allowed=decision.act == "go_on",
        results=tuple(findings),
        because=decision.because,
    )
    if decision.act == "fail":
        raise RefusedError(
            f"{name} is worse than what serves: {decision.because}",
            hint=f"end it: mlguard abort {app}",
            clause="step",
            app=app,
        )
    if decision.act != "go_on":
        first = decision.undecided[0] if decision.undecided else ""
        return _outcome(
            registry,
            "promote",
            app,
            decision=judged,
            exit_code=5,
            operation=operation.id,
            lines=(f"{name} stays in {step_words(operation)}: {decision.because}.",),
            next_step=f'mlguard promote {app} --accept-inconclusive {first} --reason "…"',
        )
    why = reason.strip() or "promoted by hand"
    after = registry.promote(
        operation,
        reason=why,
        detail={"accepted": accepted, "findings": [one.to_json() for one in findings]},
    )
    lines = [f"{name} answers everybody (generation {after.generation})."]
    if accepted:
        lines.append(f"Taken undecided: {', '.join(accepted)}. Reason: {why}")
    return _outcome(
        registry,
        "promote",
        app,
        changed=True,
        decision=judged,
        from_=None if active is None else active.name,
        to=name,
        lines=tuple(lines),
        next_step=f"mlguard status {app}",
    )


def _promoted_already(registry: Registry, state: AppState) -> Outcome:
    """Return that there is nothing to promote, well where the last rollout was promoted."""
    ends = ("promoted", "rollout_failed", "withdrawn", "aborted")
    events = registry.events(state.app, limit=200)
    last = next((one for one in events if one.kind in ends), None)
    serves = state.active
    if serves is not None and last is not None and last.kind == "promoted":
        return _outcome(
            registry,
            "promote",
            state.app,
            lines=(f"{serves.name} answers everybody already. Nothing was changed.",),
            next_step=f"mlguard status {state.app}",
        )
    ended = "" if last is None else f"; the last rollout ended: {last.reason}"
    raise RefusedError(
        f"nothing of {state.app} is being rolled out{ended}",
        hint=f"mlguard deploy {state.app}",
        clause="candidate",
        app=state.app,
    )


def abort(registry: Registry, app: str, *, reason: str = "") -> Outcome:
    """End the rollout of an app: its candidate gets no more traffic and is unloaded."""
    drained = registry.abort(app, reason.strip() or "aborted by hand")
    serves = registry.app(app).active
    keeps = "" if serves is None else f" {serves.name} answers everybody."
    line = (
        f"Nothing of {app} was being rolled out.{keeps}"
        if drained is None
        else f"{drained.name} gets no more traffic.{keeps}"
    )
    return _outcome(
        registry,
        "abort",
        app,
        changed=drained is not None,
        lines=(line,),
        next_step=f"mlguard status {app}",
    )


def confirm(registry: Registry, app: str, *, reason: str = "") -> Outcome:
    """Confirm the version that is being watched before its time is over.

    Raises
    ------
    RefusedError
        If nothing serves, a monitor's last word is a failure or it is blind, or an incident of
        the version is open.
    """
    state = registry.app(app)
    active = state.active
    if active is None:
        raise RefusedError(
            f"nothing serves {app}, so there is nothing to confirm",
            hint=f"mlguard deploy {app}",
            app=app,
        )
    if active.state is not State.BAKING:
        return _outcome(
            registry,
            "confirm",
            app,
            lines=(f"{active.name} is confirmed already. Nothing was changed.",),
            next_step=f"mlguard status {app}",
        )
    against = _speaks_against(registry, state, active)
    if against:
        raise RefusedError(
            f"{active.name} is not confirmed: {against}",
            hint=f"look at it: mlguard status {app}; go back: mlguard rollback {app} --reason …",
            clause="monitors",
            app=app,
        )
    clock = registry.monitor_state(app, active.id, state.generation, "clock") or {}
    served = float(clock.get("served_s", 0.0))
    why = reason.strip() or f"confirmed by hand after {duration(served)}"
    done = registry.confirm(app, served_s=served, expected_generation=state.generation, reason=why)
    return _outcome(
        registry,
        "confirm",
        app,
        changed=done is not None,
        lines=(f"{active.name} is confirmed: it can be gone back to from now on.",),
        next_step=f"mlguard status {app}",
    )


def _speaks_against(registry: Registry, state: AppState, active: Version) -> str:
    for one in registry.incidents(state.app, open_only=True):
        if one.version_id == active.id:
            return f"incident {one.id} is open ({one.summary})"
    last: dict[str, Verdict] = {}
    for _, result in registry.monitor_results(state.app, limit=600):
        if result.window is not None and result.window.generation == state.generation:
            last.setdefault(result.name, result.verdict)
    failed = sorted(name for name, verdict in last.items() if verdict is Verdict.FAILED)
    if failed:
        return f"{', '.join(failed)} failed last"
    blind = sorted(name for name, doing in conditions(registry, state).items() if doing == "blind")
    return f"{', '.join(blind)} is blind" if blind else ""


def approve(
    settings: AppSettings, registry: Registry, *, version: str | None = None, reason: str
) -> Outcome:
    """Let a version through that waits for a human; nothing is deployed by it.

    Parameters
    ----------
    settings : AppSettings
        Say whether a second person is needed.
    registry : Registry
    version : str, optional
        Its name; default the one that waits.
    reason : str
        Why; kept in the history.

    Raises
    ------
    RefusedError
        If it does not wait, or its registrar asks and may not.
    NotFoundError
        If there is no such version, or none or several wait.
    """
    app = settings.name
    if not reason.strip():
        raise UsageError("a reason is needed: it is what people will read in the history")
    found = _waiting(registry, app, version)
    deploy = f"mlguard deploy {app}"
    if found.state is State.PASSED and _approved(registry, found):
        return _outcome(
            registry,
            "approve",
            app,
            lines=(f"{found.name} was approved already. Nothing was changed.",),
            next_step=deploy,
        )
    if found.state is not State.HELD:
        raise RefusedError(
            f"{found.name} is {found.state}: it does not wait for approval",
            hint=f"mlguard status {app}",
            clause="state",
            app=app,
        )
    refuse_registrar(settings, registry, found, "approve")
    registry.mark(found.id, State.PASSED, reason=reason.strip())
    return _outcome(
        registry,
        "approve",
        app,
        changed=True,
        lines=(f"{found.name} is approved by {registry.actor}. It is not deployed yet.",),
        next_step=deploy,
    )


def refuse_registrar(
    settings: AppSettings, registry: Registry, version: Version, command: str
) -> None:
    """Refuse, where approval is required, what a version's own registrar may not do.

    Raises
    ------
    RefusedError
        If a second person is needed and this is the first.
    """
    rules = settings.approve
    if rules.required and rules.not_by_registrar and version.registered_by == registry.actor:
        raise RefusedError(
            f"{version.name} was registered by {registry.actor}: somebody else has to "
            f"{command} it ([approve] not_by_registrar)",
            hint="ask a colleague to type it",
            clause="registrar",
            app=settings.name,
        )


def _approved(registry: Registry, version: Version) -> bool:
    known = registry.evidence(version.app, version.digest)
    return bool(known) and "approved_by" in known[0].decision


def _waiting(registry: Registry, app: str, name: str | None) -> Version:
    known = registry.versions(app)
    if name is not None:
        return registry.version(app, name)
    held = [one for one in known if one.state is State.HELD]
    if not held:
        passed = [one for one in known if one.state is State.PASSED and _approved(registry, one)]
        if passed:
            return passed[-1]
        raise NotFoundError(f"no version of {app} waits for approval", hint=f"mlguard status {app}")
    if len(held) > 1:
        names = ", ".join(one.name for one in held)
        raise NotFoundError(f"several versions of {app} wait: {names}", hint="name one of them")
    return held[0]
