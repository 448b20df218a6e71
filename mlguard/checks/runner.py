"""The one runner: pytest in a child process with the plug-in, its results read back.

The child runs exactly what ``pytest checks/<app> serving/<app>/app.toml`` would, in the
project's folder, and appends what it finds to a file, one JSON object a line
(:mod:`mlguard.checks.journal`).  This side reads that file while it grows.

Rule 1: nothing passes vacuously.  A child that died, a check that was announced and never
reported, a test file that does not import, no check at all: each becomes an ERRORED result
that names it.

Rule 2: what makes every judgement impossible (a data file that is missing, a file that is no
model) is not a verdict; the error of the child is raised here, with its exit code.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlguard import policy
from mlguard.checks.journal import JournalReader, error_from_json
from mlguard.checks.junit import write_junit
from mlguard.config import load_app, load_project
from mlguard.errors import NotFoundError
from mlguard.results import CheckResult, GateDecision, Verdict
from mlguard.wording import printable

#: How often the child's file is looked at, in seconds.
_POLL_S = 0.03
#: What is kept of the child's own output where it crashed, in characters.
_TAIL_CHARS = 3000
#: No library that the checks use may phone home or leave files behind.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "PYTHONUTF8": "1",
    "MPLBACKEND": "Agg",
}
#: Options in the environment could deselect a check or change what it sees.
_UNWANTED = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a running gate.

    Attributes
    ----------
    name : str
        The check that ended, or a phase in words; ``family.name[subject]`` for a check.
    verdict : Verdict or None
        What it found; None for a phase.
    done, total : int
        Checks that have ended, and how many there are; 0 before they are known.
    """

    name: str
    verdict: Verdict | None
    done: int
    total: int


def run_gate(
    project_root: Path,
    app: str,
    *,
    model: Path | None = None,
    candidate: str = "",
    results: Path | None = None,
    reference: Path | None = None,
    junit: Path | None = None,
    failures_dir: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    wall_s: float | None = None,
) -> GateDecision:
    """Judge a candidate by every check of an app.

    Parameters
    ----------
    project_root : Path
        Folder with ``mlguard.toml``.
    app : str
        Name of the app.
    model : Path, optional
        The candidate's file; default ``[model] path`` of the app.
    candidate : str, optional
        How the decision calls it; default the file's name.
    results : Path, optional
        Where the child's journal is kept; default a temporary file.
    reference : Path, optional
        Where the reference document for the monitors is written as JSON
        (:func:`mlguard.checks.reference.reference_document`).
    junit : Path, optional
        Where a JUnit file is written, one case per check and group.
    failures_dir : Path, optional
        Where the rows that broke a check are listed by their id.
    on_progress : callable, optional
        Told of every step.
    wall_s : float, optional
        Longest the whole gate may take, in seconds; then it is ended and not allowed.

    Returns
    -------
    GateDecision

    Raises
    ------
    NotFoundError, ConfigError
        If there is no such project or app, or its settings are not valid.
    MlguardError
        If data or model cannot be loaded at all.
    """
    root = Path(project_root).resolve()
    settings = load_app(load_project(root), app)
    file = Path(model).resolve() if model is not None else None
    if file is not None and not file.exists():
        raise NotFoundError(f"there is no model file {file}", hint="correct --model")
    named = candidate or (file or Path(settings.model.path)).name
    with contextlib.ExitStack() as stack:
        if results is None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="mlguard-gate-"))
            results = Path(scratch) / "results.jsonl"
        journal = Path(results).resolve()
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text("", encoding="utf-8")
        command = _command(root, app, journal)
        for option, path in (
            ("model", file),
            ("reference", reference),
            ("failures-dir", failures_dir),
        ):
            if path is not None:
                command += [f"--mlguard-{option}={Path(path).resolve()}"]
        output = stack.enter_context(tempfile.TemporaryFile())
        child = _Child(command, root, output)
        run = _follow(child, JournalReader(journal), on_progress, wall_s)
    if run.error is not None:
        raise error_from_json(run.error)
    decision = policy.gate_decision(app, named, run.results(), run.not_applicable)
    if junit is not None:
        write_junit(decision, Path(junit))
    return decision


def _command(root: Path, app: str, journal: Path) -> list[str]:
    places = [f"serving/{app}/app.toml"]
    if (root / "checks" / app).is_dir():
        places.append(f"checks/{app}")
    return [
        sys.executable,
        "-P",  # the project's folder is no place to import from
        "-m",
        "pytest",
        *places,
        f"--rootdir={root}",
        "--import-mode=importlib",
        "--override-ini=addopts=",
        # One broken file must not hide what the others find.
        "--continue-on-collection-errors",
        "-p",
        "mlguard",
        "-p",
        "no:cacheprovider",
        "-q",
        "--tb=short",
        "--no-header",
        f"--mlguard-app={app}",
        f"--mlguard-results={journal}",
    ]


class _Child:
    """The pytest process, and the end of what it said."""

    def __init__(self, command: list[str], root: Path, output: Any) -> None:
        environment = {key: value for key, value in os.environ.items() if key not in _UNWANTED}
        self._output = output
        self.process = subprocess.Popen(  # noqa: S603  our own interpreter, no shell
            command,
            cwd=root,
            env=environment | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A group of its own: whatever a check starts ends with it.
            start_new_session=True,
        )

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait()

    def tail(self) -> str:
        self._output.seek(0)
        return str(self._output.read().decode("utf-8", "replace")[-_TAIL_CHARS:]).strip()


class _Run:
    """What the journal told, in order."""

    def __init__(self) -> None:
        self.planned: list[str] = []
        self.judged: list[CheckResult] = []
        self.reported: set[str] = set()
        self.not_applicable: tuple[str, ...] = ()
        self.error: dict[str, Any] | None = None
        self.finished: int | None = None
        self.running = ""
        self.trouble = ""
        self.tail = ""

    def take(self, entry: dict[str, Any]) -> Progress | None:
        kind = entry["kind"]
        if kind == "plan":
            self.planned = list(entry["items"])
            self.not_applicable = tuple(entry["not_applicable"])
            return self._progress("collected", None)
        if kind == "start":
            self.running = entry["item"]
        elif kind == "phase":
            return self._progress(entry["name"], None)
        elif kind == "result":
            result = CheckResult.from_json(entry["result"])
            self.judged.append(result)
            return self._progress(result.name, result.verdict)
        elif kind == "done":
            self.reported.add(entry["item"])
            self.running = ""
        elif kind == "error":
            self.error = entry["error"]
        elif kind == "finished":
            self.finished = entry["exit_status"]
        return None

    def _progress(self, name: str, verdict: Verdict | None) -> Progress:
        # A result comes just before its item is done.
        done = len(self.reported) + (verdict is not None)
        return Progress(name=name, verdict=verdict, done=done, total=len(self.planned))

    def results(self) -> list[CheckResult]:
        """Return the results, with one ERRORED for whatever should have reported and did not."""
        found = list(self.judged)
        if self.finished is None:
            during = f" while it judged {self.running}" if self.running else ""
            found.append(
                _gate_error(
                    "gate.run",
                    f"the run of the checks {self.trouble or 'ended early'}{during}"
                    + _last_words(self.tail),
                    reason="crashed",
                    next_step="run `pytest checks serving` in the project to see it happen",
                    output=self.tail,
                )
            )
        elif self.finished not in (0, 1, 5):
            # 2 interrupted, 3 internal error, 4 usage error: whatever passed is not all.
            found.append(
                _gate_error(
                    "gate.run",
                    f"pytest ended with code {self.finished}" + _last_words(self.tail),
                    reason="crashed",
                    next_step="run `pytest checks serving` in the project to see it happen",
                    output=self.tail,
                )
            )
        found += [
            _gate_error(
                "gate.lost",
                f"{name} was collected but never reported",
                reason="lost",
                next_step="see what deselected or interrupted it",
                subject=name,
            )
            for name in self.planned
            if name not in self.reported and self.finished is not None
        ]
        if not found:
            found.append(
                _gate_error(
                    "gate.collection",
                    "no check matched, and nothing passes vacuously",
                    reason="no_checks",
                    next_step="declare checks in app.toml, or write one in checks/<app>/",
                )
            )
        return found


def _last_words(tail: str) -> str:
    """Return the last line that a process wrote, as the end of a sentence."""
    lines = [line.removeprefix("E ").strip() for line in tail.splitlines() if line.strip()]
    return f": {printable(lines[-1])}" if lines else ""


def _gate_error(
    name: str, summary: str, *, reason: str, next_step: str, output: str = "", subject: str = ""
) -> CheckResult:
    return CheckResult(
        id=name,
        verdict=Verdict.ERRORED,
        summary=summary,
        reason=reason,
        next_step=next_step,
        subject=subject,
        details={"output": output} if output else {},
    )


def _follow(
    child: _Child,
    journal: JournalReader,
    on_progress: Callable[[Progress], None] | None,
    wall_s: float | None,
) -> _Run:
    run = _Run()
    deadline = None if wall_s is None else time.monotonic() + wall_s
    try:
        while True:
            ended = child.process.poll()
            for entry in journal.new():
                step = run.take(entry)
                if step is not None and on_progress is not None:
                    on_progress(step)
            if ended is not None:
                break
            if deadline is not None and time.monotonic() > deadline:
                run.trouble = f"took longer than {wall_s:g} s and was ended"
                break
            time.sleep(_POLL_S)
    finally:
        # Also on Ctrl-C and on an error in on_progress: no child outlives its caller.
        child.kill()
    code = child.process.returncode
    if run.finished is None and not run.trouble:
        run.trouble = f"died of signal {-code}" if code < 0 else f"ended early with code {code}"
    run.tail = child.tail()
    return run
