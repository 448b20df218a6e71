"""Which rows hold the cells that a check of a column found: a second pass, if asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlguard.checks.evidence import Subject
from mlguard.checks.failing_rows import MOST_ROWS, list_rows

if TYPE_CHECKING:
    from mlguard.data.column_scan import ColumnScan


def list_cells(
    subject: Subject, check: str, column: str, rule: str, reference: ColumnScan | None = None
) -> None:
    """List the test rows whose cell broke a rule, where ``--failures-dir`` was given.

    Parameters
    ----------
    subject : Subject
        The gate's.
    check : str
        Id of the check.
    column : str
        The column that broke it.
    rule : str
        What is wrong with such a cell.
    reference : ColumnScan, optional
        Cells beyond its range and categories are listed; without one, missing cells.
    """
    if subject.failures_dir is None or column not in subject.test_scan:
        return
    import numpy as np
    import pandas as pd

    from mlguard.data.sampling import iterate_frames

    data = subject.settings.data
    found, start = [], 0
    for frame in iterate_frames(
        subject.settings.path(data.test),
        subject.test_scan,
        missing_values=data.missing_values,
        columns=[column],
    ):
        values = frame[column]
        mask = values.isna().to_numpy()
        if reference is not None:
            expected = reference.column
            if expected.categories is not None:
                mask = ~mask & ~values.astype(str).isin(expected.categories).to_numpy()
            else:
                numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)
                low = -np.inf if expected.low is None else expected.low
                high = np.inf if expected.high is None else expected.high
                mask = (numbers < low) | (numbers > high)
        found.append(np.flatnonzero(mask) + start)
        start += len(frame)
        if sum(map(len, found)) >= MOST_ROWS:
            break
    list_rows(subject, check, "test", np.concatenate(found), rule=rule, column=column)
