"""Open Inference Protocol v2, asked by tritonclient as it comes from PyPI, and by plain HTTP."""

import gzip
import json
import struct

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from tritonclient.utils import InferenceServerException as TritonError

from mlguard.models.linear import reduce_linear
from mlguard.models.schema import Feature, InputSchema
from mlguard.models.uncertainty import Uncertainty
from mlguard.serving.embedded import served

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.1, 5.6, 2.4], [5.9, 2.8, 4.3, 1.3]])
TYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "bool": "BOOL", "object": "BYTES"}


@pytest.fixture(scope="module")
def iris_url(iris, settings_of):
    settings = settings_of(name="iris", app={"slo_ms": 5000})
    with served(settings, iris.json, iris.path, version="v1", max_body=100_000) as base:
        yield base


@pytest.fixture(scope="module")
def table_url(table, settings_of):
    settings = settings_of(
        name="credit",
        app={"input": "table", "slo_ms": 5000, "unusual_rows": "default", "default_output": "ask"},
    )
    with served(settings, table.json, table.path, version="v7") as base:
        yield base


@pytest.fixture
def client(iris_url):
    with asking(iris_url) as made:
        yield made


def asking(url):
    return triton.InferenceServerClient(url.removeprefix("http://"))


def tensor(name, values, *, binary=True):
    made = triton.InferInput(name, list(values.shape), TYPES[values.dtype.name])
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def test_health_and_metadata(client):
    """Server and model say that they are there, and which tensors the model takes and gives."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", "v1")
    assert not client.is_model_ready("iris", "v2")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "mlguard"
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("iris")
    assert metadata["versions"] == ["v1"]
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 4]}]
    outputs = {one["name"]: one["datatype"] for one in metadata["outputs"]}
    assert outputs == {"output": "INT64", "default": "BOOL", "query_id": "INT64"}
    assert client.get_model_metadata("iris", "v1") == metadata


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("binary", [True, False])
def test_numbers_in_labels_out(client, iris_url, dtype, binary):
    """Both float types, raw and as JSON, both ways: the answers of Clipper's own route."""
    rows = ROWS.astype(dtype)
    wanted = [triton.InferRequestedOutput("output", binary_data=binary)]
    result = client.infer("iris", [tensor("x", rows, binary=binary)], outputs=wanted)
    body = {"input_batch": rows.tolist()}
    plain = httpx.post(f"{iris_url}/iris/predict", json=body).json()["batch_predictions"]
    assert result.as_numpy("output").tolist() == [one["output"] for one in plain] == [0, 2, 1]
    assert result.as_numpy("output").dtype == np.int64
    assert result.as_numpy("query_id") is None  # not asked for


def test_what_an_answer_holds(client, iris_url):
    """Version, request id, ids that labels are sent by, and that nothing is a default."""
    result = client.infer("iris", [tensor("input", ROWS)], request_id="r1", model_version="v1")
    response = result.get_response()
    assert (response["model_name"], response["model_version"]) == ("iris", "v1")
    assert response["id"] == "r1"
    assert response["parameters"] == {"default": False}
    assert result.as_numpy("default").tolist() == [False] * 3
    ids = result.as_numpy("query_id").tolist()
    assert len(set(ids)) == 3
    label = {"query_id": ids[0], "label": 0}
    assert httpx.post(f"{iris_url}/iris/update", json=label).json() == {"received": True}


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_request(client, coding):
    """The client's own compression is undone."""
    result = client.infer(
        "iris",
        [tensor("x", ROWS)],
        request_compression_algorithm=coding,
        response_compression_algorithm="gzip",
    )
    assert result.as_numpy("output").tolist() == [0, 2, 1]


def test_one_tensor_for_each_feature(client):
    """Columns by the names of the features, in any order, of shape [n] or [n, 1]."""
    names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    columns = [tensor(name, ROWS[:, [place]]) for place, name in enumerate(names)]
    result = client.infer("iris", columns[::-1])
    assert result.as_numpy("output").tolist() == [0, 2, 1]
    with pytest.raises(TritonError, match="no tensor for 'petal_width'"):
        client.infer("iris", columns[:3])


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("x", ROWS[:, :3], r"shape \[3, 3\], the model takes \[n, 4\]"),
        ("x", ROWS[0], r"shape \[4\]"),
        ("x", np.array([[np.nan, 1, 1, 1]]), "value 0 is not finite"),
        ("x", np.array([[np.inf, 1, 1, 1]]), "value 0 is not finite"),
        ("x", np.array([["a", "b", "c", "d"]], dtype=object), "BYTES where the app takes numbers"),
        ("x", np.ones((1, 4), dtype=bool), "BOOL where the app takes numbers"),
    ],
)
def test_tensors_that_are_no_rows(client, name, values, said):
    """A wrong shape, type or value is the caller's error, and named."""
    with pytest.raises(TritonError, match=said) as caught:
        client.infer("iris", [tensor(name, values)])
    assert caught.value.status() == "400"


def test_unknown_names_are_404(client):
    """No such app, no such version."""
    with pytest.raises(TritonError, match="no app 'nobody'"):
        client.infer("nobody", [tensor("x", ROWS)])
    with pytest.raises(TritonError, match="version 'v9' of 'iris' is not loaded"):
        client.infer("iris", [tensor("x", ROWS)], model_version="v9")
    with pytest.raises(TritonError, match="no output 'logits'"):
        client.infer("iris", [tensor("x", ROWS)], outputs=[triton.InferRequestedOutput("logits")])


def columns_of(rows):
    income, children, owner, region = zip(*rows, strict=True)
    return [
        tensor("income", np.array(income, dtype="float64")),
        tensor("children", np.array(children, dtype="int64")),
        tensor("owner", np.array(owner)),
        tensor("region", np.array(region, dtype=object)),
    ]


def test_a_table_with_every_kind_of_column(table_url):
    """FP64, INT64, BOOL and BYTES together; scores come with the labels."""
    rows = [(70.0, 1, True, "north"), (30.0, 0, False, "south")]
    with asking(table_url) as client:
        metadata = client.get_model_metadata("credit")
        types = [(one["name"], one["datatype"]) for one in metadata["inputs"]]
        assert types == [
            ("income", "FP64"),
            ("children", "INT64"),
            ("owner", "BOOL"),
            ("region", "BYTES"),
        ]
        result = client.infer("credit", columns_of(rows))
        assert result.as_numpy("output").tolist() == [1, 0]
        high, low = result.as_numpy("score")
        assert 0 <= low < 0.5 <= high <= 1


def test_a_default_output_shows(table_url):
    """The row is marked; the labels, one of which no number can carry, come as text."""
    rows = [(70.0, 1, True, "north"), (30.0, 9, False, "south")]
    with asking(table_url) as client:
        result = client.infer("credit", columns_of(rows))
    assert result.as_numpy("default").tolist() == [False, True]
    assert result.as_numpy("output").tolist() == [b"1", b"ask"]
    assert result.as_numpy("score") is None
    parameters = result.get_response()["parameters"]
    assert parameters["default"] is True
    assert "unlike the data" in parameters["default_explanation"]
    assert "children: 9" in parameters["unusual"]


@pytest.mark.parametrize("kind", ["strings", "bytes"])
def test_texts_and_bytes(kind, echo, settings_of, bundle_of, tmp_path):
    """BYTES reach the model as they are, also such as are no text."""
    settings = settings_of(
        name="echo", app={"input": kind, "slo_ms": 5000}, model={"allow_pickle": True}
    )
    schema = InputSchema(kind, "classification", (Feature("text", "text"),), None)
    bundle = bundle_of(echo.Echo(), tmp_path / "echo.joblib", schema, settings)
    with served(settings, bundle.json, bundle.path) as base, asking(base) as client:
        asked = np.array(["héllo", "", "a b"], dtype=object)
        for binary in (True, False) if kind == "strings" else (True,):
            result = client.infer("echo", [tensor("x", asked, binary=binary)])
            assert result.as_numpy("output").tolist() == [one.encode() for one in asked]
        if kind == "strings":
            with pytest.raises(TritonError, match="not UTF-8"):
                client.infer("echo", [tensor("x", np.array([b"\xff"], dtype=object))])


def test_without_a_version_it_is_not_ready_and_answers_by_default(settings_of):
    """200 with the default output as text; the model itself is not ready."""
    with served(settings_of(name="app"), None) as base, asking(base) as client:
        assert not client.is_model_ready("app")
        result = client.infer("app", [tensor("x", ROWS)])
        assert result.as_numpy("output").tolist() == [b"None"] * 3
        explanation = result.get_response()["parameters"]["default_explanation"]
        assert explanation == "No connected models found for query"


def test_keys_and_labels_of_the_figures(iris, settings_of):
    """A key is needed here as everywhere, and refusals are counted."""
    settings = settings_of(name="iris", app={"slo_ms": 5000, "keys": ["portal"]})
    environment = {"MLGUARD_KEY_PORTAL": "secret"}
    with served(settings, iris.json, iris.path, environment=environment) as base:
        with asking(base) as client:
            with pytest.raises(TritonError, match="key"):
                client.infer("iris", [tensor("x", ROWS)])
            headers = {"Authorization": "Bearer secret"}
            result = client.infer("iris", [tensor("x", ROWS)], headers=headers)
            assert result.as_numpy("output").tolist() == [0, 2, 1]
        metrics = httpx.get(f"{base}/metrics").text
        assert 'mlguard_requests_total{app="iris",status="401"} 1.0' in metrics
        assert 'mlguard_requests_total{app="iris",status="200"} 1.0' in metrics


# --- how sure an answer is -------------------------------------------------------------------


@pytest.fixture
def unsure(settings_of, bundle_of, doubles, tmp_path):
    """Serves a model of iris, compiled, that says how sure it is; yields URL and client."""

    def serve(model, target, uncertainty, **app):
        settings = settings_of(name="iris", app={"slo_ms": 5000, **app})
        task = "classification" if uncertainty.kind == "set" else "regression"
        schema = doubles(4, task=task, classes=uncertainty.classes)
        estimator = model.fit(load_iris().data, target)
        content = reduce_linear(estimator, schema).to_bytes()
        bundle = bundle_of(estimator, tmp_path / "model.skops", schema, settings)
        manifest = bundle.manifest.saying(uncertainty).compiled("linear", content, {})
        (tmp_path / "compiled").write_bytes(content)
        return served(settings, manifest.to_json(), tmp_path / "compiled")

    return serve


@pytest.mark.parametrize("binary", [True, False])
def test_a_set_of_classes(unsure, binary):
    """A boolean matrix that says what Clipper's route says; the metadata names its columns."""
    names = np.array(["0", "setosa", "true"])  # two of them are sent as the JSON they spell
    said = Uncertainty("set", 0.9, 0.75, 75, "a" * 64, tuple(names.tolist()))
    model = LogisticRegression(max_iter=500)
    with unsure(model, names[load_iris().target], said) as base, asking(base) as client:
        about = client.get_model_metadata("iris")["outputs"][-1]
        assert (about["name"], about["datatype"], about["shape"]) == (
            *("prediction_set", "BOOL"),
            [-1, 3],
        )
        assert about["parameters"] == {"coverage": 0.9, "classes": [0, "setosa", True]}
        rows = load_iris().data[::10]
        result = client.infer(
            "iris",
            [tensor("x", rows)],
            outputs=[triton.InferRequestedOutput("prediction_set", binary_data=binary)],
        )
        body = {"input_batch": rows.tolist()}
        plain = httpx.post(f"{base}/iris/predict", json=body).json()["batch_predictions"]
        everything = client.infer("iris", [tensor("x", rows)])
    found = result.as_numpy("prediction_set")
    assert (found.dtype, found.shape) == (np.bool_, (15, 3))
    wanted = [
        [label in one["uncertainty"]["set"] for label in about["parameters"]["classes"]]
        for one in plain
    ]
    assert found.tolist() == wanted
    assert {1, 2} <= set(found.sum(axis=1).tolist())
    assert everything.as_numpy("prediction_set").tolist() == wanted
    assert result.get_output("prediction_set")["parameters"]["classes"] == [0, "setosa", True]


def test_an_interval(unsure):
    """Two bounds for each row; NaN for those that got the default output, scores as well."""
    said = Uncertainty("interval", 0.8, 1.5, 75, "a" * 64)
    model, target = LinearRegression(), load_iris().data.sum(axis=1)
    rows = np.array([[0.2, 0.3, 0.4, 0.5], [5, 5, 5, 5]])
    wanted = [triton.InferRequestedOutput(name) for name in ("interval", "score", "default")]
    with (
        unsure(model, target, said, unusual_rows="default", default_output="0") as base,
        asking(base) as client,
    ):
        about = client.get_model_metadata("iris")["outputs"][-1]
        result = client.infer("iris", [tensor("x", rows)], outputs=wanted)
        with pytest.raises(TritonError, match="no output 'prediction_set'"):
            client.infer(
                "iris",
                [tensor("x", rows)],
                outputs=[triton.InferRequestedOutput("prediction_set")],
            )
    assert about == {
        "name": "interval",
        "datatype": "FP64",
        "shape": [-1, 2],
        "parameters": {"coverage": 0.8},
    }
    assert result.as_numpy("default").tolist() == [False, True]
    low, high = result.as_numpy("interval")[0]
    assert (low, high) == pytest.approx((1.4 - 1.5, 1.4 + 1.5))
    assert np.isnan(result.as_numpy("interval")[1]).all()
    assert result.as_numpy("score")[0] == pytest.approx(1.4)
    assert np.isnan(result.as_numpy("score")[1])


def test_without_a_version_nothing_is_sure(settings_of):
    """What a version had is asked for as before; the answer is the default all the same."""
    wanted = [triton.InferRequestedOutput(name) for name in ("output", "interval", "score")]
    with served(settings_of(name="app"), None) as base, asking(base) as client:
        result = client.infer("app", [tensor("x", ROWS)], outputs=wanted)
    assert result.as_numpy("output").tolist() == [b"None"] * 3
    assert np.isnan(result.as_numpy("interval")).all()
    assert np.isnan(result.as_numpy("score")).all()


# --- bodies that no client would send --------------------------------------------------------


def one(**changes):
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4]} | changes
    return {"inputs": [{key: value for key, value in tensor.items() if value is not None}]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "Expected `object`"),
        ({}, "inputs"),
        ({"inputs": []}, "no inputs"),
        ({"inputs": [{"name": "x"}]}, "shape"),
        (one(data=None), "neither data nor binary_data_size"),
        (one(shape=[1, -4]), "shape"),
        (one(shape=[2**40, 2**40]), "4 values, and its shape"),
        (one(shape=[]), "shape"),
        (one(shape=[1, 2, 2]), "shape"),
        (one(datatype="FP8"), "datatype 'FP8'"),
        (one(data=[1, 2, 3, "4"]), "value 3 is no FP64"),
        (one(data=[1, 2, 3, True]), "value 3 is no FP64"),
        (one(datatype="INT64", data=[1, 2, 3, 4.5]), "value 3 is no INT64"),
        (one(data=[1, 2, 3, None]), "value 3 is not finite"),
        (one(data=[[1, 2, 3, [4]]]), "value 3 is no FP64"),
        (one(data={"a": 1}), "1 values"),
        (one(parameters={"binary_data_size": 9}), "binary_data_size"),
        (one(parameters={"binary_data_size": "4"}), "binary_data_size"),
        (one(parameters={"binary_data_size": 0}), "0 bytes"),
        ({"inputs": one()["inputs"] * 2}, "same name"),
        (one() | {"parameters": {"groups": 3}}, "groups"),
    ],
    ids=str,
)
def test_a_bad_document_is_400_and_says_why(iris_url, document, said):
    """Whatever is wrong, the protocol's error names it."""
    reply = httpx.post(f"{iris_url}/v2/models/iris/infer", json=document)
    assert reply.status_code == 400
    assert set(reply.json()) == {"error"}
    assert said in reply.json()["error"]


@pytest.mark.parametrize("nested", [[1, 2, 3, 4], [[1, 2, 3, 4]], [[1, 2], [3, 4]]])
def test_data_may_be_nested_or_flat(iris_url, nested):
    """As the protocol allows."""
    reply = httpx.post(f"{iris_url}/v2/models/iris/infer", json=one(data=nested))
    assert reply.json()["outputs"][0]["data"] == [2]


def raw(document, tail, length=None, **headers):
    head = json.dumps(document).encode()
    given = {"Inference-Header-Content-Length": str(len(head) if length is None else length)}
    return {"content": head + tail, "headers": given | headers}


def test_raw_tensors_and_their_lengths(iris_url):
    """Too few bytes, too many, a header length out of range or no number: 400, each named."""
    url = f"{iris_url}/v2/models/iris/infer"
    row = struct.pack("<4d", 1, 2, 3, 4)
    document = one(data=None, parameters={"binary_data_size": 32})
    assert httpx.post(url, **raw(document, row)).json()["outputs"][0]["data"] == [2]
    for request, said in (
        (raw(document, row + b"x"), "belong to none"),
        (raw(document, row[:-1]), "binary_data_size"),
        (raw(document, row, length=10**9), "longer than the body"),
        (raw(document, row, length="9" * 30), "is no number"),
        (raw(document, row, length="-1"), "is no number"),
        (raw(one(shape=[2, 4], data=None, parameters={"binary_data_size": 32}), row), "32 bytes"),
    ):
        reply = httpx.post(url, **request)
        assert reply.status_code == 400
        assert said in reply.json()["error"]
    texts = one(datatype="BYTES", shape=[4], data=None, parameters={"binary_data_size": 5})
    for tail in (b"\xff\xff\xff\xff\0", b"\0\0\0\0\0", b"\1\0\0\0a"):
        assert "elements" in httpx.post(url, **raw(texts, tail)).json()["error"]


def test_a_body_that_grows_is_refused(iris_url):
    """A small body that inflates beyond the limit is not inflated; nonsense is no gzip."""
    url = f"{iris_url}/v2/models/iris/infer"
    bomb = gzip.compress(b" " * 10_000_000)
    for content, coding in ((bomb, "gzip"), (b"x", "gzip"), (bomb[:-9], "gzip"), (b"", "br")):
        headers = {"Content-Encoding": coding}
        reply = httpx.post(url, content=content, headers=headers)
        assert reply.status_code == 400
        assert set(reply.json()) == {"error"}


def test_routes_that_are_not_there(iris_url):
    """Unknown routes and methods under /v2 answer in the protocol's form too."""
    for method, path, status in (
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/iris/infer", 405),
        ("POST", "/v2", 405),
        ("GET", "/v2/models/iris/versions/v9", 404),
        ("GET", "/v2/repository/index", 404),
    ):
        reply = httpx.request(method, iris_url + path)
        assert reply.status_code == status
        assert set(reply.json()) == {"error"}
