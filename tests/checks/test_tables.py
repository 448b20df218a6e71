import gzip

import numpy as np
import pandas as pd
import pytest

from mlguard.checks import leakage, repeats, tables
from mlguard.checks.evidence import JudgedModel
from mlguard.config import MissingCheck, RepeatedCheck
from mlguard.data.frames import read_frame
from mlguard.results import Verdict

ADULT = [
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation"),
    *("relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week"),
    *("native-country", "income"),
]


class Always:
    """Answers one class."""

    def predict(self, rows):
        return np.zeros(len(rows))


def subject_of(bare_project, train, test, *, target="y", features=None, app=None, **data):
    """A subject on given frames, with a model that sees the given columns."""
    names = features or [name for name in test.columns if name != target]
    lines = [f"{key} = {value!r}" for key, value in data.items()]
    base = (app or bare_project.base).replace('sensitive = "sex"', "")
    if train is None:
        base = base.replace('train = "train.csv"', "")
    base = base.replace("[data]", "\n".join(["[data]", f"target = {target!r}", *lines]))
    bare_project.settings("", base)
    bare_project.data(test=test, **({} if train is None else {"train": train}))
    subject = bare_project.subject()
    subject.__dict__["candidate"] = JudgedModel("m", Always(), target=target, features=names)
    return subject


@pytest.fixture
def pair():
    random = np.random.default_rng(0)

    def one(n):
        return pd.DataFrame(
            {
                "a": random.normal(size=n).round(3),
                "b": random.integers(0, 50, n),
                "c": random.choice(["x", "y", "z"], n),
                "y": random.integers(0, 2, n),
            }
        )

    return one(800), one(600)


def test_alike_tables_pass(bare_project, pair):
    """Two samples of one population have the same schema."""
    found = tables.schema(subject_of(bare_project, *pair))
    assert found.verdict is Verdict.PASSED
    assert "4 columns and 600 rows" in found.summary


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(columns="b"), "column 'b'"),
        (lambda f: f.rename(columns={"c": "cc"}), "needs, is not in test (did you mean 'cc'?)"),
        (lambda f: f.assign(extra=1), "column 'extra' of test is not in train"),
        (lambda f: f.assign(b=f["b"].map("n{}".format)), "'b' holds integer in train, category"),
        (lambda f: f.assign(a=np.nan), "column 'a' has no value in any row"),
        (lambda f: f.assign(c="w"), "column 'c' holds not one value that training saw"),
        (lambda f: f.assign(y=1), "every test row has the same class '1'"),
        (lambda f: f.assign(y=f["y"] + 1), "'2' is a class of 'y' in test that training never had"),
        (lambda f: f.assign(y=f["y"].where(f.index > 8)), "'y' is missing on 9 of 600 rows"),
    ],
)
def test_a_changed_schema_is_named(bare_project, pair, change, says):
    """Every way in which the test rows differ from training is FAILED and says which column."""
    train, test = pair
    subject = subject_of(bare_project, train, change(test), features=["a", "b", "c"])
    found = tables.schema(subject)
    assert found.verdict is Verdict.FAILED
    assert says in found.summary
    assert found.next_step


def test_a_number_that_misses_a_value_is_still_a_number(bare_project, pair):
    """Whole numbers with a gap become floats in a file; that is no change of kind."""
    train, test = pair
    test = test.assign(b=test["b"].where(test.index > 3))
    assert tables.schema(subject_of(bare_project, train, test)).verdict is Verdict.PASSED


def test_schema_without_training_rows_asks_for_the_features(bare_project, pair):
    """With no training rows the candidate's own columns must be there."""
    subject = subject_of(bare_project, None, pair[1], features=["a", "bb"])
    found = tables.schema(subject)
    assert found.verdict is Verdict.FAILED
    assert "'bb', which the candidate needs, is not in test (did you mean 'b'?)" in found.summary


def test_missing_values_that_come_or_go_are_named(bare_project, pair):
    """A column that loses a fifth of its values is FAILED, one that loses two rows is not."""
    train, test = pair
    lossy = test.assign(a=test["a"].where(test.index % 5 > 0))
    found = tables.missing(subject_of(bare_project, train, lossy))
    assert found.verdict is Verdict.FAILED
    assert "'a' (0 % → 20 %)" in found.summary
    assert found.value == pytest.approx(0.2)
    gone = tables.missing(subject_of(bare_project, lossy, test))
    assert gone.verdict is Verdict.FAILED
    assert gone.value == pytest.approx(-0.2)
    two = test.assign(a=test["a"].where(test.index > 1))
    assert tables.missing(subject_of(bare_project, train, two)).verdict is Verdict.PASSED


def test_a_change_that_chance_could_make_only_warns(bare_project, pair):
    """Seven points of 600 are beyond the limit and could be chance: enough rows, no proof."""
    train, test = pair
    more = test.assign(a=test["a"].where(test.index >= 42))
    found = tables.missing(subject_of(bare_project, train, more))
    assert found.verdict is Verdict.WARNED
    assert found.reason == "above_not_proven"
    assert "rows each would tell" in found.summary


def test_too_few_rows_are_undecided_and_say_what_would_do(bare_project, pair):
    """Twenty rows judge nothing; sixty have too little support, and say how many would have it."""
    train, test = pair
    for n, reason in ((20, "few"), (60, "no_support")):
        few = test.head(n).assign(a=test["a"].head(n).where(test.index[:n] > 3))
        subject = subject_of(bare_project, train, few)
        found = tables.missing(subject)
        assert found.verdict is Verdict.INCONCLUSIVE
        assert found.reason == reason
        assert found.n_min > n
        assert str(found.n_min) in found.next_step
    assert "smallest limit this data can judge is" in found.summary
    for judge in (tables.ranges, tables.categories, tables.constants, repeats.duplicates):
        tiny = judge(subject_of(bare_project, train, test.head(20)))
        assert tiny.verdict is Verdict.INCONCLUSIVE
        assert "20 rows are too few" in tiny.summary


def test_the_policy_decides_what_an_interval_means(bare_project, pair):
    """Proof passes only what is proven, estimate compares the estimate."""
    train, test = pair
    few = test.head(60).assign(a=test["a"].head(60).where(test.index[:60] > 3))
    subject = subject_of(bare_project, train, few)
    missing = MissingCheck(decide="proof")
    assert tables.missing(subject, missing).verdict is Verdict.INCONCLUSIVE
    for judge in (repeats.duplicates, repeats.overlap):
        assert judge(subject, RepeatedCheck(decide="proof")).verdict is Verdict.INCONCLUSIVE
    estimate = MissingCheck(decide="estimate")
    assert tables.missing(subject, estimate).verdict is Verdict.FAILED
    once = RepeatedCheck(decide="estimate")
    assert repeats.duplicates(subject, once).verdict is Verdict.PASSED


def test_duplicates_and_overlap_are_counted(bare_project, pair):
    """Rows that occur twice, and rows that training already had, are counted exactly."""
    train, test = pair
    twice = pd.concat([test, test.head(60)], ignore_index=True)
    found = repeats.duplicates(subject_of(bare_project, train, twice))
    assert found.verdict is Verdict.FAILED
    assert found.value == pytest.approx(60 / 660)
    mixed = pd.concat([test, train.head(90)], ignore_index=True)
    found = repeats.overlap(subject_of(bare_project, train, mixed))
    assert found.verdict is Verdict.FAILED
    assert "90 of 690 test rows are in train too" in found.summary
    assert repeats.overlap(subject_of(bare_project, train, test)).verdict is Verdict.PASSED


def test_the_id_column_makes_no_row_unlike_another(bare_project, pair):
    """Repeated rows are found although each has a number of its own."""
    train, test = pair
    twice = pd.concat([test, test], ignore_index=True)
    numbered = {"train": train.assign(id=range(800)), "test": twice.assign(id=range(1200))}
    subject = subject_of(bare_project, numbered["train"], numbered["test"], id="id")
    assert repeats.duplicates(subject).value == pytest.approx(0.5)


def test_a_column_that_knows_the_answer_is_named(bare_project, pair):
    """A leaked number and a leaked text are both found; honest columns are not."""
    train, test = pair
    honest = leakage.leakage(subject_of(bare_project, train, test))
    assert honest.verdict is Verdict.PASSED
    number = test.assign(paid=test["y"] * 100 + test["b"])
    text = test.assign(status=np.where(test["y"] == 1, "closed", "open"))
    for leaky, name in ((number, "paid"), (text, "status")):
        found = leakage.leakage(subject_of(bare_project, None, leaky))
        assert found.verdict in (Verdict.FAILED, Verdict.WARNED)
        assert repr(name) in found.summary
        assert found.value > 0.99


def test_names_do_not_know_the_answer_by_heart(bare_project, pair):
    """A column in which every row has a value of its own predicts nothing."""
    test = pair[1].assign(name=[f"person {one}" for one in range(600)])
    assert leakage.leakage(subject_of(bare_project, None, test)).verdict is Verdict.PASSED


def test_one_class_leaves_leakage_undecided(bare_project, pair):
    """With one class there is nothing to predict, which is not a pass."""
    subject = subject_of(bare_project, None, pair[1].assign(y=1))
    found = leakage.leakage(subject)
    assert found.verdict is Verdict.INCONCLUSIVE


def test_a_regression_leaks_by_rank(bare_project, pair):
    """For a regression a column that orders the rows like the target is named."""
    test = pair[1].assign(y=pair[1]["a"] ** 3)
    app = bare_project.base.replace('input = "table"', 'input = "table"\ntask = "regression"')
    found = leakage.leakage(subject_of(bare_project, None, test, app=app))
    assert "'a' (rank correlation 1.000)" in found.summary


def adult(shared_data, part):
    name = "adult.data.gz" if part == "train" else "adult.test.gz"
    with gzip.open(shared_data / "fairness/adult" / name, "rt") as file:
        return pd.read_csv(
            file, names=ADULT, skipinitialspace=True, skiprows=int(part == "test"), header=None
        )


def test_adult_has_its_known_defects(bare_project, shared_data):
    """Adult: labels that end in a dot are a schema finding; 24 and 5 rows repeat."""
    parts = {part: adult(shared_data, part) for part in ("train", "test")}
    subject = subject_of(
        bare_project, parts["train"], parts["test"], target="income", missing_values=["?"]
    )
    found = tables.schema(subject)
    assert found.verdict is Verdict.FAILED
    assert "'<=50K.'" in found.summary
    counted = {
        one.group: round(one.value * one.n) for one in repeats.duplicates(subject).measurements
    }
    assert counted == {"[data] test": 5, "[data] train": 24}
    gaps = {
        part: int(frame.isna().any(axis=1).sum())
        for part, frame in (("train", subject.train), ("test", subject.test))
    }
    assert gaps == {"train": 2399, "test": 1221}
    assert tables.missing(subject).verdict is Verdict.PASSED
    assert leakage.leakage(subject).verdict is Verdict.PASSED


def test_the_taxi_surcharge_that_appeared_is_named(bare_project, shared_data):
    """January to February: the column that began to be filled is named first."""
    folder = shared_data / "quality/nyc_taxi_2019"
    months = [
        read_frame(str(folder / f"yellow_tripdata_sample_2019-{month}.csv.gz"))
        for month in ("01", "02")
    ]
    subject = subject_of(bare_project, *months, target="total_amount")
    found = tables.missing(subject)
    assert found.verdict is Verdict.FAILED
    assert "'congestion_surcharge' (63 % → 0 %)" in found.summary
