"""Find the history of an app, and measure its monitors on it: ``mlguard calibrate``.

History is what the active version answered and got labels for, from the prediction log; where
there is too little of it, or no version, the rows of ``[data] test``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.config import AppSettings, ProjectSettings
from mlguard.data.labels import LabelStore, default_url
from mlguard.data.log_store import project_log
from mlguard.deploy.backtest import model_of
from mlguard.deploy.backtest_rows import answered
from mlguard.deploy.calibrate import Calibration
from mlguard.deploy.calibrate_figures import Calibrated
from mlguard.monitors.window import WindowData, window_data

if TYPE_CHECKING:
    from mlguard.registry import Registry

#: Labelled rows that the log must have to be drawn from.
LEAST_LABELS = 500
#: Rows of the log that are used, the latest.
MOST_ROWS = 50_000

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _History:
    model: str
    source: str
    rows: WindowData
    reference: dict[str, Any]


def calibrate(
    project: ProjectSettings,
    settings: AppSettings,
    registry: Registry,
    *,
    model: Path | None = None,
    progress: Progress = lambda _: None,
) -> Calibrated:
    """Measure false-alarm rate and power of every monitor on an app's own history.

    Parameters
    ----------
    project, settings, registry
        The project, the app, and who knows what serves it.
    model : Path, optional
        A model file, whose history is ``[data] test``; default: the active version, else
        ``[model] path``.
    progress : callable
        Told in one line what is going on.

    Raises
    ------
    MlguardError
        If the data cannot be read or the model does not run.
    """
    history = None if model is not None else _logged(project, settings, registry)
    if history is None:
        name, file, manifest = model_of(settings, registry, model)
        progress(f"asking {name}")
        test = settings.path(settings.data.test)
        found = answered(project, settings, test, model=file, name=name, manifest=manifest)
        history = _History(
            model=name, source="[data] test", rows=found.rows, reference=found.reference
        )
    work = Calibration(settings=settings, reference=history.reference, rows=history.rows)
    measured = tuple(work.run(progress=progress))
    return Calibrated(
        app=settings.name,
        model=history.model,
        source=history.source,
        n_rows=len(history.rows),
        n_labels=int(history.rows.labelled.sum()),
        rho=work.rho,
        drawn=work.drawn,
        measured=measured,
        suggestions=tuple(work.suggestions),
    )


def _logged(project: ProjectSettings, settings: AppSettings, registry: Registry) -> _History | None:
    """Return what the active version answered in this generation, where enough is labelled."""
    state = registry.app(settings.name)
    if state.active is None:
        return None
    reference = registry.reference(settings.name, state.active.digest)
    log = project_log(project)
    table = log.read(settings.name, version_id=state.active.id, generation=state.generation)
    if reference is None or table.num_rows < LEAST_LABELS:
        return None
    table = table.sort_by("time")
    table = table.slice(max(0, table.num_rows - MOST_ROWS))
    labels = LabelStore(default_url(project.log_dir, settings.name)).get(
        table.column("query_id").to_pylist()
    )
    if len(labels) < LEAST_LABELS:
        return None
    rows = window_data(table, version=state.active.name, labels=labels)
    return _History(
        model=state.active.name, source="the prediction log", rows=rows, reference=reference
    )
