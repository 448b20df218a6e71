"""One promise for all sequential monitors of an app: how rare a false alarm is.

Each label is looked at by one detector of the version as a whole, and for each attribute by the
detector of the one group that its row belongs to.  The evidence of any detector grows, while all
is well, by no more than one in expectation with each label that it looks at, so the evidence of
all together by no more than the number of such looks a label, D.  At the first alarm of any the
sum has reached the threshold; a threshold of ``D * A`` therefore promises ``A`` labels of the
app, on average, to a false alarm of any of them.  (As rates: ``1 / A = sum(1 / A_i)``, where
``A_i`` is a detector's run in labels of the app; a small group's labels are far apart.)  It is
not the number of groups that costs, but the number of attributes.
"""

from __future__ import annotations

from mlguard.config import AppSettings
from mlguard.stats.multiplicity import shared_run_length


def looks_per_label(app: AppSettings) -> int:
    """Return how many sequential detectors look at one label of an app, at most."""
    tables = app.monitor
    attributes = dict.fromkeys(tables.fairness.by or app.data.sensitive)
    of_groups = len(attributes) if tables.fairness.enabled else 0
    # A detector of river's promises nothing, so it takes no part of the promise.
    table = tables.concept_drift
    return int(table.enabled and table.detector == "e-detector") + of_groups


def own_run_length(average_run_length: float, app: AppSettings) -> float:
    """Return the run length of one detector, so that all of an app keep one promise together.

    Parameters
    ----------
    average_run_length : float
        Labels of the app to a false alarm of any of them, at least.
    app : AppSettings
        Says which monitors there are.

    Returns
    -------
    float
        In labels that the detector looks at.
    """
    return shared_run_length(average_run_length, max(1, looks_per_label(app)))
