"""One version behind real HTTP, without registry, log or supervisor.

For tests of a candidate that want to ask the server itself: the routes, the batcher and the
model's own process are the real ones.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.config import AppSettings, ServerTable
from mlguard.errors import ModelRunError
from mlguard.serving.engine import AppEngine, Route, VersionSpec
from mlguard.serving.feedback import Feedback, Outcome
from mlguard.serving.limits import ConnectionLimits, Door
from mlguard.serving.listening import listen
from mlguard.serving.metrics import Metrics
from mlguard.serving.predict_app import ServerState, create_predict_app
from mlguard.serving.query_ids import QueryIds
from mlguard.serving.uvicorn_server import QuietServer

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

_START_S = 90.0


class MemoryLabels:
    """Labels kept in memory; gone when the server stops."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}

    def put_many(self, labels: Any) -> list[Outcome]:
        """Store labels; the first one wins."""
        outcomes: list[Outcome] = []
        for query_id, label, _source, _at in labels:
            if query_id not in self.values:
                self.values[query_id] = label
                outcomes.append("stored")
            else:
                outcomes.append("same" if self.values[query_id] == label else "conflict")
        return outcomes


class LocalIds:
    """Query ids counted in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = 1

    def reserve(self, version_id: int, generation: int, size: int) -> range:
        """Return the next ``size`` ids."""
        del version_id, generation
        with self._lock:
            start = self._at
            self._at += size
        return range(start, start + size)


@contextmanager
def served(
    settings: AppSettings,
    manifest: Mapping[str, Any] | None,
    model_path: Path | str = "",
    *,
    version: str = "candidate",
    max_body: int = 8 * 2**20,
    start_s: float = _START_S,
    environment: Mapping[str, str] | None = None,
    server: ServerTable | None = None,
    tls: tuple[Path, Path] | None = None,
    added: Callable[[FastAPI], None] = lambda _: None,
) -> Iterator[str]:
    """Serve one version on a free port of the loopback interface; yields the base URL.

    Parameters
    ----------
    settings : AppSettings
        The app.
    manifest : mapping or None
        ``Manifest.to_json()``; None: no version, every answer is the default.
    model_path : Path or str
        The model's file.
    version : str, default "candidate"
        What ``X-MLGuard-Version`` says.
    max_body : int, default 8 MiB
        Largest request body, in bytes.
    start_s : float, default 90
        Longest wait for the model to load, in seconds.
    environment : mapping, optional
        Holds the callers' keys; default: the process's own.
    server : ServerTable, optional
        Limits, rates and names, as ``[server]`` of mlguard.toml has them.
    tls : tuple of Path, optional
        Files with the certificate chain and the private key; None: plain HTTP.
    added : callable, optional
        Adds to the app what a user would: middleware, routes.

    Raises
    ------
    ModelRunError
        If the version cannot be loaded.
    """
    listener = listen("127.0.0.1", 0)
    scheme = "https" if tls else "http"
    url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    started = threading.Event()
    running = _Running(environment, server or ServerTable(), tls, added)

    def run() -> None:
        try:
            version_spec = None
            if manifest is not None:
                version_spec = VersionSpec(1, version, dict(manifest), str(model_path))
            asyncio.run(running.serve(settings, version_spec, listener, started.set, max_body))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            running.failure = error
        finally:
            started.set()

    thread = threading.Thread(target=run, name="served", daemon=True)
    thread.start()
    try:
        if not started.wait(start_s):
            raise ModelRunError(f"the version did not serve within {start_s:g} s")
        if running.failure is not None:
            raise running.failure
        yield url
    finally:
        running.stop()
        thread.join(start_s)
        listener.close()


class _Running:
    """The server in its thread."""

    def __init__(
        self,
        environment: Mapping[str, str] | None,
        table: ServerTable,
        tls: tuple[Path, Path] | None,
        added: Callable[[FastAPI], None],
    ) -> None:
        self._environment = environment
        self._table = table
        self._tls = tls
        self._added = added
        self.failure: BaseException | None = None
        self._server: QuietServer | None = None

    async def serve(
        self,
        settings: AppSettings,
        spec: VersionSpec | None,
        listener: socket.socket,
        on_started: Callable[[], None],
        max_body: int,
    ) -> None:
        """Load the version, answer until stopped, unload it."""
        metrics = Metrics()
        ids = QueryIds(LocalIds().reserve)
        engine = AppEngine(settings, ids=ids, metrics=metrics, environment=self._environment)
        feedback = Feedback(engine, MemoryLabels(), lambda _query_id: None)
        try:
            if spec is not None:
                await engine.load(spec)
            active = spec.id if spec is not None else None
            ids.refill((active or 0, 1))
            engine.switch(Route(generation=1, active=active))
            name = settings.name
            state = ServerState(
                {name: engine}, {name: feedback}, metrics, max_body, door=Door.of(self._table)
            )
            app = create_predict_app(state)
            self._added(app)
            self._server = QuietServer(
                app,
                on_started=on_started,
                lifespan="off",
                limits=ConnectionLimits.of(self._table),
                tls=self._tls,
            )
            await self._server.serve(sockets=[listener])
        finally:
            await engine.close()
            feedback.close()

    def stop(self) -> None:
        """Ask it to stop; from any thread."""
        if self._server is not None:
            self._server.should_exit = True
