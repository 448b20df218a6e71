"""``mlguard explain``: one prediction, on a terminal."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session

if TYPE_CHECKING:
    from mlguard.cli.terminal import Line
    from mlguard.deploy.explanation import Explanation, Logged, OtherAnswer


@app.command()
def explain(
    name: options.App,
    query_id: Annotated[
        int, typer.Argument(metavar="QUERY_ID", help="As it stood in the answer.", min=0)
    ],
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Take one prediction apart: its row, who answered and why, its label, what others say."""
    with session("explain", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        with run.steps(f"explaining query {query_id}") as steps:
            found = run.project.explain(name, query_id, progress=steps)
        run.say(explain_lines(found))
        run.document(found.to_json())


def explain_lines(found: Explanation) -> list[Line]:
    """Show one prediction: what, who, why, what was true, what other versions say."""
    from mlguard.cli.terminal import headline
    from mlguard.wording import ago, moment

    logged = found.logged
    mark = ("? its row is not in the log", "dim")
    if logged is not None:
        mark = ("! default output", "yellow") if logged.default else ("✓ answered", "green")
    lines = headline(f"{found.app}  query {found.query_id}", mark)
    if logged is not None:
        score = "" if logged.score is None else f"   score {logged.score:.4g}"
        lines += _entry("answer", f"{_value(logged.output)}{score}")
        if logged.default:
            lines += _entry("why", logged.why_default or "unknown", "yellow")
        when = f"{moment(logged.at)} ({ago(logged.at, found.now)})"
        took = "" if logged.latency_ms is None else f", after {logged.latency_ms:.1f} ms"
        lines += _entry("when", when + took)
    who = "no version was asked" if found.version is None else f"{found.version}, {found.state}"
    lines += _entry("version", f"{who}; generation {found.generation} of {found.app}")
    if logged is None:
        lines += _entry(
            "log",
            "no row: the last second before a kill is lost, older rows go with [log] retention, "
            "and an id may be reserved that nobody was given",
        )
    else:
        lines += _row(logged, dict(found.unusual))
    if found.label is None:
        lines += _entry("label", "none yet")
    else:
        told = f"{_value(found.label.value)}   from {found.label.source}, {moment(found.label.at)}"
        lines += _entry("label", told)
    lines += _others(found)
    next_step = f"mlguard status {found.app}"
    if found.version is not None:
        next_step = f"mlguard card {found.app} {found.version}"
    return [*lines, [("  next: ", "dim"), (next_step, "")]]


def _row(logged: Logged, unusual: dict[str, str]) -> list[Line]:
    lines: list[Line] = []
    for name, said in (("uid", logged.uid), ("groups", _pairs(logged.groups))):
        if said:
            lines += _entry(name, said)
    label = "row"
    for name, value in logged.row.items():
        why = f"   ! {unusual[name]}" if name in unusual else ""
        lines += _entry(label, f"{name} = {_value(value)}{why}", "yellow" if why else "")
        label = ""
    if logged.hidden:
        lines += _entry(label, f"not kept: {', '.join(logged.hidden)}", "dim")
    return lines


def _others(found: Explanation) -> list[Line]:
    if found.not_asked:
        return _entry("today", f"nobody was asked: {found.not_asked}", "dim")
    lines: list[Line] = []
    for place, one in enumerate(found.others):
        label = "" if place else "today"
        lines += _entry(label, _other(one), "red" if one.problem else "")
    return lines


def _other(one: OtherAnswer) -> str:
    role = "the same version" if one.role == "answered" else one.role
    if one.problem:
        return f"{one.version} ({role}): ✗ {one.problem}"
    score = "" if one.score is None else f"   score {one.score:.4g}"
    return f"{one.version} ({role}): {_value(one.output)}{score}"


def _pairs(groups: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in groups.items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json_module.dumps(value, ensure_ascii=False)


def _entry(label: str, text: str, style: str = "") -> list[Line]:
    from mlguard.cli.terminal import FAMILY, indented
    from mlguard.wording import printable

    first, *more = indented(printable(text, 400), FAMILY + 2)
    return [
        [(f"  {label:<{FAMILY}}", "dim"), (first.strip(), style)],
        *[[(line, style)] for line in more],
    ]
