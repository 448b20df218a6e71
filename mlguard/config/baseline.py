"""``[gate.baseline]``: what a candidate must beat or match, on average and in parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from mlguard.config.policy import Family
from mlguard.config.values import OneOrMany, Text

#: A comparison of a column with a value, as ``"age < 30"``.
SLICE = re.compile(r"\s*(?P<column>[^<>=!]+?)\s*(?P<sign><=|>=|!=|<|>|=)\s*(?P<value>[^<>=!]+?)\s*")


class BaselineGate(Family):
    """``[gate.baseline]``."""

    CHECKS = frozenset({"beats", "beats_in", "matches", "no_worse_than", "no_worse_in"})
    WITHOUT: ClassVar[Mapping[str, str]] = {
        "decide": "a comparison passes only where its lower bound clears the line, and fails only "
        "where its upper bound does not"
    }

    metric: Literal["accuracy", "mean_absolute_error"] | None = Field(
        None, description="Default: accuracy, or mean_absolute_error for a regression."
    )
    beats: Literal["majority", "mean", "stump", "linear"] | None = Field(
        None, description="Simple model to beat. Default: majority, or mean for a regression."
    )
    delta: float = Field(0.0, ge=0, description="By at least how much it must be beaten.")
    margin: float = Field(
        0.02,
        ge=0,
        description="How far it may fall behind the live version, and the models of `must_match`.",
    )
    must_match: list[Literal["majority", "mean", "stump", "linear"]] = Field(
        default_factory=list,
        description="Simple models that it may not fall behind by more than `margin`.",
    )
    by: OneOrMany = Field(
        default_factory=list,
        description="Columns in each of whose groups it must beat the simple model, and must not "
        "fall behind the live version.",
    )
    slices: dict[str, Text] = Field(
        default_factory=dict,
        description="Named parts of the rows that are held to the same, as "
        '`{young = "age < 30", "young in Ulm" = "age < 30 and city = Ulm"}`.',
    )
    min_group_size: int = Field(
        30, ge=1, description="Rows that a group or slice needs before it says anything."
    )
    optional_groups: list[str] = Field(
        default_factory=list,
        description='Groups, as "column=value", and slices that may be undecided.',
    )

    @model_validator(mode="after")
    def _readable_slices(self) -> Self:
        for name, text in self.slices.items():
            for part in text.split(" and "):
                if SLICE.fullmatch(part) is None:
                    raise ValueError(
                        f"slices.{name} holds {part!r}; write a comparison of a column with a "
                        'value, like "age < 30" or "city = Ulm", joined by " and "'
                    )
        return self
