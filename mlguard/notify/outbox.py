"""From the registry's outbox to the people: what is sent, tried again, or given up.

A row holds the facts of one event for one recipient.  Each pass asks :mod:`mlguard.notify.pacing`
which rows make a message now, takes them up, puts them into words and pictures, and hands them
to the notifier that knows the recipient:

* it arrived: the rows are sent;
* the other side asks to wait, or cannot be reached: the rows are tried again after 1, 2, 4 …
  minutes, at most an hour apart, for 72 hours, and are then dead;
* the recipient is refused for good: the rows are dead at once;
* the login is refused: what this notifier carries stops, nothing is lost, until the settings
  are mended.

Every attempt that may have arrived is followed by the same message under the same Message-ID,
so that a duplicate (possible only where mlguard dies, or the line breaks, between the server's
answer and the commit) is recognised as one.  A picture that cannot be drawn is left out; it
never keeps the words from arriving.
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
from mlguard.notify.mail import Picture
from mlguard.notify.notice import Notice, notice
from mlguard.notify.pacing import DIGEST, THREAD_LENGTH, Parcel, Plan, Rules, message_id, plan
from mlguard.wording import printable

if TYPE_CHECKING:
    from mlguard.config import NotifyProjectTable, ProjectSettings
    from mlguard.registry import Registry
    from mlguard.registry.records import OutboxRow

#: Given the kind and the facts of an event, the pictures that go with it.
Draw = Callable[[str, dict[str, Any]], Sequence[Picture]]

FIRST_WAIT_S = 60.0
LONGEST_WAIT_S = 3600.0
GIVE_UP_S = 72 * 3600.0
#: How long rows that were taken up are this process's own.
LEASE_S = 600.0
#: A pass takes up nothing more after so long.
PASS_S = 300.0
#: Recipients that are programs: told of every event at once, each by itself.
UNPACED = frozenset({"webhook"})
#: How far back it matters what was told: two days of digests.
_HISTORY_S = 2 * 86400.0

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
        Why some mail stands still until a human acts; empty if none does.
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


def rules_for(table: NotifyProjectTable) -> Rules:
    """Return the settings of ``[notify]`` that say when people are told."""
    return Rules(
        group_wait=table.group_wait,
        group_interval=table.group_interval,
        digest=table.digest,
        quiet=table.quiet,
        cap_per_day=table.cap_per_day,
        unpaced=UNPACED,
    )


def next_attempt(attempts: int, message_id: str, now: float) -> float:
    """Return when to try again after ``attempts`` failed attempts.

    The wait doubles from one minute to one hour; up to a tenth is added, by the message's id,
    so that many rows do not come back at one moment.
    """
    wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempts - 1, 16))
    jitter = zlib.crc32(f"{message_id}#{attempts}".encode()) / 2**32
    return now + wait * (1 + jitter / 10)


def planned(registry: Registry, rules: Rules, now: float) -> Plan:
    """Say what of a registry's outbox goes out now, and what waits until when."""
    queue = registry.outbox.waiting()
    if not queue:
        return Plan()
    since = min(now, *(row.created_at for row in queue)) - _HISTORY_S
    incidents = sorted({row.incident for row in queue if row.incident is not None})
    return plan(queue, registry.outbox.told(since, incidents), rules, now)


class _Pass:
    """One pass: who has to wait, and what was counted."""

    def __init__(
        self,
        registry: Registry,
        notifiers: Sequence[Notifier],
        now: float,
        draw: Draw | None,
        give_up: float,
    ) -> None:
        self.outbox = registry.outbox
        self.registry = registry
        self.notifiers = notifiers
        self.now = now
        self.draw = draw
        self.give_up = give_up
        self.installation = registry.outbox.installation
        self.sent = self.retried = self.dead = 0
        self.errors: dict[str, None] = {}
        self.stopped: dict[int, str] = {}
        self._barred: set[tuple[int, str]] = set()
        self._unreachable: dict[int, str] = {}
        self._pictures: dict[tuple[object, ...], Sequence[Picture]] = {}

    def send(self, parcel: Parcel, own: str) -> None:
        """Take up the rows of one message, send it and settle them."""
        place, notifier = self._notifier(parcel.recipient)
        if (parcel.incident, parcel.recipient) in self._barred:
            return
        message = message_id(parcel, own, installation=self.installation, domain=self.outbox.domain)
        rows = self.outbox.take(parcel.rows, message, LEASE_S)
        if not rows:
            # Somebody else was faster; what comes after it has to wait for that one.
            self._bar(parcel)
        elif notifier is None:
            self._give_up(rows, f"no notifier reaches {parcel.recipient!r}")
        elif place in self.stopped:
            self._release(parcel, rows, self.stopped[place])
        elif place in self._unreachable:
            self._failed(parcel, rows, SendError(self._unreachable[place], Outcome.AGAIN), place)
        else:
            self._attempt(notifier, place, parcel, rows, message)

    def _attempt(
        self,
        notifier: Notifier,
        place: int,
        parcel: Parcel,
        rows: Sequence[OutboxRow],
        message: str,
    ) -> None:
        try:
            notifier.send(self._delivery(parcel, rows, message), self.now)
        except SendError as error:
            self._failed(parcel, rows, error, place)
        except Exception as error:  # noqa: BLE001 - somebody else's notifier; nothing is lost
            _log.exception("mail %s could not be sent", message)
            why = f"{type(error).__name__}: {printable(error)}"
            self._failed(parcel, rows, SendError(why, Outcome.AGAIN, uncertain=True), place)
        else:
            for one in rows:
                self.outbox.sent(one.id)
            self.sent += 1

    def _notifier(self, recipient: str) -> tuple[int, Notifier | None]:
        for place, one in enumerate(self.notifiers):
            if one.handles(recipient):
                return place, one
        return -1, None

    # --- words and pictures ------------------------------------------------------------------

    def _delivery(self, parcel: Parcel, rows: Sequence[OutboxRow], message: str) -> Delivery:
        if parcel.digest:
            return self._digest(rows, message)
        main = [one for one in rows if one.incident == parcel.incident]
        others = [one for one in rows if one.incident != parcel.incident]
        row = main[-1]
        part = parcel.number // THREAD_LENGTH
        earlier = [self._worded(one) for one in main[:-1]]
        together = [self._worded(one) for one in others]
        said = self._worded(row, earlier=earlier, together=together, part=part)
        facts = row.facts
        if others:
            facts = {**facts, "together": [one.facts for one in others]}
        return Delivery(
            recipient=row.recipient,
            notice=said,
            facts=facts,
            message_id=message,
            created_at=row.created_at,
            pictures=self._drawn(row),
        )

    def _digest(self, rows: Sequence[OutboxRow], message: str) -> Delivery:
        own = [one for one in rows if one.kind == DIGEST]
        events = [one for one in rows if one.kind != DIGEST]
        facts: dict[str, Any] = {"at": max(one.created_at for one in rows)}
        for one in [*events, *own]:
            place = ("project", "environment")
            facts |= {key: one.facts[key] for key in place if key in one.facts}
        for one in own:
            facts |= one.facts
        told = [self._worded(one) for one in events]
        facts["events"] = [
            {"at": one.at, "app": one.app, "subject": one.subject, "headline": one.headline}
            for one in told
        ]
        return Delivery(
            recipient=rows[0].recipient,
            notice=notice(DIGEST, facts, together=told),
            facts=facts,
            message_id=message,
            created_at=facts["at"] if isinstance(facts["at"], float) else rows[-1].created_at,
        )

    def _worded(
        self,
        row: OutboxRow,
        *,
        earlier: Sequence[Notice] = (),
        together: Sequence[Notice] = (),
        part: int = 0,
    ) -> Notice:
        topic = self._topic(row)
        if topic and part:
            topic = f"{topic} ({part + 1})"
        # The thread that a row belongs to is the registry's to say.
        facts = row.facts if row.incident is None else {**row.facts, "incident": row.incident}
        try:
            return notice(row.kind, facts, topic=topic, earlier=earlier, together=together)
        except Exception:  # noqa: BLE001 - a fault in our words must not keep the news back
            _log.exception("the facts of mail %s could not be put into words", row.message_id)
            plain = {
                key: facts.get(key)
                for key in ("app", "project", "environment", "from", "to", "incident", "automatic")
            }
            return notice(row.kind, plain, topic=topic, earlier=earlier, together=together)

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
        # The recipients of one event share its pictures.
        key = row.app, row.kind, row.incident, row.created_at
        if key not in self._pictures:
            try:
                self._pictures[key] = tuple(self.draw(row.kind, row.facts))
            except Exception:  # noqa: BLE001 - the words must arrive whatever the pictures do
                _log.exception("the pictures of mail %s could not be drawn", row.message_id)
                self._pictures[key] = ()
        return self._pictures[key]

    # --- what became of it -------------------------------------------------------------------

    def _failed(
        self, parcel: Parcel, rows: Sequence[OutboxRow], error: SendError, place: int
    ) -> None:
        self.errors[error.message] = None
        self._bar(parcel)
        if error.outcome is Outcome.NEVER:
            self._give_up(rows, error.message)
            return
        if error.outcome is Outcome.STOP:
            self.stopped[place] = error.message
            self._release(parcel, rows, error.message)
            return
        if error.outcome is Outcome.UNREACHABLE:
            self._unreachable[place] = error.message
        old = [row for row in rows if self.now - row.created_at >= self.give_up]
        hours = self.give_up / 3600
        self._give_up(old, f"given up after {hours:g} h: {error.message}")
        until = next_attempt(rows[0].attempts, rows[0].message_id, self.now)
        # What may have arrived once is never told in another message.
        uncertain = error.uncertain or bool(parcel.again)
        for row in rows:
            if row not in old:
                self.outbox.retry(row.id, until, error.message, uncertain=uncertain)
                self.retried += 1

    def _bar(self, parcel: Parcel) -> None:
        """Let nothing more of an incident go in this pass."""
        if parcel.incident is not None:
            self._barred.add((parcel.incident, parcel.recipient))

    def _release(self, parcel: Parcel, rows: Sequence[OutboxRow], why: str) -> None:
        for row in rows:
            self.outbox.release(row.id, why, uncertain=bool(parcel.again))
            self.retried += 1

    def _give_up(self, rows: Sequence[OutboxRow], why: str) -> None:
        for row in rows:
            self.outbox.dead(row.id, why)
            self.dead += 1
            self.errors[why] = None


def deliver(
    registry: Registry,
    notifiers: Iterable[Notifier],
    now: float,
    *,
    draw: Draw | None = None,
    rules: Rules | None = None,
    give_up: float = GIVE_UP_S,
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
    rules : Rules, optional
        When people are told; default: as where ``[notify]`` says nothing.
    give_up : float
        Seconds after which what could not be sent is dead.

    Returns
    -------
    Delivered

    Raises
    ------
    RegistryError
        If the registry cannot be reached; nothing is lost.
    """
    notifiers = tuple(notifiers)
    due = planned(registry, rules or Rules(unpaced=UNPACED), now)
    if not due.parcels:
        return Delivered()
    own = {row.id: row.message_id for row in registry.outbox.waiting()}
    work = _Pass(registry, notifiers, now, draw, give_up)
    try:
        started = time.monotonic()
        for parcel in due.parcels:
            # A slow server: the rest goes with the next pass, planned anew.
            if time.monotonic() - started > PASS_S:
                break
            work.send(parcel, own.get(parcel.rows[-1], ""))
    finally:
        for one in notifiers:
            one.close()
    return Delivered(
        sent=work.sent,
        retried=work.retried,
        dead=work.dead,
        errors=tuple(work.errors),
        stopped="; ".join(dict.fromkeys(work.stopped.values())),
    )
