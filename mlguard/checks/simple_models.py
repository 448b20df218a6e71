"""The simple models that a candidate is held against: majority, mean, stump, linear.

All are trained on ``[data] train`` with the columns that the candidate sees, within seconds
whatever the size of the data: beyond :data:`MOST_ROWS` a fixed random sample is used.

``majority``
    The most frequent class, whatever the row says.
``mean``
    The mean of the target.
``stump``
    One question about one column.
``linear``
    Logistic or ridge regression on standardised numbers and the frequent categories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlguard.checks.evidence import JudgedModel
from mlguard.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from mlguard.checks.evidence import Subject

NAMES = ("majority", "mean", "stump", "linear")
#: More rows than this teach a simple model nothing.
MOST_ROWS = 50_000
_CATEGORIES = 20
_SEED = 20_240_501


def train_simple(name: str, subject: Subject) -> JudgedModel:
    """Train a simple model for the task of a subject.

    Parameters
    ----------
    name : {"majority", "mean", "stump", "linear"}
        Which one.
    subject : Subject
        Holds the data and the columns that the candidate sees.

    Returns
    -------
    JudgedModel

    Raises
    ------
    UsageError
        If the model does not fit the task, or there is no such model.
    DataError
        If there is no training data, or its target has no values.
    """
    regression = subject.settings.app.task == "regression"
    if name not in NAMES:
        raise UsageError(f"no simple model {name!r}; known: {', '.join(NAMES)}")
    if name == ("majority" if regression else "mean"):
        other = "mean" if regression else "majority"
        raise UsageError(
            f"{name!r} is no baseline for a {subject.settings.app.task}",
            hint=f'write beats = "{other}" in [gate.baseline]',
        )
    train = subject.train
    if train is None:
        raise DataError(
            f"[data] train of {subject.settings.name} is not declared, and {name!r} learns from it",
            hint="name the training rows in [data] train",
        )
    target = subject.settings.data.target
    rows = train[train[target].notna()]
    if rows.empty:
        raise DataError(f"no training row has a value in {target!r}", hint="look at [data] train")
    if len(rows) > MOST_ROWS:
        rows = rows.sample(MOST_ROWS, random_state=_SEED)
    features = list(subject.candidate.features)
    seen, truth = rows[features], rows[target].to_numpy()
    model = simple_estimator(name, seen, regression=regression, classes=len(set(truth.tolist())))
    model.fit(seen, truth)
    return JudgedModel(name, model, target=target, features=features)


def simple_estimator(name: str, rows: pd.DataFrame, *, regression: bool, classes: int) -> Any:
    """Return a simple model that is not fitted yet; ``rows`` tell which columns are numbers."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    if name == "mean":
        return DummyRegressor(strategy="mean")
    if name == "majority" or (classes == 1 and not regression):
        # One class leaves nothing to learn; whoever compares says so.
        return DummyClassifier(strategy="most_frequent")
    if name == "stump":
        tree = DecisionTreeRegressor if regression else DecisionTreeClassifier
        return make_pipeline(_columns(rows), tree(max_depth=1, random_state=_SEED))
    linear = Ridge() if regression else LogisticRegression(max_iter=200, tol=1e-3)
    return make_pipeline(_columns(rows), linear)


def _columns(rows: pd.DataFrame) -> Any:
    from pandas.api import types
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [
        name
        for name in rows.columns
        if types.is_numeric_dtype(rows[name].dtype) and not rows[name].isna().all()
    ]
    texts = [
        name
        for name in rows.columns
        if not types.is_numeric_dtype(rows[name].dtype)
        and not types.is_datetime64_any_dtype(rows[name].dtype)
    ]
    parts: list[tuple[str, Any, list[str]]] = []
    if numbers:
        scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        parts.append(("numbers", scaled, numbers))
    if texts:
        frequent = OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=_CATEGORIES, sparse_output=False
        )
        parts.append(("texts", frequent, texts))
    if not parts:
        raise DataError(
            "no column that the candidate sees can be learnt from: "
            "each is empty or a point in time",
            hint="look at [data] features and at the training rows",
        )
    return ColumnTransformer(parts)
