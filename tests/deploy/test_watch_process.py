"""The watcher as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time

HEAVY = ("matplotlib", "evidently", "great_expectations", "sklearn", "fastapi", "pytest")


def start(world, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "mlguard.cli", "monitor", "--project", str(world.root), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )


def test_one_pass_from_the_command_line(world):
    """--once judges what is due, says so in one document, and sends the mail."""
    world.clock.now = time.time() - 8000
    world.deploy("v1", (1.0, 1.0))
    world.serve(world.rows(600) + 3.0)
    process = start(world, "--once", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    kinds = {one["kind"] for one in json.loads(out)["events"]}
    assert {"verdict", "alert", "delivered"} <= kinds
    assert world.registry.outbox.counts()["SENT"] == 1
    assert list((world.root / ".mlguard" / "outbox").glob("*.eml"))


def test_a_loop_ends_on_sigterm_and_gives_up_its_lease(world):
    """After SIGTERM the process ends by itself, and the next one need not wait."""
    world.clock.now = time.time() - 100
    world.deploy("v1", (1.0, 1.0))
    process = start(world)
    deadline = time.monotonic() + 60
    version = world.registry.app("loan").active
    while world.registry.monitor_state("loan", version.id, 1, "conditions") is None:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert world.registry.lease("monitors", "me", 30.0)


def test_a_watcher_stays_light():
    """Watching loads neither drawing nor reports of others nor the libraries of models."""
    code = (
        "import sys, mlguard.deploy.monitoring, mlguard.deploy.watch_actions;"
        "from mlguard.monitors import concept_drift, data_drift, fairness, service;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
