"""What the monitors would have said of rows that have come and gone, and what they would ask for.

The rows are judged by the monitors themselves, through the same code as live traffic
(:mod:`mlguard.deploy.judging`, :func:`mlguard.monitors.window.cut`), and the results are heard
by the same policy.  Nothing moves: the model goes on answering, so that later changes show too.

Every result is known at a row: that of the window's last, or that with which a label arrived.
A time window is known at its last row, although live it would close a moment later.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from mlguard.config import AppSettings, AutoTable
from mlguard.deploy.judging import Judging
from mlguard.deploy.watch_memory import HISTORY
from mlguard.monitors.protocol import Looking, Monitor, Sequential
from mlguard.monitors.window import WindowData, cut
from mlguard.policy import Action, Level, Standing
from mlguard.results import MonitorResult, Verdict
from mlguard.wording import Step

#: Labels that a sequential monitor is given at once where none of them makes it speak.
_STRIDE = 100

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One result, when it would have been known, and what it would have asked for.

    Attributes
    ----------
    row : int
        0-based row of the file at which it was known.
    at : float
        Its time.
    monitor : str
        Name of the monitor.
    result : MonitorResult
    action : Action
        What the results of this check ask for from then on.
    alarm : bool
        Whether it is a new alarm, not the next word about an old one.
    """

    row: int
    at: float
    monitor: str
    result: MonitorResult
    action: Action
    alarm: bool


@dataclass(slots=True)
class Rehearsal:
    """Rows on their way through all monitors of an app.

    Attributes
    ----------
    settings : AppSettings
        The app's; as :func:`untimed` gives it where rows are the clock.
    reference : mapping
        What the version was accepted with.
    rows : WindowData
        In the order in which they came.
    label_delay : int
        Rows after which a row's label arrives.
    timed : bool
        Whether time means anything: grace, cooldown and bake.
    monitors : dict of str to Monitor
        The monitors as they stand at the end.
    """

    settings: AppSettings
    reference: Mapping[str, Any]
    rows: WindowData
    label_delay: int = 0
    timed: bool = False
    monitors: dict[str, Monitor] = field(default_factory=dict)

    @property
    def _judging(self) -> Judging:
        return Judging(self.settings)

    def run(self, *, progress: Progress = lambda _: None) -> list[Heard]:
        """Judge everything; return the results in the order in which they were known."""
        told: list[tuple[int, str, MonitorResult]] = []
        names = self._judging.names()
        for done, name in enumerate(names):
            progress(Step(f"judging {len(self.rows):,} rows: {name}", done, len(names)))
            told += [(place, name, one) for place, one in self.results(name)]
        order = {name: place for place, name in enumerate(names)}
        told.sort(key=lambda one: (one[0], order[one[1]]))
        return list(self._heard(told))

    # --- judging -------------------------------------------------------------------------

    def results(self, name: str) -> Iterator[tuple[int, MonitorResult]]:
        """Give the results of one monitor with the places at which they were known."""
        monitor = self._judging.build(name, self.reference)
        if monitor is None:
            return
        self.monitors[name] = monitor
        if monitor.clock == "rows":
            yield from self._of_rows(name, monitor)
            return
        labelled = np.flatnonzero(self.rows.labelled)
        known_at = labelled + self.label_delay
        labelled, known_at = (one[known_at < len(self.rows)] for one in (labelled, known_at))
        if not labelled.size:
            return
        data = dataclasses.replace(
            self.rows.take(labelled), arrived=self.rows.time[known_at].astype(float)
        )
        found = (
            self._one_by_one(name, data)
            if monitor.sequential
            else self._windows(name, monitor, data)
        )
        for place, result in found:
            yield int(known_at[place]), result

    def _of_rows(self, name: str, monitor: Monitor) -> Iterator[tuple[int, MonitorResult]]:
        table, start, last = self._judging.table(name), 0, None
        while start < len(self.rows):
            times = self.rows.time[start : start + table.window_rows]
            closed = cut(times, window_s=table.window, window_rows=table.window_rows, now=self._end)
            n_rows = closed[0][1] if closed else len(times)
            found: list[MonitorResult] = []
            if isinstance(monitor, Looking):
                found, looked = self._judging.look(
                    name,
                    monitor,
                    self._first(start),
                    looked=0,
                    n_rows=n_rows,
                    last=last,
                )
                n_rows = looked if found else n_rows
            if not found and closed:
                data = self.rows.take(slice(start, start + n_rows))
                found = self._judging.ask(name, monitor.judge, data, last=last)
            start += n_rows
            for result in found:
                last = result
                yield start - 1, result

    def _first(self, start: int) -> Callable[[int], WindowData]:
        return lambda n: self.rows.take(slice(start, start + n))

    @property
    def _end(self) -> float:
        """Until when the rows are complete: a window that the file's end cuts off stays open."""
        return math.nextafter(float(self.rows.time[-1]), math.inf)

    def _windows(
        self, name: str, monitor: Monitor, data: WindowData
    ) -> Iterator[tuple[int, MonitorResult]]:
        table, last = self._judging.table(name), None
        for start, stop in cut(
            data.arrived,
            window_s=table.window,
            window_rows=table.window_rows,
            now=self._end,
        ):
            part = data.take(slice(start, stop))
            for result in self._judging.ask(name, monitor.judge, part, last=last):
                last = result
                yield stop - 1, result

    def _one_by_one(self, name: str, data: WindowData) -> Iterator[tuple[int, MonitorResult]]:
        """Give a sequential monitor its labels; what it says is known at the label it said it.

        It is given many at once; where it speaks it is taken back and given them one by one.
        """
        judging, last = self._judging, None
        monitor = cast("Sequential", self.monitors[name])
        start = 0
        while start < len(data):
            stop = min(start + _STRIDE, len(data))
            before = copy.deepcopy(monitor.snapshot())
            found = judging.ask(name, monitor.judge, data.take(slice(start, stop)), last=last)
            places = [stop - 1] * len(found)
            if any(one.verdict is Verdict.ERRORED for one in found):
                # What it made of these labels is worth nothing: go on from before them.
                monitor = self._again(name, before)
            elif found and stop - start > 1:
                monitor = self._again(name, before)
                found, places = [], []
                for place in range(start, stop):
                    said = judging.ask(name, monitor.judge, data.take(slice(place, place + 1)))
                    found += said
                    places += [place] * len(said)
            last = found[-1] if found else last
            yield from zip(places, found, strict=True)
            start = stop
        self.monitors[name] = monitor

    def _again(self, name: str, before: Mapping[str, Any]) -> Sequential:
        monitor = cast("Sequential", self._judging.build(name, self.reference))
        monitor.restore(before)
        return monitor

    # --- hearing -------------------------------------------------------------------------

    def _heard(self, told: list[tuple[int, str, MonitorResult]]) -> Iterator[Heard]:
        histories: dict[str, list[MonitorResult]] = defaultdict(list)
        asked: dict[str, Level] = {}
        alarms: dict[str, int] = {}
        moves: list[float] = []
        began = float(self.rows.time[0]) if len(self.rows) else 0.0
        for place, name, result in told:
            at = float(self.rows.time[place])
            history = histories[result.name]
            alarm = _is_new(result, history, alarms)
            history.append(result)
            del history[:-HISTORY]
            standing = Standing(
                baking=self.timed and not moves and at - began < self.settings.rollout.bake,
                elapsed_s=at - (moves[-1] if moves else began),
                move_ages_s=tuple(at - one for one in moves),
            )
            action = self._judging.wanted(history, self._auto, standing)
            before = asked.get(result.name, Level.NONE)
            asked[result.name] = action.level
            yield Heard(
                row=int(self.rows.query_id[place]),
                at=at,
                monitor=name,
                result=result,
                action=action,
                alarm=alarm,
            )
            if self.timed and action.level.moves_traffic and not before.moves_traffic:
                # Grace, cooldown and budget count from here, as they would have.
                moves.append(at)

    @property
    def _auto(self) -> AutoTable:
        if self.timed:
            return self.settings.auto
        off = {"grace": 0.0, "cooldown": 0.0, "budget": 1 << 30}
        return self.settings.auto.model_copy(update=off)


def untimed(settings: AppSettings, *, n_rows: int) -> AppSettings:
    """Return settings whose windows close by rows alone: one row is one second."""
    return _with_tables(settings, {"window": float(n_rows + 1)})


def with_window(settings: AppSettings, rows: int) -> AppSettings:
    """Return settings whose windows hold so many rows."""
    return _with_tables(settings, {"window_rows": rows})


def _with_tables(settings: AppSettings, changes: Mapping[str, Any]) -> AppSettings:
    tables = {
        name: getattr(settings.monitor, name).model_copy(update=changes)
        for name in type(settings.monitor).model_fields
    }
    return settings.model_copy(update={"monitor": settings.monitor.model_copy(update=tables)})


def _is_new(result: MonitorResult, history: list[MonitorResult], alarms: dict[str, int]) -> bool:
    """Whether a result raises an alarm that was not raised before."""
    raised = result.details.get("alarm") if result.sequential else None
    if raised is not None:
        if result.verdict not in (Verdict.FAILED, Verdict.WARNED):
            return False
        fresh: bool = alarms.get(result.name) != raised["labels"]
        alarms[result.name] = raised["labels"]
        return fresh
    if result.verdict is not Verdict.FAILED:
        return False
    decided = [
        one.verdict
        for one in history
        if one.verdict in (Verdict.PASSED, Verdict.WARNED, Verdict.FAILED)
    ]
    return not decided or decided[-1] is not Verdict.FAILED
