"""Five questions to the test rows, most of them beside the training rows.

``schema``
    Same columns, same kinds, no column that lost all its values or gained values that training
    never saw, a target that is there and has more than one value.
``missing``
    The share of missing values of no column changes by more than 5 points from training.
``duplicates``, ``overlap``
    At most 5 % of the test rows occur more than once, or were already in training.
``leakage``
    No single column predicts the target almost perfectly (AUC above 0.99, rank correlation for
    a regression): such a column usually knows the answer.

The limits are effect sizes.  With ``decide = "evidence"`` a limit that is passed only by what
chance could do is WARNED instead of FAILED; ``"proof"`` passes only what its interval proves, and
``"estimate"`` compares the estimate.  A schema is a fact and has no interval.

Results name columns, never values of the data, except classes of the target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard.checks.evidence import Subject
from mlguard.checks.labels import nearest
from mlguard.config import CheckPolicy
from mlguard.results import Finding, Measurement, Verdict
from mlguard.stats.multiplicity import bonferroni
from mlguard.stats.proportions import newcombe_difference, wilson_interval
from mlguard.wording import count, listed, number, printable, share

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: Change of a column's missing share that is ignored.
MISSING_CHANGE = 0.05
#: Share of test rows that may occur twice, or be in training too.
REPEATED_SHARE = 0.05
#: AUC (or rank correlation) from which one column alone knows the answer.
LEAKAGE = 0.99
#: Share of values that training never saw, from which a category has changed.
UNSEEN_SHARE = 0.05
#: Problems that a summary tells; all of them stand in the details.
_TOLD = 4
#: Fewer labelled rows of a class than this rank nothing.
_FEWEST = 10
_MOST_ROWS = 50_000
_SEED = 20_240_503
_DEFAULT = CheckPolicy()
#: Kinds that a model meets as the same kind of value.
_ALIKE = {"integer": "number", "number": "number", "category": "text", "text": "text"}


def _against(
    value: float, interval: tuple[float, float], limit: float, policy: CheckPolicy
) -> tuple[Verdict, str]:
    """Hold a figure that must stay below a limit against it; return verdict and reason."""
    low, high = interval
    if policy.decide != "estimate":
        if low > limit:
            return Verdict.FAILED, "limit_exceeded"
        if high <= limit:
            return Verdict.PASSED, ""
        if policy.decide == "proof":
            return Verdict.INCONCLUSIVE, "not_proven"
        return (Verdict.WARNED, "above_not_proven") if value > limit else (Verdict.PASSED, "")
    return (Verdict.FAILED, "limit_exceeded") if value > limit else (Verdict.PASSED, "")


# --- schema ------------------------------------------------------------------------------


def schema(subject: Subject, policy: CheckPolicy = _DEFAULT) -> Finding:  # noqa: ARG001
    """Judge whether the test rows look like what the model was trained on."""
    data = subject.settings.data
    test, train = subject.test, subject.train
    problems = _target_problems(test, train, data.target, subject.settings.app.task)
    problems += _feature_problems(subject)
    compared = "the columns that the candidate needs"
    if train is not None:
        ignored = {data.id, data.time}
        problems += _column_problems(train, test, ignored=ignored, target=data.target)
        compared = "[data] train"
    n_columns = len(test.columns)
    # One column is named once, by what is worst about it.
    found = dict(reversed(problems))
    told = [found[column] for column in dict.fromkeys(column for column, _ in problems)]
    if not told:
        return Finding(
            id="data_quality.schema",
            verdict=Verdict.PASSED,
            summary=f"{count(n_columns)} columns and {count(len(test))} rows agree with {compared}",
            n=len(test),
        )
    more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return Finding(
        id="data_quality.schema",
        verdict=Verdict.FAILED,
        summary="; ".join(told[:_TOLD]) + more,
        value=float(len(told)),
        limit=0.0,
        n=len(test),
        reason="schema",
        next_step="correct [data] test, or train again on rows that look like it",
        details={"columns": [printable(column) for column in found], "problems": told},
    )


def _target_problems(
    test: pd.DataFrame, train: pd.DataFrame | None, target: str, task: str
) -> list[tuple[str, str]]:
    labels = test[target].dropna()
    lost = len(test) - len(labels)
    problems = []
    if lost:
        problems.append(
            (
                target,
                f"the target {target!r} is missing on {count(lost)} of {count(len(test))} rows",
            )
        )
    if task == "regression":
        return problems
    classes = set(labels.unique().tolist())
    if len(classes) == 1:
        only = printable(next(iter(classes)), 40)
        problems.append((target, f"every test row has the same class {only!r} in {target!r}"))
    if train is not None:
        unseen = sorted(map(str, classes - set(train[target].dropna().unique().tolist())))
        if unseen:
            names = listed([repr(printable(one, 40)) for one in unseen], 4)
            verb = "is a class" if len(unseen) == 1 else "are classes"
            problems.append(
                (target, f"{names} {verb} of {target!r} in test that training never had")
            )
    return problems


def _feature_problems(subject: Subject) -> list[tuple[str, str]]:
    columns = subject.test.columns
    problems = []
    for name in subject.candidate.features:
        if name not in columns:
            text = f"column {name!r}, which the candidate needs, is not in test"
            problems.append((name, text + nearest(name, columns)))
        elif subject.test[name].isna().all():
            problems.append((name, f"column {name!r} has no value in any row of test"))
    return problems


def _column_problems(
    train: pd.DataFrame, test: pd.DataFrame, *, ignored: set[str], target: str
) -> list[tuple[str, str]]:
    from mlguard.data.schema import infer_schema

    before, after = infer_schema(train), infer_schema(test)
    problems = []
    for name in before.names:
        if name in ignored:
            continue
        if name not in after.names:
            text = f"column {name!r} of train is not in test" + nearest(name, after.names)
            problems.append((name, text))
            continue
        was, now = before[name], after[name]
        if now.missing_share == 1 and was.missing_share < 1:
            problems.append((name, f"column {name!r} has no value in any row of test"))
        elif was.missing_share < 1 and _ALIKE.get(was.kind, was.kind) != _ALIKE.get(
            now.kind, now.kind
        ):
            problems.append(
                (name, f"column {name!r} holds {was.kind} in train, {now.kind} in test")
            )
        elif was.categories is not None and name != target:
            unseen = test[name].dropna().astype(str)
            new = float((~unseen.isin(was.categories)).mean()) if len(unseen) else 0.0
            if new > UNSEEN_SHARE:
                problems.append(
                    (name, f"column {name!r}: {share(new)} of the test rows hold unseen values")
                )
    problems += [
        (name, f"column {name!r} of test is not in train" + nearest(name, before.names))
        for name in after.names
        if name not in before.names and name not in ignored
    ]
    return problems


# --- missing -----------------------------------------------------------------------------


def missing(subject: Subject, policy: CheckPolicy = _DEFAULT) -> Finding:
    """Judge whether a column is filled as often as it was in training."""
    train, test = _both(subject)
    shared = [name for name in test.columns if name in train.columns]
    level = max(policy.confidence_level, 1 - bonferroni(policy.family_error, max(1, len(shared))))
    changes = []
    for name in shared:
        now, was = int(test[name].isna().sum()), int(train[name].isna().sum())
        interval = newcombe_difference(now, len(test), was, len(train), confidence_level=level)
        changes.append(_Change(name, now / len(test), was / len(train), interval))
    judged = [(*_against(*one.size, MISSING_CHANGE, policy), one) for one in changes]
    # By verdict, then by size: the first speaks for all.
    judged.sort(key=lambda one: (-one[0].severity, -abs(one[2].value)))
    verdict, reason, worst = judged[0]
    named = [one for found, _, one in judged if found is not Verdict.PASSED]
    if not named:
        return Finding(
            id="data_quality.missing",
            verdict=Verdict.PASSED,
            summary=f"all {count(len(shared))} columns are filled as often in test as in train, "
            f"give or take {100 * MISSING_CHANGE:.0f} points",
            limit=MISSING_CHANGE,
            n=len(test),
        )
    told = [f"{printable(one.name, 60)!r} ({share(one.was)} → {share(one.now)})" for one in named]
    says = "may change" if verdict is Verdict.INCONCLUSIVE else "changes"
    return Finding(
        id="data_quality.missing",
        verdict=verdict,
        summary=f"the share of missing values {says} from train to test: {listed(told)}",
        value=worst.value,
        limit=MISSING_CHANGE,
        interval=worst.interval,
        n=len(test),
        reason=reason,
        next_step="find out why; the model learnt from other gaps than it will meet",
        measurements=tuple(
            Measurement(name=f"missing in {part}", group=printable(one.name, 60), value=value, n=n)
            for one in named
            for part, value, n in (("test", one.now, len(test)), ("train", one.was, len(train)))
        ),
    )


@dataclass(frozen=True)
class _Change:
    """A column's share of missing values in test and in train."""

    name: str
    now: float
    was: float
    interval: tuple[float, float]

    @property
    def value(self) -> float:
        return self.now - self.was

    @property
    def size(self) -> tuple[float, tuple[float, float]]:
        """The change without its direction, and its bounds."""
        low, high = self.interval if self.value >= 0 else (-self.interval[1], -self.interval[0])
        return abs(self.value), (max(low, 0.0), max(high, -low))


# --- duplicates and overlap --------------------------------------------------------------


def duplicates(subject: Subject, policy: CheckPolicy = _DEFAULT) -> Finding:
    """Judge how many rows repeat an earlier one exactly."""
    parts = {"test": subject.test}
    if subject.train is not None:
        parts["train"] = subject.train
    ignored = [subject.settings.data.id]
    repeats = {
        part: int(frame.drop(columns=ignored, errors="ignore").duplicated().sum())
        for part, frame in parts.items()
    }
    told = ", ".join(f"{count(repeats[part])} in {part}" for part in parts)
    part = max(parts, key=lambda one: repeats[one] / len(parts[one]))
    return _repeated(
        "data_quality.duplicates",
        repeats[part],
        len(parts[part]),
        f"rows that repeat an earlier row of their file: {told}",
        policy=policy,
        next_step="remove the repeats, or name the column that tells rows apart in [data] id",
        measurements=tuple(
            Measurement(
                name="repeats", group=f"[data] {one}", value=repeats[one] / len(frame), n=len(frame)
            )
            for one, frame in parts.items()
        ),
    )


def overlap(subject: Subject, policy: CheckPolicy = _DEFAULT) -> Finding:
    """Judge how many test rows the model was trained on."""
    import pandas as pd

    train, test = _both(subject)
    data = subject.settings.data
    shared = [
        name for name in test.columns if name in train.columns and name not in (data.id, data.time)
    ]
    hashed = [
        pd.util.hash_pandas_object(_plain(frame[shared]), index=False).to_numpy()
        for frame in (test, train)
    ]
    both = int(pd.Series(hashed[0]).isin(hashed[1]).sum())
    return _repeated(
        "data_quality.overlap",
        both,
        len(test),
        f"{count(both)} of {count(len(test))} test rows are in train too",
        policy=policy,
        next_step="split again so that no row is in both; on known rows every figure flatters",
    )


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose equal values hash alike whatever type their file gave them."""
    from pandas.api import types

    return frame.assign(
        **{
            name: frame[name].astype("float64")
            for name in frame.columns
            if types.is_numeric_dtype(frame[name].dtype)
        }
    )


def _repeated(
    name: str,
    repeated: int,
    n: int,
    told: str,
    *,
    policy: CheckPolicy,
    next_step: str,
    measurements: tuple[Measurement, ...] = (),
) -> Finding:
    """Judge a share of repeated rows, counted on all rows there are."""
    low, high = wilson_interval(repeated, n, confidence_level=policy.confidence_level)
    value = repeated / n
    verdict, reason = _against(value, (low, high), REPEATED_SHARE, policy)
    return Finding(
        id=name,
        verdict=verdict,
        summary=f"{told}; limit {share(REPEATED_SHARE)}",
        value=value,
        limit=REPEATED_SHARE,
        interval=(low, high),
        n=n,
        reason=reason,
        next_step="" if verdict is Verdict.PASSED else next_step,
        measurements=measurements,
    )


# --- leakage -----------------------------------------------------------------------------


def leakage(subject: Subject, policy: CheckPolicy = _DEFAULT) -> Finding:
    """Judge whether one column alone predicts the target almost perfectly.

    A number is used as it is, in either direction; text by the share of each class that its
    values have in the other half of the rows, so that a column of names cannot know the answer
    by heart.  More than two classes: the pair that the column tells apart worst decides.  With
    training rows the lesser of both parts counts.
    """
    data = subject.settings.data
    regression = subject.settings.app.task == "regression"
    measure = _rank_correlation if regression else _class_auc
    named = "rank correlation" if regression else "AUC"
    parts = [subject.labelled]
    if subject.train is not None and data.target in subject.train.columns:
        parts.append(subject.train[subject.train[data.target].notna()])
    parts = [
        one.sample(_MOST_ROWS, random_state=_SEED) if len(one) > _MOST_ROWS else one
        for one in parts
    ]
    rows = parts[0]
    scores = {}
    for name in subject.candidate.features:
        found = [measure(part[name], part[data.target]) for part in parts if name in part.columns]
        # A column that knows the answer knows it in both parts; where one part cannot be ranked,
        # nothing is known.
        scores[name] = min(found) if found and all(map(math.isfinite, found)) else math.nan
    known = {name: one for name, one in scores.items() if math.isfinite(one)}
    if not known:
        return Finding(
            id="data_quality.leakage",
            verdict=Verdict.INCONCLUSIVE,
            summary=f"no column could be ranked against the target on {count(len(rows))} rows: "
            f"each class needs {_FEWEST}",
            n=len(rows),
            n_min=2 * _FEWEST,
            reason="few",
            next_step="judge it on more test rows",
        )
    order = sorted(known, key=lambda name: -known[name])
    best = order[0]
    interval = _as_votes(known[best], len(rows), policy.confidence_level)
    verdict, reason = _against(known[best], interval, LEAKAGE, policy)
    leaking = [name for name in order if known[name] > LEAKAGE] or [best]
    told = listed(
        [f"{printable(name, 60)!r} ({named} {number(known[name], places=3)})" for name in leaking]
    )
    summary = f"no column alone predicts the target; the nearest to it is {told}"
    if verdict is not Verdict.PASSED:
        may = "may alone predict" if verdict is Verdict.INCONCLUSIVE else "alone predicts"
        summary = f"{told} {may} the target almost perfectly"
    return Finding(
        id="data_quality.leakage",
        verdict=verdict,
        summary=f"{summary}; limit {number(LEAKAGE)}",
        value=known[best],
        limit=LEAKAGE,
        interval=interval,
        n=len(rows),
        reason=reason,
        next_step=""
        if verdict is Verdict.PASSED
        else "make sure that the column is known before the decision, or leave it out",
        measurements=tuple(
            Measurement(name=named, group=printable(name, 60), value=known[name], n=len(rows))
            for name in order[:5]
        ),
    )


def _rank_correlation(values: pd.Series[Any], truth: pd.Series[Any]) -> float:
    from scipy import stats

    order = _as_scores(values, truth)
    if order is None or len(set(order.tolist())) == 1:
        return 0.0
    found = stats.spearmanr(order, truth.to_numpy(float))
    return abs(float(found.statistic)) if math.isfinite(found.statistic) else 0.0


def _class_auc(values: pd.Series[Any], truth: pd.Series[Any]) -> float:
    """Return the AUC of the pair of classes that a column tells apart worst; NaN: too few."""
    import numpy as np

    classes = [one for one, n in truth.value_counts().items() if n >= _FEWEST]
    if len(classes) < 2:  # noqa: PLR2004  one class cannot be told from itself
        return math.nan
    worst = 1.0
    for place, first in enumerate(classes):
        for second in classes[place + 1 :]:
            chosen = truth.isin([first, second])
            positive = (truth[chosen] == first).to_numpy()
            scores = _as_scores(values[chosen], truth[chosen] == first)
            if scores is None:
                return math.nan
            worst = min(worst, _auc(np.asarray(scores), positive))
            if worst < LEAKAGE and len(classes) > 2:  # noqa: PLR2004  the other pairs decide nothing
                break
    return worst


def _as_scores(values: pd.Series[Any], truth: pd.Series[Any]) -> np.ndarray | None:
    """Return a column as numbers to rank by; missing cells rank below all."""
    import numpy as np
    from pandas.api import types

    if types.is_numeric_dtype(values.dtype) or types.is_bool_dtype(values.dtype):
        numbers = values.to_numpy(float, na_value=np.nan)
        finite = numbers[np.isfinite(numbers)]
        lowest = finite.min() - 1 if finite.size else 0.0
        return np.where(np.isnan(numbers), lowest, numbers)
    if types.is_datetime64_any_dtype(values.dtype):
        return values.to_numpy("datetime64[ns]").astype("int64").astype(float)
    # Each half is ranked by what the other half teaches about its values.
    target = truth.astype(float).to_numpy()
    texts = values.astype("object").where(values.notna(), None).map(str)
    half = np.arange(len(texts)) % 2 == 0
    scores = np.empty(len(texts))
    for ours in (half, ~half):
        taught = (
            texts[~ours].to_frame("value").assign(target=target[~ours]).groupby("value")["target"]
        )
        scores[ours] = texts[ours].map(taught.mean()).fillna(target[~ours].mean()).to_numpy()
    return scores


def _auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve in the better direction, ties counted half."""
    from scipy import stats

    ranks = stats.rankdata(scores)
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not (n_positive and n_negative):
        return math.nan
    area = (ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
    return float(max(area, 1 - area))


def _as_votes(value: float, n: int, confidence_level: float) -> tuple[float, float]:
    """Return Wilson bounds as if each row had voted: wide where there are few."""
    low, high = wilson_interval(value * n, n, confidence_level=confidence_level)
    return low, high


def _both(subject: Subject) -> tuple[pd.DataFrame, pd.DataFrame]:
    train = subject.train
    # Not declared without training rows: whoever asks has some.
    assert train is not None
    return train, subject.test
