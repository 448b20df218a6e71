"""A gate decision as Markdown, for the summary of a CI step.

What blocks stands first, with its numbers and what to do; then everything else in one table.
The text stays under the million bytes that GitHub takes, however many checks there are and
whatever their names hold: what does not fit is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mlguard.results import CheckResult, GateDecision, Measurement
from mlguard.waivers import waiver_words
from mlguard.wording import count, estimate, number, printable

#: Bytes that a summary may have.
MOST_BYTES = 1_000_000
#: What is kept for the lines that say how much is left out.
_RESERVE = 500
_CELL_CHARS = 500
_GROUPS = 20
#: Characters that mean something in Markdown or HTML.
_SPECIAL = "\\`*_{}[]<>#|~&"


def write_markdown(decision: GateDecision, path: Path) -> None:
    """Append a decision to a file, as ``$GITHUB_STEP_SUMMARY`` is written.

    Parameters
    ----------
    decision : GateDecision
        What was decided.
    path : Path
        Where to; its folder is made.
    """
    append_text(markdown(decision), path)


def append_text(text: str, path: Path) -> None:
    """Append text to a file that the step's other commands may write to as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def markdown(decision: GateDecision) -> str:
    """Return a decision as Markdown of less than :data:`MOST_BYTES` bytes."""
    mark, word = ("✓", "allowed") if decision.allowed else ("✗", "refused")
    head = [
        f"## {mark} {escaped(decision.app)}: candidate {escaped(decision.candidate)} {word}",
        "",
        f"{escaped(decision.because[:1].upper() + decision.because[1:])}.",
        "",
    ]
    blocking = [one for one in decision.results if one.blocks]
    worst_first = sorted(decision.results, key=lambda one: -one.verdict.severity)
    budget = MOST_BYTES - _RESERVE - _size(head)
    # Half for what blocks, so that the table of the rest is never crowded out.
    details, hidden = _fitting((_section(one) for one in blocking), budget // 2)
    if hidden:
        details += ["", f"{count(hidden)} more checks block and are not shown.", ""]
    budget -= _size(details)
    table = ["### All checks", "", "| | check | found | limit |", "| --- | --- | --- | --- |"]
    rows, hidden = _fitting(([_row(one)] for one in worst_first), budget - _size(table) - 2000)
    absent = [f"- {escaped(one)}" for one in decision.not_applicable[:100]]
    lines = [*head, *details, *table, *rows, ""]
    if hidden:
        lines += [f"{count(hidden)} more checks are not shown.", ""]
    if absent and _size([*lines, *absent]) < MOST_BYTES - _RESERVE:
        lines += ["Not judged:", "", *absent, ""]
    return "\n".join(lines) + "\n"


def escaped(text: str, most: int = _CELL_CHARS) -> str:
    """Return text from outside as Markdown that shows it and does nothing else."""
    shown = printable(text, most)
    return "".join(f"&#{ord(one)};" if one in _SPECIAL else one for one in shown)


def _section(one: CheckResult) -> list[str]:
    lines = [
        f"### {one.verdict.mark} {escaped(one.name)}",
        "",
        escaped(one.summary, 2 * _CELL_CHARS),
        "",
    ]
    shown: Sequence[Measurement] = one.measurements[:_GROUPS]
    if shown:
        lines += ["| group | measured | n | value |", "| --- | --- | ---: | --- |"]
        lines += [
            f"| {escaped(m.group or 'all', 60)} | {escaped(m.name, 60)} | {count(m.n)} | "
            f"{m.suppressed or estimate(m.value, (m.low, m.high), unit=m.unit)} |"
            for m in shown
        ]
        left_out = len(one.measurements) - len(shown)
        lines += [f"| and {left_out} more | | | |"] * bool(left_out) + [""]
    if one.next_step:
        lines += [f"**Next:** {escaped(one.next_step)}", ""]
    return lines


def _row(one: CheckResult) -> str:
    said = [one.summary, waiver_words(one)]
    only = "" if one.blocks or one.enforcement == "block" else ", warns only"
    return (
        f"| {one.verdict.mark} {one.verdict.word}{only} | {escaped(one.name)} | "
        f"{escaped('; '.join(filter(None, said)))} | {number(one.limit)} |"
    )


def _size(lines: Iterable[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


def _fitting(parts: Iterable[list[str]], budget: int) -> tuple[list[str], int]:
    """Return the lines of the first parts that fit, and how many parts do not."""
    lines: list[str] = []
    used = hidden = 0
    for part in parts:
        size = _size(part)
        if hidden or used + size > budget:
            hidden += 1
            continue
        lines += part
        used += size
    return lines, hidden
