"""``data_drift``: whether the inputs are distributed like those the version was accepted on.

Every feature of the reference profile is judged in each window of rows: numbers by the
Kolmogorov-Smirnov distance, categories by the population stability index, and for all of them
the rise of the share of missing and of unseen values.  What decides is the size of the change
with its interval, never a p-value, and all features together share one error rate.

There is one finding a window, that of the worst feature; the others are its measurements.  A
gate must be able to show a breach of twice its limit four times in five; a window here, half
the time: a monitor gets another window, a gate does not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlguard.config import DataDriftMonitor
from mlguard.monitors.by_profile import ByProfile
from mlguard.monitors.window import ProfileWindow, WindowData
from mlguard.results import Measurement, MonitorResult, Verdict, Window
from mlguard.stats.two_sample import (
    DriftJudgement,
    effective_size,
    judge_drift,
    judge_share_increase,
)
from mlguard.wording import count, estimate, number

if TYPE_CHECKING:
    from mlguard.data.profile import Profile

_ID = "data_drift.features"
#: Rows below which nothing is said of any feature.
N_MIN = 30
#: Features that the summary names before it counts the rest.
_NAMED = 3
_WORDS = {"ks": "KS distance", "psi": "PSI", "share_increase": "rise of the share"}


class DataDrift(ByProfile[DataDriftMonitor]):
    """Distances between a window's inputs and the reference's.

    Its settings are ``[monitor.data_drift]``.
    """

    id: ClassVar[str] = "data_drift"
    clock: ClassVar[str] = "rows"
    sequential: ClassVar[bool] = False

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Judge a closed window: one result, that of the feature that moved furthest."""
        current = self.counted(window)
        left_out = [] if current is None else self.left_out(window)
        return self._judge(window.version, window.window, current, left_out)

    def judge_profile(self, window: ProfileWindow) -> list[MonitorResult]:
        """Judge a closed window by what was counted of it; the same answer as by its rows."""
        current = None if window.profile is None else window.profile.without_scores()
        return self._judge(window.version, window.window, current, [])

    def _judge(
        self, version: str, window: Window, current: Profile | None, left_out: list[str]
    ) -> list[MonitorResult]:
        facts: dict[str, Any] = {"id": _ID, "version": version, "window": window}
        if self.profile is None or current is None:
            what = "no reference profile" if self.profile is None else "no logged inputs"
            return [
                MonitorResult(
                    verdict=Verdict.INCONCLUSIVE,
                    summary=f"not judged: the version has {what}",
                    reason="no_reference",
                    n=window.n_rows if current is None else current.n_rows,
                    n_min=N_MIN,
                    next_step=f"mlguard deploy {self.app.name}"
                    if self.profile is None
                    else 'set [log] inputs = "all"',
                    **facts,
                )
            ]
        judged = self._judge_features(self.profile, current)
        if not judged:
            return [
                MonitorResult(
                    verdict=Verdict.INCONCLUSIVE,
                    summary="none of the known inputs is in the reference",
                    reason="no_reference",
                    n=current.n_rows,
                    n_min=N_MIN,
                    **facts,
                )
            ]
        return [self._result(judged, left_out, facts, current.n_rows)]

    def _judge_features(
        self, profile: Profile, found: Profile
    ) -> dict[tuple[str, str], DriftJudgement]:
        """Judge what can be compared: ``(feature, what) -> judgement``."""
        pairs = {
            name: (profile[name], one)
            for name, one in found.features.items()
            if name in profile.features
        }
        n_tests = sum(3 if one.shape == "category" else 2 for one, _ in pairs.values())
        shared: dict[str, Any] = {
            "n_features": max(1, n_tests),
            "confidence_level": self.settings.confidence_level,
            "family_error": self.settings.family_error,
            "min_rows": N_MIN,
        }
        judged: dict[tuple[str, str], DriftJudgement] = {}
        for name, (reference, current) in pairs.items():
            category = reference.shape == "category"
            judged[name, ""] = judge_drift(
                reference.counts,
                current.counts,
                statistic="psi" if category else "ks",
                tolerance=self.settings.psi if category else self.settings.ks,
                **shared,
            )
            shares = {"missing": (reference.missing, reference.n_rows, current.missing)}
            if category:
                shares["unseen"] = (int(reference.counts[-1]), reference.n, int(current.counts[-1]))
            for what, (before, n_before, after) in shares.items():
                n_after = current.n_rows if what == "missing" else current.n
                judged[name, what] = judge_share_increase(
                    before, n_before, after, n_after, tolerance=self.settings.missing, **shared
                )
        return judged

    def _result(
        self,
        judged: dict[tuple[str, str], DriftJudgement],
        left_out: list[str],
        facts: dict[str, Any],
        n_rows: int,
    ) -> MonitorResult:
        verdicts = {key: monitor_verdict(one) for key, one in judged.items()}
        # Where a column is missing throughout, there is nothing left to compare its values on.
        decided = {key: v for key, v in verdicts.items() if judged[key].value is not None}
        worst = max((decided or verdicts).values(), key=lambda one: one.severity)
        key = max(
            (key for key, one in verdicts.items() if one is worst),
            key=lambda key: excess(judged[key]),
        )
        lead = judged[key]
        moved = [_name(key) for key, one in verdicts.items() if one is worst]
        needed = lead.n_needed or N_MIN
        few = worst is Verdict.INCONCLUSIVE
        return MonitorResult(
            verdict=worst,
            summary=self._summary(worst, key, lead, moved, len({name for name, _ in judged})),
            value=lead.value,
            limit=lead.limit,
            interval=None if lead.interval is None else (lead.interval.low, lead.interval.high),
            n=n_rows,
            n_min=max(needed, n_rows + 1) if few else N_MIN,
            reason="few" if few else lead.reason if worst is not Verdict.PASSED else "",
            next_step=f"mlguard report {self.app.name}" if worst is Verdict.FAILED else "",
            measurements=tuple(
                Measurement(
                    name=f"{one.statistic} {what}".strip(),
                    value=one.value,
                    n=one.n,
                    low=None if one.interval is None else one.interval.low,
                    high=None if one.interval is None else one.interval.high,
                    group=name,
                )
                # Worst first: who reads a mail on a phone sees what moved, not what begins with A.
                for (name, what), one in sorted(
                    judged.items(), key=lambda item: (-verdicts[item[0]].severity, -excess(item[1]))
                )
            ),
            details={
                "feature": key[0],
                "statistic": lead.statistic,
                "drifted": [_name(key) for key, one in verdicts.items() if one is Verdict.FAILED],
                "left_out": left_out,
                "family_error": self.settings.family_error,
                "n_tests": len(judged),
            },
            **facts,
        )

    def _summary(
        self,
        worst: Verdict,
        key: tuple[str, str],
        lead: DriftJudgement,
        moved: list[str],
        n_features: int,
    ) -> str:
        interval = None if lead.interval is None else (lead.interval.low, lead.interval.high)
        what = _WORDS[lead.statistic] + (f" of {key[1]} values" if key[1] else "")
        figure = (
            f"{key[0]}: {what} {estimate(lead.value, interval, lead.n)}, "
            f"tolerated {number(lead.limit)}"
        )
        others = [one for one in moved if one != _name(key)]
        if worst is Verdict.PASSED:
            return f"none of {n_features} features moved; the furthest is {figure}"
        if worst is Verdict.INCONCLUSIVE:
            return f"too few rows to tell ({count(lead.n)}); {figure}"
        if not others:
            return figure
        named = ", ".join(others[:_NAMED]) + (
            f" and {len(others) - _NAMED} more" if others[_NAMED:] else ""
        )
        return f"{figure}; also {named}"


def _name(key: tuple[str, str]) -> str:
    return f"{key[0]} ({key[1]})" if key[1] else key[0]


def excess(judged: DriftJudgement) -> float:
    """How far an estimate is on its way to its limit, to name the worst."""
    return -math.inf if judged.value is None else judged.value / judged.limit


def monitor_verdict(judged: DriftJudgement) -> Verdict:
    """Read a judgement as a monitor's: see the top of this module."""
    if judged.reason != "no_support" or judged.value is None:
        return judged.verdict
    if judged.statistic == "ks" and _band(judged) > judged.limit:
        return Verdict.INCONCLUSIVE
    return Verdict.PASSED if judged.value <= judged.limit else Verdict.WARNED


def _band(judged: DriftJudgement) -> float:
    """Half width of the band around the distance: what a window cannot see."""
    size = effective_size(judged.n_reference, judged.n)
    return float(np.sqrt(np.log(2 / (1 - judged.confidence_level)) / (2 * size)))
