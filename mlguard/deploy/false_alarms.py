"""How many false alarms to expect of the monitors that look at every label, at today's traffic.

The promise is made in labels; people live in days.  The labels of the last day are counted from
the windows that the sequential monitors have closed, so nothing but the registry is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
class FalseAlarms:
    """What the sequential monitors of an app promise, together.

    Attributes
    ----------
    labels_per_day : float
        At the rate of the last day, or of the time since the version began to serve.
    average_run_length : float
        Labels to a false alarm of any of them, at least.
    """

    labels_per_day: float
    average_run_length: float

    @property
    def per_30_days(self) -> float:
        """False alarms to expect in 30 days, at most."""
        return _DAYS * self.labels_per_day / self.average_run_length

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in the status document."""
        return {
            "per_30_days": self.per_30_days,
            "labels_per_day": self.labels_per_day,
            "average_run_length": self.average_run_length,
        }


def expected_false_alarms(
    registry: Registry, state: AppState, settings: AppSettings | None, *, now: float
) -> FalseAlarms | None:
    """Return what to expect; None where nothing serves, or nothing looks at every label."""
    if settings is None or state.active is None or state.since is None:
        return None
    if not looks_per_label(settings):
        return None
    since = max(now - _DAY_S, state.since)
    counts: dict[tuple[str, str], int] = {}
    for _, one in registry.monitor_results(state.app, since=since):
        if one.sequential and one.window is not None and one.version == state.active.name:
            # The groups of one attribute share the labels; attributes each see all of them.
            key = one.id, one.subject.partition("=")[0]
            counts[key] = counts.get(key, 0) + _labels(one)
    labels = max(counts.values(), default=0)
    return FalseAlarms(
        labels_per_day=labels * _DAY_S / max(now - since, _LEAST_S),
        average_run_length=settings.monitor.concept_drift.average_run_length,
    )


def _labels(result: MonitorResult) -> int:
    return 0 if result.window is None else result.window.n_labels
