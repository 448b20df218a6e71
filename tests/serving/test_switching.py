"""Two servers on one registry under traffic without a pause, through all that a deployment can be.

A healthy deployment, one that no server can load, a rollback, and the end of a server by
``kill -9``: nobody gets anything but a 200 from the model, except for what a killed process had in
its hands; and every switch reaches both servers within two seconds.
"""

import dataclasses
import hashlib
import os
import signal
import threading
import time
from collections import Counter

import httpx
import psutil
import pytest

BODY = b'{"input": [0.5, 0.5]}'
#: The longest that a switch between versions that are loaded may take to reach a server.
SWITCH_S = 2.0


class Caller(threading.Thread):
    """Asks one server without a pause; keeps what came back, and when each generation began."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.answers: Counter[str] = Counter()
        self.began: dict[int, float] = {}
        self.outputs: set[tuple[int, int]] = set()
        self.stopping = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.stopping.is_set():
                try:
                    reply = client.post("/app/predict", content=BODY)
                except httpx.TransportError:
                    self.answers["lost"] += 1
                    continue
                document = reply.json()
                self.answers["default" if document.get("default") else str(reply.status_code)] += 1
                generation = int(reply.headers["X-MLGuard-Generation"])
                self.began.setdefault(generation, time.time())
                self.outputs.add((generation, document["output"]))


def fail_to_deploy(project, bundle, eventually):
    """Stage a version that no server can load, see them say so, and take it back."""
    rotten = project.root / "rotten.joblib"
    rotten.write_bytes(b"no model at all")
    sha256 = hashlib.sha256(rotten.read_bytes()).hexdigest()
    manifest = dataclasses.replace(bundle.manifest, model_sha256=sha256)
    registry = project.registry
    broken = dataclasses.replace(bundle, path=rotten, manifest=manifest)
    version = project.passed("app", broken, name="rotten")
    operation = registry.begin("app", version.id)
    registry.stage(operation)

    def refused():
        alive = registry.live_servers()
        return len(alive) == 2 and all(version.id in one.failed for one in alive)

    eventually(refused)
    registry.abort(operation, "no server can load it")


@pytest.mark.soak
def test_every_switch_reaches_every_server_and_no_answer_is_lost(
    project, constant, serving, eventually, record_testsuite_property
):
    """Counted over two servers and four callers; the time from each commit to each server."""
    project.app("app", slo_ms=10_000)
    first, second = constant(0), constant(1)
    project.deploy("app", first, name="v0")
    registry = project.registry
    with serving(project) as (one, url), serving(project) as (_two, other):
        eventually(lambda: len(registry.live_servers()) == 2)
        callers = [Caller(address) for address in (url, url, other, other)]
        for caller in callers:
            caller.start()

        def reached(generation):
            return all(generation in caller.began for caller in callers)

        eventually(lambda: reached(1))
        project.deploy("app", second, name="v1")
        eventually(lambda: reached(2))
        fail_to_deploy(project, first, eventually)
        registry.rollback("app", automatic=False, reason="by hand")
        eventually(lambda: reached(3))
        project.deploy("app", second, name="v1")
        eventually(lambda: reached(4))
        registry.rollback("app", automatic=True, reason="by itself")
        eventually(lambda: reached(5))
        for caller in callers:
            assert set(caller.answers) == {"200"}, caller.answers

        (front,) = [
            child
            for child in psutil.Process(one.pid).children()
            if "mlguard.server_app" in " ".join(child.cmdline())
        ]
        before = callers[0].answers["200"]
        os.kill(front.pid, signal.SIGKILL)
        eventually(lambda: callers[0].answers["200"] > before + 20, within_s=60.0)
        for caller in callers:
            caller.stopping.set()
        for caller in callers:
            caller.join(60)
    for caller in callers:
        lost = caller.answers.pop("lost", 0)
        # A caller has one request under way, and only the killed server had any in its hands.
        assert lost <= (1 if caller.url == url else 0)
        assert set(caller.answers) == {"200"}, caller.answers
        assert {(generation, (generation + 1) % 2) for generation in range(1, 6)} == caller.outputs
        assert sorted(caller.began) == sorted(caller.began, key=caller.began.get)
    moved = {event.generation: event.at for event in registry.events("app") if event.moved}
    took = {
        generation: max(caller.began[generation] for caller in callers) - moved[generation]
        for generation in range(2, 6)
    }
    record_testsuite_property("switch_s", {key: round(took[key], 3) for key in took})
    assert max(took.values()) <= SWITCH_S, took
