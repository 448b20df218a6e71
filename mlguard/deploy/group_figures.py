"""Per-group figures of a candidate: rates with intervals, and by how much groups differ.

Two classes: the second is a yes, as scikit-learn has it.  More classes: each against the rest.
A regression: mean absolute errors.  A group below ``min_group_size`` is shown, and left out of
what groups differ by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from mlguard.checks.evidence import Subject
from mlguard.checks.labels import as_numbers, attribute, nearest
from mlguard.config import AppSettings
from mlguard.errors import DataError, ModelRunError, UsageError
from mlguard.stats.groups import GapJudgement, GroupEstimate, judge_gap, judge_mean_gap
from mlguard.stats.interval import Interval
from mlguard.stats.rates import RATE_METRICS, Confusion, RateMetric, group_codes, group_losses
from mlguard.wording import SMALL_GROUP, TOO_FEW_TO_SHOW, count, printable

#: Shown of every classifier, in this order; others where the gate names them.
SHOWN: tuple[RateMetric, ...] = (
    "selection_rate",
    "false_positive_rate",
    "false_negative_rate",
    "precision",
    "accuracy",
)
#: More values than this are a measurement, not groups.
MOST_GROUPS = 50


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Labelled rows and what the candidate answers to them.

    Attributes
    ----------
    model, target : str
        The candidate's name, and the column that holds the truth.
    rows : pandas.DataFrame of shape (n_rows, n_columns)
    truth, labels : ndarray of shape (n_rows,)
        What is true and what was answered.
    scores : ndarray or None
        As :class:`mlguard.models.predictor.Predictions` holds them.
    classes : tuple or None
        None for a regression.
    """

    model: str
    target: str
    rows: Any
    truth: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    scores: npt.NDArray[np.float64] | None
    classes: tuple[Any, ...] | None

    @classmethod
    def of(cls, subject: Subject) -> Sample:
        """Ask the candidate about the labelled test rows.

        Raises
        ------
        ModelRunError
            If an answer is not usable.
        """
        rows, model = subject.labelled, subject.candidate
        answers = model.predict(rows)
        unusable = int((~np.asarray(answers.valid, bool)).sum())
        if unusable:
            raise ModelRunError(
                f"{model.name} gave no usable prediction on {count(unusable)} of "
                f"{count(len(rows))} rows",
                hint="find the rows on which predict gives NaN, and let the model handle them",
            )
        return cls(
            model.name,
            model.target,
            rows,
            rows[model.target].to_numpy().astype(object),
            answers.labels.astype(object),
            None if answers.scores is None else np.asarray(answers.scores, np.float64),
            model.classes,
        )

    def groups(self, by: str) -> npt.NDArray[Any]:
        """Return each row's group.

        Raises
        ------
        DataError
            If there is no such column.
        UsageError
            If it has too many values to be groups.
        """
        if by not in self.rows.columns:
            raise DataError(
                f"there is no attribute {by!r} in [data] test" + nearest(by, self.rows.columns),
                hint=f"columns: {', '.join(map(str, self.rows.columns[:12]))}",
            )
        found = attribute(self.rows, by)
        names, _ = group_codes(found)
        if len(names) > MOST_GROUPS:
            raise UsageError(
                f"{by!r} has {count(len(names))} different values, too many to be groups",
                hint=f"put {by!r} into classes first, e.g. ages into decades",
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFigures:
    """One metric of every group of one attribute.

    Attributes
    ----------
    metric : str
        By fairlearn's name.
    positive : str
        The class that is counted, where there are more than two; else empty.
    limit : float or None
        What the gate allows groups to differ by, where it judges this metric.
    gap : GapJudgement
        The groups' estimates with simultaneous intervals, and by how much they differ.
    """

    metric: str
    positive: str
    limit: float | None
    gap: GapJudgement

    @property
    def name(self) -> str:
        """Metric and class."""
        return f"{self.metric} of {self.positive}" if self.positive else self.metric

    def to_json(self) -> dict[str, Any]:
        """Return the figures as strict JSON values."""
        gap = self.gap
        return {
            "metric": self.metric,
            "positive": self.positive,
            "limit": self.limit,
            "difference": gap.value,
            "interval": _bounds(gap.interval),
            "pair": list(gap.pair or ()),
            "too_small": list(gap.too_small),
            "groups": [_figures(one) for one in gap.groups],
        }


def _figures(one: GroupEstimate) -> dict[str, Any]:
    """Return one group's figures as JSON values; of a few rows only the name."""
    if one.n < SMALL_GROUP:
        hidden = {"value": None, "n": None, "interval": [None, None]}
        return {"group": one.name, **hidden, "suppressed": TOO_FEW_TO_SHOW}
    return {"group": one.name, "value": one.value, "n": one.n, "interval": [one.low, one.high]}


def _bounds(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeFigures:
    """All figures of the groups of one attribute.

    Attributes
    ----------
    by : str
        The attribute.
    sizes : dict of str to int
        Rows of each group.
    metrics : tuple of MetricFigures
    """

    by: str
    sizes: dict[str, int]
    metrics: tuple[MetricFigures, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as strict JSON values."""
        metrics = [one.to_json() for one in self.metrics]
        sizes = {name: n if n >= SMALL_GROUP else None for name, n in self.sizes.items()}
        return {"by": self.by, "sizes": sizes, "metrics": metrics}


def attributes(settings: AppSettings, by: str | None) -> list[str]:
    """Return the attributes that are asked for, or those that app.toml names.

    Raises
    ------
    UsageError
        If there is none.
    """
    named = [by] if by else settings.gate.fairness.columns or list(settings.data.sensitive)
    if not named:
        raise UsageError(
            f"nobody knows which groups to compare: [data] sensitive of {settings.name} is empty",
            hint='write sensitive = ["…"] in app.toml, or name a column with --by',
        )
    return named


def measure(sample: Sample, settings: AppSettings, by: str) -> AttributeFigures:
    """Measure every group of one attribute.

    Raises
    ------
    DataError, UsageError
        If the attribute is no column, or no groups.
    """
    groups = sample.groups(by)
    names, codes = group_codes(groups)
    sizes = np.bincount(codes, minlength=len(names))
    found: list[MetricFigures] = []
    for metric in _metrics(sample, settings):
        found += _measured(sample, settings, groups, metric)
    return AttributeFigures(
        by=by,
        sizes={name: int(size) for name, size in zip(names, sizes, strict=True)},
        metrics=tuple(found),
    )


def _metrics(sample: Sample, settings: AppSettings) -> list[str]:
    if sample.classes is None:
        return ["mean_absolute_error"]
    named = [one for one in settings.gate.fairness.metrics if one in RATE_METRICS]
    return list(dict.fromkeys([*SHOWN, *named]))


def _measured(
    sample: Sample, settings: AppSettings, groups: npt.NDArray[Any], metric: str
) -> list[MetricFigures]:
    gate = settings.gate.fairness
    judged = metric in gate.metrics and gate.aggregate == "difference"
    limit = gate.at_most if judged else None
    rule: dict[str, Any] = {
        "limit": gate.at_most,
        "min_group_size": gate.min_group_size,
        "confidence_level": gate.confidence_level,
        "family_error": gate.family_error,
    }
    if metric == "mean_absolute_error":
        errors = np.abs(
            as_numbers(sample.truth, whose=sample.target)
            - as_numbers(sample.labels, whose=sample.model)
        )
        gap = judge_mean_gap(group_losses(errors, groups), **rule)
        return [MetricFigures(metric=metric, positive="", limit=limit, gap=gap)]
    classes = sample.classes or ()
    binary = len(classes) == 2  # yes and no
    counted = [None] if metric == "accuracy" else list(classes[1:] if binary else classes)
    found = []
    for positive in counted:
        table = Confusion.count(sample.truth, sample.labels, groups, positive=positive)
        gap = judge_gap(table.rates(cast("RateMetric", metric)), **rule)
        named = "" if binary or positive is None else str(printable(positive, 40))
        found.append(MetricFigures(metric=metric, positive=named, limit=limit, gap=gap))
    return found
