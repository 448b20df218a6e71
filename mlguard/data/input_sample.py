"""Which rows' inputs are kept where the log keeps a sample of them.

The draw is a function of the query id alone: every process draws alike, a mirror keeps the rows
that the live version kept, and a row stays in the sample whoever reads it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def in_sample(query_ids: npt.ArrayLike, rate: float) -> npt.NDArray[np.bool_]:
    """Return which predictions are in the sample.

    Parameters
    ----------
    query_ids : array_like of int, shape (n_rows,)
    rate : float
        Share of all, in [0, 1].

    Returns
    -------
    ndarray of bool, shape (n_rows,)
        A larger rate keeps what a smaller one keeps.

    References
    ----------
    The mixing function is SplitMix64's: Steele, Lea & Flood, "Fast splittable pseudorandom
    number generators", OOPSLA 2014.

    Examples
    --------
    >>> in_sample(range(5), 1.0).all()
    np.True_
    >>> round(in_sample(range(100_000), 0.1).mean(), 2)
    np.float64(0.1)
    """
    mixed = np.asarray(query_ids, np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is what is meant
        mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    # 53 bits, so that every one of them is a float exactly.
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) < rate * 2.0**53)
