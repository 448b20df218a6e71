"""What serves an app, since when and why; what is watched; what a rollback would do.

Reads the registry once and returns plain data; every front (terminal, JSON, dashboard) shows
the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlguard.config import AppSettings
from mlguard.data.disk_floor import Disk
from mlguard.deploy.conditions import conditions
from mlguard.deploy.false_alarms import FalseAlarms, expected_false_alarms
from mlguard.deploy.outcome import check_to_json
from mlguard.deploy.rollout import state_fields
from mlguard.deploy.step_record import step_findings, step_words
from mlguard.registry import AppState, Event, Hold, Incident, Mode, Registry, Server, Version
from mlguard.results import CheckResult, MonitorResult, Verdict
from mlguard.waivers import WaiverBook
from mlguard.wording import duration, rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorStatus:
    """One monitor of an app.

    Attributes
    ----------
    id : str
        Its name in app.toml.
    state : str
        ``"armed"``; ``"waiting"`` (for more rows, or for labels that are not due yet);
        ``"idle"`` (no traffic, or nobody watches); ``"blind"`` (it should have judged by now).
    last : MonitorResult or None
        Its last finding about the version that serves.
    at : float or None
        When that was.
    """

    id: str
    state: str
    last: MonitorResult | None
    at: float | None

    @property
    def failed(self) -> bool:
        """Whether its last finding is a failure."""
        return self.last is not None and self.last.verdict is Verdict.FAILED

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in ``monitors`` of the status document."""
        last = self.last
        return {
            "id": self.id,
            "state": self.state,
            "verdict": last.verdict.value if last else None,
            "summary": last.summary if last else "",
            "value": last.to_json()["value"] if last else None,
            "limit": last.to_json()["limit"] if last else None,
            "n": last.n if last else None,
            "at": rfc3339(self.at) if self.at is not None else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStatus:
    """A version that is being rolled out.

    Attributes
    ----------
    version : str
        Its name.
    state : str
        ``"STAGED"``, ``"SHADOW"`` or ``"CANARY"``.
    step, steps : int
        Which step it is at, from 1 (0: it is being loaded), and how many there are.
    weight : float
        Share of the callers that it answers.
    since : float or None
        When the step began.
    words : str
        The step as people read it.
    findings : tuple of CheckResult
        The comparisons with what serves, as they stand.
    """

    version: str
    state: str
    step: int
    steps: int
    weight: float
    since: float | None
    words: str
    findings: tuple[CheckResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in ``rollout`` of the status document."""
        return {
            "version": self.version,
            "state": self.state,
            "step": self.step,
            "steps": self.steps,
            "weight": self.weight,
            "since": None if self.since is None else rfc3339(self.since),
            "checks": [check_to_json(one) for one in self.findings],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AppStatus:
    """Everything that ``mlguard status`` says of one app.

    ``waived`` holds the waivers that the gate needed to let what serves through: valid ones,
    and ended ones, which make the gate refuse the same bytes today.  ``acts_from`` is when
    monitors may act again after a switch; None where they may now.  ``disk`` is the free space
    where predictions are logged.  ``silent`` are servers that have not been heard of for a while
    and whose end nobody has seen: they may go on answering with what they last knew.
    """

    app: str
    state: AppState
    rollback_target: str | None
    candidate: Version | None
    holds: tuple[Hold, ...]
    incidents: tuple[Incident, ...]
    waived: WaiverBook
    monitors: tuple[MonitorStatus, ...]
    false_alarms: FalseAlarms | None
    servers: tuple[Server, ...]
    last_event: Event | None
    mail: dict[str, int]
    config_error: str
    now: float
    acts_from: float | None = None
    rollout: RolloutStatus | None = None
    disk: Disk | None = None
    silent: tuple[Server, ...] = ()
    mail_stuck: str = ""

    @property
    def degraded(self) -> tuple[str, ...]:
        """Why a human is needed; empty where all is well."""
        reasons = []
        if self.state.mode is Mode.DEFAULT_OUTPUT:
            reasons.append("every request is answered with the default output")
        reasons += [
            f"monitor {one.id} should have judged by now and has not"
            for one in self.monitors
            if one.state == "blind"
        ]
        reasons += [
            f"server {one.id} has been silent for {duration(max(self.now - one.beat_at, 0))}; "
            f"it may still answer with generation {one.observed[self.app]}"
            for one in self.silent
            if one.observed.get(self.app, self.state.generation) < self.state.generation
        ]
        if self.disk is not None and self.disk.low and self.servers:
            reasons.append(f"the disk is nearly full: {self.disk.says()}")
        if self.mail.get("DEAD"):
            reasons.append(f"{self.mail['DEAD']} mails could not be delivered")
        if self.mail_stuck:
            reasons.append(f"mail does not go out: {self.mail_stuck}")
        reasons += [
            f"a rollback was due and found no target (incident {one.id})"
            for one in self.incidents
            if one.facts.get("no_target")
        ]
        return tuple(reasons)

    @property
    def exit_code(self) -> int:
        """7 where a human is needed, else 0."""
        return 7 if self.degraded else 0

    def lagging(self) -> tuple[Server, ...]:
        """Servers that do not serve the current generation yet."""
        return tuple(
            one for one in self.servers if one.observed.get(self.app, 0) < self.state.generation
        )


def app_status(
    registry: Registry,
    app: str,
    settings: AppSettings | None,
    *,
    config_error: str,
    now: float,
    disk: Disk | None = None,
) -> AppStatus:
    """Read what there is to say about one app.

    Parameters
    ----------
    settings : AppSettings or None
        None where app.toml is not valid; ``config_error`` says why.
    disk : Disk or None
        Free space where predictions are logged; None where it cannot be told.
    """
    state = registry.app(app)
    events = registry.events(app, limit=1)
    servers = tuple(registry.live_servers())
    return AppStatus(
        app=app,
        state=state,
        rollback_target=state_fields(registry, state)["rollback_target"],
        candidate=registry.candidate(app),
        holds=tuple(registry.holds(app)),
        incidents=tuple(registry.incidents(app, open_only=True)),
        waived=registry.serving_waivers(app),
        monitors=_monitors(registry, state, settings),
        false_alarms=expected_false_alarms(registry, state, settings, now=now),
        servers=servers,
        last_event=events[-1] if events else None,
        mail=registry.outbox.counts(),
        config_error=config_error,
        now=now,
        acts_from=_acts_from(state, settings, now),
        rollout=_rollout(registry, app),
        disk=disk,
        silent=tuple(registry.silent_servers()),
        mail_stuck=registry.outbox.stuck(),
    )


def _rollout(registry: Registry, app: str) -> RolloutStatus | None:
    rolling = registry.rolling(app)
    if rolling is None:
        return None
    operation = rolling.operation
    return RolloutStatus(
        version=rolling.version.name,
        state=rolling.version.state.value,
        step=operation.step + 1,
        steps=len(operation.steps),
        weight=rolling.weight,
        since=operation.step_at,
        words=step_words(operation),
        findings=tuple(step_findings(registry, rolling)),
    )


def _acts_from(state: AppState, settings: AppSettings | None, now: float) -> float | None:
    if settings is None or state.since is None or now >= state.since + settings.auto.grace:
        return None
    return state.since + settings.auto.grace


def _monitors(
    registry: Registry, state: AppState, settings: AppSettings | None
) -> tuple[MonitorStatus, ...]:
    if settings is None or state.active is None:
        return ()
    now_doing = conditions(registry, state)
    found = []
    for name in type(settings.monitor).model_fields:
        if not _applies(name, settings):
            continue
        results = [
            (at, one)
            for at, one in registry.monitor_results(
                state.app, monitor=name, since=state.since, limit=200
            )
            if one.version == state.active.name
        ]
        at = max((when for when, _ in results), default=None)
        # One window may have a finding for each feature or group: the worst speaks.
        newest = [one for when, one in results if when == at]
        last = max(newest, key=lambda one: one.verdict.severity, default=None)
        # A part of a monitor that is blind makes the whole so.
        parts = {now_doing[key] for key in now_doing if key.partition(".")[0] == name}
        doing = "blind" if "blind" in parts else now_doing.get(name, "idle")
        found.append(MonitorStatus(id=name, state=doing, last=last, at=at))
    return tuple(found)


def _applies(name: str, settings: AppSettings) -> bool:
    if name == "fairness" and not (settings.data.sensitive or settings.monitor.fairness.by):
        return False
    return bool(getattr(settings.monitor, name).enabled)
