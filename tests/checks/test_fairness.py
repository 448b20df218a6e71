import json

import numpy as np
import pandas as pd
import pytest

from mlguard.checks import CheckFailedError, JudgedModel, assert_no_gap
from mlguard.checks.fairness import Fairness, GapRule, find_gap
from mlguard.errors import DataError, UsageError
from mlguard.results import Verdict


class Replay:
    """Answers what stands in a column: predictions that were made elsewhere."""

    classes_ = np.array([0, 1])

    def __init__(self, column="y_pred"):
        self.column = column

    def predict(self, rows):
        return rows[self.column].to_numpy()


def replayed(target="y", column="y_pred"):
    return JudgedModel("model", Replay(column), target=target, features=[column], classes=(0, 1))


def rates(found):
    return {one.group: one.value for one in found.measurements}


@pytest.fixture
def compas(shared_data):
    frame = pd.read_csv(shared_data / "fairness/compas/compas-scores-two-years.csv.gz")
    return frame.assign(y_pred=(frame["decile_score"] >= 5).astype(int))


@pytest.fixture
def adult(shared_data):
    return pd.read_csv(shared_data / "fairness/adult/adult_test_lr_scores.csv.gz")


def known(shared_data, name):
    manifest = json.loads((shared_data / "manifest.json").read_text())
    return next(one["known_answers"] for one in manifest["datasets"] if one["name"] == name)


@pytest.mark.parametrize(
    ("metric", "key", "gap"),
    [
        ("false_positive_rate", "fpr", 0.4485 - 0.2345),
        ("false_negative_rate", "fnr", 0.4772 - 0.2799),
    ],
)
def test_compas_has_its_published_rates(shared_data, compas, metric, key, gap):
    """COMPAS: the published error rates of both races, on all rows, and a gap that is FAILED."""
    two = compas[compas["race"].isin(["African-American", "Caucasian"])].reset_index()
    found = find_gap(
        replayed("two_year_recid"), two, by="race", rule=GapRule(metric=metric, limit=0.1)
    )
    assert found.verdict is Verdict.FAILED
    assert found.value == pytest.approx(gap, abs=1e-4)
    published = known(shared_data, "compas_two_years")["computed_threshold_5"]
    for race in ("African-American", "Caucasian"):
        assert rates(found)[f"race={race}"] == pytest.approx(published[race][key], abs=1e-6)
    assert found.interval[0] > 0.1


def test_small_groups_of_compas_are_undecided_unless_the_others_fail(compas):
    """Eighteen people decide nothing; the gap between the large groups still fails the check."""
    rule = GapRule(metric="false_positive_rate", limit=0.1)
    found = find_gap(replayed("two_year_recid"), compas, by="race", rule=rule)
    assert found.verdict is Verdict.FAILED
    loose = GapRule(metric="false_positive_rate", limit=0.6)
    found = find_gap(replayed("two_year_recid"), compas, by="race", rule=loose)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == "few"
    assert "race=Native American (fewer than 10)" in found.summary
    optional = GapRule(
        metric="false_positive_rate", limit=0.6, optional={"Native American", "Asian"}
    )
    found = find_gap(replayed("two_year_recid"), compas, by="race", rule=optional)
    assert found.verdict is Verdict.PASSED
    assert any("left out" in note for note in found.details["notes"])


@pytest.mark.parametrize("metric", ["selection_rate", "accuracy", "false_positive_rate"])
def test_adult_has_its_known_rates(shared_data, adult, metric):
    """Adult: rates by sex from the stored scores are those of the manifest."""
    rule = GapRule(metric=metric, limit=0.02)
    found = find_gap(replayed("y_true"), adult, by="sex", rule=rule)
    key = {"false_positive_rate": "fpr"}.get(metric, metric)
    for sex, figures in known(shared_data, "adult")["lr_by_sex"].items():
        if sex != "all":
            assert rates(found)[f"sex={sex}"] == pytest.approx(figures[key], abs=1e-6)
    assert found.verdict is Verdict.FAILED


def test_adult_has_its_known_parity(shared_data, adult):
    """Adult: demographic parity as difference and as ratio."""
    parity = known(shared_data, "adult")["lr_demographic_parity"]
    for aggregate, limit in (("difference", 0.1), ("ratio", 0.8)):
        rule = GapRule(metric="selection_rate", aggregate=aggregate, limit=limit)
        found = find_gap(replayed("y_true"), adult, by="sex", rule=rule)
        assert found.value == pytest.approx(parity[aggregate], abs=1e-6)
        assert found.verdict is Verdict.FAILED


def people(n, *, gap=0.0, seed=0, groups=("F", "M")):
    """Rows with a false-negative rate of 0.2, and of 0.2 + gap for the first group."""
    random = np.random.default_rng(seed)
    sex = random.choice(groups, n)
    y = random.integers(0, 2, n)
    wrong = random.random(n) < 0.2 + gap * (sex == groups[0])
    return pd.DataFrame({"sex": sex, "y": y, "y_pred": np.where(wrong, 1 - y, y)})


def test_a_perfect_model_passes_although_one_group_has_no_positives():
    """No positives means undecided, never the worst score."""
    frame = people(2000)
    frame = frame.assign(y_pred=frame["y"])
    frame.loc[frame["sex"] == "F", ["y", "y_pred"]] = 0
    rule = GapRule(metric="true_positive_rate", limit=0.1)
    found = find_gap(replayed(), frame, by="sex", rule=rule)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "sex=F has 0" in found.summary


def test_a_tiny_sample_neither_passes_nor_fails():
    """With too few rows the finding says how many there are, and how many it takes."""
    rule = GapRule(metric="false_negative_rate", limit=0.1)
    found = find_gap(replayed(), people(300), by="sex", rule=rule)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "smallest limit this data can judge is" in found.summary
    assert "the limit needs about" in found.summary
    assert found.n_min


def test_a_large_gap_fails_in_words_about_people():
    """The finding says for whom, by how much, against which limit, and what it means."""
    rule = GapRule(metric="false_negative_rate", limit=0.05)
    found = find_gap(replayed(), people(6000, gap=0.2), by="sex", rule=rule)
    assert found.verdict is Verdict.FAILED
    assert "differs by 0.19 [" in found.summary
    assert "limit at most 0.05" in found.summary
    assert "Where the truth is 1, sex=F is refused that answer more often" in found.summary
    for word in ("biased", "unfair", "fair "):
        assert word not in found.summary.lower()


def test_a_missing_attribute_is_a_group_of_its_own():
    """People whose attribute is unknown are people too."""
    frame = people(4000)
    frame["sex"] = frame["sex"].where(frame.index % 3 > 0)
    rule = GapRule(metric="accuracy", limit=0.2)
    found = find_gap(replayed(), frame, by="sex", rule=rule)
    assert "sex=(missing)" in rates(found)


def test_more_classes_are_judged_one_against_the_rest():
    """With three classes the worst one speaks, and is named."""
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"sex": random.choice(["F", "M"], 9000), "y": random.choice([*"abc"], 9000)}
    )
    wrong = (frame["y"] == "b") & (frame["sex"] == "F") & (random.random(9000) < 0.4)
    frame["y_pred"] = frame["y"].where(~wrong, "c")
    model = JudgedModel("m", Replay(), target="y", features=["y_pred"], classes=("a", "b", "c"))
    found = find_gap(model, frame, by="sex", rule=GapRule(metric="false_negative_rate", limit=0.1))
    assert found.verdict is Verdict.FAILED
    assert "false_negative_rate of b" in found.summary


def test_a_regression_is_judged_by_its_errors():
    """Mean absolute errors of groups are compared in the unit of the target."""
    random = np.random.default_rng(2)
    sex = random.choice(["F", "M"], 4000)
    truth = random.normal(100, 10, 4000)
    error = random.normal(0, 1, 4000) * np.where(sex == "F", 3, 1)
    frame = pd.DataFrame({"sex": sex, "y": truth, "y_pred": truth + error})
    model = JudgedModel("m", Replay(), target="y", features=["y_pred"])
    rule = GapRule(metric="mean_absolute_error", limit=0.5)
    found = find_gap(model, frame, by="sex", rule=rule)
    assert found.verdict is Verdict.FAILED
    assert found.value == pytest.approx(2 * np.sqrt(2 / np.pi), abs=0.15)
    assert "The error is larger for sex=F" in found.summary


def test_nan_predictions_are_never_passed():
    """A model that answers NaN on three rows is FAILED, and the finding counts them per group."""
    frame = people(4000).assign(y_pred=lambda f: f["y_pred"].where(f.index > 2).astype(float))
    rule = GapRule(metric="accuracy", limit=0.5)
    found = find_gap(replayed(), frame, by="sex", rule=rule)
    assert found.verdict is Verdict.FAILED
    assert found.reason == "not_finite"
    assert "on 3 of 4,000 rows" in found.summary


def test_what_cannot_be_judged_is_refused_by_name():
    """An unknown metric, an absent column, a measurement as attribute: each says what to do."""
    frame = people(500).assign(height=np.arange(500))
    with pytest.raises(UsageError, match=r"'acuracy' \(did you mean 'accuracy'\?\)"):
        find_gap(replayed(), frame, by="sex", rule=GapRule(metric="acuracy", limit=0.1))
    with pytest.raises(DataError, match=r"no attribute 'sexx' in the data \(did you mean 'sex'"):
        find_gap(replayed(), frame, by="sexx", rule=GapRule(metric="accuracy", limit=0.1))
    with pytest.raises(UsageError, match="500 different values, too many to be groups"):
        find_gap(replayed(), frame, by="height", rule=GapRule(metric="accuracy", limit=0.1))
    one = find_gap(
        replayed(), frame.assign(sex="F"), by="sex", rule=GapRule(metric="accuracy", limit=0.1)
    )
    assert one.verdict is Verdict.INCONCLUSIVE
    assert "only one group" in one.summary


def test_the_failure_message_can_be_read_by_a_stranger():
    """The assert prints the groups with n, value and interval, the limit, and the next step."""
    with pytest.raises(CheckFailedError) as caught:
        assert_no_gap(
            replayed(), people(6000, gap=0.2), metric="false_negative_rate", by="sex", at_most=0.05
        )
    text = str(caught.value)
    lines = text.splitlines()
    assert lines[0] == "✗ failed  fairness.false_negative_rate_difference[sex]"
    header = next(
        line for line in lines if line.split() == ["group", "measured", "n", "value", "interval"]
    )
    rows = lines[lines.index(header) + 1 :][:2]
    assert [row.split()[0] for row in rows] == ["sex=F", "sex=M"]
    assert "limit 0.05" in text
    assert caught.value.result.verdict is Verdict.FAILED


def test_an_undecided_assert_fails_unless_it_only_warns():
    """Too little data fails a test, says so, and can be allowed by name."""
    asked = {"metric": "false_negative_rate", "by": "sex", "at_most": 0.02}
    with pytest.raises(CheckFailedError, match="undecided"):
        assert_no_gap(replayed(), people(300), **asked)
    result = assert_no_gap(replayed(), people(300), **asked, on_inconclusive="warn")
    assert result.verdict is Verdict.INCONCLUSIVE


def test_exactly_one_limit_is_needed():
    """Neither limit, or both, is a mistake that says how to write it."""
    for limits in ({}, {"at_most": 0.1, "at_least": 0.8}):
        with pytest.raises(UsageError, match="in one way"):
            assert_no_gap(replayed(), people(100), metric="accuracy", by="sex", **limits)


def test_a_plain_estimator_needs_the_target(fitted, test_frame):
    """In a notebook a scikit-learn model works as it is, if one says what it predicts."""
    asked = {"metric": "accuracy", "by": "sex", "at_most": 0.2}
    with pytest.raises(UsageError, match="target"):
        assert_no_gap(fitted, test_frame, **asked)
    assert assert_no_gap(fitted, test_frame, target="y", **asked).verdict is Verdict.PASSED
    with pytest.raises(UsageError, match="has no predict"):
        assert_no_gap(object(), test_frame, target="y", **asked)


def test_optional_groups_are_named_with_their_column(project):
    """``optional_groups = ["sex=X"]`` excuses that group of that attribute only."""
    project.settings('[gate.fairness]\noptional_groups = ["sex=X", "city=M"]\n')
    frame = pd.read_csv(project.app / "test.csv")
    frame.loc[:4, "sex"] = "X"
    project.data(test=frame)
    subject, family = project.subject(), Fairness()
    item = family.declare(subject.settings, project.root).items[0]
    assert family.run(item, subject).verdict is Verdict.PASSED
