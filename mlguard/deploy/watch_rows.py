"""Walking the prediction log window by window, every row once.

The log is written by many processes that flush within a second, and its times come from a
clock that may be set.  So a walk remembers which query ids it has judged, not only until when:

1. Rows of the last moments are left for the next pass; later ones may still be on their way.
2. Ids are handed out in blocks, and within one they rise: "everything up to this id and this
   time of this block" is remembered.  An answer that took longer has a lower id and a later
   time; one that has neither, because two answers share a moment, is remembered by name.
3. A clock that went back makes the next walk start at the beginning; what was judged stays
   judged.

The place is plain JSON, kept by the caller with whatever was decided from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlguard.monitors.window import cut

if TYPE_CHECKING:
    import pyarrow as pa

    from mlguard.data.prediction_log import PredictionLog

#: Seconds in which a row may still be on its way into the log.
SETTLE_S = 2.0
#: A clock that is this far behind an earlier look has been set back.
BACK_S = 30.0
#: Size of the id blocks that nobody knows anything about.
_UNKNOWN_BLOCK = 65_536

#: First id and size of the block that an id belongs to.
BlockOf = Callable[[int], tuple[int, int]]


def unknown_block(query_id: int) -> tuple[int, int]:
    """Return the block of an id that nobody reserved."""
    return query_id // _UNKNOWN_BLOCK * _UNKNOWN_BLOCK, _UNKNOWN_BLOCK


@dataclass(frozen=True, slots=True)
class Place:
    """How far a walk has come.

    Attributes
    ----------
    since : float
        Time from which the log must be read.
    seen_at : float
        When somebody last looked.
    judged : dict of int to (int, float)
        First id of a block -> highest id and latest time of it that were judged.
    passed_over : tuple of int
        Ids within those bounds that were not judged yet.
    looked : int
        Rows of the open window that an early look has seen.
    """

    since: float = 0.0
    seen_at: float = 0.0
    judged: Mapping[int, tuple[int, float]] | None = None
    passed_over: tuple[int, ...] = ()
    looked: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the place as JSON values."""
        return {
            "since": self.since,
            "seen_at": self.seen_at,
            "judged": {str(first): list(last) for first, last in (self.judged or {}).items()},
            "passed_over": list(self.passed_over),
            "looked": self.looked,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Place:
        """Rebuild the place from :meth:`to_json`; None starts at the beginning."""
        if document is None:
            return cls()
        return cls(
            since=document["since"],
            seen_at=document["seen_at"],
            judged={int(first): (last[0], last[1]) for first, last in document["judged"].items()},
            passed_over=tuple(document["passed_over"]),
            looked=document["looked"],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """What a walk found: closed windows in order, then the rows of the open one.

    Attributes
    ----------
    rows : pyarrow.Table
        What was not judged before, by time.
    bounds : tuple of (int, int)
        Start and stop of each closed window among them.
    place : Place
        Where the walk stood before.
    blocks : _Blocks
        Whose ids the rows have.
    """

    rows: pa.Table
    bounds: tuple[tuple[int, int], ...]
    place: Place
    blocks: _Blocks

    @property
    def open(self) -> pa.Table:
        """Rows that no window has closed over yet; may be empty."""
        return self.rows.slice(self.bounds[-1][1] if self.bounds else 0)

    def windows(self) -> Iterator[tuple[pa.Table, Place]]:
        """Give each closed window with the place after it."""
        place = self.place
        for start, stop in self.bounds:
            place = self._after(place, start, stop)
            yield self.rows.slice(start, stop - start), place

    def after(self, stop: int) -> Place:
        """Return the place after the first ``stop`` rows, which are judged then."""
        return self._after(self.place, 0, stop)

    def _after(self, before: Place, start: int, stop: int) -> Place:
        """Return the place after the rows up to ``stop``, from the one at ``start``."""
        ids = self.rows.column("query_id").to_numpy()
        times = self.rows.column("time").to_numpy()
        judged = dict(before.judged or {})
        for first, part in self.blocks.parts(start, stop):
            last, until = judged.get(first, (-1, -math.inf))
            judged[first] = (
                max(last, int(ids[start:stop][part].max())),
                max(until, float(times[start:stop][part].max())),
            )
        # Rows come in the order of their times: later ones cannot have been passed over.
        latest = max((until for _, until in judged.values()), default=-math.inf)
        end = stop + int(np.searchsorted(times[stop:], latest, side="right"))
        known = self.blocks.known(judged, ids, times, stop, end)
        since = float(times[stop]) if stop < len(times) else float(times[stop - 1])
        return Place(
            since=min(since, self.place.seen_at),
            seen_at=self.place.seen_at,
            judged=judged,
            passed_over=tuple(ids[stop:end][known].tolist()),
        )


def walk(
    log: PredictionLog,
    app: str,
    *,
    version_id: int | str,
    generation: int,
    place: Place,
    window_s: float,
    window_rows: int,
    now: float,
    until: float | None = None,
    block_of: BlockOf = unknown_block,
) -> Stretch:
    """Return the windows that closed since ``place``.

    Parameters
    ----------
    log : PredictionLog
        What was answered.
    app, version_id, generation
        Whose rows: a window never spans two versions or generations.
    place : Place
        How far an earlier walk has come.
    window_s, window_rows : float, int
        When a window closes.
    now : float
        The time.
    until : float, optional
        Rows from then on are left for a later walk; default: those of the last moments.
    block_of : callable
        Finds the block of an id.
    """
    until = now - max(SETTLE_S, log.late_s) if until is None else until
    since = place.since
    if now < place.seen_at - BACK_S:
        # Nobody knows since when it is back: look at the whole generation, once.
        since = 0.0
    rows = log.read(
        app, version_id=version_id, generation=generation, since=since or None, until=until
    )
    # A time that lies well ahead was written before the clock was set back: it counts as old.
    ahead = log.read(
        app,
        version_id=version_id,
        generation=generation,
        since=max(since, until, math.nextafter(now + BACK_S, math.inf)),
    )
    if ahead.num_rows:
        import pyarrow as pa

        rows = pa.concat_tables([rows, ahead], promote_options="permissive")
    times = rows.column("time").to_numpy()
    ids = rows.column("query_id").to_numpy()
    blocks = _Blocks.of(ids, block_of)
    known = blocks.known(place.judged or {}, ids, times, 0, len(ids))
    kept = np.flatnonzero(~known | np.isin(ids, place.passed_over))
    rows = rows.take(kept)
    bounds = cut(times[kept], window_s=window_s, window_rows=window_rows, now=until)
    seen = Place(
        since=since,
        seen_at=now,
        judged=place.judged,
        passed_over=place.passed_over,
        looked=place.looked,
    )
    return Stretch(rows, tuple(bounds), seen, blocks.take(kept))


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """Which block each row's id belongs to.

    Attributes
    ----------
    firsts : tuple of int
        First id of each block.
    of_row : ndarray of intp, shape (n_rows,)
        Each row's block, as a place in ``firsts``.
    """

    firsts: tuple[int, ...]
    of_row: npt.NDArray[np.intp]

    @classmethod
    def of(cls, ids: npt.NDArray[np.int64], block_of: BlockOf) -> _Blocks:
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        firsts: list[int] = []
        of_row = np.empty(len(ids), np.intp)
        start = 0
        while start < len(ids):
            first, size = block_of(int(ordered[start]))
            stop = int(np.searchsorted(ordered, first + size))
            of_row[order[start:stop]] = len(firsts)
            firsts.append(first)
            start = stop
        return cls(tuple(firsts), of_row)

    def take(self, rows: npt.NDArray[np.intp]) -> _Blocks:
        """Return the blocks of some of the rows."""
        return _Blocks(self.firsts, self.of_row[rows])

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """Give each block of a run of rows: its first id, and which of the rows are of it."""
        run = self.of_row[start:stop]
        for one in np.unique(run).tolist():
            yield self.firsts[one], run == one

    def known(
        self,
        judged: Mapping[int, tuple[int, float]],
        ids: npt.NDArray[np.int64],
        times: npt.NDArray[np.float64],
        start: int,
        stop: int,
    ) -> npt.NDArray[np.bool_]:
        """Return which of a run of rows lie within what was judged of their block."""
        bounds = [judged.get(first, (-1, -math.inf)) for first in self.firsts]
        last = np.array([one for one, _ in bounds], np.int64)
        until = np.array([one for _, one in bounds], np.float64)
        mine = self.of_row[start:stop]
        known = (ids[start:stop] <= last[mine]) & (times[start:stop] <= until[mine])
        return np.asarray(known, np.bool_)
