"""``prediction_drift`` and ``label_drift``: whether answers, or truths, are spread as they were.

``prediction_drift`` compares the answers of a window with those that the version gave on its
reference: shares of classes by the population stability index, scores or values by the
Kolmogorov-Smirnov distance.  It needs no labels, so it often speaks first.

``label_drift`` compares the labels of a window with the reference's: a class mix that moves
changes every figure that mixes classes, whether or not the model got worse.

Both are reasons to look and no failures of the model, so both alert and do no more unless
``action`` says otherwise.  What decides is the size of the change with its interval, as in
:mod:`mlguard.monitors.data_drift`, and the comparisons of one window share one error rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlguard.config import AppSettings, PredictionDriftMonitor
from mlguard.data.joint import class_name
from mlguard.monitors.data_drift import N_MIN, excess, monitor_verdict
from mlguard.monitors.maturity import immature
from mlguard.monitors.sources import suspect
from mlguard.monitors.window import WindowData
from mlguard.results import Measurement, MonitorResult, Verdict
from mlguard.stats.two_sample import DriftJudgement, judge_drift
from mlguard.wording import estimate, number, share

if TYPE_CHECKING:
    from mlguard.data.profile import FeatureProfile

_WORDS = {"ks": "KS distance", "psi": "PSI"}
#: Classes that a summary names.
_NAMED = 2


class _AnswerDrift:
    """What both have in common: counts held against the reference's."""

    id: ClassVar[str]
    sequential: ClassVar[bool] = False
    #: What is compared, in words; and what is asked of it.
    what: ClassVar[str]
    asks: ClassVar[str]

    def __init__(
        self, settings: PredictionDriftMonitor, reference: Mapping[str, Any], app: AppSettings
    ) -> None:
        self.settings = settings
        self.app = app
        self._reference = reference

    def _classes(self, key: str) -> dict[str, int]:
        """Return the reference's count of each class."""
        found: Counter[str] = Counter()
        for name, n in (self._reference.get(key) or {}).items():
            found[_plain(name)] += int(n)
        return dict(found)

    def _facts(self, window: WindowData) -> dict[str, Any]:
        return {
            "id": f"{self.id}.distribution",
            "version": window.version,
            "window": window.window,
        }

    def _skipped(self, window: WindowData, n: int) -> list[MonitorResult]:
        """Say that there is nothing to compare with: no fault of the version, nor of the watch."""
        return [
            MonitorResult(
                verdict=Verdict.SKIPPED,
                summary=f"not judged: the version's reference, or the log, tells no {self.what}",
                reason="no_reference",
                n=n,
                n_min=N_MIN,
                next_step=f"mlguard deploy {self.app.name}",
                **self._facts(window),
            )
        ]

    def _judged(
        self,
        window: WindowData,
        classes: tuple[Mapping[str, int], Iterable[Any]] | None,
        numbers: tuple[FeatureProfile, npt.NDArray[np.float64]] | None,
        n_rows: int,
    ) -> list[MonitorResult]:
        """Judge what there is of the two comparisons; one result, that of the worse."""
        shared: dict[str, Any] = {
            "n_features": int(classes is not None) + int(numbers is not None),
            "confidence_level": self.settings.confidence_level,
            "family_error": self.settings.family_error,
            "min_rows": N_MIN,
        }
        judged: dict[str, DriftJudgement] = {}
        moved = ""
        if classes is not None:
            before, now = _counted(*classes)
            judged["classes"] = judge_drift(
                before, now, statistic="psi", tolerance=self.settings.psi, **shared
            )
            moved = _moved([*classes[0], "others"], before, now)
        if numbers is not None:
            profile, values = numbers
            judged["values"] = judge_drift(
                profile.counts,
                profile.summarise(values).counts,
                statistic="ks",
                tolerance=self.settings.ks,
                **shared,
            )
        verdicts = {name: monitor_verdict(one) for name, one in judged.items()}
        worst = max(verdicts.values(), key=lambda one: one.severity)
        name = max(
            (name for name, one in verdicts.items() if one is worst),
            key=lambda name: excess(judged[name]),
        )
        result = self._result(judged, name, worst, moved, n_rows)
        return [MonitorResult(**result, **self._facts(window))]

    def _result(
        self,
        judged: Mapping[str, DriftJudgement],
        name: str,
        worst: Verdict,
        moved: str,
        n_rows: int,
    ) -> dict[str, Any]:
        lead = judged[name]
        interval = None if lead.interval is None else (lead.interval.low, lead.interval.high)
        summary = (
            f"{self.what}: {_WORDS[lead.statistic]} {estimate(lead.value, interval, lead.n)}, "
            f"tolerated {number(lead.limit)}"
        )
        few = worst is Verdict.INCONCLUSIVE
        if worst in (Verdict.FAILED, Verdict.WARNED) and name == "classes":
            summary += f"; {moved}"
        needed = lead.n_needed or N_MIN
        return {
            "verdict": worst,
            "summary": summary,
            "value": lead.value,
            "limit": lead.limit,
            "interval": interval,
            "n": n_rows,
            "n_min": max(needed, n_rows + 1) if few else N_MIN,
            "reason": "few" if few else lead.reason if worst is not Verdict.PASSED else "",
            "next_step": f"mlguard report {self.app.name}" if worst is Verdict.FAILED else "",
            "measurements": tuple(
                Measurement(
                    name=f"{one.statistic} {key}",
                    value=one.value,
                    n=one.n,
                    low=None if one.interval is None else one.interval.low,
                    high=None if one.interval is None else one.interval.high,
                )
                for key, one in judged.items()
            ),
            "details": {"statistic": lead.statistic, "family_error": self.settings.family_error},
        }


class PredictionDrift(_AnswerDrift):
    """Distance between a window's answers and those on the reference.

    It reads ``"predicted"`` of the version's reference, and the profile of its ``"score"``.
    """

    id: ClassVar[str] = "prediction_drift"
    clock: ClassVar[str] = "rows"
    what: ClassVar[str] = "answers"
    asks: ClassVar[str] = "whether answers are spread as on the data the version was accepted on."

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Judge a closed window: the answers that the version itself gave."""
        rows = window.take(window.valid & ~window.default)
        scores, classes = _score_profile(self._reference), self._classes("predicted")
        if scores is not None and len(rows) and not np.isfinite(rows.score).any():
            # The log has none, e.g. of a version that was registered by an older release.
            scores = None
        if not classes and scores is None:
            return self._skipped(window, len(rows))
        return self._judged(
            window,
            (classes, rows.output) if classes else None,
            None if scores is None else (scores, rows.score),
            len(rows),
        )


class LabelDrift(_AnswerDrift):
    """Distance between a window's labels and the reference's.

    It reads ``"class_counts"`` of the version's reference, or the profile under ``"target"``.
    """

    id: ClassVar[str] = "label_drift"
    clock: ClassVar[str] = "labels"
    what: ClassVar[str] = "labels"
    asks: ClassVar[str] = "whether labels are spread as on the data the version was accepted on."

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Judge a closed window of labelled rows."""
        unripe = immature(
            f"{self.id}.distribution",
            window.coverage,
            min_coverage=self.app.labels.min_coverage,
            version=window.version,
            window=window.window,
        )
        if unripe is not None:
            return [unripe]
        doubted = suspect(
            window,
            at_most=self.app.labels.max_source_share,
            facts={"id": f"{self.id}.distribution"},
        )
        if doubted is not None:
            return [doubted]
        rows = window.take(window.labelled)
        if self.app.app.task == "regression":
            document = self._reference.get("target")
            if document is None:
                return self._skipped(window, len(rows))
            from mlguard.data.profile import FeatureProfile

            values = np.array([_number(one) for one in rows.label], float)
            profile = FeatureProfile.from_json(document)
            return self._judged(window, None, (profile, values), len(rows))
        classes = self._classes("class_counts")
        if not classes:
            return self._skipped(window, len(rows))
        return self._judged(window, (classes, rows.label), None, len(rows))


def _score_profile(reference: Mapping[str, Any]) -> FeatureProfile | None:
    from mlguard.data.profile import SCORE, Profile

    document = reference.get("profile")
    return None if document is None else Profile.from_json(document).features.get(SCORE)


def _plain(name: str) -> str:
    """Return a class as :func:`~mlguard.monitors.losses.class_name` writes it."""
    try:
        return class_name(float(name)) if float(name).is_integer() else name
    except (ValueError, OverflowError):
        return name


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _counted(
    before: Mapping[str, int], values: Iterable[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count values in the reference's classes; the last cell is for those it never saw."""
    now = Counter(_plain(class_name(one)) for one in values)
    seen = [now.pop(name, 0) for name in before]
    return (
        np.array([*before.values(), 0], np.int64),
        np.array([*seen, sum(now.values())], np.int64),
    )


def _moved(names: list[str], before: npt.NDArray[np.int64], now: npt.NDArray[np.int64]) -> str:
    """Name the classes whose share moved most."""
    if not now.sum():
        return ""
    old, new = before / before.sum(), now / now.sum()
    order = np.argsort(-np.abs(new - old))[:_NAMED]
    return ", ".join(f"{names[one]} {share(old[one])} → {share(new[one])}" for one in order)
