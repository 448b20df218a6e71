"""Mail that a transaction promised: facts now, words and pictures when it is sent.

A row is written by the transaction that decided what it tells, one row per recipient, so a
decision without its mail cannot be committed.  Sending takes rows up under a lease::

    PENDING ──claim──▶ SENDING ──▶ SENT
       ▲                  ├──────▶ RETRY (next_at) ──claim──▶ SENDING
       └────release───────┤
                          └──────▶ DEAD

A sender that dies leaves its rows SENDING; they are taken up again when the lease has ended,
with the same Message-ID.  So each mail is sent at least once, and twice only if the sender
died between the server's answer and :meth:`Outbox.sent`.

Within one incident and recipient, mail is first in, first out: a later row waits while an
earlier one is being sent or waits for its next attempt.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from mlguard.errors import NotFoundError
from mlguard.registry.database import Database, new_id, to_text
from mlguard.registry.records import OutboxRow
from mlguard.registry.tables import meta, outbox
from mlguard.registry.waiver_book import serving_book

PENDING, SENDING, RETRY, SENT, DEAD = "PENDING", "SENDING", "RETRY", "SENT", "DEAD"
STATES = (PENDING, SENDING, RETRY, SENT, DEAD)


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
    """

    def __init__(
        self,
        database: Database,
        *,
        recipients: tuple[str, ...],
        domain: str,
        clock: Callable[[], float],
    ) -> None:
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
        ids = []
        for recipient in self._recipients:
            found = connection.execute(
                insert(outbox).values(
                    app=app,
                    kind=kind,
                    recipient=recipient,
                    facts=body,
                    incident=incident,
                    state=PENDING,
                    attempts=0,
                    message_id=self._message_id(connection, kind, recipient, incident),
                    created_at=now,
                    next_at=now,
                    error="",
                )
            )
            ids.append(new_id(found))
        return ids

    def _message_id(
        self, connection: Connection, kind: str, recipient: str, incident: int | None
    ) -> str:
        installation = connection.execute(
            select(meta.c.value).where(meta.c.key == "installation")
        ).scalar_one()
        if incident is None:
            return f"<{kind}-{installation}-{uuid.uuid4().hex[:16]}@{self._domain}>"
        earlier = connection.execute(
            select(func.count())
            .select_from(outbox)
            .where(outbox.c.incident == incident, outbox.c.recipient == recipient)
        ).scalar_one()
        return f"<inc-{installation}-{incident}.{earlier}@{self._domain}>"

    # --- sending -------------------------------------------------------------------------

    def claim(self, limit: int, lease_s: float) -> list[OutboxRow]:
        """Take up mail that is due, oldest first.

        Parameters
        ----------
        limit : int
            Most rows to take.
        lease_s : float
            Seconds after which somebody else may take them up.

        Returns
        -------
        list of OutboxRow
            Each with this attempt counted.
        """
        with self._database.read() as connection:
            if not self._waiting(connection, self._clock()):
                return []
        with self._database.write() as connection:
            now = self._clock()
            taken: list[OutboxRow] = []
            barred: set[tuple[int, str]] = set()
            rows = connection.execute(
                select(outbox)
                .where(outbox.c.state.in_((PENDING, SENDING, RETRY)))
                .order_by(outbox.c.id)
                .with_for_update(skip_locked=True)
            )
            for row in rows.all():
                thread = None if row.incident is None else (row.incident, row.recipient)
                until = row.lease_until if row.state == SENDING else row.next_at
                if until > now or thread in barred:
                    if thread is not None:
                        barred.add(thread)
                    continue
                if len(taken) == limit:
                    break
                connection.execute(
                    update(outbox)
                    .where(outbox.c.id == row.id)
                    .values(state=SENDING, lease_until=now + lease_s, attempts=row.attempts + 1)
                )
                taken.append(
                    OutboxRow(
                        id=row.id,
                        app=row.app,
                        kind=row.kind,
                        recipient=row.recipient,
                        facts=json.loads(row.facts),
                        incident=row.incident,
                        attempts=row.attempts + 1,
                        message_id=row.message_id,
                        created_at=row.created_at,
                    )
                )
            return taken

    @staticmethod
    def _waiting(connection: Connection, now: float) -> bool:
        # Most passes find nothing to send; they should not take the write lock.
        due = (outbox.c.state.in_((PENDING, RETRY)) & (outbox.c.next_at <= now)) | (
            (outbox.c.state == SENDING) & (outbox.c.lease_until <= now)
        )
        return connection.execute(select(outbox.c.id).where(due).limit(1)).first() is not None

    def sent(self, row_id: int) -> None:
        """Note that a mail was accepted by the mail server (or written to its file)."""
        self._settle(row_id, state=SENT, settled_at=self._clock(), error="")

    def retry(self, row_id: int, next_at: float, error: str) -> None:
        """Note that an attempt failed and when the next may be made."""
        self._settle(row_id, state=RETRY, next_at=next_at, error=error)

    def release(self, row_id: int, error: str) -> None:
        """Put a mail back as it was, its attempt not counted: the queue as a whole must wait."""
        with self._database.write() as connection:
            self._update(
                connection,
                row_id,
                state=PENDING,
                lease_until=None,
                error=error,
                attempts=outbox.c.attempts - 1,
            )

    def dead(self, row_id: int, error: str) -> None:
        """Note that a mail will never be delivered; ``status`` shows it until a human acts."""
        self._settle(row_id, state=DEAD, settled_at=self._clock(), error=error)

    def revive(self, row_id: int) -> None:
        """Give a dead mail another chance, now."""
        self._settle(row_id, state=PENDING, next_at=self._clock(), settled_at=None)

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

    def oldest_pending(self) -> float | None:
        """Return when the oldest mail that waits was promised; None where none waits."""
        with self._database.read() as connection:
            found = connection.execute(
                select(func.min(outbox.c.created_at)).where(
                    outbox.c.state.in_((PENDING, SENDING, RETRY))
                )
            ).scalar()
            return None if found is None else float(found)

    def rows(self, *, state: str | None = None, limit: int = 100) -> list[tuple[OutboxRow, str]]:
        """Return the newest mail with its state (and, where one failed, the error's text).

        Parameters
        ----------
        state : str, optional
            Only rows in this state.
        limit : int
            Most rows to return.

        Returns
        -------
        list of (OutboxRow, str)
            The second is ``"STATE"`` or ``"STATE: error"``.
        """
        query = select(outbox).order_by(outbox.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(outbox.c.state == state)
        with self._database.read() as connection:
            return [
                (
                    OutboxRow(
                        id=row.id,
                        app=row.app,
                        kind=row.kind,
                        recipient=row.recipient,
                        facts=json.loads(row.facts),
                        incident=row.incident,
                        attempts=row.attempts,
                        message_id=row.message_id,
                        created_at=row.created_at,
                    ),
                    f"{row.state}: {row.error}" if row.error else row.state,
                )
                for row in connection.execute(query)
            ]
