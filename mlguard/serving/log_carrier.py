"""The process that carries a machine's prediction log to its store, beside the front ends.

A process of its own, because a store's client is large and slow, and a front end is neither::

    python -m mlguard.serving.log_carrier --root DIR --parent PID

It is told to stop when the front ends have closed their files, and goes on until the store has
them, or for a quarter of a minute.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mlguard.config import load_project
from mlguard.data.log_store import LogStore
from mlguard.data.prediction_log import PredictionLog
from mlguard.serving.replica_child import die_with_parent

#: Seconds between two rounds.
_EVERY_S = 5.0
#: Longest time, and seconds between two rounds, after it was told to stop.
_LAST_S, _LAST_EVERY_S = 15.0, 0.3

logger = logging.getLogger("mlguard.serving")


def carry(store: LogStore, stop: threading.Event, growing: Path) -> None:
    """Carry until told to stop, then until nothing grows and nothing waits.

    Parameters
    ----------
    store : LogStore
        Where to.
    stop : threading.Event
        Set by whoever wants it to end.
    growing : Path
        Folder of the log, whose ``.arrow`` files are those that are still written.
    """
    said = ""
    give_up = float("inf")
    while True:
        found = store.sync()
        if found is not None and found.error != said:
            said = found.error
            if said:
                logger.warning("the log's store %s takes nothing: %s", store.url, said)
            else:
                logger.warning("the log's store %s takes segments again", store.url)
        if stop.is_set():
            give_up = min(give_up, time.monotonic() + _LAST_S)
            waiting = found is None or found.waiting or any(growing.glob("*/*/*.arrow"))
            if not waiting or time.monotonic() > give_up:
                return
            time.sleep(_LAST_EVERY_S)
        else:
            stop.wait(_EVERY_S)


def main(arguments: Sequence[str]) -> int:
    """Carry until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="log_carrier")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    die_with_parent(options.parent, signal.SIGTERM)
    stop = threading.Event()
    # Ctrl-C is for the supervisor; it sends SIGTERM when it is our turn.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    project = load_project(options.root)
    log = PredictionLog(project.log_dir)
    carry(LogStore(log, project.log_url), stop, project.log_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
