"""Figures that are no plain rate or mean: the F-score and the calibration error, by bootstrap.

Their gaps are bounded by max-t over all comparisons (:mod:`mlguard.stats.bootstrap`), with two
corrections that keep small samples honest:

- A sample without a single error has no spread to resample.  Every cell that is empty and could
  have been filled gets one row before the drawing, which makes the interval about as wide as
  Wilson's; the estimate itself is not touched.
- The calibration error adds up sizes of deviations, and noise has a size: a perfectly calibrated
  score has a calibration error above 0, the more so the fewer rows there are.  The expected size
  of that noise is computed and the bounds are moved outwards by it, so that a small group does
  not fail for being small.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import special

from mlguard.errors import UsageError
from mlguard.stats.bootstrap import N_BOOT, max_t, resample
from mlguard.stats.cells import CONFUSION, Cells
from mlguard.stats.comparison import Comparison, GroupEstimate, Summary, normal_support
from mlguard.stats.decision import Decide
from mlguard.stats.groups import GapJudgement, judge_comparison
from mlguard.stats.interval import FloatArray

#: Classes of equal width that scores are put in.
SCORE_BINS = 10


@dataclass(frozen=True, slots=True)
class Composite:
    """A figure of every group and of everybody, with its replicates.

    Attributes
    ----------
    names : tuple of str
        Groups.
    value : ndarray of shape (n_groups + 1,)
        The figure of each group and, last, of everybody; NaN where it is undefined.
    replicates : ndarray of shape (n_boot, n_groups + 1)
        The same of each replicate.
    rows : ndarray of shape (n_groups + 1,)
        Rows behind each, in equally weighted ones.
    noise : ndarray of shape (n_groups + 1,)
        What noise alone may have added to each estimate, on average and at most.
    """

    names: tuple[str, ...]
    value: FloatArray
    replicates: FloatArray
    rows: FloatArray
    noise: FloatArray

    def only(self, names: Collection[str]) -> Self:
        """Return some of the groups; everybody stays everybody."""
        kept = [place for place, name in enumerate(self.names) if name in names]
        places = [*kept, len(self.names)]
        return type(self)(
            tuple(self.names[place] for place in kept),
            self.value[places],
            self.replicates[:, places],
            self.rows[places],
            self.noise[places],
        )


def f_scores(weights: FloatArray) -> FloatArray:
    """Return F1 of confusion cells.

    Parameters
    ----------
    weights : ndarray of shape (..., 4)
        True positives, false positives, false negatives, true negatives.

    Returns
    -------
    ndarray of shape (...)
        NaN where nothing is positive, neither in truth nor in prediction.

    Examples
    --------
    >>> float(f_scores(np.array([6.0, 2.0, 2.0, 90.0])))
    0.75
    """
    hits = 2 * weights[..., 0]
    below = hits + weights[..., 1] + weights[..., 2]
    score: FloatArray = np.divide(hits, below, out=np.full(below.shape, np.nan), where=below > 0)
    return score


def f_score_figure(cells: Cells, *, n_boot: int = N_BOOT, seed: int = 0) -> Composite:
    """Return F1 of every group, from the cells of its confusion table.

    Examples
    --------
    >>> cells = Cells.confusion([1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 1], ["a", "b"])
    >>> f_score_figure(cells, n_boot=10).value.round(3).tolist()
    [0.667, 0.0, 0.5]
    """
    drawn = _with_all(
        resample(_filled(cells, np.ones(len(CONFUSION), bool)), n_boot=n_boot, seed=seed)
    )
    # Rows that are right to be negative say nothing about F1.
    counted = Cells(cells.names, cells.count[:, :3], cells.weight[:, :3], cells.square[:, :3])
    return Composite(
        cells.names,
        f_scores(_with_all(cells.weight)),
        f_scores(drawn),
        _rows(counted),
        np.zeros(len(cells.names) + 1),
    )


def calibration_figure(
    is_true: npt.ArrayLike,
    scores: npt.ArrayLike,
    codes: npt.NDArray[np.intp],
    names: Sequence[str],
    *,
    weights: FloatArray | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Composite:
    """Return the expected calibration error of every group.

    Scores are put in ten classes of equal width; per class the share of positives is compared
    with the mean score, and the sizes of the differences are averaged over the rows.

    Parameters
    ----------
    is_true : array_like of bool, shape (n_rows,)
        Whether a row is positive.
    scores : array_like of shape (n_rows,)
        Predicted probabilities.
    codes, names
        Index of each row's group, and the groups.
    weights : ndarray of shape (n_rows,), optional
        Weight of each row.
    n_boot, seed
        As in :func:`mlguard.stats.bootstrap.resample`.

    Returns
    -------
    Composite

    Raises
    ------
    UsageError
        If a score is no probability.

    References
    ----------
    Naeini, Cooper and Hauskrecht (2015), AAAI 29:2901-2907.  Within a class the scores are held
    at the mean of their cell; with ten classes what that leaves out is below a hundredth of the
    outcomes' variance.

    Examples
    --------
    >>> found = calibration_figure([1, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], np.zeros(4, int), ["a"])
    >>> float(found.value[0])
    0.25
    """
    true, score = np.asarray(is_true, bool), np.asarray(scores, float)
    if not ((score >= 0) & (score <= 1)).all():
        raise UsageError(
            "a calibration error needs probabilities, and some scores lie outside 0 to 1",
            hint="choose another metric, or calibrate the model's scores",
        )
    place = np.minimum((score * SCORE_BINS).astype(np.intp), SCORE_BINS - 1) * 2 + true
    cells = Cells.tally(codes, place, names, 2 * SCORE_BINS, weights=weights)
    weighted = score if weights is None else score * weights
    summed = np.bincount(
        codes * 2 * SCORE_BINS + place, weights=weighted, minlength=cells.weight.size
    )
    sums: FloatArray = summed.astype(float).reshape(len(names), SCORE_BINS, 2)
    by_class = (len(names), SCORE_BINS, 2)
    weight = cells.weight.reshape(by_class)
    # An empty cell has the mean score of its class.
    of_class = _share(sums.sum(axis=2), weight.sum(axis=2))
    mean: FloatArray = np.where(weight > 0, _share(sums, weight), of_class[..., None])
    filled = _filled(cells, (weight.sum(axis=2) > 0).repeat(2, axis=1))
    drawn = resample(filled, n_boot=n_boot, seed=seed)
    square = _with_all(cells.square.reshape(by_class).sum(axis=2))
    all_mean = np.concatenate(
        [of_class, _share(sums.sum(axis=(0, 2)), weight.sum(axis=(0, 2)))[None]]
    )
    total = np.append(weight.sum(axis=(1, 2)), weight.sum())
    noise = np.sqrt(2 / np.pi * square * all_mean * (1 - all_mean)).sum(axis=1)
    return Composite(
        tuple(names),
        _calibration_errors(weight, mean),
        _calibration_errors(drawn.reshape(n_boot, *by_class), mean),
        _rows(cells),
        _share(noise, total),
    )


def _calibration_errors(weight: FloatArray, mean: FloatArray) -> FloatArray:
    """Return the calibration error of each group and of everybody, shape (..., n_groups + 1)."""
    misses = (weight * (np.array([0.0, 1.0]) - mean)).sum(axis=-1)
    misses = np.concatenate([misses, misses.sum(axis=-2, keepdims=True)], axis=-2)
    rows = weight.sum(axis=(-1, -2))
    rows = np.concatenate([rows, rows.sum(axis=-1, keepdims=True)], axis=-1)
    return _share(np.abs(misses).sum(axis=-1), rows, otherwise=np.nan)


def judge_composite_gap(
    figure: Composite,
    *,
    limit: float,
    aggregate: Summary = "difference",
    to_overall: bool = False,
    min_group_size: int = 30,
    confidence_level: float = 0.95,
    family_error: float = 0.05,
    decide: Decide = "evidence",
    optional: Collection[str] = (),
    lenient: bool = False,
) -> GapJudgement:
    """Judge the worst gap of a composite figure between groups against a limit.

    Parameters
    ----------
    figure : Composite
        From :func:`f_score_figure` or :func:`calibration_figure`.
    limit : float
        Largest difference or figure, or smallest ratio or figure.
    aggregate : {"difference", "ratio", "group_min", "group_max"}, default "difference"
        How groups are compared.
    to_overall : bool, default False
        Compare each group with everybody instead of the groups with each other.
    min_group_size, confidence_level, family_error, decide, optional, lenient
        As in :func:`mlguard.stats.groups.judge_gap`.

    Returns
    -------
    GapJudgement

    Raises
    ------
    UsageError
        If a ratio of figures that noise alone lifts above 0 is asked for.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> true, group = random.random(4000) < 0.5, random.integers(0, 2, 4000)
    >>> cells = Cells.confusion(true, true ^ (random.random(4000) < 0.2), group, ["f", "m"])
    >>> judge_composite_gap(f_score_figure(cells), limit=0.1).verdict.word
    'passed'
    """
    if aggregate == "ratio" and figure.noise.any():
        raise UsageError(
            "a ratio of calibration errors says nothing: noise alone lifts both above 0",
            hint="compare them by their difference, or by group_max",
        )
    sizes = dict(zip(figure.names, (int(one) for one in figure.rows), strict=False))
    estimates = [
        GroupEstimate(name, None if np.isnan(value) else float(value), sizes[name])
        for name, value in zip(figure.names, figure.value, strict=False)
    ]
    large = [one.name for one in estimates if one.n >= max(1, min_group_size)]
    return judge_comparison(
        _compare(
            figure.only(large),
            limit=limit,
            aggregate=aggregate,
            to_overall=to_overall,
            confidence_level=confidence_level,
            family_error=family_error,
        ),
        estimates,
        limit=limit,
        min_group_size=min_group_size,
        decide=decide,
        optional=optional,
        lenient=lenient,
    )


def _compare(
    figure: Composite,
    *,
    limit: float,
    aggregate: Summary,
    to_overall: bool,
    confidence_level: float,
    family_error: float,
) -> Comparison:
    k = len(figure.names)
    single = aggregate in ("group_min", "group_max")
    indices = (
        [(place, k) for place in range(k)]
        if single or to_overall
        else list(itertools.combinations(range(k), 2))
    )
    if not single and k == 1 and not to_overall:
        indices = []
    first, second = np.array(indices, int).reshape(-1, 2).T
    swap = (figure.value[first] < figure.value[second]) & (not single)
    upper, lower = np.where(swap, second, first), np.where(swap, first, second)

    def compared(values: FloatArray) -> FloatArray:
        if single:
            return values[..., upper]
        if aggregate == "ratio":
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.log(values[..., upper]) - np.log(values[..., lower])
        return values[..., upper] - values[..., lower]

    value = compared(figure.value)
    found = max_t(
        value,
        compared(figure.replicates),
        confidence_level=confidence_level,
        family_error=family_error,
    )
    own = max_t(figure.value, figure.replicates).error
    above = figure.noise[upper] + found.z * found.error
    below = (0.0 if single else figure.noise[lower]) + found.z * found.error
    low, high = value - above, value + below
    if single:
        low, high = np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
    elif aggregate == "ratio":
        # Both are 0, or the order is open: see mlguard.stats.comparison.
        value, low, high = (
            np.exp(-value),
            np.exp(-np.maximum(high, -low)),
            np.exp(-np.maximum(low, 0.0)),
        )
    else:
        low, high = np.maximum(low, 0.0), np.maximum(high, -low)
    rows = [
        (int(figure.rows[a]),) if b == k else (int(figure.rows[a]), int(figure.rows[b]))
        for a, b in indices
    ]
    known = figure.value[:k]
    power, lacking, to_tell = normal_support(
        [
            [error] if b == k else [own[a], own[b]]
            for (a, b), error in zip(
                indices, own[first] if single or aggregate == "ratio" else found.error, strict=True
            )
        ],
        rows,
        value=value,
        slack=figure.noise[upper],
        limit=limit,
        ratio_at=float(np.nanmean(known)) if aggregate == "ratio" and k else None,
        sign=1.0 if aggregate in ("difference", "group_max") else -1.0,
        z=found.z,
    )
    half = found.z * own
    return Comparison(
        groups=tuple(
            GroupEstimate(
                name,
                float(figure.value[place]),
                int(figure.rows[place]),
                max(0.0, float(figure.value[place] - half[place] - figure.noise[place])),
                min(1.0, float(figure.value[place] + half[place])),
            )
            for place, name in enumerate(figure.names)
        ),
        who=tuple(
            (figure.names[a],) if single else tuple(figure.names[one] for one in (a, b) if one < k)
            for a, b in zip(upper, lower, strict=True)
        ),
        rows=tuple(rows),
        value=value,
        low=low,
        high=high,
        level=float(2 * special.ndtr(found.z) - 1),
        aggregate=aggregate,
        power=power,
        lacking=lacking,
        to_tell=to_tell,
    )


def _filled(cells: Cells, fillable: npt.NDArray[np.bool_]) -> Cells:
    """Put one row into every cell that is empty and could have been filled."""
    rows = cells.count.sum(axis=1, keepdims=True)
    mean = _share(cells.weight.sum(axis=1, keepdims=True), rows)
    empty = (cells.count == 0) & fillable & (rows > 0)
    return Cells(
        cells.names,
        np.where(empty, 1.0, cells.count),
        np.where(empty, mean, cells.weight),
        np.where(empty, mean**2, cells.square),
        weighted=cells.weighted,
    )


def _rows(cells: Cells) -> FloatArray:
    total = float(cells.square.sum())
    return np.append(cells.effective(), float(cells.weight.sum()) ** 2 / total if total else 0.0)


def _with_all(weights: FloatArray) -> FloatArray:
    """Put everybody's sums behind the groups', along the last axis but one."""
    return np.concatenate([weights, weights.sum(axis=-2, keepdims=True)], axis=-2)


def _share(above: FloatArray, below: FloatArray, *, otherwise: float = 0.0) -> FloatArray:
    found: FloatArray = np.divide(
        above, below, out=np.full(np.shape(below), otherwise), where=below > 0
    )
    return found
