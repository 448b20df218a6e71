"""Delayed impact: the published credit scores to the digit, and closed forms."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.errors import UsageError
from mlguard.stats.delayed_impact import ImpactModel, harm, outcome_curve, success_curve
from mlguard.stats.score_table import Cut, ScoreTable, Utility
from mlguard.stats.thresholds import choose

#: Share of all people with a score in each 50 points from 300, in percent.
PUBLISHED = (2.1, 4.2, 5.4, 6.5, 7.9, 9.6, 12.0, 13.8, 17.0, 15.8, 5.7)
COLUMNS = {"Black": "Black", "White": "Non- Hispanic white"}
IMPACT = ImpactModel(success=75, failure=-150, low=300, high=850)
UTILITY = Utility(success=1, failure=-4)


def columns(file):
    with file.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return {
        name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "Kind"
    }


@pytest.fixture(scope="module")
def fico(shared_data):
    """The two groups' tables, and their shares."""
    folder = shared_data / "fairness" / "fico"
    cumulated = columns(folder / "transrisk_cdf_by_race_ssa.csv")
    defaulted = columns(folder / "transrisk_performance_by_race_ssa.csv")
    size = columns(folder / "totals.csv")
    ends = np.concatenate([[0.0], np.cumsum(PUBLISHED)])
    score = np.interp(cumulated["Score"], ends, 300 + 50 * np.arange(12))
    found = {}
    for name, column in COLUMNS.items():
        success = 1 - defaulted[column] / 100
        found[name] = ScoreTable.of_distribution(
            score,
            np.diff(cumulated[column], prepend=0.0),
            success,
            IMPACT.expected(score, success),
        )
    people = {name: float(size[column][0]) for name, column in COLUMNS.items()}
    return found, {name: one / sum(people.values()) for name, one in people.items()}


@pytest.mark.parametrize(
    ("policy", "thresholds", "impacts"),
    [
        ("max_utility_per_group", (645.0, 613.8), (8.40, 38.67)),
        ("demographic_parity", (480.1, 649.2), (-17.14, 35.04)),
        ("equal_opportunity", (557.3, 631.0), (6.01, 37.24)),
    ],
)
def test_the_published_credit_scores_to_the_digit(fico, policy, thresholds, impacts):
    """Thresholds and mean changes of the two groups are the known ones."""
    tables, shares = fico
    assert round(shares["Black"], 4) == 0.1207
    cuts = choose(policy, tables, shares=shares, utility=UTILITY)
    points = {name: one.operate(cuts[name], UTILITY) for name, one in tables.items()}
    assert tuple(round(one.cut.threshold + 1e-9, 1) for one in points.values()) == thresholds
    assert tuple(round(one.impact, 2) for one in points.values()) == impacts


def test_demographic_parity_does_active_harm_there(fico):
    """It takes the one group past b0, where a yes lowers its mean score."""
    tables, shares = fico
    best = choose("max_utility_per_group", tables, shares=shares, utility=UTILITY)
    even = choose("demographic_parity", tables, shares=shares, utility=UTILITY)
    table = tables["Black"]
    curve = outcome_curve(table)
    point = table.operate(even["Black"], UTILITY)
    assert point.selection_rate > curve.zero
    assert harm(point.impact, table.operate(best["Black"], UTILITY).impact) == "active"
    white = tables["White"]
    found = white.operate(even["White"], UTILITY).impact
    assert harm(found, white.operate(best["White"], UTILITY).impact) == "relative"


def test_maximum_utility_never_does_active_harm_there(fico):
    """A lender who loses more than a borrower stops before the borrowers do."""
    tables, shares = fico
    best = choose("max_utility_per_group", tables, shares=shares, utility=UTILITY)
    for name, table in tables.items():
        point = table.operate(best[name], UTILITY)
        assert 0 < point.selection_rate <= outcome_curve(table).best + 1e-9


def test_the_outcome_curve_of_a_straight_line_is_a_parabola():
    """With success falling linearly, b* and b0 are where calculus puts them."""
    k = 20_000
    scores = np.arange(k, 0, -1) / k
    success = (np.arange(k, 0, -1) - 0.5) / k
    model = ImpactModel(success=1, failure=-2)
    table = ScoreTable.of_distribution(
        scores, np.full(k, 1 / k), success, model.expected(scores, success)
    )
    curve = outcome_curve(table)
    # Δμ(b) is the integral of 3ρ - 2 over ρ in [1 - b, 1], b - 3b²/2.
    assert curve.best == pytest.approx(1 / 3, abs=1e-4)
    assert curve.best_impact == pytest.approx(1 / 6, abs=1e-4)
    assert curve.zero == pytest.approx(2 / 3, abs=1e-4)
    at = table.operate(Cut.at(0.5), Utility()).impact
    assert at == pytest.approx(0.5 - 3 / 8, abs=1e-3)


def test_a_curve_that_never_falls_below_zero_has_no_zero():
    """Where everybody succeeds, more is better; where nobody does, nobody is the best."""
    ones = np.ones(2) / 2
    good = ScoreTable.of_distribution([1, 2], ones, [1, 1], [5.0, 5.0])
    bad = ScoreTable.of_distribution([1, 2], ones, [0, 0], [-5.0, -5.0])
    assert (outcome_curve(good).best, outcome_curve(good).zero) == (1.0, None)
    assert (outcome_curve(bad).best, outcome_curve(bad).zero) == (0.0, 0.0)


def test_a_table_without_impact_has_no_curve():
    """It says so instead of drawing zeros."""
    with pytest.raises(UsageError, match="does not say what a yes changes"):
        outcome_curve(ScoreTable.of_rows([0.1], [True]))


@given(seed=st.integers(0, 10**6))
def test_the_realised_change_is_the_counted_one_away_from_the_ends(seed):
    """Whoever is selected, the mean is c+ for each success and c- for each failure."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(460, 700, 200)
    truth = rng.random(200) < 0.6
    chosen = (score > 500) ^ (truth & (rng.random(200) < 0.5))
    found = IMPACT.realised(score, truth, success_curve(score, truth))
    counted = np.where(truth, 75.0, -150.0)
    assert found[chosen].sum() == pytest.approx(counted[chosen].sum())


def test_the_expected_score_stays_on_its_scale():
    """Nobody rises above the highest or falls below the lowest score."""
    moved = IMPACT.expected([300, 300, 850, 840], [0, 1, 1, 1])
    assert moved.tolist() == [0, 75, 0, 10]
    with pytest.raises(UsageError, match="does not exist"):
        ImpactModel(success=1, failure=-1, low=850, high=300)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 200),
    step=st.sampled_from([0.01, 0.1, 0.5]),
)
def test_the_success_curve_rises_and_keeps_the_base_rate(seed, n, step):
    """A higher score never means less success, and the mean is what came true."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(n) / step) * step
    truth = rng.random(n) < scores
    fitted = success_curve(scores, truth)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(fitted[order]) >= -1e-12).all()
    assert fitted.mean() == pytest.approx(truth.mean())


def test_the_success_curve_is_scikit_learns_isotonic_regression():
    """Two ways to the same least squares."""
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(0)
    scores = rng.integers(0, 30, 500) / 30
    truth = rng.random(500) < scores
    theirs = IsotonicRegression().fit_transform(scores, truth)
    assert success_curve(scores, truth) == pytest.approx(theirs)
