"""The card of a version, and the evidence it is made from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from mlguard.config import AppSettings, ProjectSettings
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.errors import NotFoundError
from mlguard.reports.card import Card, build_card
from mlguard.wording import rfc3339

if TYPE_CHECKING:
    from mlguard.registry import Registry, Version


def version_of(registry: Registry, app: str, name: str | None) -> Version:
    """Return a version by name, or the active one.

    Raises
    ------
    NotFoundError
        If there is none of that name, or none is active.
    """
    if name is not None:
        return registry.version(app, name)
    active = registry.app(app).active
    if active is None:
        known = ", ".join(one.name for one in registry.versions(app)[:10])
        hint = f"name one: {known}" if known else f"mlguard deploy {app}"
        raise NotFoundError(f"no version of {app} is active", hint=hint, app=app)
    return active


def make_card(
    project: ProjectSettings,
    settings: AppSettings,
    registry: Registry,
    version: str | None,
    *,
    now: float,
) -> Card:
    """Return the card of a version; None: of the active one."""
    return build_card(
        settings,
        registry,
        version_of(registry, settings.name, version),
        project=project.project.name,
        environment=project.project.environment,
        now=now,
    )


def evidence_document(registry: Registry, app: str, version: str | None) -> dict[str, Any]:
    """Return all evidence about a version's digest, newest first, as one JSON document.

    It is the record itself: nothing in it is left out.
    """
    found = version_of(registry, app, version)
    evidence = [
        dataclasses.asdict(one) | {"at": rfc3339(one.at)}
        for one in registry.evidence(app, found.digest)
    ]
    return _document(
        app=app,
        version=found.name,
        digest=found.digest,
        manifest=found.manifest,
        evidence=evidence,
    )


def card_document(card: Card, files: tuple[str, ...]) -> dict[str, Any]:
    """Return the document that ``mlguard card --json`` prints."""
    return _document(
        app=card.app,
        version=card.version,
        digest=card.lineage.version_digest,
        changed=bool(files),
        files=list(files),
        card=card.to_json(),
    )


def _document(**values: Any) -> dict[str, Any]:
    head = {"schema_version": SCHEMA_VERSION, "command": "card", "ok": True}
    return {**head, "changed": False, "exit_code": 0, **values}
