"""Groups beside everybody, beside a limit, beside stated shares; weights and composites."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mlguard.errors import UsageError
from mlguard.results import Verdict
from mlguard.stats.cells import Cells, equal_rows
from mlguard.stats.comparison import GroupEstimate, compare_shares
from mlguard.stats.composites import calibration_figure, f_score_figure, judge_composite_gap
from mlguard.stats.groups import Overall, Rate, judge_comparison, judge_gap, judge_mean_gap
from mlguard.stats.proportions import newcombe_difference, wilson_interval


def overall_of(rates):
    n = sum(one.n for one in rates.values())
    hits = sum(one.successes for one in rates.values())
    return Overall(
        {name: Rate(hits - one.successes, n - one.n) for name, one in rates.items()},
        {name: one.n / n for name, one in rates.items()},
    )


def test_a_group_against_everybody_is_the_group_against_the_others():
    """(1 - w) times Newcombe's interval of group and others, which are independent."""
    rates = {"a": Rate(60, 200), "b": Rate(320, 800)}
    judged = judge_gap(rates, limit=0.01, overall=overall_of(rates), decide="proof")
    assert judged.value == pytest.approx(0.38 - 0.30)
    low, high = newcombe_difference(320, 800, 60, 200, confidence_level=judged.confidence_level)
    assert judged.interval == pytest.approx((0.8 * low, 0.8 * high))
    assert judged.pair == ("a",)


def test_a_ratio_to_everybody_is_folded():
    """Below 1 whichever is larger; the interval holds it and ends at 1 where the order is open."""
    rates = {"a": Rate(100, 200), "b": Rate(240, 800)}
    judged = judge_gap(rates, limit=0.9, aggregate="ratio", overall=overall_of(rates))
    assert judged.value == pytest.approx(0.34 / 0.5)
    assert judged.interval.low < judged.value < judged.interval.high < 1
    alike = {"a": Rate(60, 200), "b": Rate(244, 800)}
    judged = judge_gap(alike, limit=0.5, aggregate="ratio", overall=overall_of(alike))
    assert judged.interval.high == 1
    nobody = {"a": Rate(0, 200), "b": Rate(0, 800)}
    judged = judge_gap(nobody, limit=0.5, aggregate="ratio", overall=overall_of(nobody))
    assert judged.value == 1


def test_a_gap_that_cannot_be_as_large_as_the_limit_passes():
    """A group that is almost everybody cannot differ much from everybody."""
    rates = {"a": Rate(300, 1000), "b": Rate(15, 40)}
    judged = judge_gap(rates, limit=0.3, overall=overall_of(rates))
    assert judged.verdict is Verdict.PASSED


def test_each_group_alone_has_its_wilson_interval():
    """``group_min`` and ``group_max`` judge each group, at a level for all of them together."""
    rates = {"a": Rate(180, 200), "b": Rate(140, 200)}
    judged = judge_gap(rates, limit=0.8, aggregate="group_min")
    assert judged.verdict is Verdict.FAILED
    assert judged.pair == ("b",)
    known = wilson_interval(140, 200, confidence_level=judged.confidence_level)
    assert judged.interval == pytest.approx(known)
    assert judge_gap(rates, limit=0.6, aggregate="group_min").verdict is Verdict.PASSED
    assert judge_gap(rates, limit=0.95, aggregate="group_max").verdict is Verdict.PASSED
    few = judge_gap({"a": Rate(30, 40)}, limit=0.9, aggregate="group_max")
    assert few.verdict in (Verdict.PASSED, Verdict.INCONCLUSIVE)
    none = judge_gap({"a": Rate(36, 40)}, limit=0.9, aggregate="group_min")
    assert none.verdict is Verdict.INCONCLUSIVE
    assert none.n_needed > 40


def test_signed_means_are_compared_and_have_no_ratio():
    """Residuals of both signs; a negative loss that should not be one is refused."""
    random = np.random.default_rng(0)
    residuals = {"a": random.normal(1, 2, 900), "b": random.normal(-1, 2, 900)}
    judged = judge_mean_gap(residuals, limit=1.0, signed=True)
    assert judged.verdict is Verdict.FAILED
    assert judged.value == pytest.approx(2, abs=0.3)
    with pytest.raises(UsageError, match="no ratio"):
        judge_mean_gap(residuals, limit=0.8, signed=True, aggregate="ratio")
    with pytest.raises(UsageError):
        judge_mean_gap(residuals, limit=1.0)


def test_small_optional_groups_leave_a_lenient_judgement_decided():
    """The group without support goes; large ones stay, also if the small one is required."""
    rates = {"a": Rate(200, 1000), "b": Rate(210, 1000), "c": Rate(16, 80)}
    strict = judge_gap(rates, limit=0.1)
    assert strict.reason == "no_support"
    lenient = judge_gap(rates, limit=0.1, optional={"a", "b", "c"}, lenient=True)
    assert lenient.verdict is Verdict.PASSED
    assert lenient.left_out == ("c",)
    required = judge_gap(rates, limit=0.1, optional={"a", "b"}, lenient=True)
    assert required.verdict is Verdict.INCONCLUSIVE
    assert required.left_out == ()


def test_nothing_left_to_compare_says_what_it_would_take():
    """All groups too small for support: undecided, with the rows needed."""
    rates = {name: Rate(20, 100) for name in "abc"}
    judged = judge_gap(rates, limit=0.1, optional=set(rates), lenient=True)
    assert judged.reason == "no_support"
    assert judged.n_needed > 300
    assert judged.left_out


def test_a_weighted_rate_is_that_of_as_many_equal_rows():
    """Equal weights change nothing; a few heavy rows count for little more than themselves."""
    true, predicted = np.array([1, 0] * 50, bool), np.array([1, 1, 0, 0] * 25, bool)
    codes = np.zeros(100, int)
    plain = Cells.confusion(true, predicted, codes, ["a"])
    equal = Cells.confusion(true, predicted, codes, ["a"], weights=np.full(100, 3.7))
    assert equal.rates("selection_rate") == plain.rates("selection_rate")
    assert equal.rates("precision") == plain.rates("precision")
    heavy = np.ones(100)
    heavy[:4] = 100.0
    rate = Cells.confusion(true, predicted, codes, ["a"], weights=heavy).rates("selection_rate")[
        "a"
    ]
    assert rate.n <= 6
    assert rate.value == pytest.approx(np.average(predicted, weights=heavy))
    nothing = Cells.confusion(true, predicted, codes, ["a"], weights=np.zeros(100))
    assert nothing.rates("accuracy")["a"] == Rate(0, 0)
    with pytest.raises(UsageError, match="weights are at least 0"):
        Cells.confusion(true, predicted, codes, ["a"], weights=-heavy)


def test_equal_rows_keep_the_weighted_mean():
    """Exactly, and their number is at most Kish's."""
    random = np.random.default_rng(1)
    values, weights = random.lognormal(size=500), random.lognormal(size=500)
    rows = equal_rows(values, weights)
    assert rows.mean() == pytest.approx(np.average(values, weights=weights), rel=1e-9)
    assert rows.size <= weights.sum() ** 2 / (weights**2).sum()
    assert (np.diff(rows) > -1e-12).all()  # sorted, but for rounding
    assert equal_rows(values, np.ones(500)) == pytest.approx(np.sort(values))
    assert equal_rows(values, np.zeros(500)).size == 0


def test_stated_shares_are_held_against_the_rows():
    """Wilson's interval of each share, moved by what was stated."""
    shares = {"f": Rate(400, 1000), "m": Rate(600, 1000)}
    compared = compare_shares(
        shares, {"f": 0.5, "m": 0.5}, limit=0.05, confidence_level=0.95, family_error=0.05
    )
    groups = [GroupEstimate(name, one.value, one.n) for name, one in shares.items()]
    judged = judge_comparison(compared, groups, limit=0.05)
    assert judged.verdict is Verdict.FAILED
    assert judged.value == pytest.approx(0.1)
    low, high = wilson_interval(400, 1000, confidence_level=compared.level)
    assert judged.interval == pytest.approx((0.5 - high, 0.5 - low))
    near = compare_shares(shares, {"f": 0.41}, limit=0.05, confidence_level=0.95, family_error=0.05)
    assert judge_comparison(near, groups[:1], limit=0.05).verdict is Verdict.PASSED
    assert near.low[0] == 0.0


def test_f_scores_are_scikit_learns():
    """Per group and for everybody, weighted and not."""
    random = np.random.default_rng(2)
    true, group = random.random(600) < 0.3, random.integers(0, 2, 600)
    predicted = np.where(random.random(600) < 0.2, ~true, true)
    for weights in (None, random.random(600)):
        cells = Cells.confusion(true, predicted, group, ["a", "b"], weights=weights)
        found = f_score_figure(cells).value
        for place, part in enumerate([group == 0, group == 1, group >= 0]):
            known = f1_score(
                true[part],
                predicted[part],
                sample_weight=None if weights is None else weights[part],
            )
            assert found[place] == pytest.approx(known)


def test_a_perfect_small_sample_still_has_an_interval():
    """Thirty right answers are no proof of an F-score of 1."""
    true = np.tile([True, False], 40)
    figure = f_score_figure(Cells.confusion(true, true, np.arange(80) // 40, ["a", "b"]))
    judged = judge_composite_gap(figure, limit=0.02, min_group_size=10)
    assert judged.value == 0
    assert judged.interval.high > 0.05
    assert judged.verdict is Verdict.INCONCLUSIVE


def test_calibration_bounds_hold_the_noise_of_a_perfect_score():
    """A calibrated score has an error above 0 by noise alone, and the lower bound says so."""
    random = np.random.default_rng(3)
    score = random.random(400)
    true = random.random(400) < score
    figure = calibration_figure(true, score, np.zeros(400, int), ["a"])
    assert figure.value[0] > 0.02
    judged = judge_composite_gap(figure, limit=0.001, aggregate="group_max")
    assert judged.interval.low == 0
    with pytest.raises(UsageError, match="probabilities"):
        calibration_figure(true, score * 2, np.zeros(400, int), ["a"])
    with pytest.raises(UsageError, match="ratio of calibration errors"):
        judge_composite_gap(figure, limit=0.8, aggregate="ratio")


def test_everybody_counts_every_group_also_the_small_ones():
    """Compared with everybody, composites of large groups keep the small ones in everybody."""
    random = np.random.default_rng(4)
    true, group = random.random(2020) < 0.5, np.repeat([0, 1, 2], [1000, 1000, 20])
    predicted = np.where(random.random(2020) < 0.2, ~true, true)
    figure = f_score_figure(Cells.confusion(true, predicted, group, ["a", "b", "c"]))
    judged = judge_composite_gap(figure, limit=0.2, to_overall=True, optional={"c"})
    gaps = np.abs(figure.value[:2] - f1_score(true, predicted))
    assert judged.value == pytest.approx(gaps.max())
    assert judged.left_out == ("c",)
