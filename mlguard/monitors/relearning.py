"""``relearn``: a loss that has been lower for long becomes what is acceptable.

A version that got better, because the world became easier, could later lose all it gained
without an alarm: what is acceptable was learned on harder data.  So the labels of calm windows
are gathered into stretches, and where two in a row prove a lower loss, the larger of their two
bounds becomes the new limit.  A limit is never raised: what got worse slowly must not become
normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from mlguard.stats.sequential import reference_bound

#: Labels of one stretch.
STRETCH = 1000


@dataclass(slots=True)
class Relearning:
    """What the calm windows since the last lesson have shown.

    Attributes
    ----------
    total : float
        Sum of the losses of the open stretch.
    n : int
        Its labels.
    bound : float or None
        What the stretch before would accept; None where there is none yet.
    accepted : float or None
        The limit that the version was accepted with; None until a window was taken.
    """

    total: float = 0.0
    n: int = 0
    bound: float | None = None
    accepted: float | None = None

    def take(self, total: float, n: int, *, theta: float, tolerance: float) -> float | None:
        """Add a calm window; return the new limit where it is time for one.

        Parameters
        ----------
        total : float
            Sum of its losses.
        n : int
            Its labels.
        theta : float
            The limit in force.
        tolerance : float
            Rise of the loss that is ignored.
        """
        if self.accepted is None:
            self.accepted = theta
        self.total += total
        self.n += n
        if self.n < STRETCH:
            return None
        bound = reference_bound(self.total, self.n, tolerance=tolerance)
        before, self.bound = self.bound, bound
        self.total, self.n = 0.0, 0
        if before is None or max(before, bound) >= theta:
            return None
        return max(before, bound)

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs, as JSON values."""
        return asdict(self)

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> Self:
        """Go on from :meth:`snapshot`."""
        return cls(**document)
