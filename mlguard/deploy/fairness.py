"""What ``mlguard fairness`` finds, writes and draws.

It measures the candidate per group on the labelled test rows and, when asked, compares policies
of thresholds, writes one of them into app.toml, makes a mitigated candidate beside the original,
and draws all of it as PNG files.  It judges nothing: that is the gate's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlguard.checks.evidence import Subject
from mlguard.config import AppSettings, ProjectSettings
from mlguard.deploy.app_toml import write_thresholds
from mlguard.deploy.group_figures import AttributeFigures, Sample, attributes, measure
from mlguard.deploy.mitigation import (
    METHODS,
    Method,
    Mitigated,
    by_reweighing,
    by_thresholds,
    shown,
)
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.deploy.threshold_policies import TITLES, ThresholdTable, tabulate, thresholds_of
from mlguard.deploy.training import Progress
from mlguard.errors import UsageError
from mlguard.reports.drawing import draw_pictures
from mlguard.reports.groups import group_chart
from mlguard.reports.threshold_charts import (
    calibration_chart,
    outcome_chart,
    rates_chart,
    roc_chart,
)
from mlguard.reports.view import Chart
from mlguard.stats.rates import group_codes
from mlguard.stats.thresholds import POLICIES, Policy
from mlguard.wording import printable

#: CSS pixels of a picture.
WIDTH = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked beside the figures.

    Attributes
    ----------
    by : str or None
        One attribute; default all that app.toml names.
    thresholds : bool
        Whether threshold policies are compared.
    write : str or None
        Policy to write into app.toml.
    mitigate : str or None
        Method to make a candidate by.
    plots : Path or None
        Folder for pictures.
    """

    by: str | None = None
    thresholds: bool = False
    write: Policy | None = None
    mitigate: Method | None = None
    plots: Path | None = None

    def __post_init__(self) -> None:
        if self.write is not None and self.write not in POLICIES:
            raise UsageError(
                f"there is no policy {self.write!r}", hint=f"known: {', '.join(POLICIES)}"
            )
        if self.mitigate is not None and self.mitigate not in METHODS:
            raise UsageError(
                f"there is no method {self.mitigate!r}", hint=f"known: {', '.join(METHODS)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A picture file with the words that stand for it."""

    file: Path
    title: str
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What was found and done.

    Attributes
    ----------
    app, candidate : str
    typed : str
        How the command names app and candidate: ``credit --model other.skops``.
    n : int
        Labelled rows.
    attributes : tuple of AttributeFigures
    tables : tuple of ThresholdTable
        Where thresholds were asked for, one per attribute.
    written : dict or None
        The thresholds that stand in app.toml now, where they were asked to be written.
    changed : bool
        Whether app.toml was changed.
    mitigated : Mitigated or None
    plots : tuple of Plot
    """

    app: str
    candidate: str
    typed: str
    n: int
    attributes: tuple[AttributeFigures, ...]
    tables: tuple[ThresholdTable, ...] = ()
    written: dict[str, float] | None = None
    changed: bool = False
    mitigated: Mitigated | None = None
    plots: tuple[Plot, ...] = ()

    @property
    def next_step(self) -> str:
        """The command to type next."""
        if self.written is not None:
            return f"mlguard check {self.typed}"
        if self.mitigated is not None:
            return self.mitigated.next_step
        if self.tables:
            return f"mlguard fairness {self.typed} --write POLICY"
        scored = any(len(one.metrics) > 1 for one in self.attributes)
        command = f"mlguard fairness {self.typed} --thresholds"
        return command if scored else f"mlguard check {self.typed}"

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "fairness",
            "ok": True,
            "changed": self.changed,
            "exit_code": 0,
            "app": self.app,
            "candidate": self.candidate,
            "n": self.n,
            "attributes": [one.to_json() for one in self.attributes],
            "thresholds": [one.to_json() for one in self.tables],
            "written": self.written,
            "mitigated": None if self.mitigated is None else self.mitigated.to_json(),
            "plots": [
                {"file": str(one.file), "title": one.title, "alt": one.alt} for one in self.plots
            ],
            "next_step": self.next_step,
        }


def examine(
    project: ProjectSettings,
    settings: AppSettings,
    model: Path,
    wish: Wish,
    *,
    progress: Progress = lambda _: None,
) -> Examined:
    """Measure a candidate per group, and do what else is asked.

    Parameters
    ----------
    project, settings
        The app.
    model : Path
        The candidate.
    wish : Wish
    progress : callable, optional
        Told in one line what is going on.

    Raises
    ------
    UsageError
        If there are no groups, a policy per group is to be written and nobody said by which
        attribute, or the model has no thresholds.
    DataError, ModelFileError, ModelRunError
        If data or model cannot be used.
    ConfigError
        If app.toml cannot be changed; it is unchanged then.
    """
    subject = Subject(project, settings, model=model)
    progress(f"asking {model.name} about the test rows")
    sample = Sample.of(subject)
    named = attributes(settings, wish.by)
    one_by = _one_attribute(wish, named)
    own = Path(settings.path(settings.model.path))
    typed = settings.name + ("" if model == own else f" --model {shown(model)}")
    examined = Examined(
        app=settings.name,
        typed=typed,
        candidate=sample.model,
        n=len(sample.truth),
        attributes=tuple(measure(sample, settings, by) for by in named),
    )
    if wish.thresholds or wish.write or wish.mitigate == "thresholds":
        progress("comparing thresholds")
        tables = tuple(tabulate(sample, settings, by) for by in named)
        examined = dataclasses.replace(examined, tables=tables)
    if wish.mitigate is not None:
        progress(f"making a candidate by {wish.mitigate}")
        made = (
            by_reweighing(subject, sample, one_by)
            if wish.mitigate == "reweighing"
            else by_thresholds(sample, settings, examined.tables[0], model, typed=typed)
        )
        examined = dataclasses.replace(examined, mitigated=made)
    if wish.plots is not None:
        progress("drawing")
        plots = _drawn(sample, examined, wish.plots)
        examined = dataclasses.replace(examined, plots=plots)
    if wish.write is not None:
        thresholds = thresholds_of(examined.tables[0], wish.write, settings.model.thresholds)
        changed = write_thresholds(project, settings, thresholds)
        examined = dataclasses.replace(examined, written=thresholds, changed=changed)
    return examined


def _one_attribute(wish: Wish, named: list[str]) -> str:
    """Return the attribute that a candidate or a policy per group is about.

    Raises
    ------
    UsageError
        If there are several and nobody said which.
    """
    asked = wish.mitigate or (wish.write if wish.write != "max_utility" else None)
    if asked and len(named) > 1:
        raise UsageError(
            f"{asked} treats the groups of one attribute, and there are {len(named)}: "
            f"{', '.join(named)}",
            hint=f"say which: --by {named[0]}",
        )
    return named[0]


def _drawn(sample: Sample, examined: Examined, folder: Path) -> tuple[Plot, ...]:
    """Draw every chart, and a page that shows them with their words."""
    charts = _charts(sample, examined)
    pictures = draw_pictures(list(charts.values()), width=WIDTH)
    folder.mkdir(parents=True, exist_ok=True)
    plots = []
    for name, picture in zip(charts, pictures, strict=True):
        file = folder / f"{name}.png"
        file.write_bytes(picture.png)
        plots.append(Plot(file=file, title=picture.title, alt=picture.alt))
    page = [f"# {examined.app}: {examined.candidate} by group", ""]
    for one in plots:
        page += [f"## {one.title}", "", f"![{one.alt}]({one.file.name})", "", one.alt, ""]
    (folder / "README.md").write_text("\n".join(page), encoding="utf-8")
    return tuple(plots)


def _charts(sample: Sample, examined: Examined) -> dict[str, Chart]:
    charts: dict[str, Chart] = {}
    for figures in examined.attributes:
        for one in figures.metrics:
            name = _file_name(figures.by, one.name)
            charts[name] = group_chart(one.gap, figures.by, one.name, one.limit)
        calibrated = _calibration(sample, figures.by)
        if calibrated is not None:
            charts[_file_name(figures.by, "calibration")] = calibrated
    for table in examined.tables:
        policies = {TITLES[one.policy]: one.points for one in table.policies}
        charts[_file_name(table.by, "roc")] = roc_chart(table.by, table.tables, policies)
        charts[_file_name(table.by, "thresholds")] = rates_chart(table.by, table.tables, policies)
        if table.impact is not None:
            charts[_file_name(table.by, "outcome")] = outcome_chart(
                table.by, table.impact.score or "score", table.tables, policies
            )
    return charts


def _calibration(sample: Sample, by: str) -> Chart | None:
    if sample.scores is None or sample.scores.ndim != 1 or sample.classes is None:
        return None
    names, codes = group_codes(sample.groups(by))
    truth = np.asarray(sample.truth == sample.classes[-1], bool)
    groups = {name: codes == place for place, name in enumerate(names)}
    return calibration_chart(by, sample.scores, truth, groups)


def _file_name(*parts: str) -> str:
    """Return a file's name made of words from outside: letters, digits, dashes."""
    text = "-".join(printable(one, 60) for one in parts)
    return "".join(one if one.isalnum() else "-" for one in text).strip("-").lower()
