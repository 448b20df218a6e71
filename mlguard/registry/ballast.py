"""Room for one more decision: a file that is given up when the disk is full.

On a full disk even the few bytes of a rollback cannot be committed, and that is when somebody
wants to go back.  So a server keeps a file of 16 MiB beside its registry; a write that decides
something removes it first where hardly anything is free.  Data (verdicts, monitors' memory) must
do without.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

#: Bytes that are kept, and bytes that a decision may need: pages of the log, a checkpoint.
SIZE = 16 << 20
NEEDED = 4 << 20


def free_bytes(folder: Path) -> int:
    """Return the bytes that may still be written to the file system of a folder."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Ballast:
    """The file beside one registry.

    Parameters
    ----------
    registry : Path
        The registry's file.
    """

    def __init__(self, registry: Path) -> None:
        self.path = registry.with_name(f"{registry.name}.ballast")

    def keep(self) -> bool:
        """Make the file if it is not there and the disk has room; return whether it is there."""
        if self.path.exists():
            return True
        temporary = None
        try:
            if free_bytes(self.path.parent) < SIZE + NEEDED:
                return False
            descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".ballast-")
            try:
                # Zeros that are only promised, as in a sparse file, would give nothing back.
                os.posix_fallocate(descriptor, 0, SIZE)
            finally:
                os.close(descriptor)
            Path(temporary).replace(self.path)
        except OSError:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            return False
        return True

    def make_room(self) -> None:
        """Give the file up where hardly anything is free."""
        with contextlib.suppress(OSError):
            if self.path.exists() and free_bytes(self.path.parent) < NEEDED:
                self.path.unlink()
