"""Would the version that could be gone back to still work?  Asked daily, and by a dry run.

A rollback target that nobody has loaded for weeks is a hope.  So its bytes are read again and
their digest is checked, and it is loaded in a child process and asked the first rows of the test
data, twice.  What it cannot do today it could not do at 3 a.m. either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlguard.config import AppSettings, ProjectSettings
from mlguard.errors import (
    IntegrityError,
    ModelFileError,
    ModelRunError,
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
    project: ProjectSettings, settings: AppSettings, registry: Registry, version: Version
) -> Rehearsed:
    """Read, load and ask a version as a rollback to it would; nothing is changed.

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
    try:
        report = run_in_child(
            "mlguard.deploy.standby:ask",
            {
                "root": str(project.root),
                "app": settings.name,
                "manifest": version.manifest,
                "model_path": str(path),
            },
            memory_mib=settings.model.memory_mib,
            wall_s=60 + settings.model.wall_limit_s,
        )
    except _ITS_FAULT as error:
        return Rehearsed(version.name, False, error.message)
    if not report["ok"]:
        return Rehearsed(version.name, False, report["reason"])
    return Rehearsed(
        version.name,
        True,
        f"intact, loaded in {report['load_s']:.1f} s, {len(report['labels'])} rows answered "
        "the same twice",
    )


def ask(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Load a version and ask it the first rows of the test data; runs in the child process."""
    from mlguard.config import load_app, load_project
    from mlguard.data.frames import read_frame
    from mlguard.models.isolation import plain_rows
    from mlguard.models.trial import smoke

    settings = load_app(load_project(payload["root"]), payload["app"])
    frame = read_frame(
        settings.path(settings.data.test), missing_values=settings.data.missing_values
    )
    names = [one["name"] for one in payload["manifest"]["input_schema"]["features"]]
    rows = plain_rows(frame.head(GOLDEN_ROWS), names)
    return smoke(
        {"manifest": payload["manifest"], "model_path": payload["model_path"], "rows": rows}
    )
