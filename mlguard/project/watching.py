"""Watching: the monitors, and the incidents that they open."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlguard.errors import ConfigError, NotFoundError, UsageError
from mlguard.project.base import Progress, silent
from mlguard.project.reading import Reading

if TYPE_CHECKING:
    from mlguard.deploy.incidents import Incidents
    from mlguard.deploy.monitoring import Monitored


class Watching(Reading):
    """The commands about what was seen in service."""

    def monitor(self, name: str | None = None, *, once: bool = True) -> Monitored | None:
        """Judge the windows that are due and act by policy.

        Parameters
        ----------
        name : str, optional
            One app; default all.
        once : bool
            Return after one pass; else watch until SIGTERM or SIGINT, and return None.
        """
        from mlguard.deploy.monitoring import monitor_forever, monitor_once

        if name is not None:
            self.app(name)
        if once:
            found = monitor_once(self.settings, self.registry, only=name, clock=self.clock)
            needed = [f"{one.app}: {why}" for one in self.status(name) for why in one.degraded]
            return dataclasses.replace(found, degraded=tuple(needed))
        monitor_forever(self.settings, self.registry, only=name, clock=self.clock)
        return None

    def incidents(self, number: int | None = None) -> Incidents:
        """List the incidents of all apps, newest first, or tell one with all that is known of it.

        Parameters
        ----------
        number : int, optional
            The one to tell.

        Raises
        ------
        NotFoundError
            If there is none of that number.
        """
        from mlguard.deploy.incidents import LISTED, Incidents

        now = self.clock()
        if number is None:
            found = tuple(self.registry.incidents())[:LISTED]
            return Incidents(
                found=found, now=now, next_step=f"mlguard incident {found[0].id}" if found else ""
            )
        return self._incident(number)

    def _incident(
        self,
        number: int,
        *,
        changed: bool = False,
        lines: Sequence[str] = (),
        files: Sequence[str] = (),
        next_step: str = "",
    ) -> Incidents:
        from mlguard.deploy.incidents import Incidents, tell

        settings = None
        with contextlib.suppress(ConfigError, NotFoundError):
            settings = self.app(self.registry.incident(number).app)
        story = tell(self.settings, settings, self.registry, number)
        return Incidents(
            found=(story.incident,),
            story=story,
            now=self.clock(),
            changed=changed,
            lines=tuple(lines),
            files=tuple(files),
            next_step=next_step or story.next_step,
        )

    def close_incident(self, number: int, *, cause: str) -> Incidents:
        """Close an incident with what it was; one that is closed stays as it is.

        Parameters
        ----------
        number : int
            Its number.
        cause : str
            What it was; kept in the history.

        Raises
        ------
        UsageError
            If no cause is given.
        NotFoundError
            If there is none of that number.
        """
        from mlguard.deploy.incidents import close

        if not cause.strip():
            raise UsageError(
                "an incident is closed with its cause", hint=f'say it: --close --cause "…" {number}'
            )
        incident, changed = close(self.registry, number, cause.strip())
        line = f"Incident {number} is closed: {incident.cause}."
        if not changed:
            line = f"Incident {number} was closed before: {incident.cause}."
        if self.registry.holds(incident.app):
            line += f" New deploys of {incident.app} are still held."
        return self._incident(number, changed=changed, lines=(line,))

    def incident_check(
        self, number: int, *, force: bool = False, progress: Progress = silent
    ) -> Incidents:
        """Write a pytest check from an incident's rows, so that it blocks the next candidate.

        Parameters
        ----------
        number : int
            The incident's number.
        force : bool, default False
            Replace a check that is there.
        progress : callable, optional
            Told in one line what is going on.

        Raises
        ------
        RefusedError
            If its files are there already.
        UndecidedError
            If its rows are gone or too few, or no limit tells a good version from a bad one.
        UsageError
            If what the model sees is not in the log.
        """
        from mlguard.deploy.incident_check import CheckWriter
        from mlguard.deploy.incident_rows import read_rows

        incident = self.registry.incident(number)
        settings = self.app(incident.app)
        progress(f"reading the rows of incident {number}")
        found = read_rows(self.settings, settings, self.registry, incident)
        made = CheckWriter(
            project=self.settings,
            settings=settings,
            registry=self.registry,
            incident=incident,
            found=found,
        ).write(force=force)
        return self._incident(
            number,
            changed=made.changed,
            lines=made.lines,
            files=[str(one.relative_to(self.root)) for one in made.files],
            next_step=f"mlguard check {incident.app}",
        )

    def incident_rows(self, number: int, file: Path | str) -> Incidents:
        """Write the labelled rows of an incident, and those before it, as a table to replay.

        Parameters
        ----------
        number : int
            The incident's number.
        file : path-like
            CSV or Parquet file.

        Raises
        ------
        RefusedError
            If the file is there already.
        UndecidedError
            If its rows are gone, or none has a label.
        """
        from mlguard.deploy.incident_rows import read_rows
        from mlguard.deploy.incident_table import export_rows

        incident = self.registry.incident(number)
        settings = self.app(incident.app)
        found = read_rows(self.settings, settings, self.registry, incident)
        line, command = export_rows(settings, self.registry, incident, found, Path(file))
        return self._incident(
            number, changed=True, lines=(line,), files=(str(file),), next_step=command
        )
