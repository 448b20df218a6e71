"""Everything that is drawn is drawn in a child process: this is its parent's side.

The child gets no secrets (its environment is this process's without what is named like one),
a time limit, and its own process group, so that it can be ended with all it started.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.errors import MlguardError
from mlguard.reports.view import Chart, ReportView, chart_to_json
from mlguard.wording import printable

if TYPE_CHECKING:
    import pyarrow as pa

#: Seconds that drawing may take; Evidently alone imports for eight.
TIME_LIMIT_S = 120.0
_SECRETS = ("TOKEN", "PASSWORD", "SECRET", "CREDENTIAL", "API_KEY", "ACCESS_KEY")


class DrawingError(MlguardError):
    """The process that draws failed; what was decided stands, only its picture is missing."""

    code = "drawing"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for a mail: PNG bytes, its finding, and the words that stand for it."""

    png: bytes
    title: str
    alt: str


def write_report(
    view: ReportView,
    *,
    html: Path | None = None,
    markdown: Path | None = None,
    json: Path | None = None,
) -> list[Path]:
    """Write a report in one or more formats.

    Parameters
    ----------
    view : ReportView
    html, markdown, json : Path, optional
        Where each format goes; folders are made, a file that is there is replaced whole.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    DrawingError
        If it could not be.
    """
    wanted = {"html": html, "markdown": markdown, "json": json}
    paths = {name: str(path.resolve()) for name, path in wanted.items() if path is not None}
    answer = _child({"task": "report", "view": view.to_json(), **paths})
    return [Path(one) for one in answer["files"]]


def draw_pictures(charts: Sequence[Chart | dict[str, Any]], *, width: int = 440) -> list[Picture]:
    """Draw charts as PNG for a mail, with the title on top.

    Raises
    ------
    DrawingError
        If they could not be drawn.
    """
    if not charts:
        return []
    documents = [one if isinstance(one, dict) else chart_to_json(one) for one in charts]
    answer = _child({"task": "pictures", "charts": documents, "width": width})
    return [
        Picture(base64.b64decode(one["png"]), one["title"], one["alt"])
        for one in answer["pictures"]
    ]


def draw_svg(charts: Sequence[tuple[Chart, int]]) -> list[bytes]:
    """Draw charts as SVG for a page, each of a width in CSS pixels; colours are CSS variables.

    Raises
    ------
    DrawingError
        If they could not be drawn.
    """
    if not charts:
        return []
    documents = [{"chart": chart_to_json(chart), "width": width} for chart, width in charts]
    return [one.encode() for one in _child({"task": "svg", "charts": documents})["svg"]]


def write_evidently(reference: pa.Table, current: pa.Table, html: Path) -> Path:
    """Let Evidently write its own report of two tables beside ours.

    Raises
    ------
    DrawingError
        If it could not.
    """
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="mlguard-report-") as folder:
        paths = {"reference": Path(folder, "before"), "current": Path(folder, "now")}
        pq.write_table(reference, paths["reference"])
        pq.write_table(current, paths["current"])
        named = {name: str(path) for name, path in paths.items()}
        _child({"task": "evidently", **named, "html": str(html.resolve())})
    return html


def _child(task: dict[str, Any]) -> dict[str, Any]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not any(word in name.upper() for word in _SECRETS)
    }
    environment |= {"MPLBACKEND": "agg", "DO_NOT_TRACK": "1", "PYTHONSAFEPATH": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "mlguard.reports.render_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            data = json.dumps(task, allow_nan=False).encode()
            out, err = process.communicate(data, timeout=TIME_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise DrawingError(
                f"drawing took longer than {TIME_LIMIT_S:.0f} s and was ended"
            ) from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode != 0:
        last = err.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise DrawingError(
            f"drawing ended with {process.returncode}: {printable(last)}",
            hint="see whether it works here: python -c 'import matplotlib.pyplot'",
        )
    answer: dict[str, Any] = json.loads(out)
    return answer
