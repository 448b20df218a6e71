"""Send the rows of a file to a running server, and their labels after them.

Rows go as live traffic would: one request each, a few at a time, so that the server batches
them; labels follow in the order of the rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard.client import Client
from mlguard.config import AppSettings
from mlguard.data.frames import read_frame, select_columns
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.deploy.training import Progress
from mlguard.wording import Step

if TYPE_CHECKING:
    import pandas as pd

#: Requests under way at once; labels are sent after each such group of rows.
CONCURRENT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay did.

    Attributes
    ----------
    app : str
        Whom it asked.
    rows, labels, defaults : int
        Predictions asked for, labels accepted, and answers that were the default output.
    duration_s : float
        Wall time.
    """

    app: str
    rows: int
    labels: int
    defaults: int
    duration_s: float
    exit_code: int = 0
    next_step: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """What happened, in a sentence."""
        rate = self.rows / self.duration_s if self.duration_s > 0 else math.inf
        sent = f"Sent {self.rows:,} rows and {self.labels:,} labels to {self.app}"
        pace = f"in {self.duration_s:.1f} s ({rate:,.0f} rows a second)"
        return (f"{sent} {pace}; {self.defaults:,} answers were the default output.",)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "replay",
            "ok": True,
            "changed": False,
            "exit_code": self.exit_code,
            "app": self.app,
            "rows": self.rows,
            "labels": self.labels,
            "defaults": self.defaults,
            "duration_s": self.duration_s,
        }


def replay(
    settings: AppSettings,
    data: str,
    features: Sequence[str],
    client: Client,
    *,
    rate: float = 0,
    labels: bool = True,
    progress: Progress = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Replayed:
    """Replay a file of rows.

    Parameters
    ----------
    settings : AppSettings
        The app.
    data : str
        CSV or Parquet file, or fsspec URL.
    features : sequence of str
        Inputs of the app, in order.  Table rows are sent with every other column as well that
        is no target, group, time or id: an older version may need it.
    client : Client
        Of the running server.
    rate : float
        Rows a second; 0: as fast as it goes.
    labels : bool
        Whether to send each row's target as its label.

    Raises
    ------
    DataError
        If the file is missing, unreadable or lacks a column.
    """
    frame = read_frame(data, missing_values=settings.data.missing_values)
    needed = [*features, *([settings.data.target] if labels else [])]
    select_columns(frame, needed, where=data)
    began, sent, labelled, defaults = clock(), 0, 0, 0
    with ThreadPoolExecutor(CONCURRENT) as pool:
        for group in _groups(frame, CONCURRENT):
            answers = list(pool.map(lambda row: _predict(client, settings, features, row), group))
            sent += len(answers)
            defaults += sum(bool(answer["default"]) for answer in answers)
            if labels:
                for row, answer in zip(group, answers, strict=True):
                    client.update(settings.name, answer["query_id"], row[settings.data.target])
                    labelled += 1
            tenths = f"sent {10 * (10 * sent // len(frame))} % of {len(frame):,} rows"
            progress(Step(tenths, sent, len(frame)))
            if rate > 0:
                sleep(max(0.0, sent / rate - (clock() - began)))
    return Replayed(
        app=settings.name,
        rows=sent,
        labels=labelled,
        defaults=defaults,
        duration_s=clock() - began,
        next_step=f"mlguard status {settings.name}",
    )


def _groups(frame: pd.DataFrame, size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(frame), size):
        part = frame.iloc[start : start + size].astype(object)
        rows = part.where(part.notna(), None).to_dict("records")
        yield [{str(name): value for name, value in row.items()} for row in rows]


def _predict(
    client: Client, settings: AppSettings, features: Sequence[str], row: dict[str, Any]
) -> dict[str, Any]:
    groups = {name: str(row[name]) for name in settings.data.sensitive if row.get(name) is not None}
    asked: Any
    if settings.app.input == "table":
        apart = {
            settings.data.target,
            settings.data.time,
            settings.data.id,
            *settings.data.sensitive,
        } - set(features)
        asked = {name: value for name, value in row.items() if name not in apart}
    else:
        asked = [row[name] for name in features]
        if settings.app.input in ("strings", "bytes"):
            asked = asked[0]
    return client.predict(settings.name, asked, groups=groups or None)
