"""How many false alarms to expect of an app's monitors in 30 days, at today's traffic.

Monitors that look at every label share one promise, made in labels, and shrunken where errors
come in runs.  Monitors that judge windows have an error rate for each window; an alert takes
``alert_after`` failures in a row.  People live in days: labels and windows of the last day are
counted from the results on record, so nothing but the registry is read.

Both are upper bounds: they hold where every true value stands at its very limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard.config import MonitorTable, WindowedMonitor
from mlguard.monitors.budget import looks_per_label
from mlguard.results import MonitorResult

if TYPE_CHECKING:
    from mlguard.config import AppSettings
    from mlguard.registry import AppState, Registry

_DAY_S = 86_400.0
#: A shorter time says nothing of a day.
_LEAST_S = 3_600.0
_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRate:
    """What one monitor that judges windows may get wrong.

    Attributes
    ----------
    monitor : str
    windows_per_day : float
        At the rate of the last day, or of the time since the version began to serve.
    per_window : float
        Probability of a failure in a window whose true values stand at their limits, at most.
    alert_after : int
        Failures in a row that alert.
    """

    monitor: str
    windows_per_day: float
    per_window: float
    alert_after: int

    @property
    def per_30_days(self) -> float:
        """False alerts to expect in 30 days, at most."""
        return _DAYS * self.windows_per_day * self.per_window**self.alert_after

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "monitor": self.monitor,
            "windows_per_day": self.windows_per_day,
            "per_window": self.per_window,
            "alert_after": self.alert_after,
            "per_30_days": self.per_30_days,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarms:
    """What the monitors of an app promise.

    Attributes
    ----------
    labels_per_day : float
        At the rate of the last day, or of the time since the version began to serve.
    average_run_length : float or None
        Labels to a false alarm of any that looks at every label, at least; None where none of
        them promises anything.
    kept_run_length : float or None
        What errors in runs leave of it.
    lag1_correlation : float or None
        How strongly they come in runs; None where nobody could tell yet.
    unpromised : str
        The detector in use that makes no promise, if any.
    windows : tuple of WindowRate
        Monitors that judge windows.
    """

    labels_per_day: float
    average_run_length: float | None
    kept_run_length: float | None = None
    lag1_correlation: float | None = None
    unpromised: str = ""
    windows: tuple[WindowRate, ...] = ()

    @property
    def per_30_days(self) -> float | None:
        """False alarms of those that look at every label to expect in 30 days, at most."""
        kept = self.kept_run_length or self.average_run_length
        return None if kept is None else _DAYS * self.labels_per_day / kept

    @property
    def of_windows(self) -> float:
        """False alerts of those that judge windows to expect in 30 days, at most."""
        return sum(one.per_30_days for one in self.windows)

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in the status document."""
        return {
            "per_30_days": self.per_30_days,
            "labels_per_day": self.labels_per_day,
            "average_run_length": self.average_run_length,
            "kept_run_length": self.kept_run_length,
            "lag1_correlation": self.lag1_correlation,
            "without_promise": self.unpromised or None,
            "windows_per_30_days": self.of_windows,
            "windows": [one.to_json() for one in self.windows],
        }


def expected_false_alarms(
    registry: Registry, state: AppState, settings: AppSettings | None, *, now: float
) -> FalseAlarms | None:
    """Return what to expect; None where nothing serves."""
    if settings is None or state.active is None or state.since is None:
        return None
    since = max(now - _DAY_S, state.since)
    days = max(now - since, _LEAST_S) / _DAY_S
    results = [
        one
        for _, one in registry.monitor_results(state.app, since=since)
        if one.window is not None and one.version == state.active.name
    ]
    table = settings.monitor.concept_drift
    promised = looks_per_label(settings) > 0
    kept, rho = _kept(results)
    river = table.enabled and table.detector != "e-detector"
    return FalseAlarms(
        labels_per_day=_labels(results) / days,
        average_run_length=table.average_run_length if promised else None,
        kept_run_length=kept if promised else None,
        lag1_correlation=rho,
        unpromised=table.detector if river else "",
        windows=tuple(_windowed(settings, results, days)),
    )


def _labels(results: Sequence[MonitorResult]) -> int:
    """Count the labels that the sequential monitors have judged."""
    counts: dict[tuple[str, str], int] = {}
    for one in results:
        if one.sequential and one.window is not None:
            # The groups of one attribute share the labels; attributes each see all of them.
            key = one.id, one.subject.partition("=")[0]
            counts[key] = counts.get(key, 0) + one.window.n_labels
    return max(counts.values(), default=0)


def _kept(results: Sequence[MonitorResult]) -> tuple[float | None, float | None]:
    """Return the newest word on what is left of the promise, and on the correlation."""
    told = [
        one
        for one in results
        if one.id == "concept_drift.loss" and "kept_run_length" in one.details
    ]
    if not told:
        return None, None
    newest = max(told, key=lambda one: one.window.end if one.window is not None else 0.0)
    return newest.details["kept_run_length"], newest.details["lag1_correlation"]


def _windowed(
    settings: AppSettings, results: Sequence[MonitorResult], days: float
) -> list[WindowRate]:
    seen: dict[str, set[tuple[float, float]]] = {}
    for one in results:
        if not one.sequential and one.window is not None and one.n is not None:
            seen.setdefault(one.family, set()).add((one.window.start, one.window.end))
    found = []
    for name, windows in seen.items():
        table: MonitorTable | None = getattr(settings.monitor, name, None)
        if not isinstance(table, WindowedMonitor) or not table.enabled:
            continue
        rate = getattr(table, "family_error", None) or 1 - table.confidence_level
        found.append(
            WindowRate(
                monitor=name,
                windows_per_day=len(windows) / days,
                per_window=rate,
                alert_after=table.alert_after,
            )
        )
    return found
