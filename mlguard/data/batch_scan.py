"""One column of one batch: the kernels of a scan.

Everything is a whole-array operation of pyarrow or numpy, which hold no lock, so that two
threads scan twice as fast.  No BLAS: its own threads wait by spinning, and would take from the
scan's what they are there to give.  What a column has lost already (it was no number, or held
too many different values) is not looked for again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlguard.data.column_scan import LONGEST, MOST_COUNTED, ColumnScan, Numbers, Storage
from mlguard.data.frames import NOT_A_NUMBER

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

#: Of so many values one is looked at to find the commonest of a batch.
_STRIDE = 64
#: Whole numbers below this are whole as floats too.
_EXACT = 2.0**53
_WHOLE = r"^[ \t]*[+-]?[0-9]+[ \t]*$"
_DATE = r"^[0-9]{4}-.{5}"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a column is expected to hold: a range, or categories by name."""

    low: float = -math.inf
    high: float = math.inf
    categories: frozenset[str] | None = None


def scan_column(
    name: str,
    cells: pa.Array,
    *,
    missing: frozenset[str] = frozenset(),
    expected: Expected | None = None,
    so_far: ColumnScan | None = None,
) -> ColumnScan:
    """Summarise one column of a batch.

    Parameters
    ----------
    name : str
        The column.
    cells : pyarrow.Array of shape (n_rows,)
        Its cells.
    missing : frozenset of str
        Tokens that mean missing, beside empty text, null and NaN.
    expected : Expected, optional
        Values beyond it are counted.
    so_far : ColumnScan, optional
        What it will be merged into.
    """
    import pyarrow as pa

    kind = cells.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        if not _is_text(kind):
            cells = cells.cast(kind)
    counting = so_far is None or so_far.counts is not None
    if _is_text(kind):
        numeric = so_far is None or so_far.numbers is not None
        timely = so_far is None or so_far.n_rows == so_far.missing or so_far.times is not None
        return _texts(
            name,
            cells,
            missing,
            expected,
            counting=counting,
            numeric=numeric,
            timely=timely,
        )
    if pa.types.is_boolean(kind):
        return _numbers(name, cells.cast(pa.int8()), "boolean", expected, counting=counting)
    if pa.types.is_integer(kind):
        return _numbers(name, cells, "integer", expected, counting=counting)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numbers(name, cells.cast(pa.float64()), "number", expected, counting=counting)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        moments = cells.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        seconds = _numbers(name, moments, "time", None, counting=False)
        numbers = seconds.numbers or Numbers()
        span = (numbers.low / 1e6, numbers.high / 1e6)
        return replace(seconds, numbers=None, times=span, counts=None)
    return ColumnScan(
        name=name,
        storage="other",
        n_rows=len(cells),
        missing=cells.null_count,
        numbers=None,
        counts=Counter() if cells.null_count == len(cells) else None,
    )


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


# --- numbers -----------------------------------------------------------------------------


def _numbers(
    name: str,
    cells: pa.Array,
    storage: Storage,
    expected: Expected | None,
    *,
    counting: bool,
) -> ColumnScan:
    import numpy as np

    present = cells.drop_null() if cells.null_count else cells
    values = present.to_numpy(zero_copy_only=False)
    # The least of some numbers is NaN where one of them is: no pass of its own to find out.
    if values.dtype.kind == "f" and values.size and math.isnan(values.min()):
        values = values[~np.isnan(values)]
    numbers = moments(values)
    counts, common = _tally(values, numbers, counting=counting)
    outside = 0
    if expected is not None and expected.categories is None and numbers.n + numbers.n_infinite:
        if numbers.low < expected.low or numbers.high > expected.high:
            outside = int(np.count_nonzero((values < expected.low) | (values > expected.high)))
    elif expected is not None and expected.categories is not None:
        outside = len(values)
    return ColumnScan(
        name=name,
        storage=storage,
        n_rows=len(cells),
        missing=len(cells) - len(values),
        numbers=numbers,
        counts=counts,
        common=common,
        outside=outside,
    )


def moments(values: npt.NDArray[Any]) -> Numbers:
    """Return moments and range of numbers without NaN, shape (n,)."""
    import numpy as np

    if not values.size:
        return Numbers()
    low, high = float(values.min()), float(values.max())
    n_infinite = 0
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = values[np.isfinite(values)]
        n_infinite = values.size - finite.size
        values = finite
    if not values.size:
        return Numbers(low=low, high=high, whole=False, n_infinite=n_infinite)
    with np.errstate(over="ignore", invalid="ignore"):  # numbers near the largest have no squares
        mean = float(values.mean(dtype=np.float64))
        away = values - mean
        squares = float(np.einsum("i,i->", away, away))
    whole = values.dtype.kind in "iu"
    return Numbers(int(values.size), mean, squares, low, high, whole, n_infinite)


def _tally(
    values: npt.NDArray[Any], numbers: Numbers, *, counting: bool
) -> tuple[Counter[Any] | None, Counter[Any]]:
    """Count the values where they are few, else the commonest one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not values.size:
        return Counter(), Counter()
    near = max(abs(numbers.low), abs(numbers.high)) < _EXACT
    if counting and numbers.whole and near and numbers.high - numbers.low < MOST_COUNTED:
        # Whole numbers of a short range are counted at their places, without a hash table.
        low = int(numbers.low)
        n = np.bincount(values.astype(np.int64) - low)
        places = np.flatnonzero(n)
        counted = zip((places + low).tolist(), n[places].tolist(), strict=True)
        return Counter(dict(counted)), Counter()
    sample = pa.array(values[::_STRIDE])
    seen = pc.value_counts(sample)
    if counting and len(seen) <= MOST_COUNTED:
        found = pc.value_counts(pa.array(values))
        if len(found) <= MOST_COUNTED:
            return _counter(found), Counter()
    often = seen.field("counts").to_numpy()
    best = int(np.argmax(often))
    if 2 * often[best] <= len(sample):
        return None, Counter()
    value = seen.field("values")[best].as_py()
    return None, Counter({value: int(np.count_nonzero(values == value))})


def _counter(found: pa.StructArray) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    # 0.0 and -0.0 are two values to pyarrow and one key here, so counts are added.
    for key, n in zip(
        found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True
    ):
        counts[key] += n
    return counts


# --- text --------------------------------------------------------------------------------


def _texts(
    name: str,
    cells: pa.Array,
    missing: frozenset[str],
    expected: Expected | None,
    *,
    counting: bool,
    numeric: bool,
    timely: bool,
) -> ColumnScan:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = cells.drop_null() if cells.null_count else cells
    if not pa.types.is_dictionary(encoded.type):
        encoded = pc.dictionary_encode(encoded)
    values = encoded.dictionary.cast(pa.string())
    n = np.bincount(encoded.indices.to_numpy(zero_copy_only=False), minlength=len(values))
    # A dictionary may know values that no row of this batch holds.
    keep = (n > 0) & ~_among(values, {"", *missing})
    if not keep.all():
        values, n = values.filter(pa.array(keep)), n[keep]
    present = int(n.sum())
    named = _among(values, NOT_A_NUMBER)
    floats = numbers = None
    if numeric:
        told = values.filter(pa.array(~named)) if named.any() else values
        floats = _as_numbers(told)
        numbers = None if floats is None else _weighted(floats, n[~named], told)
    counts: Counter[Any] | None = None
    common: Counter[Any] = Counter()
    longest = pc.max(pc.binary_length(values)).as_py() or 0
    if counting and len(values) <= MOST_COUNTED and longest <= LONGEST:
        counts = Counter()
        for value, times in zip(values.to_pylist(), n.tolist(), strict=True):
            counts[value] += times
    elif present and longest <= LONGEST and 2 * n.max() > present:
        best = int(n.argmax())
        common = Counter({values[best].as_py(): int(n[best])})
    return ColumnScan(
        name=name,
        storage="text",
        n_rows=len(cells),
        missing=len(cells) - present,
        named_missing=int(n[named].sum()),
        numbers=numbers,
        times=_as_times(values) if timely and present and numbers is None else None,
        counts=counts,
        common=common,
        outside=_outside(expected, values, n, floats, named),
    )


def _among(values: pa.Array, tokens: Collection[str]) -> npt.NDArray[np.bool_]:
    """Return which texts are one of a few short ones; only those as short are looked at."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = np.zeros(len(values), bool)
    longest = max(len(one.encode()) for one in tokens)
    short = np.flatnonzero(pc.binary_length(values).to_numpy(zero_copy_only=False) <= longest)
    if short.size:
        known = pa.array(sorted(tokens), pa.string())
        found[short] = pc.is_in(values.take(pa.array(short)), value_set=known).to_numpy(
            zero_copy_only=False
        )
    return found


def _outside(
    expected: Expected | None,
    values: pa.Array,
    n: npt.NDArray[np.int64],
    floats: npt.NDArray[np.float64] | None,
    named: npt.NDArray[np.bool_],
) -> int:
    """Count the values beyond what is expected; text where a number is expected is a kind."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if expected is None:
        return 0
    if expected.categories is None:
        if floats is None:
            return 0
        return int(n[~named][(floats < expected.low) | (floats > expected.high)].sum())
    known = pc.is_in(values, value_set=pa.array(sorted(expected.categories), pa.string()))
    return int(n[~known.to_numpy(zero_copy_only=False)].sum())


def _as_numbers(texts: pa.Array) -> npt.NDArray[np.float64] | None:
    """Return the numbers that all texts stand for, or None where one of them is none."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    for form in (texts, pc.utf8_trim_whitespace(texts)):
        try:
            found: npt.NDArray[np.float64] = form.cast(pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            continue
        return found if not np.isnan(found).any() else None
    # Signs and spellings that pyarrow does not know; the first text that is no number ends it.
    try:
        known = [float(one) for one in texts.to_pylist() if "_" not in one]
    except ValueError:
        return None
    return np.array(known) if len(known) == len(texts) else None


def _weighted(
    floats: npt.NDArray[np.float64], n: npt.NDArray[np.int64], texts: pa.Array
) -> Numbers:
    import numpy as np
    import pyarrow.compute as pc

    found = moments(np.repeat(floats, n))
    whole = bool(pc.all(pc.match_substring_regex(texts, _WHOLE)).as_py() is not False)
    return replace(found, whole=whole)


def _as_times(texts: pa.Array) -> tuple[float, float] | None:
    """Return earliest and latest of ISO 8601 texts; None where one of them is no time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.all(pc.match_substring_regex(texts, _DATE)).as_py():
        return None
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            span = pc.min_max(texts.cast(kind).cast(pa.int64())).as_py()
        except pa.ArrowInvalid:
            continue
        return span["min"] / 1e6, span["max"] / 1e6
    try:
        moments_ = [datetime.fromisoformat(one) for one in texts.to_pylist()]
    except ValueError:
        return None
    seconds = [(one if one.tzinfo else one.replace(tzinfo=UTC)).timestamp() for one in moments_]
    return min(seconds), max(seconds)
