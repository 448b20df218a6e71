"""Running a model in a process of its own, so that whatever it does stays there.

A file from outside is read, tried and replayed here before anything else touches it.  The
child has limits on memory, processor time and wall time, a session of its own (it is killed
with everything it started), no terminal, and an environment made from a list of names, so
that no token or password of ours is in it.

Memory is limited twice: inside by ``RLIMIT_DATA`` (see :mod:`mlguard.models.child`), which
makes an honest allocation fail cleanly; and from outside by watching the resident size, for
memory that the limit does not count (shared memory, mapped files).

This keeps accidents away from the server.  It is no jail for an attacker: a pickle that is
allowed to run has the rights of the user that runs it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mlguard import errors
from mlguard.data.frames import select_columns
from mlguard.errors import MlguardError, ModelRunError
from mlguard.models.bundle import Manifest
from mlguard.models.predictions import Predictions

MEMORY_MIB = 2048
WALL_S = 60.0

#: Variables that a child may see.
_PASSED_ON = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONPATH",
    "SYSTEMROOT",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
)
#: Variables that every child gets.
_SET = {
    "DO_NOT_TRACK": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONSAFEPATH": "1",
}
#: How often the child's resident size is looked at.
_WATCH_S = 0.05
#: How long a child may take to die after its pipe was closed.
_DYING_S = 1.0
#: How much of what the child printed is kept for the error.
_TAIL_BYTES = 4096


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process that runs a model: no secrets, no telemetry.

    Parameters
    ----------
    extra : mapping of str to str, optional
        Variables to add.
    """
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, **_SET, **(extra or {})}


def run_in_child(
    target: str,
    payload: Any,
    *,
    memory_mib: float = MEMORY_MIB,
    wall_s: float = WALL_S,
) -> Any:
    """Call a function in a fresh process and return what it returns.

    Parameters
    ----------
    target : str
        ``"module:function"``; the function takes the payload.
    payload : Any
        A JSON value.
    memory_mib : float
        Memory that the child may use, in MiB.
    wall_s : float
        Seconds after which it is killed, its start included.

    Returns
    -------
    Any
        The function's answer as a JSON value; NaN and infinity are kept.

    Raises
    ------
    MlguardError
        The one that the function raised, as itself.
    ModelRunError
        If it raised anything else, answered no JSON, hung, ran out of memory or died; the
        message says which, and ``data["output"]`` holds the end of what it printed.
    """
    reading, writing = os.pipe()
    request = {
        "target": target,
        "payload": payload,
        "memory_mib": memory_mib,
        "cpu_s": wall_s + 1,
        "parent": os.getpid(),
        "answer_fd": writing,
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlguard.models.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environment(),
            pass_fds=(writing,),
            start_new_session=True,
        )
    finally:
        os.close(writing)
    watched = _Watched(process, reading, json.dumps(request).encode())
    try:
        ending = watched.wait(memory_mib=memory_mib, wall_s=wall_s)
        if ending == "closed" and not watched.answer:
            # It closed its pipe by dying: let it, so that the exit status is its own.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_DYING_S)
    finally:
        _kill_group(process)
        os.close(reading)
    return _result(watched, ending, memory_mib=memory_mib, wall_s=wall_s)


class _Watched:
    """A child's three pipes, served until it is done, too slow or too big."""

    def __init__(self, process: subprocess.Popen[bytes], answer: int, request: bytes) -> None:
        self.process = process
        self.answer = bytearray()
        self.output = b""
        self._answer_fd = answer
        self._request = memoryview(request)

    def wait(self, *, memory_mib: float, wall_s: float) -> str:
        """Return how it ended: "closed", "slow" or "big"."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        deadline = time.monotonic() + wall_s
        os.set_blocking(self.process.stdin.fileno(), False)
        os.set_blocking(self._answer_fd, False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdin, selectors.EVENT_WRITE, self._send)
            selector.register(self.process.stdout, selectors.EVENT_READ, self._keep_output)
            selector.register(self._answer_fd, selectors.EVENT_READ, self._keep_answer)
            open_pipes = {self._answer_fd}
            while open_pipes:
                left = deadline - time.monotonic()
                if left <= 0:
                    return "slow"
                for key, _ in selector.select(min(left, _WATCH_S)):
                    if not key.data():
                        selector.unregister(key.fileobj)
                        open_pipes.discard(key.fd)
                if _resident_mib(self.process.pid) > memory_mib:
                    return "big"
                if self.process.poll() is not None:
                    # Something that it started may hold the pipe open for ever.
                    while self._keep_answer():
                        pass
                    break
        return "closed"

    def _send(self) -> bool:
        assert self.process.stdin is not None
        try:
            sent = os.write(self.process.stdin.fileno(), self._request[: 1 << 16])
        except BlockingIOError:
            return True
        except BrokenPipeError:
            sent = len(self._request)
        self._request = self._request[sent:]
        if not self._request:
            self.process.stdin.close()
        return bool(self._request)

    def _keep_output(self) -> bool:
        assert self.process.stdout is not None
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        self.output = (self.output + chunk)[-_TAIL_BYTES:]
        return bool(chunk)

    def _keep_answer(self) -> bool:
        try:
            chunk = os.read(self._answer_fd, 1 << 16)
        except BlockingIOError:
            return False
        self.answer += chunk
        return bool(chunk)


def _resident_mib(pid: int) -> float:
    """Return the resident size of a process in MiB, 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the child with everything it started, and collect it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def _result(watched: _Watched, ending: str, *, memory_mib: float, wall_s: float) -> Any:
    output = watched.output.decode("utf-8", "replace")
    if ending == "slow":
        raise ModelRunError(
            f"the model gave no answer within {wall_s:g} s and was stopped",
            hint="[model] wall_limit_s in app.toml says how long it may take",
            output=output,
        )
    try:
        answer = json.loads(bytes(watched.answer)) if watched.answer else {}
    except ValueError:
        answer = {}
    if ending == "big" or "out_of_memory" in answer:
        raise ModelRunError(
            f"the model needed more than {memory_mib:g} MiB of memory",
            hint="[model] memory_mib in app.toml says how much it may use",
            output=output,
        )
    if "result" in answer:
        return answer["result"]
    if "raised" in answer:
        raise ModelRunError(f"the model raised {answer['raised']}", output=output)
    if "error" in answer:
        raise _rebuilt(answer["error"])
    if watched.process.returncode == -signal.SIGALRM:
        raise ModelRunError(
            "the model gave no answer within its time limit and was stopped",
            hint="[model] wall_limit_s in app.toml says how long it may take",
            output=output,
        )
    raise ModelRunError(
        f"the model's process died: {_cause(watched.process.returncode)}",
        hint="the end of what it printed: " + (output.strip()[-300:] or "nothing"),
        output=output,
    )


def _cause(code: int | None) -> str:
    if code is None or code == -signal.SIGKILL:
        return "it was killed, or closed its pipe without an answer"
    if code >= 0:
        return f"it left with exit status {code} before it answered"
    name = signal.Signals(-code).name
    return f"signal {name}" + (" (processor time used up)" if name == "SIGXCPU" else "")


def _rebuilt(document: Mapping[str, Any]) -> MlguardError:
    """Return the error of the child as the class it was."""
    kind = getattr(errors, document["class"], ModelRunError)
    data = {key: value for key, value in document["data"].items() if key != "hint"}
    rebuilt: MlguardError = kind(document["message"], hint=document["hint"], **data)
    return rebuilt


# --- what is done in children --------------------------------------------------------------


def predict_in_child(
    manifest: Manifest,
    model_path: Path | str,
    rows: Any,
    *,
    memory_mib: float = MEMORY_MIB,
    wall_s: float = WALL_S,
) -> Predictions:
    """Answer rows in a child; rows on which the model raises are not valid.

    Parameters
    ----------
    manifest, model_path
        The version.
    rows : DataFrame, ndarray or list
        As :meth:`Predictor.predict` takes them.

    Raises
    ------
    IntegrityError, ModelFileError, UntrustedModelError
        If the file is not the version's, cannot be read, or may not be.
    ModelRunError
        If it answered another number of rows, hung, died, or needed too much memory.
    """
    payload = _payload(manifest, model_path, rows)
    answer = run_in_child(
        "mlguard.models.trial:predict", payload, memory_mib=memory_mib, wall_s=wall_s
    )
    return Predictions.from_json(answer)


class ChildPredictor:
    """A version behind the one way to call it, answered in a fresh process at each call.

    For code that must not run in the process that asks.  Starting takes half a second, so this
    is for whole files of rows, not for traffic.

    Parameters
    ----------
    manifest : Manifest
        The version.
    model_path : path
        Its bytes.
    memory_mib, wall_s : float
        Limits of each child.
    """

    #: A server calls it in a process of its own.
    in_process = False

    def __init__(
        self,
        manifest: Manifest,
        model_path: Path | str,
        *,
        memory_mib: float = MEMORY_MIB,
        wall_s: float = WALL_S,
    ) -> None:
        self.manifest = manifest
        self.model_path = model_path
        self.input_schema = manifest.schema
        self.classes = self.input_schema.classes
        self._limits = {"memory_mib": memory_mib, "wall_s": wall_s}

    def predict(self, rows: Any, *, isolate_failures: bool = False) -> Predictions:
        """Answer some rows; rows on which the model raises are not valid.

        Parameters
        ----------
        rows : DataFrame, ndarray or list
            As :meth:`Predictor.predict` takes them.
        isolate_failures : bool
            Always done.
        """
        del isolate_failures
        return predict_in_child(self.manifest, self.model_path, rows, **self._limits)


def _payload(manifest: Manifest, model_path: Path | str, rows: Any) -> dict[str, Any]:
    return {
        "manifest": manifest.to_json(),
        "model_path": str(Path(model_path).absolute()),
        "rows": plain_rows(rows, manifest.schema.names),
    }


def plain_rows(rows: Any, names: Sequence[str]) -> list[Any]:
    """Return rows as lists of JSON values in the order of the features; missing is None."""
    if hasattr(rows, "iloc"):
        named = select_columns(rows, names, where="the rows").astype(object)
        rows = named.where(named.notna(), None).to_numpy().tolist()
    elif hasattr(rows, "tolist"):
        rows = rows.tolist()
    return [_plain_row(row) for row in rows]


def _plain_row(row: Any) -> Any:
    if isinstance(row, Mapping):
        return {key: _plain(value) for key, value in row.items()}
    return [_plain(value) for value in row] if isinstance(row, (list, tuple)) else _plain(row)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    return value
