"""What the registry says → what the engines do, four times a second, in a thread of its own.

Rules
-----
1. *Load first, switch then.*  A candidate, the version to serve and the version to go back to
   are fetched (digest checked), loaded and warmed while the others serve.
2. *Fail static.*  While the registry cannot be read, everything goes on as it is; ``/readyz``
   says so.  A registry that suddenly knows of an older generation was replaced or restored:
   it is not believed either.
3. *A version that cannot be loaded* leaves the old one serving, and is reported.  It is tried
   again after 2 s · 2ᵏ, up to a minute.
4. *What serves is what is reported*: the generation of an app counts as observed when requests
   are answered by it.
5. *A settings file that is not valid* leaves the old settings in force, and is reported.
6. *Nobody's rollout gets no traffic.*  A candidate answers callers only while whoever deploys it
   gives signs of life; a server that cannot hear of them takes its share away by itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlguard.config import AppSettings, ProjectSettings, load_app
from mlguard.errors import MlguardError, RegistryError
from mlguard.models.bundle import serving_sha256
from mlguard.registry.lifecycle import Mode, State
from mlguard.registry.liveness import LEASE_S
from mlguard.registry.records import AppState, Rolling, Version
from mlguard.registry.store import Registry
from mlguard.serving.answers import BLOCKED, NO_VERSION
from mlguard.serving.engine import AppEngine, Route, VersionSpec
from mlguard.serving.metrics import Metrics
from mlguard.serving.routing import ALONE, Split

logger = logging.getLogger("mlguard.serving")

_EVERY_S = 0.25
_BEAT_S = 3.0
_FIGURES_S = 5.0
#: A version is unloaded when it was not wanted for so long: a rollback may come any moment.
_KEEP_S = 5.0
_RETRY_S = 2.0
_LONGEST_RETRY_S = 60.0
_CALL_S = 30.0


@dataclass(slots=True)
class _Failure:
    reason: str
    retry_at: float
    tries: int


class RegistrySync:
    """Keeps the engines of one front-end process in step with the registry.

    Parameters
    ----------
    project : ProjectSettings
        Where registry and apps are.
    server_id : str
        Name of this process among the servers.
    url : str
        Where it answers.
    adopt : callable
        ``adopt(settings)`` returns the engine of a new app; called in the loop's thread.
    engines : dict of str to AppEngine
        The apps.
    metrics : Metrics
        What is counted.
    loop : asyncio.AbstractEventLoop
        The loop that the engines run in.
    mail_due : callable
        Given the registry and the time, since when the most overdue mail ought to be gone; None
        where none is due.
    clock : callable, default time.monotonic
        Seconds, for retries and pauses.
    """

    def __init__(
        self,
        project: ProjectSettings,
        *,
        server_id: str,
        url: str,
        adopt: Callable[[AppSettings], AppEngine],
        engines: dict[str, AppEngine],
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        mail_due: Callable[[Registry, float], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.project = project
        self.server_id = server_id
        self.url = url
        self.registry: Registry | None = None
        #: Since when the registry cannot be read, and why; None while it can.
        self.degraded: tuple[float, str] | None = None
        #: Why an app's settings file is not in force, by app.
        self.rejected: dict[str, str] = {}
        #: Why an app does not serve what the registry says, by app.
        self.lagging: dict[str, str] = {}
        self._adopt = adopt
        self._engines = engines
        self._metrics = metrics
        self._loop = loop
        self._mail_due = mail_due
        self._clock = clock
        self._stamps: dict[str, tuple[int, int]] = {}
        self._loading: dict[int, Future[None]] = {}
        self._failures: dict[int, _Failure] = {}
        self._unwanted: dict[int, float] = {}
        self._reported: tuple[Any, ...] = ()
        self._reported_at = -math.inf
        self._figures_at = -math.inf
        self._unheard_since = math.inf
        self._stopping = threading.Event()
        #: Set where somebody does not want to wait for the next look.
        self._hurried = threading.Event()
        #: Notified after each look.
        self._looked = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="registry-sync", daemon=True)

    # --- life ---

    def start(self) -> None:
        """Go on in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and tell the registry that this server is gone."""
        self._stopping.set()
        self._hurried.set()
        if self._thread.ident is not None:
            self._thread.join()
        for loading in self._loading.values():
            loading.cancel()
        if self.registry is not None:
            try:
                self.registry.server_bye(self.server_id)
            except MlguardError as error:
                logger.warning("could not say goodbye to the registry: %s", error.message)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._hurried.wait(_EVERY_S)
            self._hurried.clear()
            if not self._stopping.is_set():
                self.tick()
                with self._looked:
                    self._looked.notify_all()

    def caught_up(self, app: str, generation: int, wait_s: float) -> int | None:
        """Look now; return by which generation requests are answered, once it is this one.

        Parameters
        ----------
        app : str
        generation : int
            That the registry has committed.
        wait_s : float
            Seconds after which the answer is what is so then.
        """
        engine = self._engines.get(app)
        if engine is None:
            return None
        self._hurried.set()
        with self._looked:
            self._looked.wait_for(lambda: engine.route.generation >= generation, wait_s)
        return engine.route.generation

    def stands_by(self, app: str, version_id: int) -> bool:
        """Whether this process holds a version loaded that answers; False where not known."""
        engine = self._engines.get(app)
        if engine is None:
            return False
        asked = asyncio.run_coroutine_threadsafe(engine.stands_by(version_id), self._loop)
        return asked.result(_CALL_S)

    @property
    def informed(self) -> bool:
        """Whether the registry was ever read to the end."""
        return self._reported_at > -math.inf

    @property
    def settled(self) -> bool:
        """Whether every app serves what the registry says, or has failed to."""
        return self.informed and not self._loading and self.degraded is None

    def tick(self) -> None:
        """Look once; never raises."""
        try:
            self._read_settings()
            registry = self._opened()
            for name, engine in list(self._engines.items()):
                self._follow(registry, name, engine)
                self._tell_crashes(registry, name, engine)
            self._report(registry)
            self._show(registry)
        # Whatever it is, serving goes on, and the next look may be better.
        except Exception as error:
            if self.degraded is None:
                self.degraded = (time.time(), str(error))
                self._unheard_since = self._clock()
                self._metrics.registry_up.set(0)
                logger.warning(
                    "the registry cannot be read, serving goes on as it is: %s",
                    error,
                    exc_info=not isinstance(error, RegistryError),
                )
            self._end_unheard_rollouts()
        else:
            if self.degraded is not None:
                logger.warning("the registry can be read again")
            self.degraded = None
            self._metrics.registry_up.set(1)

    def _opened(self) -> Registry:
        if self.registry is None:
            self.registry = Registry.open(self.project, actor=f"server {self.server_id}")
            self._hello(self.registry)
        return self.registry

    def _hello(self, registry: Registry) -> None:
        registry.server_hello(
            self.server_id, host=socket.gethostname(), pid=os.getpid(), url=self.url
        )

    # --- settings ---

    def _read_settings(self) -> None:
        for name in self.project.app_names():
            file = self.project.root / "serving" / name / "app.toml"
            try:
                status = file.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if self._stamps.get(name) == stamp:
                    continue
                self._stamps[name] = stamp
                settings = load_app(self.project, name)
            except (MlguardError, OSError) as error:
                self.rejected[name] = str(error)
                logger.warning("settings not in force: %s", error)
                continue
            self.rejected.pop(name, None)
            engine = self._engines.get(name)
            if engine is not None:
                self._in_loop(partial(engine.reconfigure, settings))
                continue
            try:
                self._engines[name] = self._in_loop(partial(self._adopt, settings))
            except MlguardError:
                del self._stamps[name]  # to be tried again
                raise

    # --- one app ---

    def _follow(self, registry: Registry, name: str, engine: AppEngine) -> None:
        state = registry.app(name)
        route = engine.route
        if state.generation < route.generation:
            raise RegistryError(
                f"the registry knows generation {state.generation} of {name}, "
                f"this server answers with generation {route.generation}"
            )
        # Where a human would go back to, and where a monitor would: mostly the same version.
        warm = engine.settings.auto.keep_warm
        spare = registry.rollback_targets(name)[:warm]
        spare += registry.rollback_targets(name, automatic=True)[:warm]
        rolling = registry.rolling(name)
        candidate = None if rolling is None else rolling.version
        wanted = [one for one in (state.active, candidate, *spare) if one]
        for version in wanted:
            self._load(registry, engine, version)
        self._switch(engine, state, spare, rolling)
        self._drop(engine, {version.id for version in wanted})

    def _load(self, registry: Registry, engine: AppEngine, version: Version) -> None:
        loading = self._loading.get(version.id)
        if loading is not None:
            if not loading.done():
                return
            del self._loading[version.id]
            error = loading.exception()
            if error is not None:
                self._failed(version, error)
                return
        if version.id in engine.versions:
            self._failures.pop(version.id, None)
            return
        failure = self._failures.get(version.id)
        if failure is not None and self._clock() < failure.retry_at:
            return
        try:
            path: Path = registry.artifacts.get(serving_sha256(version.manifest))
        except MlguardError as error:
            self._failed(version, error)
            return
        spec = VersionSpec(version.id, version.name, version.manifest, str(path))
        self._loading[version.id] = asyncio.run_coroutine_threadsafe(engine.load(spec), self._loop)

    def _failed(self, version: Version, error: BaseException) -> None:
        known = self._failures.get(version.id)
        tries = known.tries + 1 if known else 1
        pause = min(_LONGEST_RETRY_S, _RETRY_S * 2 ** (tries - 1))
        reason = error.message if isinstance(error, MlguardError) else repr(error)
        self._failures[version.id] = _Failure(reason, self._clock() + pause, tries)
        logger.warning("version %s of %s is not loaded: %s", version.name, version.app, reason)

    def _split(
        self, engine: AppEngine, state: AppState, spare: list[Version], rolling: Rolling | None
    ) -> Split:
        """Return who takes part beside the active version: only versions that are loaded."""
        active = state.active
        if active is None or state.mode is not Mode.SERVE:
            return ALONE
        loaded = engine.versions
        if rolling is not None and rolling.version.id in loaded:
            one = rolling.version.id
            if rolling.mirrored:
                return Split(mirrors=((one, 1.0),))
            if rolling.weight:
                return Split(candidate=one, weight=rolling.weight)
        share = engine.settings.rollout.reverse_shadow
        before = [one.id for one in spare if one.id in loaded and one.id != active.id]
        if active.state is State.BAKING and share and before:
            # What may be gone back to any moment stays warm, and comparable, under real rows.
            return Split(mirrors=((before[0], share),))
        return ALONE

    def _end_unheard_rollouts(self) -> None:
        """Take a candidate's traffic away when nobody can have said for long that it goes on."""
        # By the clock that nobody can set: a jump may neither end a rollout nor prolong it.
        if self._clock() - self._unheard_since < LEASE_S:
            return
        for name, engine in self._engines.items():
            if engine.route.split != ALONE:
                logger.warning("nothing was heard of the rollout of %s for too long", name)
                alone = dataclasses.replace(engine.route, split=ALONE)
                self._in_loop(partial(engine.switch, alone))

    def _switch(
        self, engine: AppEngine, state: AppState, spare: list[Version], rolling: Rolling | None
    ) -> None:
        serves = state.active is not None and state.mode is Mode.SERVE
        active = state.active.id if state.active is not None and serves else None
        names = list(dict.fromkeys(one.id for one in (state.active, *spare) if one))
        if active is not None and active not in engine.versions:
            failure = self._failures.get(active)
            reason = failure.reason if failure else "it is being loaded"
            assert state.active is not None
            self.lagging[engine.name] = f"version {state.active.name}: {reason}"
            # Until it is there the old one answers; by the name of the old generation.
            route = engine.route
        else:
            self.lagging.pop(engine.name, None)
            route = Route(
                generation=state.generation,
                active=active,
                explanation=NO_VERSION if state.active is None else BLOCKED,
                warm=tuple(one for one in names if one in engine.versions),
                split=self._split(engine, state, spare, rolling),
            )
        # Ids first: the first request of a generation needs one.
        answering = (*route.warm, route.active or 0, route.split.candidate or 0)
        keys = {(one, route.generation) for one in answering}
        for key in keys:
            engine.ids.refill(key)
        if route != engine.route:
            self._count_inputs(engine, {one for one, _ in keys})
            before = {(one, engine.route.generation) for one in engine.versions}
            self._in_loop(partial(engine.switch, route))
            engine.ids.forget(keys | before)
        self._metrics.uncredited.labels(engine.name).set(engine.ids.uncredited)

    def _count_inputs(self, engine: AppEngine, wanted: set[int]) -> None:
        """Let versions count their inputs on the grid that the monitors judge them by."""
        from mlguard.data.profile import Profile

        assert self.registry is not None
        for version_id in wanted & engine.versions.keys():
            digest = self.registry.version_by_id(version_id).digest
            document = (self.registry.reference(engine.name, digest) or {}).get("profile")
            grid = None if document is None else Profile.from_json(document)
            self._in_loop(partial(engine.versions[version_id].count_on, grid))

    def _drop(self, engine: AppEngine, wanted: set[int]) -> None:
        now = self._clock()
        for version_id in list(engine.versions):
            if version_id in wanted or version_id == engine.route.active:
                self._unwanted.pop(version_id, None)
            elif now - self._unwanted.setdefault(version_id, now) > _KEEP_S:
                del self._unwanted[version_id]
                self._in_loop(partial(engine.unload, version_id))

    # --- reporting ---

    def _report(self, registry: Registry) -> None:
        observed = {name: engine.route.generation for name, engine in self._engines.items()}
        loaded = sorted(
            version_id for engine in self._engines.values() for version_id in engine.versions
        )
        failed = {version_id: one.reason for version_id, one in self._failures.items()}
        report = (observed, loaded, failed)
        now = self._clock()
        if report != self._reported or now - self._reported_at > _BEAT_S:
            beat = partial(registry.server_beat, self.server_id)
            if not beat(observed=observed, loaded=loaded, failed=failed):
                # Silent for too long (a suspended machine), it was taken for gone.
                self._hello(registry)
                beat(observed=observed, loaded=loaded, failed=failed)
            self._reported, self._reported_at = report, now

    def _tell_crashes(self, registry: Registry, name: str, engine: AppEngine) -> None:
        """Tell of models' processes that died; what could not be told stays for the next look."""
        waiting = list(engine.crashes)
        for place in dict.fromkeys((version, generation) for version, generation, _, _ in waiting):
            registry.note_crashes(
                name,
                *place,
                self.server_id,
                [(at, why) for version, generation, at, why in waiting
                 if (version, generation) == place],
            )  # fmt: skip
        for _ in waiting:
            # The loop may have pushed out the oldest meanwhile, where there are too many.
            if engine.crashes:
                engine.crashes.popleft()

    def _show(self, registry: Registry) -> None:
        """Bring the registry's own figures to ``/metrics``."""
        now = self._clock()
        if now - self._figures_at < _FIGURES_S:
            return
        self._figures_at = now
        if registry.database.ballast is not None:
            registry.database.ballast.keep()
        at = time.time()
        due = self._mail_due(registry, at)
        self._metrics.outbox_oldest.set(0.0 if due is None else max(0.0, at - due))
        for name in self._engines:
            for _at, result in registry.monitor_results(name, limit=50)[::-1]:
                if result.value is not None:
                    gauge = self._metrics.monitor_value.labels(name, result.id, result.subject)
                    gauge.set(result.value)

    def _in_loop(self, call: Callable[[], Any]) -> Any:
        """Call something in the loop's thread, and wait for it."""

        async def there() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(there(), self._loop).result(_CALL_S)
