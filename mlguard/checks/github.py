"""A gate decision as GitHub's workflow commands: annotations that stand beside a pull request.

At most ten errors and ten warnings, worst first, since GitHub shows no more of one step; the
last one says how many are left out.  What blocks is an error, what only warns a warning.

Rule: a value from outside is data.  ``%``, line ends, ``:`` and ``,`` are escaped, so that no
name of a column can end a command or start one; and while other text is printed, commands are
switched off (:func:`guard`).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from mlguard.results import CheckResult, GateDecision, Verdict
from mlguard.wording import printable

#: Annotations of one kind that GitHub shows of a step.
MOST = 10
_TITLE_CHARS = 120
_MESSAGE_CHARS = 1000
#: Verdicts that deserve a warning where they do not block.
_TELLING = (Verdict.FAILED, Verdict.ERRORED, Verdict.INCONCLUSIVE, Verdict.WARNED)


def annotation_lines(decision: GateDecision) -> list[str]:
    """Return a decision as workflow commands, one a line.

    Parameters
    ----------
    decision : GateDecision
        What was decided.

    Returns
    -------
    list of str
        Without line ends; empty where everything passed.
    """
    worst_first = sorted(decision.results, key=lambda one: -one.verdict.severity)
    errors = [one for one in worst_first if one.blocks]
    warnings = [one for one in worst_first if not one.blocks and one.verdict in _TELLING]
    return [
        *_commands("error", decision.app, errors),
        *_commands("warning", decision.app, warnings),
    ]


def command(kind: str, title: str, message: str) -> str:
    """Return one annotation as a workflow command.

    Parameters
    ----------
    kind : {"error", "warning", "notice"}
        How bad it is.
    title, message : str
        Any text; it is escaped.
    """
    shown = printable(title, _TITLE_CHARS)
    said = printable(message, _MESSAGE_CHARS, lines=True)
    return f"::{kind} title={_property(shown)}::{_data(said)}"


def guard() -> tuple[str, str]:
    """Return the lines that switch workflow commands off and on again around other text."""
    token = secrets.token_hex(16)
    return f"::stop-commands::{token}", f"::{token}::"


def _commands(kind: str, app: str, results: Sequence[CheckResult]) -> list[str]:
    shown = results if len(results) <= MOST else results[: MOST - 1]
    lines = [command(kind, f"{app} {one.name}", _message(one)) for one in shown]
    left_out = len(results) - len(shown)
    if left_out:
        more = f"{left_out} more {kind}s are not shown; see the summary of the step"
        lines.append(command(kind, app, more))
    return lines


def _message(one: CheckResult) -> str:
    text = f"{one.verdict.word}: {one.summary}"
    return f"{text}\nnext: {one.next_step}" if one.next_step else text


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
