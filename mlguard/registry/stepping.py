"""Forward step by step: shadow, canary, and out again where a step fails or stays undecided (T8).

A deployment carries its steps and its place among them, so its share of the callers ends with
it: whatever removes the operation takes the traffic away in the same transaction.  The pointer
does not move before the promotion, and neither does the generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select, update

from mlguard.errors import ConflictError, RefusedError
from mlguard.registry.apps import version_of
from mlguard.registry.lifecycle import CANDIDATE, Command, Mode, Scene, drained, expect_generation
from mlguard.registry.liveness import expired
from mlguard.registry.operations import operation_of
from mlguard.registry.promotion import Promotion
from mlguard.registry.records import Incident, Operation, Rolling, Version
from mlguard.registry.tables import operations, quarantines, versions


class Stepping(Promotion):
    """The steps between staged and promoted."""

    def rolling(self, app: str) -> Rolling | None:
        """Return the version that is being rolled out and its deployment; None where none is."""
        with self.database.read() as connection:
            row = connection.execute(
                select(operations).where(operations.c.app == app)
            ).one_or_none()
            if row is None:
                return None
            found = connection.execute(
                select(versions).where(
                    versions.c.id == row.version_id, versions.c.state.in_(CANDIDATE)
                )
            ).one_or_none()
            if found is None:
                return None
            alive = not expired(row.owner, row.beat_at, self.clock())
            return Rolling(operation_of(row), version_of(found), alive)

    def advance(
        self, operation: Operation, *, reason: str, detail: Mapping[str, Any] | None = None
    ) -> Rolling:
        """Go on to the next step (T8): shadow first, then a larger share of the callers.

        Parameters
        ----------
        operation : Operation
            As it was read when the decision was made: its ``step`` is compared.
        reason : str
            Why, for the audit trail.
        detail : mapping, optional
            The numbers, as JSON values.

        Raises
        ------
        ConflictError
            Clause ``fence``, ``generation``, ``step`` or ``not_loaded``: nothing was changed.
        RefusedError
            Clause ``hold``, ``quarantine``, ``waiver``, ``evidence``, ``load_failed``,
            ``steps`` (there is no further one) or ``active`` (nothing to compare it with).
        """
        with self.database.write() as connection:
            scene, version, row = self._stepping(connection, operation)
            following = operation.step + 1
            if following >= len(row.steps):
                raise RefusedError(
                    f"{operation.app} {version.name} has passed its last step",
                    hint=f"mlguard promote {operation.app}",
                    clause="steps",
                )
            if scene.active is None or scene.mode is not Mode.SERVE:
                raise RefusedError(
                    f"nothing serves {operation.app}, so there is nothing to compare with",
                    clause="active",
                )
            self._refuse_forward(connection, scene, version, row)
            self._refuse_unloaded(connection, version)
            what = row.steps[following]
            shadow = what == "shadow"
            self._step(connection, version, Command.SHADOW if shadow else Command.CANARY)
            connection.execute(
                update(operations)
                .where(operations.c.app == operation.app)
                .values(step=following, step_at=self.clock())
            )
            self._event(
                connection,
                operation.app,
                "shadowed" if shadow else "canary",
                reason,
                generation=scene.generation,
                version=version.name,
                detail={
                    **(detail or {}),
                    "operation": operation.id,
                    "step": following + 1,
                    "of": len(row.steps),
                    "weight": 0.0 if shadow else float(what),
                },
            )
            now = connection.execute(
                select(operations).where(operations.c.app == operation.app)
            ).one()
            return Rolling(
                operation_of(now),
                self._version(connection, version.id),
                not expired(now.owner, now.beat_at, self.clock()),
            )

    def recheck(self, operation: Operation) -> None:
        """Refuse a rollout whose grounds are gone: a waiver that ended, evidence, quarantine.

        A hold is no such ground: it only keeps the version from going on.

        Raises
        ------
        RefusedError
            Clause ``quarantine``, ``waiver`` or ``evidence``.
        ConflictError
            Clause ``fence``: the operation has ended.
        """
        with self.database.read() as connection:
            scene, _ = self._scene(connection, operation.app)
            self._own(connection, operation)
            version = self._version(connection, operation.version_id)
            self._refuse_quarantined(connection, scene, version)
            self._refuse_evidence(connection, scene, version, operation)

    def withdraw(
        self, operation: Operation, reason: str, *, detail: Mapping[str, Any] | None = None
    ) -> Version:
        """End a rollout that stayed undecided to its deadline: no traffic, HELD (T8).

        A version that could be gone back to before stays one.

        Raises
        ------
        ConflictError
            Clause ``fence`` or ``step``: nothing was changed.
        """
        with self.database.write() as connection:
            scene, version, _ = self._stepping(connection, operation, ends=True)
            known = version.confirmed_seq is not None
            self._step(connection, version, drained(version) if known else Command.WITHDRAW)
            connection.execute(delete(operations).where(operations.c.app == operation.app))
            self._event(
                connection,
                operation.app,
                "withdrawn",
                reason,
                generation=scene.generation,
                version=version.name,
                detail={**(detail or {}), "operation": operation.id},
            )
            self._mail(
                connection,
                operation.app,
                "refused",
                {
                    **(detail or {}),
                    "version": version.name,
                    "why": reason,
                    "did": "took its traffic away; what served goes on serving",
                    "author": version.registered_by,
                    "next": f"mlguard deploy {operation.app}",
                },
                generation=scene.generation,
            )
            return self._version(connection, version.id)

    def fail(
        self,
        operation: Operation,
        reason: str,
        *,
        check: str,
        detail: Mapping[str, Any] | None = None,
    ) -> Incident | None:
        """End a rollout that a step found worse: no traffic, its bytes in quarantine (T8).

        Parameters
        ----------
        operation : Operation
            As it was read when the decision was made.
        reason : str
            Why, in a sentence.
        check : str
            What failed.
        detail : mapping, optional
            The numbers, as JSON values.

        Returns
        -------
        Incident or None
            What it is on record as; None where the same bytes serve, which are not condemned by
            their candidate.

        Raises
        ------
        ConflictError
            Clause ``fence`` or ``step``: nothing was changed.
        """
        with self.database.write() as connection:
            scene, version, _ = self._stepping(connection, operation, ends=True)
            if scene.active is not None and scene.active.digest == version.digest:
                self._end(connection, scene, {version.id: version}, reason)
                return None
            facts = {
                **(detail or {}),
                "check": check,
                "version": version.name,
                "operation": operation.id,
                "step": operation.step + 1,
            }
            incident = self._open(
                connection,
                operation.app,
                generation=scene.generation,
                monitor=check,
                version_id=version.id,
                summary=reason,
                facts=facts,
                level="rollback",
                mail=None,
            )
            self._step(connection, version, Command.FAIL, incident=incident.id)
            connection.execute(delete(operations).where(operations.c.app == operation.app))
            self.database.insert_new(
                connection,
                quarantines,
                {
                    "app": operation.app,
                    "digest": version.digest,
                    "incident": incident.id,
                    "reason": reason,
                    "at": self.clock(),
                },
            )
            self._event(
                connection,
                operation.app,
                "rollout_failed",
                reason,
                generation=scene.generation,
                version=version.name,
                detail={**facts, "incident": incident.id, "digest": version.digest},
            )
            self._mail(
                connection,
                operation.app,
                "refused",
                {
                    **facts,
                    "why": reason,
                    "did": "took its traffic away and put its bytes in quarantine; "
                    "what served goes on serving",
                    "next": f"mlguard history {operation.app}",
                },
                generation=scene.generation,
                incident=incident.id,
            )
            return incident

    def _stepping(
        self, connection: Connection, operation: Operation, *, ends: bool = False
    ) -> tuple[Scene, Version, Operation]:
        """Read the app, the candidate and the operation as they stand, or refuse."""
        scene, known = self._scene(connection, operation.app, lock=True)
        self._own(connection, operation)
        if not ends:
            expect_generation(scene, operation.expected_generation)
        row = operation_of(
            connection.execute(select(operations).where(operations.c.app == operation.app)).one()
        )
        candidate = scene.candidate
        if candidate is None or candidate.id != operation.version_id or row.step != operation.step:
            raise ConflictError(
                f"{operation.app}: the rollout has gone on in between; nothing was changed",
                hint=f"look at `mlguard status {operation.app}` and decide again",
                clause="step",
            )
        return scene, known[candidate.id], row
