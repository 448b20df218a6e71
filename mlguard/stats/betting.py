"""Means of bounded numbers, bounded by betting against every candidate mean.

A gambler who bets that the mean is larger than ``m`` starts with 1 and multiplies the wealth
by ``1 + bet * (x - m)`` at every number.  If ``m`` is the mean, or above it, wealth ``w`` is
reached with probability at most ``1 / w``, ever: so every ``m`` against which the gambler got
rich is ruled out.  Nothing is assumed of the distribution but its bounds.

:func:`betting_interval` is for a sample that is complete, :class:`BettingSequence` for numbers
that keep coming: its interval may be looked at after every one of them, for ever.

References
----------
Waudby-Smith and Ramdas (2024), J. R. Stat. Soc. B 86:1-27: predictable plug-in bets, hedged
capital.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.stats.interval import FloatArray, Interval, Side, tail_error

#: Largest share of the wealth that one bet may lose.
MOST_AT_STAKE = 0.75
_BISECTIONS = 40
#: A mean this small is not divided by.
_NOTHING = 1e-12


def betting_interval(
    values: npt.ArrayLike,
    *,
    low: float = 0.0,
    high: float = 1.0,
    confidence_level: float = 0.95,
    side: Side = "both",
) -> Interval:
    """Interval of the mean of bounded values, valid for any sample size and distribution.

    Parameters
    ----------
    values : array_like of shape (n,)
        Exchangeable values in ``[low, high]``; no NaN.  Their order does not matter: they are
        shuffled with a fixed seed, because a sorted file would break the bets.
    low, high : float, default 0 and 1
        Bounds that hold for every value, seen or not.
    confidence_level : float, default 0.95
        Least coverage, in (0, 1).
    side : {"both", "low", "high"}, default "both"
        Which bound carries the error.

    Returns
    -------
    Interval
        In the unit of the values; holds their mean.

    Raises
    ------
    UsageError
        If there are no values, or one lies outside the bounds.

    Examples
    --------
    >>> interval = betting_interval([0.0] * 60 + [0.5] * 40)
    >>> f"{interval.low:.2f} {interval.high:.2f}"
    '0.14 0.26'
    """
    x = unit_values(values, low=low, high=high)
    if x.size == 0:
        raise UsageError("no values, so there is no mean to bound")
    x = np.random.default_rng(0).permutation(x)
    error = tail_error(confidence_level, side)
    mean = float(x.mean())
    bottom = 0.0 if side == "high" else min(_lower_bound(x, error), mean)
    top = 1.0 if side == "low" else max(1 - _lower_bound(1 - x, error), mean)
    return Interval(low + (high - low) * bottom, low + (high - low) * top)


def unit_values(values: npt.ArrayLike, *, low: float, high: float) -> FloatArray:
    """Return values of ``[low, high]`` mapped to [0, 1], as a flat array.

    Raises
    ------
    UsageError
        If a value is NaN or outside the bounds.
    """
    array = np.asarray(values, float).ravel()
    # The negated form catches NaN, which compares as false.
    if not low < high or not bool(np.all((array >= low) & (array <= high))):
        raise UsageError(
            f"values must lie in [{low}, {high}] and not be NaN",
            hint="clip the loss to a stated scale before it is bounded",
        )
    return (array - low) / (high - low)


def _plug_in(x: FloatArray) -> FloatArray:
    """Return the variance known before each value, starting from that of a fair coin."""
    steps = np.arange(1, x.size + 1)
    mean = (0.5 + np.cumsum(x)) / (steps + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (steps + 1)
    return np.concatenate(([0.25], variance[:-1]))


def _lower_bound(x: FloatArray, error: float) -> float:
    """Return the smallest mean that a bet on "larger" does not rule out.

    Wealth falls as the candidate mean rises, at every step, so the means that are ruled out
    form an interval from 0 and bisection finds its end.
    """
    bets = np.sqrt(2 * math.log(1 / error) / (x.size * _plug_in(x)))
    goal = math.log(1 / error)

    def ruled_out(mean: float) -> bool:
        wealth = np.cumsum(np.log1p(np.minimum(bets, MOST_AT_STAKE / mean) * (x - mean)))
        return bool(wealth.max() >= goal)

    out, kept = 0.0, float(x.mean())
    if kept < _NOTHING:
        return 0.0
    if ruled_out(kept):
        return kept
    for _ in range(_BISECTIONS):
        middle = (out + kept) / 2
        out, kept = (middle, kept) if ruled_out(middle) else (out, middle)
    return out


class BettingSequence:
    """Confidence sequence of the mean of bounded values that keep coming.

    At any time, also one that is chosen by looking, the interval holds the mean; it is wrong
    at some time with probability at most ``1 - confidence_level``.

    Parameters
    ----------
    confidence_level : float, default 0.95
        Coverage over all times together, in (0, 1).
    low, high : float, default 0 and 1
        Bounds of the values.
    cells : int, default 500
        Candidate means tried; bounds are rounded outwards to a cell of ``(high - low) / cells``.

    Raises
    ------
    UsageError
        If the level or the bounds are impossible.

    Examples
    --------
    >>> sequence = BettingSequence()
    >>> interval = sequence.update([0.0, 1.0, 0.0, 0.0] * 100)
    >>> f"{interval.low:.2f} {interval.high:.2f}"
    '0.17 0.35'
    """

    def __init__(
        self,
        *,
        confidence_level: float = 0.95,
        low: float = 0.0,
        high: float = 1.0,
        cells: int = 500,
    ) -> None:
        if not low < high or cells < 2:  # one cell has no inner bound
            raise UsageError(f"[{low}, {high}] in {cells} cells is no scale")
        self.confidence_level = confidence_level
        self.low, self.high, self.cells = low, high, cells
        self._error = tail_error(confidence_level)
        self._n = 0
        self._sum = 0.0
        self._squares = 0.0
        self._variance = 0.25
        self._ruled_out = [0, 0]  # cells ruled out from below, and from above
        inner = np.arange(1, cells) / cells
        self._means = inner
        self._wealth = np.zeros((2, cells - 1))

    @property
    def n(self) -> int:
        """Values seen."""
        return self._n

    @property
    def interval(self) -> Interval:
        """Bounds that hold now and held at all times before."""
        below, above = self._ruled_out
        span = self.high - self.low
        return Interval(self.low + span * below / self.cells, self.high - span * above / self.cells)

    def update(self, values: npt.ArrayLike) -> Interval:
        """Take more values, in the order they came, and return the interval.

        Parameters
        ----------
        values : array_like of shape (n,)
            Values in ``[low, high]``; no NaN.

        Returns
        -------
        Interval

        Raises
        ------
        UsageError
            If a value is NaN or outside the bounds; nothing is taken then.
        """
        x = unit_values(values, low=self.low, high=self.high)
        for start in range(0, x.size, 1024):
            self._take(x[start : start + 1024])
        return self.interval

    def _take(self, x: FloatArray) -> None:
        steps = self._n + np.arange(1, x.size + 1)
        mean = (0.5 + self._sum + np.cumsum(x)) / (steps + 1)
        squares = self._squares + np.cumsum((x - mean) ** 2)
        variance = (0.25 + squares) / (steps + 1)
        known = np.concatenate(([self._variance], variance[:-1]))
        bets = np.sqrt(2 * math.log(1 / self._error) / (known * steps * np.log1p(steps)))
        goal = math.log(1 / self._error)
        for end, sample in enumerate((x, 1 - x)):
            # The bet on "smaller" is the bet on "larger" in the mirrored sample.
            stake = np.minimum(bets[:, None], MOST_AT_STAKE / self._means)
            gains = np.log1p(stake * (sample[:, None] - self._means))
            path = self._wealth[end] + np.cumsum(gains, axis=0)
            self._wealth[end] = path[-1]
            beaten = int(np.count_nonzero(path.max(axis=0) >= goal))
            self._ruled_out[end] = max(self._ruled_out[end], beaten)
        self._n += x.size
        self._sum += float(x.sum())
        self._squares = float(squares[-1])
        self._variance = float(variance[-1])

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs, as JSON values."""
        return {
            "confidence_level": self.confidence_level,
            "low": self.low,
            "high": self.high,
            "cells": self.cells,
            "n": self._n,
            "sum": self._sum,
            "squares": self._squares,
            "variance": self._variance,
            "ruled_out": list(self._ruled_out),
            "wealth": self._wealth.tolist(),
        }

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild a sequence from :meth:`snapshot`; it goes on as if nothing had happened."""
        self = cls(
            confidence_level=document["confidence_level"],
            low=document["low"],
            high=document["high"],
            cells=document["cells"],
        )
        self._n = document["n"]
        self._sum = document["sum"]
        self._squares = document["squares"]
        self._variance = document["variance"]
        self._ruled_out = list(document["ruled_out"])
        self._wealth = np.asarray(document["wealth"], float)
        return self
