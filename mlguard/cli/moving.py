"""Commands that move live traffic by hand, or stop others from moving it."""

from __future__ import annotations

from typing import Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import carry_out


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
    carry_out(
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
    carry_out(
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
    carry_out(
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
    carry_out(
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
    carry_out(
        "resume",
        lambda guarded: guarded.resume(name, reason=reason),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )
