"""Whether one column alone knows the answer: such a column usually learnt it afterwards.

The limit is an effect size, an AUC (rank correlation for a regression) above 0.99 by default.
With ``decide = "evidence"`` one that is passed only by what chance could do is WARNED.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlguard.checks.evidence import Subject
from mlguard.config import LeakageCheck
from mlguard.results import Finding, Measurement, Verdict
from mlguard.stats.proportions import wilson_interval
from mlguard.wording import count, listed, number, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

#: Fewer labelled rows of a class than this rank nothing.
_FEWEST = 10
#: More rows than this say nothing more about a single column.
_MOST_ROWS = 50_000
#: A pair of classes that a column tells apart no better than this ends the search.
_TOLD_APART = 0.9
_DEFAULT = LeakageCheck()


def leakage(subject: Subject, policy: LeakageCheck = _DEFAULT) -> Finding:
    """Judge whether one of the candidate's columns alone predicts the target almost perfectly.

    A column has to do it in the test rows and, where there are any, in the training rows too.
    """
    data = subject.settings.data
    parts = []
    for part, scan in (("test", subject.test_scan), ("train", subject.train_scan)):
        if scan is None or data.target not in scan:
            continue
        columns = [one for one in subject.candidate.features if one in scan]
        frame = subject.sample(part, _MOST_ROWS, [*columns, data.target])
        parts.append(frame[frame[data.target].notna()])
    found = find_leakage(
        parts,
        subject.candidate.features,
        data.target,
        policy,
        regression=subject.settings.app.task == "regression",
    )
    if found.reason in ("few", ""):
        return found
    then = f"{found.next_step} ([data] features), then: mlguard check {subject.typed}"
    return replace(found, next_step=then if found.next_step else "")


def find_leakage(
    parts: Sequence[pd.DataFrame],
    features: Sequence[str],
    target: str,
    policy: LeakageCheck = _DEFAULT,
    *,
    regression: bool = False,
) -> Finding:
    """Judge whether one column alone predicts the target almost perfectly.

    A number is used as it is, in either direction; text by the share of each class that its
    values have in the other half of the rows, so that a column of names cannot know the answer
    by heart.  More than two classes: the pair that the column tells apart worst decides.  Of
    several parts the least counts.

    Parameters
    ----------
    parts : sequence of pandas.DataFrame
        Labelled rows; the first is the one that is judged.
    features : sequence of str
        Columns that are asked.
    target : str
        Column that holds the truth.
    policy : LeakageCheck
        Limit, and how the interval is held against it.
    regression : bool
        Whether the target is a number rather than a class.
    """
    measure = _rank_correlation if regression else class_auc
    named = "rank correlation" if regression else "AUC"
    rows = parts[0]
    scores = {}
    for name in features:
        found = [
            measure(part[name], part[target]) if part[name].notna().any() else math.nan
            for part in parts
            if name in part.columns
        ]
        # A column that knows the answer knows it in both parts; where one part cannot be ranked,
        # nothing is known.
        scores[name] = min(found) if found and all(map(math.isfinite, found)) else math.nan
    known = {name: one for name, one in scores.items() if math.isfinite(one)}
    if not known:
        return Finding(
            id="data_quality.leakage",
            verdict=Verdict.INCONCLUSIVE,
            summary=f"no column could be ranked against the target on {count(len(rows))} rows: "
            f"it needs values, and {_FEWEST} rows of each class",
            n=len(rows),
            n_min=2 * _FEWEST,
            reason="few",
            next_step="judge it on more test rows",
        )
    order = sorted(known, key=lambda name: -known[name])
    best = order[0]
    interval = _as_votes(known[best], len(rows), policy.confidence_level)
    verdict, reason = _against(known[best], interval, policy)
    leaking = [name for name in order if known[name] > policy.at_most] or [best]
    told = listed(
        [f"{printable(name, 60)!r} ({named} {number(known[name], places=3)})" for name in leaking]
    )
    summary = f"no column alone predicts the target; the nearest to it is {told}"
    if verdict is not Verdict.PASSED:
        may = "may alone predict" if verdict is Verdict.INCONCLUSIVE else "alone predicts"
        summary = f"{told} {may} the target almost perfectly"
        if reason == "above_not_proven":
            summary += f", which {count(len(rows))} rows do not prove"
    return Finding(
        id="data_quality.leakage",
        verdict=verdict,
        summary=f"{summary}; limit {number(policy.at_most)}",
        value=known[best],
        limit=policy.at_most,
        interval=interval,
        n=len(rows),
        reason=reason,
        next_step=""
        if verdict is Verdict.PASSED
        else "find out when the column is filled; what is known only after the decision must go",
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


def class_auc(values: pd.Series[Any], truth: pd.Series[Any]) -> float:
    """Return the AUC of the pair of classes that a column tells apart worst; NaN: too few.

    Parameters
    ----------
    values, truth : pandas.Series of shape (n_rows,)
        The column, and the class of each row.
    """
    import numpy as np

    classes = [one for one, n in truth.value_counts().items() if n >= _FEWEST]
    if len(classes) < 2:  # one class cannot be told from itself
        return math.nan
    worst = 1.0
    for first, second in itertools.combinations(classes, 2):
        chosen = truth.isin([first, second])
        positive = (truth[chosen] == first).to_numpy()
        scores = _as_scores(values[chosen], truth[chosen] == first)
        if scores is None:
            return math.nan
        worst = min(worst, _auc(np.asarray(scores), positive))
        if worst < _TOLD_APART:
            break  # with ten classes there are 45 pairs, and the worst only gets worse
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


def _against(
    value: float, interval: tuple[float, float], policy: LeakageCheck
) -> tuple[Verdict, str]:
    """Hold a figure that must stay below the limit against it; return verdict and reason."""
    low, high = interval
    over = value > policy.at_most
    if policy.decide == "estimate":
        return (Verdict.FAILED, "limit_exceeded") if over else (Verdict.PASSED, "")
    if low > policy.at_most:
        return Verdict.FAILED, "limit_exceeded"
    if high <= policy.at_most:
        return Verdict.PASSED, ""
    if policy.decide == "proof":
        return Verdict.INCONCLUSIVE, "not_proven"
    return (Verdict.WARNED, "above_not_proven") if over else (Verdict.PASSED, "")
