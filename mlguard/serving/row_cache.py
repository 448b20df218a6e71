"""The cache of one version, as its queue uses it: rows of requests in, those for the model out.

What is remembered and what it costs is :mod:`mlguard.serving.cache`; here are the requests that
wait for it.  A *place* is one row of one request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlguard.serving.admission import Waiting
from mlguard.serving.answers import Answer
from mlguard.serving.cache import AnswerCache

Place = tuple[Waiting, int]


class RowCache:
    """Answers rows that are known, and lets rows in flight share an answer.

    Parameters
    ----------
    limit_bytes : int
        Memory that the answers may take.
    given : callable
        ``given(waiting, label, score)`` returns what a request gets for what the model said.
    """

    def __init__(
        self, limit_bytes: int, given: Callable[[Waiting, Any, float | None], Answer]
    ) -> None:
        self.answers: AnswerCache[Place] = AnswerCache(limit_bytes)
        self._given = given

    def new_ones(self, places: list[Place]) -> list[Place]:
        """Settle rows that are known; return those that the model has to be asked."""
        cache = self.answers
        found: dict[bytes, Place] = {}
        for waiting, index in places:
            key = cache.key(waiting.rows[index])
            known = cache.find(key)
            if known is not None:
                waiting.settle(index, self._given(waiting, *known))
            elif not cache.waiting(key):
                found.setdefault(key, (waiting, index))
        return list(found.values())

    def join(self, places: list[Place]) -> None:
        """Let rows that are not answered yet wait, once their request is admitted."""
        for waiting, index in places:
            if waiting.answers[index] is None:
                self.answers.join(self.answers.key(waiting.rows[index]), (waiting, index))

    def wanted(self, place: Place) -> Place | None:
        """Return a row that somebody still wants, or another one like it; None: nobody does."""
        if is_wanted(place):
            return place
        key = self.answers.key(place[0].rows[place[1]])
        heirs = [one for one in self.answers.finish(key) if is_wanted(one)]
        self.answers.rejoin(key, heirs)
        return heirs[0] if heirs else None

    def all_of(self, place: Place) -> list[Place]:
        """Return everybody who waits for the answer to a row that the model has answered."""
        everybody = self.answers.finish(self.answers.key(place[0].rows[place[1]]))
        # A row that was with the model before there was a cache never joined.
        return everybody if place in everybody else [*everybody, place]

    def keep(self, place: Place, label: Any, score: float | None) -> None:
        """Remember what the model said."""
        self.answers.put(self.answers.key(place[0].rows[place[1]]), label, score)


def is_wanted(place: Place) -> bool:
    """Whether a row's caller is there and has no answer to it."""
    waiting, index = place
    return waiting.done is not None and waiting.answers[index] is None
