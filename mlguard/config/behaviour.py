"""``[gate.behaviour]``: how a model answers when its input is changed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from mlguard.config.policy import CheckPolicy, Family
from mlguard.config.values import Ratio, Text


class InvarianceRule(CheckPolicy):
    """``[gate.behaviour.invariance.<name>]``: a change that must not matter."""

    column: Text = Field(description="Column that is changed.")
    change: Literal["typo", "case", "space", "noise", "swap"] = Field(
        description="What is done to it: a typing slip, other capitals, stray blanks, a small "
        "shift of a number up or down, or another one of its `values`."
    )
    size: float = Field(
        0.01, gt=0, description="Size of the shift, in standard deviations of the column."
    )
    values: list[str] = Field(
        default_factory=list,
        description="Values that are swapped, each for the next. Default: all of the column's.",
    )
    tolerance: float = Field(
        0.0, ge=0, description="Change of a regression's answer that is ignored, in its unit."
    )
    at_most: float = Field(
        0.05, ge=0, lt=1, description="Largest share of the changed rows that may be answered anew."
    )


class DirectionalRule(CheckPolicy):
    """``[gate.behaviour.directional.<name>]``: a change whose direction is known."""

    column: Text = Field(description="Column of numbers that is changed.")
    add: float | None = Field(None, description="What is added to it.")
    multiply: float | None = Field(None, description="What it is multiplied by, instead.")
    expect: Literal["not_lower", "not_higher"] = Field(
        "not_lower", description="What the score, or a regression's answer, must not become."
    )
    of: str = Field(
        "", description="Class whose score is meant. Default: the second of two classes."
    )
    tolerance: float = Field(
        1e-9, ge=0, description="Move in the wrong direction that is ignored, in the score's unit."
    )
    at_most: float = Field(
        0.05, ge=0, lt=1, description="Largest share of rows that may move in the wrong direction."
    )

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if (self.add is None) == (self.multiply is None):
            raise ValueError("say how the column changes, in one way: add or multiply")
        if self.add == 0 or self.multiply == 1:
            raise ValueError("a change that changes nothing shows nothing")
        return self


class MinimumRule(CheckPolicy):
    """``[gate.behaviour.minimum_functionality.<name>]``: cases that must be answered right."""

    file: Text = Field(description="CSV or Parquet file of labelled cases.")
    at_least: Ratio = Field(1.0, description="Share of them that must be right.")
    tolerance: float = Field(
        0.0, ge=0, description="Error of a regression that still counts as right, in its unit."
    )


class FlipsRule(CheckPolicy):
    """``[gate.behaviour.flips]``: how many rows are answered otherwise than by the live version."""

    at_most: Ratio = Field(0.1, description="Largest share of rows that are answered otherwise.")
    tolerance: float = Field(
        0.0, ge=0, description="Difference of a regression's answers that is ignored, in its unit."
    )


class CalibrationRule(CheckPolicy):
    """``[gate.behaviour.calibration]``: whether scores are frequencies."""

    at_most: float = Field(0.1, gt=0, lt=1, description="Largest expected calibration error.")


class ReproducibilityRule(CheckPolicy):
    """``[gate.behaviour.reproducibility]``: the same input gets the same answer."""

    tolerance: float = Field(
        1e-6, ge=0, description="Difference of two scores, or of a regression's answers, ignored."
    )
    rows: int = Field(200, ge=1, description="Test rows that are asked again.")


class CoverageRule(CheckPolicy):
    """``[gate.behaviour.coverage]``: judged where ``[app] uncertainty`` is true."""

    tolerance: float = Field(
        0.05, gt=0, lt=0.5, description="How far below `[app] coverage` it may be found."
    )


class BehaviourGate(Family):
    """``[gate.behaviour]``."""

    TABLES = frozenset({"flips", "calibration", "reproducibility", "coverage"})
    NAMED = frozenset({"invariance", "directional", "minimum_functionality"})

    invariance: dict[str, InvarianceRule] = Field(
        default_factory=dict, description="Changes that must not matter, by name."
    )
    directional: dict[str, DirectionalRule] = Field(
        default_factory=dict, description="Changes whose direction is known, by name."
    )
    minimum_functionality: dict[str, MinimumRule] = Field(
        default_factory=dict, description="Cases that must be answered right, by name."
    )
    flips: FlipsRule | None = Field(None, description="Absent: not judged.")
    calibration: CalibrationRule | None = Field(None, description="Absent: not judged.")
    reproducibility: ReproducibilityRule | None = Field(None, description="Absent: not judged.")
    coverage: CoverageRule = CoverageRule()
