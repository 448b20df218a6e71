"""Commands that look and change nothing: ``status``, ``history``, ``card``, …."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session
from mlguard.errors import UsageError

if TYPE_CHECKING:
    from mlguard.project import Project


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[APP]", help="One app only.")] = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Say what serves, since when and why, and what is watched."""
    with session("status", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        found = run.project.status(name)
        from mlguard.cli.status import status_document, status_lines

        run.say(status_lines(found))
        run.document(status_document(found, one=name is not None))
        run.end(max((one.exit_code for one in found), default=0))


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(metavar="[APP]", help="One app only.")] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="What served at this time (ISO 8601, UTC)."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that no entry was edited or deleted.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Newest entries to show.")] = 30,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Show what was done, by whom and why."""
    with session("history", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        found = run.project.history(name, at=at, verify=verify, limit=limit)
        from mlguard.cli.status import history_document, history_lines

        run.say(history_lines(found))
        run.document(history_document(found))
        run.end(found.exit_code)


@app.command()
def card(
    name: Annotated[
        str, typer.Argument(metavar="APP", help="Name of the app, or of a version of one app only.")
    ],
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Default: the active one.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write it as a web page.")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="Write it as Markdown."),
    ] = None,
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="Print the whole evidence as JSON."),
    ] = False,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Print a version's card: what it is, what it was judged by, what nobody tested.

    It says what is on record: no model is loaded and no data is read. The bare command prints
    Markdown.
    """
    with session(
        "card", project=project, json=json or evidence, quiet=quiet, no_color=no_color
    ) as run:
        if version is None:
            name, version = _app_and_version(run.project, name)
        if evidence:
            if html or markdown:
                raise UsageError(
                    "--evidence is a JSON document and goes to stdout",
                    hint="leave out --html and --markdown, or leave out --evidence",
                )
            run.document(run.project.evidence(name, version))
            return
        made = run.project.card(name, version)
        from mlguard.deploy.card import card_document
        from mlguard.reports import card_page
        from mlguard.reports.render_child import write_whole

        written = []
        for file, render in ((html, card_page.html), (markdown, card_page.markdown)):
            if file is not None:
                write_whole(file.resolve(), render(made))
                written.append(str(file))
        if written:
            run.say([f"  Wrote {file}" for file in written])
        else:
            run.say(card_page.markdown(made).splitlines())
        run.document(card_document(made, tuple(written)))


def _app_and_version(project: Project, named: str) -> tuple[str, str | None]:
    """Return the app and version that one name stands for: an app, or a version of one app."""
    apps = project.app_names()
    if named in apps:
        return named, None
    having = [
        one
        for one in apps
        if any(version.name == named for version in project.registry.versions(one))
    ]
    if len(having) > 1:
        raise UsageError(
            f"{len(having)} apps have a version {named!r}: {', '.join(having)}",
            hint=f"say which: mlguard card {having[0]} {named}",
        )
    # Whoever is asked for it next says that there is no such app, and which there are.
    return (having[0], named) if having else (named, None)


@app.command()
def report(
    name: options.App,
    window: Annotated[
        str, typer.Option("--window", metavar="TIME", help='How far back, e.g. "24h" or "7d".')
    ] = "7d",
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Where to write it.  [default: reports/APP/]"),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write it as Markdown, too.")
    ] = None,
    email: Annotated[bool, typer.Option("--email", help="Mail it as well.")] = False,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Write the drift and quality report of live traffic."""
    with session("report", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        with run.steps(f"reporting on {name}") as steps:
            made = run.project.report(
                name, window=window, html=html, markdown=markdown, email=email, progress=steps
            )
        from mlguard.cli.terminal import sentences

        run.say(sentences(made.lines, made.next_step))
        run.document(made.to_json())


@app.command()
def config(
    name: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="An app; else the project itself.")
    ] = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Print every setting that is in force, written or default."""
    with session("config", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        settings = run.project.settings if name is None else run.project.app(name)
        from mlguard.cli.settings import settings_lines

        run.say(settings_lines(settings))
        run.document(
            {
                "schema_version": "1.0",
                "command": "config",
                "ok": True,
                "changed": False,
                "exit_code": 0,
                "app": name,
                "settings": settings.model_dump(mode="json", by_alias=True),
            }
        )
