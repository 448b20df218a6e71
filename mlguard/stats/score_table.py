"""Scores of one group, and what follows from answering yes from some score on.

A :class:`ScoreTable` holds a group's distinct scores from the highest, how many have each, and
how often the truth is positive there.  It is made from rows, or from a published distribution.
A :class:`Cut` is a threshold.  Held against a table it gives an :class:`Operating` point: the
rates, the utility and the delayed impact that this threshold would have had.

A cut may be randomised: everybody from ``high`` on is answered yes, those between ``low`` and
``high`` with probability ``share``.  That is how a rate is met exactly where many people have
the same score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.results import finite_or_none
from mlguard.stats.interval import FloatArray

#: Differences of shares that are rounding of sums, not people.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Utility:
    """What a yes is worth to whoever decides.

    Attributes
    ----------
    success : float
        Worth of a yes where the truth is positive.
    failure : float
        Worth of a yes where it is not; a loss is negative.  A no is worth 0.

    Examples
    --------
    >>> Utility(success=1, failure=-4).break_even
    0.8
    """

    success: float = 1.0
    failure: float = -1.0

    @property
    def break_even(self) -> float:
        """Probability of success from which a yes pays."""
        return -self.failure / (self.success - self.failure)

    def of(self, success: FloatArray) -> FloatArray:
        """Return the expected worth of a yes at each probability of success."""
        return self.success * success + self.failure * (1 - success)


@dataclass(frozen=True, slots=True)
class Cut:
    """A threshold, randomised where ``low`` and ``high`` differ.

    Attributes
    ----------
    high : float
        Score from which everybody is answered yes; infinite where nobody is.
    low : float
        Score from which some are.
    share : float
        Probability of a yes between the two, in [0, 1]; 1 where they are the same.

    Examples
    --------
    >>> Cut.at(0.5).threshold
    0.5
    >>> Cut(high=0.6, low=0.5, share=0.25).threshold
    0.575
    """

    high: float
    low: float
    share: float = 1.0

    @classmethod
    def at(cls, threshold: float) -> Self:
        """Return the cut that is one threshold."""
        return cls(threshold, threshold)

    @property
    def randomised(self) -> bool:
        """Whether some are answered by lot."""
        return self.low < self.high

    @property
    def threshold(self) -> float:
        """The threshold on average over the lots that are drawn."""
        if not self.randomised or math.isinf(self.high):
            return self.low
        return self.share * self.low + (1 - self.share) * self.high

    def probability(self, scores: npt.ArrayLike) -> FloatArray:
        """Return the probability of a yes at each score; 0 where the score is NaN."""
        values = np.asarray(scores, float)
        return np.where(values >= self.high, 1.0, np.where(values >= self.low, self.share, 0.0))

    def to_json(self) -> dict[str, float | None]:
        """Return the cut as strict JSON values; an infinite threshold is null."""
        return {
            "threshold": finite_or_none(self.threshold),
            "from": finite_or_none(self.low),
            "always_from": finite_or_none(self.high),
            "share": self.share,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """What a cut does to one group.

    Attributes
    ----------
    cut : Cut
    selection_rate : float
        Share that is answered yes.
    true_positive_rate, false_positive_rate, precision : float or None
        None where the denominator is empty.
    utility : float
        Per person of the group, those answered no included.
    impact : float or None
        Mean change of the group's score, those answered no included; None where it is unknown.
    n : int or None
        Rows behind the figures; None where the distribution is known.
    positives, negatives : float
        Share of the group whose truth is positive, and the rest.
    """

    cut: Cut
    selection_rate: float
    true_positive_rate: float | None
    false_positive_rate: float | None
    precision: float | None
    utility: float
    impact: float | None
    n: int | None
    positives: float
    negatives: float

    def to_json(self) -> dict[str, Any]:
        """Return the point as strict JSON values."""
        return {
            **self.cut.to_json(),
            "n": self.n,
            "selection_rate": self.selection_rate,
            "true_positive_rate": self.true_positive_rate,
            "false_positive_rate": self.false_positive_rate,
            "precision": self.precision,
            "utility": self.utility,
            "delayed_impact": self.impact,
        }


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """One group by its distinct scores, from the highest.

    Attributes
    ----------
    scores : ndarray of shape (k,)
        Strictly falling, finite.
    mass : ndarray of shape (k,)
        Share of the group that has each score; they add up to 1.
    success : ndarray of shape (k,)
        Share of them whose truth is positive, in [0, 1].
    impact : ndarray of shape (k,) or None
        Mean change that a yes brings them; None where it is unknown.
    n : int or None
        Rows that were counted; None where the distribution is known.

    Raises
    ------
    UsageError
        If the arrays do not fit each other.
    """

    scores: FloatArray
    mass: FloatArray
    success: FloatArray
    impact: FloatArray | None = None
    n: int | None = None

    def __post_init__(self) -> None:
        shapes = {one.shape for one in (self.scores, self.mass, self.success)}
        shapes |= set() if self.impact is None else {self.impact.shape}
        if len(shapes) != 1 or not self.scores.size:
            raise UsageError(f"scores, mass, success and impact have the shapes {sorted(shapes)}")
        if not np.isfinite(self.scores).all() or (np.diff(self.scores) >= 0).any():
            raise UsageError("scores must be finite and fall strictly")
        if (self.mass < 0).any() or not math.isclose(float(self.mass.sum()), 1, abs_tol=1e-9):
            raise UsageError(f"the mass must add up to 1, found {self.mass.sum():.6g}")
        if ((self.success < 0) | (self.success > 1)).any():
            raise UsageError("success is a share, so it lies between 0 and 1")

    @classmethod
    def of_rows(
        cls, scores: npt.ArrayLike, truth: npt.ArrayLike, impact: npt.ArrayLike | None = None
    ) -> Self:
        """Count rows.

        Parameters
        ----------
        scores : array_like of shape (n_rows,)
            Score of each; finite.
        truth : array_like of shape (n_rows,)
            Whether the truth is positive.
        impact : array_like of shape (n_rows,), optional
            Change that a yes brings to each.

        Raises
        ------
        UsageError
            If there are no rows or the arrays do not fit each other.
        """
        values, positive = np.asarray(scores, float), np.asarray(truth, bool)
        if values.ndim != 1 or values.shape != positive.shape or not values.size:
            raise UsageError(
                f"scores {values.shape} and truth {positive.shape} must have one entry a row"
            )
        if not np.isfinite(values).all():
            raise UsageError("a score that is not finite has no place among the others")
        found, place = np.unique(-values, return_inverse=True)
        rows = np.bincount(place).astype(float)
        moved = None
        if impact is not None:
            moved = np.bincount(place, weights=np.asarray(impact, float)) / rows
        success = np.bincount(place, weights=positive.astype(float)) / rows
        return cls(-found, rows / values.size, success, moved, values.size)

    @classmethod
    def of_distribution(
        cls,
        scores: npt.ArrayLike,
        mass: npt.ArrayLike,
        success: npt.ArrayLike,
        impact: npt.ArrayLike | None = None,
    ) -> Self:
        """Take a published distribution, in any order; the mass is scaled to add up to 1.

        Raises
        ------
        UsageError
            If the arrays do not fit each other or hold a score twice.
        """
        values = np.asarray(scores, float)
        order = np.argsort(-values)
        weights = np.asarray(mass, float)[order]
        return cls(
            values[order],
            weights / weights.sum(),
            np.asarray(success, float)[order],
            None if impact is None else np.asarray(impact, float)[order],
        )

    @property
    def base_rate(self) -> float:
        """Share of the group whose truth is positive."""
        return float(self.mass @ self.success)

    def summed(self, values: FloatArray) -> FloatArray:
        """Return what the first 0, 1, … k scores hold of a quantity, shape (k + 1,)."""
        return np.concatenate([[0.0], np.cumsum(self.mass * values)])

    def selection(self) -> FloatArray:
        """Return the selection rate with the first 0, 1, … k scores, shape (k + 1,)."""
        return self._share(np.ones_like(self.mass))

    def true_positives(self) -> FloatArray:
        """Return the true positive rate with the first 0, 1, … k scores; NaN without positives."""
        return self._share(self.success)

    def false_positives(self) -> FloatArray:
        """Return the false positive rate with the first 0, 1, … k scores; NaN without negatives."""
        return self._share(1 - self.success)

    def _share(self, values: FloatArray) -> FloatArray:
        held = self.summed(values)
        if held[-1] <= 0:
            return np.full_like(held, np.nan)
        # Divided by its own end, so that everybody is exactly 1.
        rate: FloatArray = held / held[-1]
        return rate

    def cut(self, place: float) -> Cut:
        """Return the cut that takes the first ``place`` scores, a fraction of the next by lot."""
        whole = math.floor(place + ROUNDING)
        share = place - whole
        high = float(self.scores[whole - 1]) if whole else math.inf
        if share <= ROUNDING:
            return Cut.at(high)
        return Cut(high=high, low=float(self.scores[whole]), share=share)

    def operate(self, cut: Cut, utility: Utility) -> Operating:
        """Return what a cut does to this group."""
        taken = self.mass * cut.probability(self.scores)
        selected = float(taken.sum())
        positives, negatives = self.base_rate, float(self.mass @ (1 - self.success))
        hits, misses = float(taken @ self.success), float(taken @ (1 - self.success))
        return Operating(
            cut=cut,
            selection_rate=min(1.0, selected),
            true_positive_rate=min(1.0, hits / positives) if positives > 0 else None,
            false_positive_rate=min(1.0, misses / negatives) if negatives > 0 else None,
            precision=hits / selected if selected > 0 else None,
            utility=float(taken @ utility.of(self.success)),
            impact=None if self.impact is None else float(taken @ self.impact),
            n=self.n,
            positives=positives,
            negatives=negatives,
        )
