import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlguard.checks import (
    CheckFailedError,
    JudgedModel,
    assert_beats,
    assert_no_worse,
)
from mlguard.checks.baseline import (
    Baseline,
    beats,
    compare,
    mean_difference_interval,
    no_worse,
)
from mlguard.checks.simple_models import train_simple
from mlguard.errors import DataError, UsageError
from mlguard.results import Verdict


class Column:
    """Answers what stands in a column."""

    def __init__(self, column):
        self.column = column

    def predict(self, rows):
        return rows[self.column].to_numpy()


def model(column, target="y"):
    return JudgedModel(column, Column(column), target=target, features=[column])


def binary(n, *, right, other_right, seed=0):
    """Rows that ``ours`` and ``theirs`` get right with the given probabilities."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, n)
    ours = np.where(random.random(n) < right, y, 1 - y)
    theirs = np.where(random.random(n) < other_right, y, 1 - y)
    return pd.DataFrame({"y": y, "ours": ours, "theirs": theirs})


def test_adult_beats_its_three_feature_baseline(shared_data):
    """Adult: 1680 rows that only the model gets right, 681 that only the baseline does."""
    frame = pd.read_csv(shared_data / "fairness/adult/adult_test_lr_scores.csv.gz")
    pair = compare(model("y_pred", "y_true"), model("y_pred_baseline", "y_true"), frame, "accuracy")
    assert (pair.gained, pair.lost) == (1680, 681)
    assert pair.value == pytest.approx(0.851913, abs=1e-6)
    assert pair.better == pytest.approx((1680 - 681) / 16281)
    found = beats(pair, delta=0.0)
    assert found.verdict is Verdict.PASSED
    assert found.interval[0] > 0.05


def test_identical_predictions_are_no_worse_whatever_n():
    """Five rows answered alike are PASSED by identity; they beat nothing."""
    frame = binary(5, right=0.6, other_right=0.6).assign(theirs=lambda f: f["ours"])
    pair = compare(model("ours"), model("theirs"), frame, "accuracy")
    assert no_worse(pair, margin=0.0).verdict is Verdict.PASSED
    assert "exactly like theirs" in no_worse(pair, margin=0.0).summary
    assert beats(pair, delta=0.0).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("right", "n", "verdict"),
    [
        (0.90, 4000, Verdict.PASSED),
        (0.80, 4000, Verdict.FAILED),
        (0.895, 100, Verdict.INCONCLUSIVE),
    ],
)
def test_no_worse_than_is_non_inferiority(right, n, verdict):
    """As good passes, worse by more than the margin fails, few rows decide nothing."""
    frame = binary(n, right=right, other_right=0.90, seed=3)
    pair = compare(model("ours"), model("theirs"), frame, "accuracy")
    found = no_worse(pair, margin=0.02)
    assert found.verdict is verdict
    assert found.limit == -0.02
    assert f"{pair.flips:,} rows answered differently" in found.summary
    assert bool(found.next_step) is (verdict is not Verdict.PASSED)


def test_a_tie_beats_nothing_and_few_rows_say_so():
    """Superiority is refuted by a model that is worse, undecided on a handful of rows."""
    worse = compare(
        model("ours"), model("theirs"), binary(3000, right=0.6, other_right=0.8), "accuracy"
    )
    assert beats(worse, delta=0.0).verdict is Verdict.FAILED
    few = compare(
        model("ours"), model("theirs"), binary(30, right=0.8, other_right=0.7), "accuracy"
    )
    found = beats(few, delta=0.0)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "rows would tell" in found.next_step


def test_one_class_can_not_be_beaten():
    """Where all rows have one label nothing is proven by predicting it."""
    frame = binary(500, right=0.9, other_right=0.5).assign(y=1)
    found = beats(compare(model("ours"), model("theirs"), frame, "accuracy"), delta=0.0)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == "one_class"


@pytest.mark.parametrize("metric", ["accuracy", "mean_absolute_error"])
def test_nan_predictions_are_never_passed(metric):
    """One NaN among a thousand otherwise better answers is FAILED and counted."""
    frame = binary(1000, right=0.95, other_right=0.6)
    frame["ours"] = frame["ours"].astype(float).where(frame.index != 7)
    pair = compare(model("ours"), model("theirs"), frame, metric)
    for found in (beats(pair, delta=0.0), no_worse(pair, margin=0.1)):
        assert found.verdict is Verdict.FAILED
        assert "on 1 of 1,000 rows" in found.summary


def test_a_baseline_without_predictions_is_no_baseline():
    """Nothing can be concluded from beating a model that answers NaN."""
    frame = binary(1000, right=0.9, other_right=0.6)
    frame["theirs"] = np.nan
    pair = compare(model("ours"), model("theirs"), frame, "accuracy")
    with pytest.raises(UsageError, match="theirs gave no usable prediction on 1,000"):
        beats(pair, delta=0.0)


def test_regression_is_compared_in_the_unit_of_its_target():
    """A smaller absolute error is better, by the difference in the target's unit."""
    random = np.random.default_rng(4)
    y = random.normal(50, 10, 2000)
    frame = pd.DataFrame(
        {"y": y, "ours": y + random.normal(0, 1, 2000), "theirs": y + random.normal(0, 2, 2000)}
    )
    pair = compare(model("ours"), model("theirs"), frame, "mean_absolute_error")
    assert pair.better == pytest.approx(np.sqrt(2 / np.pi), abs=0.06)
    assert beats(pair, delta=0.5).verdict is Verdict.PASSED
    assert no_worse(pair, margin=0.1).verdict is Verdict.PASSED
    back = compare(model("theirs"), model("ours"), frame, "mean_absolute_error")
    assert no_worse(back, margin=0.1).verdict is Verdict.FAILED


def test_accuracy_of_text_against_numbers_is_an_error_of_kind():
    """A regression metric on classes in words says what it found."""
    frame = pd.DataFrame({"y": ["a", "b"] * 20, "ours": ["a"] * 40, "theirs": ["b"] * 40})
    with pytest.raises(DataError, match="needs numbers, and y holds 'a'"):
        compare(model("ours"), model("theirs"), frame, "mean_absolute_error")


@pytest.mark.parametrize("n", [40, 400])
def test_the_mean_interval_covers_skewed_differences(n):
    """The bootstrap-t interval of skewed differences covers about as often as it says."""
    random = np.random.default_rng(5)
    hits = 0
    runs = 120
    for _ in range(runs):
        low, high = mean_difference_interval(random.exponential(1, n) - 0.3)
        hits += low <= 0.7 <= high
    assert hits / runs > stats.binom.ppf(0.001, runs, 0.92) / runs


def test_the_mean_interval_knows_its_limits():
    """Too few rows give no interval, equal differences a point, many rows Student's interval."""
    assert np.isnan(mean_difference_interval(np.ones(3))).all()
    assert mean_difference_interval(np.ones(20)) == (1.0, 1.0)
    x = np.random.default_rng(6).normal(1, 2, 8000)
    student = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert mean_difference_interval(x) == pytest.approx((student.low, student.high))


def test_rows_without_a_label_are_left_out():
    """Unlabelled rows count on neither side; without any label nothing is judged."""
    frame = binary(1000, right=0.9, other_right=0.6)
    frame["y"] = frame["y"].astype(float).where(frame.index >= 100)
    assert compare(model("ours"), model("theirs"), frame, "accuracy").n == 900
    with pytest.raises(DataError, match="no row has a label"):
        compare(model("ours"), model("theirs"), frame.assign(y=np.nan), "accuracy")
    with pytest.raises(DataError, match=r"no target column 'z'"):
        compare(model("ours", "z"), model("theirs", "z"), frame, "accuracy")


def test_simple_models_are_trained_and_reported(project):
    """The gate beats the majority, and reports stump and linear beside it."""
    subject = project.subject()
    family = Baseline()
    first, second = family.declare(subject.settings, project.root).items
    found = family.run(first, subject)
    assert found.name == "baseline.beats[majority]"
    assert found.verdict is Verdict.PASSED
    groups = [one.group for one in found.measurements]
    assert groups == ["model.skops", "majority", "stump", "linear"]
    assert any("against linear a gain of" in note for note in found.details["notes"])
    live = family.run(second, subject)
    assert live.verdict is Verdict.SKIPPED
    assert live.reason == "no_active"
    assert not (project.root / ".mlguard").exists()


def test_a_simple_model_must_fit_the_task(project):
    """Mean is for a regression; a made-up name lists the known ones; training rows are needed."""
    subject = project.subject()
    with pytest.raises(UsageError, match="'mean' is no baseline for a classification"):
        train_simple("mean", subject)
    with pytest.raises(UsageError, match="known: majority"):
        train_simple("forest", subject)
    subject.__dict__["train"] = None
    with pytest.raises(DataError, match="not declared"):
        train_simple("majority", subject)


def test_simple_models_bear_gaps_and_words(project, train_frame):
    """Missing numbers, missing words and a column of nothing do not stop stump and linear."""
    gappy = train_frame.assign(
        age=train_frame["age"].where(train_frame.index % 7 > 0),
        city=train_frame["city"].where(train_frame.index % 5 > 0),
    )
    project.data(train=gappy)
    subject = project.subject()
    for name in ("stump", "linear"):
        answers = subject.baseline(name).predict(subject.test)
        assert len(answers.labels) == len(subject.test)
        assert answers.valid.all()


def test_assert_beats_and_no_worse_say_by_how_much(fitted, test_frame):
    """Both asserts name the other model, the difference and what to do next."""
    from sklearn.dummy import DummyClassifier

    always = DummyClassifier(strategy="most_frequent").fit(test_frame[["age"]], test_frame["y"])
    result = assert_beats(fitted, always, test_frame, target="y")
    assert result.subject == "DummyClassifier"
    with pytest.raises(CheckFailedError) as caught:
        assert_no_worse(always, fitted, test_frame, target="y", margin=0.02)
    text = str(caught.value)
    assert "is worse than Pipeline by more than 0.02" in text
    assert "next: look at the rows that only Pipeline gets right" in text


def test_a_gate_document_survives_json(project):
    """Whatever a comparison reports is strict JSON."""
    subject = project.subject()
    item = Baseline().declare(subject.settings, project.root).items[0]
    document = Baseline().run(item, subject).to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
