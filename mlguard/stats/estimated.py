"""How well a classifier is doing, from its scores alone: no labels.

If scores are calibrated, a row's score *is* the chance that it is positive, so the expected
number of right answers, and how far chance can push the realised one from it, follow from the
scores (confidence-based performance estimation).  Accuracy is a sum of independent rows; F1 and
the area under the ROC curve are smooth functions of such sums, and their error is that of their
linearisation (the delta method).

What is assumed is that labels still follow the scores.  Where the world changes what a score
means, the estimate goes on saying that all is well: only labels can tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from mlguard.stats.interval import Interval

__all__ = [
    "ESTIMATED",
    "Calibration",
    "Estimate",
    "EstimatedMetric",
    "calibrate",
    "estimate_performance",
    "realised_performance",
]

FloatArray = npt.NDArray[np.float64]
EstimatedMetric = Literal["accuracy", "f1", "auc"]
#: What can be estimated.
ESTIMATED: tuple[EstimatedMetric, ...] = ("accuracy", "f1", "auc")
#: A map of scores has at most so many steps.
_KNOTS = 64
#: |z| above which scores are not calibrated (two-sided 1 %).
_Z = 2.5758293035489004
#: Expected positives, or pairs, below which there are none.
_NOBODY = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated figure and how far the realised one may lie from it by chance.

    Attributes
    ----------
    value : float
        In [0, 1]; NaN where the figure is not defined (no positive is expected, one class only).
    error : float
        Standard deviation of the realised figure around ``value``, given the scores.
    n : int
        Rows.
    """

    value: float
    error: float
    n: int

    def interval(self, confidence_level: float) -> Interval:
        """Return where the realised figure lies with that probability, clipped to [0, 1]."""
        half = float(ndtri((1 + confidence_level) / 2)) * self.error
        return Interval(max(0.0, self.value - half), min(1.0, self.value + half))


def estimate_performance(
    probabilities: npt.ArrayLike, positive: npt.ArrayLike, metric: EstimatedMetric = "accuracy"
) -> Estimate:
    """Estimate a figure of a binary classifier from calibrated scores.

    Parameters
    ----------
    probabilities : array_like of shape (n,)
        Chance of each row to be positive, in [0, 1]; finite.
    positive : array_like of bool, shape (n,)
        Which rows were answered by the positive class.
    metric : {"accuracy", "f1", "auc"}
        AUC ranks by ``probabilities``; rows that tie count a half.

    Returns
    -------
    Estimate
        NaN where the figure is not defined.

    Raises
    ------
    ValueError
        If a probability is not in [0, 1], or the two differ in length.
    """
    p = np.asarray(probabilities, np.float64)
    yes = np.asarray(positive, np.bool_)
    if p.shape != yes.shape or p.ndim != 1:
        raise ValueError(f"probabilities and answers differ in shape: {p.shape} and {yes.shape}")
    if p.size and not (p.min() >= 0 and p.max() <= 1):  # also False for NaN
        raise ValueError("a probability lies in [0, 1]")
    n, spread = p.size, p * (1 - p)
    if not n:
        return Estimate(math.nan, math.nan, 0)
    if metric == "accuracy":
        right = np.where(yes, p, 1 - p)
        return Estimate(float(right.mean()), float(np.sqrt(spread.sum())) / n, n)
    if metric == "f1":
        return _f1(p, yes, spread)
    return _auc(p, spread)


def _f1(p: FloatArray, yes: npt.NDArray[np.bool_], spread: FloatArray) -> Estimate:
    """F1 = 2 TP / (answered positive + positive), a function of two sums of the same rows."""
    both = float(yes.sum() + p.sum())
    if both < _NOBODY:
        return Estimate(math.nan, math.nan, p.size)
    hits = float(p[yes].sum())
    slope = np.where(yes, 2 / both, 0.0) - 2 * hits / both**2
    return Estimate(2 * hits / both, float(np.sqrt((slope**2 * spread).sum())), p.size)


def _auc(p: FloatArray, spread: FloatArray) -> Estimate:
    """Area = expected pairs in order / expected pairs, over pairs of different rows."""
    order = np.argsort(p, kind="stable")
    sorted_p = p[order]
    first = np.searchsorted(sorted_p, p, side="left")
    last = np.searchsorted(sorted_p, p, side="right")
    positives = np.concatenate([[0.0], np.cumsum(sorted_p)])
    negatives = np.concatenate([[0.0], np.cumsum(1 - sorted_p)])
    # Of each row: expected negatives below it and positives above it, ties by half.
    below = negatives[first] + (negatives[last] - negatives[first] - (1 - p)) / 2
    above = positives[-1] - positives[last] + (positives[last] - positives[first] - p) / 2
    n_positive, n_negative = float(p.sum()), float((1 - p).sum())
    ordered = float(p @ below)
    # A row is no pair with itself.
    pairs = n_positive * n_negative - float(spread.sum())
    if pairs < _NOBODY:
        return Estimate(math.nan, math.nan, p.size)
    slope = (below - above) / pairs - ordered * (n_negative - n_positive - 1 + 2 * p) / pairs**2
    value = ordered / pairs
    return Estimate(value, float(np.sqrt((slope**2 * spread).sum())), p.size)


def realised_performance(
    truth: npt.ArrayLike,
    positive: npt.ArrayLike,
    scores: npt.ArrayLike,
    metric: EstimatedMetric = "accuracy",
) -> float:
    """Return the same figure from labels; NaN where it is not defined.

    Parameters
    ----------
    truth, positive : array_like of bool, shape (n,)
        Which rows are positive, and which were answered so.
    scores : array_like of shape (n,)
        What AUC ranks by.
    """
    found = np.asarray(truth, np.bool_)
    yes = np.asarray(positive, np.bool_)
    if not found.size:
        return math.nan
    if metric == "accuracy":
        return float((found == yes).mean())
    if metric == "f1":
        both = int(found.sum() + yes.sum())
        return 2 * int((found & yes).sum()) / both if both else math.nan
    ranked = np.asarray(scores, np.float64)
    high, low = np.sort(ranked[found]), np.sort(ranked[~found])
    if not high.size or not low.size:
        return math.nan
    below = np.searchsorted(low, high, side="left")
    ties = np.searchsorted(low, high, side="right") - below
    return float((below + ties / 2).sum() / (high.size * low.size))


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What a version's scores meant on its reference.

    Attributes
    ----------
    z : float
        Spiegelhalter's statistic: standard normal where scores are calibrated.
    scores, rates : ndarray of shape (n_knots,)
        Rising map from a score to the share of positives there (isotonic regression).
    """

    z: float
    scores: FloatArray
    rates: FloatArray

    @property
    def calibrated(self) -> bool:
        """Whether the scores may be taken as they are."""
        return abs(self.z) <= _Z

    def probabilities(self, scores: npt.ArrayLike) -> FloatArray:
        """Return scores as chances: as they are where calibrated, else mapped."""
        values = np.asarray(scores, np.float64)
        if self.calibrated:
            return np.clip(values, 0.0, 1.0)
        return np.interp(values, self.scores, self.rates)

    def to_json(self) -> dict[str, object]:
        """Return it as strict JSON values."""
        return {
            "z": float(np.clip(self.z, -1e9, 1e9)),
            "scores": self.scores.tolist(),
            "rates": self.rates.tolist(),
        }


def calibrate(scores: npt.ArrayLike, truth: npt.ArrayLike) -> Calibration:
    """Find out what scores mean.

    Parameters
    ----------
    scores : array_like of shape (n,)
        Finite.
    truth : array_like of bool, shape (n,)
        Which rows are positive.

    Raises
    ------
    ValueError
        If there are no rows, or the two differ in length.
    """
    from scipy.optimize import isotonic_regression

    s, y = np.asarray(scores, np.float64), np.asarray(truth, np.float64)
    if not s.size or s.shape != y.shape:
        raise ValueError(f"scores and labels differ in shape, or are empty: {s.shape}, {y.shape}")
    if s.min() < 0 or s.max() > 1:
        z = math.inf  # a margin or a logit is no chance
    else:
        variance = float(((1 - 2 * s) ** 2 * s * (1 - s)).sum())
        total = float(((y - s) * (1 - 2 * s)).sum())
        z = total / math.sqrt(variance) if variance else (math.inf if total else 0.0)
    different, place, counts = np.unique(s, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=y) / counts
    rates = isotonic_regression(means, weights=counts).x
    # The ends of each level carry the whole of the map.
    kept = np.ones(len(different), np.bool_)
    kept[1:-1] = (np.diff(rates)[:-1] != 0) | (np.diff(rates)[1:] != 0)
    knots = np.flatnonzero(kept)
    if len(knots) > _KNOTS:
        knots = knots[np.linspace(0, len(knots) - 1, _KNOTS).round().astype(int)]
    return Calibration(z, different[knots], np.clip(rates[knots], 0.0, 1.0))
