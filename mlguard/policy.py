"""Every rule "evidence → allow, hold, freeze, roll back, default output", in one place.

Pure: no clock, no database, no file.  What happened comes in as results and plain facts,
what to do comes out, always with one sentence that says why.

Rule 1: a gate fails closed.  No results, a check that raised, or an undecided check that
blocks: the candidate is not allowed.
"""

from __future__ import annotations

from collections.abc import Iterable

from mlguard.results import CheckResult, GateDecision, Verdict


def gate_decision(
    app: str,
    candidate: str,
    results: Iterable[CheckResult],
    not_applicable: Iterable[str] = (),
) -> GateDecision:
    """Decide whether a candidate may go on.

    Parameters
    ----------
    app, candidate : str
        Whom the decision is about.
    results : iterable of CheckResult
        Everything that was judged, in the order it ran.
    not_applicable : iterable of str
        Checks that do not apply, each with its reason.

    Returns
    -------
    GateDecision
        Allowed where at least one check gave a judgement (SKIPPED is none) and no result
        blocks (:attr:`~mlguard.results.CheckResult.blocks`).
    """
    found = tuple(results)
    blocking = [one for one in found if one.blocks]
    judged = [one for one in found if one.verdict is not Verdict.SKIPPED]
    if blocking:
        because = _refusal(blocking)
    elif not found:
        because = "no check ran, and nothing passes vacuously"
    elif not judged:
        because = f"all {_count(len(found), 'check')} were skipped, and nothing passes vacuously"
    else:
        because = _admission(judged)
    return GateDecision(
        app=app,
        candidate=candidate,
        allowed=bool(judged) and not blocking,
        results=found,
        because=because,
        not_applicable=tuple(not_applicable),
    )


def _refusal(blocking: list[CheckResult]) -> str:
    parts = []
    for verdict in (Verdict.FAILED, Verdict.ERRORED, Verdict.INCONCLUSIVE):
        names = [one.name for one in blocking if one.verdict is verdict]
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            parts.append(f"{len(names)} {verdict.word} ({shown})")
    return f"blocked by {_count(len(blocking), 'check')}: " + "; ".join(parts)


def _admission(judged: list[CheckResult]) -> str:
    passed = sum(one.verdict is Verdict.PASSED for one in judged)
    sentence = f"{passed} of {_count(len(judged), 'check')} passed and none blocks"
    waived = [one for one in judged if one.waived_by is not None]
    if waived:
        sentence += "; waived: " + ", ".join(f"{one.name} by {one.waived_by}" for one in waived)
    return sentence


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
