"""Training labels that are probably wrong, found by confident learning.

A simple model predicts every row from folds that did not hold it; what it then holds to be
confidently of another class than the label says is an issue.  Asked for by writing
``[gate.data_quality.label_issues]``, because it trains models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlguard.checks.counted import FEWEST, judge_share, too_few
from mlguard.checks.evidence import Subject
from mlguard.checks.failing_rows import list_rows
from mlguard.config import LabelIssuesCheck
from mlguard.errors import UsageError
from mlguard.results import Finding, Verdict
from mlguard.wording import count, share

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CHECK = "data_quality.label_issues"
#: More rows than this are not judged; a random sample of them is.
MOST_ROWS = 50_000
_SEED = 20_240_506


def label_issues(subject: Subject, policy: LabelIssuesCheck) -> Finding:
    """Judge how many labels of the training rows (else the test rows) are probably wrong."""
    import numpy as np

    from mlguard.stats import confident

    data = subject.settings.data
    if subject.settings.app.task == "regression":
        raise UsageError(
            "a regression has no classes, so no label can be of another one",
            hint="remove [gate.data_quality.label_issues] from app.toml",
        )
    part = "test" if subject.train_scan is None else "train"
    scan = subject.test_scan if part == "test" else subject.train_scan
    assert scan is not None  # there are test rows always
    features = [name for name in subject.candidate.features if name in scan]
    rows = subject.sample(part, MOST_ROWS, [*features, data.target])
    rows = rows[rows[data.target].notna()]
    classes, codes = np.unique(rows[data.target].astype(str).to_numpy(), return_inverse=True)
    n = np.bincount(codes, minlength=len(classes))
    if len(classes) < 2 or n.min() < policy.folds or len(rows) < FEWEST:  # classes
        needed = max(FEWEST, 2 * policy.folds)
        return too_few(CHECK, len(rows) if len(classes) > 1 else 0, policy.at_most, needed=needed)
    chances = _out_of_fold(rows[features], codes, policy.folds)
    issues = confident.label_issues(codes, chances)
    own = confident.self_confidence(codes, chances)
    if len(rows) == scan.n_rows:
        places = np.flatnonzero(issues)
        list_rows(
            subject, CHECK, part, places, rule="the label is probably wrong", column=data.target
        )
    found = int(issues.sum())
    judged = judge_share(found, len(rows), limit=policy.at_most, policy=policy)
    decided = judged.verdict in (Verdict.PASSED, Verdict.FAILED)
    return Finding(
        id=CHECK,
        verdict=judged.verdict,
        summary=f"{count(found)} of {count(len(rows))} labels of {part} are probably wrong "
        f"({share(found / len(rows))}): a simple model is confident of another class; limit "
        f"{share(policy.at_most)}" + ("" if decided else f"; {judged.explain()}"),
        value=judged.value,
        limit=policy.at_most,
        interval=judged.interval,
        n=len(rows),
        n_min=judged.n_needed,
        reason=judged.reason,
        next_step=""
        if judged.verdict is Verdict.PASSED
        else f"look at these rows{subject.rows_listed}",
        details={"mean_self_confidence": float(own.mean())},
    )


def _out_of_fold(rows: pd.DataFrame, codes: np.ndarray, folds: int) -> np.ndarray:
    """Return probabilities per class of models that did not see the row."""
    import numpy as np
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    from mlguard.checks.simple_models import simple_estimator

    model = simple_estimator("linear", rows, regression=False, classes=len(set(codes.tolist())))
    split = StratifiedKFold(folds, shuffle=True, random_state=_SEED)
    found = cross_val_predict(model, rows, codes, cv=split, method="predict_proba")
    return np.asarray(found, float)
