"""The table of threshold policies of a candidate, and a chosen one as a threshold table.

Thresholds are chosen on every second labelled row and measured on the others: a threshold that
was chosen on the rows it is measured on looks better than it is, and a rate that was made equal
there is only nearly equal elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlguard.checks.delayed_impact import changes, utility_of
from mlguard.config import AppSettings, DelayedImpactGate
from mlguard.deploy.group_figures import Sample
from mlguard.errors import DataError, UsageError
from mlguard.results import finite_or_none
from mlguard.stats.delayed_impact import Harm, harm, outcome_curve
from mlguard.stats.paired import PairedTable, newcombe_paired
from mlguard.stats.rates import group_codes
from mlguard.stats.score_table import Cut, Operating, ScoreTable, Utility
from mlguard.stats.thresholds import DEFAULT, POLICIES, Policy, choose, decide
from mlguard.wording import SMALL_GROUP, estimate, number, printable

#: How people call the policies.
TITLES: dict[Policy, str] = {
    "max_utility": "one threshold for all",
    "max_utility_per_group": "best threshold of each group",
    "demographic_parity": "demographic parity",
    "equal_opportunity": "equal opportunity",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyFigures:
    """What one policy does to each group.

    Attributes
    ----------
    policy : str
    points : dict of str to Operating
        Each group's point, on the rows that did not choose.
    chosen : dict of str to Operating
        The same on the rows that did: there the policy holds exactly.
    utility : float
        Per person, over all groups.
    harm : dict of str to {"active", "relative", "none"}
        Where the delayed impact is known.
    """

    policy: Policy
    points: dict[str, Operating]
    chosen: dict[str, Operating]
    utility: float
    harm: dict[str, Harm] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as strict JSON values."""
        return {
            "policy": self.policy,
            "utility": self.utility,
            "groups": [
                {
                    "group": name,
                    **one.to_json(),
                    "harm": self.harm.get(name),
                    "when_chosen": self.chosen[name].to_json(),
                }
                for name, one in self.points.items()
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ThresholdTable:
    """The policies of one attribute.

    Attributes
    ----------
    by : str
        The attribute.
    positive : object
        The class that is a yes.
    n_chosen, n_measured : int
        Rows that chose the thresholds, and rows that they were measured on.
    utility : Utility
    impact : DelayedImpactGate or None
        What a yes changes, where app.toml says so.
    policies : tuple of PolicyFigures
    tables : dict of str to ScoreTable
        The groups, on the rows that did not choose.
    choosing : dict of str to ScoreTable
        The groups, on the rows that did.
    left_out : dict of str to int
        Groups with too few rows, and how many they have.
    """

    by: str
    positive: Any
    n_chosen: int
    n_measured: int
    utility: Utility
    impact: DelayedImpactGate | None
    policies: tuple[PolicyFigures, ...]
    tables: dict[str, ScoreTable]
    choosing: dict[str, ScoreTable]
    left_out: dict[str, int]

    def of(self, policy: Policy) -> PolicyFigures:
        """Return one policy."""
        return next(one for one in self.policies if one.policy == policy)

    def to_json(self) -> dict[str, Any]:
        """Return the table as strict JSON values."""
        curves = {}
        if self.impact is not None:
            curves = {name: outcome_curve(one) for name, one in self.tables.items()}
        return {
            "by": self.by,
            "positive": str(printable(self.positive)),
            "n_chosen": self.n_chosen,
            "n_measured": self.n_measured,
            "utility": {"success": self.utility.success, "failure": self.utility.failure},
            "policies": [one.to_json() for one in self.policies],
            "outcome": {
                name: {"best": one.best, "best_impact": one.best_impact, "zero": one.zero}
                for name, one in curves.items()
            },
            "left_out": {
                name: n if n >= SMALL_GROUP else None for name, n in self.left_out.items()
            },
        }


def tabulate(sample: Sample, settings: AppSettings, by: str) -> ThresholdTable:
    """Choose the thresholds of every policy, and measure them.

    Raises
    ------
    UsageError
        If the model does not give scores of two classes, or fewer than two groups are large
        enough.
    DataError
        If the score that changes is absent or not usable.
    """
    positive, scores = _scored(sample)
    groups = sample.groups(by)
    truth = np.asarray(sample.truth == positive, bool)
    impact = settings.gate.fairness.delayed_impact
    moved = None if impact is None else changes(impact, sample.rows, truth, groups)
    names, codes = group_codes(groups)
    chooses = _every_second(codes.size)
    tables: dict[bool, dict[str, ScoreTable]] = {True: {}, False: {}}
    left_out: dict[str, int] = {}
    smallest = settings.gate.fairness.min_group_size
    for place, name in enumerate(names):
        halves = [(codes == place) & (chooses == half) for half in (True, False)]
        if min(min(truth[one].sum(), (~truth[one]).sum()) for one in halves) < smallest:
            left_out[name] = int((codes == place).sum())
            continue
        for half, mine in zip((True, False), halves, strict=True):
            tables[half][name] = ScoreTable.of_rows(
                scores[mine], truth[mine], None if moved is None else moved[mine]
            )
    if not tables[True]:
        raise UsageError(
            f"every group of {by!r} has fewer than {smallest} positives or negatives to choose a "
            "threshold on, and as many to measure it on",
            hint="bring more labelled rows, or lower min_group_size in [gate.fairness]",
        )
    utility = utility_of(impact)
    return ThresholdTable(
        by=by,
        positive=positive,
        n_chosen=sum(one.n or 0 for one in tables[True].values()),
        n_measured=sum(one.n or 0 for one in tables[False].values()),
        utility=utility,
        impact=impact,
        policies=_compared(tables[True], tables[False], utility),
        tables=tables[False],
        choosing=tables[True],
        left_out=left_out,
    )


def _scored(sample: Sample) -> tuple[Any, npt.NDArray[np.float64]]:
    classes = sample.classes
    if classes is None or len(classes) != 2 or sample.scores is None:
        raise UsageError(
            f"{sample.model} gives no score of two classes, so it has no threshold",
            hint="thresholds need a classifier of two classes with predict_proba or "
            "decision_function",
        )
    return classes[1], sample.scores


def _every_second(n_rows: int) -> npt.NDArray[np.bool_]:
    """Return the rows that choose: the same for every attribute, whatever the order of groups."""
    chosen = np.zeros(n_rows, np.bool_)
    chosen[::2] = True
    return chosen


def _compared(
    choosing: Mapping[str, ScoreTable], measured: Mapping[str, ScoreTable], utility: Utility
) -> tuple[PolicyFigures, ...]:
    shares = _shares(choosing)
    weights = _shares(measured)
    found: list[PolicyFigures] = []
    free: dict[str, Operating] = {}
    for policy in POLICIES:
        cuts = choose(policy, choosing, shares=shares, utility=utility)
        points = {name: one.operate(cuts[name], utility) for name, one in measured.items()}
        chosen = {name: one.operate(cuts[name], utility) for name, one in choosing.items()}
        if policy == "max_utility_per_group":
            free = points
        found.append(
            PolicyFigures(
                policy=policy,
                points=points,
                chosen=chosen,
                utility=sum(weights[name] * one.utility for name, one in points.items()),
            )
        )
    return tuple(replace(one, harm=_harms(one.points, free)) for one in found)


def _harms(points: Mapping[str, Operating], free: Mapping[str, Operating]) -> dict[str, Harm]:
    return {
        name: harm(one.impact, best)
        for name, one in points.items()
        if one.impact is not None and (best := free[name].impact) is not None
    }


def _shares(tables: Mapping[str, ScoreTable]) -> dict[str, float]:
    rows = {name: one.n or 0 for name, one in tables.items()}
    return {name: one / sum(rows.values()) for name, one in rows.items()}


# --- a policy as a threshold table -------------------------------------------------------------


def thresholds_of(
    table: ThresholdTable, policy: Policy, present: Mapping[str, float]
) -> dict[str, float]:
    """Return a policy as a table for app.toml, without lots.

    Parameters
    ----------
    table : ThresholdTable
        Where the policy was chosen.
    policy : str
        Which.
    present : mapping of str to float
        The thresholds in force; their default stays that of a policy per group, for whoever
        gives no group.

    Raises
    ------
    DataError
        If a group would be answered no whatever its score: no threshold in [0, 1] says so.
    """
    cuts = {name: one.cut for name, one in table.of(policy).points.items()}
    if policy == "max_utility":
        scores = np.unique(np.concatenate([one.scores for one in table.choosing.values()]))
        any_cut = next(iter(cuts.values()))
        return {DEFAULT: _written(any_cut, scores[::-1], table.by)}
    return {DEFAULT: float(present.get(DEFAULT, 0.5))} | {
        f"{table.by}={name}": _written(cut, table.choosing[name].scores, f"{table.by}={name}")
        for name, cut in cuts.items()
    }


def _written(cut: Cut, scores: npt.NDArray[np.float64], whom: str) -> float:
    """Return the shortest number that cuts as a cut does; of a lot, its likelier end."""
    limit = cut.low if cut.share >= 0.5 or math.isinf(cut.high) else cut.high
    if math.isinf(limit):
        raise DataError(
            f"this policy answers no to everybody of {whom}, which no threshold up to 1 says",
            hint="choose another policy",
        )
    lower = scores[scores < limit]
    above = float(lower[0]) if lower.size else limit - 1
    # Between two scores any number cuts alike; one near the middle is the most likely to hold.
    middle = (above + limit) / 2
    for digits in range(2, 18):
        short = round(middle, digits)
        if above < short <= limit and 0 <= short <= 1:
            return short
    return limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a candidate costs in accuracy, against the one it is made from.

    Attributes
    ----------
    before, after : float
        Accuracy.
    change : float
        After minus before; negative is a cost.
    interval : tuple of float
        Of the change; paired on the same rows.
    n : int
        Rows.
    """

    before: float
    after: float
    change: float
    interval: tuple[float, float]
    n: int

    @classmethod
    def of(
        cls,
        before: npt.NDArray[np.bool_],
        after: npt.NDArray[np.bool_],
        *,
        confidence_level: float,
    ) -> Cost:
        """Compare two answers to the same rows by where each is right."""
        table = PairedTable.count(after, before)
        low, high = newcombe_paired(table, confidence_level=confidence_level)
        return cls(
            before=float(before.mean()),
            after=float(after.mean()),
            change=table.difference,
            interval=(low, high),
            n=table.n,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the cost as strict JSON values."""
        return {
            "before": self.before,
            "after": self.after,
            "change": finite_or_none(self.change),
            "interval": list(self.interval),
            "n": self.n,
        }

    def __str__(self) -> str:
        return (
            f"{number(self.before, places=3)} → {number(self.after, places=3)}, a change of "
            f"{estimate(self.change, self.interval, self.n)}"
        )


def answers_under(
    sample: Sample, thresholds: Mapping[str, float], by: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which rows did not choose the thresholds, and which rows they answer yes.

    Both of shape (n_rows,).
    """
    _, scores = _scored(sample)
    yes = decide(scores, thresholds, {by: sample.groups(by)})
    return ~_every_second(yes.size), yes
