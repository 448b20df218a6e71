"""Is the data what it should be: expectations that people wrote, and questions of ours.

Expectations run in Great Expectations (:mod:`mlguard.checks.expectations`), one item each.
Ours ask ``[data] test``, most of them beside ``[data] train``, and none of them holds the data
in memory: :mod:`mlguard.checks.tables`, ``balance``, ``repeats``, ``leakage``,
``label_issues``, ``freshness``.  Unless app.toml says otherwise schema and expectations block,
the others warn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlguard.checks import balance, freshness, label_issues, leakage, repeats, tables
from mlguard.checks.declaration import Declaration, Item, from_finding, policy_of
from mlguard.checks.evidence import Subject
from mlguard.checks.expectations import Suites, declare_expectations
from mlguard.config import AppSettings
from mlguard.results import CheckResult, Enforcement, Finding

_BLOCK, _WARN = Enforcement.BLOCK, Enforcement.WARN
#: Our own checks, the enforcement each has by default, and whether it needs training rows.
_OWN: dict[str, tuple[Callable[[Subject, Any], Finding], Enforcement, bool]] = {
    "schema": (tables.schema, _BLOCK, False),
    "missing": (tables.missing, _WARN, True),
    "ranges": (tables.ranges, _WARN, True),
    "categories": (tables.categories, _WARN, True),
    "constants": (tables.constants, _WARN, False),
    "balance": (balance.balance, _WARN, True),
    "duplicates": (repeats.duplicates, _WARN, False),
    "overlap": (repeats.overlap, _WARN, True),
    "leakage": (leakage.leakage, _WARN, False),
    "label_issues": (label_issues.label_issues, _WARN, False),
    "freshness": (freshness.freshness, _WARN, False),
}
#: Judged where app.toml has their table.
ASKED_FOR = ("label_issues", "freshness")


class DataQuality:
    """Whether the data is complete, consistent, and honest about what it teaches."""

    def __init__(self) -> None:
        self._suites = Suites()

    def declare(self, settings: AppSettings, project_root: Path) -> Declaration:
        """Declare our own checks and one item per expectation of the suites."""
        gate = settings.gate.data_quality
        items, absent = [], []
        for check, (_, default, needs_train) in _OWN.items():
            policy = policy_of(gate, check, default=default)
            name = f"data_quality.{check}"
            if check in ASKED_FOR and getattr(gate, check) is None:
                continue
            if not policy.enabled:
                absent.append(f"{name}: switched off in app.toml")
            elif needs_train and not settings.data.train:
                absent.append(f"{name}: [data] train names no training rows")
            elif check == "balance" and settings.app.task == "regression":
                absent.append(f"{name}: a regression has no classes")
            else:
                items.append(Item(id=name, policy=policy))
        expectations = declare_expectations(settings, project_root)
        return Declaration(
            items=(*items, *expectations.items),
            not_applicable=(*absent, *expectations.not_applicable),
        )

    def run(self, item: Item, subject: Subject) -> CheckResult:
        """Judge one item."""
        if "expectation" in item.parameters:
            return from_finding(item, self._suites.finding(item, subject))
        judge, _, _ = _OWN[item.id.partition(".")[2]]
        return from_finding(item, judge(subject, item.policy))
