"""What a waiver lets through, and everything that it leaves as it is."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.policy import gate_decision, judged_again
from mlguard.results import CheckResult, Enforcement, Verdict
from mlguard.waivers import WARN_AHEAD_S, Waiver, WaiverBook, scope_of, waiver_words

DIGEST = "d" * 64
IDS = ("fairness.gap", "baseline.beats", "gate.run")
SUBJECTS = ("", "sex", "age")


def waiver(**named):
    known = {
        "id": 1,
        "app": "loan",
        "check": "fairness.gap",
        "subject": None,
        "digest": None,
        "owner": "bea",
        "reason": "soon",
        "ticket": "",
        "actor": "ann",
        "created_at": 0.0,
        "expires": 100.0,
    }
    return Waiver(**known | named)


results = st.builds(
    CheckResult,
    id=st.sampled_from(IDS),
    subject=st.sampled_from(SUBJECTS),
    verdict=st.sampled_from(Verdict),
    summary=st.just(""),
    enforcement=st.sampled_from(Enforcement),
    on_inconclusive=st.sampled_from([Enforcement.BLOCK, Enforcement.WARN]),
    waived_by=st.sampled_from([None, "itself"]),
)
waivers = st.builds(
    waiver,
    id=st.integers(1, 9),
    check=st.sampled_from(IDS),
    subject=st.sampled_from([None, *SUBJECTS]),
    digest=st.sampled_from([None, DIGEST, "e" * 64]),
    expires=st.floats(0, 200),
    revoked_at=st.sampled_from([None, 10.0]),
)


@given(st.lists(results, max_size=5), st.lists(waivers, max_size=5), st.floats(0, 200))
def test_a_waiver_makes_no_other_result_better(found, given_waivers, now):
    """Verdicts never change; only what is covered, valid and named lets through."""
    before = gate_decision("loan", "v1", found)
    after = judged_again(before, WaiverBook(tuple(given_waivers), now), DIGEST)
    assert [one.verdict for one in after.results] == [one.verdict for one in before.results]
    for old, new in zip(found, after.results, strict=True):
        bare = dataclasses.replace(old, waived_by=None)
        covered = any(
            one.check == old.id
            and one.subject in (None, old.subject)
            and one.digest in (None, DIGEST)
            and one.revoked_at is None
            and now < one.expires
            for one in given_waivers
        )
        if bare.blocks and covered and old.family != "gate":
            assert new.waived_by == "bea"
        else:
            assert new.waived_by is None
            assert new.blocks == bare.blocks
    # Without waivers nothing is let through but what blocks nothing, whatever results say.
    bare_results = [dataclasses.replace(one, waived_by=None) for one in found]
    none = judged_again(before, WaiverBook((), now), DIGEST)
    assert none.allowed == gate_decision("loan", "v1", bare_results).allowed
    assert none.allowed <= after.allowed


@given(st.lists(results, max_size=4), st.lists(waivers, max_size=4), st.floats(0, 200))
def test_judging_again_is_idempotent_and_time_only_closes(found, given_waivers, now):
    """The same waivers at the same time say the same; later, never more is let through."""
    book = WaiverBook(tuple(given_waivers), now)
    once = judged_again(gate_decision("loan", "v1", found), book, DIGEST)
    assert judged_again(once, book, DIGEST) == once
    later = judged_again(once, WaiverBook(book.waivers, now + 50), DIGEST)
    assert later.allowed <= once.allowed


def test_a_refusal_names_the_waiver_that_ended():
    """Who reads that it blocks again reads whose promise ended, and when."""
    failed = CheckResult(id="fairness.gap", subject="sex", verdict=Verdict.FAILED, summary="")
    decision = gate_decision("loan", "v1", [failed])
    now = judged_again(decision, WaiverBook((waiver(ticket="T-1"),), 100.0), DIGEST)
    assert not now.allowed
    said = "the waiver by bea, T-1 expired on 1970-01-01 00:01 UTC"
    assert said in now.because
    assert waiver_words(now.results[0]) == said
    held = judged_again(decision, WaiverBook((waiver(),), 40.0), DIGEST)
    assert held.allowed
    assert waiver_words(held.results[0]) == ("waived by bea until 1970-01-01 00:01 UTC (in 1 min)")


def test_a_week_before_its_end_it_is_expiring():
    """Active, then expiring, then expired; revoked whatever the time."""
    one = waiver(expires=2 * WARN_AHEAD_S)
    assert [one.state(WARN_AHEAD_S * weeks) for weeks in (0, 1, 2)] == [
        "active",
        "expiring",
        "expired",
    ]
    assert waiver(revoked_at=5.0).state(1.0) == "revoked"


def test_the_waivers_that_results_need_are_those_that_block():
    """A result that passes, or only warns, leans on no waiver."""
    failed = CheckResult(id="fairness.gap", verdict=Verdict.FAILED, summary="")
    warned = dataclasses.replace(failed, enforcement=Enforcement.WARN)
    book = WaiverBook((waiver(), waiver(id=2, check="baseline.beats")), 0.0)
    assert [one.id for one in book.leaned_on([failed, failed], DIGEST)] == [1]
    assert book.leaned_on([warned], DIGEST) == ()


@pytest.mark.parametrize(
    ("name", "subject", "scope"),
    [
        ("fairness.gap", None, ("fairness.gap", None)),
        ("fairness.gap", "sex", ("fairness.gap", "sex")),
        ("fairness.gap[sex]", None, ("fairness.gap", "sex")),
        (
            "fairness.gap[sex × race in test_x[1]]",
            None,
            ("fairness.gap", "sex × race in test_x[1]"),
        ),
        ("tests.test_alike", None, ("tests.test_alike", None)),
    ],
)
def test_names_are_read_as_findings_write_them(name, subject, scope):
    """What the gate prints can be typed."""
    assert scope_of(name, subject) == scope


@pytest.mark.parametrize("name", ["fairness", "", "a b.c", "fairness.gap[sex", "gate.lost"])
def test_other_names_are_refused(name):
    """A family alone, half a name, or the gate itself."""
    with pytest.raises(ValueError, match=r"is no name|nobody can waive"):
        scope_of(name, None)
