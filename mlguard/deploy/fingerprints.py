"""On what grounds a gate decided: digests of its data and of its policy.

Evidence is reused where model, data, policy and code are the same as before.  The live version
is part of the policy: a candidate is compared with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mlguard.config import AppSettings, ProjectSettings
from mlguard.data.frames import file_digest
from mlguard.results import Verdict
from mlguard.version import VERSION

if TYPE_CHECKING:
    from mlguard.registry import Evidence


@dataclass(frozen=True, slots=True)
class Grounds:
    """On what a gate decides about given bytes.

    Attributes
    ----------
    policy, data : str
        Digests of what it judges by, and on.
    code : str
        The version of mlguard that judges.
    """

    policy: str
    data: str
    code: str

    @classmethod
    def of(
        cls,
        project: ProjectSettings,
        settings: AppSettings,
        active_digest: str,
        *,
        code: str = VERSION,
    ) -> Self:
        """Return the grounds on which a gate would decide now."""
        return cls(policy_digest(project, settings, active_digest), data_digest(settings), code)

    def reusable(self, evidence: Iterable[Evidence], *, oldest: float) -> Evidence | None:
        """Return what was found about the same bytes on the same grounds, and not too long ago.

        Parameters
        ----------
        evidence : iterable of Evidence
            All about the bytes, newest first.
        oldest : float
            Seconds since the epoch.
        """
        for one in evidence:
            same = (one.policy_digest, one.data_digest, one.code_version) == (
                self.policy,
                self.data,
                self.code,
            )
            # A check that raised may not raise again; everything else would be the same.
            if same and one.at >= oldest and one.verdict != Verdict.ERRORED:
                return one
        return None


def data_digest(settings: AppSettings) -> str:
    """Return one SHA-256 over all data that an app is trained, calibrated and judged on."""
    total = hashlib.sha256()
    data = settings.data
    cases = [one.file for one in settings.gate.behaviour.minimum_functionality.values()]
    for text in (data.train, data.test):
        total.update(file_digest(settings.path(text)).encode() if text else b"none")
    for text in (data.dev, data.calibration, *cases):
        if text:
            total.update(f"{text}={file_digest(settings.path(text))}".encode())
    return total.hexdigest()


def policy_digest(project: ProjectSettings, settings: AppSettings, active_digest: str) -> str:
    """Return one SHA-256 over all that a gate judges by.

    Parameters
    ----------
    project, settings : ProjectSettings, AppSettings
        The app's declared checks and everything under ``checks/<app>/``.
    active_digest : str
        Digest of the live version; empty where there is none.
    """
    total = hashlib.sha256()
    judged_by = settings.model_dump_json(include={"app", "data", "model", "gate"}, by_alias=True)
    total.update(judged_by.encode())
    # The tables of single checks are no part of a family's own document.
    for name in type(settings.gate).model_fields:
        family = getattr(settings.gate, name)
        for check, policy in sorted(family.checks.items()):
            total.update(f"{name}.{check}={policy.model_dump_json()}".encode())
    total.update(active_digest.encode())
    for file in _judging_files(project, settings):
        total.update(str(file.relative_to(project.root)).encode())
        total.update(file.read_bytes())
    return total.hexdigest()


def _judging_files(project: ProjectSettings, settings: AppSettings) -> list[Path]:
    """Return what judges the app: its own checks, what all apps share, suites elsewhere."""
    checks = project.root / "checks"
    suites = project.root.glob(settings.gate.data_quality.suite.format(app=settings.name))
    return sorted({*_files(checks / settings.name), *checks.glob("*.py"), *suites})


def _files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"
    )
