"""Walking the profiles that servers keep, window by window, every slice once.

A window opens with a slice and closes after so many rows or so many seconds, as one of rows does
(:mod:`mlguard.monitors.window`), but at the edge of a slice: where traffic is dense it holds more
rows than it needed.  Slices count in the order in which they were written, so where a window
closes depends on them alone, never on when somebody looked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from mlguard.deploy.watch_rows import BACK_S, SETTLE_S
from mlguard.monitors.window import ProfileWindow
from mlguard.results import Window

if TYPE_CHECKING:
    from mlguard.data.prediction_log import PredictionLog
    from mlguard.data.profile import Profile
    from mlguard.data.profile_log import Slice


@dataclass(frozen=True, slots=True)
class SlicePlace:
    """How far a walk has come: file -> byte up to which its slices were judged."""

    stops: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the place as JSON values."""
        return {"stops": dict(self.stops)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> SlicePlace:
        """Rebuild the place from :meth:`to_json`; None starts at the beginning."""
        return cls() if document is None else cls(dict(document["stops"]))

    def after(self, slices: Sequence[Slice]) -> SlicePlace:
        """Return the place after some more slices."""
        return SlicePlace(
            {
                **self.stops,
                **{
                    one.file: max(one.stop, self.stops.get(one.file, 0))
                    for one in sorted(slices, key=lambda one: one.stop)
                },
            }
        )


@dataclass(frozen=True, slots=True, eq=False)
class SliceStretch:
    """What a walk found.

    Attributes
    ----------
    closed : tuple of tuple of Slice
        The slices of each closed window, in order.
    n_rows : int
        Rows of all slices that were found, those of the open window as well.
    place : SlicePlace
        Where the walk began.
    """

    closed: tuple[tuple[Slice, ...], ...]
    n_rows: int
    place: SlicePlace

    def windows(self, version: str) -> Iterator[tuple[ProfileWindow, SlicePlace]]:
        """Give each closed window with the place after it."""
        place = self.place
        for part in self.closed:
            place = place.after(part)
            yield merged(part, version), place


def walk_slices(
    log: PredictionLog,
    app: str,
    *,
    version_id: int,
    generation: int,
    grid: Profile,
    place: SlicePlace,
    window_s: float,
    window_rows: int,
    now: float,
) -> SliceStretch:
    """Return the windows that closed since ``place``.

    Parameters
    ----------
    log : PredictionLog
        Where the slices are.
    app, version_id, generation
        Whose: a window never spans two versions or generations.
    grid : Profile
        The profile of the version's reference.
    place : SlicePlace
        How far an earlier walk has come.
    window_s, window_rows : float, int
        When a window closes.
    now : float
        The time.
    """
    until = now - max(SETTLE_S, log.late_s)
    found = [
        one
        for one in log.slices(app, version_id, grid, place.stops)
        if one.generation == generation
        # A time that lies well ahead was written before the clock was set back: it counts as old.
        and (one.closed_at < until or one.closed_at > now + BACK_S)
    ]
    closed = cut_slices(found, window_s=window_s, window_rows=window_rows, now=until)
    return SliceStretch(tuple(closed), sum(one.n_rows for one in found), place)


def cut_slices(
    slices: Sequence[Slice], *, window_s: float, window_rows: int, now: float
) -> list[tuple[Slice, ...]]:
    """Return the slices of each window that has closed; see :func:`~mlguard.monitors.window.cut`.

    Parameters
    ----------
    slices : sequence of Slice
        In the order of their writing.
    window_s, window_rows : float, int
        A window closes with the slice that fills it, or before the first one that was written
        so many seconds after its first row.
    now : float
        Until when slices are complete.
    """
    closed: list[tuple[Slice, ...]] = []
    window: list[Slice] = []
    for one in slices:
        if window and one.closed_at - window[0].start >= window_s:
            closed.append(tuple(window))
            window = []
        window.append(one)
        if sum(other.n_rows for other in window) >= window_rows:
            closed.append(tuple(window))
            window = []
    if window and now - window[0].start > window_s:
        closed.append(tuple(window))
    return closed


def merged(slices: Sequence[Slice], version: str) -> ProfileWindow:
    """Return slices of one window as one.

    Those of another grid (the version was accepted anew meanwhile) count as rows only.
    """
    profiles = [found for one in slices if (found := one.profile) is not None]
    return ProfileWindow(
        version=version,
        window=Window(
            start=min(one.start for one in slices),
            end=max(one.end for one in slices),
            n_rows=sum(one.n_rows for one in slices),
            n_labels=0,
            generation=slices[0].generation,
        ),
        profile=reduce(lambda one, other: one.merge(other), profiles) if profiles else None,
        refused=sum(one.refused for one in slices),
    )
