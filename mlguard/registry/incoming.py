"""Files on their way into a store, and what a killed process left of them.

Whoever writes one holds a lock on it until it has its name or is gone.  The system lets go of the
lock of a process that was killed, so a file that nobody holds, and that nobody has written to for
as long as a lease lasts, belongs to nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlguard.registry.liveness import LEASE_S

_PREFIX = ".incoming-"


@contextlib.contextmanager
def incoming(folder: Path) -> Iterator[Path]:
    """Make an empty file in a folder that nobody else uses; at the end it is removed or renamed.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=_PREFIX)
    try:
        # A file system without locks keeps its leftovers: `left_behind` cannot lock them either.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(descriptor)


def left_behind(folder: Path, now: float, *, remove: bool) -> list[tuple[str, int]]:
    """Find what killed processes left in a folder, and remove it.

    Parameters
    ----------
    folder : Path
        Where files are made by :func:`incoming`.
    now : float
        The time, in seconds since the epoch.
    remove : bool
        Whether to remove what is found.

    Returns
    -------
    list of (str, int)
        Name and size in bytes of each file, sorted by name.
    """
    found = []
    for path in sorted(folder.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                status = os.fstat(descriptor)
                # Younger than a lease: it may have been made, and not been locked yet.
                if now - status.st_mtime <= LEASE_S:
                    continue
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if remove:
                    path.unlink()
                found.append((path.name, status.st_size))
            finally:
                os.close(descriptor)
    return found
