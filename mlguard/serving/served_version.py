"""One loaded version: its reader, its queue, and what its batches are handed to.

Rules
-----
1. Requests that arrive in the same turn of the event loop share a batch; with ``max_wait_ms``
   a batch waits for more.
2. At its deadline a request is answered, with default outputs where rows are missing.  One
   timer watches over all that wait: they expire in the order they came, for their time is equal.
3. Where the model runs beside the event loop, one batch runs in a turn of it, so that sockets
   are read in between.
4. When a batch came back from a process, its callers get a moment to ask again before the next one
   goes: a tenth of a batch's time, and no longer than until as many ask as were answered.  Else
   callers split into halves that take turns, and it is the call that a batch costs, not its rows.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from mlguard.models.bundle import Manifest
from mlguard.models.schema import InputSchema
from mlguard.serving.admission import Waiting
from mlguard.serving.answers import CRASHES, SLO_MISSED, UNUSUAL_ROW, Answer, as_output
from mlguard.serving.batching import AdaptiveBatcher
from mlguard.serving.given import Given
from mlguard.serving.inprocess import InProcessReplica
from mlguard.serving.inputs import RowReader
from mlguard.serving.logged_rows import LogTarget
from mlguard.serving.replica import BatchAnswer, ModelSpec, Replica, VersionSpec
from mlguard.serving.replicas import ReplicaPool
from mlguard.serving.row_cache import RowCache
from mlguard.serving.row_check import RowCheck, in_words

if TYPE_CHECKING:
    from mlguard.config import AppSettings
    from mlguard.serving.engine import AppEngine

#: The moment of rule 4: a share of a batch's time, and seconds at most.
_MOMENT = 0.1
_LONGEST_MOMENT_S = 0.001
#: A process is stuck after this many SLOs, but not before a second.
_STUCK_SLOS = 10
_MIB = 2**20
#: Event loops keep time in whole milliseconds: what is due within one is due.
_TICK_S = 0.001


class ServedVersion:
    """A version that answers.

    Parameters
    ----------
    app : AppEngine
        The app it belongs to.
    spec : VersionSpec
        What it is.
    """

    def __init__(self, app: AppEngine, spec: VersionSpec) -> None:
        self.spec = spec
        self.schema = InputSchema.from_json(spec.manifest["input_schema"])
        self.given = Given(spec.manifest, self.schema)
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._wake: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._waiting: deque[Waiting] = deque()
        self._in_flight = 0
        self._last = 0
        self._nobody: asyncio.Event | None = None
        self.batcher: AdaptiveBatcher[tuple[Waiting, int]] = AdaptiveBatcher(
            slo_s=app.settings.app.slo_ms / 1000
        )
        self._check = RowCheck(self.schema.input, self.schema.features)
        self.cache: RowCache | None = None
        self._grid: Any = None
        self.reconfigure(app.settings)
        self.replica: Replica = self._made(app.settings)

    async def start(self) -> None:
        """Load and warm the model.

        Raises
        ------
        MlguardError
            If that fails.
        """
        await self.replica.start()

    def _made(self, settings: AppSettings) -> Replica:
        model = settings.model
        spec = ModelSpec(
            manifest=self.spec.manifest,
            model_path=self.spec.model_path,
            memory_mib=model.memory_mib,
            wall_limit_s=model.wall_limit_s,
            cpu_limit_s=model.cpu_limit_s,
            heartbeat_s=model.heartbeat_s,
            load_timeout_s=settings.rollout.load_timeout,
            stuck_s=max(1.0, _STUCK_SLOS * self.batcher.slo_s),
        )
        if Manifest.from_json(self.spec.manifest).in_process:
            return InProcessReplica(spec, name=self.spec.name, on_free=self._soon)
        return ReplicaPool(
            spec, size=model.replicas, on_free=self._came_back, on_restart=self._restarted
        )

    def reconfigure(self, settings: AppSettings) -> None:
        """Put other settings in force; limits of processes hold from the next load on."""
        self.reader = RowReader(
            self.schema.input, self.schema.features, strict=settings.app.strict_types
        )
        self.given.by_group = settings.app.groups_affect_decisions
        self.batcher.slo_s = settings.app.slo_ms / 1000
        self.batcher.max_wait_s = settings.app.max_wait_ms / 1000
        self._remember(int(settings.app.cache_mib * _MIB))
        self.log_target = LogTarget(
            settings.name,
            self.spec.id,
            self.schema.features,
            tuple(settings.log.redact),
            settings.log.inputs != "none",
            settings.log.sample_rate if settings.log.inputs == "sample" else 1.0,
            self._grid,
        )

    def count_on(self, grid: Any) -> None:
        """Count inputs on the grid of a profile from now on; None: not at all."""
        self._grid = grid
        self.log_target = dataclasses.replace(self.log_target, grid=grid)

    def _remember(self, limit_bytes: int) -> None:
        """Set what the cache may take; once there is one it stays, for rows may share answers."""
        if self.cache is not None:
            self.cache.answers.shrink_to(limit_bytes)
        elif limit_bytes:
            self.cache = RowCache(limit_bytes, self.given.answer)
            self._app.tally.caches.append(self.cache.answers)

    def forget(self) -> None:
        """Count no more: the version is unloaded."""
        if self.cache is not None:
            self._app.tally.settle()
            self._app.tally.caches.remove(self.cache.answers)

    @property
    def name(self) -> str:
        """The version's name."""
        return self.spec.name

    # --- in ---

    def admit(self, waiting: Waiting) -> bool:
        """Queue a request's rows; False on overload."""
        now = waiting.arrived
        batcher = self.batcher
        if batcher.earliest <= now:
            # Behind a model that hangs, rows answered by default must not fill the queue.
            self._expired(batcher.expire(now))
        if len(waiting.rows) == 1:
            rows = [(waiting, 0)]
        else:
            answers = enumerate(waiting.answers)
            rows = [(waiting, index) for index, answer in answers if answer is None]
        places = rows
        if self.cache is not None:
            rows = self.cache.new_ones(places)
            if not waiting.left:
                self._app.replies.give(self, [waiting])
                return True
        if not batcher.admit(rows, waiting.deadline, now):
            return False
        if self.cache is not None:
            self.cache.join(places)
        self._in_flight += 1
        self._waiting.append(waiting)
        if self._watch is None:
            self._watch = self._loop.call_at(waiting.deadline, self._look)
        if not self._scheduled:
            self._soon()
        return True

    def look_at(self, waiting: Waiting) -> None:
        """Compare a request's rows with the schema, and settle those that no model may answer.

        Where ``[app] unusual_rows`` is ``"pass"``, nobody calls this.
        """
        app = self._app
        refused = app.settings.app.unusual_rows == "default"
        for index, row in enumerate(waiting.rows):
            found = self._check.unusual(row)
            if not found:
                continue
            if waiting.unusual is None:
                waiting.unusual = {}
            waiting.unusual[index] = in_words(found)
            for column, _ in found:
                app.metrics.unusual.labels(app.name, self.name, column).inc()
            if refused:
                waiting.settle(index, app.default(UNUSUAL_ROW))

    async def drained(self) -> None:
        """Wait until nobody waits for an answer."""
        if self._in_flight:
            self._nobody = asyncio.Event()
            await self._nobody.wait()

    # --- through the model ---

    def _soon(self) -> None:
        """Hand the next batch over in the next turn of the loop, where nothing will already."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.pump)

    def _came_back(self) -> None:
        """Hand the next batch over when callers have had a moment to ask again (rule 4)."""
        if self._last == 1:
            self._soon()
        elif not self._scheduled:
            self._scheduled = True
            moment = min(_MOMENT * self.batcher.batch_s, _LONGEST_MOMENT_S)
            full = len(self.batcher) + self._last
            self._loop.call_soon(self._turn, time.monotonic() + moment, full)

    def _turn(self, until: float, full: int) -> None:
        # Event loops keep time in whole milliseconds; this is a matter of less.
        if len(self.batcher) >= full or time.monotonic() >= until:
            self.pump()
        else:
            self._loop.call_soon(self._turn, until, full)

    def pump(self) -> None:
        """Hand batches to the replica until one of the two runs out."""
        self._scheduled = False
        replica, batcher = self.replica, self.batcher
        batcher.workers = replica.workers
        while len(batcher) and replica.free:
            now = time.monotonic()
            batch, expired = batcher.take(now)
            if expired:
                self._expired(expired)
            # Who was answered meanwhile (its deadline) or went away needs no model.
            if self.cache is None:
                batch = [
                    one
                    for one in batch
                    if one[0].done is not None and one[0].answers[one[1]] is None
                ]
            else:
                batch = [one for one in map(self.cache.wanted, batch) if one is not None]
            if batch:
                self._run(batch)
                if len(batcher) and replica.inline:
                    self._soon()
                    break
            elif len(batcher):
                ready = batcher.ready_at()
                if ready > now:
                    if self._wake is not None:
                        self._wake.cancel()
                    self._wake = self._loop.call_at(ready, self._soon)
                    break
        self._app.queued.set(len(batcher))

    def _run(self, batch: list[tuple[Waiting, int]]) -> None:
        def done(answer: BatchAnswer) -> None:
            if not answer.lost:
                self.batcher.finished(len(batch), answer.took_s)
            self._app.batch_rows.observe(len(batch))
            self._app.batch_seconds.observe(answer.took_s)
            self._last = len(batch)
            self._deliver(batch, answer)

        self.replica.run([waiting.rows[index] for waiting, index in batch], done)

    # --- out ---

    def _deliver(self, batch: list[tuple[Waiting, int]], answer: BatchAnswer) -> None:
        labels, scores, errors = answer.labels, answer.scores, answer.errors
        cache = self.cache
        settled = []
        if not errors and cache is None and self.given.plain:
            # What nearly every batch is: the words of a reply follow from the label alone.
            for (waiting, index), label, score in zip(batch, labels, scores, strict=True):
                if waiting.answers[index] is None:
                    output = as_output(label) if type(label) is str else label
                    waiting.answers[index] = Answer(output, None, score)
                    waiting.left -= 1
                    if not waiting.left:
                        settled.append(waiting)
            self._finish(settled, answer.table if len(settled) == len(batch) else None)
            return
        for position, place in enumerate(batch):
            failed = self._app.default(errors[position]) if position in errors else None
            label, score = labels[position], scores[position]
            if cache is not None and failed is None:
                cache.keep(place, label, score)
            for waiting, index in (place,) if cache is None else cache.all_of(place):
                if waiting.settle(index, failed or self.given.answer(waiting, label, score)):
                    settled.append(waiting)
        self._finish(settled)

    def _expired(self, rows: list[tuple[Waiting, int]]) -> None:
        if not rows:
            return
        late = self._app.default(SLO_MISSED)
        self._finish([waiting for waiting, index in rows if waiting.settle(index, late)])
        for heir in () if self.cache is None else map(self.cache.wanted, rows):
            if heir is not None:
                # Where there is no room for it, its deadline answers it.
                waiting = heir[0]
                self.batcher.admit([heir], deadline=waiting.deadline, now=waiting.arrived)

    def _look(self) -> None:
        """Answer, by default, whoever has waited long enough."""
        self._watch = None
        due = time.monotonic() + _TICK_S
        late = self._app.default(SLO_MISSED)
        waiting = self._waiting
        settled = []
        while waiting and (not waiting[0].left or waiting[0].deadline <= due):
            one = waiting.popleft()
            if one.left and [one.settle(index, late) for index in range(len(one.rows))]:
                settled.append(one)
        self._finish(settled)
        if waiting:
            self._watch = self._loop.call_at(waiting[0].deadline, self._look)

    def _finish(self, settled: list[Waiting], table: Any = None) -> None:
        """Hand answered requests on, with all their rows as one array where there is one."""
        if not settled:
            return
        self._in_flight -= len(settled)
        waiting = self._waiting
        while waiting and not waiting[0].left:
            waiting.popleft()
        self._app.replies.give(self, settled, table)
        if not self._in_flight and self._nobody is not None:
            self._nobody.set()

    def _restarted(self, reason: str) -> None:
        self._app.metrics.restarts.labels(self._app.name, self.name, reason).inc()
        if reason in CRASHES:
            self._app.crashed(self.spec.id, reason)
