"""Weights that make group and outcome look independent in the data a model learns from.

Each row weighs as many times more or less as its group and outcome occur together less or more
often than they would if neither depended on the other:

    w(g, y) = P(g) P(y) / P(g, y)

The weights of a group add up to its rows, and those of an outcome to its rows.

References
----------
Kamiran and Calders (2012), Data preprocessing techniques for classification without
discrimination, Knowl. Inf. Syst. 33:1-33.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.stats.interval import FloatArray
from mlguard.stats.rates import group_codes


def reweighing(groups: npt.ArrayLike, outcomes: npt.ArrayLike) -> FloatArray:
    """Return the weight of each row.

    Parameters
    ----------
    groups : array_like of shape (n_rows,)
        Value of the sensitive attribute; missing is a group of its own.
    outcomes : array_like of shape (n_rows,)
        The class to learn.

    Returns
    -------
    ndarray of shape (n_rows,)
        Positive; they add up to ``n_rows`` where every group has every outcome.

    Raises
    ------
    UsageError
        If there are no rows, or the arrays do not have the same length.

    Examples
    --------
    >>> reweighing(["f", "f", "f", "m"], [0, 0, 1, 1]).tolist()
    [0.75, 0.75, 1.5, 0.5]
    """
    names, group = group_codes(groups)
    classes, outcome = group_codes(outcomes)
    if group.shape != outcome.shape or not group.size:
        raise UsageError(
            f"groups {group.shape} and outcomes {outcome.shape} must have one entry a row"
        )
    cell = group * len(classes) + outcome
    together = np.bincount(cell, minlength=len(names) * len(classes))
    expected = np.bincount(group)[group] * np.bincount(outcome)[outcome] / group.size
    weights: FloatArray = expected / together[cell]
    return weights
