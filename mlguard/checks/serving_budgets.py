"""Measurements in a process like a serving one: how long one row takes.

The function runs in a child (:func:`mlguard.models.isolation.run_in_child`) with one thread, as
a replica has: what a gate's own process has imported or heated up does not count.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Rows that are asked before time is taken: lazy imports and caches are paid for by them.
_WARM_UP = 20


def measure_latency(payload: Mapping[str, Any]) -> list[float]:
    """Return the milliseconds that single rows take, in the order asked.

    Parameters
    ----------
    payload : mapping
        ``root``, ``app`` and ``file`` name the candidate; ``rows`` says how many rows of the
        test data are asked, again from the start where there are fewer.
    """
    from mlguard.checks.evidence import Subject
    from mlguard.checks.requests import request_rows
    from mlguard.config import load_app, load_project
    from mlguard.models.predictor import load_predictor

    project = load_project(payload["root"])
    subject = Subject(project, load_app(project, payload["app"]), model=Path(payload["file"]))
    # This is a process of its own, so a Python class may be loaded right here.
    predictor: Any = load_predictor(subject.manifest, subject.model_path)
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
    return took
