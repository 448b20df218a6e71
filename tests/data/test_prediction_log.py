"""The prediction log keeps what was flushed, and never disturbs who writes."""

import json
import signal
import subprocess
import sys
import textwrap
import threading

import pyarrow.parquet as pq
import pytest

from mlguard.data.prediction_log import FIXED_COLUMNS, LogWriter, PredictionLog, feature_column
from mlguard.data.schema import Feature
from mlguard.errors import DataError

FEATURES = (Feature("x", "number"), Feature("colour", "category"))


def row(query_id, *, at=None, generation=1, features=(1.0, "red"), **more):
    """One answered prediction."""
    return {
        "query_id": query_id,
        "time": float(query_id) if at is None else at,
        "generation": generation,
        "default": False,
        "explanation": None,
        "output": "1",
        "score": 0.75,
        "uid": None,
        "groups": None,
        "latency_ms": 1.5,
        "valid": True,
        "features": list(features),
        **more,
    }


def ids(table):
    return table.column("query_id").to_pylist()


@pytest.fixture
def log(tmp_path):
    return PredictionLog(tmp_path / "log")


def files(log):
    return sorted(path.name for path in log.root.rglob("*.*") if path.is_file())


def test_rows_are_read_while_the_file_grows_and_after_it_is_closed(log):
    """The same table from the growing file and from the closed segment."""
    writer = log.writer("iris", 7, "front-0", FEATURES)
    writer.append([row(2), row(1, features=(None, None), groups='{"sex": "F"}', score=None)])
    assert log.read("iris").num_rows == 0
    writer.flush()
    growing = log.read("iris")
    assert files(log) == ["front-0-000000.arrow"]
    writer.close()
    assert files(log) == ["front-0-000000.parquet"]
    closed = log.read("iris")
    assert closed.equals(growing)
    assert closed.schema.names == [*FIXED_COLUMNS, "x", "colour"]
    assert closed.to_pylist()[0]["groups"] == '{"sex": "F"}'
    assert closed.column("x").to_pylist() == [None, 1.0]
    assert closed.column("colour").to_pylist() == [None, "red"]
    assert (writer.written, writer.dropped, writer.last_error) == (2, 0, "")


def test_conditions_choose_rows(log):
    """Version, generation, time from–until and query ids, alone and together."""
    for version, start in ((1, 0), (2, 100)):
        writer = log.writer("a", version, "p", FEATURES)
        writer.append([row(start + one, generation=version) for one in range(10)])
        writer.close() if version == 1 else writer.flush()
    assert ids(log.read("a")) == [*range(10), *range(100, 110)]
    assert ids(log.read("a", version_id=2)) == list(range(100, 110))
    assert ids(log.read("a", generation=1)) == list(range(10))
    assert ids(log.read("a", since=8, until=101)) == [8, 9, 100]
    assert ids(log.read("a", query_ids=[3, 105, 999])) == [3, 105]
    assert ids(log.read("a", generation=1, since=5, query_ids=[3, 7])) == [7]
    assert ids(log.read("a", version_id=3)) == []
    assert log.read("never").schema.names == list(FIXED_COLUMNS)
    assert log.apps() == ["a"]
    assert PredictionLog(log.root / "nothing").apps() == []


def test_a_value_that_does_not_fit_becomes_null_and_harms_no_other(log):
    """Strings among numbers, fractions among integers, NaN, half a surrogate pair, bytes."""
    features = (
        Feature("n", "number"),
        Feature("i", "integer"),
        Feature("b", "boolean"),
        Feature("s", "text"),
    )
    writer = log.writer("a", 1, "p", features)
    writer.append(
        [
            row(1, features=(1, 2, True, "é")),
            row(2, features=("x", 2.5, "yes", 5)),
            row(3, features=(float("nan"), 10**30, None, "\ud800")),
            row(4, features=(True, 3.0, False, b"\xff\x00")),
            row(5, features=(2,)),
        ]
    )
    writer.flush()
    table = log.read("a")
    assert table.column("n").to_pylist() == [1.0, None, None, 1.0, 2.0]
    assert table.column("i").to_pylist() == [2, None, None, 3, None]
    assert table.column("b").to_pylist() == [True, None, None, False, None]
    assert table.column("s").to_pylist() == ["é", "5", "?", "/wA=", None]
    assert writer.dropped == 0


def test_inputs_may_be_named_or_flat(log):
    """Rows give features as a list, a mapping, or one by one; clashing names are told apart."""
    features = (Feature("x", "number"), Feature("time", "integer"))
    assert feature_column("time") == "feature:time"
    assert feature_column("x") == "x"
    writer = log.writer("a", 1, "p", features)
    flat = row(3)
    del flat["features"]
    writer.append(
        [
            row(1, features=(0.5, 12)),
            {**row(2), "features": {"time": 12, "x": 0.5}},
            {**flat, "x": 0.5, "feature:time": 12},
        ]
    )
    writer.flush()
    table = log.read("a")
    assert table.column("x").to_pylist() == [0.5] * 3
    assert table.column("feature:time").to_pylist() == [12] * 3
    assert table.column("time").to_pylist() == [1.0, 2.0, 3.0]


def test_redacted_columns_are_never_written(log):
    """Neither as a feature nor as a group; inputs may be left out whole."""
    writer = log.writer("a", 1, "p", FEATURES, redact=["colour", "sex"])
    writer.append([row(1, groups='{"sex": "F", "race": "x"}'), row(2, groups={"sex": "M"})])
    writer.flush()
    table = log.read("a")
    assert "colour" not in table.schema.names
    assert table.column("groups").to_pylist() == ['{"race": "x"}', "{}"]
    assert b"red" not in next(log.root.rglob("*.arrow")).read_bytes()
    hidden = log.writer("c", 1, "p", redact=["uid", "query_id"])
    hidden.append([row(1, uid="somebody", groups="no JSON")])
    hidden.flush()
    (found,) = log.read("c").to_pylist()
    assert (found["query_id"], found["uid"], found["groups"]) == (1, None, None)
    bare = log.writer("b", 1, "p", FEATURES, inputs=False)
    bare.append([row(1)])
    bare.flush()
    assert log.read("b").schema.names == list(FIXED_COLUMNS)


def test_versions_with_other_features_are_read_together(log):
    """A column that one version lacks is null there; text and number meet as text."""
    values = ((1, "number", 1.5), (2, "category", "high"), (3, "integer", 2), (4, "boolean", True))
    for version, kind, value in values:
        features = [Feature("x", kind), Feature(f"v{version}", "number")]
        writer = log.writer("a", version, "p", features)
        writer.append([row(version, features=(value, 1.0))])
        writer.flush()
    table = log.read("a")
    assert table.column("x").to_pylist() == ["1.5", "high", "2", "true"]
    assert table.column("v2").to_pylist() == [None, 1.0, None, None]


def test_every_torn_end_is_recovered(log):
    """Cut anywhere, a growing file gives the messages that are whole, and can be written again."""
    writer = log.writer("a", 1, "p", FEATURES)
    sizes = []
    for start in (0, 10, 20):
        writer.append([row(start + one) for one in range(10)])
        writer.flush()
        (path,) = log.root.rglob("*.arrow")
        sizes.append(path.stat().st_size)
    whole = path.read_bytes()
    torn = PredictionLog(log.root.parent / "torn")
    copy = torn.root / "a" / "1" / "dead-000000.arrow"
    copy.parent.mkdir(parents=True)
    cuts = [*range(0, len(whole), 97), *sizes, *(size - 1 for size in sizes)]
    for cut in cuts:
        copy.write_bytes(whole[:cut])
        expected = 10 * sum(size <= cut for size in sizes)
        assert ids(torn.read("a")) == list(range(expected)), cut
    copy.write_bytes(whole[: sizes[1] + 50])
    again = torn.writer("a", 1, "dead", FEATURES)
    assert files(torn) == ["dead-000000.parquet"]
    again.append([row(50)])
    again.flush()
    assert ids(torn.read("a")) == [*range(20), 50]
    copy.write_bytes(b"")
    assert torn.recover() == 1


def test_garbage_after_a_power_cut_cannot_crash_a_reader(log):
    """Any byte may be wrong: what is read are rows from before the damage, or whole messages."""
    writer = log.writer("a", 1, "p", FEATURES)
    for start in (0, 10):
        writer.append([row(start + one, explanation="text") for one in range(10)])
        writer.flush()
    (path,) = log.root.rglob("*.arrow")
    whole = path.read_bytes()
    damaged = PredictionLog(log.root.parent / "damaged")
    copy = damaged.root / "a" / "1" / "dead-000000.arrow"
    copy.parent.mkdir(parents=True)
    for place in range(0, len(whole), 53):
        for garbage in (b"\xff" * 16, b"\0" * 4096):
            copy.write_bytes(whole[:place] + garbage + whole[place + len(garbage) :])
            damaged.read("a").to_pylist()


WRITER = """
    import sys
    from mlguard.data.prediction_log import PredictionLog
    from mlguard.data.schema import Feature
    writer = PredictionLog(sys.argv[1]).writer("a", 1, "doomed", [Feature("x", "number")])
    number = 0
    while True:
        ids = range(number, number + 7)
        writer.append([{"query_id": one, "time": 1.0, "features": [0.5]} for one in ids])
        number += 7
        writer.flush()
        print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_flushed(log):
    """kill -9 in full flight: every flushed row is there, in order, and the file is recovered."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(log.root)],
        stdout=subprocess.PIPE,
        text=True,
    )
    flushed = 0
    while flushed < 700:
        flushed = int(child.stdout.readline())
    while_alive = ids(log.read("a"))
    assert while_alive == list(range(len(while_alive)))
    assert log.recover() == 0, "the growing file of a live writer must be left alone"
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split("\n")[:-1]
    child.stdout.close()
    child.wait()
    flushed = int(rest[-1]) if rest else flushed
    found = ids(log.read("a"))
    assert len(found) >= flushed
    assert found == list(range(len(found)))
    assert log.recover() == 1
    assert ids(log.read("a")) == found
    assert files(log) == ["doomed-000000.parquet"]


FULL = """
    import json, resource, sys
    from mlguard.data.prediction_log import PredictionLog
    writer = PredictionLog(sys.argv[1]).writer("a", 1, "p")
    def flush(ids):
        writer.append([{"query_id": one, "time": 1.0} for one in ids])
        writer.flush()
    flush(range(10))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    flush(range(10, 1000))
    full = [writer.written, writer.dropped, writer.last_error]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    flush(range(1000, 1010))
    print(json.dumps([full, writer.written, writer.dropped]))
"""


def test_a_full_disk_drops_and_counts_and_heals(log):
    """What did not fit is counted, half a message is cut off, and later rows are logged."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), str(log.root)],
        capture_output=True,
        text=True,
        check=True,
    )
    (written, dropped, why), written_later, dropped_later = json.loads(done.stdout)
    assert (written, dropped) == (10, 990)
    assert "File too large" in why
    assert (written_later, dropped_later) == (20, 990)
    assert ids(log.read("a")) == [*range(10), *range(1000, 1010)]


def test_a_folder_that_cannot_be_made_raises_nothing(tmp_path):
    """Logging into the impossible is counted, never raised into serving."""
    (tmp_path / "log").write_text("a file where the folder should be")
    writer = PredictionLog(tmp_path / "log").writer("a", 1, "p", FEATURES)
    writer.append([row(1)])
    writer.flush(durable=True)
    writer.close()
    assert (writer.written, writer.dropped) == (0, 1)
    assert "NotADirectoryError" in writer.last_error


def test_the_buffer_is_bounded(log):
    """When nobody flushes, memory does not grow: the rest is dropped and counted."""
    schema = log.writer("a", 1, "p")._schema
    writer = LogWriter(log.root / "a" / "1", "p", schema, buffer_rows=5)
    writer.append([row(one) for one in range(3)])
    writer.append([row(one) for one in range(3, 9)])
    writer.flush()
    assert ids(log.read("a")) == [0, 1, 2, 3, 4]
    assert writer.dropped == 4


def test_a_large_segment_is_closed_and_another_begun(log):
    """Growing files stay small; who recovers later makes Parquet of the finished ones."""
    schema = log.writer("a", 1, "p")._schema
    writer = LogWriter(log.root / "a" / "1", "p", schema, segment_bytes=4_000)
    for number in range(30):
        writer.append([row(number)])
        writer.flush()
    assert len(list(log.root.rglob("*.arrow"))) > 2
    assert ids(log.read("a")) == list(range(30))
    n_closed = log.recover()
    assert n_closed >= 2
    assert len(list(log.root.rglob("*.parquet"))) == n_closed
    assert ids(log.read("a")) == list(range(30))
    writer.close()
    writer.close()
    assert ids(log.read("a")) == list(range(30))


def test_a_second_live_writer_of_the_same_name_takes_another_file(log):
    """Two writers never share a file, even where their processes are called the same."""
    first, second = (log.writer("a", 1, "p", FEATURES) for _ in range(2))
    for number, writer in enumerate((first, second)):
        writer.append([row(number)])
        writer.flush()
    assert files(log) == ["p-000000.arrow", "p-000001.arrow"]
    assert ids(log.read("a")) == [0, 1]


def test_readers_see_each_row_once_while_segments_close(log):
    """Reading during writing, closing and recovering: rows in order, none twice, none lost."""
    done = threading.Event()

    def write():
        for part in range(15):
            writer = log.writer("a", 1, "p", FEATURES)
            for number in range(part * 20, part * 20 + 20, 5):
                writer.append([row(number + one) for one in range(5)])
                writer.flush()
            writer.close()
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    while not done.is_set():
        found = ids(log.read("a"))
        assert found == list(range(len(found)))
        assert len(found) >= seen
        seen = len(found)
    thread.join()
    assert ids(log.read("a")) == list(range(300))


def test_old_segments_are_pruned_whole(log):
    """Only a closed segment whose newest row is older goes."""
    for start in (0, 100, 200):
        writer = log.writer("a", 1, f"p{start}", FEATURES)
        writer.append([row(start + one) for one in range(10)])
        writer.close() if start < 200 else writer.flush()
    assert log.prune(105) == 1
    assert ids(log.read("a"))[0] == 100
    assert log.prune(1_000, "other") == 0
    assert log.prune(1_000) == 1
    assert ids(log.read("a")) == list(range(200, 210)), "a live writer's file stays"


def test_a_crash_between_naming_and_removing_leaves_no_row_twice(log):
    """Where a segment exists in both forms the closed one counts, and the other is cleared away."""
    writer = log.writer("a", 1, "p", FEATURES)
    writer.append([row(1)])
    writer.flush()
    (growing,) = log.root.rglob("*.arrow")
    kept = growing.read_bytes()
    writer.close()
    growing.write_bytes(kept)
    assert ids(log.read("a")) == [1]
    assert log.recover("a") == 1
    assert files(log) == ["p-000000.parquet"]


def test_a_damaged_closed_segment_is_named(log):
    """Bytes that changed at rest are an error with the file's name, not fewer rows."""
    writer = log.writer("a", 1, "p", FEATURES)
    writer.append([row(1)])
    writer.close()
    (path,) = log.root.rglob("*.parquet")
    content = bytearray(path.read_bytes())
    content[content.index(b"red")] ^= 1
    for damage in (bytes(content), b"PAR1 nonsense"):
        path.write_bytes(damage)
        with pytest.raises(DataError, match=r"p-000000\.parquet is a damaged segment"):
            PredictionLog(log.root).read("a")


def test_reading_skips_segments_by_their_statistics(log, monkeypatch):
    """A closed segment outside the asked time, generation or ids is not read again."""
    for version, start in ((1, 0), (2, 100)):
        writer = log.writer("a", version, "p", FEATURES)
        writer.append([row(start + one, generation=version) for one in range(10)])
        writer.close()
    read = []
    original = pq.ParquetFile.read
    monkeypatch.setattr(pq.ParquetFile, "read", lambda self: (read.append(1), original(self))[1])
    assert ids(log.read("a", since=100))[0] == 100
    assert ids(log.read("a", until=5))[-1] == 4
    assert ids(log.read("a", generation=2))[0] == 100
    assert ids(log.read("a", query_ids=[3])) == [3]
    assert len(read) == 4


def test_neither_writing_nor_reading_imports_pandas(tmp_path):
    """A serving process carries no pandas for its log."""
    script = """
        import sys
        from mlguard.data.prediction_log import PredictionLog
        from mlguard.data.schema import Feature
        log = PredictionLog(sys.argv[1])
        writer = log.writer("a", 1, "p", [Feature("x", "number"), Feature("c", "category")])
        writer.append([{"query_id": 1, "time": 1.0, "generation": 1, "features": [None, "é"]}])
        writer.flush()
        log.read("a", since=0.0, until=2.0, generation=1, query_ids=[1])
        writer.close()
        assert log.read("a", since=0.0, generation=1, query_ids=[1]).num_rows == 1
        assert writer.written == 1, writer.last_error
        print("pandas" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_whether_there_are_rows_is_what_reading_finds(log):
    """In growing and closed segments, of every generation, up to the very moment."""
    for first, generation in ((0, 1), (10, 1), (20, 2)):
        writer = log.writer("loan", 1, f"p{first}")
        writer.append(
            [row(first + one, at=100.0 + first + one, generation=generation) for one in range(5)]
        )
        writer.flush()
        if first:
            writer.close()
    for generation in (1, 2, 3):
        for since in (0.0, 104.0, 104.5, 114.0, 114.5, 120.0, 124.0, 124.5):
            asked = {"version_id": 1, "generation": generation, "since": since}
            assert log.has_rows("loan", **asked) == (log.read("loan", **asked).num_rows > 0)
    assert not log.has_rows("loan", version_id=2, generation=1, since=0.0)
    assert not log.has_rows("other", version_id=1, generation=1, since=0.0)


def test_who_follows_reads_what_anybody_reads(tmp_path):
    """Message by message, over a torn end that is written over, and when the file is closed."""
    log, following = PredictionLog(tmp_path), PredictionLog(tmp_path, follow=True)

    def same(**asked):
        found = following.read("loan", **asked)
        assert found.equals(log.read("loan", **asked))
        return ids(found)

    writer = log.writer("loan", 1, "p1")
    for first in range(0, 40, 10):
        writer.append([row(first + one, at=100.0 + first + one) for one in range(10)])
        writer.flush()
        assert same() == list(range(first + 10))
        assert same(since=100.0 + first) == list(range(first, first + 10))
        assert same(until=105.0) == list(range(5))
    folder = tmp_path / "loan" / "1"
    (growing,) = folder.glob("*.arrow")
    with growing.open("ab") as file:
        file.write(b"\xff\xff\xff\xff\x10")
    assert same() == list(range(40))
    with growing.open("ab") as file:
        file.truncate(growing.stat().st_size - 5)
    writer.append([row(40, at=200.0)])
    writer.flush()
    assert same() == list(range(41))
    writer.close()
    writer = log.writer("loan", 1, "p2")
    writer.append([row(41, at=201.0)])
    writer.flush()
    assert same() == list(range(42))
    assert set(following._followed) == set(folder.glob("*.arrow"))
