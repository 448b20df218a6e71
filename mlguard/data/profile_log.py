"""Profiles beside the prediction log: what each process counted of the inputs that it was sent.

::

    <root>/<app>/<version_id>/<process>-<seq>.profiles     one line a slice of a few seconds

A serving process counts every row of a version on the grid of the version's reference, whatever
the log keeps of the rows themselves, and appends its counts every few seconds.  Counts merge
(:mod:`mlguard.data.profile`), so drift is judged from the slices of all processes, at a cost that
does not grow with traffic, and also where the log keeps no inputs.

Rules:

1. A line is written whole or not at all; a torn last line is not read.
2. Slices of one file come in the order of their writing; a reader goes on from a byte.
3. A slice names its grid; one of another grid says nothing.
4. As in the log, whatever goes wrong is counted and disturbs nobody.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlguard.data.joint import ANSWER, Joint, class_name
from mlguard.data.log_columns import NamedColumn
from mlguard.data.profile import SCORE, FeatureProfile, Profile
from mlguard.results import finite_or_none

SUFFIX = ".profiles"
#: A slice is written when its first row is so old, in seconds.
SLICE_S = 5.0
_TEXTS = {str, type(None)}
#: A file is followed by the next one when it has this many bytes.
FILE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """What one process counted in a few seconds.

    Attributes
    ----------
    generation : int
        Of the rows.
    start, end : float
        When the first and the last of them was answered, seconds since the epoch.
    closed_at : float
        When it was written; slices of one file rise in it.
    n_rows : int
        Rows answered, those that were not valid as well.
    refused : int
        Requests that were refused meanwhile as malformed.
    packed : mapping or None
        What was counted, as it stands in the file; None where that was on another grid.
    file, stop : str, int
        Where it stands, and where the next one begins.
    grid : Profile or None
        What it was counted on.
    """

    generation: int
    start: float
    end: float
    closed_at: float
    n_rows: int
    refused: int
    packed: Mapping[str, Any] | None
    file: str
    stop: int
    grid: Profile | None = None

    @property
    def profile(self) -> Profile | None:
        """Of the valid rows; None where it was counted on another grid, or is broken.

        Unpacked when it is asked for: a window that is still open is looked at every second.
        """
        if self.packed is None or self.grid is None:
            return None
        try:
            return _unpacked(self.packed, self.grid)
        except (ValueError, KeyError, TypeError, zlib.error):
            return None  # after a power cut there may be anything


def grid_name(grid: Profile) -> str:
    """Return what tells a grid from another one."""
    digest = hashlib.sha256()
    for name, one in sorted(grid.features.items()):
        digest.update(f"{name}\0{one.shape}\0{one.shift!r}\0".encode())
        digest.update(one.edges.tobytes())
        digest.update("\0".join((*one.categories, "", *sorted(one.rare))).encode())
    for attribute, columns in sorted(grid.joint.items()):
        for name, counts in sorted(columns.items()):
            told = (attribute, name, *counts.groups, "", *(counts.names or ()))
            digest.update("\0".join(told).encode() + counts.edges.tobytes())
    return digest.hexdigest()[:16]


class ProfileWriter:
    """Counts the rows of one version in one process, and writes the counts down.

    :meth:`add` never touches the disk, and may be called in one thread while another one calls
    :meth:`flush`.

    Parameters
    ----------
    folder : Path
        The version's folder of the log.
    process : str
        A name that no other live process uses.
    grid : Profile
        The profile of the version's reference.
    features : sequence of NamedColumn
        The model's inputs, in the order in which rows give them.
    redact : sequence of str
        Columns that are not counted either.
    clock : callable, default time.time
        Seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path,
        process: str,
        grid: Profile,
        features: Sequence[NamedColumn],
        *,
        redact: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
        slice_s: float = SLICE_S,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self.written = 0
        self.last_error = ""
        self._folder = folder
        self._process = process
        self._clock = clock
        self._slice_s = slice_s
        self._file_bytes = file_bytes
        # Times are texts in a row, and the passing of time is no drift.
        self._places = {
            one.name: place
            for place, one in enumerate(features)
            if one.name in grid.features and one.name not in redact and one.kind != "time"
        }
        counts_score = SCORE in grid.features and SCORE not in redact
        # A feature of that name shares its grid with the score: neither can be counted on it.
        self._score = counts_score and SCORE not in {one.name for one in features}
        if not self._score:
            self._places.pop(SCORE, None)
        counted = {*self._places, *((SCORE,) if self._score else ())}
        if "output" not in redact:
            counted.add(ANSWER)
        self._grid = grid.only(counted)
        # What callers say of a row is not counted either where nobody is to know it.
        for attribute in [one for one in self._grid.joint if {one, "groups"} & set(redact)]:
            del self._grid.joint[attribute]
        places = {one.name: place for place, one in enumerate(features)}
        self._attributes = {one: places.get(one) for one in self._grid.joint}
        self._name = grid_name(grid)
        self._lock = threading.Lock()
        self._open: _Open | None = None
        self._full: list[_Open] = []
        self._number = 0
        self._path: Path | None = None
        self._size = 0

    def add(
        self,
        *,
        generation: int,
        times: Sequence[float],
        rows: Sequence[Any],
        scores: Sequence[float | None],
        valid: Sequence[bool],
        groups: Sequence[Mapping[str, str] | None] | None = None,
        answers: Sequence[Any] | None = None,
    ) -> None:
        """Count rows of one generation, in the order in which they were answered.

        Parameters
        ----------
        rows : sequence, or ndarray of shape (n_rows, n_features)
            Cells in the order of the features; what is no list is the only cell of its row.
        scores : sequence of float or None
            The version's scores.
        valid : sequence of bool
            Which rows are counted; of the others only that they were there.
        groups : sequence of mapping or None, optional
            What the callers said of each row, by attribute; what they did not say is looked for
            among the row's own cells.
        answers : sequence, optional
            What each was answered; None where it was the default output.
        """
        nothing: Sequence[Any] = [None] * len(rows)
        columns: list[Sequence[Any]] = [rows, scores, groups or nothing, answers or nothing]
        if not all(valid):
            chosen = [place for place, one in enumerate(valid) if one]
            columns = [[column[place] for place in chosen] for column in columns]
        counted = self._counted(*columns)
        with self._lock:
            if self._open is not None and self._open.generation != generation:
                self._full.append(self._open)
                self._open = None
            if self._open is None:
                self._open = _Open(generation, times[0], times[-1], self._clock(), 0, counted)
            else:
                self._open.profile = self._open.profile.merge(counted)
            self._open.n_rows += len(rows)
            self._open.start = min(self._open.start, *times)
            self._open.end = max(self._open.end, *times)

    def _counted(
        self,
        rows: Sequence[Any],
        scores: Sequence[float | None],
        groups: Sequence[Mapping[str, str] | None],
        answers: Sequence[Any],
    ) -> Profile:
        if not len(rows):
            nothing: dict[str, list[Any]] = {name: [] for name in self._grid.features}
            return self._grid.summarise(nothing, groups={one: [] for one in self._attributes})
        by_place: Sequence[Any]
        if isinstance(rows, np.ndarray):
            by_place = rows.T
        else:
            several = isinstance(rows[0], (list, tuple, np.ndarray))
            by_place = list(zip(*(rows if several else [(one,) for one in rows]), strict=True))
        columns: dict[str, Any] = {name: by_place[at] for name, at in self._places.items()}
        if self._score:
            columns[SCORE] = [math.nan if one is None else one for one in scores]
        if not self._attributes:
            return self._grid.summarise(columns)
        return self._grid.summarise(
            columns,
            groups={
                attribute: _named(attribute, groups, None if at is None else by_place[at])
                for attribute, at in self._attributes.items()
            },
            answers=_class_names(answers),
        )

    def flush(self, *, refused: int = 0) -> int:
        """Write what is due; return how many refused requests it took up.

        Due are slices of generations that have ended, and the open one if it is old enough.
        """
        with self._lock:
            full, self._full = self._full, []
            one = self._open
            if one is not None and 0 <= self._clock() - one.opened_at < self._slice_s:
                one = None
            if one is not None:
                self._open = None
        for ended in full:
            self._note(ended, refused=0)
        if one is None:
            return 0
        self._note(one, refused=refused)
        return refused

    def close_slice(self, *, refused: int = 0) -> None:
        """Write all that was counted; whatever goes wrong is only noted."""
        with self._lock:
            full, self._full = self._full, []
            one, self._open = self._open, None
        for ended in full:
            self._note(ended, refused=0)
        if one is not None:
            self._note(one, refused=refused)

    def _note(self, one: _Open, *, refused: int) -> None:
        document = {
            "grid": self._name,
            "generation": one.generation,
            "start": one.start,
            "end": one.end,
            "closed_at": self._clock(),
            "n_rows": one.n_rows,
            "refused": refused,
            "profile": _packed(one.profile),
        }
        try:
            self._write(json.dumps(document, allow_nan=False).encode() + b"\n")
            self.written += 1
        # Serving goes on, whatever it is.
        except Exception as error:  # noqa: BLE001  see above
            self.last_error = f"{type(error).__name__}: {error}"

    def _write(self, line: bytes) -> None:
        if self._path is None or self._size + len(line) > self._file_bytes:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path = self._folder / f"{self._process}-{self._number:06d}{SUFFIX}"
            self._number += 1
            self._size = 0
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            # After what is whole: half a line, from a full disk, is written over.
            written = 0
            while written < len(line):
                written += os.pwrite(descriptor, line[written:], self._size + written)
            self._size += len(line)
        except OSError:
            os.ftruncate(descriptor, self._size)
            raise
        finally:
            os.close(descriptor)

    def announce(self) -> None:
        """Make the file, so that readers know that slices will come."""
        try:
            self._write(b"")
        except OSError as error:
            self.last_error = f"{type(error).__name__}: {error}"


def _named(
    attribute: str, groups: Sequence[Mapping[str, str] | None], cells: Sequence[Any] | None
) -> list[str | None]:
    """Return each row's group; what the caller said wins over an input of that name."""
    found = [None if one is None else one.get(attribute) for one in groups]
    if cells is not None:
        found = [cell if said is None else said for said, cell in zip(found, cells, strict=True)]
    if set(map(type, found)) <= _TEXTS:
        return found
    return [None if one is None else str(one) for one in found]


def _class_names(answers: Sequence[Any]) -> list[str | None]:
    """Return answers as classes are written; None stays None."""
    types = set(map(type, answers)) - {type(None)}
    if len(types) == 1 and types <= {int, str, bool, float}:
        # Of one type equal answers are written alike, and there are few that differ.
        names: dict[Any, str | None] = {one: class_name(one) for one in set(answers)}
        names[None] = None
        return [names[one] for one in answers]
    return [None if one is None else class_name(one) for one in answers]


@dataclass(slots=True)
class _Open:
    generation: int
    start: float
    end: float
    opened_at: float
    n_rows: int
    profile: Profile


def has_slices(folder: Path) -> bool:
    """Return whether profiles are kept in a version's folder."""
    return any(folder.glob(f"*{SUFFIX}"))


def read_slices(folder: Path, grid: Profile, since: Mapping[str, int] | None = None) -> list[Slice]:
    """Return the slices of a folder in the order of their writing.

    Parameters
    ----------
    folder : Path
        A version's folder of the log.
    grid : Profile
        The profile of the version's reference.
    since : mapping of str to int, optional
        File -> byte up to which its slices are known.
    """
    found: list[Slice] = []
    name = grid_name(grid)
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        stop = (since or {}).get(path.name, 0)
        try:
            with path.open("rb") as file:
                file.seek(stop)
                text = file.read()
        except FileNotFoundError:
            continue
        closed_at = -math.inf
        for line in text.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            stop += len(line)
            try:
                document = json.loads(line)
                same = document["grid"] == name
                one = Slice(
                    generation=int(document["generation"]),
                    start=float(document["start"]),
                    end=float(document["end"]),
                    # A clock that was set back must not turn the order of a file round.
                    closed_at=max(float(document["closed_at"]), closed_at),
                    n_rows=int(document["n_rows"]),
                    refused=int(document["refused"]),
                    packed=document["profile"] if same else None,
                    file=path.name,
                    stop=stop,
                    grid=grid,
                )
            except (ValueError, KeyError, TypeError):
                continue  # as above
            closed_at = one.closed_at
            found.append(one)
    return sorted(found, key=lambda one: (one.closed_at, one.file, one.stop))


def prune_slices(folder: Path, older_than: float) -> int:
    """Remove files of slices that were last written before a time; return how many."""
    removed = 0
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            if path.stat().st_mtime < older_than:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed


# --- counts on a known grid ----------------------------------------------------------------


def _packed(profile: Profile) -> dict[str, Any]:
    """Return counts without their grid; mostly zeros, they shrink to a few bytes a cell."""
    return {
        "n_rows": profile.n_rows,
        "n_unusual": profile.n_unusual,
        "features": {
            name: {
                "counts": _shrunk(one.counts),
                "missing": one.missing,
                "total": finite_or_none(one.total),
                "squares": finite_or_none(one.squares),
                "low": finite_or_none(one.low),
                "high": finite_or_none(one.high),
            }
            for name, one in profile.features.items()
        },
        "joint": {
            attribute: {name: _shrunk(one.counts) for name, one in columns.items()}
            for attribute, columns in profile.joint.items()
        },
    }


def _shrunk(counts: npt.NDArray[np.int64]) -> str:
    return base64.b64encode(zlib.compress(counts.astype("<i8").tobytes(), 1)).decode("ascii")


def _grown(text: str, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i8").reshape(shape)


def _unpacked(document: Mapping[str, Any], grid: Profile) -> Profile:
    features: dict[str, FeatureProfile] = {}
    for name, one in document["features"].items():
        like = grid[name]
        counts = _grown(one["counts"], like.counts.shape)
        features[name] = like.counted(
            counts.astype(np.int64),
            missing=int(one["missing"]),
            total=math.nan if one["total"] is None else one["total"],
            squares=math.nan if one["squares"] is None else one["squares"],
            low=math.inf if one["low"] is None else one["low"],
            high=-math.inf if one["high"] is None else one["high"],
        )
    joint: Joint = {}
    for attribute, columns in document.get("joint", {}).items():
        joint[attribute] = {}
        for name, text in columns.items():
            empty = grid.joint[attribute][name]
            joint[attribute][name] = empty.counted(
                _grown(text, empty.counts.shape).astype(np.int64)
            )
    return Profile(features, int(document["n_rows"]), int(document["n_unusual"]), joint)
