"""Files of other machines, through fsspec: how a URL becomes a file system that never hangs.

A store that is slow must not hang whoever waits for it, and its listings must not be those of
a minute ago.  What a client of a store does by itself (retries, caches) is switched off here, so
that whoever uses it can say how often it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mlguard.errors import ConfigError

#: Options by protocol: one try, and an end to waiting.
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": 5,
            "read_timeout": 20,
            # One loop of retries, the caller's: three inside one another multiply.
            "retries": {"total_max_attempts": 1},
        }
    }
}


def open_files(url: str, *, key: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Parameters
    ----------
    url : str
        E.g. ``s3://bucket/prefix``.  Credentials and endpoint are found as the store's own tools
        find them (``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, …).
    key : str
        The setting that it stands in, e.g. ``"[registry] artifacts"``, for the words of an error.

    Raises
    ------
    ConfigError
        If no file system is installed for the URL.
    """
    # Imported here: files of this machine need none of it.
    from fsspec.core import url_to_fs
    from fsspec.utils import get_protocol

    options = OPTIONS.get(get_protocol(url), {})
    try:
        files, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{key} = {url!r}: {error}",
            hint='pip install "mlguard[s3]" for s3://; other stores need their fsspec package',
        ) from error
    if hasattr(files, "retries"):
        files.retries = 1
    return files, str(root).rstrip("/")


def modified(facts: Mapping[str, Any]) -> float | None:
    """Return when a file was written, in seconds since the epoch; each store names it otherwise."""
    for key in ("LastModified", "mtime", "created", "last_modified"):
        found: Any = facts.get(key)
        if isinstance(found, int | float):
            return float(found)
        if isinstance(found, datetime):
            return found.timestamp()
    return None
