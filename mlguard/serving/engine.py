"""One app: the versions that are loaded, who answers, by when, and with which explanation.

::

    body ─► read_request ─► route ─► RowReader ─► AdaptiveBatcher ─► ReplicaPool
                              │                        (one of each per version)
    answer ◄─ default output or label ◄─ deadline ◄────────┘ ─► Recorder (log, afterwards)

Rules
-----
1. A request is bound to a version and a generation when it is admitted, and is answered by
   that version whatever happens meanwhile; a version is unloaded only when nobody waits for it.
2. Switching is one assignment in the event loop.  Loading and warming come before it.
3. The model's process never hears of a group.  Where a version has thresholds per group, its
   answer is taken anew from the score here, for callers whose key is known.
4. At its deadline a request is answered, with default outputs where rows are missing.
5. Only a malformed request, a missing key, an unknown app and overload are no
   200.

Everything here runs in one event loop; nothing here waits for the registry, the log or a
label.  What those need is put aside for other threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mlguard.config import AppSettings
from mlguard.errors import MlguardError
from mlguard.models.schema import InputSchema
from mlguard.models.thresholds import GroupThresholds
from mlguard.serving.access import AppKeys
from mlguard.serving.answers import NO_VERSION, SLO_MISSED, Answer, as_output
from mlguard.serving.batching import AdaptiveBatcher
from mlguard.serving.inputs import PredictRequest, RowReader, read_request, unknown_version
from mlguard.serving.metrics import Metrics
from mlguard.serving.query_ids import Key, QueryIds
from mlguard.serving.recall import Recall
from mlguard.serving.recorder import LogTarget, Recorder
from mlguard.serving.replicas import BatchAnswer, ModelSpec, ReplicaPool
from mlguard.serving.routing import ALONE, Split

logger = logging.getLogger("mlguard.serving")

#: A replica is stuck after this many SLOs, but not before a second.
_STUCK_SLOS = 10


class OverloadedError(MlguardError):
    """More rows wait than the SLO can clear; trying again soon is safe."""

    http_status = 503
    code = "overloaded"
    retryable = True


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """A version to load.

    Attributes
    ----------
    id : int
        The registry's number; 0 never occurs.
    name : str
        As people call it.
    manifest : dict
        Its manifest as JSON.
    model_path : str
        File with its verified bytes.
    """

    id: int
    name: str
    manifest: dict[str, Any]
    model_path: str


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers.

    Attributes
    ----------
    generation : int
        Of the app in the registry; 0 before the first deploy.
    active : int or None
        Id of the version that answers; None: the default output.
    explanation : str
        Why, where nobody answers.
    warm : tuple of int
        Ids of further versions that a request may ask for by name.
    split : Split
        Who takes part beside the active version, while one is rolled out or watched.
    """

    generation: int = 0
    active: int | None = None
    explanation: str = NO_VERSION
    warm: tuple[int, ...] = ()
    split: Split = ALONE


class Waiting:
    """One admitted request: its rows, and what they got so far."""

    __slots__ = (
        "answers",
        "arrived",
        "done",
        "key",
        "left",
        "request",
        "rows",
        "threshold",
        "timer",
        "version",
    )

    def __init__(
        self, request: PredictRequest, rows: list[Any], version: ServedVersion | None, key: Key
    ) -> None:
        #: Of the request's group; None: the model's process has applied the right one.
        self.threshold: float | None = None
        self.request = request
        self.rows = rows
        self.version = version
        self.key = key
        self.answers: list[Answer | None] = [None] * len(rows)
        self.left = len(rows)
        self.arrived = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.done: asyncio.Future[None] | None = None

    def settle(self, index: int, answer: Answer) -> None:
        """Give one row its answer; the first one counts."""
        if self.answers[index] is None:
            self.answers[index] = answer
            self.left -= 1
            if self.left == 0 and self.done is not None and not self.done.done():
                self.done.set_result(None)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a caller gets.

    Attributes
    ----------
    body : bytes
        JSON.
    version : str
        Name of the version that was asked, ``"none"`` where there is none.
    generation : int
        Of the app when the request was admitted.
    """

    body: bytes
    version: str
    generation: int


class ServedVersion:
    """One loaded version: its reader, its queue, its replicas.

    Parameters
    ----------
    app : AppEngine
        The app it belongs to.
    spec : VersionSpec
        What it is.
    """

    def __init__(self, app: AppEngine, spec: VersionSpec) -> None:
        settings = app.settings
        slo_s = settings.app.slo_ms / 1000
        self.spec = spec
        self.schema = InputSchema.from_json(spec.manifest["input_schema"])
        self.reader = RowReader(
            self.schema.input, self.schema.features, strict=settings.app.strict_types
        )
        self.thresholds = GroupThresholds.of(spec.manifest.get("thresholds", {}))
        self.batcher: AdaptiveBatcher[tuple[Waiting, int]] = AdaptiveBatcher(
            slo_s=slo_s, max_wait_s=settings.app.max_wait_ms / 1000
        )
        model = settings.model
        self.pool = ReplicaPool(
            ModelSpec(
                manifest=spec.manifest,
                model_path=spec.model_path,
                memory_mib=model.memory_mib,
                wall_limit_s=model.wall_limit_s,
                load_timeout_s=settings.rollout.load_timeout,
                stuck_s=max(1.0, _STUCK_SLOS * slo_s),
            ),
            size=model.replicas,
            on_free=self.pump,
            on_restart=self._restarted,
        )
        self._in_flight = 0
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._wake: asyncio.TimerHandle | None = None
        self._target: LogTarget | None = None

    def reconfigure(self, settings: AppSettings) -> None:
        """Put other settings in force."""
        self.reader = RowReader(
            self.schema.input, self.schema.features, strict=settings.app.strict_types
        )
        self.batcher.slo_s = settings.app.slo_ms / 1000
        self.batcher.max_wait_s = settings.app.max_wait_ms / 1000
        self._target = None

    @property
    def name(self) -> str:
        """The version's name."""
        return self.spec.name

    @property
    def log_target(self) -> LogTarget:
        """Where its rows are logged, and what is kept of them."""
        if self._target is None:
            log = self._app.settings.log
            self._target = LogTarget(
                self._app.name,
                self.spec.id,
                self.schema.features,
                tuple(log.redact),
                log.inputs == "all",
            )
        return self._target

    def enter(self) -> None:
        """Count a request that waits."""
        self._in_flight += 1
        self._nobody.clear()

    def leave(self) -> None:
        """Count one that has its answer."""
        self._in_flight -= 1
        if not self._in_flight:
            self._nobody.set()

    async def drained(self) -> None:
        """Wait until nobody waits for an answer."""
        await self._nobody.wait()

    def admit(self, waiting: Waiting, deadline: float, now: float) -> bool:
        """Queue a request's rows; False on overload."""
        # Behind a model that hangs, rows that were answered by default must not fill the queue.
        for late, index in self.batcher.expire(now):
            late.settle(index, self._app.default(SLO_MISSED))
        rows = [(waiting, index) for index in range(len(waiting.rows))]
        if not self.batcher.admit(rows, deadline=deadline, now=now, workers=self.pool.workers):
            return False
        self._app.queued.set(len(self.batcher))
        # After this turn of the loop: requests that arrived together share a batch.
        self._soon()
        return True

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.pump)

    def pump(self) -> None:
        """Hand batches to free replicas until one of the two runs out."""
        self._scheduled = False
        while self.pool.free and len(self.batcher):
            now = self._loop.time()
            batch, expired = self.batcher.take(now)
            for waiting, index in expired:
                waiting.settle(index, self._app.default(SLO_MISSED))
            # A caller that was answered meanwhile (its deadline, a lost connection) needs none.
            batch = [one for one in batch if one[0].answers[one[1]] is None]
            if batch:
                self._run(batch)
            elif len(self.batcher):
                ready = self.batcher.ready_at()
                if ready > now:
                    self._wake_at(ready)
                    break
        self._app.queued.set(len(self.batcher))

    def _wake_at(self, ready: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self._loop.call_at(ready, self._soon)

    def _run(self, batch: list[tuple[Waiting, int]]) -> None:
        def done(answer: BatchAnswer) -> None:
            if not answer.lost:
                self.batcher.finished(len(batch), answer.took_s)
            self._app.batch_rows.observe(len(batch))
            self._app.batch_seconds.observe(answer.took_s)
            self._deliver(batch, answer)

        self.pool.run([waiting.rows[index] for waiting, index in batch], done)

    def _deliver(self, batch: list[tuple[Waiting, int]], answer: BatchAnswer) -> None:
        for position, (waiting, index) in enumerate(batch):
            reason = answer.errors.get(position)
            if reason is None:
                label, score = answer.labels[position], answer.scores[position]
                if waiting.threshold is not None and score is not None:
                    label = self._label(score, waiting.threshold)
                waiting.settle(index, Answer(as_output(label), None, score))
            else:
                waiting.settle(index, self._app.default(reason))

    def _label(self, score: float, threshold: float) -> Any:
        """Return the class of two that a score stands for."""
        assert self.schema.classes is not None
        return self.schema.classes[score >= threshold]

    def threshold_for(self, request: PredictRequest, caller: str | None) -> float | None:
        """Return the threshold of a request's group; None where the default one holds."""
        app = self._app.settings.app
        if self.thresholds is None or caller is None or not app.groups_affect_decisions:
            return None
        return self.thresholds.of_group(request.groups)

    def _restarted(self, reason: str) -> None:
        self._app.metrics.restarts.labels(self._app.name, self.name, reason).inc()


class AppEngine:
    """One app in one front-end process.

    Parameters
    ----------
    settings : AppSettings
        What is in force.
    ids : QueryIds
        Where query ids come from.
    metrics : Metrics
        What is counted.
    recorder : Recorder, optional
        Where predictions are logged; None: nowhere.
    clock : callable, default time.time
        Seconds since the epoch, for the log.
    environment : mapping, optional
        Holds the callers' keys; default: the process's own.
    """

    def __init__(
        self,
        settings: AppSettings,
        *,
        ids: QueryIds,
        metrics: Metrics,
        recorder: Recorder | None = None,
        clock: Callable[[], float] = time.time,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self._environment = environment
        self.keys = AppKeys(settings.app.keys, environment)
        self.ids = ids
        self.metrics = metrics
        self.recorder = recorder
        self.route = Route()
        self.versions: dict[int, ServedVersion] = {}
        self.recall = Recall()
        self._clock = clock
        # Looking a labelled figure up costs as much as answering; these are looked up once.
        self.queued = metrics.queued.labels(self.name)
        self.batch_rows = metrics.batch_rows.labels(self.name)
        self.batch_seconds = metrics.batch_seconds.labels(self.name)
        self._latency = metrics.latency.labels(self.name)
        self._reader = RowReader(settings.app.input, strict=settings.app.strict_types)
        self._defaults: dict[str, Answer] = {}
        self._drained: set[asyncio.Task[None]] = set()
        self._warn_of_keys()

    def default(self, explanation: str) -> Answer:
        """Return the default answer with an explanation."""
        known = self._defaults.get(explanation)
        if known is None:
            known = Answer(as_output(self.settings.app.default_output), explanation)
            # The explanations are few; an exception's name makes one more of them.
            if len(self._defaults) < 1000:  # noqa: PLR2004
                self._defaults[explanation] = known
        return known

    def reconfigure(self, settings: AppSettings) -> None:
        """Put other settings in force; limits of processes hold from the next load on."""
        self.settings = settings
        self.keys = AppKeys(settings.app.keys, self._environment)
        self._warn_of_keys()
        self._reader = RowReader(settings.app.input, strict=settings.app.strict_types)
        self._defaults.clear()
        for version in self.versions.values():
            version.reconfigure(settings)

    def _warn_of_keys(self) -> None:
        for name in self.keys.absent:
            logger.warning("key %s of %s has no value, so nobody can show it", name, self.name)

    # --- versions ---

    async def load(self, spec: VersionSpec) -> None:
        """Load and warm a version beside those that serve.

        Raises
        ------
        MlguardError
            If it cannot be loaded; nothing has changed then.
        """
        if spec.id in self.versions:
            return
        version = ServedVersion(self, spec)
        await version.pool.start()
        self.versions[spec.id] = version

    def switch(self, route: Route) -> None:
        """Let another version answer from the next request on."""
        if route.active is not None and route.active not in self.versions:
            raise KeyError(route.active)
        self.route = route
        self.metrics.generation.labels(self.name).set(route.generation)
        self.metrics.serving.labels(self.name).set(route.active is not None)

    def unload(self, version_id: int) -> None:
        """Unload a version that answers no more, once nobody waits for it."""
        version = self.versions.pop(version_id, None)
        if version is None:
            return
        assert version_id != self.route.active

        async def drain() -> None:
            await version.drained()
            await version.pool.close()

        task = asyncio.get_running_loop().create_task(drain())
        self._drained.add(task)
        task.add_done_callback(self._drained.discard)

    async def close(self) -> None:
        """Unload everything."""
        self.route = Route(generation=self.route.generation)
        for version_id in list(self.versions):
            self.unload(version_id)
        await asyncio.gather(*self._drained)

    @property
    def ready(self) -> bool:
        """Whether the version that should answer is loaded (or none should)."""
        active = self.route.active
        return active is None or self.versions[active].pool.ready

    # --- a request ---

    async def predict(self, body: bytes, *, caller: str | None = None) -> Reply:
        """Answer one predict request.

        Parameters
        ----------
        body : bytes
            As it came.
        caller : str, optional
            Name of the key that it came with; None where the app has no keys.

        Raises
        ------
        BadRequestError
            If the body cannot be read, or asks for a version that does not serve.
        OverloadedError
            If more rows wait than the SLO can clear.
        """
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        request = read_request(body)
        route = self.route
        version = self._chosen(route, request)
        if version is None:
            # Its version may be gone, but the app knows what its input looks like.
            rows = self._reader.read(request)
            return self._undecided(request, rows, route, arrived)
        rows = version.reader.read(request)
        waiting = Waiting(request, rows, version, (version.spec.id, route.generation))
        waiting.threshold = version.threshold_for(request, caller)
        waiting.arrived = arrived
        if rows:
            await self._answered(waiting, version, arrived)
        return self._reply(waiting, loop.time() - arrived)

    def _chosen(self, route: Route, request: PredictRequest) -> ServedVersion | None:
        active = self.versions[route.active] if route.active is not None else None
        if request.version is None or (active is not None and active.name == request.version):
            return active
        for version_id in route.warm:
            version = self.versions.get(version_id)
            if version is not None and version.name == request.version:
                return version if active is not None else None
        raise unknown_version(request.version, self.name)

    async def _answered(self, waiting: Waiting, version: ServedVersion, arrived: float) -> None:
        """Wait until every row has an answer; at the deadline the default one."""
        loop = asyncio.get_running_loop()
        deadline = arrived + self.settings.app.slo_ms / 1000
        waiting.done = loop.create_future()
        if not version.admit(waiting, deadline, arrived):
            raise OverloadedError(
                f"{len(version.batcher)} rows wait for {self.name}, more than its latency "
                f"objective of {self.settings.app.slo_ms:g} ms can clear"
            )
        waiting.timer = loop.call_at(deadline, self._expire, waiting)
        version.enter()
        try:
            await waiting.done
        finally:
            version.leave()
            waiting.timer.cancel()
            if waiting.left:  # the caller went away: nobody wants these answers
                self._expire(waiting)

    def _expire(self, waiting: Waiting) -> None:
        for index, answer in enumerate(waiting.answers):
            if answer is None:
                waiting.settle(index, self.default(SLO_MISSED))

    def _undecided(
        self, request: PredictRequest, rows: list[Any], route: Route, arrived: float
    ) -> Reply:
        waiting = Waiting(request, rows, None, (0, route.generation))
        waiting.arrived = arrived
        for index in range(len(rows)):
            waiting.settle(index, self.default(route.explanation))
        return self._reply(waiting, asyncio.get_running_loop().time() - arrived)

    def _reply(self, waiting: Waiting, took_s: float) -> Reply:
        """Give the answers their numbers, write them as JSON, put them aside for the log."""
        version = waiting.version
        name = version.name if version is not None else "none"
        documents = []
        counts: dict[str, int] = {}
        now = self._clock()
        for row, answer in zip(waiting.rows, waiting.answers, strict=True):
            assert answer is not None
            query_id = self.ids.draw(waiting.key)
            documents.append(answer.to_json(query_id))
            reason = answer.explanation or ""
            counts[reason] = counts.get(reason, 0) + 1
            self._record(waiting, row, answer, query_id, (now, took_s))
        for reason, n in counts.items():
            self.metrics.predictions.labels(self.name, name, reason).inc(n)
        self._latency.observe(took_s)
        single = len(documents) == 1
        body = msgspec.json.encode(documents[0] if single else {"batch_predictions": documents})
        return Reply(body, name, waiting.key[1])

    def _record(
        self,
        waiting: Waiting,
        row: Any,
        answer: Answer,
        query_id: int,
        when: tuple[float, float],
    ) -> None:
        request, version = waiting.request, waiting.version
        now, took_s = when
        if request.uid is not None:
            self.recall.remember(request.uid, row, query_id)
        if self.recorder is None:
            return
        target = version.log_target if version is not None else LogTarget(self.name, 0)
        facts = {
            "query_id": query_id,
            "time": now,
            "generation": waiting.key[1],
            "default": answer.explanation is not None,
            "explanation": answer.explanation,
            "output": answer.output,
            "score": answer.score,
            "uid": request.uid,
            "groups": request.groups or None,
            "latency_ms": took_s * 1000,
            # A row that was answered was valid.  One on which the model failed is held against
            # the model only if its reference data had such values.
            "valid": version is not None
            and (answer.explanation is None or version.reader.fits(row)),
        }
        self.recorder.put(target, row, facts)

    def readers(self) -> list[RowReader]:
        """Return what can read a row of this app, the live version's first."""
        loaded = sorted(self.versions.items(), key=lambda one: one[0] != self.route.active)
        return [version.reader for _, version in loaded] or [self._reader]
