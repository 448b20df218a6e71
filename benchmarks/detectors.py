"""How soon detectors find a rise of the error rate, at how many false alarms.

    python benchmarks/detectors.py [--quick] [--only NAME]

Errors are independent with rate p0, then p1.  The e-detector (A = 10,000, theta = p0: the worst
case of its promise) stands beside the Shiryaev-Roberts rule that knows p0 and p1, with its
threshold set so that both have the same measured mean run to a false alarm: nothing can do
better than that rule.  River's detectors are shown as they come, and again with their one
parameter of sensitivity set so that they, too, have that mean run.  Seeds are fixed; every
figure has its standard error or its count beside it.

For river's the rise comes after 1,000 labels at p0, because they learn what is usual from the
stream; streams on which one alarms before are left out of its delay and counted as early.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mlguard.stats.sequential import BETS

PAIRS = ((0.05, 0.10), (0.10, 0.20), (0.10, 0.30), (0.20, 0.40))
LEARNED = 1000


# --- many at once: the e-detector and the rule that knows -----------------------------------


def e_lengths(theta, p, goal, repeats, cap, *, seed=0):
    """Labels to the alarm of many e-detectors on errors of rate p, at most cap."""
    rng = np.random.default_rng(seed)
    bets = BETS / theta
    right, wrong = 1 - theta * bets, 1 + (1 - theta) * bets
    return _lengths(
        lambda state, error: (1 + state) * np.where(error[:, None], wrong, right),
        lambda state: state.mean(axis=1) >= goal,
        np.zeros((repeats, len(bets))),
        rng,
        p=p,
        cap=cap,
    )


def sr_lengths(p0, p1, p, threshold, *, repeats, cap, seed=1):
    """The same of the Shiryaev-Roberts rule that knows p0 and p1."""
    rng = np.random.default_rng(seed)
    right, wrong = (1 - p1) / (1 - p0), p1 / p0
    return _lengths(
        lambda state, error: (1 + state) * np.where(error, wrong, right),
        lambda state: state >= threshold,
        np.zeros(repeats),
        rng,
        p=p,
        cap=cap,
    )


def _lengths(step, alarmed, state, rng, *, p, cap):
    lengths = np.full(len(state), cap)
    running = np.arange(len(state))
    for t in range(cap):
        state = step(state, rng.random(running.size) < p)
        over = alarmed(state)
        if over.any():
            lengths[running[over]] = t + 1
            running, state = running[~over], state[~over]
            if not running.size:
                break
    return lengths


def standard_error(lengths):
    """Return the standard error of a mean."""
    return float(np.std(lengths)) / math.sqrt(len(lengths))


def sr_threshold(p0, p1, run_length, repeats, *, seed=1):
    """Return the threshold at which the rule's measured mean run is the one asked for."""
    threshold = run_length / 1.3
    for _ in range(3):
        # The mean run is all but proportional to the threshold.
        measured = sr_lengths(
            p0, p1, p0, threshold, repeats=repeats, cap=int(8 * run_length), seed=seed
        )
        threshold *= run_length / measured.mean()
    return threshold


@dataclass(frozen=True)
class Compared:
    """The e-detector beside the rule that knows."""

    run_length: float
    run_length_error: float
    delay: float
    delay_error: float
    best: float
    best_error: float

    @property
    def ratio(self) -> float:
        """Delay of the one over that of the other."""
        return self.delay / self.best

    @property
    def ratio_error(self) -> float:
        """Standard error of the ratio, from the delays."""
        return self.ratio * math.hypot(self.delay_error / self.delay, self.best_error / self.best)


def compare(p0, p1, goal, *, runs=400, delays=5000):
    """Measure the e-detector and the rule that knows at the e-detector's own mean run."""
    calm = e_lengths(p0, p0, goal, runs, int(8 * goal))
    after = e_lengths(p0, p1, goal, delays, 20_000, seed=2)
    threshold = sr_threshold(p0, p1, calm.mean(), runs)
    best = sr_lengths(p0, p1, p1, threshold, repeats=delays, cap=20_000, seed=3)
    return Compared(
        calm.mean(),
        standard_error(calm),
        after.mean(),
        standard_error(after),
        best.mean(),
        standard_error(best),
    )


# --- one at a time: river's -----------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """A detector of river's: how it is made, and the range of its sensitivity (log10)."""

    make: Callable[[float | None], object]
    low: float
    high: float
    streams: int
    cap: int


def peers():
    """Return river's detectors by name; None as the parameter means river's default."""
    from river import drift
    from river.drift import binary

    def made(kind, key, **more):
        return lambda value: kind(**more) if value is None else kind(**{key: value}, **more)

    hddm_a = getattr(binary, "HDDMA", None) or binary.HDDM_A
    # From insensitive to sensitive.
    return {
        "ADWIN": Peer(made(drift.ADWIN, "delta"), -12, -0.5, 40, 60_000),
        "DDM": Peer(made(binary.DDM, "drift_threshold"), 1.3, 0.0, 40, 60_000),
        "HDDM_A": Peer(made(hddm_a, "drift_confidence"), -14, -0.5, 40, 60_000),
        "PageHinkley": Peer(made(drift.PageHinkley, "threshold"), 3, 0.0, 40, 60_000),
        "KSWIN": Peer(made(drift.KSWIN, "alpha", seed=42), -6, -0.3, 20, 40_000),
    }


class TestsOfErrors:
    """scipy's tests for KSWIN on zeros and ones, each pair of counts tested once.

    On such values the test knows two counts of ones and nothing else, and KSWIN asks it for one
    of 961 pairs after every label: with the answers kept it takes a hundredth of the time, and
    gives the same alarms.
    """

    def __init__(self):
        self.known = {}

    def ks_2samp(self, one, other, method="auto"):
        """Return statistic and p-value of two samples of zeros and ones."""
        from scipy import stats

        key = (len(one), sum(one), len(other), sum(other))
        if key not in self.known:
            self.known[key] = stats.ks_2samp(one, other, method=method)
        return self.known[key]


@contextmanager
def quick_kswin():
    """Let KSWIN ask for each pair of counts once."""
    from river.drift import kswin

    before, kswin.stats = kswin.stats, TestsOfErrors()
    try:
        yield
    finally:
        kswin.stats = before


def first_alarm(detector, values):
    """Return the index of the value at which a detector first alarms; None where it does not."""
    for place, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            return place
    return None


def errors(p, n, seed):
    """Return n errors of rate p as plain numbers, which river is quickest with."""
    draw = random.Random(seed)
    return [1 if draw.random() < p else 0 for _ in range(n)]


def peer_run_length(peer, value, p0, *, streams=None):
    """Return the mean run to a false alarm, at most the cap, and its standard error."""
    found = []
    for seed in range(streams or peer.streams):
        at = first_alarm(peer.make(value), errors(p0, peer.cap, seed))
        found.append(peer.cap if at is None else at + 1)
    return float(np.mean(found)), standard_error(found)


def peer_delay(peer, value, p0, p1, *, streams=200, after=4000):
    """Return mean delay, its standard error, and how many streams were early and missed."""
    delays, early, missed = [], 0, 0
    for seed in range(streams):
        values = errors(p0, LEARNED, 10_000 + seed) + errors(p1, after, 20_000 + seed)
        at = first_alarm(peer.make(value), values)
        if at is None:
            missed += 1
        elif at < LEARNED:
            early += 1
        else:
            delays.append(at - LEARNED + 1)
    mean = float(np.mean(delays)) if delays else math.nan
    return mean, standard_error(delays) if delays else math.nan, early, missed


def tuned(peer, p0, run_length, *, rounds=9):
    """Return the parameter at which a peer's measured mean run is nearest to the one asked for."""
    quiet, loud = peer.low, peer.high
    best = (math.inf, None)
    for _ in range(rounds):
        middle = (quiet + loud) / 2
        measured, _ = peer_run_length(peer, 10.0**middle, p0)
        miss = abs(math.log(measured / run_length))
        if miss < best[0]:
            best = (miss, 10.0**middle)
        if measured < run_length:
            loud = middle
        else:
            quiet = middle
    return best[1]


def _cell(delay, error, early, missed, streams):
    told = f"{delay:.0f} ± {error:.0f}" if delay == delay else "–"  # NaN
    notes = [f"{n / streams:.0%} {word}" for n, word in ((early, "early"), (missed, "missed")) if n]
    return f"{told} ({', '.join(notes)})" if notes else told


def main() -> None:
    """Print both tables in Markdown."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="fewer repetitions")
    options.add_argument("--only", metavar="NAME", help="one of river's detectors")
    told = options.parse_args()
    quick = told.quick
    goal = 10_000
    began = time.monotonic()
    print("| p0 → p1 | mean run | delay | rule that knows | ratio |")
    print("| --- | --- | --- | --- | --- |")
    lengths = {}
    for p0, p1 in PAIRS:
        one = compare(p0, p1, goal, runs=100 if quick else 1000, delays=1000 if quick else 10_000)
        lengths[p0] = one.run_length
        print(
            f"| {p0:.2f} → {p1:.2f} | {one.run_length:,.0f} ± {one.run_length_error:,.0f} "
            f"| {one.delay:.1f} ± {one.delay_error:.1f} | {one.best:.1f} ± {one.best_error:.1f} "
            f"| {one.ratio:.2f} ± {one.ratio_error:.2f} |",
            flush=True,
        )
    streams = 50 if quick else 200
    print("\n| detector | p0 → p1 | mean run | delay | same run as the e-detector: delay |")
    print("| --- | --- | --- | --- | --- |")
    for name, peer in peers().items():
        if told.only not in (None, name):
            continue
        n = streams
        values = {}
        for p0, p1 in PAIRS:
            if p0 not in values:
                values[p0] = tuned(peer, p0, lengths[p0], rounds=5 if quick else 9)
            run, error = peer_run_length(peer, None, p0)
            capped = "at least " if run > 0.5 * peer.cap else ""
            tuned_run, _ = peer_run_length(peer, values[p0], p0)
            print(
                f"| {name} | {p0:.2f} → {p1:.2f} | {capped}{run:,.0f} ± {error:,.0f} "
                f"| {_cell(*peer_delay(peer, None, p0, p1, streams=n), n)} "
                f"| {_cell(*peer_delay(peer, values[p0], p0, p1, streams=n), n)} "
                f"at {tuned_run:,.0f} |",
                flush=True,
            )
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    with quick_kswin():
        main()
