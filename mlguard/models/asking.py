"""What every predictor does alike: rows in, rows that fail found, one shape for what comes back."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlguard.errors import ModelRunError
from mlguard.models.predictions import Predictions, joined
from mlguard.models.schema import InputSchema


class RowPredictor(abc.ABC):
    """A model behind the one way to call it.

    Parameters
    ----------
    schema : InputSchema
        What it takes and gives.
    thresholds : mapping of str to float or None
        Under ``"default"``, the score from which the second of two classes is answered.
    classes : ndarray or None
        Possible outputs, in the order of the scores; None: regression.
    """

    def __init__(
        self,
        schema: InputSchema,
        thresholds: Mapping[str, float] | None,
        classes: npt.NDArray[Any] | None,
    ) -> None:
        self.input_schema = schema
        self.threshold = float((thresholds or {}).get("default", 0.5))
        self._classes = classes

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """Possible outputs as Python scalars, in the order of the scores; None: regression."""
        return None if self._classes is None else tuple(self._classes.tolist())

    def predict(self, rows: Any, *, isolate_failures: bool = False) -> Predictions:
        """Answer some rows.

        Parameters
        ----------
        rows : DataFrame, ndarray or list, n_rows long
            A data frame needs the features by name and may have more columns.  Otherwise rows
            are sequences in the order of the features; for a table they may be mappings by
            name.  Missing: None or NaN.
        isolate_failures : bool, default False
            If the model raises on a batch, find the rows that make it raise and answer the
            others.

        Returns
        -------
        Predictions

        Raises
        ------
        ModelRunError
            If the model raised, or answered another number of rows or no labels.
        DataError
            If a data frame lacks a feature.
        """
        if len(rows) == 0:
            return self._empty()
        return self._isolated(rows) if isolate_failures else self._answered(rows)

    @abc.abstractmethod
    def _answered(self, rows: Any) -> Predictions:
        """Answer at least one row, all of them at once."""

    def _isolated(self, rows: Any) -> Predictions:
        """Answer rows; halve them until those that raise stand alone."""
        try:
            return self._answered(rows)
        except ModelRunError as error:
            if len(rows) == 1:
                return self._failed(error.message)
        middle = len(rows) // 2
        places = rows.iloc if hasattr(rows, "iloc") else rows
        return joined(self._isolated(places[:middle]), self._isolated(places[middle:]))

    def _empty(self) -> Predictions:
        if self._classes is None:
            nothing = np.empty(0)
            return Predictions(nothing, nothing, np.empty(0, np.bool_))
        return Predictions(self._classes[:0], None, np.empty(0, np.bool_))

    def _failed(self, why: str) -> Predictions:
        """Return the answer to one row on which the model raised."""
        labels = np.full(1, np.nan) if self._classes is None else self._classes[:1]
        return Predictions(labels, None, np.zeros(1, np.bool_), {0: why})


def raised(error: Exception) -> ModelRunError:
    """Return what is said of whatever a model has raised."""
    why = str(error).strip().partition("\n")[0]
    return ModelRunError(
        f"the model raised {type(error).__name__}" + (f": {why}" if why else ""),
        hint="try the same rows on the model in a Python session",
    )
