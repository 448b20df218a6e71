"""``mlguard doctor``: what an installation and a project need, looked at one by one.

Each finding says what was found and, where that is not in order, what to do.  Nothing is changed:
no database is made or brought up to date, no mail is sent, no token is written.

``broken`` is for what will not work, ``warn`` for what works and is worth a thought.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import socket
import stat
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlguard.config import ProjectSettings, load_app
from mlguard.deploy.log_check import check_log
from mlguard.errors import ConfigError, MlguardError
from mlguard.results import Verdict

if TYPE_CHECKING:
    from mlguard.registry.store import Registry

State = Literal["ok", "warn", "broken"]

_MIB = 2**20
_ANSWER_S = 3.0
_NETWORK_PORT = {"smtp": 25, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Examined:
    """One thing that was looked at.

    Attributes
    ----------
    id : str
        What it is about, e.g. ``"registry"``.
    state : {"ok", "warn", "broken"}
        How it is.
    summary : str
        What was found, in one sentence.
    next_step : str
        What to do; empty where all is well.
    """

    id: str
    state: State
    summary: str
    next_step: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {
            "id": self.id,
            "state": self.state,
            "summary": self.summary,
            "next": self.next_step,
        }


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was looked at.

    Attributes
    ----------
    findings : tuple of Examined
    """

    findings: tuple[Examined, ...]

    @property
    def exit_code(self) -> int:
        """2 where settings cannot be read, 7 where something else will not work, else 0."""
        broken = {one.id for one in self.findings if one.state == "broken"}
        if any(one.startswith("settings") for one in broken):
            return ConfigError.exit_code
        return 7 if broken else 0

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``mlguard doctor --json``."""
        return {
            "schema_version": "1.0",
            "command": "doctor",
            "ok": self.exit_code == 0,
            "changed": False,
            "exit_code": self.exit_code,
            "findings": [one.to_json() for one in self.findings],
        }


def examine(project: ProjectSettings) -> Diagnosis:
    """Look at everything.

    Parameters
    ----------
    project : ProjectSettings
        The project; its settings could be read already.

    Returns
    -------
    Diagnosis
        In the order in which a start would meet them.
    """
    parts: list[tuple[str, Callable[[ProjectSettings], Iterator[Examined]]]] = [
        ("environment", _environment),
        ("libraries", _libraries),
        ("settings", _settings),
        ("disk", _disk),
        ("log", _log),
        ("registry", _registry),
        ("mail", _mail),
        ("tokens", _tokens),
    ]
    found: list[Examined] = []
    for name, look in parts:
        try:
            found += look(project)
        except MlguardError as error:
            found.append(Examined(name, "broken", error.message, error.hint))
        except OSError as error:
            found.append(Examined(name, "broken", str(error), "look at the file or folder named"))
    return Diagnosis(tuple(found))


def _environment(_project: ProjectSettings) -> Iterator[Examined]:
    said = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform == "win32":
        yield Examined("environment", "broken", said, "run mlguard on Linux or macOS")
    else:
        yield Examined("environment", "ok", said)
    spec = importlib.util.find_spec("sqlalchemy")
    compiled = spec is not None and spec.cached is not None and Path(spec.cached).exists()
    if not compiled and sys.dont_write_bytecode:
        yield Examined(
            "environment.byte_code",
            "warn",
            "the libraries are not compiled, and PYTHONDONTWRITEBYTECODE keeps Python from doing "
            "it: every start takes about three times as long",
            "unset it, or once: python -m compileall -q "
            + str(Path(str(spec.origin)).parent.parent if spec else "site-packages"),
        )


def _libraries(_project: ProjectSettings) -> Iterator[Examined]:
    from packaging.requirements import Requirement

    try:
        wanted = importlib.metadata.requires("mlguard") or []
    except importlib.metadata.PackageNotFoundError:
        yield Examined(
            "libraries", "warn", "the package itself is not installed", "pip install mlguard"
        )
        return
    n_good = 0
    for text in wanted:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            there = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            there = ""
        if there and needed.specifier.contains(there, prereleases=True):
            n_good += 1
            continue
        found = f"{needed.name} {there}" if there else f"{needed.name} is missing"
        yield Examined(
            f"libraries.{needed.name}",
            "warn" if there else "broken",
            f"{found}; tested are {needed.specifier}" if there else found,
            f"pip install '{needed.name}{needed.specifier}'",
        )
    yield Examined("libraries", "ok", f"{n_good} libraries within the bounds that are tested")


def _settings(project: ProjectSettings) -> Iterator[Examined]:
    names = project.app_names()
    if not names:
        yield Examined("settings", "warn", "the project has no app", "mlguard init DIR")
    for name in names:
        try:
            settings = load_app(project, name)
        except MlguardError as error:
            yield Examined(f"settings.{name}", "broken", error.message, error.hint)
            continue
        missing = [
            str(path)
            for path in (settings.path(settings.data.train), settings.path(settings.data.test))
            if "://" not in str(path) and not Path(path).exists()
        ]
        if missing and not settings.model.train:
            yield Examined(
                f"settings.{name}.data",
                "warn",
                f"there is no {' and no '.join(missing)}",
                "make the file, or name a script that does in [model] train",
            )
        else:
            yield Examined(f"settings.{name}", "ok", "its app.toml is valid")


def _disk(project: ProjectSettings) -> Iterator[Examined]:
    from mlguard.data.disk_floor import disk_of

    folder = project.state_dir
    while not folder.exists():
        folder = folder.parent
    disk = disk_of(folder, int(project.server.min_free_mib * _MIB))
    if disk is None:
        yield Examined("disk", "warn", f"the room on {folder} cannot be told", f"df {folder}")
    elif disk.low:
        yield Examined("disk", "broken", disk.says(), "free some space: mlguard registry gc")
    else:
        yield Examined("disk", "ok", f"{disk.free / _MIB:,.0f} MiB are free on {folder}")


def _log(project: ProjectSettings) -> Iterator[Examined]:
    for name in project.app_names():
        if not (project.log_dir / name).is_dir():
            continue
        try:
            found = check_log(project, load_app(project, name)).finding
        except ConfigError:
            continue  # said already
        worth = found.verdict in (Verdict.FAILED, Verdict.WARNED)
        yield Examined(
            f"log.{name}",
            "warn" if worth else "ok",
            found.summary,
            found.next_step if worth else "",
        )


def _registry(project: ProjectSettings) -> Iterator[Examined]:
    from mlguard.registry.database import Database
    from mlguard.registry.store import Registry
    from mlguard.registry.tables import REVISIONS

    database = Database(project.registry_url)
    try:
        if database.path is not None and not database.path.exists():
            yield Examined(
                "registry", "ok", f"{database.shown} does not exist yet: the first deploy makes it"
            )
            return
        revision = database.revision()
    finally:
        database.close()
    if revision != REVISIONS[-1]:
        if revision is None or revision in REVISIONS:
            does = "the next command that needs it brings it up to date"
            yield Examined(
                "registry", "warn", f"its schema is {revision}: {does}", "back it up first"
            )
        else:
            yield Examined(
                "registry",
                "broken",
                f"its schema is {revision}: a newer mlguard has been here",
                "upgrade this mlguard",
            )
        return
    with Registry.open(project) as registry:
        yield Examined(
            "registry", "ok", f"{database.shown} can be read, {len(registry.apps())} apps"
        )
        yield from _artifacts(registry)
        yield from _servers(registry)


def _artifacts(registry: Registry) -> Iterator[Examined]:
    from mlguard.models.bundle import serving_sha256

    n_good = 0
    for state in registry.apps():
        for version in (state.active, *registry.rollback_targets(state.app)[:1]):
            if version is None:
                continue
            try:
                registry.artifacts.get(serving_sha256(version.manifest))
                n_good += 1
            except MlguardError as error:
                yield Examined(
                    f"artifacts.{state.app}.{version.name}",
                    "broken",
                    error.message,
                    "put its bytes back: mlguard registry repair --from FILE",
                )
    yield Examined(
        "artifacts", "ok", f"{n_good} versions that serve or may be gone back to are intact"
    )


def _servers(registry: Registry) -> Iterator[Examined]:
    servers = registry.live_servers()
    if not servers:
        yield Examined("server", "ok", "no server is running: mlguard serve")
    for server in servers:
        name = f"server.{server.host}:{server.pid}"
        parts = urllib.parse.urlsplit(server.url)
        try:
            # Reached, not judged: a certificate of one's own is none of this command's business.
            with socket.create_connection((parts.hostname or "", parts.port or 80), _ANSWER_S):
                yield Examined(name, "ok", f"{server.url} can be reached")
        except OSError as error:
            yield Examined(
                name,
                "warn",
                f"{server.url} cannot be reached from here: {error}",
                "look at the server's log; on another machine, at host and firewall",
            )


def _mail(project: ProjectSettings) -> Iterator[Examined]:
    email = project.notify.email
    if email is None:
        yield Examined("mail", "ok", f"mail is written to {project.state_dir / 'outbox'}")
        return
    if not email.to:
        yield Examined(
            "mail", "broken", "[notify.email] has nobody in to", 'write to = ["team@example.com"]'
        )
    if email.password_env and not os.environ.get(email.password_env):
        yield Examined(
            "mail.password",
            "broken",
            f"{email.password_env}, which [notify.email] names, is not set",
            f"set {email.password_env} where mlguard runs",
        )
    parts = urllib.parse.urlsplit(email.smtp)
    port = parts.port or _NETWORK_PORT.get(parts.scheme, 25)
    try:
        with socket.create_connection((parts.hostname or "", port), _ANSWER_S):
            yield Examined(
                "mail.server", "ok", f"{parts.hostname}:{port} can be reached: mlguard notify test"
            )
    except OSError as error:
        yield Examined(
            "mail.server",
            "broken",
            f"{parts.hostname}:{port} cannot be reached: {error}",
            "correct [notify.email] smtp, or start the mail server; mail waits meanwhile",
        )


def _tokens(project: ProjectSettings) -> Iterator[Examined]:
    file = project.state_dir / "admin-token"
    if os.environ.get(project.server.admin_token_env, "").strip():
        yield Examined(
            "tokens", "ok", f"the admin token is that of {project.server.admin_token_env}"
        )
    elif not file.exists():
        yield Examined("tokens", "ok", "no admin token yet: the server makes one")
    else:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            yield Examined(
                "tokens",
                "broken",
                f"{file} has mode {mode:04o}: others on this machine may read it",
                f"chmod 600 {file}; where others were here, delete it and restart the server",
            )
        else:
            yield Examined("tokens", "ok", f"{file} has mode {mode:04o}")
    for name in project.app_names():
        try:
            keys = load_app(project, name).app.keys
        except MlguardError:
            continue  # told under settings
        for key in keys:
            variable = f"MLGUARD_KEY_{key.upper().replace('-', '_')}"
            if not os.environ.get(variable):
                yield Examined(
                    f"tokens.{name}.{key}",
                    "warn",
                    f"{variable} is not set here: where the server has none either, nobody can use "
                    f"the key {key}",
                    f"set {variable} where the server runs",
                )
