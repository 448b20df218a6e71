"""Gaps between groups on live answers."""

import numpy as np
import pytest

from mlguard.config import FairnessMonitor
from mlguard.data.profile import Profile
from mlguard.monitors.fairness import FairnessGap
from mlguard.monitors.window import Coverage, ProfileWindow
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


@pytest.mark.parametrize(("share", "verdict"), [(0.30, Verdict.PASSED), (0.55, Verdict.FAILED)])
def test_selection_rates_by_counts_are_those_by_rows(make_window, app, share, verdict):
    """Merged counts of sixteen servers and a table of all rows give one answer, floor and all."""
    rng = np.random.default_rng(8)
    n = 4000
    women = np.arange(n) % 2 == 1
    output = np.where(rng.random(n) < np.where(women, share, 0.3), "yes", "no")
    default, valid = rng.random(n) < 0.05, rng.random(n) > 0.02
    named = groups(n)
    for place in range(0, n, 50):
        named[place] = {}
    rows = make_window(n, output=output.tolist(), groups=named, default=default, valid=valid)
    grid = Profile.reference(
        {"x": np.arange(20.0)},
        {"x": "number"},
        groups={"sex": ["F", "M"] * 10},
        answers=["no", "yes"] * 10,
        classes=["no", "yes"],
    )
    reference = {"classes": ["no", "yes"], "profile": grid.to_json()}
    settings = FairnessMonitor(metric="selection_rate", floor=0.2)
    monitor = FairnessGap(settings, reference, app)
    assert monitor.profiled
    whole = None
    for part in range(16):
        mine = [place for place in range(part, n, 16) if valid[place]]
        counted = grid.summarise(
            {"x": np.zeros(len(mine))},
            groups={"sex": [named[place].get("sex") for place in mine]},
            answers=[None if default[place] else str(output[place]) for place in mine],
        )
        whole = counted if whole is None else whole.merge(counted)
    window = ProfileWindow(version="v1", window=rows.window, profile=whole)
    by_counts, by_rows = monitor.judge_profile(window), monitor.judge(rows)
    assert len(by_counts) == len(by_rows) == 2
    assert by_counts[0].verdict is verdict
    for one, other in zip(by_counts, by_rows, strict=True):
        assert (one.name, one.verdict, one.value, one.interval) == (
            *(other.name, other.verdict, other.value, other.interval),
        )
        assert one.measurements == other.measurements


def test_without_counts_by_group_rows_are_judged(make_window, app):
    """An older reference, a metric that needs labels, a class without a name: by rows."""
    plain = {"classes": [0, 1], "profile": Profile.reference({"x": [1.0]}).to_json()}
    selection = FairnessMonitor(metric="selection_rate")
    assert not FairnessGap(selection, plain, app).profiled
    assert not FairnessGap(selection, {"classes": [0, 1]}, app).profiled
    grid = Profile.reference({"x": [1.0]}, groups={"sex": ["F"]}, answers=["0"], classes=["0", "1"])
    counted = {"classes": [0, 1], "profile": grid.to_json()}
    assert FairnessGap(selection, counted, app).profiled
    assert not FairnessGap(FairnessMonitor(), counted, app).profiled
    # A server of an older release counted this window without groups.
    window = make_window(10).window
    counts = grid.summarise({"x": [1.0]})
    [found] = FairnessGap(selection, counted, app).judge_profile(
        ProfileWindow(version="v1", window=window, profile=counts)
    )
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "few")


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
