"""The process that draws: one JSON document on stdin, files or pictures out, one line back.

``{"task": "report", "view": …, "html": path, "markdown": path, "json": path}``
    writes the files that are named, each whole or not at all;
``{"task": "pictures", "charts": […], "width": 440}``
    answers ``{"pictures": [{"png": base64, "title", "alt"}, …]}``;
``{"task": "svg", "charts": [{"chart": …, "width": 340}, …]}``
    answers ``{"svg": [text, …]}``;
``{"task": "evidently", "reference": path, "current": path, "html": path}``
    lets Evidently write its own report of two Parquet files.

It exists so that matplotlib, jinja2, pandas and Evidently are loaded by a process that ends,
never by the one that serves or watches.  Run it through :mod:`mlguard.reports.drawing`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlguard.reports import charts, render
from mlguard.reports.view import Chart, ReportView, chart_from_json


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def report(task: dict[str, Any]) -> dict[str, Any]:
    """Write a report in the formats that are asked for."""
    view = ReportView.from_json(task["view"])

    def page(chart: Chart, width: int) -> bytes:
        return charts.draw(chart, medium="page", width=width)

    formats: dict[str, Callable[[], str]] = {
        "html": lambda: render.html(view, page),
        "markdown": lambda: render.markdown(view),
        "json": lambda: render.to_json(view),
    }
    written = [name for name in formats if task.get(name)]
    for name in written:
        write_whole(Path(task[name]), formats[name]())
    return {"files": [str(task[name]) for name in written]}


def pictures(task: dict[str, Any]) -> dict[str, Any]:
    """Draw charts for a mail."""
    drawn = []
    for document in task["charts"]:
        chart = chart_from_json(document)
        png = charts.draw(chart, medium="mail", width=int(task.get("width", 440)))
        drawn.append(
            {"png": base64.b64encode(png).decode(), "title": chart.title, "alt": chart.alt}
        )
    return {"pictures": drawn}


def svg(task: dict[str, Any]) -> dict[str, Any]:
    """Draw charts for a page that loads its pictures."""
    return {
        "svg": [
            charts.draw(
                chart_from_json(one["chart"]), medium="page", width=int(one["width"])
            ).decode()
            for one in task["charts"]
        ]
    }


def evidently(task: dict[str, Any]) -> dict[str, Any]:
    """Let Evidently write its report."""
    from mlguard.reports.evidently_report import write

    write(Path(task["reference"]), Path(task["current"]), Path(task["html"]))
    return {"files": [str(task["html"])]}


_TASKS = {"report": report, "pictures": pictures, "svg": svg, "evidently": evidently}


def main() -> int:
    """Do the one task that stands on stdin."""
    task = json.load(sys.stdin)
    # Libraries may print; only the answer belongs on stdout.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            document = _TASKS[task["task"]](task)
        json.dump(document, answer, allow_nan=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
