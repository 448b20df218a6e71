"""``doctor``, ``registry verify|repair|gc``, ``why``: what is asked when something looks wrong."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session
from mlguard.errors import UsageError

if TYPE_CHECKING:
    from mlguard.cli.terminal import Line
    from mlguard.deploy.doctor import Diagnosis
    from mlguard.deploy.why import Why


class _Action(StrEnum):
    VERIFY = "verify"
    REPAIR = "repair"
    GC = "gc"


@app.command()
def registry(
    action: Annotated[
        _Action,
        typer.Argument(
            metavar="verify|repair|gc",
            help="verify: read every byte and compare every fact; repair: put identical bytes "
            "back; gc: archive old standbys, remove bytes that nobody needs.",
        ),
    ],
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="repair: where the bytes are, a file or a folder.  [default: each app's model]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Check the registry and its bytes, mend them, tidy them up."""
    name = f"registry {action.value}"
    with session(name, project=project, json=json, quiet=quiet, no_color=no_color) as run:
        if sources and action is not _Action.REPAIR:
            raise UsageError("--from belongs to repair", hint="mlguard registry repair --from FILE")
        if action is _Action.VERIFY:
            done = run.project.verify_registry()
        elif action is _Action.REPAIR:
            done = run.project.repair_registry(sources, dry_run=dry_run)
        else:
            done = run.project.collect_registry(dry_run=dry_run)
        from mlguard.cli.terminal import sentences

        run.say(sentences(done.lines, done.next_step))
        run.document(done.to_json())
        run.end(done.exit_code)


@app.command()
def doctor(
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Look at installation and project, and say what to do where something is not in order."""
    with session("doctor", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        from mlguard.deploy.doctor import examine

        found = examine(run.project.settings)
        run.say(doctor_lines(found))
        run.document(found.to_json())
        run.end(found.exit_code)


def doctor_lines(found: Diagnosis) -> list[Line]:
    """Show each finding with its mark, and under it what to do."""
    from mlguard.cli.terminal import indented

    marks = {"ok": "✓", "warn": "!", "broken": "✗"}
    lines: list[Line] = []
    for one in found.findings:
        lines += indented(f"{marks[one.state]} {one.id}: {one.summary}", 2)
        if one.next_step:
            lines += indented(f"next: {one.next_step}", 6)
    return lines


@app.command()
def why(
    name: options.App,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Default: the active one.")
    ] = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Say why a version is in its state: what was done to it, and on what evidence."""
    with session("why", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        found = run.project.why(name, version)
        run.say(why_lines(found))
        run.document(found.to_json())


def why_lines(found: Why) -> list[Line]:
    """Show the story of a version: its state and the reason, what led there, what is next."""
    from mlguard import wording
    from mlguard.cli.terminal import indented
    from mlguard.wording import moment

    one = found.version
    lines: list[Line] = [
        [(f"  {one.app} {one.name}", "bold"), (f"  {one.state.value}: {found.meaning}", "")],
        *indented(f"since {moment(one.state_at)}, because {found.because}", 4),
    ]
    if one.message:
        lines += indented(wording.printable(f"“{one.message}” – {one.registered_by}", 400), 4)
    if found.incident is not None:
        lines += indented(f"✗ incident {found.incident.id}: {found.incident.summary}", 4)
    if found.quarantine:
        lines += indented(f"✗ its bytes are in quarantine: {found.quarantine}", 4)
    lines += [line for hold in found.holds for line in indented(f"! on hold: {hold}", 4)]
    lines.append("")
    for event in found.events:
        lines.append(
            [
                (f"  {moment(event.at)}  ", "dim"),
                (f"{event.kind:<14} ", "bold" if event.moved else ""),
                (f"by {event.actor}", "dim"),
            ]
        )
        lines += indented(wording.printable(event.reason, 400), 26)
    lines.append("")
    for known in found.evidence:
        said = known.decision.get("because", "")
        lines += indented(
            f"{'✓' if known.allowed else '✗'} gate, {moment(known.at)}: {said} "
            f"(evidence {known.id})",
            2,
        )
    if found.decision is not None:
        for check in found.decision.blocking:
            lines += indented(f"✗ {check.name}: {check.summary}", 4)
    return [*lines, [("  next: ", "dim"), (found.next_step, "")]]
