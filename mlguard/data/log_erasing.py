"""Rows that are to be erased from the prediction log before their time.

A closed segment is written anew without them.  A growing one belongs to a live writer and
cannot be changed, so what is to go is noted beside the segments: readers leave these rows out at
once, and they are removed from the disk when the segment is closed.  A note names query ids and
never a person.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from mlguard.data.log_columns import array
from mlguard.data.log_segments import STATE_FILE, TOMBSTONE, use_parquet

#: The note, in an app's folder.
_NOTE = "erased.json"


class ErasedRows:
    """The note of one app's rows that are to go.

    Parameters
    ----------
    folder : Path
        The app's folder of the log.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NOTE
        self._stamp: tuple[int, int] | None = None
        self._known: dict[int, float] = {}

    @property
    def path(self) -> Path:
        """The file of the note."""
        return self._path

    def ids(self) -> frozenset[int]:
        """Return the query ids that nobody may read any more."""
        try:
            facts = self._path.stat()
        except OSError:
            self._stamp, self._known = None, {}
            return frozenset()
        stamp = (facts.st_mtime_ns, facts.st_size)
        if stamp != self._stamp:
            self._known = _read(self._path)
            self._stamp = stamp
        return frozenset(self._known)

    def add(self, query_ids: Collection[int], at: float) -> None:
        """Note rows; they can be read no more when this returns."""
        with self._changing() as known:
            for one in query_ids:
                known.setdefault(int(one), at)

    def forget(self, before: float) -> None:
        """Drop what was noted earlier: the log keeps no rows that are so old."""
        if not any(at < before for at in _read(self._path).values()):
            return
        with self._changing() as known:
            for one in [one for one, at in known.items() if at < before]:
                del known[one]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[int, float]]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            known = _read(self._path)
            yield known
            draft = self._path.with_suffix(".json.tmp")
            with draft.open("w", encoding="ascii") as file:
                json.dump(sorted(known.items()), file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        finally:
            os.close(descriptor)


def _read(path: Path) -> dict[int, float]:
    try:
        return {int(one): float(at) for one, at in json.loads(path.read_text(encoding="ascii"))}
    except FileNotFoundError:
        return {}


def without(table: pa.Table, query_ids: Collection[int]) -> pa.Table:
    """Return a table without some rows."""
    import pyarrow.compute as pc

    if not query_ids or not table.num_rows:
        return table
    gone = pc.is_in(table["query_id"], value_set=array(sorted(query_ids), pa.int64()))
    return table.filter(pc.invert(gone))


def rewrite_without(path: Path, query_ids: Collection[int]) -> int:
    """Write a closed segment anew without some rows; return how many went.

    Raises
    ------
    FileNotFoundError
        If it is gone.
    DataError
        If it is damaged.
    OSError
        If the disk is full; the segment is as it was.
    """
    import pyarrow.parquet as pq

    table = use_parquet(path, lambda file: file.read())
    kept = without(table, query_ids)
    gone: int = table.num_rows - kept.num_rows
    if not gone:
        return 0
    if not kept.num_rows:
        if (path.parents[2] / STATE_FILE).exists():
            path.with_suffix(TOMBSTONE).touch()
        path.unlink()
        return gone
    draft = path.with_suffix(".parquet.tmp")
    try:
        pq.write_table(kept, draft, compression="zstd", write_page_checksum=True)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return gone
