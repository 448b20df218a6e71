"""The processes of one version: how many there are, and what replaces the one that ends.

Rules
-----
1. A process holds one batch at a time.  Whatever happens to it, every batch handed in comes
   back exactly once: answered, or with a reason per row.
2. One that dies, or is stopped at its wall or memory limit, is started again: at once
   the first time, then after 0.1 s · 2ᵏ up to 30 s, until one has lived five seconds: one that
   is killed now and then is no crash loop, and the next one is wanted at once.
3. One that is stuck (ten times the SLO, at least a second) gets a stand-in beside it,
   so that a hanging model costs its own rows and a moment, not everybody its wall limit.
   When the stuck one comes back there is one too many, and it is retired.
4. One that has grown to 80 % of its memory limit is recycled: the next one is loaded
   first, then the old one is retired after its batch.  No row notices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from mlguard.errors import ModelRunError
from mlguard.serving.answers import MODEL_DIED
from mlguard.serving.own_process import OwnProcess
from mlguard.serving.replica import BatchAnswer, ModelSpec

__all__ = ["BatchAnswer", "ModelSpec", "ReplicaPool"]

logger = logging.getLogger("mlguard.serving")

#: Share of the memory limit at which a process is recycled.
_RECYCLE = 0.8
_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 30.0
_HEALTHY_S = 5.0


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
        Called with the reason when a replica had to be replaced; once more for each that died
        while it was loading in its place.
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
        self._replicas: list[OwnProcess] = []
        self._starting = 0
        self._deaths = 0
        self._closed = False
        self._emptied = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    #: Batches run elsewhere.
    inline = False

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

                def finished(answer: BatchAnswer, one: OwnProcess = replica) -> None:
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

    async def _add(self) -> OwnProcess:
        replica = OwnProcess(self.spec, self._lost)
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

    def _after(self, replica: OwnProcess) -> None:
        """See to a replica that has come back from a batch."""
        if replica.stuck and replica.alive:
            replica.stuck = False
            if sum(one.alive and not one.retired for one in self._replicas) > self.size:
                replica.retire()
        elif replica.alive and replica.rss_mib > _RECYCLE * self.spec.memory_mib:
            self._recycle(replica)
        self._on_free()

    def _recycle(self, old: OwnProcess) -> None:
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

    def _lost(self, replica: OwnProcess) -> None:
        if replica not in self._replicas:
            return  # it never loaded: start() reports that
        self._replicas.remove(replica)
        if self._closed and not self._replicas:
            self._emptied.set()
        if self._closed or replica.retired:
            return
        lived = asyncio.get_running_loop().time() - replica.born
        self._deaths = 0 if lived > _HEALTHY_S else self._deaths + 1
        self._on_restart(replica.reason)
        if len(self._replicas) + self._starting < self.size:
            delay = 0.0
            if self._deaths > 1:
                delay = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(self._deaths - 2, 20))
            self._spawn(self._replace(delay))

    async def _replace(self, delay: float) -> None:
        """Load one more replica, however often it takes."""
        while not self._closed:
            await asyncio.sleep(delay)  # rule 2: what dies again and again is not to burn a core
            if len(self._replicas) + self._starting >= self.size + sum(
                one.stuck for one in self._replicas
            ):
                return
            try:
                await self._add()
            except ModelRunError as error:
                logger.warning("a model's process could not be started again: %s", error)
                self._on_restart(MODEL_DIED)
                delay = min(_LONGEST_DELAY_S, max(_FIRST_DELAY_S, 2 * delay))
            else:
                return

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
