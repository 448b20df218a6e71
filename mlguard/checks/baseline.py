"""Candidate against baseline: better than a simple model, no worse than what serves now.

Both answer the same rows, so the comparison is paired: for accuracy Newcombe's interval for
paired proportions, for an absolute error a bootstrap of the rows' differences.  A difference
is written so that more is better for the candidate.

``beats`` is superiority: the lower bound must lie above ``delta``.  ``no_worse_than`` is
non-inferiority: the lower bound must lie above minus ``margin``.  Two models that answer every
row alike are no worse than each other, however few the rows.

A prediction that is no finite value counts as wrong, and fails the check by itself: a model
that answers nothing on some rows has not been compared on them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlguard.checks.declaration import Declaration, Item, from_finding, policy_of
from mlguard.checks.evidence import JudgedModel, Subject
from mlguard.checks.labels import as_numbers, equal_labels, labelled_rows
from mlguard.config import AppSettings
from mlguard.errors import UsageError
from mlguard.results import CheckResult, Finding, Measurement, Verdict
from mlguard.stats.decision import Judgement, judge_non_inferiority, judge_superiority
from mlguard.stats.interval import Interval
from mlguard.wording import count, estimate, number

if TYPE_CHECKING:
    import numpy as np

Metric = Literal["accuracy", "mean_absolute_error"]

#: Bootstrap replicates of a mean difference.
REPLICATES = 2_000
#: Rows from which a mean of differences is normal enough to need no bootstrap.
BOOTSTRAP_ROWS = 5_000
_SEED = 20_240_502
#: Rows below which an interval of a mean difference says nothing.
_FEWEST_ROWS = 8


class Baseline:
    """Whether the candidate is better than a simple model and no worse than the live version."""

    def declare(self, settings: AppSettings, project_root: Path) -> Declaration:  # noqa: ARG002
        """Declare ``beats`` and ``no_worse_than``."""
        gate = settings.gate.baseline
        items, absent = [], []
        for check, subject in (("beats", baseline_name(settings)), ("no_worse_than", "live")):
            policy = policy_of(gate, check)
            if policy.enabled:
                items.append(Item(id=f"baseline.{check}", subject=subject, policy=policy))
            else:
                absent.append(f"baseline.{check}: switched off in app.toml")
        return Declaration(items=tuple(items), not_applicable=tuple(absent))

    def run(self, item: Item, subject: Subject) -> CheckResult:
        """Compare the candidate with the baseline that the item names."""
        gate = subject.settings.gate.baseline
        metric = baseline_metric(subject.settings)
        level = item.policy.confidence_level
        if item.id == "baseline.no_worse_than":
            if subject.active is None:
                return item.result(
                    Verdict.SKIPPED,
                    f"no version of {subject.settings.name} is live, so there is none to be "
                    "no worse than",
                    reason="no_active",
                )
            pair = compare(subject.candidate, subject.active, subject.labelled, metric, level)
            return from_finding(item, no_worse(pair, margin=gate.margin))
        reported = [
            compare(subject.candidate, subject.baseline(name), subject.labelled, metric, level)
            for name in _beside(subject.settings, item.subject)
        ]
        return from_finding(item, beats(reported[0], delta=gate.delta, others=reported[1:]))


def baseline_metric(settings: AppSettings) -> Metric:
    """Return the metric in force for an app."""
    regression = settings.app.task == "regression"
    return settings.gate.baseline.metric or ("mean_absolute_error" if regression else "accuracy")


def baseline_name(settings: AppSettings) -> str:
    """Return the simple model that an app's candidate must beat."""
    regression = settings.app.task == "regression"
    return settings.gate.baseline.beats or ("mean" if regression else "majority")


def _beside(settings: AppSettings, first: str) -> list[str]:
    trivial = "mean" if settings.app.task == "regression" else "majority"
    return [first, *(name for name in (trivial, "stump", "linear") if name != first)]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same rows.

    Attributes
    ----------
    candidate, baseline : str
        Their names.
    metric : str
        What was measured on each.
    value, other : float
        The metric of the candidate and of the baseline.
    better : float
        By how much the candidate is better: negative where it is worse.
    interval : tuple of float
        Bounds of ``better``.
    n : int
        Rows compared.
    flips : int
        Rows on which the two answer differently.
    gained, lost : int or None
        Rows that only the candidate, or only the baseline, gets right.
    unusable, other_unusable : int
        Predictions that are no finite value, of the candidate and of the baseline.
    classes : int
        Different labels among the rows; 0 for a regression.
    confidence_level : float
        Of the interval.
    """

    candidate: str
    baseline: str
    metric: Metric
    value: float
    other: float
    better: float
    interval: tuple[float, float]
    n: int
    flips: int
    gained: int | None
    lost: int | None
    unusable: int
    other_unusable: int
    classes: int
    confidence_level: float

    @property
    def identical(self) -> bool:
        """Whether both gave the same usable answer on every row."""
        return self.flips == 0 and self.unusable == 0

    def measurements(self) -> tuple[Measurement, ...]:
        """Return the metric of both models."""
        return (
            Measurement(name=self.metric, group=self.candidate, value=self.value, n=self.n),
            Measurement(name=self.metric, group=self.baseline, value=self.other, n=self.n),
        )

    def details(self) -> dict[str, Any]:
        """Return what is reported beside the decision."""
        return {
            "flips": self.flips,
            "flip_share": self.flips / self.n,
            "gained": self.gained,
            "lost": self.lost,
        }


def compare(
    candidate: JudgedModel,
    baseline: JudgedModel,
    frame: Any,
    metric: Metric,
    confidence_level: float = 0.95,
) -> Comparison:
    """Compare two models on the same labelled rows.

    Parameters
    ----------
    candidate, baseline : JudgedModel
        The two models.
    frame : pandas.DataFrame of shape (n_rows, n_columns)
        Rows with the target; those without a label are left out.
    metric : {"accuracy", "mean_absolute_error"}
        What is compared.
    confidence_level : float, default 0.95
        Of the interval.

    Returns
    -------
    Comparison

    Raises
    ------
    DataError
        If no row has a label, or the labels are of another kind than the predictions.
    """
    import numpy as np

    rows = labelled_rows(frame, candidate.target)
    truth = rows[candidate.target].to_numpy()
    ours, theirs = candidate.predict(rows), baseline.predict(rows)
    usable, other_usable = np.asarray(ours.valid, bool), np.asarray(theirs.valid, bool)
    both = usable & other_usable
    flips = int(
        np.count_nonzero(
            (usable != other_usable) | (both & ~equal_labels(ours.labels, theirs.labels))
        )
    )
    shared: dict[str, Any] = {
        "candidate": candidate.name,
        "baseline": baseline.name,
        "metric": metric,
        "n": len(rows),
        "confidence_level": confidence_level,
        "flips": flips,
        "unusable": int(np.count_nonzero(~usable)),
        "other_unusable": int(np.count_nonzero(~other_usable)),
    }
    if metric == "accuracy":
        from mlguard.stats.paired import PairedTable, newcombe_paired

        right = equal_labels(truth, ours.labels) & usable
        other_right = equal_labels(truth, theirs.labels) & other_usable
        table = PairedTable.count(right, other_right)
        low, high = newcombe_paired(table, confidence_level=confidence_level)
        return Comparison(
            value=float(right.mean()),
            other=float(other_right.mean()),
            better=table.difference,
            # Where no row tells the two apart there is nothing to be uncertain about.
            interval=(0.0, 0.0) if flips == 0 else (low, high),
            gained=table.first_only,
            lost=table.second_only,
            classes=len(set(truth.tolist())),
            **shared,
        )
    numbers = as_numbers(truth, whose=candidate.target)
    error = np.abs(numbers - as_numbers(ours.labels, whose=candidate.name))[both]
    other_error = np.abs(numbers - as_numbers(theirs.labels, whose=baseline.name))[both]
    gain = other_error - error
    value = float(error.mean()) if both.any() else math.nan
    other = float(other_error.mean()) if both.any() else math.nan
    return Comparison(
        value=value,
        other=other,
        better=float(gain.mean()) if both.any() else math.nan,
        interval=mean_difference_interval(gain, confidence_level=confidence_level),
        gained=None,
        lost=None,
        classes=0,
        **shared,
    )


def mean_difference_interval(
    differences: np.ndarray, *, confidence_level: float = 0.95
) -> tuple[float, float]:
    """Return an interval of the mean of paired differences that may have any size.

    Parameters
    ----------
    differences : ndarray of shape (n,)
        One difference per row; no NaN.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).

    Returns
    -------
    tuple of float
        ``(nan, nan)`` below 8 rows: an interval from so few would only look like one.

    Notes
    -----
    A bootstrap-t interval with 2,000 replicates and a fixed seed, which keeps its coverage on
    skewed errors where a percentile interval does not; from 5,000 rows on Student's interval,
    which it no longer differs from.  All differences equal: the interval is that value.
    """
    import numpy as np
    from scipy import special

    x = np.asarray(differences, float)
    n = x.size
    if n < _FEWEST_ROWS:
        return math.nan, math.nan
    mean, spread = float(x.mean()), float(x.std(ddof=1))
    if spread == 0:
        return mean, mean
    error = spread / math.sqrt(n)
    tail = (1 - confidence_level) / 2
    if n >= BOOTSTRAP_ROWS:
        quantile = float(special.stdtrit(n - 1, 1 - tail))
        return mean - quantile * error, mean + quantile * error
    random = np.random.default_rng(_SEED)
    ratios = []
    # In blocks, so that the memory does not grow with the rows.
    for _ in range(0, REPLICATES, 100):
        draws = x[random.integers(0, n, size=(100, n))]
        errors = draws.std(axis=1, ddof=1) / math.sqrt(n)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append((draws.mean(axis=1) - mean) / errors)
    ratio = np.concatenate(ratios)
    low, high = np.quantile(ratio[np.isfinite(ratio)], [tail, 1 - tail])
    return mean - float(high) * error, mean - float(low) * error


def beats(pair: Comparison, *, delta: float, others: Sequence[Comparison] = ()) -> Finding:
    """Judge superiority: better than the baseline by more than ``delta``.

    Parameters
    ----------
    pair : Comparison
        Candidate against the baseline that must be beaten.
    delta : float
        By at least how much, in the metric's unit.
    others : sequence of Comparison
        Reported beside it.
    """
    unusable = _unusable(pair, "baseline.beats")
    if unusable is not None:
        return unusable
    if pair.classes == 1:
        return Finding(
            id="baseline.beats",
            verdict=Verdict.INCONCLUSIVE,
            summary=f"all {count(pair.n)} rows have the same label, so nothing can be beaten",
            n=pair.n,
            reason="one_class",
            next_step="name test rows with every class in [data] test",
        )
    judged = judge_superiority(
        pair.better,
        Interval(*pair.interval),
        delta=delta,
        n=pair.n,
        identical=pair.identical,
        confidence_level=pair.confidence_level,
    )
    by = f" by more than {number(delta)}" if delta else ""
    says = {
        Verdict.PASSED: f"beats {pair.baseline}{by}",
        Verdict.FAILED: f"does not beat {pair.baseline}{by}",
    }.get(judged.verdict, f"cannot be shown to beat {pair.baseline}{by}")
    advice = f"train a better model: {pair.baseline} does as well"
    return _compared("baseline.beats", pair, judged, says=says, advice=advice, others=others)


def no_worse(pair: Comparison, *, margin: float) -> Finding:
    """Judge non-inferiority: not worse than the baseline by ``margin`` or more.

    Parameters
    ----------
    pair : Comparison
        Candidate against the version that serves.
    margin : float
        How far it may fall behind, in the metric's unit.
    """
    unusable = _unusable(pair, "baseline.no_worse_than")
    if unusable is not None:
        return unusable
    judged = judge_non_inferiority(
        pair.better,
        Interval(*pair.interval),
        margin=margin,
        n=pair.n,
        identical=pair.identical,
        confidence_level=pair.confidence_level,
    )
    within = f" within the margin of {number(margin)}"
    says = {
        Verdict.PASSED: f"is no worse than {pair.baseline}{within}",
        Verdict.FAILED: f"is worse than {pair.baseline} by more than {number(margin)}",
    }.get(judged.verdict, f"cannot be shown to be no worse than {pair.baseline}{within}")
    if pair.identical:
        says = f"answers all {count(pair.n)} rows exactly like {pair.baseline}"
    advice = f"look at the rows that only {pair.baseline} gets right before you train again"
    return _compared("baseline.no_worse_than", pair, judged, says=says, advice=advice)


def _compared(
    name: str,
    pair: Comparison,
    judged: Judgement,
    *,
    says: str,
    advice: str,
    others: Sequence[Comparison] = (),
) -> Finding:
    """Put a judged comparison into words."""
    change = f"{pair.metric} {number(pair.value)} against {number(pair.other)}"
    gain = f"a gain of {estimate(pair.better, pair.interval, pair.n)}"
    flips = f"{count(pair.flips)} rows answered differently"
    undecided = judged.verdict is Verdict.INCONCLUSIVE
    return Finding(
        id=name,
        verdict=judged.verdict,
        summary=f"{says}: {change}, {gain}; {flips}",
        value=pair.better,
        limit=judged.limit,
        interval=pair.interval,
        n=pair.n,
        n_min=judged.n_to_tell,
        reason=judged.reason,
        next_step=""
        if judged.verdict is Verdict.PASSED
        else (judged.next_step or "judge it on more test rows")
        if undecided
        else advice,
        measurements=(
            *pair.measurements(),
            *(Measurement(name=o.metric, group=o.baseline, value=o.other, n=o.n) for o in others),
        ),
        details={
            **pair.details(),
            "notes": [
                f"beside it: against {one.baseline} a gain of {estimate(one.better, one.interval)}"
                for one in others
            ],
        },
    )


def _unusable(pair: Comparison, name: str) -> Finding | None:
    """Fail a candidate that gave no usable prediction; refuse to judge against such a baseline."""
    if pair.unusable:
        return Finding(
            id=name,
            verdict=Verdict.FAILED,
            summary=f"{pair.candidate} gave no usable prediction (NaN, infinite or missing) on "
            f"{count(pair.unusable)} of {count(pair.n)} rows",
            value=pair.unusable / pair.n,
            limit=0.0,
            n=pair.n,
            reason="not_finite",
            next_step="find the rows on which predict gives NaN, and let the model handle them",
            measurements=(
                Measurement(name="unusable", group=pair.candidate, value=float(pair.unusable)),
            ),
        )
    if pair.other_unusable:
        raise UsageError(
            f"{pair.baseline} gave no usable prediction on {count(pair.other_unusable)} of "
            f"{count(pair.n)} rows, so nothing can be compared with it",
            hint="mend the baseline, or switch this check off in app.toml",
        )
    return None
