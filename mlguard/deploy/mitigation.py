"""Candidates that treat groups more alike, each beside the original with what it costs.

``thresholds``
    the same model with a threshold per group (post-processing);
``reweighing``
    the same pipeline, trained again with weights that undo the dependence of group and outcome
    in the training data (Kamiran and Calders).

Nothing is applied: a candidate is a file, and only a deploy through the gate makes it serve.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from mlguard.checks.evidence import Subject
from mlguard.checks.labels import attribute, labelled_rows
from mlguard.config import AppSettings
from mlguard.deploy.app_toml import table_lines
from mlguard.deploy.group_figures import MetricFigures, Sample, measure
from mlguard.deploy.threshold_policies import (
    TITLES,
    Cost,
    ThresholdTable,
    answers_under,
    thresholds_of,
)
from mlguard.errors import DataError, UsageError
from mlguard.stats.reweighing import reweighing
from mlguard.stats.thresholds import Policy
from mlguard.wording import estimate, number, printable

Method: TypeAlias = Literal["thresholds", "reweighing"]
METHODS: tuple[Method, ...] = get_args(Method)

#: Which policy makes which metric alike.
_ALIKE: dict[str, Policy] = {
    "selection_rate": "demographic_parity",
    "demographic_parity": "demographic_parity",
    "true_positive_rate": "equal_opportunity",
    "false_negative_rate": "equal_opportunity",
    "equal_opportunity": "equal_opportunity",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mitigated:
    """A candidate that was made, and what it costs.

    Attributes
    ----------
    method : {"thresholds", "reweighing"}
    by : str
        The attribute whose groups it is about.
    title : str
        What it is, in a few words.
    file : Path
        Where the candidate is: a model, or a threshold table for app.toml.
    cost : Cost
        In accuracy, with its interval.
    utility : tuple of float or None
        Per person before and after, where the candidate was made for it.
    before, after : tuple of MetricFigures
        The gate's metrics of the original and of the candidate, on the same rows.
    next_step : str
        How to take it further.
    """

    method: Method
    by: str
    title: str
    file: Path
    cost: Cost
    utility: tuple[float, float] | None = None
    before: tuple[MetricFigures, ...]
    after: tuple[MetricFigures, ...]
    next_step: str

    @property
    def lines(self) -> tuple[str, ...]:
        """What it costs and what it changes, in sentences."""
        cost = self.cost
        told = [f"{self.title}. Accuracy {cost}."]
        if self.utility is not None:
            old_worth, new_worth = (number(one, places=3) for one in self.utility)
            told.append(f"Utility per person {old_worth} → {new_worth}.")
        for old, new in zip(self.before, self.after, strict=True):
            told.append(
                f"{old.name} by {self.by} differs by {estimate(old.gap.value, old.gap.interval)}"
                f" → {estimate(new.gap.value, new.gap.interval)}."
            )
        told.append(f"Wrote {self.file}. Nothing else was changed.")
        return tuple(told)

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as strict JSON values."""
        return {
            "method": self.method,
            "by": self.by,
            "file": str(self.file),
            "accuracy": self.cost.to_json(),
            "utility": None if self.utility is None else list(self.utility),
            "before": [one.to_json() for one in self.before],
            "after": [one.to_json() for one in self.after],
        }


# --- a threshold per group ---------------------------------------------------------------------


def policy_for(settings: AppSettings) -> Policy:
    """Return the policy that makes the gate's first metric alike; equal opportunity for others."""
    named = (_ALIKE[one] for one in settings.gate.fairness.metrics if one in _ALIKE)
    return next(named, "equal_opportunity")


def by_thresholds(
    sample: Sample, settings: AppSettings, table: ThresholdTable, model: Path, *, typed: str
) -> Mitigated:
    """Write the thresholds of a policy as a file beside the model.

    Parameters
    ----------
    sample, settings, table
        The rows, the app, and the policies of one attribute.
    model : Path
        The candidate that they are for.
    typed : str
        How a command names app and candidate.

    Raises
    ------
    DataError
        If a group would be answered no whatever its score.
    """
    policy = policy_for(settings)
    thresholds = thresholds_of(table, policy, settings.model.thresholds)
    unseen, yes = answers_under(sample, thresholds, table.by)
    answered = _labels(sample, yes)
    right = (sample.labels == sample.truth, answered == sample.truth)
    cost = Cost.of(
        right[0][unseen], right[1][unseen], confidence_level=settings.gate.fairness.confidence_level
    )
    command = f"mlguard fairness {typed} --by {table.by} --write {policy}"
    file = model.with_name(f"{model.stem}.{policy}.toml")
    text = [
        f"# Thresholds of {TITLES[policy]} by {table.by} for {model.name}.",
        f"# Accuracy {cost}.",
        f"# Put it into app.toml by: {command}",
        *table_lines(thresholds),
    ]
    _write(file, lambda path: path.write_text("\n".join(text) + "\n", encoding="utf-8"))
    return Mitigated(
        method="thresholds",
        by=table.by,
        title=f"{TITLES[policy]}: {_told(thresholds)}",
        file=file,
        cost=cost,
        utility=(
            _worth(sample, table, sample.labels == table.positive, unseen),
            _worth(sample, table, yes, unseen),
        ),
        before=_gate_figures(_part(sample, sample.labels, unseen), settings, table.by),
        after=_gate_figures(_part(sample, answered, unseen), settings, table.by),
        next_step=command,
    )


def _worth(
    sample: Sample, table: ThresholdTable, yes: npt.NDArray[Any], kept: npt.NDArray[np.bool_]
) -> float:
    """Return the utility per person of some answers."""
    truth = sample.truth[kept] == table.positive
    worth = np.where(truth, table.utility.success, table.utility.failure)
    return float(np.where(yes[kept], worth, 0.0).mean())


def _told(thresholds: Mapping[str, float]) -> str:
    return ", ".join(
        f"{printable(key.partition('=')[2], 24)} {value:g}"
        for key, value in thresholds.items()
        if "=" in key
    )


def _labels(sample: Sample, yes: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    no, positive = sample.classes or (0, 1)
    labels = np.empty(yes.size, object)
    labels[~yes], labels[yes] = no, positive
    return labels


def _part(sample: Sample, labels: npt.NDArray[Any], kept: npt.NDArray[np.bool_]) -> Sample:
    return Sample(
        sample.model,
        sample.target,
        sample.rows[kept],
        sample.truth[kept],
        labels[kept],
        None if sample.scores is None else sample.scores[kept],
        sample.classes,
    )


def _gate_figures(sample: Sample, settings: AppSettings, by: str) -> tuple[MetricFigures, ...]:
    """Return the metrics that the gate judges; where it judges none of ours, all that are shown."""
    found = measure(sample, settings, by).metrics
    judged = tuple(one for one in found if one.metric in settings.gate.fairness.metrics)
    return judged or found


# --- other weights in training -----------------------------------------------------------------


def by_reweighing(subject: Subject, sample: Sample, by: str) -> Mitigated:
    """Train the candidate's pipeline again with weights, and write it beside the original.

    Raises
    ------
    DataError
        If there is no training data, or it lacks a column.
    UsageError
        If the estimator takes no weights.
    """
    from mlguard.models.formats import load_model, save_model

    settings, told = subject.settings, subject.settings.model
    train = subject.train
    if train is None:
        raise DataError(
            f"[data] train of {settings.name} is empty, so nothing can be trained again",
            hint="name the training rows in [data] train",
        )
    estimator = load_model(
        subject.model_path, trusted_types=told.trusted_types, allow_pickle=told.allow_pickle
    )
    rows = labelled_rows(train, settings.data.target)
    for column in (by, *subject.candidate.features):
        if column not in rows.columns:
            raise DataError(
                f"[data] train has no column {column!r}",
                hint="reweighing needs the attribute and the model's own columns in it",
            )
    outcome = rows[settings.data.target].to_numpy()
    weights = reweighing(attribute(rows, by), outcome)
    inputs = rows[subject.candidate.features]
    if not hasattr(estimator, "feature_names_in_"):
        inputs = inputs.to_numpy()
    model = refitted(estimator, inputs, outcome, weights)
    file = subject.model_path.with_name(f"{subject.model_path.stem}.reweighed.skops")
    _write(file, lambda path: save_model(model, path))
    after = Sample.of(Subject(subject.project, settings, model=file, name=file.name))
    cost = Cost.of(
        sample.labels == sample.truth,
        after.labels == after.truth,
        confidence_level=settings.gate.fairness.confidence_level,
    )
    return Mitigated(
        method="reweighing",
        by=by,
        title=f"{type(model).__name__} trained with weights by {by}",
        file=file,
        cost=cost,
        before=_gate_figures(sample, settings, by),
        after=_gate_figures(after, settings, by),
        next_step=f"mlguard check {settings.name} --model {shown(file)}",
    )


def refitted(
    estimator: Any, inputs: Any, outcome: npt.NDArray[Any], weights: npt.NDArray[np.float64]
) -> Any:
    """Return a clone of an estimator, fitted with weights.

    Parameters
    ----------
    estimator : object
        A scikit-learn classifier, or a pipeline that ends in one.
    inputs : DataFrame or ndarray of shape (n_rows, n_features)
    outcome, weights : ndarray of shape (n_rows,)

    Raises
    ------
    UsageError
        If it takes no weights.
    """
    from sklearn.base import clone
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import has_fit_parameter

    model = clone(estimator)
    last, key = model, "sample_weight"
    while isinstance(last, Pipeline):
        name, last = last.steps[-1]
        key = f"{name}__{key}"
    if not has_fit_parameter(last, "sample_weight"):
        raise UsageError(
            f"{type(last).__name__} takes no sample_weight, so it cannot be trained with weights",
            hint="choose an estimator that does, or: --mitigate thresholds",
        )
    # The pipeline's own syntax hands a parameter to a step: <step>__<parameter>.
    return model.fit(inputs, outcome, **{key: weights})


# --- files -------------------------------------------------------------------------------------


def _write(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all, in place of an earlier candidate of the same name."""
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".candidate-") as folder:
        unfinished = Path(folder) / file.name
        write(unfinished)
        unfinished.replace(file)


def shown(file: Path) -> str:
    """Return a path as it would be typed in the current folder."""
    relative = os.path.relpath(file)
    return str(file) if relative.startswith("..") else relative
