"""One pass over one app: what is due is judged, and what was found is recorded.

Nothing is decided here.  Every step stores how far it has come together with what it found
there, result first: a pass that is cut short is repeated by the next one, and a result that is
recorded already is not recorded again.  A monitor that raises gives an ERRORED result for what
it was judging, and the others go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlguard.config import AppSettings, LadderTable
from mlguard.deploy.judging import Judging
from mlguard.deploy.patience import HANGS_S
from mlguard.deploy.watch_labels import Answerer, LabelReader, Labels
from mlguard.deploy.watch_memory import Memory
from mlguard.deploy.watch_profiles import SlicePlace, walk_slices
from mlguard.deploy.watch_rows import SETTLE_S, Place, Stretch, walk
from mlguard.monitors.maturity import immature
from mlguard.monitors.protocol import Looking, Monitor, Profiled, Sequential
from mlguard.monitors.service import CRASH_S, judge_crashes, judge_load
from mlguard.monitors.sources import suspected, with_sources
from mlguard.monitors.window import Coverage, WindowData, concat, cut, window_data
from mlguard.policy import Condition, clears, condition
from mlguard.results import MonitorResult, Verdict, Window

if TYPE_CHECKING:
    import pyarrow as pa

    from mlguard.data.prediction_log import PredictionLog
    from mlguard.registry import AppState, Registry, Server, Version

#: Labelled rows that one pass gathers for a windowed monitor.
_MOST_LABELLED = 20_000
#: Windows whose results share a transaction, at most.
_TOGETHER = 20
#: States that only note the passing of time are stored this often.
_NOTE_S = 60.0


@dataclass(slots=True, kw_only=True)
class AppWatch:
    """One pass over one app.

    Attributes
    ----------
    registry, log, labels, memory
        Where facts, predictions and labels are, and what is kept in mind of them.
    settings : AppSettings
        The app's.
    state : AppState
        What serves it.
    now : float
        The time.
    servers : list of Server
        Those that are alive.
    recorded : list of MonitorResult
        What this pass found.
    """

    registry: Registry
    log: PredictionLog
    labels: Labels
    memory: Memory
    settings: AppSettings
    state: AppState
    now: float
    servers: list[Server] = field(default_factory=list)
    recorded: list[MonitorResult] = field(default_factory=list)
    _rows_seen: bool | None = None

    @property
    def app(self) -> str:
        """Name of the app."""
        return self.settings.name

    def judge(self, active: Version) -> dict[str, Condition]:
        """Judge what is due, and say what each monitor is doing."""
        self._cover(active)
        self.credit_labels()
        conditions: dict[str, Condition] = {}
        for name in self.monitor_names():
            monitor = self.monitor(name, active.digest)
            if monitor is None:
                conditions[name] = "blind"
                continue
            n_rows: int
            if monitor.sequential:
                n_rows, n_labels = self._seen(active), self._labels_taken(active, name)
            elif monitor.clock == "labels":
                n_rows, n_labels = self._seen(active), self._judge_labelled(monitor, name, active)
            elif self._by_profiles(monitor, active):
                n_rows, n_labels = self._judge_profiles(cast("Profiled", monitor), name, active), 0
            else:
                n_rows, n_labels = self._judge_rows(monitor, name, active), 0
            conditions[name] = self._condition(monitor, name, n_rows=n_rows, n_labels=n_labels)
        if self.settings.monitor.service.enabled:
            self._judge_load(active)
            self._judge_crashes(active)
        return conditions

    # --- monitors ------------------------------------------------------------------------

    @property
    def judging(self) -> Judging:
        """How the app's monitors are built, asked and listened to."""
        return Judging(self.settings, patience_s=HANGS_S)

    def monitor_names(self) -> list[str]:
        """Return the monitors that are switched on."""
        return self.judging.names()

    def table(self, name: str) -> LadderTable:
        """Return ``[monitor.<name>]``, see :meth:`Judging.table`."""
        return self.judging.table(name)

    def owner(self, result: MonitorResult) -> str:
        """Return the name of the monitor that a result is of."""
        return self.judging.owner(result)

    def monitor(self, name: str, digest: str) -> Monitor | None:
        """Build a monitor against the reference of some bytes; None where it does not load."""
        return self.judging.build(name, self.memory.reference(self.app, digest))

    def _condition(self, monitor: Monitor, name: str, *, n_rows: int, n_labels: int) -> Condition:
        found: list[Condition] = [
            condition(
                history,
                needs_labels=monitor.clock == "labels",
                n_rows=n_rows,
                n_labels=n_labels,
            )
            for history in self._series(name)
        ] or [
            condition([], needs_labels=monitor.clock == "labels", n_rows=n_rows, n_labels=n_labels)
        ]
        return "blind" if "blind" in found else found[0]

    def _series(self, name: str) -> list[list[MonitorResult]]:
        history = self.memory.history(self.app, self.state.generation)
        return [found for found in history.values() if found and self.owner(found[0]) == name]

    def _seen(self, active: Version) -> bool:
        """Whether there were rows within the longest window that any monitor has."""
        if self._rows_seen is None:
            longest = max(self.table(name).window for name in self.monitor_names())
            self._rows_seen = self.log.has_rows(
                self.app,
                version_id=active.id,
                generation=self.state.generation,
                since=self.now - longest,
            )
        return self._rows_seen

    # --- recording -----------------------------------------------------------------------

    def _record(self, results: list[MonitorResult]) -> None:
        for result in results:
            if self.memory.record(self.app, result):
                self.recorded.append(result)

    def _guarded(
        self,
        name: str,
        judge: Callable[[WindowData], list[MonitorResult]],
        data: WindowData,
        *,
        last: Sequence[MonitorResult] = (),
    ) -> list[MonitorResult]:
        """Judge, or say that the monitor raised: never PASSED, never FAILED."""
        before = last[-1] if last else self._last(name)
        return self.judging.ask(name, judge, data, last=before)

    def _last(self, name: str) -> MonitorResult | None:
        series = [one for one in self._series(name) if one]
        return series[0][-1] if series else None

    # --- windows of rows -----------------------------------------------------------------

    def _judge_rows(self, monitor: Monitor, name: str, active: Version) -> int:
        """Judge the windows of rows that closed; return how many rows were seen lately."""
        key = self.app, active.id, self.state.generation, name
        table = self.table(name)
        known = Place.from_json(self.memory.state(key))
        stretch = self._walk(active, known, table)
        place = stretch.place
        found: list[MonitorResult] = []
        unwritten = 0
        for rows, place in stretch.windows():
            data = window_data(rows, version=active.name)
            answers = self._guarded(name, monitor.judge, data, last=found[-1:])
            found += answers
            unwritten += 1
            # Of many windows some share a transaction; one that raised, or hung, is told at once.
            if unwritten == _TOGETHER or any(one.verdict is Verdict.ERRORED for one in answers):
                self.recorded += self.memory.record_judged(self.app, found, key, place.to_json())
                found, unwritten = [], 0
        if unwritten:
            self.recorded += self.memory.record_judged(self.app, found, key, place.to_json())
        if isinstance(monitor, Looking):
            place = self._look(monitor, name, active, stretch, place)
        if stretch.rows.num_rows and (
            place.looked != known.looked or abs(self.now - known.seen_at) > _NOTE_S
        ):
            self.memory.store(key, place.to_json())
        return int(stretch.rows.num_rows) or int(self._lately(name, table))

    def _by_profiles(self, monitor: Monitor, active: Version) -> bool:
        """Whether a monitor of rows is asked about counts instead."""
        return (
            isinstance(monitor, Profiled)
            and monitor.profiled
            and self.log.has_slices(self.app, active.id)
        )

    def _judge_profiles(self, monitor: Profiled, name: str, active: Version) -> int:
        """Judge the windows of profiles that closed; return how many rows were seen lately."""
        key = self.app, active.id, self.state.generation, f"{name} by profiles"
        table = self.table(name)
        known = self.memory.profile(self.app, active.digest)
        if known is None:
            return 0
        stretch = walk_slices(
            self.log,
            self.app,
            version_id=active.id,
            generation=self.state.generation,
            grid=known,
            place=SlicePlace.from_json(self.memory.state(key)),
            window_s=table.window,
            window_rows=table.window_rows,
            now=self.now,
        )
        for window, after in stretch.windows(active.name):
            self._record(
                self.judging.ask(name, monitor.judge_profile, window, last=self._last(name))
            )
            self.memory.store(key, after.to_json())
        return stretch.n_rows or int(self._lately(name, table))

    def _lately(self, name: str, table: LadderTable) -> bool:
        """Whether the last window of a monitor ended within one window's time."""
        recent = [one for series in self._series(name) for one in series[-1:]]
        return any(
            one.window is not None and one.window.end > self.now - table.window for one in recent
        )

    def _walk(
        self, active: Version, place: Place, table: LadderTable, until: float | None = None
    ) -> Stretch:
        return walk(
            self.log,
            self.app,
            version_id=active.id,
            generation=self.state.generation,
            place=place,
            window_s=table.window,
            window_rows=table.window_rows,
            now=self.now,
            until=until,
            block_of=self.memory.block_of,
        )

    def _look(
        self, monitor: Looking, name: str, active: Version, stretch: Stretch, place: Place
    ) -> Place:
        """Look at the first rows of the open window; one that fails closes it there."""
        found, looked = self.judging.look(
            name,
            monitor,
            lambda rows: window_data(stretch.open.slice(0, rows), version=active.name),
            looked=place.looked,
            n_rows=stretch.open.num_rows,
            last=self._last(name),
        )
        if not found:
            return dataclasses.replace(place, looked=looked)
        self._record(found)
        closed = stretch.rows.num_rows - stretch.open.num_rows
        place = stretch.after(closed + looked)
        self.memory.store((self.app, active.id, self.state.generation, name), place.to_json())
        return place

    # --- labels --------------------------------------------------------------------------

    def reader(self) -> LabelReader:
        """Return what reads the labels of this app."""
        return LabelReader(
            labels=self.labels,
            log=self.log,
            app=self.app,
            now=self.now,
            who=self.memory.who_answered,
            name_of=lambda version_id: self.memory.version(version_id)[0],
            trusted=frozenset(self.settings.labels.trusted_sources),
        )

    def credit_labels(self) -> None:
        """Give new labels to the sequential monitors of whoever answered, however long ago."""
        key = self.app, 0, 0, "labels"
        place = self.memory.state(key) or {"cursor": 0, "n_lost": 0}
        for batch in self.reader().read(place["cursor"], coverage=self._coverage):
            for owner, data in batch.parts.items():
                self._take(owner, data, batch.cursor)
            place = {"cursor": batch.cursor, "n_lost": place["n_lost"] + batch.n_lost}
            self.memory.store(key, place)

    def _take(self, owner: Answerer, data: WindowData, cursor: int) -> None:
        version_id = owner.version_id
        assert version_id is not None
        _, digest = self.memory.version(version_id)
        for name in self.monitor_names():
            monitor = self.monitor(name, digest)
            if monitor is None or not monitor.sequential:
                continue
            key = self.app, version_id, owner.generation, name
            known = self.memory.state(key)
            # A pass that was cut short has taken some of these labels already.
            fresh = data if known is None else data.take(data.seq > known["cursor"])
            if not len(fresh):
                continue
            taken = _resumed(monitor, known)
            found = self._guarded(name, taken.judge, fresh)
            self._record(found)
            if any(one.verdict is Verdict.ERRORED for one in found):
                # What it made of these labels is worth nothing: go on from before them.
                taken = _resumed(self.monitor(name, digest), known)
            self.memory.store(key, {"cursor": cursor, "monitor": taken.snapshot()})

    def _labels_taken(self, active: Version, name: str) -> int:
        known = self.memory.state((self.app, active.id, self.state.generation, name))
        return 0 if known is None else int(known["monitor"]["n"])

    def sequential(self, name: str, active: Version) -> Sequential | None:
        """Return a sequential monitor as it stands, None where it has taken nothing."""
        known = self.memory.state((self.app, active.id, self.state.generation, name))
        monitor = self.monitor(name, active.digest)
        if known is None or monitor is None or not monitor.sequential:
            return None
        return _resumed(monitor, known)

    def _judge_labelled(self, monitor: Monitor, name: str, active: Version) -> int:
        """Judge the windows of labelled rows that closed; return how many were seen lately."""
        key = self.app, active.id, self.state.generation, name
        place = self.memory.state(key) or {"cursor": 0, "n_labels": 0}
        me = Answerer(active.id, self.state.generation)
        parts: list[WindowData] = []
        cursor = int(place["cursor"])
        for batch in self.reader().read(cursor, coverage=self._coverage, only=me):
            if me in batch.parts:
                parts.append(batch.parts[me])
            elif not parts:
                # Others' labels need not be read again.
                cursor = batch.cursor
            if sum(len(one) for one in parts) >= _MOST_LABELLED:
                break
        if not parts:
            if cursor != place["cursor"]:
                self.memory.store(key, {**place, "cursor": cursor})
            return int(place["n_labels"])
        data = concat(parts)
        table = self.table(name)
        # A clock that was set back must not make the order of arrival look broken.
        arrived = np.maximum.accumulate(data.arrived)
        for start, stop in cut(
            arrived, window_s=table.window, window_rows=table.window_rows, now=self.now
        ):
            part = data.take(slice(start, stop))
            usual = place.get("sources", {})
            part = dataclasses.replace(part, usual_sources=len(usual))
            self._record(self._guarded(name, monitor.judge, part))
            if suspected(part, at_most=self.settings.labels.max_source_share) is None:
                usual = dict(with_sources(usual, part.source))
            place = {
                "cursor": int(part.seq[-1]),
                "n_labels": int(place["n_labels"]) + len(part),
                "sources": usual,
            }
            self.memory.store(key, place)
        return int(place["n_labels"]) + len(data)

    # --- how mature labels are -----------------------------------------------------------

    def _coverage(self, owner: Answerer) -> Coverage | None:
        assert owner.version_id is not None
        known = self.memory.state((self.app, owner.version_id, owner.generation, "coverage"))
        if known is None or "n_due" not in known:
            return None
        return Coverage(n_due=known["n_due"], n_labelled=known["n_labelled"])

    def _cover(self, active: Version) -> None:
        """Count the labels of rows that are old enough to have one, window by window."""
        needing = [
            (name, monitor)
            for name in self.monitor_names()
            if (monitor := self.monitor(name, active.digest)) is not None
            and monitor.clock == "labels"
            # That labels are missing is said once of a monitor, not of each of its parts.
            and "." not in name
        ]
        if not needing:
            return
        key = self.app, active.id, self.state.generation, "coverage"
        known = self.memory.state(key)
        place = Place() if known is None else Place.from_json(known["place"])
        table = self.table(needing[0][0])
        until = self.now - self.settings.labels.delay - max(SETTLE_S, self.log.late_s)
        reader = self.reader()
        for rows, after in self._walk(active, place, table, until).windows():
            due = _answered(rows)
            n_labelled = sum(map(reader.trusts, self.labels.get(due).values()))
            coverage = Coverage(n_due=len(due), n_labelled=n_labelled)
            for name, monitor in needing:
                self._record(list(self._missing_labels(name, monitor, coverage, rows, active)))
            document = {"place": after.to_json(), "n_due": len(due), "n_labelled": n_labelled}
            self.memory.store(key, document)

    def _missing_labels(
        self, name: str, monitor: Monitor, coverage: Coverage, rows: pa.Table, active: Version
    ) -> Iterator[MonitorResult]:
        times = rows.column("time").to_numpy()
        window = Window(
            start=float(times.min()),
            end=float(times.max()),
            n_rows=rows.num_rows,
            n_labels=coverage.n_labelled,
            generation=self.state.generation,
        )
        series = [(one[-1].id, one[-1].subject) for one in self._series(name)]
        for check, subject in series or [(f"{name}.labels", "")]:
            found = immature(
                check,
                coverage,
                min_coverage=self.settings.labels.min_coverage,
                version=active.name,
                window=window,
                subject=subject,
                sequential=monitor.sequential,
            )
            if found is not None:
                yield found

    # --- servers -------------------------------------------------------------------------

    def _judge_load(self, active: Version) -> None:
        """Say it when no server can load what should serve, and when one can again."""
        reasons = {one.id: one.failed[active.id] for one in self.servers if active.id in one.failed}
        found = judge_load(active.name, reasons, len(self.servers))
        before = self.memory.history(self.app, self.state.generation).get("service.load", [])
        last = before[-1].verdict if before else Verdict.PASSED
        if found is not None and found.verdict is not last:
            window = Window(
                start=self.now,
                end=self.now,
                n_rows=0,
                n_labels=0,
                generation=self.state.generation,
            )
            self._record([dataclasses.replace(found, window=window)])

    def _judge_crashes(self, active: Version) -> None:
        """Say it when the version's processes die, and until that was over for long enough."""
        crashes = self.registry.crashes(self.app, active.id, self.state.generation)
        if not crashes:
            return
        history = self.memory.history(self.app, self.state.generation).get("service.crash", [])
        last = history[-1] if history else None
        since = last.window.end if last is not None and last.window is not None else 0.0
        table = self.settings.monitor.service
        found = judge_crashes(
            active.name,
            crashes,
            limit=table.crashes,
            since=since,
            now=self.now,
            generation=self.state.generation,
        )
        if found.verdict is Verdict.PASSED and (last is None or clears(history, table)):
            return
        if last is None or found.verdict is not last.verdict or self.now - since >= CRASH_S:
            self._record([found])


def _resumed(monitor: Monitor | None, known: dict[str, Any] | None) -> Sequential:
    resumed = cast("Sequential", monitor)
    if known is not None:
        resumed.restore(known["monitor"])
    return resumed


def _answered(rows: pa.Table) -> list[int]:
    """Return the query ids that the model itself answered."""
    ids = rows.column("query_id").to_pylist()
    defaults = rows.column("default").to_pylist()
    return [query_id for query_id, default in zip(ids, defaults, strict=True) if not default]
