"""How findings look on a terminal.

80 columns, no boxes, one blank line between thoughts, a shape beside every verdict so that
colour is never alone.  A line is a list of (text, style) pieces; styles are green, yellow, red,
dim and bold, and vanish where stdout is no terminal.

Long work draws a bar where people look at a screen that can redraw a line, and takes it away at
the end; elsewhere (a pipe, a CI log, a terminal without a cursor) it says a line a step.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlguard import wording
from mlguard.results import CheckResult, Finding, GateDecision, Measurement, Verdict
from mlguard.waivers import waiver_words

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mlguard.deploy.outcome import Outcome

WIDTH = 80
#: Width of the first column of a gate: the family's name.
FAMILY = 15
#: Characters of a line beyond which text from outside is cut.
LONGEST = 1000

Piece = tuple[str, str]
Line = str | list[Piece]

STYLES = {
    Verdict.PASSED: "green",
    Verdict.SKIPPED: "dim",
    Verdict.WARNED: "yellow",
    Verdict.INCONCLUSIVE: "dim",
    Verdict.ERRORED: "red",
    Verdict.FAILED: "red",
}


class Steps:
    """Progress of one long piece of work: call it with a line for each step.

    A line that knows how far the work is (:class:`~mlguard.wording.Step`) fills the bar so far;
    any other one lets it pulse.  Where the number of lines was given, each line is a part.

    Parameters
    ----------
    bar : Progress or None
        Where it is drawn; None: a line a step on stderr.
    title : str
        What it says before the first step.
    lines : int or None
        How many lines there will be, where that is known.
    silent : bool
        Whether nothing is said at all.
    """

    def __init__(
        self, bar: Progress | None, title: str = "", *, lines: int | None = None, silent: bool
    ) -> None:
        self._bar = bar
        self._lines = lines
        self._silent = silent
        self._said = ""
        self._task: TaskID | None = None
        self._began: float | None = None
        if bar is not None:
            self._begin(bar, title, lines)

    def _begin(self, bar: Progress, text: str, total: int | None) -> TaskID:
        """Draw another bar in the place of the one there was; its clock goes on."""
        if self._task is not None:
            bar.remove_task(self._task)
        self._task = bar.add_task(text, total=total)
        task = bar.tasks[0]
        if self._began is None:
            self._began = task.start_time
        task.start_time = self._began
        return self._task

    def __call__(self, text: str) -> None:
        """Say that a step is done or under way."""
        if self._bar is not None and self._task is not None:
            self._draw(self._bar, self._task, text)
        elif not self._silent and text != self._said:
            sys.stderr.write(f"{plain(text)}\n")
            sys.stderr.flush()
        self._said = text

    def _draw(self, bar: Progress, task: TaskID, text: str) -> None:
        shown = wording.printable(text, WIDTH - 34)
        if self._lines is not None:
            bar.update(task, description=shown, advance=1)
            return
        done, total = 0, None
        if isinstance(text, wording.Step):
            done, total = text.done, text.total
        if total != bar.tasks[0].total:
            task = self._begin(bar, shown, total)
        bar.update(task, description=shown, completed=done)


def draws_bars() -> bool:
    """Whether people look at a screen that can redraw a line.

    Both streams must be terminals: a pipe behind stdout writes to the same screen whenever it
    likes.
    """
    watched = sys.stderr.isatty() and sys.stdout.isatty()
    with_cursor = os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return watched and with_cursor and not in_ci


class Terminal:
    """Where a command prints."""

    def __init__(self, *, no_color: bool) -> None:
        self.no_color = no_color
        self._bar: Progress | None = None

    def write(self, lines: Sequence[Line]) -> None:
        """Print lines to stdout, coloured where stdout is a terminal."""
        on_terminal = sys.stdout.isatty()
        if not on_terminal or (self.no_color and self._bar is None):
            sys.stdout.write("".join(f"{plain(line)}\n" for line in lines))
            sys.stdout.flush()
            return
        from rich.console import Console
        from rich.text import Text

        # A bar that is being drawn must move down itself: its own console knows how.
        console = self._bar.console if self._bar is not None else Console(highlight=False)
        for line in lines:
            pieces = [(wording.printable(line, LONGEST), "")] if isinstance(line, str) else line
            text = Text.assemble(
                *((wording.printable(part, LONGEST), style) for part, style in pieces)
            )
            console.print(text, soft_wrap=True)

    @contextlib.contextmanager
    def steps(self, title: str, *, total: int | None, silent: bool) -> Iterator[Steps]:
        """Show the progress of long work on stderr; ``total`` is the number of its lines."""
        if silent or not draws_bars():
            yield Steps(None, silent=silent)
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True, no_color=self.no_color, highlight=False)
        # The names of checks have brackets, which are no markup.
        text = TextColumn("{task.description}", markup=False)
        columns = (text, BarColumn(16), TimeElapsedColumn())
        progress = Progress(
            *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        try:
            with progress as self._bar:
                yield Steps(progress, title, lines=total, silent=False)
        finally:
            self._bar = None


def plain(line: Line) -> str:
    """Return a line without its styles."""
    text = line if isinstance(line, str) else "".join(part for part, _ in line)
    # Data may wrap so that a line begins like a command.
    return wording.inert(wording.printable(text, LONGEST).rstrip())


def harmless(text: str) -> str:
    """Return text of several lines in which a screen obeys nothing and no line is a command."""
    return "\n".join(plain(line) for line in text.splitlines())


def indented(text: str, indent: int, first: int | None = None) -> list[str]:
    """Wrap text to the screen's width behind an indent."""
    # Made printable first: what stands for a character that is not shown is wider than it.
    return textwrap.wrap(
        wording.printable(text, LONGEST),
        width=WIDTH,
        initial_indent=" " * (indent if first is None else first),
        subsequent_indent=" " * indent,
        break_long_words=True,
        break_on_hyphens=False,
    ) or [" " * indent]


def headline(left: str, right: Piece) -> list[Line]:
    """Return a line with one thing at its left and one at its right; long names take more."""
    *before, last = indented(left, 2, 0)
    if len(last) + 2 + len(right[0]) > WIDTH:
        before, last = [*before, last], ""
    gap = " " * (WIDTH - len(last) - len(right[0]))
    return [*([(one, "bold")] for one in before), [(last, "bold"), (gap, ""), right]]


def measurement(one: Measurement) -> str:
    """Write one group's number: ``F 0.31 [0.27, 0.35], n = 1,204``."""
    label = one.group.partition("=")[2] or one.group or one.name
    return f"{label} {one.shown()}"


def gate_lines(decision: GateDecision) -> list[Line]:
    """Show what a gate found: families that are well in a line, the rest in full."""
    right = ("✓ allowed", "green") if decision.allowed else ("✗ refused", "red")
    lines = headline(f"{decision.app}  candidate {decision.candidate}", right)
    families: dict[str, list[CheckResult]] = {}
    for one in decision.results:
        families.setdefault(one.family, []).append(one)
    # Why something was not asked -> of what; what has one reason stands in one line.
    unasked: dict[str, list[str]] = {}
    for family, results in families.items():
        name = family.replace("_", " ")
        if all(one.verdict is Verdict.SKIPPED for one in results):
            for one in results:
                unasked.setdefault(one.summary, []).append(name)
        else:
            lines += _family_lines(name, results)
    for item in decision.not_applicable:
        name, _, why = item.partition(": ")
        unasked.setdefault(why, []).append(name)
    for why, names in unasked.items():
        item = "– " + ", ".join(dict.fromkeys(names)) + (f": {why}" if why else "")
        lines += [[(text, "dim")] for text in indented(item, FAMILY + 2, 2)]
    return lines


def _family_lines(family: str, results: Sequence[CheckResult]) -> list[Line]:
    well = [one for one in results if one.verdict in (Verdict.PASSED, Verdict.SKIPPED)]
    rest = [one for one in results if one not in well]
    lines: list[Line] = []
    label = f"  {family:<{FAMILY}}"
    if well:
        skipped = sum(one.verdict is Verdict.SKIPPED for one in well)
        text = f"{len(well) - skipped} of {len(results) - skipped}"
        if skipped:
            text += f", {skipped} skipped"
        mark: Piece = ("✓ ", "green") if len(well) > skipped else ("– ", "dim")
        lines.append([(label, ""), mark, (text, "")])
        label = " " * len(label)
    for one in sorted(rest, key=lambda one: -one.verdict.severity):
        lines += finding_lines(one, label)
        label = " " * len(label)
    return lines


def finding_lines(one: Finding, label: str) -> list[Line]:
    """Show one finding in full: its name with the sentence or the numbers, then the groups.

    Where people of several groups were compared with a limit, their numbers say what the
    sentence would.
    """
    indent = len(label) + 2
    groups = [measurement(group) for group in one.measurements if group.group]
    text = f"{one.name}: {one.summary}"
    of_people = one.family == "fairness"
    if of_people and groups and one.value is not None and one.limit is not None:
        value = wording.estimate(one.value, one.interval)
        text = f"{one.name}  {value}  limit {wording.number(one.limit)}"
    first, *more = indented(text, indent)
    lines: list[Line] = [
        [(label, ""), (f"{one.verdict.mark} ", STYLES[one.verdict]), (first.strip(), "")],
        *more,
    ]
    if isinstance(one, CheckResult) and (said := waiver_words(one)):
        text = said if one.waived_by else f"{said}: it blocks again"
        lines += [[(part, "yellow")] for part in indented(text, indent)]
    return [*lines, *_columns(groups, indent + 2)]


def _columns(cells: Sequence[str], indent: int) -> list[Line]:
    """Lay short cells side by side as far as the screen goes."""
    if not cells:
        return []
    cells = [wording.printable(cell, LONGEST) for cell in cells]
    width = max(len(cell) for cell in cells) + 3
    if indent + width - 3 > WIDTH:
        return [line for cell in cells for line in indented(cell, indent + 2, indent)]
    per_line = max(1, (WIDTH - indent) // width)
    return [
        " " * indent + "".join(f"{cell:<{width}}" for cell in cells[start : start + per_line])
        for start in range(0, len(cells), per_line)
    ]


def sentences(lines: Sequence[str], next_step: str) -> list[Line]:
    """Show what happened and, last of all, the next command to type."""
    shown: list[Line] = []
    for line in lines:
        shown += list(indented(line, 2))
    if next_step:
        first, *more = indented(next_step, 8)
        shown += [[("  next: ", "dim"), (first.strip(), "")], *more]
    return shown


def outcome_lines(outcome: Outcome) -> list[Line]:
    """Show what a command did: the gate where it ran, then what happened, then what is next."""
    lines = gate_lines(outcome.decision) if outcome.decision is not None else []
    return [*lines, *sentences(outcome.lines, outcome.next_step)]
