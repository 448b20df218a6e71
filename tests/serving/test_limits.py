"""Who may come in, how often, over what: keys, rates, names, connections, TLS, the access log."""

import datetime as dt
import ipaddress
import json
import re
import socket
import ssl
from contextlib import ExitStack

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.config import ServerTable, load_project
from mlguard.errors import ConfigError
from mlguard.serving.access import AppKeys, UnauthorisedError
from mlguard.serving.embedded import served
from mlguard.serving.limits import Door, MisdirectedError, RateLimiter, TooManyRequestsError
from mlguard.serving.supervisor import serve

NOBODY = AppKeys([])
KEYED = AppKeys(["portal"], {"MLGUARD_KEY_PORTAL": "secret"})
SHOWN = [(b"host", b"x"), (b"authorization", b"Bearer secret")]


# --- pure --------------------------------------------------------------------------------------


def test_a_second_s_worth_at_once_and_then_evenly():
    """Ten a second: ten at once, the eleventh a tenth of a second later."""
    rates = RateLimiter(10)
    assert [rates.take("a", 100.0) for _ in range(10)] == [0.0] * 10
    assert rates.take("a", 100.0) == pytest.approx(0.1)
    assert rates.take("a", 100.05) == pytest.approx(0.05)
    assert rates.take("a", 100.1001) == 0.0
    assert rates.take("b", 100.1) == 0.0  # everybody has a bucket


@given(
    rate=st.floats(0.1, 100),
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=200),
)
def test_never_more_than_the_rate_and_its_burst(rate, steps):
    """Over any stretch no caller gets more than the rate times the time, and a second's worth."""
    rates = RateLimiter(rate)
    now, admitted = 0.0, 0
    for step in steps:
        now += step
        wait = rates.take("a", now)
        assert wait >= 0
        admitted += not wait
    assert admitted <= rate * now + max(1.0, rate) + 1e-6


def test_callers_are_forgotten_when_there_are_too_many():
    """Memory is bounded: a flood of addresses leaves 10,000 buckets."""
    rates = RateLimiter(1)
    for number in range(25_000):
        rates.take(str(number), 0.0)
    assert len(rates._buckets) == 10_000


def test_the_door_knows_keys_rates_and_names():
    """Open to all where nothing is asked for; else each refusal is its own error."""
    assert Door().open_to_all(NOBODY)
    assert Door().enter(NOBODY, [], "1.2.3.4", 0.0) is None
    assert not Door().open_to_all(KEYED)
    assert Door().enter(KEYED, SHOWN, "1.2.3.4", 0.0) == "portal"
    with pytest.raises(UnauthorisedError):
        Door().enter(KEYED, [], "1.2.3.4", 0.0)
    door = Door(names=["Models.example"])
    for host in (b"models.example", b"MODELS.example:443"):
        assert door.enter(NOBODY, [(b"host", host)], "1.2.3.4", 0.0) is None
    for host in (b"evil.example", b"", b"models.example.evil", b"[::1]:80"):
        with pytest.raises(MisdirectedError):
            door.enter(NOBODY, [(b"host", host)], "1.2.3.4", 0.0)
    assert Door(names=["[::1]"]).enter(NOBODY, [(b"host", b"[::1]:80")], "", 0.0) is None


def test_a_key_is_one_caller_and_guessing_costs_the_guesser():
    """The same key from two addresses shares a rate; wrong keys spend the address's own."""
    door = Door(1)
    assert door.enter(KEYED, SHOWN, "1.1.1.1", 0.0) == "portal"
    with pytest.raises(TooManyRequestsError) as caught:
        door.enter(KEYED, SHOWN, "2.2.2.2", 0.0)
    assert caught.value.data["retry_after_s"] == pytest.approx(1.0)
    wrong = [(b"authorization", b"Bearer wrong")]
    with pytest.raises(UnauthorisedError):
        door.enter(KEYED, wrong, "3.3.3.3", 0.0)
    with pytest.raises(TooManyRequestsError):
        door.enter(KEYED, wrong, "3.3.3.3", 0.0)
    assert door.enter(KEYED, SHOWN, "3.3.3.3", 1.0) == "portal"


def test_one_tls_file_without_the_other_is_refused(tmp_path):
    """Certificate and key belong together; the message says so."""
    (tmp_path / "mlguard.toml").write_text('[server]\ntls_cert = "a.pem"\n')
    with pytest.raises(ConfigError, match="tls_key"):
        load_project(tmp_path)


# --- over HTTP ---------------------------------------------------------------------------------

BODY = b'{"input": [1, 2]}'


def test_too_many_requests_are_429(settings_of):
    """On every route that is counted, with Retry-After; health and figures stay open."""
    settings = settings_of(name="app")
    # One token for the whole test: the next comes after a quarter of an hour.
    table = ServerTable(rate_limit_per_s=0.001)
    with served(settings, None, server=table) as base, httpx.Client(base_url=base) as client:
        assert client.post("/app/predict", content=BODY).status_code == 200
        for path in ("/app/predict", "/app/predict/", "/app/update", "/v2/models/app/infer"):
            reply = client.post(path, content=BODY)
            assert reply.status_code == 429, path
            assert int(reply.headers["retry-after"]) > 900
            assert "error" in reply.json()
        assert client.get("/healthz").status_code == 200
        assert 'status="429"' in client.get("/metrics").text


def test_another_name_is_421_everywhere(settings_of):
    """A request for a name that is not the server's is refused before anything is read."""
    table = ServerTable(hosts=["models.example"])
    with served(settings_of(name="app"), None, server=table) as base:
        with httpx.Client(base_url=base, headers={"Host": "models.example"}) as client:
            assert client.post("/app/predict", content=BODY).status_code == 200
            assert client.get("/metrics").status_code == 200
        with httpx.Client(base_url=base) as client:
            for method, path in (
                *(("POST", "/app/predict"), ("POST", "/app/update"), ("GET", "/metrics")),
                *(("GET", "/docs"), ("GET", "/v2"), ("GET", "/nothing")),
            ):
                reply = client.request(method, path, content=BODY if method == "POST" else None)
                assert reply.status_code == 421, path
                assert set(reply.json()) == {"error", "cause"}


def test_more_connections_than_may_be_are_turned_away(settings_of, eventually):
    """503 in JSON with Retry-After; those that are in stay, and a place that is free is taken."""
    table = ServerTable(max_connections=2)
    with served(settings_of(name="app"), None, server=table) as base:
        port = int(base.rsplit(":", 1)[1])
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

        def asked(made):
            """Ask, and return the whole answer: head and body may come in two pieces."""
            made.sendall(request)
            got = b""
            while not got.endswith(b"}") and (piece := made.recv(65_536)):
                got += piece
            return got

        def opened():
            """Connect and ask; what comes back, or nothing where the door was shut at once."""
            made = socket.create_connection(("127.0.0.1", port), timeout=20)
            try:
                return made, asked(made)
            except ConnectionError:
                return made, b""

        with ExitStack() as stack:
            first, second = (opened() for _ in range(2))
            for made, _ in (first, second):
                stack.enter_context(made)
            assert b" 200 " in first[1]
            assert b" 200 " in second[1]
            with socket.create_connection(("127.0.0.1", port), timeout=20) as third:
                said = third.recv(65_536)  # before anything was asked
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in said
            assert b" 200 " in asked(first[0])
            first[0].close()

            def again():
                made, got = opened()
                with made:
                    return b" 200 " in got

            eventually(again, what="a free place")


def test_no_page_is_framed_guessed_or_told_of(settings_of):
    """Pages carry CSP, nosniff and referrer policy; every other answer at least nosniff."""
    with served(settings_of(name="app"), None) as base, httpx.Client(base_url=base) as client:
        page = client.get("/docs").headers
        assert "frame-ancestors 'none'" in page["content-security-policy"]
        assert "default-src 'none'" in page["content-security-policy"]
        assert page["referrer-policy"] == "no-referrer"
        for reply in (
            *(client.get(path) for path in ("/docs", "/metrics", "/healthz", "/nothing", "/v2")),
            client.post("/app/predict", content=BODY),
            client.post("/app/predict", content=b"["),
        ):
            assert reply.headers["x-content-type-options"] == "nosniff", reply.url


# --- TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mlguard test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, private


def test_tls_is_verified_and_plain_http_is_not_answered(certificate, settings_of):
    """A client that trusts the certificate is answered, one that does not refuses, plain fails."""
    with served(settings_of(name="app"), None, tls=certificate) as base:
        assert base.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        with httpx.Client(base_url=base, verify=trusting) as client:
            for _ in range(3):
                reply = client.post("/app/predict", content=BODY)
                assert reply.json()["default_explanation"].startswith("No connected models")
            assert client.get("/healthz").json() == {"live": True}
        with httpx.Client(base_url=base) as client, pytest.raises(httpx.ConnectError):
            client.get("/healthz")
        with httpx.Client() as client, pytest.raises(httpx.HTTPError):
            client.get(base.replace("https", "http") + "/healthz")


@pytest.mark.parametrize("broken", ["absent", "no-pem", "other-key"])
def test_a_certificate_that_cannot_be_used_is_said_before_serving(certificate, project, broken):
    """No file, nonsense, the wrong way round: one error that names both keys."""
    cert, key = certificate
    if broken == "absent":
        key = key.with_name("absent.pem")
    elif broken == "no-pem":
        cert = project.root / "mlguard.toml"
    else:
        cert, key = key, cert
    text = f'[server]\nport = 0\ntls_cert = "{cert}"\ntls_key = "{key}"\n'
    (project.root / "mlguard.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"tls_cert = .* with tls_key = .* cannot be used"):
        serve(load_project(project.root))


def test_tls_by_mlguard_toml(certificate, project, serving):
    """The keys of mlguard.toml, through the supervisor: its URL says https and is answered."""
    text = f'[server]\nport = 0\ntls_cert = "{certificate[0]}"\ntls_key = "{certificate[1]}"\n'
    (project.root / "mlguard.toml").write_text(text + 'access_log = "access.jsonl"\n')
    project.settings = load_project(project.root)
    project.app("app")
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    with serving(project) as (_, url):
        assert url.startswith("https://127.0.0.1:")
        with httpx.Client(base_url=url, verify=trusting) as client:
            answer = client.post("/app/predict?secret=1", content=BODY)
            assert answer.json()["default"] is True
            client.get("/nothing")
    lines = [json.loads(line) for line in (project.root / "access.jsonl").read_text().splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/app/predict", 200),
        ("GET", "/nothing", 404),
    ]
    predicted = lines[0]
    assert (predicted["version"], predicted["generation"]) == ("none", 0)
    assert predicted["client"] == "127.0.0.1"
    assert predicted["ms"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", predicted["time"])
    assert "secret" not in (project.root / "access.jsonl").read_text()
