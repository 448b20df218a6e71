"""Reweighing makes group and outcome independent, and changes nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.errors import UsageError
from mlguard.stats.reweighing import reweighing


def test_the_published_example():
    """Ten people, six of them men: favourable men weigh less, favourable women more."""
    sex = list("MMMMMMFFFF")
    favourable = [1, 1, 1, 1, 0, 0, 1, 1, 0, 0]
    found = reweighing(sex, favourable)
    assert found[:4] == pytest.approx(0.6 * 0.6 / 0.4)
    assert found[4:6] == pytest.approx(0.6 * 0.4 / 0.2)
    assert found[6:8] == pytest.approx(0.4 * 0.6 / 0.2)
    assert found[8:] == pytest.approx(0.4 * 0.4 / 0.2)


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 4))
def test_weighted_every_group_has_the_same_outcomes(seed, classes):
    """The weighted share of each class is that of all rows, in every group; sizes stay."""
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.repeat([0, 1, 2], classes), rng.integers(0, 3, 80)])
    outcome = np.concatenate([np.tile(np.arange(classes), 3), rng.integers(0, classes, 80)])
    weight = reweighing(group, outcome)
    assert weight.sum() == pytest.approx(group.size)
    for one in range(3):
        mine = group == one
        assert weight[mine].sum() == pytest.approx(mine.sum())
        for klass in range(classes):
            share = weight[mine & (outcome == klass)].sum() / mine.sum()
            assert share == pytest.approx((outcome == klass).mean())


def test_independent_data_is_left_as_it_is():
    """Where group and outcome are independent already, every row weighs 1."""
    assert reweighing(["a", "a", "b", "b"], [0, 1, 0, 1]).tolist() == [1, 1, 1, 1]


def test_columns_of_different_lengths_are_refused():
    """A weight belongs to a row."""
    with pytest.raises(UsageError, match="one entry a row"):
        reweighing(["a"], [0, 1])
