"""What the candidate's answers would do, later, to the people of each group.

One item per attribute, where ``[gate.fairness.delayed_impact]`` says what a yes changes.  The
mean change of each group's score, those answered no included, is judged with simultaneous
intervals against ``at_least`` (0: no group's mean may fall, *active harm*).  What the thresholds
of maximum utility would bring is reported beside it (*relative harm* is to be below).

The change is not observed in the test rows; it follows from what came true and from the two
numbers that people wrote into app.toml.  See :mod:`mlguard.stats.delayed_impact`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlguard.checks.declaration import Item, from_finding
from mlguard.checks.evidence import JudgedModel, Subject
from mlguard.checks.labels import as_numbers, attribute
from mlguard.config import AppSettings, DelayedImpactGate, FairnessGate
from mlguard.errors import DataError, UsageError
from mlguard.results import CheckResult, Finding, Measurement, Verdict
from mlguard.stats.decision import Judgement, Support, judge_limit
from mlguard.stats.delayed_impact import ImpactModel, harm, success_curve
from mlguard.stats.interval import FloatArray, critical_value
from mlguard.stats.means import mean_interval
from mlguard.stats.multiplicity import sidak
from mlguard.stats.rates import group_codes
from mlguard.stats.score_table import ScoreTable, Utility
from mlguard.stats.support import POWER, POWER_Z, mean_support, two_digits
from mlguard.stats.thresholds import choose
from mlguard.wording import (
    SMALL_GROUP,
    TOO_FEW_TO_SHOW,
    count,
    estimate,
    group_size,
    listed,
    number,
    printable,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHECK = "delayed_impact"
ID = f"fairness.{CHECK}"


def declared(settings: AppSettings) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """Return the items of an app, and what does not apply to it."""
    gate = settings.gate.fairness
    table = gate.delayed_impact
    if table is None:
        return (), ()
    if settings.app.task == "regression":
        return (), (f"{ID}: a regression answers no yes",)
    items = tuple(
        Item(id=ID, subject=column, policy=table, parameters={"by": column})
        for column in gate.columns or settings.data.sensitive
    )
    if table.enabled:
        return items, ()
    return (), tuple(f"{one.name}: switched off in app.toml" for one in items)


def run(item: Item, subject: Subject) -> CheckResult:
    """Judge what the candidate's answers do to the groups of one attribute."""
    gate = subject.settings.gate.fairness
    table = gate.delayed_impact
    assert table is not None  # an item is declared only where the table stands
    found = find_impact(subject.candidate, subject.labelled, by=item.parameters["by"], gate=gate)
    return from_finding(item, found if found.next_step else _advised(found, subject))


def _advised(found: Finding, subject: Subject) -> Finding:
    if found.verdict is Verdict.PASSED:
        return found
    command = f"mlguard fairness {subject.typed} --by {printable(found.subject, 60)} --thresholds"
    step = f"see what other thresholds would do to each group: {command}"
    if found.verdict is Verdict.INCONCLUSIVE:
        step = "judge it on more labelled rows, or write a larger margin in "
        step += "[gate.fairness.delayed_impact]"
    return replace(found, next_step=step)


# --- what a yes changes ----------------------------------------------------------------------


def utility_of(table: DelayedImpactGate | None) -> Utility:
    """Return what a yes is worth to whoever decides; a right yes +1, a wrong one -1, if unsaid."""
    return Utility() if table is None else Utility(table.utility_success, table.utility_failure)


def changes(
    table: DelayedImpactGate, rows: Any, truth: npt.NDArray[np.bool_], groups: npt.ArrayLike
) -> FloatArray:
    """Return the change that a yes would bring to each row.

    Parameters
    ----------
    table : DelayedImpactGate
        What a success and a failure change, and where the score stands.
    rows : pandas.DataFrame of shape (n_rows, n_columns)
        The people.
    truth : ndarray of bool, shape (n_rows,)
        Whether each succeeds.
    groups : array_like of shape (n_rows,)
        Group of each; the probability of success is estimated in each.

    Returns
    -------
    ndarray of shape (n_rows,)

    Raises
    ------
    DataError
        If a column is absent, has a missing value, or a value outside its scale.
    """
    import numpy as np

    if not table.score:
        return np.where(truth, table.success, table.failure)
    low = -math.inf if table.low is None else table.low
    high = math.inf if table.high is None else table.high
    model = ImpactModel(table.success, table.failure, low, high)
    score = _column(rows, table.score, low=low, high=high)
    if table.probability:
        return model.expected(score, _column(rows, table.probability, low=0.0, high=1.0))
    names, codes = group_codes(groups)
    success = np.empty(len(score))
    for place in range(len(names)):
        mine = codes == place
        success[mine] = success_curve(score[mine], truth[mine])
    return model.realised(score, truth, success)


def _column(rows: Any, name: str, *, low: float, high: float) -> FloatArray:
    import numpy as np

    if name not in rows.columns:
        raise DataError(
            f"[gate.fairness.delayed_impact] names the column {name!r}, which [data] test does "
            "not have",
            hint=f"columns: {', '.join(map(str, rows.columns[:12]))}",
        )
    values = as_numbers(rows[name].to_numpy(), whose=name)
    outside = ~((values >= low) & (values <= high))  # NaN too
    if outside.any():
        raise DataError(
            f"{name!r} is missing or outside {number(low)} to {number(high)} in "
            f"{count(int(outside.sum()))} of {count(len(values))} rows, "
            f"e.g. {number(float(values[outside][0]))}",
            hint="correct the data, or low and high in [gate.fairness.delayed_impact]",
        )
    return np.asarray(values, np.float64)


def positive_class(model: JudgedModel) -> Any:
    """Return the class that is a yes: the second of two, as scikit-learn has it.

    Raises
    ------
    UsageError
        If the model does not have two classes.
    """
    if model.classes is None or len(model.classes) != 2:  # yes and no
        raise UsageError(
            f"{model.name} does not tell two classes apart, so it answers neither yes nor no",
            hint="thresholds and delayed impact need a classifier of two classes",
        )
    return model.classes[1]


# --- judging ---------------------------------------------------------------------------------


def find_impact(model: JudgedModel, rows: Any, *, by: str, gate: FairnessGate) -> Finding:
    """Judge what a model's answers do to the groups of one attribute.

    Parameters
    ----------
    model : JudgedModel
        A classifier of two classes.
    rows : pandas.DataFrame of shape (n_rows, n_columns)
        Rows that have a label.
    by : str
        Column that holds the attribute.
    gate : FairnessGate
        With its ``delayed_impact`` table.

    Returns
    -------
    Finding

    Raises
    ------
    DataError
        If a column is absent or holds no usable numbers.
    UsageError
        If the model does not have two classes, or app.toml does not say what a yes changes.
    """
    import numpy as np

    table = gate.delayed_impact
    if table is None:
        raise UsageError(
            "app.toml does not say what a yes changes",
            hint="write [gate.fairness.delayed_impact] with success and failure",
        )
    if by not in rows.columns:
        raise DataError(f"there is no attribute {by!r} in the data", hint="correct `by`")
    positive = positive_class(model)
    answers = model.predict(rows)
    unusable = int((~np.asarray(answers.valid, bool)).sum())
    if unusable:
        return Finding(
            id=ID,
            subject=by,
            verdict=Verdict.FAILED,
            summary=f"{model.name} gave no usable prediction (NaN, infinite or missing) on "
            f"{count(unusable)} of {count(len(rows))} rows",
            n=len(rows),
            reason="not_finite",
            next_step="find the rows on which predict gives NaN, and let the model handle them",
        )
    truth = rows[model.target].to_numpy().astype(object) == positive
    yes = answers.labels.astype(object) == positive
    groups = attribute(rows, by)
    moved = changes(table, rows, truth, groups)
    names, codes = group_codes(groups)
    per_group = {name: np.where(yes, moved, 0.0)[codes == at] for at, name in enumerate(names)}
    optional = {
        text.partition("=")[2].strip()
        for text in gate.optional_groups
        if text.partition("=")[0].strip() == by
    }
    judged = _judged(per_group, table, gate.min_group_size, optional)
    best: dict[str, float] = {}
    if answers.scores is not None:
        scores = np.asarray(answers.scores, float)
        tables = {
            name: ScoreTable.of_rows(scores[codes == at], truth[codes == at], moved[codes == at])
            for at, name in enumerate(names)
        }
        best = _best(tables, utility_of(table))
    return _finding(by, table, judged, best)


def _judged(
    per_group: Mapping[str, FloatArray],
    table: DelayedImpactGate,
    min_group_size: int,
    optional: set[str],
) -> dict[str, Judgement]:
    """Judge each group's mean at a level at which all hold together; leave out what may be."""
    import numpy as np

    kept = {
        name: values
        for name, values in per_group.items()
        if values.size >= min_group_size or name not in optional
    }
    level = max(table.confidence_level, 1 - sidak(table.family_error, max(1, len(kept))))
    z = critical_value(level)
    judged = {}
    for name, all_values in kept.items():
        # A change that was corrected by what came true may miss its bound by its last digit.
        values = np.clip(all_values, table.failure, table.success)
        interval = mean_interval(
            values, low=table.failure, high=table.success, confidence_level=level
        )
        error = interval.width / (2 * z)

        def support(error: float = error, n: int = values.size) -> Support:
            enough = mean_support(error, limit=table.margin, z=z) >= POWER
            rows = error**2 * n * ((z + POWER_Z) / table.margin) ** 2 if table.margin else None
            return Support(
                enough=enough,
                sizes=(n,),
                n_needed=None if enough or rows is None else two_digits(math.ceil(rows)),
                smallest_limit=None if enough else float(f"{error * (z + POWER_Z):.2g}"),
            )

        judged[name] = judge_limit(
            float(values.mean()),
            interval,
            limit=table.at_least,
            bound="at_least",
            n=values.size,
            min_rows=min_group_size,
            decide=table.decide,
            confidence_level=level,
            support=support,
        )
    return judged


def _best(tables: Mapping[str, ScoreTable], utility: Utility) -> dict[str, float]:
    """Return each group's mean change under its own threshold of maximum utility."""
    shares = dict.fromkeys(tables, 1 / len(tables))
    cuts = choose("max_utility_per_group", tables, shares=shares, utility=utility)
    found = {name: one.operate(cuts[name], utility).impact for name, one in tables.items()}
    return {name: impact for name, impact in found.items() if impact is not None}


def _finding(
    by: str,
    table: DelayedImpactGate,
    judged: Mapping[str, Judgement],
    best: Mapping[str, float],
) -> Finding:
    worst = max(judged, key=lambda name: (judged[name].verdict.severity, -_value(judged[name])))
    one = judged[worst]
    harms = {
        name: harm(_value(each), best.get(name, -math.inf))
        for name, each in judged.items()
        if each.value is not None and each.n >= SMALL_GROUP
    }
    few = one.n < SMALL_GROUP
    score = f"mean {table.score}" if table.score else "mean score"
    harmed = [f"{by}={printable(name, 40)}" for name, kind in harms.items() if kind == "active"]
    change = TOO_FEW_TO_SHOW if few else estimate(one.value, one.interval, one.n)
    summary = (
        f"the answers change the {score} of {by}={printable(worst, 40)} by {change}; limit at "
        f"least {number(table.at_least)}"
    )
    if one.verdict is not Verdict.PASSED or one.reason == "not_proven":
        summary += f". {_qualified(one)}"
    if harmed:
        summary += f". Active harm: the mean falls for {listed(harmed)}"
    return Finding(
        id=ID,
        subject=by,
        verdict=one.verdict,
        summary=summary,
        value=None if few else one.value,
        limit=table.at_least,
        interval=None if few or one.interval is None else (one.interval.low, one.interval.high),
        n=None if few else one.n,
        n_min=one.n_needed,
        reason=one.reason,
        measurements=tuple(
            Measurement(
                name=CHECK,
                value=each.value,
                n=each.n,
                low=None if each.interval is None else each.interval.low,
                high=None if each.interval is None else each.interval.high,
                group=f"{by}={printable(name, 60)}",
            )
            for name, each in judged.items()
        ),
        details={
            "at_max_utility": {name: best[name] for name in harms if name in best},
            "harm": harms,
            "smallest_margin": one.smallest_limit,
        },
    )


def _value(one: Judgement) -> float:
    return math.inf if one.value is None else one.value


def _qualified(one: Judgement) -> str:
    """Say what the verdict means, or leaves open."""
    lowest = None if one.interval is None else one.interval.low
    told = {
        "limit_exceeded": "It falls short of the limit: a yes to as many of them does them harm",
        "not_proven": f"Not proven: it could be down to {number(lowest)}",
        "above_not_proven": "Beyond the limit, but not proven to be",
        "few": f"Too few rows: {group_size(one.n)}, and {count(one.n_needed)} are needed",
    }
    needed = (
        "set margin to at least that, or bring more rows"
        if one.n_needed is None
        else f"the margin asked for needs about {count(one.n_needed)}"
    )
    undecided = (
        f"Undecided: the smallest margin that {count(one.n)} rows can judge is "
        f"{number(one.smallest_limit)}; {needed}"
    )
    return told.get(one.reason, undecided)
