"""Is the model wrong about one group more often than about another: per group, with intervals.

One item per metric and attribute, or intersection of attributes.  Rows are counted per group on
the test rows, and the worst gap over all comparisons is judged with simultaneous intervals
(:mod:`mlguard.stats.groups`).  A group that is too small is undecided, never passed over in
silence: of one attribute it leaves the check undecided, of an intersection or within a control
group it is listed, and blocks only where ``required_groups`` names it.

More than two classes are judged one class against the rest, and control groups one by one, the
family's error shared between them; the worst verdict speaks.  ``equalized_odds`` is the worse of
the gaps of both its rates, as fairlearn has it.

The words are about what was measured ("differs by", "is refused more often"); whether a
difference is acceptable is for people to say, and the limit is where they said it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from mlguard.checks import data_bias, delayed_impact, fairness_words
from mlguard.checks.declaration import Declaration, Item, from_finding, policy_of
from mlguard.checks.evidence import JudgedModel, Subject
from mlguard.checks.fairness_words import Told
from mlguard.checks.grouping import GroupedRows, Grouping
from mlguard.checks.labels import nearest
from mlguard.config import (
    Aggregate,
    AppSettings,
    FairnessGate,
    FairnessMetric,
    has_aggregate,
)
from mlguard.errors import UsageError
from mlguard.results import CheckResult, Enforcement, Finding, Measurement, Verdict
from mlguard.stats.cells import Cells, equal_rows
from mlguard.stats.composites import calibration_figure, f_score_figure, judge_composite_gap
from mlguard.stats.decision import Decide
from mlguard.stats.groups import GapJudgement, judge_gap, judge_mean_gap
from mlguard.stats.multiplicity import bonferroni
from mlguard.stats.rates import RATE_METRICS, RateMetric
from mlguard.wording import count, printable

if TYPE_CHECKING:
    import numpy as np

    from mlguard.stats.interval import FloatArray

Method = Literal["between_groups", "to_overall"]
METRICS: tuple[FairnessMetric, ...] = get_args(FairnessMetric)
#: Metrics that are judged by others: parities by the rates that they are about.
_PARTS: dict[str, tuple[str, ...]] = {
    "demographic_parity": ("selection_rate",),
    "equal_opportunity": ("true_positive_rate",),
    "equalized_odds": ("true_positive_rate", "false_positive_rate"),
}
#: Metrics that know no positive class.
_WHOLE = ("accuracy", "mean_absolute_error", "mean_residual")
_MEANS = ("mean_absolute_error", "mean_residual", "mean_prediction")


class Fairness:
    """Whether error rates and selection rates are alike between groups of people."""

    def __init__(self) -> None:
        self._rows: GroupedRows | None = None

    def declare(self, settings: AppSettings, project_root: Path) -> Declaration:  # noqa: ARG002
        """Declare one item per metric and attribute, and what else is said about groups."""
        gate = settings.gate.fairness
        attributes = _attributes(settings)
        if not gate.enabled:
            return Declaration(not_applicable=("fairness: switched off in app.toml",))
        if not attributes:
            return Declaration(not_applicable=("fairness: [data] sensitive names no attribute",))
        if not gate.metrics:
            return Declaration(not_applicable=("fairness: [gate.fairness] metrics is empty",))
        _check_required(gate, attributes)
        items = [
            Item(
                id=f"fairness.{metric}_{gate.aggregate}",
                subject=",".join(by),
                policy=policy_of(gate, f"{metric}_{gate.aggregate}"),
                parameters={"metric": metric, "by": by},
            )
            for metric in _metrics(settings)
            for by in attributes
        ]
        items += data_bias.declared(settings)
        later, without = delayed_impact.declared(settings)
        absent = [
            f"{item.name}: switched off in app.toml" for item in items if not item.policy.enabled
        ]
        return Declaration(
            items=(*(item for item in items if item.policy.enabled), *later),
            not_applicable=(*absent, *without),
        )

    def run(self, item: Item, subject: Subject) -> CheckResult:
        """Judge one metric between the groups of one attribute."""
        if item.id == delayed_impact.ID:
            return delayed_impact.run(item, subject)
        if item.id in data_bias.IDS:
            return data_bias.run(item, subject)
        gate = subject.settings.gate.fairness
        by = item.parameters["by"]
        rule = GapRule(
            metric=item.parameters["metric"],
            aggregate=gate.aggregate,
            method=gate.method,
            limit=gate.at_most if gate.aggregate in ("difference", "group_max") else gate.at_least,
            min_group_size=gate.min_group_size,
            confidence_level=item.policy.confidence_level,
            family_error=item.policy.family_error,
            decide=item.policy.decide,
            optional=group_names(gate.optional_groups, by),
            required=group_names(gate.required_groups, by),
            control=tuple(gate.control),
            weight=gate.weight,
        )
        found = find_gap(
            subject.candidate, subject.labelled, by=by, rule=rule, rows=self._counted(subject)
        )
        if found.reason == "limit_exceeded":
            found = replace(found, next_step=self._advice(found, by, subject))
        result = from_finding(item, found)
        if not rule.must_decide(by):
            result = replace(result, on_inconclusive=Enforcement.WARN)
        return result

    def _advice(self, found: Finding, by: Sequence[str], subject: Subject) -> str:
        """Name the command that shows the groups and, where there are some, other thresholds."""
        rows = self._counted(subject)
        two = subject.candidate.classes is not None and len(rows.classes) == 1
        options = f" --by {printable(by[0], 60)}" if len(by) == 1 else ""
        words = ""
        if two and rows.answers.scores is not None:
            options += " --thresholds"
            words = " under other thresholds"
        return f"{found.next_step}; how they fare{words}: mlguard fairness {subject.typed}{options}"

    def _counted(self, subject: Subject) -> GroupedRows:
        """Return the subject's rows, counted once for all items of one run."""
        rows = self._rows
        if (
            rows is None
            or rows.given is not subject.labelled
            or rows.model is not subject.candidate
        ):
            rows = self._rows = GroupedRows(subject.labelled, subject.candidate)
        return rows


def _attributes(settings: AppSettings) -> list[tuple[str, ...]]:
    """Return what to group by: one column, or the columns of an intersection."""
    declared = settings.gate.fairness.by or settings.data.sensitive
    named = [(one,) if isinstance(one, str) else tuple(one) for one in declared]
    return list(dict.fromkeys(named))


def _check_required(gate: FairnessGate, attributes: Sequence[tuple[str, ...]]) -> None:
    """Refuse a required group that nothing would ever judge."""
    for group in gate.required_groups:
        if not any(group_names([group], by) for by in attributes):
            raise UsageError(
                f"required_groups names {group!r}, and no entry of `by` has these columns",
                hint='write it as "sex=F,race=B" for the entry ["sex", "race"] of `by`',
            )


def _metrics(settings: AppSettings) -> list[FairnessMetric]:
    """Return the metrics in force; a regression has errors, not error rates."""
    gate = settings.gate.fairness
    if settings.app.task == "regression" and "metrics" not in gate.model_fields_set:
        return ["mean_absolute_error"]
    return list(dict.fromkeys(gate.metrics))


def group_names(texts: Iterable[str], by: Sequence[str]) -> frozenset[str]:
    """Return those of some groups, written ``"sex=F,race=B"``, that ``by`` tells apart.

    Examples
    --------
    >>> sorted(group_names(["sex=F", "city=Ulm"], ["sex"]))
    ['F']
    >>> sorted(group_names(["race=B, sex=F", "sex=F"], ["sex", "race"]))
    ['sex=F,race=B']
    """
    found = set()
    for text in texts:
        # A value may hold a comma; an intersection has a column before each "=".
        crossed = len(by) > 1 or all("=" in part for part in text.split(","))
        parts = text.split(",") if crossed else [text]
        pairs = [part.partition("=") for part in parts]
        values = {column.strip(): value.strip() for column, _, value in pairs}
        if set(values) == set(by):
            found.add(
                values[by[0]]
                if len(by) == 1
                else ",".join(f"{column}={values[column]}" for column in by)
            )
    return frozenset(found)


@dataclass(frozen=True, kw_only=True)
class GapRule:
    """How a gap between groups is judged.

    Attributes
    ----------
    metric : str
        By fairlearn's name.
    aggregate : {"difference", "ratio", "group_min", "group_max"}
        How groups are compared.
    method : {"between_groups", "to_overall"}
        Whom a group is compared with.
    limit : float
        Largest difference or figure, or smallest ratio or figure.
    min_group_size : int
        Rows that a group's denominator needs.
    confidence_level, family_error : float
        Of each interval, and over all comparisons.
    decide : {"evidence", "proof", "estimate"}
        How the interval is held against the limit.
    optional : collection of str
        Groups that may be too small.
    required : collection of str
        Groups of an intersection, or within a control group, that must be decided.
    control : tuple of str
        Columns within whose values groups are compared.
    weight : str
        Column with how much each row counts; empty: all alike.
    """

    metric: FairnessMetric
    aggregate: Aggregate = "difference"
    method: Method = "between_groups"
    limit: float
    min_group_size: int = 30
    confidence_level: float = 0.95
    family_error: float = 0.05
    decide: Decide = "evidence"
    optional: Collection[str] = frozenset()
    required: Collection[str] = frozenset()
    control: tuple[str, ...] = ()
    weight: str = ""

    @property
    def id(self) -> str:
        """Name of the check: ``fairness.<metric>_<aggregate>``."""
        return f"fairness.{self.metric}_{self.aggregate}"

    @property
    def to_overall(self) -> bool:
        """Whether groups are compared with everybody."""
        return self.method == "to_overall" and self.aggregate in ("difference", "ratio")

    @property
    def at_most(self) -> bool:
        """Whether a larger figure is worse."""
        return self.aggregate in ("difference", "group_max")

    def lists_undecided(self, by: Sequence[str]) -> bool:
        """Whether groups that cannot be decided are listed, and leave the check decided."""
        return len(by) > 1 or bool(self.control)

    def must_decide(self, by: Sequence[str]) -> bool:
        """Whether an undecided check may block: not where an intersection requires nobody."""
        return len(by) == 1 or bool(self.required)


def find_gap(
    model: JudgedModel,
    frame: Any,
    *,
    by: str | Sequence[str],
    rule: GapRule,
    rows: GroupedRows | None = None,
) -> Finding:
    """Judge one metric of a model between the groups of one attribute or intersection.

    Parameters
    ----------
    model : JudgedModel
        The model.
    frame : pandas.DataFrame of shape (n_rows, n_columns)
        Rows with target and attribute; those without a label are left out.
    by : str or sequence of str
        Column that holds the attribute, or the columns of an intersection.
    rule : GapRule
        Metric and limit.
    rows : GroupedRows, optional
        The same rows, where something about them is counted already.

    Returns
    -------
    Finding

    Raises
    ------
    DataError
        If a column is absent, no row has a label, or a weight is no weight.
    UsageError
        If the metric is unknown or has no such aggregate, or the attribute has too many values
        to be groups.
    """
    by = (by,) if isinstance(by, str) else tuple(by)
    if rule.metric not in METRICS:
        raise UsageError(
            f"unknown metric {rule.metric!r}" + nearest(rule.metric, METRICS),
            hint=f"known: {', '.join(METRICS)}",
        )
    if not has_aggregate(rule.metric, rule.aggregate):
        raise UsageError(
            f"{rule.metric} has no {rule.aggregate}",
            hint="compare groups by their difference",
        )
    rows = GroupedRows(frame, model) if rows is None else rows
    grouping = rows.grouping(by)
    unusable = _unusable(rule, rows, by, grouping)
    if unusable is not None:
        return unusable
    judge = _Judge(rule, rows, by, _with_required(grouping, rule.required))
    found = list(judge.findings())
    # What nobody must decide stays silent where something else could be decided.
    decided = [one for one in found if one.verdict is not Verdict.INCONCLUSIVE]
    lists = rule.lists_undecided(by) and not rule.required
    worst = max(decided if decided and lists else found, key=lambda one: _badness(one, rule))
    notes = [note for one in found for note in one.details["notes"]]
    measured = worst.measurements
    if rule.control:
        # A table of all control groups says more than that of the worst one.
        measured = tuple(one for other in found for one in other.measurements)
    return replace(worst, measurements=measured, details={**worst.details, "notes": notes})


def _badness(found: Finding, rule: GapRule) -> tuple[int, float]:
    value = found.value or 0.0
    return found.verdict.severity, value if rule.at_most else -value


def _with_required(grouping: Grouping, required: Collection[str]) -> Grouping:
    """Add the required groups that nobody is in: they are undecided, not forgotten."""
    absent = sorted(set(required) - set(grouping.names))
    return replace(grouping, names=[*grouping.names, *absent])


@dataclass(frozen=True)
class _Judge:
    """One rule over all control groups, classes and parts of a metric."""

    rule: GapRule
    rows: GroupedRows
    by: tuple[str, ...]
    grouping: Grouping

    def findings(self) -> Iterator[Finding]:
        """Judge every control group and class, the family's error shared between them."""
        strata = list(self._strata())
        positives = [None] if self._whole else self.rows.classes
        parts = _PARTS.get(self.rule.metric, (self.rule.metric,))
        error = bonferroni(self.rule.family_error, len(strata) * len(positives) * len(parts))
        for within, places in strata:
            for positive in positives:
                named = "" if positive is None else fairness_words.class_name(positive)
                told = Told(
                    metric=self.rule.metric,
                    measured=f" of {named}" if len(positives) > 1 else "",
                    counted="",
                    by=self.by,
                    limit=self.rule.limit,
                    within=within,
                    positive=named,
                    to_overall=self.rule.to_overall,
                )
                found = []
                for part in parts:
                    judged = self._judged(part, places, positive, error)
                    said = replace(told, measured=f"{part}{told.measured}", counted=part)
                    found.append(
                        fairness_words.gap_finding(
                            self.rule.id,
                            said,
                            judged,
                            min_group_size=self.rule.min_group_size,
                            listed_only=self.rule.lists_undecided(self.by),
                        )
                    )
                yield self._together(found)

    @property
    def _whole(self) -> bool:
        regression = self.rows.model is not None and self.rows.model.classes is None
        numbers = self.rows.answers.labels.dtype.kind == "f" or self.rows.answers.scores is None
        return self.rule.metric in _WHOLE or (
            self.rule.metric == "mean_prediction" and regression and numbers
        )

    def _strata(self) -> Iterator[tuple[str, np.ndarray | None]]:
        """Return the control groups with the places of their rows; None: all rows."""
        import numpy as np

        if not self.rule.control:
            yield "", None
            return
        control = self.rows.grouping(self.rule.control)
        for code, name in enumerate(control.names):
            named = fairness_words.named(self.rule.control, name)
            yield named, np.flatnonzero(control.codes == code)

    def _together(self, found: list[Finding]) -> Finding:
        """Make the parts of a metric one finding: the worst speaks, the worst figure counts."""
        if len(found) == 1:
            return found[0]
        worst = max(found, key=lambda one: _badness(one, self.rule))
        of = max if self.rule.at_most else min
        known = [one for one in found if one.value is not None and one.interval is not None]
        if len(known) < len(found):
            return replace(worst, value=None, interval=None) if not known else worst
        return replace(
            worst,
            value=of(cast("float", one.value) for one in known),
            interval=(
                of(cast("tuple[float, float]", one.interval)[0] for one in known),
                of(cast("tuple[float, float]", one.interval)[1] for one in known),
            ),
            measurements=tuple(one for other in found for one in other.measurements),
            details={
                **worst.details,
                "notes": list(dict.fromkeys(n for one in found for n in one.details["notes"])),
            },
        )

    def _judged(
        self, part: str, places: np.ndarray | None, positive: Any, error: float
    ) -> GapJudgement:
        """Count the rows of one control group, and judge what they say."""
        import numpy as np

        names = self.grouping.names
        codes = _taken(self.grouping.codes, places)
        given = self.rows.weights(self.rule.weight)
        weights = None if given is None else _taken(given, places)
        lenient = self.rule.lists_undecided(self.by)
        policy: dict[str, Any] = {
            "limit": self.rule.limit,
            "aggregate": self.rule.aggregate,
            "min_group_size": self.rule.min_group_size,
            "confidence_level": self.rule.confidence_level,
            "family_error": error,
            "decide": self.rule.decide,
            "optional": set(names) - set(self.rule.required) if lenient else self.rule.optional,
            "lenient": lenient,
        }
        if part in RATE_METRICS or part == "f1_score":
            if part == "accuracy":
                true, predicted = np.ones(len(codes), bool), _taken(self.rows.right, places)
            else:
                true, predicted = (_taken(one, places) for one in self.rows.is_positive(positive))
            cells = Cells.confusion(true, predicted, codes, names, weights=weights)
            if part == "f1_score":
                figure = f_score_figure(cells)
                return judge_composite_gap(figure, to_overall=self.rule.to_overall, **policy)
            metric = cast("RateMetric", part)
            overall = cells.overall(metric) if self.rule.to_overall else None
            return judge_gap(cells.rates(metric), overall=overall, **policy)
        if part == "calibration_error":
            true, _ = (_taken(one, places) for one in self.rows.is_positive(positive))
            scores = _taken(self.rows.scores(positive), places)
            figure = calibration_figure(true, scores, codes, names, weights=weights)
            return judge_composite_gap(figure, to_overall=self.rule.to_overall, **policy)
        values = _taken(self._values(part, positive), places)
        return judge_mean_gap(
            _split(values, codes, names, weights),
            signed=bool((values < 0).any()),
            everybody=_shares(codes, names, weights) if self.rule.to_overall else None,
            **policy,
        )

    def _values(self, part: str, positive: Any) -> FloatArray:
        import numpy as np

        if part == "mean_absolute_error":
            return np.abs(self.rows.residual)
        if part == "mean_residual":
            return self.rows.residual
        return self.rows.predicted if positive is None else self.rows.scores(positive)


def _taken(values: Any, places: np.ndarray | None) -> Any:
    return values if places is None else values[places]


def _split(
    values: FloatArray, codes: np.ndarray, names: list[str], weights: FloatArray | None
) -> dict[str, FloatArray]:
    """Return the values of each group; of weighted rows, as many as say as much."""
    import numpy as np

    order = np.argsort(codes, kind="stable")
    cuts = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]
    parts = np.split(values[order], cuts)
    if weights is not None:
        of_group = np.split(weights[order], cuts)
        parts = [equal_rows(one, w) for one, w in zip(parts, of_group, strict=True)]
    return dict(zip(names, parts, strict=True))


def _shares(codes: np.ndarray, names: list[str], weights: FloatArray | None) -> dict[str, float]:
    """Return each group's share of everybody."""
    import numpy as np

    mass = np.bincount(codes, weights=weights, minlength=len(names)).astype(float)
    total = float(mass.sum()) or 1.0
    return {name: float(one) / total for name, one in zip(names, mass, strict=True)}


def _unusable(
    rule: GapRule, rows: GroupedRows, by: tuple[str, ...], grouping: Grouping
) -> Finding | None:
    """Fail a model that gave some rows no usable prediction."""
    import numpy as np

    unusable = ~np.asarray(rows.answers.valid, bool)
    wrong, total = int(unusable.sum()), len(unusable)
    if not wrong:
        return None
    assert rows.model is not None
    sizes = np.bincount(grouping.codes, minlength=len(grouping.names))
    hits = np.bincount(grouping.codes[unusable], minlength=len(grouping.names))
    return Finding(
        id=rule.id,
        subject=",".join(by),
        verdict=Verdict.FAILED,
        summary=f"{rows.model.name} gave no usable prediction (NaN, infinite or missing) on "
        f"{count(wrong)} of {count(total)} rows, so its {rule.metric} says nothing",
        value=wrong / total,
        limit=0.0,
        n=total,
        reason="not_finite",
        next_step="find the rows on which predict gives NaN, and let the model handle them",
        measurements=tuple(
            Measurement(
                name="unusable share",
                group=fairness_words.named(by, name),
                value=float(hit / size),
                n=int(size),
            )
            for name, hit, size in zip(grouping.names, hits, sizes, strict=True)
        ),
    )
