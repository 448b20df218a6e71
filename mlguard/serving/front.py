"""One front-end process: its engines, its threads, and uvicorn on a socket that it was handed.

``Front`` is an async context manager, so that any ASGI server can run it as the lifespan of an
app.  ``run`` is what the supervisor starts::

    python -m <module> --root DIR --parent PID --fd N --ready-fd N --url URL

It does not listen before the versions that should answer are loaded (or could not be): a
request that meets a restart waits in the socket's queue instead of getting a default answer.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import logging
import math
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.config import AppSettings, ProjectSettings, load_project
from mlguard.errors import RegistryError
from mlguard.serving.access_log import AccessLog
from mlguard.serving.engine import AppEngine
from mlguard.serving.feedback import Feedback
from mlguard.serving.limits import ConnectionLimits, Door
from mlguard.serving.metrics import Metrics
from mlguard.serving.predict_app import ServerState
from mlguard.serving.query_ids import QueryIds
from mlguard.serving.recall import SEARCHED_S, LogSearch
from mlguard.serving.recorder import Recorder
from mlguard.serving.replica_child import die_with_parent
from mlguard.serving.sync import RegistrySync

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mlguard.data.log_store import Spool
    from mlguard.data.schema import Feature
    from mlguard.registry.records import IdBlock
    from mlguard.registry.store import Registry

logger = logging.getLogger("mlguard.serving")

#: Longest wait for the versions before listening all the same.
_LOAD_S = 60.0
_MIB = 2**20
#: How long callers are asked to leave before connections are closed.
_DRAIN_S = 0.3
#: New objects after which the collector looks for cycles among them: a request makes a dozen, and
#: nearly all of them go as they came, by their count.
_YOUNG = 10_000


class Front:
    """Everything that one front-end process holds.

    Parameters
    ----------
    project : ProjectSettings
        The project that is served.
    url : str, default ""
        Where it answers, for the registry's list of servers.
    """

    def __init__(self, project: ProjectSettings, *, url: str = "") -> None:
        from mlguard.data.disk_floor import DiskFloor
        from mlguard.data.prediction_log import PredictionLog

        self.project = project
        self.url = url
        self.started_at = time.time()
        self.engines: dict[str, AppEngine] = {}
        self.feedback: dict[str, Feedback] = {}
        self.metrics = Metrics()
        self.server_id = f"{socket.gethostname()}-{os.getpid()}-{int(self.started_at * 1000):x}"
        stored = bool(project.log_store.url)
        self._log = PredictionLog(
            project.log_dir, segment_s=project.log_store.segment if stored else math.inf
        )
        self.floor = DiskFloor(project.log_dir, int(project.server.min_free_mib * _MIB))
        self.spool: Spool | None = None
        if stored:
            from mlguard.data.log_store import Spool

            self.spool = Spool(project.log_dir, int(project.log_store.spool_mib * _MIB))
        self.recorder = Recorder(self._log, self.server_id, no_room=self._no_room)
        self.metrics.pending.append(self._count_log)
        self.state = ServerState(
            self.engines,
            self.feedback,
            self.metrics,
            int(project.server.max_body_mib * _MIB),
            self.health,
            door=Door.of(project.server),
            access_log=AccessLog(project.access_log) if project.access_log else None,
        )
        self.sync: RegistrySync | None = None
        #: Given the registry and the time, since when the most overdue mail ought to be gone.
        self.mail_due: Callable[[Registry, float], float | None] = _oldest_mail
        self._collects = gc.get_threshold()

    # --- life ---

    async def start(self) -> None:
        """Load what should answer, then keep in step with the registry."""
        loop = asyncio.get_running_loop()
        self.recorder.start()
        if self.state.access_log is not None:
            self.state.access_log.start()
        self.sync = RegistrySync(
            self.project,
            server_id=self.server_id,
            url=self.url,
            adopt=self._adopt,
            engines=self.engines,
            metrics=self.metrics,
            loop=loop,
            mail_due=self.mail_due,
        )
        give_up = loop.time() + _LOAD_S
        while loop.time() < give_up:
            await loop.run_in_executor(None, self.sync.tick)
            if self.sync.settled or self.sync.degraded:
                break
            await asyncio.sleep(0.02)  # versions load in threads meanwhile
        # What lives by now lives to the end; the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG)
        self.sync.start()

    async def stop(self) -> None:
        """Finish what was admitted, then write everything down."""
        self.state.draining = True
        loop = asyncio.get_running_loop()
        if self.sync is not None:
            await loop.run_in_executor(None, self.sync.stop)
        await asyncio.gather(*(engine.close() for engine in self.engines.values()))
        for feedback in self.feedback.values():
            await loop.run_in_executor(None, feedback.close)
        await loop.run_in_executor(None, self.recorder.close)
        if self.state.access_log is not None:
            await loop.run_in_executor(None, self.state.access_log.close)
        gc.set_threshold(*self._collects)
        gc.unfreeze()

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Start and stop with an ASGI server."""
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    def _no_room(self) -> bool:
        """Whether nothing more is to be logged: the disk, or what waits for the store, is full."""
        return self.floor.low() or (self.spool is not None and self.spool.full())

    def _count_log(self) -> None:
        """Bring what the log could not take, and the room it has, to the figures."""
        self.metrics.log_dropped.set(self.recorder.dropped)
        self.floor.low()
        if self.floor.disk is not None:
            self.metrics.disk_free.set(self.floor.disk.free)
        if self.spool is not None:
            self.spool.full()
            self.metrics.log_waiting.set(self.spool.waiting)

    # --- parts ---

    def _adopt(self, settings: AppSettings) -> AppEngine:
        """Return the engine of an app that appeared."""
        from mlguard.data.labels import LabelStore, default_url

        name = settings.name
        engine = AppEngine(
            settings,
            ids=QueryIds(lambda *key_and_size: self._reserve(name, *key_and_size)),
            metrics=self.metrics,
            recorder=self.recorder,
        )
        search = LogSearch(partial(self._logged, name))
        self.feedback[name] = Feedback(
            engine,
            LabelStore(default_url(self.project.log_dir, name)),
            self._block,
            search=partial(self._found, search),
        )
        return engine

    def _found(
        self, search: LogSearch, uid: str, row: Any, features: Sequence[Feature]
    ) -> int | None:
        from mlguard.data.prediction_log import feature_column

        self.recorder.flush()
        cells = row if isinstance(row, list) else [row]
        # As the log writes it.
        cells = [base64.b64encode(one).decode() if type(one) is bytes else one for one in cells]
        return search.find(uid, cells, [feature_column(one.name) for one in features])

    def _logged(self, app: str, uid: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        import pyarrow.compute as pc

        rows = self._log.read(app, since=time.time() - SEARCHED_S)
        kept = [name for name in ("query_id", *columns) if name in rows.column_names]
        found: list[dict[str, Any]] = (
            rows.filter(pc.equal(rows["uid"], uid)).select(kept).to_pylist()
        )
        return found

    def _reserve(self, app: str, version_id: int, generation: int, size: int) -> range:
        return self._registry().reserve_ids(
            app, version_id or None, generation, self.server_id, size
        )

    def _block(self, query_id: int) -> IdBlock | None:
        return self._registry().id_block(query_id)

    def _registry(self) -> Registry:
        if self.sync is None or self.sync.registry is None:
            raise RegistryError("the registry was not reached yet", hint="try again")
        return self.sync.registry

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether this process is ready, and what to say about it."""
        sync = self.sync
        apps = {}
        ready = sync is not None and sync.informed and not self.state.draining
        for name, engine in sorted(self.engines.items()):
            lagging = sync.lagging.get(name) if sync is not None else None
            active = engine.route.active
            serves = engine.ready and not (lagging and active is None)
            ready = ready and serves
            apps[name] = {
                "ready": serves,
                "generation": engine.route.generation,
                "version": engine.versions[active].name if active is not None else None,
            }
            if lagging:
                apps[name]["lagging"] = lagging
        body: dict[str, Any] = {"ready": ready, "apps": apps}
        degraded = self._degraded()
        if degraded:
            body["degraded"] = degraded
        if self.state.draining:
            body["draining"] = True
        return ready, body

    def _degraded(self) -> list[str]:
        if self.sync is None:
            return []
        found = []
        if self.sync.degraded is not None:
            since, reason = self.sync.degraded
            when = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
            found.append(
                f"the registry cannot be read since {when}; "
                f"what was live then goes on answering ({reason.splitlines()[0]})"
            )
        found += [
            f"settings of {name} not in force: {why.splitlines()[0]}"
            for name, why in sorted(self.sync.rejected.items())
        ]
        disk = self.floor.disk
        if disk is not None and disk.low:
            found.append(f"disk: {disk.says()}")
        if self.spool is not None and self.spool.says():
            found.append(self.spool.says())
        if self.recorder.dropped:
            found.append(f"{self.recorder.dropped} prediction rows could not be logged")
        return found


def _oldest_mail(registry: Registry, _now: float) -> float | None:
    return registry.outbox.oldest_pending()


def run(arguments: Sequence[str], create_app: Callable[[Front], FastAPI]) -> int:
    """Serve on the handed socket until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="front")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--url", required=True)
    options = parser.parse_args(arguments)
    # Ctrl-C is for the supervisor; it sends SIGTERM when it is our turn.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    die_with_parent(options.parent, signal.SIGTERM)
    front = Front(load_project(options.root), url=options.url)
    listener = socket.socket(fileno=options.fd)

    def tell_ready() -> None:
        gc.enable()  # it is off while a front end that was begun ahead comes up
        # The pipe may be full, or the supervisor gone: then nobody needs to know.
        with contextlib.suppress(OSError):
            os.write(options.ready_fd, b"ready\n")
            os.close(options.ready_fd)

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(create_app(front), front, listener, tell_ready))


async def _serve(
    app: FastAPI, front: Front, listener: socket.socket, tell_ready: Callable[[], None]
) -> int:
    from mlguard.serving.uvicorn_server import QuietServer

    server = QuietServer(
        app,
        on_started=tell_ready,
        lifespan="on",
        limits=ConnectionLimits.of(front.project.server),
        tls=front.project.tls_files,
    )

    loop = asyncio.get_running_loop()

    def finish() -> None:
        server.should_exit = True

    def stop() -> None:
        # Nobody new; and for a moment those who are here are answered and asked to leave:
        # closing their connections at once would lose the requests that are on the wire.
        front.state.draining = True
        server.stop_listening()
        loop.call_later(_DRAIN_S, finish)

    loop.add_signal_handler(signal.SIGTERM, stop)
    await server.serve(sockets=[listener])
    return 0
