"""The server's figures, in Prometheus' text form.

Each front-end process counts for itself.  Where several share a socket, the supervisor sets
``PROMETHEUS_MULTIPROC_DIR`` before they start; then counts are kept in files there, survive the
process that made them, and ``/metrics`` of any process tells the sum.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The figures of one front-end process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        #: What adds counts that were put aside; called before anybody is shown the figures.
        self.pending: list[Callable[[], None]] = []
        shared: dict[str, Any] = {"registry": self._registry}
        #: Gauges of dead processes are dropped, those of live ones added up.
        sums: dict[str, Any] = shared | {"multiprocess_mode": "livesum"}
        latest: dict[str, Any] = shared | {"multiprocess_mode": "mostrecent"}
        self.requests = Counter(
            "mlguard_requests", "Predict requests by status.", ["app", "status"], **shared
        )
        self.predictions = Counter(
            "mlguard_predictions",
            "Rows answered; reason is empty where the model answered.",
            ["app", "version", "reason"],
            **shared,
        )
        self.unusual = Counter(
            "mlguard_unusual_cells",
            "Cells unlike the version's reference data; counted where unusual_rows is not pass.",
            ["app", "version", "column"],
            **shared,
        )
        self.cache = Counter(
            "mlguard_cache",
            "Rows answered from what was answered before, or while it was being answered (hit), "
            "and rows that the model was asked (miss); only where cache_mib is not 0.",
            ["app", "result"],
            **shared,
        )
        self.latency = Histogram(
            "mlguard_request_seconds",
            "Time from a request's arrival to its answer.",
            ["app"],
            buckets=_SECONDS,
            **shared,
        )
        self.batch_rows = Histogram(
            "mlguard_batch_rows", "Rows per batch.", ["app"], buckets=_ROWS, **shared
        )
        self.batch_seconds = Histogram(
            "mlguard_batch_seconds", "Time a batch took.", ["app"], buckets=_SECONDS, **shared
        )
        self.queued = Gauge("mlguard_queue_rows", "Rows that wait.", ["app"], **sums)
        self.restarts = Counter(
            "mlguard_replica_restarts",
            "Model processes that had to be replaced.",
            ["app", "version", "reason"],
            **shared,
        )
        self.mirror_dropped = Counter(
            "mlguard_mirror_dropped",
            "Rows that a mirror was not shown: it was behind, or cannot read them.",
            ["app"],
            **shared,
        )
        self.labels = Counter(
            "mlguard_labels", "Labels by what became of them.", ["app", "result"], **shared
        )
        self.log_dropped = Gauge(
            "mlguard_log_dropped_rows", "Prediction rows that could not be logged.", **sums
        )
        self.log_waiting = Gauge(
            "mlguard_log_waiting_bytes",
            "Prediction log that waits on this machine to be carried to its store.",
            **latest,
        )
        self.disk_free = Gauge(
            "mlguard_disk_free_bytes", "Free space where predictions are logged.", **latest
        )
        self.uncredited = Gauge(
            "mlguard_uncredited_ids", "Answers whose label cannot be credited.", ["app"], **sums
        )
        self.generation = Gauge("mlguard_generation", "Generation that answers.", ["app"], **latest)
        self.serving = Gauge(
            "mlguard_serving", "1 where a version answers, 0 for default output.", ["app"], **latest
        )
        self.registry_up = Gauge(
            "mlguard_registry_up", "1 while the registry can be read.", **latest
        )
        self.outbox_oldest = Gauge(
            "mlguard_outbox_oldest_seconds",
            "How long mail that ought to be gone has waited; what is kept back for quiet hours or "
            "the digest is not due.",
            **latest,
        )
        self.monitor_value = Gauge(
            "mlguard_monitor_value",
            "Latest value of a monitor.",
            ["app", "monitor", "subject"],
            **latest,
        )

    def render(self) -> bytes:
        """Return the figures as Prometheus reads them."""
        for settle in self.pending:
            settle()
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            from prometheus_client.multiprocess import MultiProcessCollector

            everybody = CollectorRegistry()
            MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]  # theirs
            return generate_latest(everybody)
        return generate_latest(self._registry)
