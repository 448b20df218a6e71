"""ONNX files as models: sniffed, checked before anything runs them, answered alike."""

import os
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

from mlguard.errors import ModelFileError, ModelRunError, UntrustedModelError
from mlguard.models.formats import load_model, sniff
from mlguard.models.onnx_graph import read_graph
from mlguard.models.onnx_model import session_of
from mlguard.models.opening import open_model
from mlguard.models.predictor import load_predictor


@pytest.fixture(scope="module")
def iris():
    """Rows as a frame with its labels, and a fitted forest."""
    frame = load_iris(as_frame=True).frame.rename(columns={"target": "y"})
    rows = frame.drop(columns="y").to_numpy(np.float32)
    return frame, rows, RandomForestClassifier(10, random_state=0).fit(rows, frame["y"])


def graph(nodes, inputs, outputs, initializers=(), *, domains=(), functions=()):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(one, 1) for one in domains)]
    return helper.make_model(made, opset_imports=opsets, functions=list(functions), ir_version=10)


def written(tmp_path, model):
    file = tmp_path / "model.onnx"
    file.write_bytes(model.SerializeToString())
    return file


def one_score(nodes=None, **more):
    """A graph that gives one score for two columns."""
    weights = numpy_helper.from_array(np.array([[0.5], [0.25]], np.float32), "w")
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["score"])]
    return graph(
        nodes,
        [("x", TensorProto.FLOAT, [None, 2])],
        [("score", TensorProto.FLOAT, [None, 1])],
        [weights],
        **more,
    )


@pytest.mark.parametrize("zipmap", [False, "columns", True])
def test_a_graph_is_a_model_like_any_other(iris, make_settings, tmp_path, zipmap):
    """Its labels and scores are the original's, whichever way it says its probabilities."""
    frame, rows, forest = iris
    file = tmp_path / "model.any"
    file.write_bytes(to_onnx(forest, rows[:1], options={"zipmap": zipmap}).SerializeToString())
    assert sniff(file) == "onnx"
    if zipmap == "columns":
        # A score for each class in an output of its own is no shape that rows have.
        with pytest.raises((ModelRunError, ModelFileError)):
            open_model(file, frame, make_settings()).predictor.predict(frame.head())
        return
    opened = open_model(file, frame, make_settings())
    assert opened.schema.classes == (0, 1, 2)
    assert opened.schema.names == tuple(frame.columns[:4])
    assert opened.manifest.model_format == "onnx"
    assert opened.manifest.in_process
    answer = load_predictor(opened.manifest, file).predict(frame)
    np.testing.assert_allclose(answer.scores, forest.predict_proba(rows), atol=1e-5)
    assert np.array_equal(answer.labels, np.argmax(forest.predict_proba(rows), axis=1))


def test_a_graph_with_named_columns_names_its_features(tmp_path, make_settings, numbers):
    """Inputs of shape (n, 1) are found in the data by their names, in any order."""
    nodes = [
        helper.make_node("Sub", ["b", "a"], ["d"]),
        helper.make_node("Sigmoid", ["d"], ["score"]),
    ]
    column = [None, 1]
    model = graph(
        nodes,
        [("b", TensorProto.FLOAT, column), ("a", TensorProto.FLOAT, column)],
        [("score", TensorProto.FLOAT, column)],
    )
    frame = numbers.assign(y=(numbers["b"] > numbers["a"]).astype(int))
    opened = open_model(written(tmp_path, model), frame, make_settings())
    assert opened.schema.names == ("b", "a")
    answer = opened.predictor.predict(frame)
    expected = 1 / (1 + np.exp(-(frame["b"] - frame["a"])))
    np.testing.assert_allclose(answer.scores, expected, atol=2e-6)
    assert answer.labels.tolist() == frame["y"].tolist()


def test_a_regression_in_double_is_not_rounded(tmp_path, make_settings, numbers):
    """Only a classifier's scores are."""
    from skl2onnx.common.data_types import DoubleTensorType

    rows = numbers[["a", "b"]].to_numpy()
    truth = rows @ [1.0, np.pi]
    model = to_onnx(
        LinearRegression().fit(rows, truth), initial_types=[("x", DoubleTensorType([None, 2]))]
    )
    frame = numbers.assign(y=truth)
    opened = open_model(written(tmp_path, model), frame, make_settings(app={"task": "regression"}))
    np.testing.assert_allclose(opened.predictor.predict(frame).labels, truth, rtol=1e-12)


def test_a_graph_for_other_classes_is_refused(tmp_path, make_settings, numbers):
    """One score cannot tell three classes apart."""
    opened = open_model(written(tmp_path, one_score()), numbers, make_settings())
    with pytest.raises(ModelRunError, match="one score for each row, expected 3"):
        opened.predictor.predict(numbers)


# --- what is refused ---------------------------------------------------------------------


def test_weights_in_other_files_are_refused(tmp_path):
    """A path in the graph would be read by whoever loads it."""
    model = one_score()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    with pytest.raises(UntrustedModelError, match="external data"):
        read_graph(written(tmp_path, model))


def test_operators_of_a_library_are_refused(tmp_path):
    """A domain that ONNX Runtime does not have needs a shared library, which is code."""
    node = helper.make_node("Run", ["x"], ["score"], domain="com.example")
    with pytest.raises(UntrustedModelError, match=r"com\.example\.Run"):
        read_graph(written(tmp_path, one_score([node], domains=["com.example"])))


def test_functions_of_the_graph_itself_are_not(tmp_path):
    """Exporters put parts of a model into functions under a domain of their own."""
    inner = helper.make_function(
        "local",
        "Half",
        ["x"],
        ["score"],
        [helper.make_node("ReduceMean", ["x"], ["score"], keepdims=1, axes=[1])],
        [helper.make_opsetid("", 17)],
    )
    node = helper.make_node("Half", ["x"], ["score"], domain="local")
    model = one_score([node], domains=["local"], functions=[inner])
    assert read_graph(written(tmp_path, model)).n_features_in_ == 2


def test_a_graph_with_a_loop_gets_a_process_of_its_own(tmp_path, make_settings, numbers):
    """Nothing in the server's process could end it."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["goes"]),
            helper.make_node("Add", ["v", "v"], ["doubled"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("doubled", TensorProto.FLOAT, [None, 1]),
        ],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("Loop", ["n", "yes", "s"], ["score"], body=body),
    ]
    model = one_score(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array(2, np.int64), "n"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    file = written(tmp_path, model)
    frame = numbers.assign(y=(numbers["a"] > 0).astype(int))
    opened = open_model(file, frame, make_settings())
    assert not opened.manifest.in_process
    loaded = load_predictor(opened.manifest, file)
    assert not loaded.in_process
    expected = 4 * (0.5 * frame["a"] + 0.25 * frame["b"])
    np.testing.assert_allclose(loaded.predict(frame).scores, expected, atol=1e-5)


@pytest.mark.parametrize("damage", ["cut", "noise", "other"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    """Half a file, and bytes that only begin like one."""
    whole = one_score().SerializeToString()
    file = tmp_path / "model.onnx"
    file.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "noise": whole[:4] + os.urandom(200),
            "other": b"\x08\x08\x3a\x00",
        }[damage]
    )
    with pytest.raises(ModelFileError, match="no usable ONNX graph"):
        read_graph(file)


def test_an_estimator_is_not_made_of_a_graph(tmp_path):
    """Who needs scikit-learn's own object is told what the file is."""
    with pytest.raises(ModelFileError, match="it is an ONNX graph"):
        load_model(written(tmp_path, one_score()))


def test_inputs_that_no_row_has_are_refused(tmp_path, make_settings, numbers):
    """Pictures have more dimensions than rows."""
    model = graph(
        [helper.make_node("ReduceMean", ["x"], ["score"], keepdims=0, axes=[1, 2])],
        [("x", TensorProto.FLOAT, [None, 8, 8])],
        [("score", TensorProto.FLOAT, [None])],
    )
    with pytest.raises(ModelFileError, match="3 dimensions"):
        open_model(written(tmp_path, model), numbers, make_settings())


# --- nothing is reported to anybody --------------------------------------------------------


def test_loading_a_graph_leaves_nothing_behind(tmp_path):
    """With reporting on, ONNX Runtime writes a device's id below the home folder at once."""
    file = written(tmp_path, one_score())
    home = tmp_path / "home"
    home.mkdir()
    script = (
        "import os, numpy as np; from mlguard.models.onnx_model import session_of; "
        f"found = session_of(open({str(file)!r}, 'rb').read(), 'x'); "
        "found.run(None, {'x': np.zeros((1, 2), np.float32)}); "
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    )
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", script], env=clean | {"HOME": str(home)}, check=True, timeout=120
    )
    assert list(home.rglob("*")) == []


def test_a_session_has_one_thread():
    """A server's replicas share the cores; a session must not take them all."""
    session = session_of(one_score().SerializeToString(), "x")
    assert session.get_session_options().intra_op_num_threads == 1
