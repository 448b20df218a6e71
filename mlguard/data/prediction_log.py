"""The prediction log: what was asked, what was answered, by whom, and how long it took.

::

    <root>/<app>/<version_id>/<process>-<seq>.arrow      growing: an Arrow IPC stream
    <root>/<app>/<version_id>/<process>-<seq>.parquet    closed: never changes again

Rules:

1. Logging never disturbs serving.  :meth:`LogWriter.append` only buffers; what cannot be
   written (disk full, buffer full) is dropped and counted, nothing is raised.
2. One message is written per flush.  A writer that dies loses what it had not flushed; the torn
   end of its file is skipped by readers and cut off when the file is recovered.
3. A writer holds a lock on its growing file.  A growing file that nobody locks was left by a
   dead process: whoever opens the folder next turns it into Parquet.
4. A closed segment appears under its final name only when it is whole.  Where a segment exists
   in both forms, the Parquet one counts.

Arrays and scalars are built from numpy buffers: ``pyarrow.array`` and ``pyarrow.scalar`` import
pandas, which a serving process does not carry.
"""

from __future__ import annotations

import base64
import fcntl
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from mlguard.data.schema import Kind
from mlguard.errors import DataError

#: Rows held in memory between two flushes; more are dropped and counted.
BUFFER_ROWS = 200_000
#: A growing segment is closed when it has this many bytes, so that readers skip what is old.
SEGMENT_BYTES = 32 << 20

#: The columns that every log has, beside one for each feature.
FIXED_COLUMNS: dict[str, pa.DataType] = {
    "query_id": pa.int64(),
    "time": pa.float64(),
    "generation": pa.int64(),
    "default": pa.bool_(),
    "explanation": pa.string(),
    "output": pa.string(),
    "score": pa.float64(),
    "uid": pa.string(),
    "groups": pa.string(),
    "latency_ms": pa.float32(),
    "valid": pa.bool_(),
}
#: Columns that rows are found by: they are written even where they are redacted.
_NEEDED = frozenset({"query_id", "time", "generation", "default", "valid"})
_PREFIX = "feature:"
_TYPES: dict[Kind, pa.DataType] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "time": pa.string(),
}


class NamedColumn(Protocol):
    """What the log needs to know of a model's input."""

    @property
    def name(self) -> str:
        """Name of the column."""

    @property
    def kind(self) -> Kind:
        """What its values mean."""


def feature_column(name: str) -> str:
    """Return the log's column for a feature: its name, unless a fixed column has that name."""
    clashes = name in FIXED_COLUMNS or name.startswith(_PREFIX)
    return _PREFIX + name if clashes else name


@dataclass(frozen=True)
class LogSchema:
    """The columns of one writer's segments.

    Attributes
    ----------
    features : tuple of NamedColumn
        The model's inputs, in the order in which rows give them.
    redact : frozenset of str
        Features, group attributes and fixed columns (``"uid"``, ``"score"``, …) whose values
        are never written.
    inputs : bool
        Whether features are written at all.
    """

    features: tuple[NamedColumn, ...] = ()
    redact: frozenset[str] = frozenset()
    inputs: bool = True

    @property
    def kept(self) -> tuple[NamedColumn, ...]:
        """The features that are written."""
        if not self.inputs:
            return ()
        return tuple(one for one in self.features if one.name not in self.redact)

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema: the fixed columns, then the features."""
        fields = [pa.field(name, kind) for name, kind in FIXED_COLUMNS.items()]
        fields += [pa.field(feature_column(one.name), _TYPES[one.kind]) for one in self.kept]
        return pa.schema(fields)

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        """Turn rows into columns; a value that does not fit its column becomes null."""
        arrays = [_array(self._fixed(rows, name), kind) for name, kind in FIXED_COLUMNS.items()]
        kept = {one.name for one in self.kept}
        inputs = [row.get("features") for row in rows]
        for place, one in enumerate(self.features):
            if one.name in kept:
                values = [
                    _feature(row, given, one.name, place)
                    for row, given in zip(rows, inputs, strict=True)
                ]
                arrays.append(_array(values, _TYPES[one.kind]))
        return pa.RecordBatch.from_arrays(arrays, schema=self.arrow)

    def _fixed(self, rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
        if name in self.redact and name not in _NEEDED:
            return [None] * len(rows)
        values = [row.get(name) for row in rows]
        return [self._shown(one) for one in values] if name == "groups" else values

    def _shown(self, groups: Any) -> str | None:
        """Return a row's groups as JSON text without the redacted ones."""
        if groups is None or (isinstance(groups, str) and not self.redact):
            return groups
        try:
            known = json.loads(groups) if isinstance(groups, str) else groups
            shown = {key: one for key, one in known.items() if key not in self.redact}
            return json.dumps(shown, ensure_ascii=False, sort_keys=True)
        except (AttributeError, TypeError, ValueError):
            return None  # what cannot be read cannot be redacted


def _feature(row: Mapping[str, Any], given: Any, name: str, place: int) -> Any:
    if given is None:
        return row.get(feature_column(name))
    if isinstance(given, Mapping):
        return given.get(name)
    return given[place] if place < len(given) else None


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
        buffer_rows: int = BUFFER_ROWS,
    ) -> None:
        self.written = 0
        self.dropped = 0
        self.last_error = ""
        self._folder = folder
        self._process = process
        self._schema = schema
        self._segment_bytes = segment_bytes
        self._buffer_rows = buffer_rows
        self._rows: list[Mapping[str, Any]] = []
        self._buffer_lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._segment: _Segment | None = None

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
            if rows:
                self._write(rows)
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
                _recover(path)

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        # Rule 1: whatever goes wrong here, serving goes on.
        try:
            message = self._schema.batch(rows).serialize()
            if self._segment is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._segment = _Segment.create(self._folder, self._process, self._schema.arrow)
            self._segment.write(message)
        except Exception as error:  # noqa: BLE001
            with self._buffer_lock:
                self._drop(len(rows), f"{type(error).__name__}: {error}")
            if self._segment is not None and self._segment.torn:
                self._segment.close()
                self._segment = None
            return
        self.written += len(rows)
        if self._segment.size >= self._segment_bytes:
            # Turning it into Parquet takes long: PredictionLog.recover does that elsewhere.
            self._segment.close()
            self._segment = None

    def _drop(self, n_rows: int, why: str) -> None:
        self.dropped += n_rows
        self.last_error = why


class _Segment:
    """One growing file: an Arrow IPC stream, locked while its writer lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = 0
        self.torn = False
        self._descriptor = descriptor

    @classmethod
    def create(cls, folder: Path, process: str, schema: pa.Schema) -> _Segment:
        """Make and lock the next file of a process and write the schema into it."""
        taken = [_sequence(path) for path in folder.glob(f"{process}-*.*")]
        number = max(taken, default=-1) + 1
        while True:
            path = folder / f"{process}-{number:06d}.arrow"
            number += 1
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            except FileExistsError:
                continue
            if _lock(descriptor) and _is_at(descriptor, path):
                segment = cls(path, descriptor)
                try:
                    segment.write(schema.serialize())
                except OSError:
                    segment.close()
                    path.unlink(missing_ok=True)
                    raise
                return segment
            # Somebody recovered the empty file between the two calls.
            os.close(descriptor)

    def write(self, message: Any) -> None:
        """Append one message, or leave the file as it was and raise OSError."""
        rest = memoryview(message)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self._undo()
            raise
        self.size += len(memoryview(message))

    def _undo(self) -> None:
        """Cut off half a message: nothing behind it could be read."""
        try:
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
        except OSError:
            self.torn = True

    def sync(self) -> None:
        """Wait until everything written is on the disk; what fails is not worth an answer."""
        try:
            os.fsync(self._descriptor)
        except OSError:
            self.torn = True

    def close(self) -> None:
        """Give up the lock; whoever comes next may turn the file into Parquet."""
        os.close(self._descriptor)


class PredictionLog:
    """The prediction log below one folder.

    Parameters
    ----------
    root : path
        Folder with one folder per app.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._ranges: dict[Path, dict[str, tuple[Any, Any]]] = {}

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
        return LogWriter(folder, process.replace("/", "_"), schema)

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
        wanted = _Wanted(generation, since, until, query_ids)
        tables = [
            table
            for folder in self._folders(app, version_id)
            for table in self._read_folder(folder, wanted)
        ]
        if not tables:
            return LogSchema().arrow.empty_table()
        whole = pa.concat_tables(_alike(tables), promote_options="permissive")
        return whole.sort_by([("time", "ascending"), ("query_id", "ascending")])

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
            for folder in self._folders(one, None):
                for path in folder.glob("*.parquet"):
                    newest = self._range(path)["time"][1]
                    if newest is not None and newest < older_than:
                        path.unlink(missing_ok=True)
                        self._ranges.pop(path, None)
                        removed += 1
        return removed

    def _folder(self, app: str, version_id: int | str) -> Path:
        return self.root / app / str(version_id)

    def _folders(self, app: str, version_id: int | str | None) -> list[Path]:
        if version_id is not None:
            folder = self._folder(app, version_id)
            return [folder] if folder.is_dir() else []
        top = self.root / app
        return sorted(path for path in top.iterdir() if path.is_dir()) if top.is_dir() else []

    def _recover_in(self, folder: Path) -> int:
        return sum(_recover(path) for path in sorted(folder.glob("*.arrow")))

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
            return wanted.of(_read_stream(path))
        if not wanted.may_be_in(self._range(path)):
            return None
        return wanted.of(_parquet(path).read())

    def _range(self, path: Path) -> dict[str, tuple[Any, Any]]:
        """Return least and largest time, generation and query id of a closed segment."""
        if path not in self._ranges:
            metadata = _parquet(path).metadata
            names = [metadata.schema.column(place).name for place in range(metadata.num_columns)]
            found: dict[str, tuple[Any, Any]] = {}
            for name in ("time", "generation", "query_id"):
                groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
                parts = [group.column(names.index(name)).statistics for group in groups]
                bounds = [
                    (one.min, one.max) for one in parts if one is not None and one.has_min_max
                ]
                whole = bool(bounds) and len(bounds) == len(parts)
                found[name] = (
                    (min(low for low, _ in bounds), max(high for _, high in bounds))
                    if whole
                    else (None, None)
                )
            self._ranges[path] = found
        return self._ranges[path]


@dataclass(frozen=True)
class _Wanted:
    """Conditions on rows."""

    generation: int | None
    since: float | None
    until: float | None
    query_ids: Sequence[int] | None

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

        conditions = []
        if self.generation is not None:
            conditions.append(pc.equal(table["generation"], _scalar(self.generation, pa.int64())))
        if self.since is not None:
            conditions.append(pc.greater_equal(table["time"], _scalar(self.since, pa.float64())))
        if self.until is not None:
            conditions.append(pc.less(table["time"], _scalar(self.until, pa.float64())))
        if self.query_ids is not None:
            ids = _array([int(one) for one in self.query_ids], pa.int64())
            conditions.append(pc.is_in(table["query_id"], value_set=ids))
        for condition in conditions[1:]:
            conditions[0] = pc.and_(conditions[0], condition)
        return table.filter(conditions[0]) if conditions else table


# --- files ---------------------------------------------------------------------------------


def _sequence(path: Path) -> int:
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read_stream(path: Path) -> pa.Table:
    """Return the whole messages of a growing or torn file."""
    # Not mapped into memory: its writer may cut off half a message meanwhile.
    stream = pa.BufferReader(path.read_bytes())
    batches = []
    try:
        reader = pa.ipc.open_stream(stream)
        schema = reader.schema
    except (pa.ArrowException, OSError):
        return LogSchema().arrow.empty_table()
    try:
        while True:
            batch = reader.read_next_batch()
            # After a power cut there may be anything, and Arrow trusts what it reads.
            batch.validate(full=True)
            batches.append(batch)
    except (StopIteration, pa.ArrowException, OSError):
        return pa.Table.from_batches(batches, schema=schema)


def _parquet(path: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DataError(
            f"{path} is a damaged segment of the prediction log: {error}",
            hint="move it away; its rows are lost",
        ) from error


def _recover(path: Path) -> int:
    """Turn a growing file that nobody locks into Parquet; return 1 if it was done."""
    import pyarrow.parquet as pq

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        if not _lock(descriptor) or not _is_at(descriptor, path):
            return 0
        closed = path.with_suffix(".parquet")
        table = _read_stream(path)
        if table.num_rows and not closed.exists():
            draft = path.with_suffix(".parquet.tmp")
            try:
                pq.write_table(table, draft, compression="zstd")
                _sync(draft)
                draft.replace(closed)
            except (OSError, pa.ArrowException):
                draft.unlink(missing_ok=True)
                return 0  # the disk is full: the rows stay readable where they are
        path.unlink(missing_ok=True)
        return 1
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alike(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Make a column text in all tables where versions disagree about what it is."""
    kinds: dict[str, set[str]] = {}
    for table in tables:
        for one in table.schema:
            kinds.setdefault(one.name, set()).add(_family(one.type))
    mixed = {name for name, found in kinds.items() if len(found) > 1}
    return [_as_texts(table, mixed) for table in tables]


def _family(kind: pa.DataType) -> str:
    """Return what a type can be promoted within: integers and floats are both numbers."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return str(kind)


def _as_texts(table: pa.Table, names: set[str]) -> pa.Table:
    fields = [one.with_type(pa.string()) if one.name in names else one for one in table.schema]
    return table.cast(pa.schema(fields))


# --- arrays without pandas -----------------------------------------------------------------


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Build an Arrow array; None, NaN and what does not fit become null."""
    if pa.types.is_string(kind):
        return _string_array([_as_text(one) for one in values])
    if pa.types.is_boolean(kind):
        present = np.array([isinstance(one, (bool, np.bool_)) for one in values], np.bool_)
        truth = np.array([one is not None and bool(one) for one in values], np.bool_) & present
        return _assemble(kind, present, pa.py_buffer(_bits(truth)))
    if pa.types.is_integer(kind):
        whole = [_as_int(one) for one in values]
        present = np.array([one is not None for one in whole], np.bool_)
        numbers = np.array([one or 0 for one in whole], np.int64)
        return _assemble(kind, present, pa.py_buffer(numbers))
    try:
        reals = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        reals = np.array([_as_float(one) for one in values], np.float64)
    data = reals.astype(kind.to_pandas_dtype())
    return _assemble(kind, ~np.isnan(reals), pa.py_buffer(data))


def _scalar(value: float, kind: pa.DataType) -> pa.Scalar:
    return _array([value], kind)[0]


def _assemble(kind: pa.DataType, present: np.ndarray[Any, Any], *data: pa.Buffer) -> pa.Array:
    validity = None if present.all() else pa.py_buffer(_bits(present))
    return pa.Array.from_buffers(kind, len(present), [validity, *data])


def _bits(flags: np.ndarray[Any, Any]) -> bytes:
    return np.packbits(flags, bitorder="little").tobytes()


def _string_array(texts: Sequence[str | None]) -> pa.Array:
    # JSON may carry half a surrogate pair, which UTF-8 cannot.
    encoded = [b"" if one is None else one.encode("utf-8", "replace") for one in texts]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    present = np.array([one is not None for one in texts], np.bool_)
    return _assemble(pa.string(), present, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)


def _as_int(value: Any) -> int | None:
    if isinstance(value, (float, np.floating)) and not float(value).is_integer():
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -(2**63) <= number < 2**63 else None


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
