"""mlguard stands around a machine-learning model in production.

No version gets live without passing the same tests that run in CI; when the world changes
under it, it is rolled back, replaced by a safe default, or people are told.

Importing this package is cheap: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlguard.version import VERSION

if TYPE_CHECKING:
    from mlguard.client import Client
    from mlguard.errors import MlguardError
    from mlguard.project import Project
    from mlguard.results import CheckResult, GateDecision, MonitorResult, Verdict

__version__ = VERSION

__all__ = [
    "CheckResult",
    "Client",
    "GateDecision",
    "MlguardError",
    "MonitorResult",
    "Project",
    "Verdict",
    "__version__",
]

_HOME = {
    "CheckResult": "results",
    "Client": "client",
    "GateDecision": "results",
    "MlguardError": "errors",
    "MonitorResult": "results",
    "Project": "project",
    "Verdict": "results",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"mlguard.{_HOME[name]}"), name)
    raise AttributeError(f"module 'mlguard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
