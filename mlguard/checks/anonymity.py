"""How many rows look alike in the columns that could single a person out: k-anonymity.

Combinations are counted exactly, by hash; a missing value is a value like any other.

References
----------
Sweeney (2002), k-anonymity: a model for protecting privacy, IJUFKS 10:557-570.
"""

from __future__ import annotations

from mlguard.checks.evidence import Subject
from mlguard.checks.failing_rows import list_rows
from mlguard.checks.labels import nearest
from mlguard.config import AnonymityCheck
from mlguard.errors import DataError
from mlguard.results import Finding, Measurement, Verdict
from mlguard.wording import count, listed, printable, share

CHECK = "privacy.k_anonymity"


def k_anonymity(subject: Subject, policy: AnonymityCheck) -> Finding:
    """Judge the smallest group of rows that share a combination of values, in either file.

    Raises
    ------
    DataError
        If a column is absent.
    """
    import numpy as np

    from mlguard.data.row_hashes import row_hashes

    data = subject.settings.data
    smallest: dict[str, tuple[int, int, int]] = {}
    for part, scan in (("test", subject.test_scan), ("train", subject.train_scan)):
        if scan is None:
            continue
        for name in policy.columns:
            if name not in scan:
                raise DataError(
                    f"[data] {part} has no column {name!r}" + nearest(name, scan.names),
                    hint="correct [gate.privacy.k_anonymity] columns",
                )
        hashes = row_hashes(
            subject.settings.path(getattr(data, part)),
            policy.columns,
            {name: scan[name].column.kind for name in policy.columns},
            missing_values=data.missing_values,
        )
        _, place, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
        few = sizes[place] < policy.at_least
        smallest[part] = int(sizes.min()), int(few.sum()), len(hashes)
        rule = f"fewer than {policy.at_least} rows look like it"
        list_rows(
            subject, CHECK, part, np.flatnonzero(few), rule=rule, column=" × ".join(policy.columns)
        )
    bad = {part: one for part, one in smallest.items() if one[1]}
    columns = listed([printable(one, 40) for one in policy.columns])
    worst = max(smallest, key=lambda part: smallest[part][1] / smallest[part][2])
    told = "; ".join(
        f"{count(few)} of {count(n)} rows of {part} ({share(few / n)})"
        for part, (_, few, n) in bad.items()
    )
    return Finding(
        id=CHECK,
        verdict=Verdict.FAILED if bad else Verdict.PASSED,
        summary=f"fewer than {policy.at_least} rows share their {columns}: {told}"
        if bad
        else f"every combination of {columns} is shared by at least "
        f"{count(min(size for size, _, _ in smallest.values()))} rows; limit {policy.at_least}",
        value=float(min(size for size, _, _ in smallest.values())),
        limit=float(policy.at_least),
        n=smallest[worst][2],
        reason="few_alike" if bad else "",
        next_step="make these columns coarser (bands of age, parts of a postcode), or drop "
        f"one{subject.rows_listed}"
        if bad
        else "",
        measurements=tuple(
            Measurement(name="rows that stand out", group=f"[data] {part}", value=few / n, n=n)
            for part, (_, few, n) in smallest.items()
        ),
    )
