"""Windows of traffic made from arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlguard.config import AppSettings
from mlguard.monitors.window import WindowData


def _objects(values: Any, n: int) -> np.ndarray:
    found = np.empty(n, dtype=object)
    for place in range(n):
        found[place] = None if values is None else values[place]
    return found


@pytest.fixture
def make_window() -> Callable[..., WindowData]:
    """Build a window: arrays as given, everything else as if all were well."""

    def make(
        n: int,
        *,
        output: Any = None,
        label: Any = None,
        columns: dict[str, Any] | None = None,
        default: Any = None,
        valid: Any = None,
        explanation: Any = None,
        groups: Any = None,
        source: Any = None,
        start: float = 1000.0,
        first: int = 1,
        **changes: Any,
    ) -> WindowData:
        ids = np.arange(first, first + n)
        labelled = np.full(n, label is not None)
        fields: dict[str, Any] = {
            "version": "v1",
            "generation": 1,
            "query_id": ids,
            "time": start + np.arange(n, dtype=float),
            "columns": {key: np.asarray(one) for key, one in (columns or {}).items()},
            "output": _objects(output if output is not None else np.zeros(n, int).tolist(), n),
            "score": np.full(n, np.nan),
            "default": np.zeros(n, bool) if default is None else np.asarray(default, bool),
            "valid": np.ones(n, bool) if valid is None else np.asarray(valid, bool),
            "inputs_kept": np.ones(n, bool),
            "explanation": _objects(explanation, n),
            "groups": [{} for _ in range(n)] if groups is None else groups,
            "label": _objects(label, n),
            "labelled": labelled,
            "source": _objects(["default"] * n if source is None else source, n),
            "seq": np.where(labelled, ids, 0),
            "arrived": np.where(labelled, start + np.arange(n, dtype=float), np.nan),
        }
        return WindowData(**{**fields, **changes})

    return make


@pytest.fixture
def app(tmp_path: Path) -> AppSettings:
    """Settings of an app as they are when nothing is said."""
    return AppSettings.model_validate(
        {
            "app": {
                "description": "d",
                "owner": "o",
                "decision": "d",
                "success_metric": "s",
            },
            "data": {"test": "test.csv", "sensitive": ["sex"]},
            "name": "loan",
            "folder": tmp_path,
        }
    )
