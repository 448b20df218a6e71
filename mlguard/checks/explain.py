"""A result in words: one line for a list, a small table for a failing test.

The order is that of every surface: what was found, by how much and against which limit, whom
it concerns, what to do next.
"""

from __future__ import annotations

import textwrap

from mlguard.results import CheckResult, Measurement, Verdict
from mlguard.waivers import waiver_words
from mlguard.wording import count, estimate, number, printable

#: Most rows of the table; a check with more groups names how many are left out.
_ROWS = 20
_NAME_CHARS = 40
_WIDTH = 88


class CheckFailedError(AssertionError):
    """A check that closes the gate, with its result.

    Parameters
    ----------
    result : CheckResult
        What was found.
    """

    def __init__(self, result: CheckResult) -> None:
        super().__init__(report_text(result))
        self.result = result


def one_line(result: CheckResult) -> str:
    """Return mark, verdict, name and summary in one line."""
    only = ""
    bad = result.verdict in (Verdict.FAILED, Verdict.ERRORED, Verdict.INCONCLUSIVE)
    if bad and not result.blocks:
        only = f", {waiver_words(result)}" if result.waived_by else ", warns only"
    head = f"{result.verdict.mark} {result.verdict.word}{only}  {printable(result.name)}"
    return f"{head}  {printable(result.summary, 500)}"


def report_text(result: CheckResult) -> str:
    """Return everything that somebody who did not write the check needs to understand it."""
    lines = [
        f"{result.verdict.mark} {result.verdict.word}  {printable(result.name)}",
        *_wrapped(printable(result.summary, 1000)),
    ]
    if result.measurements:
        lines += ["", *(f"  {line}" for line in table(result.measurements))]
    if result.value is not None and result.interval is not None:
        limit = "" if result.limit is None else f"; limit {number(result.limit)}"
        lines += ["", f"  judged: {estimate(result.value, result.interval, result.n)}{limit}"]
    for text in result.details.get("notes", ()):
        lines += _wrapped(printable(text, 500))
    if result.blocks and result.verdict is Verdict.INCONCLUSIVE:
        lines += ['  undecided closes the gate, unless on_inconclusive = "warn"']
    if result.blocks and waiver_words(result):
        lines += _wrapped(f"{waiver_words(result)}: it blocks again")
    if result.next_step:
        lines += [f"  next: {printable(result.next_step, 500)}"]
    traceback = result.details.get("traceback")
    # An error that mlguard explains needs no stack to be understood.
    if traceback and not result.details.get("explained"):
        lines += ["", *(f"  {line}" for line in str(traceback).rstrip().splitlines())]
    return "\n".join(lines)


def table(measurements: tuple[Measurement, ...]) -> list[str]:
    """Return measurements as the lines of a table: who, what, n, value, interval."""
    shown = measurements[:_ROWS]
    header = ("group", "measured", "n", "value", "interval")
    rows = [
        (
            printable(one.group or "all", _NAME_CHARS),
            printable(one.name, _NAME_CHARS),
            count(one.n),
            number(one.value) + (f" {one.unit}" if one.unit and one.value is not None else ""),
            one.suppressed or _interval(one),
        )
        for one in shown
    ]
    grid = [header, *rows]
    widths = [max(len(row[place]) for row in grid) for place in range(len(header))]
    right = {2, 3}  # numbers line up at their end
    lines = [
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in grid
    ]
    left_out = len(measurements) - len(shown)
    return [*lines, f"and {left_out} more"] if left_out else lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )


def _interval(one: Measurement) -> str:
    text = estimate(one.value, (one.low, one.high))
    return text[text.index("[") :] if "[" in text else "–"
