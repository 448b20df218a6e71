"""Which rows run next, and how many at once.  Pure: the clock is passed in.

Rules
-----
1. *Earliest deadline first.*  Rows wait in a heap ordered by deadline, then by arrival.
2. *Expired work never runs.*  A row whose deadline has passed is handed back as expired, so
   that its caller gets the default answer and the model does not work for nobody.
3. *Batch size by AIMD to the SLO.*  The limit grows by 2 when a full batch came back within
   90 % of the SLO, and shrinks by a tenth when one missed it (Crankshaw et al., "Clipper",
   NSDI 2017, section 4.3).  Only full batches let it grow: a batch of one says nothing about
   what a batch of hundred would take.
4. *No timer unless asked.*  With ``max_wait_s = 0`` whatever is there goes at once; else a
   batch waits until it is full or its oldest row has waited that long.
5. *Bounded.*  A row is refused when more rows wait than the SLO can clear, by the time recent
   batches took, or when ``max_queue`` rows wait.  The caller answers 503 with Retry-After.
   A request is refused or admitted whole, and an idle queue admits any request: its size is
   bounded by the limit on the body.

One batcher per version and nothing else puts rows into it, so a batch never mixes versions.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Generic, TypeVar

Row = TypeVar("Row")

#: Share of the SLO under which a full batch lets the limit grow.
_COMFORTABLE = 0.9
_INCREASE = 2
_DECREASE = 0.9
#: Weight of the newest batch in the running mean of batch times.
_NEWEST = 0.2


class AdaptiveBatcher(Generic[Row]):
    """Queue of one version's rows.

    Parameters
    ----------
    slo_s : float
        Latency objective of the app, in seconds.
    max_wait_s : float, default 0
        How long a batch may wait to fill, in seconds.
    max_queue : int, default 16384
        Rows that may wait, at most.
    start, largest : int, default 8 and 4096
        First and greatest batch limit.
    """

    def __init__(
        self,
        *,
        slo_s: float,
        max_wait_s: float = 0.0,
        max_queue: int = 16_384,
        start: int = 8,
        largest: int = 4096,
    ) -> None:
        self.slo_s = slo_s
        self.max_wait_s = max_wait_s
        self.max_queue = max_queue
        self.largest = largest
        #: Batches that may run at the same time; kept up to date by whoever hands them out.
        self.workers = 1
        self._limit = float(start)
        self._heap: list[tuple[float, int, float, Row]] = []
        self._arrivals = 0
        #: Seconds that recent batches took, on the mean; 0 before the first.
        self.batch_s = 0.0

    @property
    def limit(self) -> int:
        """Rows that the next batch may hold."""
        return int(self._limit)

    def __len__(self) -> int:
        return len(self._heap)

    def clear_time(self) -> float:
        """Seconds that the waiting rows will take, judged by recent batches.

        A batch is not counted as longer than the SLO: one straggler must not shut the door
        for everybody who comes after it.
        """
        batches = len(self._heap) / (self.limit * self.workers)
        return batches * min(self.batch_s, self.slo_s)

    @property
    def earliest(self) -> float:
        """The deadline that comes first; infinity while nothing waits."""
        return self._heap[0][0] if self._heap else math.inf

    def admit(self, rows: Sequence[Row], deadline: float, now: float) -> bool:
        """Queue the rows of one request; False, and nothing queued, on overload (rule 5)."""
        heap = self._heap
        waiting = len(heap)
        # One batch's worth is always cleared in time: no batch counts for more than the SLO.
        if waiting and (
            waiting + len(rows) > self.max_queue
            or (waiting > self._limit and self.clear_time() > self.slo_s)
        ):
            return False
        for row in rows:
            self._arrivals += 1
            heapq.heappush(heap, (deadline, self._arrivals, now, row))
        return True

    def expire(self, now: float) -> list[Row]:
        """Return, and forget, the rows whose deadline has passed."""
        expired: list[Row] = []
        while self._heap and self._heap[0][0] <= now:
            expired.append(heapq.heappop(self._heap)[3])
        return expired

    def take(self, now: float) -> tuple[list[Row], list[Row]]:
        """Return the rows of the next batch, and those that expired waiting.

        The batch is empty while it may still wait to fill (rule 4).
        """
        expired = self.expire(now)
        if self.ready_at() > now:
            return [], expired
        if len(self._heap) <= self._limit:
            # All of them go: nearly sorted already, they are sorted faster than taken out singly.
            whole = sorted(self._heap)
            self._heap.clear()
            return [entry[3] for entry in whole], expired
        return [heapq.heappop(self._heap)[3] for _ in range(self.limit)], expired

    def ready_at(self) -> float:
        """Time from which :meth:`take` returns a batch; infinity while nothing waits."""
        if not self._heap:
            return math.inf
        if self.max_wait_s <= 0 or len(self._heap) >= self.limit:
            return -math.inf
        # The oldest waiting row decides, not the most urgent: nobody waits longer than asked.
        oldest = min(entry[2] for entry in self._heap)
        return min(oldest + self.max_wait_s, self._heap[0][0])

    def finished(self, size: int, took_s: float) -> None:
        """Learn from a batch of ``size`` rows that took ``took_s`` seconds (rule 3)."""
        self.batch_s += _NEWEST * (took_s - self.batch_s) if self.batch_s else took_s
        if took_s > self.slo_s:
            self._limit = max(1.0, self._limit * _DECREASE)
        elif took_s < _COMFORTABLE * self.slo_s and size >= self.limit:
            self._limit = min(float(self.largest), self._limit + _INCREASE)
