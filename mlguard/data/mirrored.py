"""Where the log keeps answers that nobody was given: beside the live ones, never among them.

A version that is shown requests without answering them writes into a folder of its own.  Who
reads the log of an app, or of a version, reads live answers only; who compares versions asks for
the folder by name.
"""

from __future__ import annotations

_PREFIX = "mirrored-"


def mirrored_folder(version_id: int) -> str:
    """Return the name of the folder with what a version answered as a mirror."""
    return f"{_PREFIX}{version_id}"


def is_mirrored(folder: str) -> bool:
    """Return whether a folder of an app's log holds answers that nobody was given."""
    return folder.startswith(_PREFIX)
