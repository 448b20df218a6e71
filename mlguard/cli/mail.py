"""``notify test`` and ``outbox``: would mail arrive, and what became of it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session
from mlguard.errors import UsageError

if TYPE_CHECKING:
    from mlguard.cli.terminal import Line
    from mlguard.deploy.mailing import Queue


class _Test(StrEnum):
    TEST = "test"


class _Action(StrEnum):
    LIST = "list"
    RETRY = "retry"
    DROP = "drop"


@app.command()
def notify(
    action: Annotated[
        _Test, typer.Argument(metavar="test", help="Send a test message to every recipient.")
    ],
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to", metavar="WHO", help="To this one instead: an address, or webhook; repeatable."
        ),
    ] = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Send a test message now, and say for each recipient what happened."""
    name = f"notify {action.value}"
    with session(name, project=project, json=json, quiet=quiet, no_color=no_color) as run:
        done = run.project.test_notifiers(to)
        from mlguard.cli.terminal import sentences

        run.say(sentences(done.lines, done.next_step))
        run.document(done.to_json())
        run.end(done.exit_code)


@app.command()
def outbox(
    action: Annotated[
        _Action,
        typer.Argument(
            metavar="[list|retry|drop]",
            help="list: what waits or is dead, and why; retry: try it again now; drop: never send "
            "it.",
        ),
    ] = _Action.LIST,
    number: Annotated[int | None, typer.Argument(metavar="[ID]", help="Which mail.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="list: what was sent, too (the newest 100).")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="drop: why; it is kept.")
    ] = "",
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """List the mail that waits or is dead; try it again, or drop it."""
    name = f"outbox {action.value}"
    with session(name, project=project, json=json, quiet=quiet, no_color=no_color) as run:
        if (number is None) != (action is _Action.LIST):
            raise UsageError(
                f"say which mail to {action.value}" if number is None else "list takes no ID",
                hint="mlguard outbox lists them with their IDs",
            )
        if action is _Action.LIST:
            done = run.project.outbox(everything=everything)
        elif action is _Action.RETRY:
            assert number is not None
            done = run.project.retry_mail(number)
        else:
            assert number is not None
            done = run.project.drop_mail(number, reason=reason)
        run.say(queue_lines(done))
        run.document(done.to_json())
        run.end(done.exit_code)


def queue_lines(done: Queue) -> list[Line]:
    """Show a row each: number, age, kind, whom it is about and to, and where it stands."""
    from mlguard.cli.terminal import indented, sentences
    from mlguard.wording import ago, printable

    lines: list[Line] = []
    if not done.done:
        for row in done.rows:
            incident = "" if row.incident is None else f", incident {row.incident}"
            colour = {"DEAD": "red", "SENT": "green"}.get(row.state, "")
            lines.append(
                [
                    (f"  {row.id:>5}  ", "bold"),
                    (f"{row.kind} {row.app}{incident}".strip(), ""),
                    (f" to {printable(row.recipient, 60)}, {ago(row.created_at, done.now)}", "dim"),
                ]
            )
            lines += [[(text, colour)] for text in indented(done.words(row), 9)]
        if done.rows:
            lines.append("")
    return [*lines, *sentences(done.lines, done.next_step)]
