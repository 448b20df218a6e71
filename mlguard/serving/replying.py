"""What an answered request becomes: the JSON of its reply, and the facts that are logged of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

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
    waiting: Waiting, ids: list[int], version: ServedVersion | None, now: float, then: float
) -> list[Facts]:
    """Return what is logged of each row.

    Parameters
    ----------
    waiting : Waiting
        A request with all its answers.
    ids : list of int
        Of its rows.
    version : ServedVersion or None
        Who answered; None: the default output.
    now : float
        Seconds since the epoch.
    then : float
        The same moment on the clock of ``waiting.arrived``.
    """
    request = waiting.request
    generation = waiting.key[1]
    took_ms = (then - waiting.arrived) * 1000
    groups = request.groups or None
    facts: list[Facts] = []
    for query_id, row, answer in zip(ids, waiting.rows, waiting.answers, strict=True):
        assert answer is not None
        reason = answer.explanation
        # A row that was answered was valid.  One on which the model failed is held against the
        # model only if its reference data had such values.
        valid = (
            version is not None
            and reason != UNUSUAL_ROW
            and (reason is None or version.reader.fits(row))
        )
        facts.append(
            (
                query_id,
                now,
                generation,
                reason is not None,
                reason,
                answer.output,
                answer.score,
                request.uid,
                groups,
                took_ms,
                valid,
                row,
            )
        )
    return facts
