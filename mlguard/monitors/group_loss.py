"""``fairness.loss``: whether the loss of one group has risen above what it was accepted with.

The same detector as :mod:`mlguard.monitors.concept_drift`, one for each group: its own
acceptable loss, the upper bound of that group's loss on the reference plus a tolerance, and its
own clock, that group's labels.  A group that goes wrong is found while the average stays fine.
All detectors of an app share one promise (:mod:`mlguard.monitors.budget`).

A group without a loss on the reference, or so few rows there that no loss could ever be too
large, has no detector; the windowed comparison of groups names it.  So does it say where labels
are missing: once, not for every group again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from mlguard.config import AppSettings, FairnessMonitor
from mlguard.monitors.concept_drift import ConceptDrift
from mlguard.monitors.losses import reference_scale
from mlguard.monitors.window import WindowData
from mlguard.results import MonitorResult, Verdict
from mlguard.stats.rates import MISSING
from mlguard.wording import SMALL_GROUP

_ID = "fairness.loss"


class GroupLoss:
    """An e-detector of a rise of the loss for each group.

    Parameters
    ----------
    settings : FairnessMonitor
        ``[monitor.fairness]``.
    reference : mapping
        The version's reference; its ``"groups"`` are read.
    app : AppSettings
        The app that is watched; its sensitive columns are the default attributes.
    """

    id: ClassVar[str] = "fairness"
    clock: ClassVar[str] = "labels"
    sequential: ClassVar[bool] = True

    def __init__(
        self, settings: FairnessMonitor, reference: Mapping[str, Any], app: AppSettings
    ) -> None:
        self.n = 0
        self._groups: dict[str, dict[str, ConceptDrift]] = {}
        known = reference.get("groups") or {}
        scale = reference_scale(reference)
        for attribute in dict.fromkeys(settings.by or app.data.sensitive):
            found = {
                value: ConceptDrift(
                    settings,
                    {"loss": {**figures, "scale": scale}},
                    app,
                    check=_ID,
                    subject=f"{attribute}={value}",
                    average_run_length=app.monitor.concept_drift.average_run_length,
                )
                for value, figures in known.get(attribute, {}).items()
                if value != MISSING
            }
            self._groups[attribute] = {
                value: one for value, one in found.items() if one.theta is not None
            }

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Take labelled rows in order of arrival; results are those of each group's detector."""
        results: list[MonitorResult] = []
        for attribute, detectors in self._groups.items():
            groups = window.attribute(attribute)
            for value, detector in detectors.items():
                rows = groups == value
                if rows.any():
                    results += map(_without_few, detector.judge(window.take(rows)))
        self.n += int(window.labelled.sum())
        return [one for one in results if one.reason != "no_labels"]

    def _detectors(self) -> dict[str, ConceptDrift]:
        return {one.subject: one for found in self._groups.values() for one in found.values()}

    def evidence(self, subject: str = "") -> list[int]:
        """Return the query ids of one group that an alarm rests on, e.g. of ``"sex=F"``."""
        detector = self._detectors().get(subject)
        return [] if detector is None else detector.evidence()

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs, as JSON values."""
        return {
            "n": self.n,
            "groups": {subject: one.snapshot() for subject, one in self._detectors().items()},
        }

    def restore(self, document: Mapping[str, Any]) -> None:
        """Go on from :meth:`snapshot`; a group that is new since then starts from nothing."""
        self.n = document["n"]
        for subject, detector in self._detectors().items():
            if subject in document["groups"]:
                detector.restore(document["groups"][subject])


def _without_few(found: MonitorResult) -> MonitorResult:
    """Leave out the loss of so few people that it could point at one; an alarm has its reasons."""
    told = found.value is None or found.verdict is Verdict.FAILED
    if told or found.n is None or found.n >= SMALL_GROUP:
        return found
    summary = f"fewer than {SMALL_GROUP} labels so far, so their loss is not shown"
    return replace(found, value=None, interval=None, summary=summary)
