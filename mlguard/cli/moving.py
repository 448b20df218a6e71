"""Commands that move live traffic by hand, or stop others from moving it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session

if TYPE_CHECKING:
    from mlguard.deploy.outcome import Outcome
    from mlguard.project import Project


def _move(
    command: str,
    act: Callable[[Project], Outcome],
    *,
    project: Path | None,
    json: bool,
    quiet: bool,
    no_color: bool,
) -> None:
    with session(command, project=project, json=json, quiet=quiet, no_color=no_color) as run:
        outcome = act(run.project)
        from mlguard.cli.terminal import outcome_lines

        run.say(outcome_lines(outcome))
        run.document(outcome.to_json())
        run.end(outcome.exit_code)


@app.command()
def rollback(
    name: options.App,
    reason: options.Reason,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VERSION", help="Go back to this version.")
    ] = None,
    to_default: Annotated[
        bool, typer.Option("--to-default", help="Answer the default output instead.")
    ] = False,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Never let these bytes serve again by themselves.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Go there although a monitor found that it would not help."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")
    ] = False,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Go back to the version confirmed before this one."""
    _move(
        "rollback",
        lambda guarded: guarded.rollback(
            name,
            reason=reason,
            to=to,
            to_default=to_default,
            quarantine=quarantine,
            force=force,
            dry_run=dry_run,
        ),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )


@app.command()
def block(
    name: options.App,
    reason: options.Reason,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Answer the default output, until `unblock`."""
    _move(
        "block",
        lambda guarded: guarded.block(name, reason=reason),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )


@app.command()
def unblock(
    name: options.App,
    reason: options.Reason,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Let the active version answer again."""
    _move(
        "unblock",
        lambda guarded: guarded.unblock(name, reason=reason),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )


@app.command()
def hold(
    name: options.App,
    reason: options.Reason,
    hours: Annotated[
        float, typer.Option("--hours", min=0.01, max=720, help="How long it lasts, at most 720.")
    ] = 24,
    mute: Annotated[
        bool,
        typer.Option(
            "--mute", help="Keep mail back, too, but for a rollback's and the default output's."
        ),
    ] = False,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Let no new version go live; a rollback stays possible."""
    _move(
        "hold",
        lambda guarded: guarded.hold(name, reason=reason, hours=hours, mute=mute),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )


@app.command()
def resume(
    name: options.App,
    reason: options.Reason,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Lift every hold of an app."""
    _move(
        "resume",
        lambda guarded: guarded.resume(name, reason=reason),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )
