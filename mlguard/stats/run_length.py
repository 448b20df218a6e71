"""How much of the detector's promise is left where errors come in runs.

The promise of :mod:`mlguard.stats.sequential` is about each loss *given the past*.  Where one
wrong answer makes the next more likely, false alarms come sooner than promised, and there is no
closed form for how much sooner.  So it was measured: errors of a two-state Markov chain with the
mean exactly at theta (0.02, 0.05, 0.1, 0.2, 0.4) and lag-1 correlation rho, 300 detectors for
each cell (120 at A = 100,000), seed 0.  The table keeps the worst theta of each cell.

Means of ``b`` losses are less correlated than the losses, and :func:`block_correlation` says how
much; ``block = b`` looks at those means, and that restores the promise.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

#: Lag-1 correlations of the table.
_RHO = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
#: Common logarithms of A of the table.
_LOG_A = np.array([3.0, 4.0, 5.0])
#: Measured mean run over A, at most 1: rows are A, columns rho; at 0.05 and A = 100,000 in line
#: with the two before.
_KEPT = np.array(
    [
        [1.0, 0.897, 0.731, 0.458, 0.302, 0.158, 0.086, 0.056],
        [1.0, 0.657, 0.335, 0.150, 0.092, 0.029, 0.014, 0.008],
        [1.0, 0.481, 0.161, 0.048, 0.022, 0.006, 0.002, 0.001],
    ]
)
#: Losses below which nothing is said of how they follow each other.
LEAST_N = 200
#: Standard deviations by which a correlation must stand out.
CHANCE = 3.0
#: Block lengths that are proposed.
BLOCKS = (2, 5, 10, 25, 50, 100, 200, 500)
#: Share of the promise that a proposed block keeps, at least.
WELL_KEPT = 0.9


def kept_run_length(average_run_length: float, rho: float, *, block: int = 1) -> float:
    """Return the labels to a false alarm that can be promised at a lag-1 correlation.

    Parameters
    ----------
    average_run_length : float
        What is promised of losses that do not come in runs, in labels, at least 1.
    rho : float
        Lag-1 correlation of the losses; NaN, or below 0, counts as 0.
    block : int, default 1
        Labels averaged into one look.

    Returns
    -------
    float
        In labels, at most ``average_run_length``.

    Notes
    -----
    Interpolated in rho and log A between measured cells (the head of this module), and
    extrapolated in log A beyond them.

    Examples
    --------
    >>> round(kept_run_length(10_000, 0.2)), round(kept_run_length(10_000, 0.5))
    (1500, 290)
    >>> round(kept_run_length(10_000, 0.5, block=25))
    9483
    """
    looks = max(average_run_length / block, 1.0)
    correlation = block_correlation(rho, block)
    if not correlation > 0 or looks <= 1:
        return float(average_run_length)
    shares = np.array([np.interp(correlation, _RHO, row) for row in np.log10(_KEPT)])
    place = math.log10(looks)
    if place < _LOG_A[0]:
        # A promise of one label cannot shrink.
        share = shares[0] * place / _LOG_A[0]
    else:
        low, high = next(
            (one for one in pairwise(range(len(_LOG_A))) if place <= _LOG_A[one[1]]), (1, 2)
        )
        slope = (shares[high] - shares[low]) / (_LOG_A[high] - _LOG_A[low])
        share = shares[low] + slope * (place - _LOG_A[low])
    return float(max(1.0, average_run_length * 10.0 ** min(float(share), 0.0)))


def proven_correlation(rho: float, n: int) -> float:
    """Return a lag-1 correlation, 0 where independent losses would show as much by chance.

    Parameters
    ----------
    rho : float
        Estimated from ``n`` losses; NaN counts as 0.
    n : int
        Losses behind it; below 200 nothing is proven.

    Examples
    --------
    >>> proven_correlation(0.05, 1000), proven_correlation(0.5, 1000)
    (0.0, 0.5)
    """
    # Of independent losses the estimate is about normal with standard deviation 1 / sqrt(n).
    if n < LEAST_N or not rho > CHANCE / math.sqrt(n):
        return 0.0
    return rho


def block_correlation(rho: float, block: int) -> float:
    """Return the lag-1 correlation of the means of blocks, where it falls off as ``rho ** lag``.

    Parameters
    ----------
    rho : float
        Lag-1 correlation of single losses; NaN, or below 0, counts as 0.
    block : int
        Losses in a block.

    Examples
    --------
    >>> round(block_correlation(0.5, 25), 3)
    0.028
    """
    rho = min(rho, 0.999) if rho > 0 else 0.0
    if block <= 1 or rho == 0:
        return rho
    lags = np.arange(1, block)
    within = block + 2 * float(((block - lags) * rho**lags).sum())
    between = rho * ((1 - rho**block) / (1 - rho)) ** 2
    return between / within


def block_needed(average_run_length: float, rho: float) -> int:
    """Return the shortest block that keeps nearly all of the promise.

    Parameters
    ----------
    average_run_length : float
        What is promised, in labels.
    rho : float
        Lag-1 correlation of the losses.

    Returns
    -------
    int
        1, or one of :data:`BLOCKS`; the longest where none is enough.

    Examples
    --------
    >>> block_needed(10_000, 0.5), block_needed(10_000, 0.0)
    (25, 1)
    """
    for block in (1, *BLOCKS):
        if kept_run_length(average_run_length, rho, block=block) >= WELL_KEPT * average_run_length:
            return block
    return BLOCKS[-1]
