"""What a command writes for continuous integration, and the exit code that it is asked for.

A file is written whatever the gate says, and also where nothing could be judged: a step that
uploads it must not fail because of that.
"""

from __future__ import annotations

import contextlib
import enum
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlguard.errors import MlguardError
from mlguard.results import CheckResult, GateDecision, Verdict

if TYPE_CHECKING:
    from mlguard.deploy.outcome import Outcome

_REFUSED, _UNDECIDED = 1, 5


class FailOn(enum.StrEnum):
    """From which verdict on a command that judges does not end with 0."""

    WARNED = "warned"
    INCONCLUSIVE = "inconclusive"
    NEVER = "never"


Junit = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="Write JUnit XML: a case per check and group."),
]
Markdown = Annotated[
    Path | None,
    typer.Option(
        "--markdown", metavar="FILE", help="Append Markdown, as for $GITHUB_STEP_SUMMARY."
    ),
]
Github = Annotated[
    bool, typer.Option("--github", help="Print GitHub annotations: 10 errors, 10 warnings.")
]
Fail = Annotated[
    FailOn | None,
    typer.Option(
        "--fail-on",
        help="End with 1 or 5 also where a check only warned or was undecided; or never.",
    ),
]


@dataclass
class Reporting:
    """Where a command reports to, beside the terminal.

    Attributes
    ----------
    command, app : str
        What was asked, of which app.
    junit, markdown : Path or None
        Files to write.
    github : bool
        Whether to print annotations.
    fail_on : FailOn or None
        What changes the exit code.
    json : bool
        Whether stdout is for one JSON document; annotations go to stderr then.
    """

    command: str
    app: str
    junit: Path | None
    markdown: Path | None
    github: bool
    fail_on: FailOn | None
    json: bool

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Report an error that keeps the gate from judging, as any other finding."""
        try:
            with self._guarded():
                yield
        except MlguardError as error:
            self._write(_of_error(self.command, self.app, error))
            raise

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Switch workflow commands off while text is printed that may hold data."""
        if not self.github:
            yield
            return
        from mlguard.checks.github import guard

        off, on = guard()
        self._say(off)
        try:
            yield
        finally:
            self._say(on)

    def judged(self, outcome: Outcome) -> Outcome:
        """Return an outcome with the exit code that ``--fail-on`` makes of its own."""
        return outcome.replace(exit_code=self._exit_code(outcome))

    def write(self, outcome: Outcome) -> None:
        """Write what a command found."""
        if outcome.decision is not None:
            self._write(outcome.decision)
            return
        # Nothing was judged, e.g. because these bytes serve already.
        text = " ".join(outcome.lines)
        nothing = GateDecision(
            app=self.app, candidate="", allowed=True, because=text.rstrip("."), results=()
        )
        self._write(nothing)

    def _exit_code(self, outcome: Outcome) -> int:
        code, decision = outcome.exit_code, outcome.decision
        if self.fail_on is FailOn.NEVER:
            return 0 if code in (_REFUSED, _UNDECIDED) else code
        if code or decision is None or self.fail_on is None:
            return code
        verdicts = {one.verdict for one in decision.results if one.waived_by is None}
        bad = {Verdict.WARNED, Verdict.FAILED, Verdict.ERRORED}
        if self.fail_on is FailOn.WARNED and verdicts & bad:
            return _REFUSED
        return _UNDECIDED if Verdict.INCONCLUSIVE in verdicts else code

    def _write(self, decision: GateDecision) -> None:
        if self.junit is not None:
            from mlguard.checks.junit import write_junit

            write_junit(decision, self.junit)
        if self.markdown is not None:
            from mlguard.checks.markdown import write_markdown

            write_markdown(decision, self.markdown)
        if self.github:
            from mlguard.checks.github import annotation_lines

            for line in annotation_lines(decision):
                self._say(line)

    def _say(self, line: str) -> None:
        stream = sys.stderr if self.json else sys.stdout
        stream.write(f"{line}\n")
        stream.flush()


def _of_error(command: str, app: str, error: MlguardError) -> GateDecision:
    """Return what kept the gate from judging as a decision that is not allowed."""
    result = CheckResult(
        id="gate.run",
        verdict=Verdict.ERRORED,
        summary=f"mlguard {command}: {error.message}",
        reason=error.code,
        next_step=error.hint,
    )
    because = f"nothing could be judged: {error.message}"
    return GateDecision(app=app, candidate="", allowed=False, because=because, results=(result,))
