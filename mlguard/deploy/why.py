"""Why a version is in the state it is in: what was done to it, on what evidence, and what is next.

Everything comes from the record: events of the audit trail that name the version, what gates
decided about its digest, the incident that condemned it, the waivers it leaned on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard.deploy.card import version_of
from mlguard.deploy.history import event_document
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.registry import Event, Evidence, Incident, State, Version
from mlguard.results import GateDecision
from mlguard.wording import rfc3339

if TYPE_CHECKING:
    from mlguard.registry import Registry

#: What a state means, for somebody who reads it for the first time.
MEANINGS = {
    State.REGISTERED: "known, and not looked at yet",
    State.VERIFIED: "loads and answers; no gate has decided",
    State.PASSED: "the gate let it through; it does not serve",
    State.REJECTED: "the gate said no",
    State.HELD: "the gate could not decide, or an approval is missing",
    State.STAGED: "loaded beside what serves, without traffic",
    State.SHADOW: "gets copies of requests; its answers reach nobody",
    State.CANARY: "answers a part of the requests",
    State.BAKING: "answers everybody, and is being watched",
    State.LIVE: "answers everybody, and is confirmed",
    State.STANDBY: "served well before; a rollback may go to it",
    State.QUARANTINED: "failed in service; its bytes are barred",
    State.BROKEN: "its bytes are missing or are not what was registered",
    State.ARCHIVED: "too old to go back to",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The story of one version.

    Attributes
    ----------
    version : Version
        Whose story.
    events : tuple of Event
        What was done to it, the oldest first.
    evidence : tuple of Evidence
        What gates decided about its bytes, newest first.
    decision : GateDecision or None
        What the newest of it comes to with the waivers that are valid now.
    incident : Incident or None
        What condemned it.
    quarantine : str
        Why its bytes are barred; empty where they are not.
    holds : tuple of str
        What bars every promotion of the app now.
    next_step : str
        What to type.
    """

    version: Version
    events: tuple[Event, ...]
    evidence: tuple[Evidence, ...]
    decision: GateDecision | None
    incident: Incident | None
    quarantine: str
    holds: tuple[str, ...]
    next_step: str

    @property
    def meaning(self) -> str:
        """What its state means."""
        return MEANINGS[self.version.state]

    @property
    def because(self) -> str:
        """The reason that the record gives for its state."""
        return self.events[-1].reason if self.events else "nothing is on record about it"

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``mlguard why``."""
        one, incident = self.version, self.incident
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "why",
            "ok": True,
            "changed": False,
            "exit_code": 0,
            "app": one.app,
            "version": one.name,
            "digest": one.digest,
            "state": one.state.value,
            "since": rfc3339(one.state_at),
            "meaning": self.meaning,
            "because": self.because,
            "message": one.message,
            "commit": one.commit or None,
            "registered_by": one.registered_by,
            "events": [event_document(event) for event in self.events],
            "evidence": [
                {
                    "id": known.id,
                    "at": rfc3339(known.at),
                    "actor": known.actor,
                    "allowed": known.allowed,
                    "verdict": known.verdict,
                    "because": known.decision.get("because", ""),
                    "policy_digest": known.policy_digest,
                    "data_digest": known.data_digest,
                    "code_version": known.code_version,
                }
                for known in self.evidence
            ],
            "blocking": []
            if self.decision is None
            else [
                {"check": check.name, "verdict": check.verdict.value, "summary": check.summary}
                for check in self.decision.blocking
            ],
            "incident": None if incident is None else incident.id,
            "quarantine": self.quarantine or None,
            "holds": list(self.holds),
            "next_step": self.next_step,
        }


def explain_version(registry: Registry, app: str, name: str | None) -> Why:
    """Read the story of a version; None: of the active one.

    Raises
    ------
    NotFoundError
        If there is none of that name, or none is active.
    """
    version = version_of(registry, app, name)
    mine = [one for one in registry.events(app) if _concerns(one, version)]
    evidence = tuple(registry.evidence(app, version.digest))
    barred = registry.quarantined(app, version.digest)
    number = version.incident
    if number is None and barred is not None:
        number = barred.incident
    return Why(
        version=version,
        events=tuple(sorted(mine, key=lambda one: one.seq)),
        evidence=evidence,
        decision=registry.decision_now(evidence[0]) if evidence else None,
        incident=None if number is None else registry.incident(number),
        quarantine="" if barred is None else barred.reason,
        holds=tuple(one.reason for one in registry.holds(app)),
        next_step=_next(registry, version),
    )


def _concerns(event: Event, version: Version) -> bool:
    """Return whether an event speaks of a version: by name, or as what a move came from."""
    named = version.name in (event.version, event.detail.get("from"), event.detail.get("to"))
    return named or event.detail.get("digest") == version.digest


def _next(registry: Registry, version: Version) -> str:
    app, name, state = version.app, version.name, version.state
    by_state = {
        State.QUARANTINED: f'mlguard release {app} {name} --reason "…"',
        State.BROKEN: "mlguard registry repair --from FILE",
        State.REJECTED: f"mlguard card {app} {name}",
    }
    if state in by_state:
        return by_state[state]
    if registry.holds(app):
        return f'mlguard resume {app} --reason "…"'
    if state in (State.BAKING, State.LIVE):
        return f"mlguard status {app}"
    if state is State.STANDBY:
        return f'mlguard rollback {app} --to {name} --reason "…"'
    return f"mlguard deploy {app}"
