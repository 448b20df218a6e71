"""Looking: what serves and why, what was done, one prediction, a report.  Nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.config import parse_duration
from mlguard.errors import ConfigError, NotFoundError, UsageError
from mlguard.project.base import Base, Progress, silent

if TYPE_CHECKING:
    from mlguard.deploy.explanation import Explanation
    from mlguard.deploy.history import History
    from mlguard.deploy.reporting import Reported
    from mlguard.deploy.status import AppStatus
    from mlguard.deploy.why import Why
    from mlguard.reports.card import Card


class Reading(Base):
    """The commands that only look."""

    def status(self, name: str | None = None) -> list[AppStatus]:
        """Say what serves each app, since when and why, and what is watched.

        An app whose app.toml is not valid, or not there any more, is listed with the error:
        what serves goes on.
        """
        from mlguard.data.disk_floor import disk_of
        from mlguard.deploy.status import app_status

        if name is None:
            served = {state.app for state in self.registry.apps() if state.generation}
            names = sorted(served | set(self.app_names()))
        else:
            if name not in self.app_names():
                self._seen(name)
            names = [name]
        found = []
        for one in names:
            settings, problem = None, ""
            try:
                settings = self.app(one)
            except (ConfigError, NotFoundError) as error:
                problem = error.message
            found.append(
                app_status(
                    self.registry,
                    one,
                    settings,
                    config_error=problem,
                    now=self.clock(),
                    disk=disk_of(
                        self.settings.log_dir, int(self.settings.server.min_free_mib * 2**20)
                    ),
                )
            )
        return found

    def history(
        self,
        name: str | None = None,
        *,
        at: str | None = None,
        verify: bool = False,
        limit: int = 30,
    ) -> History:
        """Return what was done, by whom and why.

        Parameters
        ----------
        name : str, optional
            One app; default all.
        at : str, optional
            ISO 8601 time: what served then.
        verify : bool
            Check that no entry was edited or deleted.
        limit : int
            Newest entries to return.
        """
        from mlguard.deploy.history import read_history

        if name is not None:
            self._seen(name)
        return read_history(self.registry, name, at=at, verify=verify, limit=limit)

    def why(self, name: str, version: str | None = None) -> Why:
        """Say why a version is in its state: what was done to it, and on what evidence.

        Parameters
        ----------
        name : str
            The app.
        version : str, optional
            Name of the version; default the active one.

        Raises
        ------
        NotFoundError
            If there is no such version, or none is active.
        """
        from mlguard.deploy.why import explain_version

        self._seen(name)
        return explain_version(self.registry, name, version)

    def card(self, name: str, version: str | None = None) -> Card:
        """Return all that is on record about a version.

        Parameters
        ----------
        name : str
            The app.
        version : str, optional
            Name of the version; default the active one.

        Raises
        ------
        NotFoundError
            If there is no such version, or none is active.
        """
        from mlguard.deploy.card import make_card

        return make_card(self.settings, self.app(name), self.registry, version, now=self.clock())

    def evidence(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Return all evidence about a version's content, newest first, as one JSON document.

        Figures of small groups are in it: it is the record that a decision is proved with.
        """
        from mlguard.deploy.card import evidence_document

        self._seen(name)
        return evidence_document(self.registry, name, version)

    def explain(self, name: str, query_id: int, *, progress: Progress = silent) -> Explanation:
        """Take one prediction apart: row, version, why default, label, what others say today.

        Parameters
        ----------
        name : str
            The app.
        query_id : int
            As it stood in the answer.
        progress : callable, optional
            Told in one line what is going on.

        Raises
        ------
        NotFoundError
            If nobody was given that id by this app.
        """
        from mlguard.deploy.explain import explain

        self._seen(name)
        try:
            settings = self.app(name)
        except (ConfigError, NotFoundError):
            settings = None  # what was answered is known whatever the file says today
        return explain(
            self.settings,
            self.registry,
            name,
            query_id,
            settings=settings,
            now=self.clock(),
            progress=progress,
        )

    def report(
        self,
        name: str,
        *,
        window: str = "7d",
        html: Path | None = None,
        markdown: Path | None = None,
        email: bool = False,
        progress: Progress = silent,
    ) -> Reported:
        """Write the drift and quality report of a window of live traffic.

        Parameters
        ----------
        name : str
            The app.
        window : str
            How far back, e.g. ``"24h"`` or ``"7d"``.
        html : Path, optional
            Where it goes; default ``reports/<app>/<day>.html``.
        markdown : Path, optional
            Where it goes as Markdown, too.
        email : bool
            Mail it as well.
        progress : callable, optional
            Told in one line what is going on.
        """
        from mlguard.deploy.reporting import mail_report, make_report, report_path

        settings = self.app(name)
        try:
            length = parse_duration(window)
        except ValueError as error:
            raise UsageError(f"{window!r} is no window: {error}") from error
        now = self.clock()
        made = make_report(
            self.settings,
            settings,
            self.registry,
            since=now - length,
            until=now,
            now=now,
            html=Path(html).resolve() if html else report_path(self.settings, name, now),
            markdown=Path(markdown).resolve() if markdown else None,
            progress=progress,
        )
        return mail_report(self.settings, self.registry, made) if email else made
