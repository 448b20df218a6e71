"""What an answered request becomes: the JSON of its reply, and the facts that are logged of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mlguard.serving.admission import Waiting
from mlguard.serving.answers import UNUSUAL_ROW
from mlguard.serving.query_ids import Key
from mlguard.serving.recorder import Facts

if TYPE_CHECKING:
    from mlguard.serving.served_version import ServedVersion


def numbered(waiting: Waiting, draw: Callable[[Key], int]) -> tuple[list[int], bytes]:
    """Give an answered request's rows their ids; returns them and the reply as JSON.

    Parameters
    ----------
    waiting : Waiting
        A request with all its answers.
    draw : callable
        Returns the next query id of a version in a generation.
    """
    if len(waiting.rows) == 1 and waiting.unusual is None:
        answer = waiting.answers[0]
        assert answer is not None
        query_id = draw(waiting.key)
        return [query_id], answer.encoded(query_id)
    ids = [draw(waiting.key) for _ in waiting.rows]
    parts = [
        answer.encoded(query_id)
        for answer, query_id in zip(waiting.answers, ids, strict=True)
        if answer is not None
    ]
    for index, why in (waiting.unusual or {}).items():
        parts[index] = b'%b,"unusual":%b}' % (parts[index][:-1], msgspec.json.encode(why))
    if len(parts) == 1:
        return ids, parts[0]
    return ids, b'{"batch_predictions":[%b]}' % b",".join(parts)


def facts_of(
    replied: Sequence[tuple[Waiting, list[int]]],
    version: ServedVersion | None,
    now: float,
    then: float,
) -> Facts:
    """Return what is logged of the rows of some requests, column by column.

    Parameters
    ----------
    replied : sequence of (Waiting, list of int)
        Requests with all their answers, each with the query ids of its rows.
    version : ServedVersion or None
        Who answered; None: the default output.
    now : float
        Seconds since the epoch.
    then : float
        The same moment on the clock of ``Waiting.arrived``.
    """
    query_ids: list[int] = []
    rows: list[Any] = []
    answers: list[Any] = []
    asked: list[Waiting] = []
    for waiting, ids in replied:
        query_ids += ids
        rows += waiting.rows
        answers += waiting.answers
        asked += [waiting] * len(ids)
    reasons = [one.explanation for one in answers]
    n = len(rows)
    # A row that was answered was valid.
    valid = [version is not None] * n
    if version is not None and any(reasons):
        valid = [
            why is None or may_be_held_against(version, why, row)
            for why, row in zip(reasons, rows, strict=True)
        ]
    return {
        "query_id": query_ids,
        "time": [now] * n,
        "generation": [one.key[1] for one in asked],
        "default": [why is not None for why in reasons],
        "explanation": reasons,
        "output": [one.output for one in answers],
        "score": [one.score for one in answers],
        "uid": [one.request.uid for one in asked],
        "groups": [one.request.groups or None for one in asked],
        "latency_ms": [(then - one.arrived) * 1000 for one in asked],
        "valid": valid,
        "row": rows,
    }


def may_be_held_against(version: ServedVersion, reason: str, row: Any) -> bool:
    """Whether a row on which a version failed is one that its reference data could have held."""
    return reason != UNUSUAL_ROW and version.reader.fits(row)
