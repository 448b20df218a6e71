"""Carry mail, ask whether it would arrive, and tend what waits: ``notify test`` and ``outbox``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlguard.config import ProjectSettings
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.errors import MlguardError
from mlguard.notify.delivery import Delivery, Notifier, Outcome, SendError
from mlguard.notify.due import promise_due
from mlguard.notify.notice import notice
from mlguard.notify.outbox import Delivered, deliver, notifiers_for, planned, rules_for
from mlguard.notify.pacing import until_words
from mlguard.reports.pictures import Illustrator
from mlguard.wording import ago, printable, rfc3339

if TYPE_CHECKING:
    from mlguard.registry import Registry
    from mlguard.registry.records import OutboxRow

#: The command's actions.
ACTIONS = ("list", "retry", "drop")
#: Exit codes: sent; mlguard.toml is wrong; somebody's server is.
_SENT, _SETTINGS, _BROKEN = 0, 2, 3
#: States of mail that nobody has to look at.
_DONE = frozenset({"SENT", "MUTED", "DROPPED"})


def carrier(
    project: ProjectSettings, registry: Registry, *, once: bool = False
) -> Callable[[float], Delivered]:
    """Return what makes one pass over the outbox, and may be called again and again.

    The notifiers stay the same, so that one which was refused remembers to wait.

    Parameters
    ----------
    project : ProjectSettings
    registry : Registry
    once : bool
        There is one pass and nobody knows when the next will be, as under cron: then what was
        found together is told now, and waits for nothing that may belong to it.
    """
    rules = rules_for(project.notify)
    if once:
        rules = replace(rules, group_wait=0.0)
    notifiers = notifiers_for(project)
    draw = Illustrator(registry)

    def carry(now: float) -> Delivered:
        # What this pass decided was written down after it began.
        now = max(now, registry.clock())
        promise_due(project, registry, now)
        return deliver(
            registry,
            notifiers,
            now,
            draw=draw,
            rules=rules,
            give_up=project.notify.give_up,
        )

    return carry


# --- notify test -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of the test message to one recipient."""

    recipient: str
    ok: bool
    said: str
    hint: str = ""
    settings: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What ``mlguard notify test`` found."""

    tried: tuple[Tried, ...]

    @property
    def exit_code(self) -> int:
        """0 where every message arrived, 2 where only the settings are wrong, else 3."""
        bad = [one for one in self.tried if not one.ok]
        if not bad:
            return _SENT
        return _SETTINGS if all(one.settings for one in bad) else _BROKEN

    @property
    def lines(self) -> tuple[str, ...]:
        """What happened, a sentence for each recipient."""
        return tuple(
            f"{'✓' if one.ok else '✗'} {printable(one.recipient, 120)}: {one.said}."
            for one in self.tried
        )

    @property
    def next_step(self) -> str:
        """What to do about the first that failed."""
        hints = [one.hint for one in self.tried if not one.ok and one.hint]
        return hints[0] if hints else "mlguard outbox"

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        sent = sum(one.ok for one in self.tried)
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "notify test",
            "ok": self.exit_code == 0,
            "changed": False,
            "exit_code": self.exit_code,
            "recipients": [
                {
                    "recipient": one.recipient,
                    "ok": one.ok,
                    "said": one.said,
                    "hint": one.hint,
                }
                for one in self.tried
            ],
            "notifications": {"queued": 0, "sent": sent, "failed": len(self.tried) - sent},
            "lines": list(self.lines),
            "next_step": self.next_step,
        }


def try_notifiers(
    project: ProjectSettings, recipients: Sequence[str], *, key: str, now: float
) -> Tested:
    """Send a test message to each recipient, past the queue, and say what happened.

    Parameters
    ----------
    project : ProjectSettings
    recipients : sequence of str
        Who gets one.
    key : str
        Makes the Message-IDs unlike any other.
    now : float
        Seconds since the epoch.
    """
    facts = {
        "project": project.project.name,
        "environment": project.project.environment,
        "at": rfc3339(now),
    }
    notifiers = notifiers_for(project)
    tried = []
    try:
        for number, recipient in enumerate(recipients):
            delivery = Delivery(
                recipient=recipient,
                notice=notice("test", facts),
                facts=facts,
                message_id=f"<test-{key}-{number}@{_domain(project)}>",
                created_at=now,
            )
            tried.append(_try(notifiers, delivery, now))
    finally:
        for one in notifiers:
            one.close()
    return Tested(tried=tuple(tried))


def _domain(project: ProjectSettings) -> str:
    sender = project.notify.email.sender if project.notify.email is not None else ""
    return sender.rpartition("@")[2].strip(" >") or "mlguard.localhost"


def _try(notifiers: Sequence[Notifier], delivery: Delivery, now: float) -> Tried:
    who = delivery.recipient
    notifier = next((one for one in notifiers if one.handles(who)), None)
    if notifier is None:
        hint = "write an address, webhook, or a recipient that an installed notifier knows"
        return Tried(recipient=who, ok=False, said="nobody reaches it", hint=hint, settings=True)
    try:
        said = notifier.send(delivery, now)
    except SendError as error:
        stop = error.outcome is Outcome.STOP
        why = printable(error.message, 400).rstrip(".")
        return Tried(recipient=who, ok=False, said=why, hint=error.hint, settings=stop)
    except MlguardError:
        raise
    except Exception as error:  # noqa: BLE001 - somebody else's notifier; the others are tried
        why = f"{type(error).__name__}: {printable(error, 400)}"
        return Tried(recipient=who, ok=False, said=why)
    return Tried(recipient=who, ok=True, said=printable(said or "delivered", 400))


# --- outbox ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What ``mlguard outbox`` shows or did.

    Attributes
    ----------
    action : str
        One of ``ACTIONS``.
    rows : tuple of OutboxRow
        What is shown, or was changed; newest first.
    waits : dict
        What each row that waits waits for.
    counts : dict
        Rows in each state.
    stuck : str
        Why mail does not go out; empty where it does.
    """

    action: str
    rows: tuple[OutboxRow, ...]
    waits: dict[int, str]
    counts: dict[str, int]
    stuck: str
    now: float
    done: str = ""

    @property
    def exit_code(self) -> int:
        """7 where mail is dead or does not go out, else 0; what was asked for is done: 0."""
        if self.action != "list":
            return 0
        return 7 if self.counts["DEAD"] or self.stuck else 0

    @property
    def lines(self) -> tuple[str, ...]:
        """What there is to say, in sentences."""
        if self.done:
            return (self.done,)
        waiting = sum(self.counts[one] for one in ("PENDING", "SENDING", "RETRY"))
        said = [f"{waiting} waiting", f"{self.counts['SENT']} sent", f"{self.counts['DEAD']} dead"]
        said += [
            f"{self.counts[one]} {one.lower()}" for one in ("MUTED", "DROPPED") if self.counts[one]
        ]
        lines = [f"Mail: {', '.join(said)}."]
        if self.stuck:
            lines.append(f"✗ Mail does not go out: {printable(self.stuck, 300)}")
        return tuple(lines)

    @property
    def next_step(self) -> str:
        """The command to type next."""
        dead = [row.id for row in self.rows if row.state == "DEAD"]
        if self.stuck:
            return "mlguard notify test"
        if dead and self.action == "list":
            return f"mlguard outbox retry {dead[0]}"
        return "mlguard outbox" if self.action != "list" else "mlguard status"

    def words(self, row: OutboxRow) -> str:
        """Say where one row stands."""
        if row.state == "SENT":
            return f"sent {ago(row.settled_at, self.now)}"
        if row.id in self.waits and row.state != "DEAD":
            text = self.waits[row.id]
            return f"{text}; {printable(row.error, 200)}" if row.error else text
        state = {"DEAD": "given up", "MUTED": "muted by a hold", "DROPPED": "dropped"}
        text = state.get(row.state, "goes with the next pass")
        return f"{text}: {printable(row.error, 200)}" if row.error else text

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": f"outbox {self.action}",
            "ok": self.exit_code == 0,
            "changed": self.action != "list",
            "exit_code": self.exit_code,
            "mail": [
                {
                    "id": row.id,
                    "app": row.app or None,
                    "kind": row.kind,
                    "recipient": row.recipient,
                    "incident": row.incident,
                    "state": row.state,
                    "attempts": row.attempts,
                    "created_at": rfc3339(row.created_at),
                    "settled_at": None if row.settled_at is None else rfc3339(row.settled_at),
                    "message_id": row.told_in or None,
                    "error": row.error,
                    "says": self.words(row),
                }
                for row in self.rows
            ],
            "counts": self.counts,
            "stuck": self.stuck,
            "lines": list(self.lines),
            "next_step": self.next_step,
        }


def outbox_list(
    project: ProjectSettings, registry: Registry, *, everything: bool, now: float
) -> Queue:
    """Return what waits or is dead, and what each waits for; ``everything``: the newest 100."""
    rows = registry.outbox.rows(limit=100) if everything else _open(registry)
    waits = {
        number: until_words(until, why)
        for number, (until, why) in planned(registry, rules_for(project.notify), now).waits.items()
    }
    return _queue(registry, "list", rows, now=now, waits=waits)


def _open(registry: Registry) -> list[OutboxRow]:
    dead = registry.outbox.rows(state="DEAD", limit=1000)
    return sorted([*registry.outbox.waiting(), *dead], key=lambda row: -row.id)


def outbox_retry(registry: Registry, row_id: int, *, now: float) -> Queue:
    """Give a mail another chance with the next pass."""
    row = registry.outbox.revive(row_id)
    done = f"Mail {row.id} ({row.kind} to {printable(row.recipient, 120)}) goes with the next pass."
    return _queue(registry, "retry", [row], now=now, done=done)


def outbox_drop(registry: Registry, row_id: int, reason: str, *, now: float) -> Queue:
    """Take a mail out of the queue for good."""
    row = registry.outbox.drop(row_id, f"{registry.actor}: {reason}")
    done = f"Mail {row.id} ({row.kind} to {printable(row.recipient, 120)}) is not sent any more."
    return _queue(registry, "drop", [row], now=now, done=done)


def _queue(
    registry: Registry,
    action: str,
    rows: Sequence[OutboxRow],
    *,
    now: float,
    waits: dict[int, str] | None = None,
    done: str = "",
) -> Queue:
    return Queue(
        action=action,
        rows=tuple(rows),
        waits=waits or {},
        counts=registry.outbox.counts(),
        stuck=registry.outbox.stuck(),
        now=now,
        done=done,
    )
