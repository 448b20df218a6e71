"""The predict route in the protocol class: order, ends of connections, stepping aside."""

import asyncio
import inspect
import json
import socket
import threading
import time

import httpx
import pytest
from fastapi import Depends, FastAPI
from uvicorn.protocols.http import flow_control, httptools_impl
from uvicorn.server import ServerState as UvicornState

from mlguard.config import ServerTable
from mlguard.serving.embedded import served
from mlguard.serving.inputs import BadRequestError, RowReader, read_request
from mlguard.serving.protocol import PredictProtocol
from mlguard.serving.quick_path import why_aside

ROW = b'{"input": [4.3, 2.0, 1.0, 0.1]}'


def request(path=b"/iris/predict", body=ROW, *headers, method=b"POST", version=b"1.1"):
    head = [b"%b %b HTTP/%b" % (method, path, version), b"Host: x", *headers]
    if body is not None:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + (body or b"")


@pytest.fixture(scope="module")
def port(iris, settings_of):
    settings = settings_of(name="iris", app={"slo_ms": 5000})
    with served(settings, iris.json, iris.path, version="v1", max_body=100_000) as base:
        yield int(base.rsplit(":", 1)[1])


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def answers(connection, n=None):
    """Read n answers, or all until the other side closes: (status, headers, body)."""
    found = []
    with connection.makefile("rb") as stream:
        while n is None or len(found) < n:
            line = stream.readline()
            if not line:
                break
            headers = {}
            while (header := stream.readline()) not in (b"\r\n", b""):
                name, _, value = header.decode().partition(":")
                headers[name.lower()] = value.strip()
            body = stream.read(int(headers.get("content-length", 0)))
            found.append((int(line.split()[1]), headers, json.loads(body)))
    return found


# --- uvicorn's private parts -----------------------------------------------------------------


def test_the_parts_of_uvicorn_that_are_used_are_there():
    """Each private name that the protocol reads, calls or overrides; uvicorn may change them."""
    base = httptools_impl.HttpToolsProtocol
    called = {
        "on_message_begin": ["self"],
        "on_url": ["self", "url"],
        "on_header": ["self", "name", "value"],
        "on_headers_complete": ["self"],
        "on_body": ["self", "body"],
        "on_message_complete": ["self"],
        "on_response_complete": ["self"],
        "_start_asgi_task": ["self", "cycle", "app"],
        "_unset_keepalive_if_required": ["self"],
        "shutdown": ["self"],
        "pause_writing": ["self"],
        "resume_writing": ["self"],
        "connection_made": ["self", "transport"],
        "connection_lost": ["self", "exc"],
        "send_400_response": ["self", "msg"],
    }
    for name, parameters in called.items():
        assert list(inspect.signature(getattr(base, name)).parameters) == parameters, name
    source = inspect.getsource(base)
    for name in (
        "self.config",
        "self.server_state",
        "self.transport",
        "self.flow",
        "self.loop",
        "self.client",
        "self.url",
        "self.headers",
        "self.parser",
        "self.cycle",
        "self.pipeline",
        "self.timeout_keep_alive",
        "self.expect_100_continue",
    ):
        assert f"{name} = " in source or f"{name}: " in source, name
    # A request begins by a fresh list of headers and an empty URL, which are then filled.
    begin = inspect.getsource(base.on_message_begin)
    assert 'self.url = b""' in begin
    assert "self.headers = []" in begin
    assert '"headers": self.headers' in begin
    assert httptools_impl.STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n"
    assert {"default_headers", "total_requests", "connections", "tasks"} <= set(
        vars(UvicornState())
    )
    flow = inspect.getsource(flow_control.FlowControl)
    for name in ("write_paused", "def pause_reading", "def resume_reading"):
        assert name in flow
    cycle = inspect.signature(httptools_impl.RequestResponseCycle.__init__).parameters
    assert {"keep_alive", "on_response", "expect_100_continue"} <= set(cycle)


def test_uvicorn_makes_its_headers_anew(port):
    """Answers carry a date that goes on: the list it stands in is another one each second."""
    with connect(port) as connection:
        dates = set()
        deadline = time.monotonic() + 20
        while len(dates) < 2:
            connection.sendall(request())
            ((_, headers, _),) = answers(connection, 1)
            dates.add(headers["date"])
            assert time.monotonic() < deadline


# --- heads that are known ----------------------------------------------------------------------


def test_a_known_head_changes_nothing_about_the_answer(port):
    """Asked again in one piece, in two, pipelined, behind FastAPI's: the same answers, in order."""
    other = json.dumps({"input": [6.7, 3.0, 5.2, 2.3]}).encode()
    page = request(b"/healthz", None, method=b"GET")
    broken = b"x" * len(ROW)
    one = request()
    pieces = [one, one, one[:-9], one[-9:], one + one, request(body=broken), one, page, one]
    pieces += [request(body=other), request(body=other), page + one, one, b"\r\n" + one, one]
    wanted = [0, 0, 0, 0, 0, "Json error", 0, True, 0, 2, 2, True, 0, 0, 0, 0]
    found = []
    with connect(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            whole = piece.endswith(one[-9:]) or piece == page or b"xxx" in piece or other in piece
            if whole:
                n = 2 if piece in (one + one, page + one) else 1
                found += answers(connection, n)
    values = [body.get("output", body.get("live", body.get("error"))) for _, _, body in found]
    assert values == wanted
    assert len({body["query_id"] for _, _, body in found if "query_id" in body}) == 13


def test_a_known_head_is_asked_for_its_key_and_its_rate(iris, settings_of, monkeypatch):
    """What may come in once may not come in for ever: the door is asked every time."""
    monkeypatch.setenv("MLGUARD_KEY_PARTNER", "secret")
    settings = settings_of(name="iris", app={"slo_ms": 5000, "keys": ["partner"]})
    table = ServerTable(rate_limit_per_s=3)
    with served(settings, iris.json, iris.path, version="v1", server=table) as base:
        port = int(base.rsplit(":", 1)[1])
        with connect(port) as connection:
            found = []
            for key in (b"secret", b"guess", b"secret", b"guess", *[b"secret"] * 9):
                connection.sendall(request(b"/iris/predict", ROW, b"Authorization: Bearer " + key))
                found += [status for status, _, _ in answers(connection, 1)]
    assert found[:4] == [200, 401, 200, 401]
    assert 429 in found[4:]


# --- order -----------------------------------------------------------------------------------


def test_quick_and_ordinary_requests_keep_their_order(port):
    """Pipelined in one write, whoever answers them: predictions, labels, pages, refusals."""
    wanted = []
    sent = b""
    for number in range(60):
        kind = number % 6
        if kind in (0, 1):
            row = [4.3, 2.0, 1.0, 0.1] if kind else [6.7, 3.0, 5.2, 2.3]
            sent += request(body=json.dumps({"input": row}).encode())
            wanted.append((200, "output", 0 if kind else 2))
        elif kind == 2:
            sent += request(b"/healthz", None, method=b"GET")
            wanted.append((200, "live", True))
        elif kind == 3:
            sent += request(body=b'{"input": "no"}')
            wanted.append((400, "error", "Json error"))
        elif kind == 4:
            sent += request(b"/iris/predict?x=1", ROW)
            wanted.append((200, "output", 0))
        else:
            sent += request(b"/nobody/predict", ROW)
            wanted.append((404, "error", "Not found"))
    with connect(port) as connection:
        connection.sendall(sent)
        found = answers(connection, len(wanted))
    assert [
        (status, body[key]) for (status, _, body), (_, key, _) in zip(found, wanted, strict=True)
    ] == [(status, value) for status, _, value in wanted]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_requests_in_pieces(port, size):
    """However the bytes are cut, the same answers come back in order."""
    chunked = b"POST /iris/predict/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"".join(b"1\r\n%b\r\n" % ROW[at : at + 1] for at in range(len(ROW))) + b"0\r\n\r\n"
    sent = request() + chunked + request(b"/healthz", None, method=b"GET") + request()
    with connect(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(sent), size):
            connection.sendall(sent[at : at + size])
        found = answers(connection, 4)
    assert [status for status, _, _ in found] == [200] * 4
    assert [body.get("output") for _, _, body in found] == [0, 0, None, 0]


def test_a_thousand_pipelined_requests_on_a_client_that_does_not_read(port):
    """Answers that nobody takes stop the reading, and all arrive in the end."""
    n = 2_000
    with connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        writer = threading.Thread(target=connection.sendall, args=(request() * n,))
        writer.start()
        found = answers(connection, n)
        writer.join()
    assert all(status in (200, 503) for status, _, _ in found)
    ids = [body["query_id"] for status, _, body in found if status == 200]
    assert len(ids) == len(set(ids)) > n / 10
    assert ids == sorted(ids)


# --- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "version"), [((b"Connection: close",), b"1.1"), ((), b"1.0")], ids=["close", "1.0"]
)
def test_who_wants_to_end_is_answered_and_closed(port, headers, version):
    """What comes behind the last request is not read."""
    with connect(port) as connection:
        connection.sendall(request(b"/iris/predict", ROW, *headers, version=version) + request())
        found = answers(connection)
    assert [status for status, _, _ in found] == [200]
    assert found[0][1]["connection"] == "close"


def test_a_body_too_large_is_refused_before_it_came_and_the_next_request_answered(port):
    """The rest of such a body is read and thrown away."""
    with connect(port) as connection:
        big = request(body=b" " * 200_000)
        connection.sendall(big[:1_000])
        assert answers(connection, 1)[0][0] == 413
        connection.sendall(big[1_000:] + request())
        assert answers(connection, 1)[0][0] == 200


def test_expect_100_continue(port):
    """Who waits for a word before the body gets it, and the answer."""
    with connect(port) as connection:
        whole = request(b"/iris/predict", ROW, b"Expect: 100-continue")
        connection.sendall(whole[: -len(ROW)])
        said = connection.recv(1_000)
        assert said.startswith(b"HTTP/1.1 100 ")
        connection.sendall(ROW)
        assert answers(connection, 1)[0][2]["output"] == 0


def test_other_methods_are_fastapis(port):
    """HEAD, OPTIONS and the like on the predict route are 405, and the connection goes on."""
    with connect(port) as connection:
        connection.sendall(request(b"/iris/predict", None, method=b"OPTIONS") + request())
        assert [status for status, _, _ in answers(connection, 2)] == [405, 200]


def test_a_caller_that_goes_away_costs_nobody_else(moody, misbehaving, settings_of, eventually):
    """Its rows are dropped; those of others are answered."""
    settings = settings_of(app={"slo_ms": 3000}, model={"allow_pickle": True})
    with served(settings, moody.json, moody.path) as base:
        port = int(base.rsplit(":", 1)[1])
        gone = [connect(port) for _ in range(20)]
        for one in gone:
            one.sendall(request(b"/app/predict", b'{"input": [0, 1.0]}'))
            one.close()
        reply = httpx.post(f"{base}/app/predict", json={"input": [0, 1.0]}, timeout=20)
        assert reply.json()["output"] == 1


# --- stepping aside --------------------------------------------------------------------------


def bare(app):
    del app


def with_middleware(app):
    @app.middleware("http")
    async def count(request, call_next):
        reply = await call_next(request)
        reply.headers["x-seen"] = "yes"
        return reply


def with_a_route_before(app):
    async def mine(app_name: str):
        return {"mine": app_name}

    app.post("/{app_name}/predict")(mine)
    app.router.routes.insert(0, app.router.routes.pop())


@pytest.mark.parametrize(
    ("added", "way"),
    [
        (bare, "protocol"),
        (with_middleware, "route: middleware was added (BaseHTTPMiddleware)"),
        (with_a_route_before, "route: another route answers /{app}/predict"),
    ],
)
def test_what_a_user_adds_sees_every_request(added, way, moody, settings_of, caplog):
    """Where code was added that would see the request, the quick path steps aside, and says so."""
    settings = settings_of(app={"slo_ms": 5000}, model={"allow_pickle": True})
    with served(settings, moody.json, moody.path, added=added) as base:
        assert httpx.get(f"{base}/readyz").json()["predict_path"] == way
        reply = httpx.post(f"{base}/app/predict", json={"input": [0, 1.0]})
        if added is with_middleware:
            assert reply.headers["x-seen"] == "yes"
        if added is with_a_route_before:
            assert reply.json() == {"mine": "app"}
        else:
            assert reply.json()["output"] == 1
    said = [one.message for one in caplog.records if "FastAPI's route" in one.message]
    assert len(said) == (0 if added is bare else 1)


def test_an_app_that_is_not_ours_is_left_alone():
    """Wrapped, mounted, or with a dependency on the route."""
    assert "wrapped" in why_aside(object())
    assert "wrapped" in why_aside(FastAPI())
    from mlguard.serving.metrics import Metrics
    from mlguard.serving.predict_app import ServerState, create_predict_app

    app = create_predict_app(ServerState({}, {}, Metrics()))
    assert why_aside(app) is None
    assert "below a path" in why_aside(app, "/behind")
    route = next(one for one in app.router.routes if one.path == "/{app_name}/predict")

    async def nobody() -> None:
        pass

    changed = FastAPI()
    changed.post("/{app_name}/predict", dependencies=[Depends(nobody)])(route.endpoint)
    changed.post("/{app_name}/predict/")(route.endpoint)
    changed.state.mlguard = app.state.mlguard
    changed.state.mlguard_predict = app.state.mlguard_predict
    assert why_aside(changed) == "a dependency was added"


# --- one pass over the body ------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", ["doubles", "floats", "ints", "strings", "bytes", "table"])
def test_one_pass_reads_what_two_passes_read(kind, strict, table):
    """Where the quick decoder answers it answers the same; else there is an error to tell."""
    features = table.manifest.schema.features if kind == "table" else ()
    reader = RowReader(kind, features, strict=strict)
    values = ["1", "1.5", "-0.0", "1e400", "2.0", "true", "null", '"a"', '"YWI="', '"a', "[]", "{}"]
    values += [f"[{one}, {other}]" for one in values for other in values]
    values += ['{"income": 1, "children": 2, "owner": true, "region": "north"}', "[1,2,true,null]"]
    bodies = [b"", b"[]", b"{", b'{"inputs": 1}', b"\xff", b'{"input": ' + b"[" * 5_000]
    for value in values:
        bodies += [
            f'{{"input": {value}}}'.encode(),
            f'{{"input_batch": [{value}, {value}]}}'.encode(),
            f'{{"input": {value}, "input_batch": {value}, "uid": 5}}'.encode(),
            f'{{"uid": "u", "groups": {{"sex": "F"}}, "version": 3, "input": {value}}}'.encode(),
            f'{{"uid": {value}, "input": {value}}}'.encode(),
        ]
    quick = 0
    for body in bodies:
        try:
            wanted = read_request(body)
            rows = reader.read(wanted)
        except BadRequestError:
            assert reader.decode(body) is None, body
            continue
        found = reader.decode(body)
        if found is None:
            continue  # the long way reads it: what is in a key that does not count is no error
        quick += 1
        assert repr(found[1]) == repr(rows), body
        assert (found[0].uid, found[0].groups, found[0].version) == (
            wanted.uid,
            wanted.groups,
            wanted.version,
        )
    assert quick


def test_the_protocol_is_what_the_server_runs(port):
    """uvicorn hands each connection to a class of ours."""
    assert issubclass(PredictProtocol, httptools_impl.HttpToolsProtocol)
    assert issubclass(PredictProtocol, asyncio.Protocol)
    with connect(port) as connection:
        connection.sendall(request())
        assert answers(connection, 1)[0][1]["x-mlguard-version"] == "v1"
