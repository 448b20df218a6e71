"""What passes between a route and a model: who answers, a request that waits, its reply.

A request is bound to a version and a generation when it is admitted, and is answered by them
whatever happens meanwhile.  Whoever asks is called back, once, from the event loop: a future or
a task for each request would cost more than answering it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mlguard.errors import MlguardError
from mlguard.serving.answers import NO_VERSION, Answer
from mlguard.serving.inputs import PredictRequest
from mlguard.serving.query_ids import Key
from mlguard.serving.routing import ALONE, Split

if TYPE_CHECKING:
    from mlguard.serving.served_version import ServedVersion


class OverloadedError(MlguardError):
    """More rows wait than the SLO can clear; trying again soon is safe."""

    http_status = 503
    code = "overloaded"
    retryable = True


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers.

    Attributes
    ----------
    generation : int
        Of the app in the registry; 0 before the first deploy.
    active : int or None
        Id of the version that answers; None: the default output.
    explanation : str
        Why, where nobody answers.
    warm : tuple of int
        Ids of further versions that a request may ask for by name.
    split : Split
        Who takes part beside the active version, while one is rolled out or watched.
    """

    generation: int = 0
    active: int | None = None
    explanation: str = NO_VERSION
    warm: tuple[int, ...] = ()
    split: Split = ALONE


class Origin(msgspec.Struct, frozen=True, eq=False):
    """Where answers come from; one object for all requests that are bound alike.

    Attributes
    ----------
    version : str
        Name of the version that is asked, ``"none"`` where there is none.
    generation : int
        Of the app when the request was admitted.
    key : (int, int)
        Version id (0: none) and generation, for query ids.
    """

    version: str
    generation: int
    key: Key


class Reply(NamedTuple):
    """What a caller gets.

    Attributes
    ----------
    body : bytes
        JSON.
    origin : Origin
        Who answered.
    """

    body: bytes
    origin: Origin


#: Takes the body of a reply, and who answered.
Done = Callable[[bytes, Origin], None]


class Waiting(msgspec.Struct, eq=False):
    """One admitted request: its rows, and what they got so far.

    Attributes
    ----------
    request : PredictRequest
        As it was read.
    rows : list
        Its decoded rows.
    version : ServedVersion or None
        Who answers; None: the default output.
    origin : Origin
        Who answers, by name and generation.
    done : callable or None
        Called once with the reply and its origin; None: nobody wants it any more.
    answers : list of Answer or None
        One place for each row.
    left : int
        Rows without an answer.
    arrived, deadline : float
        Seconds on the monotonic clock.
    threshold : float or None
        Of the request's group; None: the model has applied the right one.
    unusual : dict of int to str, or None
        What is unusual about a row, by its place; None: nothing is, or nobody looked.
    mirrors : int or None
        Query id of the live answer, where this row is only shown; None: it is answered.
    """

    request: PredictRequest
    rows: list[Any]
    version: ServedVersion | None
    origin: Origin
    done: Done | None
    answers: list[Answer | None]
    left: int
    arrived: float = 0.0
    deadline: float = 0.0
    threshold: float | None = None
    unusual: dict[int, str] | None = None
    mirrors: int | None = None

    def settle(self, index: int, answer: Answer) -> bool:
        """Give one row its answer, where it has none; True if that was the last one."""
        if self.answers[index] is not None:
            return False
        self.answers[index] = answer
        self.left -= 1
        return self.left == 0

    def abandon(self) -> None:
        """Forget the caller: rows that did not run yet need not."""
        self.done = None
