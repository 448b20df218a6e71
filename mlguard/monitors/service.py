"""``service``: whether the version answers what it was asked.

Two findings a window of rows.  ``service.model_errors`` counts rows that were valid and on which
the model raised, died or gave nonsense; it is a hard check, because such a row is broken whatever
the world does.  A bad request is the caller's and is not counted, nor is an answer that came
too late: a slow machine is no broken model.  ``service.default_ratio`` counts the other default
answers to valid rows, so that one cause is told once.

``service.crash`` counts the deaths of the version's processes: three within five minutes are a
failure, however many rows went well in between.  Servers record them as they happen; they belong
to no window of rows.

A broken model should not need a whole window to be found: the first 20, 40, 80, … rows of an
open window are looked at as well, and the error of all looks together is kept below the
window's own (Bonferroni over the looks).  Intervals are exact (Clopper-Pearson): errors are rare,
and one failing window of a hard check moves traffic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mlguard.config import AppSettings, ServiceMonitor
from mlguard.monitors.shares import N_MIN, judge_share
from mlguard.monitors.window import WindowData
from mlguard.results import MonitorResult, Verdict, Window

#: Deaths of a version's processes are counted over so many seconds.
CRASH_S = 300.0
#: Explanations of a default answer that say nothing about the model (words of the HTTP contract).
NOT_THE_MODEL = frozenset(
    {
        "Failed to retrieve a prediction response within the specified latency SLO",
        "No connected models found for query",
    }
)


class Service:
    """Shares of model errors and of default answers, held against their limits.

    Parameters
    ----------
    settings : ServiceMonitor
        ``[monitor.service]``.
    reference : mapping
        Not used: a share of errors has an absolute limit.
    app : AppSettings
        The app that is watched.
    """

    id: ClassVar[str] = "service"
    clock: ClassVar[str] = "rows"
    sequential: ClassVar[bool] = False

    def __init__(
        self, settings: ServiceMonitor, reference: Mapping[str, Any], app: AppSettings
    ) -> None:
        del reference, app
        self.settings = settings
        self.looks = tuple(
            N_MIN * 2**power
            for power in range(max(1, math.ceil(math.log2(settings.window_rows / N_MIN))))
            if N_MIN * 2**power < settings.window_rows
        )

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Judge a closed window."""
        return self._judge(window, looks=1)

    def look(self, window: WindowData) -> list[MonitorResult]:
        """Judge the first rows of a window that is still open; FAILED is final."""
        return self._judge(window, looks=len(self.looks) + 1)

    def _judge(self, window: WindowData, *, looks: int) -> list[MonitorResult]:
        ours = window.valid & ~np.isin(window.explanation.astype(str), list(NOT_THE_MODEL))
        return [
            self._share(
                "model_errors",
                int((window.default & ours).sum()),
                window,
                limit=self.settings.model_errors,
                looks=looks,
                words="valid rows on which the model gave no prediction",
                next_step="see the explanations in the prediction log, then deploy a fixed model",
            ),
            self._share(
                "default_ratio",
                int((window.default & window.valid & ~ours).sum()),
                window,
                limit=self.settings.default_ratio,
                looks=looks,
                words="valid rows that got the default answer, the model not being at fault",
                next_step="compare slo_ms in app.toml with the latencies on /metrics",
            ),
        ]

    def _share(
        self,
        name: str,
        count: int,
        window: WindowData,
        *,
        limit: float,
        looks: int,
        words: str,
        next_step: str,
    ) -> MonitorResult:
        return judge_share(
            count,
            int(window.valid.sum()),
            limit=limit,
            confidence_level=1 - (1 - self.settings.confidence_level) / looks,
            words=words,
            next_step=next_step,
            facts={
                "id": f"service.{name}",
                "window": window.window,
                "version": window.version,
            },
        )


def judge_crashes(
    version: str,
    crashes: Sequence[tuple[float, str]],
    *,
    limit: int,
    since: float,
    now: float,
    generation: int,
) -> MonitorResult:
    """Judge how often the processes of the active version died.

    Parameters
    ----------
    version : str
        Name of the active version.
    crashes : sequence of (float, str)
        When they died, rising, seconds since the epoch, and of what.
    limit : int
        Deaths within :data:`CRASH_S` that are a failure.
    since : float
        Until when an earlier look has seen them.  What came between two looks counts, even if
        it is over by now: the watcher itself may have been away.
    now : float
        The time.
    generation : int
        In which they died.

    Returns
    -------
    MonitorResult
        FAILED from ``limit`` on, WARNED for fewer, PASSED for none.
    """
    times = np.array([at for at, _ in crashes], float)
    starts = np.array([*times[times >= since], now]) - CRASH_S
    # A time that lies ahead was written before the clock was set back: it is not older than now.
    counts = [int(((times > start) & (times <= start + CRASH_S)).sum()) for start in starts[:-1]]
    counts.append(int((times > starts[-1]).sum()))
    n = max(counts)
    start = float(starts[int(np.argmax(counts))])
    reasons = Counter(why for at, why in crashes if start < at)
    words = f"{n} deaths of its processes within five minutes, {limit} are a failure"
    if reasons:
        words += f"; {reasons.most_common(1)[0][0]}"
    verdict = Verdict.FAILED if n >= limit else Verdict.WARNED if n else Verdict.PASSED
    return MonitorResult(
        id="service.crash",
        verdict=verdict,
        summary=words,
        value=float(n),
        limit=float(limit - 1),
        n=n,
        n_min=min(n, limit),
        version=version,
        window=Window(start=start, end=now, n_rows=0, n_labels=0, generation=generation),
        reason={Verdict.FAILED: "limit_exceeded", Verdict.WARNED: "not_proven"}.get(verdict, ""),
        next_step="" if verdict is Verdict.PASSED else "see the server's log for how they ended",
    )


def judge_load(version: str, reasons: Mapping[str, str], n_servers: int) -> MonitorResult | None:
    """Judge whether the active version could be loaded anywhere.

    Parameters
    ----------
    version : str
        Name of the active version.
    reasons : mapping of str to str
        Servers that could not load it, each with its reason.
    n_servers : int
        Servers that are alive.

    Returns
    -------
    MonitorResult or None
        FAILED where no server could load it; None where no server is alive.
    """
    if not n_servers:
        return None
    failed = len(reasons) >= n_servers
    why = next(iter(reasons.values()), "")
    return MonitorResult(
        id="service.load",
        verdict=Verdict.FAILED if failed else Verdict.PASSED,
        summary=f"{n_servers - len(reasons)} of {n_servers} servers could load {version}"
        + (f": {why}" if why else ""),
        value=len(reasons) / n_servers,
        limit=0.0,
        n=n_servers,
        n_min=1,
        version=version,
        reason="not_loaded" if failed else "",
        next_step="mlguard deploy a version that loads" if failed else "",
    )
