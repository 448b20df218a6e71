"""``mlguard incident``: what happened, why, what was done; close it, or learn from it."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session
from mlguard.errors import UsageError

if TYPE_CHECKING:
    from mlguard.cli.terminal import Line
    from mlguard.deploy.incidents import Incidents, IncidentStory


@app.command()
def incident(
    number: Annotated[
        int | None, typer.Argument(metavar="[N]", help="One incident; else all are listed.", min=1)
    ] = None,
    as_check: Annotated[
        bool,
        typer.Option(
            "--as-check", help="Write its rows as a check that blocks the next such candidate."
        ),
    ] = False,
    rows: Annotated[
        Path | None,
        typer.Option("--rows", metavar="FILE", help="Write its rows as a table to replay."),
    ] = None,
    close: Annotated[bool, typer.Option("--close", help="Close it; --cause is needed.")] = False,
    cause: Annotated[
        str | None,
        typer.Option("--cause", metavar="TEXT", help="What it was; it is kept for ever."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="With --as-check: replace a check that is there.")
    ] = False,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Tell what happened, why and what was done; write a check from it; close it."""
    with session("incident", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        _sensible(number, as_check=as_check, rows=rows, close=close, cause=cause, force=force)
        if number is None:
            found = run.project.incidents()
            run.say(list_lines(found))
        elif as_check:
            with run.steps(f"incident {number}") as steps:
                found = run.project.incident_check(number, force=force, progress=steps)
        elif rows is not None:
            found = run.project.incident_rows(number, rows)
        elif close:
            found = run.project.close_incident(number, cause=cause or "")
        else:
            found = run.project.incidents(number)
            assert found.story is not None
            run.say(story_lines(found.story, found.now))
        if found.lines:
            from mlguard.cli.terminal import sentences

            run.say(sentences(found.lines, found.next_step))
        run.document(found.to_json())


def _sensible(
    number: int | None,
    *,
    as_check: bool,
    rows: Path | None,
    close: bool,
    cause: str | None,
    force: bool,
) -> None:
    asked = as_check + (rows is not None) + close
    if asked > 1:
        raise UsageError(
            "--as-check, --rows and --close are three commands",
            hint="type one, then the other",
        )
    if number is None and (asked or force or cause is not None):
        raise UsageError("say which incident", hint="mlguard incident lists them")
    if close and not (cause or "").strip():
        raise UsageError(
            "an incident is closed with its cause",
            hint=f'mlguard incident {number} --close --cause "…"',
        )
    if cause is not None and not close:
        raise UsageError("--cause goes with --close", hint="add --close, or leave --cause out")
    if force and not as_check:
        raise UsageError("--force goes with --as-check", hint="leave it out")


def list_lines(found: Incidents) -> list[Line]:
    """Show incidents, one in two lines, the newest first."""
    from mlguard.cli.terminal import headline, indented, sentences
    from mlguard.deploy.incidents import CAME_TO
    from mlguard.wording import ago

    if not found.found:
        return sentences(("There was no incident.",), "mlguard status")
    lines: list[Line] = []
    for one in found.found:
        mark = ("✗ open", "red") if one.state == "open" else (f"– {one.state}", "dim")
        lines += headline(f"{one.id}  {one.app}  {one.monitor}", mark)
        said = f"{one.version or one.app}: {CAME_TO[one.level]}, {ago(one.opened_at, found.now)}"
        cause = f"; cause: {one.cause}" if one.cause else ""
        lines += [[(line, "dim")] for line in indented(f"{said}{cause}", 4)]
    return [*lines, *sentences((), found.next_step)]


def story_lines(story: IncidentStory, now: float) -> list[Line]:
    """Show one incident: what happened, what serves, why, what was done, what is next."""
    from mlguard.cli.terminal import headline
    from mlguard.deploy.incidents import CAME_TO
    from mlguard.wording import ago, estimate, moment, number

    one = story.incident
    mark = ("✗ open", "red") if one.state == "open" else (f"– {one.state}", "dim")
    lines = headline(f"{one.app}  incident {one.id}", mark)
    version = f" of {one.version}" if one.version else ""
    happened = f"{one.monitor}{version}: {CAME_TO[one.level]}"
    lines += _entry(
        "what", f"{happened}, {moment(one.opened_at)} ({ago(one.opened_at, now)})", "bold"
    )
    active = story.state.active
    serves = "the default output" if story.state.mode.value != "SERVE" else "nothing"
    if active is not None and story.state.mode.value == "SERVE":
        serves = f"{active.name} since {moment(story.state.since)}"
    lines += _entry("serves", f"{serves}, generation {story.state.generation}")
    value, limit = one.facts.get("value"), one.facts.get("limit")
    if value is not None:
        figure = estimate(value, one.facts.get("interval"), one.facts.get("n"))
        bound = "" if limit is None else f"; limit {number(limit)}"
        lines += _entry("why", f"{figure}{bound}")
    lines += _entry("" if value is not None else "why", one.summary)
    lines += _explained(one.facts.get("explanation") or {})
    lines += _rows(story.examples)
    for place, event in enumerate(story.events):
        text = f"{moment(event.at)}  {event.kind.replace('_', ' ')}, {event.actor}"
        lines += _entry("" if place else "done", text)
    for place, reason in enumerate(story.holds):
        lines += _entry("" if place else "held", reason, "yellow")
    if one.cause:
        lines += _entry("cause", one.cause)
    for place, command in enumerate(story.reproduce):
        lines += _entry("" if place else "again", command, "dim")
    return [*lines, [("  next: ", "dim"), (story.next_step, "")]]


def _explained(found: Mapping[str, Any]) -> list[Line]:
    from mlguard.wording import estimate, moment, number

    if not found:
        return []
    lines = _entry("since", f"about {moment(found['since'])}")
    for place, one in enumerate(found["features"][:3]):
        what = {"ks": "KS distance", "psi": "PSI", "share_increase": "share of"}[one["statistic"]]
        figure = estimate(one["value"], one["interval"], one["n"])
        tolerated = number(one["tolerated"])
        said = f"{one['feature']}: {what} {one['what']}".strip()
        lines += _entry("" if place else "inputs", f"{said} {figure}, tolerated {tolerated}")
    loss = found["loss"]
    if loss is None:
        return [*lines, *_entry("parts", f"not taken apart: {found['why_not']}", "dim")]
    change = estimate(loss["change"]["value"], loss["change"]["interval"])
    on_test = " (on [data] test)" if found.get("compared_with") == "test" else ""
    told = (
        f"mean loss {number(loss['before'])}{on_test} → {number(loss['after'])}, "
        f"a change of {change}"
    )
    lines += _entry("parts", f"{told}, of which")
    for name, one in sorted(loss["parts"].items(), key=lambda part: -part[1]["value"]):
        lines += _entry("", f"{estimate(one['value'], one['interval'])} {_PARTS[name]}")
    for place, one in enumerate(found["segments"][:3]):
        before = "none before" if one["loss_before"] is None else number(one["loss_before"])
        after = "none now" if one["loss_after"] is None else number(one["loss_after"])
        figure = estimate(one["value"], one["interval"])
        text = f"{one['segment']}: {figure} of it; loss {before} → {after}, n = {one['n_after']}"
        lines += _entry("" if place else "where", text)
    return lines


_PARTS = {
    "covariate": "other inputs (covariate shift)",
    "label": "other classes (label shift)",
    "concept": "the same inputs answered worse (concept shift)",
    "unseen": "inputs unlike any before",
}


def _rows(examples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Line]:
    lines: list[Line] = []
    for side in ("before", "after"):
        for place, one in enumerate(examples.get(side, ())):
            told = ", ".join(f"{name}={_value(value)}" for name, value in one["row"].items())
            truth = "" if one["label"] is None else f", label {_value(one['label'])}"
            text = f"query {one['query_id']}: {told or 'inputs not kept'} → "
            lines += _entry("" if place else side, f"{text}{_value(one['output'])}{truth}")
    return lines


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json_module.dumps(value, ensure_ascii=False)


def _entry(label: str, text: str, style: str = "") -> list[Line]:
    from mlguard.cli.terminal import indented
    from mlguard.wording import printable

    first, *more = indented(printable(text, 400), _WIDTH + 2)
    return [
        [(f"  {label:<{_WIDTH}}", "dim"), (first.strip(), style)],
        *[[(line, style)] for line in more],
    ]


#: Width of the first column.
_WIDTH = 9
