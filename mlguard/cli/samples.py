"""``mlguard samples``: a report, a mail and the dashboard, made again by what makes them for users.

The demo's story is told once more, without words: its project, server, monitors and mail are
those of every project, so that a sample cannot show what the product does not do.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from mlguard.cli import options, pictures
from mlguard.cli.app import app
from mlguard.cli.session import Session, session

#: What is written: the report, the mail, and pictures of the mail and of the app's page.
REPORT, MAIL, MAIL_PICTURE, DASHBOARD = "report.html", "mail.eml", "mail.png", "dashboard.png"
#: Windows of the pictures in CSS pixels: a mail as a reader shows it, a page on a desk.
MAIL_WINDOW, DESK = (640, 1400), (1440, 1400)
_DAY_S = 86_400.0


@app.command()
def samples(
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Where to.  [default: reports/samples/]"),
    ] = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Make the samples again: a report, a mail, and pictures of it and the dashboard."""
    with session("samples", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        folder = to or run.project.root / "reports" / "samples"
        written, missing = make(run, folder)
        run.say([f"  {path}" for path in written])
        run.say([f"  not made: {one}" for one in missing])
        run.document(
            {
                "schema_version": "1.0",
                "command": "samples",
                "ok": True,
                "changed": True,
                "exit_code": 0,
                "folder": str(folder.resolve()),
                "files": [path.name for path in written],
            }
        )


def make(run: Session, folder: Path) -> tuple[list[Path], list[str]]:
    """Tell the demo's story silently and keep what people saw of it.

    Parameters
    ----------
    run : Session
        Shows the progress.
    folder : Path
        Made where it is missing; files that are there are replaced.

    Returns
    -------
    tuple
        The files written, and what could not be made with its reason.
    """
    from mlguard.cli.demo import APP, STEPS, Story
    from mlguard.cli.starting import write_template
    from mlguard.deploy.reporting import make_report
    from mlguard.project import Project

    folder.mkdir(parents=True, exist_ok=True)
    seen = pictures.browser() is not None
    with (
        tempfile.TemporaryDirectory(prefix="mlguard-samples-") as scratch,
        run.steps("a project is written", total=STEPS) as steps,
    ):
        write_template("demo_project", Path(scratch))
        project = Project(scratch)

        def look(url: str) -> None:
            if seen:
                steps("a picture of the dashboard is taken")
                width, height = DESK
                pictures.picture_of(
                    f"{url}/apps/{APP}", folder / DASHBOARD, width=width, height=height
                )

        story = Story(dataclasses.replace(run, quiet=True), project, steps, look)
        story.tell()
        now = project.clock()
        made = make_report(
            project.settings,
            project.app(APP),
            project.registry,
            since=now - _DAY_S,
            until=now,
            now=now,
            html=folder / REPORT,
            evidently=False,
            progress=steps,
        )
        mail = Path(shutil.copyfile(story.mails()[0], folder / MAIL))
        written = [*made.files, mail]
        if seen:
            steps("a picture of the mail is taken")
            page = Path(scratch, "mail.html")
            page.write_text(pictures.mail_page(mail), encoding="utf-8")
            width, height = MAIL_WINDOW
            shown = pictures.picture_of(
                page.as_uri(), folder / MAIL_PICTURE, width=width, height=height
            )
            written += [shown, folder / DASHBOARD]
    return written, [] if seen else ["pictures: there is no Chromium on this machine"]
