"""Drift of answers and of labels: windows held against the reference's counts."""

import numpy as np
import pytest
from scipy import stats

from mlguard.config import LabelDriftMonitor, PredictionDriftMonitor
from mlguard.data.profile import FeatureProfile, Profile
from mlguard.monitors.answer_drift import LabelDrift, PredictionDrift
from mlguard.monitors.window import Coverage
from mlguard.results import Verdict
from mlguard.stats.distances import psi

CLASSES = {"a": 600, "b": 300, "c": 100}
PREDICTED = {"predicted": CLASSES}


def drawn(shares, n, seed=0):
    return np.random.default_rng(seed).choice(["a", "b", "c"], n, p=shares).tolist()


def predictions(reference, app, **keys):
    return PredictionDrift(PredictionDriftMonitor(**keys), reference, app)


def test_the_index_is_the_population_stability_index(make_window, app):
    """The value reported is that of the textbook formula on the shares."""
    answers = ["a"] * 250 + ["b"] * 150 + ["c"] * 100
    [found] = predictions(PREDICTED, app).judge(make_window(500, output=answers))
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.5, 0.3, 0.2])
    assert found.value == pytest.approx(float(((q - p) * np.log(q / p)).sum()), abs=0.002)
    assert found.value == pytest.approx(psi([600, 300, 100], [250, 150, 100]), abs=0.002)


def test_the_same_mix_passes_and_another_fails(make_window, app):
    """And the summary names the classes that moved."""
    monitor = predictions(PREDICTED, app)
    [calm] = monitor.judge(make_window(500, output=drawn([0.6, 0.3, 0.1], 500)))
    assert calm.verdict is Verdict.PASSED
    [moved] = monitor.judge(make_window(500, output=drawn([0.2, 0.3, 0.5], 500)))
    assert moved.verdict is Verdict.FAILED
    assert moved.id == "prediction_drift.distribution"
    assert "c 10 % → " in moved.summary
    assert "a 60 % → " in moved.summary


def test_a_class_that_the_reference_never_saw(make_window, app):
    """It counts against the version, under "others"."""
    [found] = predictions(PREDICTED, app).judge(make_window(500, output=["z"] * 300 + ["a"] * 200))
    assert found.verdict is Verdict.FAILED
    assert "others 0 % → 60 %" in found.summary


def test_numbers_are_classes_however_they_are_written(make_window, app):
    """``1``, ``1.0`` and ``"1"`` are one class."""
    reference = {"predicted": {"1.0": 500, "0.0": 500}}
    output = [1, 1.0, "1", 0, 0.0, "0"] * 80
    [found] = predictions(reference, app).judge(make_window(480, output=output))
    # Apart from the smoothing of empty cells there is nothing between the two.
    assert found.value < 0.001


def test_scores_are_compared_by_their_largest_distance(make_window, app):
    """Classes may stay while scores move; the distance is that of scipy, on the grid."""
    rng = np.random.default_rng(1)
    before, after = rng.beta(2, 2, 4000), rng.beta(4, 2, 500)
    profile = Profile.reference({"score": before}, {"score": "number"}).to_json()
    reference = {"predicted": {"0": 500, "1": 500}, "profile": profile}
    window = make_window(500, output=[0, 1] * 250, score=after)
    [found] = predictions(reference, app).judge(window)
    assert found.verdict is Verdict.FAILED
    assert found.details["statistic"] == "ks"
    assert found.value == pytest.approx(stats.ks_2samp(before, after).statistic, abs=0.02)
    assert {one.name for one in found.measurements} == {"psi classes", "ks values"}


def test_default_and_invalid_rows_are_no_answers(make_window, app):
    """Answers that the version did not give say nothing about it."""
    output = ["c"] * 100 + drawn([0.6, 0.3, 0.1], 500)
    default = [True] * 100 + [False] * 500
    window = make_window(600, output=output, default=default)
    [found] = predictions(PREDICTED, app).judge(window)
    assert (found.verdict, found.n) == (Verdict.PASSED, 500)


def test_few_rows_are_undecided(make_window, app):
    """With the number that is needed."""
    [found] = predictions(PREDICTED, app).judge(make_window(20, output=["a"] * 20))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == "few"
    assert found.n < found.n_min


def test_an_old_reference_is_skipped_and_never_blind(make_window, app):
    """A version of an older release has nothing to be compared with, which is not its fault."""
    [found] = predictions({}, app).judge(make_window(500))
    assert found.verdict is Verdict.SKIPPED
    [found] = LabelDrift(LabelDriftMonitor(), {}, app).judge(make_window(500, label=[0] * 500))
    assert found.verdict is Verdict.SKIPPED


def test_labels_of_a_classifier(make_window, app):
    """Judged as they arrive, whatever was answered."""
    monitor = LabelDrift(LabelDriftMonitor(), {"class_counts": CLASSES}, app)
    [calm] = monitor.judge(make_window(500, label=drawn([0.6, 0.3, 0.1], 500)))
    [moved] = monitor.judge(make_window(500, label=drawn([0.1, 0.8, 0.1], 500)))
    assert (calm.verdict, moved.verdict) == (Verdict.PASSED, Verdict.FAILED)


def test_labels_of_a_regression(make_window, app):
    """Held against the profile of the reference's labels."""
    rng = np.random.default_rng(2)
    before = rng.normal(10, 2, 3000)
    document = {"target": FeatureProfile.reference(before, "number").to_json()}
    settings = app.model_copy(update={"app": app.app.model_copy(update={"task": "regression"})})
    monitor = LabelDrift(LabelDriftMonitor(), document, settings)
    [calm] = monitor.judge(make_window(500, label=rng.normal(10, 2, 500).tolist()))
    [moved] = monitor.judge(make_window(500, label=rng.normal(12, 2, 500).tolist()))
    assert (calm.verdict, moved.verdict) == (Verdict.PASSED, Verdict.FAILED)


def test_labels_that_did_not_come(make_window, app):
    """A mix of the few that came says nothing of the rest."""
    monitor = LabelDrift(LabelDriftMonitor(), {"class_counts": CLASSES}, app)
    window = make_window(500, label=["c"] * 500, coverage=Coverage(n_due=1000, n_labelled=100))
    [found] = monitor.judge(window)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "no_labels")


def test_stationary_windows_hardly_ever_fail(make_window, app):
    """Two hundred windows of the reference's own mix: none fails (upper bound 1.8 %)."""
    monitor = predictions(PREDICTED, app)
    failed = sum(
        monitor.judge(make_window(300, output=drawn([0.6, 0.3, 0.1], 300, seed)))[0].verdict
        is Verdict.FAILED
        for seed in range(200)
    )
    assert failed == 0
