"""Commands for a rollout in progress and for versions that wait: what only a human decides."""

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

Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept for ever.")]


def _steer(
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
    _steer(
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
    _steer(
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
    _steer(
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
    _steer(
        "approve",
        lambda guarded: guarded.approve(name, version, reason=reason),
        project=project,
        json=json,
        quiet=quiet,
        no_color=no_color,
    )
