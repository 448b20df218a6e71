"""Whether enough of the labels that are due have come to say anything about them."""

from __future__ import annotations

from mlguard.monitors.window import Coverage
from mlguard.results import MonitorResult, Verdict, Window
from mlguard.wording import share

#: Due rows below which a share of labels says nothing.
N_MIN = 20


def immature(
    id: str,  # noqa: A002  the name of the field it fills
    coverage: Coverage | None,
    *,
    min_coverage: float,
    version: str,
    window: Window,
    subject: str = "",
    sequential: bool = False,
) -> MonitorResult | None:
    """Return the undecided result of a window whose labels did not come.

    Parameters
    ----------
    id : str
        The monitor's check.
    coverage : Coverage or None
        Labels that were due, and those that came.
    min_coverage : float
        ``[labels] min_coverage``.
    version : str
        Name of the version that answered.
    window : Window
        The rows that it is about.
    subject : str
        The attribute judged, if any.
    sequential : bool
        Whether the check is a sequential one.

    Returns
    -------
    MonitorResult or None
        INCONCLUSIVE(no_labels), or None where enough labels came or too few were due.
    """
    if coverage is None or coverage.n_due < N_MIN or coverage.share >= min_coverage:
        return None
    return MonitorResult(
        id=id,
        subject=subject,
        verdict=Verdict.INCONCLUSIVE,
        summary=f"{coverage.n_labelled} of {coverage.n_due} labels that are due have come "
        f"({share(coverage.share)}), {share(min_coverage)} are needed",
        reason="no_labels",
        n=coverage.n_due,
        n_min=N_MIN,
        version=version,
        window=window,
        sequential=sequential,
        next_step="send labels to /{app}/update, or raise [labels] delay",
        details={"n_due": coverage.n_due, "n_labelled": coverage.n_labelled},
    )
