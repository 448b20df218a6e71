"""From the registry's outbox to the people: what is sent, tried again, or given up.

A row holds the facts of one event for one recipient.  Each pass claims the rows that are due,
puts each into words and pictures, and hands it to the notifier that knows its recipient:

* it arrived: the row is sent;
* the other side asks to wait, or cannot be reached: the row is tried again after 1, 2, 4 …
  minutes, at most an hour apart, for 72 hours, and is then dead;
* the recipient is refused for good: the row is dead at once;
* the login is refused: the whole queue stops, nothing is lost, until the settings are mended.

Messages of one incident reach one recipient in the order of their events: where one has to
wait, those behind it wait too.  Every attempt carries the same Message-ID, so that a duplicate
(possible only where mlguard dies between the server's answer and its own commit) is recognised
as one.  A picture that cannot be drawn is left out; it never keeps the words from arriving.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard import plugins
from mlguard.notify.delivery import Delivery, Notifier, Outcome, SendError
from mlguard.notify.mail import Picture
from mlguard.notify.notice import Notice, notice

if TYPE_CHECKING:
    from mlguard.config import ProjectSettings
    from mlguard.registry import Registry
    from mlguard.registry.records import OutboxRow

#: Given the kind and the facts of an event, the pictures that go with it.
Draw = Callable[[str, dict[str, Any]], Sequence[Picture]]

FIRST_WAIT_S = 60.0
LONGEST_WAIT_S = 3600.0
GIVE_UP_S = 72 * 3600.0
#: How long a claimed row is this process's own; longer than any pass takes.
LEASE_S = 600.0
LIMIT = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What one pass over the outbox came to.

    Attributes
    ----------
    sent, retried, dead : int
        Rows that arrived, that will be tried again, and that were given up.
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

    def row(self, row: OutboxRow) -> None:
        """Send one row, and settle it."""
        key = (row.incident, row.recipient) if row.incident is not None else None
        place, notifier = self._notifier(row.recipient)
        if self.stopped:
            self.outbox.release(row.id, self.stopped)
            self.retried += 1
        elif notifier is None:
            self._give_up(row, f"no notifier reaches {row.recipient!r}")
        elif key in self._waiting:
            self._later(row, "an earlier message of the same incident has to go first")
        elif place in self._unreachable:
            self._failed(row, SendError(self._unreachable[place], Outcome.AGAIN), place)
        else:
            try:
                notifier.send(self._delivery(row), self.now)
            except SendError as error:
                self._failed(row, error, place)
            else:
                self.outbox.sent(row.id)
                self.sent += 1

    def _notifier(self, recipient: str) -> tuple[int, Notifier | None]:
        for place, one in enumerate(self.notifiers):
            if one.handles(recipient):
                return place, one
        return -1, None

    def _delivery(self, row: OutboxRow) -> Delivery:
        return Delivery(
            recipient=row.recipient,
            notice=self._worded(row),
            facts=row.facts,
            message_id=row.message_id,
            created_at=row.created_at,
            pictures=self._drawn(row),
        )

    def _worded(self, row: OutboxRow) -> Notice:
        topic = self._topic(row)
        # The thread that a row belongs to is the registry's to say.
        facts = row.facts if row.incident is None else {**row.facts, "incident": row.incident}
        try:
            return notice(row.kind, facts, topic=topic)
        except Exception:  # noqa: BLE001 - a fault in our words must not keep the news back
            _log.exception("the facts of mail %s could not be put into words", row.message_id)
            plain = {
                key: facts.get(key)
                for key in ("app", "project", "environment", "from", "to", "incident", "automatic")
            }
            return notice(row.kind, plain, topic=topic)

    def _topic(self, row: OutboxRow) -> str:
        """Name what the thread of an incident is about: the same in all of its messages."""
        if row.incident is None:
            return ""
        return str(self.registry.incident(row.incident).monitor)

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

    def _failed(self, row: OutboxRow, error: SendError, place: int) -> None:
        self.errors[error.message] = None
        if error.outcome is Outcome.NEVER:
            self._give_up(row, error.message)
            return
        if error.outcome is Outcome.STOP:
            self.stopped = error.message
            self.outbox.release(row.id, error.message)
            self.retried += 1
            return
        if error.outcome is Outcome.UNREACHABLE:
            self._unreachable[place] = error.message
        if self.now - row.created_at >= GIVE_UP_S:
            self._give_up(row, f"given up after 72 h: {error.message}")
            return
        self._wait(row, next_attempt(row.attempts, row.message_id, self.now), error.message)

    def _later(self, row: OutboxRow, why: str) -> None:
        self._wait(row, self.now + FIRST_WAIT_S, why)

    def _wait(self, row: OutboxRow, until: float, why: str) -> None:
        self.outbox.retry(row.id, until, why)
        self.retried += 1
        if row.incident is not None:
            self._waiting.add((row.incident, row.recipient))

    def _give_up(self, row: OutboxRow, why: str) -> None:
        self.outbox.dead(row.id, why)
        self.errors[why] = None
        self.dead += 1


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
        for row in sorted(registry.outbox.claim(limit, LEASE_S), key=lambda one: one.id):
            work.row(row)
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
