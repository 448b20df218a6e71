"""Who owns a lease, and whether that process is still there.

A lease is a row with a heartbeat.  It ends when nobody beats for its time to live, and at
once when its owner ran on this host, in this boot and in this process namespace, and is gone:
a killed deployment or server never makes the next one wait.

A heartbeat that lies further in the future than a lease lasts was written by a clock that has
gone back since; it is void too, or a dead owner would block for as long as the clock jumped.
That a live owner may lose a lease this way is harmless: leases only decide who may try, fences
and generations decide what is written.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

#: Seconds without a sign of life after which somebody else may take over.
LEASE_S = 30.0


@dataclass(frozen=True, slots=True)
class Owner:
    """One process, told apart from any other that has or had its number.

    Attributes
    ----------
    host : str
        Name of the machine.
    space : str
        Boot and process namespace: numbers are comparable only within one.
    pid : int
        Process number.
    born : str
        When that process was started, in units of its system; numbers are used again.
    """

    host: str
    space: str
    pid: int
    born: str

    def to_text(self) -> str:
        """Return the owner for a text column."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Owner:
        """Rebuild an owner from :meth:`to_text`."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def gone(self) -> bool:
        """Return whether the process is known to be gone; False where it cannot be told."""
        here = this_process()
        if self.host != here.host:
            return False
        if self.space != here.space:
            # Another boot of this host: gone.  Another namespace: cannot be told.
            return self.space.partition("/")[0] != here.space.partition("/")[0]
        return _born(self.pid) != self.born


def _born(pid: int) -> str | None:
    """Return when a process was started; None where there is none, or only its zombie."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            # The name stands in parentheses and may hold anything; what follows is plain.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        # Ticks since boot: unlike a time of day, no clock change moves them.
        return None if fields[0] in "ZX" else fields[19]
    # Where there is no /proc.
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.0f}"
    except psutil.NoSuchProcess:
        return None


def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # The link itself is the namespace's identity; it points to no file.
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        import psutil

        return f"{psutil.boot_time():.0f}/"
    return f"{boot}/{namespace}"


@cache
def _this(pid: int) -> Owner:
    return Owner(socket.gethostname(), _space(), pid, _born(pid) or "")


def this_process() -> Owner:
    """Return the process that asks."""
    # By number, because a forked child inherits what its parent remembered.
    return _this(os.getpid())


def expired(owner: str, beat_at: float, now: float, ttl_s: float = LEASE_S) -> bool:
    """Return whether a lease has ended.

    Parameters
    ----------
    owner : str
        ``Owner.to_text()`` of its holder.
    beat_at, now : float
        Last sign of life and the time, in seconds since the epoch.
    ttl_s : float
        Seconds that it lasts without a sign of life.

    Returns
    -------
    bool
    """
    return abs(now - beat_at) > ttl_s or Owner.from_text(owner).gone()
