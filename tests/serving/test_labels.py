"""Labels on their way to the disk, and ids on their way to the callers."""

import asyncio
import json

import httpx
import pytest

from mlguard.data.labels import LabelStore, default_url
from mlguard.errors import ConflictError, NotFoundError, RegistryError
from mlguard.serving.engine import AppEngine, OverloadedError, Route
from mlguard.serving.feedback import Feedback
from mlguard.serving.metrics import Metrics
from mlguard.serving.query_ids import UNCREDITED, QueryIds
from mlguard.serving.recall import Recall


class Counter:
    """Hands out ids one after the other, as the registry does."""

    def __init__(self):
        self.at = 1
        self.blocks = []
        self.broken = False

    def reserve(self, version_id, generation, size):
        if self.broken:
            raise RegistryError("gone")
        block = range(self.at, self.at + size)
        self.at += size
        self.blocks.append((version_id, generation, block))
        return block


# --- query ids -----------------------------------------------------------------------------


def test_ids_are_dense_and_belong_to_their_version():
    """Each key counts through its own blocks; none is given twice."""
    counter = Counter()
    ids = QueryIds(counter.reserve)
    ids.refill((1, 1))
    ids.refill((2, 2))
    first = [ids.draw((1, 1)) for _ in range(5)]
    assert first == [1, 2, 3, 4, 5]
    assert ids.draw((2, 2)) in counter.blocks[1][2]
    assert ids.was_drawn(5) is True
    assert ids.was_drawn(6) is False
    assert ids.was_drawn(10**9) is None


def test_blocks_follow_one_another_without_a_gap():
    """Refilled when half is left, and the next block begins where the last one ends."""
    counter = Counter()
    ids = QueryIds(counter.reserve)
    key = (1, 1)
    ids.refill(key)
    size = len(counter.blocks[0][2])
    ids.refill(key)
    assert len(counter.blocks) == 1
    drawn = [ids.draw(key) for _ in range(size // 2 + 1)]
    ids.refill(key)
    assert len(counter.blocks) == 2
    drawn += [ids.draw(key) for _ in range(size)]
    assert drawn == list(range(1, len(drawn) + 1))
    assert len(counter.blocks[1][2]) == 2 * size


def test_without_the_registry_answers_go_on():
    """Ids beyond the last block are unlikely to meet, below 2**53, counted, and credited to
    nobody; with the registry back the numbering goes on."""
    counter = Counter()
    ids = QueryIds(counter.reserve)
    drawn = {ids.draw((1, 1)) for _ in range(1000)}
    assert len(drawn) == 1000
    assert all(UNCREDITED <= one < 2**53 for one in drawn)
    assert ids.uncredited == 1000
    counter.broken = True
    with pytest.raises(RegistryError):
        ids.refill((1, 1))
    counter.broken = False
    ids.refill((1, 1))
    assert ids.draw((1, 1)) == 1


def test_used_up_blocks_are_known_as_drawn():
    """After a block is forgotten its ids still count as given out."""
    counter = Counter()
    ids = QueryIds(counter.reserve)
    ids.refill((1, 1))
    ids.draw((1, 1))
    ids.forget(set())
    assert ids.was_drawn(1) is True
    assert ids.left((1, 1)) == 0


# --- what a uid asked ------------------------------------------------------------------------


def test_the_latest_query_of_a_uid_is_recalled():
    """The same row again: the later query; another uid or row: nothing."""
    recall = Recall()
    recall.remember("u", [1.0, 2.0], 7)
    recall.remember("u", [1.0, 2.0], 8)
    assert recall.find("u", [1.0, 2.0]) == 8
    assert recall.find("v", [1.0, 2.0]) is None
    assert recall.find("u", [1.0, 2.5]) is None


def test_the_memory_of_uids_is_bounded(monkeypatch):
    """The oldest is forgotten first."""
    monkeypatch.setattr("mlguard.serving.recall._REMEMBERED", 3)
    recall = Recall()
    for number in range(5):
        recall.remember("u", [number], number)
    assert [recall.find("u", [number]) for number in range(5)] == [None, None, 2, 3, 4]


# --- feedback ----------------------------------------------------------------------------------


def with_feedback(settings_of, labels, act, **options):
    """Run ``act(feedback, engine)`` in a loop, with an app that answers by default."""

    async def run():
        engine = AppEngine(settings_of(), ids=QueryIds(Counter().reserve), metrics=Metrics())
        engine.ids.refill((0, 1))
        engine.switch(Route(generation=1))
        feedback = Feedback(engine, labels, options.pop("owner", lambda _: None), **options)
        try:
            return await act(feedback, engine)
        finally:
            feedback.close()

    return asyncio.run(run())


async def asked(engine, n):
    found = []
    for _ in range(n):
        found.append(json.loads((await engine.predict(b'{"input": [1.0]}')).body)["query_id"])
    return found


def label(query_id, value=1):
    return json.dumps({"query_id": query_id, "label": value}).encode()


def test_labels_that_come_together_are_committed_together(settings_of, tmp_path):
    """A hundred at once need few transactions, and all are on disk before any 200."""
    commits = []

    class Counting(LabelStore):
        def put_many(self, labels):
            labels = list(labels)
            commits.append(len(labels))
            return super().put_many(labels)

    url = default_url(tmp_path, "app")
    store = Counting(url)

    async def act(feedback, engine):
        ids = await asked(engine, 100)
        await asyncio.gather(*(feedback.put(label(one)) for one in ids))
        return ids

    ids = with_feedback(settings_of, store, act)
    store.close()
    assert sum(commits) == 100
    assert len(commits) < 20
    again = LabelStore(url)
    assert set(again.get(ids)) == set(ids)
    again.close()


def test_a_failing_store_is_no_acknowledgement(settings_of):
    """What cannot be stored is an error for everybody who waits, and the next one is tried."""

    class Failing:
        broken = True

        def put_many(self, labels):
            if self.broken:
                raise RegistryError("disk full")
            return ["stored" for _ in labels]

    store = Failing()

    async def act(feedback, engine):
        first, second = await asked(engine, 2)
        outcomes = await asyncio.gather(
            feedback.put(label(first)), feedback.put(label(second)), return_exceptions=True
        )
        assert [type(one) for one in outcomes] == [RegistryError, RegistryError]
        store.broken = False
        await feedback.put(label(first))

    with_feedback(settings_of, store, act)


def test_waiting_labels_are_bounded(settings_of, monkeypatch):
    """A flood is turned away instead of filling the memory."""
    monkeypatch.setattr("mlguard.serving.feedback._MAX_WAITING", 5)

    class Slow:
        def put_many(self, labels):
            return ["stored" for _ in labels]

    async def act(feedback, engine):
        ids = await asked(engine, 50)
        return await asyncio.gather(
            *(feedback.put(label(one)) for one in ids), return_exceptions=True
        )

    outcomes = with_feedback(settings_of, Slow(), act)
    assert {type(one) for one in outcomes} == {type(None), OverloadedError}


def test_ids_of_other_processes_are_looked_up_once(settings_of):
    """The registry is asked for a block, not for each id of it; another app's block is a 404."""

    class Block:
        def __init__(self, app):
            self.app, self.first, self.size = app, 10**6, 1000

    asks = []

    class Store:
        def put_many(self, labels):
            return ["conflict" if one[1] == 9 else "stored" for one in labels]

    async def act(feedback, engine):
        for query_id in (10**6, 10**6 + 1, 10**6 + 999):
            await feedback.put(label(query_id))
        assert len(asks) == 1
        with pytest.raises(NotFoundError):
            await feedback.put(label(10**6 + 1000))
        with pytest.raises(ConflictError):
            await feedback.put(label(10**6, 9))

    def owner(query_id, app="app"):
        asks.append(query_id)
        return Block(app) if query_id < 10**6 + 1000 else None

    with_feedback(settings_of, Store(), act, owner=owner)

    async def refused(feedback, engine):
        with pytest.raises(NotFoundError):
            await feedback.put(label(10**6))

    with_feedback(settings_of, Store(), refused, owner=lambda _: Block("other"))


def test_a_label_by_uid_survives_a_restart(project, constant, fronted):
    """What this process does not remember is found in the prediction log."""
    project.app("app")
    project.deploy("app", constant(1))
    body = {"input": [0.25, 0.5], "uid": "anna"}
    with fronted(project) as (_, url):
        query_id = httpx.post(f"{url}/app/predict", json=body).json()["query_id"]
        httpx.post(f"{url}/app/predict", json=body | {"input": [0.5, 0.5]})
    with fronted(project) as (_, url):
        reply = httpx.post(f"{url}/app/update", json=body | {"label": 0})
        assert reply.status_code == 200, reply.text
        reply = httpx.post(f"{url}/app/update", json=body | {"uid": "bert", "label": 0})
        assert reply.status_code == 404
    store = LabelStore(default_url(project.settings.log_dir, "app"))
    assert store.get([query_id])[query_id].value == 0
    store.close()
