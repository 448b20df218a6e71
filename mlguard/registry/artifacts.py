"""Immutable bytes, named by their SHA-256.

Writing is temp file, fsync, rename, fsync of the folder, and only then may a row name it: a
crash leaves no half of a blob, at most one that nobody names (collected after a day).  The name
is computed from the bytes on their way into the temp file, so that whatever happens to the
source meanwhile, and whoever stores the same bytes at the same time, a name never stands for
other bytes and good ones are never taken away again.

Reading computes the digest again every time: what is handed out is what was registered, or
:class:`~mlguard.errors.IntegrityError`.

The store is a folder.  What any other kind of store needs to offer is :class:`Blobs`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO, Protocol

from mlguard.errors import ConfigError, IntegrityError, RegistryError

_CHUNK = 1 << 20


class Blobs(Protocol):
    """Where the bytes lie."""

    def put(self, source: BinaryIO) -> str:
        """Store a stream, durably and at once, under the SHA-256 of what it gave; return that."""

    def path(self, name: str) -> Path | None:
        """Return a local file with the bytes of a name; None where there is none."""

    def delete(self, name: str) -> bool:
        """Remove a name; return whether it was there."""

    def names(self) -> list[str]:
        """Return every stored name, sorted."""


class Folder:
    """Blobs in a local folder: ``ab/abcdef…``, read-only, beside a folder for temporary files.

    Parameters
    ----------
    root : Path
        Made when the first blob is stored.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def _place(self, name: str) -> Path:
        return self.root / name[:2] / name

    def put(self, source: BinaryIO) -> str:
        """Store a stream, durably and at once, under the SHA-256 of what it gave; return that."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self.root, prefix=".incoming-")
            try:
                with os.fdopen(descriptor, "wb") as target:
                    name = _copied(source, target)
                    os.fchmod(target.fileno(), 0o444)
                    target.flush()
                    os.fsync(target.fileno())
                place = self._place(name)
                fresh = not place.parent.is_dir()
                place.parent.mkdir(parents=True, exist_ok=True)
                Path(temporary).replace(place)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            _sync_folder(place.parent)
            if fresh:
                _sync_folder(self.root)
        except OSError as error:
            raise RegistryError(
                f"cannot store an artifact in {self.root}: {error}",
                hint="the folder must be writable and have free space; nothing was registered",
            ) from error
        return name

    def path(self, name: str) -> Path | None:
        """Return the file of a name; None where there is none."""
        place = self._place(name)
        return place if place.is_file() else None

    def delete(self, name: str) -> bool:
        """Remove a name; return whether it was there."""
        try:
            self._place(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        """Return every stored name, sorted."""
        return sorted(path.name for path in self.root.glob("[0-9a-f][0-9a-f]/*"))


def _copied(source: BinaryIO, target: BinaryIO) -> str:
    """Copy a stream to its end; return the SHA-256 of what was copied, hex."""
    found = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        found.update(chunk)
        target.write(chunk)
    return found.hexdigest()


def _sync_folder(folder: Path) -> None:
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


class ArtifactStore:
    """Bytes by digest.

    Parameters
    ----------
    url : str
        A folder, or ``file://`` and a folder.
    """

    def __init__(self, url: str) -> None:
        scheme, separator, rest = url.partition("://")
        if separator and scheme != "file":
            raise ConfigError(
                f"[registry] artifacts = {url!r}: {scheme} is not supported",
                hint="write a folder",
            )
        self.url = url
        self.blobs: Blobs = Folder(Path(rest if separator else url))

    def put(self, path: Path | str) -> str:
        """Store a file's bytes.

        Parameters
        ----------
        path : Path or str
            The file.

        Returns
        -------
        str
            SHA-256 of the bytes that were stored, hex: their name.  Storing the same bytes
            twice is no error, and mends a stored copy that has changed.

        Raises
        ------
        RegistryError
            If the file cannot be read or the bytes cannot be stored.
        """
        source = Path(path)
        try:
            name = digest_of(source)
            if self._intact(name):
                return name
            with source.open("rb") as stream:
                return self.blobs.put(stream)
        except OSError as error:
            raise RegistryError(f"cannot read {source}: {error}") from error

    def get(self, sha256: str) -> Path:
        """Return a local file that holds exactly the bytes of a digest.

        Raises
        ------
        IntegrityError
            If they are missing, or are not these bytes any more.
        """
        place = self.blobs.path(sha256)
        if place is None:
            raise IntegrityError(
                f"artifact {sha256[:12]} is missing from {self.url}",
                hint="put the same file back by deploying it again",
                sha256=sha256,
            )
        try:
            found = digest_of(place)
        except OSError as error:
            raise IntegrityError(f"artifact {place} cannot be read: {error}") from error
        if found != sha256:
            raise IntegrityError(
                f"artifact {place} has changed: its digest is {found[:12]}, not {sha256[:12]}",
                hint="put the same file back by deploying it again",
                sha256=sha256,
                found=found,
            )
        return place

    def exists(self, sha256: str) -> bool:
        """Return whether bytes are stored under a digest, without reading them."""
        return self.blobs.path(sha256) is not None

    def delete(self, sha256: str) -> bool:
        """Remove the bytes of a digest; return whether they were there."""
        return self.blobs.delete(sha256)

    def _intact(self, sha256: str) -> bool:
        place = self.blobs.path(sha256)
        return place is not None and digest_of(place) == sha256
