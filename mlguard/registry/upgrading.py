"""Bringing the schema up to date, and never in the middle of somebody's deployment.

An older mlguard that is rolling a version out speaks the older schema; its next command would
meet the newer one half way through.  So the migration waits for that deployment's lease: until it
has ended, or its process is gone, or it was silent for too long.  A deployment that goes on
longer than anybody should wait at a prompt is named, exit 4, and nothing is changed.

Between the look and the change nobody may begin one.  On SQLite the writing transaction is the
only one there is.  On PostgreSQL every command of an app begins by locking the app's row, so the
table of these rows is locked against that; reading goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from mlguard.errors import ConflictError
from mlguard.registry.liveness import LEASE_S, Owner, expired

if TYPE_CHECKING:
    from mlguard.registry.database import Database

#: How often a migration looks whether a deployment has ended, in seconds.
POLL_S = 0.25
#: How long it waits: a lease that nobody renews has ended by then.
PATIENCE_S = LEASE_S + 5.0
# Any constant that no other program is likely to lock: "mlguard" in ASCII.
_MIGRATION_LOCK = 0x6D6C6775617264


def upgrade(
    database: Database,
    *,
    target: str = "head",
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Migrate the schema in one transaction, when no deployment is under way.

    Parameters
    ----------
    database : Database
        Empty, or of an older revision.
    target : str
        Revision to go to.
    clock : callable
        The time in seconds since the epoch, by which leases end.
    sleep : callable
        Pauses for some seconds; handed in so that tests need not wait.

    Raises
    ------
    ConflictError
        If a deployment was still under way when patience ended; nothing was changed.
    """
    for _ in range(int(PATIENCE_S / POLL_S)):
        if _attempt(database, target, clock) is None:
            return
        sleep(POLL_S)
    said = _attempt(database, target, clock)
    if said is not None:
        raise said


def _attempt(database: Database, target: str, clock: Callable[[], float]) -> ConflictError | None:
    """Migrate, or return what stands in the way."""
    # Imported here: alembic costs more than everything else a current registry needs.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "mlguard.registry:migrations")
    config.set_main_option("path_separator", "os")
    with database.write() as connection:
        if database.path is None:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        if database.has_table(connection, "operations"):
            if database.path is None:
                connection.execute(text("LOCK TABLE apps IN EXCLUSIVE MODE"))
            running = _under_way(connection, clock())
            if running is not None:
                return running
        # Somebody else may have done it while this process waited for the lock; alembic finds
        # the revision inside the transaction and then does nothing.
        config.attributes["connection"] = connection
        command.upgrade(config, target)
    return None


def _under_way(connection: Connection, now: float) -> ConflictError | None:
    """Return who deploys what, in words that hold for every revision of the schema."""
    rows = connection.execute(
        text("SELECT app, id, kind, owner, started_at, beat_at FROM operations ORDER BY app")
    )
    for one in rows:
        if expired(one.owner, one.beat_at, now):
            continue
        holder = str(Owner.from_text(one.owner))
        return ConflictError(
            f"{one.app}: {holder} has been running {one.kind} {one.id} for "
            f"{max(now - one.started_at, 0):.0f} s, with an older mlguard; the registry's schema "
            "is brought up to date when that has ended",
            hint=f"let it end, or end it where it was begun: mlguard abort {one.app}",
            clause="lease",
            operation=one.id,
            owner=holder,
        )
    return None
