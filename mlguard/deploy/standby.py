"""Would the version that could be gone back to still work?  Asked daily, and before going there.

A rollback target that nobody has loaded for weeks is a hope.  So its bytes are read again and
their digest is checked, and it is loaded in a child process and asked the first rows of the test
data, twice.  What it cannot do today it could not do at 3 a.m. either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard.config import AppSettings, ProjectSettings
from mlguard.errors import (
    IntegrityError,
    MlguardError,
    ModelFileError,
    ModelRunError,
    RefusedError,
    UntrustedModelError,
)

if TYPE_CHECKING:
    from mlguard.registry import Registry, Version

#: What a version may raise; anything else (test data that is gone) says nothing of it.
_ITS_FAULT = (IntegrityError, ModelFileError, ModelRunError, UntrustedModelError)
#: Rows that it is asked.
GOLDEN_ROWS = 20
#: Seconds between two rehearsals.
DAILY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of a rehearsal.

    Attributes
    ----------
    version : str
        Which version.
    ok : bool
        Whether it could serve at once.
    reason : str
        One sentence.
    """

    version: str
    ok: bool
    reason: str


def rehearse(
    project: ProjectSettings,
    settings: AppSettings,
    registry: Registry,
    version: Version,
    *,
    rows_needed: bool = True,
    stands_by: Callable[[], bool] | None = None,
) -> Rehearsed:
    """Read, load and ask a version as a rollback to it would; nothing is changed.

    Parameters
    ----------
    project, settings, registry
        Where it is.
    version : Version
        Which one.
    rows_needed : bool
        Whether it is an error if the test data cannot be read; else loading must do then.
    stands_by : callable, optional
        Whether somebody holds the version loaded and it answers: then it is not loaded again.

    Raises
    ------
    MlguardError
        If the registry, the artifact store or the test data cannot be read; nothing is known then.
    """
    from mlguard.models.bundle import serving_sha256
    from mlguard.models.isolation import run_in_child

    try:
        path = registry.artifacts.get(serving_sha256(version.manifest))
    except IntegrityError as error:
        return Rehearsed(version.name, False, error.message)
    if stands_by is not None and stands_by():
        return Rehearsed(version.name, True, "intact, loaded, and a row answered the same twice")
    try:
        report = run_in_child(
            "mlguard.deploy.standby:ask",
            {
                "root": str(project.root),
                "app": settings.name,
                "manifest": version.manifest,
                "model_path": str(path),
                "rows_needed": rows_needed,
            },
            memory_mib=settings.model.memory_mib,
            wall_s=60 + settings.model.wall_limit_s,
        )
    except _ITS_FAULT as error:
        return Rehearsed(version.name, False, error.message)
    if not report["ok"]:
        return Rehearsed(version.name, False, report["reason"])
    asked = (
        f"{len(report['labels'])} rows answered the same twice"
        if report["labels"]
        else "not asked anything, for the test data cannot be read"
    )
    return Rehearsed(version.name, True, f"intact, loaded in {report['load_s']:.1f} s, {asked}")


def refuse_unfit(
    project: ProjectSettings,
    settings: AppSettings,
    registry: Registry,
    version: Version,
    *,
    force: bool = False,
    stands_by: Callable[[], bool] | None = None,
) -> Rehearsed:
    """Say that a version can be gone back to, as far as can be known before.

    Its bytes, loading it and its answers are looked at, always.  Whether it would help is known
    where a monitor has asked: an open incident of the version that serves tells which versions
    were played the failing window and did no better.

    Parameters
    ----------
    project, settings, registry
        Where it is.
    version : Version
        Which one.
    force : bool
        Go there although a monitor found that it would not help.
    stands_by : callable, optional
        See :func:`rehearse`.

    Raises
    ------
    RefusedError
        If it cannot serve, or would not help.
    MlguardError
        If the registry or the artifact store cannot be read.
    """
    app = settings.name
    tried = rehearse(project, settings, registry, version, rows_needed=False, stands_by=stands_by)
    if not tried.ok:
        raise RefusedError(
            f"{version.name} cannot serve: {tried.reason}",
            hint=f"name another version: mlguard rollback {app} --to VERSION --reason …; or "
            "answer the default output: --to-default",
            app=app,
            clause="unfit",
        )
    active = registry.app(app).active
    for incident in () if force else registry.incidents(app, open_only=True):
        for trial in incident.facts.get("trials", ()):
            same = active is not None and incident.version_id == active.id
            if same and trial["version"] == version.name and trial["outcome"] == "unhelpful":
                raise RefusedError(
                    f"{version.name} would not help: {trial['reason']}",
                    hint="go there all the same with --force; or answer the default output: "
                    f"mlguard rollback {app} --to-default --reason …",
                    app=app,
                    incident=incident.id,
                    clause="unhelpful",
                )
    return tried


def ask(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Load a version and ask it the first rows of the test data; runs in the child process."""
    from mlguard.config import load_app, load_project
    from mlguard.data.frames import read_frame
    from mlguard.models.bundle import Manifest
    from mlguard.models.isolation import plain_rows
    from mlguard.models.predictor import load_predictor
    from mlguard.models.trial import smoke

    settings = load_app(load_project(payload["root"]), payload["app"])
    try:
        frame = read_frame(
            settings.path(settings.data.test), missing_values=settings.data.missing_values
        )
    except MlguardError:
        if payload["rows_needed"]:
            raise
        started = time.perf_counter()
        load_predictor(Manifest.from_json(payload["manifest"]), payload["model_path"])
        return {"ok": True, "load_s": time.perf_counter() - started, "labels": []}
    names = [one["name"] for one in payload["manifest"]["input_schema"]["features"]]
    rows = plain_rows(frame.head(GOLDEN_ROWS), names)
    return smoke(
        {"manifest": payload["manifest"], "model_path": payload["model_path"], "rows": rows}
    )
