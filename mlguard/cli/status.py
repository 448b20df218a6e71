"""How ``status`` and ``history`` look, on a terminal and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mlguard import wording
from mlguard.cli.terminal import FAMILY, STYLES, Line, headline, indented
from mlguard.deploy.false_alarms import FalseAlarms
from mlguard.deploy.history import History, event_document
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.deploy.status import AppStatus, MonitorStatus, RolloutStatus
from mlguard.registry import Event, Mode
from mlguard.waivers import Waiver
from mlguard.wording import ago, duration, moment, rfc3339

_DAYS = 30
_MONITOR_WORDS = {
    "armed": "armed",
    "waiting": "waiting for more rows or labels",
    "idle": "no traffic judged yet",
    "blind": "should have judged by now and has not",
}


def status_lines(found: Sequence[AppStatus]) -> list[Line]:
    """Show what serves each app: what, since when, why, what is watched, what is next."""
    if not found:
        return ["  No apps yet: there is no serving/*/app.toml.", "  next: mlguard init"]
    lines: list[Line] = []
    for one in found:
        lines += [*_app(one), ""]
    return lines[:-1]


def _app(one: AppStatus) -> list[Line]:
    lines = _headline(one)
    if one.config_error:
        lines += _entry("settings", f"✗ {one.config_error}", "red")
    if one.last_event is not None:
        lines += _entry("last", _event(one.last_event, one.now))
    lines += _candidate(one)
    for hold in one.holds:
        ends = "until it is resumed"
        if hold.expires is not None:
            ends = f"for {duration(hold.expires - one.now)} more"
        lines += _entry("on hold", f"! {hold.reason} ({ends})", "yellow")
    for incident in one.incidents:
        text = f"✗ {incident.id}: {incident.summary} ({ago(incident.opened_at, one.now)})"
        lines += _entry("incident", text, "red")
    for waiver in one.waived.waivers:
        lines += _entry("waived", *_waiver(waiver, one.waived.now))
    lines += _monitors(one)
    if one.acts_from is not None and any(m.failed for m in one.monitors):
        text = f"nothing acts before {moment(one.acts_from)}, a while after a switch: [auto] grace"
        lines += _entry("grace", f"! {text}", "yellow")
    lines += _entry("servers", _servers(one))
    lines += _entry("rollback", _rollback(one))
    if one.disk is not None and one.servers:
        lines += _entry("disk", one.disk.says(), "red" if one.disk.low else "dim")
    for reason in one.degraded:
        lines += _entry("degraded", f"✗ {reason}", "red")
    return [*lines, [("  next: ", "dim"), (_next(one), "")]]


def _headline(one: AppStatus) -> list[Line]:
    state = one.state
    if state.generation == 0:
        return headline(one.app, ("– nothing deployed", "dim"))
    if state.mode is Mode.DEFAULT_OUTPUT:
        return headline(f"{one.app}  default output", ("✗ blocked", "red"))
    active = state.active
    assert active is not None
    mark = ("✓ live", "green")
    if active.state.value == "BAKING":
        mark = ("! being watched", "yellow")
    if one.degraded:
        mark = ("✗ degraded", "red")
    since = f"{ago(state.since, one.now)}, generation {state.generation}"
    return headline(f"{one.app}  {active.name}  since {moment(state.since)} ({since})", mark)


def _candidate(one: AppStatus) -> list[Line]:
    if one.rollout is not None and one.rollout.steps:
        return _rollout_lines(one.rollout, one.now)
    if one.candidate is None:
        return []
    return _entry("candidate", f"{one.candidate.name} is {one.candidate.state.lower()}")


def _rollout_lines(found: RolloutStatus, now: float) -> list[Line]:
    since = "" if found.since is None else f", {ago(found.since, now)}"
    lines = _entry("candidate", f"{found.version}: {found.words}{since}", "yellow")
    for one in found.findings:
        lines += _entry("", f"{one.verdict.mark} {one.summary}", STYLES[one.verdict])
    return lines


def _entry(label: str, text: str, style: str = "") -> list[Line]:
    first, *more = indented(wording.printable(text, 400), FAMILY + 2)
    head: Line = [(f"  {label:<{FAMILY}}", "dim"), (first.strip(), style)]
    return [head, *[[(line, style)] for line in more]]


def _monitors(one: AppStatus) -> list[Line]:
    lines: list[Line] = []
    label = "monitors"
    for monitor in one.monitors:
        lines += _monitor(label, monitor)
        label = ""
    if one.false_alarms is not None:
        for text in false_alarm_words(one.false_alarms):
            lines += _entry(label, text, "dim")
    return lines


def _monitor(label: str, monitor: MonitorStatus) -> list[Line]:
    name = f"{monitor.id.replace('_', ' ')}: "
    if monitor.last is None:
        return _entry(label, f"– {name}{_MONITOR_WORDS[monitor.state]}", "dim")
    last = monitor.last
    return _entry(label, f"{last.verdict.mark} {name}{last.summary}", STYLES[last.verdict])


def _waiver(waiver: Waiver, now: float) -> tuple[str, str]:
    """Say what what-serves was let through in spite of; warn from a week before the end."""
    text = f"{waiver.name}: {waiver.says(now)}: {waiver.reason}"
    state = waiver.state(now)
    if state == "active":
        return text, ""
    if state == "expiring":
        return f"! {text}", "yellow"
    return f"✗ {text}; the next deploy of these bytes is refused", "red"


def false_alarm_words(found: FalseAlarms) -> Iterator[str]:
    """Say what to expect: of those that look at every label, and of those that judge windows."""
    if found.unpromised:
        yield f"{found.unpromised} promises nothing about false alarms"
    if found.per_30_days and found.labels_per_day:
        runs = (
            f"; errors in runs (lag-1 correlation {found.lag1_correlation:.2f}) leave "
            f"{found.kept_run_length:,.0f} of {found.average_run_length:,.0f} labels"
            if found.kept_run_length
            and found.average_run_length
            and found.lag1_correlation
            and found.kept_run_length < found.average_run_length
            else ""
        )
        yield (
            "expected false alarms at today's traffic, of monitors that look at every label: "
            f"{_at_most(found.per_30_days)} ({found.labels_per_day:,.0f} labels a day{runs})"
        )
    if found.windows:
        yield (
            "expected false alerts, were every true value at its very limit, of monitors that "
            f"judge windows: {_at_most(found.of_windows)} "
            f"({sum(one.windows_per_day for one in found.windows):,.0f} windows a day)"
        )


def _at_most(per_30_days: float) -> str:
    """Write a rate as people count: so many in 30 days, or one in so many."""
    if per_30_days >= 1:
        return f"at most {wording.count(math.ceil(per_30_days))} in 30 days"
    # A little more, for what division leaves of a whole number of days.
    days = math.floor(_DAYS / per_30_days + 1e-6) if per_30_days > 0 else 0
    return f"at most one in {wording.count(days)} days" if days else "none"


def _servers(one: AppStatus) -> str:
    if not one.servers:
        return "– none running"
    behind = one.lagging()
    count = f"{len(one.servers)} running"
    if behind:
        return f"! {count}; behind: {wording.listed([server.id for server in behind])}"
    return f"✓ {count}, all on generation {one.state.generation}"


def _rollback(one: AppStatus) -> str:
    if one.rollback_target is None:
        return "no earlier version to go back to; --to-default is possible"
    return f"would go to {one.rollback_target}"


def _next(one: AppStatus) -> str:
    if one.state.generation == 0:
        return f"mlguard deploy {one.app}"
    if one.state.mode is Mode.DEFAULT_OUTPUT:
        return f"mlguard history {one.app}"
    if one.rollout is not None and one.rollout.steps:
        return f"mlguard promote {one.app}, or mlguard abort {one.app}"
    if one.holds:
        return f"mlguard resume {one.app} --reason …"
    if not one.servers:
        return "mlguard serve"
    return f"mlguard report {one.app}"


def _event(event: Event, now: float) -> str:
    version = f" {event.version}" if event.version else ""
    return f"{event.kind}{version} by {event.actor}, {ago(event.at, now)}: {event.reason}"


def status_document(found: Sequence[AppStatus], *, one: bool) -> dict[str, Any]:
    """Return the JSON document of ``status``: one app's own keys, or a list of all."""
    code = max((app.exit_code for app in found), default=0)
    head = {
        "schema_version": SCHEMA_VERSION,
        "command": "status",
        "ok": code == 0,
        "changed": False,
        "exit_code": code,
    }
    if one:
        return head | _app_document(found[0])
    return head | {"apps": [_app_document(app) for app in found]}


def _app_document(one: AppStatus) -> dict[str, Any]:
    active = one.state.active
    return {
        "app": one.app,
        "generation": one.state.generation,
        "mode": one.state.mode.value,
        "active": None
        if active is None
        else {
            "version": active.name,
            "digest": active.digest,
            "state": active.state.value,
            "since": None if one.state.since is None else rfc3339(one.state.since),
        },
        "reason": one.state.reason,
        "candidate": None if one.candidate is None else one.candidate.name,
        "rollout": None if one.rollout is None else one.rollout.to_json(),
        "rollback_target": one.rollback_target,
        "monitors": [monitor.to_json() for monitor in one.monitors],
        "false_alarms": None if one.false_alarms is None else one.false_alarms.to_json(),
        "holds": [{"reason": hold.reason, "actor": hold.actor} for hold in one.holds],
        "incidents": [
            {"id": incident.id, "summary": incident.summary, "level": incident.level}
            for incident in one.incidents
        ],
        "waivers": [waiver.to_json(one.waived.now) for waiver in one.waived.waivers],
        "servers": [
            {"id": server.id, "url": server.url, "generation": server.observed.get(one.app, 0)}
            for server in one.servers
        ],
        "silent": [
            {"id": server.id, "url": server.url, "generation": server.observed.get(one.app, 0)}
            for server in one.silent
        ],
        "disk": None
        if one.disk is None
        else {"free_bytes": one.disk.free, "floor_bytes": one.disk.floor, "low": one.disk.low},
        "degraded": list(one.degraded),
        "notifications": one.mail,
        "config_error": one.config_error or None,
    }


def history_lines(found: History) -> list[Line]:
    """Show the audit trail, the newest last."""
    lines: list[Line] = []
    if not found.events:
        lines.append("  Nothing has happened yet.")
    reason = ""
    for event in found.events:
        who = f"{event.app} {event.version}".strip()
        style = "bold" if event.moved else ""
        first, *more = indented(f"{event.kind}  {who}", 30)
        head: Line = [
            (f"  {moment(event.at)}  ", "dim"),
            (f"{event.generation:>4}  ", "dim"),
            (first.strip(), style),
        ]
        lines += [head, *([(one, style)] for one in more)]
        # Two facts of one decision have one reason: it is read once.
        if event.reason != reason:
            lines += list(indented(f"{event.reason} – {event.actor}", 30))
        reason = event.reason
    if found.at is not None:
        served = found.served
        what = "nothing was deployed" if served is None else _served(served)
        lines += ["", f"  At {moment(found.at)} {what}."]
    if found.verified:
        lines += ["", _chain(found)]
    return lines


def _served(event: Event) -> str:
    what = event.version or "the default output"
    return f"{what} served (generation {event.generation}, since {moment(event.at)})"


def _chain(found: History) -> Line:
    if found.first_bad is None:
        return [("  ✓ the record is whole: every entry fits the one before it", "green")]
    return [(f"  ✗ entry {found.first_bad} was edited or deleted, or one before it", "red")]


def history_document(found: History) -> dict[str, Any]:
    """Return the JSON document of ``history``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "history",
        "ok": found.exit_code == 0,
        "changed": False,
        "exit_code": found.exit_code,
        "app": found.app,
        "events": [event_document(event) for event in found.events],
        "at": None if found.at is None else rfc3339(found.at),
        "served": None if found.served is None else found.served.version or None,
        "verified": found.first_bad is None if found.verified else None,
        "first_bad": found.first_bad,
    }
