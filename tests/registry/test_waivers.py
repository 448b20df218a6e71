"""Waivers: given, ended, revoked; what they let through, and never longer than they say."""

import sqlite3

import pytest

from mlguard.errors import NotFoundError, RefusedError, UsageError
from mlguard.policy import gate_decision
from mlguard.registry import Registry, State
from mlguard.results import CheckResult, Verdict
from mlguard.waivers import MAX_WAIVER_S

START = 1_790_000_000.0
DAY = 86_400.0
CHECK = "fairness.accuracy_difference"


def waive(house, check=CHECK, **named):
    """Waive the finding of the house's gate for ten days."""
    told = {"owner": "bea", "reason": "mended in December", "expires": house.clock.now + 10 * DAY}
    return house.registry.waive("iris", check, **told | named)


@pytest.fixture
def refused(house):
    """A version that the gate has refused."""
    version = house.register("one")
    version = house.registry.mark(version.id, State.VERIFIED, reason="loads")
    house.judge(version, allowed=False)
    return version


def accept(house, version):
    """Let a version pass the gate, as a deployment does."""
    return house.registry.mark(version.id, State.PASSED, reason="waived")


def test_a_waiver_is_kept_and_audited(house):
    """Who, what, for which content, why, until when; and an event that says so."""
    version = house.register("one")
    given = waive(house, f"{CHECK}[sex]", digest=version.digest, ticket="T-1")
    assert house.registry.waiver_book("iris").waivers == (given,)
    assert (given.check, given.subject, given.owner, given.actor) == (CHECK, "sex", "bea", "ann")
    event = house.registry.events("iris", limit=1)[0]
    assert (event.kind, event.version, event.actor) == ("waived", "v1", "ann")
    assert "mended in December" in event.reason
    assert event.detail["digest"] == version.digest
    house.check()


def test_the_same_again_is_the_same(house):
    """Typed twice it is one waiver; asked for again later it is a new one."""
    first = waive(house)
    head = house.registry.events(limit=1)
    assert waive(house) == first
    assert house.registry.events(limit=1) == head
    house.clock.advance(3600)
    assert waive(house).id != first.id


@pytest.mark.parametrize(
    "named",
    [
        {"owner": " "},
        {"reason": ""},
        {"expires": START},
        {"expires": START + MAX_WAIVER_S + 1},
        {"check": "nonsense"},
        {"check": "gate.run"},
        {"check": f"{CHECK}[sex]", "subject": "age"},
    ],
)
def test_what_nobody_could_answer_for_is_no_waiver(house, named):
    """Without an owner, a reason or a near end, or about the gate itself: exit 2, no trace."""
    with pytest.raises(UsageError):
        waive(house, **named)
    assert house.registry.waiver_book("iris").waivers == ()
    assert house.registry.events() == []


def test_a_refused_version_goes_live_under_a_waiver(house, refused):
    """The evidence stays a refusal; what follows from it is suspended."""
    with pytest.raises(RefusedError):
        accept(house, refused)
    waive(house, digest=refused.digest)
    known = house.registry.evidence("iris", refused.digest)[0]
    assert known.allowed is False
    decision = house.registry.decision_now(known)
    assert (decision.allowed, decision.verdict.value) == (True, "failed")
    assert decision.results[0].waived_by == "bea"
    accept(house, refused)
    house.registry.promote(house.staged(refused), reason="under a waiver")
    assert house.active() == "v1"
    assert [one.owner for one in house.registry.serving_waivers("iris").waivers] == ["bea"]
    house.check()


@pytest.mark.parametrize("end", ["expired", "revoked"])
def test_a_waiver_that_ends_before_the_promotion_refuses_it(house, refused, end):
    """Staged under a waiver and promoted after it: exit 1, and the waiver is named."""
    given = waive(house, digest=refused.digest)
    accept(house, refused)
    operation = house.staged(refused)
    if end == "expired":
        house.clock.advance(10 * DAY)
    else:
        house.registry.revoke_waiver("iris", given.id, "not after all")
    operation = house.registry.operation("iris")
    with pytest.raises(RefusedError, match=rf"accuracy_difference\[sex\].*{end} on") as caught:
        house.registry.promote(operation, reason="too late")
    assert caught.value.exit_code == 1
    assert caught.value.data["clause"] == "waiver"
    assert caught.value.data["waiver"] == given.id
    assert house.active() is None


def test_a_clock_that_goes_back_prolongs_nothing(house, refused):
    """Once a later time was seen, a waiver that ended before it has ended for good."""
    waive(house, digest=refused.digest)
    house.clock.advance(11 * DAY)
    house.registry.record("iris", "something", "seen late")
    house.clock.now = START
    known = house.registry.evidence("iris", refused.digest)[0]
    assert not house.registry.decision_now(known).allowed
    with pytest.raises(RefusedError):
        accept(house, refused)
    book = house.registry.waiver_book("iris")
    assert book.now == START + 11 * DAY
    assert book.waivers[0].state(book.now) == "expired"


def test_other_content_is_not_covered(house, refused):
    """A waiver for one digest is none for the next model; one for any is."""
    waive(house, digest="0" * 64)
    known = house.registry.evidence("iris", refused.digest)[0]
    assert not house.registry.decision_now(known).allowed
    waive(house, digest=None)
    assert house.registry.decision_now(known).allowed


def test_an_approval_does_not_prolong_a_waiver(house):
    """Who approves what was undecided has not approved what was waived besides."""
    registry = house.registry
    version = house.register("one")
    registry.mark(version.id, State.VERIFIED, reason="loads")
    failed = CheckResult(id=CHECK, subject="sex", verdict=Verdict.FAILED, summary="")
    open_one = CheckResult(id="baseline.beats", verdict=Verdict.INCONCLUSIVE, summary="")
    decision = gate_decision("iris", "v1", [failed, open_one])
    registry.record_evidence(
        "iris",
        version.digest,
        decision.to_json(),
        policy_digest="policy",
        data_digest="data",
        code_version="code",
    )
    given = waive(house)
    registry.mark(version.id, State.HELD, reason="undecided")
    assert registry.mark(version.id, State.PASSED, reason="I looked").state is State.PASSED
    approved = registry.evidence("iris", version.digest)[0]
    assert registry.decision_now(approved).allowed
    registry.revoke_waiver("iris", given.id, "no")
    again = registry.decision_now(approved)
    assert not again.allowed
    assert "was revoked on" in again.because


def test_revoking_is_audited_and_repeatable(house):
    """Once it is an event, twice it is nothing; an unknown number is named."""
    given = waive(house)
    ended = house.registry.revoke_waiver("iris", given.id, "mended")
    assert ended.revoked_at == house.clock.now
    events = house.registry.events(kind="waiver_revoked")
    assert house.registry.revoke_waiver("iris", given.id, "again") == ended
    assert house.registry.events(kind="waiver_revoked") == events
    assert len(events) == 1
    with pytest.raises(NotFoundError, match="no waiver 99"):
        house.registry.revoke_waiver("iris", 99, "?")


def test_mail_reminds_of_what_was_waived_in_what_serves(house, refused):
    """Every mail about the app names it; a waiver that nothing leans on is not named."""
    waive(house, "baseline.beats")
    waive(house, digest=refused.digest)
    accept(house, refused)
    house.registry.promote(house.staged(refused), reason="under a waiver")
    house.registry.hold("iris", "why")
    house.registry.outbox.enqueue("iris", "report", {"app": "iris"})
    told = house.registry.outbox.rows()[:4]
    assert {one.kind for one in told} == {"frozen", "report"}
    for mail in told:
        assert [one["check"] for one in mail.facts["waivers"]] == [CHECK]
        assert "waived by bea" in mail.facts["waivers"][0]["says"]
    house.registry.outbox.enqueue("credit", "report", {"app": "credit"})
    assert all("waivers" not in one.facts for one in house.registry.outbox.rows()[:2])


def test_the_first_schema_is_migrated_with_what_it_holds(sqlite_house):
    """A registry from before waivers keeps its history and its version, and can waive then."""
    sqlite_house.deploy("one")
    registry = sqlite_house.registry
    before = (registry.app("iris"), registry.events())
    registry.close()
    path = registry.database.path
    old = sqlite3.connect(path)
    old.execute("DROP TABLE waivers")
    later = {"operations": ("steps", "step", "step_at"), "outbox": ("told_in",), "holds": ("mute",)}
    for table, columns in later.items():
        for column in columns:
            old.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    old.execute("UPDATE alembic_version SET version_num = '0001'")
    old.commit()
    old.close()
    with Registry.open(sqlite_house.project, clock=sqlite_house.clock) as migrated:
        assert (migrated.app("iris"), migrated.events()) == before
        assert migrated.verify_chain() is None
        assert migrated.waiver_book("iris").waivers == ()
        waive(type("House", (), {"registry": migrated, "clock": sqlite_house.clock}))
        assert len(migrated.waiver_book("iris").waivers) == 1
