"""Tables in files: CSV and Parquet, plain or compressed, on a disk or behind any fsspec URL.

One rule for missing cells, so that a model sees in production what it saw in training: an
empty cell and every token of ``missing_values`` is missing in every column.  The usual
spellings of "not available" (``NA``, ``null``, ``NaN``, …) are missing only in a column that
is otherwise numeric, where they can mean nothing else; in a column of text they stay text.
"""

from __future__ import annotations

import difflib
import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mlguard.errors import DataError, MlguardError

if TYPE_CHECKING:
    import pandas as pd

#: What a missing number is called in files that others write.
NOT_A_NUMBER = frozenset(
    {"#N/A", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "-nan", "-NaN"}
)
_PARQUET = (".parquet", ".pq")
_CHUNK = 1 << 20


def read_frame(
    url: str, *, missing_values: Sequence[str] = (), columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a table.

    Parameters
    ----------
    url : str
        A path or an fsspec URL.  ``.parquet`` and ``.pq`` are Parquet, everything else is CSV
        with a header line; ``.gz``, ``.bz2``, ``.xz`` and ``.zip`` are unpacked.
    missing_values : sequence of str
        Tokens that mean missing, beside empty cells.
    columns : sequence of str, optional
        Only these columns, in this order.

    Returns
    -------
    pandas.DataFrame of shape (n_rows, n_columns)
        At least one row.  Numbers are int64 or float64 (missing: NaN), truth values bool,
        text is pandas' ``str`` (missing: NaN).  Categorical columns of Parquet become text, so
        that a table means the same from either format.

    Raises
    ------
    DataError
        If the file is missing, unreadable, empty, or lacks one of ``columns``.
    """
    import pandas as pd

    def parse(stream: IO[bytes]) -> pd.DataFrame:
        if is_parquet(url):
            return pd.read_parquet(io.BytesIO(stream.read()))
        return pd.read_csv(
            stream,
            keep_default_na=False,
            na_values=["", *missing_values],
            # Guessing types chunk by chunk gives columns of mixed types.
            low_memory=False,
        )

    with with_stream(url) as stream:
        frame = parse(stream)
    if frame.empty:
        raise DataError(f"{url} has a header but no rows", hint="a table needs at least one row")
    frame.columns = [str(name) for name in frame.columns]
    if columns is not None:
        frame = select_columns(frame, columns, where=url)
    return _normalised(frame, frozenset(missing_values))


def select_columns(frame: pd.DataFrame, columns: Sequence[str], *, where: str) -> pd.DataFrame:
    """Return some columns of a table, in the order asked for.

    Parameters
    ----------
    frame : pandas.DataFrame
        The table.
    columns : sequence of str
        Names, each of which must be there.
    where : str
        What the table is called in the error.

    Raises
    ------
    DataError
        If a column is absent; names the nearest one that is there.
    """
    known = [str(name) for name in frame.columns]
    for name in columns:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(
                f"{where} has no column {name!r}{guess}",
                hint=f"correct the name, or the data; its columns: {', '.join(known)}",
                column=name,
            )
    return frame[list(columns)]


def write_frame(frame: pd.DataFrame, url: str) -> None:
    """Write a table, without its index, in the format that the name asks for.

    Parameters
    ----------
    frame : pandas.DataFrame
        The table.
    url : str
        A path or an fsspec URL; see :func:`read_frame`.  Folders of a path are made.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    import fsspec

    if "://" not in url:
        Path(url).parent.mkdir(parents=True, exist_ok=True)
    try:
        with fsspec.open(url, "wb", compression="infer") as stream:
            if is_parquet(url):
                frame.to_parquet(stream, index=False)
            else:
                frame.to_csv(stream, index=False)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{url} cannot be written: {error}") from error


def file_digest(url: str) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hex digits.

    Raises
    ------
    DataError
        If the file is missing or unreadable.
    """
    found = hashlib.sha256()
    with with_stream(url, compression=None) as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


@contextmanager
def with_stream(url: str, compression: str | None = "infer") -> Iterator[IO[bytes]]:
    """Open a file for reading, and say in one place what may be wrong with it.

    Parameters
    ----------
    url : str
        A path or an fsspec URL.
    compression : str, optional
        ``"infer"`` from the name, or None for the bytes as they are.

    Raises
    ------
    DataError
        If the file is missing, or whatever is raised while it is used.
    """
    import fsspec

    try:
        with fsspec.open(url, "rb", compression=compression) as stream:
            yield stream
    except FileNotFoundError as error:
        raise DataError(
            f"there is no file {url}",
            hint="correct the path in app.toml, or make the file: its train script writes it",
            path=url,
        ) from error
    except MlguardError:
        raise
    # Parsers, decompressors and remote stores raise anything they like on bad bytes.
    except Exception as error:
        raise DataError(
            f"{url} cannot be read: {_first_line(error)}", hint=_advice(url), path=url
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return text or type(error).__name__


def _advice(url: str) -> str:
    if Path(url).is_dir():
        return "name a file, not a folder"
    kind = "Parquet" if is_parquet(url) else "CSV with a header line"
    return f"the name says {kind}; check that the file is that, whole, and not empty"


def is_parquet(url: str) -> bool:
    """Return whether a name says Parquet; everything else is CSV."""
    return url.lower().endswith(_PARQUET)


def _normalised(frame: pd.DataFrame, missing_values: frozenset[str]) -> pd.DataFrame:
    """Give text, categories and numbers the one form that models and checks expect."""
    import pandas as pd

    fixed: dict[str, Any] = {}
    for name in frame.columns:
        values = frame[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = values.astype(values.cat.categories.dtype)
        if isinstance(values.dtype, pd.StringDtype) or values.dtype == object:
            values = _text_or_number(values, missing_values)
        if values is not frame[name]:
            fixed[name] = values
    return frame.assign(**fixed) if fixed else frame


def _text_or_number(values: pd.Series[Any], missing_values: frozenset[str]) -> pd.Series[Any]:
    import pandas as pd

    texts = values.map(lambda one: isinstance(one, str))
    if not (texts | values.isna()).all():
        return values  # truth values beside missing cells, bytes, decimals
    if missing_values:
        values = values.mask(values.isin(list(missing_values)))
    named = values.isin(list(NOT_A_NUMBER))
    if named.any() and not (named | values.isna()).all():
        try:
            return pd.to_numeric(values.mask(named))
        except (ValueError, TypeError):
            pass
    return values.astype("str")
