"""The watcher with everything it needs: mail to carry, scheduled reports to make.

Judging and acting never wait for a mail server or for a picture to be drawn: while it runs for
ever, the watcher lets a thread of its own do both, on connections that are safe to share.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlguard.config import AppSettings, ProjectSettings
from mlguard.deploy.explaining_later import LaterExplanations
from mlguard.deploy.mailing import carrier
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.deploy.reporting import report_if_due
from mlguard.deploy.standby import rehearse
from mlguard.deploy.watch import TickEvent, Watcher
from mlguard.registry import Registry
from mlguard.wording import rfc3339

_log = logging.getLogger(__name__)

#: Kinds of events that mean that traffic moved.
_MOVES = frozenset(
    {
        *("rolled_back", "default_output"),
        *("advanced", "promoted", "withdrawn", "rollout_failed", "drained"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitored:
    """What one pass over the apps found and did, in the order in which it happened.

    Attributes
    ----------
    events : tuple of TickEvent
    degraded : tuple of str
        Why a human is needed after it; empty where all is well.
    next_step : str
        The command to type next.
    """

    events: tuple[TickEvent, ...]
    degraded: tuple[str, ...] = ()
    next_step: str = "mlguard status"

    @property
    def exit_code(self) -> int:
        """7 where a human is needed, 6 after a rollback, 3 where watching failed, else 0."""
        kinds = {one.kind for one in self.events}
        if self.degraded:
            return 7
        return 6 if "rolled_back" in kinds else 3 if "error" in kinds else 0

    @property
    def lines(self) -> tuple[str, ...]:
        """What happened, in sentences."""
        said = [f"{one.app}: {one.summary}" if one.app else one.summary for one in self.events]
        needed = [f"A human is needed: {one}." for one in self.degraded]
        return (*(said or ["Nothing was due."]), *needed)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "monitor",
            "ok": self.exit_code == 0,
            "changed": any(one.kind in _MOVES for one in self.events),
            "exit_code": self.exit_code,
            "events": [one.to_json() | {"at": rfc3339(one.at)} for one in self.events],
            "degraded": list(self.degraded),
        }


def watcher(
    project: ProjectSettings,
    registry: Registry,
    *,
    only: str | None,
    clock: Callable[[], float],
    once: bool = False,
) -> Watcher:
    """Return a watcher that carries mail and makes the scheduled reports.

    Parameters
    ----------
    only : str or None
        Watch this app alone.
    clock : callable
        Seconds since the epoch.
    once : bool
        Whether it makes one pass only.
    """
    carry = carrier(project, registry, once=once)

    def deliver(now: float) -> str | None:
        done = carry(now)
        if not (done.sent or done.retried or done.dead):
            return None
        counts = f"{done.sent} mails sent, {done.retried} to try again, {done.dead} given up"
        return f"{counts}: {'; '.join(done.errors)}" if done.errors else counts

    def report(settings: AppSettings, now: float) -> str | None:
        made = report_if_due(project, settings, registry, now)
        return None if made is None else f"wrote {made.files[0]}"

    return Watcher(
        project,
        registry,
        clock=clock,
        deliver=deliver,
        report=report,
        rehearsal=rehearse,
        explain=LaterExplanations(project, registry),
        only=only,
    )


def monitor_once(
    project: ProjectSettings,
    registry: Registry,
    *,
    only: str | None = None,
    clock: Callable[[], float],
) -> Monitored:
    """Judge what is due now, act by policy, and carry what that has to say."""
    watched = watcher(project, registry, only=only, clock=clock, once=True)
    return Monitored(events=tuple(watched.tick()))


def monitor_forever(
    project: ProjectSettings,
    registry: Registry,
    *,
    only: str | None = None,
    clock: Callable[[], float],
) -> None:
    """Watch until SIGTERM or SIGINT; what happens is logged."""
    watcher(project, registry, only=only, clock=clock).run_forever(on_events=_log_events)


def _log_events(events: Sequence[TickEvent]) -> None:
    for one in events:
        _log.info("%s %s: %s", one.app, one.kind, one.summary)
