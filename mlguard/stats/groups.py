"""The worst gap between groups, estimated and judged.

Every pair of groups is compared (or every group with a reference group), each by a MOVER
interval at a level at which all pairs hold together (Sidak).  The breach of any one pair is a
breach; the limit is proven to be kept only where every pair proves it.  Resampling the largest
gap is no alternative: the maximum of noise is positive, so identical groups would fail.

Rules for small groups: a group whose denominator has fewer than ``min_group_size`` rows is not
compared.  Unless it is named in ``optional``, the judgement can then be FAILED by the other
groups, but not better than INCONCLUSIVE.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.results import Verdict
from mlguard.stats.decision import Bound, Decide, Judgement, Support, figure, judge_limit
from mlguard.stats.interval import FloatArray, Interval, critical_value
from mlguard.stats.means import mean_interval
from mlguard.stats.multiplicity import sidak
from mlguard.stats.proportions import mover_difference, mover_ratio_limits, wilson_limits
from mlguard.stats.rates import (
    RATE_METRICS,
    Confusion,
    Rate,
    RateMetric,
    group_losses,
    group_rates,
    pooled,
)
from mlguard.stats.support import (
    POWER,
    POWER_Z,
    Aggregate,
    mean_support,
    pair_rows_needed,
    pair_rows_to_tell,
    pair_support,
    smallest_limit,
    two_digits,
)

__all__ = [
    "RATE_METRICS",
    "Aggregate",
    "Confusion",
    "GapEstimate",
    "GapJudgement",
    "GroupEstimate",
    "Rate",
    "RateMetric",
    "group_losses",
    "group_rates",
    "judge_gap",
    "judge_mean_gap",
    "worst_gap",
]


#: Pairs of groups that are tried when the tightest judgeable limit is looked for.
WEAKEST_PAIRS = 6


@dataclass(frozen=True, slots=True)
class GroupEstimate:
    """What was measured in one group.

    Attributes
    ----------
    name : str
        The group.
    value : float or None
        Its rate or mean; None where it is undefined (0/0).
    n : int
        Rows in its denominator.
    low, high : float or None
        Interval at the simultaneous level of the comparison; None where undefined.
    """

    name: str
    value: float | None
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GapEstimate:
    """The worst gap between groups.

    Attributes
    ----------
    value : float or None
        Largest difference, or smallest ratio, of two groups, as fairlearn's ``difference()``
        and ``ratio()``; None with fewer than two groups.
    interval : Interval or None
        Bounds of the worst gap that hold over all pairs together.
    pair : tuple of str or None
        The two groups of ``value``, the one with the higher rate first.
    breach : Interval or None
        Interval of the pair that breaches most clearly.
    breach_pair, breach_value
        That pair, and its estimate.
    confidence_level : float
        Of each pair's interval.
    aggregate : {"difference", "ratio"}
        How two groups were compared.
    groups : tuple of GroupEstimate
        All groups that were compared.
    """

    value: float | None
    interval: Interval | None
    pair: tuple[str, str] | None
    breach: Interval | None
    breach_pair: tuple[str, str] | None
    breach_value: float | None
    confidence_level: float
    aggregate: Aggregate
    groups: tuple[GroupEstimate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GapJudgement(Judgement):
    """A judged gap between groups.

    Attributes
    ----------
    aggregate : {"difference", "ratio"}
        How two groups were compared.
    pair : tuple of str or None
        The two groups that decided, the one with the higher rate first.
    weakest : tuple of str or None
        The two groups with the least support, where support was asked for.
    groups : tuple of GroupEstimate
        Every group, compared or not.
    too_small : tuple of str
        Groups that would have to be compared and have too few rows.
    left_out : tuple of str
        Optional groups that have too few rows.
    """

    aggregate: Aggregate = "difference"
    pair: tuple[str, str] | None = None
    weakest: tuple[str, str] | None = None
    groups: tuple[GroupEstimate, ...] = ()
    too_small: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def explain(self) -> str:
        """Return the judgement as one sentence with its groups and numbers, for people.

        Examples
        --------
        >>> rates = {"f": Rate(120, 400), "m": Rate(60, 400)}
        >>> judge_gap(rates, limit=0.05).explain()
        'f 0.30, m 0.15: difference 0.15 (95 % interval 0.093 to 0.206) breaches at most 0.05'
        """
        if self.too_small and self.reason == "few":
            small = {one.name: one.n for one in self.groups}
            named = ", ".join(f"{name} ({small[name]})" for name in self.too_small)
            return f"too few rows in {named}: at least {self.n_needed} needed"
        if self.value is None:
            return "undefined: there are no two groups to compare"
        # Explicit arguments: zero-argument super() does not work in a slotted dataclass.
        sentence = super(GapJudgement, self).explain()
        values = {one.name: one.value for one in self.groups}
        named = ", ".join(
            f"{name} {figure(value)}"
            for name in self.pair or ()
            if (value := values.get(name)) is not None
        )
        return f"{named}: {self.aggregate} {sentence}"


@dataclass(frozen=True, slots=True)
class _Pairs:
    """All compared pairs, the group with the higher estimate first in each."""

    high: npt.NDArray[np.intp]
    low: npt.NDArray[np.intp]
    value: FloatArray
    bottom: FloatArray
    top: FloatArray


#: From a confidence level to the groups' estimates at that level.
_Estimator = Callable[[float], list[GroupEstimate]]


def worst_gap(
    rates: Mapping[str, Rate],
    *,
    aggregate: Aggregate = "difference",
    confidence_level: float = 0.95,
    family_error: float = 0.05,
    reference: str | None = None,
) -> GapEstimate:
    """Estimate the worst gap of a rate between groups.

    Parameters
    ----------
    rates : mapping of str to Rate
        The metric per group; groups without rows in the denominator are left out.
    aggregate : {"difference", "ratio"}, default "difference"
        How two groups are compared: higher minus lower, or lower divided by higher.
    confidence_level : float, default 0.95
        Least level of each pair's interval.
    family_error : float, default 0.05
        Error over all pairs together.
    reference : str, optional
        Compare each group with this one only.

    Returns
    -------
    GapEstimate

    Raises
    ------
    UsageError
        If the reference is not among the groups.

    References
    ----------
    Newcombe (1998), Stat. Med. 17:873-890; Donner and Zou (2012), Stat. Methods Med. Res.
    21:347-359; Sidak (1967), J. Am. Stat. Assoc. 62:626-633.

    Examples
    --------
    >>> gap = worst_gap({"a": Rate(30, 100), "b": Rate(45, 100), "c": Rate(36, 100)})
    >>> gap.pair, f"{gap.value:.2f} {gap.interval.low:.2f} {gap.interval.high:.2f}"
    (('b', 'a'), '0.15 0.00 0.30')
    """
    known = {name: rate for name, rate in rates.items() if rate.n > 0}
    return _worst(
        _rate_estimator(known),
        list(known),
        aggregate=aggregate,
        confidence_level=confidence_level,
        family_error=family_error,
        reference=reference,
    )


def _rate_estimator(rates: Mapping[str, Rate]) -> _Estimator:
    def estimate(level: float) -> list[GroupEstimate]:
        z = critical_value(level)
        found = []
        for name, rate in rates.items():
            low, high = wilson_limits(rate.successes, rate.n, z)
            found.append(GroupEstimate(name, rate.value, rate.n, float(low), float(high)))
        return found

    return estimate


def _pair_indices(names: Sequence[str], reference: str | None) -> list[tuple[int, int]]:
    if reference is None:
        return list(itertools.combinations(range(len(names)), 2))
    if reference not in names:
        raise UsageError(
            f"the reference group {reference!r} has no rows; groups: {', '.join(names) or 'none'}"
        )
    anchor = list(names).index(reference)
    return [(index, anchor) for index in range(len(names)) if index != anchor]


def _worst(
    estimator: _Estimator,
    names: Sequence[str],
    *,
    aggregate: Aggregate,
    confidence_level: float,
    family_error: float,
    reference: str | None,
) -> GapEstimate:
    indices = _pair_indices(names, reference)
    # Never narrower than what was asked for each, never wrong more often than all may be.
    level = max(confidence_level, 1 - sidak(family_error, max(1, len(indices))))
    groups = tuple(estimator(level))
    if not indices:
        return GapEstimate(
            value=None,
            interval=None,
            pair=None,
            breach=None,
            breach_pair=None,
            breach_value=None,
            confidence_level=level,
            aggregate=aggregate,
            groups=groups,
        )
    pairs = _compare(groups, indices, aggregate)
    # Worse is larger for a difference and smaller for a ratio; the sign makes them one.
    sign = 1.0 if aggregate == "difference" else -1.0
    near, far = (pairs.bottom, pairs.top) if sign > 0 else (pairs.top, pairs.bottom)
    worst = int(np.argmax(sign * pairs.value))
    # Of pairs that breach equally clearly, the one with the worse estimate.
    breach = int(np.lexsort((sign * pairs.value, sign * near))[-1])

    def named(index: int) -> tuple[str, str]:
        return names[pairs.high[index]], names[pairs.low[index]]

    bounds = (float(sign * np.max(sign * near)), float(sign * np.max(sign * far)))
    return GapEstimate(
        value=float(pairs.value[worst]),
        interval=Interval(min(bounds), max(bounds)),
        pair=named(worst),
        breach=Interval(float(pairs.bottom[breach]), float(pairs.top[breach])),
        breach_pair=named(breach),
        breach_value=float(pairs.value[breach]),
        confidence_level=level,
        aggregate=aggregate,
        groups=groups,
    )


def _compare(
    groups: Sequence[GroupEstimate], indices: Sequence[tuple[int, int]], aggregate: Aggregate
) -> _Pairs:
    first, second = np.array(indices).T
    value = np.array([one.value for one in groups], float)
    low = np.array([one.low for one in groups], float)
    high = np.array([one.high for one in groups], float)
    swap = value[first] < value[second]
    upper, lower = np.where(swap, second, first), np.where(swap, first, second)
    of_upper = (low[upper], high[upper])
    of_lower = (low[lower], high[lower])
    if aggregate == "difference":
        bottom, top = mover_difference(value[upper], of_upper, value[lower], of_lower)
        # A gap has no sign: where the order of the two is open, it may be as small as 0.
        gap, bottom, top = (
            value[upper] - value[lower],
            np.maximum(bottom, 0.0),
            np.maximum(top, -bottom),
        )
        return _Pairs(upper, lower, gap, bottom, top)
    bottom, top = mover_ratio_limits(value[lower], of_lower, value[upper], of_upper)
    # Two rates of zero are alike; where the order is open, the ratio may be 1.
    ratio = np.divide(
        value[lower], value[upper], out=np.ones(value[upper].shape), where=value[upper] > 0
    )
    turned = np.divide(1.0, top, out=np.zeros(top.shape), where=top > 0)
    bottom = np.where(top > 1, np.minimum(bottom, turned), bottom)
    return _Pairs(upper, lower, ratio, bottom, np.minimum(top, 1.0))


def judge_gap(
    rates: Mapping[str, Rate],
    *,
    limit: float,
    aggregate: Aggregate = "difference",
    min_group_size: int = 30,
    confidence_level: float = 0.95,
    family_error: float = 0.05,
    decide: Decide = "evidence",
    optional: Collection[str] = (),
    reference: str | None = None,
) -> GapJudgement:
    """Judge the worst gap of a rate between groups against a limit.

    Parameters
    ----------
    rates : mapping of str to Rate
        The metric per group, from :meth:`Confusion.rates` or :func:`group_rates`.
    limit : float
        Largest difference, or smallest ratio, in [0, 1].
    aggregate : {"difference", "ratio"}, default "difference"
        How two groups are compared.
    min_group_size : int, default 30
        Rows that a group's denominator needs to be compared.
    confidence_level : float, default 0.95
        Least level of each pair's interval.
    family_error : float, default 0.05
        Error over all pairs together.
    decide : {"evidence", "proof", "estimate"}, default "evidence"
        How the interval is held against the limit.
    optional : collection of str, default ()
        Groups, named as in ``rates``, that may be too small.
    reference : str, optional
        Compare each group with this one only.

    Returns
    -------
    GapJudgement

    Raises
    ------
    UsageError
        If the reference is not among the groups that are large enough.

    Examples
    --------
    >>> rates = {"f": Rate(33, 109), "m": Rate(58, 200)}
    >>> judged = judge_gap(rates, limit=0.1)
    >>> judged.verdict.word
    'undecided'
    >>> judged.explain().partition("undecided: ")[2]
    'with 109 and 200 rows the smallest limit this data can judge is 0.16; limit 0.10 needs about \
320 each'
    """
    large = {name: rate for name, rate in rates.items() if rate.n >= max(1, min_group_size)}

    def support(gap: GapEstimate) -> tuple[Support, tuple[str, str]]:
        return _rate_support(large, gap, limit, reference)

    return _judge(
        _rate_estimator(large),
        [GroupEstimate(name, rate.value, rate.n) for name, rate in rates.items()],
        large,
        support,
        limit=limit,
        aggregate=aggregate,
        min_group_size=min_group_size,
        confidence_level=confidence_level,
        family_error=family_error,
        decide=decide,
        optional=optional,
        reference=reference,
    )


def _rate_support(
    rates: Mapping[str, Rate], gap: GapEstimate, limit: float, reference: str | None
) -> tuple[Support, tuple[str, str]]:
    names = list(rates)
    z = critical_value(gap.confidence_level)
    aggregate = gap.aggregate
    indices = _pair_indices(names, reference)
    one, other = np.array([[rates[names[index]].n for index in two] for two in indices]).T
    shares = np.array([pooled([rates[names[a]], rates[names[b]]]) for a, b in indices])
    power = pair_support(one, other, shares, limit=limit, z=z, aggregate=aggregate)
    weakest = int(np.argmin(power))
    a, b = indices[weakest]
    pair = (names[a], names[b])
    sizes = (rates[pair[0]].n, rates[pair[1]].n)
    if power[weakest] >= POWER:
        tell = None
        if gap.pair is not None:
            higher, lower = (rates[name].value or 0.0 for name in gap.pair)
            beyond = (gap.value or 0.0) > limit
            if beyond if aggregate == "difference" else (gap.value or 0.0) < limit:
                tell = pair_rows_to_tell(higher, lower, limit=limit, z=z, aggregate=aggregate)
        return Support(enough=True, sizes=sizes, n_to_tell=tell), pair

    # The pairs with the least power are the same at any limit, and few are enough to try.
    few = np.argsort(power, kind="stable")[:WEAKEST_PAIRS]
    if power[few[-1]] == 0:  # no telling apart: take the smallest groups
        few = np.argsort(np.minimum(one, other), kind="stable")[:WEAKEST_PAIRS]

    def supported(looser: float) -> bool:
        # The tightest ratio is the one nearest to 1.
        tried = looser if aggregate == "difference" else 1 - looser
        found = pair_support(
            one[few], other[few], shares[few], limit=tried, z=z, aggregate=aggregate
        )
        return bool(found.min() >= POWER)

    tightest = smallest_limit(supported)
    if tightest is not None and aggregate == "ratio":
        tightest = round(1 - tightest, 2)
    needed = pair_rows_needed(float(shares[weakest]), limit=limit, z=z, aggregate=aggregate)
    found = Support(enough=False, sizes=sizes, n_needed=needed, smallest_limit=tightest)
    return found, pair


def judge_mean_gap(
    losses: Mapping[str, npt.ArrayLike],
    *,
    limit: float,
    scale: float | None = None,
    aggregate: Aggregate = "difference",
    min_group_size: int = 30,
    confidence_level: float = 0.95,
    family_error: float = 0.05,
    decide: Decide = "evidence",
    optional: Collection[str] = (),
    reference: str | None = None,
) -> GapJudgement:
    """Judge the worst gap of a mean loss between groups, e.g. of ``mean_absolute_error``.

    Parameters
    ----------
    losses : mapping of str to array_like of shape (n,)
        Losses of each group, at least 0, e.g. from :func:`group_losses`; no NaN.
    limit : float
        Largest difference in the unit of the losses, or smallest ratio.
    scale : float, optional
        Loss that no row exceeds; larger ones are clipped to it.  Default: the largest loss
        there is, which makes the interval of a small or lopsided sample approximate.
    aggregate, min_group_size, confidence_level, family_error, decide, optional, reference
        As in :func:`judge_gap`.

    Returns
    -------
    GapJudgement

    Raises
    ------
    UsageError
        If a loss is negative or NaN, or the reference is not among the groups.

    Examples
    --------
    >>> losses = {"f": [0.1, 0.3] * 300, "m": [0.2, 0.2, 0.3] * 200}
    >>> judge_mean_gap(losses, limit=0.1, scale=1.0).verdict
    <Verdict.PASSED: 'passed'>
    """
    samples = {name: np.asarray(one, float).ravel() for name, one in losses.items()}
    largest = max((float(one.max()) for one in samples.values() if one.size), default=0.0)
    top = scale if scale is not None else largest or 1.0
    samples = {name: np.minimum(one, top) for name, one in samples.items()}
    large = {name: one for name, one in samples.items() if one.size >= max(1, min_group_size)}

    def estimate(level: float) -> list[GroupEstimate]:
        found = []
        for name, one in large.items():
            low, high = mean_interval(one, high=top, confidence_level=level)
            found.append(GroupEstimate(name, float(one.mean()), one.size, low, high))
        return found

    def support(gap: GapEstimate) -> tuple[Support, tuple[str, str]]:
        return _mean_support(large, gap, limit, reference)

    return _judge(
        estimate,
        [
            GroupEstimate(name, float(one.mean()) if one.size else None, one.size)
            for name, one in samples.items()
        ],
        large,
        support,
        limit=limit,
        aggregate=aggregate,
        min_group_size=min_group_size,
        confidence_level=confidence_level,
        family_error=family_error,
        decide=decide,
        optional=optional,
        reference=reference,
    )


def _mean_support(
    losses: Mapping[str, FloatArray], gap: GapEstimate, limit: float, reference: str | None
) -> tuple[Support, tuple[str, str]]:
    """Support of a gap between means, from the width of each group's interval.

    Not from the sample's own spread: thirty losses of 0 have none, and show nothing for it.
    """
    names = list(losses)
    z = critical_value(gap.confidence_level)
    sizes = {name: losses[name].size for name in names}
    errors = {one.name: ((one.high or 0.0) - (one.low or 0.0)) / (2 * z) for one in gap.groups}
    middle = float(np.concatenate(list(losses.values())).mean())
    # A ratio is judged as the difference it stands for at the mean of all.
    allowed = limit if gap.aggregate == "difference" else (1 - limit) * middle
    pairs = [(names[a], names[b]) for a, b in _pair_indices(names, reference)]
    pair = max(pairs, key=lambda one: math.hypot(errors[one[0]], errors[one[1]]))
    error = math.hypot(errors[pair[0]], errors[pair[1]])
    both = (sizes[pair[0]], sizes[pair[1]])
    spread = sum(errors[name] ** 2 * sizes[name] for name in pair)

    def rows(distance: float) -> int | None:
        if distance <= 0:
            return None
        return two_digits(math.ceil(spread * ((z + POWER_Z) / distance) ** 2))

    if mean_support(error, limit=allowed, z=z) >= POWER:
        value = gap.value or 0.0
        beyond = value - limit if gap.aggregate == "difference" else (limit - value) * middle
        return Support(enough=True, sizes=both, n_to_tell=rows(beyond)), pair
    tightest = error * (z + POWER_Z)
    if gap.aggregate == "ratio":
        tightest = max(0.0, 1 - tightest / middle) if middle else 0.0
    found = Support(
        enough=False, sizes=both, n_needed=rows(allowed), smallest_limit=float(f"{tightest:.2g}")
    )
    return found, pair


def _judge(
    estimator: _Estimator,
    groups: list[GroupEstimate],
    large: Collection[str],
    support: Callable[[GapEstimate], tuple[Support, tuple[str, str]]],
    *,
    limit: float,
    aggregate: Aggregate,
    min_group_size: int,
    confidence_level: float,
    family_error: float,
    decide: Decide,
    optional: Collection[str],
    reference: str | None,
) -> GapJudgement:
    small = [one.name for one in groups if one.name not in large]
    too_small = tuple(name for name in small if name not in optional)
    compared = [one.name for one in groups if one.name in large]
    gap = _worst(
        estimator,
        compared,
        aggregate=aggregate,
        confidence_level=confidence_level,
        family_error=family_error,
        # A reference that is too small leaves nothing to compare with, which is no mistake.
        reference=None if reference in small else reference,
    )
    bound: Bound = "at_most" if aggregate == "difference" else "at_least"
    undecidable = reference is not None and reference in small
    asked: list[tuple[str, str]] = []

    def ask() -> Support:
        found, weakest = support(gap)
        asked.append(weakest)
        return found

    # The pair that breaches most clearly decides a failure, the worst estimate all else.
    failed = (
        decide != "estimate"
        and gap.breach is not None
        and (gap.breach.low > limit if bound == "at_most" else gap.breach.high < limit)
    )
    pair = gap.breach_pair if failed else gap.pair
    sizes = {one.name: one.n for one in gap.groups}
    judged = judge_limit(
        None if undecidable else (gap.breach_value if failed else gap.value),
        None if undecidable else (gap.breach if failed else gap.interval),
        limit=limit,
        bound=bound,
        n=sum(sizes[name] for name in pair or ()),
        sizes=tuple(sizes[name] for name in pair or ()) or (0,),
        min_rows=min_group_size,
        decide=decide,
        confidence_level=confidence_level,
        support=ask,
    )
    changes: dict[str, Any] = {"n_needed": None} if judged.reason == "undefined" else {}
    if (too_small or undecidable) and judged.verdict is not Verdict.FAILED:
        shortest = tuple(one.n for one in groups if one.name in (too_small or small))
        changes = {
            "verdict": Verdict.INCONCLUSIVE,
            "reason": "few",
            "sizes": shortest,
            "n_needed": min_group_size,
            "smallest_limit": None,
            "n_to_tell": None,
        }
    known = {spec.name: getattr(judged, spec.name) for spec in fields(Judgement)}
    estimates = {one.name: one for one in gap.groups}
    return GapJudgement(
        **{**known, **changes},
        aggregate=aggregate,
        pair=pair,
        weakest=asked[0] if asked else None,
        groups=tuple(estimates.get(one.name, one) for one in groups),
        too_small=too_small,
        left_out=tuple(name for name in small if name in optional),
    )
