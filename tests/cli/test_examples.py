"""The examples show what their files say: the figures in their comments are measured here."""

import importlib.util
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlguard.config import load_app, load_project
from mlguard.results import Verdict
from mlguard.stats.sequential import EDetector, reference_bound

ROOT = Path(__file__).parents[2]
DEMO = Path(str(resources.files("mlguard.cli") / "demo_project"))


def trained(project, app, folder):
    """Run an app's train.py as if it stood in ``folder``; return that folder."""
    spec = importlib.util.spec_from_file_location(
        f"train_{app}", project / "serving" / app / "train.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.HERE = folder
    script.main()
    return folder


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    """Folder with the files of iris."""
    return trained(ROOT, "iris", tmp_path_factory.mktemp("iris"))


@pytest.fixture(scope="module")
def credit(tmp_path_factory):
    """Folder with the files of credit."""
    return trained(ROOT, "credit", tmp_path_factory.mktemp("credit"))


@pytest.fixture(scope="module")
def lending(tmp_path_factory):
    """Folder with the files of the demo's app."""
    return trained(DEMO, "lending", tmp_path_factory.mktemp("lending"))


def loaded(folder, name):
    """Return a model of ours, which needs no trusted type beside scikit-learn's."""
    from mlguard.models.formats import load_model

    return load_model(folder / name)


def accuracy(model, frame, target):
    """Share of rows that a model gets right."""
    return (model.predict(frame[model.feature_names_in_]) == frame[target]).mean()


def gap(model, frame, metric, by, at_most):
    """Judge the gap between groups of an error rate in "repaid", as the gate does."""
    from mlguard.stats.groups import Rate, judge_gap

    wrong = model.predict(frame[model.feature_names_in_]) != frame["repaid"]
    counted = frame["repaid"] == (1 if metric == "false_negative_rate" else 0)
    rates = {
        group: Rate(int(wrong[counted & (frame[by] == group)].sum()), int(n))
        for group, n in frame.loc[counted, by].value_counts().items()
    }
    return judge_gap(
        rates,
        limit=at_most,
        min_group_size=30,
        confidence_level=0.95,
        family_error=0.05,
        decide="evidence",
        optional=(),
    )


@pytest.mark.parametrize(
    ("project", "app"),
    [(ROOT, "iris"), (ROOT, "credit"), (DEMO, "lending")],
    ids=["iris", "credit", "lending"],
)
def test_training_writes_what_the_settings_name(project, app, request):
    """After train.py, no file that app.toml names is missing, and no unfinished one is left."""
    folder = request.getfixturevalue(app)
    settings = load_app(load_project(project), app)
    for text in (settings.data.train, settings.data.test, settings.model.path):
        assert (folder / text).is_file()
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize(
    ("project", "app"),
    [(ROOT, "iris"), (ROOT, "credit"), (DEMO, "lending")],
    ids=["iris", "credit", "lending"],
)
def test_training_twice_writes_the_same_rows(project, app, request, tmp_path):
    """The data is a function of the seed alone, so evidence about it can be found again."""
    first, second = request.getfixturevalue(app), trained(project, app, tmp_path)
    for file in first.rglob("*.csv"):
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes()


def test_training_is_a_script_of_its_own(tmp_path):
    """People run train.py by hand, from any folder, without mlguard."""
    copy = tmp_path / "train.py"
    copy.write_bytes((ROOT / "serving" / "iris" / "train.py").read_bytes())
    subprocess.run([sys.executable, str(copy)], cwd="/", check=True, capture_output=True)
    assert (tmp_path / "model.skops").is_file()


def test_iris_answers_the_flower_of_the_first_page(iris):
    """The flower that everybody tries first is a setosa, class number 0."""
    model = loaded(iris, "model.skops")
    flower = pd.DataFrame([[4.3, 2.0, 1.0, 0.1]], columns=model.feature_names_in_)
    assert model.predict(flower).tolist() == [0]


def test_iris_is_tested_on_half_of_each_species(iris):
    """75 flowers to judge by, 25 of each species."""
    test = pd.read_csv(iris / "data" / "test.csv")
    assert test["species"].value_counts().to_dict() == {0: 25, 1: 25, 2: 25}


def test_the_naive_model_is_right_more_often(credit):
    """The tempting model is more accurate by about five points on 15,000 applicants."""
    test = pd.read_csv(credit / "data" / "test.csv")
    model, naive = loaded(credit, "model.skops"), loaded(credit, "naive.skops")
    assert accuracy(naive, test, "repaid") - accuracy(model, test, "repaid") > 0.04


@pytest.mark.parametrize("by", ["sex", "race"])
@pytest.mark.parametrize("metric", ["false_negative_rate", "false_positive_rate"])
def test_the_deployed_model_keeps_to_its_limits(credit, metric, by):
    """Every gap is proven to be below the limit: its whole interval is."""
    limit = load_app(load_project(ROOT), "credit").gate.fairness.at_most
    test = pd.read_csv(credit / "data" / "test.csv")
    found = gap(loaded(credit, "model.skops"), test, metric, by, limit)
    assert found.verdict is Verdict.PASSED
    assert found.interval.high < limit


def test_the_naive_model_refuses_one_group_far_more_often(credit):
    """People of group C who would repay are refused so much more often that chance is out."""
    test = pd.read_csv(credit / "data" / "test.csv")
    found = gap(loaded(credit, "naive.skops"), test, "false_negative_rate", "race", 0.1)
    assert found.verdict is Verdict.FAILED
    assert found.interval.low > 0.15


def test_the_models_never_see_whom_they_are_compared_by(credit, lending):
    """Sex and race serve to check the models and are no input of any."""
    for folder in (credit, lending):
        for file in folder.glob("*.skops"):
            assert not {"sex", "race"} & set(loaded(folder, file.name).feature_names_in_)


def test_groups_of_applicants_repay_at_different_rates(credit):
    """The base rates differ as the docstring says, so equal error rates are no triviality."""
    everybody = pd.concat(
        [pd.read_csv(credit / "data" / f"{part}.csv") for part in ("train", "test")]
    )
    rates = everybody.groupby("race")["repaid"].mean()
    assert len(everybody) == 30_000
    assert rates["A"] - rates["C"] == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("model", ["v1.skops", "v2.skops"])
@pytest.mark.parametrize("metric", ["false_negative_rate", "false_positive_rate"])
def test_both_good_versions_of_the_demo_keep_to_the_limit(lending, model, metric):
    """The demo's story needs two versions that pass their gate."""
    test = pd.read_csv(lending / "data" / "test.csv")
    found = gap(loaded(lending, model), test, metric, "sex", 0.1)
    assert found.verdict is Verdict.PASSED
    assert found.interval.high < 0.1


def test_the_unfair_candidate_of_the_demo_is_tempting_and_fails(lending):
    """It is right more often than the version that serves, and its error rates differ."""
    test = pd.read_csv(lending / "data" / "test.csv")
    unfair, v1 = loaded(lending, "unfair.skops"), loaded(lending, "v1.skops")
    assert accuracy(unfair, test, "repaid") > accuracy(v1, test, "repaid")
    found = gap(unfair, test, "false_negative_rate", "sex", 0.1)
    assert found.verdict is Verdict.FAILED
    assert found.interval.low > 0.11


@pytest.mark.parametrize(("name", "alarms"), [("v1.skops", False), ("v2.skops", True)])
def test_only_the_version_that_uses_the_drifting_column_alarms(lending, name, alarms):
    """Within 150 labels of the change v2 raises the alarm; v1, on the same rows, never does."""
    model = loaded(lending, name)
    test = pd.read_csv(lending / "data" / "test.csv")
    traffic = pd.read_csv(lending / "traffic.csv")
    changed_at = 600
    monitor = load_app(load_project(DEMO), "lending").monitor.concept_drift
    errors = round((1 - accuracy(model, test, "repaid")) * len(test))
    detector = EDetector(
        reference_bound(errors, len(test), tolerance=monitor.tolerance),
        average_run_length=monitor.average_run_length,
    )
    losses = model.predict(traffic[model.feature_names_in_]) != traffic["repaid"]
    alarm = detector.update(losses.to_numpy(dtype=np.float64))
    if alarms:
        assert changed_at <= alarm < changed_at + 150
    else:
        assert alarm is None


def test_versions_of_the_demo_take_the_same_requests(lending):
    """One version can stand in for another: they ask for the same columns in the same order."""
    names = [
        list(loaded(lending, f"{one}.skops").feature_names_in_) for one in ("v1", "v2", "unfair")
    ]
    assert names[0] == names[1] == names[2]
