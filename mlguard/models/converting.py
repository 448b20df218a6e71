"""scikit-learn models as ONNX graphs, by skl2onnx.

Graphs compute in float32 unless they are told otherwise, scikit-learn in float64; its trees
look at float32 values whatever they are given.  A graph in float64 therefore rounds before a
tree, as the original does.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np

from mlguard.models.inline import NUMERIC
from mlguard.models.onnx_model import NOTES
from mlguard.models.predictor import Predictor
from mlguard.models.schema import InputSchema

#: Models that look at float32 values whatever they are given.  What comes before them is done
#: in float64, so that both halves are done as the original does them.
_TREES = ("DecisionTree", "ExtraTree", "GradientBoosting", "RandomForest")


def to_onnx(original: Predictor, notes: Mapping[str, Any], *, double: bool = False) -> bytes:
    """Convert a model with skl2onnx; the same model gives the same graph.

    Parameters
    ----------
    original : Predictor
        A scikit-learn model and its schema.
    notes : mapping
        What loading has to know, kept in the graph's metadata.
    double : bool, default False
        Whether the graph takes float64.
    """
    from skl2onnx import convert_sklearn

    estimator, final = _convertible(original.estimator, double=double)
    choices: list[dict[str, Any]] = [{}]
    if original.classes is not None:
        choices = [{"zipmap": False}, {}]
        if distance_only(estimator):
            choices = [{"zipmap": False, "raw_scores": True}, {"raw_scores": True}]
    for place, options in enumerate(choices):
        try:
            # The converter prints and warns about what the comparison will find out.
            with (
                warnings.catch_warnings(),
                redirect_stdout(io.StringIO()),
                redirect_stderr(io.StringIO()),
            ):
                warnings.simplefilter("ignore")
                model = convert_sklearn(
                    estimator,
                    name="model",
                    initial_types=_types(original, double=double),
                    options={id(final): options} if options else None,
                )
            break
        except NameError:  # this model has no such option
            if place == len(choices) - 1:
                raise
    entry = model.metadata_props.add()
    entry.key, entry.value = NOTES, json.dumps(dict(notes), sort_keys=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _convertible(estimator: Any, *, double: bool) -> tuple[Any, Any]:
    """Return a model as the converter takes it, and its last step."""
    found = _searched(estimator)
    final = final_step(found)
    if type(final).__name__ == "VotingClassifier" and final.flatten_transform:
        from sklearn.base import clone

        # It says how transform() lays out its answer, which nobody asks for here.
        other = clone(final, safe=False)
        vars(other).update(vars(final), flatten_transform=False)
        found, final = _with_final(found, other), other
    if double and type(final).__name__.startswith(_TREES):
        from skl2onnx.sklapi import CastTransformer
        from sklearn.pipeline import make_pipeline

        found = _with_final(found, make_pipeline(CastTransformer(dtype=np.float32), final))
    return found, final


def _with_final(estimator: Any, final: Any) -> Any:
    """Return the model with another last step."""
    from sklearn.pipeline import make_pipeline

    if type(estimator).__name__ != "Pipeline":
        return final
    before = [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
    last = _searched(estimator.steps[-1][1])
    return make_pipeline(*before, _with_final(last, final))


def _types(original: Predictor, *, double: bool) -> list[tuple[str, Any]]:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    schema: InputSchema = original.input_schema
    numbers = DoubleTensorType if double else FloatTensorType
    if _all_numbers(original) and not original.selects_by_name:
        return [("X", numbers([None, len(schema.features)]))]
    return [
        (one.name, (numbers if one.kind in NUMERIC else StringTensorType)([None, 1]))
        for one in schema.features
    ]


def _all_numbers(original: Predictor) -> bool:
    return all(one.kind in NUMERIC for one in original.input_schema.features)


def _searched(estimator: Any) -> Any:
    """Return what a search over settings found best, or the model itself."""
    return getattr(estimator, "best_estimator_", estimator)


def final_step(estimator: Any) -> Any:
    """Return the last step of a pipeline, or the model itself."""
    found = _searched(estimator)
    while type(found).__name__ == "Pipeline" and hasattr(found, "steps"):
        found = _searched(found.steps[-1][1])
    return found


def distance_only(estimator: Any) -> bool:
    """Tell whether a classifier has a decision function and no probabilities."""
    return not hasattr(estimator, "predict_proba") and hasattr(estimator, "decision_function")
