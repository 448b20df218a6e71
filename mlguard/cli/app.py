"""The command line: one object that every module of commands adds its own to."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mlguard.version import VERSION


class _Story(TyperGroup):
    """Lists the commands in the order in which people meet them."""

    ORDER = ("init", "demo", "up", "check", "deploy", "serve", "status", "history", "report")

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands' names, the known ones first."""
        names = super().list_commands(ctx)
        first = [name for name in self.ORDER if name in names]
        return first + [name for name in names if name not in first]


app = typer.Typer(
    name="mlguard",
    cls=_Story,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: fits any screen, and loads in a fifth of the time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlguard {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Gates before a model is deployed, a server while it runs, monitors that roll it back.

    Start with `mlguard init` in an empty folder, or see it work: `mlguard demo`.
    """
