"""The queue of promised mail, on both databases."""

import pytest

from mlguard.errors import NotFoundError, RefusedError


@pytest.fixture
def outbox(house):
    return house.registry.outbox


def take(outbox, *ids, message="<m@x>"):
    return outbox.take(ids, message, 60)


def test_one_row_per_recipient_with_its_own_message_id(house, outbox):
    """A refusal of one recipient does not touch the other's mail."""
    ids = outbox.enqueue("iris", "report", {"rows": 3})
    assert len(ids) == 2
    mail = outbox.rows()[::-1]
    assert [one.recipient for one in mail] == ["ann@example.com", "bob@example.com"]
    assert house.registry.recipients == ("ann@example.com", "bob@example.com")
    assert mail[0].facts == {"rows": 3}
    assert mail[0].message_id != mail[1].message_id
    assert all(one.message_id.endswith("@example.com>") for one in mail)
    assert [one.id for one in outbox.waiting()] == ids


def test_what_is_taken_is_not_taken_again_until_its_lease_ends(house, outbox):
    """A sender that died leaves its mail to the next, in the same message."""
    ids = outbox.enqueue("iris", "report", {})
    assert [one.attempts for one in take(outbox, *ids)] == [1, 1]
    assert take(outbox, *ids) == []
    assert outbox.counts()["SENDING"] == 2
    house.clock.advance(60)
    assert [one.told_in for one in outbox.waiting()] == ["<m@x>", "<m@x>"]
    assert [one.attempts for one in take(outbox, *ids)] == [2, 2]


def test_the_rows_of_a_message_are_taken_all_or_none(outbox):
    """Where somebody settled one of them meanwhile, the message is planned anew."""
    first, second = outbox.enqueue("iris", "report", {})
    take(outbox, first)
    outbox.sent(first)
    assert take(outbox, first, second) == []
    assert outbox.counts()["PENDING"] == 1


def test_sent_dead_and_retried(house, outbox):
    """Each mail ends once, and says why it did not before."""
    first, second = outbox.enqueue("iris", "report", {})
    take(outbox, first)
    outbox.sent(first)
    take(outbox, second)
    outbox.retry(second, house.clock.now + 120, "421 try later")
    (waiting,) = outbox.waiting()
    assert (waiting.state, waiting.next_at) == ("RETRY", house.clock.now + 120)
    assert waiting.told_in == ""
    assert outbox.oldest_pending() == waiting.created_at
    outbox.dead(second, "550 no such user")
    assert {key: n for key, n in outbox.counts().items() if n} == {"SENT": 1, "DEAD": 1}
    assert outbox.oldest_pending() is None
    (row,) = outbox.rows(state="DEAD")
    assert (row.id, row.error) == (second, "550 no such user")
    assert outbox.revive(second).id == second
    assert [one.id for one in outbox.waiting()] == [second]
    with pytest.raises(NotFoundError):
        outbox.sent(999)


def test_what_may_have_arrived_stays_in_its_message(house, outbox):
    """An attempt whose end nobody saw is repeated as it was."""
    first, second = outbox.enqueue("iris", "report", {})
    take(outbox, first)
    outbox.retry(first, house.clock.now, "silence", uncertain=True)
    take(outbox, second)
    outbox.release(second, "535", uncertain=True)
    assert [one.told_in for one in outbox.waiting()] == ["<m@x>", "<m@x>"]


def test_a_release_counts_no_attempt(outbox):
    """Where the whole queue must wait (a wrong password), no mail grows older by it."""
    first, _ = outbox.enqueue("iris", "report", {})
    take(outbox, first)
    assert outbox.stuck() == ""
    outbox.release(first, "535 authentication failed")
    assert outbox.counts()["PENDING"] == 2
    assert outbox.stuck() == "535 authentication failed"
    assert take(outbox, first)[0].attempts == 1


def test_an_hour_of_failed_attempts_is_stuck(house, outbox):
    """A short outage is none of anybody's business; a long one is."""
    first, _ = outbox.enqueue("iris", "report", {})
    take(outbox, first)
    outbox.retry(first, house.clock.now + 60, "no route to host")
    assert outbox.stuck() == ""
    house.clock.advance(3601)
    assert outbox.stuck() == "no route to host"


def test_what_was_told_is_remembered_without_its_facts(house, outbox):
    """By time, and of some incidents all."""
    house.deploy("one")
    incident = house.registry.open_incident(
        "iris", monitor="m", version_id=None, summary="s", facts={}, level="alert"
    )
    for row in outbox.waiting():
        take(outbox, row.id)
        outbox.sent(row.id)
    house.clock.advance(1000)
    assert outbox.told(house.clock.now - 10) == []
    assert len(outbox.told(0.0)) == len(outbox.told(house.clock.now, [incident.id])) == 2
    assert {row.facts == {} for row in outbox.told(0.0)} == {True}
    assert [kind for kind, _ in outbox.thread(incident.id)] == ["alert", "alert"]


def test_a_reminder_is_promised_once(house, outbox):
    """Whoever asks second finds that it was told."""
    house.deploy("one")
    incident = house.registry.open_incident(
        "iris", monitor="m", version_id=None, summary="s", facts={}, level="alert"
    )
    since = house.clock.now
    house.clock.advance(4 * 3600)
    assert outbox.remind(incident.id, "iris", {}, since=since) is True
    assert outbox.remind(incident.id, "iris", {}, since=since) is False


def test_a_digest_is_promised_once_for_its_time(outbox):
    """A clock that goes back, or a second process, makes no second one."""
    assert outbox.last_once("digest") is None
    assert outbox.once("digest", 100.0, "digest", {"a": 1}) is True
    assert outbox.once("digest", 100.0, "digest", {"a": 1}) is False
    assert outbox.once("digest", 50.0, "digest", {"a": 1}) is False
    assert outbox.once("digest", 200.0, "digest", {}) is False
    assert outbox.last_once("digest") == 200.0
    assert len(outbox.waiting()) == 2


def test_a_mute_keeps_mail_back_but_not_a_rollbacks(house, outbox):
    """Until it is lifted or ends; what was muted stays visible, and is never sent."""
    house.deploy("one")
    held = house.registry.hold("iris", "noise", mute=True, expires=house.clock.now + 3600)
    assert held.mute
    outbox.enqueue("iris", "alert", {})
    outbox.enqueue("credit", "alert", {})
    outbox.enqueue("iris", "rolled_back", {})
    assert outbox.counts()["MUTED"] == 4
    assert {row.kind for row in outbox.rows(state="MUTED")} == {"frozen", "alert"}
    assert [row.kind for row in outbox.waiting()] == ["alert"] * 2 + ["rolled_back"] * 2
    house.clock.advance(3601)
    outbox.enqueue("iris", "alert", {})
    assert outbox.counts()["MUTED"] == 4


def test_a_mail_is_dropped_by_a_human_with_a_reason(house, outbox):
    """Only what was not sent; it stays in the list, with who and why."""
    first, second = outbox.enqueue("iris", "report", {})
    outbox.drop(first, "nobody reads it")
    assert outbox.rows(state="DROPPED")[0].error == "nobody reads it"
    assert [row.id for row in outbox.waiting()] == [second]
    take(outbox, second)
    for act in (lambda: outbox.drop(second, "r"), lambda: outbox.revive(second)):
        with pytest.raises(RefusedError, match="being sent"):
            act()
    with pytest.raises(NotFoundError):
        outbox.revive(99)


def test_mail_of_a_refused_command_is_not_sent(house, outbox):
    """It is promised inside the transaction, so it goes with it."""
    house.deploy("one")
    before = outbox.counts()
    with pytest.raises(NotFoundError):
        house.registry.hold("iris", "why", incident=77)
    assert outbox.counts() == before
