"""``[gate.data_quality]``: limits on the data, one table a check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from mlguard.config.policy import CheckPolicy, Family
from mlguard.config.values import Duration, Ratio


class MissingCheck(CheckPolicy):
    """``[gate.data_quality.missing]``."""

    at_most: Ratio = Field(
        0.05, description="Largest change of a column's missing share from training to test."
    )


class RangesCheck(CheckPolicy):
    """``[gate.data_quality.ranges]``."""

    at_most: Ratio = Field(
        0.05, description="Largest share of a column's numbers outside the range of training."
    )


class CategoriesCheck(CheckPolicy):
    """``[gate.data_quality.categories]``."""

    at_most: Ratio = Field(
        0.05, description="Largest share of a column's values that training never saw."
    )


class ConstantsCheck(CheckPolicy):
    """``[gate.data_quality.constants]``."""

    at_most: float = Field(
        0.995, gt=0, lt=1, description="Largest share that one value of a column may have."
    )


class BalanceCheck(CheckPolicy):
    """``[gate.data_quality.balance]``."""

    at_most: Ratio = Field(
        0.1, description="Largest change of a class's share, of all rows or of a group's."
    )


class RepeatedCheck(CheckPolicy):
    """``[gate.data_quality.duplicates]`` and ``[gate.data_quality.overlap]``."""

    at_most: Ratio = Field(0.05, description="Largest share of repeated rows.")


class LeakageCheck(CheckPolicy):
    """``[gate.data_quality.leakage]``."""

    at_most: float = Field(
        0.99,
        gt=0.5,
        lt=1,
        description="Largest AUC (rank correlation for a regression) of one column alone.",
    )


class LabelIssuesCheck(CheckPolicy):
    """``[gate.data_quality.label_issues]``: judged where the table is written."""

    at_most: Ratio = Field(
        0.05, description="Largest share of training rows whose label is probably wrong."
    )
    folds: int = Field(5, ge=2, le=20, description="Parts that probabilities are estimated in.")


class FreshnessCheck(CheckPolicy):
    """``[gate.data_quality.freshness]``: judged where the table is written."""

    at_most: Duration = Field(gt=0, description="Largest age of the newest row of `[data] test`.")


INTERVAL_KEYS = frozenset({"decide", "confidence_level", "family_error"})

_MANY = frozenset({"family_error"})


class DataQualityGate(Family):
    """``[gate.data_quality]``."""

    CHECKS = frozenset({"schema", "expectations"})
    TABLES = frozenset(
        {
            "missing",
            "ranges",
            "categories",
            "constants",
            "balance",
            "duplicates",
            "overlap",
            "leakage",
            "label_issues",
            "freshness",
        }
    )
    WITHOUT_EFFECT: ClassVar[Mapping[str, frozenset[str]]] = {
        "schema": INTERVAL_KEYS,
        "expectations": INTERVAL_KEYS,
        "constants": INTERVAL_KEYS,
        "freshness": INTERVAL_KEYS,
        "duplicates": _MANY,
        "overlap": _MANY,
        "leakage": _MANY,
        "label_issues": _MANY,
    }

    suite: str = Field(
        "checks/{app}/expectations/*.json",
        description="Great Expectations suites, relative to the project's root.",
    )
    missing: MissingCheck = MissingCheck()
    ranges: RangesCheck = RangesCheck()
    categories: CategoriesCheck = CategoriesCheck()
    constants: ConstantsCheck = ConstantsCheck()
    balance: BalanceCheck = BalanceCheck()
    duplicates: RepeatedCheck = RepeatedCheck()
    overlap: RepeatedCheck = RepeatedCheck()
    leakage: LeakageCheck = LeakageCheck()
    label_issues: LabelIssuesCheck | None = Field(
        None, description="Labels that are probably wrong; absent: not judged."
    )
    freshness: FreshnessCheck | None = Field(
        None, description="How old the newest row may be; absent: not judged."
    )
