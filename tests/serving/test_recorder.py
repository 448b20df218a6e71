"""Rows on their way to the prediction log."""

import json
import threading

import numpy as np
import pytest

from mlguard.data.input_sample import in_sample
from mlguard.data.prediction_log import PredictionLog
from mlguard.data.profile import Profile
from mlguard.data.schema import Feature
from mlguard.monitors.window import window_data
from mlguard.serving.logged_rows import FACTS, LogTarget
from mlguard.serving.recorder import Recorder


def facts(query_id, row, **more):
    known = {
        "query_id": query_id,
        "time": 1.0,
        "generation": 1,
        "default": False,
        "explanation": None,
        "output": {"a": [1]},
        "score": 0.5,
        "uid": None,
        "groups": None,
        "latency_ms": 1.0,
        "valid": True,
        "row": row,
    } | more
    return {name: [known[name]] for name in FACTS}


def test_rows_reach_the_log(tmp_path):
    """Outputs as JSON text, inputs by column, groups as an object, redacted columns gone."""
    recorder = Recorder(PredictionLog(tmp_path), "p1")
    features = (Feature("a", "number"), Feature("b", "category"))
    kept = LogTarget("app", 1, features)
    redacted = LogTarget("app", 2, features, redact=("b",))
    without = LogTarget("app", 3, features, inputs=False)
    recorder.put(kept, facts(1, [1.5, "x"], groups={"sex": "F"}))
    recorder.put(redacted, facts(2, [2.5, "secret"]))
    recorder.put(without, facts(3, [3.5, "secret"]))
    recorder.put(LogTarget("app", 0), facts(4, [[1, 2]], default=True, explanation="why"))
    recorder.flush()
    rows = {row["query_id"]: row for row in PredictionLog(tmp_path).read("app").to_pylist()}
    assert json.loads(rows[1]["output"]) == {"a": [1]}
    assert (rows[1]["a"], rows[1]["b"]) == (1.5, "x")
    assert json.loads(rows[1]["groups"]) == {"sex": "F"}
    assert rows[2]["a"] == 2.5
    assert "secret" not in str(rows)
    assert rows[4]["explanation"] == "why"
    recorder.start()
    recorder.close()


def test_a_sample_keeps_whole_rows_and_all_facts(tmp_path):
    """Of rows outside the sample everything but the inputs is there; redacted is never written."""
    recorder = Recorder(PredictionLog(tmp_path), "p1")
    features = (Feature("a", "number"), Feature("b", "category"))
    target = LogTarget("app", 1, features, redact=("b",), rate=0.25)
    for query_id in range(1, 401):
        recorder.put(target, facts(query_id, [float(query_id), "secret"], score=0.5))
    recorder.flush()
    rows = PredictionLog(tmp_path).read("app").to_pylist()
    assert len(rows) == 400
    assert {row["score"] for row in rows} == {0.5}
    kept = sorted(row["query_id"] for row in rows if row["inputs_kept"])
    ids = np.arange(1, 401)
    assert kept == ids[in_sample(ids, 0.25)].tolist()
    # Four standard deviations of 400 draws of 0.25.
    assert abs(len(kept) - 100) < 35
    for row in rows:
        assert row["a"] == (float(row["query_id"]) if row["inputs_kept"] else None)
    assert "secret" not in str(rows)
    data = window_data(PredictionLog(tmp_path).read("app"), version="v1")
    assert data.inputs_kept.sum() == len(kept)


def test_texts_in_a_sample(tmp_path):
    """Rows of one value are kept, or not, like rows of many."""
    recorder = Recorder(PredictionLog(tmp_path), "p1")
    target = LogTarget("app", 1, (Feature("text", "text"),), rate=0.5)
    for query_id in range(1, 41):
        recorder.put(target, facts(query_id, f"said {query_id}"))
    recorder.flush()
    rows = PredictionLog(tmp_path).read("app").to_pylist()
    assert {row["inputs_kept"] for row in rows} == {True, False}
    for row in rows:
        assert row["text"] == (f"said {row['query_id']}" if row["inputs_kept"] else None)


def test_a_draw_is_even_and_nested():
    """Shares come out as asked, neighbours are independent, and a larger rate keeps the smaller."""
    ids = np.arange(1, 200_001)
    for rate in (0.01, 0.1, 0.5):
        kept = in_sample(ids, rate)
        assert abs(kept.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / ids.size)
        assert not (kept & ~in_sample(ids, min(1.0, 2 * rate))).any()
        # Blocks of ids belong to one version: a draw must not follow their order.
        assert abs(np.corrcoef(kept[:-1], kept[1:])[0, 1]) < 4 / np.sqrt(ids.size)
    assert in_sample(ids, 1.0).all()
    assert not in_sample(ids, 0.0).any()


def test_texts_and_bytes_are_logged(tmp_path):
    """A row that is one value is logged under its one feature; bytes as base64."""
    recorder = Recorder(PredictionLog(tmp_path), "p1")
    target = LogTarget("app", 1, (Feature("text", "text"),))
    recorder.put(target, facts(1, "hello"))
    recorder.put(target, facts(2, b"\x00\xff"))
    recorder.start()
    recorder.close()
    rows = PredictionLog(tmp_path).read("app").to_pylist()
    assert sorted(row["text"] for row in rows) == ["AP8=", "hello"]


def test_memory_is_bounded(tmp_path, monkeypatch):
    """What does not fit is dropped and counted; nothing is raised."""
    monkeypatch.setattr("mlguard.serving.recorder._MAX_ROWS", 10)
    recorder = Recorder(PredictionLog(tmp_path), "p1")
    for number in range(25):
        recorder.put(LogTarget("app", 0), facts(number, []))
    assert recorder.dropped == 15
    recorder.start()
    recorder.close()
    assert PredictionLog(tmp_path).read("app").num_rows == 10


def test_a_log_that_fails_stops_nothing(caplog):
    """Rows are counted as dropped, the log says so once, and the next ones are tried."""

    class Broken:
        def writer(self, *_arguments, **_options):
            raise OSError("no space left")

    recorder = Recorder(Broken(), "p1")
    for number in range(3):
        recorder.put(LogTarget("app", 0), facts(number, []))
        recorder.flush()
    assert recorder.dropped == 3
    assert len([one for one in caplog.records if "dropped" in one.message]) == 1
    recorder.start()
    recorder.close()


def test_below_the_floor_nothing_is_logged_and_all_is_counted(tmp_path):
    """Too little free space: rows are counted and dropped; with space again they are written."""
    from mlguard.data.disk_floor import DiskFloor, disk_of

    now = [0.0]
    free = disk_of(tmp_path / "not" / "made", 0).free
    assert DiskFloor(tmp_path, 0).low() is False
    low = DiskFloor(tmp_path, free * 4, clock=lambda: now[0])
    assert low.low() is True
    assert "predictions are not logged" in low.disk.says()
    full = [True]
    recorder = Recorder(PredictionLog(tmp_path), "p1", no_room=lambda: full[0])
    target = LogTarget("app", 1, (Feature("text", "text"),))
    recorder.put(target, {name: 2 * values for name, values in facts(1, "a").items()})
    recorder.flush()
    assert recorder.dropped == 2
    full[0] = False
    recorder.put(target, facts(3, "c"))
    recorder.start()
    recorder.close()
    assert recorder.dropped == 2
    assert [one["query_id"] for one in PredictionLog(tmp_path).read("app").to_pylist()] == [3]


class Files:
    """A prediction log that notes in which thread its files are touched, and can be full."""

    def __init__(self, root):
        self.log = PredictionLog(root)
        self.touched = set()

    def profile_writer(self, *arguments, **options):
        self._touch()
        return self.log.profile_writer(*arguments, **options)

    def writer(self, *arguments, **options):
        self._touch()
        writer = self.log.writer(*arguments, **options)
        flush = writer.flush

        def noted():
            self._touch()
            flush()

        writer.flush = noted
        return writer

    def _touch(self):
        self.touched.add(threading.current_thread().name)


def many(first, n, width=1):
    """Facts of rows that hold their own query ids."""
    one = facts(0, None, output=1)
    columns = {name: values * n for name, values in one.items()}
    return columns | {
        "query_id": range(first, first + n),
        "row": [[float(first + place)] * width for place in range(n)],
    }


def numbers(width=1, grid=None):
    features = tuple(Feature(f"x{place}", "number") for place in range(width))
    return LogTarget("app", 1, features, grid=grid)


def test_under_load_the_thread_only_touches_files(tmp_path):
    """Once a version's files are open, whoever puts rows makes columns of them, in memory."""
    log = Files(tmp_path)
    recorder = Recorder(log, "p1")
    recorder.put(numbers(), many(0, 1000))
    assert not log.touched
    writing = threading.Thread(target=recorder.flush, name="writing")
    writing.start()
    writing.join()
    for first in range(1000, 5000, 100):
        recorder.put(numbers(), many(first, 100))
    assert log.touched == {"writing"}
    assert PredictionLog(tmp_path).read("app").num_rows == 1000
    (one,) = recorder._open.values()
    assert one.writer._message_rows == 4000  # waiting as bytes
    recorder.flush()
    rows = PredictionLog(tmp_path).read("app").to_pydict()
    assert rows["query_id"] == list(range(5000))
    assert rows["x0"] == [float(one) for one in range(5000)]


@pytest.mark.parametrize(("n", "width"), [(5000, 1), (1000, 100)])
def test_what_takes_long_is_left_to_the_thread(tmp_path, n, width):
    """A batch of thousands of rows, or of a hundred columns, would hold up every other answer."""
    recorder = Recorder(PredictionLog(tmp_path), "p1")
    recorder.put(numbers(width), many(0, 1, width))
    recorder.flush()
    recorder.put(numbers(width), many(1, n, width))
    (one,) = recorder._open.values()
    assert one.writer._message_rows == 0
    recorder.flush()
    assert PredictionLog(tmp_path).read("app").num_rows == n + 1


def test_who_puts_rows_waits_for_nobody(tmp_path):
    """While the thread opens files or makes columns, rows only wait in memory."""
    recorder = Recorder(PredictionLog(tmp_path), "p1")
    recorder.put(numbers(), many(0, 1))
    recorder.flush()
    with recorder._taking, recorder._writing:
        recorder.put(numbers(), many(1, 1000))  # would never return
    (one,) = recorder._open.values()
    assert one.writer._message_rows == 0
    recorder.put(numbers(), many(1001, 1))
    assert one.writer._message_rows == 1000
    recorder.flush()
    assert PredictionLog(tmp_path).read("app")["query_id"].to_pylist() == list(range(1002))


@pytest.mark.parametrize("seed", range(3))
def test_no_row_is_lost_or_written_twice(tmp_path, seed):
    """Rows of versions in turns, as lists and arrays, while others write all the time."""
    rng = np.random.default_rng(seed)
    grid = Profile.reference({"x0": rng.normal(size=100)}, {"x0": "number"})
    targets = [numbers(grid=grid), LogTarget("app", 2, (Feature("x0", "number"),))]
    recorder = Recorder(PredictionLog(tmp_path), "p1")
    done = threading.Event()

    def write():
        while not done.is_set():
            recorder.flush()

    writing = [threading.Thread(target=write) for _ in range(2)]
    for one in writing:
        one.start()
    asked = {0: [], 1: []}
    first = 0
    for _ in range(400):
        n, which = int(rng.integers(1, 150)), int(rng.random() < 0.2)
        rows = many(first, n)
        if rng.random() < 0.5:
            rows["row"] = np.array(rows["row"])
        recorder.put(targets[which], rows)
        asked[which] += range(first, first + n)
        first += n
    done.set()
    for one in writing:
        one.join()
    recorder.start()
    recorder.close()
    log = PredictionLog(tmp_path)
    for which, target in enumerate(targets):
        found = log.read("app", version_id=target.version_id).to_pydict()
        assert found["query_id"] == asked[which]
        assert found["x0"] == [float(one) for one in asked[which]]
    counted = log.slices("app", 1, grid)
    assert sum(one.n_rows for one in counted) == len(asked[0])
    assert sum(one.profile["x0"].n for one in counted) == len(asked[0])
    assert recorder.dropped == 0


def test_a_full_disk_is_counted_and_said_once(tmp_path, monkeypatch, caplog):
    """Rows that cannot be written are lost, counted, and told; later ones are tried."""
    recorder = Recorder(PredictionLog(tmp_path), "p1")
    recorder.put(numbers(), many(0, 5))
    recorder.flush()
    with monkeypatch.context() as full:
        full.setattr("os.write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        for first in (5, 10):
            recorder.put(numbers(), many(first, 5))
            recorder.flush()
    assert recorder.dropped == 10
    assert len([one for one in caplog.records if "No space left" in one.message]) == 1
    recorder.put(numbers(), many(15, 5))
    recorder.start()
    recorder.close()
    assert recorder.dropped == 10
    found = PredictionLog(tmp_path).read("app")["query_id"].to_pylist()
    assert found == [*range(5), *range(15, 20)]
