"""Mail that a transaction promised: facts now, words and pictures when it is sent.

A row is written by the transaction that decided what it tells, one row per recipient, so a
decision without its mail cannot be committed.  Sending takes rows up under a lease::

    PENDING ──take──▶ SENDING ──▶ SENT            MUTED: a hold keeps it back; never sent
       ▲                 ├──────▶ RETRY (next_at) ──take──▶ SENDING
       └────release──────┤
                         └──────▶ DEAD ──revive──▶ PENDING, or DROPPED by a human

A sender that dies leaves its rows SENDING; they are taken up again when the lease has ended,
in the same message with the same Message-ID.  So each mail is sent at least once, and twice
only if the sender died between the server's answer and :meth:`Outbox.sent`.

Which rows go when, and in which message, is not decided here.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from mlguard.errors import NotFoundError, RefusedError
from mlguard.registry.database import Database, new_id, to_text
from mlguard.registry.records import OutboxRow
from mlguard.registry.tables import holds, meta, outbox
from mlguard.registry.waiver_book import serving_book

PENDING, SENDING, RETRY, SENT, DEAD = "PENDING", "SENDING", "RETRY", "SENT", "DEAD"
MUTED, DROPPED = "MUTED", "DROPPED"
STATES = (PENDING, SENDING, RETRY, SENT, DEAD, MUTED, DROPPED)
#: Kinds that no hold mutes: what serves was changed, or nothing serves.
UNMUTED = frozenset({"rolled_back", "default_output"})
#: Kinds of mail that go to the author of a version, where that one's address is known.
_PERSONAL = frozenset({"refused"})
#: What has waited for its next attempt for so long is stuck.
STUCK_S = 3600.0
_BUT_FACTS = [column for column in outbox.c if column.name != "facts"]


class Outbox:
    """The queue of outgoing mail.

    Parameters
    ----------
    database : Database
        Where it is kept.
    recipients : tuple of str
        Who gets what is enqueued.
    domain : str
        Right-hand side of the Message-IDs.
    clock : callable
        The time, in seconds since the epoch.
    authors : mapping
        Addresses of people by the name they work under; a refusal goes to its author alone,
        where the facts name one (``author``) who is known here.
    """

    def __init__(
        self,
        database: Database,
        *,
        recipients: tuple[str, ...],
        domain: str,
        clock: Callable[[], float],
        authors: Mapping[str, str] | None = None,
    ) -> None:
        self._authors = dict(authors or {})
        self._database = database
        self._recipients = recipients
        self._domain = domain
        self._clock = clock

    # --- writing -------------------------------------------------------------------------

    def enqueue(
        self, app: str, kind: str, facts: Mapping[str, Any], incident: int | None = None
    ) -> list[int]:
        """Promise a mail in a transaction of its own; return the ids of its rows."""
        with self._database.write() as connection:
            return self.promise(connection, app, kind, facts, incident)

    def promise(
        self,
        connection: Connection,
        app: str,
        kind: str,
        facts: Mapping[str, Any],
        incident: int | None = None,
    ) -> list[int]:
        """Promise a mail inside the caller's transaction; return the ids of its rows.

        Parameters
        ----------
        connection : Connection
            The transaction that decides what the mail tells.
        app, kind : str
            Whom it is about, and which mail it is.
        facts : mapping
            Everything it will say, as JSON values.
        incident : int, optional
            The incident whose thread it belongs to.
        """
        now = self._clock()
        waived = serving_book(connection, app, now)
        told = [one.to_json(waived.now) for one in waived.waivers]
        # Whoever reads of an app is reminded what was promised to be mended in what serves.
        body = to_text({**facts, "waivers": told} if told else dict(facts))
        recipients = self._recipients
        author = self._authors.get(str(facts.get("author") or ""))
        if author is not None and kind in _PERSONAL and incident is None:
            recipients = (author,)
        muted = kind not in UNMUTED and self._muted(connection, app, now)
        installation = self._installation(connection)
        ids = []
        for recipient in recipients:
            found = connection.execute(
                insert(outbox).values(
                    app=app,
                    kind=kind,
                    recipient=recipient,
                    facts=body,
                    incident=incident,
                    state=MUTED if muted else PENDING,
                    attempts=0,
                    message_id=f"<{kind}-{installation}-{uuid.uuid4().hex[:16]}@{self._domain}>",
                    created_at=now,
                    next_at=now,
                    settled_at=now if muted else None,
                    error="",
                )
            )
            ids.append(new_id(found))
        return ids

    @staticmethod
    def _muted(connection: Connection, app: str, now: float) -> bool:
        found = connection.execute(
            select(holds.c.id).where(
                holds.c.app == app,
                holds.c.mute,
                holds.c.lifted_at.is_(None),
                holds.c.expires.is_(None) | (holds.c.expires > now),
            )
        )
        return found.first() is not None

    def remind(self, incident: int, app: str, facts: Mapping[str, Any], *, since: float) -> bool:
        """Promise a reminder of an incident, unless something was told of it after ``since``."""
        with self._database.write() as connection:
            newest = connection.execute(
                select(func.max(outbox.c.created_at)).where(outbox.c.incident == incident)
            ).scalar()
            if newest is not None and newest > since:
                return False
            self.promise(connection, app, "reminder", facts, incident)
            return True

    def once(self, key: str, until: float, kind: str, facts: Mapping[str, Any]) -> bool:
        """Promise a mail about all apps, unless it was promised for that time or a later one.

        Parameters
        ----------
        key : str
            What is promised once, e.g. ``"digest"``.
        until : float
            The time it is for.  It only grows, so a clock that goes back repeats nothing.
        kind : str
            Kind of the mail.
        facts : mapping
            What it tells; where there is nothing, the time is noted and nobody is written to.
        """
        with self._database.write() as connection:
            known = connection.execute(
                select(meta.c.value).where(meta.c.key == key).with_for_update()
            ).scalar()
            if known is not None and float(known) >= until:
                return False
            self._database.put(connection, meta, {"key": key, "value": repr(until)})
            if facts:
                self.promise(connection, "", kind, facts)
            return bool(facts)

    def last_once(self, key: str) -> float | None:
        """Return the newest time that :meth:`once` was called for; None where it never was."""
        with self._database.read() as connection:
            known = connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar()
        return None if known is None else float(known)

    def thread(self, incident: int) -> list[tuple[str, float]]:
        """Return what was promised about an incident, oldest first: kind and time."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(outbox.c.kind, outbox.c.created_at)
                .where(outbox.c.incident == incident)
                .order_by(outbox.c.id)
            )
            return [(row.kind, row.created_at) for row in rows]

    @staticmethod
    def _installation(connection: Connection) -> str:
        found = connection.execute(select(meta.c.value).where(meta.c.key == "installation"))
        return str(found.scalar_one())

    # --- sending -------------------------------------------------------------------------

    def waiting(self) -> list[OutboxRow]:
        """Return all mail that is not settled, oldest first, also what somebody sends just now.

        The facts are left out: many a row is looked at often before it is its turn.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_BUT_FACTS)
                .where(outbox.c.state.in_((PENDING, SENDING, RETRY)))
                .order_by(outbox.c.id)
            )
            return [_row(one) for one in rows]

    def told(self, since: float, incidents: Sequence[int] = ()) -> list[OutboxRow]:
        """Return the mail that was in a message: since a time, and of some incidents all.

        The facts are left out: what counts is who was told when, and in which message.
        """
        recent = (outbox.c.settled_at >= since) | outbox.c.incident.in_(list(incidents))
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_BUT_FACTS)
                .where(outbox.c.told_in.is_not(None), outbox.c.settled_at.is_not(None), recent)
                .order_by(outbox.c.settled_at, outbox.c.id)
            )
            return [_row(one) for one in rows]

    def take(self, ids: Sequence[int], told_in: str, lease_s: float) -> list[OutboxRow]:
        """Take up the rows of one message, all of them or none.

        Parameters
        ----------
        ids : sequence of int
            The rows.
        told_in : str
            The message's Message-ID.
        lease_s : float
            Seconds after which somebody else may take them up.

        Returns
        -------
        list of OutboxRow
            In the order of ``ids``, each with this attempt counted; empty where somebody else
            has taken or settled one of them meanwhile.
        """
        with self._database.write() as connection:
            now = self._clock()
            found = connection.execute(
                select(outbox).where(outbox.c.id.in_(list(ids))).with_for_update()
            ).all()
            free = [
                row
                for row in found
                if row.state in (PENDING, RETRY)
                or (row.state == SENDING and (row.lease_until or 0.0) <= now)
            ]
            if len(free) != len(ids):
                return []
            connection.execute(
                update(outbox)
                .where(outbox.c.id.in_(list(ids)))
                .values(
                    state=SENDING,
                    lease_until=now + lease_s,
                    attempts=outbox.c.attempts + 1,
                    told_in=told_in,
                )
            )
            rows = connection.execute(select(outbox).where(outbox.c.id.in_(list(ids)))).all()
        by_id = {row.id: _row(row) for row in rows}
        return [by_id[one] for one in ids]

    @property
    def installation(self) -> str:
        """Random name of this installation; it stands in every Message-ID."""
        with self._database.read() as connection:
            return self._installation(connection)

    @property
    def domain(self) -> str:
        """Right-hand side of the Message-IDs."""
        return self._domain

    def sent(self, row_id: int) -> None:
        """Note that a mail was accepted by the mail server (or written to its file)."""
        self._settle(row_id, state=SENT, settled_at=self._clock(), error="")

    def retry(self, row_id: int, next_at: float, error: str, *, uncertain: bool = False) -> None:
        """Note that an attempt failed and when the next may be made.

        Parameters
        ----------
        row_id : int
        next_at : float
            Seconds since the epoch.
        error : str
            Why it failed.
        uncertain : bool
            Whether the message may have arrived all the same: then the next attempt is made
            with the same message, so that a duplicate is recognised as one.
        """
        told = {} if uncertain else {"told_in": None}
        self._settle(row_id, state=RETRY, next_at=next_at, error=error, **told)

    def release(self, row_id: int, error: str, *, uncertain: bool = False) -> None:
        """Put a mail back as it was, its attempt not counted: the queue as a whole must wait.

        Parameters
        ----------
        row_id : int
        error : str
            Why it must.
        uncertain : bool
            See :meth:`retry`.
        """
        told = {} if uncertain else {"told_in": None}
        with self._database.write() as connection:
            self._update(
                connection,
                row_id,
                state=PENDING,
                lease_until=None,
                error=error,
                attempts=outbox.c.attempts - 1,
                **told,
            )

    def dead(self, row_id: int, error: str) -> None:
        """Note that a mail will never be delivered; ``status`` shows it until a human acts."""
        self._settle(row_id, state=DEAD, settled_at=self._clock(), error=error)

    def revive(self, row_id: int) -> OutboxRow:
        """Give a dead mail another chance, or let one that waits for its next attempt go now.

        Raises
        ------
        NotFoundError
            If there is none of that number.
        RefusedError
            If it was sent, is being sent, or is kept back by a hold.
        """
        with self._database.write() as connection:
            row = self._free(connection, row_id, (DEAD, RETRY, PENDING))
            now = self._clock()
            self._update(
                connection,
                row_id,
                state=PENDING,
                # Given up 72 h after it was promised, it has to be promised anew.
                created_at=now if row.state == DEAD else row.created_at,
                next_at=now,
                settled_at=None,
                error="",
            )
        return replace(row, state=PENDING, next_at=now, settled_at=None, error="")

    def drop(self, row_id: int, reason: str) -> OutboxRow:
        """Take a mail that is dead or waits out of the queue: nobody needs it any more.

        Raises
        ------
        NotFoundError
            If there is none of that number.
        RefusedError
            If it was sent, is being sent, or is kept back by a hold.
        """
        with self._database.write() as connection:
            row = self._free(connection, row_id, (DEAD, RETRY, PENDING))
            now = self._clock()
            self._update(connection, row_id, state=DROPPED, settled_at=now, error=reason)
        return replace(row, state=DROPPED, settled_at=now, error=reason)

    @staticmethod
    def _free(connection: Connection, row_id: int, states: tuple[str, ...]) -> OutboxRow:
        found = connection.execute(
            select(outbox).where(outbox.c.id == row_id).with_for_update()
        ).one_or_none()
        if found is None:
            raise NotFoundError(
                f"there is no mail {row_id} in the outbox", hint="`mlguard outbox` lists them"
            )
        if found.state not in states:
            said = {SENT: "was sent", SENDING: "is being sent just now", MUTED: "is muted"}
            raise RefusedError(
                f"mail {row_id} {said.get(found.state, 'was dropped')}",
                hint="only what is dead or waits can be tried again or dropped",
            )
        return _row(found)

    def _settle(self, row_id: int, **values: Any) -> None:
        with self._database.write() as connection:
            self._update(connection, row_id, lease_until=None, **values)

    @staticmethod
    def _update(connection: Connection, row_id: int, **values: Any) -> None:
        found = connection.execute(update(outbox).where(outbox.c.id == row_id).values(**values))
        if not found.rowcount:
            raise NotFoundError(f"no mail {row_id} in the outbox")

    # --- reading -------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Return how many rows are in each state; every state is named."""
        with self._database.read() as connection:
            found = connection.execute(
                select(outbox.c.state, func.count()).group_by(outbox.c.state)
            )
            return dict.fromkeys(STATES, 0) | {row[0]: row[1] for row in found}

    def stuck(self) -> str:
        """Return why mail does not go out, empty where it does.

        It does not where the login is refused, or where attempts have failed for an hour.
        """
        stopped = (outbox.c.state == PENDING) & (outbox.c.error != "")
        tried = (outbox.c.state == RETRY) & (outbox.c.created_at < self._clock() - STUCK_S)
        with self._database.read() as connection:
            found = connection.execute(
                select(outbox.c.error).where(stopped | tried).order_by(outbox.c.id).limit(1)
            ).scalar()
        return str(found or "")

    def oldest_pending(self) -> float | None:
        """Return when the oldest mail that waits was promised; None where none waits."""
        with self._database.read() as connection:
            found = connection.execute(
                select(func.min(outbox.c.created_at)).where(
                    outbox.c.state.in_((PENDING, SENDING, RETRY))
                )
            ).scalar()
            return None if found is None else float(found)

    def rows(self, *, state: str | None = None, limit: int = 100) -> list[OutboxRow]:
        """Return the newest mail.

        Parameters
        ----------
        state : str, optional
            Only rows in this state.
        limit : int
            Most rows to return.
        """
        query = select(outbox).order_by(outbox.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(outbox.c.state == state)
        with self._database.read() as connection:
            return [_row(row) for row in connection.execute(query)]


def _row(row: Row[Any]) -> OutboxRow:
    facts = getattr(row, "facts", None)
    return OutboxRow(
        id=row.id,
        app=row.app,
        kind=row.kind,
        recipient=row.recipient,
        facts=json.loads(facts) if facts else {},
        incident=row.incident,
        attempts=row.attempts,
        message_id=row.message_id,
        created_at=row.created_at,
        state=row.state,
        told_in=row.told_in or "",
        next_at=row.next_at,
        lease_until=row.lease_until,
        settled_at=row.settled_at,
        error=row.error,
    )
