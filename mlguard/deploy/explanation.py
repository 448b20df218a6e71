"""What is known of one prediction, as ``mlguard explain`` says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlguard.data.labels import Label
from mlguard.wording import rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What the prediction log holds of one prediction.

    Attributes
    ----------
    at : float
        When it was answered, seconds since the epoch.
    output : Any
        What the caller got, a JSON value.
    score : float or None
        Score of the positive class, or a regression's value; None where the model has none.
    default : bool
        Whether it was the default output.
    why_default : str or None
        Why.
    uid : str or None
        Whom it was about, as the caller said.
    groups : dict
        As the caller said.
    latency_ms : float or None
        How long the caller waited.
    row : dict
        The inputs that may be shown, by feature.
    hidden : tuple of str
        Features that are redacted, or were not logged.
    """

    at: float
    output: Any
    score: float | None
    default: bool
    why_default: str | None
    uid: str | None
    groups: dict[str, str]
    latency_ms: float | None
    row: dict[str, Any]
    hidden: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherAnswer:
    """What a version answers to the same row today.

    Attributes
    ----------
    version : str
        Its name.
    role : str
        ``"answered"`` for the one that answered then, else ``"active"``, ``"candidate"`` or
        ``"earlier"``.
    output : Any
        Its answer; None where it gave none.
    score : float or None
        The score of it.
    problem : str
        Why there is no answer; empty where there is one.
    """

    version: str
    role: str
    output: Any = None
    score: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One prediction.

    Attributes
    ----------
    app : str
        Whose.
    query_id : int
        Its id.
    version, state, digest : str or None
        Who was asked; None: nobody, the app had no version or was blocked.
    generation : int
        Of the app when it was admitted.
    logged : Logged or None
        What the log holds; None: nothing.
    unusual : tuple of (str, str)
        Columns whose value is unlike the version's reference data, and why.
    label : Label or None
        What was true; None: nobody has said yet.
    others : tuple of OtherAnswer
        What versions answer to the row today, the one that answered then first.
    not_asked : str
        Why nobody was asked; empty where somebody was.
    now : float
        When this was found out.
    """

    app: str
    query_id: int
    version: str | None
    state: str | None
    digest: str | None
    generation: int
    logged: Logged | None
    unusual: tuple[tuple[str, str], ...] = ()
    label: Label | None = None
    others: tuple[OtherAnswer, ...] = ()
    not_asked: str = ""
    now: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        logged = self.logged
        return {
            "schema_version": "1.0",
            "command": "explain",
            "ok": True,
            "changed": False,
            "exit_code": 0,
            "app": self.app,
            "query_id": self.query_id,
            "version": self.version,
            "state": self.state,
            "digest": self.digest,
            "generation": self.generation,
            "logged": None
            if logged is None
            else {
                "at": rfc3339(logged.at),
                "output": logged.output,
                "score": logged.score,
                "default": logged.default,
                "default_explanation": logged.why_default,
                "uid": logged.uid,
                "groups": logged.groups,
                "latency_ms": logged.latency_ms,
                "row": logged.row,
                "hidden": list(logged.hidden),
            },
            "unusual": [{"column": column, "why": why} for column, why in self.unusual],
            "label": None
            if self.label is None
            else {
                "value": self.label.value,
                "source": self.label.source,
                "at": rfc3339(self.label.at),
            },
            "others": [
                {
                    "version": one.version,
                    "role": one.role,
                    "output": one.output,
                    "score": one.score,
                    "problem": one.problem or None,
                }
                for one in self.others
            ],
            "not_asked": self.not_asked or None,
        }
