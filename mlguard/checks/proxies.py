"""Whether the features give a sensitive column away: a model that predicts it from them.

Leaving a column out of the features does not hide it where others together say the same.  A
boosted tree predicts each group against the rest from folds that did not hold the row; its AUC
with DeLong's interval is what is judged.  The columns that alone tell the groups apart best are
named: they are where the information is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlguard.checks.counted import FEWEST, too_few
from mlguard.checks.evidence import Subject
from mlguard.checks.leakage import class_auc
from mlguard.config import ProxiesCheck
from mlguard.errors import DataError
from mlguard.results import Finding, Measurement, Verdict
from mlguard.stats.decision import Judgement, Support, judge_limit
from mlguard.stats.delong import AreaEstimate, delong
from mlguard.stats.interval import critical_value
from mlguard.stats.multiplicity import bonferroni
from mlguard.stats.support import POWER_Z
from mlguard.wording import count, estimate, listed, number, printable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CHECK = "privacy.proxies"
#: Rows that are enough to see a proxy that matters.
_MOST_ROWS = 20_000
_FOLDS = 3
_MOST_CATEGORIES = 200
_NAMED = 3
_SEED = 20_240_507


def proxies(subject: Subject, column: str, policy: ProxiesCheck) -> Finding:
    """Judge how well the candidate's features tell the groups of a sensitive column apart."""
    data = subject.settings.data
    features = [one for one in subject.candidate.features if one != column]
    scan, part = subject.train_scan, "train"
    if scan is None or column not in scan or not set(features) <= set(scan.names):
        scan, part = subject.test_scan, "test"
    if column in subject.candidate.features:
        return Finding(
            id=CHECK,
            verdict=Verdict.FAILED,
            summary=f"{column!r} is itself a feature of the model: nothing has to stand for it",
            value=1.0,
            limit=policy.at_most,
            n=scan.n_rows,
            reason="is_feature",
            next_step="leave it out of [data] features unless the decision may rest on it",
        )
    if not features:
        raise DataError("the model sees no other column", hint="correct [data] features")
    rows = subject.sample(part, _MOST_ROWS, [*features, column])
    rows = rows[rows[column].notna() & (rows[column] != "")]
    groups = rows[column].astype(str)
    sizes = groups.value_counts()
    # A group that is everybody cannot be told from anybody.
    judged = [str(name) for name, n in sizes.items() if n >= FEWEST and len(rows) - n >= FEWEST]
    if not judged:
        return too_few(CHECK, int(sizes.iloc[1]) if len(sizes) > 1 else 0, policy.at_most)
    level = max(policy.confidence_level, 1 - bonferroni(policy.family_error, len(judged)))
    # With two groups, one against the rest is the other against the rest.
    asked = judged[:1] if len(sizes) == 2 else judged
    areas = {name: _area(rows[features], (groups == name).to_numpy(), level) for name in asked}
    worst = max(areas, key=lambda name: areas[name].value)
    judgement = _judge(areas[worst], len(rows), int(sizes[worst]), level, policy)
    alone = {name: class_auc(rows[name], groups == worst) for name in features}
    best = sorted((one for one in alone if math.isfinite(alone[one])), key=lambda one: -alone[one])
    told = listed(
        [f"{printable(one, 60)!r} ({number(alone[one], places=2)})" for one in best[:_NAMED]]
    )
    area = estimate(areas[worst].value, tuple(areas[worst].interval))
    decided = judgement.verdict in (Verdict.PASSED, Verdict.FAILED)
    return Finding(
        id=CHECK,
        verdict=judgement.verdict,
        summary=f"the features tell {column}={printable(worst, 40)} from the rest with AUC {area} "
        f"on {count(len(rows))} rows of {part}; limit {number(policy.at_most)}"
        + (f"; alone the best are {told}" if told else "")
        + ("" if decided else f"; {judgement.explain()}"),
        value=areas[worst].value,
        limit=policy.at_most,
        interval=areas[worst].interval,
        n=len(rows),
        n_min=judgement.n_needed,
        reason=judgement.reason,
        next_step=""
        if judgement.verdict is Verdict.PASSED
        else judgement.next_step
        if judgement.verdict is Verdict.INCONCLUSIVE and judgement.next_step
        else "leave out what only stands for it, or see how its groups fare: mlguard fairness "
        f"{subject.typed} --by {printable(column, 60)}",
        measurements=tuple(
            Measurement(
                name="AUC",
                group=f"{column}={printable(name, 40)}",
                value=one.value,
                low=one.interval.low,
                high=one.interval.high,
                n=int(sizes[name]),
            )
            for name, one in areas.items()
        ),
        details={"columns": [printable(one) for one in best[:_NAMED]], "target": data.target},
    )


def _judge(area: AreaEstimate, n: int, size: int, level: float, policy: ProxiesCheck) -> Judgement:
    z = critical_value(level)
    error = (area.interval.high - area.interval.low) / (2 * z)
    # An AUC has no room for twice its limit: what must show is half of the way to 1.
    apart = (1 - policy.at_most) / 2

    def support() -> Support:
        reach = (z + POWER_Z) * error
        return Support(
            enough=reach <= apart,
            sizes=(n,),
            n_needed=math.ceil(n * (reach / apart) ** 2),
            smallest_limit=max(0.5, 1 - 2 * reach) if reach < 0.25 else None,
            n_to_tell=None,
        )

    return judge_limit(
        area.value,
        area.interval,
        limit=policy.at_most,
        n=n,
        sizes=(min(size, n - size),),
        min_rows=FEWEST,
        decide=policy.decide,
        confidence_level=level,
        support=support,
    )


def _area(rows: pd.DataFrame, positive: np.ndarray, level: float) -> AreaEstimate:
    """Return the out-of-fold AUC of a boosted tree, with its interval."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    split = StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED)
    # Threads of OpenMP wait by spinning: on a machine that is busy they cost a hundredfold.
    with threadpool_limits(1, user_api="openmp"):
        chances = cross_val_predict(_model(rows), rows, positive, cv=split, method="predict_proba")
    return delong(positive, chances[:, 1], confidence_level=level)


def _model(rows: pd.DataFrame) -> object:
    from pandas.api import types
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    texts = [name for name in rows.columns if not types.is_numeric_dtype(rows[name].dtype)]
    coded = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=-1,
        max_categories=_MOST_CATEGORIES,
    )
    columns = make_column_transformer((coded, texts), remainder="passthrough")
    trees = HistGradientBoostingClassifier(max_iter=60, early_stopping=False, random_state=_SEED)
    return make_pipeline(columns, trees)
