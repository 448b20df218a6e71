"""How wrong each answer was, as a loss in [0, 1], and what loss a version was accepted with.

A classification loses 1 for a wrong class and 0 for the right one.  A regression loses its
absolute error divided by a stated scale, at most 1.  Default answers are no predictions of
the version and are left out: :mod:`mlguard.monitors.service` counts them.

The reference of a version tells its loss on the data it was accepted on, under ``"loss"``:
``n`` rows with ``n_errors`` errors; or ``n`` rows with the ``mean`` loss, in [0, 1], and the
``scale``, the absolute error that counts as 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlguard.data.joint import class_name
from mlguard.errors import UsageError
from mlguard.monitors.window import WindowData
from mlguard.stats.sequential import reference_bound

Task = Literal["classification", "regression"]


def row_losses(
    window: WindowData, *, task: Task, scale: float = 1.0, clip: bool = True
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return each row's loss and whether it has one.

    Parameters
    ----------
    window : WindowData
        Rows with labels.
    task : {"classification", "regression"}
        What kind of prediction it is.
    scale : float, default 1.0
        Absolute error of a regression that counts as a loss of 1.
    clip : bool, default True
        Whether a larger error counts as 1 too.

    Returns
    -------
    losses : ndarray of float64, shape (n_rows,)
        In [0, 1] if clipped; NaN where there is none.
    judged : ndarray of bool, shape (n_rows,)
        Labelled rows that the version itself answered.
    """
    judged = window.labelled & ~window.default
    losses = np.full(len(window), np.nan)
    for place in np.flatnonzero(judged):
        losses[place] = loss(
            window.output[place], window.label[place], task=task, scale=scale, clip=clip
        )
    judged &= ~np.isnan(losses)
    return losses, judged


def loss(output: Any, label: Any, *, task: Task, scale: float = 1.0, clip: bool = True) -> float:
    """Return the loss of one answer, NaN where the two cannot be compared."""
    if task == "classification":
        return 0.0 if same_class(output, label) else 1.0
    try:
        error = abs(float(output) - float(label))
    except (TypeError, ValueError):
        return float("nan")
    return min(error / scale, 1.0) if clip else error / scale


def same_class(output: Any, label: Any) -> bool:
    """Whether an answer and a label name one class, however each was written."""
    return bool(output == label) or class_name(output) == class_name(label)


def reference_scale(reference: Mapping[str, Any]) -> float:
    """Return the absolute error that counts as a loss of 1; 1 where none is stated."""
    scale = (reference.get("loss") or {}).get("scale")
    return float(scale) if scale else 1.0


def acceptable_loss(reference: Mapping[str, Any], *, tolerance: float) -> float:
    """Return theta: the upper bound of the reference's loss plus what is ignored.

    A mean of losses in [0, 1] varies no more than a share of errors with that mean, so the
    bound of a share is used for both.

    Raises
    ------
    UsageError
        If the version has no reference, or if nothing could ever exceed the result.
    """
    found = reference.get("loss") or {}
    n = int(found.get("n") or 0)
    if n < 1:
        raise UsageError(
            "the version has no loss on reference data",
            hint="deploy it again: the gate writes the reference",
        )
    errors = found.get("n_errors")
    total = float(found["mean"]) * n if errors is None else float(errors)
    return reference_bound(total, n, tolerance=tolerance)
