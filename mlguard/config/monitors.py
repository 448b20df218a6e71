"""``[monitor.<name>]``: what is watched in production, and how far each may go."""

from __future__ import annotations

import importlib.util
from typing import Literal, Self, TypeAlias, get_args

from pydantic import Field, model_validator

from mlguard.config.metrics import HIGHER_IS_BETTER, GroupMetric
from mlguard.config.values import Duration, Ratio, Table

ActionName = Literal["alert", "freeze", "rollback", "default_output"]


class MonitorTable(Table):
    """What every ``[monitor.<name>]`` has."""

    enabled: bool = Field(True, description="Whether this monitor judges live traffic.")
    action: ActionName = Field("alert", description="The highest level this monitor may reach.")
    window: Duration = Field(
        3600, gt=0, description="A window closes after this long, if not before."
    )
    window_rows: int = Field(500, ge=20, description="A window closes after this many rows.")
    confidence_level: float = Field(0.95, gt=0, lt=1, description="Of each stated interval.")
    freeze_after: int = Field(2, ge=1, description="FAILED windows in a row before a freeze.")
    clear_after: int = Field(3, ge=1, description="PASSED windows in a row that clear an incident.")


class WindowedMonitor(MonitorTable):
    """What a monitor has whose windows climb the ladder of failures in a row."""

    alert_after: int = Field(1, ge=1, description="FAILED windows in a row before an alert.")
    rollback_after: int = Field(3, ge=1, description="FAILED windows in a row before a rollback.")


class DataDriftMonitor(WindowedMonitor):
    """``[monitor.data_drift]``."""

    family_error: float = Field(0.05, gt=0, lt=1, description="Error rate over all features.")
    ks: Ratio = Field(0.1, description="Largest Kolmogorov-Smirnov distance of a number.")
    psi: float = Field(0.2, gt=0, description="Largest population stability index of a category.")
    missing: Ratio = Field(0.05, description="Largest rise of the missing or unseen share.")


class PredictionDriftMonitor(WindowedMonitor):
    """``[monitor.prediction_drift]``."""

    family_error: float = Field(0.05, gt=0, lt=1, description="Error rate over all comparisons.")
    ks: Ratio = Field(0.1, description="Largest Kolmogorov-Smirnov distance of scores or values.")
    psi: float = Field(0.2, gt=0, description="Largest population stability index of the classes.")


class LabelDriftMonitor(PredictionDriftMonitor):
    """``[monitor.label_drift]``."""


DetectorName = Literal["e-detector", "ADWIN", "PageHinkley", "DDM", "HDDM_A", "HDDM_W", "KSWIN"]

#: Detectors that river brings.
RIVER_DETECTORS = tuple(one for one in get_args(DetectorName) if one != "e-detector")


class ConceptDriftMonitor(MonitorTable):
    """``[monitor.concept_drift]``."""

    action: ActionName = Field(
        "rollback",
        description="The highest level this monitor may reach; with a detector of river's, which "
        "promises nothing about false alarms, `freeze` where nothing is written.",
    )
    detector: DetectorName = Field(
        "e-detector",
        description="What looks at the losses. All but the e-detector are river's: "
        '`pip install "mlguard[river]"`.',
    )
    tolerance: float = Field(0.02, ge=0, description="Rise of the loss that is ignored.")
    average_run_length: float = Field(
        100_000,
        ge=100,
        description="Labels to a false alarm, on average, at least; shared with the alarms of "
        "`[monitor.fairness]`.",
    )
    block: int = Field(1, ge=1, description="Labels averaged into one look, where errors run.")
    relearn: bool = Field(
        False, description="Whether a lasting improvement lowers the loss that is acceptable."
    )

    @property
    def alert_after(self) -> int:
        """An alarm acts at once."""
        return 1

    @property
    def rollback_after(self) -> int:
        """An alarm acts at once."""
        return 1

    @model_validator(mode="before")
    @classmethod
    def _milder_without_a_promise(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("detector", "e-detector") in RIVER_DETECTORS:
            return {"action": "freeze", **given}
        return given

    @model_validator(mode="after")
    def _detector(self) -> Self:
        if self.detector == "e-detector":
            return self
        if importlib.util.find_spec("river") is None:
            raise ValueError(
                f'detector = "{self.detector}" is river\'s, and river is not installed: '
                'pip install "mlguard[river]", or use "e-detector"'
            )
        if self.block > 1 or self.relearn:
            raise ValueError(f"block and relearn are the e-detector's, not {self.detector}'s")
        return self


class FairnessMonitor(WindowedMonitor):
    """``[monitor.fairness]``."""

    action: ActionName = "rollback"
    family_error: float = Field(0.05, gt=0, lt=1, description="Error rate over all groups.")
    metric: GroupMetric = Field("accuracy", description="What is compared between groups.")
    at_most: float = Field(0.1, gt=0, le=1, description="Largest difference between two groups.")
    by: list[str] = Field(default_factory=list, description="Default: all of `sensitive`.")
    min_group_size: int = Field(30, ge=1, description="Rows a group's denominator needs.")
    tolerance: float = Field(
        0.02, ge=0, description="Rise of a group's own loss that raises no alarm."
    )
    block: int = Field(
        1, ge=1, description="Labels of a group averaged into one look, where errors run."
    )
    floor: float | None = Field(
        None, gt=0, le=1, description="Lowest `metric` of any group. Default: not judged."
    )
    harm_class: bool = Field(
        False,
        description="Whether a group below the `floor` is harm: rather the default output than a "
        "version that is known for it, where none can be gone back to.",
    )

    @model_validator(mode="after")
    def _floor(self) -> Self:
        if self.harm_class and self.floor is None:
            raise ValueError("harm_class says what a group below the floor means: give a floor")
        if self.floor is not None and self.metric not in HIGHER_IS_BETTER:
            raise ValueError(
                f"{self.metric} has no floor; those that have: {', '.join(HIGHER_IS_BETTER)}"
            )
        return self


class EstimatedPerformanceMonitor(WindowedMonitor):
    """``[monitor.estimated_performance]``."""

    action: Literal["alert", "freeze"] = Field(
        "freeze",
        description="The highest level this monitor may reach. An estimate never moves traffic.",
    )
    metric: Literal["accuracy", "f1", "auc"] = Field(
        "accuracy", description="What is estimated from the scores, without labels."
    )
    tolerance: float = Field(
        0.02, ge=0, lt=1, description="Fall below the figure on the test data that is ignored."
    )


class RequestsMonitor(WindowedMonitor):
    """``[monitor.requests]``."""

    unusual: Ratio = Field(
        0.05,
        description="Largest share of rows with a value unlike the reference's: outside its "
        "range, a category it never had, or missing where it never was. What chance alone "
        "brings is added.",
    )
    refused: Ratio = Field(
        0.1, description="Largest share of requests that are refused as malformed (4xx)."
    )


class ServiceMonitor(WindowedMonitor):
    """``[monitor.service]``."""

    action: ActionName = "rollback"
    model_errors: Ratio = Field(
        0.01, description="Largest share of valid rows on which the model raised or gave nonsense."
    )
    default_ratio: Ratio = Field(0.1, description="Largest share of default answers.")
    crashes: int = Field(
        3,
        ge=1,
        description="Deaths of the version's processes within five minutes, on all servers "
        "together, that are a failure. One that is ended at its wall, processor or memory limit "
        "counts.",
    )


#: A table that results are acted on by: it says how many failures in a row ask for what.
LadderTable: TypeAlias = WindowedMonitor | ConceptDriftMonitor


class MonitorTables(Table):
    """``[monitor]``."""

    data_drift: DataDriftMonitor = DataDriftMonitor()
    prediction_drift: PredictionDriftMonitor = PredictionDriftMonitor()
    label_drift: LabelDriftMonitor = LabelDriftMonitor()
    estimated_performance: EstimatedPerformanceMonitor = EstimatedPerformanceMonitor()
    requests: RequestsMonitor = RequestsMonitor()
    concept_drift: ConceptDriftMonitor = ConceptDriftMonitor()
    fairness: FairnessMonitor = FairnessMonitor()
    service: ServiceMonitor = ServiceMonitor()
