"""What was done to an app, by whom and why; what served at a time; whether the record is whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlguard.errors import UsageError
from mlguard.registry import Event, Registry
from mlguard.wording import rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A stretch of the audit trail.

    Attributes
    ----------
    app : str or None
        One app, or all.
    events : tuple of Event
        The oldest first.
    at : float or None
        The moment that was asked about.
    served : Event or None
        The move that decided what served at that moment.
    verified : bool
        Whether the chain was checked.
    first_bad : int or None
        Number of the first entry that does not fit, where the chain was checked.
    """

    app: str | None
    events: tuple[Event, ...]
    at: float | None = None
    served: Event | None = None
    verified: bool = False
    first_bad: int | None = None

    @property
    def exit_code(self) -> int:
        """1 where the record was tampered with, else 0."""
        return 1 if self.first_bad is not None else 0


def read_history(
    registry: Registry, app: str | None, *, at: str | None, verify: bool, limit: int
) -> History:
    """Read the audit trail.

    Parameters
    ----------
    app : str or None
        One app, or all.
    at : str or None
        ISO 8601; without a zone it is UTC.  Asks what served then; needs an app.
    verify : bool
        Check the chain of hashes, over all apps.
    limit : int
        Newest entries to return.

    Raises
    ------
    UsageError
        If the time cannot be read, or is asked about without an app.
    """
    moment = None if at is None else _moment(at)
    events = sorted(registry.events(app), key=lambda one: one.seq)
    served = None
    if moment is not None:
        if app is None:
            raise UsageError("--at needs an app", hint="mlguard history APP --at TIME")
        events = [one for one in events if one.at <= moment]
        moves = [one for one in events if one.moved]
        served = moves[-1] if moves else None
    return History(
        app=app,
        events=tuple(events[-limit:]),
        at=moment,
        served=served,
        verified=verify,
        first_bad=registry.verify_chain() if verify else None,
    )


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no time", hint='write it like "2026-11-22T03:00:00Z" (UTC)'
        ) from error
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def event_document(event: Event) -> dict[str, Any]:
    """Return an event of the audit trail as it stands in documents."""
    return {
        "seq": event.seq,
        "at": rfc3339(event.at),
        "app": event.app,
        "generation": event.generation,
        "moved": event.moved,
        "kind": event.kind,
        "actor": event.actor,
        "reason": event.reason,
        "version": event.version or None,
        "detail": event.detail,
    }
