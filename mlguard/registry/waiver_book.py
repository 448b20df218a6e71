"""Reading waivers inside somebody's transaction: all of an app's, or those that serve.

The time that an expiry is held against is the largest that was ever seen: the clock of whoever
asks, or that of the newest event if it is later.  So a clock that goes back prolongs nothing.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, select

from mlguard.registry import audit
from mlguard.registry.tables import apps, evidence, versions, waivers
from mlguard.results import GateDecision
from mlguard.waivers import Waiver, WaiverBook


def waiver_of(row: Row[Any]) -> Waiver:
    """Return the waiver of a row of the table ``waivers``."""
    values = row._asdict()
    values["check"] = values.pop("check_id")
    return Waiver(**values)


def book_of(connection: Connection, app: str, clock: float) -> WaiverBook:
    """Return an app's waivers, newest first, and the time they are held against."""
    rows = connection.execute(
        select(waivers).where(waivers.c.app == app).order_by(waivers.c.id.desc())
    )
    now = max(clock, audit.latest_time(connection))
    return WaiverBook(tuple(waiver_of(row) for row in rows), now)


def serving_book(connection: Connection, app: str, clock: float) -> WaiverBook:
    """Return only the waivers that the version that serves needed, valid or ended."""
    book = book_of(connection, app, clock)
    if not book.waivers:
        return book
    row = connection.execute(
        select(versions.c.digest, evidence.c.decision)
        .select_from(apps.join(versions, apps.c.active == versions.c.id))
        .join(evidence, (evidence.c.app == apps.c.app) & (evidence.c.digest == versions.c.digest))
        .where(apps.c.app == app)
        .order_by(evidence.c.id.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return WaiverBook((), book.now)
    results = GateDecision.from_json(json.loads(row.decision)).results
    return WaiverBook(book.leaned_on(results, row.digest), book.now)
