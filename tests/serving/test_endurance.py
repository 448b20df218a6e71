"""Everything at once, for long: 64 connections, versions that change every second, processes of
models that are killed every five.  No request fails but those in the hands of a killed process,
and those get the default output; memory stays as it is.

It takes 25 seconds, and as long as ``MLGUARD_ENDURANCE_REQUESTS`` requests take where that is set.
"""

import asyncio
import json
import os
import random
import re
import statistics
import threading
import time
from collections import Counter

import psutil
import pytest

from mlguard.data.prediction_log import PredictionLog

REQUESTS = int(os.environ.get("MLGUARD_ENDURANCE_REQUESTS", "1"))
SECONDS = 25.0
CONNECTIONS = 64
DIED = "The model's process died while it worked on this query"
HEAD = re.compile(
    rb"HTTP/1.1 (\d+) .*?x-mlguard-version: (\S+).*?content-length: (\d+)\r\n\r\n", re.DOTALL
)


class Caller:
    """One connection that asks as fast as it is answered, and keeps what came back."""

    def __init__(self, port, counts, wanted):
        self.port = port
        self.counts = counts
        self.wanted = wanted

    async def run(self, budget, until):
        row = b'{"input": [1.0, 2.0]}'
        asked = b"POST /app/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
            len(row),
            row,
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while budget[0] > 0 or time.monotonic() < until:
            budget[0] -= 1
            writer.write(asked)
            head = await reader.readuntil(b"\r\n\r\n")
            status, version, length = HEAD.match(head).groups()
            document = json.loads(await reader.readexactly(int(length)))
            if status != b"200":
                self.counts[status.decode()] += 1
            elif document["default"]:
                self.counts[document["default_explanation"]] += 1
            else:
                # An answer belongs to the version that it names, whatever is switched meanwhile.
                assert document["output"] == self.wanted[version.decode()]
                self.counts["answered"] += 1
        writer.close()


def load(port, counts, wanted):
    async def everybody():
        budget = [REQUESTS]
        until = time.monotonic() + SECONDS
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(Caller(port, counts, wanted).run(budget, until))

    asyncio.run(everybody())


class Trouble:
    """Switches versions every second, and kills a model's process every five."""

    def __init__(self, project, second, front):
        self.project, self.second, self.front = project, second, front
        self.switches = self.kills = 0
        self.memory = []
        self._choose = random.Random(7)

    def until_over(self, thread):
        killed = switched = time.monotonic()
        while thread.is_alive():
            now = time.monotonic()
            if now - switched >= 1.0:
                switched = now
                self._switch()
                self.memory.append(self.front.memory_full_info().pss / 2**20)
            if now - killed >= 5.0:
                killed = now
                self._kill()
            thread.join(0.1)

    def _switch(self):
        if self.switches % 2 == 0:
            self.project.registry.rollback("app", automatic=False, reason="endurance")
        else:
            self.project.deploy("app", self.second, name="v1")
        self.switches += 1

    def _kill(self):
        replicas = [
            child
            for child in self.front.children()
            if "mlguard.serving.replica_child" in " ".join(child.cmdline())
        ]
        if len(replicas) > 2:  # one of each version stays: who is killed twice at once is gone
            self._choose.choice(replicas).kill()
            self.kills += 1


@pytest.mark.soak
def test_nothing_is_lost_while_everything_changes(
    project, constant, serving, record_testsuite_property
):
    """Switches every second, kills every five, and every answer is right or says why not."""
    project.app("app", slo_ms=10_000, more="[model]\nallow_pickle = true\nreplicas = 2\n")
    second = constant(1)
    project.deploy("app", constant(0), name="v0")
    counts = Counter()
    failures = []
    with serving(project) as (process, url):
        port = int(url.rsplit(":", 1)[1])
        project.deploy("app", second, name="v1")
        front = next(
            child
            for child in psutil.Process(process.pid).children()
            if "mlguard.server_app" in " ".join(child.cmdline())
        )

        def work():
            try:
                load(port, counts, {"v0": 0, "v1": 1})
            except BaseException as error:
                failures.append(error)
                raise

        trouble = Trouble(project, second, front)
        thread = threading.Thread(target=work)
        thread.start()
        trouble.until_over(thread)
    assert not failures
    # Nothing but answers, and defaults for the rows in the hands of who was killed.
    assert set(counts) <= {"answered", DIED}, counts
    assert counts.total() >= REQUESTS
    assert trouble.switches >= 5
    assert trouble.kills >= 2
    assert counts[DIED] <= trouble.kills * CONNECTIONS
    memory = trouble.memory
    quarter = max(len(memory) // 4, 1)
    before = statistics.median(memory[quarter : 2 * quarter])
    after = statistics.median(memory[-quarter:])
    found = {"switches": trouble.switches, "kills": trouble.kills, **counts}
    found |= {
        "MiB before": round(before),
        "MiB after": round(after),
        "MiB most": round(max(memory)),
    }
    for name, value in found.items():
        record_testsuite_property(name, value)
    assert after < 1.2 * before + 16, memory
    assert PredictionLog(project.settings.log_dir).read("app").num_rows == counts.total()
