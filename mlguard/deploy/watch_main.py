"""The watcher with everything it needs, as a process: ``python -m mlguard.deploy.watch_main``.

Prints one JSON line for each thing that happens; SIGTERM and SIGINT end it after the pass.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlguard.config import AppSettings, ProjectSettings, load_project
from mlguard.deploy.watch import INTERVAL_S, TickEvent, Watcher
from mlguard.errors import MlguardError

if TYPE_CHECKING:
    from mlguard.registry import Registry

#: Who acts, in the audit trail.
ACTOR = "mlguard monitors"


def deliverer(project: ProjectSettings, registry: Registry) -> Callable[[float], str | None]:
    """Return what sends the outbox's mail."""
    from mlguard.notify.outbox import deliver, notifiers_for
    from mlguard.reports.pictures import Illustrator

    notifiers = notifiers_for(project)
    draw = Illustrator(registry)

    def send(now: float) -> str | None:
        done = deliver(registry, notifiers, now, draw=draw)
        if not (done.sent or done.retried or done.dead):
            return None
        errors = f": {'; '.join(done.errors)}" if done.errors else ""
        return f"{done.sent} mails sent, {done.retried} to try again, {done.dead} given up{errors}"

    return send


def reporter(
    project: ProjectSettings, registry: Registry
) -> Callable[[AppSettings, float], str | None]:
    """Return what makes the scheduled report of an app when it is due."""

    def report(settings: AppSettings, now: float) -> str | None:
        from mlguard.data.labels import LabelStore, default_url
        from mlguard.data.prediction_log import PredictionLog
        from mlguard.reports.build import build_report
        from mlguard.reports.schedule import due, send

        period = due(registry, settings.name, settings.report.schedule, now)
        if period is None:
            return None
        since, until = period
        view = build_report(
            project,
            settings,
            registry,
            PredictionLog(project.log_dir),
            LabelStore(default_url(project.log_dir, settings.name)),
            since=since,
            until=until,
            now=now,
        )
        send(registry, view, scheduled=True)
        return f"the {settings.report.schedule} report of {settings.name} is on its way"

    return report


@contextlib.contextmanager
def watcher(
    project: ProjectSettings,
    *,
    only: str | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Watcher]:
    """Give a watcher on a project, with mail and reports.

    Parameters
    ----------
    project : ProjectSettings
        The project.
    only : str, optional
        Watch this app alone.
    clock : callable
        The time, in seconds since the epoch.
    """
    from mlguard.registry import Registry

    with Registry.open(project, clock=clock, actor=ACTOR) as registry:
        yield Watcher(
            project,
            registry,
            clock=clock,
            deliver=deliverer(project, registry),
            report=reporter(project, registry),
            only=only,
        )


def _print(events: Sequence[TickEvent]) -> None:
    for one in events:
        sys.stdout.write(json.dumps(one.to_json(), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until told to stop; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mlguard.deploy.watch_main")
    parser.add_argument("--project", type=Path, default=Path(), help="folder of mlguard.toml")
    parser.add_argument("--app", help="watch this app alone")
    parser.add_argument("--interval", type=float, default=INTERVAL_S, help="seconds between passes")
    parser.add_argument("--once", action="store_true", help="make one pass and end")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        with watcher(load_project(given.project), only=given.app) as one:
            if given.once:
                _print(one.tick())
            else:
                one.run_forever(interval_s=given.interval, on_events=_print)
    except MlguardError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
