"""What plug-ins must keep, as one function each for their authors' own tests.

::

    def test_my_family_keeps_the_contract(subject):
        check_family("my_family", MyFamily(), subject)

    def test_my_notifier_keeps_the_contract():
        check_notifier(MyNotifier, mlguard.Project(".").settings, "my:channel")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from mlguard.checks.declaration import Check, Declaration, Item
from mlguard.checks.evidence import Subject
from mlguard.config import ProjectSettings
from mlguard.notify.delivery import Delivery, Notifier, SendError
from mlguard.notify.notice import KINDS, notice
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


def check_notifier(
    make: Callable[[ProjectSettings], Notifier], settings: ProjectSettings, recipient: str
) -> None:
    """Assert that a notifier keeps its contract; it really sends, so point it at a test server.

    Parameters
    ----------
    make : callable
        The class that the entry point of ``mlguard.notifiers`` names.
    settings : ProjectSettings
        The project's settings.
    recipient : str
        One that the notifier reaches.

    Raises
    ------
    AssertionError
        If it breaks the contract; the message names the rule.
    """
    assert inspect.getdoc(make), "a docstring says whom the notifier reaches"
    notifier = make(settings)
    assert notifier.handles(recipient), f"handles({recipient!r}) is True for its own recipient"
    for stranger in ("nobody:nowhere", ""):
        assert not notifier.handles(stranger), "handles is True only for whom it reaches"
    facts = {"app": "example", "at": "2026-01-01T00:00:00.000Z", "value": None, "check": "<b>\r\n"}
    for kind in (*KINDS, "something_new"):
        one = Delivery(
            recipient=recipient,
            notice=notice(kind, facts),
            facts=facts,
            message_id=f"<{kind}-contract@example.com>",
            created_at=1_767_225_600.0,
        )
        for _ in range(2):
            # A second attempt comes with the same id and must be as good as the first.
            _sent(notifier, one)
    notifier.close()
    notifier.close()
    _sent(notifier, one)
    notifier.close()


def _sent(notifier: Notifier, delivery: Delivery) -> None:
    try:
        said = notifier.send(delivery, delivery.created_at + 1)
    except SendError as error:
        raise AssertionError(f"{delivery.notice.kind} was not sent: {error.message}") from error
    except Exception as error:
        raise AssertionError(
            f"send raised {type(error).__name__}; what goes wrong is a SendError with an Outcome"
        ) from error
    assert isinstance(said, str), "send returns a clause that says where the message is now"
    assert said, "send returns a clause that says where the message is now"
