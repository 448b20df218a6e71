"""What the monitors compare live traffic with: the reference of one candidate.

Made from ``[data] test`` at the gate, where its rows and the candidate's predictions are at
hand, and stored by the version's digest.  It holds counts and profiles, never rows.

================== ========================================================================
key                meaning
================== ========================================================================
``schema_version`` ``"1.0"``; a minor version only adds keys
``task``           of the app
``n_rows``         labelled rows of the test part
``profile``        :class:`mlguard.data.profile.Profile` of the features, of the score under
                   ``"score"``, and of all of them and the answers by group
``kinds``          kind of each of them
``loss``           ``name`` (``"error"``: 0 or 1 a row; ``"absolute_error"``), ``n``, ``mean`` of
                   the loss in [0, 1], ``n_errors`` of errors, and ``scale``: the absolute
                   error that counts as 1
``groups``         per attribute and value the same figures, and for a classifier
                   ``confusion`` (``tp fp fn tn correct``)
``classes``        of a classifier, in the order of its scores; of two the second is positive
``class_counts``   how often each class occurs among the labels
``predicted``      how often each was predicted
``target``         of a regression, the profile of its labels
``estimation``     of a classifier of two classes with scores: ``calibration``, what its scores
                   meant on the test part, and ``figures``, per metric ``value`` and ``error``
================== ========================================================================
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mlguard.checks.evidence import Subject
from mlguard.checks.labels import attribute, equal_labels
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

    from mlguard.data.joint import class_name
    from mlguard.data.profile import SCORE, FeatureProfile, Profile

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
    if regression:
        residuals = np.abs(truth.astype(float) - answers.labels.astype(float))
        # A model without a residual has no scale of its own.
        scale = float(np.quantile(residuals, _SCALE_QUANTILE)) or 1.0
        loss = np.minimum(residuals / scale, 1.0)
    else:
        scale = 1.0
        loss = (~equal_labels(truth, answers.labels)).astype(float)
    if answers.scores is not None and answers.scores.ndim == 1:
        columns[SCORE], kinds[SCORE] = answers.scores, "number"
    classes = None if regression else list(candidate.classes or sorted(set(truth.tolist())))
    return {
        "schema_version": SCHEMA_VERSION,
        "task": subject.settings.app.task,
        "n_rows": len(rows),
        "profile": Profile.reference(
            columns,
            kinds,
            groups=_named_groups(subject),
            answers=() if regression else [class_name(one) for one in answers.labels.tolist()],
            classes=[class_name(_json(one)) for one in classes or ()],
        ).to_json(),
        "kinds": kinds,
        "loss": {**_figures(loss, regression=regression), "scale": scale},
        "groups": _groups(subject, loss, answers.labels, classes),
        "classes": None if classes is None else [_json(one) for one in classes],
        "class_counts": {} if regression else _counted(truth),
        "predicted": {} if regression else _counted(answers.labels),
        "target": FeatureProfile.reference(truth.astype(float), "number").to_json()
        if regression
        else None,
        "estimation": _estimation(truth, answers, classes),
    }


def _estimation(truth: np.ndarray, answers: Any, classes: list[Any] | None) -> dict[str, Any]:
    """Return what performance is estimated from where no labels are; empty where it cannot be."""
    import numpy as np

    from mlguard.stats.estimated import (
        ESTIMATED,
        calibrate,
        estimate_performance,
        realised_performance,
    )

    scores = answers.scores
    two = classes is not None and len(classes) == 2
    if classes is None or not two or scores is None or scores.ndim != 1:
        return {}
    if not np.isfinite(scores).all():
        return {}
    of_two = np.full(len(truth), classes[-1], dtype=object)
    positive, answered = equal_labels(truth, of_two), equal_labels(answers.labels, of_two)
    calibration = calibrate(scores, positive)
    chances = calibration.probabilities(scores)
    figures = {}
    for metric in ESTIMATED:
        value = realised_performance(positive, answered, scores, metric)
        error = estimate_performance(chances, answered, metric).error
        if np.isfinite(value) and np.isfinite(error):
            figures[metric] = {"value": value, "error": error}
    return {"calibration": calibration.to_json(), "figures": figures}


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


def _attributes(subject: Subject) -> list[str]:
    settings = subject.settings
    names = [*settings.monitor.fairness.by, *settings.data.sensitive]
    names += settings.gate.fairness.columns
    return [one for one in dict.fromkeys(names) if one in subject.labelled.columns]


def _named_groups(subject: Subject) -> dict[str, list[str | None]]:
    """Return each row's group by attribute, those that the monitors judge first."""
    return {
        name: [None if one is None else str(one) for one in attribute(subject.labelled, name)]
        for name in _attributes(subject)
    }


def _figures(loss: np.ndarray, *, regression: bool) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "name": "absolute_error" if regression else "error",
        "n": len(loss),
        "mean": float(loss.mean()),
    }
    return figures if regression else {**figures, "n_errors": int(loss.sum())}


def _groups(
    subject: Subject, loss: np.ndarray, labels: np.ndarray, classes: list[Any] | None
) -> dict[str, dict[str, Any]]:
    from mlguard.stats.rates import Confusion, group_codes

    found: dict[str, dict[str, Any]] = {}
    for column in _attributes(subject):
        values = attribute(subject.labelled, column)
        names, codes = group_codes(values)
        found[column] = {
            name: _figures(loss[codes == place], regression=classes is None)
            for place, name in enumerate(names)
        }
        if classes is not None:
            table = Confusion.count(
                subject.truth.astype(object),
                labels.astype(object),
                values,
                positive=classes[-1],
            )
            for name, counts in table.to_json().items():
                found[column][name]["confusion"] = counts
    return found


def _counted(values: np.ndarray) -> dict[str, int]:
    return {str(_json(key)): n for key, n in Counter(values.tolist()).most_common()}


def _json(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else str(value)
