"""What a version's batches are handed to: the data that passes, and the one way to pass it.

Two kinds of replicas keep this contract.  :class:`~mlguard.serving.replicas.ReplicaPool` runs
the model in processes of its own, and is for everything that is somebody's code;
:class:`~mlguard.serving.inprocess.InProcessReplica` runs it beside the event loop, and is for
what cannot run code.  A version does not know which one it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """A version to load.

    Attributes
    ----------
    id : int
        The registry's number; 0 never occurs.
    name : str
        As people call it.
    manifest : dict
        Its manifest as JSON.
    model_path : str
        File with its verified bytes.
    """

    id: int
    name: str
    manifest: dict[str, Any]
    model_path: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a replica loads, and how far it may go.

    Attributes
    ----------
    manifest : dict
        The version's manifest.
    model_path : str
        File with the verified bytes.
    memory_mib : int
        Memory limit in MiB.
    wall_limit_s : float
        Longest that one batch may take, in seconds.
    load_timeout_s : float
        Longest that loading may take, in seconds.
    stuck_s : float
        Time after which a batch's replica gets a stand-in, in seconds.
    cpu_limit_s : float
        Most processor time that one batch, with what it leaves running, may take, in seconds.
    heartbeat_s : float
        Time without a sign of life after which an idle process is replaced, in seconds.
    """

    manifest: dict[str, Any]
    model_path: str
    memory_mib: int
    wall_limit_s: float
    load_timeout_s: float = 60.0
    stuck_s: float = 1.0
    cpu_limit_s: float = 60.0
    heartbeat_s: float = 10.0


@dataclass(slots=True)
class BatchAnswer:
    """What became of one batch.

    Attributes
    ----------
    labels, scores : list
        One per row.
    errors : dict
        Why a row has no label, by its index.
    took_s : float
        Seconds from handing in to coming back.
    lost : bool
        Whether the process ended with the batch in its hands.
    table : ndarray of float64, shape (n_rows, n_features), or None
        The rows as they were handed to the model, where they are nothing but numbers.
    """

    labels: list[Any]
    scores: list[float | None]
    errors: dict[int, str] = field(default_factory=dict)
    took_s: float = 0.0
    lost: bool = False
    table: npt.NDArray[np.float64] | None = None

    @classmethod
    def lost_with(cls, n: int, reason: str) -> BatchAnswer:
        """Return a batch of ``n`` rows that went down with their process."""
        return cls([None] * n, [None] * n, dict.fromkeys(range(n), reason), lost=True)


def as_table(rows: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Return rows of numbers as one array of shape (n_rows, n_features); None: they are others.

    Missing values become NaN.
    """
    try:
        table = np.asarray(rows, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return table if table.ndim == 2 else None


class Replica(Protocol):
    """Takes one batch at a time for each worker, and gives every batch back exactly once."""

    @property
    def workers(self) -> int:
        """Batches that may run at the same time, at least 1."""

    @property
    def ready(self) -> bool:
        """Whether the model is loaded somewhere."""

    @property
    def free(self) -> bool:
        """Whether a batch would be taken now."""

    @property
    def inline(self) -> bool:
        """Whether a batch runs before :meth:`run` returns."""

    @property
    def pids(self) -> list[int]:
        """Processes of its own that it has."""

    async def start(self) -> None:
        """Load and warm the model; raises :class:`MlguardError` if that fails."""

    def run(self, rows: list[Any], done: Callable[[BatchAnswer], None]) -> bool:
        """Take a batch, and call ``done`` once with its answer; False if there is no room.

        ``done`` may be called before this returns.
        """

    async def close(self) -> None:
        """End; whatever is still in hand comes back as failed."""
