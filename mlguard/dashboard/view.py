"""What each page shows, read from the registry at one moment."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlguard.config import load_app
from mlguard.dashboard.answers import (
    BLIND,
    DEFAULT_OUTPUT,
    DEGRADED,
    Condition,
    condition_of,
    story_of,
)
from mlguard.dashboard.live import Live, LiveFigures
from mlguard.dashboard.series import Shown, by_group, key_of, over_time
from mlguard.dashboard.source import Source
from mlguard.data.disk_floor import disk_of
from mlguard.deploy.status import AppStatus, app_status
from mlguard.deploy.why import MEANINGS
from mlguard.errors import ConfigError, NotFoundError
from mlguard.reports.card import Card, Check, build_card
from mlguard.reports.happenings import happening
from mlguard.reports.pictures import figure_over_time
from mlguard.reports.view import Figure, Happening, Story
from mlguard.results import CheckResult, GateDecision, MonitorResult, Verdict
from mlguard.wording import count, moment

if TYPE_CHECKING:
    from mlguard.config import AppSettings
    from mlguard.registry import Event, Incident, Registry, Version

_DAY_S = 86400.0
#: How far back charts look, and recorded verdicts read at most.
_BACK_S, _RESULTS = 14 * _DAY_S, 4000
#: Versions, lines of history and incidents of one page.
VERSIONS, HISTORY, INCIDENTS = 12, 40, 20
#: Events on a version's way to traffic, which say nothing of what serves.
_STEPS = frozenset({"registered", "verified", "gate_passed", "passed", "staged", "archived"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One app in the list of all.

    Attributes
    ----------
    app : str
        Its name.
    condition : Condition
        How it is.
    story : Story
        The five answers.
    since : float or None
        When its traffic last moved.
    live : Live
        What it was asked.
    rollback_target : str or None
        Where a rollback would go.
    example : str
        A command that asks it; empty where nothing serves.
    """

    app: str
    condition: Condition
    story: Story
    since: float | None
    live: Live
    rollback_target: str | None
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One version and what the gate found about it.

    Attributes
    ----------
    version : Version
        Which.
    meaning : str
        What its state means.
    allowed : bool or None
        Whether the gate lets it through now; None where no gate has judged it.
    because : str
        Why.
    tally : tuple of (Verdict, int)
        How many findings of each verdict, worst first.
    checks : tuple of Figure
        The findings, worst first.
    """

    version: Version
    meaning: str
    allowed: bool | None
    because: str
    tally: tuple[tuple[Verdict, int], ...]
    checks: tuple[Figure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppPage:
    """Everything that an app's page shows."""

    status: AppStatus
    condition: Condition
    story: Story
    live: Live
    observed: str | None
    targets: tuple[str, ...]
    charts: tuple[Shown, ...]
    groups: tuple[Shown, ...]
    figures: tuple[Figure, ...]
    versions: tuple[Judged, ...]
    more_versions: int
    incidents: tuple[Incident, ...]
    happenings: tuple[Happening, ...]
    steps: tuple[Happening, ...]
    example: str
    settings: AppSettings | None = None

    @property
    def drawn(self) -> list[Shown]:
        """All that is drawn."""
        return [*self.charts, *self.groups]

    @property
    def notices(self) -> tuple[str, ...]:
        """Why a human is needed, beside what the headline says already."""
        if self.condition is DEGRADED:
            return self.status.degraded[1:]
        told = {BLIND.key: "should have judged", DEFAULT_OUTPUT.key: "every request"}
        said = told.get(self.condition.key)
        return tuple(one for one in self.status.degraded if said is None or said not in one)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentPage:
    """Everything that an incident's page shows."""

    incident: Incident
    story: Story
    verdict: Verdict
    chart: Shown | None
    groups: tuple[Shown, ...] = ()
    figures: tuple[Figure, ...] = ()
    happenings: tuple[Happening, ...] = ()
    now: float = field(default=0.0)

    @property
    def drawn(self) -> list[Shown]:
        """All that is drawn."""
        return [*([] if self.chart is None else [self.chart]), *self.groups]


class Views:
    """Reads what pages show.

    Parameters
    ----------
    source : Source
        The server.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._live = LiveFigures(source.figures)

    # --- all apps ---

    def overview(self, base_url: str) -> list[Summary]:
        """Read every app, those that need somebody first."""
        found = [self._summary(name, base_url) for name in self._source.names()]
        return sorted(found, key=lambda one: (not one.condition.grave, one.app))

    def _summary(self, app: str, base_url: str) -> Summary:
        registry = self._source.registry()
        status, _ = self._status(registry, app)
        live = self._live.of(app)
        moves = registry.events(app, limit=HISTORY)
        condition = condition_of(status, live, moves)
        return Summary(
            app=app,
            condition=condition,
            story=story_of(status, condition, live, moves),
            since=status.state.since,
            live=live,
            rollback_target=status.rollback_target,
            example=self._example(status, base_url),
        )

    def _status(self, registry: Registry, app: str) -> tuple[AppStatus, AppSettings | None]:
        project = self._source.project
        settings, problem = None, ""
        try:
            settings = load_app(project, app)
        except (ConfigError, NotFoundError) as error:
            problem = error.message
        disk = disk_of(project.log_dir, int(project.server.min_free_mib * 2**20))
        status = app_status(
            registry,
            app,
            settings,
            config_error=problem,
            now=self._source.clock(),
            disk=disk,
        )
        return status, settings

    def _example(self, status: AppStatus, base_url: str) -> str:
        active = status.state.active
        if active is None:
            return ""
        row = self._source.example(active.manifest)
        body = shlex.quote('{"input": ' + row + "}")
        return f"curl -X POST -d {body} {base_url.rstrip('/')}/{status.app}/predict"

    def known(self, app: str) -> str:
        """Return the name of an app that exists."""
        names = self._source.names()
        if app not in names:
            raise NotFoundError(
                f"there is no app of that name: {app}", hint=f"apps: {', '.join(names[:20])}"
            )
        return app

    # --- one app ---

    def app(self, app: str, base_url: str) -> AppPage:
        """Read one app.

        Raises
        ------
        NotFoundError
            If there is none of that name.
        RegistryError
            If the registry cannot be read.
        """
        registry = self._source.registry()
        status, settings = self._status(registry, self.known(app))
        live = self._live.of(app)
        events = registry.events(app, limit=400)
        results = registry.monitor_results(app, since=status.now - _BACK_S, limit=_RESULTS)
        versions = registry.versions(app)
        versions.sort(key=lambda one: -one.registered_at)
        judged = tuple(self._judged(registry, one) for one in versions[:VERSIONS])
        condition = condition_of(status, live, events)
        active = status.state.active
        name = "" if active is None else active.name
        mine = [(at, one) for at, one in results if one.version == name]
        groups = by_group((one for _, one in mine), "live traffic, last window")
        if not groups and active is not None:
            groups = by_group(_gate_of(registry, active), "the gate's test data")
        return AppPage(
            status=status,
            condition=condition,
            story=story_of(status, condition, live, events),
            live=live,
            observed=self._source.serving().get(app),
            targets=tuple(one.name for one in registry.rollback_targets(app)),
            charts=tuple(over_time(results, events)),
            groups=tuple(groups),
            figures=_newest(mine),
            versions=judged,
            more_versions=max(0, len(versions) - VERSIONS),
            incidents=tuple(registry.incidents(app)[:INCIDENTS]),
            happenings=tuple(
                happening(one) for one in [e for e in events if e.kind not in _STEPS][:HISTORY]
            ),
            steps=tuple(
                happening(one) for one in [e for e in events if e.kind in _STEPS][:HISTORY]
            ),
            example=self._example(status, base_url),
            settings=settings,
        )

    def _judged(self, registry: Registry, version: Version) -> Judged:
        decision = _decision(registry, version)
        if decision is None:
            return Judged(
                version=version, meaning=MEANINGS[version.state], allowed=None,
                because="no gate has judged it", tally=(), checks=(),
            )  # fmt: skip
        counted = Counter(one.verdict for one in decision.results)
        ordered = sorted(decision.results, key=lambda one: (-one.verdict.severity, one.name))
        return Judged(
            version=version,
            meaning=MEANINGS[version.state],
            allowed=decision.allowed,
            because=decision.because,
            tally=tuple(
                (verdict, counted[verdict]) for verdict in reversed(Verdict) if counted[verdict]
            ),
            checks=tuple(Check.of(one).line for one in ordered),
        )

    # --- one version, one incident ---

    def card(self, app: str, version: str) -> Card:
        """Read the card of a version.

        Raises
        ------
        NotFoundError
            If there is none of that name.
        ConfigError
            If app.toml is not valid: a card shows what it says.
        """
        registry, project = self._source.registry(), self._source.project
        found = registry.version(self.known(app), version)
        return build_card(
            load_app(project, app),
            registry,
            found,
            project=project.project.name,
            environment=project.project.environment,
            now=self._source.clock(),
        )

    def incident(self, number: int) -> IncidentPage:
        """Read one incident.

        Raises
        ------
        NotFoundError
            If there is none of that number.
        """
        registry = self._source.registry()
        incident = registry.incident(number)
        events = registry.events(incident.app, limit=2000)
        mine = [one for one in events if one.detail.get("incident") == number]
        check = str(incident.facts.get("check") or incident.monitor)
        chart = figure_over_time(registry, {"app": incident.app, "check": check})
        verdict = Verdict.FAILED if incident.state == "open" else Verdict.PASSED
        results = registry.monitor_results(
            incident.app, monitor=check.partition(".")[0], limit=_RESULTS
        )
        at = [
            (when, one)
            for when, one in results
            if one.version == incident.version and when <= incident.updated_at + 1
        ]
        return IncidentPage(
            incident=incident,
            story=_incident_story(registry, incident, mine),
            verdict=verdict,
            chart=None if chart is None else Shown(key_of("time", check), chart, verdict),
            groups=tuple(by_group((one for _, one in at), "the window that was judged")),
            figures=_newest(at),
            happenings=tuple(happening(one) for one in mine),
            now=self._source.clock(),
        )


def _decision(registry: Registry, version: Version) -> GateDecision | None:
    found = registry.evidence(version.app, version.digest)
    return registry.decision_now(found[0]) if found else None


def _gate_of(registry: Registry, version: Version) -> tuple[CheckResult, ...]:
    decision = _decision(registry, version)
    return () if decision is None else decision.results


def _newest(results: Iterable[tuple[float, MonitorResult]]) -> tuple[Figure, ...]:
    """Return the newest verdict of each figure, worst first."""
    found: dict[str, Figure] = {}
    for at, one in sorted(results, key=lambda pair: -pair[0]):
        found.setdefault(one.name, Figure.of(one, at))
    return tuple(sorted(found.values(), key=lambda one: (-one.verdict.severity, one.name)))


_DID = {
    "alert": "opened the incident and told by mail; traffic is unchanged",
    "freeze": "opened the incident and holds promotions; traffic is unchanged",
    "rollback": "rolled back",
    "default_output": "switched to the default output",
}


def _incident_story(registry: Registry, incident: Incident, mine: Sequence[Event]) -> Story:
    state = registry.app(incident.app)
    active = state.active
    serves = "Nothing serves."
    if active is not None:
        serves = (
            f"{active.name} serves, since {moment(state.since)} (generation {state.generation})."
            if state.mode.value == "SERVE"
            else "No model answers: every request gets the default output and says so."
        )
    move = next((one for one in mine if one.moved), None)
    did = f"On {moment(incident.opened_at)} mlguard {_DID[incident.level]}"
    if move is not None and move.kind == "rolled_back":
        did += f" to {move.version}"
    words = {"open": "is open", "cleared": "has cleared by itself", "closed": "is closed"}
    on = f" on {incident.version}" if incident.version else ""
    n = len(mine)
    return Story(
        happened=f"Incident {incident.id} of {incident.app} {words[incident.state]}: "
        f"{incident.monitor.replace('_', ' ')}{on}.",
        serves=serves,
        why=incident.summary,
        did=f"{did}. {count(n)} {'event' if n == 1 else 'events'} below.",
        next_step="Deploy what mends it, or say what it was:"
        if incident.state == "open"
        else f"It was: {incident.cause}"
        if incident.cause
        else "Nothing is needed.",
        command=f"mlguard deploy {incident.app} --resolves {incident.id}"
        if incident.state == "open"
        else "",
    )
