"""Rows as 64-bit hashes: what tells exact repeats apart, batch by batch, 8 bytes a row.

Two rows have the same hash if every column holds the same value, whatever type their files
gave it: 1 in a CSV file is 1.0 in a Parquet file, and every missing cell is like any other.
Of ten million different rows two share a hash by chance in about 3 of a million files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlguard.data.batches import open_source
from mlguard.data.frames import NOT_A_NUMBER
from mlguard.data.scan import MOST_THREADS
from mlguard.data.schema import Kind

if TYPE_CHECKING:
    import pyarrow as pa

Hashes = npt.NDArray[np.uint64]
#: Odd constants of a multiply-and-shift mixer (Steele, Lea and Flood's SplitMix64).
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MISSING = np.uint64(0x5D1E5A1AD5EED5ED)
#: Rows that are looked up at once among others: what that takes is some MiB, whatever there is.
_LOOKED_UP = 1_000_000


def row_hashes(
    url: str,
    columns: Sequence[str],
    kinds: Mapping[str, Kind],
    *,
    missing_values: Sequence[str] = (),
) -> Hashes:
    """Return one hash per row of a table, shape (n_rows,).

    Parameters
    ----------
    url : str
        A path or an fsspec URL.
    columns : sequence of str
        What a row consists of, in order.
    kinds : mapping of str to Kind
        What each of them means, from its scan: a text is hashed as the number it stands for
        only where the whole column is numbers.
    missing_values : sequence of str
        Tokens that mean missing.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    missing = frozenset(missing_values)

    def of_part(part: int | None) -> Hashes:
        with open_source(url) as source:
            found = [
                hash_batch(batch, columns, kinds, missing=missing)
                for batch in source.batches(list(columns), part)
            ]
        return np.concatenate(found) if found else np.empty(0, np.uint64)

    with open_source(url) as source:
        n_parts = source.parts
    workers = min(os.cpu_count() or 1, MOST_THREADS, n_parts)
    if workers <= 1:
        return of_part(None)
    with ThreadPoolExecutor(workers, thread_name_prefix="mlguard-hash") as pool:
        return np.concatenate(list(pool.map(of_part, range(n_parts))))


def hash_batch(
    batch: pa.RecordBatch,
    columns: Sequence[str],
    kinds: Mapping[str, Kind],
    *,
    missing: frozenset[str] = frozenset(),
) -> Hashes:
    """Return one hash per row of a batch, shape (n_rows,)."""
    found = np.zeros(batch.num_rows, np.uint64)
    for name in columns:
        found = _mixed(found * np.uint64(3) + _cells(batch.column(name), kinds[name], missing))
    return found


def n_repeats(hashes: Hashes) -> int:
    """Return how many rows repeat an earlier one."""
    return len(_repeated(hashes))


def repeats(hashes: Hashes) -> npt.NDArray[np.intp]:
    """Return the places of the rows that repeat an earlier one, rising, shape (n_repeats,)."""
    # Only rows that have a twin are put in order: mostly there are few.
    places = np.flatnonzero(_one_of(hashes, _repeated(hashes)))
    order = np.argsort(hashes[places], kind="stable")
    ordered = hashes[places][order]
    again = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    return np.sort(places[order[again]])


def known_rows(hashes: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    """Return which rows are among others that are known, shape (n_rows,)."""
    found = np.zeros(len(hashes), bool)
    if not known.size:
        return found
    ordered = np.sort(known)
    for start in range(0, len(hashes), _LOOKED_UP):
        asked = hashes[start : start + _LOOKED_UP]
        # In order, one search ends near the next one, and finds the way there in the cache.
        order = np.argsort(asked)
        places = ordered.searchsorted(asked[order])
        found[start + order] = ordered[np.minimum(places, ordered.size - 1)] == asked[order]
    return found


def _repeated(hashes: Hashes) -> Hashes:
    """Return the hashes that occurred before, once for every further time; sorted."""
    # numpy sorts whole numbers faster than it, or anybody, finds the different ones by hashing.
    ordered = np.sort(hashes)
    again: Hashes = ordered[1:][ordered[1:] == ordered[:-1]]
    return again


def _one_of(hashes: Hashes, some: Hashes) -> npt.NDArray[np.bool_]:
    import pandas as pd

    if not some.size:
        return np.zeros(len(hashes), bool)
    found: npt.NDArray[np.bool_] = pd.Series(hashes).isin(some).to_numpy()
    return found


def _mixed(values: Hashes) -> Hashes:
    values = values + _STEP
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def _cells(cells: pa.Array, kind: Kind, missing: frozenset[str]) -> Hashes:
    """Return one hash per cell."""
    import pyarrow as pa

    stored = cells.type
    if pa.types.is_dictionary(stored):
        stored = stored.value_type
    if pa.types.is_string(stored) or pa.types.is_large_string(stored):
        return _texts(cells, kind, missing)
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(stored)
    if pa.types.is_nested(stored) or pa.types.is_binary(stored):
        return _texts(
            pa.array(
                [None if one is None else repr(one) for one in cells.to_pylist()], pa.string()
            ),
            "text",
            frozenset(),
        )
    if pa.types.is_timestamp(stored) or pa.types.is_date(stored):
        cells = cells.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    if pa.types.is_boolean(stored):
        return _true_or_false(cells)
    return _floats(cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _true_or_false(cells: pa.Array) -> Hashes:
    import pyarrow as pa

    # As text, so that a CSV file's True is a Parquet file's.
    return _texts(cells.cast(pa.string()), "boolean", frozenset())


def _floats(values: npt.NDArray[np.float64]) -> Hashes:
    """Return hashes of numbers; NaN is missing, and minus zero is zero."""
    unknown = np.isnan(values)
    found = _mixed((values + 0.0).view(np.uint64))
    found[unknown] = _MISSING
    return found


def _texts(cells: pa.Array, kind: Kind, missing: frozenset[str]) -> Hashes:
    """Return hashes of texts: each different one is hashed once."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = cells if pa.types.is_dictionary(cells.type) else pc.dictionary_encode(cells)
    texts: list[Any] = encoded.dictionary.to_pylist()
    if kind in ("number", "integer"):
        lost = missing | NOT_A_NUMBER | {""}
        known = _floats(np.array([np.nan if one in lost else float(one) for one in texts], float))
    else:
        if kind == "boolean":
            texts = [one.lower() for one in texts]
        known = np.asarray(
            pd.util.hash_array(np.array(texts, object), categorize=False), np.uint64
        ).copy()
        known[[one == "" or one in missing for one in texts]] = _MISSING
    indices = encoded.indices
    found = np.full(len(cells), _MISSING, np.uint64)
    present = pc.is_valid(indices).to_numpy(zero_copy_only=False)
    found[present] = known[indices.drop_null().to_numpy(zero_copy_only=False)]
    return found
