"""The shape of a model's inputs and outputs, and where it comes from.

The inputs are named and ordered by ``[data] features``, else by the names the model was fitted
with, else by the columns of the data without target, sensitive attributes, time and id.  Kinds,
ranges and categories are those of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from mlguard.config import AppSettings, InputType
from mlguard.data.frames import select_columns
from mlguard.data.schema import Feature, Kind, infer_schema
from mlguard.errors import DataError, ModelFileError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Feature", "InputSchema", "Kind", "Task", "input_schema"]

Task = Literal["classification", "regression"]

#: Kind of the features of an input that is a list of numbers.
_NUMERIC: dict[InputType, Kind] = {"doubles": "number", "floats": "number", "ints": "integer"}


@dataclass(frozen=True, slots=True)
class InputSchema:
    """What a version takes and gives.

    Attributes
    ----------
    input : InputType
        Type of one row: Clipper's, or ``"table"``.
    task : {"classification", "regression"}
        Kind of prediction.
    features : tuple of Feature
        The inputs in order; exactly one for ``"strings"`` and ``"bytes"``.
    classes : tuple or None
        Possible outputs as Python scalars, in the order of the scores; None for a regression.
    """

    input: InputType
    task: Task
    features: tuple[Feature, ...]
    classes: tuple[Any, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(one.name for one in self.features)

    @property
    def kinds(self) -> dict[str, Kind]:
        """Kind of each input, by name."""
        return {one.name: one.kind for one in self.features}

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON values."""
        return {
            "input": self.input,
            "task": self.task,
            "features": [one.to_json() for one in self.features],
            "classes": None if self.classes is None else list(self.classes),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the schema from :meth:`to_json`."""
        classes = document.get("classes")
        return cls(
            document["input"],
            document["task"],
            tuple(Feature.from_json(one) for one in document["features"]),
            None if classes is None else tuple(classes),
        )


def input_schema(estimator: Any, frame: pd.DataFrame, settings: AppSettings) -> InputSchema:
    """Find out what a model takes and gives.

    Parameters
    ----------
    estimator : Any
        The fitted model.
    frame : pandas.DataFrame
        Rows like those it was trained on.
    settings : AppSettings
        The app.

    Raises
    ------
    DataError
        If the data lacks a feature, has another number of them than the model, or values that
        the app's input type cannot carry.
    ModelFileError
        If the model says that it is made for another task than the app's.
    """
    _check_task(estimator, settings.app.task)
    names = _feature_names(estimator, frame, settings)
    where = f"the data of {settings.name or 'the app'}"
    table = infer_schema(select_columns(frame, names, where=where))
    kind = settings.app.input
    features = tuple(column.feature for column in table.columns)
    if kind in _NUMERIC:
        features = tuple(_numeric(one, _NUMERIC[kind], kind) for one in features)
    elif kind != "table" and len(features) != 1:
        raise DataError(
            f'input = "{kind}" takes one column, and {where} gives {len(features)}: '
            f"{', '.join(names)}",
            hint="name the one column in [data] features",
        )
    return InputSchema(kind, settings.app.task, features, _classes(estimator, frame, settings))


def _check_task(estimator: Any, task: Task) -> None:
    """Refuse a model that says of itself that it is made for the other task."""
    other: Task = "regression" if task == "classification" else "classification"
    if _declared_task(estimator) == other:
        name = type(estimator).__name__
        raise ModelFileError(
            f'the model ({name}) is made for {other}, and app.toml says [app] task = "{task}"',
            hint=f'name another model, or write [app] task = "{other}"',
        )


def _declared_task(estimator: Any) -> Task | None:
    """Return the task that a scikit-learn model declares; None where it declares none."""
    from sklearn.base import BaseEstimator, is_classifier, is_regressor

    if not isinstance(estimator, BaseEstimator):
        return None
    if is_classifier(estimator):
        return "classification"
    return "regression" if is_regressor(estimator) else None


def _feature_names(estimator: Any, frame: pd.DataFrame, settings: AppSettings) -> list[str]:
    data = settings.data
    found = getattr(estimator, "feature_names_in_", None)
    fitted = [] if found is None else [str(name) for name in found]
    names = list(data.features)
    if names and fitted and names != fitted:
        raise DataError(
            f"the model was fitted on {', '.join(fitted)}, and [data] features names "
            f"{', '.join(names)}",
            hint="make [data] features the same list in the same order, or leave it out",
        )
    if not names:
        names = fitted
    if not names:
        others = {data.target, data.time, data.id, *data.sensitive}
        names = [str(name) for name in frame.columns if name not in others]
    n_fitted = getattr(estimator, "n_features_in_", None)
    if n_fitted is not None and n_fitted != len(names):
        raise DataError(
            f"the model was fitted on {n_fitted} features, and the data has "
            f"{len(names)}: {', '.join(names)}",
            hint="name the model's features, in order, in [data] features",
        )
    return names


def _numeric(feature: Feature, kind: Kind, input_type: InputType) -> Feature:
    if feature.kind not in ("number", "integer", "boolean"):
        raise DataError(
            f'input = "{input_type}" takes numbers, and column {feature.name!r} holds '
            f"{feature.kind}",
            hint='use input = "table" for mixed columns',
            column=feature.name,
        )
    return Feature(feature.name, kind, feature.low, feature.high, missing=feature.missing)


def _classes(estimator: Any, frame: pd.DataFrame, settings: AppSettings) -> tuple[Any, ...] | None:
    if settings.app.task == "regression":
        return None
    # Imported here: whoever only reads a schema, as a supervisor does, counts nothing.
    import numpy as np

    fitted = getattr(estimator, "classes_", None)
    if isinstance(fitted, np.ndarray):
        return tuple(fitted.tolist())
    target = settings.data.target
    if target not in frame.columns:
        return None
    return tuple(np.unique(frame[target].dropna().to_numpy()).tolist())
