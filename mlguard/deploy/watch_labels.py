"""Labels in the order in which they arrived, each beside the prediction that it belongs to.

A label is credited to the version and generation that answered, which the block of its query
id tells, however late it comes.  A label whose prediction is not in the log yet stops the
reading for a moment (the log is flushed within a second); after that the prediction counts as
lost and the label is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlguard.monitors.window import Coverage, WindowData, window_data

if TYPE_CHECKING:
    import pyarrow as pa

    from mlguard.data.labels import Label
    from mlguard.data.prediction_log import PredictionLog

#: Seconds in which the prediction of a fresh label may still be on its way into the log.
SETTLE_S = 10.0
#: Labels read at once: what a burst of labels may take of memory.
BATCH = 2000


class Labels(Protocol):
    """What is read of an app's label store."""

    def after(self, cursor: int, limit: int = ...) -> list[Label]:
        """Return labels in order of arrival."""

    def get(self, query_ids: list[int]) -> dict[int, Label]:
        """Return labels by query id."""

    def cursor_at(self, at: float) -> int:
        """Return the cursor after which the labels stored from a time on are found."""


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answered a query: None where nobody did, or it is not known."""

    version_id: int | None
    generation: int


#: Finds who answered a query id; None where it was never given out.
WhoAnswered = Callable[[int], Answerer | None]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some labels, joined.

    Attributes
    ----------
    cursor : int
        Place of the last label taken; where to go on.
    parts : dict of Answerer to WindowData
        Labelled rows of each version and generation, in order of arrival.
    n_lost : int
        Labels without a prediction in the log.
    """

    cursor: int
    parts: dict[Answerer, WindowData]
    n_lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReader:
    """Reads one app's labels.

    Attributes
    ----------
    labels, log
        Where labels and predictions are.
    app : str
        Whose.
    now : float
        The time.
    who, name_of : callable
        Find who answered a query, and the name of a version.
    trusted : frozenset of str
        Sources whose labels are given; empty: all.
    """

    labels: Labels
    log: PredictionLog
    app: str
    now: float
    who: WhoAnswered
    name_of: Callable[[int], str]
    trusted: frozenset[str] = frozenset()

    def trusts(self, label: Label) -> bool:
        """Whether anything may be judged by a label."""
        return not self.trusted or label.source in self.trusted

    def read(
        self,
        cursor: int,
        *,
        coverage: Callable[[Answerer], Coverage | None] = lambda _: None,
        only: Answerer | None = None,
    ) -> Iterator[Batch]:
        """Give the labels that arrived after ``cursor``, batch by batch.

        Parameters
        ----------
        cursor : int
            The last label that was taken; 0 starts at the beginning.
        coverage : callable
            Says how mature the labels of a version in a generation are.
        only : Answerer, optional
            Leave out what others answered.
        """
        while True:
            found = self.labels.after(cursor, BATCH)
            batch = self._join(found, cursor, coverage, only)
            if batch.cursor == cursor:
                return
            cursor = batch.cursor
            yield batch
            if len(found) < BATCH:
                return

    def _join(
        self,
        found: list[Label],
        cursor: int,
        coverage: Callable[[Answerer], Coverage | None],
        only: Answerer | None,
    ) -> Batch:
        owners = {one.query_id: self.who(one.query_id) for one in found}
        tables = {
            owner: self.log.read(
                self.app,
                version_id=owner.version_id,
                generation=owner.generation,
                query_ids=[query_id for query_id, one in owners.items() if one == owner],
            )
            for owner in set(owners.values())
            if owner is not None
            and owner.version_id is not None
            and (only is None or owner == only)
        }
        logged = {
            query_id
            for table in tables.values()
            for query_id in table.column("query_id").to_pylist()
        }
        taken: list[Label] = []
        n_lost = 0
        for label in found:
            if owners[label.query_id] in tables and label.query_id not in logged:
                # The age may be negative where the clock was set back: no reason to wait.
                if 0 <= self.now - label.at < max(SETTLE_S, self.log.late_s):
                    break
                n_lost += 1
            taken.append(label)
        by_id = {one.query_id: one for one in taken if one.query_id in logged and self.trusts(one)}
        parts = {}
        for owner, table in tables.items():
            part = _labelled(table, by_id)
            if part.num_rows and owner.version_id is not None:
                data = window_data(
                    part,
                    version=self.name_of(owner.version_id),
                    labels=by_id,
                    coverage=coverage(owner),
                )
                parts[owner] = data.take(data.seq.argsort(kind="stable"))
        return Batch(taken[-1].seq if taken else cursor, parts, n_lost)


def _labelled(table: pa.Table, by_id: dict[int, Label]) -> pa.Table:
    import pyarrow as pa

    ids = table.column("query_id").to_pylist()
    # A row may stand in the log twice where its process was killed while it flushed.
    first: dict[int, int] = {}
    for place, query_id in enumerate(ids):
        if query_id in by_id:
            first.setdefault(query_id, place)
    # With the type spelt out: of no places at all Arrow would not know that they are numbers.
    return table.take(pa.array(sorted(first.values()), pa.int64()))
