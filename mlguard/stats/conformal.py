"""Split-conformal prediction: sets and intervals that hold the truth as often as promised.

The scores say how strange the truth was on rows that the model has not seen; a new row whose
truth is as strange as all but a few of them is covered.  Whatever the model and the
distribution, as long as calibration rows and new rows are exchangeable, the truth is covered
with a probability of at least ``coverage``, over the choice of calibration rows as well as of
the new one.

References
----------
Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World; Sadinle, Lei and
Wasserman (2019), JASA 114:223-234, for sets from class probabilities.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError


def rows_needed(coverage: float) -> int:
    """Return the least calibration rows with which a coverage can be promised.

    Examples
    --------
    >>> rows_needed(0.9), rows_needed(0.99)
    (9, 99)
    """
    return math.ceil(round(coverage / (1 - coverage), 9))


def conformal_threshold(strangeness: npt.ArrayLike, coverage: float) -> float:
    """Return the strangeness up to which a row's candidate truth is kept.

    Parameters
    ----------
    strangeness : array_like of shape (n_rows,)
        How strange the truth of each calibration row was, e.g. one minus its probability, or
        the absolute residual; infinite where the model had no usable answer.  No NaN.
    coverage : float
        How often the truth is to be covered, in (0, 1).

    Returns
    -------
    float
        The ``ceil((n + 1) * coverage)``-th smallest, in the unit of the strangeness.

    Raises
    ------
    UsageError
        If there are fewer rows than the coverage needs, or a value is NaN.

    Examples
    --------
    >>> conformal_threshold(range(1, 20), 0.9)
    18.0
    """
    values = np.sort(np.asarray(strangeness, float))
    if not 0 < coverage < 1 or np.isnan(values).any():
        raise UsageError(f"coverage {coverage} of values that may be NaN cannot be promised")
    # Rounded first: 10 * 0.9 is a little more than 9 in binary.
    rank = math.ceil(round((values.size + 1) * coverage, 9))
    if rank > values.size:
        raise UsageError(
            f"a coverage of {coverage:g} takes at least {rows_needed(coverage)} calibration rows, "
            f"and there are {values.size}",
            hint="name more rows in [data] calibration, or ask for less coverage",
        )
    return float(values[rank - 1])
