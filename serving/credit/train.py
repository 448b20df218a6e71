"""Write the data and the two models of ``credit``: a made-up lender, and a choice to make.

The data is generated, so its truth is known, and it says nothing about anybody: the groups of
``race`` are called A, B and C for that reason.  Everything below is seeded; every run writes the
same rows.

Files
-----
``data/train.csv``, ``data/test.csv``
    30,000 applicants in order of time; the older half to train on, the newer half to test on.
``model.skops``
    The model to deploy.  It does without the two columns of the credit bureau, which know less
    about some people than about others.
``naive.skops``
    The same pipeline on all 12 columns.  It is right more often, and it refuses people of
    group C, and women, who would have repaid, more often than others: the gate stops it.

The world
---------
``repaid`` is 1 for an applicant who repays and 0 for one who does not.  The model answers 1 to
lend and 0 to refuse.  So a *false negative* would have repaid and is refused, and a *false
positive* gets a loan and does not repay.

Each applicant has a *solidity* z, which nobody sees:

    z = 0.25 + SEX_SHIFT[sex] + RACE_SHIFT[race] + N(0, 1)
    repaid = 1  where  z + 0.55 N(0, 1) > 0

    sex        F 48 %, M 52 %              SEX_SHIFT    F +0.03, M -0.03
    race       A 60 %, B 25 %, C 15 %      RACE_SHIFT   A +0.04, B -0.01, C -0.12

so the shares who repay differ: about 0.60 of F and 0.58 of M; 0.60 of A, 0.58 of B, 0.55 of C.
What a lender does see are 12 columns.  Ten of them show z equally well for everybody, each
through a view v = z + s N(0, 1) of its own:

    income            thousands a year        exp(3.5 + 0.15 v)                  s = 2.0
    employment_years  years in work           8 exp(0.2 v), at most 50           s = 2.4
    debt_ratio        debts / income          1 / (1 + exp(0.8 + 0.25 v))        s = 2.0
    savings_months    months of spending      3 exp(0.25 v), 6 % not stated      s = 2.4
    late_payments     in the last two years   Poisson(exp(-0.3 - 0.3 v))         s = 1.8
    loan_amount       thousands               exp(2.3 - 0.05 v + 0.5 N(0, 1))    s = 2.0
    loan_months       12, 24, 36, 48, 60      any, alike
    housing           owns, rents, family     owns if v > 1, family if v < -2    s = 2.6
    employment        permanent, temporary,   permanent if v > 0, unemployed
                      self_employed,          if v < -4; between them temporary
                      unemployed              or self_employed, alike            s = 2.8
    purpose           car, home, education,   any, alike
                      medical, other

The other two come from a credit bureau.  Its view of z is noisier for people of whom it has seen
little, and lower, because it takes a thin file for a bad sign:

    v = z - UNDERSTATED[sex] - UNDERSTATED[race] + (NOISE[sex] + NOISE[race]) N(0, 1)

    UNDERSTATED       F 0.35, M 0          A 0, B 0.15, C 0.60
    NOISE             F 0.55, M 0.40       A 0, B 0.20, C 0.60

    credit_score      300 to 850              600 + 85 v
    file_years        years on file           6 exp(0.3 v + 0.4 N(0, 1))

``applied_at`` is uniform over 2024 and 2025; nothing else depends on time.  ``applicant`` numbers
the rows.  ``sex`` and ``race`` are kept to check the models and are never shown to them.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

HERE = Path(__file__).parent
SEED = 2024
N_APPLICANTS = 30_000

SHARE_OF_F = 0.48
RACE_SHARES = {"A": 0.60, "B": 0.25, "C": 0.15}
SEX_SHIFT = {"F": 0.03, "M": -0.03}
RACE_SHIFT = {"A": 0.04, "B": -0.01, "C": -0.12}
UNDERSTATED = {"F": 0.35, "M": 0.0, "A": 0.0, "B": 0.15, "C": 0.60}
NOISE = {"F": 0.55, "M": 0.40, "A": 0.0, "B": 0.20, "C": 0.60}

TARGET = "repaid"
NUMBERS = [
    "income",
    "employment_years",
    "debt_ratio",
    "savings_months",
    "late_payments",
    "loan_amount",
    "loan_months",
]
CATEGORIES = ["housing", "employment", "purpose"]
FROM_THE_BUREAU = ["credit_score", "file_years"]


def applicants(n=N_APPLICANTS, seed=SEED):
    """Return ``n`` applicants in order of time, as the module's docstring describes them."""
    rng = np.random.default_rng(seed)

    def looked_up(table, *groups):
        return sum(np.array([table[one] for one in group]) for group in groups)

    sex = np.where(rng.random(n) < SHARE_OF_F, "F", "M")
    race = rng.choice(list(RACE_SHARES), n, p=list(RACE_SHARES.values()))
    z = 0.25 + looked_up(SEX_SHIFT, sex) + looked_up(RACE_SHIFT, race) + rng.normal(size=n)

    def view(s):
        return z + s * rng.normal(size=n)

    housing, employment = view(2.6), view(2.8)
    neither = rng.choice(["temporary", "self_employed"], n)
    bureau = z - looked_up(UNDERSTATED, sex, race)
    bureau = bureau + looked_up(NOISE, sex, race) * rng.normal(size=n)
    seconds = np.sort(rng.uniform(0, 731 * 86_400, n)).astype("int64")

    frame = pd.DataFrame(
        {
            "applicant": np.arange(1, n + 1),
            "applied_at": pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s"),
            "sex": sex,
            "race": race,
            "income": np.exp(3.5 + 0.15 * view(2.0)).round(1),
            "employment_years": np.minimum(50, 8 * np.exp(0.2 * view(2.4))).round(1),
            "debt_ratio": (1 / (1 + np.exp(0.8 + 0.25 * view(2.0)))).round(3),
            "savings_months": (3 * np.exp(0.25 * view(2.4))).round(1),
            "late_payments": rng.poisson(np.exp(-0.3 - 0.3 * view(1.8))),
            "loan_amount": np.exp(2.3 - 0.05 * view(2.0) + 0.5 * rng.normal(size=n)).round(1),
            "loan_months": rng.choice([12, 24, 36, 48, 60], n),
            "housing": np.select([housing > 1, housing < -2], ["owns", "family"], "rents"),
            "employment": np.select(
                [employment > 0, employment < -4], ["permanent", "unemployed"], neither
            ),
            "purpose": rng.choice(["car", "home", "education", "medical", "other"], n),
            "credit_score": np.clip(600 + 85 * bureau, 300, 850).round().astype("int64"),
            "file_years": (6 * np.exp(0.3 * bureau + 0.4 * rng.normal(size=n))).round(1),
            TARGET: (z + 0.55 * rng.normal(size=n) > 0).astype("int64"),
        }
    )
    frame.loc[rng.random(n) < 0.06, "savings_months"] = np.nan
    return frame


def fitted(train, numbers):
    """Return a logistic regression on ``numbers`` and the categories, fitted to ``train``."""
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), CATEGORIES),
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=1000))
    return model.fit(train[[*numbers, *CATEGORIES]], train[TARGET])


def write(path, write_to):
    """Let ``write_to`` fill a file beside ``path``, then put it in place: all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    write_to(unfinished)
    unfinished.replace(path)


def main():
    """Make everything that ``app.toml`` names, and ``naive.skops``."""
    everybody = applicants()
    train, test = everybody.iloc[: N_APPLICANTS // 2], everybody.iloc[N_APPLICANTS // 2 :]
    write(HERE / "data" / "train.csv", lambda path: train.to_csv(path, index=False))
    write(HERE / "data" / "test.csv", lambda path: test.to_csv(path, index=False))
    print(f"credit: {len(train)} applicants to train on, {len(test)} to test on")

    for name, numbers in (
        ("model.skops", NUMBERS),
        ("naive.skops", [*NUMBERS, *FROM_THE_BUREAU]),
    ):
        model = fitted(train, numbers)
        write(HERE / name, lambda path, model=model: skops.io.dump(model, path))
        right = model.score(test[model.feature_names_in_], test[TARGET])
        print(f"{name}: {right:.3f} of the test part right")


if __name__ == "__main__":
    main()
