"""What judging drift costs: verdicts of 100,000 × 20 mixed columns, and counting rows.

::

    python benchmarks/drift.py [--rows 100000] [--peers]

Prints processor seconds of this process.  ``--peers`` adds a loop over scipy's tests and
Evidently's data drift preset on the same two tables.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlguard.config import AppSettings, DataDriftMonitor
from mlguard.data.profile import Profile
from mlguard.data.profile_log import ProfileWriter
from mlguard.models.schema import Feature
from mlguard.monitors.data_drift import DataDrift
from mlguard.monitors.window import ProfileWindow, WindowData
from mlguard.results import Window

N_NUMBERS, N_CATEGORIES = 12, 8
KINDS: dict[str, Any] = {f"x{place}": "number" for place in range(N_NUMBERS)} | {
    f"c{place}": "category" for place in range(N_CATEGORIES)
}


def table(n: int, seed: int) -> dict[str, Any]:
    """Return columns: numbers of several shapes with missing ones, categories of 3 to 24."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for place in range(N_NUMBERS):
        values = rng.lognormal(1, 0.5 + place / 10, n) if place % 2 else rng.normal(place, 2, n)
        values[rng.random(n) < 0.01] = np.nan
        columns[f"x{place}"] = values
    for place in range(N_CATEGORIES):
        names = np.array([f"k{one}" for one in range(3 * (place + 1))], object)
        columns[f"c{place}"] = rng.choice(names, n)
    return columns


def rows_of(columns: dict[str, Any], n: int) -> WindowData:
    """Return a window of rows that hold these inputs."""
    nothing = np.full(n, None, object)
    return WindowData(
        version="v1",
        generation=1,
        query_id=np.arange(n),
        time=np.arange(n, dtype=float),
        columns=columns,
        output=nothing,
        score=np.full(n, np.nan),
        default=np.zeros(n, bool),
        valid=np.ones(n, bool),
        inputs_kept=np.ones(n, bool),
        explanation=nothing,
        groups=[{}] * n,
        label=nothing,
        labelled=np.zeros(n, bool),
        source=nothing,
        seq=np.zeros(n, np.int64),
        arrived=np.full(n, np.nan),
    )


def cpu(run: Callable[[], Any], times: int = 3) -> float:
    """Return the least processor seconds of some runs."""
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def scipy_loop(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Judge each column by a test of scipy's."""
    from scipy import stats

    for name, kind in KINDS.items():
        if kind == "number":
            old, new = before[name], now[name]
            stats.ks_2samp(old[~np.isnan(old)], new[~np.isnan(new)])
        else:
            keys = sorted({*before[name], *now[name]})
            counts = [[int((one[name] == key).sum()) for key in keys] for one in (before, now)]
            stats.chi2_contingency(counts)


def evidently(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Let Evidently judge the same tables."""
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    Report([DataDriftPreset()]).run(pd.DataFrame(now), pd.DataFrame(before)).dict()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    n = options.rows
    before, now = table(n, 1), table(n, 2)
    reference = Profile.reference(before, KINDS)
    current = reference.summarise(now)
    app = AppSettings.model_validate(
        {
            "app": dict.fromkeys(("description", "owner", "decision", "success_metric"), "-"),
            "data": {"test": "test.csv"},
            "name": "bench",
            "folder": Path(),
        }
    )
    monitor = DataDrift(DataDriftMonitor(), {"profile": reference.to_json()}, app)
    window = ProfileWindow(
        version="v1",
        window=Window(start=0.0, end=1.0, n_rows=n, n_labels=0, generation=1),
        profile=current,
    )
    monitor.judge_profile(window)
    parts = [
        reference.summarise({name: values[place::16] for name, values in now.items()})
        for place in range(16)
    ]

    def merge() -> Profile:
        whole = parts[0]
        for one in parts[1:]:
            whole = whole.merge(one)
        return whole

    print(f"{n:,} rows, {N_NUMBERS} numbers and {N_CATEGORIES} categories; processor seconds")
    raw = rows_of(now, n)
    print(f"  verdicts from the raw rows    {cpu(lambda: monitor.judge(raw), 9):9.4f}")
    print(f"  verdicts from a profile       {cpu(lambda: monitor.judge_profile(window)):9.4f}")
    print(f"  merging 16 profiles           {cpu(merge):9.4f}")
    counting = cpu(lambda: reference.summarise(now), 9)
    print(
        f"  counting the table            {counting:9.4f}  ({counting / n / 20 * 1e9:.0f} ns a value)"  # noqa: E501
    )
    for kind in ("number", "category"):
        names = [name for name, one in KINDS.items() if one == kind]
        features = tuple(Feature(name, kind) for name in names)  # type: ignore[arg-type]
        cells = list(zip(*(now[name][:5000].tolist() for name in names), strict=True))
        grid = reference.only(names)
        blank = {"times": [0.0] * 5000, "scores": [None] * 5000, "valid": [True] * 5000}

        def served(
            features: Any = features, cells: Any = cells, grid: Any = grid, **more: Any
        ) -> None:
            ProfileWriter(Path(), "p", grid, features).add(generation=1, rows=cells, **more)

        took = cpu(lambda blank=blank, served=served: served(**blank), 9)  # type: ignore[misc]
        print(f"  as a server counts a {kind:<9} {took / 5000 / len(names) * 1e9:8.0f}  ns a value")
    if options.peers:
        print(f"  scipy, a test a column        {cpu(lambda: scipy_loop(before, now), 1):9.4f}")
        print(f"  Evidently's preset            {cpu(lambda: evidently(before, now), 1):9.4f}")


if __name__ == "__main__":
    main()
