"""``[gate.fairness]``: metrics, groups and limits, and the delayed impact of decisions."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from mlguard.config.metrics import UNIT_METRICS, Aggregate, FairnessMetric, has_aggregate
from mlguard.config.policy import CheckPolicy, Family
from mlguard.config.values import OneOrMany, Ratio


class DelayedImpactGate(CheckPolicy):
    """``[gate.fairness.delayed_impact]``: what a yes does, later, to the people it is about."""

    success: float = Field(
        gt=0, description="Change of a person's score who is answered yes and succeeds, c₊."
    )
    failure: float = Field(
        lt=0, description="Change of a person's score who is answered yes and fails, c₋."
    )
    at_least: float = Field(
        0.0, description="Least mean change of any group's score, those answered no included."
    )
    margin: float = Field(
        0.0,
        ge=0,
        description="How far below `at_least` a mean must lie for the data to have to show it. "
        "0: what is not proven is undecided.",
    )
    score: str = Field(
        "", description="Column of the score that changes. Default: only the changes are counted."
    )
    low: float | None = Field(
        None, description="Lower end of the score's scale. Default: it has none."
    )
    high: float | None = Field(
        None, description="Upper end of the score's scale. Default: it has none."
    )
    probability: str = Field(
        "",
        description="Column with the probability of success. Default: estimated from `score`, "
        "in each group.",
    )
    utility_success: float = Field(
        1.0, gt=0, description="Worth of a yes that succeeds, to whoever decides, u₊."
    )
    utility_failure: float = Field(
        -1.0, lt=0, description="Worth of a yes that fails, to whoever decides, u₋."
    )

    @model_validator(mode="after")
    def _scale(self) -> Self:
        wanting = [
            key for key in ("low", "high", "probability") if getattr(self, key) not in ("", None)
        ]
        if wanting and not self.score:
            raise ValueError(
                f"{wanting[0]} says something about a score: name its column in `score`"
            )
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must lie below high")
        return self


class FairnessGate(Family):
    """``[gate.fairness]``."""

    TABLES = frozenset({"delayed_impact"})
    CHECKS = frozenset(
        {
            f"{metric}_{aggregate}"
            for metric in get_args(FairnessMetric)
            for aggregate in get_args(Aggregate)
            if has_aggregate(metric, aggregate)
        }
        | {"representation", "label_base_rate_difference", "missing_rate_difference"}
    )

    metrics: list[FairnessMetric] = Field(
        ["false_positive_rate", "false_negative_rate"],
        description="What must be alike between groups, by fairlearn's names.",
    )
    aggregate: Aggregate = Field(
        "difference",
        description="How groups are compared: by difference or ratio, or the lowest or highest "
        "group alone with the limit.",
    )
    method: Literal["between_groups", "to_overall"] = Field(
        "between_groups", description="Whom a group is compared with: each other, or everybody."
    )
    at_most: float = Field(
        0.1,
        gt=0,
        description="Largest difference, or highest figure of a group; a ratio, or for errors "
        "of a regression in the unit of the target.",
    )
    at_least: float = Field(
        0.8, gt=0, le=1, description="Smallest ratio, or lowest figure of a group."
    )
    by: list[str | list[str]] = Field(
        default_factory=list,
        description='Attributes to group by; a list in it is an intersection: `["sex", ["sex", '
        '"race"]]`. Default: all of `sensitive`.',
    )
    control: OneOrMany = Field(
        default_factory=list,
        description="Columns within whose values groups are compared, e.g. a job's grade.",
    )
    weight: str = Field("", description="Column with how much each row counts; empty: all alike.")
    min_group_size: int = Field(
        30, ge=1, description="Rows a denominator needs before it says anything."
    )
    optional_groups: list[str] = Field(
        default_factory=list, description='Groups that may be undecided, as "column=value".'
    )
    required_groups: list[str] = Field(
        default_factory=list,
        description='Groups of an intersection that must be decided, as "sex=F,race=B"; its '
        "others are only listed. With `control`, groups that must be decided at each value.",
    )
    population: dict[str, Ratio] = Field(
        default_factory=dict,
        description='Stated share of groups among the people it is for, as "sex=F" = 0.51. '
        "Where given, the data's shares are held against it.",
    )
    representation_at_most: float = Field(
        0.05, gt=0, lt=1, description="Largest distance of a group's share from the stated one."
    )
    base_rate_at_most: float | None = Field(
        None,
        gt=0,
        description="Largest difference of the label's rate (of a regression: mean) between "
        "groups. Default: not judged.",
    )
    missing_at_most: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Largest difference of a feature's missing share between groups. "
        "Default: not judged.",
    )

    delayed_impact: DelayedImpactGate | None = Field(
        None, description="What an answer does to people later; absent: not judged."
    )

    @property
    def columns(self) -> list[str]:
        """Every attribute that `by` names, alone or in an intersection, once."""
        named = [[one] if isinstance(one, str) else one for one in self.by]
        return list(dict.fromkeys(column for one in named for column in one))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for metric in self.metrics:
            if not has_aggregate(metric, self.aggregate):
                raise ValueError(f'{metric} has no aggregate = "{self.aggregate}"')
            limited = self.aggregate in ("difference", "group_max")
            if limited and self.at_most > 1 and metric not in UNIT_METRICS:
                raise ValueError(f"at_most = {self.at_most:g}, and {metric} is at most 1")
        if any(not one or len(set(one)) < len(one) for one in self.by if isinstance(one, list)):
            raise ValueError("an intersection in `by` names its columns, each once")
        for key, groups in (
            ("optional_groups", self.optional_groups),
            ("required_groups", self.required_groups),
            ("population", self.population),
        ):
            for group in groups:
                if "=" not in group:
                    raise ValueError(f'{key} holds {group!r}; write it as "column=value"')
        stated: dict[str, float] = {}
        for group, share in self.population.items():
            column = group.partition("=")[0].strip()
            stated[column] = stated.get(column, 0.0) + share
        # Shares are written with two or three digits, so their sum is about 1 at best.
        if any(total > 1.01 for total in stated.values()):
            raise ValueError("the shares of population add up to more than 1 for an attribute")
        return self
