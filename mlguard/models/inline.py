"""Predictors that run in the process that asks: they hold numbers, and no code of anybody's.

What an inline predictor runs is ours (:mod:`mlguard.models.linear`) or ONNX Runtime's
(:mod:`mlguard.models.onnx_model`).  Rows go in as numbers or columns, never as data frames, so
that a server that answers with nothing else needs neither pandas nor scikit-learn.

Rule 1: what the original refuses is refused here.  Where it was found to raise on a missing
value, such rows are not valid here either (:attr:`Backend.refuses_missing`).

Rule 2: the threshold decides on what the backend says, which is the original's score to within
``compile_tolerance``; that was measured when the version was deployed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlguard.errors import DataError, MlguardError, ModelRunError
from mlguard.models.asking import RowPredictor, raised
from mlguard.models.predictions import Predictions, as_labels, decided, known, validity
from mlguard.models.schema import InputSchema

#: Kinds of features that are numbers to a model.
NUMERIC = ("number", "integer", "boolean")
#: What a missing text is called on its way to a backend.
MISSING_TEXT = "nan"


class Backend(Protocol):
    """What computes."""

    @property
    def by_column(self) -> bool:
        """Whether rows come as one column for each feature, numbers as float64, text as objects.

        Otherwise they come as one float64 array of shape (n_rows, n_features).
        """

    @property
    def refuses_missing(self) -> tuple[int, ...]:
        """Places of features without which a row has no answer."""

    def run(self, rows: Any) -> tuple[npt.NDArray[Any] | None, npt.NDArray[np.float64] | None]:
        """Return labels and scores; labels are None where they follow from the scores."""


class InlinePredictor(RowPredictor):
    """A model without code behind the one way to call it; like :class:`Predictor`.

    Parameters
    ----------
    backend : Backend
        What computes.
    schema : InputSchema
        What it takes and gives.
    thresholds : mapping of str to float, optional
        Under ``"default"``, the score from which the second of two classes is answered.
    """

    #: Whether a server may call it in its own process; not graphs with loops.
    in_process: bool = True
    #: Whether rows are turned into data frames for this model.
    needs_pandas = False

    def __init__(
        self,
        backend: Backend,
        schema: InputSchema,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        classes = None if schema.task == "regression" else as_labels(schema.classes or ())
        super().__init__(schema, thresholds, classes)
        self.backend = backend
        self._refuses = list(backend.refuses_missing)

    @property
    def takes_numbers(self) -> bool:
        """Whether :meth:`predict_numbers` can be called: all features are numbers."""
        return not self.backend.by_column

    def predict_numbers(self, values: npt.NDArray[np.float64]) -> Predictions:
        """Answer rows that are an array already: the way without any detour.

        Parameters
        ----------
        values : ndarray of float64, shape (n_rows, n_features)
            In the order of the features; NaN is missing.

        Raises
        ------
        ModelRunError
            If the model raised, or its answer has another shape.
        """
        refused = None
        if self._refuses:
            refused = np.asarray(np.isnan(values[:, self._refuses]).any(axis=1), np.bool_)
        return self._run(values, len(values), refused)

    def predict(self, rows: Any, *, isolate_failures: bool = False) -> Predictions:
        """Answer some rows; takes and raises what :meth:`RowPredictor.predict` does.

        Parameters
        ----------
        rows : DataFrame, ndarray or list, n_rows long
            As there.
        isolate_failures : bool, default False
            As there.

        Returns
        -------
        Predictions
        """
        if len(rows) and hasattr(rows, "iloc"):
            rows = rows_of(rows, self.input_schema.names)
        return super().predict(rows, isolate_failures=isolate_failures)

    def _answered(self, rows: Any) -> Predictions:
        try:
            if self.takes_numbers:
                return self.predict_numbers(self._matrix(rows))
            columns = self._columns(rows)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, MlguardError):
                raise
            why = str(error).partition("\n")[0]
            raise ModelRunError(
                f'a row does not fit the input "{self.input_schema.input}": {why}',
                hint="hold the rows against the version's schema",
            ) from error
        refused = np.zeros(len(rows), np.bool_)
        for place in self._refuses:
            refused |= _missing(columns[place])
        return self._run(columns, len(rows), refused if refused.any() else None)

    # --- rows in ---------------------------------------------------------------------------

    def _matrix(self, rows: Any) -> npt.NDArray[np.float64]:
        names = self.input_schema.names
        if len(rows) and isinstance(rows[0], Mapping):
            rows = [[row.get(name) for name in names] for row in rows]
        values = np.asarray(rows, np.float64)
        if values.ndim != 2 or values.shape[1] != len(names):  # a table
            raise DataError(
                f"rows of shape {values.shape}, expected (n_rows, {len(names)})",
                hint=f"give each row as {', '.join(names)}",
            )
        return values

    def _columns(self, rows: Sequence[Any]) -> list[npt.NDArray[Any]]:
        features = self.input_schema.features
        if self.input_schema.input == "strings":
            rows = [row if isinstance(row, (list, tuple)) else (row,) for row in rows]
        found = []
        for place, feature in enumerate(features):
            if isinstance(rows[0], Mapping):
                cells = [row.get(feature.name) for row in rows]
            else:
                cells = [row[place] for row in rows]
            if feature.kind in NUMERIC:
                found.append(np.asarray(cells, np.float64))
            else:
                text = np.empty(len(cells), object)
                text[:] = [MISSING_TEXT if one is None or one != one else str(one) for one in cells]
                found.append(text)
        return found

    # --- answers out -----------------------------------------------------------------------

    def _run(self, rows: Any, n_rows: int, refused: npt.NDArray[np.bool_] | None) -> Predictions:
        try:
            labels, scores = self.backend.run(rows)
        except MlguardError:
            raise
        # ONNX Runtime raises classes of its own, without a common base.
        except Exception as error:
            raise raised(error) from error
        given = scores if scores is not None else labels
        if given is None or len(given) != n_rows:
            count = "none" if given is None else len(given)
            raise ModelRunError(
                f"the model gave {count} answers for {n_rows} rows",
                hint="a model answers each row once, in order",
            )
        answer = self._decided(labels, scores)
        if refused is None or not refused.any():
            return answer
        valid = answer.valid & ~refused
        why_not = {
            int(one): "the model takes no missing value here" for one in np.flatnonzero(refused)
        }
        return Predictions(answer.labels, answer.scores, valid, {**answer.reasons, **why_not})

    def _decided(
        self, labels: npt.NDArray[Any] | None, scores: npt.NDArray[np.float64] | None
    ) -> Predictions:
        if self._classes is None:
            assert scores is not None
            return Predictions(scores, scores, *validity(np.isfinite(scores)))
        if labels is not None:
            return Predictions(labels, scores, *validity(known(labels)))
        assert scores is not None
        return decided(scores, self._classes, self.threshold)


def rows_of(frame: Any, names: Sequence[str]) -> list[list[Any]]:
    """Return a data frame's rows as lists in the order of the features; missing is None."""
    from mlguard.data.frames import select_columns

    named = select_columns(frame, names, where="the rows").astype(object)
    rows: list[list[Any]] = named.where(named.notna(), None).to_numpy().tolist()
    return rows


def _missing(column: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if column.dtype == object:
        return np.asarray(column == MISSING_TEXT, np.bool_)
    return np.asarray(np.isnan(column), np.bool_)
