"""The metrics by group that a gate and a monitor can name."""

from __future__ import annotations

from typing import Literal

#: What live traffic can be compared by, window after window.
GroupMetric = Literal[
    "selection_rate",
    "true_positive_rate",
    "false_positive_rate",
    "false_negative_rate",
    "true_negative_rate",
    "precision",
    "accuracy",
    "mean_absolute_error",
]

#: Those of them that a group is better off with more of: a floor can be put under them.
HIGHER_IS_BETTER = (
    "selection_rate",
    "true_positive_rate",
    "true_negative_rate",
    "precision",
    "accuracy",
)

#: What a gate can compare, by fairlearn's names where it has one.
FairnessMetric = Literal[
    "selection_rate",
    "true_positive_rate",
    "false_positive_rate",
    "false_negative_rate",
    "true_negative_rate",
    "precision",
    "accuracy",
    "f1_score",
    "calibration_error",
    "mean_prediction",
    "mean_absolute_error",
    "mean_residual",
    "demographic_parity",
    "equalized_odds",
    "equal_opportunity",
]

Aggregate = Literal["difference", "ratio", "group_min", "group_max"]

#: Metrics in the unit of the target, so that a limit on them may be any number.
UNIT_METRICS = frozenset({"mean_prediction", "mean_absolute_error", "mean_residual"})

#: Aggregates that a metric does not have: a parity is a comparison, a figure that noise lifts
#: above 0 or that may have either sign has no ratio.
WITHOUT: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        ("demographic_parity", "equalized_odds", "equal_opportunity"),
        frozenset({"group_min", "group_max"}),
    ),
    "calibration_error": frozenset({"ratio"}),
    "mean_residual": frozenset({"ratio", "group_min", "group_max"}),
}


def has_aggregate(metric: str, aggregate: str) -> bool:
    """Whether a metric can be judged by an aggregate."""
    return aggregate not in WITHOUT.get(metric, ())
