"""The candidate's error in training, on held-out rows and in test, and what that says of it.

A fact that is reported beside the comparison with the baseline, and decides nothing: whether to
look for a better model, for more data, or for what is different about the test rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlguard.checks.labels import as_numbers, equal_labels, labelled_rows
from mlguard.checks.side_by_side import Metric
from mlguard.stats.decomposition import decompose
from mlguard.wording import number

if TYPE_CHECKING:
    from mlguard.checks.evidence import JudgedModel, Subject

#: More rows than this tell no more of an error; the first ones of a fixed order are taken.
_MOST_ROWS = 50_000
_SEED = 20_240_504
_ADVICE = {
    "bias": "bias: a richer model or better features",
    "variance": "variance: more training rows, or a simpler model",
    "mismatch": "mismatch: the test rows are not like the training rows",
    "live mismatch": "live mismatch: what is served is not what was tested",
    "variance or mismatch": "variance or mismatch: name held-out training rows in [data] dev to "
    "tell which",
}


def error_note(subject: Subject, metric: Metric) -> tuple[dict[str, Any], list[str]]:
    """Return the candidate's errors by part of the data, and a sentence about them.

    Nothing of either where there are no training rows to compare with.
    """
    if subject.train is None:
        return {}, []
    found = {
        part: _error(subject.candidate, frame, metric)
        for part, frame in (
            ("train", subject.train),
            ("dev", subject.dev),
            ("test", subject.labelled),
        )
        if frame is not None
    }
    if any(not math.isfinite(one) for one in found.values()):
        return {"error": found}, []
    apart = decompose(found["train"], dev=found.get("dev"), test=found["test"])
    said = ", ".join(
        f"{number(size)} {words}"
        for words, size in zip(
            ("in training", "on held-out rows", "in test")
            if "dev" in found
            else ("in training", "in test"),
            found.values(),
            strict=True,
        )
    )
    facts = {"error": found, "parts": apart.parts, "named": list(apart.named)}
    advice = "; ".join(_ADVICE[part] for part in apart.named)
    return facts, [f"error {said}" + (f": {advice}" if advice else "")]


def _error(model: JudgedModel, frame: Any, metric: Metric) -> float:
    import numpy as np

    rows = labelled_rows(frame, model.target)
    if len(rows) > _MOST_ROWS:
        rows = rows.sample(_MOST_ROWS, random_state=_SEED)
    answer = model.predict(rows)
    truth = rows[model.target].to_numpy()
    usable = np.asarray(answer.valid, bool)
    if not usable.all():
        return math.nan
    if metric == "accuracy":
        return float((~equal_labels(truth, answer.labels)).mean())
    wanted = as_numbers(truth, whose=model.target)
    return float(np.abs(wanted - as_numbers(answer.labels, whose=model.name)).mean())
