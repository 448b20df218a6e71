"""Drift of a distribution: has it moved by more than is tolerated, and by how much.

The question is about the size of the change, with an interval: "the distance is 0.14 (0.09 to
0.19), tolerated is 0.1".  A p-value would call any change significant in a million rows and
none in fifty; here the rule is the same for three hundred rows and for three million.

Everything works on counts in the cells of the reference's grid, so windows that were counted
in parts are judged on their sum.  Sample sizes enter as the effective size ``n * m / (n + m)``
of window and reference.

Each judgement says two things: ``outcome``, what the interval proves (equivalent, drifted or
undecided), and ``verdict``, by the rule of ``decision``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from mlguard.results import Verdict
from mlguard.stats.decision import Decide, Judgement, Support, judge_limit
from mlguard.stats.distances import (
    cell_counts,
    jensen_shannon,
    ks_distance,
    ks_most,
    psi,
    smoothed_shares,
    wasserstein_normed,
)
from mlguard.stats.interval import FloatArray, Interval, critical_value
from mlguard.stats.multiplicity import bonferroni
from mlguard.stats.proportions import newcombe_difference
from mlguard.stats.support import (
    MOST_ROWS,
    POWER,
    least_rows,
    pair_power,
    smallest_limit,
    two_digits,
)

__all__ = [
    "DriftJudgement",
    "Outcome",
    "Statistic",
    "effective_size",
    "jensen_shannon",
    "judge_drift",
    "judge_share_increase",
    "ks_distance",
    "ks_interval",
    "psi",
    "psi_interval",
    "psi_rows_needed",
    "share_increase",
    "wasserstein_normed",
]

Outcome: TypeAlias = Literal["equivalent", "drifted", "undecided"]
Statistic: TypeAlias = Literal["ks", "psi", "share_increase"]

#: Expected rows of a window that a cell needs to be counted on its own in a PSI.
PSI_CELL_ROWS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftJudgement(Judgement):
    """A judged change of a distribution.

    Attributes
    ----------
    statistic : {"ks", "psi", "share_increase"}
        What ``value`` is.
    n_reference : int
        Rows of the reference; ``n`` and ``sizes`` are the window's.
    """

    statistic: Statistic
    n_reference: int

    @property
    def outcome(self) -> Outcome:
        """What the interval proves about the tolerance."""
        if self.verdict is Verdict.FAILED:
            return "drifted"
        if self.interval is not None and self.interval.high <= self.limit and self.reason == "":
            return "equivalent"
        return "undecided"

    def explain(self) -> str:
        """Return the judgement as one sentence with its numbers, for people.

        Examples
        --------
        >>> judge_drift([2] * 10, [50] * 10, tolerance=0.1).explain().rpartition("; ")[2]
        'the reference has only 20 rows'
        """
        # Explicit arguments: zero-argument super() does not work in a slotted dataclass.
        sentence = super(DriftJudgement, self).explain()
        if self.reason in ("few", "no_support") and self.n_needed is None:
            return f"{sentence}; the reference has only {self.n_reference} rows"
        return sentence


def effective_size(n_reference: float, n_window: float) -> float:
    """Return the size of one sample that is as uncertain as these two together.

    Examples
    --------
    >>> effective_size(1000, 1000)
    500.0
    """
    return n_reference * n_window / (n_reference + n_window)


def _window_rows(n_effective: float, n_reference: float) -> int | None:
    """Return the window that reaches an effective size; None where the reference is too small."""
    if n_effective >= n_reference:
        return None
    rows = math.ceil(n_effective * n_reference / (n_reference - n_effective))
    return rows if rows <= MOST_ROWS else None


def ks_interval(
    reference: npt.ArrayLike,
    window: npt.ArrayLike,
    *,
    confidence_level: float = 0.95,
    discrete: bool = False,
) -> Interval:
    """Interval of the Kolmogorov-Smirnov distance of two distributions, from counts.

    The Dvoretzky-Kiefer-Wolfowitz band at the effective size, widened upwards by what the
    cells may hide.

    Parameters
    ----------
    reference, window : array_like of shape (n_cells,)
        Counts in rising cells.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).
    discrete : bool, default False
        Whether every cell stands for one single value, so that it hides nothing.

    Returns
    -------
    Interval
        In [0, 1]; holds the distance at the edges.

    Raises
    ------
    UsageError
        If the counts do not fit.

    References
    ----------
    Massart (1990), Ann. Probab. 18:1269-1283; for two samples Wei and Dudley (2012), Stat.
    Probab. Lett. 82:636-644.

    Examples
    --------
    >>> interval = ks_interval([250] * 4, [100, 100, 400, 400])
    >>> f"{interval.low:.2f} {interval.high:.2f}"
    '0.24 0.61'
    """
    first, second = cell_counts(reference, window)
    band = _dkw_band(effective_size(first.sum(), second.sum()), confidence_level)
    value = ks_distance(first, second)
    most = value if discrete else ks_most(first, second)
    return Interval(max(0.0, value - band), min(1.0, most + band))


def _dkw_band(n_effective: float, confidence_level: float) -> float:
    return math.sqrt(math.log(2 / (1 - confidence_level)) / (2 * n_effective))


def psi_interval(
    reference: npt.ArrayLike, window: npt.ArrayLike, *, confidence_level: float = 0.95
) -> Interval:
    """Interval of the population stability index of two distributions.

    Normal around the estimate less its bias, with the variance of the delta method, and at
    least that of the chi-squared distribution it follows without drift.

    Parameters
    ----------
    reference, window : array_like of shape (n_cells,)
        Counts in the same cells; see :func:`psi_rows_needed` for how many rows are enough.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).

    Returns
    -------
    Interval
        At least 0; holds the estimate.

    Raises
    ------
    UsageError
        If the counts do not fit.

    Examples
    --------
    >>> interval = psi_interval([250] * 4, [100, 200, 300, 400])
    >>> f"{interval.low:.2f} {interval.high:.2f}"
    '0.14 0.31'
    """
    first, second = cell_counts(reference, window)
    p, q = smoothed_shares(first), smoothed_shares(second)
    n_effective = effective_size(first.sum(), second.sum())
    freedom = first.size - 1
    value = psi(first, second)
    log_ratio = np.log(p / q)
    variance = _variance(log_ratio + 1 - q / p, p) / first.sum()
    variance += _variance(-log_ratio + 1 - p / q, q) / second.sum()
    spread = math.sqrt(max(variance, 2 * freedom / n_effective**2))
    half = critical_value(confidence_level) * spread
    centre = max(value - freedom / n_effective, 0.0)
    return Interval(max(0.0, float(centre - half)), max(value, float(centre + half)))


def _variance(values: FloatArray, shares: FloatArray) -> float:
    mean = float((shares * values).sum())
    return float((shares * (values - mean) ** 2).sum())


def psi_rows_needed(n_cells: int, limit: float) -> int:
    """Return the effective size from which a PSI says more about drift than about chance.

    At it, data without drift stays below two thirds of the limit 999 times in 1000.

    Parameters
    ----------
    n_cells : int
        Cells compared, at least 2.
    limit : float
        Largest index that is tolerated.

    Returns
    -------
    int

    Examples
    --------
    >>> psi_rows_needed(10, 0.2)
    210
    """
    return math.ceil(1.5 * float(special.chdtri(n_cells - 1, 0.001)) / limit)


def share_increase(
    n_reference_hits: int,
    n_reference: int,
    n_window_hits: int,
    n_window: int,
    *,
    confidence_level: float = 0.95,
) -> Interval:
    """Interval of the rise of a share, e.g. of missing or unseen values.

    Parameters
    ----------
    n_reference_hits, n_reference : int
        Hits among the rows of the reference.
    n_window_hits, n_window : int
        Hits among the rows of the window.
    confidence_level : float, default 0.95
        Nominal coverage, in (0, 1).

    Returns
    -------
    Interval
        Newcombe's bounds on the window's share minus the reference's.

    Raises
    ------
    UsageError
        If a sample is empty or its counts do not fit.

    Examples
    --------
    >>> low, high = share_increase(10, 1000, 40, 500)
    >>> f"{low:.3f} {high:.3f}"
    '0.048 0.097'
    """
    return newcombe_difference(
        n_window_hits,
        n_window,
        n_reference_hits,
        n_reference,
        confidence_level=confidence_level,
    )


def judge_drift(
    reference: npt.ArrayLike,
    window: npt.ArrayLike,
    *,
    statistic: Literal["ks", "psi"] = "ks",
    tolerance: float,
    discrete: bool = False,
    n_features: int = 1,
    confidence_level: float = 0.95,
    family_error: float = 0.05,
    min_rows: int = 30,
    decide: Decide = "evidence",
    power: float = POWER,
) -> DriftJudgement:
    """Judge whether a window is distributed like the reference, but for what is tolerated.

    Parameters
    ----------
    reference, window : array_like of shape (n_cells,)
        Counts on the reference's grid; rising cells for ``"ks"``.  All zeros mean "no rows".
    statistic : {"ks", "psi"}, default "ks"
        The distance: Kolmogorov-Smirnov for numbers, PSI for categories.
    tolerance : float
        Largest distance that is not called drift.
    discrete : bool, default False
        For ``"ks"``: whether every cell stands for one single value.
    n_features : int, default 1
        Features judged together; they share ``family_error`` by Bonferroni.
    confidence_level : float, default 0.95
        Least level of the interval.
    family_error : float, default 0.05
        Error over all features together.
    min_rows : int, default 30
        Rows of the window before anything is said.  A PSI also needs the effective size of
        :func:`psi_rows_needed`.
    decide : {"evidence", "proof", "estimate"}, default "evidence"
        How the interval is held against the tolerance.
    power : float, default 0.8
        Probability with which drift of twice the tolerance must show for a window to have
        support.  A monitor that gets another window soon may ask for less than a gate.

    Returns
    -------
    DriftJudgement

    Raises
    ------
    UsageError
        If the two are not counts in the same cells.

    Examples
    --------
    >>> judged = judge_drift([1000] * 10, [20] * 5 + [80] * 5, tolerance=0.1)
    >>> judged.outcome, judged.explain()
    ('drifted', '0.30 (95 % interval 0.238 to 0.462) breaches at most 0.10')
    >>> judge_drift([1000] * 100, [50] * 100, tolerance=0.1).outcome
    'equivalent'
    """
    first, second = np.asarray(reference, float).ravel(), np.asarray(window, float).ravel()
    level = max(confidence_level, 1 - bonferroni(family_error, n_features))
    n_reference, n_window = int(first.sum()), int(second.sum())
    least: int | None = min_rows
    value: float | None = None
    interval: Interval | None = None
    if n_reference and n_window:
        if statistic == "ks":
            value = ks_distance(first, second)
            interval = ks_interval(first, second, confidence_level=level, discrete=discrete)
        else:
            first, second = _merge_rare(first, second)
            value = psi(first, second)
            interval = psi_interval(first, second, confidence_level=level)
            wanted = _window_rows(psi_rows_needed(max(first.size, 2), tolerance), n_reference)
            least = None if wanted is None else max(min_rows, wanted)
    n_cells = max(first.size, 2)

    def wanted_size(limit: float) -> float:
        if statistic == "ks":
            return _ks_size(limit, level, power)
        return max(_psi_size(limit, n_cells, level, power), psi_rows_needed(n_cells, limit))

    def support() -> Support:
        return _size_support(wanted_size, tolerance, n_reference, n_window)

    judged = _judge(
        statistic,
        value,
        interval,
        tolerance=tolerance,
        n_reference=n_reference,
        n_window=n_window,
        least=least,
        level=level,
        decide=decide,
        support=support,
    )
    if judged.reason == "few" and decide == "evidence" and n_reference:
        # Told once what is enough, not first what is not too few.
        needed = _window_rows(wanted_size(tolerance), n_reference)
        told = None if needed is None or least is None else two_digits(max(needed, least))
        return replace(judged, n_needed=told)
    return judged


def _merge_rare(reference: FloatArray, window: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Count cells too rare to be expected in the window as one.

    Which cells are rare depends on the reference and the window's size only: merging what the
    window happens to lack would hide the very change.
    """
    rare = reference / reference.sum() * window.sum() < PSI_CELL_ROWS
    if np.count_nonzero(rare) < 2 or bool(rare.all()):  # one cell is itself
        return reference, window
    return (
        np.append(reference[~rare], reference[rare].sum()),
        np.append(window[~rare], window[rare].sum()),
    )


def _ks_size(limit: float, confidence_level: float, power: float) -> float:
    """Effective size at which a distance of twice the limit shows with this power."""
    # The distance at one edge has at most the variance of a fair coin.
    return float((_dkw_band(1.0, confidence_level) + special.ndtri(power) / 2) / limit) ** 2


def _psi_size(limit: float, n_cells: int, confidence_level: float, power: float) -> float:
    """Effective size at which an index of twice the limit shows with this power."""
    z = critical_value(confidence_level) + float(special.ndtri(power))
    # The variance of the index is near 4 * 2 * limit / size + 2 * freedom / size**2, and z of
    # its roots must fit between the limit and twice the limit.
    first = 8 * limit
    return (
        z**2 * (first + math.sqrt(first**2 + 8 * (n_cells - 1) * limit**2 / z**2)) / (2 * limit**2)
    )


def _size_support(
    wanted_size: Callable[[float], float], tolerance: float, n_reference: int, n_window: int
) -> Support:
    size = effective_size(n_reference, n_window)
    needed = _window_rows(wanted_size(tolerance), n_reference)
    if size >= wanted_size(tolerance):
        return Support(enough=True, sizes=(n_window,))
    limits = np.arange(1, 101) / 100
    fitting = [float(limit) for limit in limits if size >= wanted_size(float(limit))]
    return Support(
        enough=False,
        sizes=(n_window,),
        n_needed=None if needed is None else two_digits(needed),
        smallest_limit=fitting[0] if fitting else None,
    )


def judge_share_increase(
    n_reference_hits: int,
    n_reference: int,
    n_window_hits: int,
    n_window: int,
    *,
    tolerance: float = 0.05,
    n_features: int = 1,
    confidence_level: float = 0.95,
    family_error: float = 0.05,
    min_rows: int = 30,
    decide: Decide = "evidence",
    power: float = POWER,
) -> DriftJudgement:
    """Judge whether a share, e.g. of missing values, rose by more than is tolerated.

    Parameters
    ----------
    n_reference_hits, n_reference : int
        Hits among the rows of the reference.
    n_window_hits, n_window : int
        Hits among the rows of the window.
    tolerance : float, default 0.05
        Largest rise that is not called drift; a fall never is.
    n_features, confidence_level, family_error, min_rows, decide, power
        As in :func:`judge_drift`.

    Returns
    -------
    DriftJudgement

    Raises
    ------
    UsageError
        If the counts do not fit.

    Examples
    --------
    >>> judge_share_increase(0, 1000, 60, 500).outcome
    'drifted'
    """
    level = max(confidence_level, 1 - bonferroni(family_error, n_features))
    value: float | None = None
    interval: Interval | None = None
    if n_reference and n_window:
        value = n_window_hits / n_window - n_reference_hits / n_reference
        interval = share_increase(
            n_reference_hits, n_reference, n_window_hits, n_window, confidence_level=level
        )

    def shown(limit: float, rows: int) -> float:
        base = n_reference_hits / n_reference
        risen = min(1.0, base + 2 * limit)
        return float(
            pair_power(rows, n_reference, risen, base, limit=limit, z=critical_value(level))
        )

    def support() -> Support:
        if shown(tolerance, n_window) >= power:
            return Support(enough=True, sizes=(n_window,))
        return Support(
            enough=False,
            sizes=(n_window,),
            n_needed=least_rows(lambda rows: shown(tolerance, rows), power=power),
            smallest_limit=smallest_limit(lambda one: shown(one, n_window) >= power),
        )

    return _judge(
        "share_increase",
        value,
        interval,
        tolerance=tolerance,
        n_reference=n_reference,
        n_window=n_window,
        least=min_rows,
        level=level,
        decide=decide,
        support=support,
    )


def _judge(
    statistic: Statistic,
    value: float | None,
    interval: Interval | None,
    *,
    tolerance: float,
    n_reference: int,
    n_window: int,
    least: int | None,
    level: float,
    decide: Decide,
    support: Callable[[], Support],
) -> DriftJudgement:
    judged = judge_limit(
        value,
        interval,
        limit=tolerance,
        n=n_window,
        # No window is large enough where the reference is too small.
        min_rows=n_window + 1 if least is None else least,
        decide=decide,
        confidence_level=level,
        support=support,
    )
    known = {spec.name: getattr(judged, spec.name) for spec in fields(Judgement)}
    if least is None:
        known["n_needed"] = None
    return DriftJudgement(**known, statistic=statistic, n_reference=n_reference)
