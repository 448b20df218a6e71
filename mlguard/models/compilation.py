"""A scikit-learn model as something faster that gives the same answers, or not at all.

Three things are tried in order: the arithmetic of a known linear model in float64
(:mod:`mlguard.models.linear`), an ONNX graph in float32, an ONNX graph in float64.  Nothing is
believed of any of them.  Each answers all test rows beside the original
(:mod:`mlguard.models.comparing`), and serves only if

- both can answer the same rows,
- the labels agree by every threshold of the version,
- no score differs by more than ``compile_tolerance``; for a regression, by more than that
  share of the standard deviation of the original's answers.

This runs in a child process: the original is somebody's file.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mlguard.errors import MlguardError
from mlguard.models.bundle import Manifest, Runtime
from mlguard.models.comparing import Comparison, Judge
from mlguard.models.converting import distance_only, final_step, to_onnx
from mlguard.models.formats import Format
from mlguard.models.inline import Backend
from mlguard.models.linear import reduce_linear
from mlguard.models.onnx_model import OnnxModel
from mlguard.models.predictor import Predictor

if TYPE_CHECKING:
    import pandas as pd

    from mlguard.config import ModelTable
    from mlguard.models.isolation import ChildPredictor
    from mlguard.models.predictor import AnyPredictor

#: What is said of a file that is a graph already.
GRAPH = "served as the ONNX graph that it is"
#: Scores that differ by no more than this differ by rounding, and nobody need be told.
ROUNDING = 1e-12
#: Why some models are not tried, by the beginning of their class's name.
_SLOWER = ("KNeighbors", "RadiusNeighbors", "GaussianProcess")


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """What became of compiling a model.

    Attributes
    ----------
    runtime : {"original", "linear", "onnx"}
        What serves.
    asked : str
        ``[model] runtime``.
    tolerance : float
        ``[model] compile_tolerance``.
    reason : str
        Why the original serves; empty where it does not.
    comparison : Comparison or None
        Of what serves, or of what came closest; None where nothing was compared.
    data_sha256 : str
        SHA-256 of the test data.
    content : bytes
        The compiled model; empty where the original serves.
    """

    runtime: Runtime
    asked: str
    tolerance: float
    reason: str = ""
    comparison: Comparison | None = None
    data_sha256: str = ""
    content: bytes = b""

    def summary(self) -> str:
        """Say in one sentence what serves, and on what grounds."""
        if self.reason == GRAPH:
            return GRAPH
        if self.runtime == "original":
            return f"the original serves, in a process of its own: {self.reason}"
        assert self.comparison is not None
        how = {"linear": "the same arithmetic in float64", "onnx": "ONNX"}[self.runtime]
        found = self.comparison
        tied = f", {found.n_tied:,} too close to call" if found.n_tied else ""
        apart = f", scores differ by at most {found.largest:.1g}"
        return (
            f"served as {how}: all {found.n_rows:,} test rows are answered alike{tied}"
            f"{apart if found.largest > ROUNDING else ''}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without the bytes."""
        document = dataclasses.asdict(self)
        del document["content"]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild it from :meth:`to_json`; unknown keys are those of a newer mlguard."""
        names = {one.name for one in dataclasses.fields(cls)} - {"comparison"}
        known = {key: value for key, value in document.items() if key in names}
        found = document.get("comparison")
        return cls(**known, comparison=None if found is None else Comparison(**found))


def compile_for(
    predictor: AnyPredictor | ChildPredictor,
    manifest: Manifest,
    frame: pd.DataFrame,
    told: ModelTable,
) -> Compilation:
    """Return what will serve a candidate: what its model is compiled to, or the file as it is.

    Parameters
    ----------
    predictor : Predictor, InlinePredictor or ChildPredictor
        The model as it was registered.
    manifest : Manifest
        The version that it would be.
    frame : pandas.DataFrame
        All test rows.
    told : ModelTable
        ``[model]`` of app.toml.
    """
    if isinstance(predictor, Predictor):
        return compile_model(
            predictor,
            frame,
            asked=told.runtime,
            tolerance=told.compile_tolerance,
            thresholds=manifest.thresholds,
        )
    return as_it_is(manifest.model_format, asked=told.runtime, tolerance=told.compile_tolerance)


def as_it_is(model_format: Format, *, asked: str, tolerance: float) -> Compilation:
    """Return the compilation of a file that there is nothing to compile in.

    Parameters
    ----------
    model_format : str
        ``"onnx"`` or ``"python"``.
    asked : str
        ``[model] runtime``.
    tolerance : float
        ``[model] compile_tolerance``.
    """
    reason = GRAPH if model_format == "onnx" else "it is Python code"
    return Compilation(runtime="original", asked=asked, tolerance=tolerance, reason=reason)


def compile_model(
    original: Predictor,
    frame: pd.DataFrame,
    *,
    asked: str,
    tolerance: float,
    thresholds: Mapping[str, float],
) -> Compilation:
    """Compile a model if that changes no answer.

    Parameters
    ----------
    original : Predictor
        The model as it was registered.
    frame : pandas.DataFrame
        All test rows.
    asked : {"auto", "original", "onnx"}
        ``[model] runtime``; ``"onnx"`` tries graphs only.
    tolerance : float
        Largest difference of scores, see the module's text.
    thresholds : mapping of str to float
        All of the version's.

    Returns
    -------
    Compilation
        Whatever the converter or the graph raises is its ``reason``.
    """
    plain = Compilation(runtime="original", asked=asked, tolerance=tolerance)
    if asked == "original":
        return dataclasses.replace(plain, reason='app.toml says runtime = "original"')
    judge = Judge(original, frame, tolerance, thresholds)
    best = dataclasses.replace(plain, reason="")
    for attempt in _attempts(original, linear=asked == "auto"):
        try:
            runtime, content, backend = attempt.build(judge)
            found = judge.compare(backend)
        # Converter, protobuf and ONNX Runtime raise anything; then the original serves.
        except Exception as error:  # noqa: BLE001
            best = _closer(best, dataclasses.replace(plain, reason=attempt.failed(error)))
            continue
        if found.equal:
            return Compilation(
                runtime=runtime,
                asked=asked,
                tolerance=tolerance,
                comparison=found,
                content=content,
            )
        why = f"as {attempt.name} it answers differently: {found.difference(tolerance)}"
        best = _closer(best, dataclasses.replace(plain, reason=why, comparison=found))
    if not best.reason:
        best = dataclasses.replace(plain, reason=_not_tried(original))
    return best


def _closer(one: Compilation, other: Compilation) -> Compilation:
    """Keep the failure that says most: a measured difference, the smallest, before an error."""
    if one.comparison is None:
        return other if other.comparison is not None or not one.reason else one
    if other.comparison is None:
        return one
    return min(one, other, key=lambda it: it.comparison.largest if it.comparison else np.inf)


def _not_tried(original: Predictor) -> str:
    name = type(final_step(original.estimator)).__name__
    if name.startswith(_SLOWER):
        return f"{name} is faster as it is"
    if original.input_schema.input == "bytes":
        return "bytes have no counterpart in a graph"
    return f"{name} is none of scikit-learn's models"


# --- what is tried -------------------------------------------------------------------------


class _Attempt(abc.ABC):
    """One way to compile a model."""

    name = ""

    @abc.abstractmethod
    def build(self, judge: Judge) -> tuple[Runtime, bytes, Backend]:
        """Make the bytes, and what answers from them."""

    def failed(self, error: Exception) -> str:
        said = error.message if isinstance(error, MlguardError) else str(error)
        why = said.strip().partition("\n")[0][:200] or type(error).__name__
        return f"it cannot be converted to {self.name} ({why})"


class _Linear(_Attempt):
    name = "linear arithmetic"

    def __init__(self, content: bytes, backend: Backend) -> None:
        self._made = content, backend

    def build(self, judge: Judge) -> tuple[Runtime, bytes, Backend]:  # noqa: ARG002 - built already
        return "linear", *self._made


class _Onnx(_Attempt):
    def __init__(self, *, double: bool) -> None:
        self.double = double
        self.name = "ONNX in float64" if double else "ONNX"

    def build(self, judge: Judge) -> tuple[Runtime, bytes, Backend]:
        notes: dict[str, Any] = {"refuses_missing": judge.refuses_missing()}
        if judge.original.classes is not None and distance_only(judge.original.estimator):
            notes["distance"] = True
        content = to_onnx(judge.original, notes, double=self.double)
        return "onnx", content, OnnxModel(content, judge.schema)


def _attempts(original: Predictor, *, linear: bool) -> Iterator[_Attempt]:
    if linear:
        reduced = reduce_linear(original.estimator, original.input_schema)
        if reduced is not None:
            yield _Linear(reduced.to_bytes(), reduced)
    final = final_step(original.estimator)
    known = type(final).__module__.startswith("sklearn.")
    slower = type(final).__name__.startswith(_SLOWER)
    if known and not slower and original.input_schema.input != "bytes":
        yield _Onnx(double=False)
        yield _Onnx(double=True)
