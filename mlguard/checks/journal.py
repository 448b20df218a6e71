"""The file in which a run of checks says what it finds: one JSON object a line.

It is written by the pytest plug-in and read while it grows.  Kinds of lines:

========== ======================================== =====================================
kind       keys                                     meaning
========== ======================================== =====================================
phase      name                                     what is going on before the first check
plan       items, not_applicable                    what was collected
start      item                                     an item begins
result     result                                   a ``CheckResult``
done       item                                     an item has said all it had to say
error      error                                    nothing can be judged; see errors.py
finished   exit_status                              pytest's own exit status, the last line
========== ======================================== =====================================

A journal without ``finished`` belongs to a run that died.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlguard import errors


class JournalWriter:
    """Appends whole lines; a reader never sees half of one that it would accept."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, **content: Any) -> None:
        """Append one line, and hand it to the system before returning."""
        self._file.write(json.dumps({"kind": kind, **content}, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file, its bytes durable: a decision may rest on it."""
        os.fsync(self._file.fileno())
        self._file.close()


class JournalReader:
    """Reads what was appended since it last looked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that were completed since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield json.loads(line)


def error_to_json(error: errors.MlguardError) -> dict[str, Any]:
    """Return an error as the journal holds it."""
    return {"type": type(error).__name__, "message": error.message, "hint": error.hint}


def error_from_json(document: dict[str, Any]) -> errors.MlguardError:
    """Rebuild an error of :mod:`mlguard.errors` from a journal."""
    kind = getattr(errors, document["type"], errors.MlguardError)
    rebuilt: errors.MlguardError = kind(document["message"], hint=document["hint"])
    return rebuilt
