"""The audit trail in words: what an event was, for reports and cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlguard.reports.view import Happening, Mark

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlguard.registry.records import Event

_WORDS = {
    "registered": "{version} registered",
    "staged": "{version} loaded beside what serves",
    "promoted": "{version} promoted",
    "confirmed": "{version} confirmed",
    "rolled_back": "rolled back to {version}",
    "default_output": "default output",
    "blocked": "blocked: default output",
    "unblocked": "unblocked",
    "refused": "{version} refused",
    "aborted": "deploy of {version} aborted",
    "incident_opened": "incident opened on {version}",
    "waived": "a finding of {version} waived",
    "released": "{version} released from quarantine",
    "hold": "promotions held",
    "hold_expired": "a hold has ended",
    "resumed": "promotions resumed",
    "verified": "{version} loads and answers",
    "passed": "{version} let through",
    "gate_passed": "the gate judged {version}",
}


def happening(event: Event) -> Happening:
    """Return an event of the audit trail as a line of a history."""
    words = _WORDS.get(event.kind, event.kind.replace("_", " ") + " {version}")
    what = words.format(version=event.version or event.app).strip()
    incident = event.detail.get("incident")
    if event.kind == "incident_opened" and incident:
        what = f"incident {incident} opened" + (f" on {event.version}" if event.version else "")
    return Happening(at=event.at, what=what, who=event.actor, why=event.reason)


def marks_of(events: Iterable[Event]) -> tuple[Mark, ...]:
    """Return what a time axis shows of the audit trail: moves and incidents, oldest first."""
    marks = []
    for one in sorted(events, key=lambda event: (event.at, event.seq)):
        if one.kind == "promoted":
            marks.append(Mark(at=one.at, label=one.version))
        elif one.kind == "rolled_back":
            marks.append(Mark(at=one.at, label=f"back to {one.version}", kind="rollback"))
        elif one.kind in ("default_output", "blocked"):
            marks.append(Mark(at=one.at, label="default output", kind="default_output"))
        elif one.kind == "incident_opened":
            number = one.detail.get("incident")
            marks.append(Mark(at=one.at, label=f"incident {number}", kind="incident"))
    return tuple(marks)
