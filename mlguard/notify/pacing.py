"""What goes out now, in which message, and what waits until when: a function of what is known.

Given the rows that wait, what was told before, the settings and the time, :func:`plan` says
which rows make one message now.  It reads no clock and keeps nothing, so a restart changes
nothing, and what it promises can be tested for every order of events:

* no row is ever dropped: each is in a parcel, or waits until a time that is named;
* a rollback, the default output, a blind monitor and a refusal go at once, whatever waits in
  their thread goes with them;
* else the first message of an incident waits ``group_wait`` and takes along what the same app's
  other incidents have to say, and two messages of an incident are ``group_interval`` apart;
* in quiet hours, and above ``cap_per_day``, only a rollback and the default output are told;
  what the cap holds back stands in the next digest;
* within an incident nothing is overtaken: where one row waits for another attempt, those behind
  it wait too, and one message tells of them all in the end;
* what may have arrived is sent again in the same message, alone.

A clock that is set back delays nothing: what seems to lie in the future is taken as past.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mlguard.notify.hours import last_digest, next_digest, quiet_until
from mlguard.wording import moment

#: Kinds that are told at once.
IMMEDIATE = frozenset({"rolled_back", "default_output", "blind", "refused", "test"})
#: Kinds that are told also in quiet hours and above the cap.
EXEMPT = frozenset({"rolled_back", "default_output", "test"})
#: The kind that the daily digest is written down as.
DIGEST = "digest"
#: Messages after which an incident goes on in a new thread: mail programs get slow, and Gmail
#: begins a new one of its own.
THREAD_LENGTH = 100
#: No row waits longer for its next attempt; what seems to was written by a clock since set back.
LONGEST_S = 2 * 3600.0


class Row(Protocol):
    """A row of the outbox, as far as its turn depends on it."""

    @property
    def id(self) -> int:
        """Number; later rows have larger ones."""

    @property
    def app(self) -> str:
        """Whom it is about; empty: all apps."""

    @property
    def kind(self) -> str:
        """What it tells."""

    @property
    def recipient(self) -> str:
        """Who is to be told."""

    @property
    def incident(self) -> int | None:
        """The incident that it belongs to."""

    @property
    def created_at(self) -> float:
        """When it was written down."""

    @property
    def state(self) -> str:
        """``SENDING`` while somebody sends it; see the registry's outbox."""

    @property
    def told_in(self) -> str:
        """Message-ID of the message that it was sent in, or may have been."""

    @property
    def next_at(self) -> float:
        """Not to be sent before."""

    @property
    def lease_until(self) -> float | None:
        """Until when it is somebody's who sends it."""

    @property
    def settled_at(self) -> float | None:
        """When it was sent or given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings of ``[notify]`` that say when.

    Attributes
    ----------
    group_wait, group_interval : float
        Seconds.
    digest : str
        Time of day and zone.
    quiet : str
        Hours and zone; empty: none.
    cap_per_day : int
    unpaced : frozenset of str
        Recipients that are told of every event at once, each by itself: programs.
    """

    group_wait: float = 30.0
    group_interval: float = 300.0
    digest: str = "08:00 UTC"
    quiet: str = ""
    cap_per_day: int = 20
    unpaced: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Rows that one message tells of.

    Attributes
    ----------
    rows : tuple of int
        Their ids, oldest first.
    recipient : str
    digest : bool
        Whether it is a digest.
    incident : int or None
        The incident in whose thread it stands.
    number : int
        Its place in that thread, from 0; from :data:`THREAD_LENGTH` on it is that of a second
        thread, and so on.
    again : str
        Message-ID of the message that is sent again; empty where it is a new one.
    """

    rows: tuple[int, ...]
    recipient: str
    digest: bool = False
    incident: int | None = None
    number: int = 0
    again: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes now, and what waits.

    Attributes
    ----------
    parcels : tuple of Parcel
        What goes now, in this order.
    waits : dict
        Of each row that waits until when (None: not known) and for what.
    due : dict of int to float
        Of each row that ought to be gone by now since when: those that go, and those whose
        attempts failed.  What waits by the rules is not due.
    """

    parcels: tuple[Parcel, ...] = ()
    waits: dict[int, tuple[float | None, str]] = field(default_factory=dict)
    due: dict[int, float] = field(default_factory=dict)

    def oldest_due(self) -> float | None:
        """Return since when the most overdue mail ought to be gone; None where none is due."""
        return min(self.due.values(), default=None)


def message_id(parcel: Parcel, own: str, *, installation: str, domain: str) -> str:
    """Return the Message-ID of a parcel.

    Parameters
    ----------
    parcel : Parcel
    own : str
        That of its last row, which a message that stands in no thread has.
    installation, domain : str
        What makes it unlike anybody else's.
    """
    if parcel.again:
        return parcel.again
    if parcel.digest:
        return f"<digest-{installation}-{parcel.rows[0]}@{domain}>"
    if parcel.incident is None:
        return own
    part, index = divmod(parcel.number, THREAD_LENGTH)
    name = f"inc-{installation}-{parcel.incident}" + (f"-part{part + 1}" if part else "")
    return f"<{name}.{index}@{domain}>"


def is_of_thread(told_in: str, incident: int) -> bool:
    """Whether a Message-ID is one of an incident's own thread.

    Examples
    --------
    >>> is_of_thread("<inc-3f2a-42.0@example.com>", 42)
    True
    >>> is_of_thread("<inc-3f2a-142.0@example.com>", 42)
    False
    """
    name = told_in.strip("<>").partition("@")[0].rpartition(".")[0].partition("-part")[0]
    return name.startswith("inc-") and name.endswith(f"-{incident}")


def plan(queue: Sequence[Row], told: Sequence[Row], rules: Rules, now: float) -> Plan:
    """Say what goes out now.

    Parameters
    ----------
    queue : sequence of Row
        All rows that are not settled.
    told : sequence of Row
        Rows that were in a message: all since the oldest of the queue was written down, and all
        of the queue's incidents.
    rules : Rules
    now : float
        Seconds since the epoch.

    Returns
    -------
    Plan
        Every row of the queue is in one parcel, or waits, or is being sent by somebody.
    """
    people: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(queue, key=lambda one: one.id):
        people[row.recipient].append(row)
    parcels: list[Parcel] = []
    waits: dict[int, tuple[float | None, str]] = {}
    due: dict[int, float] = {}
    for recipient, rows in people.items():
        heard = [one for one in told if one.recipient == recipient]
        desk = _Desk(recipient, rows, heard, rules, now)
        parcels += desk.parcels()
        waits |= desk.waits
        due |= desk.due
    urgent = {_thread(row) for row in queue if row.kind in EXEMPT}
    by_id = {row.id: row for row in queue}
    # A pass may be cut short: what must not wait goes first, with what stands before it.
    parcels.sort(
        key=lambda one: (
            urgent.isdisjoint(_thread(by_id[row]) for row in one.rows),
            one.rows[0],
        )
    )
    return Plan(parcels=tuple(parcels), waits=waits, due=due)


def _thread(row: Row) -> tuple[str, int, int]:
    return row.recipient, row.incident or 0, 0 if row.incident is not None else row.id


class _Desk:
    """One recipient's mail."""

    def __init__(
        self, recipient: str, rows: Sequence[Row], heard: Sequence[Row], rules: Rules, now: float
    ) -> None:
        self.recipient = recipient
        self.rules = rules
        self.now = now
        self.rows = rows
        self.heard = heard
        self.waits: dict[int, tuple[float | None, str]] = {}
        self.due: dict[int, float] = {}
        self.new_messages = 0

    def parcels(self) -> Iterator[Parcel]:
        threads: dict[tuple[str, int], list[Row]] = defaultdict(list)
        digest: list[Row] = []
        for row in self.rows:
            if row.told_in or row.incident is not None:
                continue
            if row.kind == DIGEST or (self._paced and self._overflowed([row])):
                digest.append(row)
            else:
                threads["row", row.id].append(row)
        bound = [row for row in self.rows if row.told_in]
        yield from self._again(bound)
        stuck = self._stuck(bound)
        for row in self.rows:
            if row.incident is None or row.told_in:
                continue
            threads["incident", row.incident].append(row)
        free = {}
        for key, rows in sorted(threads.items(), key=lambda one: one[1][0].id):
            why = stuck.get(key[1]) if key[0] == "incident" else None
            why = why or self._not_yet(rows)
            if why is not None:
                self._late(rows, *why)
            elif self._paced and key[0] == "incident" and self._overflowed(rows):
                digest += rows
            else:
                free[key] = rows
        yield from self._messages(free) if self._paced else self._one_by_one(free)
        yield from self._digest(sorted(digest, key=lambda one: one.id))

    @functools.cached_property
    def _paced(self) -> bool:
        return self.recipient not in self.rules.unpaced

    # --- what was tried before -------------------------------------------------------------

    def _again(self, bound: Iterable[Row]) -> Iterator[Parcel]:
        """Send again, as it was, what may have arrived."""
        messages: dict[str, list[Row]] = defaultdict(list)
        for row in bound:
            messages[row.told_in].append(row)
        for told_in, rows in messages.items():
            why = self._not_yet(rows)
            if why is not None:
                self._late(rows, *why)
                continue
            self._due(rows)
            digest = _is_digest(rows)
            yield Parcel(
                rows=tuple(row.id for row in rows),
                recipient=self.recipient,
                digest=digest,
                incident=None if digest else rows[0].incident,
                again=told_in,
            )

    def _stuck(self, bound: Iterable[Row]) -> dict[int, tuple[float | None, str]]:
        """Return the incidents with a message on its way: nothing overtakes it."""
        why = "an earlier message of the incident has to go first"
        return {row.incident: (None, why) for row in bound if row.incident is not None}

    def _not_yet(self, rows: Sequence[Row]) -> tuple[float | None, str] | None:
        # Fresh news of a rollback is a reason to knock again at once, with what waits before it.
        fresh = any(row.kind in EXEMPT and row.state == "PENDING" for row in rows)
        for row in rows:
            if row.state == "SENDING" and self.now < (row.lease_until or 0.0):
                return row.lease_until, "it is being sent"
            if not fresh and self.now < row.next_at <= self.now + LONGEST_S:
                return row.next_at, "the next attempt"
        return None

    def _wait(self, rows: Iterable[Row], until: float | None, why: str) -> None:
        for row in rows:
            self.waits[row.id] = until, why

    def _late(self, rows: Sequence[Row], until: float | None, why: str) -> None:
        """Let rows wait that ought to be gone."""
        self._wait(rows, until, why)
        self._due(rows)

    def _due(self, rows: Sequence[Row], since: float = 0.0, *, digest: bool = False) -> None:
        """Note rows that ought to be gone: since they were made, and not before ``since``.

        What quiet hours kept back was due when they ended, and what the cap kept back with the
        digest.
        """
        digest = digest or _is_digest(rows)
        for row in rows:
            start = max(row.created_at, since)
            if digest and row.kind != DIGEST:
                start = next_digest(self.rules.digest, start)
            if self._paced and row.kind not in EXEMPT:
                start = quiet_until(self.rules.quiet, start) or start
            self.due[row.id] = min(start, self.now)

    # --- messages --------------------------------------------------------------------------

    def _one_by_one(self, free: dict[tuple[str, int], list[Row]]) -> Iterator[Parcel]:
        for (kind, number), rows in free.items():
            incident = number if kind == "incident" else None
            place = 0 if incident is None else self._number(incident)
            self._due(rows)
            for count, row in enumerate(rows):
                yield self._parcel([row], incident, place + count)

    def _messages(self, free: dict[tuple[str, int], list[Row]]) -> Iterator[Parcel]:
        done: set[tuple[str, int]] = set()
        for key, rows in free.items():
            if key in done:
                continue
            incident = key[1] if key[0] == "incident" else None
            exempt = any(row.kind in EXEMPT for row in rows)
            until = self._ready(incident, rows)
            if until > self.now:
                self._wait(rows, until, "what belongs together goes in one message")
                continue
            if not exempt and self._held_back(rows):
                continue
            together = list(rows)
            if incident is not None and not exempt and self._fresh(incident):
                for other, more in free.items():
                    if other != key and other not in done and self._goes_with(other, more, rows):
                        done.add(other)
                        together += more
            done.add(key)
            self._due(together, until if until < self.now else 0.0)
            self.new_messages += not exempt
            number = 0 if incident is None else self._number(incident)
            yield self._parcel(together, incident, number)

    def _parcel(self, rows: Sequence[Row], incident: int | None, number: int) -> Parcel:
        return Parcel(
            # What gave the thread its turn speaks last, so the message is in its words.
            rows=tuple(row.id for row in rows),
            recipient=self.recipient,
            incident=incident,
            number=number,
        )

    def _ready(self, incident: int | None, rows: Sequence[Row]) -> float:
        """Return the time from which rows of one thread may go."""
        if incident is None or any(row.kind in IMMEDIATE for row in rows):
            return self.now
        first = min(row.created_at for row in rows)
        last = max(
            (
                row.settled_at
                for row in self.heard
                if row.incident == incident and row.settled_at is not None and row.state == "SENT"
            ),
            default=None,
        )
        if last is not None:
            return self.now if last > self.now else last + self.rules.group_interval
        return self.now if first > self.now else first + self.rules.group_wait

    def _held_back(self, rows: Sequence[Row]) -> bool:
        quiet = quiet_until(self.rules.quiet, self.now)
        if quiet is not None:
            self._wait(rows, quiet, "quiet hours")
            return True
        if self._told_between(self._period, self.now) + self.new_messages >= self.rules.cap_per_day:
            until = next_digest(self.rules.digest, self.now)
            self._wait(rows, until, f"the digest: {self.rules.cap_per_day} messages were sent")
            return True
        return False

    def _fresh(self, incident: int) -> bool:
        return all(row.incident != incident for row in self.heard)

    def _goes_with(self, other: tuple[str, int], more: Sequence[Row], rows: Sequence[Row]) -> bool:
        """Whether a second incident can be told in the first message of another."""
        return (
            other[0] == "incident"
            and more[0].app == rows[0].app
            and self._fresh(other[1])
            and not any(row.kind in IMMEDIATE for row in [*more, *rows])
        )

    def _number(self, incident: int) -> int:
        mine = {row.told_in for row in self.heard if is_of_thread(row.told_in, incident)}
        return len(mine)

    # --- the digest ------------------------------------------------------------------------

    @functools.cached_property
    def _period(self) -> float:
        return last_digest(self.rules.digest, self.now)

    def _told_between(self, start: float, end: float) -> int:
        """Count the messages of a stretch of time; digests and what is exempt do not count."""
        messages: dict[str, bool] = {}
        for row in self.heard:
            if row.state != "SENT" or row.settled_at is None:
                continue
            if start <= row.settled_at <= end and "<digest-" not in row.told_in:
                exempt = row.kind in EXEMPT
                messages[row.told_in] = messages.get(row.told_in, False) or exempt
        return sum(not exempt for exempt in messages.values())

    def _overflowed(self, rows: Sequence[Row]) -> bool:
        """Whether the cap held rows back before the newest digest was due."""
        if any(row.kind in EXEMPT for row in rows):
            return False
        first = min(row.created_at for row in rows)
        end = self._period
        while first < end:
            start = last_digest(self.rules.digest, end - 1)
            if self._told_between(start, end) >= self.rules.cap_per_day:
                return True
            end = start
        return False

    def _digest(self, rows: Sequence[Row]) -> Iterator[Parcel]:
        if not rows:
            return
        why = self._not_yet(rows)
        quiet = quiet_until(self.rules.quiet, self.now) if self._paced else None
        if why is None and quiet is not None:
            self._wait(rows, quiet, "quiet hours")
            return
        self._due(rows, digest=True)
        if why is not None:
            self._wait(rows, *why)
        else:
            yield Parcel(rows=tuple(row.id for row in rows), recipient=self.recipient, digest=True)


def _is_digest(rows: Iterable[Row]) -> bool:
    """Whether rows are, or were in, a digest."""
    return any(row.kind == DIGEST or "<digest-" in row.told_in for row in rows)


def until_words(until: float | None, why: str) -> str:
    """Say in a clause what a row waits for.

    Examples
    --------
    >>> until_words(1795357320.0, "quiet hours")
    'waits until 2026-11-22 14:22 UTC: quiet hours'
    """
    return f"waits until {moment(until)}: {why}" if until is not None else f"waits: {why}"
