"""Which query a uid's row was: for labels in Clipper's form, which carry no query id.

The latest answers are remembered in memory, so many and no more.  What another front end
answered, or this one before it was restarted, is found in the prediction log of the last hour;
that is slow, so one search runs at a time, and a label for something older needs its query id.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

#: Answers remembered, per app.
_REMEMBERED = 100_000
#: How far back the log is searched, in seconds.
SEARCHED_S = 3600.0


class Recall:
    """The latest query id by uid and row."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def remember(self, uid: str, row: Any, query_id: int) -> None:
        """Keep which query a uid's row was; the oldest is forgotten when there are too many."""
        key = _fingerprint(uid, row)
        self._known.pop(key, None)
        self._known[key] = query_id
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def find(self, uid: str, row: Any) -> int | None:
        """Return the latest query of a uid with that row, if it is remembered."""
        return self._known.get(_fingerprint(uid, row))


class LogSearch:
    """Finds queries in the prediction log.

    Parameters
    ----------
    read : callable
        ``read(uid, columns)`` returns the logged rows of a uid, oldest first, as mappings with
        ``query_id`` and the columns; slow.
    """

    def __init__(self, read: Callable[[str, Sequence[str]], Sequence[Mapping[str, Any]]]) -> None:
        self._read = read
        self._one_at_a_time = threading.Lock()

    def find(self, uid: str, row: Sequence[Any], columns: Sequence[str]) -> int | None:
        """Return the latest query of a uid whose columns hold that row."""
        with self._one_at_a_time:
            rows = self._read(uid, columns)
        for one in reversed(rows):
            if [one.get(column) for column in columns] == list(row):
                return int(one["query_id"])
        return None


def _fingerprint(uid: str, row: Any) -> bytes:
    return blake2b(msgspec.msgpack.encode((uid, row)), digest_size=16).digest()
