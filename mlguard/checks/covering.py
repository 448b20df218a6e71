"""Whether what answers say of their uncertainty is true: how often the truth is covered.

Judged on rows that the threshold was not measured on: the test rows, or their second half where
the first one calibrates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlguard.config import CoverageRule
from mlguard.results import Finding, Measurement, Verdict
from mlguard.stats.decision import judge_rate
from mlguard.stats.proportions import wilson_interval
from mlguard.wording import count, estimate, number, share

if TYPE_CHECKING:
    from mlguard.checks.evidence import Subject
    from mlguard.models.uncertainty import Uncertainty


def find_coverage(subject: Subject, rule: CoverageRule) -> Finding:
    """Whether the sets or intervals of answers hold the truth as often as promised.

    Parameters
    ----------
    subject : Subject
        The candidate, and an app whose ``uncertainty`` is true.
    rule : CoverageRule
        How far below the promise the coverage may lie.
    """
    import numpy as np

    from mlguard.checks.labels import equal_labels
    from mlguard.models.uncertainty import calibration_parts, strangeness

    promised = subject.uncertainty
    assert promised is not None, "declared only where it is offered"
    _, rows, _ = calibration_parts(subject.settings, subject.test)
    answer: Any = subject.candidate.predict(rows)
    truth = rows[subject.settings.data.target].to_numpy()
    classes = subject.candidate.classes
    covered = strangeness(answer, classes, truth) <= promised.threshold
    if classes is not None:
        # The answer itself is always in the set.
        covered |= equal_labels(truth, answer.labels) & np.asarray(answer.valid, bool)
    n, held = len(covered), int(covered.sum())
    least = promised.coverage - rule.tolerance
    judged = judge_rate(
        n - held,
        n,
        limit=1 - least,
        decide=rule.decide,
        confidence_level=rule.confidence_level,
    )
    low, high = wilson_interval(held, n, confidence_level=rule.confidence_level)
    undecided = f"; {judged.explain()}" if judged.verdict is Verdict.INCONCLUSIVE else ""
    return Finding(
        id="behaviour.coverage",
        verdict=judged.verdict,
        summary=f"answers hold the truth on {estimate(held / n, (low, high))} of {count(n)} rows; "
        f"promised are {share(promised.coverage)}, at least {share(least)} must be; "
        f"{_size(promised, answer)}{undecided}",
        value=held / n,
        limit=least,
        interval=(low, high),
        n=n,
        n_min=judged.n_needed,
        reason=judged.reason,
        next_step=""
        if judged.verdict is Verdict.PASSED
        else "calibrate on rows like those that are answered: name them in [data] calibration",
        measurements=(
            Measurement(name="covered", group="rows", value=held / n, n=n, low=low, high=high),
        ),
        details={"notes": [f"measured on {count(promised.n)} other rows"]},
    )


def _size(promised: Uncertainty, answer: Any) -> str:
    """Return how much the sets or intervals leave open."""
    if promised.kind == "interval":
        return f"an interval is {number(2 * promised.threshold)} wide"
    answered = zip(answer.labels.tolist(), answer.scores.tolist(), strict=True)
    sizes = [len((promised.said(label, one) or {"set": ()})["set"]) for label, one in answered]
    return f"a set holds {number(sum(sizes) / len(sizes))} classes on average"
