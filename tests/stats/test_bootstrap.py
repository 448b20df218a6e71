"""Replicates drawn as counts are replicates of rows."""

import fairlearn.metrics as fm
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sm

from mlguard.errors import UsageError
from mlguard.stats.bootstrap import max_t, resample
from mlguard.stats.cells import Cells
from mlguard.stats.composites import f_scores

GROUPS = ["a", "b", "c"]


def rows(n=1500, seed=0):
    random = np.random.default_rng(seed)
    group = random.choice(3, n, p=[0.6, 0.3, 0.1])
    true = random.random(n) < 0.3 + 0.1 * group
    predicted = np.where(random.random(n) < 0.25, ~true, true)
    return true, predicted, group


def replicates(cells, n_boot, seed=0):
    drawn = resample(cells, n_boot=n_boot, seed=seed)
    tp, fp, fn, tn = np.moveaxis(drawn, -1, 0)
    return {
        "selection_rate": (tp + fp) / (tp + fp + fn + tn),
        "true_positive_rate": tp / (tp + fn),
        "false_positive_rate": fp / (fp + tn),
        "f1_score": f_scores(drawn),
    }


def test_replicates_agree_with_fairlearns_within_monte_carlo_error():
    """Quantiles of every group and metric, beside ``MetricFrame(n_boot=…)`` on the same rows."""
    true, predicted, group = rows()
    n_boot, quantiles = 80, [0.1, 0.5, 0.9]
    theirs = fm.MetricFrame(
        metrics={
            "selection_rate": fm.selection_rate,
            "true_positive_rate": fm.true_positive_rate,
            "false_positive_rate": fm.false_positive_rate,
            "f1_score": sm.f1_score,
        },
        y_true=true.astype(int),
        y_pred=predicted.astype(int),
        sensitive_features=np.array(GROUPS)[group],
        n_boot=n_boot,
        ci_quantiles=quantiles,
        random_state=1,
    ).by_group_ci
    ours = replicates(Cells.confusion(true, predicted, group, GROUPS), 20_000)
    for metric, drawn in ours.items():
        spread = drawn.std(axis=0)
        for place, quantile in enumerate(quantiles):
            # Standard error of a quantile: root of q (1 - q) / n over the density there.
            density = {0.1: 0.1755, 0.5: 0.3989, 0.9: 0.1755}[quantile]
            error = np.sqrt(quantile * (1 - quantile) / n_boot) / density * spread
            mine = np.quantile(drawn, quantile, axis=0)
            them = theirs[place][metric].to_numpy(float)
            # 36 comparisons: four standard errors leave 0.2 % of correct ones.
            assert (np.abs(mine - them) < 4 * error).all(), (metric, quantile)


def test_replicates_are_those_of_resampled_rows():
    """Mean and spread of drawn counts are the multinomial's."""
    cells = Cells.confusion(*rows(), GROUPS)
    drawn = resample(cells, n_boot=4000)
    n = cells.count.sum()
    share = cells.count / n
    assert (drawn.sum(axis=(1, 2)) == n).all()
    error = np.sqrt(n * share * (1 - share))
    assert (np.abs(drawn.mean(axis=0) - cells.count) < 4 * error / np.sqrt(4000)).all()
    assert drawn.std(axis=0) == pytest.approx(error, rel=0.06)


def test_weighted_replicates_have_the_spread_of_resampled_rows():
    """Beside a bootstrap of the rows; aggregated weights as if they were counts miss it."""
    random = np.random.default_rng(3)
    true, predicted, group = rows(900)
    weights = random.lognormal(0, 1, 900) * 20
    cells = Cells.confusion(true, predicted, group, GROUPS, weights=weights)
    drawn = resample(cells, n_boot=3000)
    ours = (drawn[..., 0] + drawn[..., 1]) / drawn.sum(axis=-1)
    known = np.empty((1500, 3))
    for one in known:
        picked = random.integers(0, 900, 900)
        above = np.bincount(group[picked], weights[picked] * predicted[picked], minlength=3)
        one[:] = above / np.bincount(group[picked], weights[picked], minlength=3)
    assert ours.mean(axis=0) == pytest.approx(known.mean(axis=0), abs=0.005)
    assert ours.std(axis=0) == pytest.approx(known.std(axis=0), rel=0.12)
    naive = random.poisson(cells.weight, (3000, 3, 4))
    wrong = (naive[..., 0] + naive[..., 1]) / naive.sum(axis=-1)
    assert (wrong.std(axis=0) < 0.5 * known.std(axis=0)).all()


def test_the_same_seed_gives_the_same_replicates():
    """A gate that is run again says the same."""
    cells = Cells.confusion(*rows(), GROUPS)
    assert (resample(cells, seed=4) == resample(cells, seed=4)).all()
    assert (resample(cells, seed=4) != resample(cells, seed=5)).any()


def test_nothing_can_be_drawn_from_no_rows():
    """No rows, or no replicates: a mistake, not NaN."""
    empty = Cells.confusion([], [], [], GROUPS)
    with pytest.raises(UsageError, match="of 0 rows cannot be drawn"):
        resample(empty)
    with pytest.raises(UsageError, match="0 replicates"):
        resample(Cells.confusion(*rows(), GROUPS), n_boot=0)


def test_max_t_is_the_normal_maximum_where_estimates_are_independent():
    """Ten independent ones: the quantile of the largest of ten normal deviations."""
    noise = np.random.default_rng(6).standard_normal((40_000, 10)) * np.arange(1, 11)
    found = max_t(np.zeros(10), noise)
    assert found.error == pytest.approx(np.arange(1, 11), rel=0.02)
    assert found.z == pytest.approx(2.800, abs=0.03)
    assert max_t(np.zeros(1), noise[:, :1]).z == pytest.approx(1.96, abs=0.03)


def test_max_t_counts_bias_as_spread_and_ignores_what_is_undefined():
    """Around the estimate, not the replicates' own mean; NaN replicates say nothing."""
    noise = np.random.default_rng(7).standard_normal((5000, 1))
    biased = max_t(np.zeros(1), noise + 1.0)
    assert biased.error[0] == pytest.approx(np.sqrt(2), rel=0.03)
    noise[::2] = np.nan
    assert max_t(np.zeros(1), noise).error[0] == pytest.approx(1.0, rel=0.05)
    assert max_t(np.zeros(1), np.full((10, 1), np.nan)).error[0] == 0


def test_cells_count_as_pandas_does():
    """Counts per group and cell, weights and their squares."""
    true, predicted, group = rows()
    weights = np.random.default_rng(8).random(len(true))
    cells = Cells.confusion(true, predicted, group, GROUPS, weights=weights)
    frame = pd.DataFrame({"t": true, "p": predicted, "g": group, "w": weights, "s": weights**2})
    for place, (t, p) in enumerate([(1, 1), (0, 1), (1, 0), (0, 0)]):
        cell = frame[(frame["t"] == t) & (frame["p"] == p)].groupby("g")
        assert cells.count[:, place].tolist() == cell.size().tolist()
        assert cells.weight[:, place] == pytest.approx(cell["w"].sum().to_numpy())
        assert cells.square[:, place] == pytest.approx(cell["s"].sum().to_numpy())
