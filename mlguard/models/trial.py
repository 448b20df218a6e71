"""What children do with a model: try it, and answer rows with it.

Each function takes and returns JSON values; :mod:`mlguard.models.isolation` calls them in a
process of their own.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlguard.models.bundle import Manifest
from mlguard.models.predictions import Predictions
from mlguard.models.predictor import load_predictor


def predict(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Load a version and answer rows; those that make it raise are not valid."""
    manifest = Manifest.from_json(payload["manifest"])
    predictor = load_predictor(manifest, payload["model_path"])
    return predictor.predict(payload["rows"], isolate_failures=True).to_json()


def smoke(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Load a version, ask it the same rows twice, and report what is wrong with it."""
    manifest = Manifest.from_json(payload["manifest"])
    started = time.perf_counter()
    predictor = load_predictor(manifest, payload["model_path"])
    load_s = time.perf_counter() - started
    first, second = (predictor.predict(payload["rows"]) for _ in range(2))
    repeatable = _same(first, second)
    report: dict[str, Any] = {
        "labels": first.outputs(),
        "scores": None if first.scores is None else first.scores.tolist(),
        "load_s": load_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "repeatable": repeatable,
    }
    reason = _complaint(first, repeatable=repeatable)
    return {**report, "ok": not reason, "reason": reason}


def _complaint(answers: Predictions, *, repeatable: bool) -> str:
    if not len(answers):
        return "there were no rows to try it on"
    n_bad = int((~answers.valid).sum())
    if n_bad:
        return f"{n_bad} of {len(answers)} rows: {next(iter(answers.reasons.values()))}"
    if not repeatable:
        return "the same rows were answered differently the second time"
    return ""


def _same(first: Predictions, second: Predictions) -> bool:
    if first.outputs() != second.outputs():
        return False
    if first.scores is None or second.scores is None:
        return first.scores is second.scores
    return bool(np.array_equal(first.scores, second.scores, equal_nan=True))
