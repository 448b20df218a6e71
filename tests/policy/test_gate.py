"""A gate fails closed."""

import itertools

import pytest

from mlguard.policy import gate_decision
from mlguard.results import CheckResult, Enforcement, Verdict


def check(verdict, **named):
    named.setdefault("id", f"family.{verdict.value}")
    return CheckResult(verdict=verdict, summary="", **named)


def test_no_results_are_no_admission():
    """Nothing passes vacuously."""
    found = gate_decision("loan", "v1", [])
    assert not found.allowed
    assert found.exit_code == 5
    assert "no check ran" in found.because


def test_skipped_checks_are_no_admission():
    """A gate in which everything was skipped judged nothing."""
    found = gate_decision("loan", "v1", [check(Verdict.SKIPPED)])
    assert not found.allowed
    assert found.exit_code == 5


@pytest.mark.parametrize(
    ("verdict", "allowed", "exit_code"),
    [
        (Verdict.PASSED, True, 0),
        (Verdict.WARNED, True, 0),
        (Verdict.INCONCLUSIVE, False, 5),
        (Verdict.ERRORED, False, 5),
        (Verdict.FAILED, False, 1),
    ],
)
def test_each_verdict(verdict, allowed, exit_code):
    """PASSED and WARNED let through; what is undecided, crashed or failed does not."""
    found = gate_decision("loan", "v1", [check(Verdict.PASSED), check(verdict)])
    assert (found.allowed, found.exit_code) == (allowed, exit_code)


def test_enforcement_and_waivers_are_the_policy():
    """A verdict that only warns, or that somebody waived, closes no gate and stays visible."""
    results = [
        check(Verdict.FAILED, enforcement=Enforcement.WARN),
        check(Verdict.INCONCLUSIVE, on_inconclusive=Enforcement.WARN),
        check(Verdict.FAILED, id="fairness.gap", waived_by="ann"),
    ]
    found = gate_decision("loan", "v1", results)
    assert found.allowed
    assert found.verdict is Verdict.FAILED
    assert "fairness.gap by ann" in found.because


def test_a_worse_result_never_opens_a_gate():
    """Replacing any verdict by a worse one never turns a refusal into an admission."""
    for before in itertools.product(Verdict, repeat=2):
        allowed = gate_decision("a", "v", [check(one) for one in before]).allowed
        for place, worse in itertools.product(range(2), Verdict):
            if worse.severity <= before[place].severity or before[place] is Verdict.SKIPPED:
                continue
            after = [*before]
            after[place] = worse
            # PASSED to SKIPPED leaves less judged; that may only close.
            if not allowed and worse is not Verdict.WARNED:
                assert not gate_decision("a", "v", [check(one) for one in after]).allowed


def test_the_reason_names_what_blocks():
    """The sentence names the failed checks first, and how many there are."""
    results = [check(Verdict.FAILED, id=f"fairness.{n}") for n in range(5)]
    because = gate_decision("loan", "v1", [*results, check(Verdict.ERRORED)]).because
    assert because.startswith("blocked by 6 checks: 5 failed (fairness.0, ")
    assert "and 2 more" in because
