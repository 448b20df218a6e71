"""``log check`` and ``log erase``: what the prediction log holds of people, and forgets."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import Session, session
from mlguard.errors import UsageError


class _Action(StrEnum):
    CHECK = "check"
    ERASE = "erase"


@app.command()
def log(
    action: Annotated[
        _Action,
        typer.Argument(
            metavar="check|erase",
            help="check: does it hold personal data? erase: remove rows and their labels.",
        ),
    ],
    name: options.App,
    query_id: Annotated[
        int | None, typer.Option("--id", metavar="QUERY_ID", help="One prediction.", min=0)
    ] = None,
    uid: Annotated[
        str | None, typer.Option("--uid", metavar="UID", help="All that was asked with this uid.")
    ] = None,
    reason: options.Reason = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be erased; change nothing.")
    ] = False,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """See whether the prediction log holds personal data; erase a person's rows and labels."""
    with session(
        f"log {action}", project=project, json=json, quiet=quiet, no_color=no_color
    ) as run:
        if action is _Action.CHECK:
            _check(run, name, idle=bool(query_id is not None or uid or reason or dry_run))
            return
        done = run.project.erase(name, query_id=query_id, uid=uid, reason=reason, dry_run=dry_run)
        from mlguard.cli.terminal import sentences

        run.say(sentences(done.lines, ""))
        run.document(done.to_json())


def _check(run: Session, name: str, *, idle: bool) -> None:
    from mlguard.cli.terminal import headline, indented, sentences

    if idle:
        raise UsageError(
            "log check looks at the whole log of an app, and changes nothing",
            hint=f"mlguard log check {name}, without --id, --uid, --reason and --dry-run",
        )
    found = run.project.check_log(name)
    one = found.finding
    run.say(
        [
            *headline(
                f"{name}  prediction log", (f"{one.verdict.mark} {one.verdict.word}", "bold")
            ),
            *indented(f"{one.summary[:1].upper()}{one.summary[1:]}.", 2),
            *sentences([], one.next_step),
        ]
    )
    run.document(found.to_json())
    run.end(found.exit_code)
