"""What one app was asked since the server started, from the server's own figures.

The figures are those of ``/metrics``: counts over all front-end processes.  A rate needs two
looks; it is of the time between the oldest one within a minute and now.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: Seconds that a rate looks back at most, and the least that it needs.
_BACK_S, _LEAST_S = 60.0, 0.5
#: What became of a label that says that it is here.
_TAKEN = ("stored", "same")


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Counts of one app since the server started.

    Attributes
    ----------
    predictions, defaults : int
        Rows answered, and those of them that got the default output.
    labels : int
        Labels that were taken.
    waiting : int
        Rows that wait for their answer now.
    per_second : float or None
        Rows answered per second lately; None at the first look.
    median_ms, p99_ms : float or None
        Upper bounds of the median and of the 99 % quantile of a request's time, in ms: those of
        the histogram's buckets.  None where nothing was asked, infinite beyond the last bucket.
    by_version : tuple of (str, int)
        Rows that a version answered, most first.
    causes : tuple of (str, int)
        Why the default was answered, most frequent first.
    """

    predictions: int = 0
    defaults: int = 0
    labels: int = 0
    waiting: int = 0
    per_second: float | None = None
    median_ms: float | None = None
    p99_ms: float | None = None
    by_version: tuple[tuple[str, int], ...] = ()
    causes: tuple[tuple[str, int], ...] = ()

    @property
    def default_share(self) -> float | None:
        """Share of the rows that got the default output, in [0, 1]; None of no rows."""
        return self.defaults / self.predictions if self.predictions else None


class LiveFigures:
    """Reads the figures, and remembers earlier looks for the rates.

    Parameters
    ----------
    figures : callable
        Returns them in Prometheus' text form.
    clock : callable, default time.monotonic
        Seconds.
    """

    def __init__(
        self, figures: Callable[[], bytes], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._figures = figures
        self._clock = clock
        self._looks: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self._lock = threading.Lock()

    def of(self, app: str) -> Live:
        """Return the counts of one app."""
        return read_figures(self._figures().decode(), app, rate=self._rate)

    def _rate(self, app: str, total: int) -> float | None:
        now = self._clock()
        with self._lock:
            looks = self._looks[app]
            # A server that started anew counts from 0 again.
            while looks and (now - looks[0][0] > _BACK_S or looks[0][1] > total):
                looks.popleft()
            if not looks or now - looks[-1][0] >= _LEAST_S:
                looks.append((now, total))
            before, earlier = looks[0]
        passed = now - before
        return (total - earlier) / passed if passed >= _LEAST_S else None


def read_figures(
    text: str, app: str, *, rate: Callable[[str, int], float | None] = lambda _app, _n: None
) -> Live:
    """Return one app's counts from figures in Prometheus' text form.

    Parameters
    ----------
    text : str
        As ``/metrics`` answers.
    app : str
        Whose.
    rate : callable, optional
        Makes rows per second of the app's name and its rows so far.
    """
    from prometheus_client.parser import text_string_to_metric_families

    answered: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    labels = waiting = 0.0
    buckets: dict[float, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("app") != app:
                continue
            if sample.name == "mlguard_predictions_total":
                reason = sample.labels["reason"]
                target = causes if reason else answered
                target[reason or sample.labels["version"]] += int(sample.value)
            elif sample.name == "mlguard_labels_total" and sample.labels["result"] in _TAKEN:
                labels += sample.value
            elif sample.name == "mlguard_queue_rows":
                waiting += sample.value
            elif sample.name == "mlguard_request_seconds_bucket":
                buckets[float(sample.labels["le"])] = sample.value
    defaults = causes.total()
    total = answered.total() + defaults
    return Live(
        predictions=total,
        defaults=defaults,
        labels=int(labels),
        waiting=int(waiting),
        per_second=rate(app, total),
        median_ms=_bound(buckets.items(), 0.5),
        p99_ms=_bound(buckets.items(), 0.99),
        by_version=tuple((name, n) for name, n in answered.most_common(8) if n),
        causes=tuple((cause, n) for cause, n in causes.most_common(5) if n),
    )


def _bound(buckets: Iterable[tuple[float, float]], part: float) -> float | None:
    """Return the upper bound (ms) of the bucket in which a quantile lies."""
    ordered = sorted(buckets)
    if not ordered or not ordered[-1][1]:
        return None
    wanted = part * ordered[-1][1]
    bound = next(le for le, n in ordered if n >= wanted)
    return bound * 1000 if math.isfinite(bound) else math.inf
