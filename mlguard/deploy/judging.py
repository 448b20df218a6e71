"""How an app's monitors are built, asked and listened to: the same live as in a rehearsal.

The watcher reads rows from the log and stores how far it has come; ``backtest`` and
``calibrate`` read them from a file.  What lies between, from a window to what a result asks
for, is here and pure: no registry, no clock, no file.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mlguard import plugins
from mlguard.config import AppSettings, AutoTable, FairnessMonitor, LadderTable, WindowedMonitor
from mlguard.deploy.patience import ask_in_time
from mlguard.errors import PluginError
from mlguard.monitors.fairness import FLOOR
from mlguard.monitors.protocol import Looking, Monitor
from mlguard.monitors.window import ProfileWindow, WindowData
from mlguard.policy import Action, Standing, decide
from mlguard.results import MonitorResult, Verdict

_log = logging.getLogger(__name__)

Seen = TypeVar("Seen", WindowData, ProfileWindow)


@dataclass(frozen=True, slots=True)
class Judging:
    """The monitors of one app and the rules that their results are acted on by.

    Attributes
    ----------
    settings : AppSettings
        The app's.
    patience_s : float or None
        After how many seconds a monitor counts as hanging; None: never.
    """

    settings: AppSettings
    patience_s: float | None = None

    def names(self) -> list[str]:
        """Return the monitors that are switched on."""
        return [name for name in plugins.found("mlguard.monitors") if self.table(name).enabled]

    def table(self, name: str) -> LadderTable:
        """Return ``[monitor.<name>]``; defaults for a plug-in's, which has no table.

        A part of a monitor, like ``fairness.loss``, has the table of the whole.
        """
        found = getattr(self.settings.monitor, name.partition(".")[0], None)
        return found if isinstance(found, LadderTable) else WindowedMonitor()

    def rules(self, result: MonitorResult) -> LadderTable:
        """Return the rules that a result is acted on by.

        A group below its floor is harm where app.toml says so: rather the default output than
        a version that is known for it.
        """
        table = self.table(result.family)
        harm = isinstance(table, FairnessMonitor) and table.harm_class
        if harm and result.id.endswith(FLOOR):
            return table.model_copy(update={"action": "default_output"})
        return table

    @staticmethod
    def owner(result: MonitorResult) -> str:
        """Return the name of the monitor that a result is of."""
        return result.id if result.id in plugins.found("mlguard.monitors") else result.family

    def build(self, name: str, reference: Mapping[str, Any]) -> Monitor | None:
        """Build a monitor against a reference; None where it does not load."""
        try:
            kind = plugins.load("mlguard.monitors", name)
        except PluginError as error:
            _log.error("monitor %s of %s: %s", name, self.settings.name, error)
            return None
        built: Monitor = kind(self.table(name), reference, self.settings)
        return built

    def ask(
        self,
        name: str,
        judge: Callable[[Seen], list[MonitorResult]],
        data: Seen,
        *,
        last: MonitorResult | None = None,
    ) -> list[MonitorResult]:
        """Judge, or say that the monitor raised: never PASSED, never FAILED.

        Parameters
        ----------
        name : str
            The monitor.
        judge : callable
            Its ``judge``, ``look`` or ``judge_profile``.
        data : WindowData or ProfileWindow
            What is judged.
        last : MonitorResult, optional
            A result of the same monitor; what it raises counts in that one's series.
        """
        try:
            if self.patience_s is None:
                found = judge(data)
            else:
                asked = f"monitor {name} of {self.settings.name}"
                found = ask_in_time(asked, lambda: judge(data), self.patience_s)
            return [_believable(one) for one in found]
        # A monitor may be somebody else's code: it may raise anything.
        except Exception as error:  # noqa: BLE001  see above
            _log.exception("monitor %s of %s raised", name, self.settings.name)
            return [
                MonitorResult(
                    id=last.id if last else name if "." in name else f"{name}.window",
                    subject=last.subject if last else "",
                    sequential=last.sequential if last else False,
                    verdict=Verdict.ERRORED,
                    summary=f"the monitor raised {type(error).__name__}: {error}",
                    reason="raised",
                    window=data.window,
                    version=data.version,
                    next_step="see the log of the watcher; report it to the monitor's author",
                )
            ]

    def look(
        self,
        name: str,
        monitor: Looking,
        first: Callable[[int], WindowData],
        *,
        looked: int,
        n_rows: int,
        last: MonitorResult | None = None,
    ) -> tuple[list[MonitorResult], int]:
        """Look at the first rows of a window that is still open.

        Parameters
        ----------
        name, monitor
            Who looks.
        first : callable
            Gives the window's first so many rows.
        looked, n_rows : int
            Rows that an earlier look has seen, and rows there are.
        last : MonitorResult, optional
            See :meth:`ask`.

        Returns
        -------
        results : list of MonitorResult
            What is final and closes the window; empty where nothing is.
        looked : int
            Rows that have been seen now.
        """
        for rows in monitor.looks:
            if not looked < rows <= n_rows:
                continue
            found = self.ask(name, monitor.look, first(rows), last=last)
            looked = rows
            if any(one.verdict in (Verdict.FAILED, Verdict.ERRORED) for one in found):
                return found, looked
        return [], looked

    def wanted(
        self, history: Sequence[MonitorResult], auto: AutoTable, standing: Standing
    ) -> Action:
        """Return what the results of one check ask for."""
        return decide(history, self.rules(history[-1]), auto, standing)


def _believable(found: MonitorResult) -> MonitorResult:
    """Return a result, ERRORED where it judges by a figure that is no number."""
    figures = [found.value, *(found.interval or ())]
    judged = found.verdict in (Verdict.PASSED, Verdict.WARNED, Verdict.FAILED)
    if not (judged and any(one is not None and math.isnan(one) for one in figures)):
        return found
    return dataclasses.replace(
        found,
        verdict=Verdict.ERRORED,
        summary=f"the monitor judged by a figure that is no number: {found.summary}",
        reason="nonfinite",
        next_step="report it to the monitor's author",
    )
