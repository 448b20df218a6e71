"""The queue of promised mail, on both databases."""

import pytest

from mlguard.errors import NotFoundError


def test_one_row_per_recipient_with_its_own_message_id(house):
    """A refusal of one recipient does not touch the other's mail."""
    outbox = house.registry.outbox
    assert len(outbox.enqueue("iris", "report", {"rows": 3})) == 2
    mail = outbox.claim(10, 60)
    assert [one.recipient for one in mail] == ["ann@example.com", "bob@example.com"]
    assert house.registry.recipients == ("ann@example.com", "bob@example.com")
    assert mail[0].facts == {"rows": 3}
    assert mail[0].message_id != mail[1].message_id
    assert all(one.message_id.endswith("@example.com>") for one in mail)
    assert mail[0].attempts == 1


def test_what_is_claimed_is_not_claimed_again_until_its_lease_ends(house):
    """A sender that died leaves its mail to the next, with the same Message-ID (fault 35)."""
    outbox = house.registry.outbox
    outbox.enqueue("iris", "report", {})
    first = outbox.claim(10, 60)
    assert outbox.claim(10, 60) == []
    assert outbox.counts()["SENDING"] == 2
    house.clock.advance(60)
    second = outbox.claim(10, 60)
    assert [one.message_id for one in second] == [one.message_id for one in first]
    assert [one.attempts for one in second] == [2, 2]


def test_sent_dead_and_retried(house):
    """Each mail ends once; what waits for its next attempt is not taken up before."""
    outbox = house.registry.outbox
    outbox.enqueue("iris", "report", {})
    first, second = outbox.claim(10, 60)
    outbox.sent(first.id)
    outbox.retry(second.id, house.clock.now + 120, "421 try later")
    assert outbox.claim(10, 60) == []
    assert outbox.oldest_pending() == second.created_at
    house.clock.advance(120)
    (again,) = outbox.claim(10, 60)
    outbox.dead(again.id, "550 no such user")
    assert outbox.counts() == {"PENDING": 0, "SENDING": 0, "RETRY": 0, "SENT": 1, "DEAD": 1}
    assert outbox.oldest_pending() is None
    ((row, state),) = outbox.rows(state="DEAD")
    assert (row.id, state) == (again.id, "DEAD: 550 no such user")
    outbox.revive(again.id)
    assert [one.id for one in outbox.claim(10, 60)] == [again.id]
    with pytest.raises(NotFoundError):
        outbox.sent(999)


def test_a_release_counts_no_attempt(house):
    """Where the whole queue must wait (a wrong password), no mail grows older by it."""
    outbox = house.registry.outbox
    outbox.enqueue("iris", "report", {})
    mail = outbox.claim(1, 60)
    outbox.release(mail[0].id, "535 authentication failed")
    assert outbox.counts()["PENDING"] == 2
    assert outbox.claim(1, 60)[0].attempts == 1


def test_an_incident_is_one_thread_in_order(house):
    """Message-IDs are numbered from the root; a later mail waits for an earlier one."""
    house.deploy("one")
    outbox = house.registry.outbox
    for number in range(3):
        outbox.enqueue("iris", "alert", {"number": number}, incident=42)
    mail = [one for one in outbox.claim(99, 60) if one.recipient == "ann@example.com"]
    assert [one.facts["number"] for one in mail] == [0, 1, 2]
    root = mail[0].message_id
    assert root.partition(".")[0].endswith("-42")
    assert [one.message_id for one in mail] == [
        root.replace("-42.0@", f"-42.{number}@") for number in range(3)
    ]
    outbox.retry(mail[0].id, house.clock.now + 600, "down")
    outbox.release(mail[1].id, "")
    outbox.release(mail[2].id, "")
    assert outbox.claim(99, 60) == []
    house.clock.advance(600)
    due = [one for one in outbox.claim(99, 60) if one.recipient == "ann@example.com"]
    assert [one.facts["number"] for one in due] == [0, 1, 2]


def test_the_limit_takes_the_oldest(house):
    """First in, first out."""
    outbox = house.registry.outbox
    ids = outbox.enqueue("iris", "report", {}) + outbox.enqueue("iris", "report", {})
    assert [one.id for one in outbox.claim(3, 60)] == ids[:3]
    assert [one.id for one in outbox.claim(3, 60)] == ids[3:]


def test_mail_of_a_refused_command_is_not_sent(house):
    """It is promised inside the transaction, so it goes with it."""
    house.deploy("one")
    before = house.registry.outbox.counts()
    with pytest.raises(NotFoundError):
        house.registry.hold("iris", "why", incident=77)
    assert house.registry.outbox.counts() == before
