"""What a command did, as one value: the JSON document that every front prints."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from mlguard.results import CheckResult, GateDecision, Verdict
from mlguard.waivers import waiver_note

SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command did to one app.

    Attributes
    ----------
    command, app : str
        What was asked, and of which app.
    exit_code : int
        As INTERFACE lists them; 0 where it was done or already so.
    changed : bool
        Whether anything in the registry changed.
    generation : int
        The app's generation after the command.
    active : dict or None
        ``version, digest, state, since`` of what serves after the command.
    from_, to : str or None
        Names of the versions that traffic moved between.
    decision : GateDecision or None
        What the gate found, where it ran.
    reused_evidence : bool
        Whether the gate's finding was taken from an earlier run on the same bytes.
    rollback_target : str or None
        Version that a rollback would go to now.
    lines : tuple of str
        What happened, in sentences for people.
    next_step : str
        The command to type next.
    """

    command: str
    app: str
    exit_code: int = 0
    changed: bool = False
    generation: int = 0
    active: dict[str, Any] | None = None
    from_: str | None = None
    to: str | None = None
    decision: GateDecision | None = None
    reused_evidence: bool = False
    rollback_target: str | None = None
    operation: str | None = None
    incident: int | None = None
    notifications: dict[str, int] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    next_step: str = ""
    error: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether the command did what was asked."""
        return self.exit_code == 0

    def replace(self, **changes: Any) -> Outcome:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        verdict: Verdict | None = self.decision.verdict if self.decision else None
        return {
            "schema_version": SCHEMA_VERSION,
            "command": self.command,
            "ok": self.ok,
            "changed": self.changed,
            "exit_code": self.exit_code,
            "app": self.app,
            "generation": self.generation,
            "active": self.active,
            "from": self.from_,
            "to": self.to,
            "verdict": verdict.value if verdict else None,
            "checks": [check_to_json(one) for one in self.decision.results]
            if self.decision
            else [],
            "reused_evidence": self.reused_evidence,
            "rollback_target": self.rollback_target,
            "operation": self.operation,
            "incident": self.incident,
            "notifications": {"queued": 0, "sent": 0, "failed": 0} | self.notifications,
            "lines": list(self.lines),
            "next_step": self.next_step,
            "error": self.error,
        }


def check_to_json(result: CheckResult) -> dict[str, Any]:
    """Return one check as it stands in ``checks`` of the document."""
    keys = (
        "id",
        "subject",
        "verdict",
        "enforcement",
        "value",
        "limit",
        "interval",
        "n",
        "n_min",
        "reason",
        "summary",
        "next_step",
        "waived_by",
        "nonfinite",
    )
    document = result.to_json()
    return {key: document[key] for key in keys if key in document} | {"waiver": waiver_note(result)}
