"""Evidently's own drift report, as a file beside ours.

Evidently decides nothing here; it shows a data scientist what they know from elsewhere.  Its
page is four to five megabytes of JavaScript, so it is linked or attached on request and never
stands inside a mail.  It is loaded in a child process only: importing it takes seconds.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Evidently draws a sample of this many rows of each side: its page holds what it draws.
ROWS = 5_000


def write(reference: Path, current: Path, html: Path) -> None:
    """Write Evidently's report of two Parquet files.

    Parameters
    ----------
    reference, current : Path
        Parquet files with the same columns; more than :data:`ROWS` rows are sampled.
    html : Path
        Replaced whole.
    """
    # Before the import: Evidently reads it once and would report its use otherwise.
    os.environ["DO_NOT_TRACK"] = "1"
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    before, now = (pd.read_parquet(path) for path in (reference, current))
    shared = [name for name in before.columns if name in now.columns and now[name].notna().any()]
    before, now = (
        frame[shared].sample(min(len(frame), ROWS), random_state=0) for frame in (before, now)
    )
    # Evidently takes the current window first.
    snapshot = Report([DataDriftPreset()]).run(now, before)
    html.parent.mkdir(parents=True, exist_ok=True)
    partial = html.with_name(f".{html.name}.part")
    snapshot.save_html(str(partial))
    partial.replace(html)
