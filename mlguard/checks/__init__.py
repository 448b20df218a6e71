"""Checks: what must hold before a model is deployed, and the one runner that judges it.

A check declared in ``app.toml`` and a function in ``checks/<app>/test_*.py`` are both pytest
items; ``pytest``, ``mlguard check`` and ``mlguard deploy`` run the same ones.

::

    declaration   what an app's gate consists of: items, and what does not apply
    evidence      the subject of a gate: candidate, live version, data, all loaded when asked
    data_quality, fairness, baseline, behaviour, serving, privacy      the families
    asserts, assert_behaviour, assert_data      the same as functions for people's own tests
    runner        pytest in a child process, its results read back

Importing this package loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlguard.checks.assert_behaviour import (
        assert_calibrated,
        assert_directional,
        assert_invariant,
        assert_minimum_functionality,
    )
    from mlguard.checks.assert_data import assert_no_leakage, assert_no_pii
    from mlguard.checks.assert_incident import assert_answers, assert_loss
    from mlguard.checks.asserts import (
        assert_beats,
        assert_expectations,
        assert_no_gap,
        assert_no_worse,
    )
    from mlguard.checks.declaration import Check, Declaration, Item
    from mlguard.checks.evidence import JudgedModel, Subject
    from mlguard.checks.explain import CheckFailedError
    from mlguard.checks.reference import reference_document
    from mlguard.checks.runner import Progress, run_gate

__all__ = [
    "Check",
    "CheckFailedError",
    "Declaration",
    "Item",
    "JudgedModel",
    "Progress",
    "Subject",
    "assert_answers",
    "assert_beats",
    "assert_calibrated",
    "assert_directional",
    "assert_expectations",
    "assert_invariant",
    "assert_loss",
    "assert_minimum_functionality",
    "assert_no_gap",
    "assert_no_leakage",
    "assert_no_pii",
    "assert_no_worse",
    "reference_document",
    "run_gate",
]

_HOME = {
    "Check": "declaration",
    "CheckFailedError": "explain",
    "Declaration": "declaration",
    "Item": "declaration",
    "JudgedModel": "evidence",
    "Progress": "runner",
    "Subject": "evidence",
    "assert_answers": "assert_incident",
    "assert_beats": "asserts",
    "assert_calibrated": "assert_behaviour",
    "assert_directional": "assert_behaviour",
    "assert_expectations": "asserts",
    "assert_invariant": "assert_behaviour",
    "assert_loss": "assert_incident",
    "assert_minimum_functionality": "assert_behaviour",
    "assert_no_gap": "asserts",
    "assert_no_leakage": "assert_data",
    "assert_no_pii": "assert_data",
    "assert_no_worse": "asserts",
    "reference_document": "reference",
    "run_gate": "runner",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"mlguard.checks.{_HOME[name]}"), name)
    raise AttributeError(f"module 'mlguard.checks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
