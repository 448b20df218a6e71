"""The concept-drift monitor: alarms, change points, restarts, and labels that cannot be trusted."""

import json

import numpy as np
import pandas as pd
import pytest

from mlguard.config import ConceptDriftMonitor
from mlguard.monitors.concept_drift import ConceptDrift
from mlguard.monitors.window import Coverage
from mlguard.results import Verdict


def reference(n_errors, n=4000):
    return {"loss": {"kind": "error", "n": n, "n_errors": n_errors}}


def feed(monitor, make_window, losses, *, first=1, batch=37, **named):
    """Give labels in small batches, as they would arrive."""
    results = []
    for start in range(0, len(losses), batch):
        part = np.asarray(losses[start : start + batch], int)
        sources = named.get("source")
        window = make_window(
            len(part),
            output=[0] * len(part),
            label=part.tolist(),
            first=first + start,
            start=1000.0 + first + start,
            source=None if sources is None else sources[start : start + batch],
            coverage=named.get("coverage"),
        )
        results += monitor.judge(window)
    return results


def failures(results):
    return [one for one in results if one.verdict is Verdict.FAILED]


def test_the_sine_stream(shared_data, make_window, app):
    """No alarm before the change at row 10000, and one within 50 labels after it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    file = shared_data / "drift/lobo_sine_0123_abrupto/sine_0123_abrupto.csv.gz"
    data = pd.read_csv(file).to_numpy()
    rows, truth = data[:, :2], data[:, 2].astype(int)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[:4000], truth[:4000])
    wrong = (model.predict(rows) != truth).astype(int)
    monitor = ConceptDrift(ConceptDriftMonitor(), reference(int(wrong[:4000].sum())), app)
    before = feed(monitor, make_window, wrong[:10000])
    assert failures(before) == []
    assert len(before) == 20
    after = feed(monitor, make_window, wrong[10000:10100], first=10001)
    [alarm] = failures(after)
    assert alarm.sequential
    delay = alarm.details["alarm"]["labels"] - 10000
    assert 0 < delay <= 50
    assert abs(alarm.details["alarm"]["change_point"]["label"] - 10000) <= 2
    assert alarm.value > 0.9 > alarm.limit


def test_a_restart_between_any_two_labels_changes_nothing(make_window, app):
    """Verdicts, alarm and evidence are the same whether the state went through JSON or not."""
    losses = np.concatenate(
        [np.random.default_rng(1).random(700) < 0.05, np.random.default_rng(2).random(400) < 0.3]
    )
    steady = ConceptDrift(ConceptDriftMonitor(window_rows=200), reference(200), app)
    once = feed(steady, make_window, losses, batch=50)
    state = None
    again = []
    for start in range(0, len(losses), 50):
        monitor = ConceptDrift(ConceptDriftMonitor(window_rows=200), reference(200), app)
        if state is not None:
            monitor.restore(json.loads(state))
        again += feed(monitor, make_window, losses[start : start + 50], first=1 + start)
        state = json.dumps(monitor.snapshot(), allow_nan=False)
    assert [one.to_json() for one in again] == [one.to_json() for one in once]
    assert monitor.evidence() == steady.evidence()
    assert failures(once)


def test_batches_make_no_difference(make_window, app):
    """However labels are batched, the same ones raise the alarm and close the windows."""
    losses = np.concatenate(
        [np.random.default_rng(1).random(333) < 0.05, np.random.default_rng(2).random(200) < 0.4]
    )
    found = []
    for batch in (1, 7, 533):
        monitor = ConceptDrift(ConceptDriftMonitor(window_rows=100), reference(200), app)
        found.append([one.to_json() for one in feed(monitor, make_window, losses, batch=batch)])
    assert found[0] == found[1] == found[2]


def test_the_alarm_ends_when_the_loss_is_back(make_window, app):
    """In alarm, windows fail until one is proven acceptable; then a new detector starts."""
    monitor = ConceptDrift(ConceptDriftMonitor(window_rows=200), reference(200), app)
    results = feed(monitor, make_window, np.ones(60, int))
    assert monitor.alarmed
    results += feed(monitor, make_window, np.ones(200, int), first=61)
    results += feed(monitor, make_window, np.zeros(400, int), first=261)
    told = [one.verdict for one in results]
    assert told[:2] == [Verdict.FAILED, Verdict.FAILED]
    assert told[-1] is Verdict.PASSED
    assert not monitor.alarmed
    assert monitor.n == 660
    assert failures(feed(monitor, make_window, np.ones(60, int), first=661))


def test_evidence_is_what_came_since_the_change(make_window, app):
    """The rows that an alarm rests on are those since the change point, and later ones."""
    monitor = ConceptDrift(ConceptDriftMonitor(), reference(200), app)
    feed(monitor, make_window, np.zeros(400, int))
    feed(monitor, make_window, np.ones(60, int), first=401)
    assert monitor.alarmed
    assert monitor.evidence() == list(range(401, 461))


def test_default_answers_are_not_the_versions_mistakes(make_window, app):
    """A row that got the default answer has no loss."""
    monitor = ConceptDrift(ConceptDriftMonitor(), reference(200), app)
    window = make_window(100, output=[0] * 100, label=[1] * 100, default=[True] * 100)
    assert monitor.judge(window) == []
    assert monitor.n == 0


def test_few_labels_say_nothing(make_window, app):
    """Below twenty labels the verdict is undecided and names both numbers."""
    monitor = ConceptDrift(ConceptDriftMonitor(window=60), reference(200), app)
    [found] = feed(monitor, make_window, [0] * 5) + feed(monitor, make_window, [0], first=500)
    assert (found.verdict, found.reason, found.n, found.n_min) == (
        Verdict.INCONCLUSIVE,
        "few",
        5,
        20,
    )


@pytest.mark.parametrize("document", [{}, reference(4000), {"loss": {"n": 0}}])
def test_without_a_usable_reference_nothing_is_judged(make_window, app, document):
    """No reference, or one so bad that nothing could exceed it: undecided, with the reason."""
    monitor = ConceptDrift(ConceptDriftMonitor(window_rows=50), document, app)
    [found] = feed(monitor, make_window, [1] * 50)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "no_reference")
    json.dumps(monitor.snapshot(), allow_nan=False)


def test_labels_that_did_not_come_make_a_verdict_undecided(make_window, app):
    """Where less than half of the due labels came, those that did may be a biased half."""
    monitor = ConceptDrift(ConceptDriftMonitor(), reference(200), app)
    found = feed(monitor, make_window, [1] * 100, coverage=Coverage(n_due=500, n_labelled=100))
    assert {one.verdict for one in found} == {Verdict.INCONCLUSIVE}
    assert found[0].reason == "no_labels"


def test_one_source_among_many_cannot_raise_an_alarm(make_window, app):
    """A burst of wrong labels from one of six sources is suspected, and forgotten again."""
    monitor = ConceptDrift(ConceptDriftMonitor(window_rows=200), reference(200), app)
    usual = [f"s{place % 6}" for place in range(400)]
    feed(monitor, make_window, [0] * 400, source=usual)
    burst = feed(monitor, make_window, [1] * 200, first=401, source=["s0"] * 200)
    assert {one.reason for one in burst} == {"suspect_source"}
    assert {one.verdict for one in burst} == {Verdict.INCONCLUSIVE}
    later = feed(monitor, make_window, [0] * 400, first=601, source=usual)
    assert failures(later) == []


def test_a_single_source_is_trusted(make_window, app):
    """Where one source is usual, all its labels count."""
    monitor = ConceptDrift(ConceptDriftMonitor(), reference(200), app)
    assert failures(feed(monitor, make_window, [1] * 60))


def test_errors_that_run_are_told(make_window, app):
    """An alarm says how correlated the losses were, for its promise rests on that."""
    monitor = ConceptDrift(ConceptDriftMonitor(), reference(300), app)
    runs = np.repeat(np.random.default_rng(3).random(100) < 0.08, 5)
    feed(monitor, make_window, runs.astype(int))
    [alarm] = failures(feed(monitor, make_window, [1] * 80, first=501))
    assert alarm.details["alarm"]["lag1_correlation"] > 0.5


def test_a_regression_is_judged_on_its_scale(make_window, app):
    """A residual counts as a share of the stated scale, at most one."""
    regression = app.model_copy(update={"app": app.app.model_copy(update={"task": "regression"})})
    document = {"loss": {"kind": "absolute_error", "n": 2000, "mean": 0.1, "scale": 50.0}}
    monitor = ConceptDrift(ConceptDriftMonitor(), document, regression)
    assert monitor.theta == pytest.approx(0.1 + 0.02, abs=0.015)
    good = make_window(300, output=[100.0] * 300, label=[104.0] * 300)
    assert failures(monitor.judge(good)) == []
    bad = make_window(300, output=[100.0] * 300, label=[140.0] * 300, first=301)
    assert failures(monitor.judge(bad))


def test_other_settings_start_a_new_detector(make_window, app):
    """Evidence against another limit is none against this one."""
    monitor = ConceptDrift(ConceptDriftMonitor(), reference(200), app)
    feed(monitor, make_window, [1] * 60)
    assert monitor.alarmed
    other = ConceptDrift(ConceptDriftMonitor(tolerance=0.3), reference(200), app)
    other.restore(monitor.snapshot())
    assert not other.alarmed
    assert other.n == 60
