"""Open a candidate's file, whatever its format: what it takes and gives, and how to ask it.

=========  ==========================================  ===================================
format     what is read                                who answers
=========  ==========================================  ===================================
skops      the estimator, of known types only          the estimator, in this process
pickle     the estimator, by running code              the estimator, in this process
onnx       the graph, after it was checked             ONNX Runtime, in this process
python     nothing: the data says what goes in         the class, in a process of its own
=========  ==========================================  ===================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.config import AppSettings
from mlguard.models.bundle import Manifest
from mlguard.models.code import require_allowed
from mlguard.models.formats import load_model, sniff
from mlguard.models.inline import InlinePredictor
from mlguard.models.isolation import ChildPredictor
from mlguard.models.predictor import AnyPredictor, Predictor, load_predictor
from mlguard.models.schema import InputSchema, input_schema

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Opened:
    """A candidate that can be asked.

    Attributes
    ----------
    model : Any
        The estimator, what a graph says of itself, or None for Python code.
    manifest : Manifest
        The version it would be.
    predictor : Predictor, InlinePredictor or ChildPredictor
        Answers rows.
    """

    model: Any
    manifest: Manifest
    predictor: AnyPredictor | ChildPredictor

    @property
    def schema(self) -> InputSchema:
        """What it takes and gives."""
        return self.predictor.input_schema


class _Unknown:
    """A model that says nothing of itself."""


def open_model(path: Path, frame: pd.DataFrame, settings: AppSettings) -> Opened:
    """Open a candidate.

    Parameters
    ----------
    path : Path
        Its file.
    frame : pandas.DataFrame
        Rows like those it will answer, and their labels.
    settings : AppSettings
        The app.

    Raises
    ------
    ModelFileError
        If it is missing, damaged, or no model of the app's task.
    UntrustedModelError
        If opening it would run what nobody allowed.
    DataError
        If the rows do not fit it.
    """
    told = settings.model
    model_format = sniff(path)
    if model_format == "onnx":
        from mlguard.models.onnx_graph import read_graph
        from mlguard.models.onnx_model import load_onnx

        facts = read_graph(path)
        schema = input_schema(facts, frame, settings)
        manifest = Manifest.of(path, schema, told)
        if facts.loops:
            # Only in a process of its own does something end a loop.
            manifest = replace(manifest, own_process=True)
        inline = InlinePredictor(load_onnx(path, schema), schema, manifest.thresholds)
        return Opened(facts, manifest, inline)
    if model_format == "python":
        require_allowed(path, allow_code=told.allow_code)
        schema = input_schema(_Unknown(), frame, settings)
        manifest = Manifest.of(path, schema, told)
        return Opened(None, manifest, _child(manifest, path, settings))
    estimator = load_model(path, trusted_types=told.trusted_types, allow_pickle=told.allow_pickle)
    schema = input_schema(estimator, frame, settings)
    manifest = Manifest.of(path, schema, told)
    return Opened(estimator, manifest, Predictor(estimator, schema, manifest.thresholds))


def open_version(
    manifest: Manifest, path: Path, settings: AppSettings
) -> AnyPredictor | ChildPredictor:
    """Load a registered version where it may be loaded: Python code in its own process."""
    if manifest.model_format == "python":
        return _child(manifest, path, settings)
    return load_predictor(manifest, path)


def _child(manifest: Manifest, path: Path, settings: AppSettings) -> ChildPredictor:
    told = settings.model
    return ChildPredictor(manifest, path, memory_mib=told.memory_mib, wall_s=60 + told.wall_limit_s)
