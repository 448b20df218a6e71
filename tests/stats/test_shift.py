"""A rise of the loss taken apart: parts that add up, and the right part where there is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlguard.errors import UsageError
from mlguard.stats.shift import segment_parts, shift_parts

rows = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=30
)


@settings(deadline=None, max_examples=80)
@given(before=rows, after=rows)
def test_parts_add_up(before, after):
    """Whatever the rows and cells, the four parts add up to the change, and so do the segments."""
    old, new = (np.array(one, dtype=float).T for one in (before, after))
    found = shift_parts(
        old[0],
        new[0],
        cell_before=old[1],
        cell_after=new[1],
        class_before=old[2],
        class_after=new[2],
        n_boot=3,
    )
    change = new[0].mean() - old[0].mean()
    assert found.change.value == pytest.approx(change, abs=1e-9)
    assert sum(one.value for one in found.parts.values()) == pytest.approx(change, abs=1e-9)
    assert all(one.interval.low <= one.value <= one.interval.high for one in found.parts.values())
    segments = segment_parts(old[0], new[0], segment_before=old[1], segment_after=new[1])
    assert sum(one.share.value for one in segments) == pytest.approx(change, abs=1e-9)
    for one in segments:
        assert one.mix + one.own == pytest.approx(one.share.value, abs=1e-12)


def population(rng, n, *, cells=(0.25,) * 4, classes=None, worse=0.0):
    """Rows whose class depends on the cell and whose loss depends on both."""
    cell = rng.choice(4, size=n, p=cells)
    kind = (rng.random(n) < 0.2 + 0.2 * cell).astype(int)
    if classes is not None:
        # Only how often each class occurs changes: among its rows the cells stay as they were.
        keep = rng.random(n) < np.where(kind == 1, classes, 1.0)
        cell, kind = cell[keep], kind[keep]
    loss = (rng.random(len(cell)) < 0.05 + 0.12 * cell + 0.35 * (kind == 0) + worse).astype(float)
    return loss, cell, kind


def taken_apart(after, rng, **options):
    old = population(rng, 60_000)
    return shift_parts(
        old[0],
        after[0],
        cell_before=old[1],
        cell_after=after[1],
        class_before=old[2],
        class_after=after[2],
        **options,
    )


def test_other_inputs_leave_nothing_to_the_concept():
    """Where only the mix of inputs changes, reweighting it gives the loss after."""
    rng = np.random.default_rng(1)
    found = taken_apart(population(rng, 60_000, cells=(0.6, 0.2, 0.1, 0.1)), rng)
    assert abs(found.change.value) > 0.03
    assert found.inputs_alone == pytest.approx(found.change.value, abs=0.008)
    assert abs(found.concept.value) < 0.008
    assert found.concept.interval.low < 0 < found.concept.interval.high


def test_other_classes_leave_nothing_to_the_concept():
    """Where only the mix of classes changes, reweighting it gives the loss after."""
    rng = np.random.default_rng(2)
    found = taken_apart(population(rng, 90_000, classes=0.3), rng)
    assert found.change.value > 0.05
    assert found.classes_alone == pytest.approx(found.change.value, abs=0.008)
    assert abs(found.concept.value) < 0.008
    assert found.label.value > found.covariate.value


def test_a_worse_answer_to_the_same_rows_is_the_concept():
    """Where neither mix changes, all of the rise is the concept's."""
    rng = np.random.default_rng(3)
    found = taken_apart(population(rng, 60_000, worse=0.2), rng)
    assert found.concept.value == pytest.approx(0.2, abs=0.01)
    assert abs(found.covariate.value) < 0.005
    assert abs(found.label.value) < 0.005
    assert found.concept.interval.low > 0.18


def test_cells_that_nobody_had_seen_stand_apart():
    """Rows in cells without rows before are their own part, with nothing left for the rest."""
    found = shift_parts(
        [0, 0, 1, 1],
        [0, 1, 1, 1],
        cell_before=[0, 0, 0, 0],
        cell_after=[0, 0, 1, 1],
        class_before=[0] * 4,
        class_after=[0] * 4,
        n_boot=1,
    )
    assert found.unseen.value == pytest.approx(0.25)
    assert found.concept.value == pytest.approx(0.0)


def test_the_interval_covers():
    """The interval of the concept part holds the true part in about 95 of 100 samples."""
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        old, new = population(rng, 800), population(rng, 400, worse=0.1)
        found = shift_parts(
            old[0],
            new[0],
            cell_before=old[1],
            cell_after=new[1],
            class_before=old[2],
            class_after=new[2],
        )
        covered += found.concept.interval.low <= 0.1 <= found.concept.interval.high
    # Binomial(60, .95) lies below 51 once in 500; bootstrap intervals fall somewhat short.
    assert covered >= 50


def test_a_segment_s_interval_covers():
    """The normal interval of one segment's share holds the true share about as often as it says."""
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        old, new = population(rng, 600), population(rng, 300, worse=0.1)
        found = segment_parts(old[0], new[0], segment_before=old[1], segment_after=new[1])
        # A quarter of the rows lies in it on either side, and its loss rises by 0.1.
        covered += found[3].share.interval.low <= 0.025 <= found[3].share.interval.high
    # Binomial(200, .95): 181 to 198 at 1 in 1000 a side.
    assert 180 <= covered <= 199


def test_without_rows_there_is_no_change():
    """A side without rows is refused by name."""
    with pytest.raises(UsageError, match="has none"):
        segment_parts([], [1.0], segment_before=[], segment_after=[0])
    with pytest.raises(UsageError, match="has none"):
        shift_parts(
            [1.0],
            [],
            cell_before=[0],
            cell_after=[],
            class_before=[0],
            class_after=[],
        )
