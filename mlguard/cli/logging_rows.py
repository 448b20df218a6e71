"""``log erase``: what the prediction log forgets when it is told to."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session


class _Action(StrEnum):
    ERASE = "erase"


@app.command()
def log(
    action: Annotated[  # noqa: ARG001  there is one; more may come
        _Action, typer.Argument(metavar="erase", help="erase: remove rows and their labels.")
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
    """Erase a person's rows from the prediction log, and their labels."""
    with session("log erase", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        done = run.project.erase(name, query_id=query_id, uid=uid, reason=reason, dry_run=dry_run)
        from mlguard.cli.terminal import sentences

        run.say(sentences(done.lines, ""))
        run.document(done.to_json())
