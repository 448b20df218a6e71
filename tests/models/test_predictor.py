"""One way to call every model, one shape for what comes back."""

import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from mlguard.errors import DataError, IntegrityError, ModelRunError
from mlguard.models.bundle import Manifest
from mlguard.models.formats import save_model
from mlguard.models.predictor import Predictions, Predictor, load_predictor
from mlguard.models.schema import Feature, InputSchema, input_schema

AB = (Feature("a", "number"), Feature("b", "number"))
TWO = InputSchema("doubles", "classification", AB, (0, 1))
REGRESSION = InputSchema("doubles", "regression", AB)


class Stub:
    """A model that answers what it is told to; no mock of ours, but a small real model."""

    def __init__(self, classes=None, **answers):
        if classes is not None:
            self.classes_ = np.asarray(classes)
        for name, answer in answers.items():
            setattr(self, name, answer)


@pytest.fixture
def two(numbers):
    """Two classes over two numbers."""
    return numbers.assign(y=(numbers["a"] + numbers["b"] > 0).astype(int))


def test_a_table_is_answered_alike_in_every_form(lender, applicants, make_settings):
    """Data frame, lists in order, mappings by name: the same labels and scores as the model's."""
    settings = make_settings(app={"input": "table"}, data={"sensitive": "sex"})
    schema = input_schema(lender, applicants, settings)
    predictor = Predictor(lender, schema)
    columns = list(schema.names)
    expected = lender.predict(applicants[columns])
    plain = applicants[columns].astype(object).where(applicants[columns].notna(), None)
    shuffled = applicants[[*columns[::-1], "sex", "y"]]
    forms = {
        "frame": applicants,
        "shuffled frame": shuffled,
        "lists": plain.to_numpy().tolist(),
        "array": plain.to_numpy(),
        "mappings": plain.to_dict("records"),
    }
    for name, rows in forms.items():
        found = predictor.predict(rows)
        assert found.labels.tolist() == expected.tolist(), name
        np.testing.assert_allclose(found.scores, lender.predict_proba(applicants[columns])[:, 1])
        assert found.valid.all()
    assert predictor.classes == ("late", "paid")
    assert predictor.needs_pandas


def test_a_missing_key_is_a_missing_value(lender, applicants, make_settings):
    """A mapping without a feature is like a missing cell; more keys are ignored."""
    schema = input_schema(lender, applicants, make_settings(app={"input": "table"}))
    predictor = Predictor(lender, schema)
    rows = [{"children": 1, "owner": True, "nonsense": 9}, {"children": 1, "owner": True}]
    frame = pd.DataFrame(
        {
            "income": [math.nan],
            "children": [1],
            "owner": [True],
            "job": pd.array([None], dtype="str"),
        }
    )
    found = predictor.predict(rows)
    assert found.scores.tolist() == [pytest.approx(lender.predict_proba(frame)[0, 1])] * 2


def test_labels_of_two_classes_follow_the_versions_threshold(two):
    """A label is positive from the threshold on, the score itself included."""
    model = Stub([0, 1], predict_proba=lambda rows: np.c_[1 - rows[:, 0], rows[:, 0]])
    rows = [[0.2, 0], [0.3, 0], [0.31, 0], [0.9, 0]]
    assert Predictor(model, TWO, {"default": 0.3}).predict(rows).outputs() == [0, 1, 1, 1]
    assert Predictor(model, TWO).predict(rows).outputs() == [0, 0, 0, 1]


@pytest.mark.parametrize("model", [SVC(), RidgeClassifier()], ids=lambda one: type(one).__name__)
def test_a_decision_function_becomes_a_score(model, two):
    """Without probabilities, 0.5 is the model's own boundary and the order is its own."""
    x = two[["a", "b"]].to_numpy()
    model.fit(x, two["y"])
    found = Predictor(model, TWO).predict(x)
    distance = model.decision_function(x)
    assert ((found.scores >= 0.5) == (distance >= 0)).all()
    assert found.labels.tolist() == model.predict(x).tolist()
    assert np.array_equal(np.argsort(found.scores), np.argsort(distance))
    assert found.scores.min() >= 0
    assert found.scores.max() <= 1


def test_more_classes_have_a_score_each(numbers):
    """The label is the class of the largest score."""
    x = numbers[["a", "b"]].to_numpy()
    model = LogisticRegression().fit(x, numbers["y"])
    found = Predictor(model, InputSchema("doubles", "classification", AB, (0, 1, 2))).predict(x)
    assert found.scores.shape == (120, 3)
    assert found.labels.tolist() == model.predict(x).tolist()


def test_without_scores_the_model_decides(numbers):
    """A classifier that only predicts has no scores; an answer that is no class is refused."""
    model = Stub(["a", "b"], predict=lambda rows: np.array(["a", "b"] * (len(rows) // 2), object))
    schema = InputSchema("doubles", "classification", AB, ("a", "b"))
    found = Predictor(model, schema).predict(np.zeros((4, 2)))
    assert (found.outputs(), found.scores) == (["a", "b", "a", "b"], None)
    model.predict = lambda rows: np.array(["c"] * len(rows), object)
    with pytest.raises(ModelRunError, match=r"answered 'c', expected one of \['a', 'b'\]"):
        Predictor(model, schema).predict(np.zeros((4, 2)))


def test_a_single_class_is_answered(two):
    """A model that has seen one class only answers it, without scores."""
    model = DummyClassifier().fit(two[["a", "b"]].to_numpy(), np.zeros(len(two), int))
    found = Predictor(model, InputSchema("doubles", "classification", AB, (0,))).predict([[1, 2]])
    assert (found.outputs(), found.scores, found.valid.tolist()) == ([0], None, [True])


def test_a_regression_answers_its_value(numbers):
    """Labels and scores of a regression are the value, as float."""
    x = numbers[["a", "b"]].to_numpy()
    model = LinearRegression().fit(x, 3 * numbers["a"])
    found = Predictor(model, REGRESSION).predict(x)
    np.testing.assert_allclose(found.labels, 3 * numbers["a"])
    assert found.labels.tolist() == found.scores.tolist()
    assert Predictor(model, REGRESSION).classes is None


def test_outputs_are_plain_python(numbers):
    """0, not np.int64(0): JSON can hold every output."""
    for target in (numbers["y"], numbers["y"] > 0, numbers["y"].map({0: "x", 1: "y", 2: "z"})):
        x = numbers[["a", "b"]].to_numpy()
        model = RandomForestClassifier(3, random_state=0).fit(x, target)
        schema = InputSchema("doubles", "classification", AB, tuple(model.classes_.tolist()))
        outputs = Predictor(model, schema).predict(x).outputs()
        assert {type(one) for one in outputs} <= {int, bool, str}
        json.dumps(outputs)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("doubles", np.float64), ("floats", np.float32), ("ints", np.int64)]
)
def test_numbers_reach_the_model_in_their_type(kind, dtype):
    """Each numeric input has its own dtype, whatever form the rows come in."""
    seen = []
    model = Stub(predict=lambda rows: (seen.append(rows), np.zeros(len(rows)))[1])
    predictor = Predictor(model, InputSchema(kind, "regression", AB))
    for rows in ([[1, 2]], np.array([[1, 2]]), pd.DataFrame({"b": [2], "a": [1], "c": ["x"]})):
        predictor.predict(rows)
    assert all(one.dtype == dtype and one.tolist() == [[1, 2]] for one in seen)
    assert not predictor.needs_pandas


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        BaggingClassifier(LogisticRegression(), 3),
        VotingClassifier([("a", LogisticRegression()), ("b", SVC())]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_model_that_knows_names_takes_arrays_in_silence(model, two):
    """Fitted on a data frame, asked with an array: no warning, the same answers."""
    frame = two[["a", "b"]]
    model.fit(frame, two["y"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Predictor(model, TWO).predict(frame.to_numpy())
    assert found.labels.tolist() == model.predict(frame).tolist()


@pytest.mark.parametrize("wrap", [None, CalibratedClassifierCV], ids=["bare", "wrapped"])
@pytest.mark.parametrize(
    "columns", [["b"], "b", make_column_selector("b")], ids=["list", "name", "selector"]
)
def test_a_model_that_picks_columns_by_name_gets_them(wrap, columns, two):
    """A column transformer over numbers gets a data frame even from arrays, however deep it is."""
    as_column = FunctionTransformer(lambda column: np.asarray(column).reshape(-1, 1))
    pick = ColumnTransformer([("s", as_column, columns)])
    model = make_pipeline(pick, LogisticRegression())
    model = (model if wrap is None else wrap(model)).fit(two[["a", "b"]], two["y"])
    predictor = Predictor(model, TWO)
    assert predictor.needs_pandas
    rows = two[["a", "b"]].to_numpy()
    assert predictor.predict(rows).labels.tolist() == model.predict(two[["a", "b"]]).tolist()


def test_a_model_that_picks_columns_by_place_needs_no_names(two):
    """A column transformer by number takes arrays."""
    pick = ColumnTransformer([("s", StandardScaler(), [1]), ("t", "passthrough", slice(0, 1))])
    x = two[["a", "b"]].to_numpy()
    model = make_pipeline(pick, LogisticRegression()).fit(x, two["y"])
    assert not Predictor(model, TWO).needs_pandas


def test_texts_reach_the_model_one_by_one():
    """An input that is one text: a list of texts, or a data frame's column."""
    texts = ["good day", "bad night", "good night", "bad day"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    schema = InputSchema("strings", "classification", (Feature("t", "text"),), (0, 1))
    predictor = Predictor(model, schema)
    for rows in (texts, [[one] for one in texts], pd.DataFrame({"t": texts})):
        assert predictor.predict(rows).outputs() == [1, 0, 1, 0]


def test_no_rows_are_no_work(numbers):
    """An empty batch gets an empty answer without asking the model."""
    for schema in (TWO, REGRESSION):
        found = Predictor(Stub([0, 1]), schema).predict([])
        assert (len(found), found.outputs(), found.valid.tolist()) == (0, [], [])


BAD_ANSWERS = {
    "too few": lambda rows: np.zeros(len(rows) - 1),
    "too many": lambda rows: np.zeros(len(rows) + 1),
    "a column": lambda rows: np.zeros((len(rows), 1)),
    "a scalar": lambda rows: 0.0,
    "nothing": lambda rows: None,
    "texts": lambda rows: np.array(["x"] * len(rows)),
    "ragged": lambda rows: [[1], [1, 2], [3]],
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_nonsense_is_a_model_error(name):
    """Wrong count, shape or type of answers: ModelRunError, never a wrong pairing."""
    with pytest.raises(ModelRunError):
        Predictor(Stub(predict=BAD_ANSWERS[name]), REGRESSION).predict(np.zeros((3, 2)))
    with pytest.raises(ModelRunError):
        Predictor(Stub([0, 1], predict_proba=BAD_ANSWERS[name]), TWO).predict(np.zeros((3, 2)))


def test_rows_that_are_not_finite_are_marked_and_harm_no_other(numbers):
    """NaN and infinity make their own row invalid, in each kind of answer."""
    bad = np.array([0.1, np.nan, np.inf, 0.9])
    models = {
        REGRESSION: Stub(predict=lambda rows: bad),
        TWO: Stub([0, 1], predict_proba=lambda rows: np.c_[1 - bad, bad]),
        InputSchema("doubles", "classification", AB, (0, 1, 2)): Stub(
            [0, 1, 2], predict_proba=lambda rows: np.c_[bad, bad, bad]
        ),
    }
    for schema, model in models.items():
        found = Predictor(model, schema).predict(np.zeros((4, 2)))
        assert found.valid.tolist() == [True, False, False, True]
        assert set(found.reasons) == {1, 2}
    two_classes = Predictor(models[TWO], TWO).predict(np.zeros((4, 2)))
    assert [two_classes.outputs()[place] for place in (0, 3)] == [0, 1]
    distances = Stub([0, 1], decision_function=lambda rows: np.array([-np.inf, np.nan, 2.0]))
    assert Predictor(distances, TWO).predict(np.zeros((3, 2))).valid.tolist() == [
        False,
        False,
        True,
    ]


def test_a_raising_model_is_a_model_error_with_its_words():
    """What the model raised is named; its own traceback stays attached."""

    def fail(rows):
        raise ZeroDivisionError("division by zero\nmore")

    with pytest.raises(ModelRunError, match="raised ZeroDivisionError: division by zero") as raised:
        Predictor(Stub(predict=fail), REGRESSION).predict([[1, 2]])
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_one_bad_row_fails_alone(two):
    """With isolate_failures the rows that make the model raise are found, others answered."""
    frame = pd.DataFrame({"c": pd.array(["x", "y", "x", "y"] * 5, dtype="str")})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, [0, 1, 0, 1] * 5)
    schema = InputSchema("table", "classification", (Feature("c", "category"),), (0, 1))
    predictor = Predictor(model, schema)
    rows = [["x"], ["never seen"], ["y"], ["x"], ["also new"]]
    with pytest.raises(ModelRunError, match="unknown categories"):
        predictor.predict(rows)
    found = predictor.predict(rows, isolate_failures=True)
    assert found.valid.tolist() == [True, False, True, True, False]
    assert [found.outputs()[place] for place in (0, 2, 3)] == [0, 1, 0]
    assert set(found.reasons) == {1, 4}
    assert found.scores.shape == (5,)
    as_frame = pd.DataFrame({"c": [row[0] for row in rows]})
    assert predictor.predict(as_frame, isolate_failures=True).valid.tolist() == found.valid.tolist()
    all_bad = predictor.predict([["a"], ["b"]], isolate_failures=True)
    assert (all_bad.valid.tolist(), all_bad.scores) == ([False, False], None)


def test_rows_of_the_wrong_width_are_the_callers_mistake(lender, applicants, make_settings):
    """A row too short names the features; a data frame without one names the nearest."""
    with pytest.raises(DataError, match=r"shape \(1, 3\)") as raised:
        Predictor(Stub(), REGRESSION).predict([[1, 2, 3]])
    assert "a, b" in raised.value.hint
    schema = input_schema(lender, applicants, make_settings(app={"input": "table"}))
    predictor = Predictor(lender, schema)
    with pytest.raises(DataError, match="a row of 1 values, expected 4"):
        predictor.predict([[1.0]])
    with pytest.raises(DataError, match="no column 'job'"):
        predictor.predict(applicants.drop(columns="job"))


@pytest.mark.parametrize(
    ("kind", "row"),
    [("ints", [1.5, 2]), ("ints", [math.nan, 2]), ("ints", ["a", 2]), ("doubles", ["a", 2])],
)
def test_a_value_that_does_not_fit_is_never_bent_into_shape(kind, row):
    """No fraction is cut off; the row fails alone, and its reason is not the model's."""
    model = Stub(predict=lambda rows: np.asarray(rows, float).sum(axis=1))
    predictor = Predictor(model, InputSchema(kind, "regression", AB))
    with pytest.raises(ModelRunError, match=f'does not fit the input "{kind}"'):
        predictor.predict([row])
    found = predictor.predict([[1, 2], row, [3, 4]], isolate_failures=True)
    assert found.valid.tolist() == [True, False, True]
    assert [found.outputs()[place] for place in (0, 2)] == [3.0, 7.0]


def test_predictions_survive_json(numbers):
    """Labels, scores with NaN, validity and reasons come back."""
    for labels in ([1, 0], ["x", "y"], [0.5, math.nan], [True, False]):
        before = Predictions(
            np.asarray(labels, object if isinstance(labels[0], str) else None),
            np.array([0.25, math.nan]),
            np.array([True, False]),
            {1: "why"},
        )
        after = Predictions.from_json(json.loads(json.dumps(before.to_json())))
        np.testing.assert_array_equal(after.labels, before.labels)
        np.testing.assert_array_equal(after.scores, before.scores)
        assert (after.valid.tolist(), after.reasons) == ([True, False], {1: "why"})
    none = Predictions(np.array([1]), None, np.array([True]))
    assert Predictions.from_json(none.to_json()).scores is None


def test_a_version_is_loaded_only_from_its_own_bytes(two, make_settings, tmp_path):
    """The right bytes answer; a flipped byte is refused before it is read."""
    path = tmp_path / "m.skops"
    model = LogisticRegression().fit(two[["a", "b"]], two["y"])
    save_model(model, path)
    settings = make_settings(model={"thresholds": {"default": 0.9}})
    manifest = Manifest.of(path, input_schema(model, two, settings), settings.model)
    predictor = load_predictor(manifest, path)
    assert predictor.threshold == 0.9
    share = predictor.predict(two).labels.mean()
    assert 0 < share < model.predict(two[["a", "b"]]).mean()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="was registered"):
        load_predictor(manifest, path)
