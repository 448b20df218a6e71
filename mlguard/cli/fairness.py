"""``mlguard fairness``: figures per group, threshold policies, mitigated candidates."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlguard.cli import options
from mlguard.cli.app import app
from mlguard.cli.session import session
from mlguard.wording import SMALL_GROUP, count, estimate, group_size, listed, number, printable

if TYPE_CHECKING:
    from mlguard.cli.terminal import Line
    from mlguard.deploy.fairness import Examined
    from mlguard.deploy.group_figures import AttributeFigures, MetricFigures
    from mlguard.deploy.threshold_policies import PolicyFigures, ThresholdTable
    from mlguard.stats.score_table import Operating

#: Width of one metric with its interval, and of a count.
CELL, COUNT = 19, 9
#: Longest group name of a table; a longer one is cut.
NAME = 18

_SHORT = {
    "selection_rate": "answered yes",
    "true_positive_rate": "TPR",
    "false_positive_rate": "FPR",
    "false_negative_rate": "FNR",
    "true_negative_rate": "TNR",
    "mean_absolute_error": "mean abs. error",
}


class PolicyName(StrEnum):
    """What --write takes."""

    max_utility = "max_utility"
    max_utility_per_group = "max_utility_per_group"
    demographic_parity = "demographic_parity"
    equal_opportunity = "equal_opportunity"


class MethodName(StrEnum):
    """What --mitigate takes."""

    thresholds = "thresholds"
    reweighing = "reweighing"


@app.command()
def fairness(
    name: options.App,
    model: options.Model = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="COLUMN", help="One attribute.  [default: all of app.toml]"),
    ] = None,
    thresholds: Annotated[
        bool, typer.Option("--thresholds", help="Compare policies of thresholds per group.")
    ] = False,
    write: Annotated[
        PolicyName | None,
        typer.Option("--write", metavar="POLICY", help="Write a policy into app.toml."),
    ] = None,
    mitigate: Annotated[
        MethodName | None,
        typer.Option(
            "--mitigate",
            metavar="METHOD",
            help="Make a candidate beside the original: thresholds or reweighing.",
        ),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", metavar="DIR", help="Draw pictures into a folder.")
    ] = None,
    project: options.ProjectDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    no_color: options.NoColor = False,
) -> None:
    """Measure a candidate per group of people; compare thresholds; make a candidate."""
    with session("fairness", project=project, json=json, quiet=quiet, no_color=no_color) as run:
        with run.steps(f"measuring {name}") as steps:
            examined = run.project.fairness(
                name,
                model=model,
                by=by,
                thresholds=thresholds,
                write=write,
                mitigate=mitigate,
                plots=plots,
                progress=steps,
            )
        run.say(fairness_lines(examined))
        run.document(examined.to_json())


def fairness_lines(examined: Examined) -> list[Line]:
    """Show what was found and done, the next command last."""
    from mlguard.cli.terminal import headline, sentences

    rows = f"{count(examined.n)} rows of [data] test"
    lines = headline(f"{examined.app}  {examined.candidate}", (rows, "dim"))
    if examined.tables:
        for table in examined.tables:
            lines += _table_lines(table)
    elif examined.mitigated is None:
        for figures in examined.attributes:
            lines += _figures_lines(figures)
        lines += _meanings(examined)
    done: list[str] = []
    if examined.mitigated is not None:
        done += examined.mitigated.lines
    if examined.written is not None:
        told = ", ".join(f"{printable(key, 40)} = {one}" for key, one in examined.written.items())
        state = "now holds" if examined.changed else "held already"
        done.append(
            f"[model.thresholds] of app.toml {state}: {told}. A deploy through the gate makes it "
            "serve."
        )
    if examined.plots:
        folder = examined.plots[0].file.parent
        done.append(f"Drew {len(examined.plots)} pictures; they stand in {folder}/README.md")
    return [*lines, "", *sentences(done, examined.next_step)]


# --- figures per group ------------------------------------------------------------------------


def _figures_lines(figures: AttributeFigures) -> list[Line]:
    """Show the metrics of one attribute, as many beside each other as fit the screen."""
    from mlguard.cli.terminal import WIDTH

    width = min(NAME, max(len("differs by"), *(len(name) for name in figures.sizes))) + 1
    beside = max(1, (WIDTH - 2 - width - COUNT) // CELL)
    lines: list[Line] = []
    for start in range(0, len(figures.metrics), beside):
        part = figures.metrics[start : start + beside]
        head = "".join(f"{_short(one):>{CELL}}" for one in part)
        by = printable(figures.by, width)
        lines += ["", [(f"  {by:<{width}}{'rows':>{COUNT}}{head}", "bold")]]
        for name, size in figures.sizes.items():
            cells = "".join(f"{_cell(one, name):>{CELL}}" for one in part)
            rows = count(size) if size >= SMALL_GROUP else f"< {SMALL_GROUP}"
            lines.append(f"  {printable(name, width - 1):<{width}}{rows:>{COUNT}}{cells}")
        gaps = "".join(f"{_gap(one):>{CELL}}" for one in part)
        lines.append(f"  {'differs by':<{width}}{'':>{COUNT}}{gaps}")
    small = sorted({name for one in figures.metrics for name in one.gap.too_small})
    if any(one.n < SMALL_GROUP for each in figures.metrics for one in each.gap.groups):
        lines.append([(f"  figures of fewer than {SMALL_GROUP} rows are not shown", "dim")])
    if small:
        lines.append([(f"  too few rows to be compared in some column: {listed(small)}", "dim")])
    return lines


def _short(one: MetricFigures) -> str:
    text = _SHORT.get(one.metric, one.metric.replace("_", " "))
    return printable(f"{text} {one.positive}".strip(), CELL - 1)


def _cell(figures: MetricFigures, group: str) -> str:
    one = next(each for each in figures.gap.groups if each.name == group)
    if one.n < SMALL_GROUP:
        return "not shown"
    return _estimate(one.value, one.low, one.high)


def _gap(figures: MetricFigures) -> str:
    interval = figures.gap.interval
    low, high = (None, None) if interval is None else interval
    return _estimate(figures.gap.value, low, high)


def _estimate(value: float | None, low: float | None, high: float | None) -> str:
    """Write an estimate so that a column of them lines up: a rate with two decimals."""
    if value is None or abs(value) > 1:
        return estimate(value, (low, high))
    return f"{value:.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")


def _meanings(examined: Examined) -> list[Line]:
    """Say what the short names count, and at which level the intervals hold."""
    from mlguard.cli.terminal import indented

    shown = {one.metric for figures in examined.attributes for one in figures.metrics}
    words = {
        "true_positive_rate": "TPR: answered yes where the truth is yes",
        "false_negative_rate": "FNR: refused where the truth is yes",
        "false_positive_rate": "FPR: answered yes where the truth is no",
        "true_negative_rate": "TNR: refused where the truth is no",
    }
    told = [text for metric, text in words.items() if metric in shown]
    text = "; ".join([*told, "intervals hold for all groups of a column together"])
    return ["", *([(line, "dim")] for line in indented(f"{text[0].upper()}{text[1:]}.", 2))]


# --- threshold policies -----------------------------------------------------------------------

_COLUMNS = ("threshold", "yes", "TPR", "FPR", "PPV", "utility", "impact")
_WIDTHS = (11, 7, 7, 7, 7, 9, 9)


def _table_lines(table: ThresholdTable) -> list[Line]:
    from mlguard.cli.terminal import WIDTH, indented

    known = table.impact is not None
    columns = list(zip(_COLUMNS, _WIDTHS, strict=True))[: None if known else -1]
    width = WIDTH - 2 - sum(_WIDTHS)
    head = "".join(f"{column:>{size}}" for column, size in columns)
    by = printable(table.by, width - 1)
    lines: list[Line] = ["", [(f"  {by:<{width}}{head}", "bold")]]
    for one in table.policies:
        lines += _policy_lines(one, width, known=known)
    notes = [
        (
            f"Thresholds chosen on {count(table.n_chosen)} rows, all figures measured on the other "
            f"{count(table.n_measured)}. A yes is {printable(table.positive, 20)}."
        ),
        (
            f"Utility per person: a yes that succeeds counts {number(table.utility.success)}, one "
            f"that fails {number(table.utility.failure)}."
        ),
    ]
    if any(at.cut.randomised for one in table.policies for at in one.points.values()):
        notes.append("~ a lot decides among those whose score is just there.")
    if not known:
        notes.append(
            "What an answer does to people later is not known: write "
            "[gate.fairness.delayed_impact] in app.toml."
        )
    if table.left_out:
        named = [f"{printable(name, 30)} ({group_size(n)})" for name, n in table.left_out.items()]
        notes.append(f"Left out, with too few rows: {listed(named)}.")
    return [*lines, "", *([(line, "dim")] for note in notes for line in indented(note, 2))]


def _policy_lines(one: PolicyFigures, width: int, *, known: bool) -> list[Line]:
    from mlguard.cli.terminal import headline
    from mlguard.deploy.threshold_policies import TITLES

    worth = f"utility {number(one.utility, places=3)}"
    lines = headline(f"  {TITLES[one.policy]}  ({one.policy})", (worth, "dim"))
    for name, at in one.points.items():
        lines.append(f"    {printable(name, width - 3):<{width - 2}}{_point(at, known=known)}")
    harmed = [printable(name, 30) for name, kind in one.harm.items() if kind == "active"]
    if harmed:
        said = f"    ✗ active harm: the mean score of {listed(harmed)} falls"
        lines.append([(said, "red")])
    return lines


def _point(at: Operating, *, known: bool) -> str:
    mark = "~" if at.cut.randomised else ""
    rates = (
        at.selection_rate,
        at.true_positive_rate,
        at.false_positive_rate,
        at.precision,
    )
    cells = [
        mark + number(at.cut.threshold, places=3 if abs(at.cut.threshold) <= 1 else 1),
        *(number(one, places=2) for one in rates),
        number(at.utility, places=3),
        *([number(at.impact, places=2)] if known else []),
    ]
    return "".join(f"{cell:>{size}}" for cell, size in zip(cells, _WIDTHS, strict=False))
