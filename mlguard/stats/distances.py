"""How far two distributions lie apart, from counts in the same cells.

Cells are the grid of a mergeable profile: intervals of a number in rising order, or categories.
All distances are plain estimates; what they prove is said by ``two_sample``.

=====================  ===========================================  ==================
distance               reads                                        range
=====================  ===========================================  ==================
Kolmogorov-Smirnov     largest difference of the two distribution   [0, 1]
                       functions, at the cells' edges
PSI                    both relative entropies, added               [0, inf)
Jensen-Shannon         root of the mean entropy to the middle       [0, 1] in base 2
Wasserstein, normed    how far mass must move, in reference sd      [0, inf)
=====================  ===========================================  ==================
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from mlguard.errors import UsageError
from mlguard.stats.interval import FloatArray

#: Rows added to every cell before a logarithm is taken, so that an empty one stays finite.
PSI_PRIOR = 0.5


def cell_counts(reference: npt.ArrayLike, window: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both counts as arrays, after a look at their shapes.

    Raises
    ------
    UsageError
        If they are not counts in the same cells, or one has no rows.
    """
    first, second = np.asarray(reference, float).ravel(), np.asarray(window, float).ravel()
    fits = first.shape == second.shape and first.size > 0
    # NaN compares as false, so it is refused with the negative counts.
    if not (fits and bool(np.all(first >= 0)) and bool(np.all(second >= 0))):
        raise UsageError(
            f"counts in {first.size} and {second.size} cells",
            hint="both must be counted on the reference's grid, and be at least 0",
        )
    if not (first.sum() > 0 and second.sum() > 0):
        raise UsageError("no rows in the reference or the window, so there is no distance")
    return first, second


def ks_distance(reference: npt.ArrayLike, window: npt.ArrayLike) -> float:
    """Kolmogorov-Smirnov distance at the edges of the cells.

    Parameters
    ----------
    reference, window : array_like of shape (n_cells,)
        Counts in rising cells.

    Returns
    -------
    float
        In [0, 1]; a lower bound of the distance of the values themselves.

    Raises
    ------
    UsageError
        If the counts do not fit.

    Examples
    --------
    >>> ks_distance([25, 25, 25, 25], [10, 10, 40, 40])
    0.3
    """
    first, second = cell_counts(reference, window)
    return float(np.abs(_edge_differences(first, second)).max())


def ks_most(reference: npt.ArrayLike, window: npt.ArrayLike) -> float:
    """Largest Kolmogorov-Smirnov distance that values with these counts can have.

    Inside a cell, one distribution may run ahead of the other by no more than its own mass
    there, seen from either edge.

    Parameters
    ----------
    reference, window : array_like of shape (n_cells,)
        Counts in rising cells.

    Returns
    -------
    float
        In [0, 1]; at most the distance at the edges plus the largest cell's mass.

    Raises
    ------
    UsageError
        If the counts do not fit.

    Examples
    --------
    >>> round(ks_most([25, 25, 25, 25], [10, 10, 40, 40]), 2)
    0.55
    """
    first, second = cell_counts(reference, window)
    p, q = first / first.sum(), second / second.sum()
    right = _edge_differences(first, second)
    left = np.concatenate(([0.0], right[:-1]))
    ahead = np.minimum(right + q, left + p)
    behind = np.minimum(-right + p, -left + q)
    return float(min(1.0, max(ahead.max(), behind.max())))


def _edge_differences(first: FloatArray, second: FloatArray) -> FloatArray:
    differences: FloatArray = np.cumsum(first) / first.sum() - np.cumsum(second) / second.sum()
    # Both functions are 1 at the last edge; what rounding leaves there is no distance.
    differences[-1] = 0.0
    return differences


def smoothed_shares(counts: FloatArray) -> FloatArray:
    """Return the shares of the cells with :data:`PSI_PRIOR` rows added to each."""
    shares: FloatArray = (counts + PSI_PRIOR) / (counts.sum() + PSI_PRIOR * counts.size)
    return shares


def psi(reference: npt.ArrayLike, window: npt.ArrayLike) -> float:
    """Return the population stability index.

    Parameters
    ----------
    reference, window : array_like of shape (n_cells,)
        Counts in the same cells, in any order.

    Returns
    -------
    float
        At least 0.  Half a row is added to every cell, so empty ones stay finite.

    Raises
    ------
    UsageError
        If the counts do not fit.

    References
    ----------
    Yurdakul (2018), Statistical Properties of Population Stability Index, Western Michigan
    University: without drift, ``psi * n * m / (n + m)`` follows a chi-squared distribution
    with one degree of freedom less than there are cells.

    Examples
    --------
    >>> round(psi([250, 250, 250, 250], [100, 200, 300, 400]), 3)
    0.227
    """
    first, second = cell_counts(reference, window)
    p, q = smoothed_shares(first), smoothed_shares(second)
    return float(((p - q) * np.log(p / q)).sum())


def jensen_shannon(reference: npt.ArrayLike, window: npt.ArrayLike, *, base: float = 2.0) -> float:
    """Jensen-Shannon distance, the square root of the divergence.

    Parameters
    ----------
    reference, window : array_like of shape (n_cells,)
        Counts in the same cells, in any order.
    base : float, default 2
        Of the logarithm; with 2 the distance lies in [0, 1].

    Returns
    -------
    float

    Raises
    ------
    UsageError
        If the counts do not fit.

    References
    ----------
    Endres and Schindelin (2003), IEEE Trans. Inf. Theory 49:1858-1860.

    Examples
    --------
    >>> jensen_shannon([10, 0], [0, 10])
    1.0
    """
    first, second = cell_counts(reference, window)
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    divergence = (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum() / 2
    return math.sqrt(max(float(divergence), 0.0) / math.log(base))


def wasserstein_normed(
    reference: npt.ArrayLike,
    window: npt.ArrayLike,
    positions: npt.ArrayLike,
    *,
    scale: float | None = None,
) -> float:
    """Wasserstein distance in units of the reference's spread.

    Parameters
    ----------
    reference, window : array_like of shape (n_cells,)
        Counts in rising cells.
    positions : array_like of shape (n_cells,)
        Where each cell's values lie, rising, e.g. its middle.
    scale : float, optional
        Standard deviation of the reference; default: that of the counts at their positions.

    Returns
    -------
    float
        At least 0; ``inf`` where the reference is constant and the window differs.

    Raises
    ------
    UsageError
        If the counts or positions do not fit.

    Examples
    --------
    >>> wasserstein_normed([50, 50, 0], [0, 50, 50], [0.0, 1.0, 2.0])
    2.0
    """
    first, second = cell_counts(reference, window)
    x = np.asarray(positions, float).ravel()
    if x.shape != first.shape or not bool(np.all(np.diff(x) >= 0)):
        raise UsageError(f"{x.size} positions for {first.size} cells; one a cell, rising, expected")
    moved = float((np.abs(_edge_differences(first, second))[:-1] * np.diff(x)).sum())
    if scale is None:
        mean = float(np.average(x, weights=first))
        scale = math.sqrt(float(np.average((x - mean) ** 2, weights=first)))
    if moved == 0:
        return 0.0
    return moved / scale if scale > 0 else math.inf
