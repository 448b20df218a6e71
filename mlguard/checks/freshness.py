"""How old the newest row is: data that nobody refreshes goes stale without a word."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlguard.checks.evidence import Subject
from mlguard.config import FreshnessCheck
from mlguard.errors import DataError
from mlguard.results import Finding, Verdict
from mlguard.wording import duration, moment

CHECK = "data_quality.freshness"


def freshness(
    subject: Subject, policy: FreshnessCheck, *, clock: Callable[[], float] = time.time
) -> Finding:
    """Judge the age of the newest row of ``[data] test``.

    Parameters
    ----------
    subject : Subject
        The gate's.
    policy : FreshnessCheck
        The largest age.
    clock : callable
        Seconds since the epoch.

    Raises
    ------
    DataError
        If no column with times is named, or it holds none.
    """
    column = subject.settings.data.time
    if not column:
        raise DataError(
            "nobody knows when a row is from",
            hint="name the column with each row's time in [data] time",
        )
    scan = subject.test_scan
    found = scan[column].column
    if found.kind != "time" or found.high is None:
        raise DataError(
            f"the column {column!r} holds {found.kind}, no times",
            hint="write times as 2026-01-31T12:00:00, or correct [data] time",
        )
    age = clock() - found.high
    verdict = Verdict.PASSED if age <= policy.at_most else Verdict.FAILED
    said = f"the newest row is of {moment(found.high)}"
    old = f"{duration(age)} old" if age >= 0 else f"{duration(-age)} in the future"
    return Finding(
        id=CHECK,
        verdict=verdict,
        summary=f"{said}, {old}; limit {duration(policy.at_most)}",
        value=age,
        limit=policy.at_most,
        n=scan[column].n,
        reason="" if verdict is Verdict.PASSED else "stale",
        next_step="" if verdict is Verdict.PASSED else "make the data anew from today's rows",
    )
