"""Known linear models as the arithmetic they are: float64, and nothing else needed.

A scaler that moves and stretches each feature, then a weighted sum, then a link.  The order of
operations is the library's own, so that the answers are the same to the last bits.  The result
is a small JSON document: it can be read, and reading it runs nothing.

Whether the reduction is right is not believed but measured: it is held against the original on
all test rows (:mod:`mlguard.models.compilation`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from mlguard.errors import ModelFileError
from mlguard.models.inline import NUMERIC
from mlguard.models.schema import InputSchema

Link = Literal["logistic", "softmax", "largest", "identity", "exp"]

#: Version of the file's format.
FORMAT = 1
#: Scalers that compute (x - shift) / scale, and the attributes that say it.
_SCALERS = {
    "StandardScaler": ("mean_", "scale_"),
    "RobustScaler": ("center_", "scale_"),
    "MaxAbsScaler": ("", "scale_"),
}
#: Link of each model: from the weighted sum to what mlguard calls the score.  Where a
#: classifier has no probabilities its distance is squashed, as for the original.
_TWO_CLASSES = frozenset(
    {
        "LogisticRegression",
        "LogisticRegressionCV",
        "LinearSVC",
        "LinearDiscriminantAnalysis",
        "Perceptron",
        "PassiveAggressiveClassifier",
        "RidgeClassifier",
        "RidgeClassifierCV",
        "SGDClassifier",
    }
)
_MORE_CLASSES: dict[str, Link] = {
    "LogisticRegression": "softmax",
    "LogisticRegressionCV": "softmax",
    "LinearDiscriminantAnalysis": "softmax",
    "LinearSVC": "largest",
    "Perceptron": "largest",
    "RidgeClassifier": "largest",
    "RidgeClassifierCV": "largest",
}
_REGRESSIONS: dict[str, Link] = {
    "ARDRegression": "identity",
    "BayesianRidge": "identity",
    "ElasticNet": "identity",
    "ElasticNetCV": "identity",
    "GammaRegressor": "exp",
    "HuberRegressor": "identity",
    "Lars": "identity",
    "Lasso": "identity",
    "LassoCV": "identity",
    "LassoLars": "identity",
    "LinearRegression": "identity",
    "LinearSVR": "identity",
    "PoissonRegressor": "exp",
    "QuantileRegressor": "identity",
    "Ridge": "identity",
    "RidgeCV": "identity",
    "SGDRegressor": "identity",
    "TheilSenRegressor": "identity",
}


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Scalers, a weighted sum, a link; a :class:`mlguard.models.inline.Backend`.

    Attributes
    ----------
    scalers : tuple of (shift or None, scale or None)
        Applied in order, each of shape (n_features,).
    weights : ndarray of shape (n_features, n_outputs)
        One column for two classes or a regression.
    intercept : ndarray of shape (n_outputs,)
        Added to the sums.
    link : str
        From the sums to the scores.
    single : bool
        Whether the input is rounded to float32 first (``input = "floats"``).
    classes : ndarray or None
        Labels where the link gives labels only (``"largest"``).
    """

    scalers: tuple[tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64] | None], ...]
    weights: npt.NDArray[np.float64]
    intercept: npt.NDArray[np.float64]
    link: Link
    single: bool = False
    classes: npt.NDArray[Any] | None = None

    @property
    def by_column(self) -> bool:
        """False: rows come as an array."""
        return False

    @property
    def refuses_missing(self) -> tuple[int, ...]:
        """Nothing to say: a missing value makes the sum NaN, and so the row not valid."""
        return ()

    def run(
        self, rows: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[Any] | None, npt.NDArray[np.float64] | None]:
        """Return labels (or None) and scores (or None) of an array of rows."""
        values = rows
        if self.single:
            values = values.astype(np.float32).astype(np.float64)
        for shift, scale in self.scalers:
            if shift is not None:
                values = values - shift
            if scale is not None:
                values = values / scale
        sums = values @ self.weights + self.intercept
        if self.link == "softmax":
            return None, _softmax(sums)
        if self.link == "largest":
            return self._largest(sums), None
        one = sums[:, 0]
        if self.link == "logistic":
            # tanh neither overflows nor warns; infinity is nonsense, not certainty.
            return None, np.where(np.isfinite(one), 0.5 * (1 + np.tanh(one / 2)), np.nan)
        if self.link == "exp":
            with np.errstate(over="ignore"):
                return None, np.exp(one)
        return None, one

    def _largest(self, sums: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        assert self.classes is not None
        labels: npt.NDArray[Any] = self.classes[np.argmax(sums, axis=1)]
        broken = ~np.isfinite(sums).all(axis=1)
        if broken.any():
            labels = labels.astype(object)
            labels[broken] = None
        return labels

    # --- as a file ---

    def to_bytes(self) -> bytes:
        """Return the model as a JSON document; the same model gives the same bytes."""
        document = {
            "mlguard_linear": FORMAT,
            "scalers": [[_listed(part) for part in pair] for pair in self.scalers],
            "weights": self.weights.tolist(),
            "intercept": self.intercept.tolist(),
            "link": self.link,
            "single": self.single,
        }
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def load(cls, path: Path | str, schema: InputSchema) -> Self:
        """Read :meth:`to_bytes`.

        Raises
        ------
        ModelFileError
            If it is anything else.
        """
        try:
            document = json.loads(Path(path).read_bytes())
            found = cls(
                tuple((_array(shift), _array(scale)) for shift, scale in document["scalers"]),
                np.asarray(document["weights"], np.float64),
                np.asarray(document["intercept"], np.float64),
                document["link"],
                bool(document["single"]),
                _labels(schema),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(f"{path} holds no reduced linear model: {error}") from error
        if document["mlguard_linear"] != FORMAT or found.weights.shape[:1] != (
            len(schema.features),
        ):
            raise ModelFileError(
                f"{path} has {len(found.weights)} weights, and the version takes "
                f"{len(schema.features)} features"
            )
        return found


def reduce_linear(estimator: Any, schema: InputSchema) -> LinearModel | None:
    """Return a fitted scikit-learn model as its arithmetic, None where that is not known.

    Parameters
    ----------
    estimator : Any
        A linear model, or a pipeline of scalers before one.
    schema : InputSchema
        What it takes and gives.
    """
    *before, final = _steps(estimator)
    scalers = [_scaler(one) for one in before]
    link = _link(final, schema)
    numbers = all(one.kind in NUMERIC for one in schema.features)
    if link is None or not numbers or any(one is None for one in scalers):
        return None
    outputs = len(schema.classes or ()) if link in ("softmax", "largest") else 1
    try:
        weights = np.atleast_2d(np.asarray(final.coef_, np.float64))
        sums = np.atleast_1d(np.asarray(final.intercept_, np.float64))
        intercept = np.broadcast_to(sums, (outputs,))
    except (AttributeError, TypeError, ValueError):
        return None
    known = np.isfinite(weights).all() and np.isfinite(intercept).all()
    if not known or weights.shape != (outputs, len(schema.features)):
        return None
    return LinearModel(
        tuple(one for one in scalers if one is not None),
        np.ascontiguousarray(weights.T),
        intercept,
        link,
        schema.input == "floats",
        _labels(schema),
    )


def _steps(estimator: Any) -> Iterator[Any]:
    """Yield the parts of a pipeline, or the model itself."""
    if _name(estimator) != "Pipeline":
        yield estimator
        return
    for _, step in estimator.steps:
        if step is not None and step != "passthrough":
            yield from _steps(step)


def _name(estimator: Any) -> str:
    """Return the class of a model of scikit-learn's own, "" for anything derived from it."""
    kind = type(estimator)
    return kind.__name__ if kind.__module__.startswith("sklearn.") else ""


def _scaler(
    step: Any,
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64] | None] | None:
    names = _SCALERS.get(_name(step))
    if names is None or getattr(step, "clip", False):
        return None
    shift, scale = (getattr(step, name, None) if name else None for name in names)
    return _array(shift), _array(scale)


def _link(final: Any, schema: InputSchema) -> Link | None:
    name = _name(final)
    if schema.task == "regression":
        return _REGRESSIONS.get(name)
    n_classes = len(schema.classes or ())
    if n_classes == 2:  # two classes have one weighted sum
        return "logistic" if name in _TWO_CLASSES else None
    return _MORE_CLASSES.get(name)


def _softmax(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        powers: npt.NDArray[np.float64] = np.exp(sums - sums.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _labels(schema: InputSchema) -> npt.NDArray[Any] | None:
    from mlguard.models.predictions import as_labels

    return None if schema.classes is None else as_labels(schema.classes)


def _array(values: Any) -> npt.NDArray[np.float64] | None:
    return None if values is None else np.asarray(values, np.float64)


def _listed(values: npt.NDArray[np.float64] | None) -> list[float] | None:
    if values is None:
        return None
    found: list[float] = values.tolist()
    return found
