"""Versions before and beside traffic: registration, quiet states, evidence, references.

Registering stores the bytes first and writes the row second: a crash in between leaves bytes
that nobody names, never a name without bytes.  Doing it again is always safe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Row, insert, select, update

from mlguard import policy
from mlguard.config import APP_NAME, RESERVED_NAMES
from mlguard.errors import ConflictError, IntegrityError, RefusedError, UsageError
from mlguard.models.bundle import stored_sha256
from mlguard.registry.apps import version_of
from mlguard.registry.database import new_id, to_text
from mlguard.registry.lifecycle import ACTIVE, CANDIDATE, Command, State, quiet_command
from mlguard.registry.records import Evidence, Version
from mlguard.registry.tables import (
    apps,
    evidence,
    incidents,
    reference_profiles,
    versions,
)
from mlguard.registry.waiver_book import book_of
from mlguard.registry.waiving import Waivers
from mlguard.results import GateDecision, Verdict

VERSION_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_NUMBERED = re.compile(r"v(\d{1,9})")
#: So many confirmed versions are always kept to go back to.
KEPT_STANDBYS = 3


class Bundle(Protocol):
    """What the registry needs to know of a manifest (``mlguard.models.bundle.Manifest``)."""

    @property
    def digest(self) -> str:
        """SHA-256 of its canonical JSON, hex."""

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the model's bytes, hex."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""


def _evidence_of(row: Row[Any]) -> Evidence:
    values = row._asdict()
    values["decision"] = json.loads(values["decision"])
    return Evidence(**values)


class Versions(Waivers):
    """Registration and what is known of a version's content."""

    def register(
        self,
        app: str,
        *,
        name: str | None,
        manifest: Bundle,
        model_file: Path | str,
        compiled_file: Path | str | None = None,
        message: str = "",
        commit: str = "",
    ) -> Version:
        """Store a version's bytes and give it a name (T1).

        Parameters
        ----------
        app : str
            Whose version it is.
        name : str or None
            What to call it; None: the known version of the same content, or the next of
            v1, v2, ….
        manifest : Manifest
            What belongs together.
        model_file : Path or str
            The model's bytes, with the digest that the manifest names.
        compiled_file : Path or str, optional
            What it was compiled to, with the digest that the manifest names.
        message, commit : str
            What its author says, and the git commit.

        Returns
        -------
        Version
            The same one where name and content are registered already; a BROKEN one is
            repaired by that.

        Raises
        ------
        ConflictError
            If the name belongs to other content: a version is immutable.
        IntegrityError
            If the file is not the one that the manifest speaks of.
        UsageError
            If a name cannot be used.
        """
        if not APP_NAME.fullmatch(app) or app in RESERVED_NAMES:
            raise UsageError(f"{app!r} cannot be the name of an app")
        if name is not None and not VERSION_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be the name of a version",
                hint="use 1 to 64 of a-z, 0-9, dot, dash, underscore",
            )
        stored = self.artifacts.put(model_file)
        if stored != manifest.model_sha256:
            raise IntegrityError(
                f"{model_file} has digest {stored[:12]}, its manifest says "
                f"{manifest.model_sha256[:12]}",
                hint="the file changed after its manifest was made; try again",
            )
        if compiled_file is not None:
            self.artifacts.put(compiled_file)
        for sha256 in stored_sha256(manifest.to_json()):
            if not self.artifacts.exists(sha256):
                raise IntegrityError(
                    f"bytes with the digest {sha256[:12]} belong to the version and are not there",
                    hint="hand in the compiled model with the version, or deploy it again",
                )
        version = self._enter(app, name, manifest, message=message, commit=commit)
        # Whoever collects what nobody names may have taken older bytes away just before the row
        # named them; from now on they are left alone.
        for file, sha256 in (
            (model_file, stored),
            (compiled_file, stored_sha256(manifest.to_json())[0]),
        ):
            if file is not None and sha256 and not self.artifacts.exists(sha256):
                self.artifacts.put(file)
        return version

    def _enter(
        self, app: str, name: str | None, manifest: Bundle, *, message: str, commit: str
    ) -> Version:
        """Write the row of a version whose bytes are stored."""
        with self.database.write() as connection:
            self._ensure_app(connection, app)
            generation = self._lock(connection, app)
            known = self._named(connection, app, name, manifest.digest)
            if known is not None:
                if known.state is State.BROKEN:
                    self._step(connection, known, Command.REPAIR)
                    # Compiled anew, perhaps by a newer converter: its bytes are not the
                    # identity, and these are the ones that are there.
                    connection.execute(
                        update(versions)
                        .where(versions.c.id == known.id)
                        .values(manifest=to_text(manifest.to_json()))
                    )
                    self._event(
                        connection,
                        app,
                        "repaired",
                        "identical bytes were put back",
                        generation=generation,
                        version=known.name,
                    )
                return self._version(connection, known.id)
            now = self.clock()
            chosen = name or self._next_name(connection, app)
            made = connection.execute(
                insert(versions).values(
                    app=app,
                    name=chosen,
                    digest=manifest.digest,
                    manifest=to_text(manifest.to_json()),
                    state=State.REGISTERED,
                    state_at=now,
                    registered_at=now,
                    registered_by=self.actor,
                    message=message,
                    commit=commit,
                    baked_s=0.0,
                )
            )
            self._event(
                connection,
                app,
                "registered",
                message or "a new version",
                generation=generation,
                version=chosen,
                detail={
                    "digest": manifest.digest,
                    "model_sha256": manifest.model_sha256,
                    "commit": commit,
                },
            )
            return self._version(connection, new_id(made))

    @staticmethod
    def _named(connection: Connection, app: str, name: str | None, digest: str) -> Version | None:
        query = select(versions).where(versions.c.app == app).order_by(versions.c.id.desc())
        if name is None:
            row = connection.execute(query.where(versions.c.digest == digest)).first()
            return None if row is None else version_of(row)
        row = connection.execute(query.where(versions.c.name == name)).first()
        if row is None:
            return None
        known = version_of(row)
        if known.digest != digest:
            raise ConflictError(
                f"{app} {name} is registered with other content "
                f"({known.digest[:12]}, not {digest[:12]}); a version is immutable",
                hint="choose another --version, or leave it out",
                clause="immutable_version",
                digest=known.digest,
            )
        return known

    @staticmethod
    def _next_name(connection: Connection, app: str) -> str:
        names = connection.execute(select(versions.c.name).where(versions.c.app == app)).scalars()
        numbers = [int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))]
        return f"v{max(numbers, default=0) + 1}"

    def mark(
        self,
        version_id: int,
        state: State,
        *,
        reason: str,
        evidence_id: int | None = None,
    ) -> Version:
        """Move a version between states without traffic (T2 to T6).

        Parameters
        ----------
        version_id : int
            Which version.
        state : State
            VERIFIED, PASSED, REJECTED, HELD, BROKEN or REGISTERED.  Where it is in that state
            already, nothing happens.
        reason : str
            Why, in a sentence.
        evidence_id : int, optional
            The evidence that decided; by default the newest of its digest.

        Returns
        -------
        Version

        Raises
        ------
        RefusedError
            If the table has no such step, or PASSED is asked for without evidence that allows
            it.  Letting a HELD version through (approval) writes evidence of its own, which
            names who approved.
        """
        with self.database.write() as connection:
            app = self._version(connection, version_id).app
            generation = self._lock(connection, app)
            version = self._version(connection, version_id)
            if version.state is state:
                return version
            command = quiet_command(version.state, state)
            if command is Command.APPROVE:
                evidence_id = self._approve(connection, version, reason)
            elif command is Command.ACCEPT:
                self._refuse_unproven(connection, version, evidence_id)
            self._step(connection, version, command)
            self._event(
                connection,
                app,
                "approved" if command is Command.APPROVE else state.lower(),
                reason,
                generation=generation,
                version=version.name,
                detail={} if evidence_id is None else {"evidence": evidence_id},
            )
            return self._version(connection, version_id)

    def _refuse_unproven(
        self, connection: Connection, version: Version, evidence_id: int | None
    ) -> None:
        known = self._evidence(connection, version.app, version.digest)
        if evidence_id is not None:
            known = [one for one in known if one.id == evidence_id]
        if not known or not self._decision_now(connection, known[0]).allowed:
            raise RefusedError(
                f"{version.app} {version.name}: no evidence lets it through the gate",
                hint=f"run the gate: mlguard check {version.app}",
                clause="evidence",
            )

    def _approve(self, connection: Connection, version: Version, reason: str) -> int:
        known = self._evidence(connection, version.app, version.digest)
        if not known:
            raise RefusedError(
                f"{version.app} {version.name}: there is nothing to approve, no gate has judged it",
                hint=f"run the gate: mlguard check {version.app}",
                clause="evidence",
            )
        newest = known[0]
        # As of now: what a waiver holds open today is not what is approved.
        decision = self._decision_now(connection, newest).to_json()
        made = connection.execute(
            insert(evidence).values(
                app=version.app,
                digest=version.digest,
                allowed=True,
                verdict=newest.verdict,
                decision=to_text(
                    {**decision, "approved_by": self.actor, "approved_because": reason}
                ),
                policy_digest=newest.policy_digest,
                data_digest=newest.data_digest,
                code_version=newest.code_version,
                at=self.clock(),
                actor=self.actor,
            )
        )
        return new_id(made)

    def note_baked(self, app: str, generation: int, served_s: float) -> float:
        """Add to the time that the active version has been watched; return the total.

        Parameters
        ----------
        app : str
            The app.
        generation : int
            The generation that was observed; of any other nothing is counted.
        served_s : float
            Seconds by a monotonic clock since the last call.

        Returns
        -------
        float
            Seconds since it was promoted; 0.0 where the generation has passed.
        """
        with self.database.write() as connection:
            row = connection.execute(
                select(apps.c.generation, apps.c.active).where(apps.c.app == app).with_for_update()
            ).one_or_none()
            if row is None or row.generation != generation or row.active is None:
                return 0.0
            connection.execute(
                update(versions)
                .where(versions.c.id == row.active)
                .values(baked_s=versions.c.baked_s + max(served_s, 0.0))
            )
            return self._version(connection, row.active).baked_s

    def archive(self, version_id: int, reason: str) -> Version:
        """Retire a standby that is too old to go back to (T15).

        Raises
        ------
        RefusedError
            If it is one of the last three confirmed, or an incident of the app is open.
        """
        with self.database.write() as connection:
            app = self._version(connection, version_id).app
            generation = self._lock(connection, app)
            version = self._version(connection, version_id)
            if version.state is State.ARCHIVED:
                return version
            kept = connection.execute(
                select(versions.c.id)
                .where(versions.c.app == app, versions.c.confirmed_seq.is_not(None))
                .order_by(versions.c.confirmed_seq.desc())
                .limit(KEPT_STANDBYS)
            ).scalars()
            if version_id in set(kept):
                raise RefusedError(
                    f"{app} {version.name} is one of the last {KEPT_STANDBYS} confirmed versions",
                    hint="they are kept to go back to",
                    clause="kept",
                )
            opened = connection.execute(
                select(incidents.c.id).where(incidents.c.app == app, incidents.c.state == "open")
            ).first()
            if opened is not None:
                raise RefusedError(
                    f"incident {opened.id} of {app} is open",
                    hint="close it first",
                    clause="incident",
                )
            self._step(connection, version, Command.ARCHIVE)
            self._event(
                connection,
                app,
                "archived",
                reason,
                generation=generation,
                version=version.name,
            )
            return self._version(connection, version_id)

    def _check_bytes(self, version: Version) -> None:
        """Mark a version BROKEN, and say so, where its bytes are not what was registered."""
        try:
            for sha256 in stored_sha256(version.manifest):
                self.artifacts.get(sha256)
        except IntegrityError as error:
            current = self.version_by_id(version.id)
            if current.state not in ACTIVE | CANDIDATE:
                self._break(current, error.message)
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

    def report_broken(self, version_id: int, reason: str) -> Version:
        """Mark a version BROKEN that cannot be loaded (T3); a mail tells where it was a standby.

        A version that serves, or is being rolled out, is left alone: its monitors judge it.
        """
        version = self.version_by_id(version_id)
        if version.state not in ACTIVE | CANDIDATE:
            self._break(version, reason)
        return self.version_by_id(version_id)

    def tell(self, app: str, kind: str, version: str, facts: Mapping[str, Any]) -> None:
        """Write an event that moves nothing, and mail it as an alert.

        Parameters
        ----------
        app, kind, version : str
            Whom it is about, what happened, and to which version.
        facts : mapping
            As JSON values: ``why``, ``did``, ``next`` and the numbers.
        """
        with self.database.write() as connection:
            generation = self._lock(connection, app)
            self._event(
                connection,
                app,
                kind,
                str(facts["why"]),
                generation=generation,
                version=version,
                detail={key: one for key, one in facts.items() if key != "why"},
            )
            self._mail(
                connection, app, "alert", {"version": version, **facts}, generation=generation
            )

    # --- evidence ------------------------------------------------------------------------

    def record_evidence(
        self,
        app: str,
        digest: str,
        decision: Mapping[str, Any],
        *,
        policy_digest: str,
        data_digest: str,
        code_version: str,
        mail: bool = True,
    ) -> int:
        """Store what a gate decided about some bytes.

        A refusal is an event of the audit trail, and a mail of kind ``refused``.

        Parameters
        ----------
        app, digest : str
            Whose bytes, and which.
        decision : mapping
            ``GateDecision.to_json()``.
        policy_digest, data_digest, code_version : str
            What it was judged by, on, and with.
        mail : bool
            Whether a refusal is mailed.

        Returns
        -------
        int
            Id of the evidence.
        """
        judged = GateDecision.from_json(decision)
        with self.database.write() as connection:
            self._ensure_app(connection, app)
            generation = self._lock(connection, app)
            made = connection.execute(
                insert(evidence).values(
                    app=app,
                    digest=digest,
                    allowed=judged.allowed,
                    verdict=judged.verdict,
                    decision=to_text(dict(decision)),
                    policy_digest=policy_digest,
                    data_digest=data_digest,
                    code_version=code_version,
                    at=self.clock(),
                    actor=self.actor,
                )
            )
            evidence_id = new_id(made)
            worst = judged.blocking[0] if judged.blocking else None
            failed = any(one.verdict is Verdict.FAILED for one in judged.blocking)
            kind = "gate_passed" if judged.allowed else "refused" if failed else "undecided"
            found = (
                {}
                if worst is None
                else {
                    "check": worst.name,
                    "value": worst.to_json()["value"],
                    "limit": worst.to_json()["limit"],
                    "interval": worst.to_json()["interval"],
                    "n": worst.n,
                }
            )
            self._event(
                connection,
                app,
                kind,
                judged.because,
                generation=generation,
                version=judged.candidate,
                detail={"evidence": evidence_id, "digest": digest, **found},
            )
            if mail and not judged.allowed:
                self._mail(
                    connection,
                    app,
                    "refused",
                    {
                        "version": judged.candidate,
                        "why": worst.summary if worst is not None else judged.because,
                        "did": "refused the candidate; what serves is unchanged",
                        "author": self.actor,
                        "next": (worst.next_step if worst is not None else "")
                        or f"mlguard check {app}",
                        **found,
                    },
                    generation=generation,
                )
            return evidence_id

    def evidence(self, app: str, digest: str) -> list[Evidence]:
        """Return what gates decided about some bytes, newest first."""
        with self.database.read() as connection:
            return self._evidence(connection, app, digest)

    def decision_now(self, known: Evidence) -> GateDecision:
        """Return what evidence comes to with the waivers that are valid now.

        One that has ended since blocks again; one that was given since lets through.
        """
        with self.database.read() as connection:
            return self._decision_now(connection, known)

    def _decision_now(self, connection: Connection, known: Evidence) -> GateDecision:
        return policy.judged_again(
            GateDecision.from_json(known.decision),
            book_of(connection, known.app, self.clock()),
            known.digest,
            approved="approved_by" in known.decision,
        )

    @staticmethod
    def _evidence(connection: Connection, app: str, digest: str) -> list[Evidence]:
        query = (
            select(evidence)
            .where(evidence.c.app == app, evidence.c.digest == digest)
            .order_by(evidence.c.id.desc())
        )
        return [_evidence_of(row) for row in connection.execute(query)]

    # --- reference -----------------------------------------------------------------------

    def set_reference(self, app: str, digest: str, profile: Mapping[str, Any]) -> None:
        """Store the profile and statistics of the data that some bytes were accepted on."""
        with self.database.write() as connection:
            self._ensure_app(connection, app)
            self.database.put(
                connection,
                reference_profiles,
                {
                    "app": app,
                    "digest": digest,
                    "profile": to_text(dict(profile)),
                    "at": self.clock(),
                },
            )

    def reference(self, app: str, digest: str) -> dict[str, Any] | None:
        """Return what :meth:`set_reference` stored, if anything."""
        with self.database.read() as connection:
            found = connection.execute(
                select(reference_profiles.c.profile).where(
                    reference_profiles.c.app == app, reference_profiles.c.digest == digest
                )
            ).scalar()
        if found is None:
            return None
        profile: dict[str, Any] = json.loads(found)
        return profile
