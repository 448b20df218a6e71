"""What Project.fairness measures, chooses, writes and makes, on a lender with a known slant."""

import numpy as np
import pandas as pd
import pytest

from mlguard.config import load_app
from mlguard.deploy.mitigation import refitted
from mlguard.errors import ConfigError, DataError, UsageError
from mlguard.models.formats import load_model, save_model
from mlguard.project import Project
from mlguard.stats.rates import group_rates
from mlguard.stats.thresholds import decide

IMPACT = """
[gate.fairness.delayed_impact]
success = 75
failure = -150
score = "points"
low = 300
high = 850
"""


def app_file(folder):
    return folder / "serving" / "credit" / "app.toml"


def add(folder, text):
    with app_file(folder).open("a") as file:
        file.write(text)


def scored(folder):
    """The test rows with the model's scores."""
    frame = pd.read_csv(folder / "serving/credit/test.csv")
    model = load_model(folder / "serving/credit/model.skops")
    return frame.assign(score=model.predict_proba(frame[["income", "debts"]])[:, 1])


@pytest.fixture
def allowed(lender):
    """The lender, where its people said that groups may affect decisions."""
    text = app_file(lender).read_text()
    app_file(lender).write_text(
        text.replace("[data]", 'groups_affect_decisions = true\nkeys = ["teller"]\n\n[data]', 1)
    )
    return lender


# --- figures ---------------------------------------------------------------------------------


def test_the_figures_are_those_of_counting(lender_folder):
    """Each rate of each group is what counting rows gives, with its denominator."""
    examined = Project(lender_folder).fairness("credit")
    rows = scored(lender_folder)
    (figures,) = examined.attributes
    assert figures.sizes == rows["sex"].value_counts().sort_index().to_dict()
    for one in figures.metrics:
        counted = group_rates(
            one.metric, rows["y"], (rows["score"] >= 0.5).astype(int), rows["sex"]
        )
        for group in one.gap.groups:
            assert group.value == pytest.approx(counted[group.name].value)
            assert group.n == counted[group.name].n
            assert group.low < group.value < group.high
    refused = next(one for one in figures.metrics if one.metric == "false_negative_rate")
    assert refused.gap.pair == ("F", "M")
    assert refused.limit == 0.1
    assert next(one for one in figures.metrics if one.metric == "accuracy").limit is None


def test_measuring_changes_nothing(lender):
    """No file and no registry is made."""
    before = {file: file.read_bytes() for file in lender.rglob("*") if file.is_file()}
    Project(lender).fairness("credit", thresholds=True)
    assert {file: file.read_bytes() for file in lender.rglob("*") if file.is_file()} == before


def test_more_classes_are_counted_one_by_one(lender):
    """Each class has its rates; accuracy stands once."""
    from sklearn.linear_model import LogisticRegression

    folder = lender / "serving/credit"
    frame = pd.read_csv(folder / "train.csv")
    frame["y"] = pd.cut(frame["points"], [0, 560, 640, 900], labels=["low", "mid", "high"])
    frame.to_csv(folder / "test.csv", index=False)
    model = LogisticRegression().fit(frame[["income", "debts"]], frame["y"].astype(str))
    save_model(model, folder / "model.skops")
    (figures,) = Project(lender).fairness("credit").attributes
    names = [one.name for one in figures.metrics]
    assert names.count("accuracy") == 1
    assert {f"selection_rate of {one}" for one in ("low", "mid", "high")} <= set(names)
    with pytest.raises(UsageError, match="no score of two classes"):
        Project(lender).fairness("credit", thresholds=True)


def test_a_regression_is_compared_by_its_errors(lender):
    """It has no thresholds, and the next step is the gate."""
    from sklearn.linear_model import LinearRegression

    folder = lender / "serving/credit"
    frame = pd.read_csv(folder / "train.csv")
    model = LinearRegression().fit(frame[["income", "debts"]], frame["points"])
    save_model(model, folder / "model.skops")
    text = app_file(lender).read_text()
    text = text.replace("[data]", 'task = "regression"\n\n[data]\ntarget = "points"', 1)
    app_file(lender).write_text(text.partition("[gate.fairness]")[0])
    examined = Project(lender).fairness("credit")
    (figures,) = examined.attributes
    assert [one.metric for one in figures.metrics] == ["mean_absolute_error"]
    assert examined.next_step == "mlguard check credit"
    rows = pd.read_csv(folder / "test.csv")
    errors = (model.predict(rows[["income", "debts"]]) - rows["points"]).abs()
    for group in figures.metrics[0].gap.groups:
        assert group.value == pytest.approx(errors[rows["sex"] == group.name].mean())


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        ({"by": "sexx"}, DataError, "did you mean 'sex'"),
        ({"by": "income"}, UsageError, "too many to be groups"),
        ({"write": "max"}, UsageError, "no policy 'max'"),
        ({"mitigate": "wishing"}, UsageError, "no method 'wishing'"),
    ],
)
def test_what_cannot_be_asked_is_named(lender_folder, wish, error, words):
    """The error says what is known instead."""
    with pytest.raises(error, match=words):
        Project(lender_folder).fairness("credit", **wish)


def test_without_an_attribute_nobody_knows_whom_to_compare(lender):
    """The error says where to write it."""
    text = app_file(lender).read_text()
    app_file(lender).write_text(text.replace('sensitive = "sex"', "sensitive = []"))
    with pytest.raises(UsageError, match="nobody knows which groups"):
        Project(lender).fairness("credit")


# --- thresholds ------------------------------------------------------------------------------


def test_policies_hold_where_they_were_chosen_and_nearly_elsewhere(lender_folder):
    """Rates are equal on the rows that chose, and alike on those that did not."""
    (table,) = Project(lender_folder).fairness("credit", thresholds=True).tables
    assert (table.n_chosen, table.n_measured) == (1500, 1500)
    parity = table.of("demographic_parity")
    chosen = [one.selection_rate for one in parity.chosen.values()]
    assert chosen[0] == pytest.approx(chosen[1])
    measured = [one.selection_rate for one in parity.points.values()]
    assert measured[0] == pytest.approx(measured[1], abs=0.08)
    assert measured[0] != measured[1]
    equal = table.of("equal_opportunity")
    hits = [one.true_positive_rate for one in equal.chosen.values()]
    assert hits[0] == pytest.approx(hits[1])
    assert equal.points["F"].cut.threshold < equal.points["M"].cut.threshold
    single = table.of("max_utility").points
    assert single["F"].cut == single["M"].cut
    refused = {name: 1 - one.true_positive_rate for name, one in single.items()}
    assert refused["F"] > refused["M"] + 0.1


def test_what_a_policy_does_later_is_told_where_app_toml_says_how(lender):
    """With the table each point has its delayed impact, and the curves their b* and b0."""
    unknown = Project(lender).fairness("credit", thresholds=True).to_json()["thresholds"][0]
    assert unknown["outcome"] == {}
    assert unknown["policies"][0]["groups"][0]["delayed_impact"] is None
    add(lender, IMPACT)
    known = Project(lender).fairness("credit", thresholds=True).to_json()["thresholds"][0]
    for curve in known["outcome"].values():
        assert 0 < curve["best"] < curve["zero"] < 1
        assert curve["best_impact"] > 0
    for policy in known["policies"]:
        for group in policy["groups"]:
            assert group["delayed_impact"] <= known["outcome"][group["group"]]["best_impact"]


def test_groups_too_small_for_thresholds_are_left_out_by_name(lender):
    """A group of twenty chooses nothing."""
    file = lender / "serving/credit/test.csv"
    frame = pd.read_csv(file)
    frame.loc[:19, "sex"] = "X"
    frame.to_csv(file, index=False)
    (table,) = Project(lender).fairness("credit", thresholds=True).tables
    assert table.left_out == {"X": 20}
    assert set(table.tables) == {"F", "M"}


# --- writing a policy ------------------------------------------------------------------------


def test_a_single_threshold_is_written(lender):
    """Only the default changes, and it cuts as the policy does."""
    examined = Project(lender).fairness("credit", write="max_utility")
    assert examined.changed
    settings = Project(lender).app("credit")
    assert settings.model.thresholds == examined.written
    cut = examined.tables[0].of("max_utility").points["F"].cut
    rows = scored(lender).iloc[::2]
    written = decide(rows["score"], settings.model.thresholds)
    assert (written == (rows["score"] >= cut.threshold)).all()
    again = Project(lender).fairness("credit", write="max_utility")
    assert not again.changed


def test_thresholds_per_group_need_the_word_of_people(lender):
    """Without groups_affect_decisions the file stays as it is, and the error says so."""
    before = app_file(lender).read_bytes()
    with pytest.raises(ConfigError, match="groups_affect_decisions"):
        Project(lender).fairness("credit", write="equal_opportunity")
    assert app_file(lender).read_bytes() == before


def test_a_policy_per_group_is_written_where_it_may_be(allowed):
    """The table has a threshold per group and a default for whoever gives none."""
    examined = Project(allowed).fairness("credit", write="equal_opportunity")
    assert set(examined.written) == {"default", "sex=F", "sex=M"}
    assert examined.written["default"] == 0.5
    project = Project(allowed)
    assert load_app(project.settings, "credit").model.thresholds == examined.written
    rows = scored(allowed).iloc[::2]
    yes = decide(rows["score"], examined.written, {"sex": rows["sex"]})
    positive = rows["y"] == 1
    hits = [yes[positive & (rows["sex"] == one)].mean() for one in ("F", "M")]
    assert hits[0] == pytest.approx(hits[1], abs=0.005)
    assert "# whom the gate compares" in app_file(allowed).read_text()


def test_one_attribute_at_a_time_affects_decisions(lender):
    """With two attributes somebody has to say which."""
    text = app_file(lender).read_text()
    app_file(lender).write_text(text.replace('sensitive = "sex"', 'sensitive = ["sex", "y"]'))
    with pytest.raises(UsageError, match="--by sex"):
        Project(lender).fairness("credit", write="demographic_parity")


# --- candidates ------------------------------------------------------------------------------


def test_thresholds_are_offered_beside_the_model(lender):
    """The candidate is a file; what it costs was measured on rows that did not choose it."""
    before = app_file(lender).read_bytes()
    made = Project(lender).fairness("credit", mitigate="thresholds").mitigated
    assert made.file == lender / "serving/credit/model.equal_opportunity.toml"
    assert "[model.thresholds]" in made.file.read_text()
    assert app_file(lender).read_bytes() == before
    assert made.cost.n == 1500
    assert made.cost.interval[0] <= made.cost.change <= made.cost.interval[1]
    assert made.cost.change == pytest.approx(made.cost.after - made.cost.before)
    (old,), (new,) = made.before, made.after
    assert new.gap.value < old.gap.value - 0.05


def test_reweighing_offers_a_new_model(lender):
    """The refitted pipeline stands beside the original, and the gate can judge it."""
    folder = lender / "serving/credit"
    original = (folder / "model.skops").read_bytes()
    made = Project(lender).fairness("credit", mitigate="reweighing").mitigated
    assert made.file == folder / "model.reweighed.skops"
    assert (folder / "model.skops").read_bytes() == original
    assert made.next_step.startswith("mlguard check credit --model ")
    rows = pd.read_csv(folder / "test.csv")
    inputs = rows[["income", "debts"]]
    right = {
        name: (load_model(folder / name).predict(inputs) == rows["y"]).mean()
        for name in ("model.skops", "model.reweighed.skops")
    }
    assert made.cost.before == pytest.approx(right["model.skops"])
    assert made.cost.after == pytest.approx(right["model.reweighed.skops"])


def test_weights_reach_the_estimator():
    """Refitting with weights is fitting with them; weights of 1 change nothing."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    y = (x[:, 0] + rng.normal(size=300) > 0).astype(int)
    weights = rng.uniform(0.2, 3, 300)
    alone = LogisticRegression().fit(x, y, sample_weight=weights)
    assert refitted(LogisticRegression(), x, y, weights).coef_ == pytest.approx(alone.coef_)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    again = refitted(pipeline, x, y, np.ones(300))
    assert again[-1].coef_ == pytest.approx(pipeline[-1].coef_)
    moved = refitted(pipeline, x, y, weights)
    assert moved[-1].coef_ != pytest.approx(pipeline[-1].coef_)
    assert moved is not pipeline


def test_an_estimator_that_takes_no_weights_is_said_to(lender):
    """Nearest neighbours cannot be reweighed; the error says what can be done."""
    from sklearn.neighbors import KNeighborsClassifier

    with pytest.raises(UsageError, match="takes no sample_weight") as raised:
        refitted(KNeighborsClassifier(), np.ones((4, 1)), np.array([0, 1, 0, 1]), np.ones(4))
    assert "--mitigate thresholds" in raised.value.hint


def test_reweighing_needs_rows_to_train_on(lender):
    """Without [data] train there is nothing to train again."""
    text = app_file(lender).read_text()
    app_file(lender).write_text(text.replace('train = "train.csv"\n', ""))
    with pytest.raises(DataError, match="nothing can be trained again"):
        Project(lender).fairness("credit", mitigate="reweighing")


def test_an_estimator_in_memory_has_no_file_to_stand_beside(lender_folder):
    """It can be measured, not mitigated."""
    model = load_model(lender_folder / "serving/credit/model.skops")
    project = Project(lender_folder)
    assert project.fairness("credit", model=model).n == 3000
    with pytest.raises(UsageError, match="has no file"):
        project.fairness("credit", model=model, mitigate="reweighing")


# --- pictures --------------------------------------------------------------------------------


def test_pictures_come_with_words_that_hold_the_number(lender, tmp_path):
    """One PNG a chart, and a page that shows each with the text that stands for it."""
    add(lender, IMPACT)
    plots = Project(lender).fairness("credit", thresholds=True, plots=tmp_path / "plots").plots
    names = {one.file.name for one in plots}
    assert {
        "sex-false-negative-rate.png",
        "sex-calibration.png",
        "sex-roc.png",
        "sex-outcome.png",
        "sex-thresholds.png",
    } <= names
    page = (tmp_path / "plots" / "README.md").read_text()
    for one in plots:
        assert one.file.read_bytes().startswith(b"\x89PNG")
        assert any(char.isdigit() for char in one.alt)
        assert one.alt in page
        assert "fair" not in one.title.lower()
        assert "bias" not in one.title.lower()
