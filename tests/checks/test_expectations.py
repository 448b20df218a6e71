import json
import subprocess
import sys

import pandas as pd
import pytest

from mlguard.checks import CheckFailedError, assert_expectations
from mlguard.checks.data_quality import DataQuality
from mlguard.checks.declaration import judge
from mlguard.checks.expectations import read_suite, suite_of, validate
from mlguard.errors import DataError, UsageError
from mlguard.results import Enforcement, Verdict

NOT_NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age"}}


def run(project, **options):
    """Judge every expectation of a project, by name."""
    subject = project.subject(**options)
    family = DataQuality()
    declared = family.declare(subject.settings, project.root)
    items = [item for item in declared.items if "expect" in item.id]
    return {item.name: _judged(family, item, subject) for item in items}


def _judged(family, item, subject):
    try:
        return family.run(item, subject)
    except UsageError as error:
        return item.errored(error)


def test_a_suite_is_one_result_per_expectation(gx, project):
    """Each expectation says what holds or does not, on both files, with counts and a share."""
    project.suite(
        NOT_NULL,
        {
            "type": "expect_column_values_to_be_in_set",
            "kwargs": {"column": "city", "value_set": ["Ulm", "Bonn"]},
        },
        {
            "type": "expect_column_mean_to_be_between",
            "kwargs": {"column": "age", "min_value": 70, "max_value": 80},
        },
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10}},
    )
    found = run(project)
    whole = found["data_quality.expect_column_values_to_not_be_null[age]"]
    assert whole.verdict is Verdict.PASSED
    assert whole.n == 3000
    cities = found["data_quality.expect_column_values_to_be_in_set[city]"]
    assert cities.verdict is Verdict.FAILED
    assert cities.blocks
    assert 0.25 < cities.value < 0.4
    assert cities.details["unexpected"].keys() == {"test", "train"}
    assert "of 3,000 values unexpected" in cities.summary
    assert "test:" in cities.summary
    assert "train:" in cities.summary
    mean = found["data_quality.expect_column_mean_to_be_between[age]"]
    assert mean.verdict is Verdict.FAILED
    assert 40 < mean.value < 60
    assert found["data_quality.expect_table_row_count_to_be_between"].verdict is Verdict.PASSED


def test_an_absent_column_is_named(gx, project):
    """An expectation on a column that is not there names it, and the nearest that is."""
    project.suite({"type": NOT_NULL["type"], "kwargs": {"column": "incom"}})
    (found,) = run(project).values()
    assert found.verdict is Verdict.FAILED
    assert found.reason == "missing_column"
    assert (
        "'incom' is not in [data] test and [data] train (did you mean 'income'?)" in found.summary
    )


def test_one_broken_expectation_spoils_no_other(gx, project):
    """An unknown type and a wrong argument are ERRORED by name; the rest is judged."""
    project.suite(
        NOT_NULL,
        {"type": "expect_miracles", "kwargs": {"column": "age"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": 7, "min_value": "a"}},
        {
            "type": "expect_column_values_to_match_regex",
            "kwargs": {"column": "city", "regex": "(("},
        },
    )
    good, unknown, argument, raising = run(project).values()
    assert good.verdict is Verdict.PASSED
    assert unknown.verdict is Verdict.ERRORED
    assert "Great Expectations knows no expect_miracles" in unknown.summary
    assert argument.verdict is Verdict.ERRORED
    assert raising.verdict is Verdict.ERRORED
    assert "raised on [data] test" in raising.summary


def test_severity_is_the_enforcement(gx, project):
    """An expectation of severity warning fails without closing the gate."""
    wrong = {"type": "expect_column_max_to_be_between", "kwargs": {"column": "age", "max_value": 1}}
    project.suite(wrong | {"severity": "warning"}, wrong | {"severity": "critical"})
    warns, blocks = run(project).values()
    assert (warns.verdict, warns.enforcement) == (Verdict.FAILED, Enforcement.WARN)
    assert not warns.blocks
    assert blocks.blocks


def test_failing_rows_are_listed_by_id_only(gx, project, tmp_path, test_frame):
    """With a folder for failures the ids of the rows that broke a rule are written, no values."""
    project.data(test=test_frame.assign(id=[f"row-{one}" for one in range(len(test_frame))]))
    base = project.base.replace("[data]", '[data]\nid = "id"')
    project.settings("", base)
    project.suite(
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "max_value": 70}}
    )
    run(project, failures_dir=tmp_path / "failures")
    lines = (tmp_path / "failures/suite-1-test.csv").read_text().splitlines()
    expected = [f"row-{one}" for one in test_frame.index[test_frame["age"] > 70]]
    rule = "age,expect_column_values_to_be_between"
    assert lines == ["id,column,rule", *(f"{one},{rule}" for one in expected)]


def test_suites_of_older_releases_are_read(tmp_path):
    """A suite with ``expectation_type`` and ``expectation_suite_name`` works unchanged."""
    path = tmp_path / "old.json"
    path.write_text(
        json.dumps(
            {
                "expectation_suite_name": "old",
                "ge_cloud_id": None,
                "data_asset_type": None,
                "expectations": [
                    {
                        "expectation_type": NOT_NULL["type"],
                        "kwargs": NOT_NULL["kwargs"],
                        "meta": {},
                        "ge_cloud_id": None,
                    }
                ],
            }
        )
    )
    suite = read_suite(path)
    assert suite.name == "old"
    assert suite.expectations == (NOT_NULL,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "is no suite"),
        ('{"expectations": []}', "holds no expectation"),
        ('{"expectations": [{"kwargs": {}}]}', "expectation 1 of .* has no type"),
    ],
)
def test_a_file_that_is_no_suite_closes_the_gate(project, text, says):
    """A suite that cannot be read is an ERRORED item that names the file, not a missing one."""
    folder = project.checks / "expectations"
    folder.mkdir()
    (folder / "bad.json").write_text(text)
    with pytest.raises(UsageError, match=says):
        read_suite(folder / "bad.json")
    subject = project.subject()
    declared = DataQuality().declare(subject.settings, project.root)
    (item,) = [one for one in declared.items if one.id == "data_quality.expectations"]
    assert item.subject == "bad.json"
    assert judge(item, subject, clock=lambda: 0.0).blocks


def test_every_dirty_hospital_column_is_flagged_and_no_clean_one(gx, shared_data):
    """A suite of the clean file's values, held against the dirty file, names its columns."""
    folder = shared_data / "quality/hospital"
    clean, dirty = (
        pd.read_csv(folder / name, dtype=str, keep_default_na=False)
        for name in ("clean.csv", "dirty.csv")
    )
    dirty.columns = clean.columns
    wrong = {name for name in clean.columns if (clean[name] != dirty[name]).any()}
    suite = suite_of(
        [
            {
                "type": "expect_column_values_to_be_in_set",
                "kwargs": {"column": name, "value_set": sorted(clean[name].unique())},
            }
            for name in clean.columns
        ]
    )
    outcomes = validate(suite.expectations, {"test": dirty, "train": clean})
    flagged = {
        name
        for name, outcome in zip(clean.columns, outcomes, strict=True)
        if not outcome["test"]["success"]
    }
    assert flagged == wrong
    assert len(wrong) == 17
    assert all(outcome["train"]["success"] for outcome in outcomes)


def test_assert_expectations_names_the_first_that_fails(gx, test_frame, project):
    """The assert function takes a list or a file, and fails with the expectation's own words."""
    results = assert_expectations(test_frame, [NOT_NULL])
    assert [one.verdict for one in results] == [Verdict.PASSED]
    too_old = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "age", "max_value": 30},
    }
    project.suite(NOT_NULL, too_old)
    with pytest.raises(CheckFailedError, match=r"values to be between \(max_value = 30\)"):
        assert_expectations(test_frame, project.checks / "expectations/suite.json")


def test_assert_expectations_does_not_pass_vacuously(gx, test_frame):
    """No expectations, or no rows, are errors."""
    with pytest.raises(UsageError, match="nothing passes vacuously"):
        assert_expectations(test_frame, [])
    with pytest.raises(DataError, match="no rows"):
        assert_expectations(test_frame.head(0), [NOT_NULL])


def test_nothing_is_imported_before_the_first_expectation(project):
    """The family can be made and declare without Great Expectations or pandas."""
    project.suite(NOT_NULL)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mlguard.config import load_app, load_project\n"
        "from mlguard.checks.declaration import declare_all\n"
        f"root = Path({str(project.root)!r})\n"
        "declare_all(load_app(load_project(root), 'credit'), root)\n"
        "print(sorted({'pandas', 'great_expectations', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
