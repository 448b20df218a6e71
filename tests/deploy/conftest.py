"""A small world to watch: a project with one app, real models, a real log, a clock on a string."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlguard import plugins
from mlguard.config import AppSettings, ProjectSettings, load_app, load_project
from mlguard.data.labels import LabelStore, default_url
from mlguard.data.mirrored import mirrored_folder
from mlguard.data.prediction_log import PredictionLog
from mlguard.data.profile import Profile
from mlguard.deploy.watch import LEASE, TickEvent, Watcher
from mlguard.models.bundle import Manifest
from mlguard.models.formats import save_model
from mlguard.models.predictor import Predictor, load_predictor
from mlguard.models.schema import Feature, InputSchema
from mlguard.policy import gate_decision
from mlguard.registry import Registry, State, Version
from mlguard.results import CheckResult, MonitorResult, Verdict

START = 1_790_000_000.0
FEATURES = ("income", "debt")

APP = """
[app]
description = "who pays back"
owner = "ann@example.com"
decision = "a loan"
success_metric = "fewer defaults"
input = "table"
[data]
test = "test.csv"
target = "paid"
sensitive = ["sex"]
[auto]
grace = "0s"
[monitor.data_drift]
window_rows = 500
[monitor.fairness]
enabled = false
[monitor.requests]
enabled = false
"""


class Clock:
    """A clock that goes where a test puts it."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class World:
    """One app in one project, without a server: rows and labels are written as one would."""

    root: Path
    clock: Clock
    monotonic: Clock
    project: ProjectSettings
    registry: Registry
    log: PredictionLog
    labels: LabelStore
    rng: np.random.Generator
    replays: int = 0
    #: Whether references tell the loss of each sex, which is that of all.
    by_sex: bool = False
    predictors: dict[str, Predictor] = field(default_factory=dict)

    # --- settings ------------------------------------------------------------------------

    @property
    def settings(self) -> AppSettings:
        return load_app(self.project, "loan")

    def configure(self, old: str, new: str) -> None:
        """Change a line of app.toml."""
        file = self.root / "serving" / "loan" / "app.toml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    # --- versions ------------------------------------------------------------------------

    def model(self, weights: tuple[float, float]) -> Any:
        """Fit a model that looks at the features as much as the weights say."""
        import pandas as pd
        from sklearn.linear_model import LogisticRegression

        rows = np.random.default_rng(7).normal(size=(400, 2))
        truth = (rows @ np.array(weights) > 0).astype(int)
        return LogisticRegression().fit(pd.DataFrame(rows, columns=list(FEATURES)), truth)

    def deploy(self, name: str, weights: tuple[float, float], *, confirm: bool = True) -> Version:
        """Bring a model into service as the rollout would, with its reference."""
        path = self.root / f"{name}.skops"
        estimator = self.model(weights)
        save_model(estimator, path)
        schema = InputSchema(
            "table", "classification", tuple(Feature(one, "number") for one in FEATURES), (0, 1)
        )
        manifest = Manifest.of(path, schema, self.settings.model)
        version = self.registry.register("loan", name=name, manifest=manifest, model_file=path)
        self.registry.set_reference("loan", version.digest, self.reference(estimator))
        self.registry.mark(version.id, State.VERIFIED, reason="smoke test passed")
        check = CheckResult(id="baseline.beats", verdict=Verdict.PASSED, summary="better")
        evidence = self.registry.record_evidence(
            "loan",
            version.digest,
            gate_decision("loan", name, [check]).to_json(),
            policy_digest="policy",
            data_digest="data",
            code_version="code",
        )
        self.registry.mark(version.id, State.PASSED, reason="gate", evidence_id=evidence)
        operation = self.registry.begin("loan", version.id)
        self.registry.stage(operation)
        self.registry.promote(operation, reason="deployed")
        if confirm:
            self.registry.confirm("loan", served_s=600)
        return self.registry.version_by_id(version.id)

    def rows(self, n: int) -> np.ndarray:
        return self.rng.normal(size=(n, 2))

    @staticmethod
    def truth(rows: np.ndarray) -> np.ndarray:
        return (rows @ np.array([1.0, 1.0]) > 0).astype(int)

    def reference(self, estimator: Any) -> dict[str, Any]:
        import pandas as pd

        rows = np.random.default_rng(11).normal(size=(4000, 2))
        columns = {name: rows[:, place] for place, name in enumerate(FEATURES)}
        kinds = dict.fromkeys(FEATURES, "number")
        wrong = int((estimator.predict(pd.DataFrame(columns)) != self.truth(rows)).sum())
        half = {"n": len(rows) // 2, "n_errors": wrong // 2}
        return {
            "groups": {"sex": {"F": half, "M": half}} if self.by_sex else {},
            "profile": Profile.reference(columns, kinds).to_json(),
            "loss": {"kind": "error", "n": len(rows), "n_errors": wrong, "scale": 1.0},
            "positive": 1,
        }

    def predictor(self, version: Version) -> Predictor:
        manifest = Manifest.from_json(version.manifest)
        digest = manifest.digest
        if digest not in self.predictors:
            path = self.registry.artifacts.get(manifest.model_sha256)
            self.predictors[digest] = load_predictor(manifest, path)
        return self.predictors[digest]

    # --- traffic -------------------------------------------------------------------------

    def serve(
        self,
        seen: np.ndarray,
        *,
        seconds: float = 60.0,
        defaults: np.ndarray | None = None,
        explanation: str = "the model raised ValueError",
        sex: np.ndarray | None = None,
    ) -> range:
        """Let the active version answer rows, spread over some seconds that pass."""
        state = self.registry.app("loan")
        active = state.active
        assert active is not None
        n = len(seen)
        answers = self.predictor(active).predict(seen.tolist())
        default = np.zeros(n, dtype=bool) if defaults is None else defaults
        ids = self.registry.reserve_ids("loan", active.id, state.generation, "s1", n)
        schema = Manifest.from_json(active.manifest).schema
        writer = self.log.writer("loan", active.id, f"p{ids[0]}", schema.features)
        outputs = answers.outputs()
        writer.append(
            [
                {
                    "query_id": ids[place],
                    "time": self.clock.now + seconds * place / n,
                    "generation": state.generation,
                    "default": bool(default[place]),
                    "explanation": explanation if default[place] else None,
                    "output": "null" if default[place] else json.dumps(outputs[place]),
                    "score": float(answers.scores[place]),
                    "groups": None if sex is None else json.dumps({"sex": str(sex[place])}),
                    "latency_ms": 1.0,
                    "valid": True,
                    **dict(zip(FEATURES, seen[place].tolist(), strict=True)),
                }
                for place in range(n)
            ]
        )
        writer.flush()
        writer.close()
        self.pass_time(seconds)
        return ids

    def label(self, ids: range, truth: np.ndarray, *, source: str = "default") -> None:
        self.labels.put_many(
            [
                (query_id, int(label), source, self.clock.now)
                for query_id, label in zip(ids, truth, strict=True)
            ]
        )
        self.pass_time(1.0)

    def traffic(self, n: int, *, see: Callable[[np.ndarray], np.ndarray] | None = None) -> range:
        """Answer rows and label them; ``see`` is what happens to rows on their way to us."""
        rows = self.rows(n)
        ids = self.serve(rows if see is None else see(rows))
        self.label(ids, self.truth(rows))
        return ids

    # --- watching ------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.monotonic.advance(seconds)

    def replay(self, manifest: Manifest, path: Path, rows: list[list[Any]]) -> Any:
        """Play rows in this process, where a test is about something else."""
        self.replays += 1
        return load_predictor(manifest, path).predict(rows)

    def watcher(self, **options: Any) -> Watcher:
        options.setdefault("replay", self.replay)
        return Watcher(
            self.project,
            self.registry,
            self.log,
            lambda app: LabelStore(default_url(self.project.log_dir, app)),
            self.clock,
            monotonic=self.monotonic,
            **options,
        )

    def run(self, watcher: Watcher, passes: int = 3) -> list[TickEvent]:
        """Make some passes, so far apart that nothing is left on its way."""
        events = []
        for _ in range(passes):
            self.pass_time(5.0)
            events += watcher.tick()
        errors = [one for one in events if one.kind == "error"]
        assert not errors, errors
        return events

    def restart(self, watcher: Watcher) -> None:
        """Let a watcher's process be gone."""
        self.registry.give_up_lease(LEASE, watcher.owner)

    def serving(self, generation: int | None = None) -> None:
        """Say that a server answers with the current generation."""
        state = self.registry.app("loan")
        self.registry.server_hello("s1", host="h", pid=1, url="http://h")
        observed = state.generation if generation is None else generation
        self.registry.server_beat("s1", observed={"loan": observed}, loaded=[], failed={})

    def active(self) -> str | None:
        found = self.registry.app("loan").active
        return None if found is None else found.name

    def results(self, monitor: str) -> list[MonitorResult]:
        return [one for _, one in reversed(self.registry.monitor_results("loan", monitor=monitor))]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "mlguard.toml").write_text("")
    (tmp_path / "serving" / "loan").mkdir(parents=True)
    (tmp_path / "serving" / "loan" / "app.toml").write_text(APP)
    project = load_project(tmp_path)
    clock = Clock()
    with Registry.open(project, clock=clock, actor="ann") as registry:
        labels = LabelStore(default_url(project.log_dir, "loan"))
        yield World(
            root=tmp_path,
            clock=clock,
            monotonic=Clock(1000.0),
            project=project,
            registry=registry,
            log=PredictionLog(project.log_dir),
            labels=labels,
            rng=np.random.default_rng(3),
        )
        labels.close()


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Any]]:
    """Install a monitor of somebody else's for one test: its module, and its entry point."""
    site = tmp_path / "site"
    installed: list[str] = []

    def install(name: str, source: str) -> Any:
        info = site / "our_monitors-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}_monitor.py").write_text(source)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-monitors\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[mlguard.monitors]\n{name} = {name}_monitor:Monitor\n"
        )
        monkeypatch.syspath_prepend(site)
        plugins.found.cache_clear()
        installed.append(f"{name}_monitor")
        return importlib.import_module(installed[-1])

    yield install
    for name in installed:
        del sys.modules[name]
    plugins.found.cache_clear()


# --- steps of a rollout ------------------------------------------------------------------


class Stepper:
    """What a deployment, a server and callers do while a version is on its way in."""

    def __init__(self, world: World) -> None:
        self.world = world

    def begin(self, weights, steps, *, name="v2", **options):
        """Stage a version and take its first step, as the deployment would."""
        world = self.world
        path = world.root / f"{name}.skops"
        save_model(world.model(weights), path)
        schema = InputSchema(
            "table", "classification", tuple(Feature(one, "number") for one in FEATURES), (0, 1)
        )
        registry = world.registry
        manifest = Manifest.of(path, schema, world.settings.model)
        version = registry.register("loan", name=name, manifest=manifest, model_file=path)
        registry.mark(version.id, State.VERIFIED, reason="smoke test passed")
        check = CheckResult(id="baseline.beats", verdict=Verdict.PASSED, summary="better")
        registry.record_evidence(
            "loan",
            version.digest,
            gate_decision("loan", name, [check]).to_json(),
            policy_digest="policy",
            data_digest="data",
            code_version="code",
        )
        registry.mark(version.id, State.PASSED, reason="gate")
        operation = registry.begin("loan", version.id, steps=steps, **options)
        registry.stage(operation)
        return registry.advance(operation, reason="try it")

    def answer(self, version, rows, *, folder=None, ids=None, broken=None, seconds=60.0):
        """Write what a version answered, as a server would; a mirror's answers with live ids."""
        world = self.world
        state = world.registry.app("loan")
        n = len(rows)
        if ids is None:
            ids = world.registry.reserve_ids("loan", version.id, state.generation, "s1", n)
        default = np.zeros(n, bool) if broken is None else broken
        schema = Manifest.from_json(version.manifest).schema
        answers = world.predictor(version).predict(rows.tolist())
        outputs = answers.outputs()
        writer = world.log.writer(
            "loan", version.id if folder is None else folder, f"p{ids[0]}{folder}", schema.features
        )
        writer.append(
            [
                {
                    "query_id": ids[place],
                    "time": world.clock.now + seconds * place / n,
                    "generation": state.generation,
                    "default": bool(default[place]),
                    "explanation": "the model raised ValueError" if default[place] else None,
                    "output": "null" if default[place] else json.dumps(outputs[place]),
                    "latency_ms": 1.0,
                    "valid": True,
                    **dict(zip(FEATURES, rows[place].tolist(), strict=True)),
                }
                for place in range(n)
            ]
        )
        writer.flush()
        writer.close()
        return ids

    def shadowed(self, n, *, broken=None):
        """Live traffic that the candidate is shown, with labels."""
        world = self.world
        rows = world.rows(n)
        one = world.registry.rolling("loan")
        ids = self.answer(world.registry.app("loan").active, rows)
        self.answer(
            one.version,
            rows,
            folder=mirrored_folder(one.version.id),
            ids=ids,
            broken=None if broken is None else np.arange(n) % broken == 0,
        )
        world.pass_time(60.0)
        world.label(ids, world.truth(rows))
        self.keep_alive()

    def shared(self, n, *, broken=None):
        """Traffic that both answer, each its own callers, with labels."""
        world = self.world
        one = world.registry.rolling("loan")
        parts = []
        for version in (world.registry.app("loan").active, one.version):
            rows = world.rows(n)
            failing = broken is not None and version is one.version
            ids = self.answer(version, rows, broken=np.arange(n) % broken == 0 if failing else None)
            parts.append((ids, world.truth(rows)))
        world.pass_time(60.0)
        for ids, truth in parts:
            world.label(ids, truth)
        self.keep_alive()

    def keep_alive(self):
        world = self.world
        one = world.registry.rolling("loan")
        if one is not None:
            world.registry.beat(one.operation)

    def run(self, watcher: Watcher, passes: int = 6) -> list[TickEvent]:
        """Make pass after pass while the deployer gives signs of life."""
        events: list[TickEvent] = []
        for _ in range(passes):
            self.keep_alive()
            self.world.pass_time(15.0)
            self.keep_alive()
            events += watcher.tick()
        return events


@pytest.fixture
def rolling(world: World) -> World:
    """A live version, and a way to bring a second one as far as its first step."""
    file = world.root / "serving" / "loan" / "app.toml"
    file.write_text(
        file.read_text()
        + '[rollout]\nstep_min_time = "1m"\nstep_deadline = "1h"\nalpha = 0.05\n'
        + "[monitor.concept_drift]\nenabled = false\n"
    )
    world.deploy("v1", (1.0, 1.0))
    return world


@pytest.fixture
def stepper(rolling: World) -> Stepper:
    return Stepper(rolling)
