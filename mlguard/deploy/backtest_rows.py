"""Labelled rows of a file as the windows that monitors judge.

The model runs in a child process, as everywhere: it may be anything.  The child answers all
rows at once and makes the reference; the parent keeps the columns and dresses both up as the
traffic that they would have been.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlguard.checks.evidence import JudgedModel, Subject
from mlguard.checks.labels import attribute
from mlguard.checks.reference import reference_document
from mlguard.config import AppSettings, ProjectSettings, load_app, load_project
from mlguard.data.frames import read_frame, select_columns
from mlguard.data.logged_values import objects
from mlguard.errors import DataError, UsageError
from mlguard.models.isolation import run_in_child
from mlguard.monitors.window import WindowData

if TYPE_CHECKING:
    import pandas as pd

#: Rows from ``--start`` on that the reference is learned on.
REFERENCE_ROWS = 2000
#: Seconds that the model may take for each row, besides what starting takes.
_ROW_S = 0.005
_START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """A file's rows as the traffic that they would have been.

    Attributes
    ----------
    rows : WindowData
        In the file's order; ``query_id`` is the 0-based row.  ``time`` is in seconds since the
        epoch, or the row where there is no time column.
    reference : dict
        What the version would have been accepted with.
    n_reference : int
        Labelled rows behind it.
    first : int
        First row that is judged.
    timed : bool
        Whether there is a time column.
    """

    rows: WindowData
    reference: dict[str, Any]
    n_reference: int
    first: int
    timed: bool


def answered(
    project: ProjectSettings,
    settings: AppSettings,
    data: str,
    *,
    model: Path,
    name: str,
    manifest: Mapping[str, Any] | None = None,
    start: int | None = None,
) -> Answered:
    """Let a model answer the rows of a file.

    Parameters
    ----------
    project, settings
        The project and the app.
    data : str
        CSV or Parquet file, or fsspec URL, with the target column.
    model : Path
        The model's bytes.
    name : str
        How the version is called.
    manifest : mapping, optional
        Manifest of a registered version; default: made from the file, as a deployment would.
    start : int, optional
        Learn the reference on the 2,000 rows from here and judge those after them; default:
        learn it on ``[data] test`` and judge all.

    Raises
    ------
    DataError
        If the file is missing, unreadable, lacks a column, or its times do not rise.
    UsageError
        If no row is left to judge.
    MlguardError
        If the model does not load or run.
    """
    target, when = settings.data.target, settings.data.time
    frame = read_frame(data, missing_values=settings.data.missing_values)
    select_columns(frame, [target, *([when] if when else [])], where=data)
    first = 0 if start is None else start + REFERENCE_ROWS
    if first >= len(frame):
        raise UsageError(
            f"--start {start} leaves no row to judge: {data} has {len(frame)} rows and the "
            f"reference takes {REFERENCE_ROWS}"
            if start is not None
            else f"{data} has no rows",
            hint="name an earlier row, or a longer file",
        )
    times = _times(frame[when], data) if when else np.arange(len(frame), dtype=float)
    with tempfile.TemporaryDirectory(prefix="mlguard-backtest-") as scratch:
        out = Path(scratch) / "answers.json"
        run_in_child(
            "mlguard.deploy.backtest_rows:answer",
            {
                "root": str(project.root),
                "app": settings.name,
                "data": data if "://" in data else str(Path(data).resolve()),
                "model": str(model.resolve()),
                "name": name,
                "manifest": None if manifest is None else dict(manifest),
                "start": start,
                "out": str(out),
            },
            memory_mib=settings.model.memory_mib,
            wall_s=_START_S + _ROW_S * len(frame),
        )
        told = json.loads(out.read_text(encoding="utf-8"))
    rows = _dressed(frame, told, settings, times, name)
    return Answered(
        rows=rows.take(slice(first, None)),
        reference=told["reference"],
        n_reference=int(told["reference"]["n_rows"]),
        first=first,
        timed=bool(when),
    )


class _History(Subject):
    """The subject of a reference: a model, and the rows that it is learned on."""

    def __init__(self, payload: Mapping[str, Any], settings: AppSettings) -> None:
        project = load_project(payload["root"])
        super().__init__(project, settings, model=Path(payload["model"]), name=payload["name"])
        self._manifest_told = payload["manifest"]
        self._start = payload["start"]
        self.history = read_frame(payload["data"], missing_values=settings.data.missing_values)

    @cached_property
    def test(self) -> pd.DataFrame:
        """Rows that the reference is learned on."""
        if self._start is None:
            return self._frame(self.settings.data.test, "test")
        part = self.history.iloc[self._start : self._start + REFERENCE_ROWS]
        return part.reset_index(drop=True)

    @cached_property
    def candidate(self) -> JudgedModel:
        """The model: a registered version as it was registered, else a file."""
        if self._manifest_told is None:
            return Subject(
                self.project, self.settings, model=self.model_path, name=self.name
            ).candidate
        from mlguard.models.bundle import Manifest
        from mlguard.models.predictor import load_predictor

        manifest = Manifest.from_json(self._manifest_told)
        predictor = load_predictor(manifest, self.model_path)
        return self._judged(self.name, predictor, manifest.thresholds)


def answer(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Answer the rows of a payload and make the reference; runs in the child process."""
    settings = load_app(load_project(payload["root"]), payload["app"])
    subject = _History(payload, settings)
    answers = subject.candidate.predict(subject.history)
    scores = answers.scores
    document = {
        "reference": reference_document(subject),
        "features": subject.candidate.features,
        "output": [one.item() if hasattr(one, "item") else one for one in answers.labels.tolist()],
        "score": None if scores is None or scores.ndim != 1 else scores.tolist(),
        "valid": np.asarray(answers.valid, bool).tolist(),
        "reasons": {str(key): why for key, why in getattr(answers, "reasons", {}).items()},
    }
    Path(payload["out"]).write_text(json.dumps(document), encoding="utf-8")
    return {"n_rows": len(subject.history)}


def _dressed(
    frame: pd.DataFrame,
    told: Mapping[str, Any],
    settings: AppSettings,
    times: npt.NDArray[np.float64],
    name: str,
) -> WindowData:
    """Return the rows as if they had been asked for, answered, logged and labelled."""
    n = len(frame)
    valid = np.asarray(told["valid"], bool)
    labelled = frame[settings.data.target].notna().to_numpy()
    explanation = objects([None] * n)
    for place in np.flatnonzero(~valid).tolist():
        explanation[place] = told["reasons"].get(str(place), "the model gave no usable answer")
    attributes = [
        one
        for one in dict.fromkeys([*settings.data.sensitive, *settings.monitor.fairness.by])
        if one in frame.columns
    ]
    groups: list[dict[str, str]] = [{} for _ in range(n)]
    for one in attributes:
        for place, value in enumerate(attribute(frame, one)):
            if value is not None:
                groups[place][one] = str(value)
    return WindowData(
        version=name,
        generation=1,
        query_id=np.arange(n),
        time=times,
        columns={one: _column(frame[one]) for one in told["features"] if one in frame.columns},
        output=objects(told["output"]),
        score=np.full(n, np.nan) if told["score"] is None else np.asarray(told["score"], float),
        default=~valid,
        valid=np.ones(n, bool),
        inputs_kept=np.ones(n, bool),
        explanation=explanation,
        groups=groups,
        label=objects(frame[settings.data.target].astype(object).tolist()),
        labelled=labelled,
        source=objects(["history" if one else None for one in labelled]),
        seq=np.where(labelled, np.arange(1, n + 1), 0),
        arrived=np.where(labelled, times, np.nan),
    )


def _column(values: pd.Series[Any]) -> npt.NDArray[Any]:
    """Return a column as the log gives it back: numbers as numbers, all else as text."""
    from pandas.api import types

    if types.is_numeric_dtype(values) and not types.is_bool_dtype(values):
        return values.to_numpy(float, na_value=np.nan)
    present = values.notna().to_numpy()
    return objects(
        [
            (one if isinstance(one, bool) else str(one)) if there else None
            for one, there in zip(values.tolist(), present, strict=True)
        ]
    )


def _times(values: pd.Series[Any], data: str) -> npt.NDArray[np.float64]:
    """Return seconds since the epoch; numbers are taken as such."""
    import pandas as pd
    from pandas.api import types

    if types.is_numeric_dtype(values):
        times = values.to_numpy(float, na_value=np.nan)
    else:
        try:
            moments = pd.to_datetime(values, utc=True)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{data}: the column {values.name!r} holds no times: {error}",
                hint='write them like "2026-01-31 12:00", or clear [data] time in app.toml',
            ) from error
        times = (moments - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(float)
    if np.isnan(times).any() or (np.diff(times) < 0).any():
        raise DataError(
            f"{data}: the times in {values.name!r} do not rise from row to row",
            hint="sort the rows by time and fill in missing times, or clear [data] time in "
            "app.toml so that rows are the clock",
        )
    return times
