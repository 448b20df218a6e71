"""How long the fairness statistics take, beside fairlearn's own.

::

    python -m benchmarks.fairness              about a minute
    python -m benchmarks.fairness --n-boot 20  more of fairlearn's replicates; each takes seconds

Prints, and asserts nothing: times belong to the machine they were measured on.  fairlearn draws
rows, mlguard the counts that drawing rows would give, so their replicates have the same
distribution (the tests hold them to that) and times are compared per replicate.
"""

import argparse
import itertools
import time

import numpy as np
import pandas as pd

from mlguard.checks import JudgedModel
from mlguard.checks.fairness import GapRule, find_gap
from mlguard.checks.grouping import GroupedRows
from mlguard.stats.bootstrap import N_BOOT, resample
from mlguard.stats.cells import Cells

ROWS, GROUPS = 100_000, 8


def people(n, groups, seed=0):
    random = np.random.default_rng(seed)
    true = random.random(n) < 0.4
    return true, np.where(random.random(n) < 0.2, ~true, true), random.integers(0, groups, n)


def ours(true, predicted, group, n_boot):
    """Replicates of four metrics of every group, from the rows on."""
    cells = Cells.confusion(true, predicted, group, [f"g{one}" for one in range(GROUPS)])
    tp, fp, fn, tn = np.moveaxis(resample(cells, n_boot=n_boot), -1, 0)
    n = tp + fp + fn + tn
    rates = ((tp + fp) / n, tp / (tp + fn), fp / (fp + tn), (tp + tn) / n)
    return [np.quantile(one, [0.025, 0.975], axis=0) for one in rates]


def theirs(true, predicted, group, n_boot):
    import fairlearn.metrics as fm
    from sklearn.metrics import accuracy_score

    return fm.MetricFrame(
        metrics={
            "selection_rate": fm.selection_rate,
            "true_positive_rate": fm.true_positive_rate,
            "false_positive_rate": fm.false_positive_rate,
            "accuracy": accuracy_score,
        },
        y_true=true.astype(int),
        y_pred=predicted.astype(int),
        sensitive_features=group,
        n_boot=n_boot or None,
        ci_quantiles=[0.025, 0.975] if n_boot else None,
        random_state=0 if n_boot else None,
    )


def seconds(function, *arguments):
    """Return the shortest of three runs."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - began)
    return min(times)


class Answers:
    """Predictions that were made elsewhere."""

    def predict(self, rows):
        return rows["y_pred"].to_numpy()


def gate(n):
    """Judge two metrics by three attributes and all their intersections."""
    random = np.random.default_rng(1)
    true, predicted, _ = people(n, 1)
    frame = pd.DataFrame(
        {
            "sex": random.choice(["F", "M"], n),
            "race": random.choice([*"ABCDE"], n, p=[0.5, 0.2, 0.15, 0.1, 0.05]),
            "age": random.choice(["<25", "25-45", "45-65", ">65"], n),
            "y": true.astype(int),
            "y_pred": predicted.astype(int),
        }
    )
    model = JudgedModel("model", Answers(), target="y", features=["y_pred"], classes=(0, 1))
    began, checks = time.perf_counter(), 0
    rows = GroupedRows(frame, model)
    for metric in ("false_positive_rate", "false_negative_rate"):
        for size in (1, 2, 3):
            for by in itertools.combinations(("sex", "race", "age"), size):
                find_gap(model, frame, by=by, rule=GapRule(metric=metric, limit=0.05), rows=rows)
                checks += 1
    return time.perf_counter() - began, checks


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-boot", type=int, default=3, help="replicates that fairlearn draws")
    asked = parser.parse_args()
    rows = people(ROWS, GROUPS)
    mine = seconds(ours, *rows, N_BOOT)
    print(f"bootstrap: {ROWS:,} rows, {GROUPS} groups, 4 metrics")
    print(f"  mlguard    {N_BOOT:>5,} replicates  {mine:8.3f} s")
    began = time.perf_counter()
    theirs(*rows, 0)
    without = time.perf_counter() - began
    theirs(*rows, asked.n_boot)
    them = time.perf_counter() - began - 2 * without  # the replicates alone
    print(f"  fairlearn  {asked.n_boot:>5,} replicates  {them:8.3f} s")
    ratio = (them / asked.n_boot) / (mine / N_BOOT)
    print(f"  per replicate fairlearn takes {ratio:,.0f} times as long")
    took, checks = gate(1_000_000)
    print(f"gate: 1,000,000 rows, 3 attributes and their intersections, {checks} checks")
    print(f"  mlguard    {took:8.3f} s")


if __name__ == "__main__":
    main()
