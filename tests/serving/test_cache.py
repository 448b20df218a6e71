"""The cache: exact keys, bounded bytes, shared flights; pure first, then over real HTTP."""

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client.parser import text_string_to_metric_families

from mlguard.serving.cache import AnswerCache
from mlguard.serving.embedded import served

CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
ROWS = st.one_of(st.lists(CELLS, max_size=4), st.text(max_size=5), st.binary(max_size=5))


def exact(row):
    """What makes two rows the same one: types and bits."""
    if isinstance(row, list):
        return ("list", *map(exact, row))
    if isinstance(row, float):
        return ("float", math.copysign(1, row), row)
    return (type(row).__name__, row)


@settings(max_examples=300)
@given(ROWS, ROWS)
def test_keys_are_equal_exactly_where_rows_are(first, second):
    """1 is not 1.0, 0.0 is not -0.0, true is not 1, "" is not b""."""
    same = exact(first) == exact(second)
    assert (AnswerCache.key(first) == AnswerCache.key(second)) is same


class Machine(RuleBasedStateMachine):
    """The cache beside a plain list of what was used, newest last."""

    def __init__(self):
        super().__init__()
        self.cache = AnswerCache(2_000)
        self.model = {}

    @staticmethod
    def _size(key, value):
        return len(key) + sys.getsizeof(value[0]) + 250

    def _trim(self):
        while sum(self._size(*one) for one in self.model.items()) > self.cache.limit_bytes:
            del self.model[next(iter(self.model))]

    @rule(number=st.integers(0, 12), label=st.text("ab", max_size=40))
    def put(self, number, label):
        key = AnswerCache.key([float(number)])
        self.cache.put(key, label, 0.5)
        self.model.pop(key, None)
        # What would not fit into an empty cache pushes nothing out.
        if self._size(key, (label, 0.5)) <= self.cache.limit_bytes:
            self.model[key] = (label, 0.5)
        self._trim()

    @rule(number=st.integers(0, 12))
    def find(self, number):
        key = AnswerCache.key([float(number)])
        assert self.cache.find(key) == self.model.get(key)
        if key in self.model:
            self.model[key] = self.model.pop(key)

    @rule(limit=st.integers(0, 4_000))
    def shrink(self, limit):
        self.cache.shrink_to(limit)
        self._trim()

    @invariant()
    def bounded(self):
        assert 0 <= self.cache.bytes <= self.cache.limit_bytes
        assert len(self.cache) == len(self.model)


TestLeastRecentlyUsed = Machine.TestCase
TestLeastRecentlyUsed.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_one_asks_and_the_others_wait():
    """The first one asks the model; whoever comes before its answer shares it."""
    cache = AnswerCache(1_000)
    key = cache.key([1.0])
    assert cache.join(key, "first") is False
    assert cache.join(key, "second") is True
    assert cache.finish(key) == ["first", "second"]
    assert cache.finish(key) == []
    assert (cache.hits, cache.misses) == (1, 1)


def test_an_answer_larger_than_the_cache_is_not_kept():
    """It would throw out everything else for nothing."""
    cache = AnswerCache(400)
    cache.put(b"a", "x", None)
    cache.put(b"b", "y" * 1_000, None)
    assert cache.find(b"a") == ("x", None)
    assert cache.find(b"b") is None


# --- over HTTP ------------------------------------------------------------------------------


@pytest.fixture
def cached(moody, settings_of):
    """Serves the moody model with a cache."""

    def start(**app):
        limits = {"allow_pickle": True, "wall_limit_s": 20}
        options = {"slo_ms": 2000, "cache_mib": 1} | app
        return served(settings_of(app=options, model=limits), moody.json, moody.path)

    return start


def counts(base):
    text = httpx.get(f"{base}/metrics").text
    found = {family.name: family for family in text_string_to_metric_families(text)}
    return {
        one.labels["result"]: one.value
        for one in found["mlguard_cache"].samples
        if one.name.endswith("_total")
    }


def predict(base, *rows):
    reply = httpx.post(f"{base}/app/predict", json={"input_batch": list(rows)}, timeout=30)
    assert reply.status_code == 200, reply.text
    document = reply.json()
    return document.get("batch_predictions", [document])


def test_the_model_is_asked_once(cached):
    """The same row again is a hit with an id of its own; in one batch it is asked once."""
    with cached() as base:
        first = predict(base, [0, 1.0])[0]
        again = predict(base, [0, 1.0])[0]
        assert (again["output"], again["default"]) == (first["output"], False)
        assert again["query_id"] != first["query_id"]
        assert counts(base) == {"hit": 1, "miss": 1}
        answers = predict(base, [0, -1.0], [0, 1.0], [0, -1.0], [0, -1.0])
        assert [one["output"] for one in answers] == [0, 1, 0, 0]
        assert counts(base) == {"hit": 4, "miss": 2}


def test_a_default_is_never_remembered(cached, misbehaving):
    """A row on which the model failed is asked again."""
    bad = [misbehaving.RAISE, 1.0]
    with cached() as base:
        for _ in range(2):
            assert predict(base, bad)[0]["default"]
        assert counts(base) == {"miss": 2}


def test_who_shares_a_flight_keeps_a_deadline_of_its_own(cached, misbehaving, eventually):
    """Rows that wait for one that hangs are each answered by default at their own SLO."""
    hang = [misbehaving.HANG, 1.0]
    with cached(slo_ms=400) as base:
        predict(base, [0, 1.0])
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: predict(base, hang)[0], range(4)))
        assert all("latency SLO" in one["default_explanation"] for one in answers)
        eventually(lambda: not predict(base, [0, 2.0])[0]["default"], what="the next answer")
