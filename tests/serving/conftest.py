"""Real models, and a project whose versions are deployed by the registry's own steps."""

import asyncio
import importlib.util
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from mlguard.config import AppSettings, ProjectSettings, load_app, load_project
from mlguard.models.bundle import Manifest
from mlguard.models.formats import save_model
from mlguard.models.schema import Feature, InputSchema
from mlguard.registry.lifecycle import State
from mlguard.registry.store import Registry
from mlguard.results import CheckResult, GateDecision, Verdict

MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Bundle:
    """A model file and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def json(self) -> dict[str, Any]:
        return self.manifest.to_json()


def settings_of(**tables: Any) -> AppSettings:
    """Settings of an app ``app``, with what is given laid over the least that is needed."""
    app = {"description": "d", "owner": "o", "decision": "d", "success_metric": "s"}
    return AppSettings.model_validate(
        {
            "app": app | tables.pop("app", {}),
            "data": {"test": "test.csv"},
            "name": tables.pop("name", "app"),
            **tables,
        }
    )


def bundle_of(
    estimator: Any, path: Path, schema: InputSchema, settings: AppSettings | None = None
) -> Bundle:
    """Write a model file (skops, or joblib for code of our own) and describe it."""
    settings = settings or settings_of()
    if path.suffix == ".skops":
        save_model(estimator, path)
    else:
        joblib.dump(estimator, path)
    return Bundle(path, Manifest.of(path, schema, settings.model))


def doubles(n: int, *, task: str = "classification", classes: Any = (0, 1), kind: str = "doubles"):
    """An input schema of n numbers."""
    column = "integer" if kind == "ints" else "number"
    features = tuple(Feature(f"x{index}", column, 0.0, 1.0) for index in range(n))
    return InputSchema(kind, task, features, classes if task == "classification" else None)


@pytest.fixture(scope="session")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Logistic regression on iris: three classes, four doubles."""
    from sklearn.datasets import load_iris

    rows, target = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(rows, target)
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    features = tuple(
        Feature(name, "number", float(low), float(high))
        for name, low, high in zip(names, rows.min(axis=0), rows.max(axis=0), strict=True)
    )
    schema = InputSchema("doubles", "classification", features, (0, 1, 2))
    return bundle_of(model, tmp_path_factory.mktemp("iris") / "iris.skops", schema)


def module_of(name: str):
    """Import a module of ``models/`` under the name that a model's process knows it by."""
    spec = importlib.util.spec_from_file_location(name, MODELS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def importable():
    """Lets the models' processes import what is in ``models/``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(MODELS))
        yield


@pytest.fixture(scope="session")
def constant(tmp_path_factory: pytest.TempPathFactory, importable):
    """Makes models of two doubles that answer one class; quick to load."""
    module = module_of("constant")

    def make(label: int) -> Bundle:
        folder = tmp_path_factory.mktemp(f"constant{label}")
        settings = settings_of(model={"allow_pickle": True})
        return bundle_of(module.Constant(label), folder / "model.joblib", doubles(2), settings)

    return make


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A pipeline over a number, an integer, a boolean and a category; needs pandas."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder

    rng = np.random.default_rng(0)
    n = 200
    frame = pd.DataFrame(
        {
            "income": rng.normal(50, 10, n),
            "children": rng.integers(0, 4, n),
            "owner": rng.random(n) < 0.5,
            "region": rng.choice(["north", "south"], n),
        }
    )
    target = (frame["income"] > 50).astype(int)
    encode = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["income", "children"]),
            ("groups", OneHotEncoder(handle_unknown="ignore"), ["owner", "region"]),
        ]
    )
    model = make_pipeline(encode, LogisticRegression(max_iter=2000)).fit(frame, target)
    schema = InputSchema(
        "table",
        "classification",
        (
            Feature("income", "number", 20.0, 80.0),
            Feature("children", "integer", 0, 3),
            Feature("owner", "boolean"),
            Feature("region", "category", categories=("north", "south")),
        ),
        (0, 1),
    )
    settings = settings_of(app={"input": "table"})
    return bundle_of(model, tmp_path_factory.mktemp("table") / "table.skops", schema, settings)


@pytest.fixture(scope="session")
def misbehaving(importable):
    """The module of misbehaving models."""
    return module_of("misbehaving")


@pytest.fixture
def moody(misbehaving, tmp_path: Path) -> Bundle:
    """A model that misbehaves on demand, in a file of its own."""
    settings = settings_of(model={"allow_pickle": True})
    return bundle_of(misbehaving.Moody(), tmp_path / "moody.joblib", doubles(2), settings)


@pytest.fixture(scope="session")
def echo(importable):
    """The module of the model that answers what it was asked."""
    return module_of("echo")


APP_TOML = """
[app]
description = "test"
owner = "test"
decision = "test"
success_metric = "test"
input = "{input}"
slo_ms = {slo_ms}
default_output = "{default_output}"
[data]
test = "test.csv"
"""


class Project:
    """A project in a folder, and its registry."""

    def __init__(self, root: Path, server: str = "") -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        (root / "mlguard.toml").write_text("[server]\nport = 0\n" + server)
        self.settings: ProjectSettings = load_project(root)
        self._registry: Registry | None = None

    @property
    def registry(self) -> Registry:
        if self._registry is None:
            self._registry = Registry.open(self.settings)
        return self._registry

    def app(
        self,
        name: str,
        *,
        kind: str = "doubles",
        slo_ms: float = 2000,
        default_output: str = "None",
        more: str = "",
    ) -> AppSettings:
        folder = self.root / "serving" / name
        folder.mkdir(parents=True, exist_ok=True)
        text = APP_TOML.format(input=kind, slo_ms=slo_ms, default_output=default_output)
        (folder / "app.toml").write_text(text + more)
        return load_app(self.settings, name)

    def passed(self, app: str, bundle: Bundle, *, name: str | None = None):
        """Register a version and let it through a gate, unless it is through already."""
        registry = self.registry
        version = registry.register(
            app, name=name, manifest=bundle.manifest, model_file=bundle.path
        )
        if version.state is not State.REGISTERED:
            return version
        registry.mark(version.id, State.VERIFIED, reason="tried")
        result = CheckResult(id="test.passes", verdict=Verdict.PASSED, summary="fine")
        decision = GateDecision(
            app=app, candidate=version.name, allowed=True, results=(result,), because="fine"
        )
        registry.record_evidence(
            app,
            version.digest,
            decision.to_json(),
            policy_digest="p",
            data_digest="d",
            code_version="c",
        )
        return registry.mark(version.id, State.PASSED, reason="fine")

    def deploy(self, app: str, bundle: Bundle, *, name: str | None = None, wait_s: float = 30.0):
        """Take a version through all steps; wait until every server has loaded it."""
        registry = self.registry
        version = self.passed(app, bundle, name=name)
        operation = registry.begin(app, version.id)
        registry.stage(operation)
        deadline = time.monotonic() + wait_s
        while not all(version.id in one.loaded for one in registry.live_servers()):
            failed = [one.failed for one in registry.live_servers() if one.failed]
            assert not failed, failed
            assert time.monotonic() < deadline, "the servers did not load the version"
            time.sleep(0.02)
        registry.promote(operation, reason="test")
        registry.confirm(app, served_s=1.0)
        return registry.version(app, version.name)

    def close(self) -> None:
        if self._registry is not None:
            self._registry.close()


@pytest.fixture
def project(tmp_path: Path):
    """An empty project."""
    made = Project(tmp_path / "project")
    yield made
    made.close()


@pytest.fixture(scope="session")
def project_of(tmp_path_factory: pytest.TempPathFactory):
    """Makes projects that several tests share."""
    made = []

    def make(name: str) -> Project:
        made.append(Project(tmp_path_factory.mktemp(name) / "project"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def eventually(condition, *, within_s: float = 15.0, what: str = "it") -> Any:
    """Poll a real process until something holds."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s} s"
        time.sleep(0.02)


SERVE = """
import sys
from pathlib import Path
from mlguard.config import load_project
from mlguard.serving.supervisor import serve
sys.exit(serve(load_project(Path(sys.argv[1])), monitors=sys.argv[2:] or None,
               on_ready=lambda url: print(url, flush=True)))
"""


@contextmanager
def serving(project: Project, *monitors: str, **options: Any):
    """Run a supervisor; yields its process and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(project.root), *monitors],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


@contextmanager
def fronted(project: Project):
    """Run one front end in this process, on a port of its own; yields it and its URL."""
    from mlguard.server_app import app_of
    from mlguard.serving.front import Front
    from mlguard.serving.listening import listen
    from mlguard.serving.uvicorn_server import QuietServer

    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    started = threading.Event()
    made: list[Any] = []

    async def serve() -> None:
        front = Front(project.settings, url=url)
        server = QuietServer(app_of(front), on_started=started.set, lifespan="on")
        made.extend((front, server))
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        assert started.wait(60)
        yield made[0], url
    finally:
        made[1].should_exit = True
        thread.join(30)
        listener.close()


@contextmanager
def hypercorn_serving(project: Project):
    """Run the project's ASGI app on hypercorn in this process; yields its URL."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    from mlguard.server_app import create_app
    from mlguard.serving.listening import listen

    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    # As long as any test may pause between two requests of one connection.
    config.keep_alive_timeout = 120
    stop = threading.Event()

    async def run() -> None:
        await serve(
            create_app(project.settings),
            config,
            shutdown_trigger=lambda: asyncio.to_thread(stop.wait),
        )

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        eventually(lambda: _answers(url), within_s=60, what="hypercorn")
        yield url
    finally:
        stop.set()
        thread.join(30)


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def compiled(estimator: Any, bundle: Bundle, path: Path) -> Bundle:
    """A known linear model as its arithmetic, which serves without a process of its own."""
    import dataclasses

    from mlguard.data.frames import file_digest
    from mlguard.models.linear import reduce_linear

    model = reduce_linear(estimator, bundle.manifest.schema)
    assert model is not None
    path.write_bytes(model.to_bytes())
    manifest = dataclasses.replace(
        bundle.manifest, runtime="linear", compiled_sha256=file_digest(str(path))
    )
    return Bundle(path, manifest)


class Nothing:
    """Middleware of a user's own, which wants to see every request."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@contextmanager
def served_by(way: str, bundle: Bundle, folder: Path):
    """Serve iris one way; yields the URL."""
    from mlguard.models.formats import load_model
    from mlguard.serving.embedded import served

    if way in ("protocol", "inline", "route"):
        if way == "inline":
            estimator = load_model(bundle.path, trusted_types=(), allow_pickle=False)
            bundle = compiled(estimator, bundle, folder / "iris.linear")
        with served(
            settings_of(name="iris", app={"slo_ms": 5000}),
            bundle.json,
            bundle.path,
            version="v1",
            max_body=100_000,
            added=lambda app: app.add_middleware(Nothing) if way == "route" else None,
        ) as url:
            yield url
        return
    project = Project(folder / "project", "max_body_mib = 0.095\nprocesses = 2\n")
    project.app("iris", slo_ms=5000)
    project.deploy("iris", bundle, name="v1")
    try:
        if way == "hypercorn":
            with hypercorn_serving(project) as url:
                yield url
        else:
            with serving(project) as (_, url):
                yield url
    finally:
        project.close()


# Test modules cannot import a conftest; what they call comes to them as a fixture.
@pytest.fixture(scope="session", name="eventually")
def _eventually():
    return eventually


@pytest.fixture(scope="session", name="compiled")
def _compiled():
    return compiled


@pytest.fixture(scope="session", name="new_project")
def _new_project():
    return Project


@pytest.fixture(scope="session", name="served_by")
def _served_by():
    return served_by


@pytest.fixture(scope="session", name="serving")
def _serving():
    return serving


@pytest.fixture(scope="session", name="fronted")
def _fronted():
    return fronted


@pytest.fixture(scope="session", name="settings_of")
def _settings_of():
    return settings_of


@pytest.fixture(scope="session", name="bundle_of")
def _bundle_of():
    return bundle_of


@pytest.fixture(scope="session", name="doubles")
def _doubles():
    return doubles
