"""Serves one model as ``mlguard serve`` would: what the serving benchmark measures.

::

    python -m benchmarks.serving_target --models DIR --model iris --port 8000
        --runtime auto|original|onnx     what runs the model (auto: what a deploy would choose)
        --guard on|off                   off: nothing is logged
        --route protocol|framework       framework: the ordinary FastAPI route
        --largest-batch 1                no batches
        --set app.cache_mib=64           any key of app.toml

The model is registered in a project of its own in a temporary folder and goes live by the
registry's own steps, in a process that ends before the server begins: what training libraries load
is no part of a front end.  Then one front end answers, on uvloop, as the supervisor starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

APP = "app"


def project_of(root: Path, options: argparse.Namespace) -> Any:  # noqa: PLR0915 - one recipe
    """Write a project, register the model, let it go live."""
    import dataclasses
    import hashlib

    import joblib
    import numpy as np
    import pandas as pd
    import sklearn.datasets

    from mlguard.config import load_app, load_project
    from mlguard.data.profile import SCORE, Profile
    from mlguard.models.bundle import Manifest
    from mlguard.models.compilation import compile_model
    from mlguard.models.predictor import Predictor
    from mlguard.models.schema import Feature, InputSchema
    from mlguard.registry.lifecycle import State
    from mlguard.registry.store import Registry
    from mlguard.results import CheckResult, GateDecision, Verdict

    (root / "mlguard.toml").write_text("[server]\nport = 0\n")
    settings: dict[str, Any] = {
        "app": dict.fromkeys(("description", "owner", "decision", "success_metric"), "benchmark"),
        "data": {"test": "test.csv"},
        "model": {"allow_pickle": True},
    }
    settings["app"]["slo_ms"] = 1000
    for one in options.set:
        place, _, value = one.partition("=")
        table, _, key = place.partition(".")
        settings.setdefault(table, {})[key] = json.loads(value)
    folder = root / "serving" / APP
    folder.mkdir(parents=True)
    tables = (
        f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for table, keys in settings.items()
    )
    (folder / "app.toml").write_text("".join(tables))
    project = load_project(root)
    app = load_app(project, APP)

    model_file = Path(options.models) / f"{options.model}.joblib"
    estimator = joblib.load(model_file)
    loader = {"iris": "load_iris", "rf": "load_breast_cancer", "svm": "load_digits"}
    rows, _ = getattr(sklearn.datasets, loader[options.model])(return_X_y=True)
    features = tuple(
        Feature(f"x{place}", "number", float(low), float(high))
        for place, (low, high) in enumerate(zip(rows.min(0), rows.max(0), strict=True))
    )
    classes = tuple(np.asarray(estimator.classes_).tolist())
    schema = InputSchema("doubles", "classification", features, classes)
    manifest = Manifest.of(model_file, schema, app.model)
    compiled = None
    frame = pd.DataFrame(rows, columns=[one.name for one in features])
    predictor = Predictor(estimator, schema, manifest.thresholds)
    scores = predictor.predict(frame).scores
    counted = dict(frame.items())
    if scores is not None and scores.ndim == 1:
        counted[SCORE] = scores
    if options.runtime != "original":
        found = compile_model(
            predictor,
            frame,
            asked=options.runtime,
            tolerance=1e-4,
            thresholds=manifest.thresholds,
        )
        print(found.summary(), flush=True)
        if found.content:
            compiled = root / "compiled"
            compiled.write_bytes(found.content)
            manifest = dataclasses.replace(
                manifest,
                runtime=found.runtime,
                compiled_sha256=hashlib.sha256(found.content).hexdigest(),
            )
    with Registry.open(project) as registry:
        version = registry.register(
            APP, name="v1", manifest=manifest, model_file=model_file, compiled_file=compiled
        )
        # What drift is judged on: every row that is answered is counted on its grid.
        reference = {"profile": Profile.reference(counted).to_json()}
        registry.set_reference(APP, version.digest, reference)
        registry.mark(version.id, State.VERIFIED, reason="benchmark")
        result = CheckResult(id="benchmark", verdict=Verdict.PASSED, summary="benchmark")
        decision = GateDecision(
            app=APP, candidate="v1", allowed=True, results=(result,), because="benchmark"
        )
        registry.record_evidence(
            APP,
            version.digest,
            decision.to_json(),
            policy_digest="p",
            data_digest="d",
            code_version="c",
        )
        registry.mark(version.id, State.PASSED, reason="benchmark")
        operation = registry.begin(APP, version.id)
        registry.stage(operation)
        registry.promote(operation, reason="benchmark")
        registry.confirm(APP, served_s=1.0)
    return project


def prepare(root: Path, options: argparse.Namespace) -> None:
    """Call :func:`project_of`, whose answer stays where it was made."""
    project_of(root, options)


async def serve(project: Any, options: argparse.Namespace) -> None:
    """Answer until the process is ended."""
    from mlguard.server_app import app_of
    from mlguard.serving.front import Front
    from mlguard.serving.listening import listen
    from mlguard.serving.uvicorn_server import QuietServer

    front = Front(project)
    adopt = front._adopt  # noqa: SLF001 - what is measured is taken apart here

    def changed(settings: Any) -> Any:
        engine = adopt(settings)
        if options.guard == "off":
            engine.recorder = None
        if options.largest_batch:
            load = engine.load

            async def loaded(spec: Any) -> None:
                await load(spec)
                batcher = engine.versions[spec.id].batcher
                batcher.largest = options.largest_batch
                batcher._limit = float(options.largest_batch)  # noqa: SLF001 - as above

            engine.load = loaded
        return engine

    front._adopt = changed  # noqa: SLF001
    app = app_of(front)
    if options.route == "framework":
        # Middleware of a user's own: the quick path steps aside.
        class Nothing:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                await self.app(scope, receive, send)

        app.add_middleware(Nothing)
    server = QuietServer(app, on_started=lambda: None, lifespan="on")
    await server.serve(sockets=[listen("127.0.0.1", options.port)])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", required=True)
    parser.add_argument("--model", default="iris")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--runtime", choices=["auto", "original", "onnx"], default="auto")
    parser.add_argument("--guard", choices=["on", "off"], default="on")
    parser.add_argument("--route", choices=["protocol", "framework"], default="protocol")
    parser.add_argument("--largest-batch", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=JSON")
    options = parser.parse_args()
    import uvloop

    from mlguard.config import load_project

    with tempfile.TemporaryDirectory(prefix="mlguard-benchmark-") as folder:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
            child.submit(prepare, Path(folder), options).result()
        project = load_project(Path(folder))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(project, options))


if __name__ == "__main__":
    main()
