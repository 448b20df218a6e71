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

``errors`` maps the index of a row to why it has no label.  A batch that raises is halved until
the rows that raise stand alone, so one bad row fails alone and its neighbours are answered.

The child dies with its parent: by the kernel's hand where there is one (a hanging model would
not notice a closed socket), by the closed socket elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mlguard.errors import ModelRunError
from mlguard.serving.answers import MODEL_NONSENSE, MODEL_NOT_FINITE, MODEL_RAISED

if TYPE_CHECKING:
    from mlguard.models.predictions import Predictions
    from mlguard.models.predictor import AnyPredictor
    from mlguard.models.schema import InputSchema

LENGTH = struct.Struct("<I")
_PR_SET_PDEATHSIG = 1
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
#: Errors whose text is written to stderr before the child falls silent.
_SPOKEN = 20


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


class Model:
    """A predictor fed with decoded rows."""

    def __init__(self, manifest: dict[str, Any], model_path: str) -> None:
        from mlguard.models.bundle import Manifest
        from mlguard.models.predictor import load_predictor

        self._predictor: AnyPredictor = load_predictor(
            Manifest.from_json(manifest), Path(model_path)
        )
        self._spoken = 0

    def warm_up(self) -> None:
        """Answer a made-up row, so that lazy imports and caches are paid for before traffic.

        What the model says to it does not matter: real rows were tried when it was deployed.
        """
        self._spoken = _SPOKEN
        self.answer([_made_up(self._predictor.input_schema)])
        self._spoken = 0

    def answer(self, rows: list[Any]) -> tuple[list[Any], list[float | None], dict[int, str]]:
        """Return labels, scores and the errors by row index."""
        labels: list[Any] = [None] * len(rows)
        scores: list[float | None] = [None] * len(rows)
        errors: dict[int, str] = {}
        waiting = [(0, len(rows))]
        while waiting:
            start, end = waiting.pop()
            try:
                found = self._predictor.predict(rows[start:end])
                part = _plain(found, end - start)
            # SystemExit too: a model that calls sys.exit has failed on its rows, no more.
            except BaseException as error:  # noqa: BLE001
                if end - start > 1:
                    middle = (start + end) // 2
                    waiting += [(start, middle), (middle, end)]
                else:
                    errors[start] = self._explain(error)
                continue
            for offset, (label, score, reason) in enumerate(part):
                labels[start + offset] = label
                scores[start + offset] = score
                if reason is not None:
                    errors[start + offset] = reason
        return labels, scores, errors

    def _explain(self, error: BaseException) -> str:
        # The predictor says "wrong count" itself, and passes on what the model raised.
        raised = error.__cause__ if isinstance(error, ModelRunError) else error
        if self._spoken < _SPOKEN:
            self._spoken += 1
            traceback.print_exception(raised or error, file=sys.stderr)
        return MODEL_NONSENSE if raised is None else f"{MODEL_RAISED}: {type(raised).__name__}"


def _made_up(schema: InputSchema) -> Any:
    if schema.input in ("strings", "bytes"):
        return "" if schema.input == "strings" else b""
    row: list[Any] = []
    for feature in schema.features:
        middle = (feature.low or 0.0) / 2 + (feature.high or 0.0) / 2
        row.append(
            {
                "number": middle,
                "integer": int(middle),
                "boolean": False,
                "category": feature.categories[0] if feature.categories else "",
                "text": "",
                "time": "2000-01-01T00:00:00",
            }[feature.kind]
        )
    return row


def _plain(found: Predictions, n: int) -> list[tuple[Any, float | None, str | None]]:
    """Return (label, score, why not) per row as MessagePack values."""
    if len(found.labels) != n or (found.scores is not None and len(found.scores) != n):
        raise ModelRunError(f"expected {n} answers, got {len(found.labels)}")
    labels = found.outputs()
    scores: Sequence[Any] = [None] * n
    if found.scores is not None and found.scores.ndim == 1:
        scores = found.scores.tolist()
    rows: list[tuple[Any, float | None, str | None]] = []
    for label, score, valid in zip(labels, scores, found.valid.tolist(), strict=True):
        finite = not isinstance(label, float) or math.isfinite(label)
        if not valid or not finite or (score is not None and not math.isfinite(score)):
            rows.append((None, None, MODEL_NOT_FINITE))
        elif label is not None and not isinstance(label, (str, int, float, bool)):
            rows.append((None, None, MODEL_NONSENSE))
        else:
            rows.append((label, score, None))
    return rows


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
