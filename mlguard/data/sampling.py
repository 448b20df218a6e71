"""Some rows of a table of any size as a data frame, read batch by batch.

The frame is what :func:`mlguard.data.frames.read_frame` would give for these rows: what a
column means is decided by the scan of the whole file, never by the rows that were picked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlguard.data.batches import open_source
from mlguard.data.frames import NOT_A_NUMBER
from mlguard.data.scan import TableScan

if TYPE_CHECKING:
    import pandas as pd


def sample_rows(
    url: str,
    scan: TableScan,
    most: int,
    *,
    seed: int,
    missing_values: Sequence[str] = (),
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return a random sample of a table's rows in their order, all of them where they are few.

    Parameters
    ----------
    url : str
        A path or an fsspec URL.
    scan : TableScan
        What the table holds.
    most : int
        Most rows.
    seed : int
        Of the choice: the same file and seed give the same rows.
    missing_values : sequence of str
        Tokens that mean missing.
    columns : sequence of str, optional
        Only these.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    places = np.arange(scan.n_rows)
    if scan.n_rows > most:
        chosen = np.random.default_rng(seed).choice(scan.n_rows, most, replace=False)
        places = np.sort(chosen)
    return take_rows(url, scan, places, missing_values=missing_values, columns=columns)


def take_rows(
    url: str,
    scan: TableScan,
    places: npt.NDArray[np.intp],
    *,
    missing_values: Sequence[str] = (),
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return the rows at some places (0-based, rising), as :func:`sample_rows` does."""
    import pyarrow as pa

    names = list(scan.names if columns is None else columns)
    parts, start = [], 0
    with open_source(url) as source:
        for batch in source.batches(names):
            first, last = np.searchsorted(places, [start, start + batch.num_rows])
            if last > first:
                parts.append(batch.take(pa.array(places[first:last] - start)))
            start += batch.num_rows
            if last == len(places):
                break
    import pandas as pd

    if not parts:
        return pd.DataFrame(columns=names)
    # Dictionaries of two batches differ; as plain columns they fit together.
    tables = [_plain(part) for part in parts]
    frame: pd.DataFrame = pa.concat_tables(tables).select(names).to_pandas()
    missing = frozenset(missing_values)
    return frame.assign(**{name: _typed(frame[name], scan[name], missing) for name in names})


def iterate_frames(
    url: str,
    scan: TableScan,
    *,
    missing_values: Sequence[str] = (),
    columns: Sequence[str] | None = None,
) -> Iterator[pd.DataFrame]:
    """Yield all rows, a batch at a time, each a frame as :func:`sample_rows` gives it."""
    names = list(scan.names if columns is None else columns)
    missing = frozenset(missing_values)
    with open_source(url) as source:
        for batch in source.batches(names):
            frame = _plain(batch).select(names).to_pandas()
            yield frame.assign(**{name: _typed(frame[name], scan[name], missing) for name in names})


def _plain(batch: Any) -> Any:
    import pyarrow as pa

    columns = [
        one.cast(one.type.value_type) if pa.types.is_dictionary(one.type) else one
        for one in batch.columns
    ]
    return pa.Table.from_arrays(columns, names=batch.schema.names)


def _typed(values: pd.Series[Any], scan: Any, missing: frozenset[str]) -> pd.Series[Any]:
    """Give a column the type that its whole file gives it."""
    import pandas as pd

    if scan.storage != "text":
        return values
    lost = {"", *missing}
    kind = scan.column.kind
    if kind in ("number", "integer"):
        values = values.mask(values.isin([*lost, *NOT_A_NUMBER]))
        return pd.to_numeric(values.astype(object)).astype("int64" if kind == "integer" else float)
    values = values.mask(values.isin(list(lost)))
    if kind == "boolean":
        told = values.astype(object).map(lambda one: one.lower() == "true", na_action="ignore")
        return told if told.isna().any() else told.astype(bool)
    return values.astype("str")
