"""How often the bounds of groups hold the truth: worst gaps, everybody, composites, weights.

Rates are held to what is promised inside a binomial band of 3.3 standard errors; seeds fixed.
"""

import math
from collections import Counter

import numpy as np
import pytest

from mlguard.results import Verdict
from mlguard.stats.cells import Cells
from mlguard.stats.composites import calibration_figure, f_score_figure, judge_composite_gap
from mlguard.stats.groups import Overall, Rate, judge_gap, judge_mean_gap, worst_gap


def band(rate, n):
    """Half-width of the band around a promised rate over n repetitions."""
    return 3.3 * math.sqrt(rate * (1 - rate) / n)


def holds(interval, value):
    return interval.low <= value <= interval.high


def rates_of(hits, n):
    return {
        str(place): Rate(int(one), size)
        for place, (one, size) in enumerate(zip(hits, n, strict=True))
    }


@pytest.mark.parametrize(
    "rates", [[0.3] * 10, [0.2, 0.35, 0.3], [0.05, 0.02], [0.5, 0.5, 0.5, 0.9]]
)
@pytest.mark.parametrize("aggregate", ["difference", "ratio"])
def test_the_interval_of_the_worst_gap_covers(rates, aggregate):
    """At least 95 %: it holds over all pairs together."""
    random, repeats = np.random.default_rng(1), 1000
    n = [400 + 50 * place for place in range(len(rates))]
    truth = max(rates) - min(rates) if aggregate == "difference" else min(rates) / max(rates)
    covered = 0
    for _ in range(repeats):
        gap = worst_gap(rates_of(random.binomial(n, rates), n), aggregate=aggregate)
        covered += holds(gap.interval, truth)
    assert covered / repeats >= 0.95 - band(0.95, repeats)


@pytest.mark.parametrize("aggregate", ["difference", "ratio"])
def test_the_distance_to_everybody_covers(aggregate):
    """At least 95 %, though a group is part of everybody."""
    random, repeats = np.random.default_rng(2), 1000
    n, rates = [800, 300, 150], np.array([0.4, 0.3, 0.55])
    overall = float(np.average(rates, weights=n))
    gaps = np.abs(rates - overall)
    ratios = np.minimum(rates / overall, overall / rates)
    truth = gaps.max() if aggregate == "difference" else ratios.min()
    covered = 0
    for hits in random.binomial(n, rates, (repeats, 3)):
        table = rates_of(hits, n)
        everybody = Overall(
            {
                name: Rate(int(hits.sum()) - int(one.successes), sum(n) - one.n)
                for name, one in table.items()
            },
            {name: one.n / sum(n) for name, one in table.items()},
        )
        judged = judge_gap(table, limit=0.5, aggregate=aggregate, overall=everybody, decide="proof")
        covered += holds(judged.interval, truth)
    assert covered / repeats >= 0.95 - band(0.95, repeats)


def test_a_floor_of_ten_groups_fails_at_most_at_the_family_error():
    """Ten groups just at the floor: it is said to be broken at most 5 % of the time."""
    random, repeats = np.random.default_rng(3), 1500
    failed = 0
    for hits in random.binomial(300, 0.8, (repeats, 10)):
        judged = judge_gap(
            rates_of(hits, [300] * 10), limit=0.8, aggregate="group_min", decide="proof"
        )
        failed += judged.verdict is Verdict.FAILED
    assert failed / repeats <= 0.05 + band(0.05, repeats)


def table(random, n, *, rate=0.4, wrong=0.2, groups=2):
    group = random.integers(0, groups, n)
    true = random.random(n) < rate
    wrongs = np.broadcast_to(np.asarray(wrong, float), (groups,))[group]
    return Cells.confusion(
        true, np.where(random.random(n) < wrongs, ~true, true), group, [*map(str, range(groups))]
    )


def f_score(rate, wrong):
    tp, fp, fn = rate * (1 - wrong), (1 - rate) * wrong, rate * wrong
    return 2 * tp / (2 * tp + fp + fn)


@pytest.mark.parametrize(("n", "wrong"), [(400, (0.2, 0.2)), (2000, (0.05, 0.3))])
def test_gaps_of_f_scores_cover(n, wrong):
    """About 95 % by max-t around each pair's own estimate."""
    random, repeats = np.random.default_rng(4), 300
    truth = abs(f_score(0.4, wrong[0]) - f_score(0.4, wrong[1]))
    covered = 0
    for _ in range(repeats):
        figure = f_score_figure(table(random, n, wrong=wrong), n_boot=400)
        covered += holds(judge_composite_gap(figure, limit=0.1, decide="proof").interval, truth)
    assert covered / repeats >= 0.95 - band(0.95, repeats) - 0.01


def test_ten_identical_f_scores_seldom_fail():
    """Where the quantiles of the largest gap would fail most of the time."""
    random, repeats = np.random.default_rng(5), 150
    failed = biased = 0
    for _ in range(repeats):
        cells = table(random, 2000, groups=10)
        figure = f_score_figure(cells, n_boot=400)
        failed += judge_composite_gap(figure, limit=0.02).verdict is Verdict.FAILED
        spread = figure.replicates[:, :10].max(axis=1) - figure.replicates[:, :10].min(axis=1)
        biased += np.quantile(spread, 0.025) > 0.02
    assert failed / repeats <= 0.05 + band(0.05, repeats)
    assert biased / repeats > 0.7


@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_calibration_errors_cover(shift):
    """At least 95 %, also for a perfect score, whose error is 0 and whose estimate is not."""
    random, repeats = np.random.default_rng(6), 200
    covered = 0
    for _ in range(repeats):
        score = (random.integers(0, 10, 600) + 0.5) / 10
        # Within the classes of scores nothing varies, so the truth is the shift itself.
        true = random.random(600) < np.clip(score + shift, 0, 1)
        truth = np.mean(np.clip(np.arange(0.05, 1, 0.1) + shift, 0, 1) - np.arange(0.05, 1, 0.1))
        figure = calibration_figure(true, score, np.zeros(600, int), ["a"], n_boot=300)
        judged = judge_composite_gap(figure, limit=0.5, aggregate="group_max", decide="proof")
        covered += holds(judged.interval, truth)
    assert covered / repeats >= 0.95 - band(0.95, repeats)


def test_weighted_rates_cover():
    """Weights that go with the group and with the outcome: the gap's interval still covers."""
    random, repeats = np.random.default_rng(7), 400
    covered = 0
    for _ in range(repeats):
        group = random.integers(0, 2, 1200)
        hit = random.random(1200) < np.where(group == 0, 0.3, 0.4)
        weights = random.lognormal(0, 0.8, 1200)
        cells = Cells.confusion(hit, hit, group, ["a", "b"], weights=weights)
        gap = worst_gap(cells.rates("selection_rate"))
        covered += holds(gap.interval, 0.1)
    assert covered / repeats >= 0.95 - band(0.95, repeats)


def composite_verdicts(wrong, n, repeats, *, limit, seed):
    random, found = np.random.default_rng(seed), Counter()
    for _ in range(repeats):
        figure = f_score_figure(table(random, n, wrong=wrong), n_boot=400)
        found[judge_composite_gap(figure, limit=limit).verdict] += 1
    return {verdict: found[verdict] / repeats for verdict in Verdict}


def test_f_scores_keep_the_promises_of_the_rule():
    """With support: alike is let through, twice the limit apart fails, neither by luck."""
    limit, repeats = 0.1, 200
    random = np.random.default_rng(8)
    # F of 0.7 and 0.5, two limits apart; the rows that the finding itself asks for.
    few = f_score_figure(table(random, 300, wrong=0.3))
    needed = judge_composite_gap(few, limit=limit).n_needed
    n = int(2 * needed / 0.55)  # rows of both groups, of which about 0.55 count for F
    near, far = 0.245, 0.433
    truth = f_score(0.4, near) - f_score(0.4, far)
    assert truth == pytest.approx(2 * limit, abs=0.01)
    apart = composite_verdicts((near, far), n, repeats, limit=limit, seed=9)
    assert apart[Verdict.FAILED] >= 0.8 - band(0.8, repeats)
    assert apart[Verdict.WARNED] <= 0.2 + band(0.2, repeats)
    assert apart[Verdict.PASSED] <= 0.01
    alike = composite_verdicts((0.3, 0.3), int(1.2 * n), repeats, limit=limit, seed=10)
    blocked = alike[Verdict.FAILED] + alike[Verdict.INCONCLUSIVE]
    assert blocked <= 0.01 + band(0.01, repeats)


@pytest.mark.soak
@pytest.mark.parametrize(("k", "n"), [(3, 500), (5, 630), (10, 800)])
def test_worst_gaps_of_many_groups_cover(k, n):
    """At least 95 % over rates drawn at random."""
    random, repeats = np.random.default_rng(11), 4000
    covered = 0
    for _ in range(repeats):
        rates = random.uniform(0.02, 0.98, k)
        gap = worst_gap(rates_of(random.binomial(n, rates), [n] * k))
        covered += holds(gap.interval, rates.max() - rates.min())
    assert covered / repeats >= 0.95 - band(0.95, repeats)


@pytest.mark.soak
@pytest.mark.parametrize("n", [60, 200, 1000])
def test_f_scores_cover_also_in_small_groups(n):
    """About 95 % over error rates drawn at random, down to thirty rows that count."""
    random, repeats = np.random.default_rng(12), 2000
    covered = 0
    for _ in range(repeats):
        wrong = random.uniform(0.02, 0.4, 2)
        figure = f_score_figure(table(random, 2 * n, wrong=wrong, rate=0.5), n_boot=400)
        truth = abs(f_score(0.5, wrong[0]) - f_score(0.5, wrong[1]))
        judged = judge_composite_gap(figure, limit=0.1, decide="proof", min_group_size=1)
        covered += holds(judged.interval, truth)
    assert covered / repeats >= 0.93


def test_means_beside_everybody_cover():
    """At least 95 %: the others' mean is put together from the groups' own bounds."""
    random, repeats = np.random.default_rng(13), 400
    sizes, means = [900, 300, 20], np.array([2.0, 3.0, 2.5])
    shares = {str(place): size / sum(sizes) for place, size in enumerate(sizes)}
    gaps = np.abs(means - np.average(means, weights=sizes))
    covered = 0
    for _ in range(repeats):
        samples = {
            str(place): np.clip(random.normal(mean, 1.0, size), 0, 8)
            for place, (mean, size) in enumerate(zip(means, sizes, strict=True))
        }
        judged = judge_mean_gap(
            samples, limit=0.1, scale=8.0, everybody=shares, optional={"2"}, decide="proof"
        )
        covered += holds(judged.interval, gaps[:2].max())
    assert covered / repeats >= 0.95 - band(0.95, repeats)
