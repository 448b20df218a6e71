"""What the monitors remember and what they found: state that survives a restart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from mlguard.registry.apps import Apps
from mlguard.registry.database import to_text
from mlguard.registry.tables import monitor_results, monitor_states
from mlguard.results import MonitorResult

#: What servers tell the monitors stands among their states, a row a server.
_CRASHES = "crashes "
#: Deaths that are kept of one server; the latest.
_MOST_CRASHES = 50


class Observations(Apps):
    """State and results of the monitors."""

    def monitor_state(
        self, app: str, version_id: int, generation: int, monitor: str
    ) -> dict[str, Any] | None:
        """Return what a monitor stored about one version in one generation, if anything."""
        with self.database.read() as connection:
            found = connection.execute(
                select(monitor_states.c.state).where(
                    monitor_states.c.app == app,
                    monitor_states.c.version_id == version_id,
                    monitor_states.c.generation == generation,
                    monitor_states.c.monitor == monitor,
                )
            ).scalar()
        if found is None:
            return None
        state: dict[str, Any] = json.loads(found)
        return state

    def set_monitor_state(
        self,
        app: str,
        version_id: int,
        generation: int,
        monitor: str,
        state: Mapping[str, Any],
    ) -> None:
        """Store what a monitor wants to remember; it replaces what it stored before."""
        with self.database.write(data=True) as connection:
            self._put_state(connection, (app, version_id, generation, monitor), state)

    def _put_state(
        self, connection: Connection, key: tuple[str, int, int, str], state: Mapping[str, Any]
    ) -> None:
        names = ("app", "version_id", "generation", "monitor")
        written = {"state": to_text(dict(state)), "at": self.clock()}
        self.database.put(connection, monitor_states, dict(zip(names, key, strict=True)) | written)

    def note_crashes(
        self,
        app: str,
        version_id: int,
        generation: int,
        server_id: str,
        crashes: Sequence[tuple[float, str]],
    ) -> None:
        """Add deaths of a version's processes to those that a server has told of.

        Parameters
        ----------
        app, version_id, generation
            Whose processes, and in which generation of the app.
        server_id : str
            Who tells; nobody else writes to its row.
        crashes : sequence of (float, str)
            When each one died, seconds since the epoch, and of what.
        """
        mine = _CRASHES + server_id
        known = self.monitor_state(app, version_id, generation, mine) or {"crashes": []}
        told = [*known["crashes"], *map(list, crashes)][-_MOST_CRASHES:]
        state = {"crashes": told}
        # No data: what it may lead to is a rollback, and a full disk must not stand in its way.
        with self.database.write() as connection:
            self._put_state(connection, (app, version_id, generation, mine), state)

    def crashes(self, app: str, version_id: int, generation: int) -> list[tuple[float, str]]:
        """Return the deaths of a version's processes that servers told of, oldest first."""
        with self.database.read() as connection:
            found = connection.execute(
                select(monitor_states.c.state).where(
                    monitor_states.c.app == app,
                    monitor_states.c.version_id == version_id,
                    monitor_states.c.generation == generation,
                    monitor_states.c.monitor.startswith(_CRASHES, autoescape=True),
                )
            ).scalars()
            return sorted((at, why) for text in found for at, why in json.loads(text)["crashes"])

    def record_monitor_result(self, app: str, result: MonitorResult) -> None:
        """Store one verdict, whatever it is."""
        with self.database.write(data=True) as connection:
            self._put_results(connection, app, [result])

    def record_judged(
        self,
        app: str,
        results: Sequence[MonitorResult],
        key: tuple[str, int, int, str],
        state: Mapping[str, Any],
    ) -> None:
        """Store verdicts and, in the same transaction, what their monitor remembers then.

        Parameters
        ----------
        app : str
            Whose verdicts.
        results : sequence of MonitorResult
            In the order in which they were found; may be empty.
        key : (str, int, int, str)
            App, version, generation and monitor, as for :meth:`set_monitor_state`.
        state : mapping
            What to remember.
        """
        with self.database.write(data=True) as connection:
            self._put_results(connection, app, results)
            self._put_state(connection, key, state)

    def _put_results(
        self, connection: Connection, app: str, results: Sequence[MonitorResult]
    ) -> None:
        rows = [
            {
                "app": app,
                "family": result.family,
                "check_id": result.id,
                "verdict": result.verdict,
                "document": to_text(result.to_json()),
                "at": self.clock(),
            }
            for result in results
        ]
        if rows:
            connection.execute(insert(monitor_results), rows)

    def monitor_results(
        self,
        app: str,
        *,
        monitor: str | None = None,
        since: float | None = None,
        limit: int | None = None,
    ) -> list[tuple[float, MonitorResult]]:
        """Return stored verdicts with their times, newest first.

        Parameters
        ----------
        app : str
            The app.
        monitor : str, optional
            Only one monitor: its id (``"data_drift.ks"``) or its family (``"data_drift"``).
        since : float, optional
            Only from this time on, in seconds since the epoch.
        limit : int, optional
            Only so many.

        Returns
        -------
        list of (float, MonitorResult)
        """
        table = monitor_results
        query = select(table.c.at, table.c.document).where(table.c.app == app)
        if monitor is not None:
            query = query.where((table.c.family == monitor) | (table.c.check_id == monitor))
        if since is not None:
            query = query.where(table.c.at >= since)
        query = query.order_by(table.c.id.desc())
        if limit is not None:
            query = query.limit(limit)
        with self.database.read() as connection:
            return [
                (row.at, MonitorResult.from_json(json.loads(row.document)))
                for row in connection.execute(query)
            ]

    def forget_observations(self, older_than: float) -> int:
        """Remove verdicts and states from before a time; return how many rows went."""
        with self.database.write() as connection:
            results = connection.execute(
                delete(monitor_results).where(monitor_results.c.at < older_than)
            )
            states = connection.execute(
                delete(monitor_states).where(monitor_states.c.at < older_than)
            )
            return int(results.rowcount + states.rowcount)
