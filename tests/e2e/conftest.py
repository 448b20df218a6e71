"""A running mlguard: the real command in a process of its own, asked over real HTTP."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest

#: Longest that anything real is waited for.
PATIENCE_S = 180


def _wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_S} s in vain: {what}")
        time.sleep(0.05)


@pytest.fixture(scope="session")
def wait_until():
    """Wait for something real to happen; fail saying what did not."""
    return _wait_until


@pytest.fixture
def running(tmp_path):
    """Start ``mlguard up`` or ``mlguard serve`` in a folder; give its process and its URL."""

    @contextlib.contextmanager
    def start(*words, folder):
        out = tmp_path / "out.txt"
        with out.open("wb") as stdout, (tmp_path / "err.txt").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mlguard.cli", *words],
                cwd=folder,
                stdout=stdout,
                stderr=stderr,
                env=os.environ | {"COLUMNS": "80"},
            )

        def said():
            if process.poll() is not None:
                pytest.fail(
                    f"ended with {process.returncode}: {(tmp_path / 'err.txt').read_text()}"
                )
            return re.search(r" on (http://\S+)", out.read_text())

        try:
            url = _wait_until(said, f"mlguard {' '.join(words)} to say where it serves")[1]
            yield process, url, out
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    return start
