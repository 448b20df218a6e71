"""Who answers and who is shown what: the pure rules, then a real front end under traffic."""

import threading
import time

import httpx
import numpy as np
import pytest
from scipy.stats import binom

from mlguard.data.mirrored import mirrored_folder
from mlguard.data.prediction_log import PredictionLog
from mlguard.serving.mirroring import reordered
from mlguard.serving.routing import ALONE, Split, place, shown_to, takes_canary

UIDS = [f"user-{number}" for number in range(20_000)]


def test_places_are_uniform():
    """A share of the hash is that share of the callers, within the noise of a fair draw."""
    places = np.array([place(uid, 7) for uid in UIDS])
    assert places.min() >= 0
    assert places.max() < 1
    for share in (0.05, 0.25, 0.5):
        n = int((places < share).sum())
        assert binom.ppf(1e-6, len(UIDS), share) <= n <= binom.isf(1e-6, len(UIDS), share)


def test_a_caller_stays_and_a_growing_share_keeps_its_own():
    """Sticky: the draw of the request does not matter, and whoever was in stays in."""
    small, large = Split(candidate=7, weight=0.05), Split(candidate=7, weight=0.25)
    before = {uid for uid in UIDS if takes_canary(small, uid, 0.0)}
    assert before == {uid for uid in UIDS if takes_canary(small, uid, 0.999)}
    assert before < {uid for uid in UIDS if takes_canary(large, uid, 0.5)}


def test_another_candidate_is_tried_on_other_people():
    """Of those who tried the last candidate, the next one gets its share and no more."""
    first, second = Split(candidate=7, weight=0.25), Split(candidate=8, weight=0.25)
    tried = [uid for uid in UIDS if takes_canary(first, uid, 0.0)]
    again = sum(takes_canary(second, uid, 0.0) for uid in tried)
    assert again < binom.isf(1e-6, len(tried), 0.25)


def test_without_a_uid_the_draw_decides():
    """A caller who gives no name is drawn for each request."""
    split = Split(candidate=7, weight=0.25)
    assert takes_canary(split, None, 0.2499)
    assert not takes_canary(split, None, 0.25)


def test_alone_nobody_takes_part():
    """Where nothing is rolled out, whatever the uid, the active version answers."""
    assert not any(takes_canary(ALONE, uid, 0.0) for uid in UIDS[:100])
    assert shown_to(ALONE, 0.0) == ()
    assert shown_to(Split(mirrors=((7, 0.1), (8, 1.0))), 0.5) == (8,)
    assert place("\ud800", 1) == place("\ud800", 1)


def test_a_row_is_given_in_the_order_of_the_mirror():
    """Columns are found by name in tables, by place elsewhere; a missing one is no row."""
    assert reordered([1, 2, 3], ("a", "b", "c"), ("c", "a")) == [3, 1]
    assert reordered([1, 2], ("a", "b"), ("a", "x")) is None
    assert reordered([1, 2], ("a", "b"), ("x", "y"), by_name=False) == [1, 2]
    assert reordered([1, 2], ("a", "b"), ("x",), by_name=False) is None
    assert reordered("text", ("a",), ("b",)) == "text"


# --- a real front end ----------------------------------------------------------------------


class Asking(threading.Thread):
    """Asks without a pause, with names and without, and remembers who answered whom."""

    def __init__(self, url):
        super().__init__()
        self.url, self.stopping = url, threading.Event()
        self.statuses, self.sides, self.outputs, self.ids = set(), {}, [], {}

    def run(self):
        with httpx.Client(base_url=self.url, timeout=30) as client:
            n = 0
            while not self.stopping.is_set():
                n += 1
                uid = f"u{n % 40}" if n % 2 else None
                body = {"input_batch": [[0.5, 0.5], [0.1, 0.2]]}
                reply = client.post("/app/predict", json=body | ({"uid": uid} if uid else {}))
                self.statuses.add(reply.status_code)
                version = reply.headers["X-MLGuard-Version"]
                answers = reply.json()["batch_predictions"]
                self.outputs.append((version, {one["output"] for one in answers}))
                self.sides.setdefault(uid, set()).add(version)
                for one in answers:
                    self.ids[one["query_id"]] = version


@pytest.fixture
def rolling(project, constant, fronted, eventually):
    """A live version that answers 0 under traffic, and one that answers 1 on its way in."""
    project.app("app")
    project.deploy("app", constant(0))
    registry = project.registry
    with fronted(project) as (front, url):
        eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        asking = Asking(url)
        asking.start()

        def begin(steps):
            version = project.passed("app", constant(1))
            operation = registry.begin("app", version.id, steps=steps)
            registry.stage(operation)
            eventually(lambda: all(version.id in one.loaded for one in registry.live_servers()))
            return registry.advance(operation, reason="try it")

        try:
            yield registry, front.engines["app"], asking, begin
        finally:
            asking.stopping.set()
            asking.join()


def test_a_canary_answers_its_share_and_leaves_without_a_trace(rolling, eventually):
    """Sticky by uid, a batch whole, no request lost; drained, the old version answers all."""
    registry, engine, asking, begin = rolling
    one = begin([0.5])
    eventually(lambda: engine.route.split.weight)
    asking.sides.clear()
    start = len(asking.outputs)
    eventually(lambda: len(asking.outputs) > start + 400)
    sides = dict(asking.sides)
    assert sides.pop(None) == {"v1", "v2"}
    assert {len(found) for found in sides.values()} == {1}
    assert set().union(*sides.values()) == {"v1", "v2"}
    expected = {
        f"u{n}": {"v2"} if place(f"u{n}", one.version.id) < 0.5 else {"v1"} for n in range(1, 40, 2)
    }
    assert sides == expected
    registry.abort("app", "enough")
    eventually(lambda: not engine.route.split.weight)
    time.sleep(0.05)
    start = len(asking.outputs)
    eventually(lambda: len(asking.outputs) > start + 100)
    assert {version for version, _ in asking.outputs[start + 5 :]} == {"v1"}
    assert asking.statuses == {200}
    assert all(found == {0 if version == "v1" else 1} for version, found in asking.outputs)


def test_a_shadow_answers_nobody_and_is_logged_apart(rolling, eventually, project):
    """Every live row is shown to it under the same query id; callers hear the live one only."""
    registry, engine, asking, begin = rolling
    one = begin(["shadow"])
    eventually(lambda: engine.route.split.mirrors)
    start = len(asking.outputs)
    eventually(lambda: len(asking.outputs) > start + 200)
    asking.stopping.set()
    asking.join()
    assert asking.statuses == {200}
    assert {version for version, _ in asking.outputs} == {"v1"}
    log = PredictionLog(project.settings.log_dir)

    def mirrored():
        folder = mirrored_folder(one.version.id)
        return log.read("app", version_id=folder).column("query_id").to_pylist()

    eventually(lambda: len(mirrored()) + engine.mirrors.dropped >= 400)
    shown = mirrored()
    assert len(shown) == len(set(shown))
    assert set(shown) <= set(asking.ids)
    live = log.read("app")
    assert set(live.column("output").to_pylist()) == {"0"}
    rows = log.read("app", version_id=mirrored_folder(one.version.id))
    assert set(rows.column("output").to_pylist()) == {"1"}
    assert set(rows.column("generation").to_pylist()) == {registry.app("app").generation}
    (family,) = engine.metrics.mirror_dropped.collect()
    counted = [one.value for one in family.samples if one.name == "mlguard_mirror_dropped_total"]
    assert sum(counted) == engine.mirrors.dropped


def test_the_predecessor_sees_a_share_while_the_new_one_is_watched(
    project, constant, fronted, eventually
):
    """While a version bakes, the one to go back to is shown rows: warm, and comparable."""
    project.app("app", more="[rollout]\nreverse_shadow = 1.0\n")
    project.deploy("app", constant(0))
    with fronted(project) as (front, url):
        eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        registry = project.registry
        confirm = registry.confirm
        registry.confirm = lambda *_args, **_more: None
        try:
            project.deploy("app", constant(1))
        finally:
            registry.confirm = confirm
        engine = front.engines["app"]
        before = registry.version("app", "v1")
        eventually(lambda: engine.route.split.mirrors == ((before.id, 1.0),))
        reply = httpx.post(f"{url}/app/predict", json={"input": [0.5, 0.5]}).json()
        assert reply["output"] == 1
        log = PredictionLog(project.settings.log_dir)
        folder = mirrored_folder(before.id)
        eventually(lambda: log.read("app", version_id=folder).num_rows == 1)
        (row,) = log.read("app", version_id=folder).to_pylist()
        assert (row["query_id"], row["output"]) == (reply["query_id"], "0")
        registry.confirm("app", served_s=600)
        eventually(lambda: engine.route.split == ALONE)


def test_a_server_that_hears_nothing_gives_a_candidate_nothing(rolling, eventually, monkeypatch):
    """With the registry gone for longer than a lease, the candidate's share is taken away."""
    from mlguard.errors import RegistryError
    from mlguard.registry.store import Registry
    from mlguard.serving import sync

    _registry, engine, asking, begin = rolling
    begin([0.5])
    eventually(lambda: engine.route.split.weight)

    def gone(self, name):
        raise RegistryError("the database is gone")

    with monkeypatch.context() as broken:
        broken.setattr(sync, "LEASE_S", 0.5)
        broken.setattr(Registry, "app", gone)
        eventually(lambda: engine.route.split == ALONE)
        start = len(asking.outputs)
        eventually(lambda: len(asking.outputs) > start + 50)
        assert {version for version, _ in asking.outputs[start + 5 :]} == {"v1"}
    assert asking.statuses == {200}
