"""Linear models as their arithmetic: held against scikit-learn itself."""

import json
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC

from mlguard.errors import ModelFileError
from mlguard.models.inline import InlinePredictor
from mlguard.models.linear import LinearModel, reduce_linear
from mlguard.models.predictor import Predictor
from mlguard.models.schema import Feature, InputSchema


def schema_of(rows, classes, *, kind="doubles"):
    names = [f"f{place}" for place in range(rows.shape[1])]
    task = "regression" if classes is None else "classification"
    return InputSchema(kind, task, tuple(Feature(one, "number") for one in names), classes)


CLASSIFIERS = [
    LogisticRegression(max_iter=5000),
    LogisticRegression(solver="newton-cg", C=0.1),
    LinearSVC(max_iter=20_000),
    RidgeClassifier(),
]
SCALERS = [[], [StandardScaler()], [RobustScaler(), MaxAbsScaler()]]


@pytest.mark.parametrize("load", [load_iris, load_breast_cancer])
@pytest.mark.parametrize("scalers", SCALERS, ids=len)
@pytest.mark.parametrize("model", CLASSIFIERS, ids=["logistic", "newton", "svc", "ridge"])
def test_a_classifier_answers_as_scikit_learn_does(load, scalers, model):
    """Labels are equal on every row, scores to the last bits, with two classes and with three."""
    rows, truth = load(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = make_pipeline(*scalers, model).fit(rows, truth)
    schema = schema_of(rows, tuple(np.unique(truth).tolist()))
    reduced = reduce_linear(fitted, schema)
    found = InlinePredictor(reduced, schema).predict(rows)
    assert np.array_equal(found.labels, fitted.predict(rows))
    expected = Predictor(fitted, schema).predict(rows).scores
    if expected is None:
        assert found.scores is None
    else:
        np.testing.assert_allclose(found.scores, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("model", [LinearRegression(), Ridge(3.0), PoissonRegressor()])
def test_a_regression_answers_as_scikit_learn_does(model):
    """To the last bits, with a link of its own too."""
    rows, truth = load_diabetes(return_X_y=True)
    fitted = make_pipeline(StandardScaler(), model).fit(rows, truth)
    schema = schema_of(rows, None)
    found = InlinePredictor(reduce_linear(fitted, schema), schema).predict(rows)
    np.testing.assert_allclose(found.labels, fitted.predict(rows), rtol=1e-14)


def test_reading_what_was_written_changes_nothing(tmp_path):
    """The document holds every bit of every weight, and the same model gives the same bytes."""
    rows, truth = load_breast_cancer(return_X_y=True)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, truth)
    schema = schema_of(rows, (0, 1))
    reduced = reduce_linear(fitted, schema)
    file = tmp_path / "linear"
    file.write_bytes(reduced.to_bytes())
    again = LinearModel.load(file, schema)
    assert again.to_bytes() == reduced.to_bytes()
    assert np.array_equal(again.run(rows)[1], reduced.run(rows)[1])


def test_what_is_not_known_is_not_reduced():
    """Other steps, other models, sums of another shape, and classes derived from a known one."""

    class Mine(LogisticRegression):
        """Might predict anything."""

    rows, truth = load_iris(return_X_y=True)
    schema = schema_of(rows, (0, 1, 2))
    for model in (
        RandomForestClassifier(2),
        make_pipeline(PolynomialFeatures(), LogisticRegression(max_iter=5000)),
        SGDClassifier(),  # one against the rest, with probabilities of its own
        Mine(max_iter=5000),
        object(),
    ):
        fitted = model.fit(rows, truth) if hasattr(model, "fit") else model
        assert reduce_linear(fitted, schema) is None


def test_rows_that_make_no_sense_have_no_answer():
    """A missing or infinite value is that row's affair; text is refused."""
    rows, truth = load_breast_cancer(return_X_y=True)
    schema = schema_of(rows, (0, 1), kind="table")
    fitted = LogisticRegression(max_iter=5000).fit(rows, truth)
    found = InlinePredictor(reduce_linear(fitted, schema), schema)
    bad = rows[:3].astype(object)
    bad[1, 4] = None
    answer = found.predict(bad.tolist())
    assert answer.valid.tolist() == [True, False, True]
    assert answer.labels[[0, 2]].tolist() == fitted.predict(rows[[0, 2]]).tolist()
    named = [dict(zip(schema.names, row, strict=True)) for row in rows[:3].tolist()]
    assert found.predict(named).outputs() == fitted.predict(rows[:3]).tolist()
    alone = found.predict([["x"] * rows.shape[1], rows[0].tolist()], isolate_failures=True)
    assert alone.valid.tolist() == [False, True]


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"mlguard_linear": 2}', b"\x00\xff"])
def test_a_damaged_document_is_refused(tmp_path, damage):
    """Whatever the bytes are, the error is one of ours."""
    (tmp_path / "linear").write_bytes(damage)
    with pytest.raises(ModelFileError):
        LinearModel.load(tmp_path / "linear", schema_of(np.zeros((1, 2)), (0, 1)))


def test_weights_for_other_features_are_refused(tmp_path):
    """A document belongs to its version's inputs."""
    rows, truth = load_iris(return_X_y=True)
    reduced = reduce_linear(LinearRegression().fit(rows, truth), schema_of(rows, None))
    (tmp_path / "linear").write_bytes(reduced.to_bytes())
    assert json.loads(reduced.to_bytes())["link"] == "identity"
    with pytest.raises(ModelFileError, match="takes 2 features"):
        LinearModel.load(tmp_path / "linear", schema_of(np.zeros((1, 2)), None))
