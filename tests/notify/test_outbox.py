"""The queue against a real registry and a real mail server: nothing lost, no flood, in order."""

import signal
import subprocess
import sys
from email import message_from_bytes, policy

import pytest

from mlguard.notify.delivery import Outcome, SendError
from mlguard.notify.email import Email
from mlguard.notify.outbox import GIVE_UP_S, LEASE_S, deliver, next_attempt, notifiers_for


@pytest.fixture
def house(project, post_office, open_registry):
    """A registry with two recipients and the mail server that it is told of."""
    post = post_office()
    settings = project(
        smtp=f"smtp://127.0.0.1:{post.port}", insecure=True, to=["a@example.com", "b@example.com"]
    )
    return settings, open_registry(settings), post, Email(settings)


def recipients(post):
    return [recipients[0] for recipients, _ in post.arrived]


def test_every_recipient_gets_a_message_of_their_own(house, clock, facts):
    """One row and one message a recipient; a second pass sends nothing again."""
    _, registry, post, sender = house
    registry.outbox.enqueue("credit", "rolled_back", facts)
    assert deliver(registry, [sender], clock.now).sent == 2
    assert recipients(post) == ["a@example.com", "b@example.com"]
    assert deliver(registry, [sender], clock.now).sent == 0
    assert registry.outbox.counts()["SENT"] == 2


def test_a_refused_recipient_does_not_hide_behind_another(house, clock, facts):
    """550 for one of two: that one is dead, the other has the message."""
    _, registry, post, sender = house
    post.handler.rcpt["a@example.com"] = "550 no such user"
    registry.outbox.enqueue("credit", "rolled_back", facts)
    done = deliver(registry, [sender], clock.now)
    assert (done.sent, done.dead) == (1, 1)
    assert recipients(post) == ["b@example.com"]
    assert registry.outbox.counts()["DEAD"] == 1


def test_an_outage_loses_nothing_and_floods_nobody(house, clock, facts):
    """Five hours without a server, and news of six incidents: few attempts, one thread each."""
    settings, registry, post, _ = house
    down = Email(settings.model_copy(update={"notify": _elsewhere(settings)}))
    for _ in range(3):
        registry.outbox.enqueue("credit", "alert", facts)
    attempts = 0
    until = clock.now + 5 * 3600
    while clock.now < until:
        done = deliver(registry, [down], clock.now)
        attempts += bool(done.retried)
        clock.now += 30
    assert attempts < 40
    clock.now += 3600
    assert deliver(registry, [Email(settings)], clock.now).sent == 6
    assert len(post.arrived) == 6
    assert "6 h late" in post.arrived[0][1].get_body(("plain",)).get_content()


def _elsewhere(settings):
    email = settings.notify.email.model_copy(update={"smtp": "smtp://127.0.0.1:9"})
    return settings.notify.model_copy(update={"email": email})


def test_the_message_id_is_the_same_on_every_attempt(house, clock, facts):
    """A server that took the text and hung got it twice, and can tell that it did."""
    settings, registry, post, sender = house
    quick = settings.notify.email.model_copy(update={"timeout_s": 0.3})
    hasty = Email(
        settings.model_copy(update={"notify": settings.notify.model_copy(update={"email": quick})})
    )
    registry.outbox.enqueue("credit", "rolled_back", facts)
    post.handler.hang = True
    deliver(registry, [hasty], clock.now)
    post.handler.hang = False
    clock.now += 3600
    deliver(registry, [sender], clock.now)
    ids = {}
    for people, message in post.arrived:
        ids.setdefault(people[0], []).append(message["Message-ID"])
    assert len(ids["a@example.com"]) == 2
    assert len(set(ids["a@example.com"])) == 1


DYING = """
import os, signal, sys
from pathlib import Path
from mlguard.config import NotifyProjectTable, ProjectSettings
from mlguard.notify.email import Email
from mlguard.notify.outbox import deliver
from mlguard.registry import Registry

class Dying(Email):
    def send(self, delivery, now):
        super().send(delivery, now)
        os.kill(os.getpid(), signal.SIGKILL)

notify = NotifyProjectTable.model_validate_json(sys.argv[2])
project = ProjectSettings(root=Path(sys.argv[1]), notify=notify)
now = float(sys.argv[3])
registry = Registry.open(project, clock=lambda: now, actor="tester")
deliver(registry, [Dying(project)], now)
"""


def test_dying_after_the_servers_answer_makes_one_duplicate_at_most(house, clock, facts):
    """kill -9 between 250 and the commit: the same Message-ID again, and nothing lost."""
    settings, registry, post, sender = house
    registry.outbox.enqueue("credit", "rolled_back", facts)
    incident = opened(registry)
    clock.now += 60
    table = settings.notify.model_dump_json(by_alias=True)
    killed = subprocess.run(
        [sys.executable, "-c", DYING, str(settings.root), table, str(clock.now)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert recipients(post) == ["a@example.com"]
    # What it held stays its own until the lease ends; the rest goes on.
    assert deliver(registry, [sender], clock.now + 1).sent == 3
    registry.outbox.enqueue("credit", "frozen", facts, incident=incident.id)
    clock.now += LEASE_S + 1
    deliver(registry, [sender], clock.now)
    of_move = [one for _, one in post.arrived if one["Subject"].startswith("[ROLLED BACK")]
    assert len(of_move) == 3
    assert len({one["Message-ID"] for one in of_move}) == 2
    assert registry.outbox.counts()["SENT"] == 6


def opened(registry, monitor="concept_drift", app="credit"):
    registry.set_reference(app, "0" * 64, {})
    return registry.open_incident(
        app, monitor=monitor, version_id=None, summary="s", facts={"check": monitor}, level="alert"
    )


def test_messages_of_one_incident_stay_in_order(house, clock, facts):
    """What has to wait is not overtaken by what came after it; all of it is one thread."""
    _, registry, post, sender = house
    incident = opened(registry)
    post.handler.rcpt["a@example.com"] = "450 later"
    for kind in ("frozen", "cleared"):
        clock.now += 330
        deliver(registry, [sender], clock.now)
        registry.outbox.enqueue("credit", kind, facts, incident=incident.id)
    clock.now += 330
    deliver(registry, [sender], clock.now)
    assert set(recipients(post)) == {"b@example.com"}
    post.handler.rcpt.clear()
    clock.now += 3600
    deliver(registry, [sender], clock.now)
    (late,) = [message for people, message in post.arrived if people == ["a@example.com"]]
    assert late["Subject"].startswith("[CLEARED]")
    assert late["In-Reply-To"] is None
    mine = [message for people, message in post.arrived if people == ["b@example.com"]]
    assert [one["Subject"].partition("]")[0] for one in mine] == ["[FIRING", "[FROZEN", "[CLEARED"]
    identities = {one["Subject"].partition("]")[2] for one in [*mine, late]}
    assert identities == {f" mlguard prod credit: concept_drift, incident {incident.id}"}
    root = mine[0]["Message-ID"]
    assert [one["In-Reply-To"] for one in mine] == [None, root, root]
    assert mine[2]["References"].split() == [root, mine[1]["Message-ID"]]


def test_incidents_of_one_minute_are_one_message(house, clock):
    """What breaks many figures at once is told once; each incident then has its own thread."""
    _, registry, post, sender = house
    first = opened(registry, "data_drift")
    second = opened(registry, "service.latency")
    assert deliver(registry, [sender], clock.now).sent == 0
    clock.now += 31
    assert deliver(registry, [sender], clock.now).sent == 2
    message = post.arrived[0][1]
    assert message["Subject"].startswith("[FIRING AND 1 MORE] mlguard prod credit: data_drift")
    for part in ("plain", "html"):
        text = message.get_body((part,)).get_content()
        assert "At the same time" in text
        assert f"(incident {second.id})" in text
    registry.update_incident(second.id, state="cleared")
    clock.now += 300
    deliver(registry, [sender], clock.now)
    cleared = post.arrived[-1][1]
    assert f"service.latency, incident {second.id}" in cleared["Subject"]
    assert cleared["In-Reply-To"] is None
    registry.update_incident(first.id, state="cleared")
    clock.now += 300
    deliver(registry, [sender], clock.now)
    assert post.arrived[-1][1]["In-Reply-To"] == message["Message-ID"]


def test_after_an_outage_one_message_tells_the_whole_story(house, clock, facts):
    """Fired, rolled back, cleared, five hours late: one message a recipient, nothing left out."""
    _, registry, post, sender = house
    incident = opened(registry)
    for kind in ("rolled_back", "cleared"):
        clock.now += 1800
        registry.outbox.enqueue(
            "credit", kind, {**facts, "at": clock.now, "to": None}, incident=incident.id
        )
    clock.now += 5 * 3600
    done = deliver(registry, [sender], clock.now)
    assert (done.sent, done.dead) == (2, 0)
    assert recipients(post) == ["a@example.com", "b@example.com"]
    assert registry.outbox.counts()["SENT"] == 6
    message = post.arrived[0][1]
    assert message["Subject"].startswith("[CLEARED]")
    for part in ("plain", "html"):
        text = message.get_body((part,)).get_content()
        assert text.index("Before that") < text.index("credit was rolled back from v8")
        assert "5 h late" in text


def test_a_notifier_of_somebody_else_may_break(house, clock, facts):
    """An exception that nobody foresaw is an attempt that failed, not the end of the pass."""
    _, registry, _, _ = house
    registry.outbox.enqueue("credit", "rolled_back", facts)

    class Broken:
        def handles(self, recipient):
            return True

        def send(self, delivery, now):
            raise ZeroDivisionError("oops")

        def close(self):
            pass

    done = deliver(registry, [Broken()], clock.now)
    assert (done.retried, done.errors) == (2, ("ZeroDivisionError: oops",))
    assert registry.outbox.counts()["RETRY"] == 2


def test_a_refused_login_stops_the_queue_and_loses_nothing(house, clock, facts):
    """All rows wait as if nobody had tried, until the settings are mended."""
    _, registry, _, _ = house
    registry.outbox.enqueue("credit", "rolled_back", facts)

    class Locked:
        tried = 0

        def handles(self, recipient):
            return True

        def send(self, delivery, now):
            self.tried += 1
            raise SendError("535 wrong password", Outcome.STOP)

        def close(self):
            pass

    locked = Locked()
    done = deliver(registry, [locked], clock.now)
    assert done.stopped == "535 wrong password"
    assert locked.tried == 1
    assert registry.outbox.counts()["PENDING"] == 2
    assert registry.outbox.stuck() == "535 wrong password"


def test_what_cannot_be_sent_for_three_days_is_dead(house, clock, facts):
    """Dead is visible and counted; trying for ever would hide it."""
    settings, registry, _, _ = house
    down = Email(settings.model_copy(update={"notify": _elsewhere(settings)}))
    registry.outbox.enqueue("credit", "rolled_back", facts)
    clock.now += GIVE_UP_S + 1
    done = deliver(registry, [down], clock.now)
    assert done.dead == 2
    assert registry.outbox.counts()["DEAD"] == 2


def test_waiting_doubles_up_to_an_hour_and_is_spread():
    """1, 2, 4 … 60 minutes, each a little longer for some."""
    waits = [next_attempt(attempt, "<x@y>", 0.0) for attempt in range(1, 12)]
    for wait, plain in zip(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600], strict=False):
        assert plain <= wait <= 1.1 * plain
    assert next_attempt(3, "<x@y>", 0.0) != next_attempt(3, "<z@y>", 0.0)


def test_a_picture_that_cannot_be_drawn_does_not_hold_the_words(house, clock, facts):
    """The words arrive; the picture is missing."""
    _, registry, post, sender = house
    registry.outbox.enqueue("credit", "rolled_back", facts)

    def broken(kind, facts):
        raise RuntimeError("no font")

    assert deliver(registry, [sender], clock.now, draw=broken).sent == 2
    assert all(
        part.get_content_maintype() != "image" for _, one in post.arrived for part in one.walk()
    )


def test_facts_that_cannot_be_worded_still_reach_people(house, clock, monkeypatch, facts):
    """A fault in our words must not keep a rollback from being told."""
    _, registry, post, sender = house
    registry.outbox.enqueue("credit", "rolled_back", facts)

    def faulty(kind, facts, **options):
        if facts.get("check"):
            raise KeyError("check")
        return original(kind, facts, **options)

    from mlguard.notify import outbox

    original = outbox.notice
    monkeypatch.setattr(outbox, "notice", faulty)
    assert deliver(registry, [sender], clock.now).sent == 2
    text = post.arrived[0][1].get_body(("plain",)).get_content()
    assert "credit was rolled back from v8 to v7" in text


def test_a_recipient_that_nobody_reaches_is_dead(house, clock, facts):
    """A webhook that was uninstalled does not wait for ever."""
    _, registry, _, _ = house
    registry.outbox.enqueue("credit", "rolled_back", facts)
    assert deliver(registry, [], clock.now).dead == 2


def test_the_built_in_notifier_is_found_by_its_entry_point(project):
    """Built-in and foreign notifiers come the same way."""
    assert any(isinstance(one, Email) for one in notifiers_for(project()))


def test_without_a_server_a_move_becomes_one_file(project, open_registry, clock, facts):
    """The demo's way: facts in, one readable file out, nothing to configure."""
    settings = project()
    registry = open_registry(settings)
    registry.outbox.enqueue("credit", "rolled_back", facts)
    assert deliver(registry, notifiers_for(settings), clock.now).sent == 1
    [file] = (settings.state_dir / "outbox").glob("*.eml")
    parsed = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert "v8 → v7" in parsed["Subject"]


def test_carrying_mail_loads_nothing_that_draws():
    """The watcher that delivers stays light."""
    import subprocess

    code = (
        "import sys, mlguard.notify.outbox, mlguard.notify.email;"
        "sys.exit(bool({'matplotlib', 'evidently', 'pandas', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
