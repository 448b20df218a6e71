"""``estimated_performance``: how well the version probably does, before any label has come.

A score that is calibrated is the chance to be positive, so the scores of a window say how many
of its answers are probably right, and how far chance can move that.  Where the scores of the
version were not calibrated on its test data, they are first mapped to what they meant there.
The estimate is held against the figure on the test data.

It sees that the *inputs* moved to where the model is less sure.  It cannot see that the world
changed what an input means: scores stay as they were while the answers turn wrong.  So it may
freeze and never roll back, and where labels come, ``estimated_performance.hindsight`` holds the
estimate of the same rows against what really happened, and warns where it was wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from mlguard.config import AppSettings, EstimatedPerformanceMonitor
from mlguard.data.joint import class_name
from mlguard.monitors.maturity import immature
from mlguard.monitors.window import WindowData
from mlguard.results import Measurement, MonitorResult, Verdict
from mlguard.stats.estimated import Calibration, estimate_performance, realised_performance
from mlguard.wording import estimate, number

#: Rows below which nothing is said.
N_MIN = 30
_WORDS = {"accuracy": "accuracy", "f1": "F1", "auc": "AUC"}


class _Scores:
    """What both have in common: rows with a score, and what a score means."""

    id: ClassVar[str]
    sequential: ClassVar[bool] = False
    check: ClassVar[str]

    def __init__(
        self, settings: EstimatedPerformanceMonitor, reference: Mapping[str, Any], app: AppSettings
    ) -> None:
        self.settings = settings
        self.app = app
        known = reference.get("estimation") or {}
        self._figure = (known.get("figures") or {}).get(settings.metric)
        self._positive = class_name((reference.get("classes") or [""])[-1])
        self._calibration: Calibration | None = None
        if "calibration" in known:
            document = known["calibration"]
            self._calibration = Calibration(
                document["z"], np.asarray(document["scores"]), np.asarray(document["rates"])
            )

    def _usable(self, window: WindowData) -> WindowData:
        return window.take(window.valid & ~window.default & np.isfinite(window.score))

    def _answers(self, values: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
        return np.array([class_name(one) == self._positive for one in values], bool)

    def _facts(self, window: WindowData) -> dict[str, Any]:
        return {"id": self.check, "version": window.version, "window": window.window}

    def _not_judged(self, window: WindowData, n: int) -> MonitorResult:
        return MonitorResult(
            verdict=Verdict.SKIPPED,
            summary="not judged: only the scores of a classifier of two classes say how often it "
            "is right, and the version's reference has none",
            reason="no_reference",
            n=n,
            n_min=N_MIN,
            next_step=f"mlguard deploy {self.app.name}",
            **self._facts(window),
        )

    def _few(self, window: WindowData, n: int) -> MonitorResult:
        return MonitorResult(
            verdict=Verdict.INCONCLUSIVE,
            summary=f"{n} rows with a score, {N_MIN} are needed",
            reason="few",
            n=n,
            n_min=N_MIN,
            **self._facts(window),
        )

    def _details(self, calibration: Calibration) -> dict[str, Any]:
        return {
            "metric": self.settings.metric,
            "scores": "as they are" if calibration.calibrated else "mapped to what they meant",
            "spiegelhalter_z": round(float(np.clip(calibration.z, -1e6, 1e6)), 3),
        }


class EstimatedPerformance(_Scores):
    """A window's expected accuracy, F1 or AUC against that on the test data.

    It reads ``"estimation"`` and ``"classes"`` of the version's reference.
    """

    id: ClassVar[str] = "estimated_performance"
    clock: ClassVar[str] = "rows"
    check: ClassVar[str] = "estimated_performance.estimate"
    asks: ClassVar[str] = "how well the version probably does, before any label has come."

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Judge a closed window: FAILED where all of the interval lies below the limit."""
        rows = self._usable(window)
        n = len(rows)
        if self._calibration is None or self._figure is None:
            return [self._not_judged(window, n)]
        if n < N_MIN:
            return [self._few(window, n)]
        chances = self._calibration.probabilities(rows.score)
        found = estimate_performance(chances, self._answers(rows.output), self.settings.metric)
        if not np.isfinite(found.value):
            return [self._few(window, n)]
        level = self.settings.confidence_level
        low, high = found.interval(level)
        # As the acceptable loss of concept_drift: what chance may have flattered is allowed for.
        slack = float(ndtri(level)) * self._figure["error"] + self.settings.tolerance
        limit = max(0.0, self._figure["value"] - slack)
        if high < limit:
            verdict, reason = Verdict.FAILED, "limit_exceeded"
        elif found.value < limit:
            verdict, reason = Verdict.WARNED, "not_proven"
        else:
            verdict, reason = Verdict.PASSED, ""
        name = _WORDS[self.settings.metric]
        return [
            MonitorResult(
                verdict=verdict,
                summary=f"{name}, estimated without labels: "
                f"{estimate(found.value, (low, high), n)}, at least {number(limit)} expected; "
                f"{number(self._figure['value'])} on the test data",
                value=found.value,
                limit=limit,
                interval=(low, high),
                n=n,
                n_min=N_MIN,
                reason=reason,
                next_step=f"mlguard report {self.app.name}" if verdict is Verdict.FAILED else "",
                measurements=(
                    Measurement(
                        name=self.settings.metric, value=found.value, n=n, low=low, high=high
                    ),
                ),
                details=self._details(self._calibration)
                | {"error": found.error, "on_test": self._figure["value"]},
                **self._facts(window),
            )
        ]


class Hindsight(_Scores):
    """The estimate of labelled rows held against what really happened."""

    id: ClassVar[str] = "estimated_performance.hindsight"
    clock: ClassVar[str] = "labels"
    check: ClassVar[str] = "estimated_performance.hindsight"
    asks: ClassVar[str] = "whether that estimate was right, once labels have come."

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Judge a closed window: WARNED where the realised figure is outside the interval."""
        unripe = immature(
            self.check,
            window.coverage,
            min_coverage=self.app.labels.min_coverage,
            version=window.version,
            window=window.window,
        )
        if unripe is not None:
            return [unripe]
        rows = self._usable(window.take(window.labelled))
        n = len(rows)
        if self._calibration is None or self._figure is None:
            return [self._not_judged(window, n)]
        if n < N_MIN:
            return [self._few(window, n)]
        answered = self._answers(rows.output)
        chances = self._calibration.probabilities(rows.score)
        found = estimate_performance(chances, answered, self.settings.metric)
        realised = realised_performance(
            self._answers(rows.label), answered, rows.score, self.settings.metric
        )
        if not np.isfinite(found.value) or not np.isfinite(realised):
            return [self._few(window, n)]
        low, high = found.interval(self.settings.confidence_level)
        wrong = not low <= realised <= high
        name = _WORDS[self.settings.metric]
        said = f"{name} {number(realised)} by labels, estimated as {number(found.value)}"
        return [
            MonitorResult(
                verdict=Verdict.WARNED if wrong else Verdict.PASSED,
                summary=f"{said} ({number(low)} to {number(high)})"
                + ("; the scores no longer mean what they did" if wrong else ""),
                value=realised,
                limit=low if realised < found.value else high,
                interval=(low, high),
                n=n,
                n_min=N_MIN,
                reason="outside_interval" if wrong else "",
                next_step=f"mlguard report {self.app.name}" if wrong else "",
                measurements=(Measurement(name="estimated", value=found.value, n=n),),
                details=self._details(self._calibration) | {"estimated": found.value},
                **self._facts(window),
            )
        ]
