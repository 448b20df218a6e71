"""A server whose apps are in every state that a page can show, and a browser to look at it."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlguard.config import load_app, load_project
from mlguard.data.frames import file_digest
from mlguard.models.bundle import Manifest
from mlguard.models.formats import save_model
from mlguard.models.linear import reduce_linear
from mlguard.models.schema import Feature, InputSchema
from mlguard.registry import Registry
from mlguard.registry.lifecycle import State
from mlguard.results import (
    CheckResult,
    Enforcement,
    GateDecision,
    Measurement,
    MonitorResult,
    Verdict,
    Window,
)

DAY = 86_400.0
#: What no page may obey: markup, a new line, a turned reading direction, length, an annotation.
HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\r\n::error ::\u202egnirts\u202c"
)
LONG = "x" * 10_000
TOML = """
[app]
description = "Whether an applicant repays a loan."
owner = "lending@example.com"
decision = "whether a loan is offered"
success_metric = "loans paid back"
slo_ms = 5000
[data]
test = "test.csv"
sensitive = ["sex"]
"""


class House:
    """A project whose registry is filled by hand; the clock says what it is told."""

    def __init__(self, root: Path, name: str = "lending") -> None:
        root.mkdir(parents=True)
        (root / "mlguard.toml").write_text(f'[project]\nname = "{name}"\n', encoding="utf-8")
        self.root = root
        self.project = load_project(root)
        self.until = time.time()
        self.now = self.until - 14 * DAY
        self.registry = Registry.open(self.project, clock=lambda: self.now, actor="anna")
        self.schema = InputSchema(
            "doubles",
            "classification",
            (Feature("income", "number", 0.0, 9.0), Feature("debts", "number", 0.0, 9.0)),
            (0, 1),
        )

    def close(self) -> None:
        self.registry.close()

    def app(self, name: str, more: str = "") -> None:
        folder = self.root / "serving" / name
        folder.mkdir(parents=True)
        (folder / "app.toml").write_text(TOML + more, encoding="utf-8")

    def deploy(self, app, name, *, results=None, message="", weight=1.0, bake=True):
        """Take a version of a real model through gate and rollout; returns it."""
        rows = np.random.default_rng(int(weight * 10)).normal(size=(60, 2))
        model = LogisticRegression().fit(rows * weight, rows[:, 0] * weight > 0.1)
        model.classes_ = np.array([0, 1])
        settings = load_app(self.project, app)
        folder = self.root / "made" / app / name
        folder.mkdir(parents=True)
        save_model(model, folder / "model.skops")
        (folder / "model.linear").write_bytes(reduce_linear(model, self.schema).to_bytes())
        manifest = dataclasses.replace(
            Manifest.of(folder / "model.skops", self.schema, settings.model),
            runtime="linear",
            compiled_sha256=file_digest(str(folder / "model.linear")),
        )
        registry = self.registry
        version = registry.register(
            app, name=name, manifest=manifest, model_file=folder / "model.skops",
            compiled_file=folder / "model.linear", message=message, commit="0f3c",
        )  # fmt: skip
        registry.mark(version.id, State.VERIFIED, reason="loads and answers")
        decision = GateDecision(
            app=app, candidate=name, allowed=True, because="nothing blocks",
            results=tuple(self.gate() if results is None else results),
        )  # fmt: skip
        evidence = registry.record_evidence(
            app, version.digest, decision.to_json(),
            policy_digest="p", data_digest="d", code_version="0.1.0",
        )  # fmt: skip
        registry.mark(version.id, State.PASSED, reason="gate", evidence_id=evidence)
        operation = registry.begin(app, version.id)
        registry.stage(operation)
        registry.promote(operation, reason=message or "passed its gate")
        self.now += 60
        if bake and registry.app(app).active.state is State.BAKING:
            registry.confirm(app, served_s=600)
        return registry.version(app, name)

    def gate(self):
        """What a gate finds of an ordinary version."""
        yield CheckResult(
            id="baseline.beats", subject="majority", verdict=Verdict.PASSED, value=0.09,
            interval=(0.08, 0.1), n=6000, limit=0.0, summary="beats majority by 0.09",
        )  # fmt: skip
        yield CheckResult(
            id="data_quality.missing", subject="income", verdict=Verdict.PASSED, value=0.001,
            limit=0.05, n=6000, summary="0.1 % of income is missing",
        )  # fmt: skip
        yield CheckResult(
            id="behaviour.calibration", verdict=Verdict.INCONCLUSIVE, value=0.03, limit=0.02,
            interval=(0.01, 0.05), n=400, n_min=1900, enforcement=Enforcement.WARN,
            on_inconclusive=Enforcement.WARN, summary="too few rows to tell",
        )  # fmt: skip
        yield CheckResult(**self.gap(), verdict=Verdict.PASSED)

    def gap(self, metric="false_negative_rate", subject="sex", f=0.21, m=0.2):
        """The facts of a finding that compares groups; the third has too few rows to be shown."""
        half = 0.03
        return {
            "id": f"fairness.{metric}_difference", "subject": subject,
            "value": abs(f - m), "interval": (max(0.0, abs(f - m) - half), abs(f - m) + half),
            "limit": 0.05, "n": 1204, "n_min": 30,
            "summary": f"gap {abs(f - m):.2f} between F and M, limit 0.05",
            "measurements": tuple(
                Measurement(
                    name=metric, value=value, n=n, low=value - half, high=value + half,
                    group=f"{subject}={group}",
                )
                for group, value, n in (("F", f, 1204), ("M", m, 1377), ("X", 0.5, 4))
            ),
        }  # fmt: skip

    def judge(self, app, version, values, *, name="data_drift.ks", subject="income", limit=0.1):
        """Record a monitor's verdicts over the days since the version came, to the present."""
        step = (self.until - 600 - self.now) / len(values)
        for value in values:
            self.now += step
            failed = value > limit
            self.registry.record_monitor_result(
                app,
                MonitorResult(
                    id=name, subject=subject, version=version, value=value, limit=limit, n=500,
                    verdict=Verdict.FAILED if failed else Verdict.PASSED,
                    interval=(max(0.0, value - 0.02), value + 0.02),
                    summary=f"{subject} {'moved' if failed else 'is as before'}: {value:.2f}",
                    window=Window(
                        start=self.now - 3600, end=self.now, n_rows=500, n_labels=120, generation=1
                    ),
                ),
            )  # fmt: skip

    def compare(self, app, version, f, m=0.2):
        """Record what the fairness monitor found just now."""
        verdict = Verdict.FAILED if f - m > 0.08 else Verdict.PASSED
        self.registry.record_monitor_result(
            app,
            MonitorResult(
                **self.gap(f=f, m=m), verdict=verdict, version=version,
                window=Window(
                    start=self.now - 9000, end=self.now, n_rows=9000, n_labels=2581, generation=1
                ),
            ),
        )  # fmt: skip

    def watch(self, app, **states):
        """Say what the watcher says that its monitors are doing."""
        state = self.registry.app(app)
        self.registry.set_monitor_state(
            app, state.active.id, state.generation, "conditions", {"monitors": states}
        )

    def fill(self) -> None:
        """Make one app of each state."""
        start = self.now
        armed = dict.fromkeys(("data_drift", "fairness", "service"), "armed")

        self.app("well")
        self.deploy("well", "v6")
        until, self.until = self.until, start + 4 * DAY
        self.judge("well", "v6", [0.02, 0.03, 0.02, 0.04, 0.03])
        self.until = until
        self.now = start + 4 * DAY
        self.deploy("well", "v7", message="retrained on October", weight=2.0)
        self.judge("well", "v7", [0.03 + 0.01 * math.sin(one) for one in range(20)])
        self.compare("well", "v7", 0.21)
        self.watch("well", **armed)

        self.now = start + 1
        self.app("failing")
        self.deploy("failing", "v1")
        self.now = start + 3 * DAY
        self.deploy("failing", "v2", weight=2.0)
        self.judge("failing", "v2", [0.04, 0.05, 0.06, 0.09, 0.14, 0.2, 0.24, 0.31])
        self.compare("failing", "v2", 0.31)
        self.watch("failing", **armed)
        version = self.registry.app("failing").active
        self.registry.open_incident(
            "failing", monitor="data_drift", version_id=version.id, level="alert",
            summary="income: KS 0.31 [0.29, 0.33], n = 500; limit 0.1", mail=None,
            facts={
                "check": "data_drift.ks[income]", "value": 0.31, "limit": 0.1,
                "interval": [0.29, 0.33], "n": 500,
                "window": {
                    "start": self.now - 3600, "end": self.now, "n_rows": 500, "n_labels": 120,
                },
            },
        )  # fmt: skip

        self.now = start + 2
        self.app("rolled-back")
        self.deploy("rolled-back", "v7")
        self.now = start + 8 * DAY
        bad = self.deploy("rolled-back", "v8", weight=2.0)
        until, self.until = self.until, self.until - DAY
        self.judge(
            "rolled-back", "v8", [0.2, 0.22, 0.21, 0.25, 0.33, 0.35], name="concept_drift.error",
            subject="", limit=0.3,
        )  # fmt: skip
        facts = {
            "check": "concept_drift.error", "value": 0.35, "limit": 0.3,
            "interval": [0.33, 0.37], "n": 500,
            "explained": "Of the inputs "
            + ", ".join(f"feature {one} by KS distance 0.{one}" for one in range(10, 40))
            + " moved furthest. 100 % of the rise lies where it is below 3.",
        }  # fmt: skip
        incident = self.registry.open_incident(
            "rolled-back", monitor="concept_drift", version_id=bad.id, facts=facts, mail=None,
            summary="error 0.35 [0.33, 0.37], n = 500; limit 0.3", level="rollback",
        )  # fmt: skip
        self.registry.rollback(
            "rolled-back", automatic=True, reason="error 0.35 [0.33, 0.37], n = 500; limit 0.3",
            incident=incident.id, detail=facts,
        )  # fmt: skip
        self.until = until
        self.watch("rolled-back", **dict.fromkeys(armed, "waiting"))

        self.now = start + 3
        self.app("blind")
        self.deploy("blind", "v1")
        self.judge("blind", "v1", [0.03, 0.04, 0.03])
        self.watch("blind", data_drift="blind", fairness="waiting", service="armed")

        self.now = self.until - 3 * 3600
        self.app("quiet")
        self.deploy("quiet", "v1")
        self.app("new")
        self._odd(start)
        self.now = self.until

    def _odd(self, start) -> None:
        """One app with the longest name, and hostile text wherever text may stand."""
        app = "an-app-with-the-longest-name-that-mlguard-allows-0123456789-abcd"
        assert len(app) == 64
        self.now = start + 4
        self.app(app)
        first = "a-version-with-the-longest-name-that-mlguard-allows-0123456789-a"
        self.deploy(app, first, message=HOSTILE)
        odd = CheckResult(
            id="data_quality.ranges", subject=HOSTILE, verdict=Verdict.WARNED, value=0.2,
            limit=0.1, n=100, summary=HOSTILE, enforcement=Enforcement.WARN, next_step=LONG,
        )  # fmt: skip
        self.now = start + 2 * DAY
        self.deploy(app, "v2", results=[odd, *self.gate()], message=LONG, weight=2.0)
        self.judge(app, "v2", [0.03, 0.05, 0.22], subject=HOSTILE)
        self.now = start + 2 * DAY
        self.judge(app, "v2", [0.03, 0.05, 0.22], name="prediction_drift.ks", subject=LONG)
        self.watch(app, data_drift="armed")
        self.registry.hold(app, HOSTILE)
        version = self.registry.app(app).active
        self.registry.open_incident(
            app, monitor="data_drift", version_id=version.id, level="alert", summary=HOSTILE,
            facts={"check": f"data_drift.ks[{HOSTILE}]", "value": 0.22, "limit": 0.1},
            mail=None,
        )  # fmt: skip


@contextmanager
def fronted(house: House):
    """Serve a project from this process, on a port of its own; yields the URL."""
    from mlguard.server_app import app_of
    from mlguard.serving.front import Front
    from mlguard.serving.listening import listen
    from mlguard.serving.uvicorn_server import QuietServer

    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    started = threading.Event()
    made = []

    async def serve() -> None:
        server = QuietServer(
            app_of(Front(house.project, url=url)), on_started=started.set, lifespan="on"
        )
        made.append(server)
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        assert started.wait(60)
        yield url
    finally:
        made[0].should_exit = True
        thread.join(30)
        listener.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A project with an app of each state."""
    made = House(tmp_path_factory.mktemp("house") / "project")
    made.fill()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(house):
    """The URL that serves it."""
    with fronted(house) as url:
        yield url


@pytest.fixture(scope="session", name="fronted")
def _fronted():
    return fronted


@pytest.fixture(scope="session")
def new_house():
    """Makes projects."""
    return House


@pytest.fixture(scope="session")
def hostile():
    """Text that no page may obey, and text that is far too long."""
    return HOSTILE, LONG


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
                  "--disable-background-networking", "--disable-component-update"],
        )  # fmt: skip
        yield found
        found.close()
