"""Artifacts in S3: a real client against moto's server, through a proxy that misbehaves.

Fault 41 of the promise: slow, 503, truncated bodies, answers that change; never a partial load,
and no listing where anybody waits.
"""

import hashlib
import http.client
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from mlguard.errors import IntegrityError, RegistryError
from mlguard.registry import ArtifactStore, bucket

pytest.importorskip("s3fs", reason="no s3fs: mlguard[s3] is not installed")
moto_server = pytest.importorskip("moto.server", reason="no moto")


class Proxy(ThreadingHTTPServer):
    """Passes requests on, remembers them, and does what ``faults`` say, one a request."""

    daemon_threads = True

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.seen: list[str] = []
        self.faults: list[str] = []
        self.lock = threading.Lock()

    def handle_error(self, request, client_address):
        """A client that was cut off hangs up: that is the point."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        server = self.server
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        listing = "list-type" in self.path or urlsplit(self.path).path.count("/") < 2
        with server.lock:
            server.seen.append("LIST" if self.command == "GET" and listing else self.command)
            fault = server.faults.pop(0) if server.faults else ""
        if fault == "503":
            return self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
        if fault == "cut":
            return self.connection.shutdown(socket.SHUT_RDWR)
        upstream = http.client.HTTPConnection(*server.upstream, timeout=30)
        headers = {key: value for key, value in self.headers.items() if key != "Host"}
        upstream.request(self.command, self.path, body=body, headers=headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        kept = {
            key: value
            for key, value in answer.getheaders()
            if key.lower() not in ("connection", "transfer-encoding", "date", "server")
        }
        if fault == "wrong" and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        if fault == "short" and content:
            # A whole answer as far as HTTP can tell, of half the bytes.
            content = content[: len(content) // 2]
            kept.pop("Content-Length", None)
            kept["Content-Length"] = str(len(content))
        if fault == "torn" and content:
            return self._answer(answer.status, kept, content[: len(content) // 2], hang_up=True)
        return self._answer(answer.status, kept, content)

    def _answer(self, status: int, headers, content: bytes, *, hang_up: bool = False) -> None:
        self.send_response_only(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if not any(key.lower() == "content-length" for key in headers):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        if hang_up:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def s3():
    """A bucket of our own behind the proxy."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port())
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        # A folder that has none: the machine's own AWS settings are not asked.
        patch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        patch.setattr(bucket, "FIRST_PAUSE_S", 0.01)
        upstream = http.client.HTTPConnection(*proxy.upstream)
        upstream.request("PUT", "/models")
        assert upstream.getresponse().status == 200
        upstream.close()
        yield proxy
    proxy.shutdown()
    proxy.server_close()
    server.stop()


@pytest.fixture
def store(s3, tmp_path, request):
    """A store under a prefix of its own, its local copies in a folder of its own."""
    s3.faults.clear()
    s3.seen.clear()
    return ArtifactStore(f"s3://models/{request.node.name[:40]}", tmp_path / "cache")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.skops"
    path.write_bytes(b"model" * 1000)
    return path


def again(store, tmp_path, name="elsewhere"):
    """The same bucket seen from another machine: no local copies."""
    return ArtifactStore(store.url, tmp_path / name)


def test_bytes_go_there_and_come_back(store, model, s3, tmp_path):
    """Stored once (If-None-Match), read from another machine, without listing anything."""
    name = store.put(model)
    assert name == hashlib.sha256(model.read_bytes()).hexdigest()
    assert store.put(model) == name
    assert again(store, tmp_path).get(name).read_bytes() == model.read_bytes()
    assert s3.seen.count("PUT") == 2
    assert "LIST" not in s3.seen
    assert [(one.name, one.size) for one in store.blobs.stored()] == [(name, 5000)]


def test_a_copy_is_used_without_asking_and_hashed_every_time(store, model, s3):
    """A second read costs no request; a spoiled copy is fetched anew."""
    name = store.put(model)
    s3.seen.clear()
    copy = store.get(name)
    assert s3.seen == []
    copy.chmod(0o644)
    copy.write_bytes(b"spoiled")
    assert store.get(name).read_bytes() == model.read_bytes()
    assert "GET" in s3.seen


@pytest.mark.parametrize("fault", ["503", "cut", "torn", "short", "wrong"])
def test_trouble_on_the_way_is_asked_again(store, model, s3, tmp_path, fault):
    """What passes is asked again; a half or a wrong body is never handed out."""
    name = store.put(model)
    s3.faults[:] = [fault, fault]
    got = again(store, tmp_path).get(name)
    assert got.read_bytes() == model.read_bytes()
    assert s3.faults == []
    leftovers = [one for one in (tmp_path / "elsewhere").rglob("*") if one.is_file()]
    assert leftovers == [got]


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_storing_is_tried_again(store, model, s3, tmp_path, fault):
    """A refused PUT is repeated until it is there."""
    s3.faults[:] = [fault]
    name = store.put(model)
    assert again(store, tmp_path).get(name).read_bytes() == model.read_bytes()


def test_a_store_that_stays_away_is_an_outage_not_a_loss(store, model, s3, tmp_path):
    """503 for ever: a registry error (3, try again); no version is called broken for it."""
    name = store.put(model)
    s3.faults[:] = ["503"] * 500
    with pytest.raises(RegistryError, match="failed to read") as caught:
        again(store, tmp_path).get(name)
    assert caught.value.retryable
    with pytest.raises(RegistryError, match="failed to store"):
        again(store, tmp_path, "third").put(model)


def test_wrong_bytes_in_the_store_are_never_loaded(store, model, tmp_path, s3):
    """Overwritten under its name: refused at every read; putting the file back mends it."""
    name = store.put(model)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    key = store.blobs._key(name)
    store.blobs._files.put_file(str(other), key)
    there = again(store, tmp_path)
    with pytest.raises(IntegrityError, match="has changed"):
        there.get(name)
    assert not store.intact(name)
    assert there.put(model) == name
    assert store.intact(name)
    assert again(store, tmp_path, "third").get(name).read_bytes() == model.read_bytes()


def test_missing_bytes_are_an_integrity_error(store, model, tmp_path):
    """Deleted or never stored."""
    name = store.put(model)
    assert store.delete(name)
    assert not store.delete(name)
    with pytest.raises(IntegrityError, match="is missing"):
        store.get(name)
    assert store.blobs.stored() == []


@pytest.fixture
def remote(s3, make_sqlite, tmp_path, request):
    """A registry whose artifacts lie in the bucket, and the folder of their local copies."""
    house = make_sqlite(tmp_path / "house")
    s3.faults.clear()
    house.registry.artifacts = ArtifactStore(
        f"s3://models/{request.node.name[:40]}", tmp_path / "cache"
    )
    yield house, tmp_path / "cache"
    house.registry.close()


def test_local_copies_that_no_traffic_may_need_go(remote, s3):
    """What serves, may be gone back to or was just handed out stays; the bucket keeps all."""
    house, cache = remote
    for content in ("one", "two"):
        house.deploy(content)
    refused = house.passed("three")
    names = {one.name: one.manifest["model_sha256"] for one in house.registry.versions("iris")}
    copies = {one.name for one in house.registry.artifacts.blobs.copies()}
    assert copies == set(names.values())
    for path in cache.glob("*/*"):
        os.utime(path, (house.clock() - 31,) * 2)
    # Handed out a moment ago, by the clock of the file system.
    house.registry.artifacts.get(names["v3"])
    assert house.registry.collect() == []
    os.utime(cache / names["v3"][:2] / names["v3"], (house.clock() - 31,) * 2)
    left = cache / ".incoming-killed"
    left.write_bytes(b"half")
    os.utime(left, (house.clock() - 31,) * 2)
    would = [(one.kind, one.name) for one in house.registry.collect(dry_run=True)]
    assert would == [("leftover", left.name), ("copy", names["v3"])]
    assert left.exists()
    assert [(one.kind, one.name) for one in house.registry.collect()] == would
    assert {path.name for path in cache.glob("*/*")} == {names["v1"], names["v2"]}
    assert not left.exists()
    s3.seen.clear()
    house.deploy("three", supersede=True)
    assert "GET" in s3.seen
    assert refused.digest == house.registry.app("iris").active.digest
    assert house.registry.verify() == []


@pytest.mark.soak
def test_a_large_file_goes_in_parts(store, tmp_path):
    """120 MB are sent and fetched in pieces, and are the same bytes."""
    large = tmp_path / "large"
    block = bytes(range(256)) * 4096
    with large.open("wb") as stream:
        for number in range(120):
            stream.write(number.to_bytes(4, "big") + block[4:])
    name = store.put(large)
    got = again(store, tmp_path).get(name)
    assert got.stat().st_size == large.stat().st_size
    assert store.intact(name)
