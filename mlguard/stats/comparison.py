"""Groups side by side: every comparison that a check makes, each with its interval and power.

Whatever is compared (rates, means, composites) and however (pairs of groups, each group with
all people together, each group alone), what the rule for a verdict needs is the same: an
estimate and bounds per comparison that hold over all of them together, the probability that a
breach would have shown, and what it would take.  :class:`Comparison` is that, and the functions
here build it for rates and for means.

A group against everybody is compared as a group against the *others*: with the group's share
``w`` of all rows, ``p - overall = (1 - w) (p - others)``, so the interval of two independent
samples carries over; treating everybody as a second sample would count the group twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from mlguard.errors import UsageError
from mlguard.stats.decision import Bound, Support
from mlguard.stats.interval import FloatArray, critical_value
from mlguard.stats.means import mean_interval
from mlguard.stats.multiplicity import bonferroni, sidak
from mlguard.stats.proportions import mover_difference, mover_ratio_limits, wilson_limits
from mlguard.stats.rates import Rate, pooled
from mlguard.stats.support import (
    POWER,
    POWER_Z,
    Aggregate,
    least_rows,
    pair_rows_needed,
    pair_rows_to_tell,
    pair_support,
    pair_support_of_many,
    rate_power,
    rate_rows_needed,
    rate_support,
    smallest_limit,
    two_digits,
)

#: How the figures of many groups become one, by fairlearn's names.
Summary: TypeAlias = Literal["difference", "ratio", "group_min", "group_max"]

#: Comparisons that are tried when the tightest judgeable limit is looked for.
WEAKEST = 6
#: Pairs from which only those in doubt are worth an exact computation.
MANY_PAIRS = 100


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


@dataclass(frozen=True, slots=True)
class Overall:
    """What each group's rate is compared with where it is compared with everybody.

    Attributes
    ----------
    others : mapping of str to Rate
        Per group the rate of all rows that are not in it.
    shares : mapping of str to float
        Per group its share of the metric's denominator, in [0, 1].
    """

    others: Mapping[str, Rate]
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All comparisons of one check.

    Attributes
    ----------
    groups : tuple of GroupEstimate
        The groups that are compared.
    who : tuple of tuple of str
        Per comparison its groups, the one with the higher figure first; one name where a group
        is held against everybody or against the limit alone.
    rows : tuple of tuple of int
        Per comparison the rows in its denominators.
    value, low, high : ndarray of shape (n_comparisons,)
        Estimates and bounds that hold together.
    level : float
        Confidence level of each.
    aggregate : {"difference", "ratio", "group_min", "group_max"}
        What is estimated.
    power : callable
        Gives, per comparison, the probability that a breach of twice the limit would show.
    lacking : callable
        From comparisons without support, the weakest first, to what they would need.
    to_tell : callable
        From a comparison to the rows that would prove its estimate a breach.
    """

    groups: tuple[GroupEstimate, ...]
    who: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[int, ...], ...]
    value: FloatArray
    low: FloatArray
    high: FloatArray
    level: float
    aggregate: Summary
    power: Callable[[], FloatArray]
    lacking: Callable[[Sequence[int]], Support]
    to_tell: Callable[[int], int | None]

    @property
    def bound(self) -> Bound:
        """On which side of a limit the figures must lie."""
        return "at_most" if self.aggregate in ("difference", "group_max") else "at_least"

    @property
    def sign(self) -> float:
        """Return 1 where a larger figure is worse, -1 where a smaller one is."""
        return 1.0 if self.bound == "at_most" else -1.0

    def weakest_first(self) -> list[int]:
        """Return the comparisons by their power, and by their rows where that is the same."""
        least = [min(rows) for rows in self.rows]
        return [int(one) for one in np.lexsort((np.array(least), self.power()))]

    def support(self, limit: float) -> tuple[Support, tuple[str, ...]]:
        """Return the support of the weakest comparison, and its groups."""
        order = self.weakest_first()
        weakest = order[0]
        if self.power()[weakest] < POWER:
            return self.lacking(order[:WEAKEST]), self.who[weakest]
        worst = int(np.argmax(self.sign * self.value))
        beyond = self.sign * (float(self.value[worst]) - limit) > 0
        tell = self.to_tell(worst) if beyond else None
        return Support(enough=True, sizes=self.rows[weakest], n_to_tell=tell), self.who[weakest]

    def without(self, names: set[str]) -> Self:
        """Return the comparisons that do not concern some groups, at the same level."""
        kept = [place for place, who in enumerate(self.who) if not names & set(who)]
        power = self.power()[kept]
        return replace(
            self,
            groups=tuple(one for one in self.groups if one.name not in names),
            who=tuple(self.who[place] for place in kept),
            rows=tuple(self.rows[place] for place in kept),
            value=self.value[kept],
            low=self.low[kept],
            high=self.high[kept],
            power=lambda: power,
            lacking=lambda order: self.lacking([kept[place] for place in order]),
            to_tell=lambda place: self.to_tell(kept[place]),
        )


def pair_indices(names: Sequence[str], reference: str | None) -> list[tuple[int, int]]:
    """Return the pairs of groups to compare: all, or each with the reference.

    Raises
    ------
    UsageError
        If the reference is not among the groups.
    """
    if reference is None:
        return list(itertools.combinations(range(len(names)), 2))
    if reference not in names:
        raise UsageError(
            f"the reference group {reference!r} has no rows; groups: {', '.join(names) or 'none'}"
        )
    anchor = list(names).index(reference)
    return [(index, anchor) for index in range(len(names)) if index != anchor]


def simultaneous_level(confidence_level: float, family_error: float, n: int) -> float:
    """Return the level of each of ``n`` intervals.

    Never narrower than what was asked for each, never wrong more often than all may be.
    """
    return max(confidence_level, 1 - sidak(family_error, max(1, n)))


def compare_rates(
    rates: Mapping[str, Rate],
    *,
    limit: float,
    aggregate: Summary,
    confidence_level: float,
    family_error: float,
    reference: str | None = None,
    overall: Overall | None = None,
) -> Comparison:
    """Compare the rates of groups, each with at least one row in its denominator."""
    names = list(rates)
    if aggregate in ("group_min", "group_max"):
        return _single_rates(rates, limit, aggregate, confidence_level, family_error)
    kind: Aggregate = "ratio" if aggregate == "ratio" else "difference"
    others = [] if overall is None else [overall.others[name] for name in names]
    usable = [place for place, one in enumerate(others) if one.n]
    indices = (
        pair_indices(names, reference)
        if overall is None
        else [(place, len(names) + place) for place in usable]
    )
    level = simultaneous_level(confidence_level, family_error, len(indices))
    z = critical_value(level)
    figures = [*rates.values(), *others]
    n = np.array([one.n for one in figures], float)
    value = np.array([one.successes / one.n if one.n else np.nan for one in figures])
    low, high = (np.asarray(one) for one in wilson_limits(value * n, n, z))
    compared = _compared(_Figures(value, low, high), indices, kind)
    shares = None
    if overall is not None:
        shares = np.array([overall.shares[names[place]] for place in usable])
        compared = _to_overall(_Figures(value, low, high), indices, kind, shares)
    pairs = _RatePairs(
        one=np.array([n[a] for a, _ in indices]),
        other=np.array([n[b] for _, b in indices]),
        rates=tuple((float(value[a]), float(value[b])) for a, b in indices),
        centre=np.array([pooled([figures[a], figures[b]]) for a, b in indices]),
        shares=shares,
        kind=kind,
        limit=limit,
        z=z,
    )
    return Comparison(
        groups=_estimates(names, value, n, low, high),
        who=tuple(tuple(names[one] for one in two if one < len(names)) for two in compared.pairs),
        rows=tuple((figures[a].n, figures[b].n) for a, b in indices),
        value=compared.value,
        low=compared.low,
        high=compared.high,
        level=level,
        aggregate=aggregate,
        power=_once(lambda: pairs.powers(limit, range(len(indices)))),
        lacking=pairs.lacking,
        to_tell=pairs.to_tell,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _RatePairs:
    """What support means for pairs of rates.

    ``shares`` is None where groups are compared with each other, else each group's share of
    everybody.
    """

    one: FloatArray
    other: FloatArray
    rates: tuple[tuple[float, float], ...]
    centre: FloatArray
    shares: FloatArray | None
    kind: Aggregate
    limit: float
    z: float

    def limits(self, told: float, place: int) -> tuple[float, ...]:
        """Return the limits on a pair that the limit told stands for, if they can be broken."""
        if self.shares is None:
            return (told,)
        limits = _pair_limits(told, float(self.shares[place]), self.kind)
        return tuple(one for one in limits if (one > 0 if self.kind == "ratio" else one < 1))

    def powers(self, told: float, chosen: Sequence[int]) -> FloatArray:
        """Return the power of some pairs; 1 where nothing can be broken."""
        found = np.ones(len(chosen))
        ways = [self.limits(told, place) for place in chosen]
        for tried in {one for way in ways for one in way}:
            here = np.array([tried in way for way in ways])
            pairs = np.array(chosen)[here]
            support = pair_support if len(pairs) <= MANY_PAIRS else pair_support_of_many
            power = support(
                self.one[pairs],
                self.other[pairs],
                self.centre[pairs],
                limit=tried,
                z=self.z,
                aggregate=self.kind,
            )
            found[here] = np.minimum(found[here], power)
        return found

    def lacking(self, order: Sequence[int]) -> Support:
        """Return what the first of some pairs would need, and what all of them can judge."""

        def supported(looser: float) -> bool:
            # The tightest ratio is the one nearest to 1.
            tried = looser if self.kind == "difference" else 1 - looser
            return bool(self.powers(tried, order).min() >= POWER)

        tightest = smallest_limit(supported)
        if tightest is not None and self.kind == "ratio":
            tightest = round(1 - tightest, 2)
        weakest = order[0]
        needed = [
            pair_rows_needed(float(self.centre[weakest]), limit=one, z=self.z, aggregate=self.kind)
            for one in self.limits(self.limit, weakest)
        ]
        told = [one for one in needed if one is not None]
        return Support(
            enough=False,
            sizes=(int(self.one[weakest]), int(self.other[weakest])),
            n_needed=max(told) if told and len(told) == len(needed) else None,
            smallest_limit=tightest,
        )

    def to_tell(self, place: int) -> int | None:
        """Return the rows that would prove a pair's estimate a breach, if it is one."""
        lower, higher = sorted(self.rates[place])
        told = [
            pair_rows_to_tell(higher, lower, limit=one, z=self.z, aggregate=self.kind)
            for one in self.limits(self.limit, place)
            if (higher - lower > one if self.kind == "difference" else lower < one * higher)
        ]
        return min((one for one in told if one is not None), default=None)


def _single_rates(
    rates: Mapping[str, Rate],
    limit: float,
    aggregate: Summary,
    confidence_level: float,
    family_error: float,
) -> Comparison:
    """Hold each group's rate against the limit: a floor is a ceiling of what is missing to 1."""
    names, figures = list(rates), list(rates.values())
    level = simultaneous_level(confidence_level, family_error, len(names))
    z = critical_value(level)
    n = np.array([one.n for one in figures], float)
    value = np.array([one.successes / one.n for one in figures])
    low, high = (np.asarray(one) for one in wilson_limits(value * n, n, z))
    floor = aggregate == "group_min"
    ceiling = 1 - limit if floor else limit

    def lacking(order: Sequence[int]) -> Support:
        size = figures[order[0]].n
        tightest = smallest_limit(lambda one: rate_support(size, limit=one, z=z) >= POWER)
        if tightest is not None and floor:
            tightest = round(1 - tightest, 2)
        return Support(
            enough=False,
            sizes=(size,),
            n_needed=rate_rows_needed(limit=ceiling, z=z),
            smallest_limit=tightest,
        )

    def to_tell(place: int) -> int | None:
        over = 1 - float(value[place]) if floor else float(value[place])
        return least_rows(lambda rows: rate_power(rows, over, limit=ceiling, z=z))

    return Comparison(
        groups=_estimates(names, value, n, low, high),
        who=tuple((name,) for name in names),
        rows=tuple((one.n,) for one in figures),
        value=value,
        low=low,
        high=high,
        level=level,
        aggregate=aggregate,
        power=_once(lambda: np.array([rate_support(one.n, limit=ceiling, z=z) for one in figures])),
        lacking=lacking,
        to_tell=to_tell,
    )


def compare_shares(
    shares: Mapping[str, Rate],
    stated: Mapping[str, float],
    *,
    limit: float,
    confidence_level: float,
    family_error: float,
) -> Comparison:
    """Compare the shares that groups have of the rows with stated ones.

    The estimates are the distances of the two.  Shares of one whole depend on each other, so
    they are bounded by Bonferroni.

    Parameters
    ----------
    shares : mapping of str to Rate
        Rows of each group, of all rows; at least one row in all.
    stated : mapping of str to float
        What each share should be, in [0, 1].
    limit : float
        Largest distance.
    confidence_level, family_error : float
        Of each interval, and over all groups.
    """
    names = list(stated)
    level = max(confidence_level, 1 - bonferroni(family_error, max(1, len(names))))
    z = critical_value(level)
    n = np.array([shares[name].n for name in names], float)
    value = np.array([shares[name].value for name in names], float)
    goal = np.array([stated[name] for name in names], float)
    low, high = (np.asarray(one) for one in wilson_limits(value * n, n, z))
    inside = (low <= goal) & (goal <= high)
    below, above = goal - high, low - goal
    distance = np.abs(value - goal)
    rows = [(int(one),) for one in n]
    power, lacking, to_tell = normal_support(
        [[float(error)] for error in np.sqrt(np.maximum(goal * (1 - goal), 1 / n) / n)],
        rows,
        value=distance,
        limit=limit,
        sign=1.0,
        z=z,
    )
    return Comparison(
        groups=_estimates(names, value, n, low, high),
        who=tuple((name,) for name in names),
        rows=tuple(rows),
        value=distance,
        low=np.where(inside, 0.0, np.maximum(below, above)),
        high=np.maximum(high - goal, goal - low),
        level=level,
        aggregate="difference",
        power=power,
        lacking=lacking,
        to_tell=to_tell,
    )


def compare_means(
    samples: Mapping[str, FloatArray],
    large: Collection[str],
    *,
    bounds: tuple[float, float],
    limit: float,
    aggregate: Summary,
    confidence_level: float,
    family_error: float,
    reference: str | None = None,
    everybody: Mapping[str, float] | None = None,
) -> Comparison:
    """Compare the means of the groups that are large enough, all values within the bounds.

    With ``everybody``, the groups' shares of all rows, each is compared with all together.  The
    others' mean is then put together from the groups' own means and bounds (MOVER of a weighted
    sum), the small groups among them.

    Support comes from the width of each group's interval, not from the sample's own spread:
    thirty values of 0 have none, and show nothing for it.
    """
    names = [name for name in samples if name in large]
    single = aggregate in ("group_min", "group_max")
    usable = [] if everybody is None else [i for i, name in enumerate(names) if everybody[name] < 1]
    if single:
        indices = [(place, place) for place in range(len(names))]
    elif everybody is None:
        indices = pair_indices(names, reference)
    else:
        indices = [(place, len(names) + place) for place in usable]
    level = simultaneous_level(confidence_level, family_error, len(indices))
    z = critical_value(level)

    def measured(told: Sequence[str]) -> tuple[FloatArray, _Figures]:
        n = np.array([samples[name].size for name in told], float)
        value = np.array([float(samples[name].mean()) for name in told])
        limits = [
            mean_interval(samples[name], low=bounds[0], high=bounds[1], confidence_level=level)
            for name in told
        ]
        low, high = np.array(limits).reshape(-1, 2).T
        return n, _Figures(value, low, high)

    n, figures = measured(names)
    if everybody is not None:
        small = [name for name, one in samples.items() if one.size and name not in names]
        n_small, of_small = measured(small)
        n, figures = _with_others(
            np.concatenate([n, n_small]),
            _Figures(
                np.concatenate([figures.value, of_small.value]),
                np.concatenate([figures.low, of_small.low]),
                np.concatenate([figures.high, of_small.high]),
            ),
            np.array([everybody[name] for name in (*names, *small)]),
            len(names),
        )
    value, low, high = figures.value, figures.low, figures.high
    shares = np.zeros(len(indices))
    if single:
        compared = _Compared(indices, value, low, high)
    elif everybody is None:
        compared = _compared(figures, indices, aggregate)
    else:
        shares = np.array([everybody[names[place]] for place in usable])
        compared = _to_overall(figures, indices, aggregate, shares)
    error = (high - low) / (2 * z)
    rows_of_all = n[: len(names)].sum()
    middle = float((value * n)[: len(names)].sum() / rows_of_all) if rows_of_all else 0.0
    power, lacking, to_tell = normal_support(
        [[error[a]] if single else [error[a], error[b]] for a, b in indices],
        rows := [(int(n[a]),) if single else (int(n[a]), int(n[b])) for a, b in indices],
        value=compared.value,
        weight=1 - shares,
        limit=limit,
        ratio_at=middle if aggregate == "ratio" else None,
        sign=1.0 if aggregate in ("difference", "group_max") else -1.0,
        z=z,
    )
    return Comparison(
        groups=_estimates(names, value, n, low, high),
        who=tuple(
            (names[two[0]],) if single else tuple(names[one] for one in two if one < len(names))
            for two in compared.pairs
        ),
        rows=tuple(rows),
        value=compared.value,
        low=compared.low,
        high=compared.high,
        level=level,
        aggregate=aggregate,
        power=power,
        lacking=lacking,
        to_tell=to_tell,
    )


def normal_support(
    errors: Sequence[Sequence[float]],
    rows: Sequence[tuple[int, ...]],
    *,
    value: FloatArray,
    weight: npt.ArrayLike = 1.0,
    slack: npt.ArrayLike = 0.0,
    limit: float,
    ratio_at: float | None = None,
    sign: float,
    z: float,
) -> tuple[
    Callable[[], FloatArray], Callable[[Sequence[int]], Support], Callable[[int], int | None]
]:
    """Return power, needs and rows to tell of estimates that are about normal.

    Parameters
    ----------
    errors : sequence of sequence of float
        Per comparison the standard errors of its figures.
    rows : sequence of tuple of int
        Per comparison the rows behind each of them.
    value : ndarray
        Estimates.
    weight, slack : array_like, default 1 and 0
        Factor of the difference, and what its bounds are moved outwards by.
    limit : float
        What the estimates are held against.
    ratio_at : float, optional
        For ratios the mean of all: a ratio is judged as the difference it stands for there.
    sign : float
        1 where a larger estimate is worse, -1 where a smaller one is.
    z : float
        Critical value of the bounds.
    """
    factor = np.broadcast_to(np.asarray(weight, float), (len(rows),))
    slacks = np.broadcast_to(np.asarray(slack, float), (len(rows),))
    error = factor * np.array([math.hypot(*one) for one in errors])
    variance = factor**2 * np.array(
        [
            sum(e * e * n for e, n in zip(two, sizes, strict=True))
            for two, sizes in zip(errors, rows, strict=True)
        ]
    )

    scale = 1.0 if ratio_at is None else ratio_at
    allowed = limit if ratio_at is None else (1 - limit) * ratio_at

    def needed(place: int, distance: float) -> int | None:
        distance -= float(slacks[place])
        if distance <= 0:
            return None
        return two_digits(math.ceil(float(variance[place]) * ((z + POWER_Z) / distance) ** 2))

    def lacking(order: Sequence[int]) -> Support:
        weakest = order[0]
        tightest = float(error[weakest]) * (z + POWER_Z) + float(slacks[weakest])
        if ratio_at is not None:
            tightest = max(0.0, 1 - tightest / ratio_at) if ratio_at else 0.0
        return Support(
            enough=False,
            sizes=rows[weakest],
            n_needed=needed(weakest, allowed),
            smallest_limit=float(f"{tightest:.2g}"),
        )

    def to_tell(place: int) -> int | None:
        return needed(place, sign * (float(value[place]) - limit) * scale)

    power = np.where(
        error > 0,
        special.ndtr((allowed - slacks) / np.where(error > 0, error, 1.0) - z),
        1.0,
    )
    return lambda: power, lacking, to_tell


@dataclass(frozen=True, slots=True)
class _Compared:
    """Compared pairs, the one with the higher estimate first, with bounds."""

    pairs: list[tuple[int, int]]
    value: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, slots=True)
class _Figures:
    """Figures of groups, and perhaps of everybody else, with their bounds."""

    value: FloatArray
    low: FloatArray
    high: FloatArray


def _with_others(
    n: FloatArray, figures: _Figures, shares: FloatArray, first: int
) -> tuple[FloatArray, _Figures]:
    """Put behind the first groups, for each, all groups but it."""
    rest = np.maximum(1 - shares[:first], np.finfo(float).tiny)

    def others(total: FloatArray) -> FloatArray:
        found: FloatArray = total.sum() - total[:first]
        return found

    value = others(shares * figures.value) / rest
    below = np.sqrt(np.maximum(others((shares * (figures.value - figures.low)) ** 2), 0.0)) / rest
    above = np.sqrt(np.maximum(others((shares * (figures.high - figures.value)) ** 2), 0.0)) / rest
    return np.concatenate([n[:first], others(n)]), _Figures(
        np.concatenate([figures.value[:first], value]),
        np.concatenate([figures.low[:first], value - below]),
        np.concatenate([figures.high[:first], value + above]),
    )


def _compared(
    figures: _Figures, indices: Sequence[tuple[int, int]], aggregate: Summary
) -> _Compared:
    value, low, high = figures.value, figures.low, figures.high
    first, second = np.array(indices, int).reshape(-1, 2).T
    swap = value[first] < value[second]
    upper, lower = np.where(swap, second, first), np.where(swap, first, second)
    pairs = [(int(a), int(b)) for a, b in zip(upper, lower, strict=True)]
    of_upper, of_lower = (low[upper], high[upper]), (low[lower], high[lower])
    if aggregate == "difference":
        bottom, top = mover_difference(value[upper], of_upper, value[lower], of_lower)
        # A gap has no sign: where the order of the two is open, it may be as small as 0.
        gap = value[upper] - value[lower]
        return _Compared(pairs, gap, np.maximum(bottom, 0.0), np.maximum(top, -bottom))
    bottom, top = mover_ratio_limits(value[lower], of_lower, value[upper], of_upper)
    # Two rates of zero are alike; where the order is open, the ratio may be 1.
    ratio = np.divide(
        value[lower], value[upper], out=np.ones(value[upper].shape), where=value[upper] > 0
    )
    turned = np.divide(1.0, top, out=np.zeros(top.shape), where=top > 0)
    bottom = np.where(top > 1, np.minimum(bottom, turned), bottom)
    return _Compared(pairs, ratio, bottom, np.minimum(top, 1.0))


def _to_overall(
    figures: _Figures,
    indices: Sequence[tuple[int, int]],
    aggregate: Summary,
    shares: FloatArray,
) -> _Compared:
    """Compare groups with everybody, from each group and the others (see the module)."""
    value, low, high = figures.value, figures.low, figures.high
    if aggregate == "difference":
        gaps = _compared(figures, indices, aggregate)
        rest = 1 - shares
        return _Compared(gaps.pairs, rest * gaps.value, rest * gaps.low, rest * gaps.high)
    group, others = np.array(indices, int).reshape(-1, 2).T
    everybody = shares * value[group] + (1 - shares) * value[others]
    bottom, top = mover_ratio_limits(
        value[group], (low[group], high[group]), value[others], (low[others], high[others])
    )
    # group / everybody rises with group / others; both ends are 0 and 1 / share.
    bottom = bottom / (shares * bottom + 1 - shares)
    with np.errstate(invalid="ignore"):
        top = np.where(np.isinf(top), 1 / shares, top / (shares * top + 1 - shares))
    ratio = np.divide(value[group], everybody, out=np.ones(group.shape), where=everybody > 0)
    return _Compared([*indices], *_folded(ratio, bottom, top))


def _folded(
    ratio: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Turn ratios above 1 round, as a ratio says how unlike two figures are, not which is more."""

    def turned(one: FloatArray) -> FloatArray:
        whole: FloatArray = np.divide(1.0, one, out=np.full(one.shape, np.inf), where=one > 0)
        return whole

    folded = np.minimum(ratio, turned(ratio))
    bottom = np.minimum(low, turned(high))
    top = np.where((low <= 1) & (high >= 1), 1.0, np.where(high < 1, high, turned(low)))
    return folded, bottom, top


def _pair_limits(limit: float, share: float, aggregate: Aggregate) -> tuple[float, float]:
    """Return the limits on a group against the others that a limit to everybody stands for.

    One where the group has the lower figure and one where it has the higher; for a difference
    they are the same.
    """
    if aggregate == "difference":
        one = limit / (1 - share) if share < 1 else math.inf
        return one, one
    return limit * (1 - share) / (1 - limit * share), max(0.0, (limit - share) / (1 - share))


def _estimates(
    names: Sequence[str], value: FloatArray, n: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[GroupEstimate, ...]:
    return tuple(
        GroupEstimate(name, float(value[i]), int(n[i]), float(low[i]), float(high[i]))
        for i, name in enumerate(names)
    )


def _once(found: Callable[[], FloatArray]) -> Callable[[], FloatArray]:
    """Return a callable that computes only when asked, and only once."""
    kept: list[FloatArray] = []

    def ask() -> FloatArray:
        if not kept:
            kept.append(found())
        return kept[0]

    return ask
