"""A model that cannot run code, beside the event loop: no process, no message, no wait.

Rules
-----
1. Only for versions that are compiled: numbers of ours, or a graph of ONNX Runtime's.  There
   is nothing in them that could crash, leak or call home, so a process of its own would only
   cost time.
2. A batch runs in the loop itself while that takes less than a millisecond.  A model whose
   batches take longer moves to a thread, for good, and the log says so: deadlines and sockets
   must not wait for it.  Most batches have to take longer, not some: a busy machine is not to
   be taken for a slow model.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlguard.errors import MlguardError, ModelRunError
from mlguard.serving.model_runner import Model
from mlguard.serving.replica import BatchAnswer, ModelSpec, as_table

logger = logging.getLogger("mlguard.serving")

#: Seconds that a batch may hold up the event loop.
_LONGEST_S = 0.001
#: By how many the batches that took longer outnumber those that did not, when it moves.
_TOO_MANY = 20


class InProcessReplica:
    """One model in this process.

    Parameters
    ----------
    spec : ModelSpec
        What to load.
    name : str
        The version, for the log.
    on_free : callable
        Called when a batch came back from the thread.
    """

    #: Batches that may run at the same time.
    workers = 1

    def __init__(
        self, spec: ModelSpec, *, name: str = "", on_free: Callable[[], None] = lambda: None
    ) -> None:
        self.spec = spec
        self.inline = True
        self._name = name
        self._on_free = on_free
        self._model: Model | None = None
        self._numbers = False
        self._slow = 0
        self._thread: ThreadPoolExecutor | None = None
        self._busy = False

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._model is not None

    @property
    def free(self) -> bool:
        """Whether a batch would be taken now."""
        return self._model is not None and not self._busy

    @property
    def pids(self) -> list[int]:
        """No processes."""
        return []

    async def start(self) -> None:
        """Load the model in a thread, for that reads a file, and warm it.

        Raises
        ------
        MlguardError
            If it cannot be loaded, or is no model that may run here.
        """
        loop = asyncio.get_running_loop()
        try:
            self._model = await loop.run_in_executor(None, self._load)
        except MlguardError:
            raise
        # A damaged graph raises classes of ONNX Runtime's own, without a common base.
        except Exception as error:
            raise ModelRunError(f"{type(error).__name__}: {error}") from error

    def _load(self) -> Model:
        model = Model(self.spec.manifest, self.spec.model_path)
        if not model.predictor.in_process:
            raise ModelRunError("this model runs in a process of its own only")
        model.warm_up()
        features = model.predictor.input_schema.features
        self._numbers = bool(features) and all(one.kind == "number" for one in features)
        return model

    def run(self, rows: list[Any], done: Callable[[BatchAnswer], None]) -> bool:
        """Take a batch; ``done`` is called before this returns while :attr:`inline`."""
        model = self._model
        if model is None or self._busy:
            return False
        if not self.inline:
            self._run_aside(model, rows, done)
            return True
        before = time.perf_counter()
        answer = self._answered(model, rows)
        answer.took_s = time.perf_counter() - before
        if answer.took_s > _LONGEST_S:
            self._slow += 1
            if self._slow >= _TOO_MANY:
                self._move(len(rows), answer.took_s)
        elif self._slow:
            self._slow -= 1
        done(answer)
        return True

    def _answered(self, model: Model, rows: list[Any]) -> BatchAnswer:
        """Run a batch; numbers become an array here, once for the model and for the log."""
        table = as_table(rows) if self._numbers else None
        return BatchAnswer(*model.answer(rows if table is None else table), table=table)

    def _move(self, rows: int, took_s: float) -> None:
        self.inline = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"model-{self._name}")
        logger.info(
            "version %s runs in a thread from now on: a batch of %d rows takes %.1f ms",
            self._name,
            rows,
            took_s * 1000,
        )

    def _run_aside(
        self, model: Model, rows: list[Any], done: Callable[[BatchAnswer], None]
    ) -> None:
        assert self._thread is not None
        loop = asyncio.get_running_loop()
        self._busy = True
        started = time.perf_counter()

        def finished(answer: BatchAnswer) -> None:
            answer.took_s = time.perf_counter() - started
            self._busy = False
            done(answer)
            self._on_free()

        def work() -> None:
            answer = self._answered(model, rows)
            loop.call_soon_threadsafe(finished, answer)

        self._thread.submit(work)

    async def close(self) -> None:
        """Forget the model, after the batch in hand."""
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
        self._model = None
