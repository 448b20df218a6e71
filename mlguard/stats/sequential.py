"""Has the loss become worse than it was accepted?  A detector that may be asked for ever.

The null hypothesis is that the expected loss, given the past, is at most ``theta``: the upper
bound of the loss on the reference plus a tolerance.  Each bet multiplies its evidence by
``1 + lambda * (loss - theta)``; under the null its expectation never grows.  Starting a new bet
at every label and adding them up gives the Shiryaev-Roberts e-detector

    R_t = (1 + R_{t-1}) * (1 + lambda * (L_t - theta)),       alarm when R_t >= A,

for which the expected number of labels to a false alarm is at least ``A``, whatever the
distribution of the losses and however often one looks.  Twelve bets, from timid to bold, are
mixed with equal weights, because nobody knows how large the next drift will be.

The promise is about the expectation *given the past*: losses that come in runs break it, so
:func:`lag1_correlation` is worth showing beside every alarm, and ``block`` judges means of
several labels.

References
----------
Shin, Ramdas and Rinaldo (2024), New England J. Stat. Data Sci. 2:229-260 (e-detectors);
Podkopaev and Ramdas (2022), ICLR (a tolerance that leaves benign change alone).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import special

from mlguard.errors import UsageError
from mlguard.stats.betting import unit_values
from mlguard.stats.interval import FloatArray
from mlguard.stats.means import mean_interval
from mlguard.stats.proportions import wilson_interval

N_BETS = 12
#: Bets as multiples of 1 / theta: below 1, so that no loss can ruin a bet.
BETS = np.geomspace(0.01, 0.67, N_BETS)
#: Log evidence by which a change point may trail the best one and still be named.
CHANGE_SLACK = 3.0
_CHUNK = 4096


class EDetector:
    """Shiryaev-Roberts e-detector of a rise of a bounded loss.

    Parameters
    ----------
    theta : float
        Expected loss that is still acceptable, in (0, 1); see :func:`reference_bound`.
    average_run_length : float, default 100_000
        Labels to a false alarm, on average, at least.  A drift is found after about
        ``log(average_run_length) / KL`` labels, where KL is the divergence of the new loss
        from ``theta``: a tenfold longer run costs a fixed number of labels.
    block : int, default 1
        Labels averaged into one look.  A larger block restores the promise where losses come in
        runs, and finds a drift later by up to a block.

    Attributes
    ----------
    n : int
        Labels seen; none are taken after an alarm.
    alarm_at : int or None
        0-based index of the label that raised the alarm, counted from the first label ever.

    Raises
    ------
    UsageError
        If ``theta`` is not inside (0, 1), or another parameter is impossible.

    Examples
    --------
    >>> detector = EDetector(0.1, average_run_length=1000)
    >>> detector.update([0.0] * 9 + [1.0])
    >>> detector.update([0.0, 1.0] * 50)
    11
    >>> detector.alarm_at, detector.change_point
    (21, 9)
    """

    def __init__(
        self, theta: float, *, average_run_length: float = 100_000, block: int = 1
    ) -> None:
        if not 0 < theta < 1:
            raise UsageError(
                f"theta is {theta:.4g}, expected a loss between 0 and 1",
                hint="a reference this bad, or a tolerance this wide, leaves nothing to detect: "
                "lower the tolerance, or judge a better reference",
                theta=theta,
            )
        if average_run_length < 1 or block < 1:
            raise UsageError(
                f"average_run_length is {average_run_length}, block is {block}; expected at least 1"
            )
        self.theta = float(theta)
        self.average_run_length = float(average_run_length)
        self.block = int(block)
        self.n = 0
        self.alarm_at: int | None = None
        self._bets = BETS / self.theta
        # A look every `block` labels may alarm `block` times as readily per look.
        self._goal = math.log(max(self.average_run_length / self.block, 1.0))
        self._log_r = np.full(N_BETS, -np.inf)
        self._rest: list[float] = []
        self._looks = 0
        # Since when each bet has been winning, and how much: where the change may be.
        self._gain = np.zeros(N_BETS)
        self._since = np.zeros(N_BETS, dtype=np.int64)

    @property
    def alarmed(self) -> bool:
        """Whether the alarm was raised; it stays raised."""
        return self.alarm_at is not None

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of ``R_t``; ``-inf`` before the first look."""
        return float(special.logsumexp(self._log_r) - math.log(N_BETS))

    @property
    def evidence_share(self) -> float:
        """How far the evidence is on its way to the alarm, in log, from 0 to 1."""
        if self.alarmed or self._goal == 0:
            return 1.0 if self.alarmed else 0.0
        return min(1.0, max(0.0, self.log_evidence / self._goal))

    @property
    def change_point(self) -> int | None:
        """0-based index of the label with which the loss most likely rose; None while calm.

        The start of the stretch that the most successful bet has been winning.  For the window
        in which it may lie, give the losses to :func:`estimate_change`.
        """
        best = int(np.argmax(self._gain))
        return None if self._gain[best] <= 0 else int(self._since[best]) * self.block

    def update(self, losses: npt.ArrayLike) -> int | None:
        """Take more losses, in the order their labels arrived.

        Parameters
        ----------
        losses : array_like of shape (n,)
            Losses in [0, 1]; no NaN.

        Returns
        -------
        int or None
            0-based index *in this batch* of the label that raised the alarm.  What follows it in
            the batch is not taken, and after an alarm nothing is: start a new detector.

        Raises
        ------
        UsageError
            If a loss is NaN or outside [0, 1]; nothing is taken then.
        """
        x = unit_values(losses, low=0.0, high=1.0)
        if self.alarmed or x.size == 0:
            return None
        taken = self.n
        waiting = len(self._rest)
        if self.block > 1:
            pool = np.concatenate((self._rest, x))
            whole = pool.size - pool.size % self.block
            looks = pool[:whole].reshape(-1, self.block).mean(axis=1)
            self._rest = pool[whole:].tolist()
        else:
            looks = x
        for start in range(0, looks.size, _CHUNK):
            found = self._look(looks[start : start + _CHUNK])
            if found is not None:
                index = (start + found + 1) * self.block - waiting - 1
                self.alarm_at = taken + index
                self.n = self.alarm_at + 1
                self._rest = []
                return index
        self.n += x.size
        return None

    def _look(self, x: FloatArray) -> int | None:
        """Take looks; return the index of the one that raised the alarm."""
        steps = np.log1p((x[:, None] - self.theta) * self._bets)
        total = np.cumsum(steps, axis=0)
        # R_t = exp(S_t) * (R_0 + sum of exp(-S_j) over j < t), in logarithms.
        starts = np.vstack((self._log_r, np.zeros(N_BETS), -total[:-1]))
        log_r = total + np.logaddexp.accumulate(starts, axis=0)[1:]
        mixed = special.logsumexp(log_r, axis=1) - math.log(N_BETS)
        over = np.flatnonzero(mixed >= self._goal)
        found = int(over[0]) if over.size else None
        last = x.size - 1 if found is None else found
        self._log_r = log_r[last]
        self._track(total[: last + 1])
        self._looks += last + 1
        return found

    def _track(self, total: FloatArray) -> None:
        """Follow each bet's gain over its own lowest point, and where that point lies."""
        path = np.vstack((-self._gain, np.zeros(N_BETS), total))
        # Row 0 is the lowest point before this chunk, row 1 the end of the last one.
        lowest = path.min(axis=0)
        # The latest of equal lowest points: a change starts where the winning starts.
        where = path.shape[0] - 1 - np.argmin(path[::-1], axis=0)
        self._gain = path[-1] - lowest
        self._since = np.where(where == 0, self._since, self._looks + where - 1)

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs, as JSON values."""
        return {
            "theta": self.theta,
            "average_run_length": self.average_run_length,
            "block": self.block,
            "n": self.n,
            "alarm_at": self.alarm_at,
            # JSON has no -inf: null stands for the evidence before the first look.
            "log_r": [float(one) if np.isfinite(one) else None for one in self._log_r],
            "rest": list(self._rest),
            "looks": self._looks,
            "gain": self._gain.tolist(),
            "since": self._since.tolist(),
        }

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild a detector from :meth:`snapshot`; it goes on as if nothing had happened.

        Raises
        ------
        UsageError
            If the snapshot was made with other bets, as another version of mlguard may have.
        """
        if len(document["log_r"]) != N_BETS:
            raise UsageError(
                f"a snapshot of {len(document['log_r'])} bets, expected {N_BETS}",
                hint="start a new detector: evidence of other bets means nothing here",
            )
        self = cls(
            document["theta"],
            average_run_length=document["average_run_length"],
            block=document["block"],
        )
        self.n = document["n"]
        self.alarm_at = document["alarm_at"]
        self._log_r = np.array([-np.inf if one is None else one for one in document["log_r"]])
        self._rest = list(document["rest"])
        self._looks = document["looks"]
        self._gain = np.asarray(document["gain"], float)
        self._since = np.asarray(document["since"], np.int64)
        return self


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """Where a loss rose.

    Attributes
    ----------
    index : int
        0-based index of the first loss after the most likely change.
    earliest, latest : int
        Window of indices that are nearly as likely.
    before, after : float
        Mean loss on both sides of ``index``; ``nan`` where a side is empty.
    """

    index: int
    earliest: int
    latest: int
    before: float
    after: float


def estimate_change(losses: npt.ArrayLike, theta: float) -> ChangePoint | None:
    """Estimate where a loss rose above ``theta``, looking back from an alarm.

    Parameters
    ----------
    losses : array_like of shape (n,)
        Losses in [0, 1] up to the alarm, oldest first.
    theta : float
        The acceptable loss the alarm was raised against, in (0, 1).

    Returns
    -------
    ChangePoint or None
        None where no stretch up to the end speaks for a rise.

    Raises
    ------
    UsageError
        If a loss is NaN or outside [0, 1].

    Examples
    --------
    >>> estimate_change([0.0] * 50 + [1.0] * 20, 0.1)
    ChangePoint(index=50, earliest=48, latest=51, before=0.0, after=1.0)
    """
    x = unit_values(losses, low=0.0, high=1.0)
    steps = np.log1p((x[:, None] - theta) * (BETS / theta))
    gains = steps[::-1].cumsum(axis=0)[::-1].max(axis=1)
    if x.size == 0 or gains.max() <= 0:
        return None
    index = int(x.size - 1 - np.argmax(gains[::-1]))
    near = np.flatnonzero(gains >= gains[index] - CHANGE_SLACK)
    before = float(x[:index].mean()) if index else math.nan
    return ChangePoint(index, int(near[0]), int(near[-1]), before, float(x[index:].mean()))


def reference_bound(
    n_errors: float, n: int, *, tolerance: float = 0.02, confidence_level: float = 0.95
) -> float:
    """Return the acceptable error rate: the reference's upper bound plus a tolerance.

    Parameters
    ----------
    n_errors : float
        Wrong answers on the reference.
    n : int
        Rows of the reference.
    tolerance : float, default 0.02
        Rise that is ignored as benign.
    confidence_level : float, default 0.95
        Of the one-sided Wilson bound.

    Returns
    -------
    float
        In (0, 1).

    Raises
    ------
    UsageError
        If there are no rows, or if nothing could ever exceed the result.

    Examples
    --------
    >>> round(reference_bound(80, 1000), 4)
    0.1153
    """
    bound = wilson_interval(n_errors, n, confidence_level=confidence_level, side="high").high
    return _acceptable(bound, n, tolerance)


def reference_bound_of_losses(
    losses: npt.ArrayLike, *, tolerance: float = 0.02, confidence_level: float = 0.95
) -> float:
    """Return the acceptable mean of a bounded loss, as :func:`reference_bound` does for errors.

    Parameters
    ----------
    losses : array_like of shape (n,)
        Losses in [0, 1] on the reference; no NaN.
    tolerance : float, default 0.02
        Rise that is ignored as benign.
    confidence_level : float, default 0.95
        Of the one-sided bound of the mean.

    Returns
    -------
    float
        In (0, 1).

    Raises
    ------
    UsageError
        If there are no losses, one is outside [0, 1], or nothing could ever exceed the result.

    Examples
    --------
    >>> round(reference_bound_of_losses([0.1, 0.3] * 500), 3)
    0.225
    """
    bound = mean_interval(losses, confidence_level=confidence_level, side="high").high
    return _acceptable(bound, np.size(losses), tolerance)


def _acceptable(bound: float, n: int, tolerance: float) -> float:
    theta = bound + tolerance
    if theta >= 1:
        raise UsageError(
            f"the loss on the reference may be as large as {bound:.3f} ({n} rows); with a "
            f"tolerance of {tolerance:g} no loss could ever be too large",
            hint="judge the reference on more rows, or lower the tolerance",
            bound=bound,
            tolerance=tolerance,
            n=n,
        )
    return theta


def lag1_correlation(losses: npt.ArrayLike) -> float:
    """Return the correlation of each loss with the one before it.

    Parameters
    ----------
    losses : array_like of shape (n,)
        Losses in the order their labels arrived; no NaN.

    Returns
    -------
    float
        In [-1, 1]; ``nan`` with fewer than three losses, or where all are alike.

    Notes
    -----
    The detector's promise holds at 0.  Errors that come in runs shrink it: at an error rate of
    0.1 and A = 10,000, the mean run to a false alarm was measured as 13,600 labels at a
    correlation of 0, 1,950 at 0.2 and 300 at 0.5.

    Examples
    --------
    >>> round(lag1_correlation([0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]), 2)
    0.42
    """
    x = np.asarray(losses, float).ravel()
    deviations = x - x.mean() if x.size else x
    power = float((deviations**2).sum())
    if x.size < 3 or power == 0:  # two losses have one pair and one mean
        return math.nan
    return float((deviations[1:] * deviations[:-1]).sum() / power)
