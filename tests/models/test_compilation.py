"""Compiled models: the same answers as the original, or the original serves."""

import hashlib
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_classification
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from mlguard.models.bundle import Manifest
from mlguard.models.compilation import Compilation, compile_model
from mlguard.models.inline import InlinePredictor
from mlguard.models.onnx_model import OnnxModel
from mlguard.models.predictor import Predictor, load_predictor
from mlguard.models.schema import Feature, InputSchema


def framed(rows, classes, *, kind="doubles"):
    frame = pd.DataFrame(rows, columns=[f"f{place}" for place in range(rows.shape[1])])
    task = "regression" if classes is None else "classification"
    features = tuple(Feature(one, "number") for one in frame.columns)
    return frame, InputSchema(kind, task, features, classes)


def compiled(model, frame, schema, *, asked="auto", tolerance=1e-4, thresholds=None):
    thresholds = thresholds or {"default": 0.5}
    original = Predictor(model, schema, thresholds)
    found = compile_model(original, frame, asked=asked, tolerance=tolerance, thresholds=thresholds)
    return original, found


def served(found, schema, tmp_path):
    """Load the bytes as a server does: by a manifest, from a file."""
    file = tmp_path / "compiled"
    file.write_bytes(found.content)
    manifest = Manifest("0" * 64, "skops", schema.to_json(), task=schema.task)
    manifest = manifest.compiled(found.runtime, found.content, found.to_json())
    assert manifest.serving_sha256 == hashlib.sha256(found.content).hexdigest()
    predictor = load_predictor(manifest, file)
    assert predictor.in_process
    assert manifest.in_process
    return predictor


CLASSIFIERS = {
    "forest": RandomForestClassifier(20, random_state=0),
    "scaled forest": make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)),
    "boosting": GradientBoostingClassifier(n_estimators=20),
    "tree": DecisionTreeClassifier(random_state=0),
    "calibrated": CalibratedClassifierCV(LinearSVC(max_iter=20_000), cv=3),
    "search": GridSearchCV(RandomForestClassifier(random_state=0), {"n_estimators": [3, 4]}, cv=2),
    "soft vote": make_pipeline(
        StandardScaler(),
        VotingClassifier(
            [("a", LogisticRegression()), ("b", DecisionTreeClassifier(random_state=0))],
            voting="soft",
        ),
    ),
}


@pytest.mark.parametrize("load", [load_iris, load_breast_cancer])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_served_as_onnx(load, name, tmp_path):
    """Loaded from its bytes, the graph gives scikit-learn's own labels and probabilities."""
    rows, truth = load(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = CLASSIFIERS[name].fit(rows, truth)
    frame, schema = framed(rows, tuple(np.unique(truth).tolist()))
    _, found = compiled(model, frame, schema)
    assert found.runtime == "onnx", found.reason
    answer = served(found, schema, tmp_path).predict(rows.tolist())
    chances = model.predict_proba(rows)
    expected = chances[:, 1] if chances.shape[1] == 2 else chances
    np.testing.assert_allclose(answer.scores, expected, rtol=0, atol=1e-4)
    margin = np.sort(chances, axis=1)[:, -1] - np.sort(chances, axis=1)[:, -2]
    clear = margin > 1e-5
    assert np.array_equal(answer.labels[clear], model.predict(rows)[clear])
    assert found.comparison.n_rows == len(rows)
    assert f"all {len(rows):,} test rows are answered alike" in found.summary()


@pytest.mark.parametrize(
    "model", [RandomForestRegressor(10, random_state=0), GradientBoostingRegressor(n_estimators=9)]
)
def test_a_regression_is_served_as_onnx(model, tmp_path):
    """Its answers differ by less than the tolerance times their standard deviation."""
    rows, truth = load_diabetes(return_X_y=True)
    model.fit(rows, truth)
    frame, schema = framed(rows, None)
    _, found = compiled(model, frame, schema)
    assert found.runtime == "onnx", found.reason
    answer = served(found, schema, tmp_path).predict_numbers(rows)
    expected = model.predict(rows)
    assert np.abs(answer.labels - expected).max() <= 1e-4 * expected.std()


def test_a_decision_function_is_squashed_as_the_originals_is(tmp_path):
    """A support vector machine without probabilities keeps its boundary at 0.5."""
    rows, truth = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), SVC()).fit(rows, truth)
    frame, schema = framed(rows, (0, 1))
    original, found = compiled(model, frame, schema)
    assert found.runtime == "onnx", found.reason
    answer = served(found, schema, tmp_path).predict(rows)
    np.testing.assert_allclose(answer.scores, original.predict(rows).scores, rtol=0, atol=1e-4)


def test_known_linear_models_are_not_converted_at_all():
    """Under "auto" the float64 arithmetic comes first; under "onnx" it is a graph."""
    rows, truth = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, truth)
    frame, schema = framed(rows, (0, 1))
    assert compiled(model, frame, schema)[1].runtime == "linear"
    assert compiled(model, frame, schema, asked="onnx")[1].runtime == "onnx"
    asked = compiled(model, frame, schema, asked="original")[1]
    assert (asked.runtime, asked.content) == ("original", b"")


def test_where_float32_crosses_a_split_the_original_serves():
    """Histogram boosting decides in float64; the reason names how many rows, and by how much."""
    rows, truth = load_breast_cancer(return_X_y=True)
    model = HistGradientBoostingClassifier(random_state=0).fit(rows.round(3), truth)
    frame, schema = framed(rows.round(3), (0, 1))
    _, found = compiled(model, frame, schema)
    if found.runtime == "original":
        assert "differ" in found.reason
        assert found.comparison.n_over > 0
    # The same trees a little off: no luck of the data can hide that.
    other = HistGradientBoostingClassifier(random_state=0, max_iter=3).fit(rows, truth)
    assert _hold(model, other, frame, schema).n_over > 0


def _hold(model, other, frame, schema):
    """Hold the graph of another model against a model."""
    from mlguard.models.comparing import Judge
    from mlguard.models.converting import to_onnx

    judge = Judge(Predictor(model, schema), frame, 1e-4, {"default": 0.5})
    return judge.compare(OnnxModel(to_onnx(Predictor(other, schema), {}), schema))


def test_a_graph_of_another_model_is_found_out():
    """The comparison does not depend on how a graph came to be wrong."""
    rows, truth = load_iris(return_X_y=True)
    frame, schema = framed(rows, (0, 1, 2))
    right = DecisionTreeClassifier(random_state=0).fit(rows, truth)
    wrong = DecisionTreeClassifier(random_state=0).fit(rows, np.roll(truth, 50))
    found = _hold(right, wrong, frame, schema)
    assert found.n_labels == (right.predict(rows) != wrong.predict(rows)).sum()
    assert not found.equal
    assert _hold(right, right, frame, schema).equal


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (KNeighborsClassifier(), "faster as it is"),
        (type("Mine", (LogisticRegression,), {"__module__": "mine"})(max_iter=5000), "none of"),
    ],
)
def test_what_is_not_tried_says_why(model, why):
    """Models that are slower as graphs, and models of nobody knows whom."""
    rows, truth = load_iris(return_X_y=True)
    frame, schema = framed(rows, (0, 1, 2))
    _, found = compiled(model.fit(rows, truth), frame, schema)
    assert found.runtime == "original"
    assert why in found.reason


def test_a_tie_is_decided_as_the_original_decides_it(tmp_path):
    """An even forest says 0.5 exactly on many rows; so does its graph, and the label with it."""
    rows, truth = make_classification(400, 4, flip_y=0.4, random_state=0)
    model = RandomForestClassifier(4, random_state=0).fit(rows[:200], truth[:200])
    frame, schema = framed(rows, (0, 1))
    original, found = compiled(model, frame, schema)
    assert found.runtime == "onnx", found.reason
    scores = original.predict(rows).scores
    assert (scores == 0.5).sum() > 20
    answer = served(found, schema, tmp_path).predict(rows)
    assert np.array_equal(answer.labels, original.predict(rows).labels)


def test_every_threshold_is_held_against_the_scores():
    """A group's own threshold counts like the default one."""
    rows, truth = load_breast_cancer(return_X_y=True)
    frame, schema = framed(rows, (0, 1))
    right = DecisionTreeClassifier(random_state=0, max_depth=2).fit(rows, truth)
    from mlguard.models.comparing import Judge

    class Shifted:
        by_column = False
        refuses_missing = ()

        def run(self, values):
            return None, right.predict_proba(values)[:, 1] + 5e-5

    scores = right.predict_proba(rows)[:, 1]
    between = float(np.median(scores)) + 2e-5
    for thresholds, differing in (
        ({"default": 0.5}, False),
        ({"default": 0.5, "sex=F": between}, True),
    ):
        judge = Judge(Predictor(right, schema, thresholds), frame, 1e-3, thresholds)
        assert (judge.compare(Shifted()).n_labels > 0) is differing


# --- tables ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people():
    """Mixed columns without a hole, and a target."""
    rng = np.random.default_rng(0)
    n = 300
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "job": pd.array(rng.choice(["cook", "clerk", "smith"], n), dtype="str"),
            "owner": rng.random(n) < 0.4,
            "amount": rng.normal(1000, 300, n),
        }
    )
    truth = (frame.age / 50 + (frame.job == "cook") + rng.normal(0, 0.5, n) > 1.4).astype(int)
    schema = InputSchema(
        "table",
        "classification",
        (
            Feature("age", "integer"),
            Feature("job", "category", categories=("clerk", "cook", "smith")),
            Feature("owner", "boolean"),
            Feature("amount", "number"),
        ),
        (0, 1),
    )
    return frame, truth.to_numpy(), schema


def columns(*, unknown="ignore", impute=True):
    numbers = make_pipeline(SimpleImputer(), StandardScaler()) if impute else StandardScaler()
    return ColumnTransformer(
        [
            ("n", numbers, ["age", "amount"]),
            ("c", OneHotEncoder(handle_unknown=unknown), ["job"]),
            ("p", "passthrough", ["owner"]),
        ]
    )


@pytest.mark.parametrize(
    "final", [LogisticRegression(), GradientBoostingClassifier(n_estimators=9)]
)
@pytest.mark.parametrize("unknown", ["ignore", "error"])
@pytest.mark.parametrize("impute", [True, False])
def test_a_mixed_table_is_served_as_onnx(people, final, unknown, impute, tmp_path):
    """Also rows with holes and with categories nobody has seen: answered, or refused, alike."""
    frame, truth, schema = people
    model = make_pipeline(columns(unknown=unknown, impute=impute), final).fit(frame, truth)
    original, found = compiled(model, frame, schema)
    assert found.runtime == "onnx", found.reason
    compiled_one = served(found, schema, tmp_path)
    rows = frame.astype(object).to_numpy().tolist()
    for place, value in ((0, None), (1, None), (1, "astronaut"), (2, None), (3, None)):
        row = list(rows[place])
        row[place] = value
        rows.append(row)
    expected = original.predict(rows, isolate_failures=True)
    answer = compiled_one.predict(rows, isolate_failures=True)
    assert np.array_equal(answer.valid, expected.valid)
    good = expected.valid
    assert np.array_equal(answer.labels[good], expected.labels[good])
    np.testing.assert_allclose(answer.scores[good], expected.scores[good], rtol=0, atol=1e-4)


def test_a_column_of_holes_in_training_is_served_as_it_was(people, tmp_path):
    """Missing numbers are imputed and missing text is a category of none, as scikit-learn does."""
    frame, truth, schema = people
    holed = frame.astype({"age": float})
    holed.loc[::7, "age"] = np.nan
    holed.loc[::9, "job"] = None
    model = make_pipeline(columns(), LogisticRegression()).fit(holed, truth)
    original, found = compiled(model, holed, schema)
    expected = original.predict(holed, isolate_failures=True)
    if found.runtime == "onnx":
        answer = served(found, schema, tmp_path).predict(holed, isolate_failures=True)
        assert np.array_equal(answer.labels, expected.labels)
    else:
        assert "answer" in found.reason


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    trees=st.integers(1, 12),
    kind=st.sampled_from([RandomForestClassifier, GradientBoostingClassifier]),
    digits=st.integers(0, 8),
)
def test_compiled_equals_original_or_is_refused(seed, trees, kind, digits):
    """Whatever comes out serves the test rows as the original does, or does not serve."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(80, 3)).round(digits)
    truth = (rows[:, 0] + rng.normal(size=80) > 0).astype(int)
    truth[:2] = 0, 1
    model = kind(n_estimators=trees, random_state=0).fit(rows, truth)
    frame, schema = framed(rows, (0, 1))
    original, found = compiled(model, frame, schema)
    if found.runtime == "original":
        assert found.reason
        assert not found.content
        return
    answer = InlinePredictor(OnnxModel(found.content, schema), schema).predict(rows)
    expected = original.predict(rows)
    assert np.abs(answer.scores - expected.scores).max() <= 1e-4
    clear = np.abs(expected.scores - 0.5) > 2**-20
    assert np.array_equal(answer.labels[clear], expected.labels[clear])


def test_converting_twice_gives_the_same_bytes():
    """The artifact's digest depends on the model and on nothing else."""
    rows, truth = load_iris(return_X_y=True)
    model = RandomForestClassifier(5, random_state=0).fit(rows, truth)
    frame, schema = framed(rows, (0, 1, 2))
    assert compiled(model, frame, schema)[1] == compiled(model, frame, schema)[1]


def test_the_record_survives_json():
    """What stands in a manifest can be read again, also where nothing was compared."""
    rows, truth = load_iris(return_X_y=True)
    frame, schema = framed(rows, (0, 1, 2))
    model = DecisionTreeClassifier(random_state=0).fit(rows, truth)
    _, found = compiled(model, frame, schema)
    again = Compilation.from_json(found.to_json() | {"of_a_newer_mlguard": 1})
    assert again.comparison == found.comparison
    assert again.summary() == found.summary()


def test_serving_a_graph_needs_no_pandas_and_no_scikit_learn(tmp_path, people):
    """Rows of a mixed table go into a graph as columns; neither library is imported for it."""
    frame, truth, schema = people
    model = make_pipeline(columns(), LogisticRegression()).fit(frame, truth)
    _, found = compiled(model, frame, schema)
    file = tmp_path / "compiled"
    file.write_bytes(found.content)
    manifest = Manifest("0" * 64, "skops", schema.to_json()).compiled("onnx", found.content, {})
    script = f"""
import json, sys
from mlguard.models.bundle import Manifest
from mlguard.models.predictor import load_predictor
predictor = load_predictor(Manifest.from_json({manifest.to_json()!r}), {str(file)!r})
found = predictor.predict([[30, "cook", True, 900.0], [70, None, False, 1000.0]])
assert found.valid.all(), found.reasons
heavy = [one for one in ("pandas", "sklearn", "scipy", "skops", "onnx") if one in sys.modules]
print(json.dumps([found.outputs(), heavy]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    expected = Predictor(model, schema).predict(
        [[30, "cook", True, 900.0], [70, None, False, 1000.0]]
    )
    assert done.stdout.strip() == f"[{expected.outputs()}, []]"
