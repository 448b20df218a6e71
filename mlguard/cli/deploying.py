"""Commands that judge a candidate: ``check`` and ``deploy``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlguard.cli import continuous, options
from mlguard.cli.app import app
from mlguard.cli.session import Session, session

if TYPE_CHECKING:
    from mlguard.deploy.outcome import Outcome


@app.command()
def check(
    name: options.App,
    model: options.Model = None,
    junit: continuous.Junit = None,
    markdown: continuous.Markdown = None,
    github: continuous.Github = False,
    fail_on: continuous.Fail = None,
    failures_dir: options.FailuresDir = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Run the gate on a candidate; change nothing."""
    with session("check", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        report = continuous.Reporting("check", name, junit, markdown, github, fail_on, json)
        with report.running():
            with run.steps(f"checking {name}") as steps:
                outcome = run.project.examine(
                    name, model=model, failures_dir=failures_dir, progress=steps
                )
            outcome = report.judged(outcome)
            _show(run, outcome)
        report.write(outcome)


@app.command()
def deploy(
    name: options.App,
    model: options.Model = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="NAME", help="Name of the new version.")
    ] = None,
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", help="What is new in it.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Gate only; change nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is confirmed.")] = False,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Replace a version that is still being watched.")
    ] = False,
    replace_candidate: Annotated[
        bool, typer.Option("--replace-candidate", help="Take the place of a staged candidate.")
    ] = False,
    resolves: Annotated[
        int | None,
        typer.Option("--resolves", metavar="INCIDENT", help="Incident that this version fixes."),
    ] = None,
    junit: continuous.Junit = None,
    markdown: continuous.Markdown = None,
    github: continuous.Github = False,
    fail_on: continuous.Fail = None,
    failures_dir: options.FailuresDir = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Judge a candidate and, if it passes, make it live."""
    with session("deploy", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        report = continuous.Reporting("deploy", name, junit, markdown, github, fail_on, json)
        with report.running():
            with run.steps(f"deploying {name}") as steps:
                outcome = run.project.deploy(
                    name,
                    model=model,
                    version=version,
                    message=message,
                    dry_run=dry_run,
                    wait=wait,
                    supersede=supersede,
                    replace_candidate=replace_candidate,
                    resolves=resolves,
                    failures_dir=failures_dir,
                    progress=steps,
                )
            outcome = report.judged(outcome)
            _show(run, outcome)
        report.write(outcome)


def _show(run: Session, outcome: Outcome) -> None:
    from mlguard.cli.terminal import outcome_lines

    run.say(outcome_lines(outcome))
    run.document(outcome.to_json())
    run.end(outcome.exit_code)
