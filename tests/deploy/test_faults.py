"""Faults of monitors, data, targets and clocks: what is promised of each, on the real watcher."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mlguard.deploy import patience
from mlguard.deploy.patience import HangsError, ask_in_time
from mlguard.deploy.watch import LEASE, LEASE_S
from mlguard.errors import ModelRunError
from mlguard.models.predictor import load_predictor
from mlguard.policy import Level
from mlguard.registry import Mode, State
from mlguard.results import MonitorResult, Verdict, Window

NARROW, WIDE = (1.0, 0.0), (1.0, 1.0)


def kinds(events):
    return [one.kind for one in events if one.kind not in ("verdict", "reconciled")]


def debt_breaks(rows):
    """What an upstream change does to a feature: its sign is turned."""
    return rows * np.array([1.0, -3.0])


@pytest.fixture
def two(world):
    """An old version that looks at income alone, and a new one that looks at debt too."""
    world.deploy("v1", NARROW)
    world.pass_time(3600)
    world.deploy("v2", WIDE)
    return world


# --- a monitor that does not do its work -------------------------------------------------


HANGING = """
import threading

RELEASE, ASKED = threading.Event(), []


class Monitor:
    id, clock, sequential = "sleepy", "rows", False

    def __init__(self, settings, reference, app):
        pass

    def judge(self, window):
        ASKED.append(window)
        RELEASE.wait(60)
        return []
"""


def test_a_monitor_that_hangs_is_left_behind(two, plug_in, monkeypatch):
    """What does not answer in time is ERRORED, then blind; the others judge, nothing moves."""
    sleepy = plug_in("sleepy", HANGING)
    monkeypatch.setattr("mlguard.deploy.watch_app.HANGS_S", 0.05)
    watcher = two.watcher()
    try:
        seen = []
        for _ in range(3):
            two.traffic(600)
            seen += kinds(two.run(watcher))
        found = two.results("sleepy")
        assert {one.verdict for one in found} == {Verdict.ERRORED}
        assert "HangsError" in found[0].summary
        assert {one.verdict for one in two.results("data_drift")} == {Verdict.PASSED}
        # One thread is left behind, not one for each window.
        assert len(sleepy.ASKED) == 1
        # A monitor of somebody else's alerts, and does no more unless app.toml says so.
        assert seen == ["alert"]
        assert "blind" in two.registry.incidents("loan")[0].facts["why"]
        assert two.active() == "v2"
    finally:
        sleepy.RELEASE.set()


def test_one_that_was_left_behind_is_asked_again_when_it_is_done():
    """A question that is still open keeps the next one from being asked, and no longer."""
    release = threading.Event()
    with pytest.raises(HangsError, match="no answer in"):
        ask_in_time("slow", lambda: release.wait(60), 0.01)
    with pytest.raises(HangsError, match="since an earlier window"):
        ask_in_time("slow", lambda: 1, 60)
    release.set()
    patience._left_behind["slow"].join(60)
    assert ask_in_time("slow", lambda: 2, 60) == 2
    with pytest.raises(ZeroDivisionError):
        ask_in_time("slow", lambda: 1 / 0, 60)


NO_NUMBER = """
from mlguard.results import MonitorResult, Verdict


class Monitor:
    id, clock, sequential = "nonsense", "rows", False

    def __init__(self, settings, reference, app):
        pass

    def judge(self, window):
        return [
            MonitorResult(
                id="nonsense.figure",
                subject=verdict.word,
                verdict=verdict,
                summary="all is nan",
                value=float("nan"),
                limit=0.1,
                n=600,
                window=window.window,
                version=window.version,
            )
            for verdict in (Verdict.PASSED, Verdict.FAILED)
        ]
"""


def test_a_figure_that_is_no_number_is_no_verdict(two, plug_in):
    """A monitor that judges by NaN neither passes nor fails anything, and is blind in the end."""
    plug_in("nonsense", NO_NUMBER)
    watcher = two.watcher()
    seen = []
    for _ in range(3):
        two.serve(two.rows(600))
        seen += kinds(two.run(watcher))
    found = two.results("nonsense")
    assert {one.subject for one in found} == {"passed", "failed"}
    assert {one.reason for one in found} == {"nonfinite"}
    assert {one.verdict for one in found} == {Verdict.ERRORED}
    assert (set(seen), two.active()) == ({"alert"}, "v2")


def test_a_day_without_a_verdict_is_blind():
    """Windows that last a day together are enough, however few; idle hours are not."""
    from mlguard.policy import is_blind

    def result(start, hours, verdict=Verdict.ERRORED, n=500):
        window = Window(
            start=start * 3600.0, end=(start + hours) * 3600.0, n_rows=n, n_labels=0, generation=1
        )
        return MonitorResult(id="m.x", verdict=verdict, summary="-", n=n, n_min=20, window=window)

    assert not is_blind([result(0, 1), result(1, 1)])
    assert is_blind([result(0, 12), result(12, 12)])
    assert not is_blind([result(0, 12), result(12, 1, Verdict.PASSED), result(20, 8)])
    # Windows with too few rows say nothing about the monitor.
    few = [dataclasses.replace(result(at, 12, n=5), verdict=Verdict.INCONCLUSIVE) for at in (0, 12)]
    assert not is_blind(few)
    assert is_blind([result(0, 1), result(1, 1), result(2, 1)])


# --- too little to judge -----------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_rows_are_no_verdict(two, n):
    """No row makes no window; one row is INCONCLUSIVE with n and n_min, for every monitor."""
    watcher = two.watcher()
    if n:
        rows = two.rows(1)
        two.label(two.serve(rows), two.truth(rows))
    two.pass_time(4000)
    assert kinds(two.run(watcher)) == []
    found = [one for _, one in two.registry.monitor_results("loan")]
    assert bool(found) == bool(n)
    # A version whose reference does not tell it how its answers are spread is not judged on them.
    found = [one for one in found if one.verdict is not Verdict.SKIPPED]
    for one in found:
        assert one.verdict is Verdict.INCONCLUSIVE, one
        assert (one.n or 0) <= 1
        assert one.n_min is not None
        assert one.n_min > 1
    assert (two.active(), two.registry.holds("loan")) == ("v2", [])


def test_one_class_is_no_verdict_on_groups(world):
    """Where nobody belongs to the positive class, rates of it are undecided, not equal."""
    world.configure(
        "[monitor.fairness]\nenabled = false",
        '[monitor.fairness]\nwindow_rows = 400\nmetric = "true_positive_rate"\n'
        "[monitor.concept_drift]\nenabled = false",
    )
    world.deploy("v1", WIDE)
    watcher = world.watcher()
    ids = world.serve(world.rows(410), sex=np.where(np.arange(410) % 2, "F", "M"))
    world.label(ids, np.zeros(410, int))
    assert kinds(world.run(watcher)) == []
    gaps = [one for one in world.results("fairness") if one.id.endswith("_difference")]
    assert gaps
    for one in gaps:
        assert one.verdict is Verdict.INCONCLUSIVE
        assert one.n is not None
        assert one.n_min is not None
        assert one.n < one.n_min


# --- what flaps --------------------------------------------------------------------------


def test_a_figure_that_flaps_for_a_day_is_one_thread(two):
    """A feature over and under its limit every two hours: one incident, and nothing is moved."""
    watcher = two.watcher()
    seen = []
    for place in range(12):
        two.serve(two.rows(500) + (0.6 if place % 2 else 0.0))
        seen += kinds(two.run(watcher, passes=1))
        two.pass_time(7200)
    assert len({one.verdict for one in two.results("data_drift")}) > 1
    assert len(two.registry.incidents("loan")) == 1
    assert "alert" in seen
    assert "rolled_back" not in seen
    assert two.active() == "v2"


def test_moves_that_flap_for_a_day_end_in_a_freeze(world):
    """A hard failure that comes and goes on every version: two moves in a day, then a hold."""
    for place, weights in enumerate([(1.0, 0.0), (1.0, 0.1), (1.0, 0.2), (1.0, 0.3)]):
        world.deploy(f"v{place + 1}", weights)
        world.pass_time(60)
    watcher = world.watcher()
    seen = []
    for place in range(12):
        world.serve(world.rows(40), defaults=np.full(40, place % 2 == 1))
        seen += kinds(world.run(watcher, passes=1))
        world.pass_time(7000)
    assert seen.count("rolled_back") == 2
    assert world.active() == "v2"
    assert world.registry.holds("loan")
    # One thread for each version that failed, however often.
    versions = [one.version for one in world.registry.incidents("loan")]
    assert sorted(versions) == ["v2", "v3", "v4"]
    assert "budget" in world.registry.incidents("loan")[0].facts["why"]


# --- what could be gone back to ----------------------------------------------------------


def bad_targets(world):
    """Five versions: intact, without bytes, with other bytes, too slow to load, and live."""
    deployed = {}
    for place, weights in enumerate([(1.0, 0.0), (1.0, 0.1), (1.0, 0.2), (1.0, 0.3), WIDE]):
        deployed[f"v{place + 1}"] = world.deploy(f"v{place + 1}", weights)
        world.pass_time(60)
    paths = {
        name: world.registry.artifacts.get(one.manifest["model_sha256"])
        for name, one in deployed.items()
    }
    paths["v2"].parent.chmod(0o755)
    paths["v2"].unlink()
    paths["v3"].chmod(0o644)
    paths["v3"].write_bytes(b"not what it was")
    slow = deployed["v4"].digest

    def replay(manifest, path, rows):
        if manifest.digest == slow:
            raise ModelRunError("it gave no answer in 30 s and was ended")
        return load_predictor(manifest, path).predict(rows)

    return replay


def test_bad_targets_are_refused_by_name_and_the_next_is_taken(world):
    """Slow, corrupt and missing targets are passed over, each with its reason on record."""
    world.configure('grace = "0s"', 'grace = "0s"\ntargets_tried = 4')
    replay = bad_targets(world)
    world.serve(world.rows(25), defaults=np.ones(25, dtype=bool))
    events = world.run(world.watcher(replay=replay))
    assert "rolled_back" in kinds(events)
    assert world.active() == "v1"
    trials = world.registry.incidents("loan")[-1].facts["trials"]
    assert [(one["version"], one["outcome"]) for one in trials] == [
        ("v4", "unfit"),
        ("v3", "unfit"),
        ("v2", "unfit"),
        ("v1", "qualified"),
    ]
    assert "no answer in 30 s" in trials[0]["reason"]
    assert "has changed" in trials[1]["reason"]
    assert "is missing" in trials[2]["reason"]


def test_where_every_target_is_bad_the_default_is_the_output(world):
    """With no version fit to go back to a hard failure ends in the default output, told whole."""
    from mlguard.project import Project

    replay = bad_targets(world)
    world.serve(world.rows(25), defaults=np.ones(25, dtype=bool))
    events = world.run(world.watcher(replay=replay))
    assert "default_output" in kinds(events)
    state = world.registry.app("loan")
    assert (state.mode, state.active) == (Mode.DEFAULT_OUTPUT, None)
    project = Project(world.root, clock=world.clock)
    [told] = project.incidents(1).to_json()["incidents"]
    assert told["level"] == Level.DEFAULT_OUTPUT.word
    assert [one["version"] for one in told["trials"]] == ["v4", "v3", "v2"]
    project.registry.close()


# --- the rule of one ---------------------------------------------------------------------


def test_by_default_one_label_source_is_enough(world):
    """With no settings of its own and one source of labels a drifted version is rolled back."""
    world.configure('[auto]\ngrace = "0s"\n[monitor.data_drift]\nwindow_rows = 500\n', "")
    world.configure("[monitor.fairness]\nenabled = false\n", "")
    world.deploy("v1", NARROW)
    world.pass_time(3600)
    world.deploy("v2", WIDE)
    watcher = world.watcher()
    seen = []
    for _ in range(3):
        world.serving()
        world.traffic(300)
        world.pass_time(300)
        seen += kinds(world.run(watcher))
    assert seen == []
    world.traffic(200, see=debt_breaks)
    seen += kinds(world.run(watcher))
    assert "rolled_back" in seen
    assert world.active() == "v1"
    assert world.registry.version("loan", "v2").state is State.QUARANTINED


def test_months_without_traffic_or_due_labels_freeze_nothing(two):
    """Silence is idle; answers whose labels may still come are waiting; neither holds anything."""
    watcher = two.watcher()
    for _ in range(20):
        two.pass_time(3 * 86400)
        two.serving()
        assert kinds(two.run(watcher, passes=1)) == []
    two.serve(two.rows(600))
    two.pass_time(6 * 86400)
    assert kinds(two.run(watcher)) == []
    assert two.registry.holds("loan") == []
    assert two.registry.incidents("loan") == []


# --- processes that die, and two of them -------------------------------------------------


def start(world, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "mlguard.cli", "monitor", "--project", str(world.root), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )


@pytest.mark.soak
def test_a_kill_in_mid_window_loses_and_repeats_nothing(two):
    """Killed in mid-window and taken up by one of two others: each label once, one move."""
    version = two.registry.app("loan").active
    two.clock.now = time.time() - 300
    two.traffic(300)
    process = start(two)
    deadline = time.monotonic() + 120
    key = "loan", version.id, 2, "concept_drift"
    while (two.registry.monitor_state(*key) or {"monitor": {"n": 0}})["monitor"]["n"] < 300:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert two.results("data_drift") == []
    two.clock.now = time.time() - 150
    two.traffic(300)
    two.clock.now = time.time() - 80
    two.traffic(200, see=debt_breaks)
    # The dead process's lease runs out; whoever comes then, one of them is the leader.
    two.clock.now = time.time() + LEASE_S + 1
    assert two.registry.lease(LEASE, "me", LEASE_S)
    two.registry.give_up_lease(LEASE, "me")
    both = [start(two, "loan", "--once", "--json") for _ in range(2)]
    ended = [one.communicate(timeout=120) for one in both]
    found = [one for out, _ in ended for one in json.loads(out)["events"]]
    moves = [one for one in found if one["kind"] == "rolled_back"]
    assert len(moves) == 1, (found, ended)
    # The one that moved says so; the other was not the leader, or came after.
    assert sorted(one.returncode for one in both) == [0, 6]
    assert two.registry.app("loan").generation == 3
    assert two.active() == "v1"
    # 800 answers in windows of 500: the one that the kill cut is judged whole, and once.
    [window] = two.results("data_drift")
    assert window.window.n_rows == 500
    assert two.registry.monitor_state(*key)["monitor"]["n"] == 800
