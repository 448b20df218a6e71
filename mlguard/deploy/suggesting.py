"""``mlguard suggest``: expectations and limits proposed from the training data, for people to edit.

Two files below ``checks/<app>/``: a suite of Great Expectations, which the gate runs from then
on, and limits for ``app.toml`` as tables to copy.  Nothing is ever replaced unasked.  What
people know about the data is better than what one file shows; the proposal is where to begin.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlguard.checks.suggested import expectations_of, limits_of
from mlguard.config import AppSettings, ProjectSettings
from mlguard.data.scan import scan_table
from mlguard.deploy.outcome import Outcome
from mlguard.errors import DataError, RefusedError
from mlguard.wording import count, listed

#: Fewer rows show too little of what a column may hold.
FEWEST = 50
SUITE, LIMITS = "expectations/suggested.json", "suggested-limits.toml"


def suggest(
    project: ProjectSettings,
    settings: AppSettings,
    *,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Write a proposal for one app.

    Parameters
    ----------
    project, settings : ProjectSettings, AppSettings
        Whose data, and where to write.
    force : bool
        Replace what an earlier proposal wrote; a suite with another name is never touched.
    progress : callable
        Told in one line what is going on.

    Raises
    ------
    RefusedError
        If a file is there already, and ``force`` is not given.
    DataError
        If there is no training data, or too little of it.
    """
    data = settings.data
    if not data.train:
        raise DataError(
            f"[data] train of {settings.name} names no training rows to learn from",
            hint="name them in app.toml",
        )
    folder = project.root / "checks" / settings.name
    files = [folder / SUITE, folder / LIMITS]
    there = [str(one.relative_to(project.root)) for one in files if one.exists()]
    if there and not force:
        verb = "is" if len(there) == 1 else "are"
        raise RefusedError(
            f"{listed(there)} {verb} there already, and may have been edited",
            hint=f"move it away, or replace it: mlguard suggest {settings.name} --force",
        )
    progress(f"reading {data.train}")
    scan = scan_table(settings.path(data.train), missing_values=data.missing_values)
    if scan.n_rows < FEWEST:
        raise DataError(
            f"{count(scan.n_rows)} rows of [data] train show too little to propose anything from",
            hint=f"suggest it from at least {FEWEST} rows",
        )
    ignored = {data.id, data.time} - {""}
    expectations = expectations_of(scan, ignored=ignored, target=data.target)
    suite = {
        "name": f"{settings.name} as its training data suggests",
        "expectations": expectations,
        "meta": {"rows": scan.n_rows, "suggested_by": "mlguard suggest: edit what you know better"},
    }
    _write(files[0], json.dumps(suite, indent=2, ensure_ascii=False, default=_plain) + "\n")
    _write(files[1], limits_of(settings, scan))
    names = [str(one.relative_to(project.root)) for one in files]
    return Outcome(
        command="suggest",
        app=settings.name,
        changed=True,
        lines=(
            (
                f"Wrote {count(len(expectations))} expectations into {names[0]}, from "
                f"{count(scan.n_rows)} training rows: edit them, delete what is true by chance "
                "only."
            ),
            f"Wrote limits into {names[1]}: copy what fits into app.toml.",
        ),
        next_step=f"mlguard check {settings.name}",
    )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
