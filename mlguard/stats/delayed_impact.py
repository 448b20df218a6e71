"""What a decision does to the people it is about, later.

A loan that is repaid raises a credit score, one that is not lowers it.  So a yes changes a
person's score x by

    Δ(x) = c₊ ρ(x) + c₋ (1 − ρ(x))

where ρ(x) is the probability of success, and a policy changes a group's mean score by Δμ, the
mean of Δ over those answered yes and of 0 over the others.  *Active harm*: Δμ < 0.  *Relative
harm*: Δμ is below what the policy of maximum utility would bring.

Along the selection rate Δμ draws the *outcome curve*: it rises while people are taken who are
likely to succeed, has its maximum at b*, and is 0 again at b₀, beyond which a yes to more
people does the group harm.

References
----------
Liu, Dean, Rolf, Simchowitz and Hardt (2018), Delayed impact of fair machine learning, ICML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from mlguard.errors import UsageError
from mlguard.stats.interval import FloatArray
from mlguard.stats.score_table import ScoreTable

Harm: TypeAlias = Literal["active", "relative", "none"]


@dataclass(frozen=True, slots=True)
class ImpactModel:
    """How a yes changes a score.

    Attributes
    ----------
    success : float
        Change where the truth is positive, c₊.
    failure : float
        Change where it is not, c₋; a fall is negative.
    low, high : float
        Ends of the score's scale: the expected new score is kept between them.

    Raises
    ------
    UsageError
        If the ends are the wrong way round.

    Examples
    --------
    >>> fico = ImpactModel(success=75, failure=-150, low=300, high=850)
    >>> fico.expected([600, 840], [0.8, 1.0]).tolist()
    [30.0, 10.0]
    """

    success: float
    failure: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError(f"a score between {self.low:g} and {self.high:g} does not exist")

    def expected(self, scores: npt.ArrayLike, success: npt.ArrayLike) -> FloatArray:
        """Return the expected change at each score, given its probability of success."""
        x, rho = np.asarray(scores, float), np.asarray(success, float)
        moved = x + self.success * rho + self.failure * (1 - rho)
        change: FloatArray = np.clip(moved, self.low, self.high) - x
        return change

    def realised(
        self, scores: npt.ArrayLike, truth: npt.ArrayLike, success: npt.ArrayLike
    ) -> FloatArray:
        """Return each person's change, corrected by what came true.

        Parameters
        ----------
        scores : array_like of shape (n_rows,)
            The score that moves.
        truth : array_like of shape (n_rows,)
            Whether the truth is positive.
        success : array_like of shape (n_rows,)
            Probability of success that was estimated from the score.

        Returns
        -------
        ndarray of shape (n_rows,)
            Their mean over any set of people estimates that set's mean change, also where the
            decision knew more about them than their score: the expected change plus what the
            estimate of success missed.  Where no score meets an end of the scale this is
            c₊ for a success and c₋ for a failure.
        """
        x, rho = np.asarray(scores, float), np.asarray(success, float)
        moved = x + self.success * rho + self.failure * (1 - rho)
        inside = (moved > self.low) & (moved < self.high)
        missed = np.asarray(truth, float) - rho
        slope = np.where(inside, self.success - self.failure, 0.0)
        change: FloatArray = self.expected(x, rho) + slope * missed
        return change


def success_curve(scores: npt.ArrayLike, truth: npt.ArrayLike) -> FloatArray:
    """Estimate the probability of success at each row's score.

    The non-decreasing function of the score that is nearest to what came true (isotonic
    regression): a higher score never means less success.

    Parameters
    ----------
    scores : array_like of shape (n_rows,)
        Finite.
    truth : array_like of shape (n_rows,)
        Whether the truth is positive.

    Returns
    -------
    ndarray of shape (n_rows,)
        In [0, 1], in the order of the rows; its mean is the base rate.

    Raises
    ------
    UsageError
        If there are no rows, or the arrays do not fit each other.

    Examples
    --------
    >>> success_curve([1, 2, 3, 4], [0, 1, 0, 1]).tolist()
    [0.0, 0.5, 0.5, 1.0]
    """
    table = ScoreTable.of_rows(scores, truth)
    rising = isotonic_regression(table.success[::-1], weights=table.mass[::-1]).x
    place = np.searchsorted(table.scores[::-1], np.asarray(scores, float))
    fitted: FloatArray = np.clip(rising[place], 0.0, 1.0)
    return fitted


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeCurve:
    """Mean change of a group's score along the selection rate.

    Attributes
    ----------
    selection_rate, impact : ndarray of shape (k + 1,)
        From nobody to everybody.
    best : float
        Selection rate of the largest impact, b*.
    best_impact : float
        That impact; at least 0, because nobody need be selected.
    zero : float or None
        Selection rate beyond which the impact is negative, b₀; None where it never is.
    """

    selection_rate: FloatArray
    impact: FloatArray
    best: float
    best_impact: float
    zero: float | None


def outcome_curve(table: ScoreTable) -> OutcomeCurve:
    """Return the outcome curve of a group.

    Parameters
    ----------
    table : ScoreTable
        The group, with the impact of a yes at each score.

    Raises
    ------
    UsageError
        If the impact is not known.

    Examples
    --------
    >>> group = ScoreTable.of_distribution([1, 2], [0.5, 0.5], [0.2, 0.9], [-20.0, 10.0])
    >>> curve = outcome_curve(group)
    >>> curve.best, curve.best_impact, curve.zero
    (0.5, 5.0, 0.75)
    """
    if table.impact is None:
        raise UsageError("this table does not say what a yes changes, so there is no curve")
    rate, impact = table.selection(), table.summed(table.impact)
    top = int(np.argmax(impact))
    below = np.flatnonzero(impact[top:] < 0)
    zero = None
    if below.size:
        after = top + int(below[0])
        if after == 0:
            zero = 0.0
        else:
            fall = impact[after - 1] - impact[after]
            part = impact[after - 1] / fall
            zero = float(rate[after - 1] + part * (rate[after] - rate[after - 1]))
    return OutcomeCurve(rate, impact, float(rate[top]), float(impact[top]), zero)


def harm(impact: float, at_max_utility: float) -> Harm:
    """Return which harm an impact is: active below 0, relative below that of maximum utility.

    Examples
    --------
    >>> harm(-17.1, 8.4), harm(6.0, 8.4), harm(8.4, 8.4)
    ('active', 'relative', 'none')
    """
    if impact < 0:
        return "active"
    # Sums of many small shares differ in their last digits.
    close = math.isclose(impact, at_max_utility, rel_tol=1e-9, abs_tol=1e-12)
    return "relative" if impact < at_max_utility and not close else "none"
