"""The process a model runs in: ``python -m mlguard.serving.replica_child FD PARENT_PID``.

A model can raise, hang, leak, crash or call ``os._exit``; here that costs the rows in its
hands and nothing else.  One message is one batch, both ways, over the socket FD; a message is
four bytes of length (little-endian) and MessagePack.

::

    parent                                   child
    {"manifest", "model_path", "memory_mib", "cpu_limit_s"} →
                                             ← {"ready": true} | {"failed": reason}
    [number, rows]                           →
                                             ← [number, labels, scores, errors, rss_mib]

A message without a body is a heartbeat, and comes back as it is: whoever holds the interpreter's
lock, or has been stopped, cannot send it.

The kernel counts the processor time of a batch, all threads together, and ends the process at
``cpu_limit_s``.  The count begins anew with each batch, and at a heartbeat where the process has
been at rest since the last one: what a batch leaves running is its own.

``errors`` maps the index of a row to why it has no label
(:class:`~mlguard.serving.model_runner.Model`).

The child dies with its parent: by the kernel's hand where there is one (a hanging model would
not notice a closed socket), by the closed socket elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mlguard.serving.model_runner import Model

LENGTH = struct.Struct("<I")
_PR_SET_PDEATHSIG = 1
#: Message without a body.
HEARTBEAT = LENGTH.pack(0)
#: Most that a process at rest uses, as a share of the time.  Low: on a busy machine one that burns
#: all it can get may not get much.
_RESTED = 0.1
#: Seconds between two looks at the resident size: no model fills its memory in so few.
_LOOK_S = 0.02
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def die_with_parent(parent: int, sig: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send ``sig`` when the parent dies; leave if it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, sig, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


class Channel:
    """Messages over a blocking socket."""

    def __init__(self, sock: socket.socket, on_heartbeat: Callable[[], None]) -> None:
        self._sock = sock
        self._on_heartbeat = on_heartbeat
        self._encoder = msgspec.msgpack.Encoder(enc_hook=str)

    def send(self, message: Any) -> None:
        """Send one message whole."""
        body = self._encoder.encode(message)
        self._sock.sendall(LENGTH.pack(len(body)) + body)

    def receive(self) -> Any:
        """Return the next message, or None when the other side has gone."""
        while (head := self._exactly(LENGTH.size)) == HEARTBEAT:
            self._on_heartbeat()
            self._sock.sendall(HEARTBEAT)
        if head is None:
            return None
        body = self._exactly(LENGTH.unpack(head)[0])
        return None if body is None else msgspec.msgpack.decode(body)

    def _exactly(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            part = self._sock.recv(min(size - len(parts), 1 << 20))
            if not part:
                return None
            parts += part
        return bytes(parts)


class Resident:
    """The resident size of this process, looked at now and then: a look costs as much as a row."""

    def __init__(self) -> None:
        self._mib = 0.0
        self._at = -_LOOK_S

    def mib(self) -> float:
        """Return the size in MiB."""
        now = time.monotonic()
        if now - self._at >= _LOOK_S:
            self._at = now
            self._mib = self._look()
        return self._mib

    @staticmethod
    def _look() -> float:
        try:
            return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE_MIB
        except OSError:  # no /proc: the highest the process ever had stands in
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class ProcessorTime:
    """A count of processor time that the kernel ends the process at."""

    def __init__(self) -> None:
        self._limit_s = 0.0
        self._at = (time.process_time(), time.monotonic())

    def limit(self, seconds: float) -> None:
        """Set the limit; counting begins with :meth:`begin`."""
        self._limit_s = seconds

    def begin(self) -> None:
        """Begin to count anew.  One system call: it is made for every batch."""
        # Its signal ends a process that does not catch it, and leaves no core file.
        signal.setitimer(signal.ITIMER_PROF, self._limit_s)

    def heartbeat(self) -> None:
        """Begin anew where the process has rested since the last heartbeat."""
        used, now = time.process_time(), time.monotonic()
        if used - self._at[0] <= _RESTED * (now - self._at[1]):
            self.begin()
        self._at = (used, now)


def main(arguments: list[str]) -> None:
    """Load the model named by the first message, then answer batches until the end."""
    descriptor, parent = (int(argument) for argument in arguments)
    die_with_parent(parent)
    # Ctrl-C is the supervisor's business: it stops its children in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processor = ProcessorTime()
    resident = Resident()
    channel = Channel(socket.socket(fileno=descriptor), processor.heartbeat)
    order = channel.receive()
    if order is None:
        return
    # A model's prints belong to the log, never to stdout.
    sys.stdout = sys.stderr
    # The heap, not the address space: libraries map far more than they ever touch.
    limit = order["memory_mib"] * 2**20
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        model = Model(order["manifest"], order["model_path"])
        model.warm_up()
    # Whatever loading does, the parent must hear why.
    except BaseException as error:  # noqa: BLE001
        channel.send({"failed": f"{type(error).__name__}: {error}"})
        return
    channel.send({"ready": True})
    processor.limit(order["cpu_limit_s"])
    while (message := channel.receive()) is not None:
        number, rows = message
        processor.begin()
        channel.send([number, *model.answer(rows), resident.mib()])


if __name__ == "__main__":
    # A parent that is gone leaves nobody to tell.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        main(sys.argv[1:])
    # Threads of the model's libraries must not keep the process alive.
    sys.stderr.flush()
    os._exit(0)
