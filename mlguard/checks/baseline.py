"""Candidate against baseline: better than a simple model, no worse than what serves now.

Both answer the same rows, so the comparison is paired (:mod:`mlguard.checks.side_by_side`).

``beats`` is superiority: the lower bound must lie above ``delta``.  ``no_worse_than`` is
non-inferiority: the lower bound must lie above minus ``margin``; ``matches`` is the same
against a simple model that ``must_match`` names.  Two models that answer every row alike are
no worse than each other, however few the rows.  ``beats_in`` and ``no_worse_in`` ask the same
in every group and slice (:mod:`mlguard.checks.baseline_groups`), so that a better average
cannot hide a worse group.

A prediction that is no finite value counts as wrong, and fails the check by itself: a model
that answers nothing on some rows has not been compared on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mlguard.checks.baseline_groups import SLICES, judge_groups, parts_of, worst_group_note
from mlguard.checks.declaration import Declaration, Item, from_finding, policy_of
from mlguard.checks.errors_apart import error_note
from mlguard.checks.evidence import Subject
from mlguard.checks.side_by_side import (
    Comparison,
    Metric,
    answers,
    compare,
    mean_difference_interval,
)
from mlguard.config import AppSettings
from mlguard.errors import UsageError
from mlguard.results import CheckResult, Finding, Measurement, Verdict
from mlguard.stats.decision import Judgement, judge_non_inferiority, judge_superiority
from mlguard.stats.interval import Interval
from mlguard.wording import count, estimate, number

#: Baselines that are always trained.
SIMPLE = frozenset({"majority", "mean", "stump", "linear"})

__all__ = [
    "Baseline",
    "Comparison",
    "Metric",
    "baseline_metric",
    "baseline_name",
    "beats",
    "compare",
    "judge_groups",
    "matches",
    "mean_difference_interval",
    "no_worse",
]


class Baseline:
    """Whether the candidate is better than a simple model and no worse than the live version."""

    def declare(self, settings: AppSettings, project_root: Path) -> Declaration:  # noqa: ARG002
        """Declare the comparisons with the simple models and the live version, also in groups."""
        gate = settings.gate.baseline
        items, absent = [], []
        for check, subject in _asked(settings):
            item = Item(id=f"baseline.{check}", subject=subject, policy=policy_of(gate, check))
            if item.policy.enabled:
                items.append(item)
            elif f"{item.id}: switched off in app.toml" not in absent:
                absent.append(f"{item.id}: switched off in app.toml")
        return Declaration(items=tuple(items), not_applicable=tuple(absent))

    def run(self, item: Item, subject: Subject) -> CheckResult:
        """Compare the candidate with the baseline that the item names."""
        gate = subject.settings.gate.baseline
        check = item.id.partition(".")[2]
        metric = baseline_metric(subject.settings)
        level = item.policy.confidence_level
        candidate, rows = subject.candidate, subject.labelled
        if check.startswith("no_worse") and subject.active is None:
            return item.result(
                Verdict.SKIPPED,
                f"no version of {subject.settings.name} is live, so there is none to be "
                "no worse than",
                reason="no_active",
            )
        if check in ("beats_in", "no_worse_in"):
            beating = check == "beats_in"
            name = baseline_name(subject.settings)
            other = subject.baseline(name) if beating else subject.active
            assert other is not None
            found, _ = answers(candidate, other, rows, metric)
            parts = parts_of(rows, item.subject, gate.slices)
            judged = judge_groups(
                found,
                parts,
                check=item.id,
                limit=gate.delta if beating else -gate.margin,
                min_group_size=gate.min_group_size,
                optional=frozenset(gate.optional_groups),
                confidence_level=level,
                family_error=item.policy.family_error,
            )
            return from_finding(item, judged)
        if check == "no_worse_than":
            assert subject.active is not None
            found, _ = answers(candidate, subject.active, rows, metric)
            judged = no_worse(found.compare(level), margin=gate.margin)
            notes = worst_group_note(found, rows, subject.settings.data.sensitive)
            return from_finding(item, _noted(judged, notes))
        if check == "matches":
            pair = compare(candidate, subject.baseline(item.subject), rows, metric, level)
            return from_finding(item, matches(pair, margin=gate.margin))
        reported = [
            compare(candidate, subject.baseline(name), rows, metric, level)
            for name in _beside(subject.settings, item.subject)
        ]
        judged = beats(reported[0], delta=gate.delta, others=reported[1:])
        facts, notes = error_note(subject, metric)
        judged = replace(judged, details={**judged.details, "errors": facts})
        return from_finding(item, _noted(judged, notes))


def _asked(settings: AppSettings) -> Iterator[tuple[str, str]]:
    """Yield every check and whom or what it is about."""
    gate = settings.gate.baseline
    yield "beats", baseline_name(settings)
    for name in gate.must_match:
        yield "matches", name
    yield "no_worse_than", "live"
    for column in [*gate.by, *([SLICES] if gate.slices else [])]:
        yield "beats_in", column
        yield "no_worse_in", column


def _noted(found: Finding, notes: Sequence[str]) -> Finding:
    known = list(found.details.get("notes", ()))
    return replace(found, details={**found.details, "notes": [*known, *notes]})


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
    if pair.interval[1] < 0:
        advice = f"train a better model: {pair.baseline}, which hardly thinks, does better"
        if pair.baseline not in SIMPLE:
            advice = f"train a better model: {pair.baseline} does better"
    elif pair.better > 0 and delta:
        advice = "train a better model, or ask for less: the gain is there, and smaller than delta"
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
    return _not_behind(pair, margin, "baseline.no_worse_than")


def matches(pair: Comparison, *, margin: float) -> Finding:
    """Judge non-inferiority against a simple model that ``must_match`` names.

    Parameters
    ----------
    pair : Comparison
        Candidate against the simple model.
    margin : float
        How far it may fall behind, in the metric's unit.
    """
    return _not_behind(pair, margin, "baseline.matches")


def _not_behind(pair: Comparison, margin: float, name: str) -> Finding:
    unusable = _unusable(pair, name)
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
    return _compared(name, pair, judged, says=says, advice=advice)


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
