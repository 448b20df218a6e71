"""Two models on the same rows: which is better, by how much, and how sure that is.

For accuracy Newcombe's interval for paired proportions, for an absolute error a bootstrap of
the rows' differences.  A difference is written so that more is better for the candidate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mlguard.checks.labels import as_numbers, equal_labels, labelled_rows
from mlguard.results import Measurement
from mlguard.stats.paired import PairedTable, mcnemar_exact, newcombe_paired

if TYPE_CHECKING:
    import numpy as np

    from mlguard.checks.evidence import JudgedModel

Metric = Literal["accuracy", "mean_absolute_error"]

#: Bootstrap replicates of a mean difference.
REPLICATES = 2_000
#: Rows from which a mean of differences is normal enough to need no bootstrap.
BOOTSTRAP_ROWS = 5_000
_SEED = 20_240_502
#: Rows below which an interval of a mean difference says nothing.
_FEWEST_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same rows.

    Attributes
    ----------
    candidate, baseline : str
        Their names.
    metric : str
        What was measured on each.
    value, other : float
        The metric of the candidate and of the baseline.
    better : float
        By how much the candidate is better: negative where it is worse.
    interval : tuple of float
        Bounds of ``better``.
    n : int
        Rows compared.
    flips : int
        Rows on which the two answer differently.
    gained, lost : int or None
        Rows that only the candidate, or only the baseline, gets right.
    unusable, other_unusable : int
        Predictions that are no finite value, of the candidate and of the baseline.
    classes : int
        Different labels among the rows; 0 for a regression.
    confidence_level : float
        Of the interval.
    """

    candidate: str
    baseline: str
    metric: Metric
    value: float
    other: float
    better: float
    interval: tuple[float, float]
    n: int
    flips: int
    gained: int | None
    lost: int | None
    unusable: int
    other_unusable: int
    classes: int
    confidence_level: float

    @property
    def identical(self) -> bool:
        """Whether both gave the same usable answer on every row."""
        return self.flips == 0 and self.unusable == 0

    def measurements(self) -> tuple[Measurement, ...]:
        """Return the metric of both models."""
        return (
            Measurement(name=self.metric, group=self.candidate, value=self.value, n=self.n),
            Measurement(name=self.metric, group=self.baseline, value=self.other, n=self.n),
        )

    def details(self) -> dict[str, Any]:
        """Return what is reported beside the decision."""
        return {
            "flips": self.flips,
            "flip_share": self.flips / self.n,
            "gained": self.gained,
            "lost": self.lost,
            "mcnemar_p": None
            if self.gained is None or self.lost is None
            else mcnemar_exact(self.gained, self.lost),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What two models answered to the same labelled rows.

    Attributes
    ----------
    candidate, baseline : str
        Names of the two.
    target : str
        Column that the labels are from.
    metric : {"accuracy", "mean_absolute_error"}
        What is compared.
    truth, ours, theirs : ndarray of shape (n_rows,)
        Labels, and the answers of both.
    usable, other_usable : ndarray of bool, shape (n_rows,)
        Where the answers of each are finite values.
    """

    candidate: str
    baseline: str
    target: str
    metric: Metric
    truth: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray
    usable: np.ndarray
    other_usable: np.ndarray

    def of(self, rows: np.ndarray) -> Answers:
        """Return those to some rows, given as a boolean mask or as places."""
        arrays = ("truth", "ours", "theirs", "usable", "other_usable")
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})

    def compare(self, confidence_level: float = 0.95) -> Comparison:
        """Compare the two, row by row."""
        import numpy as np

        usable, other_usable = self.usable, self.other_usable
        both = usable & other_usable
        flips = (usable != other_usable) | (both & ~equal_labels(self.ours, self.theirs))
        shared: dict[str, Any] = {
            "candidate": self.candidate,
            "baseline": self.baseline,
            "metric": self.metric,
            "n": len(self.truth),
            "confidence_level": confidence_level,
            "flips": int(np.count_nonzero(flips)),
            "unusable": int(np.count_nonzero(~usable)),
            "other_unusable": int(np.count_nonzero(~other_usable)),
        }
        if self.metric == "accuracy":
            right = equal_labels(self.truth, self.ours) & usable
            other_right = equal_labels(self.truth, self.theirs) & other_usable
            table = PairedTable.count(right, other_right)
            low, high = newcombe_paired(table, confidence_level=confidence_level)
            return Comparison(
                value=float(right.mean()),
                other=float(other_right.mean()),
                better=table.difference,
                # Where no row tells the two apart there is nothing to be uncertain about.
                interval=(0.0, 0.0) if not flips.any() else (low, high),
                gained=table.first_only,
                lost=table.second_only,
                classes=len(set(self.truth.tolist())),
                **shared,
            )
        numbers = as_numbers(self.truth, whose=self.target)
        error = np.abs(numbers - as_numbers(self.ours, whose=self.candidate))[both]
        other_error = np.abs(numbers - as_numbers(self.theirs, whose=self.baseline))[both]
        gain = other_error - error
        return Comparison(
            value=float(error.mean()) if both.any() else math.nan,
            other=float(other_error.mean()) if both.any() else math.nan,
            better=float(gain.mean()) if both.any() else math.nan,
            interval=mean_difference_interval(gain, confidence_level=confidence_level),
            gained=None,
            lost=None,
            classes=0,
            **shared,
        )


def answers(
    candidate: JudgedModel, baseline: JudgedModel, frame: Any, metric: Metric
) -> tuple[Answers, Any]:
    """Return what two models answer, and the labelled rows that they answered.

    Raises
    ------
    DataError
        If no row has a label.
    """
    import numpy as np

    rows = labelled_rows(frame, candidate.target)
    ours, theirs = candidate.predict(rows), baseline.predict(rows)
    found = Answers(
        candidate=candidate.name,
        baseline=baseline.name,
        target=candidate.target,
        metric=metric,
        truth=rows[candidate.target].to_numpy(),
        ours=ours.labels,
        theirs=theirs.labels,
        usable=np.asarray(ours.valid, bool),
        other_usable=np.asarray(theirs.valid, bool),
    )
    return found, rows


def compare(
    candidate: JudgedModel,
    baseline: JudgedModel,
    frame: Any,
    metric: Metric,
    confidence_level: float = 0.95,
) -> Comparison:
    """Compare two models on the same labelled rows.

    Parameters
    ----------
    candidate, baseline : JudgedModel
        The two models.
    frame : pandas.DataFrame of shape (n_rows, n_columns)
        Rows with the target; those without a label are left out.
    metric : {"accuracy", "mean_absolute_error"}
        What is compared.
    confidence_level : float, default 0.95
        Of the interval.

    Returns
    -------
    Comparison

    Raises
    ------
    DataError
        If no row has a label, or the labels are of another kind than the predictions.
    """
    return answers(candidate, baseline, frame, metric)[0].compare(confidence_level)


def mean_difference_interval(
    differences: np.ndarray, *, confidence_level: float = 0.95
) -> tuple[float, float]:
    """Return an interval of the mean of paired differences that may have any size.

    Parameters
    ----------
    differences : ndarray of shape (n,)
        One difference per row; no NaN.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).

    Returns
    -------
    tuple of float
        ``(nan, nan)`` below 8 rows: an interval from so few would only look like one.

    Notes
    -----
    A bootstrap-t interval with 2,000 replicates and a fixed seed, which keeps its coverage on
    skewed errors where a percentile interval does not; from 5,000 rows on Student's interval,
    which it no longer differs from.  All differences equal: the interval is that value.
    """
    import numpy as np
    from scipy import special

    x = np.asarray(differences, float)
    n = x.size
    if n < _FEWEST_ROWS:
        return math.nan, math.nan
    mean, spread = float(x.mean()), float(x.std(ddof=1))
    if spread == 0:
        return mean, mean
    error = spread / math.sqrt(n)
    tail = (1 - confidence_level) / 2
    if n >= BOOTSTRAP_ROWS:
        quantile = float(special.stdtrit(n - 1, 1 - tail))
        return mean - quantile * error, mean + quantile * error
    random = np.random.default_rng(_SEED)
    ratios = []
    # In blocks, so that the memory does not grow with the rows.
    for _ in range(0, REPLICATES, 100):
        draws = x[random.integers(0, n, size=(100, n))]
        errors = draws.std(axis=1, ddof=1) / math.sqrt(n)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append((draws.mean(axis=1) - mean) / errors)
    ratio = np.concatenate(ratios)
    low, high = np.quantile(ratio[np.isfinite(ratio)], [tail, 1 - tail])
    return mean - float(high) * error, mean - float(low) * error
