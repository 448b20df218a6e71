"""What the one pass over the data finds, and that nothing passes on nothing."""

import re

import numpy as np
import pandas as pd
import pytest

from mlguard.checks import balance, freshness, label_issues, leakage, repeats, tables
from mlguard.checks.evidence import JudgedModel
from mlguard.checks.failing_cells import list_cells
from mlguard.config import (
    BalanceCheck,
    CategoriesCheck,
    ConstantsCheck,
    DataQualityGate,
    FreshnessCheck,
    LabelIssuesCheck,
    MissingCheck,
    RangesCheck,
    load_app,
    load_project,
)
from mlguard.errors import ConfigError, DataError, UsageError
from mlguard.results import Enforcement, Verdict


class Always:
    """Answers one class."""

    def predict(self, rows):
        return np.zeros(len(rows))


def people(n=800, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": rng.normal(3000, 500, n).round(),
            "city": rng.choice(["Ulm", "Bonn", "Kiel"], n),
            "sex": rng.choice(["F", "M"], n),
            "y": rng.integers(0, 2, n),
        }
    )


@pytest.fixture
def subject_on(bare_project, tmp_path):
    """Make a subject on frames, with a model that sees age, income and city."""

    def make(train, test, *, more="", **data):
        base = bare_project.base
        if train is None:
            base = base.replace('train = "train.csv"', "")
        lines = "\n".join(f"{key} = {value!r}" for key, value in data.items())
        bare_project.settings(more, base.replace("[data]", f"[data]\n{lines}"))
        bare_project.data(test=test, **({} if train is None else {"train": train}))
        subject = bare_project.subject(failures_dir=tmp_path / "failures")
        features = [one for one in ("age", "income", "city") if one in test.columns]
        subject.__dict__["candidate"] = JudgedModel("m", Always(), target="y", features=features)
        return subject

    return make


def test_numbers_beyond_training_are_named_and_listed(subject_on, tmp_path):
    """Incomes in another unit are FAILED with their share; the rows are listed by id alone."""
    test = people(600, 1)
    test["income"] = 3000
    test.loc[:59, "income"] = test.loc[:59, "income"] * 100
    subject = subject_on(people(), test.assign(id=[f"p{n}" for n in range(600)]), id="id")
    found = tables.ranges(subject)
    assert found.verdict is Verdict.FAILED
    assert "'income' (10 % of 600)" in found.summary
    assert found.value == pytest.approx(0.1)
    rows = pd.read_csv(tmp_path / "failures/data_quality-ranges-test.csv")
    assert rows["id"].tolist() == [f"p{n}" for n in range(60)]
    assert set(rows["column"]) == {"income"}
    assert list(rows.columns) == ["id", "column", "rule"]
    tables.ranges(subject_on(people(), people(600, 1)))
    assert tables.ranges(subject_on(people(), people(600, 1))).verdict is Verdict.PASSED


def test_categories_that_training_never_saw_are_named(subject_on):
    """A tenth in a new spelling is FAILED, one row in three thousand is not."""
    test = people(600, 1)
    test.loc[:59, "city"] = "ULM"
    found = tables.categories(subject_on(people(), test))
    assert found.verdict is Verdict.FAILED
    assert "'city' (10 % of 600)" in found.summary
    one = people(3000, 1)
    one.loc[0, "city"] = "ULM"
    assert tables.categories(subject_on(people(), one)).verdict is Verdict.PASSED
    wide = CategoriesCheck(at_most=0.2)
    assert tables.categories(subject_on(people(), test), wide).verdict is Verdict.PASSED


def test_a_column_that_never_varies_is_named(subject_on):
    """One value on all rows is FAILED; on nearly all rows it warns; the limit is the table's."""
    same = tables.constants(subject_on(people().assign(age=40), people(600, 1)))
    assert same.verdict is Verdict.FAILED
    assert "'age' holds one value or none on all rows of train" in same.summary
    rare = people(2000).assign(city="Ulm")
    rare.loc[:4, "city"] = "Bonn"
    nearly = subject_on(rare, people(600, 1))
    assert tables.constants(nearly).verdict is Verdict.WARNED
    assert "'city' holds one value on 99.75 %" in tables.constants(nearly).summary
    assert tables.constants(nearly, ConstantsCheck(at_most=0.999)).verdict is Verdict.PASSED


def test_classes_that_shift_are_named_also_within_a_group(subject_on):
    """A class that doubles among women alone is FAILED and names them."""
    test = people(3000, 1)
    alike = balance.balance(subject_on(people(3000), test))
    assert alike.verdict is Verdict.PASSED
    shifted = test.assign(y=test["y"].where(test["sex"] == "M", 1))
    found = balance.balance(subject_on(people(3000), shifted))
    assert found.verdict is Verdict.FAILED
    assert "of sex=F" in found.summary
    assert found.value == pytest.approx(0.5, abs=0.05)
    wide = balance.balance(subject_on(people(3000), shifted), BalanceCheck(at_most=0.9))
    assert wide.verdict is Verdict.PASSED


def test_few_rows_leave_the_balance_undecided(subject_on):
    """Sixty rows cannot show a shift of ten points: the message says how many could."""
    found = balance.balance(subject_on(people(60), people(60, 1)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "smallest limit this data can judge is" in found.summary
    assert found.n_min > 60
    assert str(found.n_min) in found.next_step


def test_coverage_that_drops_is_named(subject_on):
    """A column filled on 90 % of the training rows and on 60 % of the test rows is FAILED."""
    train, test = people(1000), people(1000, 1)
    train["income"] = train["income"].where(train.index >= 100)
    test["income"] = test["income"].where(test.index >= 400)
    found = tables.missing(subject_on(train, test))
    assert found.verdict is Verdict.FAILED
    assert "'income' (10 % → 40 %)" in found.summary
    assert found.value == pytest.approx(0.3)
    assert tables.missing(subject_on(train, test), MissingCheck(at_most=0.5)).verdict is (
        Verdict.PASSED
    )


def test_the_age_of_the_newest_row_is_judged(subject_on):
    """Rows up to yesterday are fresh for a week's limit and stale for an hour's."""
    at = pd.date_range("2024-01-01", periods=600, freq="h")
    subject = subject_on(None, people(600).assign(at=at.astype(str)), time="at")
    now = at[-1].timestamp() + 86400
    fresh = freshness.freshness(subject, FreshnessCheck(at_most="7d"), clock=lambda: now)
    assert fresh.verdict is Verdict.PASSED
    assert fresh.value == pytest.approx(86400)
    stale = freshness.freshness(subject, FreshnessCheck(at_most="1h"), clock=lambda: now)
    assert stale.verdict is Verdict.FAILED
    assert stale.next_step
    with pytest.raises(DataError, match="nobody knows when a row is from"):
        freshness.freshness(subject_on(None, people()), FreshnessCheck(at_most="1h"))
    with pytest.raises(DataError, match="holds integer, no times"):
        freshness.freshness(subject_on(None, people(), time="age"), FreshnessCheck(at_most="1h"))


def test_wrong_labels_are_counted_and_listed(subject_on, tmp_path):
    """Of forty labels turned round most are found by their row; clean labels pass."""
    rng = np.random.default_rng(0)
    train = people(1000)
    train["y"] = (train["age"] + rng.normal(0, 1, 1000) > 49).astype(int)
    clean = label_issues.label_issues(subject_on(train, people()), LabelIssuesCheck())
    assert clean.verdict is Verdict.PASSED
    turned = rng.choice(np.flatnonzero((train["age"] - 49).abs() > 8), 100, replace=False)
    wrong = train.copy()
    wrong.loc[turned, "y"] = 1 - wrong.loc[turned, "y"]
    found = label_issues.label_issues(subject_on(wrong, people()), LabelIssuesCheck())
    assert found.verdict is Verdict.FAILED
    listed = pd.read_csv(tmp_path / "failures/data_quality-label_issues-train.csv")["id"]
    assert len(set(turned) & set(listed)) >= 80
    few = label_issues.label_issues(subject_on(people(20), people()), LabelIssuesCheck())
    assert few.verdict is Verdict.INCONCLUSIVE
    one = label_issues.label_issues(subject_on(train.assign(y=1), people()), LabelIssuesCheck())
    assert one.verdict is Verdict.INCONCLUSIVE


def test_a_regression_has_no_label_issues(subject_on, bare_project):
    """Asked of a regression, the check says so instead of passing."""
    subject = subject_on(people(), people())
    text = bare_project.app.joinpath("app.toml").read_text()
    bare_project.app.joinpath("app.toml").write_text(
        text.replace('input = "table"', 'input = "table"\ntask = "regression"')
    )
    subject = bare_project.subject()
    with pytest.raises(UsageError, match="no classes"):
        label_issues.label_issues(subject, LabelIssuesCheck())


_ALL = (
    (tables.missing, None),
    (tables.ranges, None),
    (tables.categories, None),
    (tables.constants, None),
    (balance.balance, None),
    (repeats.duplicates, None),
    (repeats.overlap, None),
    (leakage.leakage, None),
    (label_issues.label_issues, LabelIssuesCheck()),
)


@pytest.mark.parametrize(("judge", "policy"), _ALL)
def test_an_empty_file_passes_nothing(subject_on, judge, policy):
    """A header without rows is an error of the data, never a pass."""
    subject = subject_on(people(), people().head(0))
    if judge is label_issues.label_issues:
        subject = subject_on(people().head(0), people())
    with pytest.raises(DataError, match="no rows"):
        judge(subject, policy) if policy else judge(subject)


@pytest.mark.parametrize(("judge", "policy"), _ALL)
def test_all_nan_passes_nothing(subject_on, judge, policy):
    """Columns without a single value are never PASSED by what looks at their values."""
    test = people(600, 1)
    test[["age", "income", "city"]] = np.nan
    subject = subject_on(people(), test)
    if judge in (repeats.overlap, label_issues.label_issues, balance.balance):
        return  # nothing of theirs is empty: rows are compared whole, labels are there
    found = judge(subject, policy) if policy else judge(subject)
    assert found.verdict is not Verdict.PASSED
    assert tables.schema(subject).verdict is Verdict.FAILED


@pytest.mark.parametrize(("judge", "policy"), _ALL[:7])
def test_a_handful_of_rows_passes_nothing(subject_on, judge, policy):
    """Five rows are INCONCLUSIVE everywhere, with the number that would do."""
    found = judge(subject_on(people(), people(5, 1)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert (found.reason, found.n) == ("few", 5)
    assert re.search(r"\d", found.next_step)


def test_one_class_is_a_schema_finding_and_leaves_leakage_undecided(subject_on):
    """With one class in test nothing about the target passes."""
    subject = subject_on(people(), people(600, 1).assign(y=1))
    assert tables.schema(subject).verdict is Verdict.FAILED
    assert leakage.leakage(subject).verdict is Verdict.INCONCLUSIVE
    assert balance.balance(subject).verdict is Verdict.FAILED


def test_no_column_of_a_kind_is_skipped_not_passed(subject_on):
    """Where nothing holds categories, nobody says that all categories are known."""
    numbers = people()[["age", "income", "y", "sex"]]
    subject = subject_on(numbers.assign(sex=1), numbers.assign(sex=1))
    assert tables.categories(subject).verdict is Verdict.SKIPPED


def test_the_rows_of_training_are_not_held(subject_on):
    """No check of the data loads the training rows into a frame."""
    subject = subject_on(people(), people(600, 1))
    for judge, policy in _ALL:
        _ = judge(subject, policy) if policy else judge(subject)
    tables.schema(subject)
    assert not {"train", "test"} & subject.__dict__.keys()


def test_values_of_the_data_stand_in_no_finding(subject_on, tmp_path):
    """Neither findings nor listed rows hold a value of the data beside ids and classes."""
    train, test = people(), people(600, 1)
    test.loc[:99, "city"] = "Secretville"
    test.loc[:99, "income"] = 987_654_321
    subject = subject_on(train, test)
    for judge, policy in _ALL:
        found = judge(subject, policy) if policy else judge(subject)
        assert "Secretville" not in str(found.to_json())
        assert "987654321" not in str(found.to_json())
    listed = "".join(one.read_text() for one in (tmp_path / "failures").iterdir())
    assert listed
    assert "Secretville" not in listed
    assert "987654321" not in listed


def test_the_limits_of_app_toml_are_those_that_judge(subject_on, bare_project):
    """A check's own table wins over the family's, and its limit is the finding's."""
    toml = """
[gate.data_quality]
enforcement = "block"
[gate.data_quality.ranges]
at_most = 0.5
enforcement = "dry_run"
"""
    subject_on(people(), people(600, 1), more=toml)
    gate = load_app(load_project(bare_project.root), "credit").gate.data_quality
    assert gate.policy("ranges").enforcement is Enforcement.DRY_RUN
    assert gate.ranges.at_most == 0.5
    assert gate.policy("missing").enforcement is Enforcement.BLOCK
    found = tables.ranges(bare_project.subject(), RangesCheck(at_most=0.5))
    assert found.limit == 0.5


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("schema", 'decide = "proof"'),
        ("expectations", "confidence_level = 0.9"),
        ("duplicates", "family_error = 0.1"),
        ("constants", 'decide = "estimate"'),
    ],
)
def test_a_key_without_effect_is_refused(bare_project, table, key):
    """A key that a check would not honour is named instead of taken."""
    bare_project.settings(f"[gate.data_quality.{table}]\n{key}\n")
    with pytest.raises(ConfigError, match=f"{key.partition(' ')[0]} has no effect on {table}"):
        load_app(load_project(bare_project.root), "credit")


def test_family_keys_reach_every_check():
    """What stands in the family's table is in force for checks with tables of their own too."""
    gate = DataQualityGate.model_validate({"decide": "proof", "missing": {"at_most": 0.2}})
    assert {gate.policy(one).decide for one in ("missing", "ranges", "schema")} == {"proof"}
    assert gate.missing.at_most == 0.2


def test_nothing_is_listed_where_no_folder_was_asked_for(subject_on, tmp_path):
    """Without --failures-dir no file is written."""
    subject = subject_on(people(), people(600, 1))
    subject.failures_dir = None
    list_cells(subject, "data_quality.missing", "age", "missing")
    assert not (tmp_path / "failures").exists()
