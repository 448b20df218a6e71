"""The watcher: looks at every app, judges what is due, and acts by policy.

::

    log, labels ─▶ windows ─▶ monitors ─▶ results ─▶ policy ─▶ incident, hold, rollback, default
                   watch_rows, watch_labels          (pure)    watch_actions
                   └──────────── watch_app ──────┘

A pass (:meth:`Watcher.tick`) reads the clock once and may be repeated, cut short or run by
another process next time: what it knows stands in the registry.  One process at a time is the
leader; a second one waits.  An app whose pass raises is noted and the others go on, and where
the registry itself fails nothing moves: the servers go on with what they have.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlguard.config import AppSettings, ProjectSettings, load_app
from mlguard.deploy.qualify import Replayer
from mlguard.deploy.standby import DAILY_S, Rehearsed
from mlguard.deploy.watch_actions import Actor, TickEvent
from mlguard.deploy.watch_app import AppWatch
from mlguard.deploy.watch_clock import Stopwatch, boot_id
from mlguard.deploy.watch_labels import Labels
from mlguard.deploy.watch_memory import Memory
from mlguard.deploy.watch_rollout import RolloutWatch
from mlguard.errors import ConfigError, ConflictError, MlguardError, RegistryError
from mlguard.policy import DECIDED, Condition, Standing, is_blind
from mlguard.results import Verdict
from mlguard.wording import duration

if TYPE_CHECKING:
    from mlguard.data.log_store import LogStore
    from mlguard.data.prediction_log import PredictionLog
    from mlguard.registry import AppState, Registry, Server, Version

#: Name and length of the leader's lease.
LEASE, LEASE_S = "monitors", 30.0
#: Seconds between two passes.
INTERVAL_S = 1.0
#: What crashed or ended by itself is tidied up this often.
RECONCILE_S = 10.0
#: Old rows are dropped from the log this often.
PRUNE_S = 3600.0
#: What another machine logged is here so many seconds after it closed the segment.
CARRIED_S = 60.0
#: Whether a report is due is asked this often.
REPORT_S = 60.0
#: A stopwatch is stored at least this often.
_STORE_S = 5.0

_log = logging.getLogger(__name__)

#: Tries a version as a rollback to it would.
Rehearsal = Callable[["ProjectSettings", "AppSettings", "Registry", "Version"], Rehearsed]

__all__ = ["TickEvent", "Watcher"]


@dataclass(slots=True)
class _Moments:
    """When this process did things last; a restart does them again, which does no harm."""

    reconciled: float = -float("inf")
    pruned: float = -float("inf")
    pruned_store: float = -float("inf")
    store_error: str = ""
    reported: float = -float("inf")
    stored: dict[str, float] = field(default_factory=dict)


class Watcher:
    """Watches every app of a project.

    Parameters
    ----------
    project : ProjectSettings
        The project.
    registry : Registry
        Holds every fact; the watcher's own state too.
    log : PredictionLog, optional
        What was answered; default: the project's.
    labels : callable, optional
        Gives the label store of an app; default: the project's.
    clock : callable
        The time, in seconds since the epoch.
    monotonic : callable, optional
        Seconds that only ever grow; default: the system's, or ``clock`` where that is not the
        system's.
    deliver : callable, optional
        Sends what the outbox holds; takes the time and returns what to say of it, if anything.
    report : callable, optional
        Makes the scheduled report of an app if it is due; takes its settings and the time, and
        returns what to say of it, if anything.
    replay : callable, optional
        Plays rows to a model; default: in a child process.
    rehearsal : callable, optional
        Tries a version that could be gone back to; default: nothing is tried.
    explain : callable, optional
        Explains incidents that could not be explained when they were opened; takes an app's
        settings and the time, and returns what to say of it, if anything.
    only : str, optional
        Watch this app alone.
    """

    def __init__(
        self,
        project: ProjectSettings,
        registry: Registry,
        log: PredictionLog | None = None,
        labels: Callable[[str], Labels] | None = None,
        clock: Callable[[], float] = time.time,
        *,
        monotonic: Callable[[], float] | None = None,
        deliver: Callable[[float], str | None] | None = None,
        report: Callable[[AppSettings, float], str | None] | None = None,
        replay: Replayer | None = None,
        rehearsal: Rehearsal | None = None,
        explain: Callable[[AppSettings, float], str | None] | None = None,
        only: str | None = None,
    ) -> None:
        self._explain = explain
        self._rehearsal = rehearsal
        self.project = project
        self.registry = registry
        self.clock = clock
        self.only = only
        self._monotonic = monotonic or (time.monotonic if clock is time.time else clock)
        self._log = log or _project_log(project)
        self._store = _project_store(project, self._log)
        self._labels = labels or _project_labels(project)
        self._deliver = deliver
        self._report = report
        self._replay = replay
        self._memory = Memory(registry)
        self._moments = _Moments()
        self._settings: dict[str, AppSettings] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._complaints: dict[str, str] = {}
        self._stores: dict[str, Labels] = {}
        # A slow mail server must not delay a rollback: where a loop runs, mail runs beside it.
        self._helper: ThreadPoolExecutor | None = None
        self._errand: Future[list[TickEvent]] | None = None
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    # --- one pass ------------------------------------------------------------------------

    def tick(self, now: float | None = None) -> list[TickEvent]:
        """Make one pass over all apps.

        Parameters
        ----------
        now : float, optional
            The time; default: the clock's.

        Returns
        -------
        list of TickEvent
            What happened; empty where nothing was due, or another process is the leader.
        """
        now = self.clock() if now is None else now
        try:
            if not self.registry.lease(LEASE, self.owner, LEASE_S):
                self._memory.forget()
                return []
            events = list(self._tidy(now))
            servers = self.registry.live_servers()
            self._wait_for_others(servers)
        except RegistryError as error:
            self._memory.forget()
            return [self._failed("", error, now)]
        for app in self.apps():
            try:
                events += self._watch(app, now, servers)
            except ConflictError as error:
                events.append(TickEvent(at=now, app=app, kind="deferred", summary=error.message))
            # One app's trouble, whatever it is, must not leave the others unwatched.
            except Exception as error:  # noqa: BLE001  see above
                # What is in memory may be half of what was written.
                self._memory.forget()
                events.append(self._failed(app, error, now))
        events += self._send(now)
        return events

    def _wait_for_others(self, servers: list[Server]) -> None:
        """Leave rows time to come through the store, where other machines write some."""
        others = self._store is not None and any(
            one.host != socket.gethostname() for one in servers
        )
        self._log.late_s = self.project.log_store.segment + CARRIED_S if others else 0.0

    def apps(self) -> list[str]:
        """Return the apps that are watched."""
        names = self.project.app_names()
        return names if self.only is None else [one for one in names if one == self.only]

    def _failed(self, app: str, error: Exception, now: float) -> TickEvent:
        what = error.message if isinstance(error, MlguardError) else str(error)
        summary = f"{type(error).__name__}: {what}"
        if self._complaints.get(app) != summary:
            self._complaints[app] = summary
            _log.error("watching %s: %s", app or "the project", summary, exc_info=error)
            if app:
                with contextlib.suppress(MlguardError):
                    self.registry.record(app, "monitor_error", summary)
        return TickEvent(at=now, app=app, kind="error", summary=summary)

    def _tidy(self, now: float) -> Iterator[TickEvent]:
        if not 0 <= now - self._moments.reconciled < RECONCILE_S:
            self._moments.reconciled = now
            for said in self.registry.reconcile():
                yield TickEvent(at=now, app="", kind="reconciled", summary=said)
        if not 0 <= now - self._moments.pruned < PRUNE_S:
            self._moments.pruned = now
            for app, settings in self._settings.items():
                self._log.prune(now - settings.log.retention, app)

    # --- mail and reports ----------------------------------------------------------------

    def _send(self, now: float) -> Iterator[TickEvent]:
        """Send mail and make reports: here, or where a loop runs, beside it."""
        if self._helper is None:
            yield from self._errands(now)
            return
        if self._errand is not None:
            if not self._errand.done():
                return
            yield from self._errand.result()
        self._errand = self._helper.submit(lambda: list(self._errands(now)))

    def _errands(self, now: float) -> Iterator[TickEvent]:
        if self._report is not None and not 0 <= now - self._moments.reported < REPORT_S:
            self._moments.reported = now
            for app, settings in list(self._settings.items()):
                yield from self._errand_of(
                    app, "report", now, functools.partial(self._report, settings, now)
                )
        for app, settings in list(self._settings.items()):
            yield from self._errand_of(
                app, "rehearsed", now, functools.partial(self._rehearse, settings, now)
            )
            if self._explain is not None:
                yield from self._errand_of(
                    app, "explained", now, functools.partial(self._explain, settings, now)
                )
        if self._deliver is not None:
            yield from self._errand_of("", "delivered", now, functools.partial(self._deliver, now))
        if self._store is not None:
            # Last: a bucket that is slow must not hold up mail.
            yield from self._errand_of("", "log", now, functools.partial(self._carry, now))

    def _carry(self, now: float) -> str | None:
        """Carry the log to its store, and drop there what is too old; say what goes wrong once."""
        assert self._store is not None
        found = self._store.sync()
        if not 0 <= now - self._moments.pruned_store < PRUNE_S:
            self._moments.pruned_store = now
            for app, settings in list(self._settings.items()):
                self._store.prune(now - settings.log.retention, app)
        if found is None or found.error == self._moments.store_error:
            return None
        self._moments.store_error = found.error
        if not found.error:
            return "the log's store takes segments again"
        return f"the log's store takes nothing: {found.error}"

    def _errand_of(
        self, app: str, kind: str, now: float, run: Callable[[], str | None]
    ) -> Iterator[TickEvent]:
        try:
            said = run()
        # Mail and drawing are other people's machines: whatever they raise, watching goes on.
        except Exception as error:  # noqa: BLE001  see above
            yield self._failed(app, error, now)
            return
        if said:
            yield TickEvent(at=now, app=app, kind=kind, summary=said)

    def _rehearse(self, settings: AppSettings, now: float) -> str | None:
        """Try what a rollback would go to, once a day; one that does not work is broken now."""
        app = settings.name
        if settings.auto.rehearse == "never" or self._rehearsal is None:
            return None
        targets = self.registry.rollback_targets(app, automatic=True)
        if not targets:
            return None
        target = targets[0]
        key = app, 0, 0, "rehearsal"
        known = self.registry.monitor_state(*key) or {"at": 0.0}
        # What served until a moment ago was rehearsed by its callers.
        if 0 <= now - max(known["at"], target.state_at) < DAILY_S:
            return None
        # Before it is tried: one that takes its child down is not tried again at once.
        self.registry.set_monitor_state(*key, {"at": now})
        tried = self._rehearsal(self.project, settings, self.registry, target)
        if not tried.ok:
            # Once more: a machine that is short of memory is no broken version.
            tried = self._rehearsal(self.project, settings, self.registry, target)
        facts = {"at": now, "version": target.name, "ok": tried.ok, "reason": tried.reason}
        self.registry.set_monitor_state(*key, facts)
        if tried.ok:
            return None
        self.registry.report_broken(target.id, f"the rehearsal of a rollback: {tried.reason}")
        return f"{target.name} could not be gone back to: {tried.reason}"

    # --- one app -------------------------------------------------------------------------

    def _watch(self, app: str, now: float, servers: list[Server]) -> list[TickEvent]:
        settings = self._app_settings(app)
        state = self.registry.app(app)
        if settings is None or state.generation == 0:
            return []
        self._memory.forget_generations(app, state.generation)
        watch = AppWatch(
            registry=self.registry,
            log=self._log,
            labels=self._label_store(app),
            memory=self._memory,
            settings=settings,
            state=state,
            now=now,
            servers=servers,
        )
        active = state.active
        if active is None or state.mode.value != "SERVE":
            watch.credit_labels()
            return []
        serving = any(one.observed.get(app) == state.generation for one in servers)
        stopwatch = self._read_clocks(app, state, active, now, serving=serving)
        found = watch.judge(active)
        events = [
            TickEvent(
                at=now,
                app=app,
                kind="verdict",
                summary=f"{one.name}: {one.verdict.word}: {one.summary}",
                detail={"result": one.to_json()},
            )
            for one in watch.recorded
        ]
        self._note_conditions(app, state, active, found)
        actor = Actor(
            watch=watch,
            active=active,
            standing=self._standing(app, active, stopwatch, now),
            replay=self._replay,
        )
        moved = actor.act()
        if not moved:
            actor.tidy()
        events += actor.events
        if not moved:
            self._confirm(watch, active, stopwatch, events)
            if active.state.value == "BAKING" and all(one.kind != "confirmed" for one in events):
                self._note_unconfirmed(watch, active, stopwatch, events)
            rollout = RolloutWatch(
                watch=watch, active=active, project=self.project, monotonic=self._monotonic()
            )
            rollout.drive()
            events += rollout.events
        self._complaints.pop(app, None)
        return events

    def _app_settings(self, app: str) -> AppSettings | None:
        """Read app.toml; one that is broken leaves the last good one in force."""
        file = self.project.root / "serving" / app / "app.toml"
        try:
            facts = file.stat()
        except OSError:
            return self._settings.get(app)
        stamp = facts.st_mtime_ns, facts.st_size
        if self._stamps.get(app) == stamp:
            return self._settings.get(app)
        self._stamps[app] = stamp
        try:
            self._settings[app] = load_app(self.project, app)
        except ConfigError as error:
            _log.error("app.toml of %s: %s", app, error.message)
        return self._settings.get(app)

    def _label_store(self, app: str) -> Labels:
        if app not in self._stores:
            self._stores[app] = self._labels(app)
        return self._stores[app]

    # --- time ----------------------------------------------------------------------------

    def _read_clocks(
        self, app: str, state: AppState, active: Version, now: float, *, serving: bool
    ) -> Stopwatch:
        key = app, active.id, state.generation, "clock"
        stopwatch = Stopwatch.from_json(self._memory.state(key)).read(
            wall=now, monotonic=self._monotonic(), boot=boot_id(), serving=serving
        )
        self._keep(key, stopwatch, now)
        return stopwatch

    def _keep(self, key: tuple[str, int, int, str], stopwatch: Stopwatch, now: float) -> None:
        name = "/".join(str(part) for part in key)
        if 0 <= now - self._moments.stored.get(name, -_STORE_S) < _STORE_S:
            self._memory.keep(key, stopwatch.to_json())
            return
        self._moments.stored[name] = now
        self._memory.store(key, stopwatch.to_json())

    def _standing(self, app: str, active: Version, stopwatch: Stopwatch, now: float) -> Standing:
        moves = self.registry.automatic_moves(app)[-20:]
        key = app, 0, 0, "moves"
        ages: tuple[float, ...] = ()
        if moves:
            seen = (
                Stopwatch.from_json(self._memory.state(key))
                .read(wall=now, monotonic=self._monotonic(), boot=boot_id(), serving=False)
                .seen(moves)
            )
            self._keep(key, seen, now)
            ages = seen.ages(moves)
        return Standing(
            baking=active.state.value == "BAKING",
            elapsed_s=stopwatch.elapsed_s,
            move_ages_s=ages,
        )

    def _note_unconfirmed(
        self, watch: AppWatch, active: Version, stopwatch: Stopwatch, events: list[TickEvent]
    ) -> None:
        """Mail once about a version that was watched for long and is still not confirmed."""
        longest = watch.settings.rollout.max_bake
        key = watch.app, active.id, watch.state.generation, "unconfirmed"
        if stopwatch.elapsed_s < longest or watch.memory.state(key) is not None:
            return
        why = (
            f"{active.name} is unconfirmed after {duration(longest)}: too little traffic, a "
            "monitor that gives no verdict, or an open incident"
        )
        self.registry.tell(
            watch.app,
            "unconfirmed",
            active.name,
            {
                "why": why,
                "did": "it keeps serving, and is nothing that could be gone back to",
                "next": f'mlguard confirm {watch.app} --reason "…"',
            },
        )
        watch.memory.store(key, {"told_at": watch.now})
        events.append(TickEvent(at=watch.now, app=watch.app, kind="unconfirmed", summary=why))

    def _confirm(
        self, watch: AppWatch, active: Version, stopwatch: Stopwatch, events: list[TickEvent]
    ) -> None:
        """Confirm a version that was watched long enough and found in order (T10)."""
        rollout = watch.settings.rollout
        if active.state.value != "BAKING" or stopwatch.served_s < rollout.bake:
            return
        history = watch.memory.history(watch.app, watch.state.generation)
        for found in history.values():
            decided = [one.verdict for one in found if one.verdict in DECIDED]
            if is_blind(found) or (decided and decided[-1] is Verdict.FAILED):
                return
        open_ones = self.registry.incidents(watch.app, open_only=True)
        if any(one.version_id == active.id for one in open_ones):
            return
        rows = None
        if rollout.bake_min_rows:
            rows = self._log.read(
                watch.app, version_id=active.id, generation=watch.state.generation
            ).num_rows
            if rows < rollout.bake_min_rows:
                return
        confirmed = self.registry.confirm(
            watch.app,
            served_s=stopwatch.served_s,
            rows=rows,
            expected_generation=watch.state.generation,
        )
        if confirmed is not None:
            events.append(
                TickEvent(
                    at=watch.now,
                    app=watch.app,
                    kind="confirmed",
                    summary=f"{confirmed.name} was watched for {duration(stopwatch.served_s)} "
                    "without a failure: it is LIVE now",
                )
            )

    # --- what else is due ----------------------------------------------------------------

    def _note_conditions(
        self, app: str, state: AppState, active: Version, found: dict[str, Condition]
    ) -> None:
        key = app, active.id, state.generation, "conditions"
        if (self._memory.state(key) or {}).get("monitors") != found:
            self._memory.store(key, {"monitors": found})

    # --- the loop ------------------------------------------------------------------------

    def run_forever(
        self,
        *,
        interval_s: float = INTERVAL_S,
        stop: threading.Event | None = None,
        on_events: Callable[[Sequence[TickEvent]], None] | None = None,
    ) -> None:
        """Make passes until told to stop, by the event or by SIGTERM or SIGINT.

        Parameters
        ----------
        interval_s : float
            Seconds between two passes.
        stop : threading.Event, optional
            Set by whoever wants it to end.
        on_events : callable, optional
            Is given what happened in each pass in which something did.
        """
        stop = stop or threading.Event()
        with _signals(stop), ThreadPoolExecutor(1, "mlguard-errands") as self._helper:
            while not stop.is_set():
                try:
                    events = self.tick()
                # Whatever it was, unwatched is worse.
                except Exception as error:  # noqa: BLE001  see above
                    events = [self._failed("", error, self.clock())]
                if events and on_events is not None:
                    on_events(events)
                stop.wait(interval_s)
        self._helper = None
        with contextlib.suppress(MlguardError):
            self.registry.give_up_lease(LEASE, self.owner)


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set an event; only the main thread may ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _project_log(project: ProjectSettings) -> PredictionLog:
    from mlguard.data.prediction_log import PredictionLog

    return PredictionLog(project.log_dir, follow=True)


def _project_store(project: ProjectSettings, log: PredictionLog) -> LogStore | None:
    if not project.log_store.url:
        return None
    from mlguard.data.log_store import LogStore

    return LogStore(log, project.log_url)


def _project_labels(project: ProjectSettings) -> Callable[[str], Labels]:
    from mlguard.data.labels import LabelStore, default_url

    return lambda app: LabelStore(default_url(project.log_dir, app))
