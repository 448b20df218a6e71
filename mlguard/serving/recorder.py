"""Prediction rows on their way to the log, off the answer's path.

The event loop only appends to a deque.  A thread makes rows of it and flushes them at least
every half second, so a kill loses at most the last second; the deque is bounded, and what does
not fit is dropped and counted.
"""

from __future__ import annotations

import base64
import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

logger = logging.getLogger("mlguard.serving")

_FLUSH_S = 0.5
_MAX_ROWS = 100_000
#: A version's file is closed when it was not written to for so long.
_IDLE_S = 300.0


class Writer(Protocol):
    """What one version's rows are written with (see ``data.prediction_log``)."""

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Buffer rows."""

    def flush(self) -> None:
        """Write what is buffered."""

    def close(self) -> None:
        """Write what is buffered and finish the file."""


class Log(Protocol):
    """Where prediction rows go."""

    def writer(
        self,
        app: str,
        version_id: int | str,
        process: str,
        features: Sequence[Any] = (),
        *,
        redact: Sequence[str] = (),
        inputs: bool = True,
    ) -> Writer:
        """Return the writer for one version."""


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where the rows of one version go, and what is kept of their inputs.

    Attributes
    ----------
    app : str
        The app.
    version_id : int
        0 where no version answered.
    features : tuple of Feature
        The version's inputs, in the order of a row.
    redact : tuple of str
        Columns that are never written.
    inputs : bool
        Whether inputs are written at all.
    """

    app: str
    version_id: int
    features: tuple[Any, ...] = ()
    redact: tuple[str, ...] = ()
    inputs: bool = True


class Recorder:
    """Takes rows from the event loop and writes them in a thread of its own."""

    def __init__(self, log: Log, process: str) -> None:
        self._log = log
        self._process = process
        self._rows: deque[tuple[LogTarget, Any, dict[str, Any]]] = deque()
        self._writers: dict[tuple[str, int], tuple[Writer, LogTarget]] = {}
        self._idle: dict[tuple[str, int], float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._flush_lock = threading.Lock()
        self._failed = False
        self.dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, target: LogTarget, row: Any, facts: dict[str, Any]) -> None:
        """Take one answered row; never blocks, never raises."""
        if len(self._rows) >= _MAX_ROWS:
            self.dropped += 1
        else:
            self._rows.append((target, row, facts))

    def flush(self) -> None:
        """Write everything that was put so far."""
        with self._flush_lock:
            self._write()

    def close(self) -> None:
        """Write everything and finish the files."""
        self._stopping.set()
        self._thread.join()
        self.flush()
        for writer, _ in self._writers.values():
            writer.close()
        self._writers.clear()

    def _run(self) -> None:
        while not self._stopping.wait(_FLUSH_S):
            self.flush()

    def _write(self) -> None:
        batches: dict[tuple[str, int], tuple[LogTarget, list[dict[str, Any]]]] = {}
        for _ in range(len(self._rows)):
            target, row, facts = self._rows.popleft()
            key = (target.app, target.version_id)
            # A version whose columns changed (a reload of [log]) starts a new batch's file.
            batches.setdefault(key, (target, []))[1].append(_row(target, row, facts))
        for key, (target, rows) in batches.items():
            self._idle[key] = 0.0
            self._guarded(len(rows), key, target, rows)
        for key in [key for key in self._writers if key not in batches]:
            self._idle[key] += _FLUSH_S
            if self._idle[key] > _IDLE_S:
                writer, _ = self._writers.pop(key)
                writer.close()

    def _guarded(
        self, n: int, key: tuple[str, int], target: LogTarget, rows: list[dict[str, Any]]
    ) -> None:
        try:
            known = self._writers.get(key)
            if known is not None and known[1] != target:
                known[0].close()
                known = None
            if known is None:
                writer = self._log.writer(
                    *key,
                    self._process,
                    target.features,
                    redact=target.redact,
                    inputs=target.inputs,
                )
                known = self._writers[key] = (writer, target)
            known[0].append(rows)
            known[0].flush()
            self._failed = False
        # Serving goes on whatever the log does: the rows are counted as lost.
        except Exception:
            self.dropped += n
            if not self._failed:
                logger.exception("the prediction log cannot be written; rows are dropped")
            self._failed = True


def _row(target: LogTarget, row: Any, facts: dict[str, Any]) -> dict[str, Any]:
    facts["output"] = msgspec.json.encode(facts["output"]).decode()
    if target.inputs and target.features:
        # A string or bytes is a row of one column; a list is its cells.
        cells = row if isinstance(row, list) else [row]
        facts["features"] = [
            base64.b64encode(cell).decode() if type(cell) is bytes else cell for cell in cells
        ]
    return facts
