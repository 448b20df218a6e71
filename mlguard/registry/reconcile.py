"""Reconcile: what crashed or ended by itself is put in order; doing it twice is doing it once."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from mlguard.registry.apps import version_of
from mlguard.registry.lifecycle import CANDIDATE, Command, State
from mlguard.registry.liveness import expired
from mlguard.registry.operations import Operations
from mlguard.registry.tables import holds, operations, versions

#: Seconds after which a version that nobody approved is to be gated again (T6).
HELD_S = 7 * 86400.0


class Reconcile(Operations):
    """The command that every other begins with, and that the leader repeats."""

    def reconcile(self, app: str | None = None) -> list[str]:
        """Tidy up what crashed or ended by itself; doing it twice is doing it once.

        Operations whose lease has ended are dropped and their candidates drained; candidates
        without an operation as well; holds that have expired are lifted; versions that nobody
        approved in a week must pass the gate again; servers that are gone are forgotten.

        Parameters
        ----------
        app : str, optional
            Only this app (and the servers); by default all.

        Returns
        -------
        list of str
            What was done, a sentence each; empty where there was nothing to do.
        """
        names = [app] if app is not None else [one.app for one in self.apps()]
        said: list[str] = []
        for name in names:
            with self.database.read() as connection:
                # Almost always there is nothing to do, and no write lock to take for it.
                due = self._untidy(connection, name)
            if due:
                with self.database.write() as connection:
                    said += self._tidy(connection, name)
        return said + self._forget_dead_servers()

    def _untidy(self, connection: Connection, app: str) -> bool:
        now = self.clock()
        running = connection.execute(
            select(operations).where(operations.c.app == app)
        ).one_or_none()
        if running is not None and expired(running.owner, running.beat_at, now):
            return True
        states = set(
            connection.execute(
                select(versions.c.state).where(
                    versions.c.app == app,
                    versions.c.state.in_(CANDIDATE)
                    | ((versions.c.state == State.HELD) & (versions.c.state_at < now - HELD_S)),
                )
            ).scalars()
        )
        if State.HELD in states or (states and running is None):
            return True
        ended = select(holds.c.id).where(
            holds.c.app == app, holds.c.lifted_at.is_(None), holds.c.expires <= now
        )
        return connection.execute(ended).first() is not None

    def _tidy(self, connection: Connection, app: str) -> list[str]:
        now = self.clock()
        said: list[str] = []
        scene, known = self._scene(connection, app, lock=True)
        running = connection.execute(
            select(operations).where(operations.c.app == app)
        ).one_or_none()
        over = running is not None and expired(running.owner, running.beat_at, now)
        if over or (running is None and scene.candidate is not None):
            self._end(connection, scene, known, "its deployment ended without a word")
            who = "" if running is None else f" {running.id}"
            said.append(f"{app}: dropped the deployment{who} that ended without a word")
        ended = connection.execute(
            select(holds).where(
                holds.c.app == app, holds.c.lifted_at.is_(None), holds.c.expires <= now
            )
        ).all()
        if ended:
            connection.execute(
                update(holds).where(holds.c.id.in_([one.id for one in ended])).values(lifted_at=now)
            )
            self._event(
                connection,
                app,
                "hold_expired",
                "; ".join(one.reason for one in ended),
                generation=scene.generation,
            )
            said.append(f"{app}: {len(ended)} hold(s) expired")
        waiting = connection.execute(
            select(versions).where(
                versions.c.app == app,
                versions.c.state == State.HELD,
                versions.c.state_at < now - HELD_S,
            )
        ).all()
        for row in waiting:
            version = version_of(row)
            self._step(connection, version, Command.REGATE)
            self._event(
                connection,
                app,
                "lapsed",
                "nobody approved it in a week",
                generation=scene.generation,
                version=version.name,
            )
            said.append(f"{app}: {version.name} was not approved in a week")
        return said
