"""The audit trail: events in one hash chain, written by the transaction they speak of.

Each event holds the hash of the one before it and its own, SHA-256 over the canonical JSON of
all its columns.  An event that was edited, removed or slipped in breaks the chain at its place;
the head (last number and hash) stands in a row of its own, so that a tail that was cut off is
noticed as well.  Whoever can rewrite the whole database can rewrite the chain: the hash shown
by ``history`` and mailed with a move is the anchor outside.

The head also keeps the largest time that was ever seen.  Ages that a guard depends on are
measured from it, so that a clock that goes back makes no evidence young again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from mlguard.registry.database import to_text
from mlguard.registry.records import Event
from mlguard.registry.tables import apps, chain, events

#: What the first event names as the one before it.
ORIGIN = "0" * 64

_HASHED = (
    "seq",
    "at",
    "app",
    "generation",
    "moved_to",
    "kind",
    "actor",
    "reason",
    "version",
    "detail",
    "previous",
)


def link(values: Mapping[str, Any]) -> str:
    """Return the hash of an event's columns, hex."""
    body = to_text({name: values[name] for name in _HASHED})
    return hashlib.sha256(body.encode()).hexdigest()


def append(
    connection: Connection,
    *,
    at: float,
    app: str,
    generation: int,
    moved: bool,
    kind: str,
    actor: str,
    reason: str,
    version: str = "",
    detail: Mapping[str, Any] | None = None,
) -> Event:
    """Write one event at the end of the chain, inside the caller's transaction.

    Parameters
    ----------
    connection : Connection
        The writing transaction.  It takes the chain's lock, the last of its locks.
    at : float
        The time by the clock of the writer.
    app : str
        Whom it is about.
    generation : int
        The app's generation after it.
    moved : bool
        Whether it made that generation.
    kind, actor, reason, version : str
        What, who, why and which version.
    detail : mapping, optional
        The numbers, as JSON values.

    Returns
    -------
    Event
    """
    head = connection.execute(
        select(chain.c.seq, chain.c.hash, chain.c.latest_at)
        .where(chain.c.id == 1)
        .with_for_update()
    ).one()
    values: dict[str, Any] = {
        "seq": head.seq + 1,
        "at": at,
        "app": app,
        "generation": generation,
        "moved_to": generation if moved else None,
        "kind": kind,
        "actor": actor,
        "reason": reason,
        "version": version,
        "detail": to_text(dict(detail or {})),
        "previous": head.hash,
    }
    values["hash"] = link(values)
    connection.execute(insert(events).values(**values))
    connection.execute(
        update(chain)
        .where(chain.c.id == 1)
        .values(seq=values["seq"], hash=values["hash"], latest_at=max(head.latest_at, at))
    )
    return Event(
        seq=values["seq"],
        at=at,
        app=app,
        generation=generation,
        moved=moved,
        kind=kind,
        actor=actor,
        reason=reason,
        version=version,
        detail=dict(detail or {}),
    )


def latest_time(connection: Connection) -> float:
    """Return the largest time that any event was written at, in seconds since the epoch."""
    found = connection.execute(select(chain.c.latest_at).where(chain.c.id == 1)).scalar_one()
    return float(found)


def event_of(row: Row[Any]) -> Event:
    """Return the event of a row of the table ``events``."""
    return Event(
        seq=row.seq,
        at=row.at,
        app=row.app,
        generation=row.generation,
        moved=row.moved_to is not None,
        kind=row.kind,
        actor=row.actor,
        reason=row.reason,
        version=row.version,
        detail=json.loads(row.detail),
    )


def first_bad(connection: Connection) -> int | None:
    """Return the number of the first event that is not what was written; None if all are.

    Checked are the links, the numbering, each app's generations (none missing, none twice), and
    that the chain's head and every app's pointer are where the events say.
    """
    expected, previous = 1, ORIGIN
    generations: dict[str, int] = {}
    for row in connection.execute(select(events).order_by(events.c.seq)):
        values = row._asdict()
        intact = row.seq == expected and row.previous == previous and row.hash == link(values)
        if intact and row.moved_to is not None:
            intact = row.moved_to == generations.get(row.app, 0) + 1
            generations[row.app] = row.moved_to
        if not intact:
            return min(int(row.seq), expected)
        expected, previous = expected + 1, row.hash
    head = connection.execute(select(chain.c.seq, chain.c.hash).where(chain.c.id == 1)).one()
    pointers = {row.app: row.generation for row in connection.execute(select(apps))}
    same = all(generations.get(app, 0) == number for app, number in pointers.items())
    if (head.seq, head.hash) != (expected - 1, previous) or not same:
        return expected
    return None
