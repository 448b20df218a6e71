"""One run of pytest inside a project: what is collected, judged and recorded.

Rule 1: only what belongs to an app counts: its ``app.toml`` and the functions below
``checks/<app>/``.  Other tests of a project run as ever and are not recorded.

Rule 2: one item says what it found through its test report, as plain JSON, because under
pytest-xdist the process that runs an item is not the one that keeps the journal.

Rule 3: a function's outcome is its author's statement.  Where it passes, failures that it
caught itself are not held against the candidate; where it fails, something FAILED or ERRORED
is recorded, whoever raised it.

Rule 4: what a result says of waivers is what the registry says.  An item that fails only by
what a valid waiver covers is shown as an expected failure, with its owner and its end.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlguard.checks.evidence import Subject
from mlguard.checks.explain import CheckFailedError, one_line
from mlguard.checks.journal import JournalWriter, error_to_json
from mlguard.checks.recording import Recorded, recording
from mlguard.config import AppSettings, ProjectSettings, load_app, load_project
from mlguard.deploy.training import train_missing
from mlguard.errors import MlguardError
from mlguard.pytest_plugin import project_of
from mlguard.pytest_plugin.items import AppFile, CheckItem, properties
from mlguard.results import CheckResult, Verdict
from mlguard.waivers import WaiverBook, waiver_words

if TYPE_CHECKING:
    import httpx

_RECORDED = pytest.StashKey[list[Recorded]]()
#: Longest traceback kept in a result, in characters.
_TRACEBACK_CHARS = 6000


class GateSession:
    """The plug-in object of a run inside a project."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.only: str | None = config.getoption("--mlguard-app")
        self.not_applicable: dict[str, tuple[str, ...]] = {}
        self._settings: dict[tuple[Path, str], AppSettings] = {}
        self._subjects: dict[tuple[Path, str], Subject] = {}
        self._books: dict[tuple[Path, str], WaiverBook] = {}
        self._unread: list[str] = []
        self._found: list[CheckResult] = []
        self._journal: JournalWriter | None = None
        results = config.getoption("--mlguard-results")
        if results and not hasattr(config, "workerinput"):
            self._journal = JournalWriter(Path(results))

    # --- what is judged ---

    def settings(self, root: Path, app: str) -> AppSettings:
        """Return an app's settings, read once."""
        key = (root, app)
        if key not in self._settings:
            self._settings[key] = load_app(load_project(root), app)
        return self._settings[key]

    def subject(self, root: Path, app: str) -> Subject:
        """Return an app's evidence, shared by all its items; trains what is missing."""
        key = (root, app)
        if key not in self._subjects:
            project, settings = load_project(root), self.settings(root, app)
            model = self.config.getoption("--mlguard-model")
            if settings.model.train or not model:
                train_missing(settings, state_dir=project.make_state_dir())
            self._subjects[key] = Subject(
                project,
                settings,
                model=(self.config.invocation_params.dir / model).resolve() if model else None,
                failures_dir=self._folder("--mlguard-failures-dir"),
                serve=_serve,
            )
        return self._subjects[key]

    def waived(self, result: CheckResult, root: Path, app: str) -> CheckResult:
        """Return a result with the waiver that covers it now, if one does."""
        book = self._book(root, app)
        wanted = any(one.digest is not None and one.check == result.id for one in book.waivers)
        return book.apply(result, self._digest(root, app) if wanted else "")

    def _book(self, root: Path, app: str) -> WaiverBook:
        """Return an app's waivers; none where they cannot be read, so that the gate stays shut."""
        key = (root, app)
        if key not in self._books:
            try:
                self._books[key] = read_waivers(load_project(root), app)
            except MlguardError as error:
                self._books[key] = WaiverBook()
                self._unread.append(f"{app}: its waivers could not be read: {error.message}")
        return self._books[key]

    def _digest(self, root: Path, app: str) -> str:
        """Return the candidate's content; empty where it cannot be loaded."""
        try:
            return self.subject(root, app).manifest.digest
        except MlguardError:
            return ""

    def home(self, path: Path) -> tuple[Path, str] | None:
        """Return project and app that a test file below ``checks/<app>/`` belongs to."""
        root = project_of(path.parent)
        if root is None:
            return None
        try:
            folder, app, *rest = path.relative_to(root).parts
        except ValueError:
            return None
        belongs = folder == "checks" and rest and (root / "serving" / app / "app.toml").is_file()
        return (root, app) if belongs else None

    def _owner(self, item: pytest.Item) -> tuple[Path, str] | None:
        if isinstance(item, CheckItem):
            parent = item.parent
            assert isinstance(parent, AppFile)
            return parent.root, parent.app
        return self.home(item.path)

    def _folder(self, option: str) -> Path | None:
        text = self.config.getoption(option)
        return (self.config.invocation_params.dir / text).resolve() if text else None

    # --- collection ---

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        """Collect ``serving/<app>/app.toml`` of a project."""
        if file_path.name != "app.toml" or file_path.parents[1].name != "serving":
            return None
        if not (file_path.parents[2] / "mlguard.toml").is_file():
            return None
        if self.only is not None and file_path.parent.name != self.only:
            return None
        return AppFile.of(parent, file_path, self)

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out the other apps where one was chosen."""
        if self.only is None:
            return
        keep: list[pytest.Item] = []
        drop: list[pytest.Item] = []
        for item in items:
            owner = self._owner(item)
            (drop if owner is not None and owner[1] != self.only else keep).append(item)
        if drop:
            config.hook.pytest_deselected(items=drop)
            items[:] = keep

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file that cannot be collected as ERRORED: it hides checks."""
        if report.failed and self._concerns(report.nodeid):
            self._take(
                CheckResult(
                    id="gate.collection",
                    subject=report.nodeid,
                    verdict=Verdict.ERRORED,
                    summary=f"{report.nodeid} could not be collected",
                    reason="collection_error",
                    next_step=f"mend it, then run: pytest {report.nodeid}",
                    details={"traceback": str(report.longrepr)[-_TRACEBACK_CHARS:]},
                )
            )

    def _concerns(self, nodeid: str) -> bool:
        """Whether a file or folder that cannot be collected may hide an app's checks."""
        path = self.config.rootpath / nodeid.partition("::")[0]
        # Under the gate nothing else is collected, so every failure counts.
        under_gate = self._journal is not None and self.only is not None
        return under_gate or path.name == "app.toml" or self.home(path) is not None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Announce what will report, so that what is lost on the way is noticed."""
        if self._journal is not None:
            self._journal.write(
                "plan",
                items=[item.nodeid for item in session.items],
                not_applicable=[one for some in self.not_applicable.values() for one in some],
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object | None:
        """Under the gate, stop before the first item where nothing can be judged at all."""
        if self._journal is None or self.only is None or not session.items:
            return None
        owner = self._owner(session.items[0])
        if owner is None:
            return None
        self._journal.write("phase", name="loading data and candidate")
        try:
            self.subject(*owner).preflight()
        except MlguardError as error:
            self._journal.write("error", error=error_to_json(error))
            pytest.exit(f"nothing can be judged: {error}", returncode=4)
        return None

    # --- running ---

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note what runs, in case it takes the process with it."""
        if self._journal is not None:
            self._journal.write("start", item=nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Keep what the assert functions of a test record."""
        with recording() as found:
            item.stash[_RECORDED] = found
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put what was found onto the report."""
        report = yield
        owner = self._owner(item)
        if owner is not None:
            found = [self.waived(one, *owner) for one in self._results(item, call, report)]
            if not isinstance(item, CheckItem):
                # A function may have asked several things; each is named before its numbers.
                for one in found:
                    item.user_properties += [("mlguard.check", one.name), *properties(one)]
            report.mlguard_results = [one.to_json() for one in found]  # type: ignore[attr-defined]  # a report carries what it is given
            if report.failed and found:
                _excuse(report, found)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what was found; here, and not where it ran, because of xdist."""
        for document in getattr(report, "mlguard_results", ()):
            self._take(CheckResult.from_json(document))
        if report.when == "teardown" and self._journal is not None:
            self._journal.write("done", item=report.nodeid)

    def _take(self, result: CheckResult) -> None:
        self._found.append(result)
        if self._journal is not None:
            self._journal.write("result", result=result.to_json())

    def _results(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> list[CheckResult]:
        if isinstance(item, CheckItem) and item.result is not None and report.when == "call":
            return [item.result]
        if isinstance(item, CheckItem) or report.when != "call":
            return [] if report.passed else [_of_function(item, report, call)]
        recorded = item.stash.get(_RECORDED, [])
        kept = [_named(one.result, item) for one in recorded if not one.raised]
        if hasattr(report, "wasxfail"):
            return [_of_function(item, report, call)]
        if report.passed:
            return kept or [_of_function(item, report, call)]
        if call.excinfo is not None and isinstance(call.excinfo.value, CheckFailedError):
            return [_named(one.result, item) for one in recorded]
        return [*kept, _of_function(item, report, call)]

    # --- the end ---

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Close the journal; a run without this line died."""
        if self._journal is None:
            return
        reference = self._folder("--mlguard-reference")
        if reference is not None and self._subjects:
            self._write_reference(reference)
        self._journal.write("finished", exit_status=int(exitstatus))
        self._journal.close()
        self._journal = None

    def _write_reference(self, path: Path) -> None:
        from mlguard.checks.reference import reference_document

        for subject in self._subjects.values():
            try:
                document = reference_document(subject)
            except Exception as error:  # noqa: BLE001  whatever it is, it must be named
                said = error.message if isinstance(error, MlguardError) else str(error)
                self._take(
                    CheckResult(
                        id="gate.reference",
                        verdict=Verdict.ERRORED,
                        summary=f"no reference for the monitors could be made: {said}",
                        reason="raised",
                        next_step="the monitors would be blind; mend what it names",
                    )
                )
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(document, allow_nan=False), encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what did not simply pass, and what does not apply."""
        absent = [f"{app}: {one}" for app, some in self.not_applicable.items() for one in some]
        telling = [one for one in self._found if one.verdict is not Verdict.PASSED]
        if not absent and not telling and not self._unread:
            return
        terminalreporter.section("mlguard", sep="-")
        for result in telling:
            terminalreporter.line(one_line(result))
        for text in absent:
            terminalreporter.line(f"– no item: {text}")
        for text in self._unread:
            terminalreporter.line(f"! {text}")


def _serve(subject: Subject) -> AbstractContextManager[httpx.Client]:
    """Serve a candidate for a check that compares answers: no deadline turns one into a default."""
    from mlguard.pytest_plugin.served import serve_candidate

    return serve_candidate(subject)


def read_waivers(project: ProjectSettings, app: str) -> WaiverBook:
    """Return the waivers of an app; none where there is no registry yet.

    Raises
    ------
    RegistryError
        If there is one and it cannot be read.
    """
    url = project.registry_url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        # A check changes nothing: it does not even make the database.
        return WaiverBook()
    from mlguard.registry import Registry

    with Registry.open(project) as registry:
        return registry.waiver_book(app)


def _excuse(report: pytest.TestReport, found: list[CheckResult]) -> None:
    """Show a failure that waivers cover as an expected one; say where one has ended."""
    words = "; ".join(f"{one.name}: {said}" for one in found if (said := waiver_words(one)))
    if not words:
        return
    if any(one.blocks for one in found):
        report.sections.append(("waivers", words))
    else:
        report.outcome = "skipped"
        report.wasxfail = words


def _named(result: CheckResult, item: pytest.Item) -> CheckResult:
    """Say in a result which function asked for it, so that no two results share a name."""
    subject = f"{result.subject} in {item.name}" if result.subject else item.name
    details = {**result.details, "test": item.nodeid}
    return dataclasses.replace(result, subject=subject, details=details)


def _of_function(
    item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[None]
) -> CheckResult:
    """Return the outcome of a whole test function as a result."""
    if isinstance(item, CheckItem):
        name, subject = item.check.id, item.check.subject
    else:
        name, subject = _function_id(item)
    excinfo = call.excinfo
    first = str(excinfo.value).strip().splitlines()[:1] if excinfo is not None else []
    said = first[0] if first else (type(excinfo.value).__name__ if excinfo is not None else "")
    details: dict[str, Any] = {"test": item.nodeid}
    reason = ""
    if hasattr(report, "wasxfail"):
        expected = report.wasxfail or "no reason given"
        verdict = Verdict.PASSED if report.passed else Verdict.WARNED
        summary = f"is marked to fail ({expected})" + (" but passed" if report.passed else "")
        reason = "" if report.passed else "expected_failure"
    elif report.passed:
        verdict, summary = Verdict.PASSED, "passed"
    elif report.skipped:
        verdict, reason = Verdict.SKIPPED, "skipped"
        summary = said.removeprefix("Skipped: ") or "skipped without a reason"
    elif excinfo is not None and report.when == "call" and _is_statement(excinfo.value):
        verdict, summary, reason = Verdict.FAILED, said or "failed", "assertion"
    else:
        verdict, reason = Verdict.ERRORED, "raised"
        where = "" if report.when == "call" else f"in its {report.when}: "
        kind = "" if excinfo is None else f"{type(excinfo.value).__name__}: "
        summary = f"could not be judged: {where}{kind}{said}"
    if not report.passed and not report.skipped:
        details["traceback"] = report.longreprtext[-_TRACEBACK_CHARS:]
    return CheckResult(
        id=name,
        subject=subject,
        verdict=verdict,
        summary=summary,
        reason=reason,
        next_step="" if report.passed or report.skipped else f"see: pytest {item.nodeid}",
        duration_s=report.duration,
        details=details,
    )


def _is_statement(error: BaseException) -> bool:
    """Whether an exception is a test's own "no", rather than an accident."""
    return isinstance(error, AssertionError | pytest.fail.Exception)


def _function_id(item: pytest.Item) -> tuple[str, str]:
    """Return ``tests.<function>`` (with its class) and what it is parametrised with."""
    function, _, rest = item.name.partition("[")
    within = item.getparent(pytest.Class)
    name = f"{within.name}.{function}" if within is not None else function
    return f"tests.{name}", rest.removesuffix("]")
