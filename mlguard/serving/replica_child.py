"""The process a model runs in: ``python -m mlguard.serving.replica_child FD PARENT_PID``.

A model can raise, hang, leak, crash or call ``os._exit``; here that costs the rows in its
hands and nothing else.  One message is one batch, both ways, over the socket FD; a message is
four bytes of length (little-endian) and MessagePack.

::

    parent                                   child
    {"manifest", "model_path", "memory_mib"} →
                                             ← {"ready": true} | {"failed": reason}
    [number, rows]                           →
                                             ← [number, labels, scores, errors, rss_mib]

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
from pathlib import Path
from typing import Any

import msgspec

from mlguard.serving.model_runner import Model

LENGTH = struct.Struct("<I")
_PR_SET_PDEATHSIG = 1
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def die_with_parent(parent: int, sig: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send ``sig`` when the parent dies; leave if it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, sig, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


class Channel:
    """Messages over a blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._encoder = msgspec.msgpack.Encoder(enc_hook=str)

    def send(self, message: Any) -> None:
        """Send one message whole."""
        body = self._encoder.encode(message)
        self._sock.sendall(LENGTH.pack(len(body)) + body)

    def receive(self) -> Any:
        """Return the next message, or None when the other side has gone."""
        head = self._exactly(LENGTH.size)
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


def _rss_mib() -> float:
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE_MIB
    except OSError:  # no /proc: the highest the process ever had stands in
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(arguments: list[str]) -> None:
    """Load the model named by the first message, then answer batches until the end."""
    descriptor, parent = (int(argument) for argument in arguments)
    die_with_parent(parent)
    # Ctrl-C is the supervisor's business: it stops its children in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=descriptor))
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
    while (message := channel.receive()) is not None:
        number, rows = message
        channel.send([number, *model.answer(rows), _rss_mib()])


if __name__ == "__main__":
    # A parent that is gone leaves nobody to tell.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        main(sys.argv[1:])
    # Threads of the model's libraries must not keep the process alive.
    sys.stderr.flush()
    os._exit(0)
