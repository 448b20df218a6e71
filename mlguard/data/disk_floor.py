"""When to stop writing data, so that what decides can still be written.

Below a floor of free space the prediction log stops; what is lost is counted, and the server
answers as before.  It goes on by itself when there is space again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Free space is asked for at most so often, in seconds.
_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Disk:
    """Free space of one file system, and the floor under it; in bytes."""

    free: int
    floor: int

    @property
    def low(self) -> bool:
        """Whether no data is to be written."""
        return self.free < self.floor

    def says(self) -> str:
        """Return it as a sentence for people."""
        text = f"{self.free / 2**20:,.0f} MiB free, floor {self.floor / 2**20:,.0f} MiB"
        return f"{text}: predictions are not logged" if self.low else text


def disk_of(folder: Path, floor: int) -> Disk | None:
    """Return the free space where a folder is, or will be made; None where it cannot be told."""
    for place in (folder, *folder.parents):
        try:
            found = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return Disk(found.f_bavail * found.f_frsize, floor)
    return None


class DiskFloor:
    """Watches the free space of one folder.

    Parameters
    ----------
    folder : Path
        Where data is written.
    floor : int
        Bytes; 0: never stop.
    clock : callable, default time.monotonic
        Seconds.
    """

    def __init__(
        self, folder: Path, floor: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._floor = floor
        self._clock = clock
        self._asked_at = -float("inf")
        self.disk: Disk | None = None

    def low(self) -> bool:
        """Return whether no data is to be written now."""
        now = self._clock()
        if now - self._asked_at >= _EVERY_S:
            self._asked_at = now
            self.disk = disk_of(self._folder, self._floor)
        return self.disk is not None and self.disk.low
