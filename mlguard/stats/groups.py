"""The worst gap between groups, estimated and judged.

Every pair of groups is compared (or every group with a reference group, with everybody, or with
the limit alone), each by an interval at a level at which all hold together (Sidak).  The breach
of any one comparison is a breach; the limit is proven to be kept only where every comparison
proves it.  Resampling the largest gap is no alternative: the maximum of noise is positive, so
identical groups would fail.

Rules for small groups: a group whose denominator has fewer than ``min_group_size`` rows is not
compared.  Unless it is named in ``optional``, the judgement can then be FAILED by the other
groups, but not better than INCONCLUSIVE.  With ``lenient`` an optional group that is large
enough to be compared and too small to have support is left out the same way, after it had its
chance to show a breach.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.results import Verdict
from mlguard.stats.comparison import (
    Comparison,
    GroupEstimate,
    Overall,
    Summary,
    compare_means,
    compare_rates,
)
from mlguard.stats.decision import Decide, Judgement, Support, figure, judge_limit
from mlguard.stats.interval import FloatArray, Interval
from mlguard.stats.rates import (
    RATE_METRICS,
    Confusion,
    Rate,
    RateMetric,
    group_losses,
    group_rates,
)
from mlguard.stats.support import POWER, Aggregate
from mlguard.wording import SMALL_GROUP, group_size

__all__ = [
    "RATE_METRICS",
    "Aggregate",
    "Confusion",
    "GapEstimate",
    "GapJudgement",
    "GroupEstimate",
    "Overall",
    "Rate",
    "RateMetric",
    "Summary",
    "group_losses",
    "group_rates",
    "judge_comparison",
    "judge_gap",
    "judge_mean_gap",
    "worst_gap",
]


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
        The groups of ``value``, the one with the higher rate first.
    breach : Interval or None
        Interval of the pair that breaches most clearly.
    breach_pair, breach_value
        That pair, and its estimate.
    confidence_level : float
        Of each pair's interval.
    aggregate : {"difference", "ratio", "group_min", "group_max"}
        How groups were compared.
    groups : tuple of GroupEstimate
        All groups that were compared.
    """

    value: float | None
    interval: Interval | None
    pair: tuple[str, ...] | None
    breach: Interval | None
    breach_pair: tuple[str, ...] | None
    breach_value: float | None
    confidence_level: float
    aggregate: Summary
    groups: tuple[GroupEstimate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GapJudgement(Judgement):
    """A judged gap between groups.

    Attributes
    ----------
    aggregate : {"difference", "ratio", "group_min", "group_max"}
        How groups were compared.
    pair : tuple of str or None
        The groups that decided, the one with the higher rate first; one alone where it was held
        against everybody, or against the limit.
    weakest : tuple of str or None
        The groups with the least support, where support was asked for.
    groups : tuple of GroupEstimate
        Every group, compared or not.
    too_small : tuple of str
        Groups that would have to be compared and have too few rows.
    left_out : tuple of str
        Optional groups that have too few rows to be compared or, where the judgement is
        lenient, to have support.
    """

    aggregate: Summary = "difference"
    pair: tuple[str, ...] | None = None
    weakest: tuple[str, ...] | None = None
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
            named = ", ".join(f"{name} ({group_size(small[name])})" for name in self.too_small)
            return f"too few rows in {named}: at least {self.n_needed} needed"
        if self.value is None:
            return "undefined: there are no two groups to compare"
        # Explicit arguments: zero-argument super() does not work in a slotted dataclass.
        sentence = super(GapJudgement, self).explain()
        values = {one.name: one.value for one in self.groups if one.n >= SMALL_GROUP}
        named = ", ".join(
            f"{name} {figure(value)}"
            for name in self.pair or ()
            if (value := values.get(name)) is not None
        )
        return f"{named}: {self.aggregate} {sentence}"


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
    compared = compare_rates(
        known,
        limit=0.0,
        aggregate=aggregate,
        confidence_level=confidence_level,
        family_error=family_error,
        reference=reference,
    )
    return _worst(compared)


def _worst(compared: Comparison) -> GapEstimate:
    if not compared.who:
        return GapEstimate(
            value=None,
            interval=None,
            pair=None,
            breach=None,
            breach_pair=None,
            breach_value=None,
            confidence_level=compared.level,
            aggregate=compared.aggregate,
            groups=compared.groups,
        )
    sign = compared.sign
    # Worse is larger for a difference and smaller for a ratio; the sign makes them one.
    near, far = (compared.low, compared.high) if sign > 0 else (compared.high, compared.low)
    worst = int(np.argmax(sign * compared.value))
    # Of comparisons that breach equally clearly, the one with the worse estimate.
    breach = int(np.lexsort((sign * compared.value, sign * near))[-1])
    bounds = (float(sign * np.max(sign * near)), float(sign * np.max(sign * far)))
    return GapEstimate(
        value=float(compared.value[worst]),
        interval=Interval(min(bounds), max(bounds)),
        pair=compared.who[worst],
        breach=Interval(float(compared.low[breach]), float(compared.high[breach])),
        breach_pair=compared.who[breach],
        breach_value=float(compared.value[breach]),
        confidence_level=compared.level,
        aggregate=compared.aggregate,
        groups=compared.groups,
    )


def judge_gap(
    rates: Mapping[str, Rate],
    *,
    limit: float,
    aggregate: Summary = "difference",
    min_group_size: int = 30,
    confidence_level: float = 0.95,
    family_error: float = 0.05,
    decide: Decide = "evidence",
    optional: Collection[str] = (),
    reference: str | None = None,
    overall: Overall | None = None,
    lenient: bool = False,
) -> GapJudgement:
    """Judge the worst gap of a rate between groups against a limit.

    Parameters
    ----------
    rates : mapping of str to Rate
        The metric per group, from :meth:`Confusion.rates` or :func:`group_rates`.
    limit : float
        Largest difference or rate, or smallest ratio or rate, in [0, 1].
    aggregate : {"difference", "ratio", "group_min", "group_max"}, default "difference"
        How groups are compared: two by two, or each alone with the limit.
    min_group_size : int, default 30
        Rows that a group's denominator needs to be compared.
    confidence_level : float, default 0.95
        Least level of each interval.
    family_error : float, default 0.05
        Error over all comparisons together.
    decide : {"evidence", "proof", "estimate"}, default "evidence"
        How the interval is held against the limit.
    optional : collection of str, default ()
        Groups, named as in ``rates``, that may be too small.
    reference : str, optional
        Compare each group with this one only.
    overall : Overall, optional
        Compare each group with everybody instead of the groups with each other.
    lenient : bool, default False
        Leave out optional groups that have no support, once they have shown no breach.

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
    >>> judge_gap(rates, limit=0.5, aggregate="group_max").verdict.word
    'passed'
    """
    large = {name: rate for name, rate in rates.items() if rate.n >= max(1, min_group_size)}
    compared = compare_rates(
        large,
        limit=limit,
        aggregate=aggregate,
        confidence_level=confidence_level,
        family_error=family_error,
        # A reference that is too small leaves nothing to compare with, which is no mistake.
        reference=None if reference in rates and reference not in large else reference,
        overall=overall,
    )
    return judge_comparison(
        compared,
        [GroupEstimate(name, rate.value, rate.n) for name, rate in rates.items()],
        limit=limit,
        min_group_size=min_group_size,
        decide=decide,
        optional=optional,
        reference=reference,
        lenient=lenient,
    )


def judge_mean_gap(
    losses: Mapping[str, npt.ArrayLike],
    *,
    limit: float,
    scale: float | None = None,
    signed: bool = False,
    aggregate: Summary = "difference",
    min_group_size: int = 30,
    confidence_level: float = 0.95,
    family_error: float = 0.05,
    decide: Decide = "evidence",
    optional: Collection[str] = (),
    reference: str | None = None,
    everybody: Mapping[str, float] | None = None,
    lenient: bool = False,
) -> GapJudgement:
    """Judge the worst gap of a mean between groups, e.g. of ``mean_absolute_error``.

    Parameters
    ----------
    losses : mapping of str to array_like of shape (n,)
        Values of each group, e.g. absolute errors from :func:`group_losses`; no NaN.
    limit : float
        Largest difference in the unit of the values, or smallest ratio.
    scale : float, optional
        Size that no value exceeds; larger ones are clipped to it.  Default: the largest
        there is, which makes the interval of a small or lopsided sample approximate.
    signed : bool, default False
        Whether values may lie below 0, e.g. residuals; such means have no ratio.
    aggregate, min_group_size, confidence_level, family_error, decide, optional, reference
        As in :func:`judge_gap`.
    everybody : mapping of str to float, optional
        Each group's share of all rows: compare each with all together.
    lenient
        As in :func:`judge_gap`.

    Returns
    -------
    GapJudgement

    Raises
    ------
    UsageError
        If a value is NaN, or negative and not ``signed``; if the reference is not among the
        groups; if a ratio of signed values is asked for.

    Examples
    --------
    >>> losses = {"f": [0.1, 0.3] * 300, "m": [0.2, 0.2, 0.3] * 200}
    >>> judge_mean_gap(losses, limit=0.1, scale=1.0).verdict
    <Verdict.PASSED: 'passed'>
    """
    if signed and aggregate == "ratio":
        raise UsageError(
            "values that may lie on both sides of 0 have no ratio",
            hint="compare them by their difference",
        )
    samples = {name: np.asarray(one, float).ravel() for name, one in losses.items()}
    sizes = [float(np.abs(one).max()) for one in samples.values() if one.size]
    top = scale if scale is not None else max(sizes, default=0.0) or 1.0
    bottom = -top if signed else 0.0

    def clipped(one: FloatArray) -> FloatArray:
        # A negative loss is a mistake that `mean_interval` names; it is not clipped away.
        return np.clip(one, -top, top) if signed else np.minimum(one, top)

    samples = {name: clipped(one) for name, one in samples.items()}
    large = {name for name, one in samples.items() if one.size >= max(1, min_group_size)}
    compared = compare_means(
        samples,
        large,
        bounds=(bottom, top),
        limit=limit,
        aggregate=aggregate,
        confidence_level=confidence_level,
        family_error=family_error,
        reference=None if reference in samples and reference not in large else reference,
        everybody=everybody,
    )
    return judge_comparison(
        compared,
        [
            GroupEstimate(name, float(one.mean()) if one.size else None, one.size)
            for name, one in samples.items()
        ],
        limit=limit,
        min_group_size=min_group_size,
        decide=decide,
        optional=optional,
        reference=reference,
        lenient=lenient,
    )


def judge_comparison(
    compared: Comparison,
    groups: list[GroupEstimate],
    *,
    limit: float,
    min_group_size: int = 30,
    decide: Decide = "evidence",
    optional: Collection[str] = (),
    reference: str | None = None,
    lenient: bool = False,
) -> GapJudgement:
    """Judge comparisons of groups against a limit: the rule that all figures share.

    Parameters
    ----------
    compared : Comparison
        The comparisons of the groups that are large enough.
    groups : list of GroupEstimate
        All groups, with their sizes.
    limit, min_group_size, decide, optional, reference, lenient
        As in :func:`judge_gap`.

    Returns
    -------
    GapJudgement
    """
    rule: dict[str, Any] = {
        "limit": limit,
        "min_group_size": min_group_size,
        "decide": decide,
        "optional": optional,
        "reference": reference,
    }
    judged = _judged(compared, groups, dropped=(), **rule)
    if not lenient or judged.reason != "no_support":
        return judged
    dropped = _unsupported(compared, optional)
    if not dropped:
        return judged
    rest = compared.without(dropped)
    # Where nothing is left to compare, what all of them would need is the answer.
    return _judged(rest if rest.who else compared, groups, dropped=dropped, **rule)


def _unsupported(compared: Comparison, optional: Collection[str]) -> set[str]:
    """Return the optional groups whose few rows leave a comparison without support.

    Of two groups the one with fewer rows is why.  The one that is why most often goes first, of
    several the smallest.  They are chosen by their sizes and the pooled rate, never by what they
    would show.
    """
    sizes = {one.name: one.n for one in compared.groups}
    powers = compared.power()
    lacking = [who for who, power in zip(compared.who, powers, strict=True) if power < POWER]
    dropped: set[str] = set()
    while True:
        fewest = [min(sizes[name] for name in who) for who in lacking]
        why = [
            name
            for who, few in zip(lacking, fewest, strict=True)
            for name in who
            if name in optional and sizes[name] == few
        ]
        if not why:
            return dropped
        worst = max(sorted(set(why)), key=lambda name: (why.count(name), -sizes[name]))
        dropped.add(worst)
        lacking = [who for who in lacking if worst not in who]


def _judged(
    compared: Comparison,
    groups: list[GroupEstimate],
    *,
    dropped: Collection[str],
    limit: float,
    min_group_size: int,
    decide: Decide,
    optional: Collection[str],
    reference: str | None,
) -> GapJudgement:
    large = {one.name for one in compared.groups} | set(dropped)
    small = [one.name for one in groups if one.name not in large]
    too_small = tuple(name for name in small if name not in optional)
    gap = _worst(compared)
    undecidable = reference is not None and reference in small
    asked: list[tuple[str, ...]] = []

    def ask() -> Support:
        found, weakest = compared.support(limit)
        asked.append(weakest)
        return found

    # The comparison that breaches most clearly decides a failure, the worst estimate all else.
    failed = (
        decide != "estimate"
        and gap.breach is not None
        and (gap.breach.low > limit if compared.bound == "at_most" else gap.breach.high < limit)
    )
    pair = gap.breach_pair if failed else gap.pair
    rows = compared.rows[compared.who.index(pair)] if pair is not None else ()
    judged = judge_limit(
        None if undecidable else (gap.breach_value if failed else gap.value),
        None if undecidable else (gap.breach if failed else gap.interval),
        limit=limit,
        bound=compared.bound,
        n=sum(rows),
        sizes=rows or (0,),
        min_rows=1 if len(pair or ()) == 1 else min_group_size,
        decide=decide,
        confidence_level=compared.level,
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
        aggregate=compared.aggregate,
        pair=pair,
        weakest=asked[0] if asked else None,
        groups=tuple(estimates.get(one.name, one) for one in groups),
        too_small=too_small,
        left_out=tuple(
            one.name
            for one in groups
            if (one.name in small and one.name in optional) or one.name in dropped
        ),
    )
