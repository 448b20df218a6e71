"""Operations: who is rolling out what, one at a time per app.

An operation is the lease and the fence of one deployment.  The lease (a heartbeat) decides
when somebody else may begin; the fence decides whether what this one writes still counts.  An
operation ends by promoting, by being aborted, by expiring, or because a move took the traffic
away under it; whoever held it then changes nothing any more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from mlguard.errors import ConflictError, RefusedError
from mlguard.registry.lifecycle import ACTIVE, Mode, Scene, drained, refuse_quarantined
from mlguard.registry.liveness import Owner, expired, this_process
from mlguard.registry.records import AppState, Operation, Version
from mlguard.registry.servers import Servers
from mlguard.registry.tables import apps, operations, outcomes
from mlguard.registry.versions import Versions


def operation_of(row: Row[Any]) -> Operation:
    """Build an operation from its row; its owner as people read it."""
    values = row._asdict()
    values["owner"] = str(Owner.from_text(values["owner"]))
    values["steps"] = tuple(json.loads(values["steps"] or "[]"))
    values["step"] = -1 if values["step"] is None else values["step"]
    return Operation(**values)


class Operations(Versions, Servers):
    """Deployments in progress, and what finished commands came to."""

    def operation(self, app: str) -> Operation | None:
        """Return the deployment in progress, if any."""
        with self.database.read() as connection:
            row = connection.execute(
                select(operations).where(operations.c.app == app)
            ).one_or_none()
        return None if row is None else operation_of(row)

    def begin(
        self,
        app: str,
        version_id: int,
        *,
        kind: str = "deploy",
        key: str | None = None,
        supersede: bool = False,
        replace_candidate: bool = False,
        resolves: int | None = None,
        policy_digest: str | None = None,
        evidence_max_age: float = 30 * 86400.0,
        steps: Sequence[str | float] = (),
    ) -> Operation:
        """Begin a deployment: take the app's lease for 30 s (see :meth:`beat`) and a fence.

        Parameters
        ----------
        app : str
            The app.
        version_id : int
            What to roll out.
        kind : str
            What to call the operation.
        key : str, optional
            Idempotency key.  Where an operation with it has ended, that one is returned with
            its ``result``; where this process holds one with it, that one is returned.
        supersede : bool
            Whether it may displace a version that is still BAKING.
        replace_candidate : bool
            Whether it may fence out a deployment that is alive.
        resolves : int, optional
            Incident whose hold it may pass, and lifts when it promotes.
        policy_digest : str, optional
            Policy that its evidence must have been judged by.
        evidence_max_age : float
            Seconds after which evidence is too old.
        steps : sequence of (str or float)
            What the version goes through before it answers everybody.

        Returns
        -------
        Operation

        Raises
        ------
        ConflictError
            If another deployment is alive; the message names holder, age and operation.
        RefusedError
            If the version serves already or its bytes are in quarantine.
        NotFoundError
            If there is no such app, version or incident.
        """
        with self.database.write() as connection:
            scene, known = self._scene(connection, app, lock=True)
            done = self._outcome(connection, app, key=key)
            if done is not None:
                return self._ended(app, version_id, kind, key, done)
            running = connection.execute(
                select(operations).where(operations.c.app == app)
            ).one_or_none()
            if running is not None:
                mine = running.owner == this_process().to_text() and running.key == key
                if mine and key is not None and running.version_id == version_id:
                    return operation_of(running)
                self._refuse_running(running, replace_candidate=replace_candidate)
            if running is not None or scene.candidate is not None:
                self._end(connection, scene, known, "another deployment took over")
            version = self._version(connection, version_id)
            if version.app != app:
                raise RefusedError(f"{version.app} {version.name} is no version of {app}")
            if version.state in ACTIVE:
                raise RefusedError(f"{app} {version.name} serves already", clause="active")
            self._refuse_quarantined(connection, scene, version)
            if resolves is not None:
                self._incident(connection, resolves)
            now = self.clock()
            fence = (
                connection.execute(select(apps.c.fence).where(apps.c.app == app)).scalar_one() + 1
            )
            connection.execute(update(apps).where(apps.c.app == app).values(fence=fence))
            connection.execute(
                insert(operations).values(
                    app=app,
                    id=uuid.uuid4().hex[:12],
                    kind=kind,
                    key=key,
                    version_id=version_id,
                    expected_generation=scene.generation,
                    fence=fence,
                    owner=this_process().to_text(),
                    started_at=now,
                    beat_at=now,
                    supersede=supersede,
                    resolves=resolves,
                    policy_digest=policy_digest,
                    evidence_max_age=evidence_max_age,
                    steps=json.dumps(list(steps)) if steps else None,
                )
            )
            row = connection.execute(select(operations).where(operations.c.app == app)).one()
            return operation_of(row)

    def _refuse_running(self, running: Row[Any], *, replace_candidate: bool) -> None:
        now = self.clock()
        if replace_candidate or expired(running.owner, running.beat_at, now):
            return
        raise ConflictError(
            f"{running.app}: {Owner.from_text(running.owner)} has been running {running.kind} "
            f"{running.id} for {max(now - running.started_at, 0):.0f} s",
            hint="wait for it (--wait), or put an end to it with --replace-candidate",
            clause="lease",
            operation=running.id,
            owner=str(Owner.from_text(running.owner)),
            age_s=now - running.started_at,
        )

    def beat(self, operation: Operation) -> None:
        """Keep an operation's lease: at least every 10 s.

        Raises
        ------
        ConflictError
            If somebody has taken over.
        """
        with self.database.write() as connection:
            self._own(connection, operation)
            connection.execute(
                update(operations)
                .where(operations.c.app == operation.app)
                .values(beat_at=self.clock())
            )

    def abort(self, operation: Operation | str, reason: str) -> Version | None:
        """End a deployment; its candidate goes back to where it came from (T16).

        Parameters
        ----------
        operation : Operation or str
            One's own operation, or the name of an app: then whatever runs there.
        reason : str
            Why, for the audit trail.

        Returns
        -------
        Version or None
            The candidate that was drained; None where there was none.

        Raises
        ------
        ConflictError
            If the operation is not in charge any more.
        """
        app = operation if isinstance(operation, str) else operation.app
        with self.database.write() as connection:
            scene, known = self._scene(connection, app, lock=True)
            if isinstance(operation, Operation):
                self._own(connection, operation)
            candidate = self._end(connection, scene, known, reason)
            return None if candidate is None else self._version(connection, candidate.id)

    def _end(
        self, connection: Connection, scene: Scene, known: Mapping[int, Version], why: str
    ) -> Version | None:
        """Remove the operation and drain its candidate; return the candidate as it was."""
        connection.execute(delete(operations).where(operations.c.app == scene.app))
        if scene.candidate is None:
            return None
        candidate = known[scene.candidate.id]
        self._step(connection, candidate, drained(candidate))
        self._event(
            connection,
            scene.app,
            "aborted",
            why,
            generation=scene.generation,
            version=candidate.name,
        )
        return candidate

    def _own(self, connection: Connection, operation: Operation) -> None:
        """Refuse whatever an operation wants once another one has fenced it out."""
        found = connection.execute(
            select(operations.c.id).where(
                operations.c.app == operation.app,
                operations.c.id == operation.id,
                operations.c.fence == operation.fence,
            )
        ).first()
        if found is None:
            raise ConflictError(
                f"{operation.app}: {operation.kind} {operation.id} has ended: another command "
                "took over, or it was silent for too long; it changed nothing since",
                hint=f"look at `mlguard history {operation.app}` and start again",
                clause="fence",
                operation=operation.id,
            )

    def _refuse_quarantined(self, connection: Connection, scene: Scene, version: Version) -> None:
        barred = self._quarantine_of(connection, scene.app, version.digest)
        refuse_quarantined(scene, version, None if barred is None else barred.incident)

    @staticmethod
    def _outcome(
        connection: Connection,
        app: str,
        *,
        key: str | None = None,
        operation: str | None = None,
    ) -> dict[str, Any] | None:
        query = select(outcomes.c.result).where(outcomes.c.app == app)
        if key is not None:
            query = query.where(outcomes.c.key == key)
        elif operation is not None:
            query = query.where(outcomes.c.operation == operation)
        else:
            return None
        found = connection.execute(query).scalar()
        if found is None:
            return None
        result: dict[str, Any] = json.loads(found)
        return result

    def _keep_outcome(
        self,
        connection: Connection,
        state: AppState,
        *,
        kind: str,
        key: str | None,
        operation: str | None = None,
    ) -> None:
        if key is None and operation is None:
            return
        result = {
            "generation": state.generation,
            "mode": state.mode,
            "version_id": None if state.active is None else state.active.id,
            "since": state.since,
            "reason": state.reason,
        }
        connection.execute(
            insert(outcomes).values(
                app=state.app,
                operation=operation,
                key=key,
                kind=kind,
                result=json.dumps(result, sort_keys=True),
                at=self.clock(),
            )
        )

    def _then(self, connection: Connection, app: str, result: Mapping[str, Any]) -> AppState:
        """Return the state that a command left behind when it was first given."""
        version_id = result["version_id"]
        return AppState(
            app=app,
            generation=result["generation"],
            mode=Mode(result["mode"]),
            active=None if version_id is None else self._version(connection, version_id),
            since=result["since"],
            reason=result["reason"],
        )

    def _ended(
        self, app: str, version_id: int, kind: str, key: str | None, result: dict[str, Any]
    ) -> Operation:
        return Operation(
            id="",
            app=app,
            kind=kind,
            key=key,
            version_id=result["version_id"] or version_id,
            expected_generation=result["generation"] - 1,
            fence=0,
            owner="",
            started_at=result["since"],
            beat_at=result["since"],
            result=result,
        )
