"""A report as facts for a mail: what an e-mail shows of it, small enough to be stored.

The whole report stays a file; the mail has the five answers, the worst figures, and at most
three charts: performance, the feature that moved most, the groups that differ most.
"""

from __future__ import annotations

from typing import Any

from mlguard.reports.view import Chart, Figure, ReportView, chart_to_json
from mlguard.results import Verdict
from mlguard.wording import count, moment

#: Rows of the mail's table.
FIGURES = 12


def report_facts(view: ReportView, *, link: str = "") -> dict[str, Any]:
    """Return the facts of a mail of kind ``report``.

    Parameters
    ----------
    view : ReportView
    link : str
        Where the whole report can be read: a path or a URL; empty: the command that makes it.
    """
    story = view.story
    everything: list[Figure] = [*view.figures, *(one.figure for one in view.drift)]
    everything.sort(key=lambda one: -one.verdict.severity)
    verdicts = [one.verdict for one in everything] + [one.verdict for one in view.groups]
    failed = sum(one in (Verdict.FAILED, Verdict.ERRORED) for one in verdicts)
    state = f"{count(failed)} failed" if failed else view.verdict.word if verdicts else "no data"
    return {
        "app": view.app,
        "project": view.project,
        "environment": view.environment,
        "generation": view.generation,
        "version": view.version,
        "verdict": view.verdict.value,
        "state": state,
        "happened": story.happened,
        "serves": story.serves,
        "why": story.why,
        "did": story.did,
        "next": _next(view, link),
        "command": story.command or f"mlguard report {view.app} --html report.html",
        "topic": f"report {_day(view.since)} to {_day(view.until)}",
        "table_title": "What was judged, worst first",
        "figures": [_figure(one) for one in everything[:FIGURES]],
        "more_figures": max(0, len(everything) - FIGURES),
        "predictions": view.service.predictions,
        "labels": view.service.labels,
        "window": {
            "start": view.since,
            "end": view.until,
            "n_rows": view.service.predictions,
            "n_labels": view.service.labels,
        },
        "charts": [chart_to_json(one) for one in _charts(view)],
        "at": view.at,
    }


def _day(at: float) -> str:
    return moment(at).partition(" ")[0]


def _next(view: ReportView, link: str) -> str:
    where = f"The whole report is at {link}." if link else ""
    return " ".join(part for part in (where, view.story.next_step) if part)


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "id": figure.id,
        "subject": " on ".join(part for part in (figure.subject, figure.version) if part),
        "verdict": figure.verdict.value,
        "value": figure.value,
        "interval": figure.interval,
        "limit": figure.limit,
        "n": figure.n,
    }


def _charts(view: ReportView) -> list[Chart]:
    chosen: list[Chart] = [*view.performance[:1]]
    chosen += [one.chart for one in view.drift[:1] if one.chart is not None]
    shown = [one for one in view.groups if any(group.value is not None for group in one.groups)]
    return [*chosen, *shown[:1]]
