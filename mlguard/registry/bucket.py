"""Immutable bytes in a bucket: S3, or anything else that fsspec has a file system for.

What a folder gives for nothing has to be earned here:

* A name is written only where there is none (``If-None-Match: *``), where the store knows that;
  else twice the same bytes are written, which harms nobody.
* Every byte that comes back is hashed on its way into a local copy; a body that was cut off, a
  stale or a wrong one is never handed out, but asked for again.  The copy is hashed again
  whenever it is used, and fetched anew where the disk has spoiled it.
* What is asked for is asked for by name.  Listing, which some stores answer late, is left to
  ``registry gc``.
* A store that is slow or says 503 is asked again a few times; then it is an outage
  (:class:`~mlguard.errors.RegistryError`), which is not the same as missing bytes
  (:class:`~mlguard.errors.IntegrityError`): only those make a version BROKEN.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mlguard.data.remote_files import modified, open_files
from mlguard.errors import RegistryError
from mlguard.registry.blobs import Stored, digest_of, files_in, place_of, private_copy
from mlguard.registry.incoming import incoming

#: How often a request is made before it is an outage, and seconds before the second one.
TRIES = 5
FIRST_PAUSE_S = 0.2

_Result = TypeVar("_Result")


class Bucket:
    """Blobs under a URL, with a local folder of verified copies.

    Parameters
    ----------
    url : str
        E.g. ``s3://bucket/prefix``.  Credentials and endpoint are found as the store's own tools
        find them (``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, …).
    cache : Path
        Folder for the copies; made when it is needed.

    Raises
    ------
    ConfigError
        If no file system is installed for the URL.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self.url = url
        self.cache = cache
        self._files, self._root = open_files(url, key="[registry] artifacts")

    def _key(self, name: str) -> str:
        return f"{self._root}/{name[:2]}/{name}"

    def _tried(self, what: str, ask: Callable[[], _Result]) -> _Result:
        """Ask a few times; missing and existing files are answers, everything else may pass."""
        said: Exception | None = None
        for attempt in range(TRIES):
            if attempt:
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                return ask()
            except (FileNotFoundError, FileExistsError):
                raise
            # Each store's client has errors of its own, and most of them pass.
            except Exception as error:  # noqa: BLE001
                said = error
                if isinstance(error, PermissionError):
                    break
        raise RegistryError(
            f"the artifact store {self.url} failed to {what}: {said or 'no answer'}",
            hint="check that it is reachable and that the credentials may read and write it",
        ) from said

    def put(self, source: Path) -> str:
        """Store a file's bytes under their SHA-256, where they are not yet; return that."""
        with private_copy(source, self.cache) as (copy, name):
            try:
                self._tried("store", lambda: self._write(copy, name, mode="create"))
            except FileExistsError:
                # Somebody stored it before: is it what its name says?
                if self._download(name) is None:
                    self._tried("store", lambda: self._write(copy, name, mode="overwrite"))
            self._keep(copy, name)
        return name

    def _write(self, copy: Path, name: str, *, mode: str) -> None:
        key = self._key(name)
        try:
            self._files.put_file(str(copy), key, mode=mode)
        except FileNotFoundError:
            # Stores with folders want theirs to be made.
            self._files.makedirs(key.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(copy), key, mode=mode)
        except NotImplementedError:
            self._files.put_file(str(copy), key)

    def path(self, name: str) -> Path | None:
        """Return a verified local copy of a name's bytes; None where the store has none."""
        local = place_of(self.cache, name)
        # Not there, not readable, or taken away in this moment: fetched anew.
        with contextlib.suppress(OSError):
            if digest_of(local) == name:
                # Whoever tidies up leaves alone what somebody has just been given.
                os.utime(local)
                return local
        return self._download(name)

    def _download(self, name: str) -> Path | None:
        """Fetch a name's bytes into the cache; None where they are missing or others.

        A body with another digest is asked for again, like one that broke off: what passes is
        trouble on the way, what stays is trouble in the store.
        """
        with incoming(self.cache) as fetched:

            def fetch() -> None:
                self._files.get_file(self._key(name), str(fetched))

            for _ in range(TRIES):
                try:
                    self._tried("read", fetch)
                except FileNotFoundError:
                    return None
                if digest_of(fetched) == name:
                    return self._keep(fetched, name)
        return None

    def _keep(self, fetched: Path, name: str) -> Path:
        local = place_of(self.cache, name)
        local.parent.mkdir(parents=True, exist_ok=True)
        fetched.chmod(0o444)
        # What took long to store is as young as what was just read.
        os.utime(fetched)
        fetched.replace(local)
        return local

    def exists(self, name: str) -> bool:
        """Return whether the store has something under a name; nothing is read."""
        return bool(self._tried("look", lambda: self._files.exists(self._key(name))))

    def intact(self, name: str) -> bool:
        """Return whether the store itself holds exactly the bytes of a name; reads all of them."""
        return self._download(name) is not None

    def delete(self, name: str) -> bool:
        """Remove a name, its copy too; return whether the store had it."""
        self.forget(name)
        if not self.exists(name):
            return False
        self._tried("delete", lambda: self._files.rm_file(self._key(name)))
        return True

    def stored(self) -> list[Stored]:
        """Return every stored name with its age, sorted.  Lists the bucket: not for a hot path."""

        def look() -> dict[str, dict[str, Any]]:
            try:
                found: dict[str, dict[str, Any]] = self._files.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
            return found

        names = []
        for key, info in self._tried("list", look).items():
            name = key.rpartition("/")[2]
            if len(name) == hashlib.sha256().digest_size * 2:
                names.append(Stored(name, int(info.get("size") or 0), modified(info)))
        return sorted(names)

    @property
    def workplace(self) -> Path:
        """The local folder in which files are put together."""
        return self.cache

    def copies(self) -> list[Stored]:
        """Return the local copies, and when each was last handed out."""
        return files_in(self.cache)

    def forget(self, name: str) -> None:
        """Remove the local copy of a name; the store keeps its bytes."""
        place_of(self.cache, name).unlink(missing_ok=True)
