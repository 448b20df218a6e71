"""Rows shown to a version that does not answer them: a shadow, or the predecessor of a new one.

A row is shown after the live answer was made, in a later turn of the loop, with the query id of
that answer, so that both can be held against the same label.  What the mirror answers is logged
in a folder of its own and discarded.  A mirror that cannot keep up loses rows, never callers: its
queue refuses them and they are counted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard.data.mirrored import mirrored_folder
from mlguard.serving.admission import Origin, Waiting
from mlguard.serving.answers import UNUSUAL_ROW
from mlguard.serving.replying import facts_of
from mlguard.serving.routing import Split, shown_to

if TYPE_CHECKING:
    from mlguard.serving.engine import AppEngine
    from mlguard.serving.served_version import ServedVersion

#: Rows that may wait to be shown; more are dropped.
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Row:
    mirror: int
    asked: ServedVersion
    live: Waiting
    cells: Any
    query_id: int


class Mirrors:
    """Shows rows of one app to the versions that its split names.

    Parameters
    ----------
    app : AppEngine
        The app.
    """

    def __init__(self, app: AppEngine) -> None:
        self._app = app
        self._rows: list[_Row] = []
        self._scheduled = False
        self._random = random.Random()  # noqa: S311 - draws a share, guards nothing
        #: Rows that a mirror was too busy, or not able, to take.
        self.dropped = 0

    def show(
        self, split: Split, asked: ServedVersion, numbered: Sequence[tuple[Waiting, Sequence[int]]]
    ) -> None:
        """Put answered rows aside for whoever is to see them; callers have their replies.

        Parameters
        ----------
        split : Split
            Who takes part.
        asked : ServedVersion
            Who answered.
        numbered : sequence of (Waiting, list of int)
            Requests, each with the query ids of its rows.
        """
        for live, ids in numbered:
            for mirror in shown_to(split, self._random.random()):
                if mirror == asked.spec.id:
                    continue
                for cells, answer, query_id in zip(live.rows, live.answers, ids, strict=True):
                    # Rows that no model was asked say nothing of one.
                    if answer is None or answer.explanation == UNUSUAL_ROW:
                        continue
                    if len(self._rows) >= _MOST:
                        self._drop()
                        continue
                    self._rows.append(_Row(mirror, asked, live, cells, query_id))
        if self._rows and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _drop(self) -> None:
        """Count a row that no mirror was shown."""
        self.dropped += 1
        self._app.metrics.mirror_dropped.labels(self._app.name).inc()

    def _flush(self) -> None:
        self._scheduled = False
        rows, self._rows = self._rows, []
        for one in rows:
            self._ask(one)

    def _ask(self, one: _Row) -> None:
        version = self._app.versions.get(one.mirror)
        if version is None:
            return
        cells = as_read_by(version, one.asked, one.cells)
        if cells is None:
            self._drop()
            return
        request = one.live.request
        now = time.monotonic()
        deadline = now + self._app.settings.app.slo_ms / 1000
        generation = one.live.origin.generation
        origin = Origin(version.name, generation, (one.mirror, generation))
        shown = Waiting(request, [cells], version, origin, _nobody, [None], 1, now, deadline)
        shown.mirrors = one.query_id
        if version.given.thresholds is not None:
            # Who had a threshold of their group came with a key.
            known = None if one.live.threshold is None else "known"
            shown.threshold = version.given.threshold_for(request, known)
        if not version.admit(shown):
            self._drop()

    def answered(self, version: ServedVersion, shown: Waiting, at: float) -> None:
        """Log what a mirror answered; nobody else hears of it.

        Parameters
        ----------
        version : ServedVersion
            The mirror.
        shown : Waiting
            One row, with its answer.
        at : float
            The time, seconds since the epoch.
        """
        recorder = self._app.recorder
        if recorder is None or shown.mirrors is None:
            return
        target = dataclasses.replace(
            version.log_target, version_id=mirrored_folder(version.spec.id), grid=None
        )
        (answer,) = shown.answers
        assert answer is not None
        took = [time.monotonic() - shown.arrived]
        why = [answer.explanation]
        ids = [shown.mirrors]
        recorder.put(
            target, facts_of([shown], [answer], ids, took, reasons=why, version=version, at=at)
        )


def _nobody(_body: bytes, _origin: Origin) -> None:
    """Stand for the caller whom a mirror does not have."""


def as_read_by(version: ServedVersion, asked: ServedVersion, cells: Any) -> Any:
    """Return a row, as one version read it, in the order of another; None where it lacks columns.

    Only tables name their columns; elsewhere a row is its cells in the order they were sent.
    """
    by_name = asked.schema.input == "table"
    return reordered(cells, asked.schema.names, version.schema.names, by_name=by_name)


def reordered(
    cells: Any, names: Sequence[str], wanted: Sequence[str], *, by_name: bool = True
) -> Any:
    """Return a row in another order of columns; None where it lacks one of them.

    Parameters
    ----------
    cells : list or other
        A row; what is no list (a string, bytes) is the same for every version.
    names, wanted : sequence of str
        Columns in the order of the row, and in the order that is wanted.
    by_name : bool, default True
        Whether a column is found by its name; else by its place, and names say nothing.
    """
    if not isinstance(cells, list) or tuple(names) == tuple(wanted):
        return cells
    if not by_name:
        return cells if len(cells) == len(wanted) else None
    place = {name: index for index, name in enumerate(names)}
    if any(name not in place for name in wanted):
        return None
    return [cells[place[name]] for name in wanted]
