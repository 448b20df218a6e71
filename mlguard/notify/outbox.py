"""From the registry's outbox to the people: what is sent, tried again, or given up.

A row holds the facts of one event for one recipient.  Each pass claims the rows that are due,
puts each into words and pictures, and hands it to the notifier that knows its recipient:

* it arrived: the row is sent;
* the other side asks to wait, or cannot be reached: the row is tried again after 1, 2, 4 …
  minutes, at most an hour apart, for 72 hours, and is then dead;
* the recipient is refused for good: the row is dead at once;
* the login is refused: the whole queue stops, nothing is lost, until the settings are mended.

Messages of one incident reach one recipient in the order of their events: where one has to
wait, those behind it wait too, and after an outage one message tells of them all.  Every
attempt carries the same Message-ID, so that a duplicate (possible only where mlguard dies
between the server's answer and its own commit) is recognised as one.  A picture that cannot be
drawn is left out; it never keeps the words from arriving.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard import plugins
from mlguard.errors import NotFoundError
from mlguard.notify.delivery import Delivery, Notifier, Outcome, SendError
from mlguard.notify.mail import LATE_S, Picture
from mlguard.notify.notice import Notice, notice
from mlguard.wording import printable

if TYPE_CHECKING:
    from mlguard.config import ProjectSettings
    from mlguard.registry import Registry
    from mlguard.registry.records import OutboxRow

#: Given the kind and the facts of an event, the pictures that go with it.
Draw = Callable[[str, dict[str, Any]], Sequence[Picture]]

FIRST_WAIT_S = 60.0
LONGEST_WAIT_S = 3600.0
GIVE_UP_S = 72 * 3600.0
#: How long a claimed row is this process's own; a pass ends after half of it.
LEASE_S = 600.0
LIMIT = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What one pass over the outbox came to.

    Attributes
    ----------
    sent : int
        Messages that arrived.
    retried, dead : int
        Rows that will be tried again, and that were given up.
    errors : tuple of str
        Why, each once.
    stopped : str
        Why the queue stands still until a human acts; empty if it does not.
    """

    sent: int = 0
    retried: int = 0
    dead: int = 0
    errors: tuple[str, ...] = ()
    stopped: str = ""


def notifiers_for(settings: ProjectSettings) -> tuple[Notifier, ...]:
    """Build every notifier that is registered as an entry point.

    Raises
    ------
    PluginError
        If one cannot be loaded.
    """
    found = plugins.found("mlguard.notifiers")
    return tuple(plugins.load("mlguard.notifiers", name)(settings) for name in found)


def next_attempt(attempts: int, message_id: str, now: float) -> float:
    """Return when to try again after ``attempts`` failed attempts.

    The wait doubles from one minute to one hour; up to a tenth is added, by the message's id,
    so that many rows do not come back at one moment.
    """
    wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempts - 1, 16))
    jitter = zlib.crc32(f"{message_id}#{attempts}".encode()) / 2**32
    return now + wait * (1 + jitter / 10)


class _Pass:
    """One pass: who has to wait, and what was counted."""

    def __init__(
        self, registry: Registry, notifiers: Iterable[Notifier], now: float, draw: Draw | None
    ) -> None:
        self.outbox = registry.outbox
        self.registry = registry
        self.notifiers = tuple(notifiers)
        self.now = now
        self.draw = draw
        self.sent = self.retried = self.dead = 0
        self.errors: dict[str, None] = {}
        self.stopped = ""
        self._waiting: set[tuple[int, str]] = set()
        self._unreachable: dict[int, str] = {}
        self._pictures: dict[str, Sequence[Picture]] = {}

    def send(self, rows: Sequence[OutboxRow]) -> None:
        """Send one message that tells of some rows, oldest first, and settle them all."""
        row = rows[-1]
        place, notifier = self._notifier(row.recipient)
        if self.stopped:
            self._release(rows, self.stopped)
        elif notifier is None:
            self._give_up(rows, f"no notifier reaches {row.recipient!r}")
        elif (row.incident, row.recipient) in self._waiting:
            self._later(rows, "an earlier message of the same incident has to go first")
        elif place in self._unreachable:
            self._failed(rows, SendError(self._unreachable[place], Outcome.AGAIN), place)
        else:
            try:
                notifier.send(self._delivery(rows), self.now)
            except SendError as error:
                self._failed(rows, error, place)
            except Exception as error:  # noqa: BLE001 - somebody else's notifier; nothing is lost
                _log.exception("mail %s could not be sent", row.message_id)
                why = f"{type(error).__name__}: {printable(error)}"
                self._failed(rows, SendError(why, Outcome.AGAIN), place)
            else:
                for one in rows:
                    self.outbox.sent(one.id)
                self.sent += 1

    def put_off(self, rows: Sequence[OutboxRow]) -> None:
        """Leave rows to the next pass: this one has taken too long."""
        self._release(rows, "waits for the next pass")

    def _notifier(self, recipient: str) -> tuple[int, Notifier | None]:
        for place, one in enumerate(self.notifiers):
            if one.handles(recipient):
                return place, one
        return -1, None

    def _delivery(self, rows: Sequence[OutboxRow]) -> Delivery:
        row = rows[-1]
        earlier = [self._worded(one, ()) for one in rows[:-1]]
        return Delivery(
            recipient=row.recipient,
            notice=self._worded(row, earlier),
            facts=row.facts,
            message_id=row.message_id,
            created_at=row.created_at,
            pictures=self._drawn(row),
        )

    def _worded(self, row: OutboxRow, earlier: Sequence[Notice]) -> Notice:
        topic = self._topic(row)
        # The thread that a row belongs to is the registry's to say.
        facts = row.facts if row.incident is None else {**row.facts, "incident": row.incident}
        try:
            return notice(row.kind, facts, topic=topic, earlier=earlier)
        except Exception:  # noqa: BLE001 - a fault in our words must not keep the news back
            _log.exception("the facts of mail %s could not be put into words", row.message_id)
            plain = {
                key: facts.get(key)
                for key in ("app", "project", "environment", "from", "to", "incident", "automatic")
            }
            return notice(row.kind, plain, topic=topic, earlier=earlier)

    def _topic(self, row: OutboxRow) -> str:
        """Name what the thread of an incident is about: the same in all of its messages."""
        if row.incident is None:
            return ""
        try:
            return self.registry.incident(row.incident).monitor
        except NotFoundError:
            return ""

    def _drawn(self, row: OutboxRow) -> Sequence[Picture]:
        if self.draw is None:
            return ()
        if row.message_id not in self._pictures:
            try:
                self._pictures[row.message_id] = tuple(self.draw(row.kind, row.facts))
            except Exception:  # noqa: BLE001 - the words must arrive whatever the pictures do
                _log.exception("the pictures of mail %s could not be drawn", row.message_id)
                self._pictures[row.message_id] = ()
        return self._pictures[row.message_id]

    def _failed(self, rows: Sequence[OutboxRow], error: SendError, place: int) -> None:
        self.errors[error.message] = None
        if error.outcome is Outcome.NEVER:
            self._give_up(rows, error.message)
            return
        if error.outcome is Outcome.STOP:
            self.stopped = error.message
            self._release(rows, error.message)
            return
        if error.outcome is Outcome.UNREACHABLE:
            self._unreachable[place] = error.message
        row = rows[0]
        if self.now - row.created_at >= GIVE_UP_S:
            self._give_up([row], f"given up after 72 h: {error.message}")
            rows = rows[1:]
        until = next_attempt(row.attempts, row.message_id, self.now)
        self._wait(rows, until, error.message)

    def _later(self, rows: Sequence[OutboxRow], why: str) -> None:
        self._wait(rows, self.now + FIRST_WAIT_S, why)

    def _wait(self, rows: Sequence[OutboxRow], until: float, why: str) -> None:
        for row in rows:
            self.outbox.retry(row.id, until, why)
            self.retried += 1
            if row.incident is not None:
                self._waiting.add((row.incident, row.recipient))

    def _release(self, rows: Sequence[OutboxRow], why: str) -> None:
        for row in rows:
            self.outbox.release(row.id, why)
            self.retried += 1

    def _give_up(self, rows: Sequence[OutboxRow], why: str) -> None:
        for row in rows:
            self.outbox.dead(row.id, why)
            self.dead += 1
        self.errors[why] = None


def bundles(rows: Iterable[OutboxRow], now: float) -> list[list[OutboxRow]]:
    """Put the rows of one pass into messages, oldest row first.

    A row is a message of its own, except after an outage: what one recipient should have heard
    of one incident more than :data:`~mlguard.notify.mail.LATE_S` ago comes in one message, that
    of the last event, which tells of the earlier ones.
    """
    threads: dict[tuple[object, ...], list[OutboxRow]] = {}
    for row in sorted(rows, key=lambda one: one.id):
        late = row.incident is not None and now - row.created_at >= LATE_S
        key = (row.app, row.incident, row.recipient) if late else (row.id,)
        threads.setdefault(key, []).append(row)
    return sorted(threads.values(), key=lambda one: one[0].id)


def deliver(
    registry: Registry,
    notifiers: Iterable[Notifier],
    now: float,
    *,
    draw: Draw | None = None,
    limit: int = LIMIT,
) -> Delivered:
    """Make one pass over the outbox; safe to call from several processes at any time.

    Parameters
    ----------
    registry : Registry
        Its outbox holds the rows.
    notifiers : iterable of Notifier
        See :func:`notifiers_for`.
    now : float
        Seconds since the epoch (UTC).
    draw : callable, optional
        Draws the pictures of an event, in a process of its own; without it there are none.
    limit : int, default 20
        Most rows of this pass.

    Returns
    -------
    Delivered

    Raises
    ------
    RegistryError
        If the registry cannot be reached; nothing is lost.
    """
    notifiers = tuple(notifiers)
    work = _Pass(registry, notifiers, now, draw)
    try:
        started = time.monotonic()
        for rows in bundles(registry.outbox.claim(limit, LEASE_S), now):
            # Rows must be settled while they are ours.
            if time.monotonic() - started > LEASE_S / 2:
                work.put_off(rows)
            else:
                work.send(rows)
    finally:
        for one in notifiers:
            one.close()
    return Delivered(
        sent=work.sent,
        retried=work.retried,
        dead=work.dead,
        errors=tuple(work.errors),
        stopped=work.stopped,
    )
