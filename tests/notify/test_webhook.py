"""The webhook against a real HTTP server, and the contract that every notifier keeps."""

import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mlguard.config import NotifyProjectTable, ProjectSettings, WebhookTable
from mlguard.notify.delivery import Delivery, Outcome, SendError
from mlguard.notify.email import Email
from mlguard.notify.notice import notice
from mlguard.notify.outbox import deliver
from mlguard.notify.webhook import Webhook
from mlguard.testing.contracts import check_notifier

NOW = 1_795_357_320.0


class Receiver(BaseHTTPRequestHandler):
    """Keeps what is posted; answers as the server is told."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((dict(self.headers), body))
        if self.server.code is None:
            self.connection.close()
            return
        self.send_response(self.server.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Keep the test's output clean."""


@pytest.fixture
def receiver():
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.posted, server.code = [], 200
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def settings(tmp_path, receiver, **keys):
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    return ProjectSettings(
        root=tmp_path, notify=NotifyProjectTable(webhook=WebhookTable(url=url, **keys))
    )


def delivery(facts, kind="rolled_back"):
    return Delivery(
        recipient="webhook",
        notice=notice(kind, facts),
        facts=facts,
        message_id="<rolled_back-x-1@example.com>",
        created_at=NOW,
    )


def test_an_event_is_posted_as_plain_json(tmp_path, receiver, facts):
    """The words of the mail and its facts, without small groups; the id is stable."""
    hook = Webhook(settings(tmp_path, receiver))
    assert hook.send(delivery(facts), NOW) == "127.0.0.1 answered 200"
    hook.close()
    ((headers, body),) = receiver.posted
    told = json.loads(body)
    assert headers["Content-Type"] == "application/json"
    assert headers["X-MLGuard-Id"] == told["id"] == "rolled_back-x-1@example.com"
    assert (told["kind"], told["app"], told["incident"]) == ("rolled_back", "credit", 42)
    assert told["happened"] == "credit was rolled back from v8 to v7."
    assert told["facts"]["value"] == 0.312
    assert told["facts"]["measurements"][1]["suppressed"]
    assert "X-MLGuard-Signature" not in headers


def test_a_secret_signs_body_and_time(tmp_path, receiver, facts):
    """The receiver can compute the same; the secret itself travels nowhere."""
    hook = Webhook(settings(tmp_path, receiver, secret_env="HOOK"), environ={"HOOK": "s3cret"})
    hook.send(delivery(facts), NOW)
    hook.close()
    ((headers, body),) = receiver.posted
    stamp, given = (part.partition("=")[2] for part in headers["X-MLGuard-Signature"].split(","))
    wanted = hmac.new(b"s3cret", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert (int(stamp), given) == (int(NOW), wanted)
    assert b"s3cret" not in body


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (503, Outcome.AGAIN),
        (429, Outcome.AGAIN),
        (401, Outcome.STOP),
        (302, Outcome.STOP),
        (404, Outcome.NEVER),
        (None, Outcome.UNREACHABLE),
    ],
)
def test_the_answer_decides_what_becomes_of_the_row(tmp_path, receiver, facts, code, outcome):
    """Busy: later; not allowed: mend the settings; not wanted: never."""
    receiver.code = code
    hook = Webhook(settings(tmp_path, receiver))
    with pytest.raises(SendError) as caught:
        hook.send(delivery(facts), NOW)
    hook.close()
    assert caught.value.outcome is outcome
    assert caught.value.uncertain is (code in (503, None))


def test_a_secret_that_is_not_there_stops_the_webhook(tmp_path, receiver, facts):
    """An unsigned event would be refused, or worse, taken."""
    hook = Webhook(settings(tmp_path, receiver, secret_env="HOOK"), environ={})
    with pytest.raises(SendError, match="'HOOK' holds no secret") as caught:
        hook.send(delivery(facts), NOW)
    assert caught.value.outcome is Outcome.STOP
    assert receiver.posted == []


def test_a_webhook_that_is_refused_does_not_stop_the_mail(
    tmp_path, receiver, open_registry, clock, facts
):
    """Each channel has its own troubles; the second one is there for those of the first."""
    receiver.code = 401
    project = settings(tmp_path, receiver)
    registry = open_registry(project)
    registry.outbox.enqueue("credit", "rolled_back", facts)
    done = deliver(registry, [Webhook(project), Email(project)], clock.now)
    assert (done.sent, done.retried) == (1, 1)
    assert list((tmp_path / ".mlguard" / "outbox").glob("*.eml"))
    receiver.code = 200
    assert deliver(registry, [Webhook(project), Email(project)], clock.now).sent == 1


@pytest.mark.parametrize("make", [Webhook, Email])
def test_the_built_in_notifiers_keep_the_contract(tmp_path, receiver, make):
    """What is asked of others is kept by our own."""
    recipient = "webhook" if make is Webhook else "file"
    check_notifier(make, settings(tmp_path, receiver), recipient)


def test_the_contract_finds_what_is_wrong(tmp_path, receiver):
    """A notifier that raises something of its own, or takes everybody's mail, is told so."""

    class Greedy(Webhook):
        """Takes all."""

        def handles(self, recipient):
            return True

    class Rude(Webhook):
        """Raises what nobody knows."""

        def send(self, delivery, now):
            raise ZeroDivisionError

    class Silent(Webhook):
        """Says nothing."""

        def send(self, delivery, now):
            return None

    for make, rule in ((Greedy, "only"), (Rude, "SendError"), (Silent, "clause")):
        with pytest.raises(AssertionError, match=rule):
            check_notifier(make, settings(tmp_path, receiver), "webhook")
