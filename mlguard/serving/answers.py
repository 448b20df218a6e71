"""What a model said → JSON, and why an answer is the default one.

A default answer always says why.  The words for callers name what happened, never an
exception's text: that may hold data or paths, and goes to the server's own log.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

#: Clipper's own words.
SLO_MISSED = "Failed to retrieve a prediction response within the specified latency SLO"
NO_VERSION = "No connected models found for query"
BLOCKED = "The app answers with its default output until it is unblocked"
UNUSUAL_ROW = "The row is unlike the data that the version was accepted on"
MODEL_DIED = "The model's process died while it worked on this query"
MODEL_STOPPED = "The model was stopped at its wall limit"
MODEL_OUT_OF_TIME = "The model was stopped at its limit of processor time"
MODEL_SILENT = "The model's process gave no sign of life"
MODEL_OUT_OF_MEMORY = "The model was stopped at its memory limit"
MODEL_RAISED = "The model raised an error"
MODEL_NOT_FINITE = "The model answered with a value that is not finite"
MODEL_NONSENSE = "The model answered with something that is no prediction"

#: Ends of a model's process that are its own doing.  Silence is not among them: a machine that
#: is too busy makes every process silent, and one that hangs on rows meets its wall limit.
CRASHES = frozenset({MODEL_DIED, MODEL_STOPPED, MODEL_OUT_OF_TIME, MODEL_OUT_OF_MEMORY})

_ENCODER = msgspec.json.Encoder()


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What one row gets.

    Attributes
    ----------
    output : Any
        JSON value.
    explanation : str or None
        Why it is the default output; None where the model answered.
    score : float or None
        Score of the positive class, or a regression's value.
    uncertainty : dict or None
        Set of classes or interval of values, and how often it holds the truth; None where the
        version does not offer it.
    """

    output: Any
    explanation: str | None = None
    score: float | None = None
    uncertainty: dict[str, Any] | None = None

    def to_json(self, query_id: int) -> dict[str, Any]:
        """Return the answer in Clipper's form."""
        document: dict[str, Any] = {
            "query_id": query_id,
            "output": self.output,
            "default": self.explanation is not None,
        }
        if self.explanation is not None:
            document["default_explanation"] = self.explanation
        if self.uncertainty is not None:
            document["uncertainty"] = self.uncertainty
        return document

    def encoded(self, query_id: int) -> bytes:
        """Return :meth:`to_json` as JSON text."""
        if self.explanation is None and self.uncertainty is None:
            output = _ENCODER.encode(self.output)
            return b'{"query_id":%d,"output":%b,"default":false}' % (query_id, output)
        return _ENCODER.encode(self.to_json(query_id))


def as_output(label: Any) -> Any:
    """Return a label as it is answered: the JSON value that a string spells, or the string."""
    return _parsed(label) if isinstance(label, str) else label


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text
