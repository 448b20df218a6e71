"""Files of the prediction log: growing, torn, closed.

A growing file is an Arrow IPC stream that its writer locks.  One message is written per flush;
half a message is cut off again, so that what stands in front of it can always be read.  A file
that nobody locks was left by a dead process, and :func:`recover` turns it into Parquet under
its final name, which appears only when it is whole.
"""

from __future__ import annotations

import fcntl
import glob
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from mlguard.data.log_columns import LogSchema
from mlguard.errors import DataError

Result = TypeVar("Result")

#: What a log that has a store knows of it, in the log's folder (mlguard.data.log_store).
STATE_FILE = "store.db"
#: What stands for a segment of which an erasure left nothing, until the store has none either.
TOMBSTONE = ".erased"


class Segment:
    """One growing file: an Arrow IPC stream, locked while its writer lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = 0
        self.torn = False
        self._descriptor = descriptor

    @classmethod
    def create(cls, folder: Path, process: str, schema: pa.Schema) -> Segment:
        """Make and lock the next file of a process and write the schema into it."""
        taken = [_sequence(path) for path in folder.glob(f"{glob.escape(process)}-*.*")]
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


class Followed:
    """A growing file that is read again and again, each message once.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    batches : list of pyarrow.RecordBatch
        Its whole messages so far.
    times : list of (float, float)
        The earliest and the latest time in each of them; from minus to plus infinity where that
        cannot be told.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: list[pa.RecordBatch] = []
        self.times: list[tuple[float, float]] = []
        self._schema: pa.Schema | None = None
        self._read = 0

    def look(self) -> None:
        """Read what came since the last look.

        What its writer cuts off again is never behind a whole message, so what was read stays.

        Raises
        ------
        FileNotFoundError
            If it is gone.
        """
        with self.path.open("rb") as file:
            file.seek(self._read)
            stream = pa.BufferReader(file.read())
        start = self._read
        try:
            while True:
                message = pa.ipc.read_message(stream)
                if self._schema is None:
                    self._schema = pa.ipc.read_schema(message)
                else:
                    batch = pa.ipc.read_record_batch(message, self._schema)
                    # As below.
                    batch.validate(full=True)
                    self.batches.append(batch)
                    self.times.append(_times(batch))
                self._read = start + stream.tell()
        # Half a message, or none.
        except (EOFError, pa.ArrowException, OSError):
            return

    def between(self, since: float | None, until: float | None) -> pa.Table:
        """Return the messages that may hold rows from a time on, and before another."""
        chosen = [
            batch
            for batch, (earliest, latest) in zip(self.batches, self.times, strict=True)
            if (since is None or latest >= since) and (until is None or earliest < until)
        ]
        return pa.Table.from_batches(chosen) if chosen else LogSchema().arrow.empty_table()


def _times(batch: pa.RecordBatch) -> tuple[float, float]:
    times = batch.column("time").to_numpy(zero_copy_only=False)
    if not times.size or np.isnan(times).any():
        return -math.inf, math.inf
    return float(times.min()), float(times.max())


def read_stream(path: Path) -> pa.Table:
    """Return the whole messages of a growing or torn file."""
    batches = list(stream_batches(path))
    return pa.Table.from_batches(batches) if batches else LogSchema().arrow.empty_table()


def stream_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Give the whole messages of a growing or torn file, one after another.

    Raises
    ------
    FileNotFoundError
        If it is gone.
    """
    # Not mapped into memory: its writer may cut off half a message meanwhile.
    stream = pa.BufferReader(path.read_bytes())
    try:
        reader = pa.ipc.open_stream(stream)
        while True:
            batch = reader.read_next_batch()
            # After a power cut there may be anything, and Arrow trusts what it reads.
            batch.validate(full=True)
            yield batch
    except (StopIteration, pa.ArrowException, OSError):
        return


def use_parquet(path: Path, use: Callable[[Any], Result]) -> Result:
    """Open a closed segment as a ``pyarrow.parquet.ParquetFile`` and use it.

    Raises
    ------
    FileNotFoundError
        If it is gone.
    DataError
        If it is damaged.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return use(file)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is a damaged segment of the prediction log: {error}",
            hint="move it away; its rows are lost",
        ) from error


def recover(path: Path) -> int:
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
        table = read_stream(path)
        if table.num_rows and not closed.exists():
            draft = path.with_suffix(".parquet.tmp")
            try:
                pq.write_table(table, draft, compression="zstd", write_page_checksum=True)
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
