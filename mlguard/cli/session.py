"""One run of one command: what it prints, where, and the exit code it ends with.

* People read stdout; progress and errors go to stderr.
* With ``--json`` stdout holds exactly one document, also when the command failed.
* Every :class:`~mlguard.errors.MlguardError` carries its exit code; anything else that escapes
  is a bug or an outage and ends with 3, never 1: 1 means that a gate said no.
"""

from __future__ import annotations

import contextlib
import json as json_module
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mlguard.errors import MlguardError

if TYPE_CHECKING:
    from mlguard.cli.terminal import Line, Steps, Terminal
    from mlguard.deploy.outcome import Outcome
    from mlguard.project import Project

INTERRUPTED = 130
TERMINATED = 143


@dataclass
class Session:
    """What a command needs: its project, a place to print, a way to end.

    Attributes
    ----------
    command : str
        Name of the command, as it stands in the JSON document.
    json : bool
        Whether stdout gets one JSON document instead of text.
    quiet : bool
        Whether only errors and the JSON document are printed.
    """

    command: str
    root: Path | None
    json: bool
    quiet: bool
    no_color: bool
    exit_code: int = 0
    _terminal: Terminal | None = None
    _project: Project | None = field(default=None, repr=False)

    @property
    def terminal(self) -> Terminal:
        """Where text goes."""
        if self._terminal is None:
            from mlguard.cli.terminal import Terminal

            self._terminal = Terminal(no_color=self.no_color)
        return self._terminal

    @property
    def project(self) -> Project:
        """The project that the command is about."""
        if self._project is None:
            from mlguard.project import Project

            self._project = Project(self.root)
        return self._project

    def say(self, lines: Sequence[Line]) -> None:
        """Print text for people; nothing with ``--json`` or ``--quiet``."""
        if not self.json and not self.quiet:
            self.terminal.write(lines)

    @contextlib.contextmanager
    def steps(self, title: str, total: int | None = None) -> Iterator[Steps]:
        """Show the progress of long work on stderr: a bar on a terminal, else a line a step."""
        with self.terminal.steps(title, total=total, silent=self.quiet or self.json) as steps:
            yield steps

    def document(self, document: dict[str, Any]) -> None:
        """Print the JSON document, where one was asked for."""
        if self.json:
            sys.stdout.write(json_module.dumps(document, allow_nan=False, default=str) + "\n")
            sys.stdout.flush()

    def end(self, exit_code: int) -> None:
        """Set the exit code that the command ends with."""
        self.exit_code = exit_code


def _failure(session: Session, error: MlguardError, exit_code: int | None = None) -> None:
    """Say what went wrong: one document, or two lines on stderr."""
    if session.json:
        from mlguard.deploy.outcome import Outcome

        app = str(error.data.get("app") or "")
        outcome = Outcome(
            command=session.command,
            app=app,
            exit_code=error.exit_code if exit_code is None else exit_code,
            incident=error.data.get("incident"),
            error=error.to_json(),
            **_serving(session, app),
        )
        session.document(outcome.to_json())
        return
    from mlguard.cli.terminal import harmless

    sys.stderr.write(f"mlguard {session.command}: {harmless(error.message)}\n")
    if error.hint:
        sys.stderr.write(f"  next: {harmless(error.hint)}\n")


def _serving(session: Session, app: str) -> dict[str, Any]:
    """Return what serves the app that a command failed on: a failure moved no traffic."""
    if not app:
        return {}
    from mlguard.deploy.rollout import state_fields

    try:
        registry = session.project.registry
        return state_fields(registry, registry.app(app))
    except MlguardError:
        # The registry itself may be what failed.
        return {}


class InterruptedByUserError(MlguardError):
    """Somebody pressed Ctrl-C, or asked the process to end."""

    code = "interrupted"
    retryable = True


class _Terminated(BaseException):
    """SIGTERM arrived: no error, so no handler of errors may swallow it."""


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that no child process is left behind.

    What runs for ever (the server, the watcher) sets a handler of its own meanwhile.
    """

    def raise_it(_number: int, _frame: object) -> None:
        raise _Terminated

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def session(
    command: str, *, project: Path | None, json: bool, quiet: bool, no_color: bool
) -> Iterator[Session]:
    """Run the body of one command and leave with its exit code.

    Raises
    ------
    typer.Exit
        Always, with the command's exit code.
    """
    run = Session(
        command=command,
        root=project,
        json=json,
        quiet=quiet,
        no_color=no_color or bool(os.environ.get("NO_COLOR")),
    )
    try:
        with _ending_in_order():
            yield run
    except MlguardError as error:
        _failure(run, error)
        run.end(error.exit_code)
    except (KeyboardInterrupt, _Terminated) as signalled:
        code = TERMINATED if isinstance(signalled, _Terminated) else INTERRUPTED
        interrupted = InterruptedByUserError(
            "interrupted", hint="nothing is half done; see: mlguard status"
        )
        _failure(run, interrupted, code)
        run.end(code)
    except BrokenPipeError:
        run.end(INTERRUPTED)
    except typer.Exit:
        raise
    except Exception as error:  # noqa: BLE001  the boundary: 3 is promised for every bug
        bug = MlguardError(
            f"{type(error).__name__}: {error}",
            hint="this is a bug of mlguard or a broken dependency; nothing was decided",
        )
        if not run.json:
            from mlguard.cli.terminal import harmless

            sys.stderr.write(f"{harmless(traceback.format_exc())}\n")
        _failure(run, bug)
        run.end(bug.exit_code)
    raise typer.Exit(run.exit_code)


def carry_out(
    command: str,
    act: Callable[[Project], Outcome],
    *,
    project: Path | None,
    json: bool,
    quiet: bool,
    no_color: bool,
) -> None:
    """Make the one move that a command is, and tell its outcome."""
    with session(command, project=project, json=json, quiet=quiet, no_color=no_color) as run:
        outcome = act(run.project)
        from mlguard.cli.terminal import outcome_lines

        run.say(outcome_lines(outcome))
        run.document(outcome.to_json())
        run.end(outcome.exit_code)
