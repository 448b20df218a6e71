"""``mlguard registry``: is all still what it was, put back what was lost, take away the rest."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.deploy.outcome import SCHEMA_VERSION

if TYPE_CHECKING:
    from mlguard.registry import Registry

#: The commands, in the order in which people need them.
ACTIONS = ("verify", "repair", "gc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkept:
    """What a command of ``mlguard registry`` found or did.

    Attributes
    ----------
    action : str
        One of ``ACTIONS``.
    items : tuple of dict
        A finding, a version or something that was taken away each: ``kind``, ``app``,
        ``version``, ``summary``, ``size``.
    changed : bool
        Whether anything was changed.
    exit_code : int
        1 where something is not what it should be and was not put right, else 0.
    lines : tuple of str
        What to tell people.
    next_step : str
        What to type next.
    """

    action: str
    items: tuple[dict[str, Any], ...]
    changed: bool
    exit_code: int
    lines: tuple[str, ...]
    next_step: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": f"registry {self.action}",
            "ok": self.exit_code == 0,
            "changed": self.changed,
            "exit_code": self.exit_code,
            "items": list(self.items),
            "lines": list(self.lines),
            "next_step": self.next_step,
        }


def verify_registry(registry: Registry) -> Upkept:
    """Read every byte and compare every fact with the audit trail; change nothing."""
    found = registry.verify()
    items = tuple(_item(one.kind, one.app, one.version, one.summary) for one in found)
    if not found:
        return Upkept(
            action="verify",
            items=(),
            changed=False,
            exit_code=0,
            lines=("Every byte, every fact and every entry is what was written.",),
        )
    lost = any(one.kind == "bytes" for one in found)
    return Upkept(
        action="verify",
        items=items,
        changed=False,
        exit_code=1,
        lines=tuple(f"✗ {_subject(one)}{one['summary']}" for one in items),
        next_step="mlguard registry repair --from FILE" if lost else "mlguard history --verify",
    )


def repair_registry(registry: Registry, files: Iterable[Path], *, dry_run: bool) -> Upkept:
    """Put identical bytes back where they were lost."""
    done = registry.repair(files, dry_run=dry_run)
    said = {
        "repaired": "its bytes are back; it must pass the gate again",
        "put back": "its bytes are back",
        "lost": "its bytes are still missing",
    }
    items = tuple(_item(what, one.app, one.name, said[what]) for one, what in done)
    lost = any(what == "lost" for _, what in done)
    lines = [
        f"{'✗' if one['kind'] == 'lost' else '✓'} {_subject(one)}{one['summary']}" for one in items
    ]
    if dry_run and items:
        lines.append("Dry run: nothing was changed.")
    return Upkept(
        action="repair",
        items=items,
        changed=not dry_run and any(what != "lost" for _, what in done),
        exit_code=1 if lost else 0,
        lines=tuple(lines or ["Nothing is broken."]),
        next_step="mlguard registry repair --from FILE  (the same file, byte for byte)"
        if lost
        else "",
    )


def collect_registry(registry: Registry, *, dry_run: bool) -> Upkept:
    """Archive what is too old to go back to, and remove bytes that nobody needs."""
    done = registry.collect(dry_run=dry_run)
    said = {
        "archived": "archived: newer versions to go back to are kept",
        "orphan": "bytes that no version names, older than a day",
        "bytes": "bytes of a version that was archived more than a week ago",
        "leftover": "part of a file whose storing was cut off",
        "copy": "local copy of bytes that neither serve nor may be gone back to",
    }
    items = []
    for one in done:
        app, _, version = one.name.partition(" ") if one.kind == "archived" else ("", "", "")
        text = said[one.kind] if one.kind == "archived" else f"{one.name[:12]}: {said[one.kind]}"
        items.append(_item(one.kind, app, version, text) | {"name": one.name, "size": one.size})
    freed = sum(one.size for one in done)
    lines = [f"{_subject(one)}{one['summary']}" for one in items]
    if done:
        would = "would free" if dry_run else "freed"
        lines.append(f"{would[:1].upper()}{would[1:]} {freed / 2**20:.1f} MiB.")
    if dry_run and done:
        lines.append("Dry run: nothing was changed.")
    return Upkept(
        action="gc",
        items=tuple(items),
        changed=bool(done) and not dry_run,
        exit_code=0,
        lines=tuple(lines or ["There is nothing to collect."]),
    )


def offered_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files among some paths, those in folders too."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
        else:
            found.append(path)
    return sorted(found)


def _item(kind: str, app: str, version: str, summary: str) -> dict[str, Any]:
    return {"kind": kind, "app": app or None, "version": version or None, "summary": summary}


def _subject(item: dict[str, Any]) -> str:
    who = " ".join(one for one in (item["app"], item["version"]) if one)
    return f"{who}: " if who else ""
