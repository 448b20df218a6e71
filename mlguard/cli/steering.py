"""Commands for a rollout in progress and for versions that wait: what only a human decides."""

from __future__ import annotations

from typing import Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import carry_out

Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept for ever.")]


@app.command()
def promote(
    name: options.App,
    accept_inconclusive: Annotated[
        list[str] | None,
        typer.Option(
            "--accept-inconclusive",
            metavar="CHECK",
            help='Take this one undecided, e.g. "rollout.loss"; may be repeated.',
        ),
    ] = None,
    reason: Why = "",
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Let the version that is being rolled out answer everybody now."""
    carry_out(
        "promote",
        lambda guarded: guarded.promote(
            name, accept_inconclusive=accept_inconclusive or (), reason=reason
        ),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )


@app.command()
def abort(
    name: options.App,
    reason: Why = "",
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """End a rollout; what serves goes on serving everybody."""
    carry_out(
        "abort",
        lambda guarded: guarded.abort(name, reason=reason),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )


@app.command()
def confirm(
    name: options.App,
    reason: Why = "",
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Confirm the version that is being watched before its time is over."""
    carry_out(
        "confirm",
        lambda guarded: guarded.confirm(name, reason=reason),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )


@app.command()
def approve(
    name: options.App,
    reason: options.Reason,
    version: Annotated[
        str | None,
        typer.Argument(metavar="[VERSION]", help="The version.  [default: the one that waits]"),
    ] = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Let a version through that waits for a human; deploy it afterwards."""
    carry_out(
        "approve",
        lambda guarded: guarded.approve(name, version, reason=reason),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )
