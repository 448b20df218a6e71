"""Taking a rise apart that could not be taken apart when an incident was opened.

An alarm must not keep a rollback waiting, so what needs time is done afterwards, beside the
watching: labels that were not there yet may have come, and where a version has answered nothing
before it failed (a deploy that was wrong from its first row) its answers on ``[data] test`` stand
in for earlier rows.  They are what it was accepted with, and not what callers sent before: the
explanation says which of the two it rests on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlguard.config import AppSettings, ProjectSettings
from mlguard.deploy.explaining import LEAST, Source, explain_alarm, judged_rows
from mlguard.deploy.incident_rows import read_rows
from mlguard.deploy.judging import Judging
from mlguard.errors import MlguardError
from mlguard.monitors.window import WindowData

if TYPE_CHECKING:
    from mlguard.registry import Incident, Registry

#: An incident is looked at again after so long, in seconds, while it is so young.
_AGAIN_S, _YOUNG_S = 60.0, 86_400.0


@dataclass(slots=True)
class LaterExplanations:
    """Explains incidents that are not explained yet.

    Attributes
    ----------
    project, registry
        Where rows and facts are.
    """

    project: ProjectSettings
    registry: Registry
    _tried: dict[int, float] = field(default_factory=dict)

    def __call__(self, settings: AppSettings, now: float) -> str | None:
        """Explain what can be explained of one app's incidents; say what was.

        Parameters
        ----------
        settings : AppSettings
            The app's.
        now : float
            Seconds since the epoch.
        """
        for one in self.registry.incidents(settings.name):
            explanation = one.facts.get("explanation")
            if not explanation or explanation["loss"] is not None:
                continue
            young = 0 <= now - one.opened_at < _YOUNG_S
            if young and not 0 <= now - self._tried.get(one.id, -_AGAIN_S) < _AGAIN_S:
                self._tried[one.id] = now
                said = self._explain(settings, one)
                if said is not None:
                    return f"incident {one.id}: {said}"
        return None

    def _explain(self, settings: AppSettings, incident: Incident) -> str | None:
        assert incident.version_id is not None
        try:
            found = read_rows(self.project, settings, self.registry, incident)
        except MlguardError:
            return None  # its rows are gone
        version = self.registry.version_by_id(incident.version_id)
        reference = self.registry.reference(settings.name, version.digest) or {}

        def enough(rows: WindowData | None) -> bool:
            judged = judged_rows(rows, settings, reference)
            return judged is not None and len(judged.loss) >= LEAST

        if not enough(found.after):
            return None
        before = found.before
        source: Source = "earlier"
        if not enough(before):
            # Imported here: what reads files for a model is more than a watcher needs to watch.
            from mlguard.deploy.backtest_rows import answered

            manifest = version.manifest
            before = answered(
                self.project,
                settings,
                settings.path(settings.data.test),
                model=self.registry.artifacts.get(manifest["model_sha256"]),
                name=version.name,
                manifest=manifest,
            ).rows
            source = "test"
        document = explain_alarm(
            settings,
            reference,
            Judging(settings).build("data_drift", reference),
            before=before,
            after=found.after,
            since=incident.facts["explanation"]["since"],
            compared_with=source,
        )
        if document["loss"] is None:
            return None
        said = " ".join(document["said"])
        self.registry.update_incident(
            incident.id, facts={"explanation": document, "explained": said}
        )
        return said
