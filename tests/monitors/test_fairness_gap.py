"""Gaps between groups on live answers."""

import numpy as np
import pytest

from mlguard.config import FairnessMonitor
from mlguard.monitors.fairness import FairnessGap
from mlguard.monitors.window import Coverage
from mlguard.results import Verdict


def groups(n):
    return [{"sex": "F" if place % 2 else "M"} for place in range(n)]


def window(make_window, n, errors, **named):
    """Rows of two groups that err at the given rates."""
    rng = np.random.default_rng(4)
    rates = np.where(np.arange(n) % 2, errors[0], errors[1])
    truth = rng.integers(0, 2, n)
    wrong = rng.random(n) < rates
    named.setdefault("groups", groups(n))
    return make_window(
        n, output=np.where(wrong, 1 - truth, truth).tolist(), label=truth.tolist(), **named
    )


def test_groups_that_fare_alike(make_window, app):
    """Equal error rates with enough rows pass."""
    monitor = FairnessGap(FairnessMonitor(), {"classes": [0, 1]}, app)
    [found] = monitor.judge(window(make_window, 1200, (0.1, 0.1)))
    assert (found.verdict, found.subject) == (Verdict.PASSED, "sex")
    assert {one.group for one in found.measurements} == {"sex=F", "sex=M"}


def test_a_gap_fails_with_its_groups(make_window, app):
    """A proven gap fails and names both groups."""
    monitor = FairnessGap(FairnessMonitor(), {"classes": [0, 1]}, app)
    [found] = monitor.judge(window(make_window, 1200, (0.4, 0.1)))
    assert found.verdict is Verdict.FAILED
    assert found.interval[0] > found.limit
    assert set(found.details["pair"]) == {"F", "M"}


@pytest.mark.parametrize("n", [2, 40, 120])
def test_small_groups_are_undecided_and_not_blind(make_window, app, n):
    """Too few rows in a group say so in that group's own numbers."""
    from mlguard.policy import is_blind

    monitor = FairnessGap(FairnessMonitor(), {"classes": [0, 1]}, app)
    [found] = monitor.judge(window(make_window, n, (0.1, 0.1)))
    assert found.verdict is Verdict.INCONCLUSIVE
    # Of a few people nobody is told how few.
    assert found.n is None or 10 <= found.n < found.n_min
    assert not is_blind([found] * 5)


def test_rows_that_name_no_group_are_left_out(make_window, app):
    """Half of the callers say nothing of sex: the others are compared, the rest counted."""
    named = [{} if place % 4 < 2 else one for place, one in enumerate(groups(2400))]
    monitor = FairnessGap(FairnessMonitor(), {"classes": [0, 1]}, app)
    [found] = monitor.judge(window(make_window, 2400, (0.1, 0.1), groups=named))
    assert found.verdict is Verdict.PASSED
    assert found.details["rows_without_group"] == 1200
    [none] = monitor.judge(window(make_window, 100, (0.1, 0.1), groups=[{}] * 100))
    assert (none.verdict, none.n) == (Verdict.INCONCLUSIVE, 0)


def test_selection_rates_need_no_labels(make_window, app):
    """The share of positive answers is judged on rows as they are answered."""
    monitor = FairnessGap(FairnessMonitor(metric="selection_rate"), {"classes": ["no", "yes"]}, app)
    assert monitor.clock == "rows"
    output = ["yes" if place % 2 else "no" for place in range(800)]
    [found] = monitor.judge(make_window(800, output=output, groups=groups(800)))
    assert found.verdict is Verdict.FAILED
    assert found.value == 1.0


def test_a_regression_is_compared_in_its_own_unit(make_window, app):
    """The mean absolute error of each group is compared unclipped."""
    monitor = FairnessGap(FairnessMonitor(metric="mean_absolute_error", at_most=1), {}, app)
    output = [10.0 + (5.0 if place % 2 else 1.0) for place in range(800)]
    [found] = monitor.judge(make_window(800, output=output, label=[10.0] * 800, groups=groups(800)))
    assert found.verdict is Verdict.FAILED
    assert found.value == pytest.approx(4.0)


def test_missing_labels_make_it_undecided(make_window, app):
    """Where due labels did not come, those that did prove nothing."""
    monitor = FairnessGap(FairnessMonitor(), {"classes": [0, 1]}, app)
    data = window(make_window, 1200, (0.4, 0.1), coverage=Coverage(n_due=3000, n_labelled=1200))
    [found] = monitor.judge(data)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "no_labels")
