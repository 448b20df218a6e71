"""What a model answered for some rows, and how labels are taken from scores.

Labels of two classes are taken from the score and the version's own threshold, never from the
model's own choice, so that the threshold on the version's card is the one in force.  A row
whose score is not finite is not valid; the others of its batch are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What a model answered for some rows.

    Attributes
    ----------
    labels : ndarray of shape (n_rows,)
        Classes in the dtype of the model's own, or float64 for a regression.
    scores : ndarray of float64, shape (n_rows,) or (n_rows, n_classes), or None
        Two classes: score of the second, in [0, 1].  More classes: one column for each, in the
        order of the schema's classes.  Regression: the value.  None: the model gives none.
    valid : ndarray of bool, shape (n_rows,)
        False where the model raised or answered NaN or infinity; label and score of such a
        row mean nothing.
    reasons : dict of int to str
        Why a row is not valid, by its place.
    """

    labels: npt.NDArray[Any]
    scores: npt.NDArray[np.float64] | None
    valid: npt.NDArray[np.bool_]
    reasons: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def outputs(self) -> list[Any]:
        """Return the labels as Python scalars: ``0``, not ``np.int64(0)``."""
        return [one.item() if isinstance(one, np.generic) else one for one in self.labels.tolist()]

    def to_json(self) -> dict[str, Any]:
        """Return the predictions as JSON values; scores of invalid rows may be NaN."""
        return {
            "labels": self.outputs(),
            "scores": None if self.scores is None else self.scores.tolist(),
            "valid": self.valid.tolist(),
            "reasons": {str(place): why for place, why in self.reasons.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Predictions:
        """Rebuild the predictions from :meth:`to_json`."""
        scores = document["scores"]
        return cls(
            as_labels(document["labels"]),
            None if scores is None else np.asarray(scores, np.float64),
            np.asarray(document["valid"], np.bool_),
            {int(place): why for place, why in document["reasons"].items()},
        )


def as_labels(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Return Python scalars as an array: numbers in their own dtype, text as objects."""
    if all(isinstance(one, (bool, int, float)) for one in values):
        return np.asarray(values)
    return np.asarray(values, dtype=object)


def decided(
    scores: npt.NDArray[np.float64], classes: npt.NDArray[Any], threshold: float
) -> Predictions:
    """Take each row's label from its scores.

    Parameters
    ----------
    scores : ndarray of shape (n_rows,) or (n_rows, n_classes)
        As :class:`Predictions` holds them.
    classes : ndarray of shape (n_classes,)
        The labels, in the order of the scores.
    threshold : float
        Score from which the second of two classes is answered.
    """
    if scores.ndim == 1:
        valid = np.isfinite(scores)
        # Comparing NaN is False, hence the first class: `valid` says it means nothing.
        chosen = (scores >= threshold).astype(np.intp)
    else:
        finite = np.isfinite(scores)
        valid = np.asarray(finite.all(axis=1), np.bool_)
        chosen = np.argmax(np.where(finite, scores, -np.inf), axis=1)
    return Predictions(classes[chosen], scores, *validity(valid))


def known(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell which labels are there: neither None nor NaN nor infinite."""
    if labels.dtype == object:
        return np.array([one is not None and one == one for one in labels], np.bool_)
    if np.issubdtype(labels.dtype, np.floating):
        return np.asarray(np.isfinite(labels), np.bool_)
    return np.ones(len(labels), np.bool_)


def validity(valid: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], dict[int, str]]:
    """Return the two fields of :class:`Predictions` that say which rows are answered."""
    if valid.all():
        return valid, {}
    bad = np.flatnonzero(~valid)
    return valid, {int(place): "the model answered NaN or infinity" for place in bad}


def joined(first: Predictions, second: Predictions) -> Predictions:
    """Return the answers to two parts of a batch as those to the whole."""
    scores = None
    if first.scores is not None or second.scores is not None:
        scores = np.concatenate([_scores_like(first, second), _scores_like(second, first)])
    shifted = {place + len(first): why for place, why in second.reasons.items()}
    return Predictions(
        np.concatenate([first.labels, second.labels]),
        scores,
        np.concatenate([first.valid, second.valid]),
        {**first.reasons, **shifted},
    )


def _scores_like(one: Predictions, other: Predictions) -> npt.NDArray[np.float64]:
    """Return the scores, or NaN in the other's shape where all rows failed."""
    if one.scores is not None:
        return one.scores
    assert other.scores is not None
    return np.full((len(one), *other.scores.shape[1:]), np.nan)
