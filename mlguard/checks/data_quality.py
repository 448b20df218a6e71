"""Is the data what it should be: expectations that people wrote, and five questions of ours.

Expectations run in Great Expectations (:mod:`mlguard.checks.expectations`), one item each.
Ours compare ``[data] test`` with ``[data] train`` (:mod:`mlguard.checks.tables`): schema,
missing, duplicates, overlap, leakage.  Unless app.toml says otherwise schema and expectations
block, the other four warn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mlguard.checks import tables
from mlguard.checks.declaration import Declaration, Item, from_finding, policy_of
from mlguard.checks.evidence import Subject
from mlguard.checks.expectations import Suites, declare_expectations
from mlguard.config import AppSettings, CheckPolicy
from mlguard.results import CheckResult, Enforcement, Finding

#: Our own checks, the enforcement each has by default, and whether it needs training rows.
_OWN: dict[str, tuple[Callable[[Subject, CheckPolicy], Finding], Enforcement, bool]] = {
    "schema": (tables.schema, Enforcement.BLOCK, False),
    "missing": (tables.missing, Enforcement.WARN, True),
    "duplicates": (tables.duplicates, Enforcement.WARN, False),
    "overlap": (tables.overlap, Enforcement.WARN, True),
    "leakage": (tables.leakage, Enforcement.WARN, False),
}


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
            if not policy.enabled:
                absent.append(f"data_quality.{check}: switched off in app.toml")
            elif needs_train and not settings.data.train:
                absent.append(f"data_quality.{check}: [data] train names no training rows")
            else:
                items.append(Item(id=f"data_quality.{check}", policy=policy))
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
