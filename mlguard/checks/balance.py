"""Whether the classes are as frequent in test as in training, for everybody and for each group.

The class counts come from the one pass over each file.  A group whose classes are mixed
otherwise in test than in training is judged on other people than the model learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlguard.checks.counted import FEWEST, too_few
from mlguard.checks.evidence import Subject
from mlguard.checks.tables import class_counts, plain_class
from mlguard.config import BalanceCheck
from mlguard.results import Finding, Measurement, Verdict
from mlguard.stats.groups import GapJudgement, judge_gap
from mlguard.stats.multiplicity import bonferroni
from mlguard.stats.rates import Rate
from mlguard.wording import count, listed, printable, share

if TYPE_CHECKING:
    from mlguard.data.scan import TableScan

CHECK = "data_quality.balance"
_TOLD = 4

Counts = Mapping[str, int]


def balance(subject: Subject, policy: BalanceCheck | None = None) -> Finding:
    """Judge how far the share of each class moves from training to test."""
    chosen = policy or BalanceCheck()
    train, test = subject.train_scan, subject.test_scan
    # Not declared without training rows: whoever asks has some.
    assert train is not None
    target = subject.settings.data.target
    whole = {"": tuple(class_counts(one[target]) for one in (train, test))}
    parts: dict[str, tuple[Counts | None, ...]] = {
        **whole,
        **_groups(train, test, target, subject.settings.data.sensitive),
    }
    n = min(sum((counts or {}).values()) for counts in parts[""])
    if any(counts is None for counts in parts[""]):
        return _too_many(test.n_rows)
    if n < FEWEST:
        return too_few(CHECK, n, chosen.at_most)
    known = {
        group: (was, now)
        for group, (was, now) in parts.items()
        if was is not None and now is not None and min(sum(was.values()), sum(now.values())) > 0
    }
    small = [g for g, pair in known.items() if min(sum(one.values()) for one in pair) < FEWEST]
    large = {group: pair for group, pair in known.items() if group not in small}
    tests = sum(len({*was, *now}) for was, now in large.values())
    judged = [
        (group, name, was, now, _judge(name, was, now, chosen, tests))
        for group, (was, now) in large.items()
        for name in sorted({*was, *now})
    ]
    judged.sort(key=lambda one: (-one[4].verdict.severity, -(one[4].value or 0.0), one[0] != ""))
    *_, now, worst = judged[0]
    named = [one for one in judged if one[4].verdict is not Verdict.PASSED]
    told = [_words(*one[:4]) for one in named or judged[:1]]
    if named and worst.verdict is Verdict.INCONCLUSIVE:
        summary = (
            "nobody can tell whether classes are as frequent in test as in train: "
            f"{listed(told, _TOLD)}"
        )
    elif named:
        summary = f"classes are not as frequent in test as in train: {listed(told, _TOLD)}"
    else:
        summary = f"every class is as frequent in test as in train; the largest change: {told[0]}"
    why = "" if worst.verdict in (Verdict.PASSED, Verdict.FAILED) else f"; {worst.explain()}"
    left_out = f"; {count(len(small))} groups with too few rows were left out" if small else ""
    undecided = worst.verdict is Verdict.INCONCLUSIVE
    return Finding(
        id=CHECK,
        verdict=worst.verdict,
        summary=f"{summary}; limit {100 * chosen.at_most:.3g} points{why}{left_out}",
        value=worst.value,
        limit=chosen.at_most,
        interval=worst.interval,
        n=sum(now.values()),
        n_min=worst.n_needed,
        reason=worst.reason,
        next_step=""
        if not named
        else (_more_rows(worst) if undecided else "")
        or "find out why, and draw test from the same people as train",
        measurements=tuple(
            Measurement(
                name=f"share in {part}",
                group=printable(f"{each or 'all'}: {cls}", 60),
                value=counts.get(cls, 0) / sum(counts.values()),
                n=sum(counts.values()),
            )
            for each, cls, before, after, _ in judged[:8]
            for part, counts in (("train", before), ("test", after))
        ),
        details={"too_small": len(small)},
    )


def _more_rows(judged: GapJudgement) -> str:
    if judged.n_needed is None:
        return ""
    return f"judge it on about {count(judged.n_needed)} rows of each file, and of each group"


def _judge(name: str, was: Counts, now: Counts, policy: BalanceCheck, tests: int) -> GapJudgement:
    return judge_gap(
        {
            "test": Rate(now.get(name, 0), sum(now.values())),
            "train": Rate(was.get(name, 0), sum(was.values())),
        },
        limit=policy.at_most,
        min_group_size=FEWEST,
        confidence_level=policy.confidence_level,
        family_error=bonferroni(policy.family_error, max(1, tests)),
        decide=policy.decide,
    )


def _words(group: str, name: str, was: Counts, now: Counts) -> str:
    before, after = (one.get(name, 0) / sum(one.values()) for one in (was, now))
    whom = f" of {printable(group, 60)}" if group else ""
    return f"class {printable(name, 40)!r}{whom} ({share(before)} → {share(after)})"


def _groups(
    train: TableScan, test: TableScan, target: str, sensitive: list[str]
) -> dict[str, tuple[Counts | None, ...]]:
    """Return the class counts of each group that both files have, by ``column=value``."""
    found: dict[str, tuple[Counts | None, ...]] = {}
    for column in sensitive:
        tables = [
            None if scan.pairs.get((target, column)) is None else _split(scan, target, column)
            for scan in (train, test)
        ]
        if tables[0] is None or tables[1] is None:
            continue
        for value in sorted(tables[0].keys() & tables[1].keys()):
            found[f"{column}={value}"] = (tables[0][value], tables[1][value])
    return found


def _split(scan: TableScan, target: str, column: str) -> dict[str, dict[str, int]]:
    counted = scan.pairs[target, column]
    assert counted is not None  # whoever asks has looked
    numeric = scan[target].column.kind in ("number", "integer", "boolean")
    found: dict[str, dict[str, int]] = {}
    for (label, value), n in counted.items():
        if label is None or value is None:
            continue
        name = plain_class(label) if numeric else str(label)
        classes = found.setdefault(str(value), {})
        classes[name] = classes.get(name, 0) + n
    return found


def _too_many(n: int) -> Finding:
    return Finding(
        id=CHECK,
        verdict=Verdict.INCONCLUSIVE,
        summary="the target has too many different values to count them as classes",
        n=n,
        reason="too_many_classes",
        next_step='write [app] task = "regression", or correct [data] target',
    )
