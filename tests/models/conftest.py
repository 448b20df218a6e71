"""Models that the tests of this room share."""

import numpy as np
import pandas as pd
import pytest

from mlguard.config import AppSettings


@pytest.fixture(scope="session")
def make_settings():
    """Settings of an app; tables are given as keyword arguments."""

    def make(**tables):
        app = {"description": "d", "owner": "o", "decision": "e", "success_metric": "m"}
        tables["app"] = app | tables.get("app", {})
        tables["data"] = {"test": "test.csv", "target": "y"} | tables.get("data", {})
        return AppSettings.model_validate(tables)

    return make


@pytest.fixture(scope="session")
def numbers():
    """Two numeric columns and a target of three classes."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(120, 2)), columns=["a", "b"])
    frame["y"] = (frame["a"] > 0).astype(int) + (frame["b"] > 0.5)
    return frame


@pytest.fixture(scope="session")
def applicants():
    """Mixed columns with missing cells, as read from a file, and a target of two classes."""
    rng = np.random.default_rng(1)
    n_rows = 200
    frame = pd.DataFrame(
        {
            "income": np.where(rng.random(n_rows) < 0.1, np.nan, rng.lognormal(size=n_rows)),
            "children": rng.integers(0, 4, n_rows),
            "owner": rng.random(n_rows) < 0.5,
            "job": pd.array(rng.choice(["cook", "clerk", None], n_rows), dtype="str"),
            "sex": pd.array(rng.choice(["F", "M"], n_rows), dtype="str"),
        }
    )
    chance = 1 / (1 + np.exp(-(frame["income"].fillna(1) - 1.2)))
    frame["y"] = np.where(rng.random(n_rows) < chance, "paid", "late").astype(object)
    return frame


@pytest.fixture(scope="session")
def lender(applicants):
    """A pipeline over mixed columns that picks them by name."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    prepare = ColumnTransformer(
        [
            ("n", make_pipeline(SimpleImputer(), StandardScaler()), ["income", "children"]),
            ("c", OneHotEncoder(handle_unknown="ignore"), ["job", "owner"]),
        ]
    )
    columns = ["income", "children", "owner", "job"]
    model = make_pipeline(prepare, LogisticRegression())
    return model.fit(applicants[columns], applicants["y"])
