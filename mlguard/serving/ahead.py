"""A front end begun before anybody knows what it will serve: it imports while we read settings.

Most of a start is importing, and importing cannot be shared between threads.  So the first thing
that ``mlguard serve`` does is to start its first front end, which loads its libraries and then
waits at a socket; the supervisor reads the settings, checks the certificate, takes the port, and
hands over what the front end would have had on its command line: its options, what stands in its
environment, and the two descriptors.

If there is nothing to serve, the socket closes and the process ends without a word.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

#: What every front end needs and nothing of which looks at the environment: the rest waits.
LIBRARIES = (
    "asyncio",
    "mlguard.config",
    "fastapi",
    "numpy",
    "sqlalchemy",
    "sqlalchemy.dialects.sqlite",
    "uvicorn",
    "uvloop",
)
_LARGEST = 1 << 20
_STOP_S = 5.0


class FrontAhead:
    """A front end that waits for its orders.

    Parameters
    ----------
    module : str
        What ``python -m`` would start; it finds its options in ``sys.argv``.
    """

    def __init__(self, module: str) -> None:
        self._ours, theirs = socket.socketpair()
        self.module = module
        try:
            # This module of ours and numbers, no shell.
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(  # noqa: S603
                [
                    *(sys.executable, "-P", "-m", __name__),
                    *(module, str(theirs.fileno()), str(os.getpid())),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        except BaseException:
            self._ours.close()
            raise
        finally:
            theirs.close()

    def take(
        self,
        options: Sequence[str],
        descriptors: Mapping[str, int],
        environment: Mapping[str, str],
    ) -> subprocess.Popen[bytes] | None:
        """Hand the orders over; returns the process, or None where it is gone or was taken.

        Parameters
        ----------
        options : sequence of str
            What follows the module on a command line.
        descriptors : mapping of str to int
            Options whose value is a descriptor; the front end has its own number for each.
        environment : mapping
            The whole environment that it is to have.
        """
        process, self._process = self._process, None
        if process is None:
            return None
        orders = {
            "options": list(options),
            "descriptors": list(descriptors),
            "environment": dict(environment),
        }
        body = json.dumps(orders).encode()
        try:
            with self._ours:
                # A byte takes the descriptors; the text may be longer than one message.
                socket.send_fds(self._ours, [b"\0"], list(descriptors.values()))
                self._ours.sendall(body)
        except OSError:
            process.kill()
            process.wait()
            return None
        return process

    def close(self) -> None:
        """End it where nobody took it."""
        self._ours.close()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(_STOP_S)


def main(arguments: Sequence[str]) -> None:
    """Load the libraries, wait for the orders, become the front end."""
    module, descriptor, parent = arguments
    if sys.platform == "linux" and os.getppid() != int(parent):
        return
    # Ctrl-C is for the supervisor.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing of what is imported becomes garbage; the front end switches it on again.
    gc.disable()
    for name in LIBRARIES:
        importlib.import_module(name)
    with socket.socket(fileno=int(descriptor)) as theirs:
        _, handed, _, _ = socket.recv_fds(theirs, 1, 8)
        body = b""
        while part := theirs.recv(_LARGEST):
            body += part
    if not body:
        return
    orders = json.loads(body)
    os.environ.clear()
    os.environ.update(orders["environment"])
    numbers = [
        word
        for option, number in zip(orders["descriptors"], handed, strict=True)
        for word in (option, str(number))
    ]
    sys.argv = [module, *orders["options"], *numbers]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    with contextlib.suppress(ConnectionResetError):
        main(sys.argv[1:])
