"""The assertions that checks made of incidents call."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlguard.checks import CheckFailedError, assert_answers, assert_loss
from mlguard.errors import DataError, UsageError
from mlguard.results import Verdict
from mlguard.stats.proportions import wilson_interval


class Constant:
    """Answers one thing to every row."""

    def __init__(self, value):
        self.value = value

    def predict(self, rows):
        return np.full(len(rows), self.value)


def frame(truth):
    return pd.DataFrame({"x": np.zeros(len(truth)), "y": truth})


def test_a_share_of_errors_is_held_against_its_limit():
    """The value is the share of wrong rows, its interval Wilson's; above the limit it fails."""
    rows = frame([0] * 380 + [1] * 20)
    found = assert_loss(Constant(0), rows, at_most=0.1, target="y")
    assert (found.verdict, found.value, found.n) == (Verdict.PASSED, 0.05, 400)
    assert found.interval == pytest.approx(tuple(wilson_interval(20, 400)))
    with pytest.raises(CheckFailedError, match=r"at most 0\.02"):
        assert_loss(Constant(0), rows, at_most=0.02, target="y", decide="estimate")
    with pytest.raises(CheckFailedError):
        assert_loss(Constant(1), rows, at_most=0.1, target="y")


def test_rows_that_are_the_whole_may_be_few():
    """As an estimate a handful of rows decides; as evidence it does not."""
    rows = frame([0] * 9 + [1])
    kept = assert_loss(Constant(0), rows, at_most=0.1, target="y", decide="estimate")
    assert kept.verdict is Verdict.PASSED
    with pytest.raises(CheckFailedError):
        assert_loss(Constant(0), rows, at_most=0.1, target="y")


def test_a_regression_is_judged_on_its_scale():
    """The loss is the absolute error over the scale, at most 1 a row."""
    rows = frame(np.r_[np.full(150, 1.0), np.full(50, 100.0)])
    found = assert_loss(Constant(0.0), rows, at_most=0.5, scale=4.0, target="y", decide="estimate")
    assert found.value == pytest.approx((150 * 0.25 + 50) / 200)
    low, high = found.interval
    assert low < found.value < high


def test_no_answer_is_the_worst_one():
    """A prediction that is not finite loses 1, and is no answer."""
    rows = frame([0.0] * 10)
    with pytest.raises(CheckFailedError):
        assert_loss(Constant(np.nan), rows, at_most=0.9, scale=1.0, target="y", decide="estimate")
    with pytest.raises(CheckFailedError, match="10 of 10"):
        assert_answers(Constant(np.nan), rows, target="y")
    assert assert_answers(Constant(1.0), rows, target="y").verdict is Verdict.PASSED


def test_what_cannot_be_judged_is_refused():
    """No rows, rows without labels and impossible limits are errors, never a pass."""
    with pytest.raises(DataError, match="no rows"):
        assert_loss(Constant(0), frame([]), at_most=0.1, target="y")
    with pytest.raises(DataError, match="no rows"):
        assert_answers(Constant(0), frame([]), target="y")
    with pytest.raises(DataError, match="have no label"):
        assert_loss(Constant(0), frame([0, None]), at_most=0.1, target="y")
    with pytest.raises(DataError, match="no column"):
        assert_loss(Constant(0), frame([0]), at_most=0.1, target="z")
    with pytest.raises(UsageError, match="at_most"):
        assert_loss(Constant(0), frame([0]), at_most=1.0, target="y")
