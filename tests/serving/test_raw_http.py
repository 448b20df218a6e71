"""HTTP as nobody should send it, over raw sockets: no 5xx, no hang, no answer to another's request.

The model answers what it was asked, so an answer tells which request it belongs to.  Everything
runs on both ways to an answer: where the bytes come in, and FastAPI's route.
"""

import random
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlguard.config import ServerTable
from mlguard.models.schema import Feature, InputSchema
from mlguard.serving import embedded

DEADLINE_S = 30
LIMITS = {"request_timeout_s": 3.0, "max_header_bytes": 4096}


class Nothing:
    """A user's middleware: the quick path steps aside for it."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def echo_bundle(echo, settings_of, bundle_of, tmp_path_factory):
    settings = settings_of(
        name="echo", app={"input": "strings", "slo_ms": 20_000}, model={"allow_pickle": True}
    )
    schema = InputSchema("strings", "classification", (Feature("text", "text"),), None)
    path = tmp_path_factory.mktemp("raw") / "echo.joblib"
    return settings, bundle_of(echo.Echo(), path, schema, settings)


@pytest.fixture(scope="module", params=["protocol", "route"])
def port(request, echo_bundle):
    settings, bundle = echo_bundle
    make = embedded.create_predict_app

    def with_middleware(state):
        app = make(state)
        app.add_middleware(Nothing)
        return app

    with pytest.MonkeyPatch.context() as patch:
        if request.param == "route":
            patch.setattr(embedded, "create_predict_app", with_middleware)
        table = ServerTable(**LIMITS)
        with embedded.served(
            settings, bundle.json, bundle.path, server=table, max_body=20_000
        ) as url:
            yield int(url.rsplit(":", 1)[1])


# --- talking ---------------------------------------------------------------------------------


def ask(token, *headers, path="/echo/predict", close=False):
    """A plain predict request for a token."""
    body = b'{"input": "%b"}' % token.encode()
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    head += ["Connection: close"] if close else []
    return "\r\n".join([*head, "", ""]).encode() + body


def chunked(token, *headers, sizes=(3, 5, 100), extension=b"", trailer=b""):
    """The same, in chunks."""
    body = b'{"input": "%b"}' % token.encode()
    head = ["POST /echo/predict HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", *headers]
    out = "\r\n".join([*head, "", ""]).encode()
    for size in sizes:
        part, body = body[:size], body[size:]
        if part:
            out += b"%x%b\r\n%b\r\n" % (len(part), extension, part)
    return out + b"0\r\n%b\r\n" % trailer


def connect(port):
    made = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def talk(port, data, *, pieces=(), half_close=True):
    """Send bytes, in pieces if asked, and return all that comes until the server closes."""
    got = b""
    with connect(port) as connection:
        try:
            for start, end in zip((0, *pieces), (*pieces, len(data)), strict=True):
                connection.sendall(data[start:end])
                if pieces:
                    settled(port)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused while we were still sending: what was said is read all the same
        try:
            while part := connection.recv(65_536):
                got += part
        except ConnectionResetError:
            pass
    return got


def settled(port):
    """Return once the server's loop has turned: what was sent before has been read."""
    with connect(port) as other:
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while other.recv(65_536):
            pass


def replies(got):
    """Take apart what a server sent: (status, body) of every reply; anything else fails."""
    found = []
    while got:
        head, separator, rest = got.partition(b"\r\n\r\n")
        assert separator, f"half a reply: {got[:200]!r}"
        status = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [^\r\n]*", head.split(b"\r\n")[0])
        assert status, f"no status line: {head[:200]!r}"
        if status[1] == b"100":
            got = rest
            continue
        length = re.search(rb"(?i)^content-length: (\d+)$", head, re.MULTILINE | re.IGNORECASE)
        if length is None:
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert length, f"a reply without a length: {head!r}"
        size = int(length[1])
        assert len(rest) >= size, "half a body"
        found.append((int(status[1]), rest[:size]))
        got = rest[size:]
    return found


def tokens(found):
    """The tokens that were answered, in order."""
    return [
        token.decode()
        for status, body in found
        if status == 200
        for token in re.findall(rb'"output":"(t\w+)"', body)
    ]


def calm(found):
    """No reply is the server's own failure, and every error is JSON."""
    for status, body in found:
        assert status < 500, (status, body)
        assert status == 200 or body.startswith(b'{"error":'), (status, body)
        assert b"Traceback" not in body


# --- what is allowed -------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ask, chunked])
def test_split_anywhere_is_the_same(port, make):
    """Two requests on one connection, cut in two at every byte: both answered, in order."""
    data = make("tone") + make("ttwo")
    step = 17 if make is ask else 23
    for place in range(1, len(data), step):
        found = replies(talk(port, data, pieces=(place,)))
        assert tokens(found) == ["tone", "ttwo"], place


def test_byte_by_byte(port):
    """One byte in one packet at a time."""
    data = ask("tbytes", close=True)
    assert tokens(replies(talk(port, data, pieces=tuple(range(1, len(data), 5))))) == ["tbytes"]


def test_a_long_pipeline_is_answered_in_order(port):
    """Quick answers, slow routes, errors and batches mixed: each in its place."""
    data, wanted = b"", []
    for number in range(120):
        kind = number % 6
        if kind == 0:
            data += b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
            wanted.append((200, b'{"live":true}'))
        elif kind == 1:
            data += ask(f"t{number}", path="/nobody/predict")
            wanted.append((404, b"no app"))
        elif kind == 2:
            data += ask('"bad')
            wanted.append((400, b"Json error"))
        elif kind == 3:
            data += chunked(f"t{number}")
            wanted.append((200, b'"output":"t%d"' % number))
        else:
            data += ask(f"t{number}")
            wanted.append((200, b'"output":"t%d"' % number))
    found = replies(talk(port, data))
    assert [status for status, _ in found] == [status for status, _ in wanted]
    for (_, body), (_, part) in zip(found, wanted, strict=True):
        assert part in body


ALLOWED = {
    "line-end-before": b"\r\n" + ask("tok"),
    "long-header": ask("tok", "X-Long: " + "a" * 3000),
    "expect": ask("tok", "Expect: 100-continue"),
    "chunk-extension": chunked("tok", extension=b";a=b"),
    "trailers": chunked("tok", trailer=b"X: a\r\nHost: y\r\nAuthorization: b\r\n"),
    "header-case": ask("tok").replace(b"Host: x", b"hOsT:x"),
    "whole-url": ask("tok").replace(b"POST /", b"POST http://x/"),
    "old": ask("tok").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "old-without-host": ask("tok").replace(b"HTTP/1.1\r\nHost: x", b"HTTP/1.0"),
    "query": ask("tok", path="/echo/predict?a=b"),
    "upgrade-without-body": b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    b"Upgrade: h2c\r\n\r\n",
    "percent": ask("tok", path="/%65cho/predict"),
}


@pytest.mark.parametrize("shape", ALLOWED)
def test_unusual_but_allowed(port, shape):
    """Leading line ends, chunk extensions, trailers, old versions, whole URLs: answered."""
    found = replies(talk(port, ALLOWED[shape]))
    assert [status for status, _ in found] == [200]
    assert tokens(found) == ["tok"] or shape == "upgrade-without-body"
    calm(found)


# --- what is not -----------------------------------------------------------------------------

SMUGGLED = ask("tsmuggled")
BODY = b'{"input": "tfirst"}'


def shaped(*headers, body=BODY, line="POST /echo/predict HTTP/1.1", host="Host: x"):
    head = "\r\n".join([line, *([host] if host else []), *headers, "", ""])
    return head.encode("latin-1") + body


LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
AMBIGUOUS = {
    "both": shaped(LENGTH, CHUNKED, body=b"0\r\n\r\n"),
    "both-reversed": shaped(CHUNKED, LENGTH, body=b"0\r\n\r\n"),
    "two-lengths": shaped(LENGTH, LENGTH),
    "two-different-lengths": shaped(LENGTH, "Content-Length: 0"),
    "list-of-lengths": shaped(f"{LENGTH}, {len(BODY)}"),
    "negative-length": shaped("Content-Length: -1"),
    "signed-length": shaped(f"Content-Length: +{len(BODY)}"),
    "hex-length": shaped("Content-Length: 0x13"),
    "empty-length": shaped("Content-Length: "),
    "overflowing-length": shaped("Content-Length: 99999999999999999999999"),
    "two-codings": shaped(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "identity": shaped(CHUNKED + ", identity", body=b"0\r\n\r\n"),
    "xchunked": shaped("Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "coding-with-tab": shaped("Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "space-before-colon": shaped("Content-Length : 5"),
    "folded": shaped("X-A: b\r\n c", LENGTH),
    "folded-length": shaped("Content-Length:\r\n 0"),
    "bare-lf-header": shaped(LENGTH + "\nX-A: b"),
    "bare-cr-header": shaped(LENGTH + "\rX-A: b"),
    "null-in-header": shaped("X-A: \0", LENGTH),
    "no-host": shaped(LENGTH, host=""),
    "two-hosts": shaped("Host: y", LENGTH),
    "old-chunked": shaped(CHUNKED, line="POST /echo/predict HTTP/1.0", body=b"0\r\n\r\n"),
    "bad-version": shaped(LENGTH, line="POST /echo/predict HTTP/9.9"),
    "no-version": shaped(LENGTH, line="POST /echo/predict"),
    "lower-case": shaped(LENGTH, line="post /echo/predict HTTP/1.1"),
    "two-spaces": shaped(LENGTH, line="POST /echo/predict  HTTP/1.1 x"),
    "huge-chunk": shaped(CHUNKED, body=b"fffffffffffffffff\r\n"),
    "signed-chunk": shaped(CHUNKED, body=b"-1\r\n"),
    "hex-chunk": shaped(CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n"),
    "space-chunk": shaped(CHUNKED, body=b" 5\r\nhello\r\n0\r\n\r\n"),
    "short-chunk": shaped(CHUNKED, body=b"3\r\nhello\r\n0\r\n\r\n"),
    "chunk-bare-lf": shaped(CHUNKED, body=b"13\n" + BODY + b"\n0\n\n"),
    "chunk-with-garbage": shaped(CHUNKED, body=b"13 x\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "upgrade": shaped("Connection: Upgrade", "Upgrade: h2c", LENGTH),
    "connect": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls-hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
    "http2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "nothing-but-noise": bytes(range(256)),
}


@pytest.mark.parametrize("shape", AMBIGUOUS)
def test_what_two_readers_could_read_differently_is_refused(port, shape):
    """One 4xx after the answer before it, then the end: nothing behind it is ever read."""
    found = replies(talk(port, ask("tbefore") + AMBIGUOUS[shape] + SMUGGLED))
    calm(found)
    assert tokens(found)[:1] == ["tbefore"]
    assert "tsmuggled" not in tokens(found)
    assert [status >= 400 for status, _ in found] == [False, True], found


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (shaped("X-A: " + "a" * 10_000, LENGTH), 431),
        (shaped(*[f"X-{n}: a" for n in range(1000)], LENGTH), 431),
        (shaped(LENGTH, line="POST /" + "a" * 10_000 + " HTTP/1.1"), 431),
        (shaped("Content-Length: 30000", body=b'{"input": "' + b"a" * 29_989), 413),
        (shaped(CHUNKED, body=b"7530\r\n" + b"a" * 30_000 + b"\r\n0\r\n\r\n"), 413),
        (b"POST /echo/predict HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 300_000, 431),
        (shaped(CHUNKED, body=b"0\r\n" + b"X-T: a\r\n" * 100_000 + b"\r\n"), 431),
    ],
    ids=["header", "headers", "url", "body", "chunks", "endless-header", "endless-trailers"],
)
def test_too_much_is_refused(port, data, status):
    """Too large a head, URL, body or trailer: the right 4xx, after what came before."""
    found = replies(talk(port, ask("tbefore") + data))
    calm(found)
    assert tokens(found) == ["tbefore"]
    if len(found) > 1 or status != 431:  # a reset may take the last words with it
        assert found[1][0] == status


def test_who_stops_in_the_middle_is_let_go(port):
    """A request that does not arrive in time: 408, and the connection is closed."""
    begun = [b"", b"POST /echo/pre", shaped(LENGTH, body=b"{"), shaped(CHUNKED, body=b"5\r\nhe")]
    with ThreadPoolExecutor(len(begun)) as pool:
        for got in pool.map(lambda data: talk(port, data, half_close=False), begun):
            assert [status for status, _ in replies(got)] == [408]


def test_a_client_that_leaves_in_the_middle_costs_nothing(port):
    """Half a body and goodbye: no failure, and the next one is answered."""
    for data in (shaped(LENGTH, body=b"{"), shaped(CHUNKED, body=b"5\r\nhe")):
        with connect(port) as connection:
            connection.sendall(data)
            settled(port)
    assert tokens(replies(talk(port, ask("tnext")))) == ["tnext"]


# --- at random -------------------------------------------------------------------------------

SPLICES = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"0\r\n\r\n", b"\r\n\r\n", b"\xff"),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: y\r\n"),
    *(b"HTTP/1.0", b"GET / HTTP/1.1\r\n", b"ffffffff", b"-1", b"Connection: close\r\n"),
    *(b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"%00", b"/../", b"\r\n "),
)


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        how = rng.randrange(4)
        if how == 0:
            data[at] = rng.randrange(256)
        elif how == 1:
            data[at:at] = rng.choice(SPLICES)
        elif how == 2:
            del data[at : at + rng.randint(1, 20)]
        else:
            start = rng.randrange(len(data))
            data[at:at] = data[start : start + rng.randint(1, 60)]
    return bytes(data)


def fuzz(port, seed, n):
    """Send mutated pipelines, each between a good request before and one behind it."""
    rng = random.Random(seed)
    for number in range(n):
        makes = [rng.choice([ask, chunked]) for _ in range(rng.randint(1, 3))]
        middle = b"".join(make(f"t{number}x{place}") for place, make in enumerate(makes))
        data = ask("tbefore") + mutated(rng, middle) + ask("tbehind")
        pieces = sorted(rng.sample(range(1, len(data)), 2)) if number % 8 == 0 else ()
        found = replies(talk(port, data, pieces=tuple(pieces)))
        case = (seed, number, data, found)
        calm(found)
        answered = tokens(found)
        assert answered[:1] == ["tbefore"], case
        assert "tbehind" not in answered[:-1], case
        # No more answers than requests, and none overtakes another.
        assert len(found) <= data.count(b"HTTP/1.") + 1, case
        # A token whose digit was changed is none that was sent, or one that came twice.
        sent = [f"t{number}x{place}" for place in range(len(makes))]
        places = [sent.index(one) for one in answered if one in sent]
        repeated = data.count(b"HTTP/1.") > len(makes) + 2 or len(set(places)) < len(places)
        assert places == sorted(places) or repeated, case
    assert tokens(replies(talk(port, ask("tlast")))) == ["tlast"]


def test_mutated_requests(port):
    """Forty pipelines with bytes changed, added, removed and repeated."""
    fuzz(port, 1, 40)


@pytest.mark.soak
@pytest.mark.marathon
@pytest.mark.parametrize("seed", range(8))
def test_many_mutated_requests(port, seed):
    """Four callers at once, 2,000 pipelines each."""
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(fuzz, port, 1000 * (seed + 1) + number, 2000) for number in range(4)]
        for run in runs:
            run.result()


@pytest.mark.soak
@pytest.mark.marathon
@pytest.mark.parametrize("make", [ask, chunked])
def test_split_at_every_byte(port, make):
    """The same as above at each single place."""
    data = make("tone") + make("ttwo")
    for place in range(1, len(data)):
        assert tokens(replies(talk(port, data, pieces=(place,)))) == ["tone", "ttwo"], place
