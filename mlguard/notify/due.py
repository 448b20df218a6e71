"""What is to be told because time has passed: reminders, and the daily digest.

Both are promised in the outbox like every other mail, each in a transaction that asks whether
it was promised already.  So it does not matter who asks or how often, and a clock that goes
back makes no second digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlguard.notify.hours import last_digest
from mlguard.notify.pacing import DIGEST
from mlguard.results import MonitorResult, Verdict
from mlguard.wording import ago, count, moment, rfc3339

if TYPE_CHECKING:
    from mlguard.config import ProjectSettings
    from mlguard.registry import Registry

DAY_S = 86400.0
#: A digest looks back this far at most, however long nobody was there to make one.
LONGEST_S = 7 * DAY_S
REMINDER = "reminder"


def reminder_due(
    opened_at: float, told: Sequence[tuple[str, float]], repeat: float, now: float
) -> bool:
    """Whether people are reminded of an incident that is still open.

    Parameters
    ----------
    opened_at : float
        When it was opened.
    told : sequence of (str, float)
        What was told of it, oldest first: kind and time.
    repeat : float
        Seconds of silence after which people are reminded for the first time; then daily.
    now : float

    Examples
    --------
    >>> reminder_due(0, [("alert", 0)], 4 * 3600, 4 * 3600)
    True
    >>> reminder_due(0, [("alert", 0), ("reminder", 14400)], 4 * 3600, 8 * 3600)
    False
    """
    newest = max([opened_at, *(at for _, at in told)])
    reminded = bool(told) and told[-1][0] == REMINDER
    return now - newest >= (max(repeat, DAY_S) if reminded else repeat)


def promise_due(project: ProjectSettings, registry: Registry, now: float) -> list[str]:
    """Promise the reminders and the digest that are due; say in a word each what was promised."""
    promised = _reminders(project, registry, now)
    due = last_digest(project.notify.digest, now)
    before = registry.outbox.last_once(DIGEST)
    if before is None:
        # A new installation has nothing to look back on.
        registry.outbox.once(DIGEST, due, DIGEST, {})
    elif before < due:
        facts = digest_facts(project, registry, since=max(before, due - LONGEST_S), now=now)
        if registry.outbox.once(DIGEST, due, DIGEST, facts):
            promised.append(DIGEST)
    return promised


def _reminders(project: ProjectSettings, registry: Registry, now: float) -> list[str]:
    promised = []
    for one in registry.incidents(open_only=True):
        told = registry.outbox.thread(one.id)
        repeat = project.notify.repeat
        if not reminder_due(one.opened_at, told, repeat, now):
            continue
        facts = {
            **one.facts,
            "app": one.app,
            "version": one.version,
            "level": one.level,
            "why": one.facts.get("why") or one.summary,
            "opened_at": one.opened_at,
            "generation": registry.app(one.app).generation,
            "incident": one.id,
            "at": rfc3339(now),
            **_place(project),
            **dict.fromkeys(("happened", "serves", "did", "next", "command"), ""),
            "serves": _serves(registry, one.app),
        }
        newest = max([one.opened_at, *(at for _, at in told)])
        if registry.outbox.remind(one.id, one.app, facts, since=newest):
            promised.append(f"{REMINDER} of incident {one.id}")
    return promised


def digest_facts(
    project: ProjectSettings, registry: Registry, *, since: float, now: float
) -> dict[str, Any]:
    """Return what a digest tells; empty where there is nothing to tell.

    Warnings of monitors, waivers of what serves that end within a week or have ended, and what
    came of trying the versions that could be gone back to.
    """
    warned: list[dict[str, Any]] = []
    waivers: list[str] = []
    tried: list[str] = []
    broken = 0
    serving: list[str] = []
    for state in registry.apps():
        app = state.app
        if state.generation:
            serving.append(_serves(registry, app))
        warned += _warnings(app, registry.monitor_results(app, since=since, limit=2000))
        book = registry.waiver_book(app)
        waivers += [
            f"{app}: {one.name}: {one.says(book.now)}."
            for one in book.waivers
            if one.state(book.now) == "expiring"
            or (one.state(book.now) == "expired" and one.expires >= since)
        ]
        rehearsed = registry.monitor_state(app, 0, 0, "rehearsal")
        if rehearsed is not None and "ok" in rehearsed and rehearsed["at"] >= since:
            broken += not rehearsed["ok"]
            mark = "✓" if rehearsed["ok"] else "✗"
            tried.append(
                f"{mark} {app}: {rehearsed['version']}, tried {ago(rehearsed['at'], now)}: "
                f"{rehearsed['reason']}."
            )
    if not (warned or waivers or broken):
        return {}
    counted = [
        _counted(len(warned), "warning", "warnings"),
        _counted(len(waivers), "waiver that ends or ended", "waivers that end or ended"),
        _counted(broken, "version that cannot be gone back to",
                 "versions that cannot be gone back to"),
    ]  # fmt: skip
    sections = [
        {"title": "Waivers that end within a week, or have ended", "lines": waivers},
        {"title": "Versions that a rollback would go to", "lines": tried},
    ]
    return {
        "at": rfc3339(now),
        **_place(project),
        "serves": " ".join(one for one in serving if one),
        "why": f"What could wait is told once a day: this is from {moment(since)} on.",
        "counted": [one for one in counted if one],
        "table_title": "Warned, worst first",
        "figures": warned,
        "sections": [one for one in sections if one["lines"]],
    }


def _place(project: ProjectSettings) -> dict[str, str]:
    return {"project": project.project.name, "environment": project.project.environment}


def _serves(registry: Registry, app: str) -> str:
    state = registry.app(app)
    if state.active is None or state.mode.value != "SERVE":
        return f"{app} answers with its default output."
    return f"{state.active.name} serves {app}."


def _counted(n: int, one: str, many: str) -> str:
    return f"{count(n)} {one if n == 1 else many}" if n else ""


def _warnings(app: str, recorded: Sequence[tuple[float, MonitorResult]]) -> list[dict[str, Any]]:
    """Return the newest warning of each check, and in how many windows it warned."""
    found: dict[tuple[str, str], tuple[MonitorResult, int]] = {}
    for _, one in recorded:  # newest first
        if one.verdict is Verdict.WARNED:
            newest, times = found.get((one.id, one.subject), (one, 0))
            found[one.id, one.subject] = newest, times + 1
    rows = []
    for one, times in found.values():
        document = one.to_json()
        often = "" if times == 1 else f"in {count(times)} windows"
        rows.append(
            {
                "id": f"{app}: {one.id}",
                "subject": " ".join(part for part in (one.subject, often) if part),
                **{key: document.get(key) for key in ("value", "limit", "interval", "n")},
                "verdict": one.verdict.value,
            }
        )
    return rows
