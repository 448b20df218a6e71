import json

import numpy as np
import pytest

from mlguard.checks import reference_document
from mlguard.data.profile import Profile
from mlguard.errors import ModelRunError
from mlguard.monitors.losses import acceptable_loss


def test_the_reference_is_what_monitors_compare_with(project, test_frame, fitted):
    """Profile, loss, groups and classes of the test part, as strict JSON, and no rows."""
    document = reference_document(project.subject())
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document
    assert len(text) < 40_000
    profile = Profile.from_json(document["profile"])
    assert set(profile.features) == {"income", "age", "city", "score"}
    assert profile.n_rows == len(test_frame)
    errors = int((fitted.predict(test_frame[["income", "age", "city"]]) != test_frame["y"]).sum())
    assert document["loss"]["n_errors"] == errors
    assert document["loss"]["mean"] == pytest.approx(errors / len(test_frame))
    assert document["classes"] == [0, 1]
    assert sum(document["class_counts"].values()) == len(test_frame)
    groups = document["groups"]["sex"]
    assert sum(one["n"] for one in groups.values()) == len(test_frame)
    assert sum(one["n_errors"] for one in groups.values()) == errors
    assert (
        sum(groups["F"]["confusion"][cell] for cell in ("tp", "fp", "fn", "tn")) == groups["F"]["n"]
    )


def test_the_concept_drift_monitor_can_read_it(project):
    """The loss has the shape from which the monitor takes what is acceptable."""
    document = reference_document(project.subject())
    theta = acceptable_loss(document, tolerance=0.02)
    assert document["loss"]["mean"] + 0.02 < theta < document["loss"]["mean"] + 0.06


def test_a_candidate_that_answers_nan_has_no_reference(project):
    """A loss that leaves rows out would flatter."""
    subject = project.subject()
    subject.candidate.model.estimator.steps[-1][1].coef_ = np.full((1, 5), np.nan)
    with pytest.raises(ModelRunError, match="no usable prediction on 3000 of 3000"):
        reference_document(subject)


def test_a_regression_states_its_scale(project, train_frame, tmp_path):
    """Absolute errors are scaled into [0, 1] by a stated residual."""
    from sklearn.linear_model import LinearRegression

    from mlguard.models.formats import save_model

    columns = ["age"]
    model = LinearRegression().fit(train_frame[columns], train_frame["income"])
    save_model(model, tmp_path / "line.skops")
    base = project.base.replace('input = "table"', 'input = "table"\ntask = "regression"')
    project.settings("", base.replace("[data]", '[data]\ntarget = "income"'))
    document = reference_document(project.subject(model=tmp_path / "line.skops"))
    assert document["loss"]["name"] == "absolute_error"
    assert document["loss"]["scale"] > 1000
    assert 0 < document["loss"]["mean"] < 1
    assert document["classes"] is None
    assert set(document["groups"]["sex"]) == {"F", "M"}
