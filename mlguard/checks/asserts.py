"""The judgements of the gate as functions for people's own tests and notebooks.

Each returns the :class:`~mlguard.results.CheckResult` it found, records it for the run of the
gate, and raises :class:`~mlguard.checks.explain.CheckFailedError` (an ``AssertionError``) where
it would close a gate: FAILED, or INCONCLUSIVE unless ``on_inconclusive="warn"``.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlguard.checks.declaration import Item, from_finding
from mlguard.checks.evidence import JudgedModel, as_judged
from mlguard.checks.explain import CheckFailedError
from mlguard.checks.labels import some_rows
from mlguard.checks.recording import record
from mlguard.config import Aggregate, CheckPolicy, FairnessMetric
from mlguard.errors import UsageError
from mlguard.results import CheckResult, Enforcement, Finding

if TYPE_CHECKING:
    import pandas as pd

    from mlguard.stats.decision import Decide

__all__ = [
    "CheckFailedError",
    "assert_beats",
    "assert_expectations",
    "assert_no_gap",
    "assert_no_worse",
]

OnInconclusive = Literal["block", "warn"]


def assert_no_gap(
    candidate: Any,
    frame: pd.DataFrame,
    *,
    metric: FairnessMetric,
    by: str | Sequence[str],
    at_most: float | None = None,
    at_least: float | None = None,
    aggregate: Aggregate | None = None,
    method: Literal["between_groups", "to_overall"] = "between_groups",
    control: str | Sequence[str] = (),
    weight: str = "",
    target: str = "",
    min_group_size: int = 30,
    optional_groups: Collection[str] = (),
    required_groups: Collection[str] = (),
    confidence_level: float = 0.95,
    family_error: float = 0.05,
    decide: Decide = "evidence",
    on_inconclusive: OnInconclusive = "block",
) -> CheckResult:
    """Assert that a metric is alike between groups.

    Parameters
    ----------
    candidate : JudgedModel or estimator
        The fixture ``candidate``, or a model with ``predict``.
    frame : pandas.DataFrame
        Rows with the target and the attribute.
    metric : str
        By fairlearn's name, e.g. ``"false_negative_rate"``.
    by : str or sequence of str
        Column that holds the attribute, or the columns of an intersection.
    at_most, at_least : float
        Largest difference between two groups (or highest figure of one), or smallest ratio (or
        lowest figure); exactly one of them.
    aggregate : {"difference", "ratio", "group_min", "group_max"}, optional
        How groups are compared; default "difference" with ``at_most``, "ratio" with
        ``at_least``.
    method : {"between_groups", "to_overall"}, default "between_groups"
        Whom a group is compared with: each other, or everybody.
    control : str or sequence of str, optional
        Columns within whose values groups are compared.
    weight : str, optional
        Column with how much each row counts.
    target : str
        Column that holds the truth; the fixture knows it.
    min_group_size : int, default 30
        Rows that a group's denominator needs before it says anything.
    optional_groups : collection of str
        Groups (values of ``by``, or ``"sex=F,race=B"``) that may be too small.
    required_groups : collection of str
        Groups of an intersection, or within a control group, that must be decided.
    confidence_level, family_error : float
        Of each interval, and over all pairs of groups.
    decide : {"evidence", "proof", "estimate"}, default "evidence"
        How the interval is held against the limit.
    on_inconclusive : {"block", "warn"}, default "block"
        Whether too little data fails the test.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If the gap is larger than the limit, or nobody can tell.
    UsageError
        If not exactly one limit is given, or it is not of the aggregate's kind.
    """
    __tracebackhide__ = True
    from mlguard.checks.fairness import GapRule, find_gap, group_names

    if (at_most is None) == (at_least is None):
        raise UsageError(
            "say how large the gap may be, in one way",
            hint="at_most=0.05 for a difference, or at_least=0.8 for a ratio",
        )
    kinds: tuple[Aggregate, ...] = (
        ("difference", "group_max") if at_most is not None else ("ratio", "group_min")
    )
    chosen = kinds[0] if aggregate is None else aggregate
    if chosen not in kinds:
        raise UsageError(
            f"{chosen} is limited by {'at_least' if at_most is not None else 'at_most'}",
            hint="difference and group_max have at_most, ratio and group_min have at_least",
        )
    columns = (by,) if isinstance(by, str) else tuple(by)

    def groups(texts: Collection[str]) -> frozenset[str]:
        # Of one attribute a value may stand alone.
        alone = len(columns) == 1
        named = (group_names([text], columns) or ({text} if alone else ()) for text in texts)
        return frozenset(one for names in named for one in names)

    limit = at_most if at_most is not None else at_least
    assert limit is not None
    rule = GapRule(
        metric=metric,
        aggregate=chosen,
        method=method,
        limit=limit,
        min_group_size=min_group_size,
        confidence_level=confidence_level,
        family_error=family_error,
        decide=decide,
        optional=groups(optional_groups),
        required=groups(required_groups),
        control=(control,) if isinstance(control, str) else tuple(control),
        weight=weight,
    )
    found = find_gap(as_judged(candidate, target=target), frame, by=columns, rule=rule)
    return asserted(found, on_inconclusive if rule.must_decide(columns) else "warn")


def assert_beats(
    candidate: Any,
    baseline: Any,
    frame: pd.DataFrame,
    *,
    metric: Literal["accuracy", "mean_absolute_error"] = "accuracy",
    by_at_least: float = 0.0,
    target: str = "",
    confidence_level: float = 0.95,
    on_inconclusive: OnInconclusive = "block",
) -> CheckResult:
    """Assert that one model is better than another on the same rows.

    Parameters
    ----------
    candidate, baseline : JudgedModel or estimator
        The two models, e.g. the fixtures of these names.
    frame : pandas.DataFrame
        Rows with the target.
    metric : {"accuracy", "mean_absolute_error"}, default "accuracy"
        What is compared.
    by_at_least : float, default 0
        Gain that must be exceeded, in the metric's unit.
    target, confidence_level, on_inconclusive
        As in :func:`assert_no_gap`.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If it is not better, or nobody can tell.
    """
    __tracebackhide__ = True
    from mlguard.checks.baseline import beats, compare

    ours, theirs = _pair(candidate, baseline, target)
    found = beats(compare(ours, theirs, frame, metric, confidence_level), delta=by_at_least)
    return asserted(found, on_inconclusive, subject=theirs.name)


def assert_no_worse(
    candidate: Any,
    active: Any,
    frame: pd.DataFrame,
    *,
    metric: Literal["accuracy", "mean_absolute_error"] = "accuracy",
    margin: float = 0.02,
    target: str = "",
    confidence_level: float = 0.95,
    on_inconclusive: OnInconclusive = "block",
) -> CheckResult:
    """Assert that one model is not worse than another by a margin, on the same rows.

    Parameters
    ----------
    candidate, active : JudgedModel or estimator
        The two models, e.g. the fixtures of these names.
    frame : pandas.DataFrame
        Rows with the target.
    metric : {"accuracy", "mean_absolute_error"}, default "accuracy"
        What is compared.
    margin : float, default 0.02
        Loss that is just too much, in the metric's unit.
    target, confidence_level, on_inconclusive
        As in :func:`assert_no_gap`.

    Returns
    -------
    CheckResult

    Raises
    ------
    CheckFailedError
        If it is worse, or nobody can tell.
    """
    __tracebackhide__ = True
    from mlguard.checks.baseline import compare, no_worse

    ours, theirs = _pair(candidate, active, target)
    found = no_worse(compare(ours, theirs, frame, metric, confidence_level), margin=margin)
    return asserted(found, on_inconclusive, subject=theirs.name)


def assert_expectations(
    frame: pd.DataFrame, suite: Path | str | Sequence[Mapping[str, Any]]
) -> list[CheckResult]:
    """Assert that data meets a suite of Great Expectations.

    Parameters
    ----------
    frame : pandas.DataFrame
        The data.
    suite : path, or sequence of mapping
        A suite's JSON file, or its expectations: ``{"type": …, "kwargs": {…}}``.

    Returns
    -------
    list of CheckResult
        One per expectation.

    Raises
    ------
    CheckFailedError
        Of the first expectation that does not hold.
    UsageError
        If the suite is empty or cannot be read.
    """
    __tracebackhide__ = True
    from mlguard.checks.expectations import (
        expectation_items,
        judge_expectation,
        read_suite,
        suite_of,
        validate,
    )

    read = read_suite(Path(suite)) if isinstance(suite, Path | str) else suite_of(suite)
    rows = some_rows(frame, to="hold against the suite")
    outcomes = validate(read.expectations, {"data": rows})
    results = []
    for item in expectation_items(read, CheckPolicy()):
        place = item.parameters["place"]
        found = judge_expectation(read.expectations[place], outcomes[place])
        results.append(from_finding(item, found))
    first = next((one for one in results if one.blocks), None)
    for one in results:
        record(one, raised=first is not None and one.blocks)
    if first is not None:
        raise CheckFailedError(first)
    return results


def _pair(candidate: Any, other: Any, target: str) -> tuple[JudgedModel, JudgedModel]:
    target = target or next(
        (one.target for one in (candidate, other) if isinstance(one, JudgedModel)), ""
    )
    ours, theirs = as_judged(candidate, target=target), as_judged(other, target=target)
    if ours.name == theirs.name:
        # Two estimators of one class: a sentence about both must tell them apart.
        ours, theirs = copy.copy(ours), copy.copy(theirs)
        ours.name, theirs.name = f"candidate {ours.name}", f"baseline {theirs.name}"
    return ours, theirs


def asserted(found: Finding, on_inconclusive: OnInconclusive, *, subject: str = "") -> CheckResult:
    """Return a finding as a result, recorded; raise where it would close a gate.

    Raises
    ------
    CheckFailedError
        If it blocks.
    """
    __tracebackhide__ = True
    policy = CheckPolicy(on_inconclusive=Enforcement(on_inconclusive))
    item = Item(id=found.id, subject=found.subject or subject, policy=policy)
    result = from_finding(item, found)
    record(result, raised=result.blocks)
    if result.blocks:
        raise CheckFailedError(result)
    return result
