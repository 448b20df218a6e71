"""Time that nobody can set: how long a version was watched, and how old a move is.

A wall clock that jumps must never shorten a guard (grace, cooldown, budget, bake).  So passes
add up the monotonic seconds between them.  Across a restart on the same boot the monotonic
clock goes on; across a reboot, and between machines, only the wall clock can tell, and it is
believed for a few minutes at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

#: How much of a gap the wall clock alone can vouch for.
GAP_S = 300.0


@cache
def boot_id() -> str:
    """Return what names this boot of this machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopwatch:
    """Seconds that passed, as far as they can be vouched for.

    Attributes
    ----------
    elapsed_s : float
        Since it was started.
    served_s : float
        Of these, with a server that answered.
    wall, monotonic, boot
        The two clocks at the last reading, and the boot that the second belongs to.
    moves : dict of str to float
        Time of a move, as text -> ``elapsed_s`` when it was first seen.
    """

    elapsed_s: float = 0.0
    served_s: float = 0.0
    wall: float | None = None
    monotonic: float = 0.0
    boot: str = ""
    moves: Mapping[str, float] = field(default_factory=dict)

    def read(self, *, wall: float, monotonic: float, boot: str, serving: bool) -> Stopwatch:
        """Return the stopwatch after another reading of the clocks."""
        if self.wall is None:
            passed = 0.0
        elif boot == self.boot and monotonic >= self.monotonic:
            passed = monotonic - self.monotonic
        else:
            passed = min(max(wall - self.wall, 0.0), GAP_S)
        return replace(
            self,
            elapsed_s=self.elapsed_s + passed,
            served_s=self.served_s + (passed if serving else 0.0),
            wall=wall,
            monotonic=monotonic,
            boot=boot,
        )

    def seen(self, moves: Sequence[float]) -> Stopwatch:
        """Note when moves were first seen, and forget those that are not named."""
        return replace(
            self, moves={repr(at): self.moves.get(repr(at), self.elapsed_s) for at in moves}
        )

    def ages(self, moves: Sequence[float]) -> tuple[float, ...]:
        """Return how old moves are, counted from when they were first seen."""
        return tuple(self.elapsed_s - self.moves.get(repr(at), self.elapsed_s) for at in moves)

    def to_json(self) -> dict[str, Any]:
        """Return the stopwatch as JSON values."""
        return {
            "elapsed_s": self.elapsed_s,
            "served_s": self.served_s,
            "wall": self.wall,
            "monotonic": self.monotonic,
            "boot": self.boot,
            "moves": dict(self.moves),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Stopwatch:
        """Rebuild the stopwatch from :meth:`to_json`; None is one that never ran."""
        return cls() if document is None else cls(**document)
