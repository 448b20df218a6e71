"""What a caller gets for what a model said of a row: its label, its score, how sure it is.

The model's process never hears of a group.  Where a version has thresholds per group, its answer
is taken anew from the score here, for callers whose key is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlguard.models.thresholds import GroupThresholds
from mlguard.models.uncertainty import Uncertainty
from mlguard.serving.answers import Answer, as_output

if TYPE_CHECKING:
    from mlguard.models.schema import InputSchema
    from mlguard.serving.admission import Waiting
    from mlguard.serving.inputs import PredictRequest


class Given:
    """The words of one version.

    Parameters
    ----------
    manifest : dict
        The version's, as JSON.
    schema : InputSchema
        What it takes and gives.
    """

    def __init__(self, manifest: dict[str, Any], schema: InputSchema) -> None:
        self.thresholds = GroupThresholds.of(manifest.get("thresholds", {}))
        self.uncertainty = Uncertainty.of(manifest)
        #: Whether an answer depends on nothing but what the model said of its row.
        self.plain = self.thresholds is None and self.uncertainty is None
        #: Whether the app lets a caller's word on groups decide.
        self.by_group = False
        self._schema = schema

    def threshold_for(self, request: PredictRequest, caller: str | None) -> float | None:
        """Return the threshold of a request's group; None where the default one holds."""
        if self.thresholds is None or caller is None or not self.by_group:
            return None
        return self.thresholds.of_group(request.groups)

    def answer(self, waiting: Waiting, label: Any, score: float | None) -> Answer:
        """Return what a request gets for what the model said."""
        if waiting.threshold is not None and score is not None:
            assert self._schema.classes is not None
            label = self._schema.classes[score >= waiting.threshold]
        if self.uncertainty is None:
            return Answer(as_output(label), None, score)
        said = self.uncertainty.said(label, score)
        if said is not None and "set" in said:
            said["set"] = [as_output(one) for one in said["set"]]
        single = None if self.uncertainty.needs_all_scores else score
        return Answer(as_output(label), None, single, said)
