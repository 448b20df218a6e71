"""Is the model wrong about one group more often than about another: per group, with intervals.

One item per metric and attribute.  Rates are counted per group on the test rows, the worst gap
over all pairs is judged with simultaneous intervals (:func:`mlguard.stats.groups.judge_gap`).
A group that is too small is undecided, never passed over in silence.

More than two classes are judged one class against the rest, the family's error shared between
them; the class with the worst verdict speaks.  For a regression ``mean_absolute_error`` is
compared.

The words are about what was measured ("differs by", "is refused more often"); whether a
difference is acceptable is for people to say, and the limit is where they said it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.checks import delayed_impact
from mlguard.checks.declaration import Declaration, Item, from_finding, policy_of
from mlguard.checks.evidence import JudgedModel, Subject
from mlguard.checks.labels import as_numbers, attribute, labelled_rows, nearest
from mlguard.config import Aggregate, AppSettings, FairnessMetric
from mlguard.errors import DataError, UsageError
from mlguard.results import CheckResult, Finding, Measurement, Verdict
from mlguard.stats.decision import Decide
from mlguard.stats.groups import GapJudgement, judge_gap, judge_mean_gap
from mlguard.stats.multiplicity import bonferroni
from mlguard.stats.rates import DENOMINATORS, RATE_METRICS, Confusion, group_codes
from mlguard.wording import count, estimate, listed, number, printable

if TYPE_CHECKING:
    import numpy as np

#: More groups than this are no groups but a measurement.
MOST_GROUPS = 50
#: Metrics that know only two classes.
_WHOLE = ("accuracy", "mean_absolute_error")
#: What a higher value of a metric means to the people it is about.
_MEANING = {
    "selection_rate": "{group} is answered {positive} more often",
    "true_positive_rate": "where the truth is {positive}, {group} is answered so more often",
    "false_positive_rate": "where the truth is not {positive}, {group} is answered {positive} "
    "more often",
    "false_negative_rate": "where the truth is {positive}, {group} is refused that answer "
    "more often",
    "true_negative_rate": "where the truth is not {positive}, {group} is rightly told so "
    "more often",
    "precision": "the answer {positive} is right more often for {group}",
    "accuracy": "{group} is answered correctly more often",
    "mean_absolute_error": "the error is larger for {group}",
}


class Fairness:
    """Whether error rates and selection rates are alike between groups of people."""

    def declare(self, settings: AppSettings, project_root: Path) -> Declaration:  # noqa: ARG002
        """Declare one item per metric and attribute, and the delayed impact where it is known."""
        gate = settings.gate.fairness
        columns = gate.by or settings.data.sensitive
        if not gate.enabled:
            return Declaration(not_applicable=("fairness: switched off in app.toml",))
        if not columns:
            return Declaration(not_applicable=("fairness: [data] sensitive names no attribute",))
        if not gate.metrics:
            return Declaration(not_applicable=("fairness: [gate.fairness] metrics is empty",))
        items, absent = [], []
        for metric in _metrics(settings):
            check = f"{metric}_{gate.aggregate}"
            policy = policy_of(gate, check)
            for column in columns:
                item = Item(
                    id=f"fairness.{check}",
                    subject=column,
                    policy=policy,
                    parameters={"metric": metric, "by": column},
                )
                if policy.enabled:
                    items.append(item)
                else:
                    absent.append(f"{item.name}: switched off in app.toml")
        later, without = delayed_impact.declared(settings)
        return Declaration(items=(*items, *later), not_applicable=(*absent, *without))

    def run(self, item: Item, subject: Subject) -> CheckResult:
        """Judge one metric between the groups of one attribute."""
        if item.id == delayed_impact.ID:
            return delayed_impact.run(item, subject)
        gate = subject.settings.gate.fairness
        by = item.parameters["by"]
        optional = {
            text.partition("=")[2]
            for text in gate.optional_groups
            if text.partition("=")[0].strip() == by
        }
        rule = GapRule(
            metric=item.parameters["metric"],
            aggregate=gate.aggregate,
            limit=gate.at_most if gate.aggregate == "difference" else gate.at_least,
            min_group_size=gate.min_group_size,
            confidence_level=item.policy.confidence_level,
            family_error=item.policy.family_error,
            decide=item.policy.decide,
            optional=frozenset(one.strip() for one in optional),
        )
        found = find_gap(subject.candidate, subject.labelled, by=by, rule=rule)
        if found.reason == "limit_exceeded":
            then = f"{found.next_step}, then: mlguard check {subject.settings.name}"
            found = replace(found, next_step=then)
        return from_finding(item, found)


def _metrics(settings: AppSettings) -> list[FairnessMetric]:
    """Return the metrics in force; a regression has errors, not error rates."""
    gate = settings.gate.fairness
    if settings.app.task == "regression" and "metrics" not in gate.model_fields_set:
        return ["mean_absolute_error"]
    return list(dict.fromkeys(gate.metrics))


@dataclass(frozen=True, kw_only=True)
class GapRule:
    """How a gap between groups is judged.

    Attributes
    ----------
    metric : str
        By fairlearn's name.
    aggregate : {"difference", "ratio"}
        How two groups are compared.
    limit : float
        Largest difference, or smallest ratio.
    min_group_size : int
        Rows that a group's denominator needs.
    confidence_level, family_error : float
        Of each interval, and over all pairs.
    decide : {"evidence", "proof", "estimate"}
        How the interval is held against the limit.
    optional : frozenset of str
        Groups that may be too small.
    """

    metric: FairnessMetric
    aggregate: Aggregate = "difference"
    limit: float
    min_group_size: int = 30
    confidence_level: float = 0.95
    family_error: float = 0.05
    decide: Decide = "evidence"
    optional: Collection[str] = frozenset()

    @property
    def id(self) -> str:
        """Name of the check: ``fairness.<metric>_<aggregate>``."""
        return f"fairness.{self.metric}_{self.aggregate}"

    def judge(self, per_group: Mapping[str, Any], *, family_error: float) -> GapJudgement:
        """Hold the groups' rates, or their losses, against the limit."""
        judge: Any = judge_mean_gap if self.metric == "mean_absolute_error" else judge_gap
        judged: GapJudgement = judge(
            per_group,
            limit=self.limit,
            aggregate=self.aggregate,
            min_group_size=self.min_group_size,
            confidence_level=self.confidence_level,
            family_error=family_error,
            decide=self.decide,
            optional=self.optional,
        )
        return judged


def find_gap(model: JudgedModel, frame: Any, *, by: str, rule: GapRule) -> Finding:
    """Judge one metric of a model between the groups of one attribute.

    Parameters
    ----------
    model : JudgedModel
        The model.
    frame : pandas.DataFrame of shape (n_rows, n_columns)
        Rows with target and attribute; those without a label are left out.
    by : str
        Column that holds the attribute.
    rule : GapRule
        Metric and limit.

    Returns
    -------
    Finding

    Raises
    ------
    DataError
        If a column is absent, or no row has a label.
    UsageError
        If the metric is unknown, or the attribute has too many values to be groups.
    """
    import numpy as np

    if rule.metric not in (*RATE_METRICS, "mean_absolute_error"):
        known = (*RATE_METRICS, "mean_absolute_error")
        raise UsageError(
            f"unknown metric {rule.metric!r}" + nearest(rule.metric, known),
            hint=f"known: {', '.join(known)}",
        )
    if by not in frame.columns:
        raise DataError(
            f"there is no attribute {by!r} in the data" + nearest(by, frame.columns),
            hint="correct `by`; it names a column of the test rows",
        )
    rows = labelled_rows(frame, model.target)
    answers = model.predict(rows)
    truth, groups = rows[model.target].to_numpy(), attribute(rows, by)
    names, codes = group_codes(groups)
    if len(names) > MOST_GROUPS:
        raise UsageError(
            f"{by!r} has {count(len(names))} different values, too many to be groups",
            hint=f"put {by!r} into classes first, e.g. ages into decades",
        )
    unusable = ~np.asarray(answers.valid, bool)
    if unusable.any():
        shares = {
            name: (float(unusable[codes == place].mean()), int((codes == place).sum()))
            for place, name in enumerate(names)
        }
        return _unusable(rule, model, by, int(unusable.sum()), shares)
    if rule.metric == "mean_absolute_error":
        errors = np.abs(
            as_numbers(truth, whose=model.target) - as_numbers(answers.labels, whose=model.name)
        )
        losses = {name: errors[codes == place] for place, name in enumerate(names)}
        judged = rule.judge(losses, family_error=rule.family_error)
        return _finding(rule, by, judged, positive="", classes=0)
    positives = _positives(rule, model, truth)
    error = bonferroni(rule.family_error, len(positives))
    found = []
    for positive in positives:
        table = Confusion.count(
            truth.astype(object), answers.labels.astype(object), groups, positive=positive
        )
        judged = rule.judge(table.rates(rule.metric), family_error=error)
        named = "" if positive is None else str(printable(positive, 40))
        found.append(_finding(rule, by, judged, positive=named, classes=len(positives)))
    return max(found, key=lambda one: (one.verdict.severity, one.value or 0.0))


def _positives(rule: GapRule, model: JudgedModel, truth: np.ndarray) -> list[Any]:
    """Return the classes that count as positive, one after the other."""
    if rule.metric in _WHOLE:
        return [None]
    classes = list(model.classes) if model.classes else sorted(set(truth.tolist()), key=str)
    # Of two classes the second is the positive one, as scikit-learn has it.
    return classes[1:] if len(classes) == 2 else classes  # noqa: PLR2004


def _finding(
    rule: GapRule, by: str, judged: GapJudgement, *, positive: str, classes: int
) -> Finding:
    one_of_many = classes > 1
    measured = f"{rule.metric} of {positive}" if one_of_many else rule.metric
    measurements = tuple(
        Measurement(
            name=measured,
            value=one.value,
            n=one.n,
            low=one.low,
            high=one.high,
            group=_named(by, one.name),
        )
        for one in judged.groups
    )
    notes = []
    if judged.too_small:
        notes.append(
            f"undecided: {listed([_named(by, one) for one in judged.too_small])} "
            f"with fewer than {rule.min_group_size} "
            f"{_denominator(rule.metric)}; "
            "gather more such rows, or name the group in optional_groups"
        )
    if judged.left_out:
        notes.append(
            "left out, because optional_groups names them: "
            + listed([_named(by, one) for one in judged.left_out])
        )
    return Finding(
        id=rule.id,
        subject=by,
        verdict=judged.verdict,
        summary=_summary(rule, by, judged, measured, positive),
        value=judged.value,
        limit=rule.limit,
        interval=None if judged.interval is None else (judged.interval.low, judged.interval.high),
        n=sum(one.n for one in judged.groups),
        n_min=judged.n_needed,
        reason=judged.reason,
        next_step=_next_step(rule, judged),
        measurements=measurements,
        details={
            "notes": notes,
            "pair": list(judged.pair or ()),
            "smallest_limit": judged.smallest_limit,
            "n_needed": judged.n_needed,
            "n_to_tell": judged.n_to_tell,
            **({"positive": positive} if positive else {}),
        },
    )


def _next_step(rule: GapRule, judged: GapJudgement) -> str:
    """Say what would help: more rows of the right kind, or a better candidate."""
    what = _denominator(rule.metric)
    if judged.verdict is Verdict.FAILED:
        return "compare the groups' rows and labels, and train a candidate that treats them alike"
    if judged.reason == "no_support" and judged.n_needed is not None:
        return f"judge it on about {count(judged.n_needed)} {what} of each group"
    if judged.reason in ("few", "undefined"):
        return f"judge it on at least {rule.min_group_size} {what} of each group"
    if judged.reason == "above_not_proven" and judged.n_to_tell is not None:
        return f"about {count(judged.n_to_tell)} {what} of each group would tell"
    return ""


def _summary(rule: GapRule, by: str, judged: GapJudgement, measured: str, positive: str) -> str:
    groups = {one.name: one for one in judged.groups}
    what = _denominator(rule.metric)
    if len(groups) == 1:
        return f"{printable(by, 60)} has only one group in the test rows: nothing can be compared"
    if judged.pair is None or judged.value is None:
        small = [f"{_named(by, one.name)} has {count(one.n)}" for one in judged.groups]
        return (
            f"{measured} cannot be compared: of {what}, {listed(small)}; "
            f"each group needs {rule.min_group_size}"
        )
    high, low = (groups[name] for name in judged.pair)
    interval = None if judged.interval is None else tuple(judged.interval)
    difference = rule.aggregate == "difference"
    told = "; ".join(
        f"{_named(by, one.name)} {estimate(one.value, (one.low, one.high), one.n)}"
        for one in (high, low)
    )
    text = (
        f"{measured} {'differs by' if difference else 'has a ratio of'} "
        f"{estimate(judged.value, interval)} between the groups of {printable(by, 60)}: {told}; "
        f"limit {'at most' if difference else 'at least'} {number(rule.limit)}"
    )
    more = _qualification(rule, by, judged, what)
    if judged.verdict is Verdict.FAILED:
        more = _MEANING[rule.metric].format(group=_named(by, high.name), positive=positive)
        more = more if more.startswith(_named(by, high.name)) else more[:1].upper() + more[1:]
    return f"{text}. {more}" if more else text


def _qualification(rule: GapRule, by: str, judged: GapJudgement, what: str) -> str:
    """Say what a verdict that is neither proven nor refuted leaves open."""
    difference = rule.aggregate == "difference"
    if judged.reason == "not_proven" and judged.interval is not None:
        far = judged.interval.high if difference else judged.interval.low
        return f"Not proven: it could be {'up' if difference else 'down'} to {number(far)}"
    if judged.reason == "above_not_proven":
        return "Beyond the limit, but not proven to be"
    if judged.reason == "few":
        sizes = {one.name: one.n for one in judged.groups}
        small = [f"{_named(by, one)} ({count(sizes[one])})" for one in judged.too_small]
        return f"Too few {what} to judge {listed(small)}"
    if judged.reason != "no_support":
        return ""
    smallest = (
        "no limit can be judged"
        if judged.smallest_limit is None
        else f"the {'smallest limit' if difference else 'tightest ratio'} this data can judge is "
        f"{number(judged.smallest_limit)}"
    )
    needed = (
        "" if judged.n_needed is None else f"; the limit needs about {count(judged.n_needed)} each"
    )
    sizes_told = listed([count(one) for one in judged.sizes])
    return f"Undecided: with {sizes_told} {what} {smallest}{needed}"


def _named(by: str, group: str) -> str:
    return f"{printable(by, 60)}={printable(group, 60)}"


def _denominator(metric: str) -> str:
    """Return whom the denominator of a metric counts, for people."""
    told: Mapping[Any, str] = DENOMINATORS
    return told.get(metric, "rows")


def _unusable(
    rule: GapRule, model: JudgedModel, by: str, total: int, shares: dict[str, tuple[float, int]]
) -> Finding:
    """Fail a model that gave some rows no usable prediction."""
    rows = sum(n for _, n in shares.values())
    return Finding(
        id=rule.id,
        subject=by,
        verdict=Verdict.FAILED,
        summary=f"{model.name} gave no usable prediction (NaN, infinite or missing) on "
        f"{count(total)} of {count(rows)} rows, so its {rule.metric} says nothing",
        value=total / rows,
        limit=0.0,
        n=rows,
        reason="not_finite",
        next_step="find the rows on which predict gives NaN, and let the model handle them",
        measurements=tuple(
            Measurement(name="unusable share", group=_named(by, name), value=value, n=n)
            for name, (value, n) in shares.items()
        ),
    )
