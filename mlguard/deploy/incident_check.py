"""Fail better: an incident's rows as a check, so that the same failure blocks the next candidate.

Two files beside the app's other checks: a pytest function that people may read and edit, and
its rows.  The limit is one that tells a good version from the one that failed, on these rows:

* the monitor's own limit, for a mean loss with what a version just within it may exceed it by
  on so few rows (one in twenty would);
* where the version that serves now exceeds that too, half-way between the two versions: the
  world has become harder, and what was acceptable once is not to be had;
* where no limit tells the two apart, nothing is written: such a check would block everything,
  or nothing.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlguard.config import AppSettings, ProjectSettings
from mlguard.deploy.incident_rows import IncidentRows, hidden_columns
from mlguard.deploy.incident_table import check_frame
from mlguard.deploy.judging import Judging
from mlguard.deploy.qualify import Replayer, answers_on, replay_in_child
from mlguard.errors import MlguardError, RefusedError, UndecidedError
from mlguard.models.bundle import Manifest
from mlguard.monitors.fairness import FLOOR
from mlguard.monitors.losses import acceptable_loss, row_losses
from mlguard.monitors.window import WindowData
from mlguard.policy import Trial
from mlguard.stats.interval import critical_value
from mlguard.wording import count, listed, moment, number, printable

if TYPE_CHECKING:
    from mlguard.registry import Incident, Registry, Version

#: Rows that a check holds at most (the latest), and needs at least.
MOST_ROWS, LEAST_ROWS = 2000, 20
#: One in so many versions that are just good enough may exceed the limit.
_CONFIDENCE = 0.90

_GAP = "_difference"
_SERVICE = "service.model_errors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A check that was written.

    Attributes
    ----------
    files : tuple of Path
        The test and its rows.
    changed : bool
        Whether they were written now.
    lines : tuple of str
        What it demands, and of whom, in sentences.
    """

    files: tuple[Path, ...]
    changed: bool
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demand:
    """What the check demands: of which rows, in what call, and how the versions fare."""

    rows: WindowData
    attributes: tuple[str, ...]
    function: str
    arguments: tuple[str, ...]
    demands: str
    fares: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckWriter:
    """Writes the check of one incident.

    Attributes
    ----------
    project, settings : ProjectSettings, AppSettings
        Whose.
    registry : Registry
    incident : Incident
    found : IncidentRows
        Its rows.
    replay : callable
        Plays rows to the version that serves; default: in a child process.
    """

    project: ProjectSettings
    settings: AppSettings
    registry: Registry
    incident: Incident
    found: IncidentRows
    replay: Replayer = replay_in_child

    @property
    def files(self) -> tuple[Path, Path]:
        """The test and its rows."""
        folder = self.project.root / "checks" / self.settings.name
        n = self.incident.id
        return folder / f"test_incident_{n}.py", folder / f"incident_{n}.parquet"

    def write(self, *, force: bool = False) -> Written:
        """Write test and rows.

        Parameters
        ----------
        force : bool, default False
            Replace what is there.

        Raises
        ------
        RefusedError
            If a file is there already.
        UndecidedError
            If the rows are too few, or no limit tells a good version from the failed one.
        UsageError
            If what the model sees was not logged.
        """
        from mlguard.data.frames import write_frame

        there = [self._shown(one) for one in self.files if one.exists()]
        if there and not force:
            raise RefusedError(
                f"{listed(there)} {'is' if len(there) == 1 else 'are'} there already, and may "
                "have been edited",
                hint=f"keep it, or replace it: mlguard incident {self.incident.id} --as-check "
                "--force",
                app=self.incident.app,
                incident=self.incident.id,
            )
        version = self._version
        demand = self._demand(version)
        frame = check_frame(self.settings, version, demand.rows, demand.attributes)
        test, data = self.files
        write_frame(frame, str(data))
        test.write_text(self._text(demand), encoding="utf-8")
        lines = [
            f"Wrote {self._shown(test)}, and its {count(len(frame))} rows: {self._shown(data)}.",
            f"It demands {demand.demands}. {demand.fares}",
        ]
        personal = hidden_columns(self.settings, demand.rows) & set(frame.columns)
        if personal:
            lines.append(f"The rows hold {listed(sorted(personal))}: think before you commit them.")
        return Written(files=self.files, changed=True, lines=tuple(lines))

    def _shown(self, file: Path) -> str:
        return str(file.relative_to(self.project.root))

    @property
    def _version(self) -> Version:
        assert self.incident.version_id is not None  # there are no rows without a version
        return self.registry.version_by_id(self.incident.version_id)

    # --- what is demanded ----------------------------------------------------------------

    def _demand(self, version: Version) -> _Demand:
        check, _, subject = self.incident.monitor.removesuffix("]").partition("[")
        if check == _SERVICE:
            return self._answers(version)
        if check.startswith("fairness.") and check.endswith((_GAP, FLOOR)):
            return self._gap(version, check, subject)
        return self._loss(version)

    def _answers(self, version: Version) -> _Demand:
        rows = self.found.after
        rows = rows.take(rows.valid & rows.default)
        if not len(rows):
            raise self._undecided("none of its rows that got no prediction is in the log any more")
        return _Demand(
            rows=rows.take(slice(-MOST_ROWS, None)),
            attributes=(),
            function="assert_answers",
            arguments=(),
            demands="a usable prediction on every row",
            fares=f"{version.name} gave none on any of them.",
        )

    def _loss(self, version: Version) -> _Demand:
        known = np.flatnonzero(~np.isnan(self.found.loss_after))[-MOST_ROWS:]
        if len(known) < LEAST_ROWS:
            raise self._undecided(
                f"{len(known)} of its rows have a label by now, and {LEAST_ROWS} are needed"
            )
        rows = self.found.after.take(known)
        reference = self.registry.reference(self.settings.name, version.digest) or {}
        tolerance = self.settings.monitor.concept_drift.tolerance
        theta = acceptable_loss(reference, tolerance=tolerance)
        told = self.incident.facts.get("limit")
        if self.incident.monitor.startswith(("concept_drift", "fairness.loss")) and told:
            theta = float(told)
        # The share of errors of a version at the limit itself lies below this in 95 of 100.
        slack = critical_value(_CONFIDENCE) * math.sqrt(theta * (1 - theta) / len(rows))

        def mean_loss(rows: WindowData) -> float:
            losses, judged = row_losses(rows, task=self.settings.app.task, scale=self.found.scale)
            return float(losses[judged].mean()) if judged.any() else 1.0

        limit, fares = self._limit(version, rows, theta + slack, mean_loss, "mean loss")
        scale = "" if self.settings.app.task == "classification" else f"scale={self.found.scale!r}"
        return _Demand(
            rows=rows,
            attributes=(),
            function="assert_loss",
            arguments=_call(f"at_most={limit!r}", scale, 'decide="estimate"'),
            demands=f"a mean loss of at most {number(limit)}",
            fares=fares,
        )

    def _gap(self, version: Version, check: str, attribute: str) -> _Demand:
        judging = Judging(self.settings)
        reference = self.registry.reference(self.settings.name, version.digest) or {}
        monitor = judging.build("fairness", reference)
        metric = check.removeprefix("fairness.").removesuffix(_GAP).removesuffix(FLOOR)
        floor = check.endswith(FLOOR)
        if not self.found.after.labelled.any():
            raise self._undecided("none of its rows has a label yet")
        rows = self.found.after.take(slice(-MOST_ROWS, None))
        sign = -1.0 if floor else 1.0

        def figure(rows: WindowData) -> float:
            results = [] if monitor is None else monitor.judge(rows)
            value = next(
                (one.value for one in results if (one.id, one.subject) == (check, attribute)), None
            )
            return math.nan if value is None else sign * value

        what = f"{'lowest' if floor else 'gap of the'} {metric} by {attribute}"
        limit, fares = self._limit(
            version, rows, sign * float(self.incident.facts["limit"]), figure, what, sign=sign
        )
        table = self.settings.monitor.fairness
        bound = f"at_least={limit!r}" if floor else f"at_most={limit!r}"
        return _Demand(
            rows=rows.take(rows.labelled),
            attributes=(attribute,),
            function="assert_no_gap",
            arguments=_call(
                f'metric="{metric}"',
                f'by="{attribute}"',
                bound,
                'aggregate="group_min"' if floor else "",
                f"min_group_size={table.min_group_size}",
                'decide="estimate"',
            ),
            demands=f"a {what} of at {'least' if floor else 'most'} {number(limit)}",
            fares=fares,
        )

    def _limit(
        self,
        version: Version,
        rows: WindowData,
        wanted: float,
        figure: Callable[[WindowData], float],
        what: str,
        *,
        sign: float = 1.0,
    ) -> tuple[float, str]:
        """Return a limit that tells the versions apart, and how they fare; less is better."""
        failed = figure(rows)
        now = self._served_now(version, rows)
        other = None if now is None else figure(now[1])
        limit = wanted
        if other is not None and other > wanted:
            limit = (other + failed) / 2
        if not failed > limit:
            raise self._undecided(
                f"on its {count(len(rows))} rows {version.name} has a {what} of "
                f"{number(sign * failed)}"
                + (
                    ""
                    if now is None or other is None
                    else f" and {now[0]}, which serves, {number(sign * other)}"
                )
                + f", where {number(sign * wanted)} is allowed: no limit tells them apart"
            )
        fares = f"{version.name} has {number(sign * failed)}"
        if now is not None and other is not None:
            fares += f", {now[0]}, which serves, {number(sign * other)}"
            if limit != wanted:
                fares += f"; the monitor's own limit, {number(sign * wanted)}, neither would keep"
        return round(sign * limit, 6), f"{fares}."

    def _served_now(self, version: Version, rows: WindowData) -> tuple[str, WindowData] | None:
        """Return the rows as the version that serves now would have answered them."""
        active = self.registry.app(self.settings.name).active
        if active is None or active.id == version.id:
            return None
        manifest = Manifest.from_json(active.manifest)
        try:
            path = self.registry.artifacts.get(manifest.serving_sha256)
            answers = answers_on(active.name, manifest, path, rows, self.replay)
        except MlguardError:
            return None
        if isinstance(answers, Trial):
            return None
        outputs = np.empty(len(rows), dtype=object)
        outputs[:] = answers.outputs()
        return active.name, rows.with_answers(outputs, None)

    def _undecided(self, why: str) -> UndecidedError:
        return UndecidedError(
            f"no check can be made of incident {self.incident.id}: {why}",
            hint=f"try again when more labels have come: mlguard incident {self.incident.id}",
            app=self.incident.app,
            incident=self.incident.id,
        )

    # --- the text ------------------------------------------------------------------------

    def _text(self, demand: _Demand) -> str:
        one = self.incident
        story = [
            f"Incident {one.id} of {one.app}: {one.monitor} on {one.version} must not come again.",
            f"{moment(one.opened_at)}: {one.summary}.",
            f"The rows beside this file are those that it was seen on. {demand.fares}",
        ]
        if one.cause:
            story.insert(2, f"Cause: {one.cause}.")
        told = "\n\n".join(_prose(text) for text in story)
        demands = _prose(f"A candidate has {demand.demands} on the rows of the incident.", 4)
        given = ["candidate", "pd.read_parquet(ROWS)", *demand.arguments]
        call = f"{demand.function}({', '.join(given)})"
        if demand.arguments:
            call = f"{demand.function}(\n" + "".join(f"        {one},\n" for one in given) + "    )"
        return (
            f'"""{told}\n"""\n\n'
            "from pathlib import Path\n\n"
            "import pandas as pd\n\n"
            f"from mlguard.checks import {demand.function}\n\n"
            f'ROWS = Path(__file__).with_name("{self.files[1].name}")\n\n\n'
            f"def test_incident_{one.id}_does_not_come_again(candidate):\n"
            f'    """{demands.strip()}"""\n'
            f"    {call}\n"
        )


def _call(*arguments: str) -> tuple[str, ...]:
    return tuple(one for one in arguments if one)


def _prose(text: str, indent: int = 0) -> str:
    # It stands in a docstring, and a summary may quote what callers sent.
    safe = printable(text, 1000).replace("\\", "/").replace('"', "'")
    return "\n".join(
        textwrap.wrap(safe, 96 - indent, subsequent_indent=" " * indent, break_on_hyphens=False)
    )
