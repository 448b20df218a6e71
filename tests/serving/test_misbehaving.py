"""Models that raise, hang, crash, leak and lie: each costs its own rows and nothing else."""

import contextlib
import os
import signal
import threading
import time

import httpx
import psutil
import pytest

from mlguard.errors import ModelRunError
from mlguard.serving.embedded import served

SLO_MISSED = "Failed to retrieve a prediction response within the specified latency SLO"


@pytest.fixture
def moods(misbehaving):
    return misbehaving


@pytest.fixture
def server(moody, settings_of):
    """Serves the moody model under limits that a test can wait for."""

    def start(**limits):
        slo_ms = limits.pop("slo_ms", 2000)
        model = {"allow_pickle": True, "wall_limit_s": 20, "memory_mib": 2048} | limits
        settings = settings_of(app={"slo_ms": slo_ms}, model=model)
        return served(settings, moody.json, moody.path)

    return start


def ask(base, *rows):
    reply = httpx.post(f"{base}/app/predict", json={"input_batch": list(rows)}, timeout=30)
    assert reply.status_code == 200, reply.text
    document = reply.json()
    return document.get("batch_predictions", [document])


def children() -> list[psutil.Process]:
    found = []
    for one in psutil.Process().children(recursive=True):
        # One that has just ended has no command line any more.
        with contextlib.suppress(psutil.Error):
            if "mlguard.serving.replica_child" in one.cmdline():
                found.append(one)
    return found


GOOD = [0, 1.0]


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("RAISE", "The model raised an error: ValueError"),
        ("SYSTEM_EXIT", "The model raised an error: SystemExit"),
        ("NAN", "The model answered with a value that is not finite"),
        ("INFINITY", "The model answered with a value that is not finite"),
        ("COUNT", "The model answered with something that is no prediction"),
        ("DTYPE", "The model raised an error: ValueError"),
    ],
)
def test_a_bad_row_fails_alone(server, moods, mood, said):
    """The row gets the default with its own explanation; its neighbours get their answers."""
    bad = [getattr(moods, mood), 1.0]
    with server() as base:
        answers = ask(base, GOOD, [0, -1.0], bad, GOOD, bad, GOOD)
        assert [one["default"] for one in answers] == [False, False, True, False, True, False]
        assert [one["output"] for one in answers] == [1, 0, "None", 1, "None", 1]
        assert {one["default_explanation"] for one in answers if one["default"]} == {said}
        assert "secret" not in str(answers)


@pytest.mark.parametrize("mood", ["SEGFAULT", "EXIT"])
def test_a_crash_costs_the_rows_in_hand(server, moods, mood, eventually):
    """The rows in the process's hands get defaults at once; the next one takes over."""
    with server() as base:
        before = ask(base, GOOD)[0]
        assert before["output"] == 1
        started = time.monotonic()
        answer = ask(base, [getattr(moods, mood), 1.0])[0]
        assert answer["default"]
        assert "process died" in answer["default_explanation"]
        assert time.monotonic() - started < 2.0
        eventually(lambda: ask(base, GOOD)[0]["output"] == 1, what="the restart")


def test_a_hang_costs_its_rows_and_a_moment(server, moods, eventually):
    """At the SLO the default; then a stand-in answers long before the wall limit."""
    with server(slo_ms=300) as base:
        ask(base, GOOD)
        answer = ask(base, [moods.HANG, 1.0])[0]
        assert answer["default_explanation"] == SLO_MISSED
        started = time.monotonic()
        eventually(lambda: not ask(base, GOOD)[0]["default"], what="the stand-in")
        assert time.monotonic() - started < 15


def test_the_wall_limit_ends_a_hang(server, moods, eventually):
    """After wall_limit_s the hanging process is gone, and one answers."""
    with server(slo_ms=300, wall_limit_s=1.0) as base:
        ask(base, GOOD)
        (hanging,) = children()
        ask(base, [moods.HANG, 1.0])
        eventually(lambda: not hanging.is_running(), within_s=5, what="the end of the process")
        eventually(lambda: not ask(base, GOOD)[0]["default"], what="the next process")
        eventually(lambda: len(children()) == 1, what="one process again")


def test_a_wall_limit_below_the_slo_has_its_own_words(server, moods):
    """Who is stopped before the SLO is told so."""
    with server(slo_ms=10_000, wall_limit_s=0.5) as base:
        answer = ask(base, [moods.HANG, 1.0])[0]
        assert answer["default_explanation"] == "The model was stopped at its wall limit"


def test_a_slow_model_misses_the_slo_and_goes_on(server, moods, eventually):
    """A late answer is thrown away; nothing is restarted."""
    with server(slo_ms=200) as base:
        ask(base, GOOD)
        before = {one.pid for one in children()}
        assert ask(base, [moods.SLOW, 1.0])[0]["default_explanation"] == SLO_MISSED
        eventually(lambda: not ask(base, GOOD)[0]["default"])
        assert {one.pid for one in children()} == before


def test_a_leak_is_recycled_without_a_lost_row(server, moods, eventually):
    """At 80 % of its memory limit a process is replaced by one loaded beforehand."""
    with server(memory_mib=1024, slo_ms=5000) as base:
        ask(base, GOOD)
        (first,) = children()
        answers = [ask(base, [moods.LEAK, 1.0])[0] for _ in range(22)]
        eventually(lambda: not first.is_running(), what="the recycling")
        answers += [ask(base, GOOD)[0] for _ in range(10)]
        assert [one["default"] for one in answers] == [False] * len(answers)


def test_a_burst_of_memory_is_refused_in_the_child(server, moods):
    """Beyond the limit the model gets a MemoryError, or its process ends; nobody else notices."""
    with server(memory_mib=512, slo_ms=5000) as base:
        answers = ask(base, *([[moods.LEAK, 1.0]] * 1))
        for _ in range(15):
            answers += ask(base, [moods.LEAK, 1.0])
        assert all(one["default"] or one["output"] == 1 for one in answers)
        for one in answers:
            if one["default"]:
                assert (
                    "Memory" in one["default_explanation"]
                    or "process" in (one["default_explanation"])
                )


def test_replicas_share_the_work(server, moods):
    """With two processes a hang leaves the other one answering."""
    with server(slo_ms=500, replicas=2) as base:
        assert len(children()) == 2
        hanging = threading.Thread(target=ask, args=(base, [moods.HANG, 1.0]))
        hanging.start()
        time.sleep(0.05)
        assert not any(ask(base, GOOD)[0]["default"] for _ in range(20))
        hanging.join()


def test_a_killed_replica_is_replaced(server, eventually):
    """kill -9 from outside is a crash like any other."""
    with server() as base:
        ask(base, GOOD)
        (first,) = children()
        os.kill(first.pid, signal.SIGKILL)
        eventually(lambda: not ask(base, GOOD)[0]["default"])
        assert first.pid not in {one.pid for one in children()}


def test_nothing_is_left_behind(server):
    """When the server ends, so do the models' processes."""
    with server() as base:
        ask(base, GOOD)
        assert children()
    assert not children()


def test_a_model_that_cannot_be_loaded_says_why(moody, settings_of):
    """The reason of the child reaches whoever wanted to load it."""
    settings = settings_of(model={"allow_pickle": True})
    moody.path.write_bytes(b"no model")
    with pytest.raises(ModelRunError, match="SHA-256"), served(settings, moody.json, moody.path):
        pass


def test_a_replica_dies_with_its_parent(moody, tmp_path, eventually):
    """A model that hangs does not notice a closed socket; the kernel ends it all the same."""
    import json
    import subprocess
    import sys

    script = """
import asyncio, json, sys
from mlguard.serving.replicas import ModelSpec, ReplicaPool
async def main():
    spec = ModelSpec(json.loads(sys.argv[1]), sys.argv[2], 2048, 60.0)
    pool = ReplicaPool(spec)
    await pool.start()
    pool.run([[2.0, 1.0]], lambda answer: None)
    print(pool.pids[0], flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(moody.json), str(moody.path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    replica = psutil.Process(int(process.stdout.readline()))
    assert replica.is_running()
    process.kill()
    process.wait()
    process.stdout.close()
    eventually(
        lambda: not replica.is_running() or replica.status() == psutil.STATUS_ZOMBIE, within_s=5
    )


def test_a_batch_that_burns_its_processor_time_is_stopped(server, moods, eventually):
    """Long before the wall limit the kernel ends it; the caller is told why."""
    with server(slo_ms=15_000, cpu_limit_s=0.5) as base:
        ask(base, GOOD)
        (burning,) = children()
        answer = ask(base, [moods.SPIN, 1.0])[0]
        said = "The model was stopped at its limit of processor time"
        assert answer["default_explanation"] == said
        assert not burning.is_running()
        eventually(lambda: not ask(base, GOOD)[0]["default"], what="the next process")


def test_what_a_batch_leaves_running_counts_as_its_own(server, moods, eventually):
    """A thread that goes on burning after the answer ends with the process, which is replaced."""
    with server(cpu_limit_s=1.0, heartbeat_s=0.4) as base:
        ask(base, GOOD)
        (burning,) = children()
        assert not ask(base, [moods.SPIN_ON, 1.0])[0]["default"]
        eventually(lambda: not burning.is_running(), within_s=60, what="the end of the process")
        eventually(lambda: not ask(base, GOOD)[0]["default"], what="the next process")


def test_processor_time_is_counted_anew(server, moods):
    """Each batch starts the count again: many that use a little are not one that uses much."""
    with server(cpu_limit_s=0.4, slo_ms=15_000) as base:
        ask(base, GOOD)
        before = [one.pid for one in children()]
        for _ in range(6):
            assert not ask(base, [moods.WORK, 1.0])[0]["default"]
        assert [one.pid for one in children()] == before


@pytest.mark.parametrize("mood", ["STOP_LATER", "LOCK_LATER"])
def test_an_idle_process_that_is_stuck_is_replaced(server, moods, mood, eventually):
    """Nobody asks, and still it is found: by the time somebody does, another one answers."""
    with server(heartbeat_s=0.6) as base:
        assert not ask(base, [getattr(moods, mood), 1.0])[0]["default"]
        (stuck,) = children()
        eventually(
            lambda: [one.pid for one in children()] not in ([], [stuck.pid]), what="the next one"
        )
        assert not stuck.is_running()
        eventually(lambda: not ask(base, GOOD)[0]["default"], what="its first answer")
        assert "gave no sign of life" in httpx.get(f"{base}/metrics").text


def test_a_heartbeat_leaves_a_healthy_process_alone(server, moods):
    """Also one whose batches take longer than the heartbeat: whoever works is not asked."""
    with server(heartbeat_s=0.1, slo_ms=10_000) as base:
        ask(base, GOOD)
        before = [one.pid for one in children()]
        for _ in range(3):
            assert not ask(base, [moods.SLOW, 1.0])[0]["default"]
        assert [one.pid for one in children()] == before
