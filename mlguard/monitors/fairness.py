"""``fairness``: whether live answers differ between groups by more than the limit.

One finding for each attribute and window, judged like the gate's: an interval for the worst
pair of groups, minimum sizes, three-valued.  Groups come from what callers say of a request
(``"groups"``) or from the inputs themselves; rows that say nothing of an attribute are left out
of its comparison and counted.

``selection_rate`` needs no labels and is judged on windows of answers: on counts of answers by
group, where servers keep them (:mod:`mlguard.data.joint`; groups that the reference does not name
stand together there), else on rows.  Every other metric is
judged on windows of labelled answers, in the order in which the labels arrive.

Where a ``floor`` is given, a second finding of each attribute says whether the metric of every
group keeps above it, whatever the others': all groups may be treated alike, and all badly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt

from mlguard.config import AppSettings, FairnessMonitor
from mlguard.data.joint import ANSWER, JointCounts, class_name
from mlguard.monitors.losses import row_losses
from mlguard.monitors.maturity import immature
from mlguard.monitors.sources import suspect
from mlguard.monitors.window import ProfileWindow, WindowData
from mlguard.results import Measurement, MonitorResult, Verdict, Window
from mlguard.stats.comparison import Summary
from mlguard.stats.groups import GapJudgement, judge_gap, judge_mean_gap
from mlguard.stats.rates import Rate, RateMetric, group_losses, group_rates
from mlguard.wording import SMALL_GROUP

#: How the check that a floor makes is named: ``fairness.accuracy_floor``.
FLOOR = "_floor"


class FairnessGap:
    """Worst gap of one metric between the groups of each attribute.

    Parameters
    ----------
    settings : FairnessMonitor
        ``[monitor.fairness]``.
    reference : mapping
        The version's reference; of its two ``"classes"`` the second counts as positive.
    app : AppSettings
        The app that is watched; its sensitive columns are the default attributes.
    """

    id: ClassVar[str] = "fairness"
    sequential: ClassVar[bool] = False
    #: A window can be judged again with another version's answers in it.
    judges_answers: ClassVar[bool] = True

    def __init__(
        self, settings: FairnessMonitor, reference: Mapping[str, Any], app: AppSettings
    ) -> None:
        self.settings = settings
        self.app = app
        self.clock = "rows" if settings.metric == "selection_rate" else "labels"
        self.attributes = tuple(settings.by or app.data.sensitive)
        classes = list(reference.get("classes") or ())
        # Scores are of the second of two classes, and that is the one that rates are about.
        self.positive = class_name(classes[1] if len(classes) == 2 else 1)

        self.joint = ((reference.get("profile") or {}).get("joint")) or {}

    @property
    def profiled(self) -> bool:
        """Whether answers are counted by all groups that are compared."""
        return self.clock == "rows" and all(
            self.positive in (self.joint.get(one, {}).get(ANSWER) or {"names": ()})["names"]
            for one in self.attributes
        )

    def _limits(self) -> list[tuple[str, float, Summary]]:
        metric, floor = self.settings.metric, self.settings.floor
        limits: list[tuple[str, float, Summary]] = [
            (f"fairness.{metric}_difference", self.settings.at_most, "difference")
        ]
        if floor is not None:
            limits.append((f"fairness.{metric}{FLOOR}", floor, "group_min"))
        return limits

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Judge a closed window: one result for each attribute, two where there is a floor."""
        return [
            self._attribute(window, name, *limit)
            for limit in self._limits()
            for name in self.attributes
        ]

    def judge_profile(self, window: ProfileWindow) -> list[MonitorResult]:
        """Judge a closed window by its counts of answers, as :meth:`judge` does by rows."""
        results = []
        for check, limit, aggregate in self._limits():
            for name in self.attributes:
                joint = {} if window.profile is None else window.profile.joint.get(name, {})
                rates, unknown = self._rates(joint.get(ANSWER))
                facts = self._facts(window.version, window.window, name, check, limit)
                judged = judge_gap(rates, **self._rules(limit, aggregate)) if rates else None
                results.append(self._told(judged, facts, unknown))
        return results

    def _rates(self, counted: JointCounts | None) -> tuple[dict[str, Rate], int]:
        """Return how often each group is selected, and how many rows name none."""
        if counted is None or counted.names is None:
            return {}, 0
        place = counted.names.index(self.positive)
        rates = {
            name: Rate(successes=int(row[place]), n=int(row.sum()))
            for name, row in counted.of_groups().items()
        }
        return {name: one for name, one in rates.items() if one.n}, counted.n_unknown

    @staticmethod
    def _facts(
        version: str, window: Window, attribute: str, check: str, limit: float
    ) -> dict[str, Any]:
        return {
            "id": check,
            "subject": attribute,
            "version": version,
            "window": window,
            "limit": limit,
        }

    def _attribute(
        self, window: WindowData, attribute: str, check: str, limit: float, aggregate: Summary
    ) -> MonitorResult:
        facts = self._facts(window.version, window.window, attribute, check, limit)
        if self.clock == "labels":
            unripe = immature(
                check,
                window.coverage,
                min_coverage=self.app.labels.min_coverage,
                version=window.version,
                window=window.window,
                subject=attribute,
            )
            if unripe is not None:
                return unripe
            doubted = suspect(
                window,
                at_most=self.app.labels.max_source_share,
                facts={"id": check, "subject": attribute, "limit": limit},
            )
            if doubted is not None:
                return doubted
        groups = window.attribute(attribute)
        known = np.array([one is not None for one in groups], dtype=bool)
        unknown = int((~known).sum())
        judged = self._judged(window, groups, known, limit=limit, aggregate=aggregate)
        return self._told(judged, facts, unknown)

    def _told(
        self, judged: GapJudgement | None, facts: dict[str, Any], unknown: int
    ) -> MonitorResult:
        if judged is not None:
            return self._result(judged, facts, unknown)
        attribute = facts["subject"]
        return MonitorResult(
            verdict=Verdict.INCONCLUSIVE,
            summary=f"no row that can be judged says its {attribute}",
            reason="few",
            n=0,
            n_min=self.settings.min_group_size,
            next_step=f'send "groups": {{"{attribute}": …}} with each request',
            **facts,
        )

    def _rules(self, limit: float, aggregate: Summary) -> dict[str, Any]:
        return {
            "limit": limit,
            "aggregate": aggregate,
            "min_group_size": self.settings.min_group_size,
            "confidence_level": self.settings.confidence_level,
            "family_error": self.settings.family_error / max(1, len(self.attributes)),
        }

    def _judged(
        self,
        window: WindowData,
        groups: npt.NDArray[np.object_],
        known: npt.NDArray[np.bool_],
        *,
        limit: float,
        aggregate: Summary,
    ) -> GapJudgement | None:
        shared = self._rules(limit, aggregate)
        answered = known & window.valid & ~window.default
        if self.settings.metric == "mean_absolute_error":
            return self._mean_gap(window, groups, known, shared)
        if self.clock == "labels":
            answered &= window.labelled
        places = np.flatnonzero(answered)
        if not places.size:
            return None
        predicted = np.array([class_name(window.output[place]) for place in places])
        true = predicted
        if self.clock == "labels":
            true = np.array([class_name(window.label[place]) for place in places])
        metric = self.settings.metric
        assert metric in get_args(RateMetric)
        rates = group_rates(
            metric, true, predicted, groups[places].astype(str), positive=self.positive
        )
        return judge_gap(rates, **shared)

    def _mean_gap(
        self,
        window: WindowData,
        groups: npt.NDArray[np.object_],
        known: npt.NDArray[np.bool_],
        shared: dict[str, Any],
    ) -> GapJudgement | None:
        # On the raw scale: the limit is in the unit of the target.
        losses, judged = row_losses(window, task="regression", scale=1.0, clip=False)
        judged &= known
        if not judged.any():
            return None
        return judge_mean_gap(group_losses(losses[judged], groups[judged].astype(str)), **shared)

    def _result(self, judged: GapJudgement, facts: dict[str, Any], unknown: int) -> MonitorResult:
        undecided = judged.verdict is Verdict.INCONCLUSIVE
        smallest = min(judged.sizes, default=0)
        needed = judged.n_needed or smallest + 1
        failed = judged.verdict is Verdict.FAILED
        return MonitorResult(
            verdict=judged.verdict,
            summary=judged.explain(),
            value=judged.value,
            interval=None
            if judged.interval is None
            else (judged.interval.low, judged.interval.high),
            # What is undecided for want of rows says so in its own denominator.
            n=(None if 0 < smallest < SMALL_GROUP else smallest) if undecided else judged.n,
            n_min=max(needed, smallest + 1) if undecided else self.settings.min_group_size,
            reason=judged.reason,
            next_step=f"mlguard report {self.app.name}: the figures of each group"
            if failed
            else "",
            measurements=tuple(
                Measurement(
                    name=self.settings.metric,
                    value=one.value,
                    n=one.n,
                    low=one.low,
                    high=one.high,
                    group=f"{facts['subject']}={one.name}",
                )
                for one in judged.groups
            ),
            details={"rows_without_group": unknown, "pair": list(judged.pair or ())},
            **facts,
        )
