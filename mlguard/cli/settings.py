"""How settings look when they are printed: as the TOML that would say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any

from mlguard.cli.terminal import Line
from mlguard.config import AppSettings, CheckPolicy, Family, ProjectSettings, Table

#: Where a table was read from, and other things nobody writes into a settings file.
_NOT_WRITTEN = {"root", "name", "folder", "checks"}


def settings_lines(settings: ProjectSettings | AppSettings) -> list[Line]:
    """Return every key that is in force, table by table."""
    lines: list[Line] = []
    for path, table, idle in _tables(settings, ""):
        keys = [f"{key} = {_toml(value)}" for key, value in _values(table) if key not in idle]
        if keys:
            lines += [[(f"[{path}]", "bold")], *keys, ""]
    return lines[:-1]


def _tables(
    table: Table, path: str, idle: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Table, frozenset[str]]]:
    """Yield each table, its path, and its keys that have no effect: no file may say those."""
    if path:
        yield path, table, idle
    family = table if isinstance(table, Family) else None
    for name, spec in type(table).model_fields.items():
        inner = getattr(table, name)
        if isinstance(inner, Table):
            below = f"{path}.{spec.alias or name}".lstrip(".")
            yield from _tables(inner, below, _idle(family, name))
        if family is not None and name in family.NAMED:
            for key, one in inner.items():
                yield f"{path}.{name}.{_key(key)}", one, _idle(family, name)
    if family is not None:
        for check, policy in sorted(family.checks.items()):
            yield f"{path}.{check}", policy, _idle(family, check)


def _idle(family: Family | None, check: str) -> frozenset[str]:
    if family is None:
        return frozenset()
    # What a family refuses, its checks refuse.
    return family.WITHOUT_EFFECT.get(check, frozenset()) | set(family.WITHOUT)


def _key(name: str) -> str:
    """Write a name as TOML wants a key: quoted where it is no plain word."""
    return name if name.replace("-", "").replace("_", "").isalnum() else json.dumps(name)


def _values(table: Table) -> Iterator[tuple[str, Any]]:
    skipped: frozenset[str] = frozenset()
    if isinstance(table, Family):
        skipped = table.NAMED | set(table.WITHOUT)
    for name, spec in type(table).model_fields.items():
        if name in skipped:
            continue
        value = getattr(table, name)
        root = isinstance(table, ProjectSettings | AppSettings)
        if isinstance(value, Table) or value is None or (name in _NOT_WRITTEN and root):
            continue
        if name == "checks" and isinstance(table, Family | CheckPolicy):
            continue
        extra = spec.json_schema_extra
        unit = extra.get("unit") if isinstance(extra, dict) else None
        yield spec.alias or name, duration_text(value) if unit == "duration" else value


def duration_text(seconds: float) -> str:
    """Write a duration as settings files do: ``"90s"``, ``"10m"``, ``"24h"``, ``"7d"``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _toml(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)
