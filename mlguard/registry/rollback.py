"""Backward: to an earlier version, or to the default output.

Going back is never barred by a hold, a lease or a running deployment; it fences the deployment
out.  An *automatic* move condemns what served: quarantine, hold, budget and mail are written by
the transaction that moves the pointer.  Bytes are checked before it, never inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from mlguard.config import AutoTable
from mlguard.errors import ConflictError, IntegrityError, RefusedError
from mlguard.registry.lifecycle import (
    Mode,
    Move,
    Scene,
    automatic_targets,
    blocking,
    expect_generation,
    giving_up,
    going_back,
    manual_targets,
    refuse_automatic,
    unblocking,
)
from mlguard.registry.operations import Operations
from mlguard.registry.records import AppState, Version
from mlguard.registry.tables import automatic_moves, incidents, quarantines

#: How often a human's rollback chooses again when the app moves under it.
_TRIES = 3


class Rollback(Operations):
    """The commands that take a version out of service."""

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

        A human's (M): LIVE becomes STANDBY, BAKING becomes PASSED; no hold, no budget.  One that
        condemns what serves (T11: an automatic one, or a human's with ``quarantine``): its
        digest is quarantined, and promotions are held until a human resumes or the incident is
        resolved; an automatic one is charged to the budget too.  None waits for a running
        deployment; all fence it out.

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
            Why; one that condemns takes the open one of what serves, or opens its own.
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
            if condemn and incident is None and left is not None:
                incident = self._incident_of(connection, app, left) or self._own_incident(
                    connection,
                    scene,
                    level="rollback",
                    reason=reason,
                    facts=detail,
                    monitor="service" if automatic else "manual",
                )
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
                app,
                reason,
                condemned=left if condemn else None,
                generation=event.generation,
                incident=incident,
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
                    + ("; promotions are held" if condemn else ""),
                    "next": f'mlguard resume {app} --reason "…"' if condemn else "",
                },
                generation=event.generation,
                incident=incident,
            )
            state = self._state(connection, app)
            self._keep_outcome(connection, state, kind="rollback", key=key)
            return state

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
                        connection,
                        scene,
                        level="default_output",
                        reason=reason,
                        facts=detail or {},
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
                app,
                reason,
                condemned=left if automatic else None,
                generation=state.generation,
                incident=incident,
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

    def automatic_moves(self, app: str, since: float = 0.0) -> list[float]:
        """Return the times of an app's automatic moves from a time on, oldest first."""
        query = (
            select(automatic_moves.c.at)
            .where(automatic_moves.c.app == app, automatic_moves.c.at >= since)
            .order_by(automatic_moves.c.generation)
        )
        with self.database.read() as connection:
            return [float(at) for at in connection.execute(query).scalars()]

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
        *,
        level: str,
        reason: str,
        facts: Mapping[str, Any],
        monitor: str = "service",
    ) -> int:
        """Open the incident of a move that came without one; its mail is the move's."""
        return self._open(
            connection,
            scene.app,
            generation=scene.generation,
            monitor=str(facts.get("check", monitor)),
            version_id=None if scene.active is None else scene.active.id,
            summary=reason,
            facts=facts,
            level=level,
            mail=None,
        ).id

    def _incident_of(self, connection: Connection, app: str, version: Version) -> int | None:
        """Return the latest open incident of a version, if there is one."""
        found = connection.execute(
            select(incidents.c.id)
            .where(
                incidents.c.app == app,
                incidents.c.version_id == version.id,
                incidents.c.state == "open",
            )
            .order_by(incidents.c.id.desc())
            .limit(1)
        ).scalar()
        return None if found is None else int(found)

    def _aftermath(
        self,
        connection: Connection,
        app: str,
        reason: str,
        *,
        condemned: Version | None,
        generation: int,
        incident: int | None,
        automatic: bool,
        level: str,
    ) -> None:
        """Write what a move that condemns leaves behind; if automatic, charge the budget."""
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
        if condemned is None and not automatic:
            return
        self._hold(
            connection,
            app,
            reason,
            generation=generation,
            expires=None,
            incident=incident,
            after_move=True,
        )
        if automatic:
            connection.execute(
                insert(automatic_moves).values(app=app, generation=generation, at=now)
            )
        connection.execute(
            update(incidents).where(incidents.c.id == incident).values(level=level, updated_at=now)
        )
