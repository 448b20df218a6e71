"""ONNX graphs that answer rows: ONNX Runtime, one thread, nothing sent anywhere.

A graph runs no code of its author's, so a server may run it in its own process.  That holds
only for graphs that were checked (:mod:`mlguard.models.onnx_graph`) when they were registered.

Rule 1: ONNX Runtime reports to its maker unless ``ORT_DISABLE_TELEMETRY`` is set before it is
imported.  :func:`runtime` is the only place that imports it.

Rule 2: graphs compute in float32, which carries some seven digits.  Scores of a classifier are
rounded to six decimals: a forest whose trees are split evenly says 0.5 and not 0.49999997, and
thresholds mean what they say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlguard.errors import ModelFileError, ModelRunError
from mlguard.models.inline import NUMERIC
from mlguard.models.predictions import as_labels
from mlguard.models.schema import InputSchema

#: Key of a graph's metadata under which compiling leaves notes for loading.
NOTES = "mlguard"
#: Decimals of a classifier's scores.
DECIMALS = 6

_DTYPES: dict[str, Any] = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(string)": np.object_,
}
_SCORES = ("tensor(double)", "tensor(float)", "tensor(float16)")


def runtime() -> Any:
    """Import ONNX Runtime with its reporting off."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


class OnnxModel:
    """A graph behind :class:`mlguard.models.inline.Backend`.

    Parameters
    ----------
    content : bytes
        The graph, as a file holds it.
    schema : InputSchema
        What the version takes and gives.
    where : str
        What the file is called in errors.

    Raises
    ------
    ModelFileError
        If ONNX Runtime does not take it, or its inputs are not the schema's.
    """

    def __init__(self, content: bytes, schema: InputSchema, *, where: str = "the graph") -> None:
        self._session = session_of(content, where)
        self._classes = None if schema.task == "regression" else as_labels(schema.classes or ())
        notes = json.loads(self._session.get_modelmeta().custom_metadata_map.get(NOTES, "{}"))
        self._squash = bool(notes.get("distance", False))
        self._refuses_missing = tuple(int(one) for one in notes.get("refuses_missing", ()))
        self._inputs = self._session.get_inputs()
        self._dtypes = [_dtype(one.type, one.name, where) for one in self._inputs]
        numbers = all(one.kind in NUMERIC for one in schema.features)
        self._by_column = not (len(self._inputs) == 1 and numbers)
        if self._by_column and len(self._inputs) != len(schema.features):
            raise ModelFileError(
                f"{where} has the inputs {', '.join(one.name for one in self._inputs)}, and the "
                f"version takes {', '.join(schema.names)}",
                hint="a graph takes one array of numbers, or one input for each feature, by name",
            )
        outputs = self._session.get_outputs()
        scores = [one for one in outputs if one.type in _SCORES]
        maps = [one for one in outputs if one.type.startswith("seq(map(")]
        #: The output that is asked for, and what it holds.
        self._output, self._holds = (
            (scores[-1].name, "scores")
            if scores
            else (maps[-1].name, "maps")
            if maps
            else (outputs[0].name, "labels")
        )
        if self._classes is None and self._holds != "scores":
            raise ModelFileError(
                f"{where} gives no number that could be a regression's answer",
                hint="its output must be a tensor of float or double",
            )

    @property
    def by_column(self) -> bool:
        """Whether the graph has one input for each feature."""
        return self._by_column

    @property
    def refuses_missing(self) -> tuple[int, ...]:
        """Places of features without which the original has no answer."""
        return self._refuses_missing

    def run(self, rows: Any) -> tuple[npt.NDArray[Any] | None, npt.NDArray[np.float64] | None]:
        """Return labels (or None) and scores (or None)."""
        if self._by_column:
            feed = {
                one.name: column.astype(dtype, copy=False).reshape(-1, 1)
                for one, dtype, column in zip(self._inputs, self._dtypes, rows, strict=True)
            }
        else:
            feed = {self._inputs[0].name: rows.astype(self._dtypes[0])}
        (found,) = self._session.run([self._output], feed)
        if self._holds == "maps":
            found = self._from_maps(found)
        elif self._holds == "labels":
            labels = np.asarray(found).reshape(-1)
            return (labels.astype(object) if labels.dtype.kind in "US" else labels), None
        return None, self._scores(np.asarray(found))

    def _scores(self, found: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the scores as :class:`Predictions` holds them."""
        values = found.astype(np.float64)
        if self._classes is None:
            return _column(values, "one number for each row")
        if values.ndim == 2 and values.shape[1] == len(self._classes) != 1:
            scores = values[:, 1] if len(self._classes) == 2 else values
        else:
            scores = _column(values, f"{len(self._classes)} scores for each row")
            if len(self._classes) != 2:  # one score tells two classes apart
                raise ModelRunError(
                    f"the graph gave one score for each row, expected {len(self._classes)}",
                    hint="a graph gives one score for each class of [data] target",
                )
        if self._squash:
            with np.errstate(invalid="ignore"):
                squashed = 0.5 * (1 + np.tanh(scores / 2))
            scores = np.where(np.isfinite(scores), squashed, np.nan)
        rounded: npt.NDArray[np.float64] = np.round(scores, DECIMALS)
        return rounded

    def _from_maps(self, maps: list[Mapping[Any, float]]) -> npt.NDArray[np.float64]:
        assert self._classes is not None
        return np.asarray([[one[name] for name in self._classes.tolist()] for one in maps])


def session_of(content: bytes, where: str) -> Any:
    """Return an inference session: one thread, quiet.

    Raises
    ------
    ModelFileError
        If ONNX Runtime does not take the graph.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Batches come in every size: plans and arenas for each would be kept for ever.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime raises classes of its own, without a common base.
    except Exception as error:
        why = str(error).strip().partition("\n")[0]
        raise ModelFileError(
            f"ONNX Runtime does not take {where}: {why}",
            hint="export it again with an opset that onnxruntime knows",
        ) from error


def load_onnx(path: Path | str, schema: InputSchema) -> OnnxModel:
    """Read a graph that was checked before.

    Raises
    ------
    ModelFileError
        If it cannot be read, or is not for this schema.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"the model file {path} cannot be read: {error}") from error
    return OnnxModel(content, schema, where=path.name)


def _dtype(text: str, name: str, where: str) -> Any:
    if text not in _DTYPES:
        raise ModelFileError(
            f"{where} takes {text} as {name}, which no row can hold",
            hint=f"inputs may be {', '.join(sorted(_DTYPES))}",
        )
    return _DTYPES[text]


def _column(values: npt.NDArray[np.float64], expected: str) -> npt.NDArray[np.float64]:
    if values.ndim == 1:
        return values
    if values.ndim == 2 and values.shape[1] == 1:  # a table
        return values[:, 0]
    raise ModelRunError(
        f"the graph gave shape {values.shape}, expected {expected}",
        hint="hold the graph's outputs against [app] task and the values of [data] target",
    )
