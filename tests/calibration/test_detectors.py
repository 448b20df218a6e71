"""The e-detector beside the best there can be, and what runs of errors do to its promise.

The figures are those that ``benchmarks/detectors.py`` prints, by the same code.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mlguard.stats.run_length import kept_run_length
from mlguard.stats.sequential import BETS

_FILE = Path(__file__).parents[2] / "benchmarks" / "detectors.py"


@pytest.fixture(scope="module")
def detectors():
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_of_detectors", _FILE)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_near_the_rule_that_knows(detectors):
    """At A = 1,000, quickly: within a third of the delay of the rule that knows both rates."""
    found = detectors.compare(0.20, 0.40, 1000, runs=200, delays=1000)
    assert found.run_length + 3.3 * found.run_length_error >= 1000
    assert found.ratio - 3.3 * found.ratio_error <= 1.33


@pytest.mark.soak
@pytest.mark.parametrize(("p0", "p1"), [(0.05, 0.10), (0.10, 0.20), (0.10, 0.30), (0.20, 0.40)])
def test_delay_at_equal_measured_run_length(detectors, p0, p1):
    """At A = 10,000: at most 1.25 times the delay of the rule that knows both rates."""
    found = detectors.compare(p0, p1, 10_000, runs=400, delays=5000)
    assert found.run_length + 3.3 * found.run_length_error >= 10_000
    assert found.ratio <= 1.25


def test_kswin_gives_the_same_alarms_when_its_tests_are_kept(detectors):
    """The benchmark's quick KSWIN is river's own, alarm for alarm."""
    pytest.importorskip("river")
    peer = detectors.peers()["KSWIN"]
    values = [
        detectors.errors(0.1, 300, seed) + detectors.errors(0.6, 200, seed) for seed in (1, 2)
    ]
    slow = [detectors.first_alarm(peer.make(0.001), one) for one in values]
    with detectors.quick_kswin():
        quick = [detectors.first_alarm(peer.make(0.001), one) for one in values]
    assert quick == slow
    assert all(300 <= at < 500 for at in slow)


def correlated(theta, rho, goal, *, block=1, repeats=200, cap=None, seed=0):
    """Run lengths of e-detectors on errors in runs, with the mean exactly at theta."""
    rng = np.random.default_rng(seed)
    cap = int(6 * goal) if cap is None else cap
    last = (rng.random(repeats) < theta).astype(float)
    bets = BETS / theta
    evidence, lengths = np.zeros((repeats, len(bets))), np.full(repeats, cap)
    running = np.arange(repeats)
    for look in range(cap // block):
        total = np.zeros(running.size)
        for _ in range(block):
            last = (rng.random(running.size) < theta + rho * (last - theta)).astype(float)
            total += last
        evidence = (1 + evidence) * (1 + (total[:, None] / block - theta) * bets)
        over = evidence.mean(axis=1) >= goal / block
        if over.any():
            lengths[running[over]] = (look + 1) * block
            running, evidence, last = running[~over], evidence[~over], last[~over]
            if not running.size:
                break
    return lengths


@pytest.mark.parametrize("rho", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("theta", [0.1, 0.3])
def test_the_shrunken_promise_is_what_is_measured(theta, rho):
    """The run that is said to be left is, and no more than half of it is given away."""
    lengths = correlated(theta, rho, 1000)
    error = lengths.std() / np.sqrt(lengths.size)
    told = kept_run_length(1000, rho)
    assert lengths.mean() + 3.3 * error >= told
    assert lengths.mean() < 2.5 * told


@pytest.mark.parametrize("theta", [0.1, 0.3])
def test_a_block_holds_the_promise(theta):
    """At a correlation of 0.5 a block of 25 labels runs as long as was promised."""
    lengths = correlated(theta, 0.5, 1000, block=25)
    error = lengths.std() / np.sqrt(lengths.size)
    assert lengths.mean() + 3.3 * error >= 1000
    assert correlated(theta, 0.5, 1000).mean() < 300


@pytest.mark.soak
@pytest.mark.parametrize("goal", [1e4, 1e5])
def test_a_block_holds_a_long_promise(goal):
    """The same at A = 10,000 and 100,000 with a block of 50."""
    lengths = correlated(0.1, 0.5, goal, block=50, repeats=100)
    error = lengths.std() / np.sqrt(lengths.size)
    assert lengths.mean() + 3.3 * error >= goal
