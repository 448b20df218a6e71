"""What versions are sent, counted on the grid of their reference, whatever the log keeps of it.

It is fed with rows that are already answered, so nobody waits for it; counting does not touch the
disk, and what does is for the log's own thread.
Requests that were refused as malformed belong to no row; they are counted in the event loop and
taken up by the next slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mlguard.serving.logged_rows import LogTarget

Key = tuple[str, int | str]


class Counter(Protocol):
    """What counts one version's rows (see ``data.profile_log``)."""

    def announce(self) -> None:
        """Say that counts will come."""

    def add(
        self,
        *,
        generation: int,
        times: Sequence[float],
        rows: Sequence[Any],
        scores: Sequence[float | None],
        valid: Sequence[bool],
        groups: Sequence[Any],
        answers: Sequence[Any],
    ) -> None:
        """Count rows of one generation."""

    def flush(self, *, refused: int = 0) -> int:
        """Write what was counted if it is time; returns the refused requests taken up."""

    def close_slice(self, *, refused: int = 0) -> None:
        """Write what was counted."""


class Counters(Protocol):
    """Where counts go."""

    def profile_writer(
        self,
        app: str,
        version_id: int | str,
        process: str,
        grid: Any,
        features: Sequence[Any],
        *,
        redact: Sequence[str] = (),
    ) -> Counter:
        """Return what counts one version's rows."""


class InputCounts:
    """Counts the rows of every version that has a grid.

    Parameters
    ----------
    log : Counters
        Where the counts go.
    process : str
        Name of this process among those that write.
    """

    def __init__(self, log: Counters, process: str) -> None:
        self._log = log
        self._process = process
        self._open: dict[Key, Counter] = {}
        # The first rises in the event loop and is read here; the second only here.
        self._refused: dict[Key, int] = {}
        self._told: dict[Key, int] = {}

    def refuse(self, target: LogTarget) -> None:
        """Note a request that was refused while a version answered the others."""
        key = (target.app, target.version_id)
        self._refused[key] = self._refused.get(key, 0) + 1

    def open(self, target: LogTarget) -> None:
        """Begin to count a version's rows, or those of a version whose columns changed."""
        key = (target.app, target.version_id)
        known = self._open.pop(key, None)
        if known is not None:
            known.close_slice()
        counter = self._log.profile_writer(
            *key, self._process, target.grid, target.features, redact=target.redact
        )
        counter.announce()
        self._open[key] = counter

    def take(self, target: LogTarget, facts: Mapping[str, Sequence[Any]]) -> None:
        """Count answered rows, generation by generation; the columns of ``logged_rows.FACTS``.

        Raises
        ------
        KeyError
            If the version was not opened.
        """
        counter = self._open[target.app, target.version_id]
        start = 0
        for generation, run in groupby(facts["generation"]):
            stop = start + len(list(run))
            counter.add(
                generation=generation,
                times=facts["time"][start:stop],
                rows=facts["row"][start:stop],
                scores=facts["score"][start:stop],
                valid=facts["valid"][start:stop],
                groups=facts["groups"][start:stop],
                answers=[
                    None if default else output
                    for output, default in zip(
                        facts["output"][start:stop], facts["default"][start:stop], strict=True
                    )
                ],
            )
            start = stop

    def flush(self) -> None:
        """Write the counts that are due."""
        for key, counter in self._open.items():
            taken_up = counter.flush(refused=self._untold(key))
            self._told[key] = self._told.get(key, 0) + taken_up

    def close(self) -> None:
        """Write all counts."""
        for key, counter in self._open.items():
            counter.close_slice(refused=self._untold(key))
        self._open.clear()

    def _untold(self, key: Key) -> int:
        return self._refused.get(key, 0) - self._told.get(key, 0)
