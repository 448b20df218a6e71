"""The process beside the server: the watcher in its main thread, errands in another.

Judging and acting must never wait for a mail server or for a picture to be drawn.  So mail and
scheduled reports are carried by a thread of their own, on a connection of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlguard.config import ProjectSettings, load_app
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.deploy.reporting import deliver_mail, report_if_due
from mlguard.deploy.watch import TickEvent, Watcher
from mlguard.errors import MlguardError
from mlguard.registry import Registry
from mlguard.wording import rfc3339

#: Seconds between two looks at the outbox and at the schedule.
ERRANDS_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitored:
    """What one pass over the apps found and did.

    Attributes
    ----------
    events : tuple of TickEvent
        In the order in which they happened.
    errands : tuple of str
        What became of mail and reports.
    """

    events: tuple[TickEvent, ...]
    errands: tuple[str, ...]
    next_step: str = "mlguard status"

    @property
    def exit_code(self) -> int:
        """3 where something could not be watched, else 0."""
        return 3 if any(one.kind == "error" for one in self.events) else 0

    @property
    def lines(self) -> tuple[str, ...]:
        """What happened, in sentences."""
        said = [f"{one.app}: {one.summary}" if one.app else one.summary for one in self.events]
        return (*said, *self.errands) or ("Nothing was due.",)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "monitor",
            "ok": self.exit_code == 0,
            "changed": any(one.kind in ("rolled_back", "default_output") for one in self.events),
            "exit_code": self.exit_code,
            "events": [
                {
                    "at": rfc3339(one.at),
                    "app": one.app,
                    "kind": one.kind,
                    "summary": one.summary,
                    "detail": one.detail,
                }
                for one in self.events
            ],
            "errands": list(self.errands),
        }


def run_errands(project: ProjectSettings, registry: Registry, now: float) -> list[str]:
    """Make the reports that are due and carry the mail; return what is worth saying."""
    said = []
    for name in project.app_names():
        try:
            made = report_if_due(project, load_app(project, name), registry, now)
        except MlguardError as error:
            said.append(f"no scheduled report of {name}: {error.message}")
        else:
            if made is not None:
                said.append(f"wrote the scheduled report {made.files[0]}")
    try:
        mail = deliver_mail(project, registry, now)
    except MlguardError as error:
        return [*said, f"no mail was carried: {error.message}"]
    if mail.sent:
        said.append(f"{mail.sent} mails sent")
    said += [f"mail: {error}" for error in mail.errors]
    return said


def monitor_once(
    project: ProjectSettings,
    registry: Registry,
    *,
    only: str | None = None,
    clock: Callable[[], float],
) -> Monitored:
    """Judge what is due now, act by policy, and carry what that has to say."""
    events = Watcher(project, registry, clock=clock, only=only).tick()
    return Monitored(events=tuple(events), errands=tuple(run_errands(project, registry, clock())))


def monitor_forever(
    project: ProjectSettings,
    registry: Registry,
    *,
    only: str | None = None,
    clock: Callable[[], float],
) -> None:
    """Watch until SIGTERM or SIGINT."""
    stop = threading.Event()
    errands = threading.Thread(
        target=_errands_forever, args=(project, clock, stop), name="errands", daemon=True
    )
    errands.start()
    try:
        Watcher(project, registry, clock=clock, only=only).run_forever(
            stop=stop, on_events=_log_events
        )
    finally:
        stop.set()
        # A mail that is on its way may finish; one that hangs is sent again by the next process.
        errands.join(timeout=2 * ERRANDS_S)


def _errands_forever(
    project: ProjectSettings, clock: Callable[[], float], stop: threading.Event
) -> None:
    registry = Registry.open(project, clock=clock)
    complaint = ""
    while not stop.wait(ERRANDS_S):
        try:
            said = "; ".join(run_errands(project, registry, clock()))
        # Whatever it was, the next look may succeed, and nothing is lost: it is in the registry.
        except Exception as error:  # noqa: BLE001
            said = f"{type(error).__name__}: {error}"
        if said and said != complaint:
            _log.warning("%s", said)
        complaint = said


def _log_events(events: Any) -> None:
    for one in events:
        _log.info("%s %s: %s", one.app, one.kind, one.summary)
