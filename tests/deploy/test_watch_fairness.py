"""Groups in production: the detector of each, and the floor below which an answer is harm."""

from __future__ import annotations

import numpy as np
import pytest

from mlguard.deploy.false_alarms import expected_false_alarms
from mlguard.policy import Level
from mlguard.registry import Mode
from mlguard.results import Verdict

OLD, NEW = (1.0, 0.9), (1.0, 1.0)
#: v1 looks at income alone, v2 at both.
NARROW, WIDE = (1.0, 0.0), (1.0, 1.0)
OFF = "[monitor.fairness]\nenabled = false"
FLOOR = "[monitor.fairness]\nwindow_rows = 400\nat_most = 1.0\nfloor = 0.7\nharm_class = true"


def kinds(events):
    return [one.kind for one in events if one.kind != "verdict"]


def traffic(world, n, *, women, broken=True):
    """Rows of which an upstream change turns the debt of the women."""
    rows = world.rows(n)
    sex = np.arange(n) % women == 0
    shown = rows.copy()
    if broken:
        shown[sex] *= np.array([1.0, -3.0])
    ids = world.serve(shown, sex=np.where(sex, "F", "M"))
    world.label(ids, world.truth(rows))


@pytest.mark.parametrize("fresh", [False, True])
def test_a_small_group_goes_wrong_while_the_average_stays_fine(world, fresh):
    """fairness.loss rolls back and concept_drift says nothing; a restart changes nothing."""
    world.by_sex = True
    world.configure(OFF, "[monitor.fairness]\naction = 'rollback'")
    world.deploy("v1", NARROW)
    world.pass_time(3600)
    world.deploy("v2", WIDE)
    watcher = world.watcher()
    traffic(world, 800, women=40, broken=False)
    assert kinds(world.run(watcher)) == []
    seen = []
    for _ in range(4):
        if fresh:
            world.restart(watcher)
            watcher = world.watcher()
        traffic(world, 800, women=40)
        seen += kinds(world.run(watcher))
        if "rolled_back" in seen:
            break
    assert "rolled_back" in seen
    assert world.active() == "v1"
    [incident] = world.registry.incidents("loan")
    assert incident.monitor == "fairness.loss[sex=F]"
    assert incident.facts["change_point"]
    verdicts = {one.verdict for one in world.results("concept_drift")}
    assert Verdict.FAILED not in verdicts


def test_groups_that_fare_as_on_the_reference_move_nothing(world):
    """Both detectors stay calm on healthy traffic."""
    world.by_sex = True
    world.configure(OFF, "[monitor.fairness]\naction = 'rollback'")
    world.deploy("v1", WIDE)
    watcher = world.watcher()
    for _ in range(3):
        traffic(world, 600, women=2, broken=False)
        assert kinds(world.run(watcher)) == []
    found = world.results("fairness.loss")
    assert {one.subject for one in found} == {"sex=F", "sex=M"}
    assert {one.verdict for one in found} == {Verdict.PASSED}


def test_below_the_floor_with_nothing_to_go_back_to_is_the_default_output(world):
    """A known-unfair model does not go on for want of another one."""
    world.configure(OFF, FLOOR + "\n[monitor.concept_drift]\nenabled = false")
    world.deploy("v1", WIDE)
    watcher = world.watcher()
    seen = []
    for _ in range(4):
        traffic(world, 410, women=2)
        seen += kinds(world.run(watcher))
        if world.active() is None:
            break
    assert "default_output" in seen
    state = world.registry.app("loan")
    assert (state.mode, state.active) == (Mode.DEFAULT_OUTPUT, None)
    incident = world.registry.incidents("loan")[0]
    assert incident.monitor == "fairness.accuracy_floor[sex]"
    assert incident.level == Level.DEFAULT_OUTPUT.word
    assert "there is no earlier version" in incident.facts["why"]


def test_below_the_floor_without_harm_class_freezes(world):
    """A floor alone is a check like the others: it does not stop a version that stands alone."""
    world.configure(
        OFF,
        FLOOR.replace("\nharm_class = true", "") + "\n[monitor.concept_drift]\nenabled = false",
    )
    world.deploy("v1", WIDE)
    watcher = world.watcher()
    seen = []
    for _ in range(4):
        traffic(world, 410, women=2)
        seen += kinds(world.run(watcher))
    assert "frozen" in seen
    assert "default_output" not in seen
    assert world.active() == "v1"


@pytest.mark.parametrize(("before", "after"), [(NARROW, "v1"), (OLD, None)])
def test_below_the_floor_goes_back_only_to_a_version_that_keeps_it(world, before, after):
    """A target that keeps the floor on the same window serves; one that does not, does not."""
    world.configure(OFF, FLOOR + "\n[monitor.concept_drift]\nenabled = false")
    world.deploy("v1", before)
    world.pass_time(60)
    world.deploy("v2", WIDE)
    watcher = world.watcher()
    seen = []
    for _ in range(4):
        traffic(world, 810, women=2)
        seen += kinds(world.run(watcher))
        if {"rolled_back", "default_output"} & set(seen):
            break
    assert world.active() == after
    assert ("rolled_back" if after else "default_output") in seen


def test_status_tells_the_false_alarms_to_expect(world):
    """Labels of the day since the version serves, over the run length that is promised."""
    world.by_sex = True
    world.configure(OFF, "[monitor.fairness]\naction = 'rollback'")
    registry = world.registry
    state = registry.app("loan")
    assert expected_false_alarms(registry, state, world.settings, now=world.clock.now) is None
    world.deploy("v1", WIDE)
    watcher = world.watcher()
    for _ in range(3):
        traffic(world, 600, women=2, broken=False)
        world.run(watcher)
        world.pass_time(4 * 3600)
    found = expected_false_alarms(
        registry, registry.app("loan"), world.settings, now=world.clock.now
    )
    judged = sum(one.window.n_labels for one in world.results("concept_drift"))
    assert judged >= 1200
    elapsed = world.clock.now - registry.app("loan").since
    assert found.labels_per_day == pytest.approx(judged * 86_400 / elapsed)
    assert found.per_30_days == pytest.approx(30 * found.labels_per_day / 100_000)
    # Errors do not come in runs here, so all of the promise is left.
    assert found.kept_run_length == 100_000
    windows = {one.monitor: one for one in found.windows}
    assert {"data_drift", "prediction_drift", "service"} <= set(windows)
    drift = windows["data_drift"]
    closed = {(one.window.start, one.window.end) for one in world.results("data_drift")}
    assert drift.windows_per_day == pytest.approx(len(closed) * 86_400 / elapsed)
    assert drift.per_30_days == pytest.approx(30 * drift.windows_per_day * 0.05)
    world.configure(
        "[monitor.fairness]", "[monitor.concept_drift]\ndetector = 'ADWIN'\n[monitor.fairness]"
    )
    other = expected_false_alarms(
        registry, registry.app("loan"), world.settings, now=world.clock.now
    )
    assert other.unpromised == "ADWIN"


def test_thresholds_per_group_stand_in_the_history(world):
    """Who was answered by which threshold since when is in the audit trail and the manifest."""
    world.configure('input = "table"', 'input = "table"\ngroups_affect_decisions = true')
    world.configure("[data]", 'keys = ["portal"]\n[data]')
    world.configure(OFF, OFF + '\n[model.thresholds]\ndefault = 0.5\n"sex=F" = 0.46')
    version = world.deploy("v1", WIDE)
    table = {"default": 0.5, "sex=F": 0.46}
    [promoted] = [one for one in world.registry.events("loan") if one.kind == "promoted"]
    assert promoted.detail["thresholds"] == table
    assert version.manifest["thresholds"] == table
    assert world.registry.verify_chain() is None
