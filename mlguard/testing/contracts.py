"""What every family of checks must keep, as one function for its author's own tests.

::

    def test_my_family_keeps_the_contract(subject):
        check_family("my_family", MyFamily(), subject)
"""

from __future__ import annotations

import inspect

from mlguard.checks.declaration import Check, Declaration, Item
from mlguard.checks.evidence import Subject
from mlguard.results import CheckResult


def check_family(name: str, family: object, subject: Subject) -> list[CheckResult]:
    """Assert that a family of checks keeps its contract, and return what it found.

    Parameters
    ----------
    name : str
        The family's id: the name of its entry point.
    family : object
        The family, made without arguments.
    subject : Subject
        An app and a candidate that the family has something to say about.

    Returns
    -------
    list of CheckResult
        One per declared item.

    Raises
    ------
    AssertionError
        If it breaks the contract; the message names the rule.
    """
    assert isinstance(family, Check), f"{type(family).__name__} needs declare and run"
    assert inspect.getdoc(type(family)), "a docstring says what the family judges"
    untouched = Subject(subject.project, subject.settings, model=subject.model_path)
    declared = family.declare(untouched.settings, untouched.project.root)
    assert isinstance(declared, Declaration), "declare returns a Declaration"
    assert declared == family.declare(untouched.settings, untouched.project.root), (
        "declaring twice gives the same items, in the same order"
    )
    names = [item.name for item in declared.items]
    assert len(names) == len(set(names)), f"two items share a name: {names}"
    assert declared.items or declared.not_applicable, "what does not apply is named"
    for item in declared.items:
        assert item.family == name, f"{item.id} does not start with {name!r} and a dot"
    return [_judged(family, item, subject) for item in declared.items]


def _judged(family: Check, item: Item, subject: Subject) -> CheckResult:
    result = family.run(item, subject)
    assert isinstance(result, CheckResult), f"{item.name}: run returns a CheckResult"
    same = (result.id, result.subject) == (item.id, item.subject)
    assert same, f"{item.name}: the result calls itself {result.name}"
    policy = (result.enforcement, result.on_inconclusive)
    assert policy == (item.policy.enforcement, item.policy.on_inconclusive), (
        f"{item.name}: the policy in force stands in the result; use item.result(…)"
    )
    assert result.summary, f"{item.name}: a summary says what was found"
    assert CheckResult.from_json(result.to_json()) == result, f"{item.name}: strict JSON only"
    return result
