"""What was answered, counted once a batch and handed to the figures now and then.

One labelled Prometheus figure costs as much as answering a request, and where several processes
share a page of figures more than that.  So requests are counted in plain integers, and added up
into the figures when somebody looks, or half a second after the first of them.

The histogram is filled through the parts that ``Histogram.observe`` itself fills; a test holds
them to the same result.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mlguard.serving.cache import AnswerCache
    from mlguard.serving.metrics import Metrics

_SETTLE_S = 0.5
#: Times that are sorted into buckets at once: for so many, numpy is cheap.
_MANY = 2_000


class Tally:
    """Counts of one app.

    Parameters
    ----------
    metrics : Metrics
        The figures that are added to.
    app : str
        Its name.
    """

    def __init__(self, metrics: Metrics, app: str) -> None:
        self._metrics = metrics
        self._app = app
        self._latency: Any = metrics.latency.labels(app)
        self._bounds: list[float] = list(self._latency._upper_bounds)  # noqa: SLF001
        self._buckets = np.zeros(len(self._bounds), np.int64)
        self._seconds = 0.0
        #: Seconds that requests took, not sorted into buckets yet.
        self._took: list[float] = []
        self._statuses: dict[int, int] = defaultdict(int)
        self._rows: dict[tuple[str, str], int] = defaultdict(int)
        self._timer: asyncio.TimerHandle | None = None
        #: Caches whose hits and misses are counted.
        self.caches: list[AnswerCache[Any]] = []
        metrics.pending.append(self.settle)

    def requests(self, version: str, took: Sequence[float], reasons: Sequence[str | None]) -> None:
        """Count requests that one version answered together.

        Parameters
        ----------
        version : str
            Its name.
        took : sequence of float
            Seconds that each request took.
        reasons : sequence of str or None
            Of each row: why it got the default output; None where it did not.
        """
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SETTLE_S, self.settle)
        self._took += took
        if len(self._took) >= _MANY:
            self._sort()
        for reason in set(reasons):
            self._rows[version, reason or ""] += reasons.count(reason)
        self._statuses[200] += len(took)

    def _sort(self) -> None:
        """Sort the times that requests took into the histogram's buckets."""
        took = np.array(self._took)
        self._took.clear()
        places = np.searchsorted(self._bounds, took)
        self._buckets += np.bincount(places, minlength=len(self._bounds))
        self._seconds += float(took.sum())

    def refused(self, status: int) -> None:
        """Count a request that was answered by an error."""
        self._metrics.requests.labels(self._app, str(status)).inc()

    def settle(self) -> None:
        """Add what was counted to the figures."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        statuses, self._statuses = self._statuses, defaultdict(int)
        for status, n in statuses.items():
            self._metrics.requests.labels(self._app, str(status)).inc(n)
        rows, self._rows = self._rows, defaultdict(int)
        for (version, reason), n in rows.items():
            self._metrics.predictions.labels(self._app, version, reason).inc(n)
        for cache in self.caches:
            for result, n in (("hit", cache.hits), ("miss", cache.misses)):
                if n:
                    self._metrics.cache.labels(self._app, result).inc(n)
            cache.hits = cache.misses = 0
        self._sort()
        buckets, self._buckets = self._buckets, np.zeros_like(self._buckets)
        for bucket, n in zip(self._latency._buckets, buckets.tolist(), strict=True):  # noqa: SLF001
            if n:
                bucket.inc(n)
        seconds, self._seconds = self._seconds, 0.0
        self._latency._sum.inc(seconds)  # noqa: SLF001
