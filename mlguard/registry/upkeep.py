"""Upkeep: is everything still what it was, put back what was lost, take away what nobody needs.

Verifying reads every byte and every fact and changes nothing.  Repairing puts back identical
bytes and nothing else: a BROKEN version becomes REGISTERED and must pass its gate again.
Collecting archives standbys that are too old to go back to (T15), removes bytes that no version
names after a day, and those of archived versions after a week.  On the machine where it is asked
for it also removes what killed processes left half stored, and local copies of remote bytes that
neither serve nor may be gone back to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select, text

from mlguard.errors import IntegrityError
from mlguard.models.bundle import stored_sha256
from mlguard.registry.blobs import Stored, digest_of
from mlguard.registry.incoming import left_behind
from mlguard.registry.lifecycle import ACTIVE, CANDIDATE, Command, State
from mlguard.registry.liveness import LEASE_S
from mlguard.registry.records import Event, Version
from mlguard.registry.tables import chain, incidents, versions
from mlguard.registry.versions import KEPT_STANDBYS, Versions

#: Seconds for which bytes that nobody names are kept: their registration may be under way.
ORPHAN_S = 86400.0
#: Seconds for which the bytes of an archived version are kept.
ARCHIVED_S = 7 * 86400.0
#: States in which a version's bytes are loaded, may be any moment, or are being judged.
_COPIED = ACTIVE | CANDIDATE | {State.STANDBY, State.REGISTERED, State.VERIFIED}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not what it should be.

    Attributes
    ----------
    kind : str
        ``"bytes"``, ``"chain"``, ``"fact"`` (a row that the audit trail does not know, or knows
        otherwise) or ``"database"``.
    app, version : str
        Whom it concerns; empty where it is the registry as a whole.
    summary : str
        What was found, in a sentence.
    """

    kind: str
    app: str
    version: str
    summary: str


@dataclass(frozen=True, slots=True)
class Collected:
    """One thing that was, or would be, taken away.

    Attributes
    ----------
    kind : str
        ``"archived"`` (a standby), ``"orphan"`` (bytes nobody names), ``"bytes"`` (those of
        an archived version), ``"leftover"`` (a file that a killed process was writing) or
        ``"copy"`` (a local one of bytes that are stored elsewhere).
    name : str
        The version as ``app version``, the digest, or the file's name.
    size : int
        Bytes that it frees.
    """

    kind: str
    name: str
    size: int


class Upkeep(Versions):
    """The commands of ``mlguard registry``."""

    # --- verify --------------------------------------------------------------------------

    def verify(self) -> list[Finding]:
        """Read every byte and compare every fact with the audit trail; change nothing.

        Returns
        -------
        list of Finding
            Empty where all is as it was written.

        Raises
        ------
        RegistryError
            If database or artifact store cannot be reached.
        """
        found = self._verify_database()
        with self.database.read() as connection:
            known = [
                self._version(connection, one)
                for one in connection.execute(select(versions.c.id).order_by(versions.c.id))
                .scalars()
                .all()
            ]
        intact: dict[str, bool] = {}
        for version in known:
            if version.state is State.ARCHIVED:
                continue
            for sha256 in stored_sha256(version.manifest):
                if sha256 not in intact:
                    intact[sha256] = self.artifacts.intact(sha256)
                if not intact[sha256]:
                    what = "have changed" if self.artifacts.exists(sha256) else "are missing"
                    said = f"its bytes {sha256[:12]} {what} in {self.artifacts.url}"
                    found.append(Finding("bytes", version.app, version.name, said))
        bad = self.verify_chain()
        if bad is not None:
            found.append(
                Finding("chain", "", "", f"entry {bad} of the audit trail was edited or deleted")
            )
        return found + self._verify_facts(known)

    def _verify_database(self) -> list[Finding]:
        if self.database.path is None:
            return []
        with self.database.read() as connection:
            said = connection.execute(text("PRAGMA integrity_check")).scalars().all()
        return [Finding("database", "", "", str(one)) for one in said if one != "ok"]

    def _verify_facts(self, known: list[Version]) -> list[Finding]:
        """Compare what the rows say with what the audit trail says they should."""
        trail = self.events()[::-1]
        registered = {(one.app, one.version): one for one in trail if one.kind == "registered"}
        moved = {one.app: one for one in trail if one.moved}
        found = []
        for version in known:
            said = _contradiction(version, registered.get((version.app, version.name)))
            if said:
                found.append(Finding("fact", version.app, version.name, said))
        for state in self.apps():
            last = moved.get(state.app)
            if last is None or last.generation != state.generation:
                # A missing event is the chain's to report, by number.
                continue
            name = "" if state.active is None else state.active.name
            expected = "" if last.kind == "default_output" else last.version
            if name != expected:
                said = (
                    f"{name or 'nothing'} serves, but the audit trail's last move made "
                    f"{expected or 'nothing'} serve"
                )
                found.append(Finding("fact", state.app, name, said))
        return found

    # --- repair --------------------------------------------------------------------------

    def repair(
        self, files: Iterable[Path] = (), *, dry_run: bool = False
    ) -> list[tuple[Version, str]]:
        """Put identical bytes back where they were lost; nothing else counts as them.

        Parameters
        ----------
        files : iterable of Path
            Where to look for the bytes; others than those that were lost are passed over.
        dry_run : bool
            Say what would be done, and change nothing.

        Returns
        -------
        list of (Version, str)
            Every version that was not whole, and what was done: ``"repaired"``,
            ``"put back"`` (its bytes are there again, and its state was never touched) or
            ``"lost"``.
        """
        offered = {digest_of(path): path for path in files if path.is_file()}
        done = []
        with self.database.read() as connection:
            ids = connection.execute(
                select(versions.c.id)
                .where(versions.c.state != State.ARCHIVED)
                .order_by(versions.c.id)
            ).scalars()
            known = [self._version(connection, one) for one in ids.all()]
        for version in known:
            lost = [
                one for one in stored_sha256(version.manifest) if not self.artifacts.intact(one)
            ]
            if not lost and version.state is not State.BROKEN:
                continue
            if not offered.keys() >= set(lost):
                done.append((version, "lost"))
                continue
            what = "repaired" if version.state is State.BROKEN else "put back"
            if not dry_run:
                for sha256 in lost:
                    if self.artifacts.put(offered[sha256]) != sha256:
                        raise IntegrityError(f"{offered[sha256]} changed while it was read")
                self._note_repair(version)
            done.append((version, what))
        return done

    def _note_repair(self, version: Version) -> None:
        with self.database.write() as connection:
            generation = self._lock(connection, version.app)
            now = self._version(connection, version.id)
            if now.state is State.BROKEN:
                self._step(connection, now, Command.REPAIR)
            self._event(
                connection,
                version.app,
                "repaired",
                "identical bytes were put back",
                generation=generation,
                version=version.name,
                detail={"model_sha256": version.manifest["model_sha256"]},
            )

    # --- gc ------------------------------------------------------------------------------

    def collect(self, *, dry_run: bool = False) -> list[Collected]:
        """Archive what is too old to go back to; remove bytes that nobody needs any more.

        Parameters
        ----------
        dry_run : bool
            Say what would be done, and change nothing.

        Returns
        -------
        list of Collected
        """
        done = self._archive_old(dry_run=dry_run)
        now = self.clock()
        for blob in self.artifacts.blobs.stored():
            kind = self._collectable(blob, now)
            if kind is None:
                continue
            if dry_run or self._removed(blob, now):
                done.append(Collected(kind, blob.name, blob.size))
        left = left_behind(self.artifacts.blobs.workplace, now, remove=not dry_run)
        done += [Collected("leftover", name, size) for name, size in left]
        return done + self._forgotten_copies(now, dry_run=dry_run)

    def _forgotten_copies(self, now: float, *, dry_run: bool) -> list[Collected]:
        """Remove the local copies that nobody was given lately and no traffic may need."""
        blobs = self.artifacts.blobs
        copies = [one for one in blobs.copies() if one.at is None or now - one.at > LEASE_S]
        if not copies:
            return []
        opened = self.database.read() if dry_run else self.database.write()
        with opened as connection:
            if not dry_run:
                # Nothing is staged while this lasts; what is staged after it is fetched anew.
                self._lock_chain(connection)
            named = connection.execute(
                select(versions.c.manifest).where(versions.c.state.in_(_COPIED))
            ).scalars()
            needed = {name for one in named for name in stored_sha256(json.loads(one))}
            gone = [one for one in copies if one.name not in needed]
            if not dry_run:
                for one in gone:
                    blobs.forget(one.name)
        return [Collected("copy", one.name, one.size) for one in gone]

    def _archive_old(self, *, dry_run: bool) -> list[Collected]:
        done = []
        for state in self.apps():
            with self.database.read() as connection:
                opened = connection.execute(
                    select(incidents.c.id).where(
                        incidents.c.app == state.app, incidents.c.state == "open"
                    )
                ).first()
                confirmed = connection.execute(
                    select(versions.c.id)
                    .where(versions.c.app == state.app, versions.c.confirmed_seq.is_not(None))
                    .order_by(versions.c.confirmed_seq.desc())
                ).scalars()
                old = [self._version(connection, one) for one in confirmed.all()[KEPT_STANDBYS:]]
            for version in old:
                if version.state is not State.STANDBY or opened is not None:
                    continue
                if not dry_run:
                    self.archive(version.id, "newer versions to go back to are kept")
                done.append(Collected("archived", f"{version.app} {version.name}", 0))
        return done

    def _collectable(
        self, blob: Stored, now: float, connection: Connection | None = None
    ) -> str | None:
        """Return why bytes may go; None where they may not."""
        if connection is None:
            with self.database.read() as reading:
                return self._collectable(blob, now, reading)
        named = connection.execute(
            select(versions.c.manifest, versions.c.state, versions.c.state_at)
        )
        ended: list[float] = []
        for manifest, state, state_at in named:
            if blob.name not in stored_sha256(json.loads(manifest)):
                continue
            if state != State.ARCHIVED:
                return None
            ended.append(state_at)
        if ended:
            return "bytes" if now - max(ended) > ARCHIVED_S else None
        # Bytes of an unknown age are never taken for old.
        return "orphan" if blob.at is not None and now - blob.at > ORPHAN_S else None

    def _removed(self, blob: Stored, now: float) -> bool:
        with self.database.write() as connection:
            # Whoever registers these bytes now waits, and looks for them once more afterwards.
            self._lock_chain(connection)
            if self._collectable(blob, now, connection) is None:
                return False
            return self.artifacts.delete(blob.name)

    @staticmethod
    def _lock_chain(connection: Connection) -> None:
        """Let nobody write an event until this transaction ends."""
        connection.execute(select(chain.c.id).where(chain.c.id == 1).with_for_update())


def _contradiction(version: Version, registered: Event | None) -> str:
    """Return what a version's row says otherwise than the event that registered it."""
    if registered is None:
        return "no event of the audit trail registered it"
    detail = registered.detail
    same = detail.get("digest") == version.digest
    if same and detail.get("model_sha256") == version.manifest["model_sha256"]:
        return ""
    return "it was registered with another content than its row says now"
