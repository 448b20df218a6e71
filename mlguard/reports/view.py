"""What a report says, as frozen plain data with a JSON round trip.

Rules: nothing here knows of HTML, pandas or databases; every number that was judged carries
its limit, its interval and its n; a chart is data plus the sentence that is its finding, so
that whoever draws it has nothing left to decide.  Groups with fewer than
:data:`mlguard.wording.SMALL_GROUP` rows appear by name only.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import msgspec

from mlguard.results import Finding, Verdict, worst
from mlguard.waivers import Waiver
from mlguard.wording import rfc3339

#: Keys whose numbers are seconds since the epoch.
_TIMES = frozenset({"at", "since", "until", "serving_since", "expires", "last_report"})


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Story(_Data, frozen=True, kw_only=True):
    """The five answers, in the order in which people ask.

    Attributes
    ----------
    happened, serves, why, did, next_step : str
        One or two sentences each; ``next_step`` may end in a command.
    command : str
        The command of ``next_step`` alone, empty where there is none.
    """

    happened: str
    serves: str
    why: str = ""
    did: str = ""
    next_step: str = ""
    command: str = ""


class Figure(_Data, frozen=True, kw_only=True):
    """One judged number: a row of a table of verdicts.

    Attributes
    ----------
    id, subject : str
        Stable ``family.name``, and the column, attribute or group it is about.
    verdict : Verdict
    summary : str
        One sentence.
    value, limit : float or None
    interval : tuple of float or None
        Bounds of ``value``; a bound may be None where it is not finite.
    n, n_min : int or None
        Rows behind it, and the least that could have decided.
    next_step : str
        What to do about it.
    version : str
        Version it is about; empty where that is plain.
    at : float or None
        When it was judged.
    """

    id: str
    verdict: Verdict
    summary: str = ""
    subject: str = ""
    value: float | None = None
    limit: float | None = None
    interval: tuple[float | None, float | None] | None = None
    n: int | None = None
    n_min: int | None = None
    next_step: str = ""
    version: str = ""
    at: float | None = None

    @property
    def name(self) -> str:
        """Identity for people: ``family.name[subject]``."""
        return f"{self.id}[{self.subject}]" if self.subject else self.id

    @classmethod
    def of(cls, finding: Finding, at: float | None = None) -> Self:
        """Return the figure of a check's or a monitor's result."""
        document = finding.to_json()
        known = {key: document[key] for key in cls.__struct_fields__ if key in document}
        return msgspec.convert(known | {"at": at}, cls)


class Waived(_Data, frozen=True, kw_only=True):
    """A finding that what serves was let through in spite of.

    Attributes
    ----------
    name : str
        The check, with its subject.
    owner, reason, ticket : str
        Who answers for it, why, and where the work is tracked.
    expires : float
        When it ends (seconds, UTC).
    state : str
        ``"active"``, ``"expiring"`` (within a week), ``"expired"`` or ``"revoked"``.
    says : str
        Who waived it and until when, in a clause.
    """

    name: str
    owner: str
    reason: str
    ticket: str
    expires: float
    state: str
    says: str

    @classmethod
    def of(cls, waiver: Waiver, now: float) -> Self:
        """Return a waiver as it stands at a time."""
        return cls(
            name=waiver.name,
            owner=waiver.owner,
            reason=waiver.reason,
            ticket=waiver.ticket,
            expires=waiver.expires,
            state=waiver.state(now),
            says=waiver.says(now),
        )


class Mark(_Data, frozen=True, kw_only=True):
    """Something that happened at one moment of a time axis."""

    at: float
    label: str
    kind: Literal["version", "rollback", "incident", "default_output"] = "version"


class Point(_Data, frozen=True, kw_only=True):
    """One estimate on a time axis; ``value`` is None where nothing could be estimated."""

    at: float
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


class TimeChart(_Data, frozen=True, kw_only=True, tag_field="chart", tag="time"):
    """A metric over time with its interval band, its limit, versions and incidents."""

    title: str
    alt: str
    metric: str
    points: tuple[Point, ...]
    marks: tuple[Mark, ...] = ()
    limit: float | None = None
    limit_label: str = ""
    unit: str = ""


class GroupFigure(_Data, frozen=True, kw_only=True):
    """One group's estimate; suppressed (None) below :data:`mlguard.wording.SMALL_GROUP` rows."""

    group: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


class GroupChart(_Data, frozen=True, kw_only=True, tag_field="chart", tag="groups"):
    """A forest plot: a dot and an interval per group, with the band that the limit allows."""

    title: str
    alt: str
    metric: str
    attribute: str
    groups: tuple[GroupFigure, ...]
    band: tuple[float, float] | None = None
    band_label: str = ""
    verdict: Verdict = Verdict.INCONCLUSIVE
    summary: str = ""


class DriftChart(_Data, frozen=True, kw_only=True, tag_field="chart", tag="drift"):
    """Before and after of one feature.

    Attributes
    ----------
    feature : str
    edges : tuple of float
        Edges of the bins of a number, one more than there are shares; empty for a category.
    labels : tuple of str
        Values of a category, most frequent first; empty for a number.
    reference, current : tuple of float
        Share of the rows in each bin or value, in [0, 1].
    verdict : Verdict
    """

    title: str
    alt: str
    feature: str
    reference: tuple[float, ...]
    current: tuple[float, ...]
    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    verdict: Verdict = Verdict.INCONCLUSIVE


class SquareChart(_Data, frozen=True, kw_only=True, tag_field="chart", tag="calibration"):
    """Stated probability against what came true, with the diagonal."""

    title: str
    alt: str
    points: tuple[CalibrationPoint, ...]


class CalibrationPoint(_Data, frozen=True, kw_only=True):
    """One bin of a calibration chart."""

    predicted: float
    observed: float
    low: float
    high: float
    n: int


class Curve(_Data, frozen=True, kw_only=True):
    """One group's line; with ``low`` and ``high`` its points are estimates with intervals."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


class CurveMark(_Data, frozen=True, kw_only=True):
    """A point on a curve that has a name of its own, e.g. a policy."""

    curve: str
    label: str
    x: float
    y: float


class Panel(_Data, frozen=True, kw_only=True):
    """One of the drawings that share an x axis."""

    label: str
    curves: tuple[Curve, ...]
    marks: tuple[CurveMark, ...] = ()


class CurveChart(_Data, frozen=True, kw_only=True, tag_field="chart", tag="curves"):
    """Curves of a few groups, with what was chosen marked on them.

    Attributes
    ----------
    x_label : str
        What all panels share.
    panels : tuple of Panel
        Small multiples; a single one is drawn large.
    guide : {"diagonal", "zero", ""}
        The line to hold the curves against.  With the diagonal both axes go from 0 to 1.
    """

    title: str
    alt: str
    x_label: str
    panels: tuple[Panel, ...]
    guide: Literal["diagonal", "zero", ""] = ""


Chart = TimeChart | GroupChart | DriftChart | SquareChart | CurveChart


class FeatureDrift(_Data, frozen=True, kw_only=True):
    """One feature of the reference and of the window, judged.

    Attributes
    ----------
    feature, kind : str
    measure : str
        ``"ks"``, ``"psi"`` or ``"missing"``.
    figure : Figure
        The judgement.
    missing_before, missing_after : float or None
        Share of missing values, in [0, 1].
    chart : DriftChart or None
    """

    feature: str
    kind: str
    measure: str
    figure: Figure
    missing_before: float | None = None
    missing_after: float | None = None
    chart: DriftChart | None = None


class Service(_Data, frozen=True, kw_only=True):
    """How the server did in the window.

    Attributes
    ----------
    predictions, labels : int
    defaults : int
        Answers that were the default.
    causes : tuple of (str, int)
        Why the default was answered, most frequent first.
    latency_p50_ms, latency_p95_ms, latency_p99_ms : float or None
    by_version : tuple of (str, int)
        Predictions of each version.
    """

    predictions: int = 0
    labels: int = 0
    defaults: int = 0
    causes: tuple[tuple[str, int], ...] = ()
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    by_version: tuple[tuple[str, int], ...] = ()


class Happening(_Data, frozen=True, kw_only=True):
    """One line of the audit trail."""

    at: float
    what: str
    who: str = ""
    why: str = ""


class Change(_Data, frozen=True, kw_only=True):
    """A verdict that is another one than before; ``before`` is None where it is new."""

    name: str
    before: Verdict | None
    after: Verdict


class ReportView(_Data, frozen=True, kw_only=True):
    """The whole report of one app and one period.

    Attributes
    ----------
    app, project, environment, description, owner : str
    since, until, at : float
        The period, and when the report was built (seconds, UTC).
    story : Story
    version, state : str
        What serves; empty where nothing does.
    serving_since : float or None
    generation : int
    figures : tuple of Figure
        Latest verdict of each monitor and subject, worst first.
    performance : tuple of TimeChart
    drift : tuple of FeatureDrift
        Largest distance, relative to its limit, first.
    groups : tuple of GroupChart
    calibration : SquareChart or None
    service : Service
    gate : tuple of Figure
        What the gate found about the version that serves.
    waived : tuple of Waived
        What it needed waivers for; the first to end comes first.
    changes : tuple of Change
        Against the last report, or else against the period before.
    last_report : float or None
        Until when the last report went; None where there was none.
    served_then : str
        What served at that time, where it is not what serves now.
    happenings : tuple of Happening
        Newest first.
    not_judged : tuple of str
        What could not be said, each with its reason.
    attachments : tuple of str
        Files beside the report that it links to, relative to it.
    """

    app: str
    project: str
    environment: str
    since: float
    until: float
    at: float
    story: Story
    description: str = ""
    owner: str = ""
    version: str = ""
    state: str = ""
    serving_since: float | None = None
    generation: int = 0
    figures: tuple[Figure, ...] = ()
    performance: tuple[TimeChart, ...] = ()
    drift: tuple[FeatureDrift, ...] = ()
    groups: tuple[GroupChart, ...] = ()
    calibration: SquareChart | None = None
    service: Service = Service()
    gate: tuple[Figure, ...] = ()
    waived: tuple[Waived, ...] = ()
    changes: tuple[Change, ...] = ()
    last_report: float | None = None
    served_then: str = ""
    happenings: tuple[Happening, ...] = ()
    not_judged: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst verdict; INCONCLUSIVE where nothing was judged."""
        found = [one.verdict for one in (*self.figures, *(row.figure for row in self.drift))]
        found += [one.verdict for one in self.groups]
        return worst(found) if found else Verdict.INCONCLUSIVE

    def to_json(self) -> dict[str, Any]:
        """Return the report as strict JSON values: what is not finite is null."""
        document = _plain(self)
        return {"schema_version": "1.0", "verdict": self.verdict.value, **document}

    def published(self) -> dict[str, Any]:
        """Return the report as programs read it: :meth:`to_json` with times in RFC 3339, UTC."""
        document: dict[str, Any] = _dated(self.to_json())
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Rebuild a report from :meth:`to_json`.

        Raises
        ------
        ValueError
            If the document is no report.
        """
        try:
            return msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"this is no report: {error}") from error


def _dated(value: Any) -> Any:
    """Return JSON values with the numbers that are times written out."""
    if isinstance(value, list):
        return [_dated(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: rfc3339(one) if key in _TIMES and isinstance(one, int | float) else _dated(one)
        for key, one in value.items()
    }


def _plain(value: Any) -> dict[str, Any]:
    # numpy's numbers are none to msgspec; .item() makes Python's of them.
    text = msgspec.json.encode(value, enc_hook=lambda one: one.item())
    document: dict[str, Any] = msgspec.json.decode(text)
    return document


def chart_to_json(chart: Chart) -> dict[str, Any]:
    """Return a chart as strict JSON values, e.g. for the facts of a mail."""
    return _plain(chart)


def chart_from_json(document: dict[str, Any]) -> Chart:
    """Rebuild a chart from :func:`chart_to_json`.

    Raises
    ------
    ValueError
        If the document is no chart.
    """
    try:
        chart: Chart = msgspec.convert(document, Chart)
    except msgspec.ValidationError as error:
        raise ValueError(f"this is no chart: {error}") from error
    return chart
