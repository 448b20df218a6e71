r"""What the training data suggests to expect: from a scan to expectations and limits.

Every expectation holds on the data it was made from.  Ranges get some room, because the next
rows will reach a little further; columns of free text get their shape where all values share
one (``\d+ patients``), and nothing where they do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mlguard.data.schema import Column

if TYPE_CHECKING:
    from mlguard.config import AppSettings
    from mlguard.data.column_scan import ColumnScan
    from mlguard.data.scan import TableScan

#: Room beyond the range that was seen, as a part of its width.
_ROOM = 0.1
#: Points by which a column may be filled less than it was.
_GAP = 0.05
#: Shortest list of values that a shape is read from.
_FEWEST_VALUES = 20


def expectations_of(
    scan: TableScan, *, ignored: Collection[str] = (), target: str = ""
) -> list[dict[str, Any]]:
    """Return expectations that a table meets, in Great Expectations' own form.

    Parameters
    ----------
    scan : TableScan
        What the table holds.
    ignored : collection of str
        Columns whose values say nothing: identifiers and times.
    target : str
        Column that must never be missing.
    """
    found: list[dict[str, Any]] = [
        {
            "type": "expect_table_columns_to_match_set",
            "kwargs": {"column_set": list(scan.names), "exact_match": True},
        }
    ]
    for name in scan.names:
        if name in ignored:
            found.append(_expectation("expect_column_values_to_not_be_null", name))
        else:
            found += _of_column(scan[name], must_be_there=name == target)
    return found


def _of_column(scan: ColumnScan, *, must_be_there: bool) -> list[dict[str, Any]]:
    column = scan.column
    name, missing = column.name, column.missing_share
    if not scan.n:
        return [_expectation("expect_column_values_to_be_null", name)]
    found = []
    if missing == 0 or must_be_there:
        found.append(_expectation("expect_column_values_to_not_be_null", name))
    else:
        mostly = max(0.0, math.floor(100 * (1 - missing - _GAP)) / 100)
        if mostly > 0:
            found.append(_expectation("expect_column_values_to_not_be_null", name, mostly=mostly))
    if column.kind in ("number", "integer") and column.low is not None and column.high is not None:
        low, high = _with_room(column)
        found.append(
            _expectation("expect_column_values_to_be_between", name, min_value=low, max_value=high)
        )
    elif column.kind == "boolean":
        found.append(
            _expectation("expect_column_values_to_be_in_set", name, value_set=[True, False])
        )
    elif column.categories is not None and column.kind == "category":
        found.append(
            _expectation(
                "expect_column_values_to_be_in_set", name, value_set=list(column.categories)
            )
        )
    elif column.kind == "text" and (shape := shape_of(scan)):
        found.append(_expectation("expect_column_values_to_match_regex", name, regex=shape))
    return found


def _expectation(kind: str, column: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": {"column": column, **more}}


def _with_room(column: Column) -> tuple[float, float]:
    """Return a range a little wider than the one that was seen; a sign is kept."""
    assert column.low is not None  # whoever asks has looked
    assert column.high is not None
    room = _ROOM * (column.high - column.low)
    low, high = column.low - room, column.high + room
    if column.low >= 0:
        low = max(low, 0.0)
    if column.high <= 0:
        high = min(high, 0.0)
    if column.kind == "integer":
        return math.floor(low), math.ceil(high)
    digits = 3 - math.floor(math.log10(room)) if room > 0 else 12
    return round(low, digits), round(high, digits)


def shape_of(scan: ColumnScan) -> str:
    r"""Return a regular expression that all values of a column match; empty where none tells.

    Digits become ``\d+``; what stays the same in all values stays.
    """
    if scan.tally is None or len(scan.tally) < _FEWEST_VALUES:
        return ""
    shapes = {re.sub(r"[0-9]+", "0", str(one)) for one in scan.tally}
    if len(shapes) == 1:
        only = re.escape(next(iter(shapes))).replace("0", r"\d+")
        return f"^{only}$" if r"\d" in only else ""
    return ""


def limits_of(settings: AppSettings, scan: TableScan) -> str:
    """Return limits for an app as TOML, each with the reason for it."""
    lines = [
        f"# Limits that {scan.n_rows} training rows of {settings.name} suggest.",
        f"# Copy what fits into serving/{settings.name}/app.toml and delete this file.",
        "",
    ]
    data, gate = settings.data, settings.gate.data_quality
    features = [
        one for name, one in scan.columns.items() if name not in (data.id, data.time, data.target)
    ]
    gappy = max((one.missing_share for one in features), default=0.0)
    lines += [
        "[gate.data_quality.missing]",
        f"# The emptiest column lacks {100 * gappy:.3g} % of its values; shares may move so far.",
        f"at_most = {gate.missing.at_most if gappy else 0.01}",
        "",
        "[gate.data_quality.ranges]",
        f"# By chance about {100 * 2 / (scan.n_rows + 1):.2g} % of new numbers lie beyond these.",
        f"at_most = {_rounded_up(max(gate.ranges.at_most, 8 / (scan.n_rows + 1)))}",
    ]
    top = max((_top_share(one) for one in features), default=0.0)
    lines += [
        "",
        "[gate.data_quality.constants]",
        f"# The commonest value of a column holds {100 * top:.4g} % of its rows.",
        f"at_most = {gate.constants.at_most}",
    ]
    label = scan.columns.get(data.target)
    if settings.app.task == "classification" and label is not None and label.tally:
        rarest = min(label.tally.values()) / label.n
        lines += [
            "",
            "[gate.data_quality.balance]",
            f"# The rarest class has {100 * rarest:.3g} % of the rows.",
            f"at_most = {_rounded_up(min(0.1, max(0.01, rarest / 2)))}",
        ]
    return "\n".join(lines) + "\n"


def _top_share(scan: ColumnScan) -> float:
    return scan.top[1] / scan.n if scan.top and scan.n else 0.0


def _rounded_up(value: float) -> float:
    return math.ceil(1000 * value) / 1000
