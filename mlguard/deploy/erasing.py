"""``mlguard log erase``: a person's rows leave the prediction log and the labels.

What goes is noted in the audit trail as numbers and a reason; who it was is not, for that would
keep what was to be forgotten.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard.config import ProjectSettings
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.errors import UsageError

if TYPE_CHECKING:
    from mlguard.registry import Registry

#: A row that was answered a moment ago reaches the log within this time, in seconds.
FLUSHED_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What ``log erase`` removed, or would remove.

    Attributes
    ----------
    app : str
        Whose log it was.
    rows, labels : int
        Rows of predictions, and labels.
    dry_run : bool
        Whether nothing was changed.
    """

    app: str
    rows: int
    labels: int
    dry_run: bool

    @property
    def lines(self) -> tuple[str, ...]:
        """What to tell people."""
        if not self.rows + self.labels:
            return (f"{self.app}: nothing of that is in the log.",)
        verb = "would be erased" if self.dry_run else "erased"
        said = f"{self.app}: {self.rows} rows of the prediction log and {self.labels} labels {verb}"
        lines = (f"{said}.",)
        return (*lines, "Dry run: nothing was changed.") if self.dry_run else lines

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "log erase",
            "ok": True,
            "changed": bool(self.rows + self.labels) and not self.dry_run,
            "exit_code": 0,
            "app": self.app,
            "rows": self.rows,
            "labels": self.labels,
            "dry_run": self.dry_run,
            "lines": list(self.lines),
        }


def erase(
    project: ProjectSettings,
    registry: Registry,
    app: str,
    *,
    query_id: int | None = None,
    uid: str | None = None,
    reason: str = "",
    dry_run: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> Erased:
    """Remove one prediction, or all of one caller's, from log and labels.

    Parameters
    ----------
    app : str
        Whose log.
    query_id : int, optional
        One prediction.
    uid : str, optional
        All predictions that were asked with this ``uid``.  Exactly one of the two is given.
    reason : str
        Why, for the audit trail.
    dry_run : bool
        Count; change nothing.
    pause : callable
        Waits for rows that a server has still in memory.

    Raises
    ------
    UsageError
        If not exactly one of the two is given.
    """
    from mlguard.data.labels import LabelStore, default_url
    from mlguard.data.log_store import project_log

    if (query_id is None) == (uid is None):
        raise UsageError(
            "say whose rows: one query id, or one uid",
            hint="mlguard log erase APP --id QUERY_ID, or --uid UID",
        )
    log = project_log(project)
    if not dry_run and registry.live_servers():
        pause(FLUSHED_S)
    ids = [query_id] if query_id is not None else log.ids_of(app, uid=uid or "")
    with contextlib.closing(LabelStore(default_url(project.log_dir, app))) as labels:
        if dry_run:
            rows, n_labels = log.count(app, ids), len(labels.get(ids))
            return Erased(app=app, rows=rows, labels=n_labels, dry_run=True)
        # Labels first: where it ends half-way, the rows still say whose labels are left.
        n_labels = labels.erase(ids)
        rows = log.erase(app, ids, at=registry.clock())
        # Where the log has a store, what is left of its segments is carried there.
        project_log(project)
    if rows or n_labels:
        why = reason or "a person's rows were to be forgotten"
        registry.record(app, "erased", why, rows=rows, labels=n_labels)
    return Erased(app=app, rows=rows, labels=n_labels, dry_run=False)
