"""Walking the log: every row once, whatever clocks and processes do."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlguard.data.prediction_log import PredictionLog
from mlguard.deploy.watch_clock import Stopwatch
from mlguard.deploy.watch_rows import Place, walk


def write(log, ids, times, *, process="p", generation=1):
    writer = log.writer("loan", 1, f"{process}{ids[0]}")
    writer.append(
        [
            {"query_id": int(one), "time": float(at), "generation": generation, "output": "1"}
            for one, at in zip(ids, times, strict=True)
        ]
    )
    writer.close()


def blocks(query_id):
    return query_id // 1000 * 1000, 1000


def step(log, place, now, *, window_s=3600.0, window_rows=10):
    """Take the windows that closed; return their ids and the place, through JSON."""
    found = walk(
        log,
        "loan",
        version_id=1,
        generation=1,
        place=place,
        window_s=window_s,
        window_rows=window_rows,
        now=now,
        block_of=blocks,
    )
    windows = []
    for rows, after in found.windows():
        windows.append(rows.column("query_id").to_pylist())
        place = after
    return windows, Place.from_json(json.loads(json.dumps(place.to_json())))


@pytest.fixture
def log(tmp_path):
    return PredictionLog(tmp_path)


def test_rows_of_two_processes_are_judged_once(log):
    """Ids of two blocks interleave in time, and none is left out or taken twice."""
    write(log, range(25), 100 + np.arange(25.0))
    write(log, range(1000, 1025), 100.5 + np.arange(25.0), process="q")
    place, seen = Place(), []
    for now in (110.0, 115.0, 130.0, 5000.0):
        windows, place = step(log, place, now)
        seen += [one for window in windows for one in window]
    assert sorted(seen) == [*range(25), *range(1000, 1025)]


def test_fresh_rows_are_left_for_the_next_pass(log):
    """Rows of the last two seconds may still have neighbours on their way."""
    write(log, range(20), 100 + np.arange(20.0))
    windows, _ = step(log, Place(), 111.0)
    assert windows == []


def test_only_one_generation(log):
    """Rows of another generation are not in the window."""
    write(log, range(10), 100 + np.arange(10.0))
    write(log, range(10, 20), 110 + np.arange(10.0), generation=2)
    windows, _ = step(log, Place(), 5000.0)
    assert windows == [list(range(10))]


def test_a_clock_that_was_set_back(log):
    """New rows with old times are judged, and what was judged is not judged again."""
    write(log, range(20), 90_000 + np.arange(20.0))
    windows, place = step(log, Place(), 90_100.0)
    assert len(windows) == 2
    write(log, range(20, 40), 3_600 + np.arange(20.0))
    windows, place = step(log, place, 3_700.0)
    assert [one for window in windows for one in window] == list(range(20, 40))
    windows, place = step(log, place, 3_800.0)
    assert windows == []


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=30,
    deadline=None,
)
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=60, unique=True),
    st.lists(st.floats(0, 800), max_size=6).map(sorted),
    st.integers(2, 12),
)
def test_any_looks_give_the_same_windows(tmp_path_factory, offsets, looks, window_rows):
    """Out-of-order completion and any number of passes cut the windows that one pass cuts."""
    log = PredictionLog(tmp_path_factory.mktemp("log"))
    # Ids rise as requests come; times as they are answered, which is another order.
    ids, times = np.arange(len(offsets)), 100 + np.array(offsets, float)
    place, seen, before = Place(), [], 0.0
    for now in [*(100 + one for one in looks), 1e6]:
        new = (times > before) & (times <= now)
        if new.any():
            write(log, ids[new], times[new])
        before = now
        windows, place = step(log, place, now, window_rows=window_rows)
        seen += windows
    once, _ = step(log, Place(), 1e6, window_rows=window_rows)
    assert seen == once
    assert sorted(one for window in seen for one in window) == list(range(len(offsets)))


def test_rows_that_are_not_due_are_not_read(log, monkeypatch):
    """Who looks at rows a week later does not read the week; what a clock left ahead is read."""
    for first in range(0, 50, 10):
        write(log, range(first, first + 10), 100.0 + first + np.arange(10.0))
    write(log, range(50, 60), 9_000.0 + np.arange(10.0))
    opened = []
    read = PredictionLog._read_segment

    def noted(self, path, wanted):
        found = read(self, path, wanted)
        if found is not None:
            opened.append(int(path.name[1:].partition("-")[0]))
        return found

    monkeypatch.setattr(PredictionLog, "_read_segment", noted)
    where = {"version_id": 1, "generation": 1, "place": Place(), "block_of": blocks}
    found = walk(log, "loan", **where, window_s=3600.0, window_rows=10, now=200.0, until=115.0)
    assert sorted(opened) == [0, 10, 50]
    assert [rows.num_rows for rows, _ in found.windows()] == [10]
    assert found.open.column("query_id").to_pylist() == [*range(10, 15), *range(50, 60)]


# --- the stopwatch -----------------------------------------------------------------------


def read(stopwatch, wall, monotonic, *, boot="b", serving=True):
    return stopwatch.read(wall=wall, monotonic=monotonic, boot=boot, serving=serving)


def test_a_stopwatch_believes_the_clock_nobody_can_set():
    """A day forward or back on the wall clock passes no time."""
    stopwatch = read(Stopwatch(), 1000.0, 50.0)
    stopwatch = read(stopwatch, 1000.0 + 86400, 60.0)
    stopwatch = read(stopwatch, 1000.0 - 86400, 75.0, serving=False)
    assert (stopwatch.elapsed_s, stopwatch.served_s) == (25.0, 10.0)


def test_a_reboot_is_vouched_for_by_minutes_only():
    """Across boots the wall clock counts, but for five minutes at most."""
    stopwatch = read(Stopwatch(), 1000.0, 5000.0)
    assert read(stopwatch, 1060.0, 3.0, boot="c").elapsed_s == 60.0
    assert read(stopwatch, 90_000.0, 3.0, boot="c").elapsed_s == 300.0
    assert read(stopwatch, 10.0, 3.0, boot="c").elapsed_s == 0.0


def test_moves_age_from_when_they_were_seen():
    """The age of a move is the time that was watched since."""
    stopwatch = read(Stopwatch(), 1000.0, 0.0).seen([990.0])
    stopwatch = Stopwatch.from_json(json.loads(json.dumps(stopwatch.to_json())))
    stopwatch = read(stopwatch, 90_000.0, 40.0).seen([990.0, 1010.0])
    assert stopwatch.ages([990.0, 1010.0]) == (40.0, 0.0)
