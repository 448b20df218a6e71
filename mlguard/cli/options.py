"""Options that many commands share, each written down once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

App = Annotated[str, typer.Argument(metavar="APP", help="Name of the app: a folder of serving/.")]
ProjectDir = Annotated[
    Path | None,
    typer.Option(
        "--project", metavar="DIR", help="The project's folder.  [default: found upwards]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colour (as NO_COLOR).")]
Model = Annotated[
    Path | None,
    typer.Option("--model", metavar="FILE", help="The candidate.  [default: [model] path]"),
]
FailuresDir = Annotated[
    Path | None,
    typer.Option(
        "--failures-dir", metavar="DIR", help="List the rows that broke a check, by their id."
    ),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept for ever.")]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on; 0 picks a free one.")]
