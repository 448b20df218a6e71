"""Registries to test with: on SQLite, and on a real PostgreSQL where its programs are found."""

import hashlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlguard.config import ProjectSettings
from mlguard.registry import Operation, Registry, State, Version
from mlguard.registry.records import AppState
from mlguard.results import CheckResult, GateDecision, Verdict

START = 1_790_000_000.0


class Clock:
    """A clock that goes where a test puts it."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class Bundle:
    """The least that the registry asks of a manifest."""

    model_sha256: str
    threshold: float = 0.5

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.model_sha256} {self.threshold}".encode()).hexdigest()

    def to_json(self) -> dict:
        return {"model_sha256": self.model_sha256, "thresholds": {"default": self.threshold}}


class House:
    """A registry with the steps of a deployment at hand."""

    def __init__(self, project: ProjectSettings, clock: Clock | None = None) -> None:
        self.project = project
        self.clock = clock or Clock()
        self.registry = Registry.open(project, clock=self.clock, actor="ann")

    def again(self) -> "House":
        """Open the same registry a second time, as another process would."""
        return House(self.project, self.clock)

    def file(self, content: str) -> Path:
        path = self.project.root / f"model-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        # Written aside and renamed: threads that register the same content read it meanwhile.
        aside = path.with_name(f"{path.name}-{threading.get_ident()}")
        aside.write_text(content)
        aside.replace(path)
        return path

    def register(
        self, content: str, *, name: str | None = None, app: str = "iris", threshold: float = 0.5
    ) -> Version:
        path = self.file(content)
        bundle = Bundle(hashlib.sha256(content.encode()).hexdigest(), threshold)
        return self.registry.register(app, name=name, manifest=bundle, model_file=path)

    def judge(self, version: Version, *, allowed: bool = True, policy: str = "policy") -> int:
        result = CheckResult(
            id="fairness.accuracy_difference",
            subject="sex",
            verdict=Verdict.PASSED if allowed else Verdict.FAILED,
            summary="accuracy differs by 0.02 between F and M (n = 400); at most 0.1",
            value=0.02,
            limit=0.1,
            interval=(0.0, 0.05),
            n=400,
        )
        decision = GateDecision(
            app=version.app,
            candidate=version.name,
            allowed=allowed,
            results=(result,),
            because="1 of 1 checks passed" if allowed else "1 of 1 checks failed",
        )
        return self.registry.record_evidence(
            version.app,
            version.digest,
            decision.to_json(),
            policy_digest=policy,
            data_digest="data",
            code_version="code",
        )

    def passed(self, content: str, **named: str) -> Version:
        """Register some bytes and let them through the gate."""
        version = self.register(content, **named)
        if version.state is State.REGISTERED:
            version = self.registry.mark(version.id, State.VERIFIED, reason="smoke test passed")
        if version.state is State.VERIFIED:
            evidence = self.judge(version)
            version = self.registry.mark(
                version.id, State.PASSED, reason="gate passed", evidence_id=evidence
            )
        return version

    def staged(self, version: Version, **options: object) -> Operation:
        operation = self.registry.begin(version.app, version.id, **options)
        self.registry.stage(operation)
        return operation

    def deploy(
        self, content: str, *, confirm: bool = True, app: str = "iris", **options
    ) -> Version:
        """Bring some bytes into service, confirmed where nothing else is said."""
        version = self.passed(content, app=app)
        operation = self.staged(version, **options)
        self.registry.promote(operation, reason="deployed")
        if confirm:
            self.registry.confirm(app, served_s=600)
        return self.registry.version_by_id(version.id)

    def states(self, app: str = "iris") -> dict[str, State]:
        return {one.name: one.state for one in self.registry.versions(app)}

    def active(self, app: str = "iris") -> str | None:
        found = self.registry.app(app).active
        return None if found is None else found.name

    def facts(self, app: str = "iris") -> tuple:
        """Everything about an app that a refused command must leave as it was."""
        registry = self.registry
        head = registry.events(limit=1)
        return (
            registry.app(app),
            registry.versions(app),
            registry.operation(app),
            registry.holds(app),
            registry.incidents(app),
            registry.automatic_moves(app),
            head,
            registry.outbox.counts(),
        )

    def check(self, app: str = "iris") -> AppState:
        """Assert what must hold of an app at any time (I1, I2, I3); return its state."""
        registry = self.registry
        state = registry.app(app)
        versions = registry.versions(app)
        serving = [one.id for one in versions if one.state in (State.BAKING, State.LIVE)]
        assert serving == ([] if state.active is None else [state.active.id])
        if state.active is None:
            assert state.generation == 0 or state.mode == "DEFAULT_OUTPUT"
        candidates = [one for one in versions if one.state in ("STAGED", "SHADOW", "CANARY")]
        assert len(candidates) <= 1
        moves = [one.generation for one in registry.events(app) if one.moved]
        assert moves == list(range(state.generation, 0, -1))
        assert registry.verify_chain() is None
        return state


def _settings(root: Path, url: str | None = None) -> ProjectSettings:
    registry = {} if url is None else {"url": url}
    email = {"from": "mlguard@example.com", "to": ["ann@example.com", "bob@example.com"]}
    return ProjectSettings.model_validate(
        {
            "project": {"name": "example"},
            "registry": registry,
            "notify": {"email": email},
            "root": root,
        }
    )


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A registry's file as it is when it was just made; copying it saves the migration."""
    root = tmp_path_factory.mktemp("empty")
    Registry.open(_settings(root)).close()
    return root / ".mlguard" / "registry.db"


@pytest.fixture(scope="session")
def make_sqlite(empty_database) -> Callable[[Path], House]:
    """Make a house on SQLite in a folder."""

    def make(root: Path) -> House:
        state = root / ".mlguard"
        state.mkdir(parents=True, exist_ok=True)
        if not (state / "registry.db").exists():
            shutil.copy(empty_database, state / "registry.db")
        return House(_settings(root))

    return make


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server of our own, to which a database's name is appended."""
    pytest.importorskip("psycopg", reason="no psycopg")
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("no initdb and pg_ctl: PostgreSQL is not installed")
    # A socket's path must be short, which pytest's own folders are not.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "nobody", "--"] if Path.home() == Path("/root") else []
    if as_user:
        shutil.chown(folder, "nobody")
    data = folder / "d"

    def run(*command: str) -> None:
        subprocess.run(
            [*as_user, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=60
        )

    try:
        run("initdb", "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync")
        options = f"-k {folder} -h '' -F"
        log = str(folder / "log")
        run("pg_ctl", "-D", str(data), "-w", "-l", log, "-o", options, "start")
        try:
            yield f"postgresql+psycopg://postgres@/{{}}?host={folder}"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Opening a registry, and compiling its statements for the first time, takes longer than most
# tests: the two that the contract runs on are opened once and emptied before each test.


@pytest.fixture(scope="session")
def emptied_sqlite(make_sqlite, empty_database, tmp_path_factory) -> Callable[[], House]:
    """Return the house on SQLite, as if it had just been made."""
    made = make_sqlite(tmp_path_factory.mktemp("sqlite"))

    def empty() -> House:
        made.registry.close()
        path = made.registry.database.path
        for leftover in path.parent.glob(f"{path.name}*"):
            leftover.unlink()
        shutil.copy(empty_database, path)
        return made

    return empty


@pytest.fixture(scope="session")
def emptied_postgresql(postgresql, tmp_path_factory) -> Callable[[], House]:
    """Return the house on PostgreSQL, as if it had just been made."""
    import sqlalchemy

    from mlguard.registry.tables import metadata

    made = House(_settings(tmp_path_factory.mktemp("postgresql"), postgresql.format("postgres")))
    tables = ", ".join(table.name for table in metadata.sorted_tables if table.name != "meta")
    statements = (
        f"TRUNCATE {tables} RESTART IDENTITY CASCADE",
        "INSERT INTO counters VALUES ('query_id', 1)",
        f"INSERT INTO chain VALUES (1, 0, '{'0' * 64}', 0)",
    )

    def empty() -> House:
        with made.registry.database.write() as connection:
            for statement in statements:
                connection.execute(sqlalchemy.text(statement))
        return made

    return empty


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request) -> House:
    """A house on each database: what is promised holds on both."""
    made = request.getfixturevalue(f"emptied_{request.param}")()
    shutil.rmtree(made.project.root / ".mlguard" / "artifacts", ignore_errors=True)
    made.clock.now = START
    return made


@pytest.fixture
def sqlite_house(make_sqlite, tmp_path) -> Iterator[House]:
    """A house of its own on SQLite, for what only SQLite has."""
    made = make_sqlite(tmp_path)
    yield made
    made.registry.close()
