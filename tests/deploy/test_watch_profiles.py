"""Windows of profiles: cut at slices, merged over processes, judged once and like their rows."""

import numpy as np
import pytest

from mlguard.config import DataDriftMonitor
from mlguard.data.profile import Profile
from mlguard.data.profile_log import Slice
from mlguard.deploy.watch_profiles import SlicePlace, cut_slices, merged
from mlguard.models.bundle import Manifest
from mlguard.monitors.data_drift import DataDrift
from mlguard.results import Verdict

from .conftest import FEATURES

NARROW, WIDE = (1.0, 0.0), (1.0, 1.0)


def slices(*parts):
    """Return slices of (closed at, start, rows)."""
    return [
        Slice(1, start, closed_at, closed_at, n_rows, 0, None, "p", place + 1)
        for place, (closed_at, start, n_rows) in enumerate(parts)
    ]


def sizes(windows):
    return [[one.n_rows for one in window] for window in windows]


def test_a_window_closes_with_the_slice_that_fills_it():
    """Or stays open until there is one."""
    found = slices((5, 0, 300), (10, 5, 150), (15, 10, 90), (20, 15, 800))
    cut = cut_slices(found, window_s=3600, window_rows=500, now=30)
    assert sizes(cut) == [[300, 150, 90], [800]]


def test_a_window_closes_after_its_time():
    """Before the first slice that was written later; the last one when its time has passed."""
    found = slices((5, 0, 10), (3500, 3495, 10), (3610, 3605, 10))
    for now, expected in [(3599, []), (3601, [[10, 10]]), (9000, [[10, 10], [10]])]:
        seen = [one for one in found if one.closed_at < now]
        assert sizes(cut_slices(seen, window_s=3600, window_rows=500, now=now)) == expected


def test_a_window_does_not_depend_on_when_somebody_looked():
    """Looked at after every slice, or once at the end: the same windows."""
    rng = np.random.default_rng(2)
    times = np.cumsum(rng.exponential(400, 60))
    found = slices(*((float(t), float(t) - 5, int(rng.integers(1, 200))) for t in times))
    end = float(times[-1]) + 9000
    at_once = sizes(cut_slices(found, window_s=3600, window_rows=500, now=end))
    step_by_step, taken = [], 0
    for now in [*(float(t) + 1 for t in times), end]:
        seen = [one for one in found[taken:] if one.closed_at < now]
        for window in cut_slices(seen, window_s=3600, window_rows=500, now=now):
            step_by_step.append([one.n_rows for one in window])
            taken += len(window)
    assert step_by_step == at_once


def test_slices_of_another_grid_count_as_rows_only():
    """The version was accepted anew while a server counted on."""
    found = merged(slices((5, 0, 10), (9, 4, 20)), "v1")
    assert (found.profile, found.window.n_rows, found.window.start) == (None, 30, 0)


def test_a_place_survives_json():
    """And only ever goes forward in a file."""
    place = SlicePlace().after(slices((5, 0, 10), (9, 4, 20)))
    assert SlicePlace.from_json(place.to_json()).stops == {"p": 2}
    assert SlicePlace.from_json(None).stops == {}


# --- the watcher -----------------------------------------------------------------------------


@pytest.fixture
def counted(world):
    """A world whose servers count what they are sent, in several processes."""
    world.deploy("v1", WIDE)

    def serve(rows, *, processes=1, log_rows=True):
        active = world.registry.app("loan").active
        schema = Manifest.from_json(active.manifest).schema
        document = world.registry.reference("loan", active.digest)["profile"]
        grid = Profile.from_json(document)
        generation = world.registry.app("loan").generation
        for process in range(processes):
            one = world.log.profile_writer(
                "loan",
                active.id,
                f"p{process}-{world.clock.now}",
                grid,
                schema.features,
            )
            one._clock = world.clock
            mine = rows[process::processes].tolist()
            n = len(mine)
            times = np.linspace(world.clock.now, world.clock.now + 50, n).tolist()
            world.pass_time(1)
            one.add(
                generation=generation, times=times, rows=mine, scores=[None] * n, valid=[True] * n
            )
            one.close_slice()
        if log_rows:
            world.serve(rows)
        else:
            world.pass_time(60)

    world.count = serve
    return world


@pytest.mark.parametrize("processes", [1, 16])
def test_drift_is_judged_by_profiles_as_by_rows(counted, make_profiled, processes):
    """The same figures as a table of all rows gives, whatever the number of processes."""
    watcher = counted.watcher()
    rows = counted.rows(512) + 3.0
    counted.count(rows, processes=processes)
    counted.run(watcher)
    [found] = counted.results("data_drift")
    assert found.verdict is Verdict.FAILED
    assert found.window.n_rows == found.n == 512
    expected = make_profiled(counted, rows)
    assert found.value == pytest.approx(expected.value, abs=1e-12)
    assert found.interval == pytest.approx(expected.interval, abs=1e-12)
    assert {(one.group, one.name): one.value for one in found.measurements} == {
        (one.group, one.name): one.value for one in expected.measurements
    }


@pytest.fixture
def make_profiled():
    """Judge rows as a table, without any slice."""

    def make(world, rows):
        active = world.registry.app("loan").active
        reference = world.registry.reference("loan", active.digest)
        monitor = DataDrift(DataDriftMonitor(), reference, world.settings)
        from mlguard.monitors.window import ProfileWindow
        from mlguard.results import Window

        profile = monitor.profile.summarise(
            {name: rows[:, place] for place, name in enumerate(FEATURES)}
        )
        window = Window(start=0.0, end=1.0, n_rows=len(rows), n_labels=0, generation=1)
        [found] = monitor.judge_profile(ProfileWindow(version="v1", window=window, profile=profile))
        return found

    return make


def test_drift_is_judged_where_no_row_is_logged(counted):
    """With ``inputs = "none"`` and even with a log that lost every row."""
    watcher = counted.watcher()
    counted.count(counted.rows(600), log_rows=False)
    counted.run(watcher)
    counted.count(counted.rows(600) + 3.0, log_rows=False)
    counted.run(watcher)
    verdicts = [one.verdict for one in counted.results("data_drift")]
    assert verdicts == [Verdict.PASSED, Verdict.FAILED]


def test_every_slice_is_judged_once(counted):
    """By whoever leads: passes, a restart, and a second watcher change nothing."""
    first = counted.watcher()
    counted.count(counted.rows(600))
    counted.run(first)
    counted.restart(first)
    second = counted.watcher()
    counted.run(second)
    assert len(counted.results("data_drift")) == 1
    counted.count(counted.rows(700))
    counted.run(second)
    assert [one.n for one in counted.results("data_drift")] == [600, 700]


def test_a_slice_that_was_just_written_is_left_for_the_next_pass(counted):
    """Another process's earlier one may still be on its way."""
    counted.count(counted.rows(600), log_rows=False)
    active = counted.registry.app("loan").active
    grid = Profile.from_json(counted.registry.reference("loan", active.digest)["profile"])
    newest = max(one.closed_at for one in counted.log.slices("loan", active.id, grid))
    counted.clock.now = newest + 1
    counted.watcher().tick()
    assert counted.results("data_drift") == []
    counted.clock.now = newest + 3
    counted.watcher().tick()
