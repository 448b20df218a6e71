"""The family ``behaviour``: what ``[gate.behaviour]`` of app.toml declares, and nothing else.

Each test is an item of its own.  What it asks is in :mod:`mlguard.checks.behaving`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlguard.checks import behaving, steadiness
from mlguard.checks.covering import find_coverage
from mlguard.checks.declaration import Declaration, Item, from_finding
from mlguard.checks.evidence import Subject
from mlguard.config import (
    AppSettings,
    CalibrationRule,
    CheckPolicy,
    CoverageRule,
    DirectionalRule,
    FlipsRule,
    InvarianceRule,
    MinimumRule,
    ReproducibilityRule,
)
from mlguard.results import CheckResult, Verdict

if TYPE_CHECKING:
    import pandas as pd

#: Kinds of which there may be many, and those of which there is one, in order.
_MANY = ("invariance", "directional", "minimum_functionality")
_ONE = ("reproducibility", "calibration", "flips")


class Behaviour:
    """Whether the model does what people expect of it, whatever its average says."""

    def declare(self, settings: AppSettings, project_root: Path) -> Declaration:  # noqa: ARG002
        """Declare one item per test that app.toml names."""
        items, absent = [], []
        for check, name, rule in _declared(settings):
            item = Item(id=f"behaviour.{check}", subject=name, policy=rule)
            if not rule.enabled:
                absent.append(f"{item.name}: switched off in app.toml")
            elif check == "calibration" and settings.app.task == "regression":
                absent.append(f"{item.name}: a regression has no scores to calibrate")
            else:
                items.append(item)
        return Declaration(items=tuple(items), not_applicable=tuple(absent))

    def run(self, item: Item, subject: Subject) -> CheckResult:
        """Judge one test."""
        candidate, rule = subject.candidate, item.policy
        # The item's policy is the test's own table: it says which test it is.
        if isinstance(rule, InvarianceRule):
            found = behaving.find_invariance(candidate, subject.test, rule)
        elif isinstance(rule, DirectionalRule):
            found = behaving.find_directional(candidate, subject.test, rule)
        elif isinstance(rule, MinimumRule):
            found = behaving.find_minimum(candidate, cases_of(subject, rule.file), rule)
        elif isinstance(rule, ReproducibilityRule):
            found = steadiness.find_reproducibility(candidate, subject.test, rule)
        elif isinstance(rule, CalibrationRule):
            found = steadiness.find_calibration(candidate, subject.labelled, rule)
        elif isinstance(rule, CoverageRule):
            found = find_coverage(subject, rule)
        elif subject.active is None:
            return item.result(
                Verdict.SKIPPED,
                f"no version of {subject.settings.name} is live, so there are no answers to "
                "differ from",
                reason="no_active",
            )
        else:
            assert isinstance(rule, FlipsRule)
            found = behaving.find_flips(candidate, subject.active, subject.test, rule)
        return from_finding(item, found)


def cases_of(subject: Subject, file: str) -> pd.DataFrame:
    """Return the labelled cases of a file that app.toml names."""
    from mlguard.data.frames import read_frame

    settings = subject.settings
    return read_frame(settings.path(file), missing_values=settings.data.missing_values)


def _declared(settings: AppSettings) -> Iterator[tuple[str, str, CheckPolicy]]:
    gate = settings.gate.behaviour
    for check in _MANY:
        for name, rule in getattr(gate, check).items():
            yield check, name, rule
    for check in _ONE:
        rule = getattr(gate, check)
        if rule is not None:
            yield check, "", rule
    if settings.app.uncertainty:
        yield "coverage", "", gate.coverage
