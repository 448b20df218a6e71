"""Forward: stage a version, promote it, confirm it.

Each is one transaction under the app's lock, and is refused by name: ``clause`` in the error's
data says which guard it was.  Nothing slow happens inside; servers have loaded the candidate
before it is promoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, update

from mlguard.errors import ConflictError, RefusedError
from mlguard.registry import audit
from mlguard.registry.lifecycle import (
    Command,
    Scene,
    State,
    expect_generation,
    promotion,
    refuse_baking,
)
from mlguard.registry.operations import Operations
from mlguard.registry.records import AppState, Hold, Operation, Version
from mlguard.registry.tables import incidents
from mlguard.results import GateDecision
from mlguard.waivers import waiver_note, waiver_words


class Promotion(Operations):
    """The commands that make a version serve."""

    def stage(self, operation: Operation) -> Version:
        """Make the operation's version the candidate (T7): servers load it, nobody sees it.

        Raises
        ------
        ConflictError
            If the operation was fenced out, or another version is BAKING.
        RefusedError
            If a hold, a quarantine, a waiver that has ended, or missing, old or refusing
            evidence stands in the way.
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

    def promote(
        self, operation: Operation, *, reason: str, detail: Mapping[str, Any] | None = None
    ) -> AppState:
        """Make the candidate serve (T9; T9a for the first version of an app).

        Parameters
        ----------
        operation : Operation
            One's own; it ends with this.
        reason : str
            Why, for the audit trail.
        detail : mapping, optional
            More for the audit trail, as JSON values.

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
            Clause ``hold``, ``quarantine``, ``waiver``, ``evidence`` or ``load_failed``.
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
                    **(detail or {}),
                    "from": None if scene.active is None else scene.active.name,
                    "to": version.name,
                    "digest": version.digest,
                    "thresholds": version.manifest.get("thresholds", {}),
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

    def confirm(
        self,
        app: str,
        *,
        served_s: float,
        rows: int | None = None,
        expected_generation: int | None = None,
        reason: str | None = None,
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
        reason : str, optional
            Why, where a human says so before the time is over.

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
                reason or f"watched for {served_s:.0f} s without a failure",
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

    def _resolve(
        self,
        connection: Connection,
        operation: Operation,
        version: Version,
        resolved: list[Hold],
        generation: int,
    ) -> None:
        """Lift the holds of the incident that a promoted version fixes, and tell."""
        said = f"{version.name} was promoted to resolve it"
        if resolved:
            self._lift(connection, operation.app, resolved, said, generation=generation)
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
        self._refuse_evidence(connection, scene, version, operation)
        return resolved

    def _refuse_evidence(
        self, connection: Connection, scene: Scene, version: Version, operation: Operation
    ) -> None:
        """Refuse a version without evidence that lets it through now."""
        known = self._evidence(connection, scene.app, version.digest)
        again = f"run the gate again: mlguard deploy {scene.app}"
        if not known:
            raise RefusedError(
                f"{scene.app} {version.name}: no gate has judged it", hint=again, clause="evidence"
            )
        newest = known[0]
        decision = self._decision_now(connection, newest)
        if not decision.allowed:
            raise _refusal(version, decision, again)
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


def _refusal(version: Version, decision: GateDecision, again: str) -> RefusedError:
    """Return why evidence lets nothing through now: a waiver that ended comes first."""
    for one in decision.blocking:
        note = waiver_note(one)
        if note is not None:
            return RefusedError(
                f"{version.app} {version.name}: {one.name} blocks: {waiver_words(one)}",
                hint=f"mend it, or waive it again (mlguard waive {version.app} …); then {again}",
                clause="waiver",
                waiver=note["id"],
            )
    return RefusedError(
        f"{version.app} {version.name}: the gate refused it", hint=again, clause="evidence"
    )
