"""Read the files, and say what is wrong with them: file, table, key, value, nearest name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from mlguard.config.nearest import nearest
from mlguard.config.policy import CheckPolicy, Family
from mlguard.config.project import ProjectSettings
from mlguard.config.settings import AppSettings
from mlguard.config.values import AnyTable, Table
from mlguard.errors import ConfigError, NotFoundError

APP_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

#: Routes of the server that an app's name would hide.
RESERVED_NAMES = frozenset(
    {"api", "apps", "docs", "healthz", "metrics", "openapi.json", "readyz", "v2"}
)


def load_project(root: Path | str) -> ProjectSettings:
    """Read ``mlguard.toml`` of the project at ``root``.

    Raises
    ------
    NotFoundError
        If there is no ``mlguard.toml``.
    ConfigError
        If it is not valid.
    """
    root = Path(root).resolve()
    file = root / "mlguard.toml"
    if not file.is_file():
        raise NotFoundError(
            f"no mlguard.toml in {root}",
            hint="go to a project's folder, name one with --project, or make one: mlguard init",
        )
    return _validated(ProjectSettings, file, root=root)


def load_app(project: ProjectSettings, name: str) -> AppSettings:
    """Read ``serving/<name>/app.toml``.

    Raises
    ------
    NotFoundError
        If the project has no such app.
    ConfigError
        If the name or the file is not valid.
    """
    if not APP_NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise ConfigError(
            f"{name!r} cannot be the name of an app",
            hint="use 1 to 64 of a-z, 0-9, dot, dash, underscore; reserved: "
            + ", ".join(sorted(RESERVED_NAMES)),
        )
    folder = project.root / "serving" / name
    if not (folder / "app.toml").is_file():
        known = project.app_names()
        raise NotFoundError(
            f"no app {name!r}: there is no {folder / 'app.toml'}",
            hint=f"apps of this project: {', '.join(known) or 'none'}" + nearest(name, known),
        )
    return _validated(AppSettings, folder / "app.toml", name=name, folder=folder)


def find_root(start: Path | str | None = None) -> Path:
    """Return the nearest folder at or above ``start`` that holds an ``mlguard.toml``."""
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "mlguard.toml").is_file():
            return folder
    return here


def _validated(kind: type[AnyTable], file: Path, **extra: object) -> AnyTable:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}", file=str(file)) from error
    for key in extra:
        if key in document:
            raise ConfigError(_unknown(kind, file, "", key), file=str(file))
    try:
        return kind.model_validate({**document, **extra})
    except ValidationError as error:
        raise _config_error(kind, file, error) from error


def _config_error(kind: type[Table], file: Path, error: ValidationError) -> ConfigError:
    """Say what is wrong with the first few keys, as people wrote them."""
    lines = []
    for one in error.errors(include_url=False)[:5]:
        *tables, key = (str(part) for part in one["loc"] or ("",))
        table = ".".join(part for part in tables if part != "checks")
        place = f"[{table}] {key}" if table else f"{key}"
        if one["type"] == "extra_forbidden":
            lines.append(_unknown(kind, file, table, key))
        elif one["type"] == "missing":
            lines.append(f"{file}: {place} is missing; {_meaning(kind, [*tables, key])}")
        else:
            found = "" if isinstance(one["input"], dict) else f" = {one['input']!r}"
            why = one["msg"].removeprefix("Value error, ")
            lines.append(f"{file}: {place}{found}: {why}" if place else f"{file}: {why}")
    return ConfigError("\n".join(lines), hint="see docs/reference/configuration.md", file=str(file))


def _table(kind: type[Table], tables: list[str]) -> type[Table] | None:
    named = False
    for part in tables:
        if named:
            # The name that somebody gave to one table of many.
            named = False
            continue
        spec = kind.model_fields.get(part)
        options = (*get_args(spec.annotation), spec.annotation) if spec else ()
        named = issubclass(kind, Family) and part in kind.NAMED
        if issubclass(kind, Family) and part in kind.CHECKS:
            options = (CheckPolicy,)
        inner = [one for one in options if isinstance(one, type) and issubclass(one, Table)]
        if not inner:
            return None
        kind = inner[0]
    return kind


def _meaning(kind: type[Table], path: list[str]) -> str:
    table = _table(kind, path[:-1])
    spec = table.model_fields.get(path[-1]) if table else None
    return f"write: {spec.description}" if spec and spec.description else "it is required"


def _unknown(kind: type[Table], file: Path, table: str, key: str) -> str:
    inner = _table(kind, table.split(".") if table else [])
    known: set[str] = set()
    if inner is not None:
        hidden = {"root", "name", "folder", "checks"}
        known = {
            spec.alias or name
            for name, spec in inner.model_fields.items()
            if not (spec.exclude and name in hidden)
        }
        if issubclass(inner, Family):
            known |= inner.CHECKS
    where = f"[{table}]" if table else "the top level"
    return f"{file}: unknown key {key!r} in {where}; known: {', '.join(sorted(known))}" + nearest(
        key, known
    )
