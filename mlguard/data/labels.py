"""Labels as they come: durable before they are acknowledged, and the first one wins.

A label belongs to a query id.  The first that arrives is kept for ever; the same again is
nothing new; a different one is refused and recorded as a conflict, so that a second opinion can
never rewrite what a verdict was based on.  Labels are handed out in the order in which they
were stored, by a cursor that never skips one.

SQLite runs with a write-ahead log and ``synchronous=FULL``: when :meth:`LabelStore.put`
returns, the label survives a kill and a power cut.  Any number of processes and threads may
share one store.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from mlguard.errors import RegistryError, UsageError

Outcome = Literal["stored", "same", "conflict"]

#: Query ids are whole numbers that JSON readers everywhere keep exactly.
LARGEST_ID = 2**53 - 1
#: Seconds that a writer waits for another before it gives up.
BUSY_TIMEOUT_S = 10.0
#: Ids asked for in one statement; SQLite allows 32,766 parameters.
_IDS_PER_QUERY = 10_000

_METADATA = sa.MetaData()
_LABELS = sa.Table(
    "labels",
    _METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("query_id", sa.BigInteger, nullable=False, unique=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    # Numbers of deleted rows must not come back: the cursor would pass them by.
    sqlite_autoincrement=True,
)
_CONFLICTS = sa.Table(
    "label_conflicts",
    _METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("query_id", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class Label:
    """What really happened, for one prediction.

    Attributes
    ----------
    seq : int
        Place in the order of arrival, rising.
    query_id : int
        The prediction it belongs to.
    value : Any
        The label, a JSON value.
    source : str
        Who sent it.
    at : float
        When it was stored, seconds since the epoch.
    """

    seq: int
    query_id: int
    value: Any
    source: str
    at: float


def default_url(root: Path | str, app: str) -> str:
    """Return the URL of an app's label database below a log folder; makes the folder."""
    folder = Path(root).resolve() / app
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'labels.db'}"


class LabelStore:
    """The labels of one app.

    Parameters
    ----------
    url : str
        SQLAlchemy URL of its SQLite database; see :func:`default_url`.
    busy_timeout_s : float
        Seconds to wait for another writer.

    Raises
    ------
    RegistryError
        If the database cannot be opened; so does every method that cannot reach it.
    """

    def __init__(self, url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._engine = _engine(url, busy_timeout_s)
        with self._guarded("open"):
            # Reading first: a store that exists can be opened while somebody writes to it.
            if not set(_METADATA.tables) <= set(sa.inspect(self._engine).get_table_names()):
                with self._writing() as connection:
                    for table in _METADATA.sorted_tables:
                        connection.execute(CreateTable(table, if_not_exists=True))

    def put(self, query_id: int, label: Any, *, source: str, at: float) -> Outcome:
        """Store one label; it is durable when this returns.

        Parameters
        ----------
        query_id : int
            Which prediction, in [0, 2**53).
        label : Any
            A finite JSON value.
        source : str
            Who says so.
        at : float
            Now, seconds since the epoch.

        Returns
        -------
        {"stored", "same", "conflict"}
            Conflict: another label was there first and stays.

        Raises
        ------
        UsageError
            If the id or the label is not storable.
        RegistryError
            If the database failed; the label was not stored.
        """
        return self.put_many([(query_id, label, source, at)])[0]

    def put_many(self, labels: Iterable[tuple[int, Any, str, float]]) -> list[Outcome]:
        """Store many labels in one transaction: all are durable when this returns, or none.

        Parameters
        ----------
        labels : iterable of (query_id, label, source, at)
            As in :meth:`put`.

        Returns
        -------
        list of {"stored", "same", "conflict"}
            One for each label, in order.
        """
        rows: list[dict[str, Any]] = [
            {"query_id": _checked(query_id), "value": _text(value), "source": source, "at": at}
            for query_id, value, source, at in labels
        ]
        if not rows:
            return []
        with self._guarded("store labels"), self._writing() as connection:
            # Nobody else writes meanwhile: what is there is asked once, not for every label.
            first = self._values(connection, [row["query_id"] for row in rows])
            outcomes: list[Outcome] = []
            fresh, others = [], []
            for row in rows:
                query_id, value = row["query_id"], row["value"]
                if query_id not in first:
                    first[query_id] = value
                    fresh.append(row)
                    outcomes.append("stored")
                elif first[query_id] == value:
                    outcomes.append("same")
                else:
                    others.append(row)
                    outcomes.append("conflict")
            if fresh:
                connection.execute(sa.insert(_LABELS), fresh)
            if others:
                connection.execute(sa.insert(_CONFLICTS), others)
            return outcomes

    @staticmethod
    def _values(connection: sa.Connection, query_ids: Sequence[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for start in range(0, len(query_ids), _IDS_PER_QUERY):
            part = query_ids[start : start + _IDS_PER_QUERY]
            query = sa.select(_LABELS.c.query_id, _LABELS.c.value)
            rows = connection.execute(query.where(_LABELS.c.query_id.in_(part)))
            found.update((row.query_id, row.value) for row in rows)
        return found

    def get(self, query_ids: Sequence[int]) -> dict[int, Label]:
        """Return the labels of some predictions, by query id; one without a label is absent."""
        found: dict[int, Label] = {}
        with self._guarded("read labels"), self._engine.connect() as connection:
            for start in range(0, len(query_ids), _IDS_PER_QUERY):
                part = [int(one) for one in query_ids[start : start + _IDS_PER_QUERY]]
                rows = connection.execute(sa.select(_LABELS).where(_LABELS.c.query_id.in_(part)))
                found.update((row.query_id, _label(row)) for row in rows)
        return found

    def after(self, cursor: int, limit: int = 10_000) -> list[Label]:
        """Return the labels stored after ``cursor`` in order of arrival, at most ``limit``.

        The last one's ``seq`` is the next cursor; 0 starts at the beginning.
        """
        query = sa.select(_LABELS).where(_LABELS.c.seq > cursor).order_by(_LABELS.c.seq)
        with self._guarded("read labels"), self._engine.connect() as connection:
            return [_label(row) for row in connection.execute(query.limit(limit))]

    def cursor_at(self, at: float) -> int:
        """Return the cursor after which the labels stored from a time on are found."""
        first = sa.select(sa.func.min(_LABELS.c.seq)).where(_LABELS.c.at >= at)
        last = sa.select(sa.func.max(_LABELS.c.seq))
        with self._guarded("read labels"), self._engine.connect() as connection:
            found = connection.scalar(first)
            return (connection.scalar(last) or 0) if found is None else int(found) - 1

    def erase(self, query_ids: Iterable[int]) -> int:
        """Remove the labels of some predictions for ever; return how many there were.

        What refused labels said of them goes as well.  Places in the order of arrival are not
        given out again, so nobody who reads by a cursor misses a label.
        """
        ids = sorted({int(one) for one in query_ids})
        parts = [ids[at : at + _IDS_PER_QUERY] for at in range(0, len(ids), _IDS_PER_QUERY)]
        found = 0
        with self._guarded("erase labels"), self._writing() as connection:
            # Freed pages are overwritten, not only forgotten.
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
            for part in parts:
                gone = sa.delete(_LABELS).where(_LABELS.c.query_id.in_(part))
                found += connection.execute(gone).rowcount
                connection.execute(sa.delete(_CONFLICTS).where(_CONFLICTS.c.query_id.in_(part)))
        if found:
            with self._guarded("erase labels"), self._engine.connect() as connection:
                # The log of the database still holds the pages as they were.
                connection.commit()
                connection.connection.driver_connection.execute(  # type: ignore[union-attr]  # open
                    "PRAGMA wal_checkpoint(TRUNCATE)"
                )
        return found

    def conflicts(self) -> int:
        """Return how many labels were refused because another was there first."""
        return self._count(_CONFLICTS)

    def __len__(self) -> int:
        return self._count(_LABELS)

    def _count(self, table: sa.Table) -> int:
        query = sa.select(sa.func.count()).select_from(table)
        with self._guarded("count labels"), self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def close(self) -> None:
        """Close the connections; the store may be used again."""
        self._engine.dispose()

    def _writing(self) -> AbstractContextManager[sa.Connection]:
        """Give a transaction that no other writer shares: order of arrival is order of commit."""
        return self._engine.execution_options(writes=True).begin()

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise RegistryError(
                f"cannot {doing} in {self._engine.url.render_as_string()}: {cause}",
                hint="check that the database is reachable, writable and not full; try again",
            ) from error


def _engine(url: str, busy_timeout_s: float) -> sa.Engine:
    if sa.make_url(url).get_backend_name() != "sqlite":
        raise UsageError(f"labels are kept in SQLite, not in {url.partition(':')[0]}")
    engine = sa.create_engine(url, connect_args={"timeout": busy_timeout_s})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A transaction that starts as a reader and then writes may fail at once (SQLITE_BUSY)
        # instead of waiting, so writers say so from the start.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _checked(query_id: int) -> int:
    if isinstance(query_id, bool) or not isinstance(query_id, int):
        raise UsageError(f"a query id is a whole number, not {query_id!r}")
    if not 0 <= query_id <= LARGEST_ID:
        raise UsageError(f"query id {query_id} is out of range: 0 to {LARGEST_ID}")
    return query_id


def _text(value: Any) -> str:
    """Return the one way to write a label, so that equal labels are equal text."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)  # JSON does not tell 1 from 1.0
    try:
        return json.dumps(value, allow_nan=False, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{value!r} cannot be a label", hint="send a finite number, text or truth value"
        ) from error


def _label(row: Any) -> Label:
    return Label(row.seq, row.query_id, json.loads(row.value), row.source, row.at)
