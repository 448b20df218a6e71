"""A small real project: credit on made-up applicants, a fitted model, and its bad relatives."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlguard.checks.evidence import Subject
from mlguard.config import load_app, load_project

# Set before anything imports them: no library of the gate may phone home.
os.environ["DO_NOT_TRACK"] = "1"
os.environ["GX_ANALYTICS_ENABLED"] = "false"

FEATURES = ["income", "age", "city"]
APP = """
[app]
description = "Will the loan be paid back?"
owner = "credit@example.com"
decision = "whether a loan is offered"
success_metric = "loans paid back"
input = "table"

[data]
train = "train.csv"
test = "test.csv"
sensitive = "sex"
"""


def applicants(n: int, seed: int) -> pd.DataFrame:
    """Applicants whose loan is paid back by income, age and city, whatever their sex."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "income": random.lognormal(10, 0.5, n).round(0),
            "age": random.integers(18, 80, n),
            "city": random.choice(["Ulm", "Bonn", "Kiel"], n),
            "sex": random.choice(["F", "M"], n),
        }
    )
    score = 2 * (np.log(frame["income"]) - 10) + (frame["age"] - 50) / 30
    score += 0.5 * (frame["city"] == "Ulm") + random.normal(0, 0.7, n)
    frame["y"] = (score > 0).astype(int)
    return frame


@pytest.fixture(scope="session")
def train_frame() -> pd.DataFrame:
    return applicants(3000, 1)


@pytest.fixture(scope="session")
def test_frame() -> pd.DataFrame:
    return applicants(3000, 2)


@pytest.fixture(scope="session")
def fitted(train_frame):
    """A pipeline over mixed columns."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["income", "age"]),
            ("texts", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=500))
    return model.fit(train_frame[FEATURES], train_frame["y"])


@pytest.fixture(scope="session")
def model_file(fitted, tmp_path_factory) -> Path:
    from mlguard.models.formats import save_model

    path = tmp_path_factory.mktemp("model") / "model.skops"
    save_model(fitted, path)
    return path


class Project:
    """A project in a folder of its own, with one app called credit."""

    base = APP

    def __init__(self, root: Path, model: bytes) -> None:
        self.root = root
        self.app = root / "serving" / "credit"
        self.checks = root / "checks" / "credit"
        self.app.mkdir(parents=True)
        self.checks.mkdir(parents=True)
        (root / "mlguard.toml").write_text("")
        (self.app / "model.skops").write_bytes(model)
        self.settings("")

    def settings(self, more: str, base: str = APP) -> None:
        (self.app / "app.toml").write_text(base + more)

    def data(self, **frames: pd.DataFrame) -> None:
        for part, frame in frames.items():
            frame.to_csv(self.app / f"{part}.csv", index=False)

    def test(self, code: str, name: str = "test_credit.py") -> None:
        (self.checks / name).write_text(code)

    def suite(self, *expectations: dict, name: str = "suite.json") -> None:
        folder = self.checks / "expectations"
        folder.mkdir(exist_ok=True)
        document = {"name": "credit", "expectations": list(expectations)}
        (folder / name).write_text(json.dumps(document))

    def subject(self, **options) -> Subject:
        project = load_project(self.root)
        return Subject(project, load_app(project, "credit"), **options)


@pytest.fixture
def project(tmp_path, model_file, train_frame, test_frame) -> Project:
    made = Project(tmp_path / "project", model_file.read_bytes())
    made.data(train=train_frame, test=test_frame)
    return made


@pytest.fixture
def bare_project(tmp_path, model_file) -> Project:
    """The same without data."""
    return Project(tmp_path / "project", model_file.read_bytes())


@pytest.fixture(scope="session")
def gx():
    """Great Expectations, imported once for all tests."""
    from mlguard.checks.expectations import great_expectations

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return great_expectations()


def by_name(decision) -> dict:
    """Results of a decision by their name."""
    return {one.name: one for one in decision.results}
