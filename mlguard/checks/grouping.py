"""Rows with their groups: counted once, however many metrics and intersections ask.

A million rows are told apart by whole numbers, made once per column; an intersection combines
the numbers of its columns, and its groups are named ``"sex=F,race=B"``.  Only combinations that
somebody is in are groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlguard.checks.evidence import JudgedModel
from mlguard.checks.labels import as_numbers, labelled_rows, nearest
from mlguard.errors import DataError, UsageError
from mlguard.stats.rates import MISSING, group_codes
from mlguard.wording import count

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from mlguard.stats.interval import FloatArray

#: More groups than this are no groups but a measurement.
MOST_GROUPS = 50
#: More combinations than this leave nobody in most of them.
MOST_INTERSECTIONS = 120


@dataclass(frozen=True)
class Grouping:
    """Which group every row belongs to.

    Attributes
    ----------
    names : list of str
        Groups, sorted: values of one attribute, or ``"sex=F,race=B"``.
    codes : ndarray of int, shape (n_rows,)
        Index of each row's group.
    """

    names: list[str]
    codes: np.ndarray


class GroupedRows:
    """A frame with its groups, its truth and a model's answers, each made once.

    Parameters
    ----------
    frame : pandas.DataFrame of shape (n_rows, n_columns)
        Rows; those without a label are left out where ``target`` is given.
    model : JudgedModel, optional
        The model whose answers are compared.
    """

    def __init__(self, frame: pd.DataFrame, model: JudgedModel | None = None) -> None:
        self.given = frame
        self.model = model
        self.frame = frame if model is None else labelled_rows(frame, model.target)
        self._groupings: dict[tuple[str, ...], Grouping] = {}
        self._positive: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def grouping(self, columns: Sequence[str]) -> Grouping:
        """Return the groups of an attribute, or of the intersection of several.

        Raises
        ------
        DataError
            If a column is absent.
        UsageError
            If there are too many values to be groups.
        """
        key = tuple(columns)
        if key not in self._groupings:
            self._groupings[key] = self._one(key[0]) if len(key) == 1 else self._crossed(key)
        return self._groupings[key]

    def _one(self, column: str) -> Grouping:
        import pandas as pd

        if column not in self.frame.columns:
            raise DataError(
                f"there is no attribute {column!r} in the data"
                + nearest(column, self.frame.columns),
                hint="correct `by`; it names a column of the test rows",
            )
        codes, found = pd.factorize(self.frame[column], use_na_sentinel=True)
        # Values of the same text are one group, as they could not be told apart by name.
        texts = [str(one) for one in found.tolist()]
        if (codes < 0).any():
            texts.append(MISSING)
            codes[codes < 0] = len(texts) - 1
        names, of_value = group_codes(texts) if texts else ([], codes)
        if len(names) > MOST_GROUPS:
            raise UsageError(
                f"{column!r} has {count(len(names))} different values, too many to be groups",
                hint=f"put {column!r} into classes first, e.g. ages into decades",
            )
        return Grouping(names, of_value[codes])

    def _crossed(self, columns: tuple[str, ...]) -> Grouping:
        import numpy as np

        parts = [self.grouping((column,)) for column in columns]
        codes = np.zeros(len(self.frame), np.intp)
        for part in parts:
            codes = codes * len(part.names) + part.codes
        size = int(np.prod([len(part.names) for part in parts]))
        filled = np.flatnonzero(np.bincount(codes, minlength=size))
        if len(filled) > MOST_INTERSECTIONS:
            raise UsageError(
                f"{' and '.join(columns)} have {count(len(filled))} combinations, too many to "
                "be groups",
                hint="cross fewer columns, or put their values into fewer classes",
            )
        places = np.zeros(size, np.intp)
        places[filled] = np.arange(len(filled))
        shape = [len(part.names) for part in parts]
        names = [
            ",".join(
                f"{column}={part.names[place]}"
                for column, part, place in zip(columns, parts, cell, strict=True)
            )
            for cell in zip(*np.unravel_index(filled, shape), strict=True)
        ]
        return Grouping(names, places[codes])

    @cached_property
    def truth(self) -> np.ndarray:
        """Labels, shape (n_rows,)."""
        assert self.model is not None
        values: np.ndarray = self.frame[self.model.target].to_numpy()
        return values

    @cached_property
    def answers(self) -> Any:
        """The model's answers to the rows."""
        assert self.model is not None
        return self.model.predict(self.frame)

    @cached_property
    def right(self) -> np.ndarray:
        """Where the model answered the true class, shape (n_rows,)."""
        return _equal(self.truth, self.answers.labels)

    @cached_property
    def classes(self) -> list[Any]:
        """Classes that count as positive, one after the other: of two the second one."""
        assert self.model is not None
        known = self.model.classes
        classes = list(known) if known else sorted(set(self.truth.tolist()), key=str)
        # As scikit-learn has it.
        return classes[1:] if len(classes) == 2 else classes

    def is_positive(self, positive: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return where truth and answer are one class, each of shape (n_rows,)."""
        key = repr(positive)
        if key not in self._positive:
            self._positive[key] = (
                _equal(self.truth, positive),
                _equal(self.answers.labels, positive),
            )
        return self._positive[key]

    @cached_property
    def predicted(self) -> FloatArray:
        """Predicted numbers of a regression, shape (n_rows,)."""
        assert self.model is not None
        return as_numbers(self.answers.labels, whose=self.model.name)

    @cached_property
    def residual(self) -> FloatArray:
        """Predicted less true number, shape (n_rows,)."""
        assert self.model is not None
        found: FloatArray = self.predicted - as_numbers(self.truth, whose=self.model.target)
        return found

    def scores(self, positive: Any) -> FloatArray:
        """Return the scores of one class, shape (n_rows,).

        Raises
        ------
        DataError
            If the model gives none.
        """
        import numpy as np

        assert self.model is not None
        scores = self.answers.scores
        if scores is None:
            scores = self.model.probabilities(self.frame)
        if scores is None:
            raise DataError(
                f"{self.model.name} gives classes without scores",
                hint="choose selection_rate or another rate of classes, or a model that has "
                "predict_proba",
            )
        scores = np.asarray(scores, float)
        if scores.ndim == 1:
            return scores
        place = [str(one) for one in self.model.classes or ()].index(str(positive))
        column: FloatArray = scores[:, place]
        return column

    def weights(self, column: str) -> FloatArray | None:
        """Return the rows' weights; None where no column is named.

        Raises
        ------
        DataError
            If the column is absent, or a weight is negative, infinite or missing.
        """
        import numpy as np

        if not column:
            return None
        if column not in self.frame.columns:
            raise DataError(
                f"there is no column of weights {column!r} in the data"
                + nearest(column, self.frame.columns),
                hint="correct `weight` in [gate.fairness]",
            )
        values = as_numbers(self.frame[column].to_numpy(), whose=column)
        wrong = ~(np.isfinite(values) & (values >= 0))
        if wrong.any():
            raise DataError(
                f"the weight {column!r} is negative, infinite or missing in "
                f"{count(int(wrong.sum()))} of {count(len(values))} rows",
                hint="a weight says how much a row counts: a number of at least 0",
            )
        return values


def _equal(values: np.ndarray, other: Any) -> np.ndarray:
    """Return where values are equal, across storage types, shape (n_rows,)."""
    import numpy as np

    numbers = values.dtype.kind in "biuf" and np.asarray(other).dtype.kind in "biuf"
    # Text against numbers would compare as unequal with a warning or as a scalar.
    found = (
        values == other
        if numbers
        else values.astype(object)
        == (other.astype(object) if isinstance(other, np.ndarray) else other)
    )
    return np.asarray(found, bool)
