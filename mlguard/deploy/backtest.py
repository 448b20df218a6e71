"""What would these monitors have done on rows whose labels are known: ``mlguard backtest``.

Every verdict, every alarm and what it would have asked for, with its row, beside what the model
lost on these rows and what always repeating the last label would have lost.  Nothing is
registered and no traffic moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlguard.config import AppSettings, ProjectSettings
from mlguard.data.joint import class_name
from mlguard.deploy.backtest_rows import Answered, answered
from mlguard.deploy.backtest_story import picture, story
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.deploy.rehearsal import Heard, Rehearsal, untimed, with_window
from mlguard.errors import UsageError
from mlguard.monitors.losses import reference_scale, row_losses
from mlguard.policy import Level
from mlguard.results import strict
from mlguard.stats.run_length import block_needed, kept_run_length, proven_correlation
from mlguard.stats.sequential import lag1_correlation
from mlguard.wording import moment, rfc3339

if TYPE_CHECKING:
    from mlguard.registry import Registry

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtested:
    """What the monitors would have said and asked for.

    Attributes
    ----------
    app, model : str
        Whose monitors, and how the model is called.
    heard : tuple of Heard
        Every result, in the order in which it was known.
    summary : dict
        The figures of the whole, as JSON values.
    timed : bool
        Whether rows have times.
    change : int or None
        The row that delays are counted from.
    plot : Path or None
        The picture, where one was asked for.
    """

    app: str
    model: str
    heard: tuple[Heard, ...]
    summary: dict[str, Any]
    timed: bool
    change: int | None = None
    plot: Path | None = None

    exit_code = 0

    @property
    def alarms(self) -> tuple[Heard, ...]:
        """New alarms, in order."""
        return tuple(one for one in self.heard if one.alarm)

    @property
    def lines(self) -> tuple[str, ...]:
        """What would have happened, at most 80 columns wide."""
        wrote = (f"Wrote {self.plot}",) if self.plot is not None else ()
        return (*story(self.app, self.model, self.heard, self.summary, timed=self.timed), *wrote)

    @property
    def next_step(self) -> str:
        """The command to type next."""
        return f"mlguard calibrate {self.app}"

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "backtest",
            "ok": True,
            "changed": False,
            "exit_code": self.exit_code,
            "app": self.app,
            "model": self.model,
            "events": [self._event(one) for one in self.heard],
            "summary": self.summary,
            "plot": None if self.plot is None else str(self.plot),
        }

    def _words(self, one: Heard) -> str:
        raised = one.result.details.get("alarm") or {}
        words = one.result.summary
        return words if self.timed or not raised else _placed(words, raised["change_point"])

    def _event(self, one: Heard) -> dict[str, Any]:
        found = one.result
        raised = found.details.get("alarm") or {}
        document = {
            "row": one.row,
            "time": rfc3339(one.at) if self.timed else None,
            "monitor": one.monitor,
            "check": found.id,
            "subject": found.subject,
            "verdict": found.verdict.value,
            "value": found.value,
            "interval": None if found.interval is None else list(found.interval),
            "limit": found.limit,
            "n": found.n,
            "reason": found.reason,
            "summary": self._words(one),
            "action": one.action.level.word,
            "wanted": one.action.wanted.word,
            "deferred": one.action.deferred,
            "alarm": one.alarm,
            "delay": None
            if self.change is None or one.row < self.change
            else one.row - self.change,
            "change_point": raised.get("change_point", {}).get("query_id"),
        }
        plain: dict[str, Any] = strict(document)
        return plain


def _placed(words: str, change: Mapping[str, Any]) -> str:
    """Name the row where a monitor, to which rows were seconds, named a time."""
    return words.replace(f"about {moment(change['time'])}", f"about row {change['query_id']}")


def backtest(
    project: ProjectSettings,
    settings: AppSettings,
    registry: Registry,
    data: str,
    *,
    model: Path | None = None,
    label_delay: int = 0,
    window: int | None = None,
    start: int | None = None,
    change: int | None = None,
    plot: Path | None = None,
    progress: Progress = lambda _: None,
) -> Backtested:
    """Replay labelled rows through a model and all monitors of an app.

    Parameters
    ----------
    project, settings, registry
        The project, the app, and who knows what serves it.
    data : str
        CSV or Parquet file, or fsspec URL, with the target column.
    model : Path, optional
        A model file; default: the active version, else ``[model] path``.
    label_delay : int, default 0
        Rows after which a row's label arrives.
    window : int, optional
        Rows of a window of every monitor, at least 20; default: each one's ``window_rows``.
    start : int, optional
        Learn the reference on the 2,000 rows from here and judge those after them; default:
        learn it on ``[data] test`` and judge all rows.
    change : int, optional
        Row at which the world is known to have changed: delays are counted from it.
    plot : Path, optional
        Where a picture (PNG) is written.
    progress : callable
        Told in one line what is going on.

    Raises
    ------
    UsageError
        If an option makes no sense for this file.
    MlguardError
        If the file cannot be read or the model does not run.
    """
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: pictures are PNG", hint="name it something.png")
    name, file, manifest = model_of(settings, registry, model)
    progress(f"asking {name}")
    found = answered(project, settings, data, model=file, name=name, manifest=manifest, start=start)
    total = found.first + len(found.rows)
    if change is not None and not found.first <= change < total:
        raise UsageError(
            f"--change {change} is not among the rows that are judged, {found.first} to {total - 1}"
        )
    if window is not None:
        settings = with_window(settings, window)
    if not found.timed:
        settings = untimed(settings, n_rows=total)
    rehearsal = Rehearsal(
        settings=settings,
        reference=found.reference,
        rows=found.rows,
        label_delay=label_delay,
        timed=found.timed,
    )
    heard = tuple(rehearsal.run(progress=progress))
    done = Backtested(
        app=settings.name,
        model=name,
        heard=heard,
        summary=strict(_summary(rehearsal, found, heard, change)),
        timed=found.timed,
        change=change,
    )
    if plot is None:
        return done
    progress("drawing")
    picture(rehearsal, heard, done.summary, plot, change=change)
    return replace(done, plot=plot)


def model_of(
    settings: AppSettings, registry: Registry, model: Path | None
) -> tuple[str, Path, Mapping[str, Any] | None]:
    """Return how the model is called, its file, and a registered version's manifest."""
    active = None if model is not None else registry.app(settings.name).active
    if active is not None:
        return active.name, registry.artifacts.get(active.manifest["model_sha256"]), active.manifest
    file = model or Path(settings.path(settings.model.path))
    return file.name, file, None


def _summary(
    rehearsal: Rehearsal, found: Answered, heard: tuple[Heard, ...], change: int | None
) -> dict[str, Any]:
    settings, rows = rehearsal.settings, found.rows
    losses, judged = row_losses(
        rows, task=settings.app.task, scale=reference_scale(found.reference)
    )
    table = settings.monitor.concept_drift
    calm = _calm(heard, found, change)
    rho = lag1_correlation(losses[judged & (rows.query_id < calm)])
    promised = table.detector == "e-detector" and table.enabled
    summary: dict[str, Any] = {
        "rows": len(rows),
        "first_row": found.first,
        "labels": int(rows.labelled.sum()),
        "reference_rows": found.n_reference,
        "reference_loss": found.reference["loss"]["mean"],
        "loss": float(losses[judged].mean()) if judged.any() else None,
        "no_change_loss": _no_change(rehearsal, found),
        "change": change,
        "monitors": [
            _of_monitor(name, [one for one in heard if one.monitor == name], change)
            for name in dict.fromkeys(one.monitor for one in heard)
        ],
        "not_heard": [
            name for name in rehearsal.monitors if not any(one.monitor == name for one in heard)
        ],
        "lag1_correlation": rho,
        "correlation_rows": int((judged & (rows.query_id < calm)).sum()),
        "detector": table.detector,
        "false_alarm_promise": promised,
    }
    if promised:
        proven = proven_correlation(rho, summary["correlation_rows"])
        summary |= {
            "average_run_length": table.average_run_length,
            "block": table.block,
            "kept_run_length": kept_run_length(table.average_run_length, proven, block=table.block),
            "block_needed": block_needed(table.average_run_length, proven),
        }
    return summary


def _calm(heard: tuple[Heard, ...], found: Answered, change: int | None) -> int:
    """Return the row up to which the loss is not known to have changed."""
    end = found.first + len(found.rows)
    if change is not None:
        return change
    points: list[int] = [
        one.result.details["alarm"]["change_point"]["query_id"]
        for one in heard
        if one.alarm and one.result.id == "concept_drift.loss"
    ]
    return min([end, *points])


def _no_change(rehearsal: Rehearsal, found: Answered) -> float | None:
    """Return what always repeating the last label would have lost."""
    labels = found.rows.label[found.rows.labelled]
    if len(labels) < 2:  # one label has none before it
        return None
    if rehearsal.settings.app.task == "regression":
        values = labels.astype(float)
        scale = reference_scale(found.reference)
        return float(np.minimum(np.abs(np.diff(values)) / scale, 1.0).mean())
    names = np.array([class_name(one) for one in labels], dtype=object)
    return float((names[1:] != names[:-1]).mean())


def _of_monitor(name: str, heard: list[Heard], change: int | None) -> dict[str, Any]:
    alarms = [one.row for one in heard if one.alarm]
    verdicts: dict[str, int] = {}
    for one in heard:
        verdicts[one.result.verdict.value] = verdicts.get(one.result.verdict.value, 0) + 1
    after = [row for row in alarms if change is not None and row >= change]
    return {
        "monitor": name,
        "verdicts": verdicts,
        "alarms": alarms,
        "alarms_before_change": None if change is None else sum(row < change for row in alarms),
        "first_alarm": alarms[0] if alarms else None,
        "delay": after[0] - change if change is not None and after else None,
        "action": max((one.action.level for one in heard), default=Level.NONE).word,
    }
