"""A prediction log with a store: a folder by its URL, and S3 as moto's server speaks it."""

import http.client
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest

from mlguard.data import log_store
from mlguard.data.log_store import LogStore, Spool, project_log
from mlguard.data.prediction_log import PredictionLog
from mlguard.data.profile import Profile
from mlguard.errors import ConfigError
from mlguard.models.schema import Feature
from mlguard.serving.logged_rows import FACTS, LogTarget
from mlguard.serving.recorder import Recorder

FEATURES = (Feature("x", "number"),)


@dataclass
class Hour:
    """A clock that goes where a test puts it."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def s3():
    """A bucket ``logs`` on an S3 server of our own."""
    pytest.importorskip("s3fs", reason="no s3fs: mlguard[s3] is not installed")
    moto_server = pytest.importorskip("moto.server", reason="no moto")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        # A folder that has none: the machine's own AWS settings are not asked.
        patch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        upstream = http.client.HTTPConnection(host, port)
        upstream.request("PUT", "/logs")
        assert upstream.getresponse().status == 200
        upstream.close()
        yield "s3://logs"
    server.stop()


@pytest.fixture(params=["file", "s3"])
def url(request, tmp_path):
    """Where logs are carried to."""
    if request.param == "file":
        return f"file://{tmp_path / 'store'}"
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


@pytest.fixture
def machine(tmp_path, url):
    """Makes machines: each a log of its own and what carries it."""

    def make(name):
        log = PredictionLog(tmp_path / name)
        return log, LogStore(log, url)

    return make


def write(log, ids, *, process="p", at=1000.0, uid=None):
    """Write rows of one process and finish its file."""
    writer = log.writer("app", 1, process, FEATURES)
    writer.append([row(one, at, uid) for one in ids])
    writer.close()
    return writer


def row(query_id, at=1000.0, uid=None):
    return {
        "query_id": query_id,
        "time": at + query_id / 1000,
        "generation": 1,
        "default": False,
        "valid": True,
        "uid": uid,
        "x": float(query_id),
    }


def ids(log):
    return sorted(log.read("app")["query_id"].to_pylist())


def test_what_one_machine_logs_another_reads(machine):
    """Closed segments are carried once, come whole, and are not carried back."""
    here, to = machine("here")
    there, of = machine("there")
    write(here, range(1, 50))
    first = to.sync()
    assert (first.up, first.waiting, first.error) == (1, 0, "")
    assert to.sync().up == 0
    found = of.sync(look=True)
    assert (found.up, found.down, found.error) == (0, 1, "")
    assert there.read("app").equals(here.read("app"))
    assert of.sync(look=True).down == 0
    write(there, range(60, 70), process="q")
    assert of.sync().up == 1
    assert to.sync(look=True).down == 1
    assert ids(here) == [*range(1, 50), *range(60, 70)]


def test_counts_that_grow_are_fetched_again(machine):
    """Slices of a profile come as they grow, and the grid's owner is never overwritten."""
    here, to = machine("here")
    there, of = machine("there")
    grid = Profile.reference({"x": np.arange(50.0)}, {"x": "number"})
    counts = here.profile_writer("app", 1, "p", grid, FEATURES)
    for n in (1, 2):
        counts.add(generation=1, times=[1.0], rows=[[3.0]], scores=[None], valid=[True])
        counts.close_slice()
        assert to.sync(look=True).up == 1
        assert of.sync(look=True).down == 1
        assert len(there.slices("app", 1, grid)) == n
    assert len(here.slices("app", 1, grid)) == 2


KILLED = """
import sys, time
from mlguard.data.prediction_log import PredictionLog
from mlguard.models.schema import Feature
writer = PredictionLog(sys.argv[1]).writer("app", 1, "p", (Feature("x", "number"),))
row = {"time": 1.0, "generation": 1, "default": False, "valid": True, "x": 1.0}
for query_id in range(1, 1000):
    writer.append([row | {"query_id": query_id}])
    writer.flush()
    print(query_id, flush=True)
"""


def test_what_a_killed_server_wrote_is_carried(machine, tmp_path):
    """kill -9 between two flushes: every flushed row is recovered here and carried there."""
    here, to = machine("here")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "here")], stdout=subprocess.PIPE, text=True
    )
    flushed = [int(process.stdout.readline()) for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = to.sync()
    assert (found.up, found.error) == (1, "")
    there, of = machine("there")
    of.sync(look=True)
    assert ids(there)[:20] == flushed
    assert ids(there) == ids(here)


def test_a_growing_segment_is_left_alone(machine):
    """What a live writer has open is not carried; when it is old enough it is closed."""
    here, to = machine("here")
    writer = here.writer("app", 1, "p", FEATURES)
    writer.append([row(1)])
    writer.flush()
    assert to.sync().up == 0
    aged = PredictionLog(here.root, segment_s=0.0).writer("app", 1, "q", FEATURES)
    aged.append([row(2)])
    aged.flush()
    assert to.sync().up == 1
    writer.close()
    assert to.sync().up == 1
    assert ids(here) == [1, 2]


def test_a_store_that_is_gone_stops_the_log_and_not_before_its_limit(tmp_path, s3, monkeypatch):
    """Segments wait, then rows are dropped and counted, then all goes on; nothing is raised."""
    here = PredictionLog(tmp_path / "here", segment_s=0.0)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        gone = LogStore(here, f"{s3}/{tmp_path.name}")
        write(here, range(1, 9))
        found = gone.sync()
    assert found.up == 0
    assert found.error
    size = sum(one.stat().st_size for one in here.root.glob("*/*/*.parquet"))
    assert found.waiting == size > 0

    clock = Hour()
    spool = Spool(here.root, size + 1, clock=clock)
    recorder = Recorder(here, "r", no_room=spool.full)
    target = LogTarget("app", 1, FEATURES)
    facts = {name: [None] for name in FACTS} | {
        "query_id": [10], "time": [1000.0], "generation": [1], "default": [False],
        "output": [1], "valid": [True], "row": [[1.0]],
    }  # fmt: skip
    recorder.put(target, facts)
    recorder.flush()
    assert (recorder.dropped, spool.full()) == (0, False)
    assert "wait for the log's store" in spool.says()
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert LogStore(here, f"{s3}/{tmp_path.name}").sync().waiting > size
    clock.now += 2
    recorder.put(target, facts | {"query_id": [11]})
    recorder.flush()
    assert (recorder.dropped, spool.full()) == (1, True)
    assert "predictions are not logged" in spool.says()

    found = LogStore(here, f"{s3}/{tmp_path.name}").sync()
    assert (found.up, found.waiting, found.error) == (2, 0, "")
    clock.now += 2
    recorder.put(target, facts | {"query_id": [12]})
    recorder.flush()
    assert (recorder.dropped, spool.says()) == (1, "")
    assert ids(here) == [*range(1, 9), 10, 12]


def test_a_store_that_takes_no_files_is_an_error_and_no_exception(tmp_path):
    """A folder that cannot be made: the word of the disk, and everything waits."""
    (tmp_path / "file").write_text("no folder")
    here = PredictionLog(tmp_path / "here")
    write(here, [1])
    found = LogStore(here, f"file://{tmp_path / 'file'}").sync()
    assert "NotADirectoryError" in found.error
    assert found.waiting > 0


def test_what_is_erased_here_is_erased_there_and_everywhere(machine):
    """A row of another machine's segment goes from that machine, from the store and from here."""
    here, to = machine("here")
    there, of = machine("there")
    write(here, range(1, 5))
    write(here, [9], process="q", uid="ann")
    to.sync()
    of.sync(look=True)
    assert there.erase("app", [2, *there.ids_of("app", uid="ann")], at=1.0) == 2
    assert of.sync().error == ""
    assert to.sync(look=True).error == ""
    assert ids(here) == [1, 3, 4]
    fresh, new = machine("fresh")
    assert new.sync(look=True).down == 1
    assert ids(fresh) == [1, 3, 4]
    # Rows that were not here yet when somebody asked for them to go.
    write(here, [7], process="r")
    fresh.erase("app", [7], at=2.0)
    new.sync(look=True)
    to.sync(look=True)
    new.sync(look=True)
    assert ids(fresh) == ids(here) == [1, 3, 4]


def test_retention_holds_in_the_store(machine):
    """What was carried before the limit goes; what is pruned here does not come back."""
    here, to = machine("here")
    write(here, [1])
    to.sync()
    before = time.time()
    assert to.prune(before - 3600, "app") == 0
    here.prune(2000.0, "app")
    assert to.sync(look=True).down == 0
    assert ids(here) == []
    assert to.prune(time.time() + 3600, "app") == 1
    there, of = machine("there")
    assert of.sync(look=True).down == 0
    assert there.apps() == []


def test_one_process_of_a_machine_carries(machine):
    """Who finds another one carrying leaves it to that one."""
    here, to = machine("here")
    write(here, [1])
    with log_store._alone(here.root, 0.0) as mine:
        assert mine
        assert to.sync() is None
    assert to.sync().up == 1


def test_names_from_a_store_stay_in_the_log(tmp_path):
    """Files that lie elsewhere in the store, or would leave the log's folder, are not fetched."""
    store = tmp_path / "store"
    (store / "app" / "1" / "deep").mkdir(parents=True)
    for name in ("top.parquet", "app/one.parquet", "app/1/deep/two.parquet", "app/1/three.txt"):
        (store / name).write_bytes(b"x")
    log = PredictionLog(tmp_path / "here")
    found = LogStore(log, f"file://{store}").sync(look=True)
    assert (found.down, found.error) == (0, "")
    assert log.apps() == []
    assert not log_store._is_ours("../1/x.parquet")
    assert not log_store._is_ours("app//x.parquet")


def test_a_command_reads_what_others_carried(tmp_path):
    """A project with ``[log_store]`` reads through its store, and without it when it is gone."""
    from mlguard.config import load_project

    write(PredictionLog(tmp_path / "other"), [1, 2])
    other = PredictionLog(tmp_path / "other")
    LogStore(other, f"file://{tmp_path / 'store'}").sync()
    root = tmp_path / "project"
    root.mkdir()
    (root / "mlguard.toml").write_text('[log_store]\nurl = "../store"\n')
    assert ids(project_log(load_project(root))) == [1, 2]
    (root / "mlguard.toml").write_text('[log_store]\nurl = "nostore://x"\n')
    assert ids(project_log(load_project(root))) == [1, 2]


def test_an_unknown_store_is_refused_by_its_key(tmp_path):
    """A URL that nothing can read names the setting it stands in."""
    with pytest.raises(ConfigError, match=r"\[log_store\] url = 'nostore://x'"):
        LogStore(PredictionLog(tmp_path), "nostore://x")
    assert list(tmp_path.iterdir()) == []
