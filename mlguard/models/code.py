"""A Python predictor: a class of the user's own, packed with the files that it needs.

::

    class Rules:
        def load(self, folder):          # optional: a pathlib.Path with the packed files
            self.limit = float((folder / "limit.txt").read_text())

        def predict(self, rows):         # one answer for each row, in order
            return [int(row[0] > self.limit) for row in rows]

``rows`` is what a scikit-learn model would get: an array for lists of numbers, a data frame
for tables, a list for strings and bytes.  A class with ``predict_proba`` has scores, and is
answered by the version's thresholds.

Source and files become one archive whose bytes depend on nothing else, so that the version's
digest covers all of it.  It is code: it is packed and loaded only where ``allow_code`` is
true, and loaded only in a process of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mlguard.errors import ConfigError, ModelFileError, UntrustedModelError
from mlguard.models.formats import PACKED_CODE

#: Member that says which class it is.
INDEX = PACKED_CODE
#: Largest size of an archive's contents.
MAX_UNPACKED_MIB = 4096
_NAMED = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")
#: The same moment for every member, so that packing twice gives the same bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def names_class(text: str | Path) -> bool:
    """Tell whether a path is ``file.py:Class``."""
    return _NAMED.fullmatch(str(text)) is not None


def source_of(text: str | Path) -> Path:
    """Return the file of a path that may be ``file.py:Class``."""
    found = _NAMED.fullmatch(str(text))
    return Path(found["file"] if found else text)


def candidate_file(text: str | Path, files: Sequence[str | Path], into: Path) -> Path:
    """Return the file to deploy: the model's own, or what a class is packed into.

    Parameters
    ----------
    text : str or Path
        A model file, or ``file.py:Class``.
    files : sequence of path
        Files to pack with a class, all below the folder of its source.
    into : Path
        Folder for the archive, named by its digest.

    Raises
    ------
    ModelFileError
        If a file is missing.
    ConfigError
        If one lies outside the folder of the source.
    """
    found = _NAMED.fullmatch(str(text))
    if found is None:
        return Path(text)
    content = pack(Path(found["file"]), found["name"], files)
    target = into / f"{found['name']}-{hashlib.sha256(content).hexdigest()[:16]}.zip"
    if not target.exists():
        into.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=into, prefix=".packing-")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        Path(draft).replace(target)
    return target


def pack(source: Path, name: str, files: Sequence[str | Path] = ()) -> bytes:
    """Return a class and its files as an archive; equal content gives equal bytes."""
    folder = source.parent.resolve()
    members = {source.name: _read(source)}
    for one in files:
        path = (folder / one).resolve()
        if not path.is_relative_to(folder):
            raise ConfigError(
                f"[model] files names {str(one)!r}, which is not below {folder}",
                hint="put the files that the class needs beside its source",
            )
        members[path.relative_to(folder).as_posix()] = _read(path)
    members[INDEX] = json.dumps({"class": name, "source": source.name}).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in sorted(members):
            archive.writestr(zipfile.ZipInfo(member, _EPOCH), members[member])
    return packed.getvalue()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="correct [model] path or [model] files in app.toml",
        ) from error


def code_of(path: Path | str) -> dict[str, str]:
    """Return the SHA-256 of each file of an archive, by name.

    Raises
    ------
    ModelFileError
        If it is damaged, too large, or has names that lead out of a folder.
    """
    with _archive(path) as archive:
        return {
            one.filename: hashlib.sha256(archive.read(one)).hexdigest()
            for one in archive.infolist()
        }


def load_code(path: Path | str, *, allow_code: bool) -> Any:
    """Make an object of the class of an archive; call this in a process of its own only.

    Its files are there while it is made and loaded, and gone afterwards: what it needs to
    answer, it keeps.

    Parameters
    ----------
    path : path
        The archive.
    allow_code : bool
        ``[model] allow_code``.

    Raises
    ------
    UntrustedModelError
        If code may not be run.
    ModelFileError
        If the archive is damaged, or its code raises, or it has no such class.
    """
    require_allowed(path, allow_code=allow_code)
    folder = Path(tempfile.mkdtemp(prefix="mlguard-code-"))
    try:
        with _archive(path) as archive:
            archive.extractall(folder)  # names were checked: none leads out of the folder
            index = json.loads(archive.read(INDEX))
        return _loaded(folder, str(index["source"]), str(index["class"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _loaded(folder: Path, source: str, name: str) -> Any:
    # So that the source can import the modules that were packed with it.
    sys.path.insert(0, str(folder))
    try:
        made = _made(folder / source, name)
        if hasattr(made, "load"):
            made.load(folder)
    except ModelFileError:
        raise
    # It is somebody's code: it may raise anything.
    except Exception as error:
        raise ModelFileError(
            f"{source}:{name} cannot be loaded: {type(error).__name__}: {error}",
            hint="name every file that it reads in [model] files, and install what it imports",
        ) from error
    if not callable(getattr(made, "predict", None)):
        raise ModelFileError(
            f"{source}:{name} has no method predict",
            hint="def predict(self, rows): return one answer for each row",
        )
    return made


def require_allowed(path: Path | str, *, allow_code: bool) -> None:
    """Refuse code that nobody allowed.

    Raises
    ------
    UntrustedModelError
        If ``allow_code`` is false.
    """
    if not allow_code:
        raise UntrustedModelError(
            f"{Path(path).name} is Python code, which runs when it is loaded",
            hint="if you trust it, set in app.toml: [model] allow_code = true",
        )


def _made(source: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(source.stem, source)
    if spec is None or spec.loader is None:
        raise ModelFileError(f"{source.name} is no Python source")
    module = importlib.util.module_from_spec(spec)
    sys.modules[source.stem] = module
    spec.loader.exec_module(module)
    kind = getattr(module, name, None)
    if not isinstance(kind, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise ModelFileError(
            f"{source.name} has no class {name}",
            hint=f"it has: {', '.join(classes) or 'no class at all'}",
        )
    return kind()


def _archive(path: Path | str) -> zipfile.ZipFile:
    """Open an archive whose names and size are harmless."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelFileError(f"{path} is a damaged archive ({error})") from error
    members = archive.infolist()
    unpacked = sum(one.file_size for one in members) / 2**20
    strange = [one.filename for one in members if not _plain_name(one)]
    if strange or unpacked > MAX_UNPACKED_MIB or INDEX not in archive.namelist():
        archive.close()
        why = (
            f"it holds {strange[0]!r}"
            if strange
            else f"it unpacks to {unpacked:,.0f} MiB"
            if unpacked > MAX_UNPACKED_MIB
            else f"it lacks {INDEX}"
        )
        raise ModelFileError(f"{path} is no packed predictor: {why}")
    return archive


def _plain_name(member: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(member.filename)
    link = stat.S_ISLNK(member.external_attr >> 16)
    return not (name.is_absolute() or ".." in name.parts or member.is_dir() or link)
