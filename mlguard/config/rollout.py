"""What happens after the gate: steps, automatic moves, approval, labels, log and report."""

from __future__ import annotations

import itertools
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from mlguard.config.values import Duration, Ratio, Table

#: What a step of a rollout can be compared by.
Compared = Literal["failures", "loss"]


class RolloutTable(Table):
    """``[rollout]``."""

    steps: list[Literal["shadow"] | float] = Field(
        default_factory=list,
        description='What a new version goes through before it answers everybody: `"shadow"` '
        "(it sees every request, its answers are discarded), then shares of the callers in "
        'rising order, e.g. `["shadow", 0.05, 0.25]`. Default: none, a straight switch.',
    )
    step_min_time: Duration = Field(600, ge=0, description="Shortest time of a step.")
    step_deadline: Duration = Field(
        6 * 3600, gt=0, description="A step that is undecided for so long ends the rollout."
    )
    step_min_rows: int = Field(
        100, ge=20, description="Rows that each comparison of a step needs, of each version."
    )
    margin: Ratio = Field(
        0.02, description="By how much the new version's loss may exceed the live one's."
    )
    alpha: float = Field(
        0.01, gt=0, lt=1, description="Chance that a rollout of an equal version is called worse."
    )
    compare: list[Compared] = Field(
        default_factory=lambda: list(get_args(Compared)),
        min_length=1,
        description="What must be decided before a step passes: `failures` (default answers), "
        "`loss` (needs labels). One that is not named may still fail the step.",
    )
    bake: Duration = Field(600, ge=0, description="How long a new version is watched.")
    max_bake: Duration = Field(
        7 * 86400, gt=0, description="A version that is unconfirmed for so long is mailed about."
    )
    reverse_shadow: Ratio = Field(
        0.1, description="Share of the requests that the predecessor sees while it may be needed."
    )
    bake_min_rows: int = Field(0, ge=0, description="Rows it must answer before it is confirmed.")
    evidence_max_age: Duration = Field(
        30 * 86400, gt=0, description="Age after which evidence no longer opens the gate."
    )
    load_timeout: Duration = Field(
        60, gt=0, description="How long a server may take to load a version."
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if "shadow" in self.steps[1:]:
            raise ValueError('steps: "shadow" comes first, and once')
        weights = [one for one in self.steps if one != "shadow"]
        if any(not 0 < float(one) < 1 for one in weights):
            raise ValueError("steps: a share lies between 0 and 1; the switch itself is no step")
        if any(later <= earlier for earlier, later in itertools.pairwise(map(float, weights))):
            raise ValueError("steps: the shares rise from step to step")
        if self.step_deadline <= self.step_min_time:
            raise ValueError("step_deadline is longer than step_min_time")
        return self


class AutoTable(Table):
    """``[auto]``: what may happen without a human."""

    rollback: bool = Field(True, description="Whether a monitor may roll back at all.")
    on_no_target: Literal["freeze", "default_output"] = Field(
        "freeze", description="What happens where there is nothing to go back to."
    )
    on_data_break: Literal["freeze", "default_output"] = Field(
        "freeze", description="What happens where the old version would do no better."
    )
    grace: Duration = Field(600, ge=0, description="No action this long after a switch.")
    cooldown: Duration = Field(1800, ge=0, description="Pause after an automatic move; it doubles.")
    cooldown_max: Duration = Field(86400, ge=0, description="Longest pause.")
    budget: int = Field(2, ge=0, description="Automatic moves in a budget_window.")
    budget_window: Duration = Field(86400, gt=0, description="Time in which they count.")
    qualify: bool = Field(True, description="Replay the failing window through the target first.")
    targets_tried: int = Field(3, ge=1, description="Targets looked at before giving up.")
    keep_warm: int = Field(
        1, ge=1, description="Versions to go back to that every server keeps loaded."
    )
    rehearse: Literal["daily", "never"] = Field(
        "daily", description="How often the version to go back to is loaded and asked, as a test."
    )


class ApproveTable(Table):
    """``[approve]``: who lets a version through."""

    required: bool = Field(
        False, description="Whether every version that the gate allows waits for `approve`."
    )
    not_by_registrar: bool = Field(
        True, description="Where approval is required: not by who registered the version."
    )


class LabelsTable(Table):
    """``[labels]``."""

    delay: Duration = Field(7 * 86400, ge=0, description="How late a label may be.")
    min_coverage: Ratio = Field(0.5, description="Share of due labels a verdict needs.")
    max_source_share: Ratio = Field(
        0.25,
        description="Largest share of a window's labels that one source may have sent, where at "
        "least 5 sources are usual; beyond it `concept_drift`, `label_drift` and `fairness` are "
        "undecided.",
    )
    trusted_sources: list[str] = Field(
        default_factory=list,
        description="Names of the keys whose labels are judged by; those of others are kept and "
        "move nothing. Default: all.",
    )


class LogTable(Table):
    """``[log]``: what the prediction log keeps."""

    inputs: Literal["all", "sample", "none"] = Field(
        "all",
        description="Of which rows the inputs are kept; of the others everything else is.",
    )
    sample_rate: float = Field(
        0.1,
        gt=0,
        le=1,
        description='Share of the rows whose inputs are kept where `inputs = "sample"`, drawn by '
        "their query id.",
    )
    retention: Duration = Field(30 * 86400, gt=0, description="How long rows are kept.")
    redact: list[str] = Field(default_factory=list, description="Columns that are never written.")


class ReportTable(Table):
    """``[report]``."""

    schedule: Literal["weekly", "daily", "none"] = Field(
        "weekly", description="How often the drift report is mailed."
    )
