"""Make the report of an app, and put it on its way.

Brings together what the rooms know: the registry's record, the prediction log, the labels, the
drawing processes and the notifiers.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlguard.config import AppSettings, ProjectSettings
from mlguard.data.frames import read_frame
from mlguard.data.labels import LabelStore, default_url
from mlguard.data.log_store import project_log
from mlguard.data.prediction_log import feature_column
from mlguard.deploy.mailing import carrier
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.deploy.training import Progress
from mlguard.errors import MlguardError
from mlguard.monitors.window import kept_inputs
from mlguard.notify.outbox import Delivered
from mlguard.reports import schedule
from mlguard.reports.build import build_report
from mlguard.reports.drawing import write_evidently, write_report
from mlguard.reports.view import ReportView
from mlguard.wording import count, moment

if TYPE_CHECKING:
    import pyarrow as pa

    from mlguard.data.prediction_log import PredictionLog
    from mlguard.registry import Registry

#: Rows of live traffic that Evidently is given, the newest; its report grows with them.
EVIDENTLY_ROWS = 20_000
#: Rows below which Evidently has nothing to say.
EVIDENTLY_MIN_ROWS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A report that was written.

    Attributes
    ----------
    app : str
        Whom it is about.
    files : tuple of Path
        The report first, then what it links to.
    view : ReportView
        What it says.
    mailed : Delivered or None
        What became of the mail, where one was asked for.
    """

    app: str
    files: tuple[Path, ...]
    view: ReportView
    mailed: Delivered | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """What happened, in sentences."""
        view = self.view
        period = f"{moment(view.since)} to {moment(view.until)}"
        asked, known = count(view.service.predictions), count(view.service.labels)
        lines = [
            f"{self.app}, {period}: {asked} predictions, {known} labels.",
            view.story.happened,
            *(f"Wrote {file}" for file in self.files),
        ]
        if self.mailed is not None:
            state = f"{self.mailed.sent} sent" if self.mailed.sent else "not sent yet"
            lines.append(f"Mail: {state}. {'; '.join(self.mailed.errors)}".strip())
        return tuple(line for line in lines if line)

    @property
    def next_step(self) -> str:
        """The command to type next."""
        return self.view.story.command or f"mlguard status {self.app}"

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        mailed = self.mailed or Delivered()
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "report",
            "ok": True,
            "changed": False,
            "exit_code": 0,
            "app": self.app,
            "files": [str(file) for file in self.files],
            "notifications": {
                "queued": mailed.retried,
                "sent": mailed.sent,
                "failed": mailed.dead,
            },
            "report": self.view.published(),
        }


def make_report(
    project: ProjectSettings,
    settings: AppSettings,
    registry: Registry,
    *,
    since: float,
    until: float,
    now: float,
    html: Path,
    markdown: Path | None = None,
    evidently: bool = True,
    progress: Progress = lambda _: None,
) -> Reported:
    """Write the report of one app and one period, and Evidently's own beside it.

    Parameters
    ----------
    since, until, now : float
        The period and the present, seconds since the epoch.
    html : Path
        Where the report goes; Evidently's stands beside it as ``<name>.evidently.html``.
    markdown : Path, optional
        Where it goes as Markdown, too.
    evidently : bool
        Whether Evidently's report is wanted.
    progress : callable
        Told in one line what is going on.
    """
    log = project_log(project)
    progress(f"reading the traffic of {settings.name}")
    with contextlib.closing(LabelStore(default_url(project.log_dir, settings.name))) as labels:
        view = build_report(
            project, settings, registry, log, labels, since=since, until=until, now=now
        )
    files = [html]
    beside = html.with_suffix(".evidently.html")
    try:
        if evidently and _evidently(
            settings, registry, log, since=since, until=until, html=beside, progress=progress
        ):
            view = msgspec.structs.replace(view, attachments=(beside.name,))
            files.append(beside)
    except MlguardError as error:
        # Evidently decides nothing: without it the report is whole, and says what is missing.
        missing = f"Evidently's own report: {error.message}"
        view = msgspec.structs.replace(view, not_judged=(*view.not_judged, missing))
    progress("drawing the report")
    write_report(view, html=html, markdown=markdown)
    if markdown is not None:
        files.insert(1, markdown)
    return Reported(app=settings.name, files=tuple(files), view=view)


def _evidently(
    settings: AppSettings,
    registry: Registry,
    log: PredictionLog,
    *,
    since: float,
    until: float,
    html: Path,
    progress: Progress,
) -> bool:
    """Write Evidently's report of what the active version takes; False where there is too little.

    All of the period's traffic counts, whichever version answered it.
    """
    active = registry.app(settings.name).active
    if active is None:
        return False
    features = [one["name"] for one in active.manifest["input_schema"]["features"]]
    rows = log.read(settings.name, since=since, until=until)
    rows = rows.filter(kept_inputs(rows))
    columns = [feature_column(name) for name in features]
    if len(rows) < EVIDENTLY_MIN_ROWS or not set(columns) <= set(rows.column_names):
        return False
    progress("drawing Evidently's report")
    newest = rows.slice(max(0, len(rows) - EVIDENTLY_ROWS))
    current = newest.select(columns).rename_columns(features)
    write_evidently(_reference(settings, features, current), current, html)
    return True


def _reference(settings: AppSettings, features: Sequence[str], current: pa.Table) -> pa.Table:
    """Return the test data's features with the types that the log has."""
    import pyarrow as pa

    frame = read_frame(
        settings.path(settings.data.test), missing_values=settings.data.missing_values
    )
    table = pa.Table.from_pandas(frame[list(features)], preserve_index=False)
    return table.cast(current.schema)


def mail_report(project: ProjectSettings, registry: Registry, made: Reported) -> Reported:
    """Mail a report that was written."""
    schedule.send(registry, made.view, link=str(made.files[0]))
    return dataclasses.replace(made, mailed=carrier(project, registry)(made.view.at))


def report_if_due(
    project: ProjectSettings, settings: AppSettings, registry: Registry, now: float
) -> Reported | None:
    """Write and queue the scheduled report of an app, where one is due.

    It lands under ``reports/<app>/``; the mail goes with the next pass over the outbox.
    """
    period = schedule.due(registry, settings.name, settings.report.schedule, now)
    if period is None:
        return None
    since, until = period
    html = report_path(project, settings.name, until)
    made = make_report(project, settings, registry, since=since, until=until, now=now, html=html)
    schedule.send(registry, made.view, link=str(html), scheduled=True)
    return made


def report_path(project: ProjectSettings, app: str, at: float) -> Path:
    """Return where a report lands unless it is named: ``reports/<app>/<day>.html``."""
    return project.root / "reports" / app / f"{moment(at)[:10]}.html"
