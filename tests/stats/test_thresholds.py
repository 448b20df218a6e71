"""Threshold policies against their definitions, fairlearn, and the published credit scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.errors import UsageError
from mlguard.stats.score_table import Cut, ScoreTable, Utility
from mlguard.stats.thresholds import POLICIES, attribute_of, choose, decide


def world(seed, n=400, groups=2, digits=2):
    """Scores, truths and groups of people; the score says something about the truth."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    scores = np.round(np.clip(rng.beta(2 + group, 2), 0, 1), digits)
    truth = rng.random(n) < scores
    return scores, truth, group


def tables(scores, truth, group):
    return {
        str(one): ScoreTable.of_rows(scores[group == one], truth[group == one])
        for one in np.unique(group)
    }


def shares(found):
    rows = sum(one.n for one in found.values())
    return {name: one.n / rows for name, one in found.items()}


def points(policy, found, utility):
    cuts = choose(policy, found, shares=shares(found), utility=utility)
    return {name: one.operate(cuts[name], utility) for name, one in found.items()}


def worth(found, at):
    weight = shares(found)
    return sum(weight[name] * one.utility for name, one in at.items())


def test_max_utility_is_the_best_of_all_thresholds():
    """Trying every threshold by hand finds none that is worth more."""
    scores, truth, group = world(1)
    found, utility = tables(scores, truth, group), Utility(1, -2)
    tried = {
        limit: np.where(scores >= limit, np.where(truth, 1, -2), 0).mean()
        for limit in np.unique(scores)
    }
    single = points("max_utility", found, utility)
    assert worth(found, single) == pytest.approx(max(tried.values()))
    assert tried[single["0"].cut.threshold] == pytest.approx(max(tried.values()))
    for name, one in points("max_utility_per_group", found, utility).items():
        mine = group == int(name)
        best = max(
            np.where(scores[mine] >= limit, np.where(truth[mine], 1, -2), 0).mean()
            for limit in np.unique(scores)
        )
        assert one.utility == pytest.approx(best)


@given(seed=st.integers(0, 10**6), loss=st.floats(0.2, 6), groups=st.integers(2, 4))
def test_a_policy_keeps_its_rule_and_each_rule_costs(seed, loss, groups):
    """Rates are equal where they must be, and a narrower rule is never worth more."""
    found, utility = tables(*world(seed, groups=groups)), Utility(1, -loss)
    at = {policy: points(policy, found, utility) for policy in POLICIES}
    chosen = {one.selection_rate for one in at["demographic_parity"].values()}
    assert max(chosen) - min(chosen) < 1e-9
    hits = {one.true_positive_rate for one in at["equal_opportunity"].values()}
    assert max(hits) - min(hits) < 1e-9
    assert len({one.cut for one in at["max_utility"].values()}) == 1
    free = worth(found, at["max_utility_per_group"])
    assert all(worth(found, at[policy]) <= free + 1e-9 for policy in POLICIES)


@given(seed=st.integers(0, 10**6), policy=st.sampled_from(POLICIES))
def test_a_higher_score_is_never_treated_worse(seed, policy):
    """The probability of a yes does not fall as the score rises, and the lot spans one score."""
    found = tables(*world(seed, digits=1))
    cuts = choose(policy, found, shares=shares(found), utility=Utility())
    for name, one in found.items():
        probability = cuts[name].probability(one.scores[::-1])
        assert (np.diff(probability) >= 0).all()
        assert ((probability > 0) & (probability < 1)).sum() <= 1


def test_exact_rates_need_a_lot_where_scores_are_few():
    """With three scores two groups meet the same rate only by randomising."""
    a = ScoreTable.of_distribution([1, 2, 3], [0.2, 0.5, 0.3], [0.2, 0.6, 0.9])
    b = ScoreTable.of_distribution([1, 2, 3], [0.6, 0.3, 0.1], [0.2, 0.6, 0.9])
    half = {"a": 0.5, "b": 0.5}
    cuts = choose("demographic_parity", {"a": a, "b": b}, shares=half, utility=Utility())
    assert cuts["b"] == Cut.at(2.0)
    assert cuts["a"].randomised
    assert (cuts["a"].high, cuts["a"].low) == (3.0, 2.0)
    assert cuts["a"].share == pytest.approx(0.2)
    assert a.operate(cuts["a"], Utility()).selection_rate == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("policy", "constraint"),
    [
        ("demographic_parity", "demographic_parity"),
        ("equal_opportunity", "true_positive_rate_parity"),
    ],
)
def test_fairlearn_finds_the_same_rate_and_accuracy(policy, constraint):
    """Where success rises with the score, fairlearn's optimum is ours, within its grid."""
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """Passes a score through."""

        def fit(self, x, y):
            self.classes_ = np.unique(y)
            return self

        def predict(self, x):
            return np.asarray(x)[:, 0]

    scores, truth, group = [], [], []
    for name, sizes in enumerate(([40, 80, 120, 60], [100, 100, 60, 40])):
        for score, (size, success) in enumerate(
            zip(sizes, (0.2, 0.35, 0.7, 0.9), strict=True), start=1
        ):
            scores += [score / 5] * size
            truth += [True] * round(success * size) + [False] * (size - round(success * size))
            group += [name] * size
    scores, truth, group = np.array(scores), np.array(truth), np.array(group)
    found = tables(scores, truth, group)
    # Accuracy is the utility of +1 and -1, but for a constant.
    ours = points(policy, found, Utility(1, -1))
    accuracy = (1 - truth.mean()) + worth(found, ours)
    theirs = ThresholdOptimizer(
        estimator=Given(),
        constraints=constraint,
        objective="accuracy_score",
        predict_method="predict",
        grid_size=2000,
    ).fit(scores[:, None], truth.astype(int), sensitive_features=group)
    probability = theirs._pmf_predict(scores[:, None], sensitive_features=group)[:, 1]
    reached = np.where(truth, probability, 1 - probability).mean()
    assert accuracy == pytest.approx(reached, abs=2e-3)
    assert accuracy >= reached - 1e-9
    for name in found:
        mine = group == int(name)
        assert ours[name].selection_rate == pytest.approx(probability[mine].mean(), abs=5e-3)


def test_a_group_without_positives_has_no_equal_opportunity():
    """It is refused by name, not set to 0."""
    found = {
        "a": ScoreTable.of_rows([0.1, 0.9], [False, True]),
        "b": ScoreTable.of_rows([0.1, 0.9], [False, False]),
    }
    with pytest.raises(UsageError, match="no row of b is positive"):
        choose("equal_opportunity", found, shares={"a": 0.5, "b": 0.5}, utility=Utility())
    at = choose("demographic_parity", found, shares={"a": 0.5, "b": 0.5}, utility=Utility())
    assert found["b"].operate(at["b"], Utility()).true_positive_rate is None


def test_nobody_may_be_selected():
    """Where no yes pays, the threshold is above every score, and the rates are 0."""
    table = ScoreTable.of_rows([0.1, 0.9], [False, True])
    cut = choose("max_utility", {"a": table}, shares={"a": 1.0}, utility=Utility(1, -1e9))["a"]
    assert cut.threshold == 0.9
    never = ScoreTable.of_rows([0.1, 0.9], [False, False])
    cut = choose("max_utility", {"a": never}, shares={"a": 1.0}, utility=Utility())["a"]
    assert math.isinf(cut.threshold)
    assert cut.to_json() == {"threshold": None, "from": None, "always_from": None, "share": 1.0}
    point = never.operate(cut, Utility())
    assert (point.selection_rate, point.precision, point.utility) == (0.0, None, 0.0)


def test_an_operating_point_is_what_counting_rows_finds():
    """Rates, utility and impact of a threshold are the means over its rows."""
    scores, truth, _ = world(3)
    moved = np.where(truth, 5.0, -7.0)
    table = ScoreTable.of_rows(scores, truth, moved)
    yes = scores >= 0.6
    point = table.operate(Cut.at(0.6), Utility(2, -3))
    assert point.selection_rate == pytest.approx(yes.mean())
    assert point.true_positive_rate == pytest.approx(yes[truth].mean())
    assert point.false_positive_rate == pytest.approx(yes[~truth].mean())
    assert point.precision == pytest.approx(truth[yes].mean())
    assert point.utility == pytest.approx(np.where(yes, np.where(truth, 2, -3), 0).mean())
    assert point.impact == pytest.approx(np.where(yes, moved, 0).mean())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0, 1.0], [0.5, 0.5], [0, 1]), "fall strictly"),
        (([2.0, 1.0], [0.5, 0.5], [0, 2]), "between 0 and 1"),
        (([2.0, np.nan], [0.5, 0.5], [0, 1]), "finite"),
        (([2.0, 1.0], [0.5], [0, 1]), "shapes"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(arguments, words):
    """Scores, masses and shares of success are held to what they mean."""
    with pytest.raises(UsageError, match=words):
        ScoreTable(*(np.asarray(one, float) for one in arguments))


# --- applying a table -----------------------------------------------------------------------

TABLE = {"default": 0.5, "sex=F": 0.4, "sex=M": 0.6}


def test_each_row_is_held_to_its_own_group():
    """The same score is a yes for one group and a no for the other."""
    found = decide([0.45, 0.45, 0.55, 0.55], TABLE, {"sex": ["F", "M", "F", "M"]})
    assert found.tolist() == [True, False, True, False]


@pytest.mark.parametrize("groups", [None, {}, {"race": ["A", "A"]}, {"sex": [None, "X"]}])
def test_without_a_known_group_the_default_holds(groups):
    """No groups, another attribute, a missing value and an unknown one get the default."""
    assert decide([0.49, 0.5], TABLE, groups).tolist() == [False, True]


def test_a_score_that_is_not_a_number_is_a_no():
    """NaN is never from any threshold on."""
    assert decide([np.nan], {"default": 0.0}).tolist() == [False]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"sex=F": 0.4}, 'needs a key "default"'),
        ({"default": 0.5, "F": 0.4}, "names no group"),
        ({"default": 0.5, "sex=": 0.4}, "names no group"),
        ({"default": 0.5, "sex=F": 0.4, "race=A": 0.4}, "by race and by sex"),
    ],
)
def test_a_table_that_nobody_can_apply_is_refused(table, words):
    """The words say what is wrong with it."""
    with pytest.raises(UsageError, match=words):
        attribute_of(table)


def test_groups_and_scores_of_different_lengths_are_refused():
    """A shifted column of groups must not decide about anybody."""
    with pytest.raises(UsageError, match="one a row"):
        decide([0.1, 0.2], TABLE, {"sex": ["F"]})


@given(seed=st.integers(0, 10**6))
def test_one_threshold_for_all_needs_no_groups(seed):
    """With a default alone, groups change nothing."""
    scores, _, group = world(seed, n=50)
    alone = decide(scores, {"default": 0.5})
    assert (alone == decide(scores, {"default": 0.5}, {"sex": group})).all()
    assert (alone == (scores >= 0.5)).all()
