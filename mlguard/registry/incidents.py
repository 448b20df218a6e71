"""Incidents, holds and quarantine: what stands in the way of going forward, and why.

An *incident* is opened by a failing monitor and is one thread of mail.  A *hold* bars
promotions of one app; rollback is never barred.  A *quarantine* bars bytes, whatever name they
come under.  Opening what is open, holding what is held and lifting what is lifted change
nothing, so every one of them may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from mlguard.errors import NotFoundError, RefusedError, UsageError
from mlguard.registry.apps import Apps, version_of
from mlguard.registry.database import new_id, to_text
from mlguard.registry.lifecycle import Command, State
from mlguard.registry.records import Hold, Incident, Quarantine, Version
from mlguard.registry.tables import apps, holds, incidents, quarantines, versions

LEVELS = ("alert", "freeze", "rollback", "default_output")
STATES = ("open", "cleared", "closed")

_INCIDENTS = select(incidents, versions.c.name.label("version_name")).select_from(
    incidents.outerjoin(versions, incidents.c.version_id == versions.c.id)
)


def _incident_of(row: Row[Any]) -> Incident:
    return Incident(
        id=row.id,
        app=row.app,
        monitor=row.monitor,
        version_id=row.version_id,
        version=row.version_name or "",
        generation=row.generation,
        summary=row.summary,
        facts=json.loads(row.facts),
        level=row.level,
        state=row.state,
        cause=row.cause,
        opened_at=row.opened_at,
        updated_at=row.updated_at,
    )


def _hold_of(row: Row[Any]) -> Hold:
    return Hold(
        id=row.id,
        app=row.app,
        reason=row.reason,
        actor=row.actor,
        created_at=row.created_at,
        expires=row.expires,
        incident=row.incident,
        after_move=row.after_move,
        mute=row.mute,
    )


def _one_of(word: str, allowed: tuple[str, ...], what: str) -> str:
    if word not in allowed:
        raise UsageError(f"{what} is {word!r}; it can be {', '.join(allowed)}")
    return word


class Incidents(Apps):
    """Incidents, holds and quarantine of the apps."""

    # --- incidents -----------------------------------------------------------------------

    def incidents(self, app: str | None = None, *, open_only: bool = False) -> list[Incident]:
        """Return incidents, newest first, of one app or of all."""
        query = _INCIDENTS.order_by(incidents.c.id.desc())
        if app is not None:
            query = query.where(incidents.c.app == app)
        if open_only:
            query = query.where(incidents.c.state == "open")
        with self.database.read() as connection:
            return [_incident_of(row) for row in connection.execute(query)]

    def incident(self, incident_id: int) -> Incident:
        """Return one incident.

        Raises
        ------
        NotFoundError
            If there is none of that number.
        """
        with self.database.read() as connection:
            return self._incident(connection, incident_id)

    def _incident(self, connection: Connection, incident_id: int) -> Incident:
        row = connection.execute(_INCIDENTS.where(incidents.c.id == incident_id)).one_or_none()
        if row is None:
            raise NotFoundError(
                f"there is no incident {incident_id}", hint="mlguard incident lists them"
            )
        return _incident_of(row)

    def open_incident(
        self,
        app: str,
        *,
        monitor: str,
        version_id: int | None,
        summary: str,
        facts: Mapping[str, Any],
        level: str,
        mail: str | None = "alert",
    ) -> Incident:
        """Open an incident, or return the open one of the same monitor and version.

        Parameters
        ----------
        app, monitor : str
            Whom it is about, and what noticed.
        version_id : int or None
            The version that answered.
        summary : str
            One sentence with the number.
        facts : mapping
            The numbers, as JSON values: check, value, limit, interval, n, window.
        level : str
            ``"alert"``, ``"freeze"``, ``"rollback"`` or ``"default_output"``.
        mail : str, optional
            Kind of the mail that tells of it; None where the action that follows tells.

        Returns
        -------
        Incident
        """
        with self.database.write() as connection:
            generation = self._lock(connection, app)
            found = connection.execute(
                _INCIDENTS.where(
                    incidents.c.app == app,
                    incidents.c.monitor == monitor,
                    incidents.c.version_id.is_not_distinct_from(version_id),
                    incidents.c.state == "open",
                )
            ).first()
            if found is not None:
                return _incident_of(found)
            return self._open(
                connection,
                app,
                generation=generation,
                monitor=monitor,
                version_id=version_id,
                summary=summary,
                facts=facts,
                level=level,
                mail=mail,
            )

    def _open(
        self,
        connection: Connection,
        app: str,
        *,
        generation: int,
        monitor: str,
        version_id: int | None,
        summary: str,
        facts: Mapping[str, Any],
        level: str,
        mail: str | None,
    ) -> Incident:
        now = self.clock()
        made = connection.execute(
            insert(incidents).values(
                app=app,
                monitor=monitor,
                version_id=version_id,
                generation=generation,
                summary=summary,
                facts=to_text(dict(facts)),
                level=_one_of(level, LEVELS, "the level of an incident"),
                state="open",
                cause="",
                opened_at=now,
                updated_at=now,
            )
        )
        incident = self._incident(connection, new_id(made))
        self._event(
            connection,
            app,
            "incident_opened",
            summary,
            generation=generation,
            version=incident.version,
            detail={"incident": incident.id, "monitor": monitor, "level": level, **facts},
        )
        if mail is not None:
            self._mail(
                connection,
                app,
                mail,
                {
                    "version": incident.version,
                    "why": summary,
                    "did": "opened an incident; traffic is unchanged",
                    "next": f"mlguard incident {incident.id}",
                    **facts,
                },
                generation=generation,
                incident=incident.id,
            )
        return incident

    def update_incident(
        self,
        incident_id: int,
        *,
        level: str | None = None,
        facts: Mapping[str, Any] | None = None,
        state: str | None = None,
        cause: str | None = None,
    ) -> Incident:
        """Change what is known of an incident; what is not named stays.

        Parameters
        ----------
        incident_id : int
            Its number.
        level : str, optional
            How far it went by now.
        facts : mapping, optional
            Newer numbers; keys that are not named stay.
        state : str, optional
            ``"open"``, ``"cleared"`` (a mail tells) or ``"closed"``.
        cause : str, optional
            What it was, by a human.

        Returns
        -------
        Incident
        """
        with self.database.write() as connection:
            known = self._incident(connection, incident_id)
            generation = self._lock(connection, known.app)
            known = self._incident(connection, incident_id)
            values: dict[str, Any] = {}
            if known.state == "closed" and state == "cleared":
                # A human closed it: that the figure is back says nothing new.
                state = None
            if level is not None and level != known.level:
                values["level"] = _one_of(level, LEVELS, "the level of an incident")
            if state is not None and state != known.state:
                values["state"] = _one_of(state, STATES, "the state of an incident")
            if cause is not None and cause != known.cause:
                values["cause"] = cause
            merged = {**known.facts, **(facts or {})}
            if merged != known.facts:
                values["facts"] = to_text(merged)
            if not values:
                return known
            connection.execute(
                update(incidents)
                .where(incidents.c.id == incident_id)
                .values(**values, updated_at=self.clock())
            )
            if set(values) != {"facts"}:
                kind = f"incident_{values['state']}" if "state" in values else "incident_updated"
                self._event(
                    connection,
                    known.app,
                    kind,
                    cause or known.summary,
                    generation=generation,
                    version=known.version,
                    detail={
                        "incident": incident_id,
                        "monitor": known.monitor,
                        "level": level or known.level,
                    },
                )
            if values.get("state") == "cleared":
                self._mail(
                    connection,
                    known.app,
                    "cleared",
                    {
                        "version": known.version,
                        "why": cause or known.summary,
                        "did": "cleared the incident",
                        "next": "",
                        **merged,
                    },
                    generation=generation,
                    incident=incident_id,
                )
            return self._incident(connection, incident_id)

    def _lock(self, connection: Connection, app: str) -> int:
        """Take the app's lock and return its generation; 0 where it has no row yet."""
        found = connection.execute(
            select(apps.c.generation).where(apps.c.app == app).with_for_update()
        ).scalar()
        if found is None:
            raise NotFoundError(
                f"{app} was never deployed", hint=f"deploy it first: mlguard deploy {app}"
            )
        return int(found)

    # --- holds ---------------------------------------------------------------------------

    def holds(self, app: str) -> list[Hold]:
        """Return the holds in force, oldest first."""
        with self.database.read() as connection:
            return self._holds(connection, app)

    def _holds(self, connection: Connection, app: str) -> list[Hold]:
        now = self.clock()
        rows = connection.execute(
            select(holds)
            .where(
                holds.c.app == app,
                holds.c.lifted_at.is_(None),
                holds.c.expires.is_(None) | (holds.c.expires > now),
            )
            .order_by(holds.c.id)
        )
        return [_hold_of(row) for row in rows]

    def hold(
        self,
        app: str,
        reason: str,
        *,
        expires: float | None = None,
        incident: int | None = None,
        mute: bool = False,
        mail: str = "frozen",
    ) -> Hold:
        """Bar promotions of an app (rollback stays open), and tell by mail.

        Parameters
        ----------
        app, reason : str
            Whose promotions, and why.
        expires : float, optional
            When it ends by itself, in seconds since the epoch.
        incident : int, optional
            What it belongs to.  A second hold for the same incident is the first one.
        mute : bool
            Keep mail about the app back while it lasts, but for a rollback's and the default
            output's.  Verdicts are recorded and acted on all the same.
        mail : str
            Kind of the mail that tells of it.

        Returns
        -------
        Hold
        """
        with self.database.write() as connection:
            generation = self._lock(connection, app)
            for one in self._holds(connection, app):
                same = incident is not None or one.reason == reason
                if one.incident == incident and one.mute == mute and same:
                    return one
            made = self._hold(
                connection,
                app,
                reason,
                generation=generation,
                expires=expires,
                incident=incident,
                mute=mute,
            )
            known = {} if incident is None else self._incident(connection, incident).facts
            self._mail(
                connection,
                app,
                mail,
                {
                    "why": reason,
                    "did": "holds promotions; rollback stays open",
                    "next": f'mlguard resume {app} --reason "…"',
                    **known,
                },
                generation=generation,
                incident=incident,
            )
            return made

    def _hold(
        self,
        connection: Connection,
        app: str,
        reason: str,
        *,
        generation: int,
        expires: float | None,
        incident: int | None,
        after_move: bool = False,
        mute: bool = False,
    ) -> Hold:
        made = connection.execute(
            insert(holds).values(
                app=app,
                reason=reason,
                actor=self.actor,
                created_at=self.clock(),
                expires=expires,
                incident=incident,
                after_move=after_move,
                mute=mute,
            )
        )
        if not after_move:
            # After a move, the move's own event tells.
            self._event(
                connection,
                app,
                "hold",
                reason,
                generation=generation,
                detail={"incident": incident, "expires": expires}
                | ({"mute": True} if mute else {}),
            )
        row = connection.execute(select(holds).where(holds.c.id == new_id(made))).one()
        return _hold_of(row)

    def resume(self, app: str, reason: str, *, incident: int | None = None) -> list[Hold]:
        """Lift the holds of an app.

        Parameters
        ----------
        app, reason : str
            Whose holds, and why.
        incident : int, optional
            Only those that belong to it and that no automatic move set: what a monitor may
            lift by itself.

        Returns
        -------
        list of Hold
            What was lifted; empty where nothing was held.
        """
        with self.database.write() as connection:
            generation = self._lock(connection, app)
            lifted = [
                one
                for one in self._holds(connection, app)
                if incident is None or (one.incident == incident and not one.after_move)
            ]
            if lifted:
                self._lift(connection, app, lifted, reason, generation=generation)
            return lifted

    def _lift(
        self,
        connection: Connection,
        app: str,
        lifted: list[Hold],
        reason: str,
        *,
        generation: int,
    ) -> None:
        connection.execute(
            update(holds)
            .where(holds.c.id.in_([one.id for one in lifted]))
            .values(lifted_at=self.clock())
        )
        self._event(
            connection,
            app,
            "resumed",
            reason,
            generation=generation,
            detail={
                "holds": [one.reason for one in lifted],
                "incidents": sorted({one.incident for one in lifted if one.incident is not None}),
            },
        )

    # --- quarantine ----------------------------------------------------------------------

    def quarantined(self, app: str, digest: str) -> Quarantine | None:
        """Return the quarantine of some bytes, if they are in one."""
        with self.database.read() as connection:
            return self._quarantine_of(connection, app, digest)

    def _quarantine_of(self, connection: Connection, app: str, digest: str) -> Quarantine | None:
        row = connection.execute(
            select(quarantines).where(quarantines.c.app == app, quarantines.c.digest == digest)
        ).one_or_none()
        return None if row is None else Quarantine(**row._asdict())

    def release(self, app: str, version: str, reason: str) -> Version:
        """Let quarantined bytes be judged again (T14); they must pass the gate again.

        Parameters
        ----------
        app, version : str
            A version with these bytes; all of that digest are released.
        reason : str
            Why, for the audit trail.

        Returns
        -------
        Version

        Raises
        ------
        RefusedError
            If its incident is still open, or the bytes are not in quarantine.
        """
        named = self.version(app, version)
        with self.database.write() as connection:
            generation = self._lock(connection, app)
            barred = self._quarantine_of(connection, app, named.digest)
            if barred is None:
                raise RefusedError(f"{app} {version} is not in quarantine")
            if barred.incident is not None:
                incident = self._incident(connection, barred.incident)
                if incident.state == "open":
                    raise RefusedError(
                        f"incident {incident.id}, which put {app} {version} in quarantine, is open",
                        hint=f"deploy what fixes it: mlguard deploy {app} --resolves {incident.id}",
                        clause="incident",
                        incident=incident.id,
                    )
            connection.execute(
                delete(quarantines).where(
                    quarantines.c.app == app, quarantines.c.digest == named.digest
                )
            )
            rows = connection.execute(
                select(versions).where(
                    versions.c.app == app,
                    versions.c.digest == named.digest,
                    versions.c.state == State.QUARANTINED,
                )
            ).all()
            for row in rows:
                self._step(connection, version_of(row), Command.RELEASE, incident=None)
            self._event(
                connection,
                app,
                "released",
                reason,
                generation=generation,
                version=version,
                detail={"digest": named.digest, "incident": barred.incident},
            )
            return self._version(connection, named.id)
