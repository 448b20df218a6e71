"""Look at a candidate's file before anything else touches it.

The file is opened in a child process only, with limits on memory and time: it may be no model,
or one that runs code.  There it is also compiled, if that changes no answer.  What comes back
is plain data: the manifest of the version it would be, and the bytes it was compiled to.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlguard.config import AppSettings, ProjectSettings, load_app, load_project
from mlguard.errors import ConfigError, ModelFileError, ModelRunError
from mlguard.models.bundle import Manifest
from mlguard.models.child import time_limit
from mlguard.models.isolation import run_in_child

#: Test rows that a candidate must answer, twice alike, before it is judged.
GOLDEN_ROWS = 8
#: What importing a model's libraries may take beside the model itself, in seconds.
_LOADING_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model file that was loaded and asked in a child process.

    Attributes
    ----------
    manifest : Manifest
        What the version's digest covers.
    file : Path
        The model's bytes.
    load_s : float
        Seconds that loading took in the child.
    compiled : bytes
        What the model was compiled to; empty where the file itself serves.
    """

    manifest: Manifest
    file: Path
    load_s: float
    compiled: bytes = b""

    @property
    def digest(self) -> str:
        """Identity of the version that this candidate would be."""
        return self.manifest.digest


def inspect_candidate(project: ProjectSettings, settings: AppSettings, file: Path) -> Candidate:
    """Load a model file in a child process, ask it a few test rows, and describe it.

    Raises
    ------
    ModelFileError
        If there is no such file or it holds no model.
    UntrustedModelError
        If loading it would run code that nobody allowed.
    DataError
        If the test data is missing, unreadable or lacks a column.
    ModelRunError
        If the model raises, hangs, dies, or answers differently when asked again.
    """
    if not file.is_file():
        raise ModelFileError(
            f"there is no model file {file}",
            hint="name the candidate with --model, or correct [model] path in app.toml",
        )
    with tempfile.TemporaryDirectory(prefix="mlguard-compiled-") as scratch:
        compiled = Path(scratch) / "compiled"
        answer = run_in_child(
            "mlguard.deploy.candidate:describe",
            {
                "root": str(project.root),
                "app": settings.name,
                "file": str(file.resolve()),
                "compiled": str(compiled),
            },
            memory_mib=settings.model.memory_mib,
            wall_s=60 + settings.model.wall_limit_s,
        )
        return Candidate(
            manifest=Manifest.from_json(answer["manifest"]),
            file=file,
            load_s=answer["load_s"],
            compiled=compiled.read_bytes() if compiled.exists() else b"",
        )


def describe(payload: Mapping[str, str]) -> dict[str, Any]:
    """Describe the model of a payload; runs in the child process."""
    from mlguard.data.frames import file_digest, read_frame, select_columns
    from mlguard.models.compilation import compile_for
    from mlguard.models.opening import open_model
    from mlguard.models.uncertainty import calibrated

    settings = load_app(load_project(payload["root"]), payload["app"])
    file = Path(payload["file"])
    data = settings.data
    frame = read_frame(settings.path(data.test), missing_values=data.missing_values)
    wanted = [one for one in (data.target, *data.sensitive, data.time, data.id) if one]
    select_columns(frame, wanted, where=f"[data] test of {settings.name}, {data.test},")
    began = time.perf_counter()
    with time_limit(_LOADING_S + settings.model.wall_limit_s):
        opened = open_model(file, frame, settings)
    load_s = time.perf_counter() - began
    manifest, predictor = opened.manifest, opened.predictor
    golden = frame.head(GOLDEN_ROWS)
    if settings.model.threshold_attribute and len(manifest.schema.classes or ()) != 2:
        raise ConfigError(
            f"[model.thresholds] has thresholds by {settings.model.threshold_attribute}, and "
            f"{file.name} does not tell two classes apart",
            hint="thresholds per group need a classifier of two classes",
        )
    with time_limit(settings.model.wall_limit_s):
        first = predictor.predict(golden)
    with time_limit(settings.model.wall_limit_s):
        second = predictor.predict(golden)
    if settings.model.threshold_attribute and first.scores is None:
        raise ConfigError(
            f"[model.thresholds] has thresholds by {settings.model.threshold_attribute}, and "
            f"{file.name} gives no scores",
            hint="thresholds need a classifier with predict_proba or decision_function",
        )
    if not first.valid.all():
        why = next(iter(first.reasons.values()), "its answer is not finite")
        raise ModelRunError(
            f"{file.name} gave no usable answer to a row of the test data: {why}",
            hint="mend the model, or the row's missing values, and try again",
        )
    if not np.array_equal(first.labels, second.labels):
        raise ModelRunError(
            f"{file.name} answered differently when asked the same rows again",
            hint="fix its random state: a version that is not repeatable cannot be judged",
        )
    manifest = manifest.saying(calibrated(predictor, settings, frame))
    found = compile_for(predictor, manifest, frame, settings.model)
    found = replace(found, data_sha256=file_digest(settings.path(data.test)))
    if found.content:
        Path(payload["compiled"]).write_bytes(found.content)
    manifest = manifest.compiled(found.runtime, found.content, found.to_json())
    return {"manifest": manifest.to_json(), "load_s": load_s}
