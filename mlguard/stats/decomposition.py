"""Where an error comes from: bias, variance, or data that is not like the training data.

Errors on rows that are one step further from the training each time are subtracted from each
other (Ng, *Machine Learning Yearning*, 2018, chapters 20 to 43): training rows, held-out rows
like them (dev), test rows, live rows.  1 / 5 / 5 is variance, 10 / 11 / 12 is bias, 10 / 11 /
20 is bias and mismatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["bias", "variance", "mismatch", "live mismatch", "variance or mismatch"]

#: Share of the largest part that another one needs to be named beside it.
NAMED = 0.5


@dataclass(frozen=True, slots=True)
class Decomposition:
    """An error, taken apart.

    Attributes
    ----------
    parts : dict of str to float
        Every part in the errors' unit; negative where the error shrinks.
    named : tuple of str
        The parts worth working on, largest first; empty where there is no error.
    """

    parts: dict[Part, float]
    named: tuple[Part, ...]


def decompose(
    train: float,
    *,
    test: float,
    dev: float | None = None,
    live: float | None = None,
    best: float = 0.0,
) -> Decomposition:
    """Take an error apart.

    Parameters
    ----------
    train, test : float
        Errors on the training and on the test rows; smaller is better, no NaN.
    dev : float, optional
        Error on held-out rows like the training rows.  Without it variance and mismatch cannot
        be told apart, and the part is called ``"variance or mismatch"``.
    live : float, optional
        Error on live rows.
    best : float, default 0
        Error of the best that anybody could do, e.g. of people.

    Returns
    -------
    Decomposition

    Examples
    --------
    >>> decompose(1, dev=5, test=5).named
    ('variance',)
    >>> decompose(10, dev=11, test=12).named
    ('bias',)
    >>> decompose(10, dev=11, test=20).named
    ('bias', 'mismatch')
    """
    parts: dict[Part, float] = {"bias": train - best}
    if dev is None:
        parts["variance or mismatch"] = test - train
    else:
        parts["variance"] = dev - train
        parts["mismatch"] = test - dev
    if live is not None:
        parts["live mismatch"] = live - test
    largest = max(parts.values())
    named = sorted(
        (part for part, size in parts.items() if size > 0 and size >= NAMED * largest),
        key=lambda part: -parts[part],
    )
    return Decomposition(parts, tuple(named))
