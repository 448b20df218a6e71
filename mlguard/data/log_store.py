"""The prediction log in a bucket: written here first, then carried there.

::

    <log>/<app>/<version_id>/<process>-<seq>.parquet  ──▶  <url>/<app>/<version_id>/…
    <log>/<app>/erased.json                           ──▶  <url>/<app>/erased/<node>.json

Rules:

1. Servers write to their own disk only, as they do without a bucket; what a killed one left is
   recovered there.  One process a machine carries closed segments to the bucket (:meth:`sync`),
   and what other machines carried there to this one, so readers read files of their own.
2. A bucket that is gone or full stops the carrying, then, when :attr:`limit` bytes wait, the
   log: rows are dropped and counted (:class:`Spool`).  Serving goes on, and so does the log when
   the bucket takes segments again.
3. A segment is known by its name, size and time; carrying it twice writes the same bytes.
4. What is erased here is erased there, and on every machine at its next look: a machine's note of
   erased rows lies in the bucket too, and is read before anything is carried.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.data.log_erasing import ErasedRows
from mlguard.data.log_segments import STATE_FILE, TOMBSTONE
from mlguard.data.profile_log import SUFFIX
from mlguard.data.remote_files import modified, open_files
from mlguard.errors import DataError, MlguardError

if TYPE_CHECKING:
    from mlguard.config import ProjectSettings
    from mlguard.data.prediction_log import PredictionLog

_log = logging.getLogger("mlguard.data")

#: Seconds between two looks at the bucket's listing; closed segments are carried sooner.
LOOK_S = 30.0
#: How often what waits to be carried is asked for at most, in seconds.
_SPOOL_S = 1.0
#: How long a command waits for whoever is carrying, and how often it looks, in seconds.
PATIENCE_S, _LOCK_EVERY_S = 20.0, 0.05
#: Folder of a bucket's app that holds the machines' notes of erased rows.
_NOTES = "erased"
_KINDS = (".parquet", SUFFIX)
#: An app, a version, a file.
_DEPTH = 3
_TABLES = """
CREATE TABLE IF NOT EXISTS carried (
    name TEXT PRIMARY KEY, size INTEGER NOT NULL, at INTEGER NOT NULL, ours INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Carried:
    """What one look at the bucket came to.

    Attributes
    ----------
    up, down : int
        Files carried there, and from there.
    waiting : int
        Bytes that still wait to be carried there.
    error : str
        Why it ended early; empty where it did not.
    """

    up: int = 0
    down: int = 0
    waiting: int = 0
    error: str = ""


class LogStore:
    """Carries one machine's prediction log to a bucket, and others' to this machine.

    Parameters
    ----------
    log : PredictionLog
        The log of this machine.
    url : str
        Any URL that fsspec knows, such as ``s3://bucket/prefix``.
    clock : callable, default time.time
        Seconds since the epoch.

    Raises
    ------
    ConfigError
        If no file system is installed for the URL.
    """

    def __init__(
        self, log: PredictionLog, url: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.url = url
        self._log = log
        self._clock = clock
        self._looked_at = -float("inf")
        self._files, self._root = open_files(url, key="[log_store] url")
        # Files of a folder appear under their name when they are whole; a bucket's do anyway.
        self._local = "file" in _protocols(self._files)

    # --- carrying ------------------------------------------------------------------------

    def sync(self, *, look: bool | None = None, patience_s: float = 0.0) -> Carried | None:
        """Carry what is new, both ways; never raises what a bucket may raise.

        Parameters
        ----------
        look : bool, optional
            Whether the bucket is listed for what others carried there.  Default: every half
            minute.
        patience_s : float, default 0
            How long to wait where another process of this machine is carrying.

        Returns
        -------
        Carried or None
            None where another process of this machine was carrying all the while.
        """
        self._log.root.mkdir(parents=True, exist_ok=True)
        with _alone(self._log.root, patience_s) as mine:
            if not mine:
                return None
            with contextlib.closing(_state(self._log.root)) as state:
                return self._sync(state, look=look)

    def _sync(self, state: sqlite3.Connection, *, look: bool | None) -> Carried:
        now = self._clock()
        # Whether the bucket is there or not: what dead writers left waits like the rest.
        self._log.recover()
        up = down = 0
        error = ""
        try:
            # Listed where nothing may be carried before it: somebody may have erased a row.
            if look or (look is None and not 0 <= now - self._looked_at < LOOK_S):
                down = self._fetch(state)
                self._looked_at = now
            for path in self._bury(state):
                path.unlink(missing_ok=True)
            for path in self._waiting(state):
                up += self._carry(state, path)
            for app in self._log.apps():
                self._tell_erased(state, app)
        # Each store's client has errors of its own; all of them mean the same here.
        except Exception as problem:  # noqa: BLE001  see above
            error = f"{type(problem).__name__}: {problem}"
        waiting = sum(path.stat().st_size for path in self._waiting(state) if path.exists())
        _put(state, "waiting", str(waiting))
        _put(state, "error", error)
        if not error:
            _put(state, "synced_at", str(now))
        return Carried(up, down, waiting, error)

    def _waiting(self, state: sqlite3.Connection) -> list[Path]:
        """Return the files that the bucket does not have as they are, oldest first."""
        known = {name: (size, at) for name, size, at in state.execute(
            "SELECT name, size, at FROM carried")}  # fmt: skip
        found = []
        for path in self._own_files():
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                if known.get(self._name(path)) != (facts.st_size, facts.st_mtime_ns):
                    found.append((facts.st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def _own_files(self) -> Iterator[Path]:
        for kind in _KINDS:
            yield from self._log.root.glob(f"*/*/*{kind}")

    def _name(self, path: Path) -> str:
        return path.relative_to(self._log.root).as_posix()

    def _carry(self, state: sqlite3.Connection, path: Path) -> int:
        name = self._name(path)
        try:
            # Before it is read: what is written to it meanwhile makes it wait again.
            facts = path.stat()
            self._put_file(path, name)
        except FileNotFoundError:
            if path.exists():
                raise
            return 0  # pruned meanwhile
        _note(state, name, facts, ours=True)
        return 1

    def _put_file(self, path: Path, name: str) -> None:
        key = f"{self._root}/{name}"
        if not self._local:
            self._files.put_file(str(path), key)
            return
        self._files.makedirs(key.rpartition("/")[0], exist_ok=True)
        draft = f"{key}.{uuid.uuid4().hex}.tmp"
        try:
            self._files.put_file(str(path), draft)
            # fsspec's own way of moving a file copies it.
            Path(draft).replace(key)
        finally:
            Path(draft).unlink(missing_ok=True)

    def _bury(self, state: sqlite3.Connection) -> list[Path]:
        """Remove from the bucket what an erasure left nothing of; return the stones."""
        stones = list(self._log.root.glob(f"*/*/*{TOMBSTONE}"))
        for stone in stones:
            name = self._name(stone.with_suffix(".parquet"))
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(f"{self._root}/{name}")
            with state:
                state.execute("DELETE FROM carried WHERE name = ?", (name,))
        return stones

    # --- fetching ------------------------------------------------------------------------

    def _listed(self) -> dict[str, dict[str, Any]]:
        try:
            found: dict[str, dict[str, Any]] = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        skip = len(self._root) + 1
        return {key[skip:]: facts for key, facts in found.items() if _is_ours(key[skip:])}

    def _fetch(self, state: sqlite3.Connection) -> int:
        """Fetch what others carried to the bucket, their notes of erased rows first."""
        listed = self._listed()
        known = {name: (size, at, bool(ours)) for name, size, at, ours in state.execute(
            "SELECT name, size, at, ours FROM carried")}  # fmt: skip
        mine = f"{_node(state)}.json"
        for name, facts in listed.items():
            app, folder, file = name.split("/")
            written = (int(facts.get("size") or 0), int(1e6 * (modified(facts) or 0)))
            if folder == _NOTES and file != mine and known.get(name, ())[:2] != written:
                self._learn_erased(app, name)
                _remember(state, name, *written, ours=False)
        n = 0
        for name, facts in listed.items():
            path = self._log.root / name
            size = int(facts.get("size") or 0)
            if path.suffix in _KINDS and self._wants(path, size, known.get(name)):
                n += self._download(state, name, path, size)
        if n:
            for app in self._log.apps():
                self._log.erase_noted(app)
        # What is neither here nor there was pruned.
        gone = [(name,) for name in known
                if name not in listed and not (self._log.root / name).exists()]  # fmt: skip
        with state:
            state.executemany("DELETE FROM carried WHERE name = ?", gone)
        return n

    @staticmethod
    def _wants(path: Path, size: int, known: tuple[int, int, bool] | None) -> bool:
        """Whether a file of the bucket is to be fetched."""
        if not path.exists():
            # One that was here was pruned or erased here.
            return known is None and not path.with_suffix(TOMBSTONE).exists()
        # A segment never grows; counts of another machine do.
        return path.suffix == SUFFIX and known is not None and not known[2] and known[0] != size

    def _download(self, state: sqlite3.Connection, name: str, path: Path, size: int) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        incoming = path.with_name(f"{path.name}.{uuid.uuid4().hex}.incoming")
        try:
            self._files.get_file(f"{self._root}/{name}", str(incoming))
            facts = incoming.stat()
            if facts.st_size < size:
                raise DataError(f"{name} came with {facts.st_size} of {size} bytes")
            _note(state, name, facts, ours=False)
            incoming.replace(path)
        except FileNotFoundError:
            return 0  # removed meanwhile
        finally:
            incoming.unlink(missing_ok=True)
        return 1

    # --- erased rows ---------------------------------------------------------------------

    def _learn_erased(self, app: str, name: str) -> None:
        told = json.loads(self._files.cat_file(f"{self._root}/{name}"))
        mine = ErasedRows(self._log.root / app)
        known = mine.ids()
        by_time: dict[float, list[int]] = {}
        for one, at in told:
            if one not in known:
                by_time.setdefault(float(at), []).append(int(one))
        for at, ids in by_time.items():
            mine.add(ids, at)
        if by_time:
            self._log.erase_noted(app)

    def _tell_erased(self, state: sqlite3.Connection, app: str) -> None:
        path = ErasedRows(self._log.root / app).path
        name = f"{app}/{_NOTES}/{_node(state)}.json"
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()
            known = state.execute("SELECT size, at FROM carried WHERE name = ?", (name,)).fetchone()
            if known != (facts.st_size, facts.st_mtime_ns):
                self._put_file(path, name)
                _note(state, name, facts, ours=True)

    # --- retention -----------------------------------------------------------------------

    def prune(self, older_than: float, app: str) -> int:
        """Remove what was carried to the bucket before a time; return how many files.

        A file was carried after its last row, so all of its rows are older.
        """
        prefix = f"{self._root}/{app}"
        try:
            found: dict[str, dict[str, Any]] = self._files.find(prefix, detail=True)
        except FileNotFoundError:
            return 0
        removed = 0
        for key, facts in found.items():
            at = modified(facts)
            if at is not None and at < older_than and key.endswith(_KINDS):
                self._files.rm_file(key)
                removed += 1
        return removed


class Spool:
    """What waits on this machine to be carried to the bucket.

    Parameters
    ----------
    folder : Path
        The log's.
    limit : int
        Bytes; from there on nothing more is logged.
    clock : callable, default time.monotonic
        Seconds.
    """

    def __init__(
        self, folder: Path, limit: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self.limit = limit
        self._clock = clock
        self._asked_at = -float("inf")
        self.waiting = 0
        self.error = ""

    def full(self) -> bool:
        """Return whether so much waits that nothing more is to be logged; asks once a second."""
        now = self._clock()
        if now - self._asked_at >= _SPOOL_S:
            self._asked_at = now
            told = _told(self._folder)
            self.waiting, self.error = int(told.get("waiting", 0)), told.get("error", "")
        return self.waiting >= self.limit

    def says(self) -> str:
        """Return it as a sentence for people; empty while the bucket takes what it is given."""
        if not self.error:
            return ""
        text = f"{self.waiting / 2**20:,.1f} MiB wait for the log's store ({self.error})"
        if self.waiting >= self.limit:
            text += f", {self.limit / 2**20:,.0f} MiB may: predictions are not logged"
        return text


def project_log(project: ProjectSettings) -> PredictionLog:
    """Return a project's log for reading, after a look at the bucket where it has one.

    A bucket that cannot be reached is warned of: what is on this machine is read.
    """
    from mlguard.data.prediction_log import PredictionLog

    log = PredictionLog(project.log_dir)
    if project.log_store.url:
        try:
            found = LogStore(log, project.log_url).sync(look=True, patience_s=PATIENCE_S)
            error = "it is being carried all the while" if found is None else found.error
        except MlguardError as problem:
            error = problem.message
        if error:
            _log.warning("the log's store %s cannot be read: %s", project.log_store.url, error)
    return log


# --- the state of one machine --------------------------------------------------------------


@contextlib.contextmanager
def _alone(root: Path, patience_s: float) -> Iterator[bool]:
    """Hold the lock of whoever carries; False where another process does for too long."""
    descriptor = os.open(root / f"{STATE_FILE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    give_up = time.monotonic() + patience_s
    try:
        while not (mine := _locked(descriptor)) and time.monotonic() < give_up:
            time.sleep(_LOCK_EVERY_S)
        yield mine
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _state(root: Path) -> sqlite3.Connection:
    state = sqlite3.connect(root / STATE_FILE, timeout=10)
    state.executescript(_TABLES)
    return state


def _told(root: Path) -> dict[str, str]:
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{root / STATE_FILE}?mode=ro", uri=True, timeout=1)
        ) as state:
            return dict(state.execute("SELECT name, value FROM facts").fetchall())
    except sqlite3.Error:
        return {}  # nobody has carried anything yet


def _put(state: sqlite3.Connection, name: str, value: str) -> None:
    with state:
        state.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _note(state: sqlite3.Connection, name: str, facts: os.stat_result, *, ours: bool) -> None:
    _remember(state, name, facts.st_size, facts.st_mtime_ns, ours=ours)


def _remember(state: sqlite3.Connection, name: str, size: int, at: int, *, ours: bool) -> None:
    with state:
        state.execute(
            "INSERT OR REPLACE INTO carried VALUES (?, ?, ?, ?)", (name, size, at, int(ours))
        )


def _node(state: sqlite3.Connection) -> str:
    """Return the name of this machine's log among those that share the bucket."""
    found = state.execute("SELECT value FROM facts WHERE name = 'node'").fetchone()
    if found is None:
        found = (uuid.uuid4().hex,)
        _put(state, "node", found[0])
    return str(found[0])


def _protocols(files: Any) -> tuple[str, ...]:
    found = files.protocol
    return (found,) if isinstance(found, str) else tuple(found)


def _is_ours(name: str) -> bool:
    """Whether something in the bucket may be a file of a log: ``<app>/<folder>/<file>``."""
    parts = name.split("/")
    return len(parts) == _DEPTH and not any(one in ("", ".", "..") for one in parts)
