"""What serves, and the one way in which that changes.

:class:`Apps` reads the pointer of each app, the versions around it and the audit trail, and
holds what every command is built from: the scene read under the app's lock, and the writing of
a :class:`~mlguard.registry.lifecycle.Move`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from mlguard.errors import ConflictError, NotFoundError
from mlguard.registry import audit
from mlguard.registry.artifacts import ArtifactStore
from mlguard.registry.database import Database
from mlguard.registry.lifecycle import (
    ACTIVE,
    CANDIDATE,
    Command,
    Mode,
    Move,
    Scene,
    State,
    automatic_targets,
    manual_targets,
    step,
)
from mlguard.registry.outbox import Outbox
from mlguard.registry.records import AppState, Event, Version
from mlguard.registry.tables import apps, events, operations, quarantines, versions


def version_of(row: Row[Any]) -> Version:
    """Return the version of a row of the table ``versions``."""
    return _version_from(row._asdict())


def _version_from(values: dict[str, Any]) -> Version:
    values["manifest"] = json.loads(values["manifest"])
    values["state"] = State(values["state"])
    return Version(**values)


def rfc3339(at: float) -> str:
    """Return a time as people and JSON read it, in UTC."""
    return datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Apps:
    """The apps of one registry.

    Parameters
    ----------
    database : Database
        Holds every fact.
    artifacts : ArtifactStore
        Holds the bytes.
    outbox : Outbox
        Where mail is promised.
    facts : mapping
        What every mail says of its origin: project and environment.
    clock : callable
        The time, in seconds since the epoch.
    actor : str
        Who acts through this object, for the audit trail.
    """

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        outbox: Outbox,
        *,
        facts: Mapping[str, Any],
        clock: Callable[[], float],
        actor: str,
    ) -> None:
        self.database = database
        self.artifacts = artifacts
        self.outbox = outbox
        self.clock = clock
        self.actor = actor
        self._facts = dict(facts)

    # --- reading -------------------------------------------------------------------------

    def apps(self) -> list[AppState]:
        """Return every app that a version was ever registered for, by name."""
        with self.database.read() as connection:
            rows = connection.execute(_POINTERS.order_by(apps.c.app)).all()
        return [_state_of(row) for row in rows]

    def app(self, name: str) -> AppState:
        """Return what serves an app now: one indexed query, fit to be polled.

        Parameters
        ----------
        name : str
            The app; one that was never seen has generation 0 and no active version.

        Returns
        -------
        AppState
        """
        with self.database.read() as connection:
            return self._state(connection, name)

    @staticmethod
    def _state(connection: Connection, name: str) -> AppState:
        row = connection.execute(_POINTERS.where(apps.c.app == name)).one_or_none()
        if row is None:
            return AppState(name, 0, Mode.SERVE, None, None, "never deployed")
        return _state_of(row)

    def versions(self, app: str) -> list[Version]:
        """Return the versions of an app, newest first."""
        query = select(versions).where(versions.c.app == app).order_by(versions.c.id.desc())
        with self.database.read() as connection:
            return [version_of(row) for row in connection.execute(query)]

    def version(self, app: str, name: str) -> Version:
        """Return a version by name.

        Raises
        ------
        NotFoundError
            If the app has none of that name; the hint lists those it has.
        """
        with self.database.read() as connection:
            row = connection.execute(
                select(versions).where(versions.c.app == app, versions.c.name == name)
            ).one_or_none()
        if row is None:
            known = ", ".join(one.name for one in self.versions(app)[:10])
            raise NotFoundError(
                f"{app} has no version {name!r}", hint=f"its newest versions: {known or 'none'}"
            )
        return version_of(row)

    def version_by_id(self, version_id: int) -> Version:
        """Return a version by id.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        with self.database.read() as connection:
            return self._version(connection, version_id)

    def version_by_digest(self, app: str, digest: str) -> Version | None:
        """Return the newest version of an app with this content, if any."""
        query = (
            select(versions)
            .where(versions.c.app == app, versions.c.digest == digest)
            .order_by(versions.c.id.desc())
            .limit(1)
        )
        with self.database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else version_of(row)

    def candidate(self, app: str) -> Version | None:
        """Return the version that is being rolled out, if any."""
        query = select(versions).where(versions.c.app == app, versions.c.state.in_(CANDIDATE))
        with self.database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else version_of(row)

    def rollback_targets(self, app: str, *, automatic: bool = False) -> list[Version]:
        """Return the versions that a rollback may go to, best first.

        Parameters
        ----------
        app : str
            The app.
        automatic : bool
            False: those that a human's `rollback` goes to, confirmed before the active
            version was activated.  True: every standby with other bytes than the active one.
            Quarantined bytes are in neither.

        Returns
        -------
        list of Version
            Empty where there is nothing to go back to; that is a fact, not an error.
        """
        with self.database.read() as connection:
            if connection.execute(select(apps.c.app).where(apps.c.app == app)).first() is None:
                return []
            scene, known = self._scene(connection, app)
        choose = automatic_targets if automatic else manual_targets
        standby = [known[one.id] for one in scene.standby]
        return choose(scene.active, standby, scene.quarantined)

    def events(
        self, app: str | None = None, *, limit: int | None = None, kind: str | None = None
    ) -> list[Event]:
        """Return the audit trail, newest first.

        Parameters
        ----------
        app : str, optional
            Only events about this app.
        limit : int, optional
            Only so many.
        kind : str, optional
            Only events of this kind.

        Returns
        -------
        list of Event
        """
        query = select(events).order_by(events.c.seq.desc())
        if app is not None:
            query = query.where(events.c.app == app)
        if kind is not None:
            query = query.where(events.c.kind == kind)
        if limit is not None:
            query = query.limit(limit)
        with self.database.read() as connection:
            return [audit.event_of(row) for row in connection.execute(query)]

    def verify_chain(self) -> int | None:
        """Return the number of the first audit event that was tampered with; None if none was."""
        with self.database.read() as connection:
            return audit.first_bad(connection)

    def record(self, app: str, kind: str, reason: str, **detail: Any) -> Event:
        """Write an event that moves nothing, such as a refused deploy or a monitor's error.

        Parameters
        ----------
        app : str
            Whom it is about.
        kind : str
            What happened, at most 32 characters.
        reason : str
            Why, in a sentence.
        **detail
            The numbers, as JSON values; ``version`` names the version concerned.

        Returns
        -------
        Event
        """
        with self.database.write() as connection:
            generation = connection.execute(
                select(apps.c.generation).where(apps.c.app == app)
            ).scalar()
            return self._event(
                connection,
                app,
                kind,
                reason,
                generation=generation or 0,
                version=str(detail.pop("version", "")),
                detail=detail,
            )

    # --- what commands are built from ----------------------------------------------------

    def _ensure_app(self, connection: Connection, app: str) -> None:
        """Make the row of an app that nothing was ever written about."""
        self.database.insert_new(
            connection,
            apps,
            {
                "app": app,
                "generation": 0,
                "mode": Mode.SERVE,
                "reason": "never deployed",
                "fence": 0,
                "launched": False,
            },
        )

    def _version(self, connection: Connection, version_id: int) -> Version:
        row = connection.execute(select(versions).where(versions.c.id == version_id)).one_or_none()
        if row is None:
            raise NotFoundError(f"no version with id {version_id}")
        return version_of(row)

    def _scene(
        self, connection: Connection, app: str, *, lock: bool = False
    ) -> tuple[Scene, dict[int, Version]]:
        """Read one app as it stands, under its lock where it is about to be changed."""
        query = select(apps).where(apps.c.app == app)
        pointer = connection.execute(query.with_for_update() if lock else query).one_or_none()
        if pointer is None:
            raise NotFoundError(
                f"{app} was never deployed", hint=f"deploy it first: mlguard deploy {app}"
            )
        near = ACTIVE | CANDIDATE | {State.STANDBY}
        rows = connection.execute(
            select(versions).where(versions.c.app == app, versions.c.state.in_(near))
        )
        known = {row.id: version_of(row) for row in rows}
        barred = connection.execute(select(quarantines.c.digest).where(quarantines.c.app == app))
        candidates = [one for one in known.values() if one.state in CANDIDATE]
        scene = Scene(
            app=app,
            generation=pointer.generation,
            mode=Mode(pointer.mode),
            active=None if pointer.active is None else known[pointer.active],
            candidate=candidates[0] if candidates else None,
            standby=tuple(one for one in known.values() if one.state is State.STANDBY),
            launched=pointer.launched,
            quarantined=frozenset(barred.scalars()),
        )
        return scene, known

    def _event(
        self,
        connection: Connection,
        app: str,
        kind: str,
        reason: str,
        *,
        generation: int,
        moved: bool = False,
        version: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> Event:
        return audit.append(
            connection,
            at=self.clock(),
            app=app,
            generation=generation,
            moved=moved,
            kind=kind,
            actor=self.actor,
            reason=reason,
            version=version,
            detail=detail,
        )

    def _step(
        self, connection: Connection, version: Version, command: Command, **values: Any
    ) -> None:
        """Change the state of one version as the table says, if it still is where it was."""
        target = step(command, version.state)
        found = connection.execute(
            update(versions)
            .where(versions.c.id == version.id, versions.c.state == version.state)
            .values(state=target, state_at=self.clock(), **values)
        )
        if not found.rowcount:
            raise ConflictError(
                f"{version.app} {version.name} is not {version.state} any more",
                hint="look at its state and try again",
            )

    def _move(
        self,
        connection: Connection,
        scene: Scene,
        known: Mapping[int, Version],
        move: Move,
        *,
        kind: str,
        reason: str,
        version: str,
        incident: int | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Event:
        """Write a move: pointer, event, versions; the running operation ends with it."""
        now = self.clock()
        found = connection.execute(
            update(apps)
            .where(apps.c.app == scene.app, apps.c.generation == scene.generation)
            .values(
                generation=move.generation,
                mode=move.mode,
                active=move.active,
                since=now,
                reason=reason,
                launched=True,
            )
        )
        if not found.rowcount:
            raise ConflictError(
                f"{scene.app} left generation {scene.generation} in the same moment",
                hint="look at its state and decide again",
                clause="generation",
            )
        event = self._event(
            connection,
            scene.app,
            kind,
            reason,
            generation=move.generation,
            moved=True,
            version=version,
            detail=detail,
        )
        begun = {"activated_at": now, "activated_seq": event.seq, "baked_s": 0.0}
        changes: dict[Command, dict[str, Any]] = {
            Command.PROMOTE: begun | {"confirmed_at": None, "confirmed_seq": None},
            Command.LAUNCH: begun | {"confirmed_at": now, "confirmed_seq": event.seq},
            Command.CONDEMN: {"incident": incident},
        }
        for version_id, command in move.steps:
            self._step(connection, known[version_id], command, **changes.get(command, {}))
        connection.execute(delete(operations).where(operations.c.app == scene.app))
        return event

    def _mail(
        self,
        connection: Connection,
        app: str,
        kind: str,
        facts: Mapping[str, Any],
        *,
        generation: int,
        incident: int | None = None,
    ) -> None:
        """Promise a mail about something this transaction decides."""
        body = {
            **facts,
            **self._facts,
            "app": app,
            "generation": generation,
            "incident": incident,
            "at": rfc3339(self.clock()),
        }
        self.outbox.promise(connection, app, kind, body, incident)


_PREFIX = "version_"
_POINTERS = select(
    apps.c.app,
    apps.c.generation,
    apps.c.mode,
    apps.c.since,
    apps.c.reason,
    *(column.label(_PREFIX + column.name) for column in versions.c),
).select_from(apps.outerjoin(versions, apps.c.active == versions.c.id))


def _state_of(row: Row[Any]) -> AppState:
    active = None
    if row.version_id is not None:
        active = _version_from(
            {
                name.removeprefix(_PREFIX): value
                for name, value in row._asdict().items()
                if name.startswith(_PREFIX)
            }
        )
    return AppState(row.app, row.generation, Mode(row.mode), active, row.since, row.reason)
