"""``app.toml`` as a whole, with the rules between its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from mlguard.config.app import AppTable, DataTable, ModelTable
from mlguard.config.gate import GateTables
from mlguard.config.monitors import MonitorTables
from mlguard.config.nearest import nearest
from mlguard.config.rollout import (
    ApproveTable,
    AutoTable,
    LabelsTable,
    LogTable,
    ReportTable,
    RolloutTable,
)
from mlguard.config.values import Table


class AppSettings(Table):
    """The whole of one ``app.toml``, with its name and its folder."""

    app: AppTable
    data: DataTable
    model: ModelTable = ModelTable()
    gate: GateTables = GateTables()
    monitor: MonitorTables = MonitorTables()
    rollout: RolloutTable = RolloutTable()
    auto: AutoTable = AutoTable()
    approve: ApproveTable = ApproveTable()
    labels: LabelsTable = LabelsTable()
    log: LogTable = LogTable()
    report: ReportTable = ReportTable()
    name: str = Field("", exclude=True)
    folder: Path = Field(Path(), exclude=True)

    @model_validator(mode="after")
    def _groups_that_decide(self) -> Self:
        if self.app.groups_affect_decisions and not self.app.keys:
            raise ValueError(
                "[app] groups_affect_decisions is for callers that are known: name their keys in "
                "[app] keys"
            )
        attribute = self.model.threshold_attribute
        if not attribute:
            return self
        if not self.app.groups_affect_decisions:
            raise ValueError(
                f"[model.thresholds] has thresholds by {attribute}, which are in force only with "
                "[app] groups_affect_decisions = true"
            )
        if attribute not in self.data.sensitive:
            declared = ", ".join(self.data.sensitive) or "none"
            raise ValueError(
                f"[model.thresholds] has thresholds by {attribute}, which is not in [data] "
                f"sensitive; declared: {declared}" + nearest(attribute, self.data.sensitive)
            )
        if self.app.task != "classification":
            raise ValueError(
                f"[model.thresholds] has thresholds by {attribute}; a regression has none"
            )
        return self

    def path(self, text: str) -> str:
        """Return a path of app.toml made absolute; a URL stays as it is."""
        return text if "://" in text else str((self.folder / text).resolve())
