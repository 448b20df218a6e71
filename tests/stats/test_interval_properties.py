"""What holds of every interval, whatever the data."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlguard.stats.betting import BettingSequence
from mlguard.stats.intervals import (
    PairedTable,
    betting_interval,
    clopper_pearson_interval,
    mean_interval,
    mover_ratio,
    newcombe_difference,
    newcombe_paired,
    wilson_interval,
)

sample = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.tuples(st.floats(0.5, 0.9), st.floats(0.9, 0.9999))
losses = arrays.arrays(float, st.integers(1, 150), elements=st.floats(0, 1))
SLACK = 1e-9


@settings(max_examples=60, deadline=None)
@given(sample, levels)
def test_proportions_hold_the_estimate_and_nest(counts, pair):
    """An interval holds its estimate, and a higher level only widens it."""
    successes, n = counts
    for method in (wilson_interval, clopper_pearson_interval):
        inner, outer = (method(successes, n, confidence_level=level) for level in pair)
        assert 0 <= outer.low <= inner.low + SLACK
        assert inner.low - SLACK <= successes / n <= inner.high + SLACK
        assert inner.high <= outer.high + SLACK <= 1 + 2 * SLACK


@settings(max_examples=60, deadline=None)
@given(sample)
def test_proportions_mirror_when_labels_swap(counts):
    """Counting failures instead of successes mirrors the interval."""
    successes, n = counts
    for method in (wilson_interval, clopper_pearson_interval):
        low, high = method(successes, n)
        assert method(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(sample, sample, levels)
def test_differences_hold_the_estimate_nest_and_mirror(first, second, pair):
    """Swapping the two samples turns the sign of the interval."""
    inner, outer = (newcombe_difference(*first, *second, confidence_level=one) for one in pair)
    estimate = first[0] / first[1] - second[0] / second[1]
    assert -1 - SLACK <= outer.low <= inner.low + SLACK
    assert inner.low - SLACK <= estimate <= inner.high + SLACK
    assert inner.high <= outer.high + SLACK <= 1 + 2 * SLACK
    low, high = newcombe_difference(*second, *first, confidence_level=pair[0])
    assert inner == pytest.approx((-high, -low), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(sample, sample, levels)
def test_ratios_hold_the_estimate_nest_and_mirror(first, second, pair):
    """Swapping the two samples turns the ratio's interval upside down."""
    inner, outer = (mover_ratio(*first, *second, confidence_level=one) for one in pair)
    assert 0 <= outer.low <= inner.low + SLACK
    assert inner.high <= outer.high * (1 + SLACK)
    if second[0]:
        estimate = first[0] / first[1] / (second[0] / second[1])
        assert inner.low * (1 - SLACK) <= estimate <= inner.high * (1 + SLACK)
    if first[0] and second[0]:
        low, high = mover_ratio(*second, *first, confidence_level=pair[0])
        assert inner.low == pytest.approx(1 / high if high < math.inf else 0, rel=1e-6, abs=1e-9)
        assert inner.high == pytest.approx(1 / low, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 200)] * 4).filter(any), levels)
def test_paired_holds_the_estimate_nests_and_mirrors(cells, pair):
    """Swapping the two answers turns the sign of the paired interval."""
    table = PairedTable(*cells)
    swapped = PairedTable(cells[0], cells[2], cells[1], cells[3])
    inner, outer = (newcombe_paired(table, confidence_level=level) for level in pair)
    assert outer.low <= inner.low + SLACK
    assert inner.low - SLACK <= table.difference <= inner.high + SLACK
    assert inner.high <= outer.high + SLACK
    low, high = newcombe_paired(swapped, confidence_level=pair[0])
    assert inner == pytest.approx((-high, -low), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(losses, levels)
def test_means_hold_the_estimate_and_nest(values, pair):
    """The interval of a mean holds the mean, inside the scale, and nests in the level."""
    for method in (mean_interval, betting_interval):
        inner, outer = (method(values, confidence_level=level) for level in pair)
        assert -SLACK <= outer.low <= inner.low + 1e-6
        assert inner.low - SLACK <= values.mean() <= inner.high + SLACK
        assert inner.high - 1e-6 <= outer.high <= 1 + SLACK


@settings(deadline=None, max_examples=40)
@given(losses, st.integers(0, 150))
def test_a_betting_sequence_may_be_cut_and_restarted_anywhere(values, cut):
    """Batches and a restart give the interval of one pass."""
    whole = BettingSequence(cells=50)
    whole.update(values)
    first = BettingSequence(cells=50)
    first.update(values[:cut])
    second = BettingSequence.restore(first.snapshot())
    second.update(values[cut:])
    assert second.n == whole.n
    assert second.interval == pytest.approx(whole.interval, abs=1 / 50 + SLACK)


def test_a_betting_sequence_only_narrows():
    """What was ruled out stays ruled out."""
    rng = np.random.default_rng(0)
    sequence = BettingSequence()
    before = sequence.interval
    for _ in range(30):
        now = sequence.update(rng.random(50))
        assert before.low <= now.low
        assert now.high <= before.high
        before = now
    assert 0.45 < now.low < 0.5 < now.high < 0.55
