"""Prediction rows on their way to the log, off the answer's path.

The event loop only appends to a deque, once for each batch.  A thread turns what is there into
columns and flushes them at least every half second, so a kill loses at most the last second; the
deque is bounded, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import msgspec
import numpy as np

from mlguard.data.input_sample import in_sample
from mlguard.data.same import Same
from mlguard.serving.counting import Counters, InputCounts

logger = logging.getLogger("mlguard.serving")

_FLUSH_S = 0.5
#: Rows that may wait for the thread, and how many of them wake it up early.
_MAX_ROWS = 200_000
_MANY_ROWS = 25_000
#: A version's file is closed when it was not written to for so long.
_IDLE_S = 300.0
#: Rows that are written at once, and the seconds between two such writes: the event loop has the
#: interpreter to itself in between, so no answer waits long for the log.
_AT_ONCE = 1_000
_REST_S = 0.002
_ENCODER = msgspec.json.Encoder()
#: Values of one such type are equal only where their JSON is.
_ALIKE = ({int}, {str}, {bool})


#: Answered rows: a column for each of ``FACTS``, all of one length.
Facts = dict[str, Sequence[Any]]
#: What is known of an answered row; ``row`` is as the model got it.
FACTS = (
    "query_id",
    "time",
    "generation",
    "default",
    "explanation",
    "output",
    "score",
    "uid",
    "groups",
    "latency_ms",
    "valid",
    "row",
)


class Writer(Protocol):
    """What one version's rows are written with (see ``data.prediction_log``)."""

    def append_columns(
        self, columns: Mapping[str, Sequence[Any]], inputs: Sequence[Sequence[Any]] | None
    ) -> None:
        """Buffer rows."""

    def flush(self) -> None:
        """Write what is buffered."""

    def close(self) -> None:
        """Write what is buffered and finish the file."""


class Log(Counters, Protocol):
    """Where prediction rows go, and counts of them."""

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
    version_id : int or str
        0 where no version answered; the name of a folder where what it answered reaches nobody.
    features : tuple of Feature
        The version's inputs, in the order of a row.
    redact : tuple of str
        Columns that are never written.
    inputs : bool
        Whether inputs are written at all.
    rate : float
        Share of the rows whose inputs are written.
    grid : Profile or None
        Profile of the version's reference, on whose grid its inputs are counted; None: they
        are not.
    """

    app: str
    version_id: int | str
    features: tuple[Any, ...] = ()
    redact: tuple[str, ...] = ()
    inputs: bool = True
    rate: float = 1.0
    grid: Any = None


class Recorder:
    """Takes rows from the event loop and writes them in a thread of its own.

    Parameters
    ----------
    log : Log
        Where they go.
    process : str
        Name of this process among those that write.
    no_room : callable, optional
        Whether nothing is to be written now, because the disk or the log's spool is full.
    """

    def __init__(
        self, log: Log, process: str, *, no_room: Callable[[], bool] = lambda: False
    ) -> None:
        self._log = log
        self._process = process
        self._no_room = no_room
        self._rows: deque[tuple[LogTarget, Facts]] = deque()
        # Each counter has one thread that adds to it, so that neither needs a lock.
        self._put = 0
        self._taken = 0
        self._writers: dict[tuple[str, int | str], tuple[Writer, LogTarget]] = {}
        self._idle: dict[tuple[str, int | str], float] = {}
        self._counts = InputCounts(log, process)
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._flush_lock = threading.Lock()
        self._failed = False
        self._stopped = False
        self.dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, target: LogTarget, facts: Facts) -> None:
        """Take the answered rows of one batch; never blocks, never raises."""
        n = len(facts["row"])
        waiting = self._put - self._taken
        room = _MAX_ROWS - waiting
        if n > room:
            self.dropped += n - room
            facts = {name: values[:room] for name, values in facts.items()}
            n = room
        self._put += n
        self._rows.append((target, facts))
        if waiting < _MANY_ROWS <= waiting + n:
            self._wake.set()

    def refuse(self, target: LogTarget) -> None:
        """Count a request that was refused as malformed while a version answered the others."""
        self._counts.refuse(target)

    def flush(self) -> None:
        """Write everything that was put so far."""
        with self._flush_lock:
            self._write()

    def close(self) -> None:
        """Write everything and finish the files."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self.flush()
        self._counts.close()
        for writer, _ in self._writers.values():
            writer.close()
        self._writers.clear()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(_FLUSH_S)
            self._wake.clear()
            with self._flush_lock:
                self._write(rest_s=_REST_S)

    def _write(self, rest_s: float = 0.0) -> None:
        written: set[tuple[str, int | str]] = set()
        last = self._put
        while self._rows and self._taken < last:
            written |= self._write_some()
            if rest_s and not self._stopping:
                time.sleep(rest_s)
        self._counts.flush()
        for key in written:
            self._idle[key] = 0.0
        for key in [key for key in self._writers if key not in written]:
            self._idle[key] += _FLUSH_S
            if self._idle[key] > _IDLE_S:
                writer, _ = self._writers.pop(key)
                writer.close()

    def _write_some(self) -> set[tuple[str, int | str]]:
        """Write the oldest rows, so many that one write is worth it; returns whose they were."""
        batches: dict[tuple[str, int | str], tuple[LogTarget, list[Facts]]] = {}
        last = self._taken + _AT_ONCE
        while self._rows and self._taken < last:
            target, facts = self._rows.popleft()
            self._taken += len(facts["row"])
            key = (target.app, target.version_id)
            # A version whose columns changed (a reload of [log]) starts a new batch's file.
            known = batches.get(key)
            if known is not None and known[0] != target:
                self._guarded(key, known[0], _joined(known[1]))
                known = None
            if known is None:
                batches[key] = (target, [facts])
            else:
                known[1].append(facts)
        for key, (target, parts) in batches.items():
            self._guarded(key, target, _joined(parts))
        return set(batches)

    def _guarded(self, key: tuple[str, int | str], target: LogTarget, facts: Facts) -> None:
        if self._no_room():
            self.dropped += len(facts["row"])
            if not self._stopped:
                logger.warning("no room for the log: predictions are not logged until there is")
            self._stopped = True
            return
        self._stopped = False
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
            facts = facts | {"row": _as_numbers(target, facts["row"])}
            if target.grid is not None:
                # Before the rows can be read: who judges the counts must not judge the rows too.
                self._counts.take(target, facts)
            known[0].append_columns(*_columns(target, facts))
            known[0].flush()
            self._failed = False
        # Serving goes on whatever the log does: the rows are counted as lost.
        except Exception:
            self.dropped += len(facts["row"])
            if not self._failed:
                logger.exception("the prediction log cannot be written; rows are dropped")
            self._failed = True


def _joined(parts: list[Facts]) -> Facts:
    """Return batches as one, column by column; what is the same in all of them stays one value."""
    return {name: _one_column([part[name] for part in parts]) for name in FACTS}


def _one_column(parts: list[Any]) -> Any:
    kinds = set(map(type, parts))
    if kinds == {Same} and len({one.value for one in parts}) == 1:
        return Same(parts[0].value, sum([one.n for one in parts]))
    if kinds == {range}:
        return np.concatenate([np.arange(one.start, one.stop) for one in parts])
    return list(chain.from_iterable(parts))


def _columns(
    target: LogTarget, facts: Facts
) -> tuple[Mapping[str, Sequence[Any]], Sequence[Sequence[Any]] | None]:
    """Return the log's columns, and the rows of inputs where they are kept."""
    columns = facts | {"output": _as_json(facts["output"])}
    rows: Sequence[Any] = columns.pop("row")
    keeps = target.inputs and bool(target.features)
    kept: Sequence[bool] = Same(keeps, len(rows))
    if keeps and target.rate < 1:
        kept = in_sample(columns["query_id"], target.rate).tolist()
    columns["inputs_kept"] = kept
    if not any(kept):
        return columns, None
    if isinstance(rows, np.ndarray):
        if not all(kept):
            rows = np.where(np.array(kept)[:, np.newaxis], rows, np.nan)
    elif not all(kept):
        nothing = [None] * len(target.features)
        rows = [_cells(row) if one else nothing for row, one in zip(rows, kept, strict=True)]
    elif type(rows[0]) is not list:
        # A string or bytes is a row of one column; a list is its cells.
        rows = [_cells(one) for one in rows]
    return columns, rows


def _as_numbers(target: LogTarget, rows: Sequence[Any]) -> Any:
    """Return rows of nothing but numbers as one array, column after column; others as they are."""
    if not target.features or any(one.kind != "number" for one in target.features):
        return rows
    try:
        found = np.array(rows, np.float64, order="F")
    except (TypeError, ValueError):
        return rows  # rows of an app that changed its columns
    return found if found.ndim == 2 else rows


def _cells(row: Any) -> Sequence[Any]:
    """Return a row as its cells, as the log holds them."""
    if type(row) is list:
        return row
    return [base64.b64encode(row).decode() if type(row) is bytes else row]


def _as_json(outputs: Sequence[Any]) -> list[str]:
    """Return outputs as JSON texts; a classifier has few that differ."""
    if set(map(type, outputs)) in _ALIKE:
        texts = {one: _ENCODER.encode(one).decode() for one in set(outputs)}
        return [texts[one] for one in outputs]
    return [_ENCODER.encode(one).decode() for one in outputs]
