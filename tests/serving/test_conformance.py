"""Clipper's contract over real HTTP: what every path to an answer must keep."""

import base64
import json
import socket

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlguard.models.schema import Feature, InputSchema
from mlguard.serving.embedded import served

ROW = [4.3, 2.0, 1.0, 0.1]
BODY = b'{"input": [4.3, 2.0, 1.0, 0.1]}'


def paths():
    """Every way from a socket to a model; what a test of its own says of each."""
    soak = pytest.mark.soak
    return [
        pytest.param("protocol", id="protocol"),
        pytest.param("inline", id="protocol-and-compiled-model"),
        pytest.param("route", id="ordinary-route"),
        pytest.param("processes", id="two-processes", marks=soak),
        pytest.param("hypercorn", id="hypercorn", marks=soak),
    ]


@pytest.fixture(scope="module", params=paths())
def way(request):
    return request.param


@pytest.fixture(scope="module")
def url(way, iris, served_by, tmp_path_factory):
    """A server with iris live."""
    with served_by(way, iris, tmp_path_factory.mktemp("conformance")) as base:
        yield base


def test_each_way_is_the_one_it_says(way, ask):
    """Who asks /readyz is told which way predictions take, and why."""
    said = ask.client.get("/readyz").json()["predict_path"]
    if way in ("protocol", "inline", "processes"):
        assert said == "protocol"
    else:
        assert said.startswith("route: ")
        assert ("middleware was added (Nothing)" in said) is (way == "route")


@pytest.fixture(scope="module")
def ask(url):
    with httpx.Client(base_url=url, timeout=30) as client:

        def post(body, path="/iris/predict", **options):
            content = body if isinstance(body, (bytes, str)) else json.dumps(body)
            return client.post(path, content=content, **options)

        post.client = client
        yield post


def test_the_line_on_the_slides(ask):
    """The plain curl line: no header of its own, the class as a number, not default."""
    reply = ask(BODY)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    document = reply.json()
    assert set(document) == {"query_id", "output", "default"}
    assert document["output"] == 0
    assert document["default"] is False
    assert 0 < document["query_id"] < 2**53


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "nonsense",
        "application/json; charset=latin-1",
        "multipart/form-data",
        "",
    ],
)
def test_the_body_is_json_whatever_the_content_type(ask, kind):
    """curl -d sends a form's Content-Type; the body is JSON all the same."""
    assert ask(BODY, headers={"Content-Type": kind}).json()["output"] == 0


@pytest.mark.parametrize("path", ["/iris/predict", "/iris/predict/"])
def test_a_slash_at_the_end_is_the_same_route(ask, path):
    """No redirect: a POST would lose its body."""
    assert ask(BODY, path=path).status_code == 200


def test_every_prediction_says_who_made_it(ask):
    """Version and generation stand in the headers, of single answers, batches and defaults."""
    for body in (BODY, {"input_batch": [ROW, ROW]}, {"input_batch": []}):
        reply = ask(body)
        assert reply.headers["X-MLGuard-Version"] == "v1"
        assert reply.headers["X-MLGuard-Generation"] == "1"


def test_a_batch_is_answered_in_order(ask, iris):
    """Rows of a batch come back in their order, each with its own id."""
    rng = np.random.default_rng(1)
    rows = rng.uniform([4, 2, 1, 0.1], [8, 4.5, 7, 2.5], (500, 4)).tolist()
    predictions = ask({"input_batch": rows}).json()["batch_predictions"]
    one_by_one = [ask({"input": row}).json()["output"] for row in rows[:40]]
    assert [one["output"] for one in predictions[:40]] == one_by_one
    assert len(set(one_by_one)) == 3
    ids = [one["query_id"] for one in predictions]
    assert len(set(ids)) == 500


def test_a_batch_of_one_is_the_single_form(ask):
    """One row in a batch: the form without a list; none: an empty list."""
    assert set(ask({"input_batch": [ROW]}).json()) == {"query_id", "output", "default"}
    assert ask({"input_batch": []}).json() == {"batch_predictions": []}


def test_other_keys_are_ignored_and_input_wins(ask):
    """What the server does not know does not disturb it."""
    body = {"input": ROW, "input_batch": "x", "more": [1], "uid": "u", "groups": {"sex": "F"}}
    assert ask(body).json()["output"] == 0


def test_a_version_may_be_named(ask):
    """The live version by its name; any other is an error in Clipper's words."""
    assert ask({"input": ROW, "version": "v1"}).status_code == 200
    reply = ask({"input": ROW, "version": "v9"})
    assert reply.status_code == 400
    assert reply.json() == {
        "error": "Query processing error",
        "cause": "Requested version: v9 does not exist for model: iris",
    }


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "1",
        "{}",
        '{"input": [1, 2, 3]}',
        '{"input": [1, 2, 3, "4"]}',
        '{"input": [1, 2, 3, NaN]}',
        '{"input": [1, 2, 3, [4]]}',
        '{"input": null}',
        '{"input_batch": [[1, 2, 3, 4], [1]]}',
        '{"input_batch": [1, 2, 3, 4]}',
        '{"input": [1, 2, 3, 4], "groups": 3}',
    ],
)
def test_a_bad_request_is_400_in_clippers_words(ask, body):
    """Malformed, no object, no key, wrong type, length or nesting, not finite."""
    reply = ask(body)
    assert reply.status_code == 400
    document = reply.json()
    assert set(document) == {"error", "cause"}
    assert document["error"] == "Json error"
    assert document["cause"].startswith("Error parsing JSON: ")


def test_a_bad_row_is_named(ask):
    """The cause says which row of the batch."""
    reply = ask({"input_batch": [ROW, ROW, ROW[:3]]})
    assert "input_batch[2]" in reply.json()["cause"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/nobody/predict", 404),
        ("POST", "/nobody/update", 404),
        ("GET", "/no/such/route", 404),
        ("POST", "/iris", 404),
        ("POST", "/iris/predict/more", 404),
        ("GET", "/iris/predict", 405),
        ("PUT", "/iris/predict", 405),
        ("DELETE", "/iris/update", 405),
        ("POST", "/healthz", 405),
        ("POST", "/%2e%2e/predict", 404),
    ],
)
def test_other_errors_are_json_too(url, method, path, status):
    """Unknown app, unknown route, wrong method: the same two keys."""
    # A connection each: hypercorn closes one whose body nobody has read, and does not say so.
    content = BODY if method != "GET" else None
    reply = httpx.request(method, f"{url}{path}", content=content, timeout=30)
    assert reply.status_code == status
    assert set(reply.json()) == {"error", "cause"}
    if status == 405:
        assert reply.headers["allow"]


def test_a_body_that_is_too_large_is_413(ask, way):
    """By its declared length, and by what really comes when nothing is declared."""
    big = b'{"input": [' + b" " * 100_000 + b"1]}"
    reply = ask(big)
    assert reply.status_code == 413
    assert set(reply.json()) == {"error", "cause"}

    def chunks():
        for _ in range(30):
            yield b" " * 5_000

    for _ in range(3):
        reply = ask.client.post("/iris/predict", content=chunks())
        assert reply.status_code == 413
        # What was not read is not looked for in the next request, nor is that one lost.
        if way in ("route", "hypercorn"):
            assert reply.headers["connection"] == "close"
        assert ask(BODY).status_code == 200


def test_a_chunked_body_is_read(ask):
    """A body without Content-Length is as good as any."""

    def chunks():
        for index in range(len(BODY)):
            yield BODY[index : index + 1]

    assert ask.client.post("/iris/predict", content=chunks()).json()["output"] == 0


def test_pipelined_requests_are_answered_in_order(url):
    """Three requests in one write on one connection come back one after the other."""
    port = int(url.rsplit(":", 1)[1])
    request = b"POST /iris/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    request += BODY
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request * 3)
        got = b""
        while got.count(b'"query_id"') < 3:
            got += connection.recv(65_536)
    ids = [int(part.split(b",")[0]) for part in got.split(b'"query_id":')[1:]]
    assert ids == sorted(ids)
    assert len(set(ids)) == 3


def test_health_metrics_docs(ask):
    """The operators' routes answer; metrics parse; the docs load nothing from elsewhere."""
    assert ask.client.get("/healthz").json() == {"live": True}
    assert ask.client.get("/readyz").json()["ready"] is True
    families = {
        family.name: family
        for family in text_string_to_metric_families(ask.client.get("/metrics").text)
    }
    answered = families["mlguard_predictions"].samples
    assert sum(one.value for one in answered if one.name.endswith("_total")) > 0
    assert {"mlguard_request_seconds", "mlguard_batch_rows", "mlguard_queue_rows"} <= set(families)
    docs = ask.client.get("/docs")
    assert docs.headers["content-type"].startswith("text/html")
    assert "http://" not in docs.text
    assert "https://" not in docs.text
    document = ask.client.get("/openapi.json").json()
    assert {"/{app_name}/predict", "/{app_name}/update", "/metrics"} <= set(document["paths"])


# --- labels ------------------------------------------------------------------------------


def test_labels_by_query_id(ask):
    """Taken once; the same again is fine; another one is a conflict."""
    query_id = ask(BODY).json()["query_id"]
    label = {"query_id": query_id, "label": 1}
    reply = ask(label, path="/iris/update")
    assert (reply.status_code, reply.json()) == (200, {"received": True})
    assert ask(label, path="/iris/update/").status_code == 200
    reply = ask(label | {"label": 2}, path="/iris/update")
    assert reply.status_code == 409
    assert set(reply.json()) == {"error", "cause"}


def test_a_label_that_no_answer_can_equal_is_refused(ask):
    """A name where numbers are answered is a 400 naming the classes; a number in quotes is fine."""
    query_id = ask({"input": ROW}).json()["query_id"]
    reply = ask({"query_id": query_id, "label": "setosa"}, path="/iris/update")
    assert reply.status_code == 400
    assert "'setosa'" in reply.json()["cause"]
    assert "0, 1, 2" in reply.json()["cause"]
    assert ask({"query_id": query_id, "label": "1"}, path="/iris/update").status_code == 200


def test_labels_by_uid_and_input(ask):
    """Clipper's form credits the latest prediction of that uid for that input."""
    first = ask({"input": ROW, "uid": 5}).json()["query_id"]
    second = ask({"input": ROW, "uid": 5}).json()["query_id"]
    ask({"input": [1, 2, 3, 4], "uid": 5})
    label = {"uid": 5, "input": ROW, "label": 1}
    assert ask(label, path="/iris/update").status_code == 200
    assert ask({"query_id": second, "label": 2}, path="/iris/update").status_code == 409
    assert ask({"query_id": first, "label": 2}, path="/iris/update").status_code == 200
    assert ask(label | {"uid": 6}, path="/iris/update").status_code == 404
    assert ask(label | {"input": [1]}, path="/iris/update").status_code == 400


@pytest.mark.parametrize("query_id", [0, -1, 10**9, 2**53, 2**70])
def test_ids_that_nobody_was_given_are_404(ask, query_id):
    """Forged labels are refused."""
    reply = ask({"query_id": query_id, "label": 1}, path="/iris/update")
    assert reply.status_code in (400, 404)
    assert set(reply.json()) == {"error", "cause"}


def test_an_id_not_given_out_yet_is_404(ask):
    """A reserved id is not a given one."""
    query_id = ask(BODY).json()["query_id"]
    assert ask({"query_id": query_id + 1, "label": 1}, path="/iris/update").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"query_id": 1}',
        '{"label": 1}',
        '{"query_id": "1", "label": 1}',
        '{"query_id": 1.5, "label": 1}',
        '{"query_id": 1, "label": null}',
        '{"query_id": 1, "label": [1]}',
        '{"query_id": 1, "label": NaN}',
        '{"uid": 1, "label": 1}',
    ],
)
def test_what_is_no_label_is_400(ask, body):
    """Malformed, missing or mistyped keys, a label that is no scalar."""
    reply = ask(body, path="/iris/update")
    assert reply.status_code == 400
    assert reply.json()["error"] == "Json error"


# --- other inputs and outputs --------------------------------------------------------------


def test_without_a_version_the_default_is_answered(settings_of):
    """200, the default output as JSON, and Clipper's explanation; bad rows are still 400."""
    settings = settings_of(name="app", app={"default_output": '{"class": [0]}'})
    with served(settings, None) as base, httpx.Client(base_url=base) as client:
        document = client.post("/app/predict", content=BODY).json()
        assert document["output"] == {"class": [0]}
        assert document["default"] is True
        assert document["default_explanation"] == "No connected models found for query"
        reply = client.post("/app/predict", content=b'{"input_batch": [[1], [2, 3]]}')
        assert [one["default"] for one in reply.json()["batch_predictions"]] == [True, True]
        assert reply.headers["X-MLGuard-Version"] == "none"
        assert client.post("/app/predict", content=b'{"input": "x"}').status_code == 400
        label = {"query_id": document["query_id"], "label": 1}
        assert client.post("/app/update", json=label).status_code == 200


def test_tables_by_name_and_by_position(table, settings_of):
    """A mixed table reaches the model with its own types; a bad cell is named."""
    settings = settings_of(name="credit", app={"input": "table", "slo_ms": 5000})
    row = {"income": 70.0, "children": 1, "owner": True, "region": "north"}
    with served(settings, table.json, table.path) as base, httpx.Client(base_url=base) as client:

        def ask(value):
            return client.post("/credit/predict", json={"input": value})

        assert ask(row).json()["output"] == 1
        assert ask(row | {"income": 30}).json()["output"] == 0
        assert ask(list(row.values())).json()["output"] == 1
        assert ask(row | {"income": None}).json()["default"] is False
        assert ask(row | {"region": "moon"}).json()["default"] is False
        reply = ask(row | {"income": "much"})
        assert reply.status_code == 400
        assert "column 'income': expected a number" in reply.json()["cause"]
        without = {key: value for key, value in row.items() if key != "region"}
        assert "column 'region' missing" in ask(without).json()["cause"]
        rows = [row, row | {"income": 30}] * 20
        reply = client.post("/credit/predict", json={"input_batch": rows})
        outputs = [one["output"] for one in reply.json()["batch_predictions"]]
        assert outputs == [1, 0] * 20


@pytest.mark.parametrize("kind", ["strings", "bytes"])
def test_texts_and_bytes_reach_the_model_unchanged(kind, echo, settings_of, bundle_of, tmp_path):
    """The model sees exactly what was sent; its string output is JSON where it is JSON."""
    settings = settings_of(
        name="echo", app={"input": kind, "slo_ms": 5000}, model={"allow_pickle": True}
    )
    schema = InputSchema(kind, "classification", (Feature("text", "text"),), None)
    bundle = bundle_of(echo.Echo(), tmp_path / "echo.joblib", schema, settings)
    texts = ["héllo\u2028\0 wörld", "", '{"a": [1, null]}', "12", "NaN", "null", '"quoted"']
    outputs = ["héllo\u2028\0 wörld", "", {"a": [1, None]}, 12, "NaN", None, "quoted"]
    with served(settings, bundle.json, bundle.path) as base, httpx.Client(base_url=base) as client:
        for text, output in zip(texts, outputs, strict=True):
            value = base64.b64encode(text.encode()).decode() if kind == "bytes" else text
            document = client.post("/echo/predict", json={"input": value}).json()
            assert document["default"] is False, document
            assert document["output"] == output
        if kind == "bytes":
            assert client.post("/echo/predict", json={"input": "*"}).status_code == 400


def test_a_regression_answers_its_value(settings_of, bundle_of, doubles, tmp_path):
    """A number comes out as a number; one too large for JSON never does."""
    from sklearn.linear_model import LinearRegression

    rows = np.array([[0.0], [1.0]])
    model = LinearRegression().fit(rows, [0.0, 2.5])
    settings = settings_of(app={"task": "regression", "slo_ms": 5000})
    schema = doubles(1, task="regression")
    bundle = bundle_of(model, tmp_path / "model.skops", schema, settings)
    with served(settings, bundle.json, bundle.path) as base, httpx.Client(base_url=base) as client:
        document = client.post("/app/predict", json={"input": [2.0]}).json()
        assert document["output"] == pytest.approx(5.0)
        document = client.post("/app/predict", json={"input": [1.5e308]}).json()
        assert document["default"] is True
        assert "not finite" in document["default_explanation"]
