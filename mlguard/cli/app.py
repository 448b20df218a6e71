"""The command line: one object that every module of commands adds its own to."""

from __future__ import annotations

from typing import Annotated

import typer

import mlguard

app = typer.Typer(
    name="mlguard",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: fits any screen, and loads in a fifth of the time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001  typer passes the option's value
    if wanted:
        typer.echo(f"mlguard {mlguard.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: ARG001  eager: handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Gates before a model is deployed, a server while it runs, monitors that roll it back.

    Start with `mlguard init` in an empty folder, or see it work: `mlguard demo`.
    """
