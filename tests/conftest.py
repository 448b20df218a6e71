"""What every test may ask for."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data with known answers: MLGUARD_TEST_DATA, or ../shared/data."""
    named = os.environ.get("MLGUARD_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "manifest.json").is_file():
        pytest.skip(f"no test data: {folder} has no manifest.json; set MLGUARD_TEST_DATA")
    return folder


LENDER = """\
# The app "credit" of a test.

[app]
description = "Will the loan be paid back?"
owner = "credit@example.com"
decision = "whether a loan is offered"
success_metric = "loans paid back"
input = "table"

[data]
train = "train.csv"
test = "test.csv"
sensitive = "sex"  # whom the gate compares

[model]
path = "model.skops"

[gate.fairness]
metrics = ["false_negative_rate"]
at_most = 0.1
"""


@pytest.fixture(scope="session")
def lender_folder(tmp_path_factory) -> Path:
    """A lender whose view of F is lower than the truth; never changed by a test."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mlguard.models.formats import save_model

    folder = tmp_path_factory.mktemp("lender")
    app = folder / "serving" / "credit"
    app.mkdir(parents=True)
    (folder / "mlguard.toml").write_text("")
    (app / "app.toml").write_text(LENDER)
    for part, seed in (("train", 1), ("test", 2)):
        rng = np.random.default_rng(seed)
        sex = rng.choice(["F", "M"], 3000)
        solid = rng.normal(0, 1, 3000)
        frame = pd.DataFrame(
            {
                "income": np.round(solid - 0.7 * (sex == "F") + rng.normal(0, 0.6, 3000), 2),
                "debts": np.round(-0.5 * solid + rng.normal(0, 1, 3000), 2),
                "sex": sex,
                "points": np.round(np.clip(600 + 80 * solid, 300, 850)),
                "y": (solid + rng.normal(0, 0.5, 3000) > 0).astype(int),
            }
        )
        frame.to_csv(app / f"{part}.csv", index=False)
        if part == "train":
            model = make_pipeline(StandardScaler(), LogisticRegression())
            save_model(model.fit(frame[["income", "debts"]], frame["y"]), app / "model.skops")
    return folder


@pytest.fixture
def lender(lender_folder, tmp_path) -> Path:
    """A copy of the lender's project that a test may do anything to."""
    folder = tmp_path / "lender"
    shutil.copytree(lender_folder, folder)
    return folder
