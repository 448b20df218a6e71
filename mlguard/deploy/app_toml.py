"""Put thresholds into an app.toml that people wrote, and change nothing else of it.

The table ``[model.thresholds]`` is edited line by line, so comments and order stay.  Before the
file is replaced, whole and at once, two things are proven of the new text: read as TOML it is
the old document with these thresholds, and mlguard accepts it.  Otherwise the file stays as it
is and the error says why.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlguard.config import AppSettings, ProjectSettings, load_app
from mlguard.errors import ConfigError, ConflictError

_HEADER = re.compile(r"^\s*\[{1,2}[^\[\]]+\]{1,2}\s*(?:#.*)?$")
_TABLE = re.compile(r"""^\s*\[\s*["']?model["']?\s*\.\s*["']?thresholds["']?\s*\]\s*(?:#.*)?$""")
_MODEL = re.compile(r"""^\s*\[\s*["']?model["']?\s*\]\s*(?:#.*)?$""")
#: A key, its value, and what stands behind it.
_LINE = re.compile(
    r"""^(?P<before>\s*(?P<key>"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)\s*=\s*)[^\s#]+(?P<after>\s*(?:#.*)?)$"""
)


def write_thresholds(
    project: ProjectSettings, settings: AppSettings, thresholds: Mapping[str, float]
) -> bool:
    """Write thresholds into an app's app.toml.

    Parameters
    ----------
    project, settings
        The app.
    thresholds : mapping of str to float
        The whole new table.

    Returns
    -------
    bool
        Whether the file was changed; False where it said so already.

    Raises
    ------
    ConfigError
        If the file writes its thresholds in another way than as a table of its own, or mlguard
        would not accept them.  Nothing was changed.
    ConflictError
        If somebody else changed the file meanwhile.
    """
    file = settings.folder / "app.toml"
    old = file.read_bytes()
    text = old.decode("utf-8")
    if settings.model.thresholds == dict(thresholds):
        return False
    new = edited(text, thresholds)
    if not _only_thresholds(text, new, thresholds):
        lines = "\n".join(f"  {line}" for line in table_lines(thresholds))
        raise ConfigError(
            f"{file} writes its thresholds in a way that is edited by hand only; it is unchanged",
            hint=f"put this in place of them:\n{lines}",
            file=str(file),
        )
    _accepted(project, settings.name, new, file)
    if file.read_bytes() != old:
        raise ConflictError(f"{file} was changed by somebody else meanwhile", hint="try again")
    _replace(file, new.encode("utf-8"))
    return True


def edited(text: str, thresholds: Mapping[str, float]) -> str:
    r"""Return an app.toml with these thresholds.

    Parameters
    ----------
    text : str
        The file.
    thresholds : mapping of str to float
        The whole new table.

    Returns
    -------
    str
        Lines outside the table are those of ``text``; comments inside it stay.

    Examples
    --------
    >>> print(edited("[model]\npath = 'm' # the file\n\n[log]\n", {"default": 0.4}))
    [model]
    path = 'm' # the file
    <BLANKLINE>
    [model.thresholds]
    default = 0.4
    <BLANKLINE>
    [log]
    <BLANKLINE>
    """
    end = "\r\n" if "\r\n" in text else "\n"
    # Not splitlines: TOML knows two ends of a line, Python ten.
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []
    start = _first(lines, _TABLE)
    if start is None:
        model = _first(lines, _MODEL)
        at = len(lines) if model is None else _end_of_table(lines, model)
        body = ["", *table_lines(thresholds)] if at else table_lines(thresholds)
        return end.join([*lines[:at], *body, *lines[at:]]) + end
    stop = _end_of_table(lines, start)
    left = dict(thresholds)
    body = []
    for line in lines[start + 1 : stop]:
        found = _LINE.match(line)
        if found is None:
            body.append(line)
            continue
        key = next(iter(tomllib.loads(f"{found['key']} = 0")))
        if key in left:
            body.append(f"{found['before']}{left.pop(key)!r}{found['after']}")
    body += [_key_line(key, value) for key, value in left.items()]
    return end.join([*lines[: start + 1], *body, *lines[stop:]]) + end


def _first(lines: list[str], pattern: re.Pattern[str]) -> int | None:
    return next((at for at, line in enumerate(lines) if pattern.match(line)), None)


def _end_of_table(lines: list[str], start: int) -> int:
    """Return where a table ends: behind its last key, before what introduces the next one."""
    stop = next((at for at in range(start + 1, len(lines)) if _HEADER.match(lines[at])), len(lines))
    while stop > start + 1 and (not lines[stop - 1].strip() or lines[stop - 1].startswith("#")):
        stop -= 1
    return stop


def table_lines(thresholds: Mapping[str, float]) -> list[str]:
    """Return the lines of ``[model.thresholds]``."""
    return ["[model.thresholds]", *(_key_line(key, one) for key, one in thresholds.items())]


def _key_line(key: str, value: float) -> str:
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", key)
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    name = key if bare else f'"{quoted}"'
    return f"{name} = {value!r}"


def _only_thresholds(old: str, new: str, thresholds: Mapping[str, float]) -> bool:
    """Whether a text reads as the old document with these thresholds, and kept its comments."""
    try:
        document: dict[str, Any] = tomllib.loads(new)
    except tomllib.TOMLDecodeError:
        return False
    expected = tomllib.loads(old)
    expected.setdefault("model", {})["thresholds"] = dict(thresholds)
    kept = [line for line in old.splitlines() if line.lstrip().startswith("#")]
    return document == expected and set(kept) <= set(new.splitlines())


def _accepted(project: ProjectSettings, name: str, text: str, file: Path) -> None:
    """Let mlguard read the new text as this app's, in a project of its own.

    Raises
    ------
    ConfigError
        What mlguard says of it, about the file that people know.
    """
    with tempfile.TemporaryDirectory(prefix="mlguard-app-") as scratch:
        folder = Path(scratch).resolve() / "serving" / name
        folder.mkdir(parents=True)
        (folder / "app.toml").write_text(text, encoding="utf-8")
        try:
            load_app(project.model_copy(update={"root": Path(scratch).resolve()}), name)
        except ConfigError as error:
            said = error.message.replace(str(folder / "app.toml"), str(file))
            raise ConfigError(
                f"{said}\nNothing was changed.",
                hint=f"change that in {file} first, then try again",
                file=str(file),
            ) from error


def _replace(file: Path, content: bytes) -> None:
    """Put new content in a file's place, whole or not at all, with its permissions."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".app-", delete=False) as new:
        try:
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
            Path(new.name).chmod(file.stat().st_mode & 0o777)
            Path(new.name).replace(file)
        except BaseException:
            Path(new.name).unlink(missing_ok=True)
            raise
