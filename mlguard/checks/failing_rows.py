"""Rows that broke a rule, listed by their id in a file per check: never with their values.

The files stand in the folder of ``--failures-dir``.  Each has the columns ``id`` (the value of
``[data] id``, else the 0-based row number), ``column`` (empty: the whole row) and ``rule``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.checks.evidence import Subject
from mlguard.wording import printable

if TYPE_CHECKING:
    import numpy as np

#: Most rows that are listed of one check and column.
MOST_ROWS = 10_000


def list_rows(
    subject: Subject,
    check: str,
    part: str,
    places: np.ndarray,
    *,
    rule: str,
    column: str = "",
) -> None:
    """List rows of a data file, where a folder was asked for.

    Parameters
    ----------
    subject : Subject
        Says where, and which column identifies a row.
    check : str
        Id of the check, from which the file has its name.
    part : {"test", "train"}
        Which file the rows are of.
    places : ndarray of shape (n,)
        Their 0-based row numbers, rising.
    rule : str
        What they broke.
    column : str
        The column that broke it; empty for the whole row.
    """
    if subject.failures_dir is None or not len(places):
        return
    places = places[:MOST_ROWS]
    row_id = subject.settings.data.id
    scan = subject.test_scan if part == "test" else subject.train_scan
    ids: Iterable[Any] = places.tolist()
    if row_id and scan is not None and row_id in scan:
        from mlguard.data.sampling import take_rows

        data = subject.settings.data
        frame = take_rows(
            subject.settings.path(getattr(data, part)),
            scan,
            places,
            missing_values=data.missing_values,
            columns=[row_id],
        )
        ids = frame[row_id].tolist()
    file = subject.failures_dir / f"{check.replace('.', '-')}-{part}.csv"
    write_rows(file, ids, column, rule, more=file in subject.listed_files)
    subject.listed_files.add(file)


def write_rows(
    file: Path, ids: Iterable[Any], column: str, rule: str, *, more: bool = False
) -> None:
    """Write rows to a file with a header.

    Parameters
    ----------
    file : Path
        CSV file; its folder is made.
    ids : iterable
        What identifies each row.
    column, rule : str
        As in :func:`list_rows`.
    more : bool
        Whether they are added to what this run has written there; else an older file goes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a" if more else "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        if not more:
            writer.writerow(["id", "column", "rule"])
        writer.writerows((_safe(one), _safe(column), rule) for one in ids)


def _safe(value: object) -> str:
    """Write a value so that no spreadsheet takes it for a formula."""
    text = printable(value)
    plain = text.lstrip("-+").replace(".", "", 1).isdigit()
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not plain else text
