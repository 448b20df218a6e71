"""What is handed to a notifier, and how it says that it could not.

A notifier is a class named by an entry point of ``mlguard.notifiers``, built with the project's
settings.  It either returns, and then the message has arrived where it was asked to go, or
raises :class:`SendError`, whose :class:`Outcome` tells the outbox what to do with the row.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlguard.errors import MlguardError
from mlguard.notify.mail import Picture
from mlguard.notify.notice import Notice


@enum.unique
class Outcome(enum.StrEnum):
    """What a failed attempt means for the row, and for the rows behind it."""

    AGAIN = "again"  #: this row later; the next one now
    UNREACHABLE = "unreachable"  #: this row and all others of this notifier later
    NEVER = "never"  #: this row is dead, e.g. the address does not exist
    STOP = "stop"  #: nothing is sent until somebody mends the settings; nothing is lost


class SendError(MlguardError):
    """A message did not arrive.

    Parameters
    ----------
    message : str
        Why, in the words of the other side.
    outcome : Outcome
        What that means.
    hint : str
        What a human can do about it.
    uncertain : bool
        Whether it may have arrived all the same: the line broke after it was handed over.
    """

    code = "send"

    def __init__(
        self, message: str, outcome: Outcome, *, hint: str = "", uncertain: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.outcome = outcome
        self.uncertain = uncertain


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one recipient.

    Attributes
    ----------
    recipient : str
        An address, or the name of a place such as ``"file"``.
    notice : Notice
        The event in words.
    facts : mapping
        The event as it was written down.
    message_id : str
        The same on every attempt that may follow one which arrived.
    created_at : float
        When the event was written down (seconds, UTC).
    pictures : sequence of Picture
        Drawn for this event; may be empty.
    """

    recipient: str
    notice: Notice
    facts: Mapping[str, Any]
    message_id: str
    created_at: float
    pictures: Sequence[Picture] = field(default=())


class Notifier(Protocol):
    """Carries deliveries to the recipients that it knows how to reach."""

    def handles(self, recipient: str) -> bool:
        """Whether this notifier reaches ``recipient``."""

    def send(self, delivery: Delivery, now: float) -> str:
        """Deliver, and say where it is now in a clause, or raise :class:`SendError`."""

    def close(self) -> None:
        """Let go of what was opened for a series of deliveries."""
