"""What the monitors compare live traffic with: the reference of one candidate.

Made from ``[data] test`` at the gate, where its rows and the candidate's predictions are at
hand, and stored by the version's digest.  It holds counts and profiles, never rows.

========================= =====================================================================
key                       meaning
========================= =====================================================================
``schema_version``        ``"1.0"``; a minor version only adds keys
``task``, ``n_rows``      of the test part
``profile``               :class:`mlguard.data.profile.Profile` of the features, and of the
                          score under ``"score"``
``kinds``                 kind of each feature
``loss``                  ``kind`` (``"error"``: 0 or 1 a row; ``"absolute_error"``), ``n``,
                          ``sum``, ``squares``, ``mean``, and for errors ``n_errors``; for
                          absolute errors ``scale``, the 99th percentile of the residuals
``groups``                per attribute and value: ``n``, the loss's sums, and for a classifier
                          ``confusion``: ``tp fp fn tn correct``, the positive class against
                          the rest
``positive``              the class that counts as positive; null without one
``classes``               labels of the test part and how often each occurs
``predicted``             the same of the candidate's predictions
========================= =====================================================================
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mlguard.checks.baseline import equal_labels
from mlguard.checks.evidence import Subject
from mlguard.errors import ModelRunError

if TYPE_CHECKING:
    import numpy as np

SCHEMA_VERSION = "1.0"
_SCALE_QUANTILE = 0.99


def reference_document(subject: Subject) -> dict[str, Any]:
    """Return the reference of a subject's candidate as strict JSON values.

    Parameters
    ----------
    subject : Subject
        Candidate and test rows.

    Returns
    -------
    dict
        As the head of this module lists it.

    Raises
    ------
    ModelRunError
        If the candidate gave no usable prediction on a labelled row: it has no loss then.
    DataError
        If there are no labelled test rows.
    """
    import numpy as np

    rows, truth = subject.labelled, subject.truth
    candidate = subject.candidate
    answers = candidate.predict(rows)
    unusable = int(np.count_nonzero(~np.asarray(answers.valid, bool)))
    if unusable:
        raise ModelRunError(
            f"{candidate.name} gave no usable prediction on {unusable} of {len(rows)} rows",
            hint="let the model handle every row of [data] test",
        )
    regression = subject.settings.app.task == "regression"
    columns, kinds = _columns(subject)
    loss = (
        np.abs(truth.astype(float) - answers.labels.astype(float))
        if regression
        else (~equal_labels(truth, answers.labels)).astype(float)
    )
    if answers.scores is not None and answers.scores.ndim == 1:
        from mlguard.data.profile import SCORE

        columns[SCORE], kinds[SCORE] = answers.scores, "number"
    from mlguard.data.profile import Profile

    classes = candidate.classes
    positive = classes[1] if classes is not None and len(classes) == 2 else None  # noqa: PLR2004
    kind = "absolute_error" if regression else "error"
    return {
        "schema_version": SCHEMA_VERSION,
        "task": subject.settings.app.task,
        "n_rows": len(rows),
        "profile": Profile.reference(columns, kinds).to_json(),
        "kinds": kinds,
        "loss": {
            "kind": kind,
            **_sums(loss, kind),
            "scale": float(np.quantile(loss, _SCALE_QUANTILE)) if regression else 1.0,
        },
        "groups": _groups(subject, loss, kind, answers.labels, positive),
        "positive": None if positive is None else _json(positive),
        "classes": {} if regression else _counted(truth),
        "predicted": {} if regression else _counted(answers.labels),
    }


def _columns(subject: Subject) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the features as the profile takes them, and their kinds."""
    from mlguard.data.schema import infer_schema

    frame = subject.labelled[subject.candidate.features]
    columns: dict[str, Any] = {}
    kinds: dict[str, Any] = {}
    for column in infer_schema(frame).columns:
        values = frame[column.name]
        kinds[column.name] = column.kind
        if column.kind == "time":
            import pandas as pd

            columns[column.name] = pd.to_datetime(values, utc=True).dt.tz_localize(None).to_numpy()
        else:
            columns[column.name] = values.to_numpy()
    return columns, kinds


def _sums(loss: np.ndarray, kind: str) -> dict[str, Any]:
    total = float(loss.sum())
    sums: dict[str, Any] = {
        "n": len(loss),
        "sum": total,
        "squares": float(loss @ loss),
        "mean": total / len(loss) if len(loss) else None,
    }
    return sums | ({"n_errors": int(total)} if kind == "error" else {})


def _groups(
    subject: Subject, loss: np.ndarray, kind: str, labels: np.ndarray, positive: Any
) -> dict[str, dict[str, Any]]:
    from mlguard.stats.rates import Confusion, group_codes

    found: dict[str, dict[str, Any]] = {}
    settings = subject.settings
    attributes = dict.fromkeys(
        [*settings.data.sensitive, *settings.gate.fairness.by, *settings.monitor.fairness.by]
    )
    for attribute in attributes:
        if attribute not in subject.labelled.columns:
            continue
        values = subject.labelled[attribute].to_numpy(object, na_value=None)
        names, codes = group_codes(values)
        found[attribute] = {
            name: _sums(loss[codes == place], kind) for place, name in enumerate(names)
        }
        if kind == "error":
            table = Confusion.count(
                subject.truth.astype(object), labels.astype(object), values, positive=positive
            )
            for name, counts in table.to_json().items():
                found[attribute][name]["confusion"] = counts
    return found


def _counted(values: np.ndarray) -> dict[str, int]:
    return {str(_json(key)): n for key, n in Counter(values.tolist()).most_common()}


def _json(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else str(value)
