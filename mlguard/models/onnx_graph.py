"""What an ONNX file may hold: checked once, in a child process, before anything runs it.

A graph is a protobuf message.  It cannot run Python, but it can name files beside itself
(external data), operators that only a shared library has (custom domains), and loops.  The
first two are refused.  Graphs with loops are served in a process of their own, because only
there something ends them.

Nothing here runs the graph.  What it costs to run is found out next, by asking it the first
test rows under the child's limits on memory and time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlguard.errors import ModelFileError, UntrustedModelError

#: A protobuf message cannot be larger.
MAX_MIB = 2047
#: Domains whose operators ONNX Runtime has built in.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_LOOPS = frozenset({"Loop", "Scan"})
#: Attributes in which classifiers keep their labels.
_LABELS = ("classlabels_int64s", "classlabels_ints", "classlabels_strings", "cats_int64s")


@dataclass(frozen=True, eq=False)
class GraphFacts:
    """What a graph says of itself, under the names that scikit-learn uses.

    Attributes
    ----------
    feature_names_in_ : ndarray of str or None
        Names of the inputs, where there is one for each feature.
    n_features_in_ : int or None
        Number of features, where it is fixed.
    classes_ : ndarray or None
        Labels, where an operator of the graph names them.
    loops : bool
        Whether it may run for as long as it likes.
    """

    feature_names_in_: np.ndarray | None = None
    n_features_in_: int | None = None
    classes_: np.ndarray | None = field(default=None)
    loops: bool = False


def read_graph(path: Path | str) -> GraphFacts:
    """Check an ONNX file, and say what it takes and gives.

    Raises
    ------
    ModelFileError
        If it is damaged, too large, or no graph.
    UntrustedModelError
        If it names files beside itself, or operators that ONNX Runtime does not have.
    """
    path = Path(path)
    size = path.stat().st_size / 2**20
    if size > MAX_MIB:
        raise ModelFileError(
            f"{path} is {size:,.0f} MiB, and at most {MAX_MIB:,} is read",
            hint="a graph must hold its weights, and a protobuf message has that limit",
        )
    model = _parsed(path)
    nodes = [one for graph in _graphs(model) for one in graph.node]
    nodes += [one for function in model.functions for one in function.node]
    _refuse_external(path, model, nodes)
    _refuse_custom(path, model, nodes)
    _check(path, model)
    weights = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    if not inputs or not model.graph.output:
        raise _no_graph(path, "it has no inputs or no outputs")
    return GraphFacts(
        *_features(path, inputs),
        classes_=_labels(nodes),
        loops=any(one.op_type in _LOOPS for one in nodes),
    )


def _parsed(path: Path) -> Any:
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False)
    # protobuf's DecodeError, and what else a damaged file makes it raise.
    except Exception as error:
        raise _no_graph(path, f"reading it failed ({_first_line(error)})") from error


def _check(path: Path, model: Any) -> None:
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise _no_graph(path, f"it is not valid ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _graphs(model: Any) -> Iterator[Any]:
    """Yield the graph and every graph inside one of its nodes."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def _refuse_external(path: Path, model: Any, nodes: list[Any]) -> None:
    tensors = [one for graph in _graphs(model) for one in graph.initializer]
    for graph in _graphs(model):
        for sparse in graph.sparse_initializer:
            tensors += [sparse.values, sparse.indices]
    for node in nodes:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
    if any(one.data_location == one.EXTERNAL or one.external_data for one in tensors):
        raise _external(path)


def _external(path: Path) -> UntrustedModelError:
    return UntrustedModelError(
        f"{path} keeps weights in other files (external data), which are not read",
        hint="write it as one file: onnx.save(onnx.load(path), path, save_as_external_data=False)",
    )


def _refuse_custom(path: Path, model: Any, nodes: list[Any]) -> None:
    own = {(one.domain, one.name) for one in model.functions}
    strange = sorted(
        {
            f"{one.domain}.{one.op_type}"
            for one in nodes
            if one.domain not in _DOMAINS and (one.domain, one.op_type) not in own
        }
    )
    if strange:
        raise UntrustedModelError(
            f"{path} needs operators that only a library of their own has: {', '.join(strange)}",
            hint="export it with the standard operators; shared libraries are not loaded",
            operators=strange,
        )


def _features(path: Path, inputs: list[Any]) -> tuple[np.ndarray | None, int | None]:
    """Return names and number of the features."""
    widths = [_width(path, one) for one in inputs]
    if len(inputs) == 1 and widths[0] != 1:
        return None, widths[0]
    if any(width not in (1, None) for width in widths):
        raise _no_graph(
            path, "of several inputs each must be one column, of shape (n, 1), and one is wider"
        )
    if len(inputs) == 1:
        # The name of a lone column ("X", "input") is rarely that of a column of the data.
        return None, 1
    return np.asarray([one.name for one in inputs], dtype=object), len(inputs)


def _width(path: Path, value: Any) -> int | None:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise _no_graph(path, f"its input {value.name} is no tensor")
    dims = kind.shape.dim
    if kind.HasField("shape") and len(dims) not in (1, 2):
        raise _no_graph(
            path, f"its input {value.name} has {len(dims)} dimensions, and rows are (n, features)"
        )
    if len(dims) == 2 and dims[1].HasField("dim_value"):  # rows and features
        return int(dims[1].dim_value)
    return None


def _labels(nodes: list[Any]) -> np.ndarray | None:
    for node in nodes:
        if not node.op_type.endswith(("Classifier", "ZipMap")):
            continue
        for attribute in node.attribute:
            if attribute.name in _LABELS:
                values = [*attribute.ints, *(one.decode() for one in attribute.strings)]
                if values:
                    return np.asarray(values)
    return None


def _no_graph(path: Path, why: str) -> ModelFileError:
    return ModelFileError(
        f"{path} holds no usable ONNX graph: {why}",
        hint="a graph takes one array of numbers, or one input for each feature, and gives scores",
    )
