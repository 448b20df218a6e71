"""One pass over a table of any size: what every column holds, in constant memory.

A scan is a fold: batches are summarised by themselves and merged, so that parts of a file may
be read by several threads and a verdict never depends on who came first.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from mlguard.data.batch_scan import Expected, scan_column
from mlguard.data.batches import Source, open_source
from mlguard.data.column_scan import ColumnScan
from mlguard.data.schema import TableSchema
from mlguard.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

#: Threads that read parts of one file; more do not help a pass that waits for memory.
MOST_THREADS = 4
#: Most different pairs of values that are counted for two columns together.
MOST_PAIRS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TableScan:
    """What a table holds.

    Attributes
    ----------
    columns : mapping of str to ColumnScan
        By name, in the table's order.
    n_rows : int
        Rows of the table.
    pairs : mapping of (str, str) to Counter or None
        How often each pair of values of two columns occurs, missing ones as None; None where
        there are too many different ones.
    """

    columns: Mapping[str, ColumnScan]
    n_rows: int = 0
    pairs: Mapping[tuple[str, str], Counter[tuple[Any, Any]] | None] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ColumnScan:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self.columns)

    @property
    def schema(self) -> TableSchema:
        """The table as :func:`mlguard.data.schema.infer_schema` describes it."""
        return TableSchema(tuple(one.column for one in self.columns.values()))

    def merge(self, other: Self) -> Self:
        """Return the scan of both parts together."""
        return type(self)(
            columns={name: one.merge(other.columns[name]) for name, one in self.columns.items()},
            n_rows=self.n_rows + other.n_rows,
            pairs={key: _added(self.pairs[key], other.pairs[key]) for key in self.pairs},
        )


def _added(one: Counter[Any] | None, other: Counter[Any] | None) -> Counter[Any] | None:
    if one is None or other is None:
        return None
    both = one + other
    return both if len(both) <= MOST_PAIRS else None


def scan_table(
    url: str,
    *,
    missing_values: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    pairs: Iterable[tuple[str, str]] = (),
    reference: TableScan | None = None,
    threads: int | None = None,
) -> TableScan:
    """Read a table once and say what its columns hold.

    Parameters
    ----------
    url : str
        A path or an fsspec URL, as in :func:`mlguard.data.frames.read_frame`.
    missing_values : sequence of str
        Tokens that mean missing, beside empty cells.
    columns : sequence of str, optional
        Only these; default all.
    pairs : iterable of (str, str)
        Columns whose values are counted together; pairs of unknown columns are left out.
    reference : TableScan, optional
        What is expected: values beyond its ranges and categories are counted.
    threads : int, optional
        How many read parts of a Parquet file at once; default one per core, at most 4.

    Returns
    -------
    TableScan
        Of at least one row.

    Raises
    ------
    DataError
        If the file is missing, unreadable or empty, or lacks one of ``columns``.
    """
    expected = {} if reference is None else _expected(reference)
    with open_source(url) as source:
        names = list(columns if columns is not None else source.names)
        absent = [name for name in names if name not in source.names]
        if absent:
            raise DataError(
                f"{url} has no column {absent[0]!r}",
                hint=f"its columns: {', '.join(source.names)}",
                column=absent[0],
            )
        chosen = [pair for pair in pairs if set(pair) <= set(names)]
        fold = functools.partial(
            _fold,
            names=names,
            pairs=chosen,
            missing=frozenset(missing_values),
            expected=expected,
        )
        workers = min(threads or min(os.cpu_count() or 1, MOST_THREADS), source.parts)
        found = fold(source) if workers <= 1 else _in_parts(url, fold, source.parts, workers)
    if found is None or not found.n_rows:
        raise DataError(f"{url} has a header but no rows", hint="a table needs at least one row")
    return found


def _in_parts(url: str, fold: Any, parts: int, workers: int) -> TableScan | None:
    """Fold every ``workers``-th part in a thread of its own, each with its own open file."""

    def work(first: int) -> TableScan | None:
        with open_source(url) as source:
            found: TableScan | None = None
            for part in range(first, parts, workers):
                found = fold(source, part=part, found=found)
        return found

    with ThreadPoolExecutor(workers, thread_name_prefix="mlguard-scan") as pool:
        return _merged(pool.map(work, range(workers)))


def _merged(found: Iterable[TableScan | None]) -> TableScan | None:
    known = [one for one in found if one is not None]
    return functools.reduce(TableScan.merge, known) if known else None


def _fold(
    source: Source,
    *,
    names: list[str],
    pairs: list[tuple[str, str]],
    missing: frozenset[str],
    expected: Mapping[str, Expected],
    part: int | None = None,
    found: TableScan | None = None,
) -> TableScan | None:
    for batch in source.batches(names, part):
        if batch.num_rows:
            one = scan_batch(batch, pairs=pairs, missing=missing, expected=expected, so_far=found)
            found = one if found is None else found.merge(one)
    return found


def scan_batch(
    batch: pa.RecordBatch,
    *,
    pairs: Iterable[tuple[str, str]] = (),
    missing: frozenset[str] = frozenset(),
    expected: Mapping[str, Expected] | None = None,
    so_far: TableScan | None = None,
) -> TableScan:
    """Summarise one batch.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        Some rows.
    pairs : iterable of (str, str)
        Columns whose values are counted together.
    missing : frozenset of str
        Tokens that mean missing.
    expected : mapping of str to Expected, optional
        What each column should hold.
    so_far : TableScan, optional
        What it will be merged into: what is known to be lost there is not computed again.
    """
    wanted = expected or {}
    columns = {
        name: scan_column(
            name,
            batch.column(name),
            missing=missing,
            expected=wanted.get(name),
            so_far=None if so_far is None else so_far.columns[name],
        )
        for name in batch.schema.names
    }
    return TableScan(
        columns=columns,
        n_rows=batch.num_rows,
        pairs={pair: _pair_counts(batch, pair, missing) for pair in pairs},
    )


def _pair_counts(
    batch: pa.RecordBatch, pair: tuple[str, str], missing: frozenset[str]
) -> Counter[tuple[Any, Any]] | None:
    """Count the pairs of values of two columns."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    codes, values = [], []
    for name in pair:
        column = batch.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        encoded = pc.dictionary_encode(column, null_encoding="encode")
        codes.append(encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64))
        values.append([_token(one, missing) for one in encoded.dictionary.to_pylist()])
    if len(values[0]) * len(values[1]) > MOST_PAIRS * 50:
        return None
    counts = np.bincount(codes[0] * len(values[1]) + codes[1])
    joined = np.flatnonzero(counts)
    found: Counter[tuple[Any, Any]] = Counter()
    for code, n in zip(joined.tolist(), counts[joined].tolist(), strict=True):
        first, second = divmod(code, len(values[1]))
        found[values[0][first], values[1][second]] += n
    return found if len(found) <= MOST_PAIRS else None


def _token(value: Any, missing: frozenset[str]) -> Any:
    if isinstance(value, str) and (not value or value in missing):
        return None
    return None if isinstance(value, float) and value != value else value


def _expected(reference: TableScan) -> dict[str, Expected]:
    """Return what a reference leads to expect of each column."""
    found = {}
    for name, one in reference.columns.items():
        column = one.column
        if column.kind in ("number", "integer") and column.low is not None:
            high = column.high if column.high is not None else float("inf")
            found[name] = Expected(low=column.low, high=high)
        elif column.categories is not None:
            found[name] = Expected(categories=frozenset(column.categories))
    return found
