"""Budgets, and the same rows through the real server and offline."""

import math

import numpy as np
import pytest

from mlguard.checks.declaration import declare_all, judge
from mlguard.checks.serving import judge_latency
from mlguard.checks.serving_budgets import what_serves
from mlguard.config import LatencyRule
from mlguard.models.onnx_model import OnnxModel
from mlguard.models.predictor import Predictor
from mlguard.pytest_plugin.served import serve_candidate
from mlguard.results import Verdict


@pytest.fixture
def judged(project):
    """Judge what app.toml declares of serving, by check."""

    def run(more, **options):
        project.settings(more)
        subject = project.subject(**options)
        items = declare_all(subject.settings, project.root).items
        mine = [one for one in items if one.family == "serving"]
        return {one.id.partition(".")[2]: judge(one, subject, clock=lambda: 0.0) for one in mine}

    return run


def test_nothing_is_judged_unless_declared(judged):
    """A budget that nobody named is none."""
    assert judged("") == {}


def test_size_and_inputs_are_counted(judged, project):
    """Bytes of the file and features of the model, against their limits."""
    found = judged("[gate.serving.size]\nat_most_mib = 1\n[gate.serving.features]\nat_most = 2\n")
    size = (project.app / "model.skops").stat().st_size / 2**20
    assert (found["size"].verdict, found["size"].value) == (Verdict.PASSED, size)
    assert found["features"].verdict is Verdict.FAILED
    assert found["features"].summary == "the model needs 3 inputs; limit 2"


def test_latency_is_measured_in_a_process_of_its_own(judged):
    """A second is enough for this model, a nanosecond for none."""
    found = judged("[gate.serving.latency]\np99_ms = 1000\nrows = 400\n")["latency"]
    assert found.verdict is Verdict.PASSED
    assert found.n == 400
    assert 0 < found.interval[0] <= found.value <= found.interval[1] <= 1000
    assert [one.group for one in found.measurements] == ["50 %", "99 %"]
    assert (
        judged("[gate.serving.latency]\np99_ms = 0.000001\nrows = 400\n")["latency"].verdict
        is Verdict.FAILED
    )


def test_latency_is_of_what_will_serve(judged, project):
    """A pipeline that is compiled is asked compiled; the original, where it is to serve."""
    found = judged("[gate.serving.latency]\np99_ms = 1000\nrows = 400\n")["latency"]
    assert found.details["runtime"] == "onnx"
    assert found.summary.endswith("; compiled to ONNX, as it will serve")
    runtime, predictor = what_serves(project.subject())
    assert (runtime, type(predictor.backend)) == ("onnx", OnnxModel)
    project.settings('[model]\nruntime = "original"\n')
    runtime, predictor = what_serves(project.subject())
    assert (runtime, type(predictor)) == ("original", Predictor)


def test_latency_is_held_against_its_interval():
    """Between the bounds it is not proven; without an upper bound it is undecided."""
    took = list(np.linspace(1, 2, 1000))
    rule = LatencyRule(p99_ms=1.9905)
    found = judge_latency(took, rule)
    assert (found.verdict, found.reason) == (Verdict.PASSED, "not_proven")
    few = judge_latency(took[:100], LatencyRule(p99_ms=1.0985))
    assert math.isinf(few.interval[1])
    assert few.verdict is Verdict.INCONCLUSIVE


def test_the_server_answers_as_the_model_does(judged):
    """Test rows sent as JSON through the real server come back with the offline labels."""
    found = judged(
        "[gate.serving.skew]\nrows = 120\n", serve=lambda one: serve_candidate(one, slo_ms=60_000)
    )["skew"]
    assert (found.verdict, found.value, found.n) == (Verdict.PASSED, 0.0, 120)


def test_skew_is_found_and_named(judged, project, fitted, train_frame, tmp_path):
    """Where the server answers by another model than the one offline, the rows are named."""
    from sklearn.base import clone

    from mlguard.models.formats import save_model

    seen = list(fitted.feature_names_in_)
    other = clone(fitted).fit(train_frame[seen], (train_frame["age"] > 50).astype(int))
    save_model(other, tmp_path / "other.skops")
    rows = project.subject().test[seen].head(60)
    unlike = np.flatnonzero(fitted.predict(rows) != other.predict(rows))
    assert 0 < len(unlike) < 60

    def serve(one):
        stale = project.subject(model=tmp_path / "other.skops", name=one.name)
        return serve_candidate(stale, slo_ms=60_000)

    found = judged("[gate.serving.skew]\nrows = 60\n", serve=serve)["skew"]
    assert found.verdict is Verdict.FAILED
    assert found.value == len(unlike) / 60
    assert (
        f"{len(unlike)} of 60 test rows otherwise than the model does offline, first row "
        f"{unlike[0]}" in found.summary
    )


def test_without_a_server_skew_is_an_error(judged):
    """A run that has none to start says so, and does not pass."""
    assert judged("[gate.serving.skew]\n")["skew"].verdict is Verdict.ERRORED
