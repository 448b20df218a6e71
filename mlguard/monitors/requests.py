"""``requests``: whether callers send rows that the version knows something about.

``requests.unusual`` is the share of rows with a value unlike the reference: outside its range, a
category that it never had, or missing where it never was.  A few of them come by chance (the
largest of the next n values is larger than all n before it half the time), so what chance
brings is added to the limit: 2 / (n + 1) for each number, and for each category the share of
reference values that occur once (Good and Turing).  The summary names the columns.

``requests.refused`` is the share of requests that were refused as malformed, which no row of the
log tells of; it is judged where servers keep profiles (:mod:`mlguard.data.profile_log`).

Both are the callers' doing and no fault of the model, so they alert and do no more unless
``action`` says otherwise.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from mlguard.config import RequestsMonitor
from mlguard.monitors.by_profile import ByProfile
from mlguard.monitors.shares import N_MIN, judge_share
from mlguard.monitors.window import ProfileWindow, WindowData
from mlguard.results import Measurement, MonitorResult, Verdict
from mlguard.wording import share

if TYPE_CHECKING:
    from mlguard.data.profile import FeatureProfile, Profile

#: Columns that the summary names.
_NAMED = 3


class Requests(ByProfile[RequestsMonitor]):
    """Shares of unusual rows and of refused requests, held against their limits.

    Its settings are ``[monitor.requests]``.
    """

    id: ClassVar[str] = "requests"
    clock: ClassVar[str] = "rows"
    sequential: ClassVar[bool] = False

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Judge a closed window by its rows."""
        current = self.counted(window)
        return self.judge_profile(
            ProfileWindow(version=window.version, window=window.window, profile=current)
        )

    def judge_profile(self, window: ProfileWindow) -> list[MonitorResult]:
        """Judge a closed window by what was counted of it."""
        facts = {"window": window.window, "version": window.version}
        found = [self._unusual(facts, window.profile)]
        if window.refused is not None:
            found.append(
                judge_share(
                    window.refused,
                    window.refused + window.window.n_rows,
                    limit=self.settings.refused,
                    confidence_level=self.settings.confidence_level,
                    words="requests, each row of an answered batch as one, were refused",
                    next_step="see the callers' errors on /metrics and in the access log",
                    facts={"id": "requests.refused", **facts},
                )
            )
        return found

    def _unusual(self, shared: dict[str, Any], current: Profile | None) -> MonitorResult:
        facts: dict[str, Any] = {"id": "requests.unusual", **shared}
        if self.profile is None or current is None:
            what = "no reference profile" if self.profile is None else "no logged inputs"
            return MonitorResult(
                verdict=Verdict.SKIPPED,
                summary=f"not judged: the version has {what}",
                reason="no_reference",
                n=0,
                n_min=N_MIN,
                next_step=f"mlguard deploy {self.app.name}",
                **facts,
            )
        from mlguard.data.profile import SCORE

        odd = {
            name: _odd(self.profile[name], one)
            for name, one in current.features.items()
            if name != SCORE and one.n_rows
        }
        worst = sorted((name for name in odd if odd[name]), key=lambda name: -odd[name])
        by_chance = min(1.0, sum(_by_chance(self.profile[name]) for name in odd))
        named = ", ".join(
            f"{name} {share(odd[name] / current[name].n_rows)}" for name in worst[:_NAMED]
        )
        found = judge_share(
            current.n_unusual,
            current.n_rows,
            limit=min(1.0, self.settings.unusual + by_chance),
            confidence_level=self.settings.confidence_level,
            words="rows with a value unlike the reference's",
            next_step=f"mlguard report {self.app.name}",
            facts=facts
            | {
                "measurements": tuple(
                    Measurement(
                        name="unusual",
                        value=odd[name] / current[name].n_rows,
                        n=current[name].n_rows,
                        group=name,
                    )
                    for name in worst
                ),
                "details": {"by_chance": by_chance, "columns": worst},
            },
        )
        if not named or found.verdict is Verdict.INCONCLUSIVE:
            return found
        return dataclasses.replace(found, summary=f"{found.summary}; most: {named}")


def _odd(reference: FeatureProfile, current: FeatureProfile) -> int:
    """Count the cells of a column that are unlike the reference."""
    found = 0 if reference.missing else current.missing
    if reference.shape == "category":
        return found + int(current.counts[-1])
    if reference.edges.size:
        found += int(current.counts[0] + current.counts[-1])
    return found


def _by_chance(reference: FeatureProfile) -> float:
    """Return the share of unusual values that data like the reference has by chance."""
    if not reference.n:
        return 0.0
    if reference.shape == "category":
        return float((reference.counts == 1).sum()) / reference.n
    return 2 / (reference.n + 1)
