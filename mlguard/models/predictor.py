"""One way to call every scikit-learn model, and one shape for what comes back.

Rows go in as the model met them in training: a table becomes a data frame with the features in
order, a list of numbers an array.  Scores come out as one number for two classes or a
regression, as one row per class for more.

Labels of two classes are taken from the score and the version's own threshold, never from the
model's ``predict``, so that the threshold on the version's card is the one in force.  Where a
model has no probabilities, its decision function is squashed by the logistic function: the
order of scores is the same, and 0.5 stands where the model's own boundary is.

A row whose score is not finite is not valid; the others of its batch are.
"""

from __future__ import annotations

import contextlib
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlguard.data.frames import file_digest, select_columns
from mlguard.errors import DataError, IntegrityError, MlguardError, ModelRunError
from mlguard.models.asking import RowPredictor, raised
from mlguard.models.bundle import Manifest
from mlguard.models.code import load_code
from mlguard.models.formats import load_model
from mlguard.models.inline import InlinePredictor
from mlguard.models.predictions import (
    Predictions,
    as_labels,
    decided,
    known,
    validity,
)
from mlguard.models.schema import Feature, InputSchema

if TYPE_CHECKING:
    import pandas as pd

_DTYPES: dict[str, Any] = {"doubles": np.float64, "floats": np.float32, "ints": np.int64}
#: Objects that hold no estimators, or the whole program.
_NO_PARTS = (type, types.ModuleType, types.FunctionType)
#: Object arrays larger than this hold data, not the parts of an ensemble.
_LARGEST_ENSEMBLE = 100_000


class Predictor(RowPredictor):
    """A loaded model behind the one way to call it.

    Parameters
    ----------
    estimator : Any
        A fitted model with ``predict``, and ``predict_proba`` or ``decision_function`` if it
        has scores.
    schema : InputSchema
        What it takes and gives.
    thresholds : mapping of str to float, optional
        Under ``"default"``, the score from which the second of two classes is answered.
    """

    #: A server calls it in a process of its own: an estimator is somebody's code.
    in_process = False

    def __init__(
        self,
        estimator: Any,
        schema: InputSchema,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(schema, thresholds, _fitted_classes(estimator, schema))
        self.estimator = estimator
        #: Whether some part picks columns by name, which only a data frame has.
        self.selects_by_name = _selects_by_name(estimator)
        self._framed = schema.input == "table" or self.selects_by_name
        self._silenced = not self._framed and _knows_names(estimator)

    @property
    def needs_pandas(self) -> bool:
        """Whether rows are turned into data frames for this model."""
        return self._framed

    def _answered(self, rows: Any) -> Predictions:
        try:
            # Only where it is needed: changing the filters costs time and is not thread-safe.
            with _without_name_warnings() if self._silenced else contextlib.nullcontext():
                prepared = self._checked(rows)
                if self._classes is None:
                    return self._regression(prepared, len(rows))
                return self._classification(self._classes, prepared, len(rows))
        except MlguardError:
            raise
        # The model is somebody else's code: it may raise anything.
        except Exception as error:
            raise raised(error) from error

    # --- rows in ---------------------------------------------------------------------------

    def _checked(self, rows: Any) -> Any:
        try:
            return self._prepared(rows)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, MlguardError):
                raise
            why = str(error).partition("\n")[0]
            raise ModelRunError(
                f'a row does not fit the input "{self.input_schema.input}": {why}',
                hint="hold the rows against the version's schema",
            ) from error

    def _prepared(self, rows: Any) -> Any:
        features = self.input_schema.features
        frame = rows if hasattr(rows, "iloc") else None
        if self.input_schema.input in ("strings", "bytes"):
            return _single(rows if frame is None else frame[features[0].name].tolist())
        if self._framed:
            return _frame(rows, features) if frame is None else _typed(frame, features)
        dtype = _DTYPES[self.input_schema.input]
        if frame is not None:
            named = select_columns(frame, [one.name for one in features], where="the rows")
            return _as_numbers(named.to_numpy(), dtype)
        values = _as_numbers(rows, dtype)
        if values.ndim != 2 or values.shape[1] != len(features):  # a table
            raise DataError(
                f"rows of shape {values.shape}, expected (n_rows, {len(features)})",
                hint=f"give each row as {', '.join(one.name for one in features)}",
            )
        return values

    # --- answers out -----------------------------------------------------------------------

    def _regression(self, prepared: Any, n_rows: int) -> Predictions:
        values = _shaped(self.estimator.predict(prepared), "predict", (n_rows,)).astype(np.float64)
        return Predictions(values, values, *validity(np.isfinite(values)))

    def _classification(self, classes: npt.NDArray[Any], prepared: Any, n_rows: int) -> Predictions:
        scores = self._scores(prepared, n_rows, len(classes))
        if scores is None or len(classes) == 1:
            labels = _shaped(self.estimator.predict(prepared), "predict", (n_rows,))
            return Predictions(_own(labels, classes), None, *validity(known(labels)))
        return decided(scores, classes, self.threshold)

    def _scores(self, prepared: Any, n_rows: int, n_classes: int) -> npt.NDArray[np.float64] | None:
        """Return the scores as :class:`Predictions` holds them, None where the model has none."""
        if hasattr(self.estimator, "predict_proba"):
            shape = (n_rows, n_classes)
            found = _shaped(self.estimator.predict_proba(prepared), "predict_proba", shape)
            scores = found.astype(np.float64)
            return scores[:, 1] if n_classes == 2 else scores
        if n_classes != 2 or not hasattr(self.estimator, "decision_function"):
            return None
        found = _shaped(self.estimator.decision_function(prepared), "decision_function", (n_rows,))
        distance = found.astype(np.float64)
        # tanh neither overflows nor warns.
        squashed: npt.NDArray[np.float64] = 0.5 * (1 + np.tanh(distance / 2))
        return np.where(np.isfinite(distance), squashed, np.nan)


#: What :func:`load_predictor` returns; ``in_process`` says where it may run.
AnyPredictor = Predictor | InlinePredictor


def load_predictor(
    manifest: Manifest, model_path: Path | str, *, verify: bool = True
) -> AnyPredictor:
    """Load a version: the file that was registered, or what it was compiled to.

    Loading a pickle or a Python predictor runs its code: do that in a process of its own.

    Parameters
    ----------
    manifest : Manifest
        What it is.
    model_path : path
        Its model's bytes, or the compiled ones; their digest tells which.
    verify : bool, default True
        Whether the bytes are held against the manifest's digests.  Without that they are taken
        for those that a server loads.

    Returns
    -------
    Predictor or InlinePredictor

    Raises
    ------
    IntegrityError
        If the bytes are not the ones that were registered.
    ModelFileError, UntrustedModelError
        If they cannot be read or may not be.
    """
    found = file_digest(str(model_path)) if verify else manifest.serving_sha256
    if found == manifest.compiled_sha256:
        return _load_compiled(manifest, model_path)
    if found != manifest.model_sha256:
        raise IntegrityError(
            f"{model_path} has SHA-256 {found[:12]}…, and {manifest.model_sha256[:12]}… was "
            "registered",
            hint="the file was damaged or replaced; restore it or register it as a new version",
            found=found,
            expected=manifest.model_sha256,
        )
    if manifest.model_format == "onnx":
        return _load_graph(manifest, model_path, in_process=manifest.in_process)
    if manifest.model_format == "python":
        estimator = load_code(model_path, allow_code=manifest.allow_code)
    else:
        estimator = load_model(
            model_path, trusted_types=manifest.trusted_types, allow_pickle=manifest.allow_pickle
        )
    return Predictor(estimator, manifest.schema, manifest.thresholds)


def _load_compiled(manifest: Manifest, path: Path | str) -> InlinePredictor:
    if manifest.runtime != "linear":
        return _load_graph(manifest, path, in_process=True)
    from mlguard.models.linear import LinearModel

    backend = LinearModel.load(path, manifest.schema)
    return InlinePredictor(backend, manifest.schema, manifest.thresholds)


def _load_graph(manifest: Manifest, path: Path | str, *, in_process: bool) -> InlinePredictor:
    from mlguard.models.onnx_model import load_onnx

    backend = load_onnx(path, manifest.schema)
    found = InlinePredictor(backend, manifest.schema, manifest.thresholds)
    found.in_process = in_process
    return found


# --- what a model is like ------------------------------------------------------------------


def _fitted_classes(estimator: Any, schema: InputSchema) -> npt.NDArray[Any] | None:
    if schema.task == "regression":
        return None
    fitted = getattr(estimator, "classes_", None)
    if isinstance(fitted, np.ndarray):
        return fitted
    return as_labels(schema.classes or ())


def _parts(estimator: Any) -> Iterator[Any]:
    """Yield an estimator and the objects that it is made of, wrappers of no known kind too."""
    seen: set[int] = set()
    waiting = [estimator]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple, set)):
            waiting.extend(one)
        elif isinstance(one, np.ndarray):
            if one.dtype == object and one.size <= _LARGEST_ENSEMBLE:
                waiting.extend(one.ravel().tolist())
        elif hasattr(one, "__dict__") and not isinstance(one, _NO_PARTS):
            yield one
            waiting.extend(vars(one).values())


@contextlib.contextmanager
def _without_name_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # The names are checked by the schema, before the values come here.
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        yield


def _knows_names(estimator: Any) -> bool:
    """Whether scikit-learn would warn that an array has no column names."""
    return any("feature_names_in_" in vars(one) for one in _parts(estimator))


def _selects_by_name(estimator: Any) -> bool:
    """Whether some part picks columns by name, which only a data frame has."""
    for part in _parts(estimator):
        for _, _, columns in vars(part).get("transformers_", ()):
            if isinstance(columns, str):
                return True
            if isinstance(columns, Iterable) and any(isinstance(one, str) for one in columns):
                return True
    return False


# --- rows ----------------------------------------------------------------------------------


def _as_numbers(rows: Any, dtype: Any) -> npt.NDArray[Any]:
    """Return rows as an array, and refuse to cut fractions off."""
    if dtype is not np.int64:
        return np.asarray(rows, dtype)
    whole = np.asarray(rows)
    if np.issubdtype(whole.dtype, np.floating) and not (whole == np.trunc(whole)).all():
        raise ValueError("a fraction or a missing value where a whole number is expected")
    return whole.astype(np.int64)


def _single(rows: Any) -> list[Any]:
    """Return one value per row, whether or not each stands in a list of its own."""
    return [row[0] if isinstance(row, (list, tuple)) else row for row in rows]


def _frame(rows: Any, features: Sequence[Feature]) -> pd.DataFrame:
    import pandas as pd

    if len(rows) and isinstance(rows[0], Mapping):
        columns = [[row.get(one.name) for row in rows] for one in features]
    else:
        for row in rows:
            if len(row) != len(features):
                raise DataError(
                    f"a row of {len(row)} values, expected {len(features)}",
                    hint=f"give each row as {', '.join(one.name for one in features)}",
                )
        columns = [list(column) for column in zip(*rows, strict=True)]
    return pd.DataFrame(
        {one.name: _series(values, one) for one, values in zip(features, columns, strict=True)}
    )


def _typed(frame: pd.DataFrame, features: Sequence[Feature]) -> pd.DataFrame:
    """Give a frame from elsewhere the features and the types that requests would have."""
    import pandas as pd

    named = select_columns(frame, [one.name for one in features], where="the rows")
    return pd.DataFrame(
        {one.name: _series(named[one.name], one) for one in features}, index=named.index
    )


def _series(values: Any, feature: Feature) -> pd.Series[Any]:
    import pandas as pd

    if feature.kind in ("number", "integer"):
        if isinstance(values, list):
            return pd.Series(np.asarray(values, np.float64))  # None becomes NaN
        return pd.Series(values.astype(np.float64))
    series = pd.Series(values)
    if feature.kind == "boolean":
        return series.astype(object if series.isna().any() else np.bool_)
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return series
    return series.astype("str")  # missing stays missing


# --- answers -------------------------------------------------------------------------------


def _shaped(answer: Any, method: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    found = np.asarray(answer)
    if found.shape != shape:
        raise ModelRunError(
            f"{method} answered shape {found.shape}, expected {shape}",
            hint="a model answers each row once, in order",
        )
    return found


def _own(labels: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Refuse answers that are no class of the model."""
    strange = ~np.isin(labels, classes) & known(labels) if len(classes) else np.zeros(0, np.bool_)
    if strange.any():
        raise ModelRunError(
            f"predict answered {labels[strange].tolist()[0]!r}, expected one of {classes.tolist()}",
            hint="a model that answers other values than [data] target has: correct [app] task "
            "or [data] target in app.toml, or name another model",
        )
    return labels
