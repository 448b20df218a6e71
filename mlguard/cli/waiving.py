"""Exceptions by hand: ``waive`` lets a finding close no gate, ``release`` ends a quarantine."""

from __future__ import annotations

from typing import Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session
from mlguard.errors import UsageError


@app.command()
def waive(
    name: options.App,
    check: Annotated[
        str | None,
        typer.Argument(metavar="[CHECK]", help='What may fail, e.g. "fairness.gap[sex]".'),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="NAME", help="For this version's bytes.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option("--digest", metavar="SHA256", help="For the bytes of this digest.")
    ] = None,
    any_version: Annotated[
        bool, typer.Option("--any-version", help="For every version, later ones too.")
    ] = False,
    subject: Annotated[
        str | None,
        typer.Option("--subject", metavar="TEXT", help="This subject only.  [default: all]"),
    ] = None,
    owner: Annotated[
        str, typer.Option("--owner", metavar="WHO", help="Who answers for it and mends it.")
    ] = "",
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept for ever.")
    ] = "",
    ticket: Annotated[
        str, typer.Option("--ticket", metavar="ID", help="Where the work is tracked.")
    ] = "",
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="WHEN", help='"30d" or "2026-12-31"; at most 90d away.'),
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="List the app's waivers; change nothing.")
    ] = False,
    revoke: Annotated[
        int | None, typer.Option("--revoke", metavar="ID", help="End this waiver now.")
    ] = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Let a finding block no deploy until a date; somebody answers for it."""
    with session("waive", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        if (check is not None) + list_all + (revoke is not None) != 1:
            raise UsageError(
                "say one of: which CHECK is waived, --list, --revoke ID",
                hint=f"mlguard waive {name} --list",
            )
        if list_all:
            done = run.project.waivers(name)
        elif revoke is not None:
            done = run.project.revoke_waiver(name, revoke, reason=reason)
        else:
            assert check is not None
            if expires is None:
                raise UsageError(
                    "a waiver ends: say when", hint='--expires "30d", or a day like 2026-12-31'
                )
            done = run.project.waive(
                name,
                check,
                version=version,
                digest=digest,
                any_version=any_version,
                subject=subject,
                owner=owner,
                reason=reason,
                ticket=ticket,
                expires=expires,
            )
        from mlguard.cli.terminal import sentences

        run.say(sentences(done.lines, done.next_step))
        run.document(done.to_json())


@app.command()
def release(
    name: options.App,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A quarantined version.")],
    reason: options.Reason,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Let quarantined bytes be judged again; nothing is deployed."""
    with session("release", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        outcome = run.project.release(name, version, reason=reason)
        from mlguard.cli.terminal import outcome_lines

        run.say(outcome_lines(outcome))
        run.document(outcome.to_json())
        run.end(outcome.exit_code)
