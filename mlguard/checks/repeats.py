"""Rows that occur twice, and test rows that the model was trained on: counted exactly, by hash.

The only checks of the data that remember every row, at 8 bytes each; the rows themselves are
never held.  ``[data] id`` does not count as content, for overlap neither does ``[data] time``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlguard.checks.counted import FEWEST, judge_share, too_few
from mlguard.checks.evidence import Subject
from mlguard.checks.failing_rows import list_rows
from mlguard.config import RepeatedCheck
from mlguard.errors import DataError
from mlguard.results import Finding, Measurement, Verdict
from mlguard.wording import count, share

if TYPE_CHECKING:
    import numpy as np

    from mlguard.data.row_hashes import Hashes
    from mlguard.data.scan import TableScan

_DEFAULT = RepeatedCheck()
DUPLICATES, OVERLAP = "data_quality.duplicates", "data_quality.overlap"


def duplicates(subject: Subject, policy: RepeatedCheck = _DEFAULT) -> Finding:
    """Judge how many rows repeat an earlier one of their file exactly."""
    from mlguard.data.row_hashes import repeats

    scans = {"test": subject.test_scan, "train": subject.train_scan}
    found: dict[str, tuple[np.ndarray, int]] = {}
    for part, scan in scans.items():
        if scan is None:
            continue
        columns = [name for name in scan.names if name != subject.settings.data.id]
        found[part] = repeats(_hashes(subject, part, scan, columns)), scan.n_rows
        list_rows(subject, DUPLICATES, part, found[part][0], rule="repeats an earlier row")
    told = ", ".join(f"{count(len(places))} in {part}" for part, (places, _) in found.items())
    measured = tuple(
        Measurement(name="repeats", group=f"[data] {part}", value=len(places) / n, n=n)
        for part, (places, n) in found.items()
    )
    judged = [
        _judged(
            DUPLICATES,
            len(places),
            n,
            f"rows that repeat an earlier row of their file: {told}",
            policy=policy,
            next_step="remove the repeats, or name the column that tells rows apart in [data] id"
            + subject.rows_listed,
            measurements=measured,
        )
        for places, n in found.values()
    ]
    # What is worst of the two files speaks for both.
    return max(judged, key=lambda one: (one.verdict.severity, one.value or 0.0))


def overlap(subject: Subject, policy: RepeatedCheck = _DEFAULT) -> Finding:
    """Judge how many test rows the model was trained on."""
    import numpy as np

    from mlguard.data.row_hashes import known_rows

    train, test = subject.train_scan, subject.test_scan
    # Not declared without training rows: whoever asks has some.
    assert train is not None
    data = subject.settings.data
    columns = [name for name in test.names if name in train and name not in (data.id, data.time)]
    if not columns:
        raise DataError(
            "test and train share no column, so no row of one can be in the other",
            hint="correct [data] train or [data] test",
        )
    known = _hashes(subject, "train", train, columns)
    places = np.flatnonzero(known_rows(_hashes(subject, "test", test, columns), known))
    list_rows(subject, OVERLAP, "test", places, rule="is in train too")
    return _judged(
        OVERLAP,
        len(places),
        test.n_rows,
        f"{count(len(places))} of {count(test.n_rows)} test rows are in train too",
        policy=policy,
        next_step="split again so that no row is in both, for on known rows every figure "
        f"flatters{subject.rows_listed}",
    )


def _hashes(subject: Subject, part: str, scan: TableScan, columns: list[str]) -> Hashes:
    from mlguard.data.row_hashes import row_hashes

    data = subject.settings.data
    return row_hashes(
        subject.settings.path(getattr(data, part)),
        columns,
        {name: scan[name].column.kind for name in columns},
        missing_values=data.missing_values,
    )


def _judged(
    check: str,
    repeated: int,
    n: int,
    told: str,
    *,
    policy: RepeatedCheck,
    next_step: str,
    measurements: tuple[Measurement, ...] = (),
) -> Finding:
    if n < FEWEST:
        return too_few(check, n, policy.at_most)
    judged = judge_share(repeated, n, limit=policy.at_most, policy=policy)
    decided = judged.verdict in (Verdict.PASSED, Verdict.FAILED)
    return Finding(
        id=check,
        verdict=judged.verdict,
        summary=f"{told}; limit {share(policy.at_most)}"
        + ("" if decided else f"; {judged.explain()}"),
        value=judged.value,
        limit=policy.at_most,
        interval=judged.interval,
        n=n,
        n_min=judged.n_needed,
        reason=judged.reason,
        next_step=""
        if judged.verdict is Verdict.PASSED
        else judged.next_step
        if judged.verdict is Verdict.INCONCLUSIVE and judged.next_step
        else next_step,
        measurements=measurements,
    )
