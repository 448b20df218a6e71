"""Commands that run: ``up``, ``serve``, ``monitor``, ``replay``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import Session, session

if TYPE_CHECKING:
    from mlguard.cli.terminal import Line
    from mlguard.serving.ahead import FrontAhead


def _serve(
    run: Session,
    *,
    host: str | None,
    port: int | None,
    monitors: bool,
    ahead: FrontAhead | None = None,
) -> None:
    from mlguard.cli.serving import serve_project

    run.end(serve_project(run, host=host, port=port, monitors=monitors, ahead=ahead))


@app.command()
def up(
    host: options.Host = None,
    port: options.Port = None,
    project: options.ProjectDir = None,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Deploy every app through its gate, serve and watch."""
    with session("up", project=project, json=False, quiet=quiet, no_color=no_color) as run:
        from mlguard.cli.serving import check_port
        from mlguard.cli.terminal import outcome_lines

        check_port(run.project.settings, host=host, port=port)
        for name in run.project.app_names():
            with run.steps(f"deploying {name}") as steps:
                outcome = run.project.deploy(name, message="mlguard up", progress=steps)
            # What is next is what this command does next.
            lines: list[Line] = [*outcome_lines(outcome.replace(next_step="")), ""]
            run.say(lines)
        _serve(run, host=host, port=port, monitors=True)


@app.command()
def serve(
    host: options.Host = None,
    port: options.Port = None,
    monitors: Annotated[
        bool, typer.Option("--monitors/--no-monitors", help="Watch live traffic as well.")
    ] = True,
    project: options.ProjectDir = None,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Serve what is live, and watch it."""
    with session("serve", project=project, json=False, quiet=quiet, no_color=no_color) as run:
        # Before anything else: it has more to import than this process, and begins at once.
        from mlguard.serving.ahead import FrontAhead

        ahead = FrontAhead("mlguard.server_app")
        try:
            _serve(run, host=host, port=port, monitors=monitors, ahead=ahead)
        finally:
            ahead.close()


@app.command()
def monitor(
    name: Annotated[str | None, typer.Argument(metavar="[APP]", help="One app only.")] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Judge what is due now and end, e.g. from cron.")
    ] = False,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Judge the windows that are due and act by policy."""
    with session("monitor", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        done = run.project.monitor(name, once=once)
        if done is None:
            return
        from mlguard.cli.terminal import sentences

        run.say(sentences(done.lines, done.next_step))
        run.document(done.to_json())
        run.end(done.exit_code)


@app.command()
def replay(
    name: options.App,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="CSV or Parquet file of rows.")],
    url: Annotated[str, typer.Option("--url", help="A running server.")] = "http://127.0.0.1:1337",
    rate: Annotated[
        float, typer.Option("--rate", min=0, help="Rows a second; 0: as fast as it goes.")
    ] = 0,
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Send each row's label as well.")
    ] = True,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Send rows and labels from a file to a server."""
    with session("replay", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        with run.steps(f"replaying to {name}") as steps:
            done = run.project.replay(
                name, str(data), url=url, rate=rate, labels=labels, progress=steps
            )
        from mlguard.cli.terminal import sentences

        run.say(sentences(done.lines, done.next_step))
        run.document(done.to_json())
        run.end(done.exit_code)
