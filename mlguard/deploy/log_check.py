"""``mlguard log check``: what of the stored prediction log looks like personal data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlguard.checks.logged import logged_data
from mlguard.config import AppSettings, ProjectSettings
from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.results import Finding, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChecked:
    """What ``log check`` found.

    Attributes
    ----------
    app : str
        Whose log.
    finding : Finding
        As ``privacy.log`` of the gate has it.
    """

    app: str
    finding: Finding

    @property
    def exit_code(self) -> int:
        """1 where the log holds what looks personal, whether or not more of it is written."""
        return int(self.finding.verdict in (Verdict.FAILED, Verdict.WARNED))

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        found = self.finding.to_json()
        return {
            "schema_version": SCHEMA_VERSION,
            "command": "log check",
            "ok": not self.exit_code,
            "changed": False,
            "exit_code": self.exit_code,
            "app": self.app,
            "rows": self.finding.n,
            "verdict": self.finding.verdict.value,
            "summary": self.finding.summary,
            "columns": self.finding.details.get("columns", []),
            "written": self.finding.details.get("written", []),
            "measurements": found["measurements"],
            "next_step": self.finding.next_step,
        }


def check_log(project: ProjectSettings, settings: AppSettings) -> LogChecked:
    """Look for personal data in what an app's log has stored; change nothing.

    Raises
    ------
    DataError
        If a closed segment is damaged.
    """
    return LogChecked(app=settings.name, finding=logged_data(project, settings))
