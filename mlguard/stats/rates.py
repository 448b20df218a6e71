"""Rates of each group, counted once and divided by the right denominator.

:class:`Confusion` holds one confusion table per group.  It adds up, so windows of traffic can
be counted apart and judged together.  A rate keeps its denominator: a true positive rate over
three positives is no true positive rate over three thousand, and 0/0 is undefined, not 0.

Metrics have fairlearn's names.  A classifier of many classes is judged one class against the
rest; ``accuracy`` counts all classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.stats.interval import FloatArray

RateMetric: TypeAlias = Literal[
    "selection_rate",
    "true_positive_rate",
    "false_positive_rate",
    "false_negative_rate",
    "true_negative_rate",
    "precision",
    "accuracy",
]
RATE_METRICS: tuple[RateMetric, ...] = get_args(RateMetric)
#: What each metric divides, and by what: columns of a confusion table.
PARTS: dict[RateMetric, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "selection_rate": (("tp", "fp"), ("tp", "fp", "fn", "tn")),
    "true_positive_rate": (("tp",), ("tp", "fn")),
    "false_positive_rate": (("fp",), ("fp", "tn")),
    "false_negative_rate": (("fn",), ("tp", "fn")),
    "true_negative_rate": (("tn",), ("fp", "tn")),
    "precision": (("tp",), ("tp", "fp")),
    "accuracy": (("correct",), ("tp", "fp", "fn", "tn")),
}
#: Whom each denominator counts, for people.
DENOMINATORS: dict[RateMetric, str] = {
    "selection_rate": "rows",
    "true_positive_rate": "positives",
    "false_positive_rate": "negatives",
    "false_negative_rate": "positives",
    "true_negative_rate": "negatives",
    "precision": "rows predicted positive",
    "accuracy": "rows",
}
_COLUMNS = ("tp", "fp", "fn", "tn", "correct")
#: Group of the rows whose attribute is missing: they are people too.
MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its denominator.

    Attributes
    ----------
    successes : float
        Rows counted in the numerator.
    n : int
        Rows in the denominator; of weighted rows, as many equally weighted ones as say as much.

    Examples
    --------
    >>> Rate(3, 12).value, Rate(0, 0).value
    (0.25, None)
    """

    successes: float
    n: int

    @property
    def value(self) -> float | None:
        """The share in [0, 1], or None where it is 0/0."""
        return self.successes / self.n if self.n else None


@dataclass(frozen=True, slots=True)
class Confusion:
    """One confusion table per group.

    Attributes
    ----------
    counts : dict of str to dict of str to int
        Per group ``tp``, ``fp``, ``fn``, ``tn`` and ``correct`` (rows whose class was hit).

    Examples
    --------
    >>> table = Confusion.count([1, 0, 1, 0], [1, 1, 0, 0], ["a", "a", "b", "b"])
    >>> table.rates("false_positive_rate")
    {'a': Rate(successes=1, n=1), 'b': Rate(successes=0, n=1)}
    >>> (table + table).rates("accuracy")["a"]
    Rate(successes=2, n=4)
    """

    counts: dict[str, dict[str, int]]

    @classmethod
    def count(
        cls,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        groups: npt.ArrayLike,
        *,
        positive: Any = 1,
    ) -> Self:
        """Count from rows.

        Parameters
        ----------
        y_true, y_pred : array_like of shape (n_rows,)
            True and predicted classes; rows without a label are left out by the caller.
        groups : array_like of shape (n_rows,)
            Value of the sensitive attribute; None and NaN form the group "(missing)".
        positive : object, default 1
            The class that counts as positive; all others are negative.

        Returns
        -------
        Confusion
            Groups in the order of their names.

        Raises
        ------
        UsageError
            If the arrays do not have the same length.
        """
        true, predicted = np.asarray(y_true), np.asarray(y_pred)
        names, codes = group_codes(groups)
        if not true.shape == predicted.shape == codes.shape:
            raise UsageError(
                f"y_true {true.shape}, y_pred {predicted.shape} and groups {codes.shape} "
                "must have one entry a row"
            )
        is_true, is_predicted = true == positive, predicted == positive
        parts = (
            is_true & is_predicted,
            ~is_true & is_predicted,
            is_true & ~is_predicted,
            ~is_true & ~is_predicted,
            true == predicted,
        )
        table = np.stack([np.bincount(codes[part], minlength=len(names)) for part in parts], axis=1)
        return cls(
            {
                name: dict(zip(_COLUMNS, (int(one) for one in row), strict=True))
                for name, row in zip(names, table, strict=True)
            }
        )

    def rates(self, metric: RateMetric) -> dict[str, Rate]:
        """Return one metric of every group.

        Parameters
        ----------
        metric : str
            One of :data:`RATE_METRICS`.

        Returns
        -------
        dict of str to Rate

        Raises
        ------
        UsageError
            If the metric is unknown.
        """
        if metric not in PARTS:
            raise UsageError(f"unknown rate {metric!r}; known: {', '.join(RATE_METRICS)}")
        above, below = PARTS[metric]
        return {
            name: Rate(sum(cell[part] for part in above), sum(cell[part] for part in below))
            for name, cell in self.counts.items()
        }

    def __add__(self, other: Confusion) -> Confusion:
        names = sorted({*self.counts, *other.counts})
        nothing = dict.fromkeys(_COLUMNS, 0)
        return Confusion(
            {
                name: {
                    part: self.counts.get(name, nothing)[part]
                    + other.counts.get(name, nothing)[part]
                    for part in _COLUMNS
                }
                for name in names
            }
        )

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return the tables as JSON values."""
        return {name: dict(cell) for name, cell in self.counts.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Mapping[str, int]]) -> Self:
        """Rebuild the tables from :meth:`to_json`."""
        return cls(
            {name: {part: cell[part] for part in _COLUMNS} for name, cell in document.items()}
        )


def group_codes(groups: npt.ArrayLike) -> tuple[list[str], npt.NDArray[np.intp]]:
    """Return the names of the groups, sorted, and the index of each row's group.

    Parameters
    ----------
    groups : array_like of shape (n_rows,)
        Any values; they are told apart and named by their text.

    Returns
    -------
    names : list of str
    codes : ndarray of int, shape (n_rows,)

    Examples
    --------
    >>> group_codes(["m", None, "f", "m"])
    (['(missing)', 'f', 'm'], array([2, 0, 1, 2]))
    """
    values = np.asarray(groups)
    if values.dtype.kind == "O":
        texts = np.array([MISSING if _is_missing(one) else str(one) for one in values], dtype=str)
        found, codes = np.unique(texts, return_inverse=True)
    else:
        found, codes = np.unique(values, return_inverse=True)
    names = [MISSING if _is_missing(one) else str(one) for one in found.tolist()]
    return names, codes.ravel()


def _is_missing(value: object) -> bool:
    # NaN, NaT and pandas' NA are the values that do not equal themselves, or cannot say.
    if value is None:
        return True
    try:
        return bool(value != value)  # the test for NaN
    except TypeError:
        return True


def group_rates(
    metric: RateMetric,
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    positive: Any = 1,
) -> dict[str, Rate]:
    """Return one metric of every group, from rows.

    Parameters
    ----------
    metric : str
        One of :data:`RATE_METRICS`.
    y_true, y_pred, groups, positive
        As in :meth:`Confusion.count`.

    Returns
    -------
    dict of str to Rate

    Raises
    ------
    UsageError
        If the metric is unknown or the arrays do not have the same length.

    Examples
    --------
    >>> group_rates("true_positive_rate", [1, 1, 0], [1, 0, 1], ["f", "f", "m"])
    {'f': Rate(successes=1, n=2), 'm': Rate(successes=0, n=0)}
    """
    return Confusion.count(y_true, y_pred, groups, positive=positive).rates(metric)


def group_losses(losses: npt.ArrayLike, groups: npt.ArrayLike) -> dict[str, FloatArray]:
    """Split losses by group.

    Parameters
    ----------
    losses : array_like of shape (n_rows,)
        One loss a row, e.g. absolute errors.
    groups : array_like of shape (n_rows,)
        Value of the sensitive attribute; None and NaN form the group "(missing)".

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    UsageError
        If the arrays do not have the same length.

    Examples
    --------
    >>> {name: one.tolist() for name, one in group_losses([1, 2, 3], ["a", "b", "a"]).items()}
    {'a': [1.0, 3.0], 'b': [2.0]}
    """
    values = np.asarray(losses, float)
    names, codes = group_codes(groups)
    if values.shape != codes.shape:
        raise UsageError(f"{values.shape} losses for {codes.shape} groups; one a row expected")
    return {name: values[codes == code] for code, name in enumerate(names)}


def pooled(rates: Sequence[Rate]) -> float:
    """Return the rate of several groups together; ``nan`` without rows.

    Examples
    --------
    >>> pooled([Rate(1, 4), Rate(5, 8)])
    0.5
    """
    n = sum(one.n for one in rates)
    return sum(one.successes for one in rates) / n if n else float("nan")
