"""A disk that is really full: data gives way, what decides is still written (fault 10)."""

import subprocess

import pytest

from mlguard.errors import RegistryError
from mlguard.registry import State
from mlguard.results import MonitorResult, Verdict


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here, and nothing else fills up like one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder) -> None:
    """Write until nothing more fits."""
    block = b"x" * 65536
    with (folder / "filler").open("ab", buffering=0) as stream:
        while True:
            try:
                if stream.write(block) < len(block):
                    break
            except OSError:
                break


@pytest.fixture
def full_house(make_sqlite, small_disk):
    """A registry with two versions and its ballast, on a disk without a free byte."""
    house = make_sqlite(small_disk)
    house.deploy("one")
    house.deploy("two")
    house.file("three")
    assert house.registry.database.ballast.keep()
    fill(small_disk)
    yield house
    house.registry.close()


def until_refused(write) -> RegistryError:
    """Write until it is refused; return the refusal."""
    for _ in range(500):
        try:
            write()
        except RegistryError as error:
            return error
    pytest.fail("the disk never got full")


def record_until_refused(registry) -> RegistryError:
    result = MonitorResult(id="a.b", verdict=Verdict.PASSED, summary="x" * 20000)
    return until_refused(lambda: registry.record_monitor_result("iris", result))


def test_a_rollback_works_on_a_full_disk(full_house):
    """Verdicts are refused and leave the ballast; the rollback takes it and is committed whole."""
    registry = full_house.registry
    assert record_until_refused(registry).data["clause"] == "full"
    assert registry.database.ballast.path.exists()
    registry.rollback("iris", automatic=True, reason="bad")
    assert not registry.database.ballast.path.exists()
    assert full_house.active() == "v1"
    assert full_house.states()["v2"] is State.QUARANTINED
    registry.block("iris", "and stop")
    assert full_house.check().generation == 4
    assert registry.verify() == []


def test_registering_on_a_full_disk_leaves_nothing_half_done(full_house, small_disk):
    """Exit 3, no row, no part of a blob; with space again it succeeds, and ballast is back."""
    registry = full_house.registry
    before = full_house.facts()
    large = small_disk / "model"
    (small_disk / "filler").unlink()
    large.write_bytes(b"m" * (3 << 20))
    fill(small_disk)
    stored = registry.artifacts.blobs.stored()
    with pytest.raises(RegistryError, match="cannot store") as caught:
        registry.artifacts.put(large)
    assert caught.value.exit_code == 3
    assert registry.artifacts.blobs.stored() == stored
    assert not list(registry.artifacts.blobs.root.glob(".incoming*"))
    assert full_house.facts() == before
    (small_disk / "filler").unlink()
    large.unlink()
    registry.database.ballast.path.unlink()
    full_house.deploy("three")
    assert registry.database.ballast.keep()
    full_house.check()


def test_without_ballast_a_full_disk_refuses_cleanly(full_house):
    """Where nobody kept any: exit 3, nothing changed, nothing torn."""
    registry = full_house.registry
    record_until_refused(registry)
    registry.database.ballast.path.unlink()
    fill(registry.database.path.parents[1])
    before = full_house.facts()
    refused = until_refused(lambda: registry.record("iris", "note", "x" * 4000))
    assert refused.data["clause"] == "full"
    assert full_house.facts()[0] == before[0]
    full_house.check()
