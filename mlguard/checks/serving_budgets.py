"""Measurements in a process like a serving one: how long one row takes.

The function runs in a child (:func:`mlguard.models.isolation.run_in_child`) with one thread, as
a replica has: what a gate's own process has imported or heated up does not count.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlguard.checks.evidence import Subject

#: Rows that are asked before time is taken: lazy imports and caches are paid for by them.
_WARM_UP = 20


def measure_latency(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the milliseconds that single rows take what will serve, in the order asked.

    Parameters
    ----------
    payload : mapping
        ``root``, ``app`` and ``file`` name the candidate; ``rows`` says how many rows of the
        test data are asked, again from the start where there are fewer.

    Returns
    -------
    dict
        ``took_ms``, and ``runtime``: what was asked, as a manifest names it.
    """
    from mlguard.checks.evidence import Subject
    from mlguard.checks.requests import request_rows
    from mlguard.config import load_app, load_project

    project = load_project(payload["root"])
    subject = Subject(project, load_app(project, payload["app"]), model=Path(payload["file"]))
    runtime, predictor = what_serves(subject)
    wanted = int(payload["rows"])
    sent = request_rows(subject.test.head(wanted), subject.manifest.schema)
    for place in range(_WARM_UP):
        predictor.predict([sent[place % len(sent)]])
    took = []
    gc.collect()
    gc.disable()
    for place in range(wanted):
        row = [sent[place % len(sent)]]
        began = time.perf_counter()
        predictor.predict(row)
        took.append((time.perf_counter() - began) * 1000)
    gc.enable()
    return {"took_ms": took, "runtime": runtime}


def what_serves(subject: Subject) -> tuple[str, Any]:
    """Compile a candidate as a deployment does; return what would serve it, by name and loaded."""
    from mlguard.models.compilation import compile_for
    from mlguard.models.predictor import load_predictor

    manifest, path = subject.manifest, subject.model_path
    model: Any = subject.candidate.model  # a version, here, and no simple model beside it
    found = compile_for(model, manifest, subject.test, subject.settings.model)
    with tempfile.TemporaryDirectory(prefix="mlguard-compiled-") as scratch:
        if found.content:
            path = Path(scratch) / "compiled"
            path.write_bytes(found.content)
            manifest = manifest.compiled(found.runtime, found.content, found.to_json())
        # This is a process of its own, so a Python class may be loaded right here.
        return found.runtime, load_predictor(manifest, path)
