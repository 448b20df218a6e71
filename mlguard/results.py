"""The words for what was found: verdicts, measurements, results and gate decisions.

Everything here is frozen plain data with a JSON round trip, and knows nothing of HTML,
pandas, databases or clocks.  A *verdict* is a fact; *enforcement* is a policy; the two are
never folded into one another.
"""

from __future__ import annotations

import dataclasses
import enum
import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from mlguard.wording import SMALL_GROUP, TOO_FEW_TO_SHOW, estimate


@enum.unique
class Verdict(enum.StrEnum):
    """What a judgement found, from best to worst."""

    PASSED = "passed"
    SKIPPED = "skipped"
    WARNED = "warned"
    INCONCLUSIVE = "inconclusive"
    ERRORED = "errored"
    FAILED = "failed"

    @property
    def severity(self) -> int:
        """Place in the order best to worst, 0 for PASSED."""
        return tuple(Verdict).index(self)

    @property
    def mark(self) -> str:
        """Shape that stands beside the word, so that colour is never alone."""
        return {
            Verdict.PASSED: "✓",
            Verdict.SKIPPED: "–",
            Verdict.WARNED: "!",
            Verdict.INCONCLUSIVE: "?",
            Verdict.ERRORED: "✗",
            Verdict.FAILED: "✗",
        }[self]

    @property
    def word(self) -> str:
        """The verdict as people read it."""
        return "undecided" if self is Verdict.INCONCLUSIVE else self.value


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of some verdicts.

    Parameters
    ----------
    verdicts : iterable of Verdict
        At least one: nothing passes vacuously.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If there are none.
    """
    found = list(verdicts)
    if not found:
        raise ValueError("no verdicts: nothing passes vacuously")
    return max(found, key=lambda verdict: verdict.severity)


@enum.unique
class Enforcement(enum.StrEnum):
    """What a policy makes of a bad verdict."""

    BLOCK = "block"
    WARN = "warn"
    DRY_RUN = "dry_run"


def finite_or_none(value: float | None) -> float | None:
    """Return ``value``, or None where it is NaN or infinite: strict JSON has neither."""
    return value if value is not None and math.isfinite(value) else None


def strict(value: Any) -> Any:
    """Return JSON values without NaN and infinity, which become None, at any depth."""
    if isinstance(value, float):
        return finite_or_none(value)
    if isinstance(value, dict):
        return {key: strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [strict(one) for one in value]
    return value


def _number(value: float | None, key: str, target: dict[str, Any]) -> None:
    target[key] = finite_or_none(value)
    if value is not None and not math.isfinite(value):
        target["nonfinite"] = "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _known(cls: type, document: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the keys this version knows: a minor version only adds keys."""
    names = {spec.name for spec in dataclasses.fields(cls)}
    return {key: value for key, value in document.items() if key in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number with its uncertainty.

    Of a group of fewer than :data:`mlguard.wording.SMALL_GROUP` rows only the name is kept, from
    the moment it is measured: what nobody holds cannot be shown by any report, mail or page.

    Attributes
    ----------
    name : str
        What was measured, e.g. ``"false_negative_rate"``.
    value : float or None
        The estimate; None where it is undefined (0/0).
    n : int or None
        Rows in the denominator of the estimate.
    low, high : float or None
        Interval at the confidence level of the result it belongs to.
    group : str
        Whom it is about, e.g. ``"sex=F"``; empty for everybody.
    unit : str
        Unit of the value; empty for a ratio in [0, 1].
    suppressed : str
        Why there are no figures, e.g. ``"fewer than 10 rows"``; empty where there are.
    """

    name: str
    value: float | None
    n: int | None = None
    low: float | None = None
    high: float | None = None
    group: str = ""
    unit: str = ""
    suppressed: str = ""

    def __post_init__(self) -> None:
        """Forget the figures of a small group."""
        if self.group and self.n is not None and self.n < SMALL_GROUP:
            object.__setattr__(self, "suppressed", TOO_FEW_TO_SHOW)
        if self.suppressed:
            for name in ("value", "n", "low", "high"):
                object.__setattr__(self, name, None)

    def shown(self) -> str:
        """Return the figures for people: estimate, interval and n, or why there are none."""
        if self.suppressed:
            return self.suppressed
        return estimate(self.value, (self.low, self.high), self.n, unit=self.unit)

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as strict JSON values."""
        document: dict[str, Any] = {"name": self.name, "n": self.n}
        _number(self.value, "value", document)
        document |= {"low": finite_or_none(self.low), "high": finite_or_none(self.high)}
        document |= {"group": self.group, "unit": self.unit}
        return document | ({"suppressed": self.suppressed} if self.suppressed else {})

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild a measurement from :meth:`to_json`."""
        return cls(**_known(cls, document))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check and a monitor have in common: one judged number.

    Attributes
    ----------
    id : str
        Stable ``family.name``, e.g. ``"fairness.false_positive_rate_difference"``.
    verdict : Verdict
        The fact.
    summary : str
        One sentence for people: numbers with interval and n, and the limit.
    subject : str
        The column, attribute or group judged, e.g. ``"sex"``; empty for the whole.
    value, limit : float or None
        The decisive estimate and the limit it was held against.
    interval : tuple of float or None
        Bounds of ``value``, at the check's confidence level.
    n, n_min : int or None
        Rows behind ``value`` and the least that could have decided.
    reason : str
        Code of why it is not PASSED, e.g. ``"few"``, ``"limit_exceeded"``, ``"not_proven"``.
    next_step : str
        What to do about it: a command or an instruction.
    measurements : tuple of Measurement
        The numbers behind ``value``, e.g. one per group.
    details : dict
        Anything more, JSON-compatible; never rows of data.
    """

    id: str
    verdict: Verdict
    summary: str
    subject: str = ""
    value: float | None = None
    limit: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None
    n_min: int | None = None
    reason: str = ""
    next_step: str = ""
    measurements: tuple[Measurement, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Identity for people: ``family.name[subject]``."""
        return f"{self.id}[{self.subject}]" if self.subject else self.id

    @property
    def family(self) -> str:
        """The part of the id before the first dot."""
        return self.id.partition(".")[0]

    def to_json(self) -> dict[str, Any]:
        """Return the finding as strict JSON values."""
        document: dict[str, Any] = {
            spec.name: _plain(getattr(self, spec.name)) for spec in dataclasses.fields(self)
        }
        document["measurements"] = [one.to_json() for one in self.measurements]
        document["interval"] = (
            None if self.interval is None else [finite_or_none(bound) for bound in self.interval]
        )
        document["limit"] = finite_or_none(self.limit)
        document["details"] = strict(self.details)
        _number(self.value, "value", document)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the finding from :meth:`to_json`."""
        known = _known(cls, document)
        known["verdict"] = Verdict(known["verdict"])
        known["measurements"] = tuple(
            Measurement.from_json(one) for one in known.get("measurements", ())
        )
        interval = known.get("interval")
        if interval is not None:
            low, high = (math.nan if bound is None else bound for bound in interval)
            known["interval"] = (low, high)
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult(Finding):
    """What one check found about a candidate before it is deployed.

    Attributes
    ----------
    enforcement : Enforcement
        What the policy in force makes of a bad verdict.
    on_inconclusive : Enforcement
        What the policy makes of INCONCLUSIVE: block (default) or warn.
    waived_by : str or None
        Owner of the waiver that lets this result through.
    duration_s : float
        Wall time that the judgement took.
    """

    enforcement: Enforcement = Enforcement.BLOCK
    on_inconclusive: Enforcement = Enforcement.BLOCK
    waived_by: str | None = None
    duration_s: float = 0.0

    @property
    def blocks(self) -> bool:
        """Whether this result closes the gate."""
        if self.enforcement is not Enforcement.BLOCK or self.waived_by is not None:
            return False
        if self.verdict is Verdict.INCONCLUSIVE:
            return self.on_inconclusive is Enforcement.BLOCK
        return self.verdict in (Verdict.FAILED, Verdict.ERRORED)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the result from :meth:`to_json`."""
        typed = dict(document)
        for key in ("enforcement", "on_inconclusive"):
            if key in typed:
                typed[key] = Enforcement(typed[key])
        # Zero-argument super() does not work in a slotted dataclass.
        return super(CheckResult, cls).from_json(typed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of live traffic of one version in one generation.

    Attributes
    ----------
    start, end : float
        Seconds since the epoch (UTC) of the first and the last row.
    n_rows, n_labels : int
        Predictions in it, and how many of them have a label.
    generation : int
        The generation that answered; a window never spans two.
    """

    start: float
    end: float
    n_rows: int
    n_labels: int
    generation: int

    def to_json(self) -> dict[str, Any]:
        """Return the window as JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorResult(Finding):
    """What one monitor found in one window of live traffic.

    Attributes
    ----------
    window : Window or None
        The traffic that was judged; None where there was none.
    version : str
        Name of the version that answered in it.
    sequential : bool
        Whether the verdict carries its own false-alarm promise (an e-detector), so that one
        FAILED is an alarm; windowed verdicts climb a ladder of consecutive failures.
    """

    window: Window | None = None
    version: str = ""
    sequential: bool = False

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the result from :meth:`to_json`."""
        typed = dict(document)
        if typed.get("window") is not None:
            typed["window"] = Window(**typed["window"])
        return super(MonitorResult, cls).from_json(typed)

    def to_json(self) -> dict[str, Any]:
        """Return the result as strict JSON values."""
        document = super(MonitorResult, self).to_json()
        document["window"] = None if self.window is None else self.window.to_json()
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDecision:
    """What all checks of one app decided about one candidate.

    Attributes
    ----------
    app : str
        The app that the candidate is meant for.
    candidate : str
        How people call it: a version name or a file name.
    allowed : bool
        Whether the candidate may go on.
    results : tuple of CheckResult
        Everything that was judged, in the order it ran.
    because : str
        One sentence: why it is allowed or not.
    not_applicable : tuple of str
        Checks that were never declared or do not apply, each with its reason.
    """

    app: str
    candidate: str
    allowed: bool
    results: tuple[CheckResult, ...]
    because: str
    not_applicable: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst verdict, ERRORED where nothing ran: nothing passes vacuously."""
        return worst(one.verdict for one in self.results) if self.results else Verdict.ERRORED

    @property
    def blocking(self) -> tuple[CheckResult, ...]:
        """The results that close the gate, worst first."""
        blockers = [one for one in self.results if one.blocks]
        return tuple(sorted(blockers, key=lambda one: -one.verdict.severity))

    @property
    def exit_code(self) -> int:
        """0 allowed, 1 refused, 5 undecided (too little data, a check raised, none matched)."""
        if self.allowed:
            return 0
        return 1 if any(one.verdict is Verdict.FAILED for one in self.blocking) else 5

    def to_json(self) -> dict[str, Any]:
        """Return the decision as strict JSON values."""
        return {
            "app": self.app,
            "candidate": self.candidate,
            "allowed": self.allowed,
            "verdict": self.verdict.value,
            "because": self.because,
            "not_applicable": list(self.not_applicable),
            "results": [one.to_json() for one in self.results],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the decision from :meth:`to_json`."""
        return cls(
            app=document["app"],
            candidate=document["candidate"],
            allowed=document["allowed"],
            because=document["because"],
            not_applicable=tuple(document.get("not_applicable", ())),
            results=tuple(CheckResult.from_json(one) for one in document["results"]),
        )

    def __str__(self) -> str:
        head = f"{self.app}  candidate {self.candidate}: {'allowed' if self.allowed else 'refused'}"
        rows = [f"  {one.verdict.mark} {one.name}  {one.summary}" for one in self.results]
        return "\n".join([head, f"  {self.because}", *rows])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{one.verdict.mark} {one.verdict.word}</td>"
            f"<td>{html.escape(one.name)}</td><td>{html.escape(one.summary)}</td></tr>"
            for one in self.results
        )
        title = f"{self.app}, candidate {self.candidate}: "
        title += "allowed" if self.allowed else "refused"
        return (
            f"<p><b>{html.escape(title)}</b><br>{html.escape(self.because)}</p>"
            f"<table><thead><tr><th>verdict</th><th>check</th><th>finding</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )
