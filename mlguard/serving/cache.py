"""Answers to rows that were asked before: exact keys, least recently used, bounded in bytes.

Rules
-----
1. *Exact.*  The key is the decoded row, byte for byte: 1 and 1.0 differ, so do 0.0 and -0.0.
2. *Per version.*  A cache belongs to one loaded version and goes with it, so nothing stale
   outlives a switch.
3. *What the model said*, not what a caller got: label and score, before any threshold of a
   group.  A default output is never kept.
4. *In flight shared.*  Who asks a row that is with the model already waits for the same answer,
   each until its own deadline.  If whoever was first gives up before the model ran, the next
   one's row goes in its place.

Pure: no clock, no loop.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any, Generic, TypeVar

import msgspec

Caller = TypeVar("Caller")

#: What keeping an entry costs beside key and label: a node, a tuple, two objects.
_OVERHEAD = 250
_ENCODER = msgspec.msgpack.Encoder()


class AnswerCache(Generic[Caller]):
    """The answers of one version.

    Parameters
    ----------
    limit_bytes : int
        Memory that it may take.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._known: OrderedDict[bytes, tuple[Any, float | None, int]] = OrderedDict()
        self._in_flight: dict[bytes, list[Caller]] = {}

    def __len__(self) -> int:
        return len(self._known)

    @staticmethod
    def key(row: Any) -> bytes:
        """Return the key of a decoded row."""
        return _ENCODER.encode(row)

    def find(self, key: bytes) -> tuple[Any, float | None] | None:
        """Return label and score of a row, if they are known."""
        found = self._known.get(key)
        if found is None:
            return None
        self._known.move_to_end(key)
        self.hits += 1
        return found[0], found[1]

    def join(self, key: bytes, caller: Caller) -> bool:
        """Wait for a row's answer; True if somebody is asking the model already."""
        others = self._in_flight.get(key)
        if others is None:
            self._in_flight[key] = [caller]
            self.misses += 1
            return False
        others.append(caller)
        self.hits += 1
        return True

    def waiting(self, key: bytes) -> list[Caller]:
        """Return who waits for a row, the one whose row is with the model first."""
        return self._in_flight.get(key, [])

    def finish(self, key: bytes) -> list[Caller]:
        """Return who waited for a row, and forget them."""
        return self._in_flight.pop(key, [])

    def rejoin(self, key: bytes, callers: list[Caller]) -> None:
        """Let those wait on whose first one has given up."""
        if callers:
            self._in_flight[key] = callers

    def put(self, key: bytes, label: Any, score: float | None) -> None:
        """Keep an answer; the least recently used go where there are too many."""
        size = len(key) + sys.getsizeof(label) + _OVERHEAD
        before = self._known.pop(key, None)
        if before is not None:
            self.bytes -= before[2]
        if size > self.limit_bytes:
            return
        self._known[key] = (label, score, size)
        self.bytes += size
        self.shrink_to(self.limit_bytes)

    def shrink_to(self, limit_bytes: int) -> None:
        """Set another limit; the least recently used answers go where they are too many."""
        self.limit_bytes = limit_bytes
        while self.bytes > limit_bytes:
            _, (_, _, freed) = self._known.popitem(last=False)
            self.bytes -= freed
