"""Draws from history for ``mlguard calibrate``: as it was, and with a drift put in.

Rows are drawn in blocks where losses follow each other, so that what is drawn has the runs of
what happened.  Every drift has one number, its effect; none of them needs a model, so that
hundreds of windows cost seconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from mlguard.data.joint import class_name
from mlguard.monitors.window import WindowData
from mlguard.stats.sequential import BETS

Rng = np.random.Generator
Task = Literal["classification", "regression"]
#: Puts a drift of some effect into rows.
Inject = Callable[[WindowData, float, Rng], WindowData]


def block_length(rho: float, n: int) -> int:
    """Return how many rows are drawn together at a lag-1 correlation.

    Ten times the distance at which correlation falls to a third; at most a tenth of the rows.
    """
    if not rho > 0:
        return 1
    return max(1, min(math.ceil(-10 / math.log(min(rho, 0.99))), n // 10))


def places(n: int, size: int, block: int, rng: Rng) -> npt.NDArray[np.intp]:
    """Draw the places of ``size`` rows out of ``n``, with replacement, block by block."""
    starts = rng.integers(0, n, math.ceil(size / block))
    drawn = (starts[:, None] + np.arange(block)) % n
    return drawn.ravel()[:size].astype(np.intp)


def as_arriving(rows: WindowData) -> WindowData:
    """Return drawn rows as if they had come one after another."""
    n = len(rows)
    clock = np.arange(n, dtype=float)
    return dataclasses.replace(
        rows,
        query_id=np.arange(n),
        time=clock,
        seq=np.where(rows.labelled, np.arange(1, n + 1), 0),
        arrived=np.where(rows.labelled, clock, np.nan),
        coverage=None,
    )


# --- drifts --------------------------------------------------------------------------------


def shift_feature(rows: WindowData, effect: float, rng: Rng) -> WindowData:
    """Shift one number by so many of its standard deviations; of a category, replace the share."""
    columns = dict(rows.columns)
    name = sorted(columns)[int(rng.integers(len(columns)))]
    values = columns[name].copy()
    if values.dtype == object:
        seen, counts = np.unique(values.astype(str), return_counts=True)
        values[rng.random(len(values)) < effect] = str(seen[int(np.argmin(counts))])
    else:
        values = values.astype(float)
        spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
        values = values + effect * spread
    columns[name] = values
    return dataclasses.replace(rows, columns=columns)


def tilt_answers(rows: WindowData, effect: float, rng: Rng) -> WindowData:
    """Answer the share ``effect`` of rows as rows of the rarest class were, scores included."""
    hit, donors = _tilt(rows.output, effect, rng)
    output, score = rows.output.copy(), rows.score.copy()
    output[hit], score[hit] = rows.output[donors], rows.score[donors]
    return dataclasses.replace(rows, output=output, score=score)


def tilt_labels(rows: WindowData, effect: float, rng: Rng) -> WindowData:
    """Give the share ``effect`` of rows the rarest label."""
    hit, donors = _tilt(rows.label, effect, rng)
    label = rows.label.copy()
    label[hit] = rows.label[donors]
    return dataclasses.replace(rows, label=label)


def move_answers(rows: WindowData, effect: float, rng: Rng) -> WindowData:
    """Move every value that is answered by so many standard deviations."""
    del rng
    output = _moved(rows.output, effect)
    return dataclasses.replace(rows, output=output, score=output.astype(float))


def move_labels(rows: WindowData, effect: float, rng: Rng) -> WindowData:
    """Move every label of a regression by so many standard deviations."""
    del rng
    return dataclasses.replace(rows, label=_moved(rows.label, effect))


def break_model(rows: WindowData, effect: float, rng: Rng) -> WindowData:
    """Let the model give no answer on the share ``effect`` of rows."""
    default = rows.default | (rng.random(len(rows)) < effect)
    explanation = rows.explanation.copy()
    explanation[default & ~rows.default] = "the model gave no usable answer"
    return dataclasses.replace(rows, default=default, explanation=explanation)


def hurt_group(attribute: str) -> Inject:
    """Return a drift that answers the share ``effect`` of one group's rows as another class."""

    def hurt(rows: WindowData, effect: float, rng: Rng) -> WindowData:
        groups = rows.attribute(attribute)
        names = sorted({str(one) for one in groups if one is not None})
        if not names:
            return rows
        hit = (groups == names[0]) & (rng.random(len(rows)) < effect)
        output = rows.output.copy()
        known = list(dict.fromkeys([*rows.output.tolist(), *rows.label.tolist()]))
        for place in np.flatnonzero(hit).tolist():
            others = [
                one
                for one in known
                if one is not None and class_name(one) != class_name(output[place])
            ]
            if others:
                output[place] = others[0]
        return dataclasses.replace(rows, output=output)

    return hurt


def _tilt(
    values: npt.NDArray[np.object_], effect: float, rng: Rng
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows that change, and for each a row of the rarest class to be like."""
    names = np.array([class_name(one) for one in values])
    kinds, counts = np.unique(names, return_counts=True)
    rarest = np.flatnonzero(names == kinds[int(np.argmin(counts))])
    hit = np.flatnonzero(rng.random(len(values)) < effect)
    return hit, rng.choice(rarest, hit.size)


def _moved(values: npt.NDArray[np.object_], effect: float) -> npt.NDArray[np.object_]:
    numbers = values.astype(float)
    return (numbers + effect * float(np.nanstd(numbers))).astype(object)


# --- sequential detectors ------------------------------------------------------------------


def run_lengths(
    losses: npt.NDArray[np.float64],
    theta: float,
    average_run_length: float,
    *,
    block: int,
    drawn: int,
    repeats: int,
    horizon: int,
    rise: float,
    rng: Rng,
) -> npt.NDArray[np.int64]:
    """Return the labels to an alarm of many e-detectors on losses drawn from history.

    Parameters
    ----------
    losses : ndarray of shape (n,)
        History, in order, in [0, 1].
    theta, average_run_length, block
        The detector's.
    drawn : int
        Losses drawn together.
    repeats, horizon : int
        Detectors, and labels that each sees.
    rise : float
        Share of the labels that are made as wrong as can be, from the first one on.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int64, shape (repeats,)
        ``horizon + 1`` where there was no alarm.
    """
    bets = BETS / theta
    goal = max(average_run_length / block, 1.0)
    evidence = np.zeros((repeats, len(bets)))
    lengths = np.full(repeats, horizon + 1, np.int64)
    running = np.arange(repeats)
    looks = horizon // block
    stretch = max(1, 4096 // block)
    at = rng.integers(0, len(losses), repeats)
    for first in range(0, looks, stretch):
        n_looks = min(stretch, looks - first)
        n = n_looks * block
        chain = np.empty((running.size, n))
        for place in range(n):
            if (first * block + place) % drawn == 0:
                at = rng.integers(0, len(losses), running.size)
            else:
                at = (at + 1) % len(losses)
            chain[:, place] = losses[at]
        if rise > 0:
            chain[rng.random(chain.shape) < rise] = 1.0
        means = chain.reshape(running.size, n_looks, block).mean(axis=2)
        alive = np.ones(running.size, bool)
        for look in range(n_looks):
            evidence = (1 + evidence) * (1 + (means[:, look, None] - theta) * bets)
            over = alive & (evidence.mean(axis=1) >= goal)
            lengths[running[over]] = (first + look + 1) * block
            alive &= ~over
            # An alarm is one alarm: what grew on would only overflow.
            evidence[~alive] = 0.0
        running, evidence, at = running[alive], evidence[alive], at[alive]
        if not running.size:
            break
    return lengths
