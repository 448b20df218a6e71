"""Labels that are probably wrong: confident learning.

A row counts as *confidently* of a class if its predicted probability reaches the mean
probability that the class has among the rows which carry its label.  A row that is confidently
of another class than its label says is an issue.  Probabilities must come from models that did
not see the row, or every label looks right.

References
----------
Northcutt, Jiang and Chuang (2021), Confident Learning, JAIR 70:1373-1411.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.stats.interval import FloatArray

#: Slack with which a probability reaches its class's threshold.
_TOLERANCE = 1e-6


def self_confidence(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> FloatArray:
    """Return the probability of each row's own label, shape (n_rows,): low ones are suspect.

    Parameters
    ----------
    labels : array_like of int, shape (n_rows,)
        Classes as places in the columns of ``probabilities``.
    probabilities : array_like of float, shape (n_rows, n_classes)
        Out-of-fold probabilities.

    Raises
    ------
    UsageError
        If shapes do not fit, a label is no class, or a probability is not finite.
    """
    codes, chances = _checked(labels, probabilities)
    found: FloatArray = chances[np.arange(len(codes)), codes]
    return found


def thresholds(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> FloatArray:
    """Return per class the mean probability of it among its own rows, shape (n_classes,).

    Parameters
    ----------
    labels, probabilities
        As in :func:`self_confidence`; a class without rows has NaN, which nothing reaches.
    """
    codes, chances = _checked(labels, probabilities)
    own = chances[np.arange(len(codes)), codes]
    n_classes = chances.shape[1]
    n = np.bincount(codes, minlength=n_classes)
    total = np.bincount(codes, weights=own, minlength=n_classes)
    found: FloatArray = np.divide(total, n, out=np.full(n_classes, np.nan), where=n > 0)
    return found


def label_issues(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which rows are confidently of another class than their label, shape (n_rows,).

    Parameters
    ----------
    labels, probabilities
        As in :func:`self_confidence`.

    Examples
    --------
    >>> chances = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.95, 0.05]]
    >>> label_issues([0, 0, 1, 1, 1], chances).tolist()
    [False, False, False, False, True]
    """
    codes, chances = _checked(labels, probabilities)
    limits = thresholds(codes, chances)
    # A comparison with NaN is false: nothing is confidently of a class without rows.
    confident = chances >= limits - _TOLERANCE
    best = np.where(confident, chances, -1.0).argmax(axis=1)
    found: npt.NDArray[np.bool_] = confident.any(axis=1) & (best != codes)
    return found


def _checked(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.intp], FloatArray]:
    codes = np.asarray(labels).astype(np.intp)
    chances = np.asarray(probabilities, float)
    if chances.ndim != 2 or codes.shape != chances.shape[:1]:  # rows and classes
        raise UsageError(
            f"labels of shape {codes.shape} and probabilities of shape {chances.shape}",
            hint="one label a row, and one column a class",
        )
    if codes.size and (codes.min() < 0 or codes.max() >= chances.shape[1]):
        raise UsageError(
            f"a label lies outside 0 to {chances.shape[1] - 1}",
            hint="a label is the place of its class among the columns of the probabilities",
        )
    if not np.isfinite(chances).all():
        raise UsageError(
            "a probability is not finite", hint="leave such rows out, or mend the model"
        )
    return codes, chances
