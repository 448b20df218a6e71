"""Commands that begin: ``init`` writes a project, ``demo`` tells the whole story."""

from __future__ import annotations

import shlex
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session
from mlguard.errors import UsageError


def write_template(template: str, folder: Path) -> list[Path]:
    """Copy a packaged project into a folder, touching nothing that is there.

    Parameters
    ----------
    template : str
        ``"project_template"`` or ``"demo_project"``.
    folder : Path
        Made where it is missing.

    Returns
    -------
    list of Path
        The files written, relative to the folder, sorted.

    Raises
    ------
    UsageError
        If a file of the template is there already; nothing is written then.
    """
    with as_file(files("mlguard.cli") / template) as source:
        wanted = sorted(
            path.relative_to(source)
            for path in source.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        )
        there = [path for path in wanted if (folder / path).exists()]
        if there:
            raise UsageError(
                f"{folder} holds {there[0]} already; nothing was written",
                hint="name an empty folder: mlguard init DIR",
            )
        for path in wanted:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, folder / path)
    return wanted


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write it.")] = Path(),
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Write a project with a working first app."""
    with session("init", project=folder, json=json, quiet=quiet, no_color=no_color) as run:
        written = write_template("project_template", folder)
        go = "mlguard up" if folder == Path() else f"cd {shlex.quote(str(folder))} && mlguard up"
        run.say([f"  {path}" for path in written] + ["", [("  next: ", "dim"), (go, "")]])
        run.document(
            {
                "schema_version": "1.0",
                "command": "init",
                "ok": True,
                "changed": True,
                "exit_code": 0,
                "folder": str(folder.resolve()),
                "files": [str(path) for path in written],
            }
        )


@app.command()
def demo(
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="DIR", help="Keep the demo's project in this folder."),
    ] = None,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """See the whole story, in a temporary folder."""
    with session("demo", project=keep, json=False, quiet=quiet, no_color=no_color) as run:
        from mlguard.cli.demo import tell

        run.end(tell(run, keep=keep))
