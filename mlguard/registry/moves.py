"""Deploy, promote, confirm, roll back, block: the commands that decide what serves.

Each is one transaction under the app's lock.  It reads the scene, asks
:mod:`~mlguard.registry.lifecycle` what follows, and writes the pointer (if the generation is
still the one that was read), the states, the audit event, holds, quarantine, budget and the
mail's facts.  A process killed anywhere in between has done nothing, or all of it; whoever does
not know which asks again with the same key.

Slow things (bytes, digests, loading) happen before a transaction, never inside.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from mlguard.config import AutoTable
from mlguard.errors import ConflictError, IntegrityError, RefusedError
from mlguard.registry import audit
from mlguard.registry.apps import version_of
from mlguard.registry.lifecycle import (
    ACTIVE,
    CANDIDATE,
    Command,
    Mode,
    Move,
    Scene,
    State,
    automatic_targets,
    blocking,
    drained,
    expect_generation,
    giving_up,
    going_back,
    manual_targets,
    promotion,
    refuse_automatic,
    refuse_baking,
    refuse_quarantined,
    unblocking,
)
from mlguard.registry.liveness import Owner, expired, this_process
from mlguard.registry.records import AppState, Hold, Operation, Version
from mlguard.registry.servers import Servers
from mlguard.registry.tables import (
    apps,
    automatic_moves,
    holds,
    incidents,
    operations,
    outcomes,
    quarantines,
    versions,
)
from mlguard.registry.versions import Versions

#: Seconds after which a version that nobody approved is to be gated again (T6).
HELD_S = 7 * 86400.0
_TRIES = 3


def _operation_of(row: Row[Any]) -> Operation:
    values = dict(row._mapping)
    values["owner"] = str(Owner.from_text(values["owner"]))
    return Operation(**values)


class Moves(Versions, Servers):
    """The commands that decide what serves."""

    # --- operations ----------------------------------------------------------------------

    def operation(self, app: str) -> Operation | None:
        """Return the deployment in progress, if any."""
        with self.database.read() as connection:
            row = connection.execute(
                select(operations).where(operations.c.app == app)
            ).one_or_none()
        return None if row is None else _operation_of(row)

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
                    return _operation_of(running)
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
                )
            )
            row = connection.execute(select(operations).where(operations.c.app == app)).one()
            return _operation_of(row)

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

    # --- forward -------------------------------------------------------------------------

    def stage(self, operation: Operation) -> Version:
        """Make the operation's version the candidate (T7): servers load it, nobody sees it.

        Raises
        ------
        ConflictError
            If the operation was fenced out, or another version is BAKING.
        RefusedError
            If a hold, a quarantine or missing, old or refusing evidence stands in the way.
        IntegrityError
            If the stored bytes are not what was registered; the version is BROKEN then.
        """
        self._check_bytes(self.version_by_id(operation.version_id))
        with self.database.write() as connection:
            scene, _ = self._scene(connection, operation.app, lock=True)
            self._own(connection, operation)
            version = self._version(connection, operation.version_id)
            if version.state is State.STAGED:
                return version
            refuse_baking(scene, supersede=operation.supersede)
            self._refuse_forward(connection, scene, version, operation)
            self._step(connection, version, Command.STAGE)
            self._event(
                connection,
                operation.app,
                "staged",
                "loaded beside the active version",
                generation=scene.generation,
                version=version.name,
                detail={"operation": operation.id},
            )
            return self._version(connection, version.id)

    def promote(self, operation: Operation, *, reason: str) -> AppState:
        """Make the candidate serve (T9; T9a for the first version of an app).

        Parameters
        ----------
        operation : Operation
            One's own; it ends with this.
        reason : str
            Why, for the audit trail.

        Returns
        -------
        AppState
            The new generation.  Where the operation was promoted before (its answer got lost),
            what it came to then.

        Raises
        ------
        ConflictError
            Clause ``fence``, ``generation``, ``candidate``, ``baking`` or ``not_loaded``:
            nothing was changed, trying again is safe.
        RefusedError
            Clause ``hold``, ``quarantine``, ``evidence`` or ``load_failed``.
        """
        if operation.result is not None:
            with self.database.read() as connection:
                return self._then(connection, operation.app, operation.result)
        with self.database.write() as connection:
            scene, known = self._scene(connection, operation.app, lock=True)
            done = self._outcome(connection, operation.app, operation=operation.id)
            if done is not None:
                return self._then(connection, operation.app, done)
            self._own(connection, operation)
            expect_generation(scene, operation.expected_generation)
            version = self._version(connection, operation.version_id)
            move = promotion(scene, version, supersede=operation.supersede)
            resolved = self._refuse_forward(connection, scene, version, operation)
            self._refuse_unloaded(connection, version)
            event = self._move(
                connection,
                scene,
                known,
                move,
                kind="promoted",
                reason=reason,
                version=version.name,
                detail={
                    "from": None if scene.active is None else scene.active.name,
                    "to": version.name,
                    "digest": version.digest,
                    "operation": operation.id,
                    "resolves": operation.resolves,
                },
            )
            if operation.resolves is not None:
                self._resolve(connection, operation, version, resolved, event.generation)
            state = self._state(connection, operation.app)
            self._keep_outcome(
                connection, state, kind="promote", key=operation.key, operation=operation.id
            )
            return state

    def _resolve(
        self,
        connection: Connection,
        operation: Operation,
        version: Version,
        resolved: Sequence[Hold],
        generation: int,
    ) -> None:
        """Lift the holds of the incident that a promoted version fixes, and tell."""
        said = f"{version.name} was promoted to resolve it"
        if resolved:
            self._lift(connection, operation.app, generation, list(resolved), "resumed", said)
        assert operation.resolves is not None
        connection.execute(
            update(incidents)
            .where(incidents.c.id == operation.resolves, incidents.c.state == "open")
            .values(state="cleared", cause=said, updated_at=self.clock())
        )
        self._mail(
            connection,
            operation.app,
            "cleared",
            {"to": version.name, "why": said, "did": "lifted its hold", "next": ""},
            generation=generation,
            incident=operation.resolves,
        )

    def _refuse_quarantined(self, connection: Connection, scene: Scene, version: Version) -> None:
        barred = self._quarantine_of(connection, scene.app, version.digest)
        refuse_quarantined(scene, version, None if barred is None else barred.incident)

    def _refuse_forward(
        self, connection: Connection, scene: Scene, version: Version, operation: Operation
    ) -> list[Hold]:
        """Refuse what a promotion may not pass; return the holds that it resolves."""
        self._refuse_quarantined(connection, scene, version)
        resolved: list[Hold] = []
        for one in self._holds(connection, scene.app):
            if operation.resolves is None or one.incident != operation.resolves:
                number = "" if one.incident is None else f" (incident {one.incident})"
                fix = (
                    ""
                    if one.incident is None
                    else f", or deploy the fix with --resolves {one.incident}"
                )
                raise RefusedError(
                    f"{scene.app} is on hold{number}: {one.reason}",
                    hint=f'lift it: mlguard resume {scene.app} --reason "…"{fix}',
                    clause="hold",
                    incident=one.incident,
                )
            resolved.append(one)
        known = self._evidence(connection, scene.app, version.digest)
        again = f"run the gate again: mlguard deploy {scene.app}"
        if not known or not known[0].allowed:
            raise RefusedError(
                f"{scene.app} {version.name}: "
                + ("the gate refused it" if known else "no gate has judged it"),
                hint=again,
                clause="evidence",
            )
        newest = known[0]
        if operation.policy_digest not in (None, newest.policy_digest):
            raise RefusedError(
                f"{scene.app} {version.name} was judged by another policy than the one in force",
                hint=again,
                clause="evidence",
            )
        # The largest time ever seen: a clock that goes back makes no evidence young again.
        age = max(self.clock(), audit.latest_time(connection)) - newest.at
        if age > operation.evidence_max_age:
            raise RefusedError(
                f"{scene.app} {version.name} was judged {age / 86400:.1f} days ago; "
                f"evidence is good for {operation.evidence_max_age / 86400:g} days",
                hint=again,
                clause="evidence",
            )
        return resolved

    def _refuse_unloaded(self, connection: Connection, version: Version) -> None:
        live = self._live(connection)
        broken = {one.id: one.failed[version.id] for one in live if version.id in one.failed}
        if broken:
            server, why = next(iter(broken.items()))
            raise RefusedError(
                f"{version.app} {version.name} could not be loaded by server {server}: {why}",
                hint="mend the model or the server's environment and deploy again",
                clause="load_failed",
                servers=sorted(broken),
            )
        missing = [one.id for one in live if version.id not in one.loaded]
        if missing:
            raise ConflictError(
                f"{version.app} {version.name} is not loaded yet by {', '.join(missing)}",
                hint="wait until every server has loaded it, then try again",
                clause="not_loaded",
                servers=missing,
            )

    def confirm(
        self,
        app: str,
        *,
        served_s: float,
        rows: int | None = None,
        expected_generation: int | None = None,
    ) -> Version | None:
        """Confirm the version that is BAKING (T10): from now on it can be gone back to.

        Whether it was watched long enough, without a failure and without a blind monitor, is
        the caller's judgement; the numbers are kept.

        Parameters
        ----------
        app : str
            The app.
        served_s : float
            Seconds it has answered, by a monotonic clock.
        rows : int, optional
            Rows it has answered.
        expected_generation : int, optional
            The generation that was observed.

        Returns
        -------
        Version or None
            What was confirmed; None where nothing is BAKING.

        Raises
        ------
        ConflictError
            If the app has left that generation.
        """
        with self.database.write() as connection:
            scene, known = self._scene(connection, app, lock=True)
            expect_generation(scene, expected_generation)
            if scene.active is None or scene.active.state is not State.BAKING:
                return None
            version = known[scene.active.id]
            event = self._event(
                connection,
                app,
                "confirmed",
                f"watched for {served_s:.0f} s without a failure",
                generation=scene.generation,
                version=version.name,
                detail={"served_s": served_s, "rows": rows},
            )
            self._step(
                connection,
                version,
                Command.CONFIRM,
                confirmed_at=self.clock(),
                confirmed_seq=event.seq,
                baked_s=max(served_s, version.baked_s),
            )
            return self._version(connection, version.id)

    # --- backward ------------------------------------------------------------------------

    def rollback(
        self,
        app: str,
        *,
        to: Version | None = None,
        automatic: bool,
        reason: str,
        expected_generation: int | None = None,
        quarantine: bool = False,
        incident: int | None = None,
        detail: Mapping[str, Any] | None = None,
        auto: AutoTable | None = None,
        key: str | None = None,
    ) -> AppState:
        """Go back to an earlier version.

        A human's (M): LIVE becomes STANDBY, BAKING becomes PASSED; no hold, no budget, and a
        quarantine only where asked for.  An automatic one (T11) condemns what serves: its
        digest is quarantined, promotions are held until a human resumes, and the budget is
        charged.  Neither waits for a running deployment; both fence it out.

        Parameters
        ----------
        app : str
            The app.
        to : Version, optional
            Where to go; by default the best target whose bytes are intact.
        automatic : bool
            Whether no human asked for it.
        reason : str
            Why, in a sentence.
        expected_generation : int, optional
            The generation that was judged.
        quarantine : bool
            Whether to condemn what serves (always, where automatic).
        incident : int, optional
            Why; an automatic rollback without one opens its own.
        detail : mapping, optional
            Numbers for event and mail, as JSON values: check, value, limit, interval, n,
            window.
        auto : AutoTable, optional
            Budget and cooldown of an automatic rollback; by default those of the settings'
            defaults.
        key : str, optional
            Idempotency key: a second call with it returns what the first came to.

        Returns
        -------
        AppState

        Raises
        ------
        RefusedError
            If there is nothing to go back to (clause ``no_target``, with every refusal), the
            budget is spent, the cooldown runs, or the target was never confirmed.
        ConflictError
            If the app has left the expected generation.
        IntegrityError
            If the bytes of ``to`` are not what was registered; it is BROKEN then.
        """
        limits = auto or AutoTable()
        condemn = automatic or quarantine
        for attempt in range(_TRIES):
            with self.database.read() as connection:
                done = self._outcome(connection, app, key=key)
                if done is not None:
                    return self._then(connection, app, done)
                scene, known = self._scene(connection, app)
            expect_generation(scene, expected_generation)
            target, refused = self._target(scene, known, to, limits, automatic=automatic)
            try:
                return self._go_back(
                    scene,
                    target,
                    automatic=automatic,
                    condemn=condemn,
                    reason=reason,
                    incident=incident,
                    detail={**(detail or {}), **({"refused": refused} if refused else {})},
                    limits=limits,
                    key=key,
                )
            except ConflictError:
                # Somebody moved the app while the target was being checked.  A human who named
                # no generation means whatever serves: choose again.
                chosen = automatic or expected_generation is not None
                if chosen or attempt == _TRIES - 1:
                    raise
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    def _target(
        self,
        scene: Scene,
        known: Mapping[int, Version],
        to: Version | None,
        limits: AutoTable,
        *,
        automatic: bool,
    ) -> tuple[Version, list[str]]:
        """Choose where to go: the first target whose bytes are intact, and why not the others."""
        if to is not None:
            going_back(scene, self.version_by_id(to.id), condemn=automatic)
            self._check_bytes(to)
            return to, []
        standby = [known[one.id] for one in scene.standby]
        if automatic:
            targets = automatic_targets(scene.active, standby, scene.quarantined)
            targets = targets[: limits.targets_tried]
        else:
            targets = manual_targets(scene.active, standby, scene.quarantined)
        refused: list[str] = []
        for target in targets:
            try:
                self._check_bytes(target)
            except IntegrityError as error:
                refused.append(f"{target.name}: {error.message}")
            else:
                return target, refused
        raise RefusedError(
            f"{scene.app} has nothing to go back to"
            + (f": {'; '.join(refused)}" if refused else ""),
            hint=f"stop answering with the model: mlguard rollback {scene.app} --to-default",
            clause="no_target",
            refused=refused,
        )

    def _check_bytes(self, version: Version) -> None:
        """Mark a version BROKEN, and say so, where its bytes are not what was registered."""
        try:
            self.artifacts.get(version.manifest["model_sha256"])
        except IntegrityError as error:
            if version.state not in ACTIVE | CANDIDATE:
                self._break(version, error.message)
            raise

    def _break(self, version: Version, reason: str) -> None:
        broken = self.mark(version.id, State.BROKEN, reason=reason)
        if version.state is State.STANDBY:
            # A lost rollback target is worth a mail: nobody would notice until it is needed.
            with self.database.write() as connection:
                self._mail(
                    connection,
                    version.app,
                    "alert",
                    {
                        "version": broken.name,
                        "why": reason,
                        "did": f"{broken.name} is no rollback target any more",
                        "next": "put the same file back by deploying it again",
                    },
                    generation=self._lock(connection, version.app),
                )

    def _go_back(
        self,
        read: Scene,
        target: Version,
        *,
        automatic: bool,
        condemn: bool,
        reason: str,
        incident: int | None,
        detail: Mapping[str, Any],
        limits: AutoTable,
        key: str | None,
    ) -> AppState:
        app = read.app
        with self.database.write() as connection:
            scene, known = self._scene(connection, app, lock=True)
            expect_generation(scene, read.generation)
            if automatic:
                self._refuse_automatic(connection, scene, limits)
            target = self._version(connection, target.id)
            move = going_back(scene, target, condemn=condemn)
            left = None if scene.active is None else known[scene.active.id]
            if automatic and incident is None:
                incident = self._own_incident(connection, scene, left, "rollback", reason, detail)
            event = self._move(
                connection,
                scene,
                known,
                move,
                kind="rolled_back",
                reason=reason,
                version=target.name,
                incident=incident,
                detail={
                    **detail,
                    "from": None if left is None else left.name,
                    "to": target.name,
                    "digest": target.digest,
                    "automatic": automatic,
                    "quarantined": condemn and left is not None,
                    "incident": incident,
                },
            )
            self._aftermath(
                connection,
                left if condemn else None,
                app,
                event.generation,
                reason,
                incident,
                automatic=automatic,
                level="rollback",
            )
            facts = {} if incident is None else self._incident(connection, incident).facts
            self._mail(
                connection,
                app,
                "rolled_back",
                {
                    **facts,
                    **detail,
                    "from": None if left is None else left.name,
                    "to": target.name,
                    "automatic": automatic,
                    "why": reason,
                    "did": f"went back to {target.name}"
                    + ("; promotions are held" if automatic else ""),
                    "next": f'mlguard resume {app} --reason "…"' if automatic else "",
                },
                generation=event.generation,
                incident=incident,
            )
            state = self._state(connection, app)
            self._keep_outcome(connection, state, kind="rollback", key=key)
            return state

    def _refuse_automatic(self, connection: Connection, scene: Scene, limits: AutoTable) -> None:
        if scene.mode is Mode.DEFAULT_OUTPUT:
            raise RefusedError(
                f"{scene.app} answers with its default output; only a human ends that",
                hint=f"mlguard unblock {scene.app}",
                clause="blocked",
            )
        now = self.clock()
        times = connection.execute(
            select(automatic_moves.c.at).where(automatic_moves.c.app == scene.app)
        ).scalars()
        refuse_automatic(scene.app, list(times), now, limits)

    def _own_incident(
        self,
        connection: Connection,
        scene: Scene,
        version: Version | None,
        level: str,
        reason: str,
        facts: Mapping[str, Any],
    ) -> int:
        return self._open(
            connection,
            scene.app,
            scene.generation,
            str(facts.get("check", "service")),
            None if version is None else version.id,
            reason,
            facts,
            level,
            None,
        ).id

    def _aftermath(
        self,
        connection: Connection,
        condemned: Version | None,
        app: str,
        generation: int,
        reason: str,
        incident: int | None,
        *,
        automatic: bool,
        level: str,
    ) -> None:
        """Write what a move leaves behind: quarantine, and if automatic, hold and budget."""
        now = self.clock()
        if condemned is not None:
            self.database.insert_new(
                connection,
                quarantines,
                {
                    "app": app,
                    "digest": condemned.digest,
                    "incident": incident,
                    "reason": reason,
                    "at": now,
                },
            )
        if not automatic:
            return
        self._hold(connection, app, generation, reason, None, incident, after_move=True)
        connection.execute(insert(automatic_moves).values(app=app, generation=generation, at=now))
        connection.execute(
            update(incidents).where(incidents.c.id == incident).values(level=level, updated_at=now)
        )

    def automatic_moves(self, app: str, since: float = 0.0) -> list[float]:
        """Return the times of an app's automatic moves from a time on, oldest first."""
        query = (
            select(automatic_moves.c.at)
            .where(automatic_moves.c.app == app, automatic_moves.c.at >= since)
            .order_by(automatic_moves.c.generation)
        )
        with self.database.read() as connection:
            return [float(at) for at in connection.execute(query).scalars()]

    # --- default output ------------------------------------------------------------------

    def block(
        self,
        app: str,
        reason: str,
        *,
        automatic: bool = False,
        incident: int | None = None,
        expected_generation: int | None = None,
        detail: Mapping[str, Any] | None = None,
        auto: AutoTable | None = None,
        key: str | None = None,
    ) -> AppState:
        """Answer with the default output.

        A human's (T13) keeps the pointer, and :meth:`unblock` undoes it.  An automatic one
        (T12, where a hard check fails and there is no target) condemns what serves, holds
        promotions and is charged to the budget.  Where the default output is in force already,
        nothing happens.

        Parameters
        ----------
        app, reason : str
            The app, and why.
        automatic : bool
            Whether no human asked for it.
        incident, expected_generation, detail, auto, key
            As for :meth:`rollback`.

        Returns
        -------
        AppState
        """
        with self.database.write() as connection:
            scene, known = self._scene(connection, app, lock=True)
            done = self._outcome(connection, app, key=key)
            if done is not None:
                return self._then(connection, app, done)
            expect_generation(scene, expected_generation)
            if scene.mode is Mode.DEFAULT_OUTPUT:
                return self._state(connection, app)
            left = None if scene.active is None else known[scene.active.id]
            if automatic:
                move = giving_up(scene)
                self._refuse_automatic(connection, scene, auto or AutoTable())
                if incident is None:
                    incident = self._own_incident(
                        connection, scene, left, "default_output", reason, detail or {}
                    )
            else:
                move = blocking(scene)
            state = self._default_or_back(
                connection,
                scene,
                known,
                move,
                kind="default_output" if automatic else "blocked",
                mail="default_output",
                reason=reason,
                incident=incident,
                detail={**(detail or {}), "automatic": automatic},
                did="answers with the default output",
                onward=f"deploy a fix: mlguard deploy {app} --resolves {incident}"
                if automatic
                else f'mlguard unblock {app} --reason "…"',
            )
            self._aftermath(
                connection,
                left if automatic else None,
                app,
                state.generation,
                reason,
                incident,
                automatic=automatic,
                level="default_output",
            )
            self._keep_outcome(connection, state, kind="block", key=key)
            return state

    def unblock(
        self,
        app: str,
        reason: str,
        *,
        expected_generation: int | None = None,
        key: str | None = None,
    ) -> AppState:
        """Let the active version answer again (T13); nothing happens where it does.

        Raises
        ------
        RefusedError
            If no version is active.
        """
        with self.database.write() as connection:
            scene, known = self._scene(connection, app, lock=True)
            done = self._outcome(connection, app, key=key)
            if done is not None:
                return self._then(connection, app, done)
            expect_generation(scene, expected_generation)
            if scene.mode is Mode.SERVE and scene.active is not None:
                return self._state(connection, app)
            state = self._default_or_back(
                connection,
                scene,
                known,
                unblocking(scene),
                kind="unblocked",
                mail="cleared",
                reason=reason,
                incident=None,
                detail={},
                did="answers with the model again",
                onward="",
            )
            self._keep_outcome(connection, state, kind="unblock", key=key)
            return state

    def _default_or_back(
        self,
        connection: Connection,
        scene: Scene,
        known: Mapping[int, Version],
        move: Move,
        *,
        kind: str,
        mail: str,
        reason: str,
        incident: int | None,
        detail: Mapping[str, Any],
        did: str,
        onward: str,
    ) -> AppState:
        name = "" if scene.active is None else scene.active.name
        event = self._move(
            connection,
            scene,
            known,
            move,
            kind=kind,
            reason=reason,
            version=name,
            incident=incident,
            detail={**detail, "incident": incident},
        )
        facts = {} if incident is None else self._incident(connection, incident).facts
        back = move.mode is Mode.SERVE
        self._mail(
            connection,
            scene.app,
            mail,
            {
                **facts,
                **detail,
                "from": None if back else name or None,
                "to": name if back else None,
                "why": reason,
                "did": did,
                "next": onward,
            },
            generation=event.generation,
            incident=incident,
        )
        return self._state(connection, scene.app)

    # --- reconcile -----------------------------------------------------------------------

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
        ended = [
            one
            for one in connection.execute(
                select(holds).where(
                    holds.c.app == app, holds.c.lifted_at.is_(None), holds.c.expires <= now
                )
            )
        ]
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
