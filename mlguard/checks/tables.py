"""Questions to the columns of the test rows, most of them beside the training rows.

``schema``
    Same columns, same kinds, no column that lost all its values or that holds not one value
    that training saw, a target that is there and has more than one value.
``missing``
    The share of missing values of no column changes by more than 5 points from training.
``ranges``, ``categories``
    At most 5 % of a column's numbers lie beyond the range of training, at most 5 % of its
    values are of a category that training never saw.
``constants``
    No column holds one value on all rows, or on nearly all.

All are answered from one pass over each file (:mod:`mlguard.data.scan`), so they take constant
memory whatever the size of the data.  Limits are effect sizes, each in a table of its own.  A
schema is a fact and has no interval.

Results name columns, never values of the data, except classes of the target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlguard.checks.counted import FEWEST, ColumnShare, judge_columns, too_few
from mlguard.checks.evidence import Subject
from mlguard.checks.failing_cells import list_cells
from mlguard.checks.labels import nearest
from mlguard.config import (
    CategoriesCheck,
    CheckPolicy,
    ConstantsCheck,
    MissingCheck,
    RangesCheck,
)
from mlguard.results import Finding, Measurement, Verdict
from mlguard.stats.groups import GapJudgement, judge_gap
from mlguard.stats.multiplicity import bonferroni
from mlguard.stats.proportions import newcombe_difference
from mlguard.stats.rates import Rate
from mlguard.wording import count, listed, printable, share

if TYPE_CHECKING:
    from mlguard.data.column_scan import ColumnScan
    from mlguard.data.scan import TableScan

#: Problems that a summary tells; all of them stand in the details.
_TOLD = 4
#: Kinds that a model meets as the same kind of value.
_ALIKE = {"integer": "number", "number": "number", "category": "text", "text": "text"}


# --- schema ------------------------------------------------------------------------------


def schema(subject: Subject, policy: CheckPolicy | None = None) -> Finding:  # noqa: ARG001
    """Judge whether the test rows look like what the model was trained on."""
    data = subject.settings.data
    test, train = subject.test_scan, subject.train_scan
    problems = _target_problems(test, train, data.target, subject.settings.app.task)
    problems += _feature_problems(subject)
    compared = "the columns that the candidate needs"
    if train is not None:
        problems += compare_schemas(train, test, ignored={data.id, data.time}, target=data.target)
        compared = "[data] train"
    # One column is named once, by what is worst about it.
    found = dict(reversed(problems))
    told = [found[column] for column in dict.fromkeys(column for column, _ in problems)]
    if not told:
        return Finding(
            id="data_quality.schema",
            verdict=Verdict.PASSED,
            summary=f"{count(len(test.names))} columns and {count(test.n_rows)} rows agree "
            f"with {compared}",
            n=test.n_rows,
        )
    more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return Finding(
        id="data_quality.schema",
        verdict=Verdict.FAILED,
        summary="; ".join(told[:_TOLD]) + more,
        value=float(len(told)),
        limit=0.0,
        n=test.n_rows,
        reason="schema",
        next_step="correct [data] test, or train again on rows that look like it",
        details={"columns": [printable(column) for column in found], "problems": told},
    )


def class_counts(scan: ColumnScan) -> dict[str, int] | None:
    """Return how often each class of a target occurs; None where there are too many.

    Numbers are named alike whatever their file calls them: ``1`` and ``1.0`` are one class.
    """
    tally = scan.tally
    if tally is None:
        return None
    numeric = scan.column.kind in ("number", "integer", "boolean")
    found: dict[str, int] = {}
    for value, n in tally.items():
        name = plain_class(value) if numeric else str(value)
        found[name] = found.get(name, 0) + n
    return found


def plain_class(value: Any) -> str:
    """Return the name of a class that is a number or a truth value, whatever its file calls it."""
    try:
        return f"{float(value):.15g}"
    except ValueError:
        # Truth values of a CSV file; in Parquet they are numbers.
        return "1" if str(value).lower() == "true" else "0"


def _target_problems(
    test: TableScan, train: TableScan | None, target: str, task: str
) -> list[tuple[str, str]]:
    labels = test[target]
    problems = []
    if labels.n_missing:
        lost = f"on {count(labels.n_missing)} of {count(test.n_rows)} rows"
        problems.append((target, f"the target {target!r} is missing {lost}"))
    classes = class_counts(labels)
    if task == "regression" or classes is None:
        return problems
    if len(classes) == 1:
        only = printable(next(iter(classes)), 40)
        problems.append((target, f"every test row has the same class {only!r} in {target!r}"))
    known = None if train is None or target not in train else class_counts(train[target])
    if known is not None:
        unseen = sorted(classes.keys() - known.keys())
        if unseen:
            names = listed([repr(printable(one, 40)) for one in unseen], 4)
            verb = "is a class" if len(unseen) == 1 else "are classes"
            problems.append(
                (target, f"{names} {verb} of {target!r} in test that training never had")
            )
    return problems


def _feature_problems(subject: Subject) -> list[tuple[str, str]]:
    scan = subject.test_scan
    problems = []
    for name in subject.candidate.features:
        if name not in scan:
            text = f"column {name!r}, which the candidate needs, is not in test"
            problems.append((name, text + nearest(name, scan.names)))
        elif not scan[name].n:
            problems.append((name, f"column {name!r} has no value in any row of test"))
    return problems


def compare_schemas(
    train: TableScan, test: TableScan, *, ignored: set[str], target: str
) -> list[tuple[str, str]]:
    """Return what differs between two tables, as columns and sentences.

    Parameters
    ----------
    train, test : TableScan
        What was, and what is; ``test`` was scanned with ``train`` as its reference.
    ignored : set of str
        Columns that may be anything.
    target : str
        Column whose values are compared elsewhere.
    """
    before, after = train.schema, test.schema
    problems = []
    for name in before.names:
        if name in ignored:
            continue
        if name not in after.names:
            text = f"column {name!r} of train is not in test" + nearest(name, after.names)
            problems.append((name, text))
            continue
        was, now = before[name], after[name]
        if not test[name].n:
            if train[name].n:
                problems.append((name, f"column {name!r} has no value in any row of test"))
        elif train[name].n and _ALIKE.get(was.kind, was.kind) != _ALIKE.get(now.kind, now.kind):
            problems.append(
                (name, f"column {name!r} holds {was.kind} in train, {now.kind} in test")
            )
        elif was.categories is not None and name != target and test[name].outside == test[name].n:
            problems.append((name, f"column {name!r} holds not one value that training saw"))
    problems += [
        (name, f"column {name!r} of test is not in train" + nearest(name, before.names))
        for name in after.names
        if name not in before.names and name not in ignored
    ]
    return problems


# --- missing -----------------------------------------------------------------------------


def missing(subject: Subject, policy: MissingCheck | None = None) -> Finding:
    """Judge whether a column is filled as often as it was in training."""
    train, test = _both(subject)
    found = compare_missing(train, test, policy or MissingCheck())
    if found.verdict is Verdict.FAILED:
        found = replace(found, next_step=found.next_step + subject.rows_listed)
    for name in found.details.get("columns", []):
        list_cells(subject, found.id, name, "missing")
    return found


def compare_missing(train: TableScan, test: TableScan, policy: MissingCheck) -> Finding:
    """Judge whether the columns of one table are filled as often as those of another."""
    check = "data_quality.missing"
    shared = [name for name in test.names if name in train]
    n = min(test.n_rows, train.n_rows)
    if n < FEWEST:
        return too_few(check, n, policy.at_most)
    # Where neither file lacks a cell there is nothing to compare; a proof asks for rows even so.
    proof = policy.decide == "proof"
    some = [one for one in shared if proof or test[one].n_missing or train[one].n_missing]
    error = bonferroni(policy.family_error, max(1, len(shared)))
    changes = [_change(name, train[name], test[name], policy, error) for name in some]
    # By verdict, then by size: the first speaks for all.
    changes.sort(key=lambda one: (-one.judged.verdict.severity, -abs(one.value)))
    named = [one for one in changes if one.judged.verdict is not Verdict.PASSED]
    if not named:
        return Finding(
            id=check,
            verdict=Verdict.PASSED,
            summary=f"all {count(len(shared))} columns are filled as often in test as in train, "
            f"give or take {100 * policy.at_most:.3g} points",
            limit=policy.at_most,
            n=test.n_rows,
        )
    worst = named[0]
    told = [f"{printable(one.name, 60)!r} ({share(one.was)} → {share(one.now)})" for one in named]
    undecided = worst.judged.verdict is Verdict.INCONCLUSIVE
    says = "may change" if undecided else "changes"
    why = "" if worst.judged.verdict is Verdict.FAILED else f"; {worst.judged.explain()}"
    return Finding(
        id=check,
        verdict=worst.judged.verdict,
        summary=f"the share of missing values {says} from train to test: {listed(told)}; limit "
        f"{100 * policy.at_most:.3g} points{why}",
        value=worst.value,
        limit=policy.at_most,
        interval=worst.interval,
        n=test.n_rows,
        n_min=worst.judged.n_needed,
        reason=worst.judged.reason,
        next_step=(worst.judged.next_step if undecided else "")
        or "find out why these columns are filled otherwise: the model learnt with other gaps than "
        "it will meet",
        measurements=tuple(
            Measurement(name=f"missing in {part}", group=printable(one.name, 60), value=value, n=n)
            for one in named
            for part, value, n in (
                ("test", one.now, test.n_rows),
                ("train", one.was, train.n_rows),
            )
        ),
        details={"columns": [one.name for one in named]},
    )


@dataclass(frozen=True)
class _Change:
    """A column's share of missing values in test and in train."""

    name: str
    now: float
    was: float
    interval: tuple[float, float]
    judged: GapJudgement

    @property
    def value(self) -> float:
        return self.now - self.was


def _change(
    name: str, train: ColumnScan, test: ColumnScan, policy: MissingCheck, error: float
) -> _Change:
    counted = (test.n_missing, test.n_rows), (train.n_missing, train.n_rows)
    level = max(policy.confidence_level, 1 - error)
    judged = judge_gap(
        {part: Rate(*one) for part, one in zip(("test", "train"), counted, strict=True)},
        limit=policy.at_most,
        min_group_size=FEWEST,
        confidence_level=policy.confidence_level,
        family_error=error,
        decide=policy.decide,
    )
    low, high = newcombe_difference(*counted[0], *counted[1], confidence_level=level)
    return _Change(name, test.missing_share, train.missing_share, (low, high), judged)


# --- ranges and categories ---------------------------------------------------------------


def ranges(subject: Subject, policy: RangesCheck | None = None) -> Finding:
    """Judge how many numbers lie beyond what training saw."""
    return _unseen(
        subject,
        policy or RangesCheck(),
        check="data_quality.ranges",
        kinds=("number", "integer"),
        none="every number of test lies within the range of training",
        some="numbers of test lie beyond the range of training",
        changed="a unit, a code for missing or the world",
        rule="beyond the range of training",
    )


def categories(subject: Subject, policy: CategoriesCheck | None = None) -> Finding:
    """Judge how many values are of a category that training never saw."""
    return _unseen(
        subject,
        policy or CategoriesCheck(),
        check="data_quality.categories",
        kinds=("category", "boolean"),
        none="every category of test was seen in training",
        some="values of test are of categories that training never saw",
        changed="a spelling, a code or the world",
        rule="a category that training never saw",
    )


def _unseen(
    subject: Subject,
    policy: RangesCheck | CategoriesCheck,
    *,
    check: str,
    kinds: tuple[str, ...],
    none: str,
    some: str,
    changed: str,
    rule: str,
) -> Finding:
    """Judge the columns of some kinds by their share of values that training never had."""
    train, test = _both(subject)
    found = judge_columns(
        check,
        _outside(subject, train, test, kinds),
        policy=policy,
        limit=policy.at_most,
        n=test.n_rows,
        none=none,
        some=lambda columns: f"{some}: {columns}",
        next_step=f"look at these columns, where {changed} has changed{subject.rows_listed}",
    )
    for name in found.details.get("columns", []):
        list_cells(subject, found.id, name, rule, train[name])
    return found


def _outside(
    subject: Subject, train: TableScan, test: TableScan, kinds: tuple[str, ...]
) -> list[ColumnShare]:
    data = subject.settings.data
    ignored = {data.id, data.time, data.target}
    return [
        ColumnShare(name, test[name].outside, test[name].n)
        for name in test.names
        if name in train
        and name not in ignored
        and train[name].n
        and train[name].column.kind in kinds
    ]


# --- constants ---------------------------------------------------------------------------


def constants(subject: Subject, policy: ConstantsCheck | None = None) -> Finding:
    """Judge whether the candidate's columns vary: one that does not teaches nothing."""
    at_most = (policy or ConstantsCheck()).at_most
    check = "data_quality.constants"
    train, test = subject.train_scan, subject.test_scan
    parts = {"train": train, "test": test} if train is not None else {"test": test}
    n = min(scan.n_rows for scan in parts.values())
    if n < FEWEST:
        return too_few(check, n, at_most)
    features = [name for name in subject.candidate.features if name in test]
    same: dict[str, list[str]] = {}
    nearly: dict[str, float] = {}
    for part, scan in parts.items():
        for name in features:
            if name not in scan:
                continue
            top = scan[name].top
            if scan[name].constant or not scan[name].n:
                same.setdefault(name, []).append(part)
            elif top is not None and top[1] > at_most * scan[name].n:
                nearly[name] = max(nearly.get(name, 0.0), top[1] / scan[name].n)
    nearly = {name: value for name, value in nearly.items() if name not in same}
    told = [
        f"{printable(name, 60)!r} holds one value or none on all rows of {' and '.join(where)}"
        for name, where in same.items()
    ]
    told += [
        f"{printable(name, 60)!r} holds one value on {100 * value:.4g} % of the rows"
        for name, value in sorted(nearly.items(), key=lambda one: -one[1])
    ]
    verdict = Verdict.FAILED if same else Verdict.WARNED if nearly else Verdict.PASSED
    return Finding(
        id=check,
        verdict=verdict,
        summary=listed(told, _TOLD)
        if told
        else f"no value holds more than {100 * at_most:.3g} % of a column "
        f"in any of {count(len(features))} columns",
        value=1.0 if same else max(nearly.values(), default=None),
        limit=at_most,
        n=n,
        reason="constant" if same else "nearly_constant" if nearly else "",
        next_step="leave such a column out, or find out why it does not vary" if told else "",
        details={"columns": [printable(name) for name in (*same, *nearly)]},
    )


def _both(subject: Subject) -> tuple[TableScan, TableScan]:
    train = subject.train_scan
    # Not declared without training rows: whoever asks has some.
    assert train is not None
    return train, subject.test_scan
