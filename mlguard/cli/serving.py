"""Serving from the command line: what is printed when the server answers, and the watcher."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from mlguard.cli.session import Session
from mlguard.cli.terminal import Line
from mlguard.config import ProjectSettings
from mlguard.registry import Mode, Version

if TYPE_CHECKING:
    from mlguard.serving.ahead import FrontAhead

#: Kinds of a feature that are written as a number in an example.
_NUMBERS = ("number", "integer")


def check_port(settings: ProjectSettings, *, host: str | None, port: int | None) -> None:
    """Find out before long work whether the port is free.

    Raises
    ------
    ConflictError
        If it is taken; names the process that holds it.
    """
    from mlguard.serving.listening import listen

    wanted = settings.server.port if port is None else port
    if wanted:
        listen(host or settings.server.host, wanted).close()


def serve_project(
    run: Session,
    *,
    host: str | None,
    port: int | None,
    monitors: bool,
    ahead: FrontAhead | None = None,
) -> int:
    """Serve until Ctrl-C or SIGTERM; print how to ask when the first answer is possible."""
    from mlguard.serving.supervisor import serve

    settings = run.project.settings
    watcher = [sys.executable, "-P", "-m", "mlguard.cli", "monitor", "--quiet"]
    watcher += ["--project", str(settings.root)]
    return serve(
        settings,
        host=host,
        port=port,
        monitors=watcher if monitors else None,
        ahead=ahead,
        on_ready=lambda url: run.say(ready_lines(run, url, monitors=monitors)),
    )


def ready_lines(run: Session, url: str, *, monitors: bool) -> list[Line]:
    """Say what is served where, how to ask it, and how to change it."""
    registry = run.project.registry
    states = [registry.app(name) for name in run.project.app_names()]
    live = [one for one in states if one.active is not None]
    names = ", ".join(one.app for one in live) or "nothing yet"
    address = url.removeprefix("http://").replace("127.0.0.1", "localhost")
    watched = "watched" if monitors else "not watched: --no-monitors"
    lines: list[Line] = [[(f"mlguard serves {names} on {url}", "bold"), (f"  ({watched})", "dim")]]
    for one in live:
        assert one.active is not None
        body = json.dumps({"input": example_row(one.active)}, ensure_ascii=False)
        blocked = "  # blocked" if one.mode is Mode.DEFAULT_OUTPUT else ""
        quoted = shlex.quote(body)
        lines.append(f"  curl -X POST -d {quoted} {address}/{one.app}/predict{blocked}")
    lines.append(f"  page: {url}/   health: {url}/readyz   interface: {url}/docs")
    token = run.project.settings.state_dir / "admin-token"
    if token.is_file():
        lines.append(f"  admin token, for changes through /api: {token.read_text().strip()}")
    next_step = "Ctrl-C stops it" if live else "mlguard deploy APP"
    return [*lines, [("  next: ", "dim"), (next_step, "")]]


def example_row(version: Version) -> Any:
    """Return a row that the version could be asked: the middle of each feature's range."""
    schema = version.manifest["input_schema"]
    values = {one["name"]: _example(one) for one in schema["features"]}
    if schema["input"] == "table":
        return values
    row = list(values.values())
    return row[0] if schema["input"] in ("strings", "bytes") else row


def _example(feature: dict[str, Any]) -> Any:
    if feature.get("categories"):
        return feature["categories"][0]
    low, high = feature.get("low"), feature.get("high")
    if feature["kind"] in _NUMBERS and low is not None and high is not None:
        middle = (low + high) / 2
        return round(middle) if feature["kind"] == "integer" else float(f"{middle:.3g}")
    return {"boolean": True, "text": "text"}.get(feature["kind"], 0)
