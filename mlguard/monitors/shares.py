"""A share of rows held against its limit, with an exact interval: of errors, of odd requests."""

from __future__ import annotations

from typing import Any

from mlguard.results import Measurement, MonitorResult, Verdict
from mlguard.stats.proportions import clopper_pearson_interval

#: Rows below which nothing is said.
N_MIN = 20


def judge_share(
    count: int,
    n: int,
    *,
    limit: float,
    confidence_level: float,
    words: str,
    next_step: str,
    facts: dict[str, Any],
) -> MonitorResult:
    """Judge how many of some rows are not as they should be.

    Parameters
    ----------
    count, n : int
        Such rows, and rows.
    limit : float
        Largest share.
    confidence_level : float
        Of the interval; FAILED where all of it lies above the limit.
    words, next_step : str
        What is counted, and what to do about it.
    facts : dict
        Id, window and version of the result; ``measurements`` and ``details`` where there are.
    """
    name = facts["id"].rpartition(".")[2]
    facts = {"limit": limit, "n": n, "n_min": N_MIN, **facts}
    if n < N_MIN:
        return MonitorResult(
            verdict=Verdict.INCONCLUSIVE,
            summary=f"{n} valid rows, {N_MIN} are needed",
            reason="few",
            **facts,
        )
    low, high = clopper_pearson_interval(count, n, confidence_level=confidence_level)
    value = count / n
    if low > limit:
        verdict, reason = Verdict.FAILED, "limit_exceeded"
    elif value > limit:
        verdict, reason = Verdict.WARNED, "not_proven"
    else:
        verdict, reason = Verdict.PASSED, ""
    measured = (Measurement(name=name, value=value, n=n, low=low, high=high),)
    return MonitorResult(
        verdict=verdict,
        summary=f"{value:.1%} of {n} {words} ({low:.1%} to {high:.1%}), at most {limit:.1%}",
        value=value,
        interval=(low, high),
        reason=reason,
        next_step="" if verdict is Verdict.PASSED else next_step,
        **{**facts, "measurements": (*measured, *facts.get("measurements", ()))},
    )
