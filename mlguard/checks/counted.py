"""Shares of rows held against a limit, column by column: how most checks of a table judge.

A share is judged by the rule of :mod:`mlguard.stats.decision`, with one difference: where a
file holds no such row at all, that is a fact about the file and is PASSED, however few rows
support it (but never fewer than :data:`FEWEST`).  Where some are found, limit and interval
decide whether that can be chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mlguard.config import CheckPolicy
from mlguard.results import Finding, Measurement, Verdict
from mlguard.stats.decision import Judgement, judge_rate
from mlguard.stats.multiplicity import bonferroni
from mlguard.wording import count, listed, printable, share

#: Rows that say something at all.
FEWEST = 30
#: Columns that a summary names; all of them stand in the details.
NAMED = 4


@dataclass(frozen=True, slots=True)
class ColumnShare:
    """How many of a column's values are not as expected.

    Attributes
    ----------
    column : str
        Its name.
    found, n : int
        Values that are not as expected, of how many.
    told : str
        What is known about it, for people.
    """

    column: str
    found: int
    n: int
    told: str = ""


def judge_share(
    found: int, n: int, *, limit: float, policy: CheckPolicy, tests: int = 1
) -> Judgement:
    """Judge a share of rows that must stay below a limit.

    Parameters
    ----------
    found, n : int
        Rows of that kind, and rows.
    limit : float
        Largest share.
    policy : CheckPolicy
        How the interval is held against it.
    tests : int
        Shares that are judged by one check; its family error is divided among them.
    """
    level = policy.confidence_level
    if tests > 1:
        level = max(level, 1 - bonferroni(policy.family_error, tests))
    judged = judge_rate(
        found,
        n,
        limit=limit,
        min_rows=FEWEST,
        decide=policy.decide,
        confidence_level=level,
    )
    if not found and judged.reason == "no_support" and policy.decide == "evidence":
        return replace(judged, verdict=Verdict.PASSED, reason="not_proven")
    return judged


def judge_columns(
    check: str,
    shares: Sequence[ColumnShare],
    *,
    policy: CheckPolicy,
    limit: float,
    n: int,
    none: str,
    some: Callable[[str], str],
    next_step: str,
) -> Finding:
    """Judge the share of unexpected values of each column; the worst column speaks for all.

    Parameters
    ----------
    check : str
        Id of the check.
    shares : sequence of ColumnShare
        Per column.
    policy : CheckPolicy
        How intervals are held against the limit.
    limit : float
        Largest share.
    n : int
        Rows of the table.
    none : str
        Summary where nothing was found.
    some : callable
        Makes the summary from the list of columns, each with its share.
    next_step : str
        What to do about it.
    """
    if not shares:
        return no_such_column(check, n)
    if n < FEWEST:
        return too_few(check, n, limit)
    known = [one for one in shares if one.n]
    judged = [
        (one, judge_share(one.found, one.n, limit=limit, policy=policy, tests=len(known)))
        for one in known
    ]
    empty = [one.column for one in shares if not one.n]
    # A column with few values says nothing; what others say stands.
    told = [pair for pair in judged if pair[1].reason not in ("few", "undefined")]
    if not told:
        return too_few(check, max((one.n for one in known), default=0), limit)
    told.sort(key=lambda pair: (-pair[1].verdict.severity, -pair[0].found / pair[0].n))
    worst, judgement = told[0]
    if empty and judgement.verdict is Verdict.PASSED:
        return _no_values(check, empty, n, limit)
    named = [one for one, each in told if each.verdict is not Verdict.PASSED]
    listing = named or [one for one, _ in told if one.found]
    words = listed([_words(one) for one in listing], NAMED)
    verdict = judgement.verdict
    summary = some(words) if listing else none
    if listing:
        summary += f"; limit {share(limit)}"
        if not named:
            summary += " a column kept"
        elif judgement.reason in ("above_not_proven", "no_support", "not_proven"):
            summary += f"; {judgement.explain()}"
    return Finding(
        id=check,
        verdict=verdict,
        summary=summary,
        value=judgement.value,
        limit=limit,
        interval=judgement.interval,
        n=worst.n,
        n_min=judgement.n_needed,
        reason=judgement.reason,
        next_step="" if verdict is Verdict.PASSED else _advice(judgement, next_step),
        measurements=tuple(
            Measurement(
                name="unexpected",
                group=printable(one.column, 60),
                value=one.found / one.n,
                n=one.n,
            )
            for one in listing
        ),
        details={"columns": [printable(one.column) for one in named]},
    )


def _words(one: ColumnShare) -> str:
    told = f"; {one.told}" if one.told else ""
    return f"{printable(one.column, 60)!r} ({share(one.found / one.n)} of {count(one.n)}{told})"


def _advice(judgement: Judgement, next_step: str) -> str:
    if judgement.verdict is Verdict.INCONCLUSIVE and judgement.next_step:
        return judgement.next_step
    return next_step


def _no_values(check: str, columns: Sequence[str], n: int, limit: float) -> Finding:
    names = listed([repr(printable(one, 60)) for one in columns], NAMED)
    return Finding(
        id=check,
        verdict=Verdict.INCONCLUSIVE,
        summary=f"{names} {'has' if len(columns) == 1 else 'have'} no value in any of "
        f"{count(n)} rows, so nothing can be said of it",
        limit=limit,
        n=0,
        n_min=FEWEST,
        reason="undefined",
        next_step="find out why the column is empty, and judge it on rows that have it",
        details={"columns": [printable(one) for one in columns]},
    )


def no_such_column(check: str, n: int) -> Finding:
    """Return the finding of a check that no column is of a kind for."""
    return Finding(
        id=check,
        verdict=Verdict.SKIPPED,
        summary="the data has no column of a kind that this could be asked of",
        n=n,
        reason="no_column",
    )


def too_few(check: str, n: int, limit: float | None = None, *, needed: int = FEWEST) -> Finding:
    """Return the finding of a check that has too few rows to say anything."""
    return Finding(
        id=check,
        verdict=Verdict.INCONCLUSIVE,
        summary=f"{count(n)} rows are too few to judge anything, at least {needed} needed",
        limit=limit,
        n=n,
        n_min=needed,
        reason="few",
        next_step=f"judge it on at least {needed} rows",
    )
