"""One version's threshold for each group, as it is served.

The model's own process answers by the default threshold and never hears of a group.  Whoever
knows a row's group takes the answer anew from its score: the server one row at a time
(:class:`GroupThresholds`), the gate and a qualification many (:func:`by_group`).

Rule 1: a table tells the groups of one attribute apart.  Further attributes that a request
names are logged and decide nothing.

Rule 2: whoever names no group, or one without a threshold of its own, gets the default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy.typing as npt

    from mlguard.models.predictions import Predictions

_DEFAULT = "default"


class GroupThresholds:
    """The groups that have a threshold of their own.

    Parameters
    ----------
    attribute : str
        What tells them apart, e.g. ``"sex"``.
    by_value : mapping of str to float
        Threshold of each value of it.

    Examples
    --------
    >>> table = GroupThresholds.of({"default": 0.5, "sex=F": 0.4})
    >>> table.of_group({"sex": "F", "race": "B"}), table.of_group({"sex": "M"})
    (0.4, None)
    """

    __slots__ = ("attribute", "by_value")

    def __init__(self, attribute: str, by_value: Mapping[str, float]) -> None:
        self.attribute = attribute
        self.by_value = dict(by_value)

    @classmethod
    def of(cls, thresholds: Mapping[str, float]) -> Self | None:
        """Read a manifest's thresholds; None where there is one for all."""
        by_value = {}
        attribute = ""
        for key, threshold in thresholds.items():
            if key != _DEFAULT:
                attribute, _, value = key.partition("=")
                by_value[value] = float(threshold)
        return cls(attribute, by_value) if by_value else None

    def of_group(self, groups: Mapping[str, str]) -> float | None:
        """Return the threshold of a request's group; None: the default one."""
        value = groups.get(self.attribute)
        return None if value is None else self.by_value.get(value)


def by_group(
    answers: Predictions,
    classes: Sequence[Any] | None,
    thresholds: Mapping[str, float],
    groups: Mapping[str, npt.ArrayLike],
) -> Predictions:
    """Take each answer anew from its score and its group's threshold.

    Parameters
    ----------
    answers : Predictions
        Of a version, by its default threshold.
    classes : sequence or None
        Its classes; of two the second is the positive one.
    thresholds : mapping of str to float
        The version's.
    groups : mapping of str to array_like of shape (n_rows,)
        Each row's group by the attribute; None, or an attribute that is not there: the default.

    Returns
    -------
    Predictions
        The same object where there is one threshold for all, or nothing to take it from.
    """
    import numpy as np

    from mlguard.stats.thresholds import decide

    scores = answers.scores
    table = GroupThresholds.of(thresholds)
    if table is None or classes is None or scores is None or scores.ndim != 1:
        return answers
    if table.attribute not in groups:
        return answers
    positive = decide(scores, thresholds, {table.attribute: groups[table.attribute]})
    # In the dtype of the model's own labels, whose classes they are.
    own = np.asarray(classes, dtype=answers.labels.dtype)
    return dataclasses.replace(answers, labels=own[positive.astype(np.intp)])
