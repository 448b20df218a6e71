"""The rule that turns an estimate, its interval and its support into a verdict."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.errors import UsageError
from mlguard.results import Verdict
from mlguard.stats.decision import (
    Support,
    figure,
    judge_limit,
    judge_non_inferiority,
    judge_rate,
    judge_superiority,
)
from mlguard.stats.interval import Interval

ENOUGH = Support(enough=True, n_to_tell=700)
LACKING = Support(enough=False, sizes=(109, 200), n_needed=320, smallest_limit=0.18)


def judged(value, low, high, *, support=ENOUGH, **changes):
    arguments = {"limit": 0.1, "n": 500, "support": lambda: support} | changes
    interval = None if low is None else Interval(low, high)
    return judge_limit(value, interval, **arguments)


@pytest.mark.parametrize(
    ("evidence", "decide", "verdict", "reason"),
    [
        ((0.2, 0.15, 0.25), "evidence", Verdict.FAILED, "limit_exceeded"),
        ((0.02, 0.0, 0.05), "evidence", Verdict.PASSED, ""),
        ((0.02, 0.0, 0.1), "evidence", Verdict.PASSED, ""),
        ((0.2, 0.1, 0.3), "evidence", Verdict.WARNED, "above_not_proven"),
        ((0.08, 0.0, 0.15), "evidence", Verdict.PASSED, "not_proven"),
        ((0.1, 0.05, 0.15), "evidence", Verdict.PASSED, "not_proven"),
        ((0.2, 0.15, 0.25), "proof", Verdict.FAILED, "limit_exceeded"),
        ((0.02, 0.0, 0.05), "proof", Verdict.PASSED, ""),
        ((0.08, 0.0, 0.15), "proof", Verdict.INCONCLUSIVE, "not_proven"),
        ((0.12, 0.05, 0.15), "proof", Verdict.INCONCLUSIVE, "above_not_proven"),
        ((0.08, 0.0, 0.15), "estimate", Verdict.PASSED, ""),
        ((0.11, 0.0, 0.30), "estimate", Verdict.FAILED, "limit_exceeded"),
        ((None, None, None), "evidence", Verdict.INCONCLUSIVE, "undefined"),
        ((math.nan, 0.0, 1.0), "estimate", Verdict.INCONCLUSIVE, "undefined"),
        ((0.5, math.nan, 1.0), "proof", Verdict.INCONCLUSIVE, "undefined"),
    ],
)
def test_upper_limit(evidence, decide, verdict, reason):
    """Each row of the rule, for a limit from above and data with support."""
    found = judged(*evidence, decide=decide)
    assert (found.verdict, found.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        ((0.5, 0.4, 0.6), Verdict.FAILED),
        ((0.95, 0.9, 1.0), Verdict.PASSED),
        ((0.85, 0.7, 1.0), Verdict.PASSED),
        ((0.75, 0.6, 0.9), Verdict.WARNED),
    ],
)
def test_lower_limit(evidence, verdict):
    """A limit from below is the mirrored rule."""
    assert judged(*evidence, limit=0.8, bound="at_least").verdict is verdict


@pytest.mark.parametrize("decide", ["evidence", "proof", "estimate"])
def test_too_few_rows_say_nothing(decide):
    """One denominator below the least decides, whatever the numbers look like."""
    for value in (0.0, 0.9):
        found = judged(value, value, value, sizes=(500, 29), decide=decide)
        assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "few")
        assert found.n_needed == 30
        assert "500 and 29 rows are too few" in found.explain()


def test_without_support_nothing_passes_unproven():
    """Data that could not have shown a breach is undecided, and says what it would need."""
    found = judged(0.05, 0.0, 0.2, support=LACKING)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "no_support")
    assert found.explain().endswith(
        "with 109 and 200 rows the smallest limit this data can judge is 0.18; "
        "limit 0.10 needs about 320 each"
    )
    assert found.next_step == "test on about 320 rows each"


def test_support_is_asked_for_only_where_it_decides():
    """Proof needs no support, so its cost is not paid."""

    def never():
        raise AssertionError("asked for support")

    judge_limit(0.3, Interval(0.2, 0.4), limit=0.1, n=50, support=never)
    judge_limit(0.0, Interval(0.0, 0.05), limit=0.1, n=50, support=never)
    judge_limit(0.3, Interval(0.0, 0.4), limit=0.1, n=50, decide="proof", support=never)


def test_every_reason_has_a_sentence():
    """What is not proven says how far it could be off, or what would tell."""
    assert judged(0.08, 0.0, 0.15).explain().endswith("not proven: it could be up to 0.15")
    assert judged(0.2, 0.1, 0.3).explain().endswith("not proven; about 700 rows would tell")
    assert judged(0.2, 0.15, 0.25).explain().endswith("breaches at most 0.10")
    assert judged(None, None, None).explain() == "undefined: nothing to divide by"
    hopeless = Support(enough=False, sizes=(5,))
    assert "no number of rows is enough" in judged(0.05, 0, 1, support=hopeless).explain()
    assert judged(0.85, 0.7, 1.0, limit=0.8, bound="at_least").explain().endswith("down to 0.70")


bounds = st.tuples(*[st.floats(0, 1)] * 3).map(sorted)
#: Best to worst, as far as one limit is concerned.
ORDER = [Verdict.PASSED, Verdict.WARNED, Verdict.INCONCLUSIVE, Verdict.FAILED]


@given(bounds, st.floats(0.01, 0.99), st.floats(0, 0.5), st.sampled_from(["evidence", "proof"]))
def test_worse_evidence_never_judges_milder(numbers, limit, shift, decide):
    """Moving estimate and interval up never turns a failure into anything better."""
    low, value, high = numbers
    before = judged(value, low, high, limit=limit, decide=decide)
    after = judged(value + shift, low + shift, high + shift, limit=limit, decide=decide)
    assert ORDER.index(after.verdict) >= ORDER.index(before.verdict)


@given(bounds, st.floats(0.01, 0.99), st.booleans())
def test_strictness_orders_the_ways_to_decide(numbers, limit, enough):
    """What is proven is judged alike; proof never passes what evidence would not."""
    low, value, high = numbers
    support = ENOUGH if enough else LACKING
    proof = judged(value, low, high, limit=limit, decide="proof", support=support)
    evidence = judged(value, low, high, limit=limit, support=support)
    if proof.verdict is not Verdict.INCONCLUSIVE:
        assert evidence.verdict is proof.verdict
    if proof.verdict is Verdict.PASSED:
        assert evidence.proven


@pytest.mark.parametrize(
    ("counts", "limit", "verdict"),
    [
        ((0, 2000), 0.01, Verdict.PASSED),
        ((60, 2000), 0.01, Verdict.FAILED),
        ((0, 40), 0.01, Verdict.INCONCLUSIVE),
        ((0, 29), 0.5, Verdict.INCONCLUSIVE),
        ((0, 0), 0.01, Verdict.INCONCLUSIVE),
        ((26, 2000), 0.01, Verdict.WARNED),
        ((18, 2000), 0.01, Verdict.PASSED),
    ],
)
def test_rates(counts, limit, verdict):
    """A rate is held against a limit on its Wilson interval."""
    assert judge_rate(*counts, limit=limit).verdict is verdict


def test_a_rate_says_what_it_needs():
    """With the rows it asks for, the same rate is decided."""
    found = judge_rate(0, 100, limit=0.01)
    assert found.n_needed is not None
    assert judge_rate(0, found.n_needed, limit=0.01).verdict is Verdict.PASSED
    assert judge_rate(0, 100, limit=found.smallest_limit).verdict is Verdict.PASSED
    assert found.smallest_limit > 0.01


@pytest.mark.parametrize(
    ("interval", "superior", "not_worse"),
    [
        ((0.01, 0.05), Verdict.PASSED, Verdict.PASSED),
        ((0.0, 0.05), Verdict.INCONCLUSIVE, Verdict.PASSED),
        ((-0.01, 0.03), Verdict.INCONCLUSIVE, Verdict.PASSED),
        ((-0.03, 0.0), Verdict.FAILED, Verdict.INCONCLUSIVE),
        ((-0.02, 0.01), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        ((-0.05, -0.02), Verdict.FAILED, Verdict.INCONCLUSIVE),
        ((-0.05, -0.03), Verdict.FAILED, Verdict.FAILED),
    ],
)
def test_comparisons(interval, superior, not_worse):
    """Superiority and non-inferiority are proven, refuted or open, by the interval alone."""
    bounds_ = Interval(*interval)
    value = sum(interval) / 2
    assert judge_superiority(value, bounds_, n=100).verdict is superior
    assert judge_non_inferiority(value, bounds_, margin=0.02, n=100).verdict is not_worse


def test_identical_answers_are_no_worse_and_no_better():
    """Equal answers on every row need no statistics, whatever their number."""
    one = judge_non_inferiority(0.0, Interval(-0.5, 0.5), margin=0.0, n=3, identical=True)
    assert (one.verdict, one.reason) == (Verdict.PASSED, "identical")
    assert one.interval == (0.0, 0.0)
    other = judge_superiority(0.0, Interval(-0.5, 0.5), n=3, identical=True)
    assert other.verdict is Verdict.FAILED
    assert other.explain() == "identical answers on all 3 rows"


def test_identical_answers_to_nothing_prove_nothing():
    """No rows at all are undefined, not identical."""
    found = judge_non_inferiority(None, None, n=0, identical=True)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "undefined")
    assert found.explain() == "undefined: no rows to compare on"


def test_an_open_comparison_says_how_many_rows_would_tell():
    """The nearer to the margin, the more rows; exactly on it, none are promised."""
    near = judge_non_inferiority(-0.01, Interval(-0.05, 0.03), n=300)
    far = judge_non_inferiority(0.0, Interval(-0.04, 0.04), n=300)
    assert near.n_to_tell > far.n_to_tell > 300
    assert judge_superiority(0.0, Interval(-0.1, 0.1), n=300).n_to_tell is None
    assert (
        "rules out a gain above 0.00" in judge_superiority(-0.1, Interval(-0.2, 0), n=9).explain()
    )


def test_a_negative_margin_is_the_other_question():
    """Superiority and non-inferiority are not mixed up by a sign."""
    with pytest.raises(UsageError, match="delta is"):
        judge_superiority(0.0, Interval(0, 0), delta=-0.1, n=10)
    with pytest.raises(UsageError, match="margin is"):
        judge_non_inferiority(0.0, Interval(0, 0), margin=-0.1, n=10)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.105, "0.105"), (0.9999, "1.00"), (math.inf, "inf"), (-0.00123, "-0.0012")],
)
def test_figures_for_people(value, text):
    """Numbers are short, and small ones keep their digits."""
    assert figure(value) == text


def test_next_steps_are_instructions():
    """What would decide it is said as something to do; what is decided needs nothing."""
    assert judged(0.5, 0.4, 0.6).next_step == ""
    assert judged(0.2, 0.1, 0.3).next_step == "about 700 rows would tell"
    assert judged(0.5, 0.4, 0.6, sizes=(10, 20)).next_step == "test on at least 30 rows each"
    comparison = judge_superiority(0.01, Interval(-0.01, 0.03), n=100)
    assert comparison.next_step == f"about {comparison.n_to_tell} rows would tell"


def test_a_judgement_without_an_estimate_has_a_sentence():
    """An undecided rule over nothing says so."""
    nothing = judge_rate(0, 0, limit=0.1)
    assert nothing.explain() == "undefined: nothing to divide by"
    assert nothing.value is None
    assert nothing.n_needed == 30
