"""A front end whose machine's clock is set by a day: it answers, follows, and is heard of."""

import dataclasses
import time

import httpx
import pytest

from mlguard.errors import RegistryError
from mlguard.registry.lifecycle import State
from mlguard.registry.store import Registry
from mlguard.serving import sync
from mlguard.serving.routing import ALONE, Split

BODY = b'{"input": [0.5, 0.5]}'
DAY = 86400.0


class MachineClock:
    """The clock of every process of the machine; a test sets it."""

    def __init__(self, real):
        self.real, self.ahead_s = real, 0.0

    def __call__(self):
        return self.real() + self.ahead_s


@pytest.fixture
def machine(monkeypatch):
    clock = MachineClock(time.time)
    monkeypatch.setattr(time, "time", clock)
    return clock


def test_a_clock_that_is_set_by_a_day_stops_no_server(
    project, constant, fronted, *, eventually, machine, monkeypatch
):
    """Forward, and two days back: every answer is a 200, every switch is followed and told."""
    # A server gives a sign of life more often than it does, so that nobody need wait for it here.
    monkeypatch.setattr(sync, "_BEAT_S", 0.1)
    project.app("app")
    first, second = constant(0), constant(1)
    project.deploy("app", first, name="v0")
    statuses = set()

    def output():
        reply = httpx.post(f"{url}/app/predict", content=BODY, timeout=30)
        statuses.add(reply.status_code)
        return reply.json()["output"], int(reply.headers["X-MLGuard-Generation"])

    def heard():
        alive = project.registry.live_servers()
        state = project.registry.app("app")
        return alive and all(one.observed == {"app": state.generation} for one in alive)

    with fronted(project) as (front, url):
        # Opened before the clock was in a test's hand.
        front.sync.registry.clock = project.registry.clock = machine
        assert output() == (0, 1)
        project.deploy("app", second, name="v1")
        eventually(lambda: output() == (1, 2))
        for ahead_s, generation in ((DAY, 3), (-DAY, 4)):
            machine.ahead_s = ahead_s
            eventually(heard)
            if generation % 2:
                project.registry.rollback("app", automatic=False, reason="bad")
            else:
                project.deploy("app", second, name="v1")
            eventually(lambda wanted=generation: output() == ((wanted + 1) % 2, wanted))
            eventually(heard)
        assert front.sync.degraded is None
    assert statuses == {200}
    assert project.registry.verify() == []
    assert project.registry.version("app", "v1").state is State.LIVE


@pytest.mark.parametrize("ahead_s", [DAY, -DAY])
def test_a_clock_that_is_set_neither_ends_a_rollout_nor_prolongs_it(
    project, constant, fronted, machine, *, monkeypatch, ahead_s
):
    """A server that cannot hear of a candidate gives it traffic as long as a lease, no longer."""
    project.app("app")
    project.deploy("app", constant(0), name="v0")
    with fronted(project) as (front, _url):
        engine, follower = front.engines["app"], front.sync
        follower.stop()  # looked at by hand from here on
        passed = [0.0]
        follower._clock = lambda: passed[0]
        live = engine.route.active
        split = Split(candidate=live, weight=0.5)

        def gone(self, name):
            raise RegistryError("the database is gone")

        monkeypatch.setattr(Registry, "app", gone)
        shared = dataclasses.replace(engine.route, split=split)
        follower._in_loop(lambda: engine.switch(shared))
        follower.tick()
        machine.ahead_s = ahead_s
        passed[0] = 29.0
        follower.tick()
        assert engine.route.split == split
        passed[0] = 31.0
        follower.tick()
        assert engine.route.split == ALONE
