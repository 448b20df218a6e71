"""Evidence held against a limit: the one place where numbers become a verdict.

A limit is judged on an estimate, its interval and its support, in this order:

1. undefined (0/0), or too few rows in a denominator         INCONCLUSIVE
2. the whole interval breaches the limit                     FAILED
3. the whole interval keeps the limit                        PASSED, proven
4. with support: the estimate keeps it                       PASSED, "not proven"
                 the estimate breaches it                    WARNED, "not proven"
5. without support                                           INCONCLUSIVE

So a tiny sample can neither pass nor fail by luck, and enough data that shows no breach
passes.  ``decide="proof"`` lets only step 3 pass and only step 2 fail; ``decide="estimate"``
compares the estimate itself, after step 1.

A comparison of two models has its own rule: superiority and non-inferiority are proven or
refuted by the interval, whatever ``decide`` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mlguard.errors import UsageError
from mlguard.results import Verdict
from mlguard.stats.interval import Interval, critical_value
from mlguard.stats.proportions import wilson_interval
from mlguard.stats.support import (
    POWER,
    POWER_Z,
    least_rows,
    rate_power,
    rate_rows_needed,
    rate_support,
    smallest_limit,
    two_digits,
)

Decide: TypeAlias = Literal["evidence", "proof", "estimate"]
Bound: TypeAlias = Literal["at_most", "at_least"]
Rule: TypeAlias = Literal["limit", "superiority", "non_inferiority"]
#: Why a judgement is what it is; empty where it is PASSED and proven.
Reason: TypeAlias = Literal[
    "",
    "identical",
    "not_proven",
    "above_not_proven",
    "limit_exceeded",
    "undefined",
    "few",
    "no_support",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Whether data could have shown a breach, and if not, what could.

    Attributes
    ----------
    enough : bool
        Whether a breach of twice the limit would have shown.
    sizes : tuple of int
        Rows in the denominators of the weakest comparison.
    n_needed : int or None
        Rows that each of them would need; None where no number is enough.
    smallest_limit : float or None
        Tightest limit that the rows there are could judge.
    n_to_tell : int or None
        Rows in each denominator that would prove a breach as large as the one estimated.
    """

    enough: bool
    sizes: tuple[int, ...] = ()
    n_needed: int | None = None
    smallest_limit: float | None = None
    n_to_tell: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was found when evidence was held against a limit.

    Attributes
    ----------
    verdict : Verdict
        The fact.
    reason : str
        Code of why; empty where the limit is proven to be kept.
    value : float or None
        The estimate; None where it is undefined.
    interval : Interval or None
        Its bounds, at ``confidence_level``.
    limit : float
        What it was held against.
    bound : {"at_most", "at_least"}
        On which side of the limit it must lie.
    n : int
        Rows behind the estimate.
    confidence_level : float
        Of the interval.
    sizes : tuple of int
        Rows in the denominators that limit what can be said.
    n_needed : int or None
        Rows that each of those denominators would need to have support.
    smallest_limit : float or None
        Tightest limit that the rows there are could judge.
    n_to_tell : int or None
        Rows that would settle what is not proven, if the estimate is right.
    rule : {"limit", "superiority", "non_inferiority"}
        The rule that was applied.
    """

    verdict: Verdict
    reason: Reason
    value: float | None
    interval: Interval | None
    limit: float
    bound: Bound = "at_most"
    n: int
    confidence_level: float = 0.95
    sizes: tuple[int, ...] = ()
    n_needed: int | None = None
    smallest_limit: float | None = None
    n_to_tell: int | None = None
    rule: Rule = "limit"

    @property
    def proven(self) -> bool:
        """Whether the interval alone decided."""
        return self.verdict is Verdict.FAILED or self.reason in ("", "identical")

    @property
    def next_step(self) -> str:
        """What would make an undecided judgement decidable; empty where there is nothing to do."""
        if self.reason == "no_support" and self.n_needed is not None:
            return f"test on about {self.n_needed} rows{_each(self.sizes)}"
        if self.reason in ("few", "undefined") and self.n_needed is not None:
            return f"test on at least {self.n_needed} rows{_each(self.sizes)}"
        if self.reason in ("above_not_proven", "not_proven") and self.n_to_tell is not None:
            return f"about {self.n_to_tell} rows{_each(self.sizes)} would tell"
        return ""

    def explain(self) -> str:  # noqa: PLR0911 - one sentence a reason
        """Return the judgement as one sentence with its numbers, for people.

        Examples
        --------
        >>> judge_rate(3, 1000, limit=0.02).explain()
        '0.003 (95 % interval 0.001 to 0.0088) keeps at most 0.02'
        """
        if self.rule != "limit":
            return self._explain_comparison()
        limit = f"{'at most' if self.bound == 'at_most' else 'at least'} {figure(self.limit)}"
        if self.reason == "undefined":
            return "undefined: nothing to divide by"
        if self.reason == "few":
            needed = f", at least {self.n_needed} needed" if self.n_needed else ""
            return f"{_rows(self.sizes)} rows are too few{needed}"
        estimate = self._estimate()
        if self.reason == "no_support":
            return f"{estimate} is undecided: {self._what_support_needs()}"
        if self.reason == "limit_exceeded":
            return f"{estimate} breaches {limit}"
        if self.reason == "above_not_proven":
            more = f"; about {self.n_to_tell} rows{_each(self.sizes)} would tell"
            return f"{estimate} breaches {limit}, not proven" + (more if self.n_to_tell else "")
        if self.reason == "not_proven":
            assert self.interval is not None
            at_most = self.bound == "at_most"
            worst = self.interval.high if at_most else self.interval.low
            side = "up" if at_most else "down"
            return f"{estimate} keeps {limit}, not proven: it could be {side} to {figure(worst)}"
        return f"{estimate} keeps {limit}"

    def _estimate(self) -> str:
        assert self.value is not None and self.interval is not None  # noqa: PT018 - one fact
        level = f"{100 * self.confidence_level:.4g} %"
        low, high = (figure(bound) for bound in self.interval)
        return f"{figure(self.value)} ({level} interval {low} to {high})"

    def _what_support_needs(self) -> str:
        tightest = (
            "no limit can be judged"
            if self.smallest_limit is None
            else f"the {'smallest' if self.bound == 'at_most' else 'tightest'} limit this data can "
            f"judge is {figure(self.smallest_limit)}"
        )
        needed = (
            f"for limit {figure(self.limit)} no number of rows is enough"
            if self.n_needed is None
            else f"limit {figure(self.limit)} needs about {self.n_needed}{_each(self.sizes)}"
        )
        return f"with {_rows(self.sizes)} rows {tightest}; {needed}"

    def _explain_comparison(self) -> str:
        goal = (
            f"a gain above {figure(self.limit)}"
            if self.rule == "superiority"
            else f"a loss of less than {figure(-self.limit)}"
        )
        if self.reason == "identical":
            return f"identical answers on all {self.n} rows"
        if self.value is None:
            return "undefined: no rows to compare on"
        if self.verdict is Verdict.PASSED:
            return f"difference {self._estimate()} proves {goal}"
        if self.verdict is Verdict.FAILED:
            return f"difference {self._estimate()} rules out {goal}"
        more = f"; about {self.n_to_tell} rows would tell" if self.n_to_tell else ""
        return f"difference {self._estimate()} neither proves nor rules out {goal}{more}"


def figure(value: float) -> str:
    """Return a number as people read it: two or three decimals, small ones by two digits.

    Examples
    --------
    >>> figure(0.1), figure(0.18234), figure(0.00412), figure(1.0), figure(-0.02), figure(1234.5)
    ('0.10', '0.182', '0.0041', '1.00', '-0.02', '1234.50')
    """
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    if 0 < size < 0.01:
        return f"{value:.2g}"
    text = f"{value:.3f}"
    return text if size < 1 and not text.endswith("0") else f"{value:.2f}"


def _rows(sizes: tuple[int, ...]) -> str:
    return " and ".join(str(size) for size in sizes) or "0"


def _each(sizes: tuple[int, ...]) -> str:
    return " each" if len(sizes) > 1 else ""


def judge_limit(  # noqa: PLR0911 - an ordered rule, one return a step
    value: float | None,
    interval: Interval | None,
    *,
    limit: float,
    bound: Bound = "at_most",
    n: int,
    sizes: tuple[int, ...] | None = None,
    min_rows: int = 30,
    decide: Decide = "evidence",
    confidence_level: float = 0.95,
    support: Callable[[], Support],
) -> Judgement:
    """Judge an estimate against a limit by the rule of this module.

    Parameters
    ----------
    value : float or None
        The estimate; None or NaN where it is undefined.
    interval : Interval or None
        Its bounds at ``confidence_level``.
    limit : float
        What it is held against.
    bound : {"at_most", "at_least"}, default "at_most"
        On which side of the limit it must lie.
    n : int
        Rows behind the estimate.
    sizes : tuple of int, optional
        Rows in each denominator of the metric; default ``(n,)``.
    min_rows : int, default 30
        Rows that every denominator needs before it says anything.
    decide : {"evidence", "proof", "estimate"}, default "evidence"
        How the interval is held against the limit.
    confidence_level : float, default 0.95
        Of the interval.
    support : callable
        Gives the support; asked only where interval and limit overlap.

    Returns
    -------
    Judgement

    Examples
    --------
    >>> judge_limit(
    ...     0.2, Interval(0.15, 0.25), limit=0.1, n=500, support=lambda: Support(enough=True)
    ... ).verdict
    <Verdict.FAILED: 'failed'>
    """
    sizes = (n,) if sizes is None else sizes

    def judged(verdict: Verdict, reason: Reason, found: Support | None = None) -> Judgement:
        return Judgement(
            verdict=verdict,
            reason=reason,
            value=None if reason == "undefined" else value,
            interval=None if reason == "undefined" else interval,
            limit=limit,
            bound=bound,
            n=n,
            confidence_level=confidence_level,
            sizes=sizes if found is None or not found.sizes else found.sizes,
            n_needed=min_rows
            if found is None and reason in ("few", "undefined")
            else (found.n_needed if found is not None else None),
            smallest_limit=found.smallest_limit if found is not None else None,
            n_to_tell=found.n_to_tell if found is not None else None,
        )

    if value is None or interval is None or any(math.isnan(one) for one in (value, *interval)):
        return judged(Verdict.INCONCLUSIVE, "undefined")
    if min(sizes) < min_rows:
        return judged(Verdict.INCONCLUSIVE, "few")
    at_most = bound == "at_most"
    keeps = value <= limit if at_most else value >= limit
    if decide == "estimate":
        return judged(Verdict.PASSED, "") if keeps else judged(Verdict.FAILED, "limit_exceeded")
    if interval.low > limit if at_most else interval.high < limit:
        return judged(Verdict.FAILED, "limit_exceeded")
    if interval.high <= limit if at_most else interval.low >= limit:
        return judged(Verdict.PASSED, "")
    if decide == "proof":
        return judged(Verdict.INCONCLUSIVE, "not_proven" if keeps else "above_not_proven")
    found = support()
    if not found.enough:
        return judged(Verdict.INCONCLUSIVE, "no_support", found)
    if keeps:
        return judged(Verdict.PASSED, "not_proven", found)
    return judged(Verdict.WARNED, "above_not_proven", found)


def judge_rate(
    successes: int,
    n: int,
    *,
    limit: float,
    min_rows: int = 30,
    decide: Decide = "evidence",
    confidence_level: float = 0.95,
) -> Judgement:
    """Judge that a rate is at most a limit, on its Wilson interval.

    Parameters
    ----------
    successes, n : int
        Counts; ``n = 0`` is undefined.
    limit : float
        Largest rate that is allowed, in [0, 1].
    min_rows : int, default 30
        Rows needed before anything is said.
    decide : {"evidence", "proof", "estimate"}, default "evidence"
        How the interval is held against the limit.
    confidence_level : float, default 0.95
        Of the interval.

    Returns
    -------
    Judgement

    Raises
    ------
    UsageError
        If the counts do not fit.

    Examples
    --------
    >>> judge_rate(0, 40, limit=0.01).explain().partition(": ")[2]
    'with 40 rows the smallest limit this data can judge is 0.18; limit 0.01 needs about 960'
    """
    if n == 0:
        return judge_limit(
            None,
            None,
            limit=limit,
            n=0,
            min_rows=min_rows,
            support=lambda: Support(enough=False),
        )
    z = critical_value(confidence_level)

    def support() -> Support:
        if rate_support(n, limit=limit, z=z) >= POWER:
            tell = (
                least_rows(lambda rows: rate_power(rows, successes / n, limit=limit, z=z))
                if successes / n > limit
                else None
            )
            return Support(enough=True, sizes=(n,), n_to_tell=tell)
        return Support(
            enough=False,
            sizes=(n,),
            n_needed=rate_rows_needed(limit=limit, z=z),
            smallest_limit=smallest_limit(lambda one: rate_support(n, limit=one, z=z) >= POWER),
        )

    return judge_limit(
        successes / n,
        wilson_interval(successes, n, confidence_level=confidence_level),
        limit=limit,
        n=n,
        min_rows=min_rows,
        decide=decide,
        confidence_level=confidence_level,
        support=support,
    )


def judge_superiority(
    value: float | None,
    interval: Interval | None,
    *,
    delta: float = 0.0,
    n: int,
    identical: bool = False,
    confidence_level: float = 0.95,
) -> Judgement:
    """Judge that one model is better than another by more than ``delta``.

    Parameters
    ----------
    value : float or None
        Difference, larger is better; None or NaN where there is none.
    interval : Interval or None
        Its bounds.
    delta : float, default 0
        Gain that must be exceeded, at least 0.
    n : int
        Rows compared.
    identical : bool, default False
        Whether the two answer every row alike: then nothing is gained, whatever ``n``.
    confidence_level : float, default 0.95
        Of the interval.

    Returns
    -------
    Judgement
        PASSED where the lower bound exceeds ``delta``, FAILED where the upper one does not,
        else INCONCLUSIVE.

    Raises
    ------
    UsageError
        If ``delta`` is negative: that is non-inferiority.

    Examples
    --------
    >>> judge_superiority(0.06, Interval(0.04, 0.08), n=900).explain()
    'difference 0.06 (95 % interval 0.04 to 0.08) proves a gain above 0.00'
    """
    if delta < 0:
        raise UsageError(f"delta is {delta}, expected at least 0", hint="use a margin instead")
    return _judge_comparison(
        value,
        interval,
        delta,
        "superiority",
        n=n,
        confidence_level=confidence_level,
        identical=identical,
    )


def judge_non_inferiority(
    value: float | None,
    interval: Interval | None,
    *,
    margin: float = 0.02,
    n: int,
    identical: bool = False,
    confidence_level: float = 0.95,
) -> Judgement:
    """Judge that one model is not worse than another by ``margin`` or more.

    Parameters
    ----------
    value : float or None
        Difference, larger is better; None or NaN where there is none.
    interval : Interval or None
        Its bounds.
    margin : float, default 0.02
        Loss that is just too much, at least 0.
    n : int
        Rows compared.
    identical : bool, default False
        Whether the two answer every row alike: then nothing is lost, whatever ``n``.
    confidence_level : float, default 0.95
        Of the interval.

    Returns
    -------
    Judgement
        PASSED where the lower bound lies above ``-margin``, FAILED where the upper one lies
        below it, else INCONCLUSIVE.

    Raises
    ------
    UsageError
        If ``margin`` is negative: that is superiority.

    Examples
    --------
    >>> judge_non_inferiority(-0.01, Interval(-0.05, 0.03), n=300).explain()
    'difference -0.01 (95 % interval -0.05 to 0.03) neither proves nor rules out a loss of \
less than 0.02; about 9900 rows would tell'
    """
    if margin < 0:
        raise UsageError(f"margin is {margin}, expected at least 0", hint="use a delta instead")
    return _judge_comparison(
        value,
        interval,
        -margin,
        "non_inferiority",
        n=n,
        confidence_level=confidence_level,
        identical=identical,
    )


def _judge_comparison(
    value: float | None,
    interval: Interval | None,
    limit: float,
    rule: Rule,
    *,
    n: int,
    confidence_level: float,
    identical: bool,
) -> Judgement:
    def judged(
        verdict: Verdict, reason: Reason, *, shown: bool = True, n_to_tell: int | None = None
    ) -> Judgement:
        return Judgement(
            verdict=verdict,
            reason=reason,
            value=value if shown else None,
            interval=interval if shown else None,
            limit=limit,
            bound="at_least",
            n=n,
            confidence_level=confidence_level,
            sizes=(n,),
            n_to_tell=n_to_tell,
            rule=rule,
        )

    superior = rule == "superiority"
    if identical and n > 0:
        value, interval = 0.0, Interval(0.0, 0.0)
        return judged(Verdict.FAILED if superior else Verdict.PASSED, "identical")
    if value is None or interval is None or any(math.isnan(one) for one in (value, *interval)):
        return judged(Verdict.INCONCLUSIVE, "undefined", shown=False)
    if interval.low > limit:
        return judged(Verdict.PASSED, "")
    if interval.high <= limit if superior else interval.high < limit:
        return judged(Verdict.FAILED, "limit_exceeded")
    tell = _rows_for_comparison(value, interval, limit, n, confidence_level)
    return judged(Verdict.INCONCLUSIVE, "not_proven", n_to_tell=tell)


def _rows_for_comparison(
    value: float, interval: Interval, limit: float, n: int, confidence_level: float
) -> int | None:
    """Return the rows at which an interval that shrinks with their root would clear the limit."""
    distance = abs(value - limit)
    half = value - interval.low if value > limit else interval.high - value
    if distance == 0:
        return None
    more = (half * (1 + POWER_Z / critical_value(confidence_level)) / distance) ** 2
    return two_digits(math.ceil(n * max(more, 1.0)))
