"""What a store of immutable bytes offers, and the simplest one: a local folder.

Writing is temp file, fsync, rename, fsync of the folder, and only then may a row name it: a
crash leaves no half of a blob, at most one that nobody names (collected after a day).  The name
is computed from the bytes on their way into the temp file, so that whatever happens to the
source meanwhile, and whoever stores the same bytes at the same time, a name never stands for
other bytes and good ones are never taken away again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from mlguard.errors import RegistryError
from mlguard.registry.incoming import incoming

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Stored:
    """One blob: its name, its size in bytes, and when it was last stored (None: unknown)."""

    name: str
    size: int
    at: float | None


class Blobs(Protocol):
    """Where the bytes lie."""

    def put(self, source: Path) -> str:
        """Store a file's bytes durably and at once under their SHA-256; return that."""

    def path(self, name: str) -> Path | None:
        """Return a local file with the bytes of a name; None where there is none."""

    def exists(self, name: str) -> bool:
        """Return whether the store has something under a name; nothing is read."""

    def intact(self, name: str) -> bool:
        """Return whether the store itself holds exactly the bytes of a name."""

    def delete(self, name: str) -> bool:
        """Remove a name; return whether it was there."""

    def stored(self) -> list[Stored]:
        """Return every stored name, sorted."""

    @property
    def workplace(self) -> Path:
        """The local folder in which files are put together."""

    def copies(self) -> list[Stored]:
        """Return the local copies of what lies elsewhere, and when each was last handed out."""

    def forget(self, name: str) -> None:
        """Remove the local copy of a name; the store keeps its bytes."""


class Folder:
    """Blobs in a local folder: ``ab/abcdef…``, read-only, beside temporary files.

    Parameters
    ----------
    root : Path
        Made when the first blob is stored.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, source: Path) -> str:
        """Store a file's bytes durably and at once under their SHA-256; return that.

        Bytes that are there already are left as they are, and are young again: whoever collects
        what nobody names leaves the young alone.
        """
        name = digest_of(source)
        if self.intact(name):
            os.utime(place_of(self.root, name))
            return name
        with private_copy(source, self.root) as (copy, name):
            place = place_of(self.root, name)
            fresh = not place.parent.is_dir()
            place.parent.mkdir(parents=True, exist_ok=True)
            copy.chmod(0o444)
            copy.replace(place)
            sync_folder(place.parent)
            if fresh:
                sync_folder(self.root)
        return name

    def path(self, name: str) -> Path | None:
        """Return the file of a name; None where there is none."""
        place = place_of(self.root, name)
        return place if place.is_file() else None

    def exists(self, name: str) -> bool:
        """Return whether there is a file of a name."""
        return place_of(self.root, name).is_file()

    def intact(self, name: str) -> bool:
        """Return whether the file of a name holds exactly its bytes."""
        try:
            return digest_of(place_of(self.root, name)) == name
        except OSError:
            return False

    def delete(self, name: str) -> bool:
        """Remove a name; return whether it was there."""
        try:
            place_of(self.root, name).unlink()
        except FileNotFoundError:
            return False
        return True

    def stored(self) -> list[Stored]:
        """Return every stored name, sorted."""
        return files_in(self.root)

    @property
    def workplace(self) -> Path:
        """The local folder in which files are put together."""
        return self.root

    def copies(self) -> list[Stored]:
        """Return nothing: what is handed out is the stored file itself."""
        return []

    def forget(self, name: str) -> None:
        """Do nothing: there is no copy."""


def files_in(root: Path) -> list[Stored]:
    """Return the named files of a folder, sorted, each with the time of its last change."""
    found = []
    for path in root.glob("[0-9a-f][0-9a-f]/*"):
        # Somebody else may be tidying up as well.
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found.append(Stored(path.name, status.st_size, status.st_mtime))
    return sorted(found)


def place_of(root: Path, name: str) -> Path:
    """Return where a folder keeps the bytes of a name."""
    return root / name[:2] / name


@contextlib.contextmanager
def private_copy(source: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Copy a file into a folder, durably, under a name that nobody else uses.

    Yields
    ------
    (Path, str)
        The copy, and the SHA-256 of its bytes, hex.  A copy that was not renamed by the end is
        removed.

    Raises
    ------
    RegistryError
        If it cannot be written.
    """
    try:
        with incoming(folder) as copy:
            with source.open("rb") as stream, copy.open("wb") as target:
                name = _copied(stream, target)
                target.flush()
                os.fsync(target.fileno())
            yield copy, name
    except OSError as error:
        raise RegistryError(
            f"cannot store an artifact in {folder}: {error}",
            hint="the folder must be writable and have free space; nothing was registered",
        ) from error


def _copied(source: BinaryIO, target: BinaryIO) -> str:
    """Copy a stream to its end; return the SHA-256 of what was copied, hex."""
    found = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        found.update(chunk)
        target.write(chunk)
    return found.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hex.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
