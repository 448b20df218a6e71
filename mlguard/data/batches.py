"""Tables in files, batch by batch: what reads any size of CSV or Parquet in constant memory.

The rules for missing cells are those of :mod:`mlguard.data.frames`.  A CSV file comes as text,
because a type that is guessed from its first rows may be refuted by its last; whoever counts
finds out what the text means.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from mlguard.data.frames import is_parquet, with_stream
from mlguard.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of a batch: large enough that what a batch costs by itself is nothing.
BATCH_ROWS = 131_072
_BLOCK_BYTES = 8 << 20


class Source:
    """One table in a file, open for reading batch by batch.

    Attributes
    ----------
    url : str
        What is read.
    names : tuple of str
        Its columns, in order; a repeated name of a CSV header gets ``.1``, ``.2``, … as
        pandas does it.
    parts : int
        Parts that can be read independently of each other: row groups of Parquet, else 1.
    typed : bool
        Whether the file knows its types; a CSV file does not.
    """

    def __init__(self, url: str, stream: IO[bytes]) -> None:
        self.url = url
        self.typed = is_parquet(url)
        self._stream = stream
        if self.typed:
            import pyarrow as pa
            import pyarrow.parquet as pq

            # Text stays the codes that the file holds: a tenth of the work, and of the memory.
            texts = [
                one.name
                for one in pq.read_schema(stream)
                if pa.types.is_string(one.type) or pa.types.is_large_string(one.type)
            ]
            stream.seek(0)
            self._file = pq.ParquetFile(
                _native(stream, url), pre_buffer=False, read_dictionary=texts
            )
            # pandas' own index column is no column of the table.
            self.names = tuple(
                name
                for name in self._file.schema_arrow.names
                if not name.startswith("__index_level_")
            )
            self.parts = max(1, self._file.num_row_groups)
        else:
            self._head, self.names = _header(stream, url)
            self.parts = 1

    def batches(
        self, columns: list[str] | None = None, part: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows, at most :data:`BATCH_ROWS` at a time.

        Parameters
        ----------
        columns : list of str, optional
            Only these.
        part : int, optional
            Only this part; default all.
        """
        if self.typed:
            groups = None if part is None else [part] if self._file.num_row_groups else []
            yield from self._file.iter_batches(
                batch_size=BATCH_ROWS,
                row_groups=groups,
                columns=list(columns or self.names),
                use_threads=part is None,
            )
            return
        yield from self._csv(columns)

    def _csv(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        self._head = self._head or self._stream.read(_BLOCK_BYTES)
        if not self._head.strip():
            return  # a header alone is no mistake to whoever only asks for names
        with arrow_csv.open_csv(
            pa.PythonFile(_Chained(self._head, self._stream), mode="r"),
            read_options=arrow_csv.ReadOptions(
                column_names=list(self.names), block_size=_BLOCK_BYTES
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(self.names, pa.string()),
                strings_can_be_null=False,
                include_columns=columns,
            ),
        ) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield batch.slice(start, BATCH_ROWS)


@contextmanager
def open_source(url: str) -> Iterator[Source]:
    """Open a table for reading batch by batch.

    Parameters
    ----------
    url : str
        A path or an fsspec URL, as in :func:`mlguard.data.frames.read_frame`.

    Raises
    ------
    DataError
        If the file is missing or unreadable, also where that shows while it is read.
    """
    with with_stream(url) as stream:
        yield Source(url, stream)


def _native(stream: IO[bytes], url: str) -> Any:
    """Return a file that is read without Python where it lies on this disk: threads never wait."""
    import pyarrow as pa

    return stream if "://" in url else pa.OSFile(url)


def _header(stream: IO[bytes], url: str) -> tuple[bytes, tuple[str, ...]]:
    """Read the header of a CSV file; return the bytes after it that were read, and the names."""
    read = b""
    while (end := _end_of_record(read)) == 0:
        more = stream.read(1 << 16)
        if not more:
            end = len(read)
            break
        read += more
    row = next(csv.reader([read[:end].decode("utf-8-sig").rstrip("\r\n")]), [])
    if not row:
        raise DataError(f"{url} is empty", hint="a table needs a header line and rows")
    return read[end:], tuple(_distinct(row))


def _end_of_record(read: bytes) -> int:
    """Return where the first record ends: after the first line end outside quotes; 0: nowhere."""
    end = read.find(b"\n") + 1
    while end and read.count(b'"', 0, end) % 2:
        end = read.find(b"\n", end) + 1
    return end


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    known = set(names)
    distinct = []
    for place, written in enumerate(names):
        name = written or f"Unnamed: {place}"
        again = seen.get(name, 0)
        seen[name] = again + 1
        while again and f"{name}.{again}" in known:
            again += 1
        distinct.append(f"{name}.{again}" if again else name)
    return distinct


class _Chained(io.RawIOBase):
    """Bytes that were read already, then the rest of a stream."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> Any:
        if self._head:
            size = len(self._head) if size < 0 else size
            taken, self._head = self._head[:size], self._head[size:]
            return taken
        return self._rest.read(size)
