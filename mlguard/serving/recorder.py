"""Prediction rows on their way to the log, off the answer's path.

The event loop appends the rows of each batch to a deque, after the replies.  A thread takes them
every half second, turns them into columns, counts them and writes them, so a kill loses at most
the last second; the deque is bounded, and what does not fit is dropped and counted.

Where many rows come, the event loop makes columns of them itself, a thousand rows at once, and
leaves to the thread what touches the disk.  A thread that computes takes the interpreter from the
event loop, and gets and gives it only every five milliseconds: that cost a tenth of the answers
and doubled the time of the slowest.  The event loop never opens a file and never waits for one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mlguard.serving.counting import Counters, InputCounts
from mlguard.serving.logged_rows import Facts, LogTarget, as_numbers, columns_of, joined

logger = logging.getLogger("mlguard.serving")

_FLUSH_S = 0.5
#: Rows that may wait for the thread, and how many of them wake it up early.
_MAX_ROWS = 200_000
_MANY_ROWS = 25_000
#: A version's file is closed when it was not written to for so long.
_IDLE_S = 300.0
#: Rows that become columns at once, and the most columns of those that the event loop takes: one
#: to four milliseconds.
_AT_ONCE = 1_000
_WIDEST = 64
#: Seconds between two such pieces of the thread's: the event loop has the interpreter to itself.
_REST_S = 0.002
#: Whose rows: app and version.
Key = tuple[str, int | str]


class Writer(Protocol):
    """What one version's rows are written with (see ``data.prediction_log``)."""

    dropped: int
    last_error: str

    def append_columns(
        self, columns: Mapping[str, Sequence[Any]], inputs: Sequence[Sequence[Any]] | None
    ) -> None:
        """Buffer rows; does not touch the disk."""

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


class _Open(NamedTuple):
    """What rows of one version are written with."""

    target: LogTarget
    writer: Writer


class Recorder:
    """Takes rows from the event loop and writes them.

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
        # The first rises in the event loop only, the second only with the lock below.
        self._put = 0
        self._taken = 0
        #: Held by who takes rows out of the deque, makes columns of them, opens or closes files.
        self._taking = threading.Lock()
        #: Held by who writes.
        self._writing = threading.Lock()
        self._open: dict[Key, _Open] = {}
        self._written: set[Key] = set()
        self._idle: dict[Key, float] = {}
        self._counts = InputCounts(log, process)
        self._room = True
        self._failed = False
        # As above: one counter for the event loop, one for what happens with the lock.
        self._crowded_out = 0
        self._lost = 0
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)

    @property
    def dropped(self) -> int:
        """Rows that are not in the log and never will be."""
        unwritten = sum(one.writer.dropped for one in list(self._open.values()))
        return self._crowded_out + self._lost + unwritten

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, target: LogTarget, facts: Facts) -> None:
        """Take the answered rows of one batch; never blocks, never raises."""
        n = len(facts["row"])
        room = _MAX_ROWS - (self._put - self._taken)
        if n > room:
            self._crowded_out += n - room
            facts = {name: values[:room] for name, values in facts.items()}
            n = room
        self._put += n
        self._rows.append((target, facts))
        waiting = self._put - self._taken
        if waiting >= _AT_ONCE and self._taking.acquire(blocking=False):
            try:
                self._take(self._easy)
            finally:
                self._taking.release()
        if waiting - n < _MANY_ROWS <= waiting:
            self._wake.set()

    def refuse(self, target: LogTarget) -> None:
        """Count a request that was refused as malformed while a version answered the others."""
        self._counts.refuse(target)

    def flush(self) -> None:
        """Write everything that was put so far."""
        with self._writing:
            self._write()

    def close(self) -> None:
        """Write everything and finish the files."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self.flush()
        self._counts.close()
        for key in list(self._open):
            self._close(key)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(_FLUSH_S)
            self._wake.clear()
            with self._writing:
                self._write(rest_s=_REST_S)

    def _write(self, rest_s: float = 0.0) -> None:
        self._look_for_room()
        before = self.dropped
        last = self._put
        while self._rows and self._taken < last:
            with self._taking:
                self._take(lambda _target, _n: True)
            if rest_s and not self._stopping:
                time.sleep(rest_s)
        for one in self._open.values():
            known = one.writer.dropped
            one.writer.flush()
            if one.writer.dropped > known:
                self._complain(one.writer.last_error)
        self._counts.flush()
        if self._written and self.dropped == before:
            self._failed = False
        with self._taking:
            written, self._written = self._written, set()
            for key in list(self._open):
                self._idle[key] = 0.0 if key in written else self._idle[key] + _FLUSH_S
                if self._idle[key] > _IDLE_S:
                    self._close(key)

    def _look_for_room(self) -> None:
        room = not self._no_room()
        if self._room and not room:
            logger.warning("no room for the log: predictions are not logged until there is")
        self._room = room

    def _easy(self, target: LogTarget, n: int) -> bool:
        """Whether the event loop may make columns of rows: few, and their files are open."""
        known = self._open.get((target.app, target.version_id))
        few = n <= _AT_ONCE and len(target.features) <= _WIDEST
        return few and known is not None and known.target == target

    def _take(self, wanted: Callable[[LogTarget, int], bool]) -> None:
        """Make columns of the oldest rows, so many that it is worth it and nobody waits long."""
        batches: dict[Key, tuple[LogTarget, list[Facts]]] = {}
        n = 0
        while self._rows and n < _AT_ONCE:
            target, facts = self._rows[0]
            if not wanted(target, len(facts["row"])):
                break
            # A version whose columns changed (a reload of [log]) begins another file.
            whose = batches.setdefault((target.app, target.version_id), (target, []))
            if whose[0] != target:
                break
            self._rows.popleft()
            whose[1].append(facts)
            n += len(facts["row"])
        for key, (target, parts) in batches.items():
            self._guarded(key, target, joined(parts))
        self._taken += n

    def _guarded(self, key: Key, target: LogTarget, facts: Facts) -> None:
        if not self._room:
            self._lost += len(facts["row"])
            return
        try:
            known = self._open.get(key)
            if known is None or known.target != target:
                known = self._opened(key, target)
            facts = facts | {"row": as_numbers(target, facts["row"])}
            if target.grid is not None:
                self._counts.take(target, facts)
            known.writer.append_columns(*columns_of(target, facts))
            self._written.add(key)
        # Serving goes on whatever the log does: the rows are counted as lost.
        except Exception as error:  # noqa: BLE001  see above
            self._lost += len(facts["row"])
            self._complain(f"{type(error).__name__}: {error}")

    def _complain(self, why: str) -> None:
        if not self._failed:
            logger.error("the prediction log cannot be written, and rows are dropped: %s", why)
        self._failed = True

    def _opened(self, key: Key, target: LogTarget) -> _Open:
        """Open what the rows of a version go to; only the thread, or who flushes, comes here."""
        if key in self._open:
            self._close(key)
        writer = self._log.writer(
            *key, self._process, target.features, redact=target.redact, inputs=target.inputs
        )
        if target.grid is not None:
            # Before the rows can be read: who judges the counts must not judge the rows too.
            self._counts.open(target)
        known = self._open[key] = _Open(target, writer)
        self._idle[key] = 0.0
        return known

    def _close(self, key: Key) -> None:
        one = self._open.pop(key)
        del self._idle[key]
        one.writer.close()
        self._lost += one.writer.dropped
