"""Many looks, one error rate.

Simultaneous statements share one error: over all pairs of groups (Sidak), over all features
of a window (Bonferroni), over all detectors on one label clock (run lengths add as rates).
"""

from __future__ import annotations

import math

from mlguard.errors import UsageError


def sidak(family_error: float, n: int) -> float:
    """Return the error of each of ``n`` statements so that all hold together.

    Exact for independent statements and safe for positively dependent two-sided ones.

    Parameters
    ----------
    family_error : float
        Error of the family, in (0, 1).
    n : int
        Number of statements, at least 1.

    Returns
    -------
    float

    Raises
    ------
    UsageError
        If ``n < 1`` or the error is not inside (0, 1).

    References
    ----------
    Sidak (1967), J. Am. Stat. Assoc. 62:626-633.

    Examples
    --------
    >>> round(sidak(0.05, 10), 6)
    0.005116
    """
    _check(family_error, n)
    # 1 - (1 - error) ** (1 / n), without losing the digits of a small error.
    return -math.expm1(math.log1p(-family_error) / n)


def bonferroni(family_error: float, n: int) -> float:
    """Return the error of each of ``n`` statements, whatever their dependence.

    Parameters
    ----------
    family_error : float
        Error of the family, in (0, 1).
    n : int
        Number of statements, at least 1.

    Returns
    -------
    float

    Raises
    ------
    UsageError
        If ``n < 1`` or the error is not inside (0, 1).

    Examples
    --------
    >>> bonferroni(0.05, 10)
    0.005
    """
    _check(family_error, n)
    return family_error / n


def shared_run_length(average_run_length: float, n: int) -> float:
    """Return the run length each of ``n`` detectors needs to keep one promise together.

    False alarms add as rates, ``1 / A = sum(1 / A_i)``, so equal shares are ``n * A`` each.

    Parameters
    ----------
    average_run_length : float
        Labels to a false alarm of any of them, at least.
    n : int
        Detectors on the same label clock, at least 1.

    Returns
    -------
    float

    Raises
    ------
    UsageError
        If ``n < 1``.

    Examples
    --------
    >>> shared_run_length(100_000, 4)
    400000
    """
    if n < 1:
        raise UsageError(f"{n} detectors cannot share a promise; expected at least 1")
    return average_run_length * n


def _check(family_error: float, n: int) -> None:
    if n < 1 or not 0 < family_error < 1:
        raise UsageError(
            f"cannot share an error of {family_error} among {n} statements",
            hint="the error lies between 0 and 1, and there is at least one statement",
        )
