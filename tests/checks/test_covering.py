"""``[app] uncertainty = true``: calibrated at the gate, judged on other rows, in every answer."""

import numpy as np
import pandas as pd
import pytest

from mlguard.checks.declaration import declare_all, judge
from mlguard.errors import ConfigError
from mlguard.models.bundle import Manifest
from mlguard.pytest_plugin.served import serve_candidate
from mlguard.results import Verdict


def with_uncertainty(base, more=""):
    return base.replace('input = "table"', f'input = "table"\nuncertainty = true\n{more}')


def test_coverage_is_judged_on_rows_that_did_not_calibrate(project):
    """Half of the test rows calibrate, the other half is covered about as often as promised."""
    project.settings("", base=with_uncertainty(project.base))
    subject = project.subject()
    item = next(
        one
        for one in declare_all(subject.settings, project.root).items
        if one.id == "behaviour.coverage"
    )
    found = judge(item, subject, clock=lambda: 0.0)
    assert found.verdict is Verdict.PASSED
    assert found.n == 1500
    assert 0.87 < found.value < 0.93
    assert found.interval[0] < 0.9 < found.interval[1]
    assert "classes on average" in found.summary


def test_the_manifest_holds_it_and_its_digest_covers_it(project, model_file):
    """Without uncertainty the digest is what it was; with it, it is another version."""
    project.settings("")
    plain = project.subject().manifest
    assert plain.uncertainty == {}
    project.settings("", base=with_uncertainty(project.base))
    sure = project.subject().manifest
    assert sure.uncertainty["n"] == 1500
    assert sure.digest != plain.digest
    assert Manifest.from_json(sure.to_json()) == sure
    project.settings("", base=with_uncertainty(project.base, "coverage = 0.8\n"))
    assert project.subject().manifest.digest != sure.digest


def test_rows_of_their_own_can_calibrate(project, train_frame):
    """With [data] calibration all test rows judge the coverage."""
    base = with_uncertainty(project.base).replace(
        "[data]", '[data]\ncalibration = "calibration.csv"'
    )
    project.data(calibration=train_frame.head(400))
    project.settings("", base=base)
    assert project.subject().uncertainty.n == 400
    project.data(calibration=train_frame.head(5))
    with pytest.raises(ConfigError, match="at least 9 calibration rows"):
        _ = project.subject().manifest


def test_every_answer_carries_it(project):
    """Through real HTTP: the set, its coverage, and the answer in it; a sure one is alone."""
    project.settings("", base=with_uncertainty(project.base))
    subject = project.subject()
    rows = [
        {"income": 200_000, "age": 75, "city": "Ulm"},
        {"income": 22_000, "age": 48, "city": "Bonn"},
    ]
    with serve_candidate(subject, slo_ms=60_000) as client:
        sent = client.post("/credit/predict", json={"input_batch": rows})
        answers = sent.json()["batch_predictions"]
        single = client.post("/credit/predict", json={"input": rows[0]}).json()
    assert answers[0]["uncertainty"] == {"set": [1], "coverage": 0.9}
    assert answers[1]["uncertainty"] == {"set": [0, 1], "coverage": 0.9}
    assert single["uncertainty"] == answers[0]["uncertainty"]
    assert answers[1]["output"] in answers[1]["uncertainty"]["set"]


def test_of_three_classes_the_set_is_made_from_every_score(project, train_frame, test_frame):
    """The scores of all classes reach the set through the model's own process."""
    from sklearn.linear_model import LogisticRegression

    from mlguard.models.formats import save_model

    def thirds(frame):
        seen = frame["age"] + np.random.default_rng(1).normal(0, 8, len(frame))
        return frame.assign(y=(seen > 35).astype(int) + (seen > 60))

    train, test = thirds(train_frame), thirds(test_frame)
    model = LogisticRegression(max_iter=500).fit(train[["age"]], train["y"])
    save_model(model, project.app / "model.skops")
    project.data(train=train, test=test)
    project.settings("", base=with_uncertainty(project.base, "coverage = 0.99\n"))
    subject = project.subject()
    with serve_candidate(subject, slo_ms=60_000) as client:
        ages = list(range(18, 80))
        body = {"input_batch": [{"age": age} for age in ages]}
        answers = client.post("/credit/predict", json=body).json()["batch_predictions"]
    least = 1 - subject.uncertainty.threshold
    scores = model.predict_proba(pd.DataFrame({"age": ages}))
    kept = (scores >= least) | (scores == scores.max(axis=1, keepdims=True))
    expected = [[int(one) for one in np.flatnonzero(row)] for row in kept]
    assert [one["uncertainty"]["set"] for one in answers] == expected
    assert {len(one) for one in expected} >= {1, 2}


def test_a_regression_answers_an_interval(project, train_frame, test_frame):
    """The value give or take the largest residual but a tenth, the same for every row."""
    from sklearn.linear_model import LinearRegression

    from mlguard.models.formats import save_model

    train = train_frame.assign(y=train_frame["income"] / 1000 + train_frame["age"])
    test = test_frame.assign(y=test_frame["income"] / 1000 + test_frame["age"])
    save_model(LinearRegression().fit(train[["age"]], train["y"]), project.app / "model.skops")
    project.data(train=train, test=test)
    base = with_uncertainty(project.base, 'task = "regression"\n')
    project.settings("[gate.fairness]\nenabled = false\n", base=base)
    subject = project.subject()
    width = subject.uncertainty.threshold
    with serve_candidate(subject, slo_ms=60_000) as client:
        answer = client.post("/credit/predict", json={"input": {"age": 40}}).json()
    low, high = answer["uncertainty"]["interval"]
    assert (low, high) == pytest.approx((answer["output"] - width, answer["output"] + width))
