"""One app: the versions that are loaded, who answers, and what callers get.

::

    body ─► RowReader ─► AppEngine.submit ─► ServedVersion: AdaptiveBatcher ─► Replica
                              │ route                  (one of each per version)    │
    done(Reply) ◄─────────────┴─ answered ◄──── deadline ◄──────────────────────────┘
                                     └─► Recorder, Tally: once a batch, after the replies

Rules
-----
1. A request is bound to a version and a generation when it is admitted; a version is unloaded
   only when nobody waits for it.
2. Switching is one assignment in the event loop.  Loading and warming come before it.
3. Only a malformed request, a missing key, an unknown app and overload are no 200.
4. Nothing that a caller does not wait for is done before all callers of a batch have their
   replies: counting and logging come after, for the batch as a whole.

Everything here runs in one event loop; nothing here waits for the registry, the log or a
label.  What those need is put aside for other threads.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mlguard.config import AppSettings
from mlguard.serving.access import AppKeys
from mlguard.serving.admission import Done, Origin, OverloadedError, Reply, Route, Waiting
from mlguard.serving.answers import Answer, as_output
from mlguard.serving.inputs import PredictRequest, RowReader, read_request, unknown_version
from mlguard.serving.metrics import Metrics
from mlguard.serving.mirroring import Mirrors, as_read_by
from mlguard.serving.query_ids import QueryIds
from mlguard.serving.recall import Recall
from mlguard.serving.recorder import Recorder
from mlguard.serving.replica import VersionSpec
from mlguard.serving.replying import Replies
from mlguard.serving.routing import takes_canary
from mlguard.serving.served_version import ServedVersion
from mlguard.serving.tally import Tally
from mlguard.serving.trying import repeats_itself

__all__ = [
    "AppEngine",
    "OverloadedError",
    "Reply",
    "Route",
    "ServedVersion",
    "VersionSpec",
    "Waiting",
]

logger = logging.getLogger("mlguard.serving")

#: Answers to a request that could not be read: the caller's doing.
_MALFORMED = frozenset({400, 413, 422})
#: Deaths of models' processes that are kept while the registry cannot be told.
_MOST_CRASHES = 100


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
        self.mirrors = Mirrors(self)
        #: Deaths of models' processes that the registry has not been told of: version,
        #: generation, when, and why.
        self.crashes: deque[tuple[int, int, float, str]] = deque(maxlen=_MOST_CRASHES)
        self.clock = clock
        # Looking a labelled figure up costs as much as answering; these are looked up once.
        self.queued = metrics.queued.labels(self.name)
        # An app that nothing serves yet is told of as well.
        metrics.generation.labels(self.name).set(0)
        metrics.serving.labels(self.name).set(0)
        self.batch_rows = metrics.batch_rows.labels(self.name)
        self.batch_seconds = metrics.batch_seconds.labels(self.name)
        self.tally = Tally(metrics, self.name)
        self.replies = Replies(self)
        self._active: ServedVersion | None = None
        self._origins: dict[ServedVersion | None, Origin] = {}
        self._slo_s = settings.app.slo_ms / 1000
        self._looks_at_rows = settings.app.unusual_rows != "pass"
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
            if len(self._defaults) < 1000:
                self._defaults[explanation] = known
        return known

    def reconfigure(self, settings: AppSettings) -> None:
        """Put other settings in force; limits of processes hold from the next load on."""
        self.settings = settings
        self.keys = AppKeys(settings.app.keys, self._environment)
        self._warn_of_keys()
        self._slo_s = settings.app.slo_ms / 1000
        self._looks_at_rows = settings.app.unusual_rows != "pass"
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
        await version.start()
        self.versions[spec.id] = version

    async def stands_by(self, version_id: int) -> bool:
        """Whether a version is loaded here and answers; False where that is not known now."""
        version = self.versions.get(version_id)
        return version is not None and await repeats_itself(version.replica, version.schema)

    def switch(self, route: Route) -> None:
        """Let another version answer from the next request on."""
        self._active = self.versions[route.active] if route.active is not None else None
        self.route = route
        self._origins.clear()
        self.metrics.generation.labels(self.name).set(route.generation)
        self.metrics.serving.labels(self.name).set(route.active is not None)

    def crashed(self, version_id: int, reason: str) -> None:
        """Note that a process of a version died, for whoever tells the registry."""
        self.crashes.append((version_id, self.route.generation, self.clock(), reason))

    def unload(self, version_id: int) -> None:
        """Unload a version that answers no more, once nobody waits for it."""
        version = self.versions.pop(version_id, None)
        if version is None:
            return
        assert version_id != self.route.active
        self._origins.pop(version, None)

        async def drain() -> None:
            await version.drained()
            await version.replica.close()
            version.forget()

        task = asyncio.get_running_loop().create_task(drain())
        self._drained.add(task)
        task.add_done_callback(self._drained.discard)

    async def close(self) -> None:
        """Unload everything."""
        self.route = Route(generation=self.route.generation)
        self._active = None
        for version_id in list(self.versions):
            self.unload(version_id)
        await asyncio.gather(*self._drained)

    @property
    def ready(self) -> bool:
        """Whether the version that should answer is loaded (or none should)."""
        return self._active is None or self._active.replica.ready

    # --- a request ---

    async def predict(self, body: bytes, *, caller: str | None = None) -> Reply:
        """Answer one predict request; takes and raises what :meth:`submit` does."""
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        waiting = self.submit(body, partial(hand_over, answered), caller=caller)
        try:
            return await answered
        finally:
            waiting.abandon()  # where the caller went away: nobody wants these answers

    def submit(self, body: bytes, done: Done, *, caller: str | None = None) -> Waiting:
        """Take one predict request.

        Parameters
        ----------
        body : bytes
            As it came.
        done : callable
            Called once with the reply and who answered, unless the request is abandoned; where
            no model is needed, before this returns.  It must not raise.
        caller : str, optional
            Name of the key that it came with; None where the app has no keys.

        Returns
        -------
        Waiting
            The admitted request, to be abandoned when its caller goes away.

        Raises
        ------
        BadRequestError
            If the body cannot be read, or asks for a version that does not serve.
        OverloadedError
            If more rows wait than the SLO can clear.
        """
        arrived = time.monotonic()
        route, version = self.route, self._active
        found = version.reader.decode(body) if version is not None else None
        if found is None or found[0].version is not None:
            # The long way: for another version, and for the words of an error.
            request = read_request(body)
            version = self._chosen(route, request)
            # Its version may be gone, but the app knows what its input looks like.
            rows = (self._reader if version is None else version.reader).read(request)
        else:
            request, rows = found
        if route.split.weight and version is not None and request.version is None:
            version, rows = self._drawn(route, version, request, rows)
        n = len(rows)
        origin = self._origins.get(version) or self._origin(version)
        deadline = arrived + self._slo_s
        waiting = Waiting(request, rows, version, origin, done, [None] * n, n, arrived, deadline)
        if version is None:
            for index in range(n):
                waiting.settle(index, self.default(route.explanation))
        elif self._looks_at_rows:
            version.look_at(waiting)
        if not waiting.left:
            self.replies.give(version, [waiting])
            return waiting
        assert version is not None
        if version.given.thresholds is not None:
            waiting.threshold = version.given.threshold_for(request, caller)
        if not version.admit(waiting):
            raise OverloadedError(
                f"{len(version.batcher)} rows wait for {self.name}, more than its latency "
                f"objective of {self.settings.app.slo_ms:g} ms can clear"
            )
        return waiting

    def _origin(self, version: ServedVersion | None) -> Origin:
        """Return the origin of what a version answers from now on."""
        generation = self.route.generation
        name, number = ("none", 0) if version is None else (version.name, version.spec.id)
        found = self._origins[version] = Origin(name, generation, (number, generation))
        return found

    def _chosen(self, route: Route, request: PredictRequest) -> ServedVersion | None:
        active = self._active
        if request.version is None or (active is not None and active.name == request.version):
            return active
        for version_id in route.warm:
            version = self.versions.get(version_id)
            if version is not None and version.name == request.version:
                return version if active is not None else None
        raise unknown_version(request.version, self.name)

    def _drawn(
        self, route: Route, active: ServedVersion, request: PredictRequest, rows: list[Any]
    ) -> tuple[ServedVersion, list[Any]]:
        """Return who answers while a candidate has a share of the callers, and its rows."""
        # The draw is a share of the callers, and guards nothing.
        if not takes_canary(route.split, request.uid, random.random()):  # noqa: S311
            return active, rows
        candidate = self.versions.get(route.split.candidate or 0)
        if candidate is None:
            return active, rows
        read = [as_read_by(candidate, active, row) for row in rows]
        # Whom the candidate cannot read, the active version answers.
        return (active, rows) if None in read else (candidate, read)

    def refused(self, status: int) -> None:
        """Count a request that was answered by an error."""
        self.tally.refused(status)
        if status in _MALFORMED and self._active is not None and self.recorder is not None:
            self.recorder.refuse(self._active.log_target)

    def readers(self) -> list[RowReader]:
        """Return what can read a row of this app, the live version's first."""
        loaded = sorted(self.versions.items(), key=lambda one: one[0] != self.route.active)
        return [version.reader for _, version in loaded] or [self._reader]


def hand_over(answered: asyncio.Future[Reply], body: bytes, origin: Origin) -> None:
    """Take a reply for somebody who awaits it, unless they have gone."""
    if not answered.done():
        answered.set_result(Reply(body, origin))
