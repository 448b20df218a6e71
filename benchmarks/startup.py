"""How soon ``mlguard serve`` answers, what that costs, and what the server weighs then.

::

    python -m benchmarks.startup                     # a project of its own: iris, compiled
    python -m benchmarks.startup --project DIR --app iris --rounds 5

Each round starts ``mlguard serve`` as a user does, asks for a prediction until one comes that is
no default output, and prints: seconds from the start to that answer; seconds of processor time
of the whole tree until then (command, supervisor, front ends, the models' own processes); and
MiB of PSS of each front end two seconds later.  The last line is the middle of the rounds.

With ``--cold`` no byte code is cached, as after an installation by a tool that compiles none:
the first start of all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

_LONGEST_S = 60.0
_PAUSE_S = 0.01
_SETTLED_S = 2.0
_FRONT = "mlguard.server_app"
_MLGUARD = (sys.executable, "-P", "-m", "mlguard.cli")


def made_project(folder: Path) -> None:
    """Write the packaged project and deploy its first app."""
    for command in (["init", str(folder)], ["deploy", "iris", "--project", str(folder)]):
        subprocess.run([*_MLGUARD, *command], check=True, stdout=subprocess.DEVNULL)


def free_port() -> int:
    """Return a port that nobody listens on."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def tree(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return a process and everything below it."""
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    return []


def spent_s(processes: list[psutil.Process]) -> float:
    """Return the processor time of processes, in seconds."""
    total = 0.0
    for one in processes:
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def fronts_mib(processes: list[psutil.Process]) -> list[float]:
    """Return the proportional set size of each front end, in MiB."""
    found = []
    for one in processes:
        with contextlib.suppress(psutil.Error):
            if _FRONT in one.cmdline():
                found.append(one.memory_full_info().pss / 2**20)
    return found


def answered(url: str, body: bytes) -> bool:
    """Say whether a prediction came that is no default output."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=5) as reply:
            return b'"default":false' in reply.read().replace(b" ", b"")
    except OSError:
        return False


def one_round(options: argparse.Namespace, folder: Path) -> tuple[float, float, list[float]]:
    """Start, ask, weigh, stop; returns seconds, seconds of processor time, MiB a front end."""
    port = free_port()
    environment = dict(os.environ)
    if options.cold:
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/nonexistent"}
    command = [*_MLGUARD, "serve", "--quiet", "--project", str(folder), "--port", str(port)]
    command += [] if options.monitors else ["--no-monitors"]
    began = time.perf_counter()
    server = subprocess.Popen(command, env=environment)
    try:
        url = f"http://127.0.0.1:{port}/{options.app}/predict"
        while not answered(url, options.body.encode()):
            if time.perf_counter() - began > _LONGEST_S or server.poll() is not None:
                raise SystemExit("no prediction came")
            time.sleep(_PAUSE_S)
        took = time.perf_counter() - began
        spent = spent_s(tree(server))
        time.sleep(_SETTLED_S)
        return took, spent, fronts_mib(tree(server))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(_LONGEST_S)


def main() -> None:
    """Run the rounds and print them."""
    parser = argparse.ArgumentParser(description="time from `mlguard serve` to the first answer")
    parser.add_argument("--project", type=Path, help="a deployed project; default: a new one")
    parser.add_argument("--app", default="iris")
    parser.add_argument("--body", default='{"input": [5.1, 3.5, 1.4, 0.2]}')
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="without cached byte code")
    parser.add_argument("--monitors", action="store_true", help="with the watcher beside it")
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="mlguard-startup-") as temporary:
        folder = options.project or Path(temporary)
        if options.project is None:
            made_project(folder)
        for number in range(options.rounds):
            took, spent, weights = one_round(options, folder)
            rounds.append((took, spent, max(weights, default=0.0)))
            weighed = ", ".join(f"{one:.0f}" for one in weights)
            print(
                f"round {number + 1}: first answer after {took:.2f} s, "
                f"{spent:.2f} s of processor time, {weighed} MiB of PSS a front end",
                flush=True,
            )
    middle = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print(
        f"middle:  first answer after {middle[0]:.2f} s, {middle[1]:.2f} s of processor time, "
        f"{middle[2]:.0f} MiB of PSS a front end; load now {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
