"""Immutable bytes, named by their SHA-256: the face of whatever store they lie in.

Reading computes the digest again every time: what is handed out is what was registered, or
:class:`~mlguard.errors.IntegrityError`.
"""

from __future__ import annotations

from pathlib import Path

from mlguard.errors import IntegrityError, RegistryError
from mlguard.registry.blobs import Blobs, Folder, digest_of


class ArtifactStore:
    """Bytes by digest.

    Parameters
    ----------
    url : str
        A folder, ``file://`` and a folder, or a URL that fsspec knows, e.g.
        ``s3://bucket/prefix``.
    cache : Path, optional
        Where copies of remote bytes are kept; needed for URLs of other machines.

    Raises
    ------
    ConfigError
        If nothing is installed that can read the URL.
    """

    def __init__(self, url: str, cache: Path | None = None) -> None:
        scheme, separator, rest = url.partition("://")
        self.url = url
        self.blobs: Blobs
        if separator and scheme != "file":
            # Imported here: most projects keep their artifacts in a folder.
            from mlguard.registry.bucket import Bucket

            self.blobs = Bucket(url, cache or Path(".mlguard/cache/artifacts").resolve())
        else:
            self.blobs = Folder(Path(rest if separator else url))

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
        try:
            return self.blobs.put(Path(path))
        except OSError as error:
            raise RegistryError(f"cannot read {path}: {error}") from error

    def get(self, sha256: str) -> Path:
        """Return a local file that holds exactly the bytes of a digest.

        Raises
        ------
        IntegrityError
            If they are missing, or are not these bytes any more.
        RegistryError
            If the store cannot be reached: nothing is known of the bytes then.
        """
        place = self.blobs.path(sha256)
        if place is None:
            what = "has changed" if self.blobs.exists(sha256) else "is missing"
            raise IntegrityError(
                f"artifact {sha256[:12]} {what} in {self.url}",
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
        return self.blobs.exists(sha256)

    def intact(self, sha256: str) -> bool:
        """Return whether the store itself holds exactly the bytes of a digest; reads them all."""
        return self.blobs.intact(sha256)

    def delete(self, sha256: str) -> bool:
        """Remove the bytes of a digest; return whether they were there."""
        return self.blobs.delete(sha256)
