"""The e-detector's promise, and what it costs.

Many detectors run side by side on the recursion of its definition; that the detector *is* that
recursion is tested beside it.  Runs are cut off at a cap, which only shortens their mean.
"""

import math

import numpy as np
import pytest

from mlguard.stats.sequential import BETS, EDetector


def run_lengths(theta, draw, goal, repeats, cap, *, seed=0):
    """Labels to the alarm of many detectors; ``draw(rng, t, n)`` gives the losses at label t."""
    rng = np.random.default_rng(seed)
    bets = BETS / theta
    evidence = np.zeros((repeats, len(bets)))
    lengths = np.full(repeats, cap)
    running = np.arange(repeats)
    for t in range(cap):
        loss = draw(rng, t, running.size)
        evidence = (1 + evidence) * (1 + (loss[:, None] - theta) * bets)
        over = evidence.mean(axis=1) >= goal
        if over.any():
            lengths[running[over]] = t + 1
            running, evidence = running[~over], evidence[~over]
            if not running.size:
                break
    return lengths


def errors(p):
    return lambda rng, t, n: (rng.random(n) < p).astype(float)


def standard_error(lengths):
    return float(lengths.std()) / math.sqrt(lengths.size)


@pytest.mark.parametrize("theta", [0.02, 0.1, 0.4])
@pytest.mark.parametrize(("goal", "repeats", "cap"), [(1e3, 400, 15_000), (1e4, 150, 60_000)])
def test_false_alarms_are_as_rare_as_promised(theta, goal, repeats, cap):
    """With the loss exactly at theta, the worst the promise allows, runs last A on average."""
    lengths = run_lengths(theta, errors(theta), goal, repeats, cap)
    assert lengths.mean() + 3.3 * standard_error(lengths) >= goal
    # The promise is kept without waste: not ten times longer than asked for.
    assert lengths.mean() < 3 * goal


@pytest.mark.parametrize("kind", ["uniform", "lopsided"])
def test_losses_of_any_shape_keep_the_promise(kind):
    """Bounded losses with mean theta, not only errors."""
    draws = {
        "uniform": (0.5, lambda rng, t, n: rng.random(n)),
        "lopsided": (0.1, lambda rng, t, n: rng.beta(0.05, 0.45, n)),
    }
    theta, draw = draws[kind]
    lengths = run_lengths(theta, draw, 1e3, 300, 15_000)
    assert lengths.mean() + 3.3 * standard_error(lengths) >= 1e3


def test_a_loss_below_theta_alarms_even_less():
    """The tolerance buys calm: at half of theta nine runs in ten outlast ten times the promise."""
    lengths = run_lengths(0.1, errors(0.05), 1e3, 200, 10_000)
    assert (lengths < 10_000).mean() < 0.15


@pytest.mark.parametrize(
    ("theta", "after", "goal", "low", "high"),
    [
        (0.1, 0.2, 1e4, 135, 165),
        (0.1, 0.2, 1e6, 245, 285),
        (0.2, 0.3, 1e5, 285, 330),
        (0.1, 0.4, 1e5, 25, 45),
    ],
)
def test_a_rise_is_found_about_as_fast_as_possible(theta, after, goal, low, high):
    """Mean delays in labels: 150 and 265 for 0.1 to 0.2, 306 for 0.2 to 0.3."""
    lengths = run_lengths(theta, errors(after), goal, 2000, 5000)
    assert low < lengths.mean() < high
    divergence = after * math.log(after / theta)
    divergence += (1 - after) * math.log((1 - after) / (1 - theta))
    assert lengths.mean() < 1.6 * math.log(goal) / divergence


def sticky(p, rho):
    """Errors in runs: a Markov chain with rate p and lag-1 correlation rho."""
    state = {}

    def draw(rng, t, n):
        if t == 0:
            state["last"] = (rng.random(n) < p).astype(float)
        else:
            rate = p + rho * (state["last"][:n] - p)
            state["last"] = (rng.random(n) < rate).astype(float)
        return state["last"]

    return draw


def test_errors_in_runs_break_the_promise_and_blocks_restore_it():
    """At a correlation of 0.5 alarms come early; judged in blocks they do not."""
    rng = np.random.default_rng(3)
    n, repeats, goal = 4000, 40, 1000
    found = {1: [], 25: []}
    for _ in range(repeats):
        chain = np.empty(n)
        last = 0.0
        for t, draw in enumerate(rng.random(n)):
            last = float(draw < 0.1 + 0.5 * (last - 0.1))
            chain[t] = last
        for block, lengths in found.items():
            detector = EDetector(0.1, average_run_length=goal, block=block)
            detector.update(chain)
            lengths.append(n if detector.alarm_at is None else detector.alarm_at + 1)
    assert np.mean(found[1]) < goal / 3
    assert np.mean(found[25]) > 2 * np.mean(found[1])


@pytest.mark.soak
def test_a_long_promise_is_kept():
    """A hundred thousand labels to a false alarm, the default."""
    lengths = run_lengths(0.1, errors(0.1), 1e5, 100, 500_000)
    assert lengths.mean() + 3.3 * standard_error(lengths) >= 1e5
