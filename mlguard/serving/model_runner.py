"""A predictor fed with decoded rows: the same in a process of its own and beside the event loop.

A batch that raises is halved until the rows that raise stand alone, so one bad row fails alone
and its neighbours are answered.
"""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlguard.errors import ModelRunError
from mlguard.models.uncertainty import Uncertainty
from mlguard.serving.answers import MODEL_NONSENSE, MODEL_NOT_FINITE, MODEL_RAISED

if TYPE_CHECKING:
    from mlguard.models.predictions import Predictions
    from mlguard.models.predictor import AnyPredictor
    from mlguard.models.schema import InputSchema

#: Errors whose text is written to stderr before a model falls silent.
_SPOKEN = 20


class Model:
    """A predictor fed with decoded rows."""

    def __init__(self, manifest: dict[str, Any], model_path: str) -> None:
        from mlguard.models.bundle import Manifest
        from mlguard.models.predictor import load_predictor

        self.predictor: AnyPredictor = load_predictor(
            Manifest.from_json(manifest), Path(model_path)
        )
        uncertainty = Uncertainty.of(manifest)
        #: Whether the score of every class is handed on, not only that of the second of two.
        self._every_score = uncertainty is not None and uncertainty.needs_all_scores
        self._spoken = 0

    def warm_up(self) -> None:
        """Answer a made-up row, so that lazy imports and caches are paid for before traffic.

        What the model says to it does not matter: real rows were tried when it was deployed.
        """
        self._spoken = _SPOKEN
        self.answer([made_up(self.predictor.input_schema)])
        self._spoken = 0

    def answer(
        self, rows: list[Any] | npt.NDArray[np.float64]
    ) -> tuple[list[Any], list[float | None], dict[int, str]]:
        """Return labels, scores and the errors by row index."""
        whole = self._at_once(rows)
        if whole is not None:
            return *whole, {}
        labels: list[Any] = [None] * len(rows)
        scores: list[float | None] = [None] * len(rows)
        errors: dict[int, str] = {}
        waiting = [(0, len(rows))]
        while waiting:
            start, end = waiting.pop()
            try:
                found = self.predictor.predict(rows[start:end])
                part = _plain(found, end - start, every_score=self._every_score)
            # SystemExit too: a model that calls sys.exit has failed on its rows, no more.
            except BaseException as error:  # noqa: BLE001
                if end - start > 1:
                    middle = (start + end) // 2
                    waiting += [(start, middle), (middle, end)]
                else:
                    errors[start] = self._explain(error)
                continue
            for offset, (label, score, reason) in enumerate(part):
                labels[start + offset] = label
                scores[start + offset] = score
                if reason is not None:
                    errors[start + offset] = reason
        return labels, scores, errors

    def _at_once(
        self, rows: list[Any] | npt.NDArray[np.float64]
    ) -> tuple[list[Any], list[float | None]] | None:
        """Return labels and scores of rows that are all answered; None: look at each of them."""
        try:
            found = self.predictor.predict(rows)
            n, labels, scores = len(rows), found.labels, found.scores
            if len(labels) != n or (scores is not None and len(scores) != n):
                return None
            if labels.dtype.kind not in "biufU" or not found.valid.all():
                return None
            if labels.dtype.kind == "f" and not np.isfinite(labels).all():
                return None
            if scores is None or (scores.ndim != 1 and not self._every_score):
                return labels.tolist(), [None] * n
            return (labels.tolist(), scores.tolist()) if np.isfinite(scores).all() else None
        # Whatever it was happens again below, where it is told for the rows that it concerns.
        except BaseException:  # noqa: BLE001
            return None

    def _explain(self, error: BaseException) -> str:
        # The predictor says "wrong count" itself, and passes on what the model raised.
        raised = error.__cause__ if isinstance(error, ModelRunError) else error
        if self._spoken < _SPOKEN:
            self._spoken += 1
            traceback.print_exception(raised or error, file=sys.stderr)
        return MODEL_NONSENSE if raised is None else f"{MODEL_RAISED}: {type(raised).__name__}"


def made_up(schema: InputSchema) -> Any:
    """Return a row that nobody sent: the middle of what the model was fitted to."""
    if schema.input in ("strings", "bytes"):
        return "" if schema.input == "strings" else b""
    row: list[Any] = []
    for feature in schema.features:
        middle = (feature.low or 0.0) / 2 + (feature.high or 0.0) / 2
        row.append(
            {
                "number": middle,
                "integer": int(middle),
                "boolean": False,
                "category": feature.categories[0] if feature.categories else "",
                "text": "",
                "time": "2000-01-01T00:00:00",
            }[feature.kind]
        )
    return row


def _plain(
    found: Predictions, n: int, *, every_score: bool = False
) -> list[tuple[Any, Any, str | None]]:
    """Return (label, score, why not) per row as MessagePack values."""
    if len(found.labels) != n or (found.scores is not None and len(found.scores) != n):
        raise ModelRunError(f"expected {n} answers, got {len(found.labels)}")
    labels = found.outputs()
    scores: Sequence[Any] = [None] * n
    if found.scores is not None and (found.scores.ndim == 1 or every_score):
        scores = found.scores.tolist()
    rows: list[tuple[Any, Any, str | None]] = []
    for label, score, valid in zip(labels, scores, found.valid.tolist(), strict=True):
        finite = not isinstance(label, float) or math.isfinite(label)
        if not valid or not finite or (score is not None and not np.isfinite(score).all()):
            rows.append((None, None, MODEL_NOT_FINITE))
        elif label is not None and not isinstance(label, (str, int, float, bool)):
            rows.append((None, None, MODEL_NONSENSE))
        else:
            rows.append((label, score, None))
    return rows
