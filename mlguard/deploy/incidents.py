"""``mlguard incident``: what happened, what serves now, why, what was done, what to do next.

Everything comes from the record: the incident's facts, the audit trail, what serves; example
rows from the prediction log.  Nothing is judged again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlguard.config import AppSettings, ProjectSettings
from mlguard.deploy.incident_rows import examples, read_rows
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.errors import MlguardError
from mlguard.wording import rfc3339

if TYPE_CHECKING:
    from mlguard.registry import AppState, Event, Incident, Registry

#: What an incident came to, by its level.
CAME_TO = {
    "alert": "told",
    "freeze": "new deploys held",
    "rollback": "rolled back",
    "default_output": "default output",
}
#: Incidents that are listed.
LISTED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentStory:
    """One incident with all that is known of it.

    Attributes
    ----------
    incident : Incident
    state : AppState
        What serves the app now.
    holds : tuple of str
        What bars promotions of the app now.
    events : tuple of Event
        What was done because of it, the oldest first.
    examples : dict
        ``before`` and ``after``: example rows; empty where none can be read.
    """

    incident: Incident
    state: AppState
    holds: tuple[str, ...]
    events: tuple[Event, ...]
    examples: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def next_step(self) -> str:
        """What to type."""
        one = self.incident
        if one.state == "open" and one.level in ("rollback", "default_output"):
            return f"mlguard deploy {one.app} --resolves {one.id}"
        if one.state != "closed":
            return f'mlguard incident {one.id} --close --cause "…"'
        if self.holds:
            return f'mlguard resume {one.app} --reason "…"'
        return f"mlguard status {one.app}"

    @property
    def reproduce(self) -> tuple[str, ...]:
        """The commands that show the failure again."""
        n = self.incident.id
        return f"mlguard incident {n} --as-check", f"mlguard incident {n} --rows incident_{n}.csv"

    def to_json(self) -> dict[str, Any]:
        """Return the incident as it stands in the document."""
        explanation = self.incident.facts.get("explanation") or {}
        return {
            **incident_document(self.incident),
            "serves": None if self.state.active is None else self.state.active.name,
            "mode": self.state.mode.value,
            "holds": list(self.holds),
            "n": self.incident.facts.get("n"),
            "interval": self.incident.facts.get("interval"),
            "trials": self.incident.facts.get("trials") or [],
            "explanation": explanation or None,
            "examples": dict(self.examples),
            "events": [
                {
                    "at": rfc3339(one.at),
                    "kind": one.kind,
                    "actor": one.actor,
                    "reason": one.reason,
                }
                for one in self.events
            ],
            "reproduce": list(self.reproduce),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Incidents:
    """What ``mlguard incident`` found or did.

    Attributes
    ----------
    found : tuple of Incident
        The newest first; the one that was asked for.
    story : IncidentStory or None
        All that is known of the one that was asked for.
    now : float
        Seconds since the epoch.
    changed : bool
        Whether it was closed, or files were written.
    files : tuple of str
        What was written.
    lines : tuple of str
        What was done, in sentences.
    next_step : str
        The command to type next.
    """

    found: tuple[Incident, ...]
    now: float
    story: IncidentStory | None = None
    changed: bool = False
    files: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    next_step: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        told = [incident_document(one) for one in self.found]
        if self.story is not None:
            told = [self.story.to_json()]
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "incident",
            "ok": True,
            "changed": self.changed,
            "exit_code": 0,
            "app": None if self.story is None else self.story.incident.app,
            "incident": None if self.story is None else self.story.incident.id,
            "incidents": told,
            "files": list(self.files),
            "lines": list(self.lines),
            "next_step": self.next_step,
        }


def incident_document(one: Incident) -> dict[str, Any]:
    """Return what every list says of an incident."""
    return {
        "id": one.id,
        "app": one.app,
        "monitor": one.monitor,
        "version": one.version or None,
        "generation": one.generation,
        "level": one.level,
        "state": one.state,
        "summary": one.summary,
        "cause": one.cause or None,
        "value": one.facts.get("value"),
        "limit": one.facts.get("limit"),
        "opened_at": rfc3339(one.opened_at),
        "updated_at": rfc3339(one.updated_at),
    }


def tell(
    project: ProjectSettings,
    settings: AppSettings | None,
    registry: Registry,
    number: int,
) -> IncidentStory:
    """Tell one incident.

    Parameters
    ----------
    project : ProjectSettings
        Where the prediction log is.
    settings : AppSettings or None
        In force now; None where app.toml cannot be read: no rows are shown then.
    registry : Registry
    number : int
        Its number.

    Raises
    ------
    NotFoundError
        If there is none of that number.
    """
    incident = registry.incident(number)
    events = [one for one in registry.events(incident.app) if _concerns(one, number)]
    shown: dict[str, list[dict[str, Any]]] = {}
    if settings is not None:
        # Rows that are gone are no reason not to tell the rest.
        with contextlib.suppress(MlguardError):
            found = read_rows(project, settings, registry, incident)
            moved = (incident.facts.get("explanation") or {}).get("features") or []
            shown = examples(settings, found, [one["feature"] for one in moved])
    return IncidentStory(
        incident=incident,
        state=registry.app(incident.app),
        holds=tuple(one.reason for one in registry.holds(incident.app)),
        events=tuple(sorted(events, key=lambda one: one.seq)),
        examples=shown,
    )


def _concerns(event: Event, number: int) -> bool:
    return event.detail.get("incident") == number or event.detail.get("resolves") == number


def close(registry: Registry, number: int, cause: str) -> tuple[Incident, bool]:
    """Close an incident with its cause; one that is closed stays as it is.

    Returns
    -------
    incident : Incident
    changed : bool
        Whether it was not closed before.
    """
    known = registry.incident(number)
    if known.state == "closed":
        return known, False
    return registry.update_incident(number, state="closed", cause=cause), True
