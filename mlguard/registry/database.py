"""One SQL database: engine, transactions, schema, errors.

*SQLite*: WAL with ``synchronous=FULL`` (``NORMAL`` may lose an acknowledged commit when the
power fails), every writing transaction begins IMMEDIATE, so that what it read is still true
when it commits.  Waiting for another writer is bounded.  A file that was removed or replaced
under an open connection is noticed at the next transaction: writes to an unlinked file would
be acknowledged and lost.  Network file systems are refused, because WAL needs shared memory.

*PostgreSQL*: the same statements; where two commands of one app must not interleave, the app's
row is locked first (``SELECT … FOR UPDATE``, which SQLite's dialect leaves out), the audit
chain's last.  That order is the same everywhere, so there are no deadlocks.

Every failure of the database becomes a :class:`~mlguard.errors.RegistryError`; nothing was
decided then.
"""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.parse
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Table, create_engine, event, exc, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool

from mlguard.errors import ConfigError, ConflictError, MlguardError, RegistryError, UsageError
from mlguard.registry.ballast import Ballast
from mlguard.registry.tables import REVISIONS

#: Seconds that a transaction waits for another writer before it gives up.
BUSY_S = 5.0

#: File systems without the shared memory and locks that SQLite's WAL needs.
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2",
        "glusterfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs",
    }
)  # fmt: skip

_WRITES = "mlguard_writes"


def to_text(document: Any) -> str:
    """Return a document as strict JSON with sorted keys: equal documents, equal bytes.

    Raises
    ------
    UsageError
        If it holds something that JSON has not, such as NaN.
    """
    try:
        return json.dumps(
            document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the registry stores strict JSON only: {error}",
            hint="replace NaN and infinities by None, and arrays by lists",
        ) from error


def file_system(path: Path) -> str:
    """Return the type of the file system that holds a path; empty where it cannot be told."""
    # Imported here: only opening a registry needs it.
    import psutil

    best, kind = "", ""
    for mount in psutil.disk_partitions(all=True):
        point = mount.mountpoint.rstrip("/") + "/"
        if len(point) > len(best) and f"{path}/".startswith(point):
            best, kind = point, mount.fstype
    return kind


class Database:
    """The engine and its transactions.

    Parameters
    ----------
    url : str
        ``sqlite:////absolute/path.db`` or ``postgresql+psycopg://…``.
    busy_s : float
        Longest wait for another writer, in seconds.
    remains : callable, optional
        Names of what shows that there was a registry: where there is any, a missing file was
        lost and is not made anew.
    """

    def __init__(
        self, url: str, *, busy_s: float = BUSY_S, remains: Callable[[], Sequence[str]] = tuple
    ) -> None:
        try:
            parsed = make_url(url)
        except exc.ArgumentError as error:
            raise ConfigError(
                f"[registry] url {url!r} is not a database URL: {error}",
                hint='write "sqlite:///.mlguard/registry.db" or "postgresql+psycopg://…"',
            ) from error
        self.url = url
        self.busy_s = busy_s
        self._remains = remains
        self.path: Path | None = None
        self.ballast: Ballast | None = None
        self.shown = parsed.render_as_string(hide_password=True)
        if parsed.get_backend_name() == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigError(
                    "the registry cannot live in memory: several processes share it",
                    hint='write [registry] url = "sqlite:///.mlguard/registry.db"',
                )
            self.path = Path(parsed.database).resolve()
            self.ballast = Ballast(self.path)
            self.engine = self._sqlite(self.path)
        elif parsed.get_backend_name() == "postgresql":
            self.engine = self._postgresql()
        else:
            raise ConfigError(
                f"[registry] url: {parsed.get_backend_name()} is not supported",
                hint="use SQLite or PostgreSQL",
            )
        # Whoever forgets to close a registry leaves no connection open.
        weakref.finalize(self, self.engine.dispose)

    # --- engines -------------------------------------------------------------------------

    def _sqlite(self, path: Path) -> Engine:
        # mode=rw: a connection never creates the file, so that a registry that was moved away
        # is an error and not an empty registry.
        name = f"file:{urllib.parse.quote(str(path))}?mode=rw"

        busy_s = self.busy_s

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(
                name, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False
            )

        engine = create_engine(
            "sqlite://",
            creator=connect,
            poolclass=QueuePool,
            pool_size=4,
            max_overflow=28,
            pool_timeout=self.busy_s,
        )

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.close()
            record.info["file"] = _identity(path)

        @event.listens_for(engine, "checkout")
        def _still_there(_connection: Any, record: Any, _proxy: Any) -> None:
            if record.info.get("file") != _identity(path):
                raise exc.DisconnectionError(f"{path} was removed or replaced")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # The driver's own BEGIN is off (isolation_level=None): it comes too late, after
            # the first SELECT of a transaction.
            writes = connection.get_execution_options().get(_WRITES, False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    def _postgresql(self) -> Engine:
        try:
            return create_engine(
                self.url,
                # Every statement sees what was committed before it, also after it waited for a
                # lock; a server whose default is another level would break that silently.
                isolation_level="READ COMMITTED",
                pool_pre_ping=True,
                pool_timeout=self.busy_s,
                connect_args={
                    "connect_timeout": 10,
                    "options": f"-c lock_timeout={int(self.busy_s * 1000)}",
                },
            )
        except ImportError as error:
            raise ConfigError(
                f"[registry] url needs the driver {error.name}",
                hint='pip install "psycopg[binary]" and write postgresql+psycopg://…',
            ) from error

    # --- opening -------------------------------------------------------------------------

    def prepare(self, *, clock: Callable[[], float] = time.time) -> None:
        """Create the database or bring its schema up to date; cheap when it is current.

        Parameters
        ----------
        clock : callable
            The time in seconds since the epoch, by which the leases end that a change of the
            schema waits for.

        Raises
        ------
        ConflictError
            If an older mlguard is deploying something, and goes on doing so.
        ConfigError
            If the file lies on a network file system.
        UsageError
            If a newer mlguard has changed the schema.
        RegistryError
            If the database cannot be reached or written.
        """
        if self.path is not None:
            self._make_file(self.path)
        revision = self.revision()
        if revision == REVISIONS[-1]:
            return
        if revision is not None and revision not in REVISIONS:
            raise UsageError(
                f"the registry {self.shown} has schema {revision!r}; this mlguard knows "
                f"{REVISIONS[-1]!r} and older",
                hint="a newer mlguard has been here: upgrade this one",
            )
        # Imported here: a registry that is current needs none of it.
        from mlguard.registry.upgrading import upgrade

        upgrade(self, clock=clock)

    def _make_file(self, path: Path) -> None:
        if path.is_file() and path.stat().st_size:
            self._refuse_network(path)
            return
        self._refuse_orphaned(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._refuse_network(path)
            # WAL is a property of the file; setting it once is enough.
            connection = sqlite3.connect(path, timeout=self.busy_s, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as error:
            raise RegistryError(
                f"cannot create the registry {path}: {error}",
                hint="the folder must exist, be writable and have free space",
            ) from error

    def _refuse_orphaned(self, path: Path) -> None:
        """Refuse to begin anew where there was a registry: an empty one would forget everything.

        Whoever serves, what may be gone back to, what is barred: a new file knows none of it, and
        would be believed.
        """
        left = list(self._remains())
        if left:
            raise RegistryError(
                f"the registry {path} is missing, but {', '.join(left)} beside it show that there "
                "was one",
                hint="put it back from a backup; to begin anew, and forget everything, move "
                f"{', '.join(left)} away as well",
                clause="missing",
            )

    @staticmethod
    def _refuse_network(path: Path) -> None:
        kind = file_system(path)
        if kind in NETWORK_FILE_SYSTEMS:
            raise ConfigError(
                f"the registry {path} lies on {kind}, a network file system: SQLite's "
                "write-ahead log loses data there",
                hint="put it on a local disk, or use PostgreSQL: "
                '[registry] url = "postgresql+psycopg://…"',
                file_system=kind,
            )

    def revision(self) -> str | None:
        """Return the schema's revision as it stands; None: there is none.  Changes nothing."""
        with self.read() as connection:
            if not self.has_table(connection, "alembic_version"):
                return None
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return None if found is None else str(found)

    def has_table(self, connection: Connection, name: str) -> bool:
        """Return whether the schema has a table."""
        if self.path is not None:
            query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = :name"
        else:
            query = "SELECT to_regclass(CAST(:name AS text))"
        return connection.execute(text(query), {"name": name}).scalar() is not None

    # --- transactions --------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads: one consistent snapshot on SQLite."""
        with self._explained(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, *, data: bool = False) -> Iterator[Connection]:
        """Open a transaction that writes, and commit it; an exception rolls all of it back.

        Parameters
        ----------
        data : bool
            Whether it only records what was seen: on a full disk that gives way to what decides.
        """
        if self.ballast is not None and not data:
            self.ballast.make_room()
        with (
            self._explained(),
            self.engine.connect().execution_options(**{_WRITES: True}) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except MlguardError:
            raise
        except exc.IntegrityError as error:
            raise ConflictError(
                f"somebody else wrote the same fact first: {error.orig}",
                hint="look at the state and try again",
            ) from error
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> RegistryError:
        said = str(getattr(error, "orig", None) or error).strip()
        low = said.lower()
        if "locked" in low or "lock timeout" in low or "locknotavailable" in low:
            return RegistryError(
                f"the registry {self.shown} was busy for {self.busy_s:g} s: another process "
                "holds its write lock",
                hint="try again; if it lasts, look for a stuck or stopped process",
                clause="busy",
            )
        if "disk is full" in low or "no space" in low:
            return RegistryError(
                f"the disk of the registry {self.shown} is full; nothing was changed",
                hint="free some space and try again",
                clause="full",
            )
        return RegistryError(
            f"the registry {self.shown} failed: {said}",
            hint="check that the database is there, reachable and writable",
        )

    def close(self) -> None:
        """Close every idle connection."""
        self.engine.dispose()

    # --- statements that the two dialects write differently ------------------------------

    def insert_new(self, connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
        """Insert a row unless one with its primary key exists; return whether it was new."""
        statement = self._dialect_insert(table).values(**values).on_conflict_do_nothing()
        # What was inserted is returned; rowcount is not kept for INSERT on every driver.
        keys = table.primary_key.columns
        return connection.execute(statement.returning(*keys)).first() is not None

    def put(self, connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
        """Insert a row, or replace the one with the same primary key."""
        keys = [column.name for column in table.primary_key.columns]
        rest = {name: value for name, value in values.items() if name not in keys}
        statement = self._dialect_insert(table).values(**values)
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))

    def _dialect_insert(self, table: Table) -> Any:
        if self.path is not None:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            return sqlite_insert(table)
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table)


def new_id(result: CursorResult[Any]) -> int:
    """Return the id that the database gave the row of an INSERT."""
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
