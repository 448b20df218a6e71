"""Commands that ask what the monitors would do: ``backtest`` and ``calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session


@app.command()
def backtest(
    name: options.App,
    data: Annotated[str, typer.Argument(metavar="DATA", help="CSV or Parquet file with labels.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="FILE", help="[default: the active version, else [model] path]"
        ),
    ] = None,
    label_delay: Annotated[
        int, typer.Option("--label-delay", min=0, help="Rows after which a label arrives.")
    ] = 0,
    window: Annotated[
        int | None,
        typer.Option("--window", min=20, help="Rows of a window.  [default: window_rows]"),
    ] = None,
    start: Annotated[
        int | None,
        typer.Option(
            "--start",
            metavar="ROW",
            min=0,
            help="Learn the reference on the 2,000 rows from here.  [default: [data] test]",
        ),
    ] = None,
    change: Annotated[
        int | None,
        typer.Option("--change", metavar="ROW", min=0, help="Count delays from this row."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write a picture (PNG).")
    ] = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Replay labelled rows through a model and the monitors, and say what they would have done.

    Rows count from 0. Nothing is registered and no traffic moves; the exit code is 0 whatever is
    found.
    """
    with session("backtest", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        with run.steps(f"backtesting {name}") as steps:
            done = run.project.backtest(
                name,
                data,
                model=model,
                label_delay=label_delay,
                window=window,
                start=start,
                change=change,
                plot=plot,
                progress=steps,
            )
        from mlguard.cli.terminal import sentences

        run.say([*(f"  {line}".rstrip() for line in done.lines), *sentences((), done.next_step)])
        run.document(done.to_json())


@app.command()
def calibrate(
    name: options.App,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="FILE", help="[default: the active version, else [model] path]"
        ),
    ] = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Measure on the app's own history how often its monitors cry wolf and what they can see.

    History is the prediction log's labelled rows, else [data] test. It is drawn from again and
    again, with and without a drift; seeds are fixed.
    """
    with session("calibrate", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        with run.steps(f"calibrating {name}") as steps:
            done = run.project.calibrate(name, model=model, progress=steps)
        from mlguard.cli.terminal import sentences

        run.say([*(f"  {line}".rstrip() for line in done.lines), *sentences((), done.next_step)])
        run.document(done.to_json())
