"""Relearning: a loss that was lower for long becomes what is acceptable; never a higher one."""

import json

import numpy as np

from mlguard.config import ConceptDriftMonitor
from mlguard.monitors.concept_drift import ConceptDrift
from mlguard.results import Verdict
from mlguard.stats.run_length import kept_run_length
from mlguard.stats.sequential import reference_bound

REFERENCE = {"loss": {"n": 2000, "n_errors": 600}}


def feed(monitor, make_window, losses, *, first=1):
    results = []
    for start in range(0, len(losses), 100):
        part = np.asarray(losses[start : start + 100], int)
        results += monitor.judge(
            make_window(len(part), output=[0] * len(part), label=part.tolist(), first=first + start)
        )
    return results


def drawn(p, n, seed=0):
    return np.random.default_rng(seed).random(n) < p


def test_a_lasting_improvement_lowers_the_limit(make_window, app):
    """From 0.3 to 0.1 for long, then 0.25: an alarm with relearn, none without."""
    losses = np.r_[drawn(0.1, 4000), drawn(0.25, 1000, 1)]
    still = ConceptDrift(ConceptDriftMonitor(), REFERENCE, app)
    assert not any(one.verdict is Verdict.FAILED for one in feed(still, make_window, losses))
    learns = ConceptDrift(ConceptDriftMonitor(relearn=True), REFERENCE, app)
    results = feed(learns, make_window, losses)
    assert any(one.verdict is Verdict.FAILED for one in results)
    assert 0.1 < learns.theta < reference_bound(140, 1000) < still.theta


def test_two_stretches_are_needed_and_nothing_is_raised(make_window, app):
    """One good stretch is luck; and a loss near the old limit leaves it where it was."""
    monitor = ConceptDrift(ConceptDriftMonitor(relearn=True), REFERENCE, app)
    before = monitor.theta
    feed(monitor, make_window, drawn(0.1, 1500))
    assert monitor.theta == before
    other = ConceptDrift(ConceptDriftMonitor(relearn=True), REFERENCE, app)
    feed(other, make_window, drawn(0.315, 6000, 2))
    assert other.theta == before


def test_what_was_learned_survives_a_restart(make_window, app):
    """Limit, stretch and evidence go through JSON; with another reference they do not count."""
    settings = ConceptDriftMonitor(relearn=True)
    steady = ConceptDrift(settings, REFERENCE, app)
    feed(steady, make_window, drawn(0.1, 3300))
    state = json.loads(json.dumps(steady.snapshot(), allow_nan=False))
    again = ConceptDrift(settings, REFERENCE, app)
    again.restore(state)
    assert again.theta == steady.theta
    rest = drawn(0.12, 3000, 4)
    told = feed(steady, make_window, rest, first=3301)
    assert feed(again, make_window, rest, first=3301) == told
    assert again.theta == steady.theta
    other = ConceptDrift(settings, {"loss": {"n": 2000, "n_errors": 400}}, app)
    limit = other.theta
    other.restore(state)
    assert other.theta == limit


def test_errors_in_runs_are_told_with_what_is_left_of_the_promise(make_window, app):
    """Each window shows the correlation and the shrunken promise; a block keeps it."""
    draws, losses, last = np.random.default_rng(1).random(1500), [], 0.0
    for draw in draws:
        last = float(draw < 0.1 + 0.5 * (last - 0.1))
        losses.append(last)
    one = ConceptDrift(ConceptDriftMonitor(), REFERENCE, app)
    details = feed(one, make_window, losses)[-1].details
    assert 0.35 < details["lag1_correlation"] < 0.65
    assert details["kept_run_length"] < 5000
    blocks = ConceptDrift(ConceptDriftMonitor(block=50), REFERENCE, app)
    kept = feed(blocks, make_window, losses)[-1].details["kept_run_length"]
    assert kept > 90_000
    assert kept <= kept_run_length(100_000, 0.0)
