"""A project that has lived for a week, and a report that has everything in it."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from mlguard.config import AppSettings, load_app, load_project
from mlguard.data.frames import file_digest
from mlguard.data.labels import LabelStore, default_url
from mlguard.data.prediction_log import PredictionLog
from mlguard.data.profile import Profile
from mlguard.models.bundle import Manifest
from mlguard.registry import Registry
from mlguard.registry.lifecycle import State
from mlguard.reports.view import (
    CalibrationPoint,
    Change,
    DriftChart,
    FeatureDrift,
    Figure,
    GroupChart,
    GroupFigure,
    Happening,
    Mark,
    Point,
    ReportView,
    Service,
    SquareChart,
    Story,
    TimeChart,
    Waived,
)
from mlguard.results import CheckResult, GateDecision, MonitorResult, Verdict, Window

NOW = 1_795_357_320.0
DAY = 86_400.0
TOML = """
[app]
description = "Whether an applicant repays a loan."
owner = "lending <lending@example.com>"
decision = "grant a loan"
success_metric = "fewer defaults"
input = "table"
[data]
test = "test.csv"
sensitive = ["sex"]
[monitor.fairness]
metric = "false_negative_rate"
"""


@pytest.fixture(scope="session")
def now() -> float:
    return NOW


@pytest.fixture(scope="session")
def sample() -> ReportView:
    """A report with one of everything."""
    times = [NOW - 7 * DAY + place * DAY / 4 for place in range(28)]
    rates = [0.19 if place < 18 or place > 22 else 0.31 for place in range(28)]
    points = tuple(
        Point(at=at, value=rate, low=rate - 0.05, high=rate + 0.05, n=160)
        for at, rate in zip(times, rates, strict=True)
    )
    drifted = Figure(
        id="data_drift.ks",
        subject="duration",
        verdict=Verdict.FAILED,
        value=0.31,
        limit=0.1,
        interval=(0.28, 0.34),
        n=4120,
    )
    chart = DriftChart(
        title="duration: KS 0.31 [0.28, 0.34], limit 0.1",
        alt="duration before and now; KS 0.31",
        feature="duration",
        edges=(0.0, 1.0, 2.0, 5.0),
        reference=(0.5, 0.3, 0.2),
        current=(0.2, 0.3, 0.5),
        verdict=Verdict.FAILED,
    )
    return ReportView(
        app="credit",
        project="lending",
        environment="prod",
        since=NOW - 7 * DAY,
        until=NOW,
        at=NOW,
        description="Whether an applicant repays a loan.",
        owner="lending",
        story=Story(
            happened="credit was rolled back from v8 to v7.",
            serves="v7 serves (generation 12).",
            why="error 0.31 [0.27, 0.35], n = 1,204; limit 0.22.",
            did="mlguard switched all traffic to v7.",
            next_step="Deploy a fix:",
            command="mlguard deploy credit --resolves 42",
        ),
        version="v7",
        state="LIVE",
        generation=12,
        figures=(
            Figure(
                id="concept_drift.error",
                verdict=Verdict.FAILED,
                value=0.312,
                limit=0.221,
                interval=(0.271, 0.354),
                n=1204,
                version="v8",
                at=NOW,
            ),
            Figure(
                id="fairness.false_negative_rate_difference",
                subject="race",
                verdict=Verdict.INCONCLUSIVE,
                value=0.04,
                limit=0.1,
                n=90,
                n_min=320,
                next_step="wait",
            ),
        ),
        performance=(
            TimeChart(
                title="Error rose to 0.31",
                alt="Error over time, highest 0.31",
                metric="error",
                points=points,
                marks=(
                    Mark(at=NOW - 5 * DAY, label="v8"),
                    Mark(at=NOW - 2 * DAY, label="incident 42", kind="incident"),
                    Mark(at=NOW - 2 * DAY, label="back to v7", kind="rollback"),
                ),
                limit=0.22,
            ),
        ),
        drift=(
            FeatureDrift(
                feature="duration",
                kind="number",
                measure="ks",
                figure=drifted,
                missing_before=0.0,
                missing_after=0.02,
                chart=chart,
            ),
        ),
        groups=(
            GroupChart(
                title="False-negative rate is 0.11 higher for F than for M",
                alt="F 0.31, M 0.20",
                metric="false_negative_rate",
                attribute="sex",
                groups=(
                    GroupFigure(group="F", value=0.31, low=0.27, high=0.35, n=1204),
                    GroupFigure(group="M", value=0.20, low=0.17, high=0.23, n=1377),
                    GroupFigure(group="X", value=None),
                ),
                band=(0.2, 0.3),
                verdict=Verdict.FAILED,
            ),
        ),
        calibration=SquareChart(
            title="Scores agree",
            alt="Scores agree",
            points=tuple(
                CalibrationPoint(predicted=p, observed=p, low=p - 0.05, high=p + 0.05, n=99)
                for p in (0.1, 0.5, 0.9)
            ),
        ),
        service=Service(
            predictions=4120,
            labels=1204,
            defaults=3,
            causes=(("too late", 3),),
            latency_p50_ms=4.1,
            latency_p95_ms=9.0,
            latency_p99_ms=20.0,
            by_version=(("v7", 2000), ("v8", 2120)),
        ),
        gate=(Figure(id="baseline.beats", verdict=Verdict.PASSED, value=0.1, n=6000),),
        changes=(
            Change(name="data_drift.ks[duration]", before=Verdict.PASSED, after=Verdict.FAILED),
        ),
        waived=(
            Waived(
                name="fairness.false_negative_rate_difference[race]",
                owner="bea",
                reason="until the retraining",
                ticket="T-7",
                expires=NOW + 5 * DAY,
                state="expiring",
                says="waived by bea, T-7 until 2026-11-27 14:22 UTC (in 5 d)",
            ),
        ),
        happenings=(Happening(at=NOW, what="rolled back to v7", who="mlguard", why="error"),),
        not_judged=("2,916 of 4,120 predictions have no label yet.",),
        attachments=("credit.evidently.html",),
    )


class Lived:
    """A registry, a log and labels of one app, filled by its methods; time is told."""

    def __init__(self, root) -> None:
        (root / "serving" / "credit").mkdir(parents=True)
        (root / "mlguard.toml").write_text('[project]\nname = "lending"\n', encoding="utf-8")
        (root / "serving" / "credit" / "app.toml").write_text(TOML, encoding="utf-8")
        self.project = load_project(root)
        self.settings: AppSettings = load_app(self.project, "credit")
        self.now = NOW - 7 * DAY
        self.registry = Registry.open(self.project, clock=lambda: self.now, actor="anna")
        self.log = PredictionLog(self.project.log_dir)
        (self.project.log_dir / "credit").mkdir(parents=True)
        self.labels = LabelStore(default_url(self.project.log_dir, "credit"))
        self.random = np.random.default_rng(7)
        self.root = root

    def close(self) -> None:
        self.labels.close()
        self.registry.close()

    def deploy(self, name):
        """Register, gate and promote a version with a reference."""
        file = self.root / f"{name}.bin"
        file.write_bytes(name.encode() * 100)
        manifest = Manifest(
            model_sha256=file_digest(str(file)), model_format="skops", input_schema={},
            thresholds={"default": 0.5}, runtime="original", task="classification",
            trusted_types=(), allow_pickle=False,
        )  # fmt: skip
        version = self.registry.register("credit", name=name, manifest=manifest, model_file=file)
        self.registry.mark(version.id, State.VERIFIED, reason="smoke test passed")
        beats = CheckResult(
            id="baseline.beats", verdict=Verdict.PASSED, summary="beats majority", value=0.1, n=600
        )
        decision = GateDecision(
            app="credit", candidate=name, allowed=True, results=(beats,), because="all passed"
        )
        evidence = self.registry.record_evidence(
            "credit", version.digest, decision.to_json(),
            policy_digest="p", data_digest="d", code_version="c",
        )  # fmt: skip
        self.registry.mark(version.id, State.PASSED, reason="gate", evidence_id=evidence)
        operation = self.registry.begin("credit", version.id)
        self.registry.stage(operation)
        self.registry.promote(operation, reason="deployed")
        self.now += 1
        if self.registry.app("credit").active.state is State.BAKING:
            self.registry.confirm("credit", served_s=600)
        self.registry.set_reference("credit", version.digest, self.reference())
        return version

    def reference(self):
        n = 4000
        columns = {
            "duration": self.random.lognormal(3, 0.5, n),
            "purpose": self.random.choice(["car", "house"], n).astype(object),
            "score": self.random.beta(2, 3, n),
        }
        kinds = {"duration": "number", "purpose": "category", "score": "number"}
        return {
            "profile": Profile.reference(columns, kinds).to_json(),
            "kinds": kinds,
            "loss": {"kind": "error", "n": n, "n_errors": 1140, "mean": 0.285, "scale": 1.0},
            "classes": [0, 1],
        }

    def ask(self, version, start, stop, n, *, shift=0.0, labelled=1.0, default=0.0):
        """Answer n rows; women are refused wrongly more often where the data has shifted."""
        generation = self.registry.app("credit").generation
        ids = self.registry.reserve_ids("credit", version.id, generation, "s", n)
        features = [
            SimpleNamespace(name="duration", kind="number"),
            SimpleNamespace(name="purpose", kind="category"),
        ]
        writer = self.log.writer("credit", version.id, f"p{int(start)}", features)
        rows, labels = [], []
        for number, at in zip(ids, np.sort(self.random.uniform(start, stop, n)), strict=True):
            sex = ["F", "M", "X"][int(self.random.choice(3, p=[0.498, 0.498, 0.004]))]
            score = float(self.random.beta(2, 3))
            truth = int(self.random.random() < score)
            answer = int(score >= 0.5)
            if shift and sex == "F" and truth:
                answer = 0
            fell_back = bool(self.random.random() < default)
            rows.append(
                {
                    "query_id": number, "time": float(at), "generation": generation,
                    "default": fell_back, "explanation": "too late" if fell_back else None,
                    "output": json.dumps(answer), "score": score, "latency_ms": 4.0,
                    "valid": True, "groups": json.dumps({"sex": sex}),
                    "features": {
                        "duration": float(self.random.lognormal(3 + shift, 0.5)),
                        "purpose": ["car", "house"][int(self.random.integers(2))],
                    },
                }
            )  # fmt: skip
            if self.random.random() < labelled:
                labels.append((number, truth, "default", float(at)))
        writer.append(rows)
        writer.close()
        self.labels.put_many(labels)

    def judge(self, at, value, verdict, *, version="v8", limit=0.42, n=160):
        """Record what a monitor found."""
        self.now = at
        half = 1.96 * math.sqrt(max(value * (1 - value), 0.001) / n)
        self.registry.record_monitor_result(
            "credit",
            MonitorResult(
                id="concept_drift.error", verdict=verdict, summary=f"mean loss {value:.2f}",
                value=value, limit=limit,
                interval=(max(0.0, value - half), value + half), n=n, version=version,
                window=Window(start=at - 3600, end=at, n_rows=n, n_labels=n, generation=1),
            ),
        )  # fmt: skip


@pytest.fixture
def lived(tmp_path):
    """An app that nobody has asked anything yet."""
    one = Lived(tmp_path)
    yield one
    one.close()


@pytest.fixture(scope="session")
def rolled_back(tmp_path_factory):
    """v7 served, v8 went wrong, v7 serves again; made once, so tests only read it."""
    lived = Lived(tmp_path_factory.mktemp("rolled-back"))
    first = lived.deploy("v7")
    lived.ask(first, NOW - 7 * DAY + 5, NOW - 4 * DAY, 900)
    lived.now = NOW - 4 * DAY
    second = lived.deploy("v8")
    lived.ask(second, NOW - 4 * DAY + 5, NOW - 2 * DAY, 900, shift=0.6)
    for step in range(4):
        bad = step > 1
        lived.judge(
            NOW - 4 * DAY + (step + 1) * 0.45 * DAY,
            0.51 if bad else 0.34,
            Verdict.FAILED if bad else Verdict.PASSED,
        )
    lived.now = NOW - 2 * DAY
    facts = {
        "check": "concept_drift.error", "value": 0.51, "limit": 0.42,
        "interval": [0.47, 0.55], "n": 640,
    }  # fmt: skip
    incident = lived.registry.open_incident(
        "credit", monitor="concept_drift", version_id=second.id, summary="error 0.51",
        facts=facts, level="rollback", mail=None,
    )  # fmt: skip
    lived.registry.rollback(
        "credit", automatic=True, reason="concept_drift.error on v8: 0.51 [0.47, 0.55]",
        incident=incident.id, detail=facts,
    )  # fmt: skip
    lived.judge(NOW - DAY, 0.33, Verdict.PASSED, version="v7")
    lived.now = NOW
    yield lived
    lived.close()
