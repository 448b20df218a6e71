"""The prediction log: what was asked, what was answered, by whom, and how long it took.

::

    <root>/<app>/<version_id>/<process>-<seq>.arrow      growing: an Arrow IPC stream
    <root>/<app>/<version_id>/<process>-<seq>.parquet    closed: never changes again
    <root>/<app>/<version_id>/<process>-<seq>.profiles   counts, see mlguard.data.profile_log

Rules:

1. Logging never disturbs serving.  :meth:`LogWriter.append` only buffers; what cannot be
   written (disk full, buffer full) is dropped and counted, nothing is raised.
2. A writer that dies loses what it had not flushed; the torn end of its file is skipped by
   readers and cut off when the file is recovered.
3. Whoever opens a folder next turns what dead writers left there into Parquet.
4. Where a segment exists in both forms, the Parquet one counts, so that no row is read twice.
5. What a version answered as a mirror stands in a folder of its own (:mod:`mlguard.data.mirrored`)
   and is read only by that name.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlguard.data.log_columns import (
    FIXED_COLUMNS,
    LogSchema,
    NamedColumn,
    alike,
    array,
    feature_column,
    scalar,
)
from mlguard.data.log_erasing import ErasedRows, rewrite_without, without
from mlguard.data.log_segments import (
    STATE_FILE,
    Followed,
    Segment,
    read_stream,
    recover,
    stream_batches,
    use_parquet,
)
from mlguard.data.mirrored import is_mirrored
from mlguard.data.profile import Profile
from mlguard.data.profile_log import (
    FILE_BYTES,
    ProfileWriter,
    Slice,
    has_slices,
    prune_slices,
    read_slices,
)

__all__ = [
    "FIXED_COLUMNS",
    "LogSchema",
    "LogWriter",
    "NamedColumn",
    "PredictionLog",
    "feature_column",
]

#: Rows held in memory between two flushes; more are dropped and counted.
BUFFER_ROWS = 200_000
#: A growing segment is closed when it has this many bytes, so that readers skip what is old.
SEGMENT_BYTES = 32 << 20


class LogWriter:
    """Appends rows of one app, version and process to the log.

    :meth:`append` is cheap and never touches the disk; :meth:`flush` and :meth:`close` do, and
    may be called from another thread.  The caller flushes at most a second after appending.

    Attributes
    ----------
    written, dropped : int
        Rows on disk, and rows lost because the disk or the buffer was full.
    last_error : str
        Why rows were dropped last; empty if none were.
    """

    def __init__(
        self,
        folder: Path,
        process: str,
        schema: LogSchema,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_s: float = math.inf,
        buffer_rows: int = BUFFER_ROWS,
    ) -> None:
        self.written = 0
        self.dropped = 0
        self.last_error = ""
        self._folder = folder
        self._process = process
        self._schema = schema
        self._segment_bytes = segment_bytes
        self._segment_s = segment_s
        self._opened_at = 0.0
        self._buffer_rows = buffer_rows
        self._rows: list[Mapping[str, Any]] = []
        self._messages: list[tuple[int, pa.Buffer]] = []
        self._message_rows = 0
        self._buffer_lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._segment: Segment | None = None

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows into the buffer.

        Parameters
        ----------
        rows : sequence of mapping
            Keys are those of :data:`FIXED_COLUMNS`; an absent one is null.  The inputs stand
            under ``"features"``, as a sequence in the order of the schema or as a mapping, or
            else one by one under :func:`feature_column`.  Rows must not be changed afterwards.
        """
        with self._buffer_lock:
            room = self._buffer_rows - len(self._rows)
            self._rows.extend(rows[:room])
            if len(rows) > room:
                self._drop(len(rows) - room, "the buffer is full: nobody flushes fast enough")

    def append_columns(
        self, columns: Mapping[str, Sequence[Any]], inputs: Sequence[Sequence[Any]] | None
    ) -> None:
        """Take rows that come as columns, as :meth:`append` takes rows; they are encoded here.

        Parameters
        ----------
        columns : mapping of str to sequence
            See :meth:`LogSchema.columns`.
        inputs : sequence of sequence or None
            The rows' features, in the order of the schema; None: not known.
        """
        n = len(columns["query_id"])
        if self._message_rows + n > self._buffer_rows:
            with self._buffer_lock:
                self._drop(n, "the buffer is full: nobody flushes fast enough")
            return
        message = self._encoded(n, partial(self._schema.columns, columns, inputs))
        if message is not None:
            with self._buffer_lock:
                self._messages.append((n, message))
                self._message_rows += n

    def flush(self, *, durable: bool = False) -> None:
        """Write what is buffered, so that readers see it and a kill cannot take it back.

        Parameters
        ----------
        durable : bool, default False
            Also wait until it is on the disk, so that a power cut cannot take it back.
        """
        with self._file_lock:
            with self._buffer_lock:
                rows, self._rows = self._rows, []
                messages, self._messages, self._message_rows = self._messages, [], 0
            if rows:
                message = self._encoded(len(rows), partial(self._schema.batch, rows))
                if message is not None:
                    self._write(len(rows), message)
            for n, message in messages:
                self._write(n, message)
            if durable and self._segment is not None:
                self._segment.sync()

    def close(self) -> None:
        """Flush, and turn the growing file into a closed segment; may be repeated."""
        self.flush()
        with self._file_lock:
            if self._segment is not None:
                path = self._segment.path
                self._segment.close()
                self._segment = None
                recover(path)

    def _encoded(self, n_rows: int, batch: Callable[[], pa.RecordBatch]) -> pa.Buffer | None:
        """Return rows as one message; None, and they are dropped, where that cannot be done."""
        try:
            return batch().serialize()
        # Rule 1: whatever goes wrong here, serving goes on.
        except Exception as error:  # noqa: BLE001  see above
            with self._buffer_lock:
                self._drop(n_rows, f"{type(error).__name__}: {error}")
            return None

    def _write(self, n_rows: int, message: pa.Buffer) -> None:
        try:
            if self._segment is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._segment = Segment.create(self._folder, self._process, self._schema.arrow)
                self._opened_at = time.monotonic()
            self._segment.write(message)
        # As above.
        except Exception as error:  # noqa: BLE001  see above
            with self._buffer_lock:
                self._drop(n_rows, f"{type(error).__name__}: {error}")
            if self._segment is not None and self._segment.torn:
                self._segment.close()
                self._segment = None
            return
        self.written += n_rows
        old = time.monotonic() - self._opened_at >= self._segment_s
        if old or self._segment.size >= self._segment_bytes:
            # Turning it into Parquet takes long: PredictionLog.recover does that elsewhere.
            self._segment.close()
            self._segment = None

    def _drop(self, n_rows: int, why: str) -> None:
        self.dropped += n_rows
        self.last_error = why


class PredictionLog:
    """The prediction log below one folder.

    Parameters
    ----------
    root : path
        Folder with one folder per app.
    segment_s : float, optional
        A growing segment is closed when it is so old, in seconds, so that others see it soon.
    follow : bool, default False
        Keep what was read of growing segments in memory, for whoever reads every second.

    Attributes
    ----------
    late_s : float
        Seconds that a row may take to be readable here: 0 unless other machines write rows too.
    """

    def __init__(
        self, root: Path | str, *, segment_s: float = math.inf, follow: bool = False
    ) -> None:
        self.root = Path(root)
        self.late_s = 0.0
        self._followed: dict[Path, Followed] | None = {} if follow else None
        self._segment_s = segment_s
        self._ranges: dict[Path, dict[str, tuple[Any, Any]]] = {}
        self._erased: dict[str, ErasedRows] = {}

    def writer(
        self,
        app: str,
        version_id: int | str,
        process: str,
        features: Sequence[NamedColumn] = (),
        *,
        redact: Sequence[str] = (),
        inputs: bool = True,
    ) -> LogWriter:
        """Return a writer; what dead processes left in its folder is recovered first.

        Parameters
        ----------
        app, version_id, process
            Whose predictions these are, and a name that no other live process uses.
        features : sequence of NamedColumn
            The model's inputs, in the order in which rows give them.
        redact : sequence of str
            What is never written; see :class:`LogSchema`.
        inputs : bool, default True
            Whether inputs are written at all.
        """
        folder = self._folder(app, version_id)
        self._recover_in(folder)
        schema = LogSchema(tuple(features), frozenset(redact), inputs)
        return LogWriter(folder, process.replace("/", "_"), schema, segment_s=self._segment_s)

    def profile_writer(
        self,
        app: str,
        version_id: int | str,
        process: str,
        grid: Profile,
        features: Sequence[NamedColumn],
        *,
        redact: Sequence[str] = (),
    ) -> ProfileWriter:
        """Return what counts rows of one version in one process; see :class:`ProfileWriter`."""
        return ProfileWriter(
            self._folder(app, version_id),
            process.replace("/", "_"),
            grid,
            features,
            redact=redact,
            # What is carried to a store is carried whole whenever it has grown.
            file_bytes=FILE_BYTES if math.isinf(self._segment_s) else FILE_BYTES // 16,
        )

    def has_slices(self, app: str, version_id: int | str) -> bool:
        """Return whether servers keep profiles of what a version is sent."""
        return has_slices(self._folder(app, version_id))

    def slices(
        self, app: str, version_id: int | str, grid: Profile, since: Mapping[str, int] | None = None
    ) -> list[Slice]:
        """Return the profiles of a version; see :func:`~mlguard.data.profile_log.read_slices`."""
        return read_slices(self._folder(app, version_id), grid, since)

    def read(
        self,
        app: str,
        *,
        version_id: int | str | None = None,
        generation: int | None = None,
        since: float | None = None,
        until: float | None = None,
        query_ids: Sequence[int] | None = None,
    ) -> pa.Table:
        """Return the logged rows that meet every condition, oldest first.

        Parameters
        ----------
        app : str
            Whose; one that was never asked has no rows.
        version_id, generation : optional
            Answered by this version, in this generation.
        since, until : float, optional
            Answered at or after, and before; seconds since the epoch.
        query_ids : sequence of int, optional
            Only these predictions.

        Returns
        -------
        pyarrow.Table
            The columns of :data:`FIXED_COLUMNS`, then those of the features of all versions
            read.  NaN was written as null.

        Raises
        ------
        DataError
            If a closed segment is damaged.
        """
        wanted = _Wanted(generation, since, until, query_ids, self._gone(app).ids())
        tables = [
            table
            for folder in self._folders(app, version_id)
            # Nobody was given the answers of a mirror: they are read by the name of its folder.
            if version_id is not None or not is_mirrored(folder.name)
            for table in self._read_folder(folder, wanted)
        ]
        if not tables:
            return LogSchema().arrow.empty_table()
        whole = pa.concat_tables(alike(tables), promote_options="permissive")
        return whole.sort_by([("time", "ascending"), ("query_id", "ascending")])

    def has_rows(self, app: str, *, version_id: int | str, generation: int, since: float) -> bool:
        """Return whether :meth:`read` would find any row; looks no further than the first.

        A segment that is closed while this looks may be overlooked.

        Raises
        ------
        DataError
            If a closed segment is damaged.
        """
        wanted = _Wanted(generation, since, None, None, self._gone(app).ids())
        folders = self._folders(app, version_id)
        paths = [path for folder in folders for path in _segments(folder)]
        for path in sorted(paths, key=_written, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                if any(wanted.of(part).num_rows for part in self._looked_through(path, wanted)):
                    return True
        return False

    def _looked_through(self, path: Path, wanted: _Wanted) -> Iterator[pa.Table]:
        """Give what conditions are about, of the parts of a segment, as far as is asked."""
        if path.suffix == ".arrow":
            followed = self._follow(path)
            batches = stream_batches(path) if followed is None else reversed(followed.batches)
            for batch in batches:
                yield pa.Table.from_batches([batch])
        elif wanted.may_be_in(self._range(path)):
            yield use_parquet(path, lambda file: file.read(["query_id", "time", "generation"]))

    def newest(self, app: str, most_rows: int) -> Iterator[pa.Table]:
        """Yield some of the newest rows of each version, and of what it answered as a mirror.

        Parameters
        ----------
        app : str
            Whose.
        most_rows : int
            Of each version.

        Raises
        ------
        DataError
            If a closed segment is damaged.
        """
        everything = _Wanted(None, None, None, None, self._gone(app).ids())
        for folder in self._folders(app, None):
            left = most_rows
            for path in sorted(_segments(folder), key=_written, reverse=True):
                if not left:
                    break
                try:
                    table = self._read_segment(path, everything)
                except FileNotFoundError:
                    continue  # closed or removed a moment ago: others are nearly as new
                if table is not None and table.num_rows:
                    table = table.slice(max(0, table.num_rows - left))
                    left -= table.num_rows
                    yield table

    def apps(self) -> list[str]:
        """Return the apps that have a log, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir())

    def recover(self, app: str | None = None) -> int:
        """Turn growing files that nobody writes any more into Parquet; return how many."""
        apps = self.apps() if app is None else [app]
        return sum(self._recover_in(folder) for one in apps for folder in self._folders(one, None))

    def prune(self, older_than: float, app: str | None = None) -> int:
        """Delete closed segments whose every row is older; return how many.

        Parameters
        ----------
        older_than : float
            Seconds since the epoch.
        app : str, optional
            Only this app's.
        """
        removed = 0
        for one in self.apps() if app is None else [app]:
            self.recover(one)
            self.erase_noted(one)
            self._gone(one).forget(older_than)
            for folder in self._folders(one, None):
                prune_slices(folder, older_than)
                for path in folder.glob("*.parquet"):
                    newest = self._range(path)["time"][1]
                    if newest is not None and newest < older_than:
                        path.unlink(missing_ok=True)
                        self._ranges.pop(path, None)
                        removed += 1
        return removed

    def ids_of(self, app: str, *, uid: str) -> list[int]:
        """Return the query ids of one caller's rows, those shown to mirrors as well; sorted.

        Rows that were written without their ``uid`` (``redact``) cannot be found by it.
        """
        import pyarrow.compute as pc

        wanted = _Wanted(None, None, None, None, self._gone(app).ids())
        found: set[int] = set()
        for folder in self._folders(app, None):
            for table in self._read_folder(folder, wanted):
                mine = table.filter(pc.equal(table["uid"], array([uid], pa.string())[0]))
                found.update(mine["query_id"].to_pylist())
        return sorted(found)

    def count(self, app: str, query_ids: Collection[int]) -> int:
        """Return how many rows some predictions have, those shown to mirrors as well."""
        wanted = _Wanted(None, None, None, sorted(query_ids), self._gone(app).ids())
        return sum(
            table.num_rows
            for folder in self._folders(app, None)
            for table in self._read_folder(folder, wanted)
        )

    def erase(self, app: str, query_ids: Collection[int], *, at: float) -> int:
        """Remove rows for ever; return how many.

        Parameters
        ----------
        app : str
            Whose.
        query_ids : collection of int
            Of which predictions.
        at : float
            Now, seconds since the epoch.

        Returns
        -------
        int
            Rows that can be read no more.  Those that a live server has in its growing segment
            leave the disk when that is closed.
        """
        found = self.count(app, query_ids)
        # A log with a store: another machine may have rows that are not here yet.
        if found or (self.root / STATE_FILE).exists():
            self._gone(app).add(query_ids, at)
            self.recover(app)
            self.erase_noted(app)
        return found

    def erase_noted(self, app: str) -> None:
        """Remove from closed segments what is noted as erased, here or on another machine."""
        gone = self._gone(app).ids()
        if not gone:
            return
        wanted = _Wanted(None, None, None, sorted(gone))
        for folder in self._folders(app, None):
            for path in sorted(folder.glob("*.parquet")):
                if wanted.may_be_in(self._range(path)) and rewrite_without(path, gone):
                    self._ranges.pop(path, None)

    def _gone(self, app: str) -> ErasedRows:
        if app not in self._erased:
            self._erased[app] = ErasedRows(self.root / app)
        return self._erased[app]

    def _folder(self, app: str, version_id: int | str) -> Path:
        return self.root / app / str(version_id)

    def _folders(self, app: str, version_id: int | str | None) -> list[Path]:
        if version_id is not None:
            folder = self._folder(app, version_id)
            return [folder] if folder.is_dir() else []
        top = self.root / app
        return sorted(path for path in top.iterdir() if path.is_dir()) if top.is_dir() else []

    def _recover_in(self, folder: Path) -> int:
        return sum(recover(path) for path in sorted(folder.glob("*.arrow")))

    def _read_folder(self, folder: Path, wanted: _Wanted) -> Iterator[pa.Table]:
        done: set[str] = set()
        # A segment that is closed while we read leaves its .arrow name: look again for it.
        while True:
            listing = {path.stem: path for path in sorted(folder.glob("*.arrow"))}
            listing |= {path.stem: path for path in sorted(folder.glob("*.parquet"))}
            moved = False
            for stem, path in sorted(listing.items()):
                if stem in done:
                    continue
                try:
                    table = self._read_segment(path, wanted)
                except FileNotFoundError:
                    moved = True
                    continue
                done.add(stem)
                if table is not None and table.num_rows:
                    yield table
            if not moved:
                return

    def _read_segment(self, path: Path, wanted: _Wanted) -> pa.Table | None:
        if path.suffix == ".arrow":
            followed = self._follow(path)
            if followed is None:
                return wanted.of(read_stream(path))
            return wanted.of(followed.between(wanted.since, wanted.until))
        if not wanted.may_be_in(self._range(path)):
            return None
        return wanted.of(use_parquet(path, lambda file: file.read()))

    def _follow(self, path: Path) -> Followed | None:
        """Return what is known of a growing segment, brought up to date; None: nobody follows."""
        if self._followed is None:
            return None
        if path not in self._followed:
            # What has been closed meanwhile does not grow any more.
            for gone in [one for one in self._followed if not one.exists()]:
                del self._followed[gone]
            self._followed[path] = Followed(path)
        self._followed[path].look()
        return self._followed[path]

    def _range(self, path: Path) -> dict[str, tuple[Any, Any]]:
        """Return least and largest time, generation and query id of a closed segment."""
        if path not in self._ranges:
            self._ranges[path] = use_parquet(path, lambda file: _ranges(file.metadata))
        return self._ranges[path]


def _segments(folder: Path) -> list[Path]:
    """Return the segments of a folder; one that is growing and closed at once counts as closed."""
    listing = {path.stem: path for path in folder.glob("*.arrow")}
    return list((listing | {path.stem: path for path in folder.glob("*.parquet")}).values())


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _ranges(metadata: Any) -> dict[str, tuple[Any, Any]]:
    """Return least and largest value by column; None where the statistics do not say."""
    names = [metadata.schema.column(place).name for place in range(metadata.num_columns)]
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    found: dict[str, tuple[Any, Any]] = {}
    for name in ("time", "generation", "query_id"):
        parts = [group.column(names.index(name)).statistics for group in groups]
        known = [one for one in parts if one is not None and one.has_min_max]
        # A part without statistics may hold anything.
        found[name] = (None, None)
        if known and len(known) == len(parts):
            found[name] = (min(one.min for one in known), max(one.max for one in known))
    return found


@dataclass(frozen=True)
class _Wanted:
    """Conditions on rows."""

    generation: int | None
    since: float | None
    until: float | None
    query_ids: Sequence[int] | None
    erased: frozenset[int] = frozenset()

    def may_be_in(self, ranges: Mapping[str, tuple[Any, Any]]) -> bool:
        """Tell whether a segment with these ranges can hold a wanted row."""
        low, high = ranges["time"]
        if low is not None and (
            (self.since is not None and high < self.since)
            or (self.until is not None and low >= self.until)
        ):
            return False
        low, high = ranges["generation"]
        if low is not None and self.generation is not None and not low <= self.generation <= high:
            return False
        low, high = ranges["query_id"]
        if low is None or self.query_ids is None:
            return True
        return any(low <= one <= high for one in self.query_ids)

    def of(self, table: pa.Table) -> pa.Table:
        """Return the wanted rows of a table."""
        import pyarrow.compute as pc

        table = without(table, self.erased)
        conditions = []
        if self.generation is not None:
            conditions.append(pc.equal(table["generation"], scalar(self.generation, pa.int64())))
        if self.since is not None:
            conditions.append(pc.greater_equal(table["time"], scalar(self.since, pa.float64())))
        if self.until is not None:
            conditions.append(pc.less(table["time"], scalar(self.until, pa.float64())))
        if self.query_ids is not None:
            ids = array([int(one) for one in self.query_ids], pa.int64())
            conditions.append(pc.is_in(table["query_id"], value_set=ids))
        for condition in conditions[1:]:
            conditions[0] = pc.and_(conditions[0], condition)
        return table.filter(conditions[0]) if conditions else table
