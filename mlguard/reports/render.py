"""A report as HTML, Markdown and JSON: pure functions of the view and its drawings.

The HTML stands alone: style and pictures are inside, nothing is loaded from anywhere (its
Content-Security-Policy says so), every value is escaped, and it stays below
:data:`MAX_HTML` bytes: charts of the least drifted features are left out first, and their
numbers stay in the table.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlguard.reports.markup import (
    md,
    md_figures,
    md_table,
    md_verdict,
    page,
    printable_values,
)
from mlguard.reports.view import Chart, GroupChart, ReportView, TimeChart
from mlguard.wording import count, estimate, moment, number, share

MAX_HTML = 500_000
#: Features that get a chart; all of them stand in the table.
FEATURE_CHARTS = 18
WIDE, NARROW, CARD, PAIR = 880, 340, 320, 460


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart as SVG for a wide and for a narrow page; either may be empty."""

    wide: str = ""
    narrow: str = ""


def html(view: ReportView, draw: Callable[[Chart, int], bytes]) -> str:
    """Render a report as one self-contained HTML page.

    Parameters
    ----------
    view : ReportView
    draw : callable
        Returns a chart as SVG of a width in CSS pixels.
    """
    view = _printable(view)
    drawings = _drawings(view, draw)
    text = _page(view, drawings)
    for row in reversed(view.drift):
        if len(text.encode()) < MAX_HTML:
            break
        if row.chart in drawings:
            del drawings[row.chart]
            text = _page(view, drawings)
    return text


def _drawings(view: ReportView, draw: Callable[[Chart, int], bytes]) -> dict[Chart, Drawn]:
    def one(chart: Chart, *, narrow: int, wide: int = 0) -> None:
        found[chart] = Drawn(
            wide=draw(chart, wide).decode() if wide else "", narrow=draw(chart, narrow).decode()
        )

    found: dict[Chart, Drawn] = {}
    for performance in view.performance:
        one(performance, wide=WIDE, narrow=NARROW)
    for row in view.drift[:FEATURE_CHARTS]:
        if row.chart is not None:
            one(row.chart, narrow=CARD)
    for groups in view.groups:
        one(groups, wide=PAIR, narrow=NARROW)
    if view.calibration is not None:
        one(view.calibration, narrow=NARROW)
    return found


def _page(view: ReportView, drawings: Mapping[Chart, Drawn]) -> str:
    from markupsafe import Markup

    def drawn(chart: Chart) -> Any:
        found = drawings.get(chart, Drawn())
        # SVG comes from our own charts, which escape what they were given.
        wide, narrow = (Markup(one) for one in (found.wide, found.narrow))  # noqa: S704 - our own SVG
        return dataclasses.replace(found, wide=wide, narrow=narrow)

    return page("report.html.j2", view=view, drawn=drawn, changed_since=changed_since(view))


def _printable(view: ReportView) -> ReportView:
    """Return the report with every text that came from outside made printable."""
    return ReportView.from_json(printable_values(view.to_json()))


# --- Markdown ----------------------------------------------------------------------------


def markdown(view: ReportView) -> str:
    """Render a report as Markdown for a pull request or a job summary.

    Values from outside cannot become markup: what Markdown or HTML would read is escaped, and
    no line starts with what came from outside.
    """
    view = _printable(view)
    story = view.story
    period = f"{moment(view.since)} to {moment(view.until)}"
    blocks = [
        f"# {md(story.happened)}",
        f"{view.verdict.mark} {view.verdict.word} · **{md(story.serves)}**",
        " · ".join(["mlguard", md(view.project), md(view.environment), md(view.app), period]),
    ]
    for title, text in (
        ("Why", story.why),
        ("What mlguard did", story.did),
        ("What you can do next", story.next_step),
    ):
        if text:
            blocks.append(f"**{title}.** {md(text)}")
    if story.command:
        blocks.append(f"```sh\n{story.command.replace('`', '')}\n```")
    blocks += [*md_figures("Verdicts of the monitors", view.figures), *_md_drift(view)]
    blocks += [block for chart in view.groups for block in _md_groups(chart)]
    blocks += [block for chart in view.performance for block in _md_time(chart)]
    blocks += [*_md_service(view), *md_figures("What the gate found", view.gate)]
    blocks += _md_waived(view)
    blocks += _md_lists(view)
    return "\n\n".join(blocks) + "\n"


def _md_waived(view: ReportView) -> list[str]:
    if not view.waived:
        return []
    lines = [f"- {md(one.name)}: {md(one.says)}. {md(one.reason)}" for one in view.waived]
    return ["## Waived in what serves", "\n".join(lines)]


def _md_drift(view: ReportView) -> list[str]:
    if not view.drift:
        return []
    rows = [
        (
            md_verdict(one.figure),
            md(one.feature),
            f"{one.measure.upper()} {md(estimate(one.figure.value, one.figure.interval))}",
            number(one.figure.limit),
            count(one.figure.n),
            f"{share(one.missing_before)} → {share(one.missing_after)}",
        )
        for one in view.drift
    ]
    head = ("verdict", "feature", "distance", "limit", "n", "missing")
    return ["## Drift of the data", md_table(head, rows)]


def _md_groups(chart: GroupChart) -> list[str]:
    rows = [
        (
            md(one.group),
            md(estimate(one.value, (one.low, one.high))) if one.value is not None else "not shown",
            count(one.n),
        )
        for one in chart.groups
    ]
    title = f"## {md(chart.metric)} by {md(chart.attribute)}"
    said = f"{chart.verdict.mark} {chart.verdict.word}: {md(chart.title)}"
    return [title, said, md_table((chart.attribute and md(chart.attribute), "value", "n"), rows)]


def _md_time(chart: TimeChart) -> list[str]:
    rows = [
        (moment(one.at), md(estimate(one.value, (one.low, one.high))), count(one.n))
        for one in chart.points
        if one.value is not None
    ]
    marks = [f"- {moment(one.at)} {md(one.label)}" for one in chart.marks]
    blocks = [f"## {md(chart.title)}", md_table(("from", md(chart.metric), "n"), rows)]
    return [*blocks, "\n".join(marks)] if marks else blocks


def _md_service(view: ReportView) -> list[str]:
    service = view.service
    rows = [
        ("predictions", count(service.predictions)),
        ("labels arrived", count(service.labels)),
        ("default answers", count(service.defaults)),
    ]
    rows += [(f"default: {md(cause)}", count(n)) for cause, n in service.causes]
    if service.latency_p50_ms is not None:
        rows.append(
            (
                "latency, 50 / 95 / 99 %",
                " / ".join(
                    number(one)
                    for one in (
                        service.latency_p50_ms,
                        service.latency_p95_ms,
                        service.latency_p99_ms,
                    )
                )
                + " ms",
            )
        )
    return ["## Service", md_table(("", ""), rows)]


def changed_since(view: ReportView) -> str:
    """Return the heading of what changed: since when."""
    if view.last_report is None:
        return "What changed since the period before"
    return f"What changed since the last report, {moment(view.last_report)}"


def _md_lists(view: ReportView) -> list[str]:
    blocks = []
    if view.changes or view.served_then:
        lines = [f"- {md(view.served_then)} served then"] if view.served_then else []
        lines += [
            f"- {md(one.name)}: {'not judged' if one.before is None else one.before.word}"
            f" → {one.after.word}"
            for one in view.changes
        ]
        blocks += [f"## {changed_since(view)}", "\n".join(lines)]
    if view.happenings:
        lines = [
            f"- {moment(one.at)} {md(one.what)}" + (f": {md(one.why)}" if one.why else "")
            for one in view.happenings
        ]
        blocks += ["## History", "\n".join(lines)]
    if view.not_judged:
        blocks += ["## What could not be said", "\n".join(f"- {md(x)}" for x in view.not_judged)]
    return blocks


# --- JSON --------------------------------------------------------------------------------


def to_json(view: ReportView) -> str:
    """Render a report as one strict JSON document, its times in RFC 3339, UTC."""
    return json.dumps(view.published(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
