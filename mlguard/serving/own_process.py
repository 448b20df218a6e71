"""One process that a model runs in, seen from the server: started, limited, ended.

It holds one batch at a time.  Whatever happens to it, the batch comes back exactly once:
answered, or with a reason per row.  Everything here happens in the event loop's own thread,
starting the process too: the kernel ties a child's life to the *thread* that started it.

A process with a batch is watched by the wall limit.  One without is asked for a sign of life
twice in ``heartbeat_s``, and ended where two questions stand unanswered: so a loop that was
itself held up has read what was waiting before it judges.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import msgspec

from mlguard.errors import ModelRunError
from mlguard.serving.access import KEY_PREFIX
from mlguard.serving.answers import (
    MODEL_DIED,
    MODEL_OUT_OF_MEMORY,
    MODEL_OUT_OF_TIME,
    MODEL_SILENT,
    MODEL_STOPPED,
)
from mlguard.serving.replica import BatchAnswer, ModelSpec
from mlguard.serving.replica_child import HEARTBEAT, LENGTH

logger = logging.getLogger("mlguard.serving")

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(strict=False)
#: Questions for a sign of life in ``heartbeat_s``; as many unanswered end a process.
_UNANSWERED = 2
#: One thread per process: processes are how the cores are shared out.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class OwnProcess(asyncio.Protocol):
    """One child process and the batch it holds."""

    def __init__(self, spec: ModelSpec, on_lost: Callable[[OwnProcess], None]) -> None:
        self.spec = spec
        self.born = 0.0
        self.rss_mib = 0.0
        self.stuck = False
        self.retired = False
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.reason = MODEL_DIED
        self._number = 0
        self._rows = 0
        self._since = 0.0
        self._done: Callable[[BatchAnswer], None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._unanswered = 0
        self._pulse: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether a batch may be handed in."""
        return self.alive and self._done is None and not self.retired

    @property
    def alive(self) -> bool:
        """Whether the process is there and its model loaded."""
        return self._transport is not None and self._ready.done()

    @property
    def pid(self) -> int:
        """Process id, 0 before the start."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start the process and wait until its model is loaded and warm.

        Raises
        ------
        ModelRunError
            If it does not load, or not in time.
        """
        ours, theirs = socket.socketpair()
        # Callers' keys are none of the model's business.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(KEY_PREFIX)
        } | {"DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"}
        for name in _THREADS:
            environment.setdefault(name, "1")
        command = [sys.executable, "-P", "-m", "mlguard.serving.replica_child"]
        try:
            # Blocking for about a millisecond, and in this thread on purpose (see on top).
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220
                [*command, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            ours.close()
            raise ModelRunError(f"the model's process could not be started: {error}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        try:
            await self._loop.create_connection(lambda: self, sock=ours)
            order = {
                "manifest": self.spec.manifest,
                "model_path": self.spec.model_path,
                "memory_mib": self.spec.memory_mib,
                "cpu_limit_s": self.spec.cpu_limit_s,
            }
            self._send(order)
            await asyncio.wait_for(asyncio.shield(self._ready), self.spec.load_timeout_s)
        except TimeoutError:
            self.kill(f"not loaded after {self.spec.load_timeout_s:g} s")
            raise ModelRunError(
                f"the model was not loaded after {self.spec.load_timeout_s:g} s"
            ) from None
        except BaseException:
            self.kill(MODEL_DIED)
            raise
        self.born = self._loop.time()
        self._listen_for_life()

    def run(
        self, rows: list[Any], done: Callable[[BatchAnswer], None], stuck: Callable[[], None]
    ) -> None:
        """Hand in a batch; ``done`` is called once with what became of it."""
        assert self._done is None
        self._number += 1
        self._rows = len(rows)
        self._since = self._loop.time()
        self._done = done
        self._timers = [
            self._loop.call_later(self.spec.wall_limit_s, self.kill, MODEL_STOPPED),
            self._loop.call_later(self.spec.stuck_s, self._is_stuck, stuck),
        ]
        self._send([self._number, rows])

    def retire(self) -> None:
        """Take no more batches, and leave after the one in hand."""
        self.retired = True
        if self._done is None:
            self.kill(MODEL_DIED)

    def kill(self, reason: str) -> None:
        """End the process; the rows in its hands come back with ``reason``."""
        self.reason = reason
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._transport is not None:
            self._transport.abort()
        elif self._process is not None:
            self._process.wait()

    def _is_stuck(self, tell: Callable[[], None]) -> None:
        self.stuck = True
        tell()

    def _listen_for_life(self) -> None:
        if self._transport is None:
            return
        if self._done is None:
            if self._unanswered >= _UNANSWERED:
                self.kill(MODEL_SILENT)
                return
            self._unanswered += 1
            self._transport.write(HEARTBEAT)
        every = self.spec.heartbeat_s / _UNANSWERED
        self._pulse = self._loop.call_later(every, self._listen_for_life)

    def _send(self, message: Any) -> None:
        if self._transport is not None:
            body = _ENCODER.encode(message)
            self._transport.write(LENGTH.pack(len(body)) + body)

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Collect bytes, and take every message that is whole."""
        self._unanswered = 0
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            body = memoryview(self._buffer)[LENGTH.size : end].tobytes()
            del self._buffer[:end]
            if body:
                self._take(_DECODER.decode(body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what was in hand, collect the process, tell the pool."""
        del exc
        self._transport = None
        if self._pulse is not None:
            self._pulse.cancel()
        end = self._end()
        if not self._ready.done():
            self._ready.set_exception(ModelRunError(f"the model's process ended: {end}"))
            # start() may have stopped waiting; then nobody asks for the exception.
            self._ready.exception()
        elif self._done is not None or not self.retired:
            logger.warning("a model's process ended: %s (%s)", self.reason, end)
        self._finish(BatchAnswer.lost_with(self._rows, self.reason))
        self._on_lost(self)

    def _end(self) -> str:
        """Collect the process and say how it ended."""
        if self._process is None:
            return "never started"
        try:
            # It closed its socket, so it is ending or was killed; a model's thread may hold
            # it for a moment.
            code = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code == -signal.SIGPROF:
            self.reason = MODEL_OUT_OF_TIME
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    def _take(self, message: Any) -> None:
        if isinstance(message, dict):
            if self._ready.done():
                return
            if message.get("ready"):
                self._ready.set_result(None)
            else:
                self._ready.set_exception(ModelRunError(str(message.get("failed"))))
            return
        number, labels, scores, errors, self.rss_mib = message
        if number == self._number:
            self._finish(BatchAnswer(labels, scores, errors))
        if self.rss_mib > self.spec.memory_mib:
            self.kill(MODEL_OUT_OF_MEMORY)

    def _finish(self, answer: BatchAnswer) -> None:
        for timer in self._timers:
            timer.cancel()
        done, self._done = self._done, None
        if done is not None:
            answer.took_s = self._loop.time() - self._since
            done(answer)
            if self.retired:
                self.kill(MODEL_DIED)
