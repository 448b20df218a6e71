"""Write the reference pages that the code itself can tell: settings, commands, checks.

::

    python docs/generate.py            write docs/reference/{configuration,commands,checks}.md
    python docs/generate.py --check    compare instead; exit 1 where a page is out of date

A page is a pure function of the code: no clock, no machine, no project.  What cannot be told by
the code (why, and what to do) stands in ``docs/explanation/``.
"""

from __future__ import annotations

import argparse
import enum
import importlib
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Any

from mlguard import config, plugins, policy
from mlguard.cli.settings import duration_text
from mlguard.config import AppSettings, CheckPolicy, Family, ProjectSettings, Table
from mlguard.results import Enforcement

REFERENCE = Path(__file__).parent / "reference"
NOTICE = "% Written by docs/generate.py from the code; edit the code, then run it again.\n\n"


def page(text: str, **parts: str) -> str:
    """Return a page: its text with every ``$part`` put in."""
    return NOTICE + Template(text).substitute(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def first_sentence(thing: object) -> str:
    """Return the first paragraph of a docstring on one line."""
    text = inspect.getdoc(thing) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("``", "`")


# --- configuration -----------------------------------------------------------------------

#: What the end of a key's name says about its unit.
UNITS = {
    "_ms": "milliseconds",
    "_mib": "MiB",
    "_s": "seconds",
    "_rows": "rows",
    "_group_size": "rows",
    "_after": "windows",
    "_run_length": "labels",
    "block": "labels",
}
#: Tables that say something of their own before their keys.
INTRODUCTIONS = {
    "notify.email": "Where this table is absent, mail is written to `.mlguard/outbox/*.eml`.",
    "monitor.concept_drift": "A sequential monitor: its alarm counts at once, so it climbs no "
    "ladder of windows; see [monitors](../explanation/monitors.md).",
}


def fields(kind: type[Table]) -> Iterator[tuple[str, Any]]:
    """Return the keys that people may write, by the name they write them with."""
    for name, spec in kind.model_fields.items():
        if not spec.exclude:
            yield spec.alias or name, spec


def inner_table(spec: Any) -> type[Table] | None:
    """Return the table that a key stands for, None where it is a value."""
    options = (*typing.get_args(spec.annotation), spec.annotation)
    found = [one for one in options if isinstance(one, type) and issubclass(one, Table)]
    return found[0] if found else None


def all_tables(kind: type[Table], path: str = "") -> Iterator[tuple[str, type[Table]]]:
    """Return every table of a file by its path, in the order of the code."""
    if path:
        yield path, kind
    for name, spec in fields(kind):
        inner = inner_table(spec)
        if inner is not None:
            many = issubclass(kind, Family) and name in kind.NAMED
            here = f"{path}.{name}.<name>" if many else f"{path}.{name}"
            yield from all_tables(inner, here.lstrip("."))


def type_text(annotation: Any) -> str:  # noqa: PLR0911  one return a kind of type
    """Return a type in the words of somebody who writes TOML."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(arguments[0])
    values = arguments if origin is typing.Literal else ()
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        values = tuple(one.value for one in annotation)
    if values:
        return "one of " + ", ".join(f'`"{one}"`' for one in values)
    if arguments and type(None) in arguments:
        return type_text(next(one for one in arguments if one is not type(None)))
    of = [type_text(one) for one in arguments]
    if origin in (types.UnionType, typing.Union):
        return " or ".join(of)
    if origin is list:
        return "list of texts" if of == ["text"] else f"list; each {of[0]}"
    if origin is dict:
        return f"table of {of[1]}s"
    return {str: "text", bool: "true or false", int: "whole number", float: "number"}[annotation]


def bounds(spec: Any) -> str:
    """Return the range that a key is held to, as it is checked."""
    found = {
        key: getattr(one, key)
        for one in spec.metadata
        for key in ("ge", "gt", "le", "lt")
        if getattr(one, key, None) is not None
    }
    # The spaces do not break: a sign belongs to its number.
    signs = {"ge": "≥\u00a0", "gt": ">\u00a0", "le": "≤\u00a0", "lt": "<\u00a0"}
    return ", ".join(f"{signs[key]}{found[key]:g}" for key in signs if key in found)


def is_duration(spec: Any) -> bool:
    """Whether a key is written as a duration."""
    extra = spec.json_schema_extra
    return isinstance(extra, dict) and extra.get("unit") == "duration"


def value_text(name: str, spec: Any) -> str:
    """Return what a key's value is: type, unit and range."""
    if is_duration(spec):
        return "duration"
    limits = bounds(spec)
    if limits.replace("\u00a0", "") in ("≥0, ≤1", ">0, <1", ">0, ≤1"):
        return f"ratio, {limits}"
    measured = next((word for end, word in UNITS.items() if name.endswith(end)), "")
    words = type_text(spec.annotation)
    return ", ".join(part for part in (words, measured, limits) if part)


def default(spec: Any) -> str:
    """Return what is in force where a key is not written."""
    if spec.is_required():
        return "**required**"
    value = spec.get_default(call_default_factory=True)
    if value is None:
        return "see meaning"
    if isinstance(value, enum.Enum):
        value = value.value
    if is_duration(spec):
        value = duration_text(value)
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{key} = {json.dumps(one)}" for key, one in value.items()) + "}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def key_rows(kind: type[Table], *, without: frozenset[str] = frozenset()) -> list[list[str]]:
    """Return one row per key of a table: key, type, unit, default, meaning."""
    rows = []
    hidden = set(kind.WITHOUT) if issubclass(kind, Family) else set()
    for name, spec in fields(kind):
        if inner_table(spec) is not None or name in without or name in hidden:
            continue
        rows.append(
            [f"`{name}`", value_text(name, spec), default(spec), described(kind, name, spec)]
        )
    return rows


def described(kind: type[Table], name: str, spec: Any) -> str:
    """Return a key's meaning; one that only has another default keeps that of its base."""
    told = [spec.description] + [
        base.model_fields[name].description
        for base in kind.__mro__
        if issubclass(base, Table) and name in base.model_fields
    ]
    return next(str(text) for text in told if text)


#: Keys that several tables share: whose they are, and what to know of them.
SHARED: tuple[tuple[type[Table], str, str], ...] = (
    (
        CheckPolicy,
        "Keys of every check",
        """\
They may stand in `[gate.<family>]` for all checks of a family, and in `[gate.<family>.<check>]`
for one; the narrower table wins. Some checks have another default for `enforcement`: see
[checks and monitors](checks.md). `confidence_level` and `decide` are about limits that are held
against an interval: fairness, behaviour and latency read both, baseline the first one.
`family_error` is about groups that are judged together: fairness and baseline read it.""",
    ),
    (
        config.MonitorTable,
        "Keys of every monitor",
        """\
They may stand in every `[monitor.<name>]`.""",
    ),
    (
        config.WindowedMonitor,
        "Keys of monitors that judge windows",
        """\
They may stand in every `[monitor.<name>]` but `[monitor.concept_drift]`, which acts at its first
alarm and has no windows to count.""",
    ),
)
HEAD = ("key", "type, unit", "default", "meaning")
POLICY_KEYS = frozenset(CheckPolicy.model_fields)
MONITOR_KEYS = frozenset(config.MonitorTable.model_fields)


def same_as(kind: type[Table], base: type[Table]) -> frozenset[str]:
    """Return the keys that a table only inherits, with the default that its base has."""
    return frozenset(
        name
        for name, spec in base.model_fields.items()
        if issubclass(kind, base)
        and kind is not base
        and kind.model_fields[name].get_default() == spec.get_default()
    )


def shared_rows(base: type[Table]) -> list[list[str]]:
    """Return the keys of a shared table that no table above it has told."""
    return key_rows(base, without=same_as(base, config.MonitorTable))


def file_tables(kind: type[Table]) -> Iterator[str]:
    """Return every table of one file as Markdown, shared keys once and first."""
    told: set[type[Table]] = set()
    for path, one in all_tables(kind):
        for base, title, text in SHARED:
            if issubclass(one, base) and base not in told:
                told.add(base)
                yield f"### {title}\n\n{text}\n\n{table(HEAD, shared_rows(base))}"
        inherited = frozenset().union(*(same_as(one, base) for base, _, _ in SHARED))
        rows = key_rows(one, without=inherited)
        also = ""
        if inherited:
            shared = "every check" if issubclass(one, CheckPolicy) else "every monitor"
            also = f"Besides the keys of {shared}" + (":" if rows else "; it has no others.")
        checks = ""
        if issubclass(one, Family) and one.CHECKS:
            names = ", ".join(f"`{check}`" for check in sorted(one.CHECKS))
            checks = f"Sub-tables `[{path}.<check>]` are known for: {names}."
            for key, why in one.WITHOUT.items():
                checks += f" `{key}` is refused here: {why}."
        if not (rows or also):
            continue  # it only holds other tables
        parts = [f"### `[{path}]`", INTRODUCTIONS.get(path, ""), also]
        if rows:
            parts.append(table(HEAD, rows))
        yield "\n\n".join(part for part in (*parts, checks) if part)


CONFIGURATION = """\
# Settings

A project has one `mlguard.toml`; each app has a `serving/<app>/app.toml`. Only what differs from
the defaults has to be written: an empty `mlguard.toml` is valid. An unknown key, a wrong type or an
impossible value ends with [exit code](exit-codes.md) 2 and a message that names file, table, key,
value and the nearest known name. `mlguard config` prints what is in force for the project,
`mlguard config APP` for one app.

A *duration* is text like `"90s"`, `"10m"`, `"24h"` or `"7d"`. A *ratio* lies between 0 and 1.
Paths in `app.toml` start at its own folder, except `suite`, which starts at the project's root like
every path in `mlguard.toml`.

The name of an app is its folder's: 1 to 64 of `a-z 0-9 . _ -`, the first a letter or a digit. The
server needs these for itself: $reserved.

## mlguard.toml

$project

## app.toml

$app
"""


def configuration() -> str:
    """Return the page of every key of both settings files."""
    return page(
        CONFIGURATION,
        reserved=", ".join(f"`{one}`" for one in sorted(config.RESERVED_NAMES)),
        project="\n\n".join(file_tables(ProjectSettings)),
        app="\n\n".join(file_tables(AppSettings)),
    )


# --- commands ----------------------------------------------------------------------------

#: Options that nearly every command has; told once.
COMMON = ("--project", "--json", "--quiet", "--no-color")


def option_text(parameter: Any) -> str:
    """Return how an option or argument is typed."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    names = [*parameter.opts, *parameter.secondary_opts]
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    return ", ".join(f"`{name}{value}`" for name in names)


def option_rows(parameters: Iterable[Any]) -> list[list[str]]:
    """Return one row per option: how it is typed, default, meaning."""
    rows = []
    for one in parameters:
        value = one.default
        text = ""
        if one.required:
            text = "**required**"
        elif one.secondary_opts:
            text = f"`{one.opts[0] if value else one.secondary_opts[0]}`"
        elif not (value is None or value is False or value in ("", Path())):
            text = f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
        meaning, _, written = (one.help or "").partition("  [default: ")
        rows.append([option_text(one), written.removesuffix("]") or text, meaning])
    return rows


def usage(name: str, command: Any) -> str:
    """Return the line that shows how a command is called."""
    words = ["mlguard", name]
    for one in command.params:
        if one.param_type_name == "argument":
            words.append(one.metavar)
        elif one.required:
            words += [one.opts[0], one.metavar]
    return " ".join([*words, "[OPTIONS]"])


def command_line() -> Any:
    """Return the command line with every command added, as its entry point does."""
    import typer

    from mlguard.cli.__main__ import command_line as added

    return typer.main.get_command(added())


def all_commands() -> dict[str, Any]:
    """Return the commands by name, in the order of the help."""
    group = command_line()
    return {name: group.commands[name] for name in group.list_commands(None)}


COMMANDS = """\
# Commands

Every command ends with one of the [exit codes](exit-codes.md). `mlguard --version` prints the
version, `mlguard COMMAND --help` what stands here.

## Common options

Each command says below which of these it has. With `--json`, stdout holds exactly one document,
also where the command failed; progress and errors go to stderr.

Long work draws a bar on a terminal, and takes it away at the end. Where a line cannot be redrawn
(a pipe, `TERM=dumb`, `CI` is set) it says a line a step instead; with `--json` or `--quiet`,
nothing.

$common

$commands

## pytest

Where mlguard is installed, `pytest` in a project has these options as well.

$pytest
"""


def command_section(name: str, command: Any) -> str:
    """Return what there is to say about one command."""
    own = [one for one in command.params if one.opts[0] not in COMMON]
    also = [f"`{one.opts[0]}`" for one in command.params if one.opts[0] in COMMON]
    parts = [f"## {name}", command.help, f"```text\n{usage(name, command)}\n```"]
    if own:
        parts.append(table(("argument or option", "default", "meaning"), option_rows(own)))
    return "\n\n".join([*parts, "Common options: " + ", ".join(also) + "."])


def commands() -> str:
    """Return the page of every command and option."""
    known = all_commands()
    common = {
        parameter.opts[0]: parameter
        for command in known.values()
        for parameter in command.params
        if parameter.opts[0] in COMMON
    }
    return page(
        COMMANDS,
        common=table(("option", "default", "meaning"), option_rows(common[one] for one in COMMON)),
        commands="\n\n".join(command_section(*one) for one in known.items()),
        pytest=table(("option", "meaning"), pytest_options()),
    )


def pytest_options() -> list[list[str]]:
    """Return the options that the pytest plug-in adds."""
    from mlguard.pytest_plugin import pytest_addoption

    rows = []

    class Listener:
        def getgroup(self, *_: str) -> Listener:
            return self

        def addoption(self, name: str, *, metavar: str, help: str) -> None:  # noqa: A002  pytest's name
            rows.append([f"`{name}={metavar}`", f"{help[:1].upper()}{help[1:]}."])

    pytest_addoption(Listener())  # what it asks of a parser is this
    return rows


# --- checks and monitors -----------------------------------------------------------------

#: What each monitor's findings are called.
FINDINGS = {
    "concept_drift": {"concept_drift.loss": "mean loss of the labelled answers"},
    "data_drift": {"data_drift.features": "how far the feature that moved furthest has moved"},
    "fairness": {
        "fairness.<metric>_difference": "worst gap between two groups, per attribute",
        "fairness.<metric>_floor": "metric of the lowest group, per attribute, where there is a "
        "`floor`",
    },
    "fairness.loss": {"fairness.loss": "mean loss of the labelled answers of one group"},
    "prediction_drift": {
        "prediction_drift.distribution": "distance of the answers, classes or values, whichever "
        "moved further"
    },
    "label_drift": {"label_drift.distribution": "distance of the labels"},
    "estimated_performance": {
        "estimated_performance.estimate": "accuracy, F1 or AUC expected from the scores"
    },
    "estimated_performance.hindsight": {
        "estimated_performance.hindsight": "the same figure by labels, against the estimate"
    },
    "requests": {
        "requests.unusual": "share of rows with a value unlike the reference's",
        "requests.refused": "share of requests that were refused as malformed",
    },
    "service": {
        "service.model_errors": "share of valid rows on which the model gave no prediction",
        "service.default_ratio": "share of valid rows that got the default output",
        "service.crash": "deaths of the version's processes within five minutes, on all servers",
        "service.load": "whether any server could load the active version",
    },
}
EXPECTATIONS = (
    "Whether an expectation of the app's Great Expectations suites holds on the test rows and, "
    "where there are any, on the training rows; one check each. `[gate.data_quality.expectations]` "
    "is the table of all of them. Severity `warning` warns, `info` only tells."
)
#: Enforcement of a check that there is only where app.toml has a table for it.
DECLARED = "`block`, where declared"
#: What a gate says of itself where checks could not be run.
GATE_FINDINGS = {
    "gate.run": "the run of the checks ended early, or pytest could not finish it",
    "gate.lost": "a check was collected and never reported",
    "gate.collection": "no check matched, or a file of tests could not be loaded",
    "gate.reference": "what the monitors need to know of the test data could not be measured",
}


def check_rows() -> list[list[str]]:
    """Return the checks that have an id of their own: id, enforcement, what is asked."""
    from mlguard.checks import (
        baseline,
        behaving,
        covering,
        data_quality,
        delayed_impact,
        logged,
        privacy,
        serving,
        steadiness,
    )

    own: dict[str, tuple[Callable[..., Any], Enforcement, bool]] = data_quality._OWN  # noqa: SLF001  the one place that says it
    rows = [
        [
            f"`data_quality.{name}`",
            DECLARED if name in data_quality.ASKED_FOR else f"`{enforcement}`",
            asked(judge),
        ]
        for name, (judge, enforcement, _) in own.items()
    ]
    rows.append(
        [
            "`data_quality.expect_…`",
            "`block`",
            EXPECTATIONS,
        ]
    )
    for name, judge in (
        ("pii", privacy.personal_data),
        ("log", logged.logged_data),
        ("proxies", privacy.proxies),
        ("k_anonymity", privacy.k_anonymity),
    ):
        enforcement = "`warn`" + (", where declared" if name == "k_anonymity" else "")
        rows.append([f"`privacy.{name}`", enforcement, asked(judge)])
    for name, judge in (
        ("beats", baseline.beats),
        ("matches", baseline.matches),
        ("no_worse_than", baseline.no_worse),
        ("beats_in`, `baseline.no_worse_in", baseline.judge_groups),
    ):
        rows.append([f"`baseline.{name}`", "`block`", asked(judge)])
    for name, judge in (
        ("invariance", behaving.find_invariance),
        ("directional", behaving.find_directional),
        ("minimum_functionality", behaving.find_minimum),
        ("flips", behaving.find_flips),
        ("calibration", steadiness.find_calibration),
        ("reproducibility", steadiness.find_reproducibility),
    ):
        rows.append([f"`behaviour.{name}`", DECLARED, asked(judge)])
    certain = "`block`, where `[app] uncertainty` is true"
    rows.append(["`behaviour.coverage`", certain, asked(covering.find_coverage)])
    for name, judge in (
        ("latency", serving.judge_latency),
        ("size", serving.judge_size),
        ("features", serving.judge_features),
        ("skew", serving.find_skew),
    ):
        rows.append([f"`serving.{name}`", DECLARED, asked(judge)])
    rows.append([f"`{delayed_impact.ID}`", "`block`", asked(delayed_impact.find_impact)])
    return rows


def asked(judge: Callable[..., Any]) -> str:
    """Return what a judging function judges, as a sentence."""
    text = first_sentence(judge).removeprefix("Judge ")
    return f"{text[:1].upper()}{text[1:]}"


def fairness_rows() -> list[list[str]]:
    """Return the metrics: name, what is counted, what more of it means."""
    from mlguard.checks.fairness_words import COUNTED, MEANING

    rows = []
    for metric in typing.get_args(config.FairnessMetric):
        meaning = MEANING[metric].format(group="the group", positive="`yes`")
        counted = COUNTED.get(metric, "rows")
        rows.append([f"`{metric}`", counted, meaning])
    return rows


def data_rows() -> list[list[str]]:
    """Return the checks of the data's groups: id, key that declares them, what is asked."""
    from mlguard.checks import data_bias

    return [
        [f"`{check}`", f"`{key}`", f"{first_sentence(judge)}"]
        for check, key, judge in (
            (data_bias.REPRESENTATION, "population", data_bias.representation),
            (data_bias.BASE_RATE, "base_rate_at_most", data_bias.base_rates),
            (data_bias.MISSING_RATE, "missing_at_most", data_bias.missing_rates),
        )
    ]


def monitor_rows() -> list[list[str]]:
    """Return the monitors: id, what each asks, what it judges, the highest level by default."""
    rows = []
    for name, point in plugins.found("mlguard.monitors").items():
        if not point.value.startswith("mlguard."):
            continue
        kind = point.load()
        module = importlib.import_module(kind.__module__)
        # Where a module holds several monitors, each says itself what it asks.
        asks = getattr(kind, "asks", "") or first_sentence(module).partition(": ")[2]
        # A part of a monitor has the table of the whole.
        tables = AppSettings.model_fields["monitor"].annotation.model_fields
        settings = tables[name.partition(".")[0]].default
        clock = getattr(kind, "clock", None)
        of_labels = "every label" if kind.sequential else "windows of labels"
        judges = {"rows": "windows of answers", "labels": of_labels}.get(
            clock, "windows of labelled answers; of answers for `selection_rate`"
        )
        rows.append([f"`{name}`", f"{asks[:1].upper()}{asks[1:]}", judges, f"`{settings.action}`"])
    return rows


def finding_rows() -> list[list[str]]:
    """Return what monitors find: id, monitor, meaning, whether one window is enough."""
    return [
        [f"`{name}`", meaning, "yes" if name in policy.HARD_CHECKS else ""]
        for monitor in plugins.found("mlguard.monitors")
        for name, meaning in FINDINGS.get(monitor, {}).items()
    ]


def metric_rows() -> list[list[str]]:
    """Return the server's figures: name, kind, meaning."""
    from mlguard.serving.metrics import Metrics

    helps: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for line in Metrics().render().decode().splitlines():
        word, _, rest = line.removeprefix("# ").partition(" ")
        name, _, text = rest.partition(" ")
        if word in ("HELP", "TYPE"):
            (helps if word == "HELP" else kinds)[name] = text
    return [
        [f"`{name}`", kind, helps[name]]
        for name, kind in kinds.items()
        if not name.endswith("_created")
    ]


CHECKS = """\
# Checks and monitors

Ids are stable: settings, results, reports, mail and test names all use them. What is judged about a
column, an attribute or a group carries it in brackets, e.g.
`fairness.false_negative_rate_difference[sex]`.

## Checks before a deploy

`enforcement` is what stands here where `app.toml` says nothing; see
[the gate](../explanation/gate.md).

$checks

Where the run itself goes wrong, the gate names that as a finding of its own, ERRORED and blocking:

$gate

A function `test_x` in `checks/<app>/test_y.py` is a check of its own; so is every `assert_…` of
`mlguard.checks` that it calls.

## Fairness metrics

Named as fairlearn names them. The check's id is `fairness.<metric>_<aggregate>`, with `difference`,
`ratio`, `group_min` or `group_max` as the aggregate; it blocks by default. A parity is a difference
or a ratio. `yes` stands for the positive class. A group that has fewer than `min_group_size` of
what is counted is not compared, and leaves the check undecided; one of an intersection is listed.

$metrics

What `app.toml` states an expectation of the data for is judged on the training rows, or on the test
rows where there are none:

$data

## Monitors of live traffic

The highest level is the default of `action`; see [monitors](../explanation/monitors.md).

$monitors

$findings

## Figures of the server

`GET /metrics` tells them in Prometheus' text form.

$figures
"""


def checks() -> str:
    """Return the page of check ids, monitor ids and metric names."""
    return page(
        CHECKS,
        checks=table(("id", "enforcement", "what is asked"), check_rows()),
        gate=table(("id", "meaning"), [[f"`{k}`", v] for k, v in GATE_FINDINGS.items()]),
        metrics=table(("metric", "counted per group", "higher means"), fairness_rows()),
        data=table(("id", "declared by", "what is asked"), data_rows()),
        monitors=table(("monitor", "what is asked", "judges", "highest level"), monitor_rows()),
        findings=table(("finding", "value", "one failed window is enough"), finding_rows()),
        figures=table(("name", "kind", "meaning"), metric_rows()),
    )


# --- writing -----------------------------------------------------------------------------

PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration,
    "commands.md": commands,
    "checks.md": checks,
}


def out_of_date() -> list[str]:
    """Return the pages that differ from what the code says."""
    return [
        name
        for name, make in PAGES.items()
        if not (REFERENCE / name).is_file()
        or (REFERENCE / name).read_text(encoding="utf-8") != make()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare the pages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    old = out_of_date()
    if parser.parse_args(arguments).check:
        for name in old:
            sys.stderr.write(f"docs/reference/{name} is out of date: python docs/generate.py\n")
        return 1 if old else 0
    REFERENCE.mkdir(exist_ok=True)
    for name in old:
        (REFERENCE / name).write_text(PAGES[name](), encoding="utf-8")
        sys.stderr.write(f"wrote docs/reference/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
