"""Verify, repair, collect: what is found, what is put back, what is taken away."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from mlguard.registry import State

DAY = 86400.0


def blob_of(house, name: str):
    return house.registry.artifacts.blobs.path(
        house.registry.version("iris", name).manifest["model_sha256"]
    )


def spoil(path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_nothing_is_found_where_nothing_happened(house):
    """A registry after ordinary work is whole."""
    for content in ("one", "two", "three"):
        house.deploy(content)
    house.registry.rollback("iris", automatic=True, reason="bad")
    house.registry.resume("iris", "seen")
    house.registry.block("iris", "stop")
    assert house.registry.verify() == []
    house.registry.unblock("iris", "go")
    assert house.registry.verify() == []


def test_changed_and_missing_bytes_are_found_by_name(house):
    """Every stored byte is read: one flipped bit and one deleted file are two findings."""
    house.deploy("one")
    house.deploy("two")
    spoil(blob_of(house, "v1"))
    blob_of(house, "v2").unlink()
    found = {one.version: (one.kind, one.summary) for one in house.registry.verify()}
    assert set(found) == {"v1", "v2"}
    assert "have changed" in found["v1"][1]
    assert "are missing" in found["v2"][1]


@pytest.mark.parametrize(
    ("statement", "kind", "said"),
    [
        ("UPDATE events SET reason = 'nothing' WHERE seq = 3", "chain", "entry 3"),
        ("UPDATE versions SET digest = printf('%064d', 7) WHERE name = 'v1'", "fact", "another"),
        ("UPDATE versions SET name = 'v9' WHERE name = 'v1'", "fact", "no event"),
        (
            "UPDATE apps SET active = (SELECT id FROM versions WHERE name = 'v1')",
            "fact",
            "last move made v2",
        ),
    ],
)
def test_facts_that_were_edited_by_hand_are_found(sqlite_house, statement, kind, said):
    """A row that says otherwise than the audit trail is told, and an edited trail as well."""
    sqlite_house.deploy("one")
    sqlite_house.deploy("two")
    by_hand = sqlite3.connect(sqlite_house.registry.database.path)
    with by_hand:
        by_hand.execute(statement)
    by_hand.close()
    found = sqlite_house.registry.verify()
    assert any(one.kind == kind and said in one.summary for one in found), found


def test_only_identical_bytes_repair_a_broken_version(house):
    """BROKEN to REGISTERED by the same file; another one, or none, changes nothing (T3)."""
    house.deploy("one")
    house.deploy("two")
    house.deploy("three")
    spoil(blob_of(house, "v1"))
    broken = house.registry.version("iris", "v1")
    house.registry.rollback("iris", automatic=True, reason="bad")
    house.registry.mark(broken.id, State.BROKEN, reason="its bytes have changed")
    before = house.facts()
    assert house.registry.repair([house.file("other")]) == [
        (house.registry.version("iris", "v1"), "lost")
    ]
    assert house.facts() == before
    file = house.file("one")
    ((version, done),) = house.registry.repair([file], dry_run=True)
    assert (version.name, done) == ("v1", "repaired")
    assert house.facts() == before
    house.registry.repair([file])
    assert house.states()["v1"] is State.REGISTERED
    assert blob_of(house, "v1").read_text() == "one"
    assert house.registry.repair([file]) == []
    assert house.registry.verify() == []
    house.check()


def test_lost_bytes_of_what_serves_are_put_back(house):
    """The active version keeps its state: only its bytes come back (fault 16)."""
    house.deploy("one")
    blob_of(house, "v1").unlink()
    assert [done for _, done in house.registry.repair([house.file("one")])] == ["put back"]
    assert house.states() == {"v1": State.LIVE}
    assert house.registry.verify() == []
    assert house.registry.events("iris", limit=1)[0].kind == "repaired"


def test_bytes_that_nobody_names_go_after_a_day(house):
    """A registration that was killed leaves an orphan: kept for a day, then collected."""
    house.deploy("one")
    orphan = house.registry.artifacts.put(house.file("nobody"))
    stored_at = house.registry.artifacts.blobs.stored()[0].at
    house.clock.now = stored_at + 60
    assert house.registry.collect() == []
    house.clock.now = stored_at + 25 * 3600
    (would,) = house.registry.collect(dry_run=True)
    assert (would.kind, would.name, would.size) == ("orphan", orphan, 6)
    assert house.registry.artifacts.exists(orphan)
    assert house.registry.collect() == [would]
    assert not house.registry.artifacts.exists(orphan)
    assert house.registry.collect() == []
    assert house.registry.verify() == []


def test_bytes_that_are_stored_again_are_young_again(house):
    """What a running registration has just stored is never taken for an orphan."""
    name = house.registry.artifacts.put(house.file("nobody"))
    blob = house.registry.artifacts.blobs.path(name)
    os.utime(blob, (house.clock.now - 90 * DAY,) * 2)
    house.registry.artifacts.put(house.file("nobody"))
    house.clock.now = blob.stat().st_mtime + 3600
    assert house.registry.collect() == []


def test_bytes_taken_away_in_the_last_moment_are_stored_again(house):
    """Collected between the storing and the row: the registration notices."""
    enter = house.registry._enter

    def late(*words, **options):
        for blob in house.registry.artifacts.blobs.stored():
            house.registry.artifacts.delete(blob.name)
        return enter(*words, **options)

    house.registry._enter = late
    try:
        house.register("one")
    finally:
        del house.registry._enter
    assert house.registry.verify() == []


def test_old_standbys_are_archived_and_their_bytes_go_a_week_later(house):
    """The last three confirmed stay; an open incident keeps everything (T15)."""
    for content in ("one", "two", "three", "four", "five"):
        house.deploy(content)
    incident = house.registry.open_incident(
        "iris", monitor="m", version_id=None, summary="s", facts={}, level="alert"
    )
    assert house.registry.collect() == []
    house.registry.update_incident(incident.id, state="closed", cause="known")
    archived = [(one.kind, one.name) for one in house.registry.collect(dry_run=True)]
    assert archived == [("archived", "iris v2"), ("archived", "iris v1")]
    assert house.states()["v1"] is State.STANDBY
    house.registry.collect()
    assert house.states()["v1"] is house.states()["v2"] is State.ARCHIVED
    assert blob_of(house, "v1").exists()
    house.clock.advance(6 * DAY)
    assert house.registry.collect() == []
    house.clock.advance(2 * DAY)
    assert {one.kind for one in house.registry.collect()} == {"bytes"}
    assert blob_of(house, "v1") is None
    assert blob_of(house, "v3").exists()
    assert house.registry.verify() == []
    house.check()


# --- what killed processes leave ---------------------------------------------------------

STORER = """
import sys
from pathlib import Path
from mlguard.registry.blobs import private_copy
with private_copy(Path(sys.argv[2]), Path(sys.argv[1])):
    pass
"""


HALF = b"m" * (3 << 19)


@pytest.fixture
def storing(sqlite_house, tmp_path):
    """A process in the middle of storing a file: half of it is there, the rest never comes."""
    pipe = tmp_path / "model"
    os.mkfifo(pipe)
    root = sqlite_house.registry.artifacts.blobs.root
    process = subprocess.Popen([sys.executable, "-c", STORER, str(root), str(pipe)])
    try:
        # A MiB at a time is read, and written.
        with pipe.open("wb", buffering=0) as stream:
            stream.write(HALF)
            deadline = time.monotonic() + 60
            while not any(one.stat().st_size for one in root.glob(".incoming-*")):
                assert process.poll() is None
                assert time.monotonic() < deadline
            (part,) = root.glob(".incoming-*")
            yield process, part
    finally:
        process.kill()
        process.wait()


def test_what_a_killed_process_left_half_stored_goes(sqlite_house, storing):
    """Never while it is in use, however long nothing was written; nor before a lease is over."""
    process, part = storing
    registry = sqlite_house.registry
    os.utime(part, (sqlite_house.clock() - DAY,) * 2)
    assert registry.collect() == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.utime(part, (sqlite_house.clock() - 29,) * 2)
    assert registry.collect() == []
    os.utime(part, (sqlite_house.clock() - 31,) * 2)
    (would,) = registry.collect(dry_run=True)
    assert (would.kind, would.name, would.size) == ("leftover", part.name, 1 << 20)
    assert part.exists()
    assert registry.collect() == [would]
    assert not part.exists()
    assert registry.collect() == []
