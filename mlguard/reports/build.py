"""From the registry, the prediction log and the labels to a report.

Everything is read, nothing is decided: verdicts of the monitors stand as they were recorded;
figures of the whole period (drift, groups, performance) are estimated here with the same
statistics and say which period they are of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mlguard.reports.features import feature_drift
from mlguard.reports.groups import group_charts
from mlguard.reports.happenings import happening, marks_of
from mlguard.reports.performance import calibration, over_time
from mlguard.reports.schedule import last_report
from mlguard.reports.story import tell
from mlguard.reports.traffic import Labels, Log, Traffic, positive_class, read_traffic
from mlguard.reports.view import (
    Change,
    Figure,
    ReportView,
    Service,
    TimeChart,
    Waived,
)
from mlguard.results import GateDecision, MonitorResult, Verdict
from mlguard.wording import count, listed, share

if TYPE_CHECKING:
    from mlguard.config import AppSettings, ProjectSettings
    from mlguard.registry import Registry
    from mlguard.registry.records import AppState, Event, Version

#: Lines of history that a report shows.
HISTORY = 40
#: Recorded verdicts read, at most: a fortnight of hourly windows over fifty features.
RESULTS = 20_000

DEFAULT_OUTPUT = "the default output"
_BAD = frozenset({Verdict.WARNED, Verdict.FAILED, Verdict.ERRORED})

Recorded = Sequence[tuple[float, MonitorResult]]


def build_report(
    project: ProjectSettings,
    settings: AppSettings,
    registry: Registry,
    log: Log,
    labels: Labels | None,
    *,
    since: float,
    until: float,
    now: float,
) -> ReportView:
    """Build the report of one app and one period.

    Parameters
    ----------
    project : ProjectSettings
    settings : AppSettings
        Of the app; its name chooses the app.
    registry : Registry
    log : PredictionLog
    labels : LabelStore or None
        Labels of the app's predictions; None where there are none.
    since, until : float
        The period, seconds since the epoch.
    now : float
        When the report is built.

    Returns
    -------
    ReportView

    Raises
    ------
    RegistryError
        If the registry cannot be read.
    DataError
        If the prediction log is damaged.
    """
    app = settings.name
    state = registry.app(app)
    versions = registry.versions(app)
    attributes = [
        *settings.data.sensitive,
        *settings.monitor.fairness.by,
        *settings.gate.fairness.columns,
    ]
    traffic = read_traffic(
        log,
        labels,
        app,
        [(one.id, one.name) for one in versions],
        since=since,
        until=until,
        keep=list(dict.fromkeys(attributes)),
    )
    judged_version = _judged_version(state, versions, traffic)
    reference = None if judged_version is None else registry.reference(app, judged_version.digest)
    last = last_report(registry, app, until)
    earlier = since if last is None else min(last, until)
    length = until - since
    results = registry.monitor_results(app, since=min(since, earlier) - length, limit=RESULTS)
    current = [(at, one) for at, one in results if since <= at < until]
    figures = _latest(current)
    trail = registry.events(app)
    events = [one for one in trail if since <= one.at < until]
    events.sort(key=lambda one: -one.seq)
    drift = feature_drift(reference, traffic, settings.monitor.data_drift)
    groups = group_charts(settings, reference, traffic)
    everything = [*figures, *(one.figure for one in drift)]
    return ReportView(
        app=app,
        project=project.project.name,
        environment=project.project.environment,
        since=since,
        until=until,
        at=now,
        description=settings.app.description,
        owner=settings.app.owner,
        story=tell(
            state,
            events=events,
            incidents=registry.incidents(app, open_only=True),
            holds=registry.holds(app),
            figures=everything,
            predictions=len(traffic),
        ),
        version="" if state.active is None else state.active.name,
        state="" if state.active is None else state.active.state.value,
        serving_since=state.since,
        generation=state.generation,
        figures=figures,
        performance=_performance(
            settings, reference, traffic, current, events, since=since, until=until
        ),
        drift=drift,
        groups=groups,
        calibration=calibration(traffic, positive_class(reference)),
        service=_service(traffic),
        gate=_gate(registry, state),
        waived=_waived(registry, app),
        changes=_changes([(at, one) for at, one in results if at < earlier], current),
        last_report=last,
        served_then=_served_then(trail, state, earlier),
        happenings=tuple(happening(one) for one in events[:HISTORY]),
        not_judged=tuple(_not_judged(settings, reference, traffic, judged_version)),
    )


def _judged_version(
    state: AppState, versions: Iterable[Version], traffic: Traffic
) -> Version | None:
    """Return the version whose reference the traffic is held against.

    The one that serves; where nothing serves, the one that answered most.
    """
    if state.active is not None:
        return state.active
    most = Counter(traffic.version.tolist()).most_common(1)
    return next((one for one in versions if most and one.name == most[0][0]), None)


def _latest(results: Recorded) -> tuple[Figure, ...]:
    """Return the newest verdict of each check, subject and version; worst first."""
    found: dict[tuple[str, str, str], Figure] = {}
    for at, one in sorted(results, key=lambda pair: -pair[0]):
        found.setdefault((one.id, one.subject, one.version), _without_itself(Figure.of(one, at)))
    return tuple(sorted(found.values(), key=lambda one: (-one.verdict.severity, one.name)))


def _without_itself(figure: Figure) -> Figure:
    """Return a figure that does not send its reader to the report that it stands in."""
    again = figure.next_step.startswith("mlguard report")
    return msgspec.structs.replace(figure, next_step="") if again else figure


def _changes(before: Recorded, now: Recorded) -> tuple[Change, ...]:
    """Return the verdicts that are others than they were, and those that are new and bad.

    A monitor that had not judged before is news only where it is not content.
    """

    def newest(results: Recorded) -> dict[str, MonitorResult]:
        return {one.name: one for _, one in sorted(results, key=lambda pair: pair[0])}

    old, new = newest(before), newest(now)
    return tuple(
        Change(name=name, before=old[name].verdict if name in old else None, after=one.verdict)
        for name, one in sorted(new.items())
        if (old[name].verdict is not one.verdict if name in old else one.verdict in _BAD and old)
    )


def _served_then(trail: Iterable[Event], state: AppState, at: float) -> str:
    """Return what served at a time, empty where nothing did or where it serves now."""
    moves = [one for one in trail if one.moved and one.at < at]
    if not moves:
        return ""
    newest = max(moves, key=lambda one: one.seq)
    then = newest.version if newest.kind not in ("default_output", "blocked") else DEFAULT_OUTPUT
    now = DEFAULT_OUTPUT if state.active is None else state.active.name
    return then if then != now else ""


def _performance(
    settings: AppSettings,
    reference: Mapping[str, Any] | None,
    traffic: Traffic,
    results: Recorded,
    events: Sequence[Event],
    *,
    since: float,
    until: float,
) -> tuple[TimeChart, ...]:
    limits = [one.limit for _, one in results if one.family == "concept_drift" and one.limit]
    chart = over_time(
        traffic,
        reference,
        regression=settings.app.task == "regression",
        limit=limits[0] if limits else None,
        marks=marks_of(events),
        since=since,
        until=until,
    )
    return () if chart is None else (chart,)


def _service(traffic: Traffic) -> Service:
    latency = traffic.latency_ms[np.isfinite(traffic.latency_ms)]
    p50, p95, p99 = (
        (float(one) for one in np.percentile(latency, (50, 95, 99)))
        if latency.size
        else (None, None, None)
    )
    causes = Counter(str(one or "no reason given") for one in traffic.explanation[traffic.default])
    return Service(
        predictions=len(traffic),
        labels=int(traffic.labelled.sum()),
        defaults=int(traffic.default.sum()),
        causes=tuple(causes.most_common(5)),
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        latency_p99_ms=p99,
        by_version=tuple(Counter(traffic.version.tolist()).most_common(8)),
    )


def _gate(registry: Registry, state: AppState) -> tuple[Figure, ...]:
    """Return what the gate last found about the version that serves; worst first."""
    if state.active is None:
        return ()
    found = registry.evidence(state.app, state.active.digest)
    if not found:
        return ()
    decision = GateDecision.from_json(found[0].decision)
    results = sorted(decision.results, key=lambda one: -one.verdict.severity)
    return tuple(Figure.of(one) for one in results)


def _waived(registry: Registry, app: str) -> tuple[Waived, ...]:
    """Return the waivers that the gate needed to let what serves through."""
    book = registry.serving_waivers(app)
    return tuple(Waived.of(one, book.now) for one in book.waivers)


def _not_judged(
    settings: AppSettings,
    reference: Mapping[str, Any] | None,
    traffic: Traffic,
    version: Version | None,
) -> Iterable[str]:
    if not len(traffic):
        yield "There was no traffic in this period."
        return
    open_rows = int((~traffic.labelled & ~traffic.default).sum())
    if open_rows:
        total = int((~traffic.default).sum())
        yield (
            f"{count(open_rows)} of {count(total)} predictions ({share(open_rows / total)}) "
            "have no label yet: performance and error rates per group are of those that have one."
        )
    if reference is None:
        name = "the version" if version is None else version.name
        yield f"Drift: {name} has no reference; the next deploy writes one."
    elif settings.log.inputs == "none":
        yield "Drift of inputs: the log keeps none ([log] inputs)."
    else:
        known = ((reference.get("profile") or {}).get("features") or {}).keys()
        absent = sorted(name for name in known if name not in traffic.columns and name != "score")
        if absent:
            yield f"Drift of {listed(absent)}: not in the log ([log] redact)."
    for attribute in dict.fromkeys(settings.data.sensitive):
        unknown = sum(one is None for one in traffic.attribute(attribute))
        if unknown:
            yield (
                f"{count(unknown)} rows do not say their {attribute}: send it with each request "
                f'("groups").'
            )
