"""A compiled model beside its original, asked the same rows.

The test rows are all asked.  So are some that are made up: each feature missing once, each
text a category that nobody has seen.  A test file has few of those, production has some.

A row counts against the compiled model if only one of the two can answer it, if its label
differs by any of the version's thresholds, or if its score differs by more than the tolerance.
Only where the original's own score lies on the boundary, to within a few roundings of float32,
may the label differ: which side it falls on is an accident there.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlguard.models.inline import Backend, InlinePredictor, rows_of
from mlguard.models.predictions import Predictions
from mlguard.models.predictor import Predictor

if TYPE_CHECKING:
    import pandas as pd

#: Two scores are tied where they differ by less: a few roundings of float32.
TIED = 2.0**-20
#: A category that no data has.
_UNSEEN = "\x00mlguard: a category that nobody has seen"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A compiled model held against its original.

    Attributes
    ----------
    n_rows : int
        Test rows that both answered.
    n_tied : int
        Of them, those whose label float32 cannot decide.
    n_labels : int
        Rows that are not tied and whose labels differ.
    n_over : int
        Rows whose scores differ by more than the tolerance.
    n_refused : int
        Rows, made-up ones included, that only one of the two can answer.
    largest : float
        Largest difference of scores; in standard deviations for a regression.
    """

    n_rows: int
    n_tied: int = 0
    n_labels: int = 0
    n_over: int = 0
    n_refused: int = 0
    largest: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether the two are the same to callers."""
        return not (self.n_labels or self.n_over or self.n_refused)

    def difference(self, tolerance: float) -> str:
        """Say in words what differs; empty where nothing does."""
        found = []
        if self.n_labels:
            found.append(f"{self.n_labels:,} of {self.n_rows:,} test rows get another label")
        if self.n_over:
            found.append(
                f"scores differ by up to {self.largest:.2g}, more than {tolerance:g}, on "
                f"{self.n_over:,} of {self.n_rows:,} test rows"
            )
        if self.n_refused:
            found.append(f"{self.n_refused:,} rows are answered by one of the two only")
        return "; ".join(found)


class Judge:
    """The original's answers, and what they are compared with."""

    def __init__(
        self,
        original: Predictor,
        frame: pd.DataFrame,
        tolerance: float,
        thresholds: Mapping[str, float],
    ) -> None:
        self.original = original
        self.schema = original.input_schema
        self.frame = frame
        self.tolerance = tolerance
        self.thresholds = dict(thresholds)
        self.truth = self._ask(frame)
        self._base = self._complete_row()

    def _ask(self, rows: Any) -> Predictions:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.original.predict(rows, isolate_failures=True)

    def _complete_row(self) -> list[Any] | None:
        """Return a test row without a hole that the original answers; None if there is none."""
        if self.schema.input != "table":
            return None
        for place in np.flatnonzero(self.truth.valid)[:100].tolist():
            row = rows_of(self.frame.iloc[place : place + 1], self.schema.names)[0]
            if all(one is not None for one in row):
                return row
        return None

    def refuses_missing(self) -> list[int]:
        """Return the places of features without which the original does not answer."""
        return [place for place, row in self._without() if not self._ask([row]).valid.all()]

    def _without(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield a row for each feature, in which it is missing."""
        if self._base is not None:
            for place in range(len(self._base)):
                yield place, [None if at == place else one for at, one in enumerate(self._base)]

    def _made_up(self) -> list[list[Any]]:
        """Return rows like none in the test data."""
        rows = [row for _, row in self._without()]
        if self._base is not None:
            for place, feature in enumerate(self.schema.features):
                if feature.kind in ("category", "text"):
                    rows.append(
                        [_UNSEEN if at == place else one for at, one in enumerate(self._base)]
                    )
        return rows

    def compare(self, backend: Backend) -> Comparison:
        """Hold a compiled model against the original, on all test rows and made-up ones."""
        compiled = InlinePredictor(backend, self.schema, self.thresholds)
        found = self._held(self.truth, compiled.predict(self.frame, isolate_failures=True))
        rows = self._made_up()
        if rows:
            more = self._held(self._ask(rows), compiled.predict(rows, isolate_failures=True))
            found = dataclasses.replace(
                found,
                n_refused=found.n_refused + more.n_refused + more.n_labels,
                n_over=found.n_over + more.n_over,
                largest=max(found.largest, more.largest),
            )
        return found

    def _held(self, truth: Predictions, answer: Predictions) -> Comparison:
        both = truth.valid & answer.valid
        n_refused = int((truth.valid != answer.valid).sum())
        if truth.scores is None or answer.scores is None:
            unlike = truth.labels[both].astype(object) != answer.labels[both].astype(object)
            missing = both.any() and (truth.scores is None) != (answer.scores is None)
            return Comparison(
                n_rows=int(both.sum()),
                n_labels=int(np.sum(unlike)),
                n_refused=n_refused + (len(truth) if missing else 0),
            )
        right, own = truth.scores[both], answer.scores[both]
        apart = np.abs(right - own)
        if self.original.classes is None:
            # A regression has scores: they are its values.
            spread = float(np.std(self.truth.scores[self.truth.valid])) if len(right) else 0.0  # type: ignore[index]
            apart = apart / (spread or max(1.0, float(np.abs(right).max(initial=0.0))))
            tied = np.zeros(len(right), np.bool_)
            unlike = tied
        elif right.ndim == 1:
            tied, unlike = self._two_classes(right, own)
        else:
            apart = apart.max(axis=1)
            first, second = np.sort(right, axis=1)[:, -1], np.sort(right, axis=1)[:, -2]
            tied = first - second <= TIED
            unlike = np.argmax(right, axis=1) != np.argmax(own, axis=1)
        return Comparison(
            n_rows=int(both.sum()),
            n_tied=int((tied & unlike).sum()),
            n_labels=int((unlike & ~tied).sum()),
            n_over=int((apart > self.tolerance).sum()),
            n_refused=n_refused,
            largest=float(apart.max(initial=0.0)),
        )

    def _two_classes(
        self, right: npt.NDArray[np.float64], own: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return which rows are tied and which get another label, by any threshold."""
        tied = np.zeros(len(right), np.bool_)
        unlike = np.zeros(len(right), np.bool_)
        decisive = np.zeros(len(right), np.bool_)
        for threshold in self.thresholds.values():
            close = np.abs(right - threshold) <= TIED
            other = (right >= threshold) != (own >= threshold)
            tied |= close & other
            decisive |= other & ~close
            unlike |= other
        return tied & ~decisive, unlike
