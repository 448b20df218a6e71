"""What the data itself says differently about groups, before any model has seen it.

Three checks, on ``[data] train`` where it is declared, as that is what a model learns from, and
else on ``[data] test``; each is an item only where ``[gate.fairness]`` states what to expect:

``representation``              the share of each group, against its stated share (``population``)
``label_base_rate_difference``  how often the label is positive per group (``base_rate_at_most``)
``missing_rate_difference``     how often a feature is missing per group (``missing_at_most``)

A difference here is a fact about the rows, not about a model: groups may differ in the world.
The limits say how much of it people expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlguard.checks import fairness_words
from mlguard.checks.declaration import Item, from_finding, policy_of
from mlguard.checks.evidence import Subject
from mlguard.checks.fairness_words import Told
from mlguard.checks.grouping import GroupedRows
from mlguard.checks.labels import as_numbers
from mlguard.config import AppSettings, CheckPolicy, FairnessGate
from mlguard.errors import DataError
from mlguard.results import CheckResult, Finding, Measurement
from mlguard.stats.cells import Cells, equal_rows
from mlguard.stats.comparison import compare_shares
from mlguard.stats.groups import (
    GapJudgement,
    GroupEstimate,
    judge_comparison,
    judge_gap,
    judge_mean_gap,
)
from mlguard.stats.multiplicity import bonferroni
from mlguard.stats.rates import Rate
from mlguard.wording import (
    SMALL_GROUP,
    TOO_FEW_TO_SHOW,
    count,
    estimate,
    listed,
    number,
    printable,
)

if TYPE_CHECKING:
    import pandas as pd

REPRESENTATION = "fairness.representation"
BASE_RATE = "fairness.label_base_rate_difference"
MISSING_RATE = "fairness.missing_rate_difference"
IDS = (REPRESENTATION, BASE_RATE, MISSING_RATE)


def declared(settings: AppSettings) -> list[Item]:
    """Return the items of an app: what it states an expectation for."""
    gate = settings.gate.fairness
    columns = gate.columns or settings.data.sensitive
    asked = [(REPRESENTATION, list(stated(gate)))]
    if gate.base_rate_at_most is not None:
        asked.append((BASE_RATE, columns))
    if gate.missing_at_most is not None:
        asked.append((MISSING_RATE, columns))
    return [
        Item(
            id=check,
            subject=column,
            policy=policy_of(gate, check.partition(".")[2]),
            parameters={"by": column},
        )
        for check, named in asked
        for column in named
    ]


def stated(gate: FairnessGate) -> dict[str, dict[str, float]]:
    """Return the stated shares by attribute and group."""
    found: dict[str, dict[str, float]] = {}
    for text, share in gate.population.items():
        column, _, value = text.partition("=")
        found.setdefault(column.strip(), {})[value.strip()] = share
    return found


def run(item: Item, subject: Subject) -> CheckResult:
    """Judge one of the three on the rows that a model learns from."""
    column, gate = item.parameters["by"], subject.settings.gate.fairness
    part, frame = _frame(subject, column)
    rows = GroupedRows(frame)
    if item.id == REPRESENTATION:
        found = representation(rows, column, stated(gate)[column], gate, item.policy)
    elif item.id == BASE_RATE:
        target = subject.settings.data.target
        present = frame[target].notna()
        labelled = rows if present.all() else GroupedRows(frame[present])
        regression = subject.settings.app.task == "regression"
        found = base_rates(labelled, column, target, gate, item.policy, regression=regression)
    else:
        found = missing_rates(rows, column, subject.candidate.features, gate, item.policy)
    return from_finding(item, replace(found, summary=f"In [data] {part}: {found.summary}"))


def _frame(subject: Subject, column: str) -> tuple[str, pd.DataFrame]:
    train = subject.train
    if train is not None and column in train.columns:
        return "train", train
    return "test", subject.test


def _optional(gate: FairnessGate, column: str) -> set[str]:
    parts = [text.partition("=") for text in gate.optional_groups]
    return {value.strip() for name, _, value in parts if name.strip() == column}


def _policy(
    gate: FairnessGate, column: str, policy: CheckPolicy, *, limit: float, error: float
) -> dict[str, Any]:
    return {
        "limit": limit,
        "min_group_size": gate.min_group_size,
        "confidence_level": policy.confidence_level,
        "family_error": error,
        "decide": policy.decide,
        "optional": _optional(gate, column),
    }


def representation(
    rows: GroupedRows,
    column: str,
    population: Mapping[str, float],
    gate: FairnessGate,
    policy: CheckPolicy,
) -> Finding:
    """Hold each group's share of the rows against its stated share.

    Raises
    ------
    DataError
        If the attribute is absent, or nothing is counted.
    """
    import numpy as np

    grouping = rows.grouping((column,))
    cells = Cells.tally(
        grouping.codes,
        np.zeros(len(grouping.codes), np.intp),
        grouping.names,
        1,
        weights=rows.weights(gate.weight),
    )
    total, square = float(cells.weight.sum()), float(cells.square.sum())
    if not total:
        raise DataError(f"no row counts, so {column!r} has no shares", hint="correct the weights")
    n = max(1, int(total**2 / square * (1 + 1e-12)))
    share = dict(zip(cells.names, cells.weight[:, 0] / total, strict=True))
    shares = {
        name: Rate(float(share.get(name, 0.0)) * n, n) for name in {*cells.names, *population}
    }
    compared = compare_shares(
        shares,
        population,
        limit=gate.representation_at_most,
        confidence_level=policy.confidence_level,
        family_error=policy.family_error,
    )
    judged = judge_comparison(
        compared,
        [GroupEstimate(name, shares[name].value, n) for name in population],
        limit=gate.representation_at_most,
        min_group_size=gate.min_group_size,
        decide=policy.decide,
    )
    unstated = [name for name in cells.names if name not in population]
    told = Told(
        metric="representation",
        measured="share of rows",
        counted="rows",
        by=(column,),
        limit=gate.representation_at_most,
    )
    found = fairness_words.gap_finding(
        REPRESENTATION, told, judged, min_group_size=gate.min_group_size, listed_only=False
    )
    note = "no share is stated for " + listed([told.group(one) for one in unstated])
    few = {told.group(one.name) for one in judged.groups if _of_few(one)}
    worst = told.group((judged.pair or ("",))[0])
    measured = (
        *(
            # Their share of all rows says how many they are.
            replace(one, suppressed=TOO_FEW_TO_SHOW) if one.group in few else one
            for one in found.measurements
        ),
        *(
            Measurement(name="stated share", group=told.group(name), value=value)
            for name, value in population.items()
        ),
    )
    return replace(
        found,
        summary=_representation_words(told, judged, population),
        value=None if worst in few else found.value,
        interval=None if worst in few else found.interval,
        n=n,
        measurements=measured,
        details={**found.details, "notes": [note] if unstated else []},
    )


def _of_few(group: GroupEstimate) -> bool:
    """Whether a share of all rows would say how few somebody's group has."""
    return group.value is not None and 0 < group.value * group.n < SMALL_GROUP


def _representation_words(told: Told, judged: GapJudgement, population: Mapping[str, float]) -> str:
    if judged.pair is None or judged.value is None:
        return f"the shares of {told.attribute} cannot be judged: there are no rows"
    group = next(one for one in judged.groups if one.name == judged.pair[0])
    stated = f"{number(population[group.name])} of the stated population"
    limit = f"limit at most {number(judged.limit)}"
    if _of_few(group):
        return f"{told.group(group.name)} has {TOO_FEW_TO_SHOW}, and {stated}; {limit}"
    text = (
        f"{told.group(group.name)} is {estimate(group.value, (group.low, group.high))} of "
        f"{count(group.n)} rows and {stated}: differs by "
        f"{estimate(judged.value, judged.interval)}; {limit}"
    )
    more = fairness_words.qualification(told, judged)
    return f"{text}. {more}" if more else text


def base_rates(
    rows: GroupedRows,
    column: str,
    target: str,
    gate: FairnessGate,
    policy: CheckPolicy,
    *,
    regression: bool,
) -> Finding:
    """Compare how often the label is positive, or its mean, between groups."""
    import numpy as np

    assert gate.base_rate_at_most is not None  # an item only where it is stated
    grouping = rows.grouping((column,))
    weights = rows.weights(gate.weight)
    truth = rows.frame[target].to_numpy()
    told = Told(
        metric="label_base_rate",
        measured=f"mean of {printable(target, 40)}",
        counted="rows",
        by=(column,),
        limit=gate.base_rate_at_most,
        positive="a higher value",
    )

    def finding(told: Told, judged: GapJudgement) -> Finding:
        return fairness_words.gap_finding(
            BASE_RATE, told, judged, min_group_size=gate.min_group_size, listed_only=False
        )

    limit = gate.base_rate_at_most
    if regression:
        values = as_numbers(truth, whose=target)
        samples = {
            name: values[grouping.codes == code]
            if weights is None
            else equal_rows(values[grouping.codes == code], weights[grouping.codes == code])
            for code, name in enumerate(grouping.names)
        }
        asked = _policy(gate, column, policy, limit=limit, error=policy.family_error)
        return finding(told, judge_mean_gap(samples, signed=bool((values < 0).any()), **asked))
    classes = sorted(set(truth.tolist()), key=str)
    classes = classes[1:] if len(classes) == 2 else classes  # the second is positive
    error = bonferroni(policy.family_error, max(1, len(classes)))
    asked = _policy(gate, column, policy, limit=limit, error=error)
    found = []
    for positive in classes:
        hit = np.asarray(truth.astype(object) == positive, bool)
        cells = Cells.confusion(hit, hit, grouping.codes, grouping.names, weights=weights)
        name = fairness_words.class_name(positive)
        of_class = replace(told, measured=f"rate of {name}", positive=name)
        found.append(finding(of_class, judge_gap(cells.rates("selection_rate"), **asked)))
    return _worst(found)


def missing_rates(
    rows: GroupedRows,
    column: str,
    features: list[str],
    gate: FairnessGate,
    policy: CheckPolicy,
) -> Finding:
    """Compare how often each feature is missing between groups; the worst feature speaks."""
    assert gate.missing_at_most is not None  # an item only where it is stated
    grouping = rows.grouping((column,))
    weights = rows.weights(gate.weight)
    known = [one for one in features if one in rows.frame.columns and one != column]
    missing = {one: rows.frame[one].isna().to_numpy() for one in known}
    # Features that are never missing are alike; one of them stands for all.
    some = [one for one in known if missing[one].any()] or known[:1]
    if not some:
        raise DataError(
            "the data has none of the columns that the model sees",
            hint="correct [data] features in app.toml",
        )
    asked = _policy(
        gate,
        column,
        policy,
        limit=gate.missing_at_most,
        error=bonferroni(policy.family_error, len(known)),
    )
    found = []
    for feature in some:
        cells = Cells.confusion(
            missing[feature], missing[feature], grouping.codes, grouping.names, weights=weights
        )
        told = Told(
            metric="missing_rate",
            measured=f"missing share of {printable(feature, 40)}",
            counted="rows",
            by=(column,),
            limit=gate.missing_at_most,
        )
        judged = judge_gap(cells.rates("selection_rate"), **asked)
        found.append(
            fairness_words.gap_finding(
                MISSING_RATE, told, judged, min_group_size=gate.min_group_size, listed_only=False
            )
        )
    return _worst(found)


def _worst(found: list[Finding]) -> Finding:
    return max(
        found,
        key=lambda one: (one.verdict.severity, one.value or 0.0),
    )
