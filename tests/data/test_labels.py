"""An acknowledged label is there for ever, and the first one wins."""

import math
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading

import pytest

from mlguard.data.labels import LARGEST_ID, Label, LabelStore, default_url
from mlguard.errors import RegistryError, UsageError


@pytest.fixture
def url(tmp_path):
    return default_url(tmp_path, "iris")


@pytest.fixture
def store(url):
    opened = LabelStore(url)
    yield opened
    opened.close()


def test_the_first_label_wins_and_a_second_is_a_conflict(store):
    """Stored, the same again, and a different one that changes nothing but a count."""
    assert store.put(5, "yes", source="api", at=1.0) == "stored"
    assert store.put(5, "yes", source="other", at=2.0) == "same"
    assert store.put(5, "no", source="api", at=3.0) == "conflict"
    assert store.get([5, 6]) == {5: Label(1, 5, "yes", "api", 1.0)}
    assert (store.conflicts(), len(store)) == (1, 1)


@pytest.mark.parametrize("value", [0, 1, -3, 2.5, True, False, None, "", "é\n", [1, "a"], {"a": 1}])
def test_any_finite_json_value_is_a_label(store, value):
    """A label comes back as what it was."""
    store.put(1, value, source="s", at=0.0)
    assert store.get([1])[1].value == value
    assert type(store.get([1])[1].value) is type(value)


def test_one_and_one_point_zero_are_the_same_label(store):
    """JSON does not tell them apart, so neither do conflicts; truth values are something else."""
    assert store.put(1, 1, source="s", at=0.0) == "stored"
    assert store.put(1, 1.0, source="s", at=0.0) == "same"
    assert store.put(1, True, source="s", at=0.0) == "conflict"


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, object()])
def test_what_json_cannot_say_is_no_label(store, value):
    """NaN, infinity and objects are refused with advice, and nothing is stored."""
    with pytest.raises(UsageError, match="cannot be a label"):
        store.put(1, value, source="s", at=0.0)
    assert len(store) == 0


@pytest.mark.parametrize("query_id", [-1, LARGEST_ID + 1, 1.0, "1", True, None])
def test_an_impossible_query_id_is_refused(store, query_id):
    """Ids are whole numbers from 0 to 2**53 - 1."""
    with pytest.raises(UsageError, match="query id"):
        store.put(query_id, 1, source="s", at=0.0)


def test_the_cursor_gives_labels_in_order_of_arrival(store):
    """Each label once, in order, in parts, whatever the query ids."""
    outcomes = store.put_many([(id_, id_ % 2, "s", float(id_)) for id_ in (9, 3, 7, 3, 1)])
    assert outcomes == ["stored", "stored", "stored", "same", "stored"]
    first = store.after(0, 2)
    assert [one.query_id for one in first] == [9, 3]
    rest = store.after(first[-1].seq)
    assert [one.query_id for one in rest] == [7, 1]
    assert store.after(rest[-1].seq) == []
    assert store.put_many([]) == []


def test_many_ids_are_asked_for_at_once(store):
    """More ids than a statement of SQLite takes."""
    store.put_many([(one, 1, "s", 0.0) for one in range(0, 50_000, 10)])
    assert len(store.get(range(50_000))) == 5_000


def test_a_group_is_stored_whole_or_not_at_all(store):
    """One label that cannot be stored refuses its whole group."""
    with pytest.raises(UsageError):
        store.put_many([(1, 1, "s", 0.0), (2, math.nan, "s", 0.0)])
    assert len(store) == 0


def test_reopening_finds_what_was_stored(url, store):
    """A restart loses nothing, and numbers go on."""
    store.put(1, 1, source="s", at=0.0)
    again = LabelStore(url)
    again.put(2, 1, source="s", at=0.0)
    assert [one.seq for one in again.after(0)] == [1, 2]
    again.close()


def test_the_database_is_durable_by_its_settings(url, store):
    """A write-ahead log, synchronised fully at each commit."""
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


ACKNOWLEDGE = """
    import sys
    from mlguard.data.labels import LabelStore
    store = LabelStore(sys.argv[1])
    for query_id in range(10_000_000):
        store.put(query_id, query_id % 3, source="child", at=0.0)
        print(query_id, flush=True)
"""


def child(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_kill_loses_no_acknowledged_label(url):
    """kill -9 between two labels: every one that was acknowledged is there."""
    writer = child(ACKNOWLEDGE, url)
    for _ in range(200):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    rest = [line for line in writer.stdout.read().split("\n") if line]
    writer.stdout.close()
    writer.wait()
    last = int(rest[-1]) if rest else 199
    store = LabelStore(url)
    labels = store.after(0, 10_000_000)
    assert [one.query_id for one in labels] == list(range(len(labels)))
    assert len(labels) >= last + 1
    assert all(one.value == one.query_id % 3 for one in labels)
    store.close()


RACE = """
    import sys
    from mlguard.data.labels import LabelStore
    store = LabelStore(sys.argv[1])
    won = [one for one in range(150) if store.put(one, sys.argv[2], source="x", at=0.0) == "stored"]
    print(*won)
"""


def test_processes_that_race_agree_on_the_winner(url):
    """Three processes label the same predictions: each has one winner, the others conflict."""
    LabelStore(url).close()
    racers = {name: child(RACE, url, name) for name in ("a", "b", "c")}
    won = {name: racer.communicate()[0].split() for name, racer in racers.items()}
    assert all(racer.returncode == 0 for racer in racers.values())
    store = LabelStore(url)
    assert sorted(int(one) for ids in won.values() for one in ids) == list(range(150))
    found = store.get(range(150))
    assert all(found[int(one)].value == name for name, ids in won.items() for one in ids)
    assert store.conflicts() == 300
    store.close()


def test_threads_share_a_store(store):
    """Eight threads on one store: nothing is lost, order has no gaps."""

    def put(start):
        for one in range(start, start + 25):
            store.put(one, 1, source="s", at=0.0)

    threads = [threading.Thread(target=put, args=(100 * one,)) for one in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.seq for one in store.after(0)] == list(range(1, 201))


def test_a_cursor_never_passes_a_label_by(url, store):
    """Read while another process writes: the cursor sees every label, in order, once."""
    writer = child(ACKNOWLEDGE, url)
    seen, cursor = [], 0
    while len(seen) < 150:
        for label in store.after(cursor, 10):
            seen.append(label.query_id)
            cursor = label.seq
    writer.kill()
    writer.communicate()
    assert seen == list(range(len(seen)))


def test_a_database_that_fails_is_a_registry_error(url, store, tmp_path):
    """A missing folder, a file that is no database, and a locked one: said so, retry is safe."""
    with pytest.raises(RegistryError, match="cannot open"):
        LabelStore(f"sqlite:///{tmp_path / 'no' / 'labels.db'}")
    (tmp_path / "text.db").write_text("no database at all, just text " * 50)
    with pytest.raises(RegistryError, match="not a database"):
        LabelStore(f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(UsageError, match="SQLite, not in postgresql"):
        LabelStore("postgresql://localhost/x")
    blocker = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    impatient = LabelStore(url, busy_timeout_s=0.05)
    with pytest.raises(RegistryError, match="locked") as raised:
        impatient.put(1, 1, source="s", at=0.0)
    assert raised.value.retryable
    blocker.execute("ROLLBACK")
    blocker.close()
    assert impatient.put(1, 1, source="s", at=0.0) == "stored"
    impatient.close()


def test_one_batch_may_name_a_prediction_twice(tmp_path):
    """The first of a batch wins as the first of all does; the order of arrival is kept."""
    store = LabelStore(default_url(tmp_path, "app"))
    store.put(5, 1, source="a", at=1.0)
    batch = [
        (7, 1, "a", 2.0),
        (7, 1, "b", 2.0),
        (5, 0, "a", 2.0),
        (7, 0, "a", 2.0),
        (6, 1, "a", 2.0),
    ]
    assert store.put_many(batch) == ["stored", "same", "conflict", "conflict", "stored"]
    assert [one.query_id for one in store.after(0)] == [5, 7, 6]
    assert store.get([7])[7].source == "a"
    assert store.conflicts() == 2
    store.close()
