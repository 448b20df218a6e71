"""Heads of predict requests that were read before, known again by their exact bytes.

A client that keeps its connection sends the same head over and over, and a parser says the same
of the same bytes.  So what it said is kept, and a request that comes whole, in one piece, with a
head that is known is not parsed again.  Only the parsing is saved: keys, rates and limits are
asked of every request.

What is learnt has to be beyond doubt: one piece held one request and nothing else, its length
was told by Content-Length, its lines end as they should, and its connection stays open.  So the
first empty line ends the head, for this reader and any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlguard.serving.engine import AppEngine

#: Heads kept, and how long one may be: together half a megabyte at most.
_MOST = 256
_LONGEST = 2048
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Head:
    """What the parser said of a head.

    Attributes
    ----------
    text : bytes
        The head, with the empty line that ends it.
    engine : AppEngine
        The app that its URL asks.
    headers : list of (bytes, bytes)
        Names in lower case, and values.
    length : int
        Bytes of the body.
    whole : int
        Bytes of the request.
    """

    text: bytes
    engine: AppEngine
    headers: list[tuple[bytes, bytes]]
    length: int
    whole: int


class KnownHeads:
    """The heads that one server knows."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def find(self, piece: bytes) -> Head | None:
        """Return the known head of a piece that is one whole request."""
        head = self._known.get(piece[: piece.find(_END) + 4])
        return head if head is not None and len(piece) == head.whole else None

    def learn(
        self, piece: bytes, engine: AppEngine, headers: list[tuple[bytes, bytes]], length: int
    ) -> None:
        """Keep what the parser said of the request that began with a piece, if it is clear.

        Parameters
        ----------
        piece : bytes
            What came, from the first byte of a request on.
        engine : AppEngine
            The app that was asked.
        headers : list of (bytes, bytes)
            What the parser said.
        length : int
            Bytes of the body; 0 where no Content-Length told it.
        """
        end = piece.find(_END) + 4
        if not length or len(piece) != end + length or end > _LONGEST:
            return
        text = piece[:end]
        if text.count(b"\n") != text.count(b"\r\n"):
            return
        if len(self._known) >= _MOST:
            self._known.clear()  # callers whose every head is new are no reason to grow
        self._known[text] = Head(text, engine, headers, length, len(piece))
