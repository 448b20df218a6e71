"""Expectations and limits that training data suggests, on data with known errors."""

import json

import pandas as pd
import pytest

from mlguard.checks import tables
from mlguard.checks.expectations import judge_expectation, validate
from mlguard.checks.suggested import expectations_of, limits_of, shape_of
from mlguard.config import CategoriesCheck, MissingCheck, load_app, load_project
from mlguard.data.frames import read_frame
from mlguard.data.scan import scan_table
from mlguard.deploy.suggesting import suggest
from mlguard.errors import DataError, MlguardError, RefusedError, UsageError
from mlguard.results import Verdict


@pytest.fixture(scope="module")
def hospital(shared_data, tmp_path_factory):
    """The clean and the dirty file under one header, and the columns with wrong cells."""
    folder = tmp_path_factory.mktemp("hospital")
    texts = {
        part: pd.read_csv(
            shared_data / f"quality/hospital/{part}.csv", dtype=str, keep_default_na=False
        )
        for part in ("clean", "dirty")
    }
    texts["dirty"].columns = texts["clean"].columns
    for part, frame in texts.items():
        frame.to_csv(folder / f"{part}.csv", index=False)
    wrong = (texts["clean"] != texts["dirty"]).any()
    return folder, set(wrong.index[wrong])


def judged(expectations, frame):
    """Columns whose expectation does not hold, or cannot be judged, on a frame."""
    outcomes = validate(tuple(expectations), {"test": frame})
    broken = set()
    for one, outcome in zip(expectations, outcomes, strict=True):
        try:
            found = judge_expectation(one, outcome).verdict is not Verdict.PASSED
        except UsageError:
            found = True
        if found:
            broken.add(one["kwargs"].get("column", ""))
    return broken


def test_every_column_of_the_dirty_hospital_is_flagged_and_no_clean_one(gx, hospital):
    """A suite and a profile from the clean file name exactly the 17 columns with wrong cells."""
    folder, wrong = hospital
    assert len(wrong) == 17
    clean = scan_table(str(folder / "clean.csv"), missing_values=["empty"])
    dirty = scan_table(str(folder / "dirty.csv"), missing_values=["empty"], reference=clean)
    suite = expectations_of(clean)
    frames = {
        part: read_frame(str(folder / f"{part}.csv"), missing_values=["empty"])
        for part in ("clean", "dirty")
    }
    assert judged(suite, frames["clean"]) == set()
    by_suite = judged(suite, frames["dirty"])
    by_profile = {
        name for name, _ in tables.compare_schemas(clean, dirty, ignored=set(), target="")
    }
    by_profile |= set(
        tables.compare_missing(clean, dirty, MissingCheck()).details.get("columns", [])
    )
    assert by_suite | by_profile == wrong
    assert by_profile >= {"ProviderNumber", "ZipCode", "PhoneNumber"}


def test_a_sharper_limit_sees_the_misspelt_categories(hospital, bare_project):
    """With at most half a percent of unseen values every category with typos is FAILED."""
    folder, wrong = hospital
    base = bare_project.base.replace('sensitive = "sex"', 'missing_values = ["empty"]')
    bare_project.settings("", base.replace("[data]", '[data]\ntarget = "Condition"'))
    for part, name in (("train", "clean"), ("test", "dirty")):
        (bare_project.app / f"{part}.csv").write_text((folder / f"{name}.csv").read_text())
    found = tables.categories(bare_project.subject(), CategoriesCheck(at_most=0.005))
    assert found.verdict is Verdict.FAILED
    assert set(found.details["columns"]) <= wrong
    assert len(found.details["columns"]) == 12


def test_a_suite_holds_on_the_data_it_was_made_from(gx, shared_data):
    """On two real files nothing that is suggested is broken at once."""
    for file in (
        "quality/titanic/titanic.csv.gz",
        "quality/nyc_taxi_2019/yellow_tripdata_sample_2019-01.csv.gz",
    ):
        url = str(shared_data / file)
        suite = expectations_of(scan_table(url))
        assert len(suite) > 12
        assert judged(suite, read_frame(url)) == set(), file


def test_a_shape_is_told_where_all_values_share_it(tmp_path):
    """Digits vary and the rest stays; words have no shape."""
    frame = pd.DataFrame(
        {
            "sample": [f"{one} patients" for one in range(300)],
            "word": [f"w{'x' * one}" for one in range(300)],
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    scan = scan_table(str(tmp_path / "t.csv"))
    assert shape_of(scan["sample"]) == r"^\d+\ patients$"
    assert shape_of(scan["word"]) == ""


def test_a_proposal_is_written_once_and_never_over_an_edited_one(project):
    """Two files are written; a second time is refused unless forced; other suites stay."""
    project.suite({"type": "expect_column_to_exist", "kwargs": {"column": "age"}}, name="ours.json")
    ours = (project.checks / "expectations/ours.json").read_text()
    settings = load_project(project.root)
    app = load_app(settings, "credit")
    outcome = suggest(settings, app)
    file = project.checks / "expectations/suggested.json"
    document = json.loads(file.read_text())
    assert outcome.changed
    assert f"Wrote {len(document['expectations'])} expectations" in outcome.lines[0]
    kinds = {one["type"] for one in document["expectations"]}
    assert "expect_column_values_to_be_in_set" in kinds
    assert file.read_text().count("\n") > 20
    file.write_text("edited")
    with pytest.raises(RefusedError, match="there already"):
        suggest(settings, app)
    assert file.read_text() == "edited"
    suggest(settings, app, force=True)
    assert json.loads(file.read_text()) == document
    assert (project.checks / "expectations/ours.json").read_text() == ours


def test_suggested_limits_are_ones_that_app_toml_takes(project):
    """What stands in the file can be copied into app.toml as it is."""
    settings = load_project(project.root)
    app = load_app(settings, "credit")
    text = limits_of(app, scan_table(app.path(app.data.train)))
    project.settings(text)
    gate = load_app(settings, "credit").gate.data_quality
    assert gate.ranges.at_most == 0.05
    assert gate.balance.at_most == 0.1


def test_nothing_is_suggested_from_nothing(project, train_frame):
    """Without training rows, or with too few, the command says so."""
    settings = load_project(project.root)
    project.data(train=train_frame.head(20))
    with pytest.raises(DataError, match="20 rows"):
        suggest(settings, load_app(settings, "credit"))
    project.settings("", project.base.replace('train = "train.csv"', ""))
    with pytest.raises(MlguardError, match="names no training rows"):
        suggest(settings, load_app(settings, "credit"))
