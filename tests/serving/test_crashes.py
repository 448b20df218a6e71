"""Models' processes that die: from the signal that ended them to the version before serving again.

Fault 20 of the promise: only the child dies, and three deaths within five minutes are a failure
that moves traffic, however many rows went well in between.
"""

import time

import httpx
import psutil
import pytest

from mlguard.deploy.watch import Watcher
from mlguard.registry.lifecycle import State
from mlguard.serving.answers import (
    CRASHES,
    MODEL_DIED,
    MODEL_OUT_OF_MEMORY,
    MODEL_OUT_OF_TIME,
    MODEL_SILENT,
    MODEL_STOPPED,
)

ACTS = '[auto]\ngrace = "0s"\n[monitor.service]\ncrashes = 3\n'


def ask(url, mood):
    """Ask for the answer to one row."""
    return httpx.post(f"{url}/app/predict", json={"input": [float(mood), 0.5]}, timeout=30).json()


def version_of(url):
    """Return who answers."""
    body = {"input": [0.0, 0.5]}
    return httpx.post(f"{url}/app/predict", json=body, timeout=30).headers["X-MLGuard-Version"]


@pytest.fixture
def answering(eventually):
    """Waits until a server's model answers."""

    def wait(url, what="the model"):
        eventually(lambda: not ask(url, 0)["default"], within_s=60, what=what)

    return wait


@pytest.fixture
def crashing(project, constant, moody, serving, eventually):
    """A server with a version that is fine and, live, one that does what it is told."""
    project.app("app", more=ACTS)
    with serving(project) as (_, url):
        project.deploy("app", constant(1), name="v1")
        project.deploy("app", moody, name="v2")
        eventually(lambda: version_of(url) == "v2", within_s=60, what="v2")
        yield url


@pytest.fixture
def deaths(project, fronted, eventually, answering):
    """Serves a version, lets something happen to it, and gives what the registry is told."""

    def told(bundle, happen):
        with fronted(project) as (front, url):
            version = project.deploy("app", bundle, name="v1")
            answering(url)
            happen(url, front.engines["app"].versions[version.id].replica.pids)
            where = ("app", version.id, 1)
            eventually(lambda: project.registry.crashes(*where), within_s=30, what="a word")
            answering(url, "the next process")
        return project.registry.crashes(*where)

    return told


def test_three_segfaults_go_back_to_the_version_before(
    crashing, project, misbehaving, answering, eventually
):
    """A real model segfaults three times among rows that go well: an incident, and a rollback."""
    watcher = Watcher(project.settings, project.registry)
    answering(crashing)
    for _ in range(3):
        assert project.registry.app("app").active.name == "v2"
        for _ in range(8):
            assert not ask(crashing, 0)["default"]
        assert "died" in ask(crashing, misbehaving.SEGFAULT)["default_explanation"]
        answering(crashing, "a new process")
        watcher.tick()
    give_up = time.monotonic() + 60
    while project.registry.app("app").active.name != "v1":
        assert time.monotonic() < give_up
        watcher.tick()
    (incident,) = project.registry.incidents("app")
    assert (incident.monitor, incident.level) == ("service.crash", "rollback")
    assert "3 deaths" in incident.summary
    assert "died while it worked" in incident.summary
    assert project.registry.version("app", "v2").state is State.QUARANTINED
    eventually(lambda: version_of(crashing) == "v1", what="v1")
    assert ask(crashing, misbehaving.SEGFAULT)["output"] == 1


def test_an_end_at_a_limit_is_told(project, misbehaving, moody, deaths):
    """A process that is ended at its wall limit died, when and of what the registry is told."""
    project.app("app", more="[model]\nallow_pickle = true\nwall_limit_s = 0.3\n")
    began = time.time()
    ((at, why),) = deaths(moody, lambda url, _: ask(url, misbehaving.HANG))
    assert "wall limit" in why
    assert began - 1 <= at <= time.time()


@pytest.mark.parametrize("reason", [MODEL_STOPPED, MODEL_OUT_OF_TIME, MODEL_OUT_OF_MEMORY])
def test_every_limit_counts_and_silence_does_not(reason):
    """Of the ways in which a process ends only silence may be the machine's own."""
    assert reason in CRASHES
    assert MODEL_DIED in CRASHES
    assert MODEL_SILENT not in CRASHES


def test_a_killed_idle_process_is_told_and_a_stop_is_not(project, moody, deaths):
    """What somebody kills between two rows counts; what ends with its server does not."""
    project.app("app")
    told = deaths(moody, lambda _, pids: psutil.Process(pids[0]).kill())
    assert len(told) == 1
