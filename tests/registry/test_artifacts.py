"""Bytes by digest."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlguard.errors import ConfigError, IntegrityError, RegistryError
from mlguard.registry import ArtifactStore, blobs


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.skops"
    path.write_bytes(b"model" * 1000)
    return path


def test_bytes_are_stored_under_their_digest_and_read_back(store, model):
    """SHA-256 of the content is the name; storing twice stores once."""
    name = store.put(model)
    assert name == hashlib.sha256(model.read_bytes()).hexdigest()
    assert store.exists(name)
    assert store.get(name).read_bytes() == model.read_bytes()
    before = store.get(name).stat().st_ino
    assert store.put(model) == name
    assert store.get(name).stat().st_ino == before
    assert [one.name for one in store.blobs.stored()] == [name]
    assert not os.access(store.get(name), os.W_OK) or os.getuid() == 0


def test_a_flipped_bit_is_found_at_every_read(store, model):
    """What is handed out is what was registered, or an error (I5)."""
    name = store.put(model)
    blob = store.get(name)
    blob.chmod(0o644)
    content = bytearray(blob.read_bytes())
    content[17] ^= 1
    blob.write_bytes(content)
    with pytest.raises(IntegrityError, match="has changed") as caught:
        store.get(name)
    assert caught.value.data["sha256"] == name
    assert store.put(model) == name
    assert store.get(name).read_bytes() == model.read_bytes()


def test_missing_bytes_are_an_integrity_error(store, model):
    """Deleted, never stored, or no digest at all."""
    name = store.put(model)
    assert store.delete(name)
    assert not store.delete(name)
    assert not store.exists(name)
    with pytest.raises(IntegrityError, match="missing"):
        store.get(name)


def test_an_empty_file_is_bytes_too(store, tmp_path):
    """Nothing is special about no bytes."""
    empty = tmp_path / "empty"
    empty.touch()
    assert store.get(store.put(empty)).read_bytes() == b""


def test_a_file_that_cannot_be_read_is_a_registry_error(store, tmp_path):
    """A missing file names itself."""
    with pytest.raises(RegistryError, match=r"nothing\.skops"):
        store.put(tmp_path / "nothing.skops")


def test_a_store_that_cannot_be_written_says_so(tmp_path, model):
    """A file where the folder should be: nothing is stored, nothing is left behind."""
    (tmp_path / "artifacts").write_text("in the way")
    with pytest.raises(RegistryError, match="cannot store") as caught:
        ArtifactStore(str(tmp_path / "artifacts")).put(model)
    assert "nothing was registered" in caught.value.hint


def test_nothing_but_the_blob_is_left(store, model):
    """Temporary files are gone after a success."""
    store.put(model)
    files = [path for path in store.blobs.root.rglob("*") if path.is_file()]
    assert len(files) == 1


def test_urls(tmp_path, model):
    """file:// is a folder; what nobody can read says what to install."""
    store = ArtifactStore(f"file://{tmp_path}/a")
    assert store.get(store.put(model)).is_relative_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="nosuch") as caught:
        ArtifactStore("nosuch://bucket/prefix", tmp_path)
    assert "mlguard[s3]" in caught.value.hint


def test_a_file_that_is_rewritten_meanwhile_harms_no_bytes(store, model, monkeypatch):
    """Whoever stores a file that changes under it stores what it read, under its own digest."""
    good = store.put(model)
    rewritten = model.read_bytes() * 2
    copied = blobs._copied

    def copied_late(source, target):
        model.write_bytes(rewritten)
        return copied(source, target)

    monkeypatch.setattr(blobs, "_copied", copied_late)
    store.delete(good)
    name = store.put(model)
    assert name == hashlib.sha256(rewritten).hexdigest()
    assert store.get(name).read_bytes() == rewritten
    assert not store.exists(good)


def test_the_same_bytes_stored_together_are_never_taken_away(store, tmp_path):
    """Eight threads store one file while a ninth rewrites it: every name stays readable."""
    source = tmp_path / "busy"
    contents = [bytes([number]) * 300_000 for number in range(2)]
    source.write_bytes(contents[0])
    done = threading.Event()

    def rewrite():
        turn = 0
        while not done.is_set():
            turn += 1
            source.write_bytes(contents[turn % 2])

    writer = threading.Thread(target=rewrite)
    writer.start()
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: store.put(source), range(80)))
    done.set()
    writer.join()
    for name in set(names):
        assert store.get(name)
