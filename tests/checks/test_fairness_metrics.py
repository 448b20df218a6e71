"""Every metric and aggregate beside fairlearn's, and what fairlearn leaves undefined."""

import itertools
import warnings

import fairlearn.metrics as fm
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sm

from mlguard.checks import CheckFailedError, JudgedModel, assert_no_gap
from mlguard.checks.fairness import Fairness, GapRule, find_gap, group_names
from mlguard.config import load_app, load_project
from mlguard.errors import ConfigError, DataError, UsageError
from mlguard.results import Enforcement, Verdict

RATES = {
    "selection_rate": fm.selection_rate,
    "true_positive_rate": fm.true_positive_rate,
    "false_positive_rate": fm.false_positive_rate,
    "false_negative_rate": fm.false_negative_rate,
    "true_negative_rate": fm.true_negative_rate,
    "precision": sm.precision_score,
    "accuracy": sm.accuracy_score,
    "f1_score": sm.f1_score,
}
AGGREGATES = ("difference", "ratio", "group_min", "group_max")
RACES = ["African-American", "Caucasian"]


class Replay:
    """Answers what stands in a column; scores, if another column is named."""

    def __init__(self, column="y_pred", score=None):
        self.column, self.score = column, score

    def predict(self, rows):
        return rows[self.column].to_numpy()

    def predict_proba(self, rows):
        if self.score is None:
            raise AssertionError("nobody should ask for scores")
        score = rows[self.score].to_numpy()
        return np.column_stack([1 - score, score])


def replayed(target="y", classes=(0, 1), score=None):
    features = ["y_pred", *([score] if score else [])]
    return JudgedModel(
        "model", Replay(score=score), target=target, features=features, classes=classes
    )


@pytest.fixture(scope="module")
def compas(shared_data):
    frame = pd.read_csv(shared_data / "fairness/compas/compas-scores-two-years.csv.gz")
    return frame.assign(
        y=frame["two_year_recid"],
        y_pred=(frame["decile_score"] >= 5).astype(int),
        score=frame["decile_score"] / 10,
        weight=1 + frame["priors_count"] % 5,
    )


@pytest.fixture(scope="module")
def two_races(compas):
    return compas[compas["race"].isin(RACES)].reset_index(drop=True)


def figure(frame, metric, by, aggregate, method="between_groups", *, weight="", control=()):
    """The value of a check that leaves nobody out."""
    rule = GapRule(
        metric=metric,
        aggregate=aggregate,
        method=method,
        limit=0.5,
        decide="estimate",
        min_group_size=1,
        weight=weight,
        control=control,
    )
    return find_gap(replayed(), frame, by=by, rule=rule).value


def framed(metric, frame, by, *, weight="", control=None):
    return fm.MetricFrame(
        metrics=metric,
        y_true=frame["y"],
        y_pred=frame["y_pred"],
        sensitive_features=frame[by],
        control_features=control and frame[control],
        sample_params={"sample_weight": frame[weight]} if weight else None,
    )


def theirs(frame, aggregate, method):
    if aggregate in ("group_min", "group_max"):
        return getattr(frame, aggregate)()
    return getattr(frame, aggregate)(method=method)


@pytest.mark.parametrize("metric", RATES)
@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("by", ["race", ["sex", "race"]])
@pytest.mark.parametrize("weight", ["", "weight"])
def test_every_metric_has_fairlearns_value(two_races, metric, aggregate, by, weight):
    """Per aggregate, by attribute and intersection, with and without weights."""
    frame = framed(RATES[metric], two_races, by, weight=weight)
    methods = ("between_groups", "to_overall") if aggregate in ("difference", "ratio") else ("",)
    for method in methods:
        ours = figure(two_races, metric, by, aggregate, method, weight=weight)
        assert ours == pytest.approx(theirs(frame, aggregate, method), rel=1e-9)


def test_parities_of_the_two_races_are_fairlearns(two_races):
    """COMPAS: demographic parity, equalized odds and equal opportunity, to six places."""
    assert len(two_races) == 6150
    asked = {
        "demographic_parity_difference": 0.240200,
        "demographic_parity_ratio": 0.591638,
        "equalized_odds_difference": 0.213925,
        "equalized_odds_ratio": 0.522987,
        "equal_opportunity_difference": None,
        "equal_opportunity_ratio": None,
    }
    for name, known in asked.items():
        metric, _, aggregate = name.rpartition("_")
        ours = figure(two_races, metric, "race", aggregate)
        them = getattr(fm, name)(
            two_races["y"], two_races["y_pred"], sensitive_features=two_races["race"]
        )
        assert ours == pytest.approx(them, abs=1e-12)
        if known is not None:
            assert ours == pytest.approx(known, abs=5e-7)


def test_equalized_odds_tells_both_rates_and_the_worse_one_speaks(two_races):
    """The finding holds the groups of both rates, and an interval of the worse gap."""
    rule = GapRule(metric="equalized_odds", limit=0.1)
    found = find_gap(replayed(), two_races, by="race", rule=rule)
    assert found.verdict is Verdict.FAILED
    assert {one.name for one in found.measurements} == {
        "true_positive_rate",
        "false_positive_rate",
    }
    assert found.interval[0] < found.value < found.interval[1]
    assert found.interval[0] > 0.1


@pytest.mark.parametrize("aggregate", ["difference", "ratio"])
def test_control_features_have_fairlearns_value(two_races, aggregate):
    """The worst of the gaps within each control group."""
    frame = framed(fm.selection_rate, two_races, "race", control="sex")
    worst = max if aggregate == "difference" else min
    ours = figure(two_races, "selection_rate", "race", aggregate, control=("sex",))
    assert ours == pytest.approx(worst(theirs(frame, aggregate, "between_groups")), rel=1e-9)


def test_a_control_feature_can_explain_a_gap():
    """Groups that differ only because they apply for different things do not differ within."""
    random = np.random.default_rng(0)
    sex = random.choice(["F", "M"], 8000)
    grade = np.where(random.random(8000) < np.where(sex == "F", 0.8, 0.2), "hard", "easy")
    frame = pd.DataFrame({"sex": sex, "grade": grade, "y": 1})
    frame["y_pred"] = (random.random(8000) < np.where(grade == "hard", 0.2, 0.8)).astype(int)
    rule = GapRule(metric="selection_rate", limit=0.1)
    assert find_gap(replayed(), frame, by="sex", rule=rule).verdict is Verdict.FAILED
    rule = GapRule(metric="selection_rate", limit=0.1, control=("grade",))
    found = find_gap(replayed(), frame, by="sex", rule=rule)
    assert found.verdict is Verdict.PASSED
    assert {one.group for one in found.measurements} >= {"sex=F (grade=hard)", "sex=M (grade=easy)"}


def test_a_regression_has_fairlearns_values():
    """Mean prediction, mean absolute error and mean residual, of groups and of everybody."""
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"sex": random.choice([*"FMX"], 900), "y": random.normal(50, 9, 900)})
    frame["y_pred"] = frame["y"] + random.normal(np.where(frame["sex"] == "F", 2, 0), 3)
    frame["weight"] = random.integers(1, 4, 900)
    asked = {
        "mean_prediction": fm.mean_prediction,
        "mean_absolute_error": sm.mean_absolute_error,
        "mean_residual": lambda y_true, y_pred, sample_weight=None: np.average(
            y_pred - y_true, weights=sample_weight
        ),
    }
    model = JudgedModel("model", Replay(), target="y", features=["y_pred"])
    for (metric, function), method, weight in itertools.product(
        asked.items(), ("between_groups", "to_overall"), ("", "weight")
    ):
        rule = GapRule(metric=metric, limit=1.0, method=method, weight=weight)
        found = find_gap(model, frame, by="sex", rule=rule)
        them = framed(function, frame, "sex", weight=weight).difference(method=method)
        assert found.value == pytest.approx(them, rel=1e-9), (metric, method, weight)
        assert found.interval[0] <= found.value <= found.interval[1]
    rule = GapRule(metric="mean_residual", limit=1.0)
    found = find_gap(model, frame, by="sex", rule=rule)
    assert found.verdict is Verdict.FAILED
    assert "sex=F is predicted more" in found.summary


def test_a_mean_prediction_of_classes_is_the_mean_score(compas):
    """For a classifier scores are compared, of everybody without a threshold."""
    model = replayed(score="score")
    rule = GapRule(
        metric="mean_prediction",
        limit=0.1,
        min_group_size=30,
        optional={"Asian", "Native American"},
    )
    found = find_gap(model, compas, by="race", rule=rule)
    means = compas.groupby("race")["score"].mean()
    for one in found.measurements:
        assert one.value == pytest.approx(means[one.group.partition("=")[2]])
    with pytest.raises(AssertionError):
        find_gap(replayed(), compas, by="race", rule=rule)


def expected_calibration_error(y, score):
    """By hand: ten classes of equal width, sizes of differences weighted by rows."""
    place = np.minimum((score * 10).astype(int), 9)
    return sum(
        (place == one).mean() * abs(y[place == one].mean() - score[place == one].mean())
        for one in np.unique(place)
    )


def test_a_calibration_error_is_the_textbooks(two_races):
    """Per group as computed by hand; the worst group is held against the limit."""
    model = replayed(score="score")
    rule = GapRule(metric="calibration_error", aggregate="group_max", limit=0.05)
    found = find_gap(model, two_races, by="race", rule=rule)
    for one in found.measurements:
        rows = two_races[two_races["race"] == one.group.partition("=")[2]]
        known = expected_calibration_error(rows["y"].to_numpy(), rows["score"].to_numpy())
        assert one.value == pytest.approx(known, abs=1e-12)
        assert one.low < one.value < one.high
    assert found.verdict is Verdict.FAILED  # deciles are no probabilities
    assert "calibration_error is highest for race=" in found.summary


def test_a_small_well_calibrated_group_does_not_fail_for_being_small():
    """Noise lifts the calibration error of a small group; that is no breach."""
    random = np.random.default_rng(2)
    failed = 0
    for _ in range(60):
        score = random.random(4100)
        frame = pd.DataFrame({"sex": ["F"] * 100 + ["M"] * 4000, "score": score, "y_pred": 0})
        frame["y"] = (random.random(4100) < score).astype(int)
        rule = GapRule(metric="calibration_error", limit=0.05)
        found = find_gap(replayed(score="score"), frame, by="sex", rule=rule)
        assert found.verdict is not Verdict.PASSED or found.reason == "not_proven"
        failed += found.verdict is Verdict.FAILED
    assert failed <= 3


def test_more_classes_have_fairlearns_values():
    """One class against the rest: selection rates and odds of three classes."""
    random = np.random.default_rng(3)
    frame = pd.DataFrame({"sex": random.choice([*"FM"], 3000), "y": random.choice([*"abc"], 3000)})
    frame["y_pred"] = np.where(random.random(3000) < 0.7, frame["y"], random.choice([*"abc"], 3000))
    model = replayed(classes=("a", "b", "c"))
    for metric, name in (
        ("selection_rate", "demographic_parity_difference"),
        ("equalized_odds", "equalized_odds_difference"),
    ):
        found = find_gap(model, frame, by="sex", rule=GapRule(metric=metric, limit=0.001))
        them = [
            getattr(fm, name)(
                frame["y"] == one, frame["y_pred"] == one, sensitive_features=frame["sex"]
            )
            for one in "abc"
        ]
        assert found.value in [pytest.approx(one, abs=1e-12) for one in them]


def crossed(n_small, n=4000, seed=4):
    """Two attributes, error rates alike, one combination with few rows."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"sex": random.choice([*"FM"], n), "race": random.choice([*"AB"], n)})
    both = frame.index[(frame["sex"] == "F") & (frame["race"] == "B")]
    frame = frame.drop(both[n_small:]).reset_index(drop=True)
    frame["y"] = random.integers(0, 2, len(frame))
    wrong = random.random(len(frame)) < 0.2
    return frame.assign(y_pred=np.where(wrong, 1 - frame["y"], frame["y"]))


@pytest.mark.parametrize("n_small", [5, 80])
def test_undecided_cells_of_an_intersection_are_listed(n_small):
    """Too few rows for anything, or for support: listed with their rows, and the rest is judged."""
    rule = GapRule(metric="accuracy", limit=0.1)
    found = find_gap(replayed(), crossed(n_small), by=["sex", "race"], rule=rule)
    assert found.verdict is Verdict.PASSED
    assert found.details["undecided"] == ["sex=F,race=B"]
    told = n_small if n_small >= 10 else "fewer than 10"
    assert f"sex=F,race=B ({told})" in found.details["notes"][0]
    assert "required_groups" in found.details["notes"][0]


@pytest.mark.parametrize("n_small", [5, 80])
def test_a_required_cell_blocks_until_it_is_decided(n_small):
    """Named in ``required_groups``, the same cell leaves the check undecided."""
    rule = GapRule(metric="accuracy", limit=0.1, required={"sex=F,race=B"})
    found = find_gap(replayed(), crossed(n_small), by=["sex", "race"], rule=rule)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == ("few" if n_small == 5 else "no_support")


def test_a_required_cell_that_nobody_is_in_is_not_forgotten():
    """A group that the test rows lack is undecided, not absent."""
    rule = GapRule(metric="accuracy", limit=0.1, required={"sex=X,race=B"})
    found = find_gap(replayed(), crossed(900), by=["sex", "race"], rule=rule)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "sex=X,race=B (0)" in found.summary


def test_a_small_cell_can_still_fail():
    """Sixty people who are all treated wrongly prove a gap, support or not."""
    frame = crossed(60)
    cell = (frame["sex"] == "F") & (frame["race"] == "B")
    frame.loc[cell, "y_pred"] = 1 - frame.loc[cell, "y"]
    rule = GapRule(metric="accuracy", limit=0.1)
    found = find_gap(replayed(), frame, by=["sex", "race"], rule=rule)
    assert found.verdict is Verdict.FAILED
    assert "sex=F,race=B" in found.details["pair"]
    for by in ("sex", "race"):
        assert find_gap(replayed(), frame, by=by, rule=rule).verdict is not Verdict.FAILED


def test_an_intersection_without_anybody_large_enough_warns(project):
    """Nothing could be compared and nobody is required: undecided, and it does not block."""
    project.settings(
        "[gate.fairness]\nmetrics = ['accuracy']\nby = [['sex', 'city']]\nmin_group_size = 2000\n"
    )
    subject, family = project.subject(), Fairness()
    item = family.declare(subject.settings, project.root).items[0]
    assert item.name == "fairness.accuracy_difference[sex,city]"
    result = family.run(item, subject)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.on_inconclusive is Enforcement.WARN
    assert not result.blocks
    project.settings(
        "[gate.fairness]\nmetrics = ['accuracy']\nby = [['sex', 'city']]\nmin_group_size = 2000\n"
        "required_groups = ['city=Ulm, sex=F']\n"
    )
    subject = project.subject()
    result = family.run(family.declare(subject.settings, project.root).items[0], subject)
    assert result.blocks


def test_attributes_and_intersections_are_items_of_their_own(project):
    """``by = ["sex", ["sex", "city"]]`` is an item per metric and entry."""
    project.settings(
        "[gate.fairness]\nmetrics = ['accuracy', 'equalized_odds']\nby = ['sex', ['sex', 'city']]\n"
    )
    subject = project.subject()
    items = Fairness().declare(subject.settings, project.root).items
    assert [one.name for one in items] == [
        "fairness.accuracy_difference[sex]",
        "fairness.accuracy_difference[sex,city]",
        "fairness.equalized_odds_difference[sex]",
        "fairness.equalized_odds_difference[sex,city]",
    ]


def test_weights_widen_what_they_make_unequal():
    """The same rows with unequal weights say less: a wider interval, fewer rows told."""
    frame = crossed(900).assign(weight=lambda f: np.where(f.index % 10 == 0, 30.0, 1.0))
    plain = find_gap(replayed(), frame, by="sex", rule=GapRule(metric="accuracy", limit=0.2))
    rule = GapRule(metric="accuracy", limit=0.2, weight="weight")
    weighted = find_gap(replayed(), frame, by="sex", rule=rule)
    assert weighted.n < plain.n / 3
    widths = [one.interval[1] - one.interval[0] for one in (plain, weighted)]
    assert widths[1] > widths[0]
    alike = find_gap(replayed(), frame.assign(weight=7.0), by="sex", rule=rule)
    assert alike.n == plain.n
    assert alike.interval == pytest.approx(plain.interval, abs=1e-12)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_weight_that_is_none_is_refused(weight):
    """Negative, missing or infinite weights are named, with how many there are."""
    frame = crossed(900).assign(weight=1.0)
    frame.loc[3, "weight"] = weight
    rule = GapRule(metric="accuracy", limit=0.2, weight="weight")
    with pytest.raises(DataError, match="negative, infinite or missing in 1 of"):
        find_gap(replayed(), frame, by="sex", rule=rule)


def test_a_group_is_below_everybody_in_words():
    """Compared with everybody, the finding names the group and on which side it is."""
    random = np.random.default_rng(5)
    frame = pd.DataFrame({"sex": random.choice(["F", "M"], 9000, p=[0.2, 0.8]), "y": 1})
    low = np.where(frame["sex"] == "F", 0.3, 0.6)
    frame["y_pred"] = (random.random(9000) < low).astype(int)
    rule = GapRule(metric="selection_rate", limit=0.1, method="to_overall")
    found = find_gap(replayed(), frame, by="sex", rule=rule)
    assert found.verdict is Verdict.FAILED
    assert "between sex=F and everybody" in found.summary
    assert "sex=F is below everybody" in found.summary


def test_a_floor_of_every_group():
    """``group_min``: the lowest group alone is held against the limit."""
    frame = crossed(900)
    for limit, verdict in ((0.7, Verdict.PASSED), (0.9, Verdict.FAILED)):
        rule = GapRule(metric="accuracy", aggregate="group_min", limit=limit)
        found = find_gap(replayed(), frame, by="sex", rule=rule)
        assert found.verdict is verdict
        assert "accuracy is lowest for sex=" in found.summary
        assert "limit at least" in found.summary


def test_asserts_know_the_same_words():
    """Intersections, aggregates, everybody and control groups in a test of one's own."""
    frame, model = crossed(900), replayed()
    asked = {"metric": "accuracy", "by": ["sex", "race"]}
    assert assert_no_gap(model, frame, **asked, at_most=0.2).subject == "sex,race"
    assert_no_gap(model, frame, **asked, at_least=0.6, aggregate="group_min")
    assert_no_gap(model, frame, **asked, at_most=0.2, method="to_overall")
    assert_no_gap(model, frame, metric="accuracy", by="sex", control="race", at_most=0.2)
    with pytest.raises(UsageError, match="group_min is limited by at_least"):
        assert_no_gap(model, frame, **asked, at_most=0.2, aggregate="group_min")
    with pytest.raises(CheckFailedError, match="sex=X,race=A"):
        assert_no_gap(model, frame, **asked, at_most=0.2, required_groups=["sex=X,race=A"])
    with pytest.raises(UsageError, match="mean_residual has no ratio"):
        assert_no_gap(model, frame, metric="mean_residual", by="sex", at_least=0.8)
    tiny = crossed(900).head(40)
    assert assert_no_gap(model, tiny, **asked, at_most=0.2).verdict is Verdict.INCONCLUSIVE


def test_groups_are_named_with_their_columns_in_any_order():
    """``"race=B, sex=F"`` is ``"sex=F,race=B"``; other columns are not meant."""
    assert group_names(["race=B, sex=F", "sex=F", "city=Ulm,sex=F"], ("sex", "race")) == {
        "sex=F,race=B"
    }
    assert group_names(["sex = a,b"], ("sex",)) == {"a,b"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metrics = ['recall']", "recall"),
        (
            "metrics = ['equalized_odds']\naggregate = 'group_min'",
            "equalized_odds has no aggregate",
        ),
        ("metrics = ['calibration_error']\naggregate = 'ratio'", "calibration_error has no"),
        ("at_most = 2", "at_most = 2, and false_positive_rate is at most 1"),
        ("by = [['sex', 'sex']]", "names its columns, each once"),
        ("by = [[]]", "names its columns, each once"),
        ("required_groups = ['F']", 'write it as "column=value"'),
        ("population = {F = 0.5}", 'write it as "column=value"'),
        ("population = {'sex=F' = 0.7, 'sex=M' = 0.7}", "more than 1"),
        ("populaton = {'sex=F' = 0.5}", "did you mean 'population'"),
        ("method = 'to_all'", "between_groups"),
        ("[gate.fairness.equalized_odds_group_min]\nenabled = false", "equalized_odds_group_min"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_the_settings(project, text, words):
    """Each mistake is named with its key, before anything runs."""
    project.settings(f"[gate.fairness]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load_app(load_project(project.root), "credit")
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_a_required_group_that_nothing_judges_closes_the_gate(project):
    """A name without its entry in ``by`` is a mistake, not a group that is fine."""
    project.settings("[gate.fairness]\nrequired_groups = ['sex=F,city=Ulm']\n")
    with pytest.raises(UsageError, match="no entry of `by` has these columns"):
        Fairness().declare(project.subject().settings, project.root)


def test_a_limit_on_errors_is_in_their_unit(project):
    """A regression's errors may differ by more than 1."""
    project.settings("[gate.fairness]\nmetrics = ['mean_absolute_error']\nat_most = 250\n")
    assert load_app(load_project(project.root), "credit").gate.fairness.at_most == 250


def test_traps_of_fairlearn_are_not_ours():
    """One row, or no positives: fairlearn's worst score is our undecided."""
    frame = pd.DataFrame({"sex": ["F"] * 500 + ["M"] * 500, "y": [0] * 500 + [1, 0] * 250})
    frame["y_pred"] = frame["y"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        worst = fm.equalized_odds_difference(
            frame["y"], frame["y_pred"], sensitive_features=frame["sex"]
        )
    assert worst == 1.0
    found = find_gap(replayed(), frame, by="sex", rule=GapRule(metric="equalized_odds", limit=0.1))
    assert found.verdict is Verdict.INCONCLUSIVE
    one = pd.concat(
        [crossed(900), pd.DataFrame({"sex": ["X"], "race": ["A"], "y": [1], "y_pred": [0]})]
    )
    them = framed(fm.selection_rate, one, "sex").difference()
    found = find_gap(replayed(), one, by="sex", rule=GapRule(metric="selection_rate", limit=0.2))
    assert them > 0.4
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "sex=X (fewer than 10)" in found.summary
