"""What ``mlguard waive`` does: give a waiver, list them, revoke one.

People write an end as a length (``"30d"``) or as a day; a day counts whole, in UTC.  A version
is named as people know it; the waiver keeps its content, so it covers the same bytes under any
name and nothing that is trained after them.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlguard.checks.declaration import declare_all
from mlguard.config import AppSettings, ProjectSettings, parse_duration
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.errors import UsageError
from mlguard.registry import Registry
from mlguard.results import GateDecision
from mlguard.waivers import Waiver, WaiverBook

_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Newest versions whose findings are known by name.
_KNOWN_VERSIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Waived:
    """What a command about waivers did.

    Attributes
    ----------
    app : str
        Whose waivers.
    changed : bool
        Whether one was given or revoked.
    book : WaiverBook
        The one concerned, or all of the app where they were asked for; and the time.
    lines : tuple of str
        What happened, in sentences.
    next_step : str
        The command to type next.
    """

    app: str
    changed: bool
    book: WaiverBook
    lines: tuple[str, ...] = ()
    next_step: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "waive",
            "ok": True,
            "changed": self.changed,
            "exit_code": 0,
            "app": self.app,
            "waivers": [one.to_json(self.book.now) for one in self.book.waivers],
            "lines": list(self.lines),
            "next_step": self.next_step,
        }


def end_of(text: str, now: float) -> float:
    """Return the time that an end stands for: a length from now, a whole day, or a moment.

    Parameters
    ----------
    text : str
        ``"30d"``, ``"2026-12-31"`` (that day counts, in UTC) or ISO 8601 with a time.
    now : float
        Seconds since the epoch.

    Raises
    ------
    UsageError
        If it is none of them.

    Examples
    --------
    >>> end_of("2d", 1000.0) - 1000.0
    172800.0
    >>> end_of("1970-01-02", 0.0)
    172800.0
    """
    try:
        return now + parse_duration(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no end of a waiver",
            hint='write a length like "30d" or a day like "2026-12-31"',
        ) from error
    if len(text) == len("2026-12-31"):
        found += timedelta(days=1)
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def digest_of(
    registry: Registry, app: str, *, version: str | None, digest: str | None, any_version: bool
) -> str | None:
    """Return the content that a waiver is for; None for any.

    Raises
    ------
    NotFoundError
        If there is no such version.
    UsageError
        If none or several were named: an exception for every model, now and later, is
        written out.
    """
    if sum((version is not None, digest is not None, any_version)) != 1:
        raise UsageError(
            "a waiver is for one version or for any",
            hint="say --version V, --digest D or --any-version",
        )
    if version is not None:
        return registry.version(app, version).digest
    if digest is not None and not _SHA256.fullmatch(digest):
        raise UsageError(
            f"{digest[:80]!r} is no digest of a version: it has 64 hex digits",
            hint=f"`mlguard history {app} --json` names them; or say --version V",
        )
    return digest


def given(
    project: ProjectSettings,
    settings: AppSettings,
    registry: Registry,
    waiver: Waiver,
    *,
    new: bool,
) -> Waived:
    """Return what to say of a waiver that was given, or was in force already."""
    book = registry.waiver_book(settings.name)
    known = _known_names(project, settings, registry)
    said, scope = waiver.says(book.now), "this version alone" if waiver.digest else "any version"
    lines = [
        f"{waiver.name} of {settings.name} {f'is {said}' if new else f'was {said} already'}.",
        f"It covers {scope}. The finding stays what it is, and is shown wherever the version is.",
    ]
    if not any(waiver.name in (name, name.partition("[")[0]) for name in known):
        near = difflib.get_close_matches(waiver.name, known, n=1)
        lines.append(
            f"! No check of {settings.name} is known as {waiver.name}"
            + (f"; did you mean {near[0]}?" if near else ".")
        )
    return Waived(
        app=settings.name,
        changed=new,
        book=WaiverBook((waiver,), book.now),
        lines=tuple(lines),
        next_step=f"mlguard deploy {settings.name}",
    )


def _known_names(project: ProjectSettings, settings: AppSettings, registry: Registry) -> list[str]:
    """Return the names of the checks that are declared, or that judged a version lately."""
    names = {item.name for item in declare_all(settings, project.root).items}
    for version in registry.versions(settings.name)[:_KNOWN_VERSIONS]:
        for evidence in registry.evidence(settings.name, version.digest)[:1]:
            names |= {one.name for one in GateDecision.from_json(evidence.decision).results}
    return sorted(names)


def listed_waivers(registry: Registry, app: str) -> Waived:
    """Return all waivers of an app, newest first, with where each stands."""
    book = registry.waiver_book(app)
    names = {one.digest: one.name for one in reversed(registry.versions(app))}
    lines = []
    for one in book.waivers:
        scope = "any version" if one.digest is None else names.get(one.digest, one.digest[:12])
        lines.append(f"{one.id}  {one.name}, {scope}: {one.says(book.now)}: {one.reason}")
    return Waived(
        app=app, changed=False, book=book, lines=tuple(lines) or (f"{app} has no waivers.",)
    )


def revoked(registry: Registry, app: str, waiver_id: int, reason: str) -> Waived:
    """Revoke a waiver and return what to say of it."""
    before = registry.waiver_book(app)
    waiver = registry.revoke_waiver(app, waiver_id, reason)
    was_valid = any(one.id == waiver_id and one.valid(before.now) for one in before.waivers)
    book = WaiverBook((waiver,), registry.waiver_book(app).now)
    text = f"{waiver.name}: {waiver.says(book.now)}."
    if was_valid:
        text += " The finding closes the gate again; what serves goes on serving."
    return Waived(
        app=app, changed=was_valid, book=book, lines=(text,), next_step=f"mlguard status {app}"
    )
