"""A burst of labels: all that are acknowledged are there, memory stays bounded, answers go on.

Fault 32 of the promise.  Everything is real but the network: the queue in front of the disk, the
disk, and the engine that answers meanwhile.
"""

import asyncio
import json

import psutil
import pytest

from mlguard.data.labels import LabelStore, default_url
from mlguard.serving.engine import AppEngine, OverloadedError, Route
from mlguard.serving.feedback import Feedback
from mlguard.serving.metrics import Metrics
from mlguard.serving.query_ids import QueryIds

MIB = 2**20
#: Senders that each wait for an answer before the next label; more than may wait.
SENDERS = 12_000


class Block:
    """All ids of the burst were given out by another process of this app."""

    app, first, size = "app", 2**40, 2**30


class Burst:
    """Many senders, one caller who asks for predictions, and an eye on memory."""

    def __init__(self, engine, feedback, n):
        self.engine, self.feedback, self.n = engine, feedback, n
        self.left = iter(range(n))
        self.acknowledged = self.refused = self.answered = 0
        self.peak = 0
        self.over = False

    async def send(self):
        for number in self.left:
            body = json.dumps({"query_id": Block.first + number, "label": number % 2}).encode()
            while True:
                try:
                    await self.feedback.put(body)
                except OverloadedError:
                    self.refused += 1
                    # As a client does that was told to come back.
                    await asyncio.sleep(0.3)
                else:
                    self.acknowledged += 1
                    break

    async def ask(self):
        while not self.over:
            reply = json.loads((await self.engine.predict(b'{"input": [1.0]}')).body)
            assert reply["output"] == "fallback"
            self.answered += 1
            self.peak = max(self.peak, psutil.Process().memory_info().rss)
            await asyncio.sleep(0.002)

    async def run(self):
        asking = asyncio.create_task(self.ask())
        await asyncio.gather(*(self.send() for _ in range(min(SENDERS, self.n))))
        self.over = True
        await asking


@pytest.mark.parametrize(
    "n",
    [
        20_000,
        pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.marathon]),
    ],
)
def test_a_burst_of_labels(settings_of, tmp_path, n):
    """Nothing that was acknowledged is lost, nobody waits for a label, and memory is bounded."""
    url = default_url(tmp_path, "app")
    store = LabelStore(url)
    settings = settings_of(app={"default_output": "fallback"})

    async def burst():
        engine = AppEngine(settings, ids=QueryIds(lambda *_: range(1, 1000)), metrics=Metrics())
        engine.switch(Route(generation=1))
        feedback = Feedback(engine, store, lambda _: lookups.append(1) or Block())
        found = Burst(engine, feedback, n)
        try:
            await found.run()
        finally:
            feedback.close()
        return found

    lookups = []
    before = psutil.Process().memory_info().rss
    found = asyncio.run(burst())
    assert found.acknowledged == n
    # More wanted to wait than may.
    assert found.refused > 0
    assert found.answered > 10
    assert len(lookups) == 1
    # The queue, the senders and their bodies; it does not grow with the burst.
    assert found.peak - before < 300 * MIB
    store.close()
    again = LabelStore(url)
    assert len(again) == n
    assert again.conflicts() == 0
    cursor = seen = 0
    while labels := again.after(cursor, 50_000):
        cursor = labels[-1].seq
        seen += len(labels)
        assert all(one.value == (one.query_id - Block.first) % 2 for one in labels)
    assert seen == n
    again.close()
