"""Where the assert functions leave their results, so that a test's runner can find them.

Outside a recording, in a notebook say, nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from mlguard.results import CheckResult


@dataclass(frozen=True, slots=True)
class Recorded:
    """One result, and whether the function that found it raised."""

    result: CheckResult
    raised: bool


_CURRENT: ContextVar[list[Recorded] | None] = ContextVar("mlguard_recorded", default=None)


@contextmanager
def recording() -> Iterator[list[Recorded]]:
    """Collect what is recorded inside the block."""
    found: list[Recorded] = []
    token = _CURRENT.set(found)
    try:
        yield found
    finally:
        _CURRENT.reset(token)


def record(result: CheckResult, *, raised: bool) -> None:
    """Keep a result for whoever records now."""
    current = _CURRENT.get()
    if current is not None:
        current.append(Recorded(result, raised))
