"""``mlguard suggest``: expectations and limits from the training data, as files to edit."""

from __future__ import annotations

from typing import Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session


@app.command()
def suggest(
    name: options.App,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what an earlier proposal wrote.")
    ] = False,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Propose expectations and limits from the training data, as files to edit."""
    with session("suggest", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        with run.steps(f"looking at the training data of {name}") as steps:
            outcome = run.project.suggest(name, force=force, progress=steps)
        from mlguard.cli.terminal import outcome_lines

        run.say(outcome_lines(outcome))
        run.document(outcome.to_json())
        run.end(outcome.exit_code)
