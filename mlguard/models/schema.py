"""The shape of a model's inputs and outputs, and where it comes from.

The inputs are named and ordered by ``[data] features``, else by the names the model was fitted
with, else by the columns of the data without target, sensitive attributes, time and id.  Kinds,
ranges and categories are those of the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from mlguard.config import AppSettings, InputType
from mlguard.data.schema import Feature, Kind, infer_schema
from mlguard.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Feature", "InputSchema", "Kind", "ModelFacts", "Task", "input_schema"]

Task = Literal["classification", "regression"]

#: Kind of the features of an input that is a list of numbers.
_NUMERIC: dict[InputType, Kind] = {"doubles": "number", "floats": "number", "ints": "integer"}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a loaded model says about itself, as plain data: it may come from another process.

    Attributes
    ----------
    type_name : str
        Class of the estimator.
    feature_names : tuple of str or None
        Names it was fitted with, in order.
    n_features : int or None
        How many inputs it was fitted with.
    classes : tuple or None
        Its classes as Python scalars, in the order of its scores.
    """

    type_name: str
    feature_names: tuple[str, ...] | None = None
    n_features: int | None = None
    classes: tuple[Any, ...] | None = None

    @classmethod
    def of(cls, estimator: Any) -> Self:
        """Read the facts off an estimator."""
        names = getattr(estimator, "feature_names_in_", None)
        classes = getattr(estimator, "classes_", None)
        n_features = getattr(estimator, "n_features_in_", None)
        return cls(
            type(estimator).__name__,
            None if names is None else tuple(str(name) for name in names),
            None if n_features is None else int(n_features),
            None if not isinstance(classes, np.ndarray) else tuple(classes.tolist()),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the facts from :meth:`to_json`."""
        names, classes = document["feature_names"], document["classes"]
        return cls(
            document["type_name"],
            None if names is None else tuple(names),
            document["n_features"],
            None if classes is None else tuple(classes),
        )


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
        The model, or the :class:`ModelFacts` that a child process read off it.
    frame : pandas.DataFrame
        Rows like those it was trained on.
    settings : AppSettings
        The app.

    Raises
    ------
    DataError
        If the data lacks a feature, has another number of them than the model, or values that
        the app's input type cannot carry.
    """
    facts = estimator if isinstance(estimator, ModelFacts) else ModelFacts.of(estimator)
    names = _feature_names(facts, frame, settings)
    where = f"the data of {settings.name or 'the app'}"
    from mlguard.data.frames import select_columns

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
    return InputSchema(kind, settings.app.task, features, _classes(facts, frame, settings))


def _feature_names(facts: ModelFacts, frame: pd.DataFrame, settings: AppSettings) -> list[str]:
    data = settings.data
    fitted = list(facts.feature_names or ())
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
    if facts.n_features is not None and facts.n_features != len(names):
        raise DataError(
            f"the model was fitted on {facts.n_features} features, and the data has "
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
    return Feature(feature.name, kind, feature.low, feature.high)


def _classes(
    facts: ModelFacts, frame: pd.DataFrame, settings: AppSettings
) -> tuple[Any, ...] | None:
    if settings.app.task == "regression":
        return None
    if facts.classes is not None:
        return facts.classes
    target = settings.data.target
    if target not in frame.columns:
        return None
    return tuple(np.unique(frame[target].dropna().to_numpy()).tolist())
