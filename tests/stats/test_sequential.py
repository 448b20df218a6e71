"""The e-detector: its recursion, its memory, and what it says of a change."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlguard.errors import UsageError
from mlguard.stats.intervals import wilson_interval
from mlguard.stats.sequential import (
    BETS,
    EDetector,
    estimate_change,
    lag1_correlation,
    reference_bound,
    reference_bound_of_losses,
)


def recursion(losses, theta, goal):
    """The definition, one loss at a time and without logarithms."""
    r = np.zeros(len(BETS))
    for index, loss in enumerate(losses):
        r = (1 + r) * (1 + BETS / theta * (loss - theta))
        if r.mean() >= goal:
            return index, r.mean()
    return None, r.mean()


def drifting(seed, n=600, theta=0.1, after=0.35):
    rng = np.random.default_rng(seed)
    change = int(rng.integers(0, n))
    rate = np.where(np.arange(n) < change, theta, after)
    return (rng.random(n) < rate).astype(float)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["errors", "losses"])
def test_it_is_the_recursion(seed, kind):
    """In log space and by batches, the evidence is that of the definition."""
    losses = drifting(seed)
    if kind == "losses":
        losses = losses * np.random.default_rng(seed).random(losses.size)
    index, evidence = recursion(losses, 0.1, 1000)
    detector = EDetector(0.1, average_run_length=1000)
    assert detector.update(losses) == index
    assert detector.alarm_at == index
    assert detector.log_evidence == pytest.approx(math.log(evidence), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(1, 200), max_size=12),
    st.sampled_from([1, 2, 7]),
    st.booleans(),
)
def test_batches_and_restarts_change_nothing(seed, sizes, block, restart):
    """In any batches, with or without a restart between them, the alarm is the same."""
    losses = drifting(seed)
    whole = EDetector(0.1, average_run_length=500, block=block)
    whole.update(losses)
    parts = EDetector(0.1, average_run_length=500, block=block)
    start = 0
    for size in [*sizes, losses.size]:
        found = parts.update(losses[start : start + size])
        if found is not None:
            assert start + found == parts.alarm_at
        if restart:
            parts = EDetector.restore(json.loads(json.dumps(parts.snapshot(), allow_nan=False)))
        start += size
    assert parts.alarm_at == whole.alarm_at
    assert parts.n == whole.n
    assert parts.change_point == whole.change_point
    if whole.log_evidence > -math.inf:
        assert parts.log_evidence == pytest.approx(whole.log_evidence, abs=1e-6)


def test_one_by_one_is_the_batch():
    """Label by label gives the same alarm as all at once."""
    losses = drifting(3)
    batch, single = EDetector(0.1, average_run_length=1000), EDetector(0.1, average_run_length=1000)
    batch.update(losses)
    for loss in losses:
        single.update([loss])
    assert single.alarmed
    assert single.alarm_at == batch.alarm_at
    assert single.change_point == batch.change_point


def test_after_an_alarm_nothing_is_taken():
    """The alarm stays where it was raised."""
    detector = EDetector(0.1, average_run_length=100)
    assert detector.update(np.ones(50)) is not None
    before = detector.snapshot()
    assert detector.update(np.zeros(1000)) is None
    assert detector.alarmed
    assert detector.evidence_share == 1.0
    assert detector.snapshot() == before


def test_evidence_moves_between_nothing_and_the_alarm():
    """The share of the way to the alarm lies in [0, 1] and falls while all is well."""
    detector = EDetector(0.1, average_run_length=10_000)
    assert detector.log_evidence == -math.inf
    assert detector.evidence_share == 0.0
    detector.update([1.0, 1.0, 1.0])
    worried = detector.evidence_share
    detector.update(np.zeros(100))
    assert 0 < detector.evidence_share < worried < 1


def test_half_a_million_calm_labels_cost_little_and_lose_nothing():
    """Long calm neither overflows nor hides the change that follows."""
    detector = EDetector(0.3, average_run_length=1e9)
    assert detector.update(np.tile([0.0, 0.0, 0.0, 1.0], 125_000)) is None
    assert detector.change_point is None or detector.change_point > 490_000
    found = detector.update(np.tile([1.0, 1.0, 0.0], 1000))
    assert found is not None
    assert detector.change_point == pytest.approx(500_000, abs=30)


@pytest.mark.parametrize("seed", range(5))
def test_the_change_point_is_near_the_change(seed):
    """A change from 5 to 40 % errors is placed within a few labels."""
    rng = np.random.default_rng(seed)
    losses = (rng.random(1500) < np.where(np.arange(1500) < 1000, 0.05, 0.4)).astype(float)
    detector = EDetector(0.1, average_run_length=1e5)
    index = detector.update(losses)
    assert 1000 <= index < 1100
    change = estimate_change(losses[: index + 1], 0.1)
    assert change.earliest <= change.index <= change.latest
    assert change.index == pytest.approx(1000, abs=40)
    assert change.earliest <= 1005
    assert detector.change_point == change.index
    assert change.before < 0.1 < change.after


def test_a_calm_stretch_has_no_change():
    """Where nothing speaks for a rise, none is invented."""
    assert estimate_change(np.zeros(100), 0.1) is None
    assert estimate_change([], 0.1) is None
    assert EDetector(0.1).change_point is None


def test_a_change_at_the_first_label_has_no_before():
    """A detector that starts inside a drift says so."""
    change = estimate_change(np.ones(10), 0.1)
    assert change.index == 0
    assert math.isnan(change.before)


def test_blocks_are_judged_whole():
    """The alarm falls on the last label of a block, and a rest waits for its block."""
    detector = EDetector(0.1, average_run_length=100, block=10)
    assert detector.update(np.ones(9)) is None
    assert detector.log_evidence == -math.inf
    detector.update(np.ones(5))
    assert detector.n == 10 if detector.alarmed else 14
    detector = EDetector(0.1, average_run_length=1e6, block=10)
    found = detector.update(np.ones(500))
    assert (found + 1) % 10 == 0


@pytest.mark.parametrize("bad", [[math.nan], [1.1], [-0.1], [0.5, math.inf]])
def test_impossible_losses_are_refused_and_nothing_is_taken(bad):
    """A NaN or a loss beyond its scale is a mistake of the caller, not evidence."""
    detector = EDetector(0.1)
    detector.update([0.5])
    before = detector.snapshot()
    with pytest.raises(UsageError, match=r"\[0\.0, 1\.0\]"):
        detector.update([0.0, *bad])
    assert detector.snapshot() == before


@pytest.mark.parametrize("theta", [0.0, 1.0, 1.2, -0.1, math.nan])
def test_a_level_that_detects_nothing_is_refused(theta):
    """An acceptable loss of 1 or more can never be exceeded."""
    with pytest.raises(UsageError, match="theta is"):
        EDetector(theta)


@pytest.mark.parametrize("changes", [{"average_run_length": 0}, {"block": 0}])
def test_impossible_parameters_are_refused(changes):
    """No run length, or no labels in a block."""
    with pytest.raises(UsageError, match="expected at least 1"):
        EDetector(0.1, **changes)


def test_the_reference_bound_is_wilsons_plus_tolerance():
    """The acceptable loss is the one-sided upper bound and what is ignored on top."""
    bound = wilson_interval(80, 1000, side="high").high
    assert reference_bound(80, 1000, tolerance=0.03) == pytest.approx(bound + 0.03)
    errors = np.repeat([1.0, 0.0], [80, 920])
    assert reference_bound_of_losses(errors, tolerance=0.03) == pytest.approx(bound + 0.03)
    assert reference_bound(0, 50) > 0.02


def test_a_hopeless_reference_is_refused_by_its_numbers():
    """A bound that no loss can exceed names the bound, the rows and the tolerance."""
    with pytest.raises(UsageError, match=r"as large as 1\.000 \(3 rows\)") as caught:
        reference_bound(3, 3)
    assert caught.value.data["tolerance"] == 0.02
    with pytest.raises(UsageError, match="no sample"):
        reference_bound(0, 0)
    with pytest.raises(UsageError, match="no values"):
        reference_bound_of_losses([])


def test_runs_of_errors_are_seen():
    """The lag-1 correlation of independent errors is near 0, of a sticky chain near its own."""
    rng = np.random.default_rng(1)
    assert abs(lag1_correlation(rng.random(5000) < 0.1)) < 0.05
    state, chain = 0.0, []
    for draw in rng.random(20_000):
        stay = 0.1 + 0.5 * (state - 0.1)
        state = float(draw < stay)
        chain.append(state)
    assert lag1_correlation(chain) == pytest.approx(0.5, abs=0.05)
    assert math.isnan(lag1_correlation([1.0, 0.0]))
    assert math.isnan(lag1_correlation([1.0] * 10))
    assert math.isnan(lag1_correlation([]))


def test_a_snapshot_of_other_bets_is_refused():
    """Evidence of another set of bets is not carried over in silence."""
    snapshot = EDetector(0.1).snapshot()
    snapshot["log_r"] = snapshot["log_r"][:-1]
    with pytest.raises(UsageError, match="11 bets, expected 12"):
        EDetector.restore(snapshot)
