"""Models in processes of their own: started, limited, replaced.

Rules
-----
1. A replica holds one batch at a time.  Whatever happens to it, every batch handed in comes
   back exactly once: answered, or with a reason per row.
2. A replica that dies, or is stopped at its wall or memory limit, is started again: at once
   the first time, then after 0.1 s · 2ᵏ up to 30 s, until it has lived a minute.
3. A replica that is stuck (ten times the SLO, at least a second) gets a stand-in beside it,
   so that a hanging model costs its own rows and a moment, not everybody its wall limit.
   When the stuck one comes back there is one too many, and it is retired.
4. A replica that has grown to 80 % of its memory limit is recycled: the next one is loaded
   first, then the old one is retired after its batch.  No row notices.
5. Everything here happens in the event loop's own thread.  That also holds for starting
   processes: the kernel ties a child's life to the *thread* that started it.
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
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from mlguard.errors import ModelRunError
from mlguard.serving.access import KEY_PREFIX
from mlguard.serving.answers import MODEL_DIED, MODEL_OUT_OF_MEMORY, MODEL_STOPPED
from mlguard.serving.replica_child import LENGTH

logger = logging.getLogger("mlguard.serving")

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(strict=False)
#: Share of the memory limit at which a replica is recycled.
_RECYCLE = 0.8
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 30.0
_HEALTHY_S = 60.0
#: One thread per replica: replicas are how the cores are shared out.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a replica loads, and how far it may go.

    Attributes
    ----------
    manifest : dict
        The version's manifest.
    model_path : str
        File with the verified bytes.
    memory_mib : int
        Memory limit in MiB.
    wall_limit_s : float
        Longest that one batch may take, in seconds.
    load_timeout_s : float
        Longest that loading may take, in seconds.
    stuck_s : float
        Time after which a batch's replica gets a stand-in, in seconds.
    """

    manifest: dict[str, Any]
    model_path: str
    memory_mib: int
    wall_limit_s: float
    load_timeout_s: float = 60.0
    stuck_s: float = 1.0


@dataclass(slots=True)
class BatchAnswer:
    """What became of one batch.

    Attributes
    ----------
    labels, scores : list
        One per row.
    errors : dict
        Why a row has no label, by its index.
    took_s : float
        Seconds from handing in to coming back.
    lost : bool
        Whether the process ended with the batch in its hands.
    """

    labels: list[Any]
    scores: list[float | None]
    errors: dict[int, str] = field(default_factory=dict)
    took_s: float = 0.0
    lost: bool = False

    @classmethod
    def lost_with(cls, n: int, reason: str) -> BatchAnswer:
        """Return a batch of ``n`` rows that went down with their process."""
        return cls([None] * n, [None] * n, dict.fromkeys(range(n), reason), lost=True)


class Replica(asyncio.Protocol):
    """One child process and the batch it holds."""

    def __init__(self, spec: ModelSpec, on_lost: Callable[[Replica], None]) -> None:
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
        self._reason = MODEL_DIED
        self._number = 0
        self._rows = 0
        self._since = 0.0
        self._done: Callable[[BatchAnswer], None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

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
            # Blocking for about a millisecond, and in this thread on purpose (rule 5).
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
        self._reason = reason
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._transport is not None:
            self._transport.abort()
        elif self._process is not None:
            self._process.wait()

    def _is_stuck(self, tell: Callable[[], None]) -> None:
        self.stuck = True
        tell()

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
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            message = _DECODER.decode(memoryview(self._buffer)[LENGTH.size : end].tobytes())
            del self._buffer[:end]
            self._take(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what was in hand, collect the process, tell the pool."""
        del exc
        self._transport = None
        end = self._end()
        if not self._ready.done():
            self._ready.set_exception(ModelRunError(f"the model's process ended: {end}"))
            # start() may have stopped waiting; then nobody asks for the exception.
            self._ready.exception()
        elif self._done is not None or not self.retired:
            logger.warning("a model's process ended: %s (%s)", self._reason, end)
        self._finish(BatchAnswer.lost_with(self._rows, self._reason))
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


class ReplicaPool:
    """The replicas of one version.

    Parameters
    ----------
    spec : ModelSpec
        What each of them loads.
    size : int, default 1
        Replicas that should be there.
    on_free : callable
        Called when a replica may take a batch.
    on_restart : callable
        Called with the reason when a replica had to be replaced.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        size: int = 1,
        on_free: Callable[[], None] = lambda: None,
        on_restart: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.spec = spec
        self.size = size
        self._on_free = on_free
        self._on_restart = on_restart
        self._replicas: list[Replica] = []
        self._starting = 0
        self._deaths = 0
        self._closed = False
        self._emptied = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def workers(self) -> int:
        """Replicas that are loaded, at least 1."""
        return max(1, sum(one.alive for one in self._replicas))

    @property
    def ready(self) -> bool:
        """Whether a loaded replica is there."""
        return any(one.alive and not one.retired for one in self._replicas)

    @property
    def pids(self) -> list[int]:
        """Process ids of the loaded replicas."""
        return [one.pid for one in self._replicas if one.alive]

    async def start(self) -> None:
        """Load all replicas.

        Raises
        ------
        ModelRunError
            If one of them does not load.
        """
        found = await asyncio.gather(
            *(self._add() for _ in range(self.size)), return_exceptions=True
        )
        for one in found:
            if isinstance(one, BaseException):
                await self.close()
                raise one

    def run(self, rows: list[Any], done: Callable[[BatchAnswer], None]) -> bool:
        """Hand a batch to a free replica; False if there is none."""
        for replica in self._replicas:
            if replica.idle:

                def finished(answer: BatchAnswer, one: Replica = replica) -> None:
                    done(answer)
                    self._after(one)

                replica.run(rows, finished, self._stand_in)
                return True
        return False

    @property
    def free(self) -> bool:
        """Whether a batch would be taken now."""
        return any(one.idle for one in self._replicas)

    async def close(self) -> None:
        """End all replicas; whatever they still hold comes back as failed."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for replica in list(self._replicas):
            replica.retired = True
            replica.kill(MODEL_DIED)
        if self._replicas:
            await self._emptied.wait()

    async def _add(self) -> Replica:
        replica = Replica(self.spec, self._lost)
        self._starting += 1
        try:
            await replica.start()
        finally:
            self._starting -= 1
        if self._closed:
            replica.kill(MODEL_DIED)
            raise ModelRunError("the version was unloaded while it was loading")
        self._replicas.append(replica)
        self._on_free()
        return replica

    def _after(self, replica: Replica) -> None:
        """See to a replica that has come back from a batch."""
        if replica.stuck and replica.alive:
            replica.stuck = False
            if sum(one.alive and not one.retired for one in self._replicas) > self.size:
                replica.retire()
        elif replica.alive and replica.rss_mib > _RECYCLE * self.spec.memory_mib:
            self._recycle(replica)
        self._on_free()

    def _recycle(self, old: Replica) -> None:
        if self._starting or self._closed:
            return

        async def exchange() -> None:
            try:
                await self._add()
            except ModelRunError as error:
                logger.warning("a model's process could not be recycled: %s", error)
            else:
                old.retire()

        logger.info("recycling a model's process at %.0f MiB", old.rss_mib)
        self._spawn(exchange())

    def _stand_in(self) -> None:
        """Start a replica beside a stuck one, one per stuck one at most."""
        stuck = sum(one.stuck for one in self._replicas)
        if not self._closed and len(self._replicas) + self._starting < self.size + stuck:
            self._spawn(self._replace(0.0))

    def _lost(self, replica: Replica) -> None:
        if replica not in self._replicas:
            return  # it never loaded: start() reports that
        self._replicas.remove(replica)
        if self._closed and not self._replicas:
            self._emptied.set()
        if self._closed or replica.retired:
            return
        lived = asyncio.get_running_loop().time() - replica.born
        self._deaths = 0 if lived > _HEALTHY_S else self._deaths + 1
        self._on_restart(replica._reason)  # noqa: SLF001 - one file, one idea
        if len(self._replicas) + self._starting < self.size:
            delay = 0.0
            if self._deaths > 1:
                delay = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(self._deaths - 2, 20))
            self._spawn(self._replace(delay))

    async def _replace(self, delay: float) -> None:
        """Load one more replica, however often it takes."""
        while not self._closed:
            await asyncio.sleep(delay)
            if len(self._replicas) + self._starting >= self.size + sum(
                one.stuck for one in self._replicas
            ):
                return
            try:
                await self._add()
            except ModelRunError as error:
                logger.warning("a model's process could not be started again: %s", error)
                delay = min(_LONGEST_DELAY_S, max(_FIRST_DELAY_S, 2 * delay))
            else:
                return

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
