"""The worst gap between groups: its estimate, its interval and its verdict."""

import itertools
import math

import fairlearn.metrics as fairlearn
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlguard.errors import UsageError
from mlguard.results import Verdict
from mlguard.stats.groups import Confusion, Rate, judge_gap, judge_mean_gap, worst_gap
from mlguard.stats.multiplicity import bonferroni, shared_run_length, sidak
from mlguard.stats.proportions import mover_ratio, newcombe_difference

rate = st.integers(1, 400).flatmap(lambda n: st.builds(Rate, st.integers(0, n), st.just(n)))
table = st.dictionaries(st.sampled_from("abcdefgh"), rate, min_size=2)


@settings(max_examples=40, deadline=None)
@given(table)
def test_estimates_are_fairlearns(rates):
    """The value is max - min and min / max of the groups' rates."""
    values = [one.value for one in rates.values()]
    assert worst_gap(rates).value == pytest.approx(max(values) - min(values))
    ratio = min(values) / max(values) if max(values) else 1.0
    assert worst_gap(rates, aggregate="ratio").value == pytest.approx(ratio)


def test_compas_is_fairlearns_figures(shared_data):
    """Demographic parity and equalized odds of the two races, as fairlearn gives them."""
    frame = pd.read_csv(shared_data / "fairness/compas/compas-scores-two-years.csv.gz")
    frame = frame[frame["race"].isin(["African-American", "Caucasian"])]
    y_true, y_pred = frame["two_year_recid"], (frame["decile_score"] >= 5).astype(int)
    counted = Confusion.count(y_true, y_pred, frame["race"])
    gaps = {
        (metric, aggregate): worst_gap(counted.rates(metric), aggregate=aggregate).value
        for metric in ("selection_rate", "true_positive_rate", "false_positive_rate")
        for aggregate in ("difference", "ratio")
    }
    assert round(gaps["selection_rate", "difference"], 6) == 0.240200
    assert round(gaps["selection_rate", "ratio"], 6) == 0.591638
    odds = [("true_positive_rate",), ("false_positive_rate",)]
    assert round(max(gaps[*one, "difference"] for one in odds), 6) == 0.213925
    assert round(min(gaps[*one, "ratio"] for one in odds), 6) == 0.522987
    arguments = {"sensitive_features": frame["race"]}
    assert gaps["selection_rate", "difference"] == pytest.approx(
        fairlearn.demographic_parity_difference(y_true, y_pred, **arguments)
    )
    judged = judge_gap(counted.rates("false_positive_rate"), limit=0.1)
    assert judged.verdict is Verdict.FAILED
    assert judged.pair == ("African-American", "Caucasian")


def test_two_groups_are_newcombe_and_mover_r():
    """With two groups the interval is the ordinary one of their difference or ratio."""
    rates = {"a": Rate(30, 100), "b": Rate(90, 150)}
    found = worst_gap(rates)
    assert found.interval == pytest.approx(newcombe_difference(90, 150, 30, 100))
    assert found.pair == ("b", "a")
    found = worst_gap(rates, aggregate="ratio")
    assert found.interval == pytest.approx(mover_ratio(30, 100, 90, 150))


@settings(max_examples=40, deadline=None)
@given(table)
def test_many_groups_are_all_pairs_at_sidaks_level(rates):
    """The bounds are the worst ones over all pairs, each at the simultaneous level."""
    pairs = list(itertools.combinations(rates.values(), 2))
    level = 1 - sidak(0.05, len(pairs))
    bounds = [
        newcombe_difference(a.successes, a.n, b.successes, b.n, confidence_level=level)
        for one in pairs
        for a, b in [sorted(one, key=lambda rate: -rate.value)]
    ]
    found = worst_gap(rates)
    assert found.confidence_level == pytest.approx(level)
    low = max(max(one.low, 0.0) for one in bounds)
    high = max(max(one.high, -one.low) for one in bounds)
    assert found.interval == pytest.approx((low, high))


@settings(max_examples=40, deadline=None)
@given(table, st.sampled_from(["difference", "ratio"]))
def test_the_gap_has_no_sign_and_no_order(rates, aggregate):
    """Swapping labels or renaming groups changes nothing but the names."""
    swapped = {name: Rate(one.n - one.successes, one.n) for name, one in rates.items()}
    renamed = {name.upper(): one for name, one in reversed(rates.items())}
    found = worst_gap(rates, aggregate=aggregate)
    again = worst_gap(renamed, aggregate=aggregate)
    assert again.value == pytest.approx(found.value)
    assert again.interval == pytest.approx(found.interval)
    low, high = found.interval
    assert -1e-9 <= low <= found.value + 1e-9
    assert found.value <= high + 1e-9 <= 1 + 2e-9
    if aggregate == "difference":
        assert worst_gap(swapped).interval == pytest.approx(found.interval)


@settings(max_examples=40, deadline=None)
@given(table, st.floats(0.5, 0.9))
def test_wider_at_a_higher_level(rates, level):
    """Intervals nest in the confidence level, also in the family's error."""
    inner = worst_gap(rates, confidence_level=level, family_error=0.5)
    outer = worst_gap(rates, confidence_level=0.99, family_error=0.01)
    assert outer.interval.low <= inner.interval.low + 1e-9
    assert inner.interval.high <= outer.interval.high + 1e-9


def test_a_reference_group_is_compared_with_each():
    """Against one group there are fewer pairs, and only pairs with it."""
    rates = {"a": Rate(50, 100), "b": Rate(10, 100), "c": Rate(45, 100)}
    found = worst_gap(rates, reference="a")
    assert found.pair == ("a", "b")
    assert found.confidence_level == pytest.approx(1 - sidak(0.05, 2))
    assert judge_gap(rates, limit=0.1, reference="c").pair == ("c", "b")
    with pytest.raises(UsageError, match="reference group 'z'"):
        worst_gap(rates, reference="z")


def test_fewer_than_two_groups_are_undefined():
    """One group, or none with a denominator, has no gap; it does not pass."""
    for rates in ({}, {"a": Rate(50, 100)}, {"a": Rate(50, 100), "b": Rate(0, 0)}):
        assert worst_gap(rates).value is None
        judged = judge_gap(rates, limit=0.1)
        assert judged.verdict is Verdict.INCONCLUSIVE
        assert judged.explain()


def test_a_group_of_one_row_decides_nothing():
    """One row of a tiny group neither fails nor passes a check."""
    rates = {"a": Rate(300, 1000), "b": Rate(301, 1000), "c": Rate(1, 1)}
    judged = judge_gap(rates, limit=0.1)
    assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "few")
    assert judged.too_small == ("c",)
    assert judged.explain() == "too few rows in c (fewer than 10): at least 30 needed"
    assert judged.next_step == "test on at least 30 rows"


def test_an_optional_group_may_be_too_small():
    """A group that may be undecided is left out, and named."""
    rates = {"a": Rate(300, 1000), "b": Rate(301, 1000), "c": Rate(1, 1)}
    judged = judge_gap(rates, limit=0.1, optional={"c"})
    assert judged.verdict is Verdict.PASSED
    assert judged.left_out == ("c",)
    assert [one.name for one in judged.groups] == ["a", "b", "c"]


def test_a_tiny_group_does_not_hide_a_breach():
    """A proven breach between large groups fails, whoever else is too small."""
    rates = {"a": Rate(300, 1000), "b": Rate(600, 1000), "c": Rate(1, 1)}
    judged = judge_gap(rates, limit=0.1)
    assert judged.verdict is Verdict.FAILED
    assert judged.pair == ("b", "a")
    assert judged.too_small == ("c",)


def test_a_reference_group_that_is_too_small_decides_nothing():
    """There is nothing to compare with, so nothing passes and nothing raises."""
    rates = {"a": Rate(3, 10), "b": Rate(600, 1000), "c": Rate(300, 1000)}
    judged = judge_gap(rates, limit=0.1, reference="a", optional={"a"})
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert judged.explain()


def test_the_clearest_breach_decides_a_failure():
    """Of a large but uncertain gap and a smaller certain one, the certain one is named."""
    rates = {"a": Rate(1000, 5000), "b": Rate(2500, 5000), "c": Rate(20, 32)}
    judged = judge_gap(rates, limit=0.1)
    assert judged.verdict is Verdict.FAILED
    assert judged.pair == ("b", "a")
    assert judged.value == pytest.approx(0.3)
    assert judged.interval.low > 0.25
    assert worst_gap(rates).pair == ("c", "a")


def test_proof_needs_every_pair():
    """One uncertain pair is enough to leave a limit unproven."""
    rates = {"a": Rate(2000, 10000), "b": Rate(2000, 10000), "c": Rate(80, 400)}
    assert judge_gap(rates, limit=0.05, decide="proof").verdict is Verdict.INCONCLUSIVE
    del rates["c"]
    assert judge_gap(rates, limit=0.05, decide="proof").verdict is Verdict.PASSED


@pytest.mark.parametrize("aggregate", ["difference", "ratio"])
def test_without_support_a_check_says_what_it_needs(aggregate):
    """It names the rows there are, the rows it needs and the tightest limit it could judge."""
    rates = {"f": Rate(33, 109), "m": Rate(58, 200), "x": Rate(150, 500)}
    limit = 0.1 if aggregate == "difference" else 0.8
    judged = judge_gap(rates, limit=limit, aggregate=aggregate)
    assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "no_support")
    assert sorted(judged.sizes) == [109, 200]
    assert set(judged.weakest) == {"f", "m"}
    looser = judge_gap(rates, limit=judged.smallest_limit, aggregate=aggregate)
    assert looser.verdict is Verdict.PASSED
    n = judged.n_needed
    more = {name: Rate(round(0.3 * n), n) for name in rates}
    assert judge_gap(more, limit=limit, aggregate=aggregate).verdict is Verdict.PASSED


def test_a_breach_that_is_not_proven_warns():
    """With support, an estimate above the limit is said, and how many rows would tell."""
    rates = {"f": Rate(172, 400), "m": Rate(120, 400)}
    judged = judge_gap(rates, limit=0.1)
    assert (judged.verdict, judged.reason) == (Verdict.WARNED, "above_not_proven")
    assert judged.n_to_tell > 400
    assert f"about {judged.n_to_tell} rows each would tell" in judged.explain()
    ratio = judge_gap(rates, limit=0.75, aggregate="ratio")
    assert ratio.verdict is Verdict.WARNED
    assert ratio.n_to_tell > 400


def test_rates_of_zero_are_alike():
    """Two groups that are never selected have a ratio of 1, not 0/0."""
    rates = {"a": Rate(0, 500), "b": Rate(0, 500)}
    assert worst_gap(rates, aggregate="ratio").value == 1.0
    judged = judge_gap(rates, limit=0.8, aggregate="ratio")
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "no number of rows is enough" in judged.explain()


def test_a_limit_of_one_is_always_kept():
    """No gap exceeds the whole scale."""
    assert judge_gap({"a": Rate(0, 50), "b": Rate(50, 50)}, limit=1.0).verdict is Verdict.PASSED


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_mean_gaps_hold_their_estimate(seed):
    """The gap of means lies in its interval, for any spread of losses."""
    rng = np.random.default_rng(seed)
    losses = {name: rng.beta(*rng.uniform(0.3, 4, 2), rng.integers(30, 400)) for name in "abc"}
    means = [one.mean() for one in losses.values()]
    judged = judge_mean_gap(losses, limit=0.1, scale=1.0, decide="proof")
    assert judged.interval.low - 1e-9 <= judged.value <= judged.interval.high + 1e-9
    assert max(means) - min(means) >= judged.value - 1e-9


def test_mean_absolute_error_of_groups():
    """Equal errors pass, different ones fail, few rows say what they need."""
    rng = np.random.default_rng(2)
    base = rng.beta(2, 5, 2000)
    alike = {"f": base[:1000], "m": base[1000:]}
    apart = {"f": base[:1000], "m": base[1000:] * 0.3}
    assert judge_mean_gap(alike, limit=0.05, scale=1.0).verdict is Verdict.PASSED
    assert judge_mean_gap(apart, limit=0.05, scale=1.0).verdict is Verdict.FAILED
    assert judge_mean_gap(apart, limit=0.8, scale=1.0, aggregate="ratio").verdict is Verdict.FAILED
    few = judge_mean_gap({"f": base[:40], "m": base[40:80]}, limit=0.05, scale=1.0)
    assert few.reason == "no_support"
    assert few.n_needed > 40
    assert few.smallest_limit > 0.05
    ratio = judge_mean_gap(
        {"f": base[:40], "m": base[40:80]}, limit=0.8, scale=1.0, aggregate="ratio"
    )
    assert ratio.reason == "no_support"
    assert ratio.smallest_limit < 0.8


def test_mean_gap_between_limit_and_proof_warns():
    """An unproven breach of means says how many rows would tell."""
    rng = np.random.default_rng(9)
    losses = {"f": rng.beta(2, 5, 300) + 0.08, "m": rng.beta(2, 5, 300)}
    judged = judge_mean_gap(losses, limit=0.05, scale=1.2)
    assert judged.verdict is Verdict.WARNED
    assert judged.n_to_tell > 300


def test_the_scale_of_losses_is_found_or_given():
    """Without a scale the largest loss is one; a given one clips."""
    losses = {"f": np.linspace(0, 5, 500), "m": np.linspace(0, 5, 500)}
    assert judge_mean_gap(losses, limit=1.0).verdict is Verdict.PASSED
    clipped = judge_mean_gap(losses, limit=1.0, scale=1.0)
    assert clipped.groups[0].value < 1.0
    nothing = judge_mean_gap({"f": np.zeros(50), "m": np.zeros(50)}, limit=0.1)
    assert nothing.value == 0.0
    with pytest.raises(UsageError, match="NaN"):
        judge_mean_gap({"f": [math.nan] * 40, "m": [0.1] * 40}, limit=0.1)


def test_errors_are_shared():
    """Sidak is a little less strict than Bonferroni; run lengths add as rates."""
    assert bonferroni(0.05, 45) < sidak(0.05, 45) < 0.05
    assert sidak(0.05, 1) == pytest.approx(0.05)
    assert 1 / shared_run_length(1000, 1) == pytest.approx(5 / shared_run_length(1000, 5))
    for method in (sidak, bonferroni):
        with pytest.raises(UsageError):
            method(0.05, 0)
    with pytest.raises(UsageError):
        shared_run_length(1000, 0)


def test_losses_without_spread_have_no_free_support():
    """Thirty perfect rows a group pass nothing that they could not have failed."""
    few = {"f": np.zeros(30), "m": np.zeros(30)}
    judged = judge_mean_gap(few, limit=0.05, scale=1.0)
    assert judged.reason == "no_support"
    assert judge_mean_gap(
        {name: np.zeros(judged.n_needed) for name in few}, limit=0.05
    ).verdict is (Verdict.PASSED)
    judged = judge_mean_gap(few, limit=0.8, scale=1.0, aggregate="ratio")
    assert judged.reason == "no_support"
    assert judged.smallest_limit == 0.0
