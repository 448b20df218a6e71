"""The bootstrap of rows, drawn as counts.

Drawing rows with replacement and counting them gives multinomial counts of the cells.  So the
counts are drawn: a thousand replicates of a hundred thousand rows take as long as of a hundred.

Weighted rows of one cell differ.  A replicate draws how many rows of the cell it has, and then
their total weight, by its mean and variance given that number.

Gaps between groups are bounded by max-t: the deviation of every comparison from *its own*
estimate, in units of its own spread, and of these the largest.  The quantiles of the replicates'
largest gap would be no interval: the largest of noise is positive, so ten groups that are alike
would fail four times out of five.

References: Efron and Tibshirani (1993), An Introduction to the Bootstrap; Westfall and Young
(1993), Resampling-Based Multiple Testing, for the maximum over comparisons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlguard.errors import UsageError
from mlguard.stats.cells import Cells
from mlguard.stats.interval import FloatArray, critical_value

#: Replicates: the 95 % quantile of the maximum then has an error of about 1 %.
N_BOOT = 1000


def resample(cells: Cells, *, n_boot: int = N_BOOT, seed: int = 0) -> FloatArray:
    """Draw replicates of the cells' weights, as resampling the rows would give them.

    Parameters
    ----------
    cells : Cells
        Rows per group and cell.
    n_boot : int, default 1000
        Replicates, at least 1.
    seed : int, default 0
        The same seed gives the same replicates.

    Returns
    -------
    ndarray of shape (n_boot, n_groups, n_cells)
        Sums of weights; counts where rows have none.

    Raises
    ------
    UsageError
        If there are no rows to draw from, or no replicates are asked for.

    Examples
    --------
    >>> cells = Cells.confusion([1, 0, 1, 0] * 50, [1, 1, 0, 0] * 50, [0] * 200, ["a"])
    >>> drawn = resample(cells, n_boot=500)
    >>> drawn.shape, set(drawn.sum(axis=(1, 2)).tolist())
    ((500, 1, 4), {200.0})
    """
    total = int(cells.count.sum())
    if n_boot < 1 or total < 1:
        raise UsageError(f"{n_boot} replicates of {total} rows cannot be drawn")
    random = np.random.default_rng(seed)
    count = cells.count.ravel()
    filled = np.flatnonzero(count)
    drawn = np.zeros((n_boot, count.size))
    drawn[:, filled] = random.multinomial(total, count[filled] / total, size=n_boot)
    if cells.weighted:
        mean = cells.weight.ravel()[filled] / count[filled]
        variance = np.maximum(cells.square.ravel()[filled] / count[filled] - mean**2, 0.0)
        rows = drawn[:, filled]
        noise = random.standard_normal(rows.shape) * np.sqrt(rows * variance)
        drawn[:, filled] = np.maximum(rows * mean + noise, 0.0)
    return drawn.reshape(n_boot, *cells.count.shape)


@dataclass(frozen=True, slots=True)
class MaxT:
    """How far estimates may be from the truth, all together.

    Attributes
    ----------
    error : ndarray of shape (n_comparisons,)
        Standard errors.
    z : float
        Critical value that holds over all comparisons.
    """

    error: FloatArray
    z: float


def max_t(
    values: FloatArray,
    replicates: FloatArray,
    *,
    confidence_level: float = 0.95,
    family_error: float = 0.05,
) -> MaxT:
    """Return standard errors and the critical value that holds over all comparisons.

    Parameters
    ----------
    values : ndarray of shape (n_comparisons,)
        Estimates.
    replicates : ndarray of shape (n_boot, n_comparisons)
        The same of each replicate; NaN where one is undefined.
    confidence_level : float, default 0.95
        Least level of each interval.
    family_error : float, default 0.05
        Error over all comparisons together.

    Returns
    -------
    MaxT

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal((4000, 10))
    >>> found = max_t(np.zeros(10), noise)
    >>> 2.7 < found.z < 2.9
    True
    """
    deviations = replicates - values
    rows = np.isfinite(deviations).sum(axis=0)
    # Around the estimate, not around the replicates' mean: their bias is spread, too.
    squares = np.where(np.isfinite(deviations), deviations, 0.0) ** 2
    error = np.sqrt(
        np.divide(squares.sum(axis=0), rows, out=np.zeros(values.shape), where=rows > 0)
    )
    known = error > 0
    floor = critical_value(confidence_level)
    if not known.any():
        return MaxT(error, floor)
    studentised = np.abs(np.nan_to_num(deviations[:, known])) / error[known]
    quantile = float(np.quantile(studentised.max(axis=1), 1 - family_error))
    return MaxT(error, max(floor, quantile))
