"""Two versions side by side: against the sequences they are made of, and across restarts."""

import json

import numpy as np
import pytest

from mlguard.errors import UsageError
from mlguard.stats.betting import BettingSequence
from mlguard.stats.concurrent import Ceiling, Paired, TwoArms


@pytest.fixture
def losses():
    rng = np.random.default_rng(0)
    return (rng.random(400) < 0.3).astype(float), (rng.random(400) < 0.1).astype(float)


def test_two_arms_are_two_sequences(losses):
    """Its bounds are those of one sequence each, at a level that shares alpha."""
    arms = TwoArms(margin=0.02, alpha=0.05, n_min=100)
    arms.update(*losses)
    new, other = (BettingSequence(confidence_level=0.95).update(one) for one in losses)
    standing = arms.standing
    assert (standing.low, standing.high) == (new.low - other.high, new.high - other.low)
    assert standing.value == pytest.approx(losses[0].mean() - losses[1].mean())
    assert (standing.n, standing.n_other) == (400, 400)
    assert standing.state == ("worse" if standing.low > 0.02 else "above")


def test_pairs_are_one_sequence_of_differences(losses):
    """Its bounds are those of the mean difference, in [-1, 1], one-sided at alpha."""
    pairs = Paired(margin=0.02, alpha=0.05, n_min=100)
    pairs.update(*losses)
    found = BettingSequence(confidence_level=0.9, low=-1, high=1).update(losses[0] - losses[1])
    assert (pairs.standing.low, pairs.standing.high) == (found.low, found.high)


@pytest.mark.parametrize("kind", [TwoArms, Paired])
def test_nothing_is_said_of_too_few_but_that_all_is_lost(kind):
    """Below n_min nothing passes; what is proven worse is worse at any number."""
    one = kind(margin=0.02, alpha=0.05, n_min=100)
    assert (one.standing.state, one.standing.value) == ("few", None)
    one.update(np.zeros(50), np.zeros(50))
    assert one.standing.state == "few"
    other = kind(margin=0.02, alpha=0.05, n_min=100)
    other.update(np.ones(50), np.zeros(50))
    assert other.standing.state == "worse"


def test_the_estimate_is_looked_at_when_rows_have_doubled():
    """At 100, 200, 400 rows; what it was in between gives no pass and takes none back."""
    one = Ceiling(limit=0.1, alpha=0.01, n_min=100)
    one.update([0.0] * 80 + [1.0] * 20)  # 20 % at the first look
    assert one.standing.state == "above"
    one.update([0.0] * 99)  # 10.05 % of 199: no look
    assert one.standing.state == "above"
    one.update([0.0])
    assert one.standing.state == "alike"
    one.update([1.0] * 5)
    assert one.standing.state == "alike"


def test_worse_is_not_taken_back():
    """A bound that was passed once stays passed, whatever comes after."""
    one = TwoArms(margin=0.02, alpha=0.05, n_min=100)
    one.update(np.ones(100), np.zeros(100))
    one.update(np.zeros(5000), np.zeros(5000))
    assert one.standing.state == "worse"


@pytest.mark.parametrize(
    "make",
    [
        lambda: TwoArms(margin=0.02, alpha=0.05, n_min=100),
        lambda: Paired(margin=0.02, alpha=0.05, n_min=100),
        lambda: Ceiling(limit=0.2, alpha=0.05, n_min=20),
    ],
    ids=["arms", "pairs", "ceiling"],
)
def test_a_restart_changes_nothing(make, losses):
    """Restored from JSON in the middle, it stands where it would have stood."""

    def give(one, part):
        one.update(*([one_arm[part] for one_arm in losses][: 1 if isinstance(one, Ceiling) else 2]))

    whole, first = make(), make()
    for part in (slice(0, 150), slice(150, 400)):
        give(whole, part)
    give(first, slice(0, 150))
    second = make().restore(json.loads(json.dumps(first.snapshot())))
    give(second, slice(150, 400))
    assert second.standing == whole.standing
    assert second.snapshot() == whole.snapshot()


def test_what_is_no_pair_is_refused():
    """Unequal numbers, and losses outside [0, 1], are told apart from evidence."""
    with pytest.raises(UsageError, match="no pairs"):
        Paired(margin=0.0, alpha=0.05, n_min=1).update([0.0], [0.0, 1.0])
    with pytest.raises(UsageError, match="must lie"):
        TwoArms(margin=0.0, alpha=0.05, n_min=1).update([2.0], [0.0])
