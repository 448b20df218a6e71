"""Charts of what the monitors recorded: figures over time, and groups side by side.

Nothing is estimated here.  A chart shows recorded verdicts with their intervals; which figures
get one is decided by what is worst now.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlguard.registry import Event
from mlguard.reports.pictures import recorded_chart
from mlguard.reports.view import Chart, GroupChart, GroupFigure, TimeChart
from mlguard.results import Finding, MonitorResult, Verdict, finite_or_none
from mlguard.wording import estimate, listed, number

#: Charts over time on one page, and of groups.
TIME_CHARTS, GROUP_CHARTS = 4, 4
#: Groups of one chart, at most.
_GROUPS = 24

Recorded = Sequence[tuple[float, MonitorResult]]


@dataclass(frozen=True, slots=True)
class Shown:
    """A chart with where its picture is, and what stands beside it.

    Attributes
    ----------
    key : str
        Names it in the address of its picture: the same figure has the same key later.
    chart : Chart
    verdict : Verdict
        The newest.
    source : str
        What the numbers are of, in words.
    """

    key: str
    chart: Chart
    verdict: Verdict
    source: str = ""


def key_of(kind: str, name: str) -> str:
    """Return a name for an address that holds no text from outside."""
    return f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def over_time(results: Recorded, events: Iterable[Event]) -> list[Shown]:
    """Return the figures over time that matter most now: one of each monitor, worst first.

    Parameters
    ----------
    results : sequence of (float, MonitorResult)
        What the monitors recorded, with the time.
    events : iterable of Event
        The audit trail; versions and incidents become marks.
    """
    events = list(events)
    found = []
    for name, mine in _by_figure(results).items():
        newest = max(mine, key=lambda pair: pair[0])[1]
        chart = recorded_chart(mine, events)
        if chart is not None:
            found.append((newest, mine, Shown(key_of("time", name), chart, newest.verdict)))
    found.sort(key=lambda one: (-one[0].verdict.severity, -_ratio(one[1])))
    chosen: dict[str, Shown] = {}
    for newest, _, shown in found:
        chosen.setdefault(newest.family, shown)
    return list(chosen.values())[:TIME_CHARTS]


def _by_figure(results: Recorded) -> dict[str, list[tuple[float, MonitorResult]]]:
    found: dict[str, list[tuple[float, MonitorResult]]] = {}
    for at, one in results:
        found.setdefault(one.name, []).append((at, one))
    return found


def _ratio(mine: Recorded) -> float:
    """Return how near to its limit a figure came, as a ratio."""
    return max(
        (
            one.value / one.limit
            for _, one in mine
            if finite_or_none(one.value) is not None and finite_or_none(one.limit) and one.limit
            if one.value is not None
        ),
        default=0.0,
    )


def by_group(findings: Iterable[Finding], source: str) -> list[Shown]:
    """Return a forest plot of each finding that compares groups, worst verdict first.

    Parameters
    ----------
    findings : iterable of Finding
        Newest first: of each name only the first counts.
    source : str
        What they were judged on, in words.
    """
    newest: dict[str, Finding] = {}
    for one in findings:
        if one.family == "fairness" and any(cell.group for cell in one.measurements):
            newest.setdefault(one.name, one)
    ordered = sorted(newest.values(), key=lambda one: (-one.verdict.severity, one.name))
    return [
        Shown(key_of("group", one.name), chart, one.verdict, source)
        for one in ordered[:GROUP_CHARTS]
        if (chart := group_chart(one)) is not None
    ]


def group_chart(finding: Finding) -> GroupChart | None:
    """Return the groups of one finding side by side; None where it names none.

    Groups of fewer than :data:`~mlguard.wording.SMALL_GROUP` rows appear by name only.
    """
    prefix = f"{finding.subject}="
    metric = finding.id.partition(".")[2]
    cells = [
        one for one in finding.measurements if one.group and (one.name in metric or not metric)
    ] or [one for one in finding.measurements if one.group]
    if not cells:
        return None
    name = cells[0].name
    cells = [one for one in cells if one.name == name]
    figures = tuple(
        GroupFigure(
            group=one.group.removeprefix(prefix),
            value=finite_or_none(one.value),
            low=finite_or_none(one.low),
            high=finite_or_none(one.high),
            n=one.n,
        )
        for one in cells[:_GROUPS]
    )
    shown = {one.group: one.value for one in figures if one.value is not None}
    words = re.sub(r"^(true|false)_", r"\1-", name).replace("_", " ")
    words = words[:1].upper() + words[1:]
    limit = finite_or_none(finding.limit)
    band = None
    if shown and limit and metric.endswith("_difference"):
        band = (min(shown.values()), min(shown.values()) + limit)
    each = "; ".join(
        f"{one.group} {estimate(one.value, (one.low, one.high), one.n)}"
        for one in figures
        if one.value is not None
    )
    return GroupChart(
        title=_title(words, shown, finding.subject),
        alt=f"{words} by {finding.subject}: {each}. {finding.summary}",
        metric=name,
        attribute=finding.subject,
        groups=figures,
        band=band,
        band_label=f"the {number(limit)} that groups may differ by" if band else "",
        verdict=finding.verdict,
        summary=finding.summary,
    )


def _title(words: str, shown: Mapping[str, float], attribute: str) -> str:
    if len(shown) < 2:  # a comparison needs two
        return f"{words} by {attribute} cannot be compared yet"
    highest = max(shown, key=lambda group: shown[group])
    lowest = min(shown, key=lambda group: shown[group])
    gap = shown[highest] - shown[lowest]
    if not gap:
        return f"{words} is the same for {listed(list(shown))}"
    return f"{words} is {number(gap)} higher for {highest} than for {lowest}"


def incidents_marked(chart: TimeChart) -> list[tuple[str, int]]:
    """Return the incidents that a chart marks, as label and number."""
    found = []
    for mark in chart.marks:
        tail = mark.label.rpartition(" ")[2]
        if mark.kind == "incident" and tail.isdecimal():
            found.append((mark.label, int(tail)))
    return found
