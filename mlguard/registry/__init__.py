"""The registry: which versions exist, what serves, who changed it and why.

One SQL database (SQLite on one machine, PostgreSQL beyond) holds every fact; one artifact
store holds immutable bytes named by their SHA-256.  :class:`Registry` is the face of both.

========================  =================================================================
``lifecycle``             the table of states and the guards of every move: pure
``records``               what is handed out
``tables``, ``migrations``  the schema
``database``              engines, transactions, errors
``upgrading``             an older schema becomes the present one, when nobody is deploying
``liveness``              who owns a lease, and whether that process is still there
``artifacts``             bytes by digest: in a folder (``blobs``) or elsewhere (``bucket``)
``incoming``              files on their way there, and what was left of them
``audit``                 the hash-chained trail
``apps``                  what serves: the pointer and what hangs on it
``versions``              registration, states without traffic, evidence, references
``incidents``             incidents, holds, quarantine
``waiver_book``           promises to mend a finding by a date, as they stand now
``waiving``               giving and revoking them
``operations``            who is rolling out what, one at a time per app
``promotion``             forward: stage, promote, confirm
``stepping``              forward step by step: shadow, canary; or out again
``rollback``              backward: to an earlier version, to the default output
``reconcile``             what crashed is put in order
``outbox``                mail that a transaction promised
``servers``               heartbeats, query ids, leader leases
``observations``          state and results of the monitors
``upkeep``                verify, repair, collect
``store``                 the face
========================  =================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlguard.registry.artifacts import ArtifactStore
    from mlguard.registry.lifecycle import Mode, State
    from mlguard.registry.outbox import Outbox
    from mlguard.registry.records import (
        AppState,
        Event,
        Evidence,
        Hold,
        IdBlock,
        Incident,
        Operation,
        OutboxRow,
        Quarantine,
        Rolling,
        Server,
        Version,
    )
    from mlguard.registry.store import Registry

# SQLAlchemy is loaded when the first name that needs it is used, not by importing lifecycle.
_HOME = {
    "AppState": "records",
    "ArtifactStore": "artifacts",
    "Event": "records",
    "Evidence": "records",
    "Hold": "records",
    "IdBlock": "records",
    "Incident": "records",
    "Mode": "lifecycle",
    "Operation": "records",
    "Outbox": "outbox",
    "OutboxRow": "records",
    "Quarantine": "records",
    "Registry": "store",
    "Rolling": "records",
    "Server": "records",
    "State": "lifecycle",
    "Version": "records",
}

__all__ = [
    "AppState",
    "ArtifactStore",
    "Event",
    "Evidence",
    "Hold",
    "IdBlock",
    "Incident",
    "Mode",
    "Operation",
    "Outbox",
    "OutboxRow",
    "Quarantine",
    "Registry",
    "Rolling",
    "Server",
    "State",
    "Version",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
