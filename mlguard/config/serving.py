"""``[gate.serving]``: what answering may cost, and whether the server says what the model says."""

from __future__ import annotations

from pydantic import Field

from mlguard.config.policy import CheckPolicy, Family


class LatencyRule(CheckPolicy):
    """``[gate.serving.latency]``: how long one row takes what will serve, compiled or not."""

    p99_ms: float = Field(gt=0, description="Largest 99th percentile.")
    rows: int = Field(1000, ge=400, description="Rows that are asked one by one.")


class SizeRule(CheckPolicy):
    """``[gate.serving.size]``: how large the model's file is."""

    at_most_mib: float = Field(gt=0, description="Largest size of the file.")


class FeaturesRule(CheckPolicy):
    """``[gate.serving.features]``: how many inputs the model needs."""

    at_most: int = Field(ge=1, description="Largest number of inputs.")


class SkewRule(CheckPolicy):
    """``[gate.serving.skew]``: whether the server answers as the model does offline."""

    rows: int = Field(500, ge=1, description="Test rows that are sent to the server.")
    tolerance: float = Field(
        1e-6, ge=0, description="Difference of a regression's answers that is ignored."
    )


class ServingGate(Family):
    """``[gate.serving]``."""

    TABLES = frozenset({"latency", "size", "features", "skew"})

    latency: LatencyRule | None = Field(None, description="Absent: not judged.")
    size: SizeRule | None = Field(None, description="Absent: not judged.")
    features: FeaturesRule | None = Field(None, description="Absent: not judged.")
    skew: SkewRule | None = Field(None, description="Absent: not judged.")
