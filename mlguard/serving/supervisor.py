"""``mlguard serve``: one listening socket, the front ends behind it, and the watcher.

Rules
-----
1. The parent binds the socket and hands it down.  A front end that dies loses what was in its
   hands; whoever connects meanwhile waits in the socket's queue for the next one.
2. What dies is started again: at once the first time, then after 0.2 s · 2ᵏ up to 10 s, until
   it has lived half a minute.
3. SIGTERM: close the socket, let the front ends finish what they admitted and write it down,
   exit 0.  SIGINT the same.  A second signal ends everything at once.
4. Children live in process groups of their own, so that Ctrl-C reaches the parent alone; and
   the kernel ends them when the parent dies, so that nobody holds the port without one.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlguard.config import ProjectSettings
from mlguard.errors import ConfigError, MlguardError
from mlguard.serving.ahead import FrontAhead
from mlguard.serving.listening import listen

if TYPE_CHECKING:
    from types import FrameType

logger = logging.getLogger("mlguard.serving")

#: Module whose ``python -m`` is a front end with the whole interface.  It lies above this
#: room, which therefore knows only its name.
FRONT_MODULE = "mlguard.server_app"
#: Carries the prediction log to its store, where it has one; imported by nobody.
CARRIER_MODULE = "mlguard.serving.log_carrier"
_POLL_S = 0.1
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 10.0
_HEALTHY_S = 30.0
#: A front end may take this long to finish, and a little to write it down.
_STOP_S = 40.0
_PR_SET_PDEATHSIG = 1
#: Where processors are short, who watches gives way to who answers, and judges a moment later.
_NICE = 5
#: Attempts of the first front end before giving up.
_ATTEMPTS = 3


class _Child:
    """A process that is started again whenever it ends."""

    def __init__(
        self, name: str, start: Callable[[], subprocess.Popen[bytes]], *, last: bool = False
    ) -> None:
        self.name = name
        #: Whether it is told to stop when all others have ended.
        self.last = last
        self.deaths = 0
        self._start = start
        self._born = time.monotonic()
        self._again_at = 0.0
        self.process: subprocess.Popen[bytes] | None = start()

    def look(self, now: float) -> bool:
        """Collect it if it ended, start it again if it is time; True if it was found dead."""
        if self.process is None:
            if now >= self._again_at:
                self.process, self._born = self._start(), now
            return False
        code = self.process.poll()
        if code is None:
            return False
        self.deaths = 1 if now - self._born > _HEALTHY_S else self.deaths + 1
        delay = 0.0 if self.deaths == 1 else _FIRST_DELAY_S * 2 ** min(self.deaths - 2, 10)
        self._again_at = now + min(delay, _LONGEST_DELAY_S)
        self.process = None
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        logger.warning("%s ended %s; it is started again", self.name, how)
        return True

    def signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


def serve(
    project: ProjectSettings,
    *,
    host: str | None = None,
    port: int | None = None,
    monitors: Sequence[str] | None = None,
    on_ready: Callable[[str], None] | None = None,
    front: Sequence[str] | None = None,
    ahead: FrontAhead | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Serve a project until SIGTERM or SIGINT.

    Parameters
    ----------
    project : ProjectSettings
        What to serve.
    host, port : optional
        Where to listen; default as in ``[server]``.
    monitors : sequence of str, optional
        Command of the watcher, kept running beside the front ends; None: no watcher.
    on_ready : callable, optional
        Called once with the URL when the first front end answers.
    front : sequence of str, optional
        Command of a front end, which gets its options appended.
    ahead : FrontAhead, optional
        The first front end, where it was begun already; later ones are started by ``front``.
    stop : threading.Event, optional
        Ends the server when set, like SIGTERM.

    Returns
    -------
    int
        Exit code: 0 after an orderly end.

    Raises
    ------
    ConflictError
        If the port is taken.
    MlguardError
        If no front end comes up.
    """
    host = host or project.server.host
    _check_tls(project)
    listener = listen(host, project.server.port if port is None else port)
    stopping = _Signals(stop or threading.Event())
    shown = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - asks whether it is, binds nothing
        shown = "localhost"
    scheme = "https" if project.tls_files else "http"
    url = f"{scheme}://{shown}:{listener.getsockname()[1]}"
    read_end, write_end = os.pipe()
    # Only the first word is waited for; later front ends must not stop at a full pipe.
    os.set_blocking(write_end, False)
    command = list(front or (sys.executable, "-P", "-m", FRONT_MODULE))
    environment = _environment(project)
    children: list[_Child] = []
    try:
        with stopping:
            for number in range(project.server.processes):
                options = ["--root", str(project.root), "--url", url, "--parent", str(os.getpid())]
                handed = {"--fd": listener.fileno(), "--ready-fd": write_end}
                start = _front(command, options, handed, environment, ahead)
                children.append(_Child(f"front end {number + 1}", start))
            answered = _until_ready(children, read_end, stopping)
            if answered:
                children += _beside(project, monitors, environment)
            if answered and on_ready is not None:
                on_ready(url)
            while not stopping.asked:
                for child in children:
                    child.look(time.monotonic())
                stopping.event.wait(_POLL_S)
            listener.close()
            _finish(children, stopping)
    finally:
        listener.close()
        if ahead is not None:
            ahead.close()
        os.close(read_end)
        os.close(write_end)
        for child in children:
            child.signal(signal.SIGKILL)
            if child.process is not None:
                child.process.wait()
    return 0


def _check_tls(project: ProjectSettings) -> None:
    """Find out before any front end starts whether the certificate can be used."""
    files = project.tls_files
    if files is None:
        return
    try:
        # An empty password: a key that needs one is an error, not a question on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files, password="")
    except OSError as error:
        raise ConfigError(
            f"[server] tls_cert = {str(files[0])!r} with tls_key = {str(files[1])!r} cannot be "
            f"used: {error.strerror or error}",
            hint="both are PEM files: the chain with the server's certificate first, and its "
            "private key without a password",
        ) from error


class _Signals:
    """SIGTERM and SIGINT as a wish to stop; the second one in haste."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event
        self.hasty = False
        self._before: dict[int, object] = {}

    @property
    def asked(self) -> bool:
        return self.event.is_set()

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        self.hasty = self.event.is_set()
        self.event.set()

    def __enter__(self) -> None:
        # Only the main thread may set handlers; elsewhere the event has to do.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._heard)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() returned


def _environment(project: ProjectSettings) -> dict[str, str]:
    environment = dict(os.environ)
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if project.server.processes > 1:
        folder = project.state_dir / "metrics"
        # Counts start with the server, as they do with one process.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    return environment


def _dies_with_parent() -> Callable[[], None]:
    """Return what a child does between fork and exec: ask for SIGTERM at its parent's death."""
    if sys.platform != "linux":
        return lambda: None
    # Resolved before the fork: the child may not load libraries.
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _front(
    command: list[str],
    options: list[str],
    handed: dict[str, int],
    environment: dict[str, str],
    ahead: FrontAhead | None,
) -> Callable[[], subprocess.Popen[bytes]]:
    words = [word for option, number in handed.items() for word in (option, str(number))]

    def start() -> subprocess.Popen[bytes]:
        begun = ahead.take(options, handed, environment) if ahead is not None else None
        return begun or subprocess.Popen(  # noqa: S603 - our own module, no shell
            command + options + words,
            pass_fds=tuple(handed.values()),
            stdin=subprocess.DEVNULL,
            process_group=0,
            env=environment,
        )

    return start


def _beside(
    project: ProjectSettings, monitors: Sequence[str] | None, environment: dict[str, str]
) -> list[_Child]:
    """Start what runs beside the front ends."""
    found = []
    if project.log_store.url:
        found.append(_Child("log carrier", _carrier(project, environment), last=True))
    if monitors is not None:
        found.append(_Child("watcher", _watcher(monitors, project, environment)))
    return found


def _carrier(
    project: ProjectSettings, environment: dict[str, str]
) -> Callable[[], subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", CARRIER_MODULE, "--root", str(project.root)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own module, no shell
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            process_group=0,
            env=environment,
        )

    return start


def _watcher(
    command: Sequence[str], project: ProjectSettings, environment: dict[str, str]
) -> Callable[[], subprocess.Popen[bytes]]:
    ask = _dies_with_parent()

    def before() -> None:
        os.nice(_NICE)
        ask()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - handed in by the command line, no shell
            list(command),
            cwd=project.root,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=before,  # noqa: PLW1509 - two system calls, resolved before the fork
            env=environment,
        )

    return start


def _until_ready(children: list[_Child], ready: int, stopping: _Signals) -> bool:
    """Wait for the first front end that answers; False when asked to stop before."""
    while not stopping.asked:
        readable, _, _ = select.select([ready], [], [], _POLL_S)
        if readable:
            os.read(ready, 65_536)
            return True
        for child in children:
            if child.look(time.monotonic()) and child.deaths >= _ATTEMPTS:
                raise MlguardError(
                    f"{child.name} ended {child.deaths} times before it answered",
                    hint="its messages stand above",
                )
    return False


def _finish(children: list[_Child], stopping: _Signals) -> None:
    """Let everybody finish; kill what takes too long, or all at a second signal."""
    give_up = time.monotonic() + _STOP_S
    for last in (False, True):
        now = [child for child in children if child.last is last]
        for child in now:
            child.signal(signal.SIGTERM)
        while any(child.process is not None and child.process.poll() is None for child in now):
            if stopping.hasty or time.monotonic() > give_up:
                return
            time.sleep(0.02)
