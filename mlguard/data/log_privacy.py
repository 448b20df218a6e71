"""What the stored prediction log holds that looks like personal data.

Redaction is a promise about rows that are written from now on.  What was written before it, what
callers put into a text that nobody thought of, the ``uid``, the attributes of ``groups``: only
the rows themselves tell.  A few thousand of each version's newest are looked at; names and
counts come out, never values.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard.data.log_columns import FIXED_COLUMNS, feature_of
from mlguard.data.pii import PersonalData, find_personal_data

if TYPE_CHECKING:
    import pyarrow as pa

    from mlguard.data.prediction_log import PredictionLog

#: Rows of each version that are looked at.
MOST_ROWS = 5_000
#: Fixed columns that hold what callers or models wrote; numbers and flags are mlguard's own.
_WRITTEN = ("uid", "output", "explanation")


@dataclass(frozen=True, slots=True)
class LogLook:
    """What was found in one app's log.

    Attributes
    ----------
    n_rows : int
        Rows that were looked at.
    found : dict of str to PersonalData
        By the name that ``[log] redact`` knows the column by; of several versions the one that
        holds most.
    inputs : frozenset of str
        Columns that hold an input of the model.
    """

    n_rows: int
    found: dict[str, PersonalData]
    inputs: frozenset[str] = frozenset()


def look_into(log: PredictionLog, app: str, *, most_rows: int = MOST_ROWS) -> LogLook:
    """Look for personal data in the newest rows of each version's log.

    Parameters
    ----------
    log : PredictionLog
        Where the rows are.
    app : str
        Whose.
    most_rows : int
        Rows of each version that are looked at.

    Raises
    ------
    DataError
        If a closed segment is damaged.
    """
    n_rows = 0
    found: dict[str, PersonalData] = {}
    inputs: set[str] = set()
    for table in log.newest(app, most_rows):
        n_rows += table.num_rows
        inputs |= {feature_of(name) for name in table.column_names if name not in FIXED_COLUMNS}
        for name, texts in _texts(table):
            one = find_personal_data(name, texts)
            if one is not None and (name not in found or one.found > found[name].found):
                found[name] = one
    return LogLook(n_rows, dict(sorted(found.items())), frozenset(inputs))


def _texts(table: pa.Table) -> Iterator[tuple[str, list[str]]]:
    """Yield what is written in each column that could hold personal data, as text."""
    import pyarrow as pa

    for name in table.column_names:
        kind = table.schema.field(name).type
        wanted = name in _WRITTEN or name not in FIXED_COLUMNS
        if wanted and (pa.types.is_string(kind) or pa.types.is_integer(kind)):
            values = (str(one) for one in table[name].to_pylist() if one is not None)
            yield name if name in _WRITTEN else feature_of(name), list(values)
    groups: dict[str, list[str]] = defaultdict(list)
    for text in table["groups"].to_pylist():
        for name, value in _groups(text).items():
            if value is not None:
                groups[name].append(str(value))
    yield from groups.items()


def _groups(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
