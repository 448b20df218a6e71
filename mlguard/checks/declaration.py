"""What an app's gate consists of: one item per check and group, and what does not apply.

Rule 1: declaring is cheap.  It reads settings and lists files; it loads no data and no model,
so that collecting tests stays fast.

Rule 2: what does not apply is no item, and is named with its reason.  What was declared and
cannot run is an item that fails loudly: a check that silently disappears would open a gate.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mlguard import plugins
from mlguard.checks.evidence import Subject
from mlguard.config import AppSettings, CheckPolicy, Family
from mlguard.errors import MlguardError, PluginError
from mlguard.results import CheckResult, Enforcement, Finding, Verdict

#: Longest traceback kept in a result, in characters; its end is what tells.
TRACEBACK_CHARS = 6000


@dataclass(frozen=True, kw_only=True)
class Item:
    """One declared check of one app: what becomes one pytest item and one result.

    Attributes
    ----------
    id : str
        Stable ``family.name``.
    subject : str
        The column, attribute or group judged; empty for the whole.
    policy : CheckPolicy
        What the settings make of its verdict.
    parameters : mapping
        Anything its family needs to run it, e.g. the metric.
    """

    id: str
    subject: str = ""
    policy: CheckPolicy = field(default_factory=CheckPolicy)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Identity for people: ``family.name[subject]``."""
        return f"{self.id}[{self.subject}]" if self.subject else self.id

    @property
    def family(self) -> str:
        """The part of the id before the first dot."""
        return self.id.partition(".")[0]

    def result(self, verdict: Verdict, summary: str, **numbers: Any) -> CheckResult:
        """Return a result of this item, with its identity and its policy filled in."""
        return CheckResult(
            id=self.id,
            subject=self.subject,
            verdict=verdict,
            summary=summary,
            enforcement=self.policy.enforcement,
            on_inconclusive=self.policy.on_inconclusive,
            **numbers,
        )

    def errored(self, error: BaseException) -> CheckResult:
        """Return the ERRORED result of an exception, its traceback kept."""
        text = "".join(traceback.format_exception(error))
        explained = isinstance(error, MlguardError)
        said = (
            error.message if isinstance(error, MlguardError) else f"{type(error).__name__}: {error}"
        )
        hint = error.hint if isinstance(error, MlguardError) else ""
        return self.result(
            Verdict.ERRORED,
            f"could not be judged: {said}",
            reason="raised",
            next_step=hint or "read the traceback, mend the check or its data, and run it again",
            details={"traceback": text[-TRACEBACK_CHARS:], "explained": explained},
        )


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a family has to judge for one app.

    Attributes
    ----------
    items : tuple of Item
        What will be judged, in order.
    not_applicable : tuple of str
        What will not, each with its reason.
    """

    items: tuple[Item, ...] = ()
    not_applicable: tuple[str, ...] = ()


@runtime_checkable
class Check(Protocol):
    """A family of checks: the class that an entry point of ``mlguard.checks`` names.

    It is made without arguments.  Its docstring says what the family judges.
    """

    def declare(self, settings: AppSettings, project_root: Path) -> Declaration:
        """Say what there is to judge for an app; cheap, loads no data."""

    def run(self, item: Item, subject: Subject) -> CheckResult:
        """Judge one declared item.  A raise becomes ERRORED; it never passes."""


@cache
def families() -> dict[str, Check]:
    """Return the registered families by id, in the order in which a gate runs them.

    Made once per process: a family may keep what is slow to load.

    Raises
    ------
    PluginError
        If one does not load, or is no family of checks.
    """
    first = ["data_quality", "fairness", "baseline", "behaviour", "serving"]
    names = sorted(
        plugins.found("mlguard.checks"),
        key=lambda name: (first.index(name) if name in first else len(first), name),
    )
    loaded = {}
    for name in names:
        family = plugins.load("mlguard.checks", name)()
        if not isinstance(family, Check):
            raise PluginError(
                f"mlguard.checks {name!r} is {type(family).__name__}, which has no declare and run",
                hint="see mlguard.testing.contracts for what a family of checks must do",
            )
        loaded[name] = family
    return loaded


def declare_all(settings: AppSettings, project_root: Path) -> Declaration:
    """Return everything that all families declare for an app.

    A family that raises while declaring becomes one item that will be ERRORED.
    """
    items: list[Item] = []
    absent: list[str] = []
    for name, family in families().items():
        try:
            declared = family.declare(settings, project_root)
        except Exception as error:  # noqa: BLE001  whatever it is, the gate must name it and close
            items.append(Item(id=f"{name}.declare", parameters={"raised": error}))
        else:
            items += [_owned(item, name) for item in declared.items]
            absent += declared.not_applicable
    return Declaration(items=distinct(items), not_applicable=tuple(absent))


def judge(item: Item, subject: Subject, *, clock: Callable[[], float]) -> CheckResult:
    """Run one item; whatever it raises becomes an ERRORED result with its traceback.

    Parameters
    ----------
    item : Item
        What to judge.
    subject : Subject
        The evidence.
    clock : callable
        Seconds, for the duration only.
    """
    began = clock()
    try:
        if "raised" in item.parameters:
            raise item.parameters["raised"]  # noqa: TRY301  one place turns raises into results
        result = families()[item.family].run(item, subject)
        if not isinstance(result, CheckResult):
            # A plug-in that forgets to return must not pass.
            raise TypeError(  # noqa: TRY301  as above
                f"{item.family}.run returned {type(result).__name__}, not a CheckResult"
            )
    except Exception as error:  # noqa: BLE001  fail closed: a raise is a result, never a pass
        result = item.errored(error)
    return replace(result, duration_s=clock() - began)


def _owned(item: Item, family: str) -> Item:
    """Return an item, or one that will be ERRORED where it claims to be another family's."""
    if item.family == family:
        return item
    error = PluginError(
        f'the family {family!r} declared {item.id!r}, which does not start with "{family}."',
        hint="ask the author of the plug-in to rename its checks",
    )
    return replace(item, id=f"{family}.{item.id}", parameters={"raised": error})


def policy_of(
    family: Family, check: str, *, default: Enforcement = Enforcement.BLOCK
) -> CheckPolicy:
    """Return the policy in force for a check whose enforcement, unless written, is ``default``."""
    policy = family.policy(check)
    narrower = family.narrower(check)
    written = family.model_fields_set | (narrower.model_fields_set if narrower else set())
    if "enforcement" in written:
        return policy
    return policy.model_copy(update={"enforcement": default})


def from_finding(item: Item, found: Finding) -> CheckResult:
    """Return a finding as the result of an item."""
    return item.result(
        found.verdict,
        found.summary,
        value=found.value,
        limit=found.limit,
        interval=found.interval,
        n=found.n,
        n_min=found.n_min,
        reason=found.reason,
        next_step=found.next_step,
        measurements=found.measurements,
        details=found.details,
    )


def distinct(items: Iterable[Item]) -> tuple[Item, ...]:
    """Give a number to the items that would otherwise share a name."""
    seen: dict[str, int] = {}
    distinct = []
    for item in items:
        seen[item.name] = seen.get(item.name, 0) + 1
        again = seen[item.name]
        distinct.append(item if again == 1 else replace(item, subject=f"{item.subject}#{again}"))
    return tuple(distinct)
