"""What runs inside the child: ``python -m mlguard.models.child``.

The request comes as JSON on standard input, the answer leaves as JSON on a pipe of its own, so
that a model that prints cannot garble it.  The limits are set before the target is imported:

- memory by ``RLIMIT_DATA``: what the process allocates, so that going over raises MemoryError
  where it happens.  ``RLIMIT_AS`` would also count address space that is only reserved (thread
  stacks, libraries, the allocator's arenas), of which numpy and OpenBLAS take gigabytes;
- processor time by ``RLIMIT_CPU``, so that a loop ends even when nobody waits for it;
- no core dumps; and the kernel kills the child when its parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import math
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from mlguard.errors import MlguardError

_PR_SET_PDEATHSIG = 1


def limit_process(*, memory_mib: float | None = None, cpu_s: float | None = None) -> None:
    """Limit what this process may allocate and compute; never raises a limit.

    Parameters
    ----------
    memory_mib : float, optional
        Memory that it may allocate, in MiB.
    cpu_s : float, optional
        Processor time, in seconds.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_mib is not None:
        _lower(resource.RLIMIT_DATA, int(memory_mib * 2**20))
    if cpu_s is not None:
        _lower(resource.RLIMIT_CPU, math.ceil(cpu_s))


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (ceiling, ceiling))


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies.

    Parameters
    ----------
    parent : int
        Process id of the parent; if it is gone already, this process ends.
    """
    with contextlib.suppress(OSError, AttributeError):  # not every libc has prctl
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process if what is done here takes longer; only for a child's main thread.

    A model that hangs in native code never comes back to Python, so nothing gentler than the
    signal's own effect would do.  The parent knows what it means.

    Parameters
    ----------
    seconds : float
        Wall time.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def resolve(target: str) -> Callable[[Any], Any]:
    """Return the function that ``"module:function"`` names."""
    module, _, name = target.partition(":")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return function


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": resolve(request["target"])(request["payload"])}
    except MlguardError as error:
        known = {"message": error.message, "hint": error.hint, "data": _plain(error.data)}
        return {"error": {"class": type(error).__name__, **known}}
    # The target runs a model: it may raise anything, SystemExit too.
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        if _is_out_of_memory(error):
            return {"out_of_memory": True}
        why = str(error).strip().partition("\n")[0]
        return {"raised": f"{type(error).__name__}: {why}" if why else type(error).__name__}


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Return an error's facts as JSON values."""
    facts: dict[str, Any] = json.loads(json.dumps(data, default=str))
    return facts


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell a failed allocation by whatever name it comes: libraries fail to load, too."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, ImportError) and "failed to map" in str(error)


def main() -> None:
    """Read one request, answer it, and end without running anything that the model left."""
    request = json.load(sys.stdin)
    die_with_parent(request["parent"])
    limit_process(memory_mib=request["memory_mib"], cpu_s=request["cpu_s"])
    answer = _answer(request)
    try:
        text = json.dumps(answer)
    except (TypeError, ValueError) as error:
        text = json.dumps({"raised": f"an answer that is no JSON: {error}"})
    with os.fdopen(request["answer_fd"], "w", encoding="utf-8") as pipe:
        pipe.write(text)
    # Threads and exit handlers of the model could keep the process alive.
    os._exit(0)


if __name__ == "__main__":
    main()
