"""``serving/<app>/app.toml`` as a file of tests: one item per declared check and group."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlguard.checks.declaration import Item, declare_all, judge
from mlguard.checks.explain import CheckFailedError, report_text
from mlguard.errors import MlguardError
from mlguard.results import CheckResult, Verdict
from mlguard.waivers import waiver_words

if TYPE_CHECKING:
    from mlguard.pytest_plugin.session import GateSession


def properties(result: CheckResult) -> list[tuple[str, object]]:
    """Return a result's numbers as properties of its case in pytest's own JUnit file."""
    low, high = result.interval or (None, None)
    facts = {
        "verdict": result.verdict.value,
        "value": result.value,
        "limit": result.limit,
        "low": low,
        "high": high,
        "n": result.n,
        "reason": result.reason,
        "waived_by": result.waived_by,
    }
    return [(f"mlguard.{key}", one) for key, one in facts.items() if one not in (None, "")]


class AppFile(pytest.File):
    """One ``app.toml``."""

    gate: GateSession

    @classmethod
    def of(cls, parent: pytest.Collector, path: Path, gate: GateSession) -> AppFile:
        """Make the node of a file."""
        node: AppFile = cls.from_parent(parent, path=path)
        node.gate = gate
        return node

    @property
    def app(self) -> str:
        """Name of the app: its folder's."""
        return self.path.parent.name

    @property
    def root(self) -> Path:
        """Folder of the project."""
        return self.path.parents[2]

    def collect(self) -> Iterator[CheckItem]:
        """Declare the app's checks."""
        settings = self.gate.settings(self.root, self.app)
        declared = declare_all(settings, self.root)
        self.gate.not_applicable[self.app] = declared.not_applicable
        for item in declared.items:
            yield CheckItem.of(self, item)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> Any:
        """Show an error of mlguard as its message alone."""
        if isinstance(excinfo.value, MlguardError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class CheckItem(pytest.Item):
    """One declared check."""

    check: Item
    result: CheckResult | None = None

    @classmethod
    def of(cls, parent: AppFile, check: Item) -> CheckItem:
        """Make the node of a check."""
        node: CheckItem = cls.from_parent(parent, name=check.name)
        node.check = check
        return node

    def runtest(self) -> None:
        """Judge it, and tell pytest what the policy in force makes of the verdict."""
        parent = self.parent
        assert isinstance(parent, AppFile)
        subject = parent.gate.subject(parent.root, parent.app)
        with warnings.catch_warnings():
            # A library's deprecation is no verdict on a model, whatever filters the tests use.
            warnings.simplefilter("default")
            judged = judge(self.check, subject, clock=time.perf_counter)
        result = self.result = parent.gate.waived(judged, parent.root, parent.app)
        self.user_properties += properties(result)
        if result.blocks:
            raise CheckFailedError(result)
        if result.waived_by is not None:
            pytest.xfail(f"{waiver_words(result)}; {result.summary}")
        if result.verdict not in (Verdict.PASSED, Verdict.WARNED):
            only = (
                "" if result.verdict is Verdict.SKIPPED else f"{result.verdict.word}, warns only: "
            )
            pytest.skip(only + result.summary)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> Any:
        """Show the numbers and the next step, not this library's stack."""
        if isinstance(excinfo.value, CheckFailedError):
            return report_text(excinfo.value.result)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where the item comes from, for pytest's headings."""
        return self.path, None, self.name
