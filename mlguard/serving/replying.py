"""What answered requests become: replies, then counts, rows of the log, and what mirrors see.

Rules
-----
1. *Callers first.*  Nothing that a caller does not wait for is done before every caller of a batch
   has its reply.
2. *Once a batch.*  What comes after the replies is done for the batch as a whole, column by
   column.  Most columns of a batch hold one value, and are kept as that.
3. *One origin at a time.*  Requests that were admitted before a switch are numbered and logged
   apart from those that came after it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mlguard.data.same import Same
from mlguard.serving.answers import UNUSUAL_ROW, Answer
from mlguard.serving.inputs import PLAIN
from mlguard.serving.logged_rows import Facts, LogTarget

if TYPE_CHECKING:
    from mlguard.serving.admission import Origin, Waiting
    from mlguard.serving.engine import AppEngine
    from mlguard.serving.served_version import ServedVersion


class Replies:
    """The replies of one app.

    Parameters
    ----------
    app : AppEngine
        The app.
    """

    def __init__(self, app: AppEngine) -> None:
        self._app = app
        self._nowhere = LogTarget(app.name, 0)

    def give(
        self, version: ServedVersion | None, settled: list[Waiting], table: Any = None
    ) -> None:
        """Reply to requests whose rows all have answers; then count and log them.

        Parameters
        ----------
        version : ServedVersion or None
            Who answered; None: the default output.
        settled : list of Waiting
            The requests; those that nobody waits for any more are passed over.
        table : ndarray of float64, shape (n, n_features), optional
            For n requests of one row each: these rows, as the model got them.
        """
        wanted = [one for one in settled if one.done is not None and one.mirrors is None]
        if len(wanted) < len(settled) and version is not None:
            self._log_mirrored(version, settled)
        if not wanted:
            return
        origin = wanted[0].origin
        others = [one for one in wanted if one.origin is not origin]
        if others:
            wanted = [one for one in wanted if one.origin is origin]
        self._give(version, origin, wanted, table)
        if others:
            self.give(version, others)

    def _give(
        self, version: ServedVersion | None, origin: Origin, wanted: list[Waiting], table: Any
    ) -> None:
        """Reply to requests of one origin."""
        app = self._app
        answers: list[Any] = [answer for one in wanted for answer in one.answers]
        ids = app.ids.draw_many(origin.key, len(answers))
        at = 0
        for waiting in wanted:
            done, waiting.done = waiting.done, None
            start, at = at, at + len(waiting.answers)
            if at - start == 1 and waiting.unusual is None:
                body = answers[start].encoded(ids[start])
            else:
                body = _encoded(waiting, answers[start:at], ids[start:at])
            done(body, origin)  # type: ignore[misc]  # the unwanted were passed over above
        now = time.monotonic()
        took = [now - one.arrived for one in wanted]
        reasons = [one.explanation for one in answers]
        app.tally.requests(origin.version, took, reasons)
        if app.recorder is not None and answers:
            target = self._nowhere if version is None else version.log_target
            now = app.clock()
            facts = facts_of(wanted, answers, ids, took, reasons=reasons, version=version, at=now)
            if table is not None and len(table) == len(wanted) == len(answers):
                # Not the lists that it was made of: they can be forgotten now.
                facts["row"] = table
            app.recorder.put(target, facts)
        if any(one.request is not PLAIN for one in wanted):
            self._remember(wanted, ids)
        if app.route.split.mirrors and version is not None and version.spec.id == app.route.active:
            app.mirrors.show(app.route.split, version, list(_each(wanted, ids)))

    def _remember(self, wanted: list[Waiting], ids: Sequence[int]) -> None:
        """Put what was asked with a uid aside, for labels that name no query."""
        for waiting, its in _each(wanted, ids):
            uid = waiting.request.uid
            if uid is not None:
                for row, query_id in zip(waiting.rows, its, strict=True):
                    self._app.recall.remember(uid, row, query_id)

    def _log_mirrored(self, version: ServedVersion, settled: list[Waiting]) -> None:
        """Hand on what a mirror was shown."""
        for one in settled:
            if one.mirrors is not None:
                self._app.mirrors.answered(version, one, self._app.clock())


def _each(wanted: Sequence[Waiting], ids: Sequence[int]) -> list[tuple[Waiting, Sequence[int]]]:
    """Return requests, each with the ids of its rows."""
    found = []
    at = 0
    for waiting in wanted:
        start, at = at, at + len(waiting.rows)
        found.append((waiting, ids[start:at]))
    return found


def _encoded(waiting: Waiting, answers: Sequence[Answer], ids: Sequence[int]) -> bytes:
    """Return a reply of many rows, or of one that something is said of, as JSON."""
    parts = [answer.encoded(query_id) for answer, query_id in zip(answers, ids, strict=True)]
    for index, why in (waiting.unusual or {}).items():
        parts[index] = b'%b,"unusual":%b}' % (parts[index][:-1], msgspec.json.encode(why))
    return parts[0] if len(parts) == 1 else b'{"batch_predictions":[%b]}' % b",".join(parts)


def facts_of(
    asked: Sequence[Waiting],
    answers: Sequence[Answer],
    ids: Sequence[int],
    took: Sequence[float],
    *,
    reasons: Sequence[str | None],
    version: ServedVersion | None,
    at: float,
) -> Facts:
    """Return what is logged of the rows of requests of one origin, column by column.

    Parameters
    ----------
    asked : sequence of Waiting
        The requests, with all their answers.
    answers, ids : sequences
        Of each row: its answer, and its query id.
    took : sequence of float
        Seconds that each request took.
    reasons : sequence of str or None
        Of each row: why it got the default output; None where it did not.
    version : ServedVersion or None
        Who answered; None: the default output.
    at : float
        Now, seconds since the epoch.
    """
    n = len(answers)
    rows = [row for one in asked for row in one.rows]
    milliseconds = [1000 * one for one in took]
    if n != len(asked):
        milliseconds = [its for one, its in zip(asked, milliseconds, strict=True) for _ in one.rows]
        asked = [one for one in asked for _ in one.rows]
    defaults = any(reasons)
    # A row that was answered was valid.
    valid: Sequence[bool] = Same(version is not None, n)
    if version is not None and defaults:
        valid = [
            why is None or may_be_held_against(version, why, row)
            for why, row in zip(reasons, rows, strict=True)
        ]
    named = any(one.request is not PLAIN for one in asked)
    nothing = Same(None, n)
    return {
        "query_id": ids,
        "time": Same(at, n),
        "generation": Same(asked[0].origin.generation, n),
        "default": [why is not None for why in reasons] if defaults else Same(False, n),
        "explanation": reasons if defaults else nothing,
        "output": [one.output for one in answers],
        "score": [one.score for one in answers],
        "uid": [one.request.uid for one in asked] if named else nothing,
        "groups": [one.request.groups or None for one in asked] if named else nothing,
        "latency_ms": milliseconds,
        "valid": valid,
        "row": rows,
    }


def may_be_held_against(version: ServedVersion, reason: str, row: Any) -> bool:
    """Whether a row on which a version failed is one that its reference data could have held."""
    return reason != UNUSUAL_ROW and version.reader.fits(row)
