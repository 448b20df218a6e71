"""Write what the demo needs: data, three models, and traffic in which the world changes.

All of it is made up and seeded; every run writes the same rows.

Files
-----
``data/train.csv``, ``data/test.csv``
    3,000 applicants each.
``v1.skops``
    Leaves out two columns: ``bureau_score``, which is new, and ``unbroken_years``.
``v2.skops``
    Uses ``bureau_score`` too, and is right more often.
``unfair.skops``
    Uses ``unbroken_years`` too.  Women who would repay are refused more often by it than men.
``traffic.csv``
    Labelled applicants, in the order in which they come.  The first 600 are like those above.
    Then the bureau changes its scale: the same person gets a score 120 points lower.
    Whether people repay has not changed, so a model that does not look at the score is as good
    as before, and one that does is wrong about four times in ten.

The world
---------
``repaid`` is 1 for an applicant who repays.  The model answers 1 to lend, 0 to refuse.  Nobody
sees an applicant's solidity z; each column is a view v = z + s N(0, 1) of it:

    z = N(0, 1);  repaid = 1 where z + 0.3 N(0, 1) > 0

    income          thousands a year        exp(3.5 + 0.2 v)            s = 1.1
    debt_ratio      debts / income          1 / (1 + exp(0.8 + 0.4 v))  s = 1.1
    savings_months  months of spending      3 exp(0.3 v)                s = 1.3
    housing         owns, rents, family     by v > 1, between, v < -1   s = 1.8
    unbroken_years  years at work without   12 + 4 v, women 5 less,     s = 0.4
                    a break                 for leave taken
    bureau_score    300 to 850              620 + 70 v                  s = 0.35
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

HERE = Path(__file__).parent
SEED = 11
N_TRAIN = N_TEST = 3_000
N_BEFORE, N_AFTER = 600, 800
LOWER_BY = 120

TARGET = "repaid"
OLD_NUMBERS = ["income", "debt_ratio", "savings_months"]
FEATURES = [*OLD_NUMBERS, "housing", "unbroken_years", "bureau_score"]


def applicants(n, rng):
    """Return ``n`` applicants, as the module's docstring describes them."""
    z = rng.normal(size=n)

    def view(s):
        return z + s * rng.normal(size=n)

    sex = rng.choice(["F", "M"], n)
    housing = view(1.8)
    years = 12 + 4 * view(0.4) - np.where(sex == "F", 5, 0)
    return pd.DataFrame(
        {
            "sex": sex,
            "income": np.exp(3.5 + 0.2 * view(1.1)).round(1),
            "debt_ratio": (1 / (1 + np.exp(0.8 + 0.4 * view(1.1)))).round(3),
            "savings_months": (3 * np.exp(0.3 * view(1.3))).round(1),
            "housing": np.select([housing > 1, housing < -1], ["owns", "family"], "rents"),
            "unbroken_years": np.maximum(0, years).round(1),
            "bureau_score": np.clip(620 + 70 * view(0.35), 300, 850).round().astype("int64"),
            TARGET: (z + 0.3 * rng.normal(size=n) > 0).astype("int64"),
        }
    )


def fitted(train, numbers):
    """Return a logistic regression on ``numbers`` and housing, fitted to ``train``.

    Every model is handed all six columns and leaves alone those it does not use: so they all
    take the same requests, and one can stand in for another.
    """
    columns = make_column_transformer(
        (StandardScaler(), numbers),
        (OneHotEncoder(handle_unknown="ignore"), ["housing"]),
        remainder="drop",
    )
    return make_pipeline(columns, LogisticRegression()).fit(train[FEATURES], train[TARGET])


def write(path, write_to):
    """Let ``write_to`` fill a file beside ``path``, then put it in place: all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    write_to(unfinished)
    unfinished.replace(path)


def main():
    """Make every file that the docstring names."""
    rng = np.random.default_rng(SEED)
    train, test = applicants(N_TRAIN, rng), applicants(N_TEST, rng)
    traffic = applicants(N_BEFORE + N_AFTER, rng)
    after = traffic.index >= N_BEFORE
    traffic.loc[after, "bureau_score"] = (traffic["bureau_score"] - LOWER_BY).clip(lower=300)

    for path, frame in (
        (HERE / "data" / "train.csv", train),
        (HERE / "data" / "test.csv", test),
        (HERE / "traffic.csv", traffic),
    ):
        write(path, lambda path, frame=frame: frame.to_csv(path, index=False))
    for name, numbers in (
        ("v1.skops", OLD_NUMBERS),
        ("v2.skops", [*OLD_NUMBERS, "bureau_score"]),
        ("unfair.skops", [*OLD_NUMBERS, "unbroken_years"]),
    ):
        model = fitted(train, numbers)
        write(HERE / name, lambda path, model=model: skops.io.dump(model, path))
        print(f"{name}: {model.score(test[FEATURES], test[TARGET]):.3f} of the test part right")


if __name__ == "__main__":
    main()
