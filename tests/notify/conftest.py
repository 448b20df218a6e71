"""A project with a real registry, and a real mail server that can misbehave."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from mlguard.config import EmailTable, NotifyProjectTable, ProjectSettings
from mlguard.registry import Registry

START = 1_795_357_320.0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@dataclasses.dataclass
class Post:
    """A mail server and what arrived at it."""

    port: int
    handler: Handler

    @property
    def arrived(self) -> list[tuple[list[str], EmailMessage]]:
        return self.handler.arrived


class Handler:
    """Keeps messages; answers as its fields say."""

    def __init__(self) -> None:
        self.arrived: list[tuple[list[str], EmailMessage]] = []
        self.rcpt: dict[str, str] = {}
        self.data = ""
        self.hang = False
        self.release: asyncio.Event | None = None

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if address in self.rcpt:
            return self.rcpt[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        message = message_from_bytes(envelope.original_content, policy=policy.default)
        self.arrived.append((list(envelope.rcpt_tos), message))
        if self.hang:
            await asyncio.sleep(5)
        return self.data or "250 taken"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def post_office():
    """Start mail servers; every one is stopped at the end."""
    running: list[Controller] = []

    def start(**options) -> Post:
        handler = Handler()
        port = free_port()
        server = Controller(handler, hostname="127.0.0.1", port=port, **options)
        server.start()
        running.append(server)
        return Post(port, handler)

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority, monkeypatch, tmp_path) -> ssl.SSLContext:
    """A server's TLS with a certificate that this process trusts."""
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    return server_tls(authority)


def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


def authenticator(server, session, envelope, mechanism, data):
    good = data.login == b"mlguard" and data.password == b"right"
    return AuthResult(success=good, handled=False)


@pytest.fixture
def project(tmp_path):
    """Make a project's settings; keys are those of [notify.email]."""

    def make(**email) -> ProjectSettings:
        table = None
        if email:
            email = {"from": "mlguard@example.com", "to": ["team@example.com"], **email}
            table = EmailTable.model_validate(email)
        return ProjectSettings(root=tmp_path, notify=NotifyProjectTable(email=table))

    return make


@pytest.fixture
def open_registry(clock):
    """Open registries; every one is closed at the end."""
    opened: list[Registry] = []

    def make(settings: ProjectSettings) -> Registry:
        settings.state_dir.mkdir(exist_ok=True)
        opened.append(Registry.open(settings, clock=clock, actor="tester"))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


ROLLED_BACK = {
    "app": "credit",
    "project": "lending",
    "environment": "prod",
    "generation": 12,
    "from": "v8",
    "to": "v7",
    "automatic": True,
    "check": "concept_drift.error",
    "value": 0.312,
    "limit": 0.221,
    "interval": [0.271, 0.354],
    "n": 1204,
    "window": {
        "start": START - 27_000,
        "end": START,
        "n_rows": 4120,
        "n_labels": 1204,
        "generation": 11,
    },
    "incident": 42,
    "at": "2026-11-22T14:22:00.000Z",
    "table_title": "Error by group",
    "measurements": [
        {"name": "error", "group": "sex=F", "value": 0.34, "low": 0.29, "high": 0.39, "n": 611},
        {"name": "error", "group": "sex=X", "value": 0.6, "low": 0.2, "high": 0.9, "n": 5},
    ],
}


@pytest.fixture
def facts():
    return dict(ROLLED_BACK)
