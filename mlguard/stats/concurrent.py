"""Is a new version worse than the one beside it?  Looked at after every row, for ever.

Three comparisons of losses in [0, 1], each with one promise: if the new version is no worse than
``margin``, the probability that it is *ever* called worse is at most ``alpha``.

- :class:`TwoArms`: each version answers its own share of the same traffic.  A confidence sequence
  for each, at ``alpha / 2``; worse is proven where the lower bound of the one exceeds the upper
  bound of the other by more than the margin.
- :class:`Paired`: both answered the same rows.  One sequence of the differences, in [-1, 1].
- :class:`Ceiling`: one version alone against a limit.

That it is *no* worse is never proven by so few rows as a rollout can wait for.  So passing rests
on the estimate: it is looked at when the rows have reached ``n_min``, and then each time they have
doubled.  A difference that is there has few chances to hide, and luck at one moment is taken back
at the next look.

References
----------
Waudby-Smith and Ramdas (2024), J. R. Stat. Soc. B 86:1-27.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.stats.betting import BettingSequence

State = Literal["worse", "alike", "above", "few"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a comparison stands.

    Attributes
    ----------
    state : {"worse", "alike", "above", "few"}
        Worse is proven; at the last look the estimate kept the margin; it did not; there was no
        look yet, for want of rows.
    value : float or None
        Estimate of the difference (of the loss itself, for a ceiling); None without rows.
    low, high : float
        Bounds that hold at all times together.
    n, n_other : int
        Rows of the new version, and of the one beside it.
    """

    state: State
    value: float | None
    low: float
    high: float
    n: int
    n_other: int


class _Looks:
    """Looks at an estimate: at ``n_min`` rows, then whenever they have doubled."""

    def __init__(self, n_min: int) -> None:
        if n_min < 1:
            raise UsageError(f"n_min = {n_min} is no number of rows")
        self.next = n_min
        self.kept: bool | None = None

    def look(self, n: int, *, keeps: bool) -> None:
        if n >= self.next:
            self.kept = keeps
            while self.next <= n:
                self.next *= 2

    def state(self, *, worse: bool) -> State:
        if worse:
            return "worse"
        if self.kept is None:
            return "few"
        return "alike" if self.kept else "above"


class Ceiling:
    """One version's loss against a limit.

    Parameters
    ----------
    limit : float
        Largest mean loss, in [0, 1).
    alpha : float
        Probability that a mean at the limit is ever called worse, at most.
    n_min : int
        Rows before the estimate is looked at, and before anything is proven.
    """

    def __init__(self, *, limit: float, alpha: float, n_min: int) -> None:
        self.limit, self.n_min = limit, n_min
        # The sequence has two ends and only the lower one is used.
        self._sequence = BettingSequence(confidence_level=1 - 2 * alpha)
        self._total = 0.0
        self._looks = _Looks(n_min)

    def update(self, losses: npt.ArrayLike) -> None:
        """Take losses in [0, 1], in the order they came."""
        x = np.asarray(losses, float).ravel()
        self._sequence.update(x)
        self._total += float(x.sum())
        n = self._sequence.n
        if n:
            self._looks.look(n, keeps=self._total / n <= self.limit)

    @property
    def standing(self) -> Standing:
        """Where it stands."""
        n, bounds = self._sequence.n, self._sequence.interval
        worse = n >= self.n_min and bounds.low > self.limit
        value = self._total / n if n else None
        return Standing(
            state=self._looks.state(worse=worse),
            value=value,
            low=bounds.low,
            high=bounds.high,
            n=n,
            n_other=0,
        )

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs, as JSON values."""
        return {
            "sequence": self._sequence.snapshot(),
            "total": self._total,
            "next": self._looks.next,
            "kept": self._looks.kept,
        }

    def restore(self, document: Mapping[str, Any]) -> Self:
        """Go on from a :meth:`snapshot`."""
        self._sequence = BettingSequence.restore(document["sequence"])
        self._total = document["total"]
        self._looks.next, self._looks.kept = document["next"], document["kept"]
        return self


class TwoArms:
    """Losses of two versions that answer different requests of the same traffic.

    Parameters
    ----------
    margin : float
        By how much the new version's mean loss may exceed the other's, in [0, 1).
    alpha : float
        Probability that a version within the margin is ever called worse, at most.
    n_min : int
        Rows that each needs before the estimate is looked at.

    Examples
    --------
    >>> arms = TwoArms(margin=0.0, alpha=0.01, n_min=100)
    >>> arms.update([1.0] * 50, [0.0] * 50)
    >>> arms.standing.state
    'worse'
    """

    def __init__(self, *, margin: float, alpha: float, n_min: int) -> None:
        self.margin = margin
        # Each sequence is given alpha / 2; of its two ends one is used, which may take it all.
        self._arms = [BettingSequence(confidence_level=1 - alpha) for _ in range(2)]
        self._totals = [0.0, 0.0]
        self._looks = _Looks(n_min)

    def update(self, new: npt.ArrayLike, other: npt.ArrayLike) -> None:
        """Take losses of either, in [0, 1], in the order they came; any number of each."""
        for place, losses in enumerate((new, other)):
            x = np.asarray(losses, float).ravel()
            self._arms[place].update(x)
            self._totals[place] += float(x.sum())
        fewer = min(arm.n for arm in self._arms)
        value = self._value
        if value is not None:
            self._looks.look(fewer, keeps=value <= self.margin)

    @property
    def _value(self) -> float | None:
        if not all(arm.n for arm in self._arms):
            return None
        new, other = (total / arm.n for total, arm in zip(self._totals, self._arms, strict=True))
        return new - other

    @property
    def standing(self) -> Standing:
        """Where it stands."""
        new, other = (arm.interval for arm in self._arms)
        low, high = new.low - other.high, new.high - other.low
        return Standing(
            state=self._looks.state(worse=low > self.margin),
            value=self._value,
            low=low,
            high=high,
            n=self._arms[0].n,
            n_other=self._arms[1].n,
        )

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs, as JSON values."""
        return {
            "arms": [arm.snapshot() for arm in self._arms],
            "totals": list(self._totals),
            "next": self._looks.next,
            "kept": self._looks.kept,
        }

    def restore(self, document: Mapping[str, Any]) -> Self:
        """Go on from a :meth:`snapshot`."""
        self._arms = [BettingSequence.restore(one) for one in document["arms"]]
        self._totals = list(document["totals"])
        self._looks.next, self._looks.kept = document["next"], document["kept"]
        return self


class Paired:
    """Differences of the losses of two versions that answered the same requests.

    Parameters
    ----------
    margin : float
        By how much the new version's mean loss may exceed the other's, in [0, 1).
    alpha : float
        Probability that a version within the margin is ever called worse, at most.
    n_min : int
        Rows before the estimate is looked at.
    """

    def __init__(self, *, margin: float, alpha: float, n_min: int) -> None:
        self.margin = margin
        self._sequence = BettingSequence(confidence_level=1 - 2 * alpha, low=-1.0, high=1.0)
        self._total = 0.0
        self._looks = _Looks(n_min)

    def update(self, new: npt.ArrayLike, other: npt.ArrayLike) -> None:
        """Take the losses of both on the same rows, in [0, 1], in the order they came.

        Raises
        ------
        UsageError
            If they are not equally many.
        """
        first, second = (np.asarray(one, float).ravel() for one in (new, other))
        if first.shape != second.shape:
            raise UsageError(f"{first.size} and {second.size} losses are no pairs")
        gaps = first - second
        self._sequence.update(gaps)
        self._total += float(gaps.sum())
        n = self._sequence.n
        if n:
            self._looks.look(n, keeps=self._total / n <= self.margin)

    @property
    def standing(self) -> Standing:
        """Where it stands."""
        n, bounds = self._sequence.n, self._sequence.interval
        return Standing(
            state=self._looks.state(worse=bounds.low > self.margin),
            value=self._total / n if n else None,
            low=bounds.low,
            high=bounds.high,
            n=n,
            n_other=n,
        )

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs, as JSON values."""
        return {
            "sequence": self._sequence.snapshot(),
            "total": self._total,
            "next": self._looks.next,
            "kept": self._looks.kept,
        }

    def restore(self, document: Mapping[str, Any]) -> Self:
        """Go on from a :meth:`snapshot`."""
        self._sequence = BettingSequence.restore(document["sequence"])
        self._total = document["total"]
        self._looks.next, self._looks.kept = document["next"], document["kept"]
        return self
