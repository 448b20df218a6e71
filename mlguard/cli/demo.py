"""``mlguard demo``: the whole story on a real project, in a folder that goes away again.

A version goes live, an unfair candidate is refused, a better version goes live, the world
changes under it, the monitors notice and go back to the version before, people are told.
Nothing is played: the gate, the server, the watcher and the mail are those of every project.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mlguard.cli.serving import example_row
from mlguard.cli.session import Session
from mlguard.cli.starting import write_template
from mlguard.cli.terminal import Steps, finding_lines, indented
from mlguard.client import Client
from mlguard.deploy.outcome import Outcome
from mlguard.errors import MlguardError
from mlguard.project import Project

APP = "lending"
#: Where report and mail are copied to, below the current folder.
KEPT = "mlguard-demo"
#: Longest that anything is waited for, in seconds.
PATIENCE_S = 90.0
POLL_S = 0.1
#: Steps of the progress bar: about a line of progress each.
STEPS = 110


def tell(run: Session, *, keep: Path | None) -> int:
    """Tell the story; return the exit code.

    Parameters
    ----------
    run : Session
        Where to print.
    keep : Path or None
        Folder that the project is written to and left in; None: a temporary one.
    """
    began = time.monotonic()
    with _folder(keep) as folder, run.steps("a project is written", total=STEPS) as steps:
        write_template("demo_project", folder)
        story = Story(run, Project(folder), steps)
        story.tell()
        story.report()
        kept = story.keep(Path.cwd() / KEPT)
    run.say(["", f"  Told in {time.monotonic() - began:.0f} s. Left behind:"])
    run.say([f"    {path}" for path in kept])
    if keep is not None:
        run.say([f"    {keep}/  the project; go on with: cd {keep} && mlguard up"])
    run.say([[("  next: ", "dim"), ("mlguard init my-project", "")]])
    return 0


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="mlguard-demo-") as scratch:
        yield Path(scratch)


class Story:
    """One telling.

    Parameters
    ----------
    run : Session
        Where to print.
    project : Project
        The demo's project, just written.
    steps : Steps
        Told what is going on.
    at_the_end : callable, optional
        Called with the server's URL when all has happened and the server still runs.
    """

    def __init__(
        self,
        run: Session,
        project: Project,
        steps: Steps,
        at_the_end: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.run = run
        self.project = project
        self.steps = steps
        self.at_the_end = at_the_end
        self.models = project.root / "serving" / APP

    def tell(self) -> None:
        """Go through the chapters in order."""
        self._chapter("1. A model goes live, after the same tests that run in CI")
        self._say(self._expect(self._deploy("v1", "the first version"), 0))
        with self._server() as url:
            self._chapter("2. A candidate that is right more often is refused")
            refused = self._expect(self._deploy("unfair", "right more often"), 1)
            assert refused.decision is not None
            for one in refused.decision.blocking:
                self.run.say(finding_lines(one, "  "))
            self._say(refused)
            self._chapter("3. A better one goes live, with one more feature: bureau_score")
            self._say(self._expect(self._deploy("v2", "knows the bureau's score"), 0))
            self._ask(url)
            self._wait(self._confirmed, "v2 is watched before it counts as confirmed")
            self._chapter("4. The world changes: the bureau renames its grades")
            traffic = self.models / "traffic.csv"
            sent = self.project.replay(APP, str(traffic), url=url, progress=self.steps)
            self.run.say(indented(sent.lines[0], 2))
            self._wait(self._rolled_back, "the monitors look at the labels")
            self._chapter("5. Back to the version before, by itself, and people are told")
            self._tell_rollback()
            self._ask(url)
            self._wait(lambda: bool(self.mails()), "the mail is written")
            self.at_the_end(url)

    def report(self) -> None:
        """Write the report of the day, with Evidently's beside it."""
        self.steps("the report is drawn")
        self.project.report(APP, window="1d", progress=self.steps)

    # --- chapters ------------------------------------------------------------------------

    def _chapter(self, title: str) -> None:
        self.run.say(["", [(title, "bold")]])

    def _say(self, outcome: Outcome) -> None:
        for line in outcome.lines:
            self.run.say(indented(line, 2))

    def _deploy(self, version: str, message: str) -> Outcome:
        model = self.models / f"{version}.skops"
        return self.project.deploy(
            APP, model=model, version=version, message=message, progress=self.steps
        )

    def _expect(self, outcome: Outcome, exit_code: int) -> Outcome:
        if outcome.exit_code != exit_code:
            raise MlguardError(
                f"the demo's {outcome.to or 'candidate'} ended with exit code "
                f"{outcome.exit_code}, expected {exit_code}: {' '.join(outcome.lines)}",
                hint="run it again with --keep DIR and look at `mlguard history` there",
            )
        return outcome

    def _ask(self, url: str) -> None:
        """Ask the server for one prediction and show the answer."""
        active = self.project.registry.app(APP).active
        assert active is not None
        with Client(url) as client:
            answer = client.predict(APP, example_row(active))
        self.run.say([f"  POST /{APP}/predict → {answer}  ({active.name})"])

    def _tell_rollback(self) -> None:
        state = self.project.registry.app(APP)
        moves = [one for one in self.project.registry.events(APP) if one.moved]
        reason = max(moves, key=lambda one: one.seq).reason
        self.run.say(indented(f"{APP} went back from v2 to v1: {reason}", 2))
        serving = state.active.name if state.active else "the default output"
        self.run.say([f"  {serving} serves now (generation {state.generation})."])

    def keep(self, folder: Path) -> list[Path]:
        """Copy the report and the mail out of the project; return where they are."""
        folder.mkdir(exist_ok=True)
        kept = []
        for source in sorted((self.project.root / "reports" / APP).glob("*.html")):
            name = "evidently.html" if source.name.endswith(".evidently.html") else "report.html"
            kept.append(Path(shutil.copyfile(source, folder / name)))
        kept += [
            Path(shutil.copyfile(source, folder / "rollback.eml")) for source in self.mails()[:1]
        ]
        return [path.relative_to(Path.cwd()) for path in kept]

    # --- waiting -------------------------------------------------------------------------

    def _wait(self, until: Callable[[], bool], text: str) -> None:
        self.steps(text)
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            if time.monotonic() > deadline:
                raise MlguardError(
                    f"the demo waited {PATIENCE_S:.0f} s in vain: {text}",
                    hint="run it again with --keep DIR and look at `mlguard status` there",
                )
            time.sleep(POLL_S)

    def _confirmed(self) -> bool:
        active = self.project.registry.app(APP).active
        return active is not None and active.state == "LIVE"

    def _rolled_back(self) -> bool:
        active = self.project.registry.app(APP).active
        return active is not None and active.name == "v1"

    def mails(self) -> list[Path]:
        """Return the mail about the rollback, where it has been written."""
        return sorted((self.project.settings.state_dir / "outbox").glob("*rolled*"))

    # --- the server ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _server(self) -> Iterator[str]:
        """Run ``mlguard serve`` in a process of its own; give its URL."""
        command = [sys.executable, "-P", "-m", "mlguard.cli", "serve", "--quiet"]
        with (self.project.settings.state_dir / "serve.log").open("wb") as log:
            server = subprocess.Popen(  # noqa: S603  our own command line
                [*command, "--project", str(self.project.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        try:
            self._wait(lambda: bool(self.project.registry.live_servers()), "the server starts")
            yield self.project.registry.live_servers()[0].url
        finally:
            server.terminate()
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
