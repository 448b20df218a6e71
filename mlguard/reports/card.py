"""A version's card: what it is, what it was judged by, and what nobody knows of it.

Made from the registry's record and app.toml alone: no model is loaded and no data is read, so
a card says what was recorded and nothing new.

Rule 1: the gate's findings stand as it recorded them; only waivers are held against the
present, since they end.

Rule 2: what was not judged is said as plainly as what was.

Rule 3: a group of fewer than :data:`~mlguard.wording.SMALL_GROUP` rows appears by name
only, and so does a finding that rests on so few.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import msgspec

from mlguard.models.environment import TELLING
from mlguard.reports.happenings import happening
from mlguard.reports.view import Figure, Happening, Waived
from mlguard.results import CheckResult, GateDecision, Measurement, Verdict
from mlguard.waivers import waiver_words
from mlguard.wording import SMALL_GROUP, count, listed, number, rfc3339

if TYPE_CHECKING:
    from mlguard.config import AppSettings
    from mlguard.registry import Registry
    from mlguard.registry.records import Event, Evidence, Version

_TIMES = {"at", "since", "expires", "activated_at", "confirmed_at"}


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Input(_Data, frozen=True, kw_only=True):
    """One input of the model, as the data it was registered with had it.

    Attributes
    ----------
    name, kind : str
    low, high : float or None
        Smallest and largest value seen; None for anything but numbers.
    categories : tuple of str or None
        Values seen; None for anything but categories.
    """

    name: str
    kind: str
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] | None = None

    @property
    def seen(self) -> str:
        """The values seen, in words; empty where nothing is recorded."""
        if self.categories is not None:
            return listed(self.categories, 12)
        if self.low is None and self.high is None:
            return ""
        return f"{number(self.low)} to {number(self.high)}"


class Cell(_Data, frozen=True, kw_only=True):
    """One number behind a finding, mostly of one group.

    Attributes
    ----------
    name, group, unit : str
        What was measured, of whom (empty: everybody), and its unit.
    value, low, high : float or None
        The estimate and its interval; None where undefined or suppressed.
    n : int or None
        Rows behind it; None where unknown or suppressed.
    suppressed : bool
        Whether the numbers are left out because they are of too few rows.
    """

    name: str
    group: str = ""
    unit: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    suppressed: bool = False

    @classmethod
    def of(cls, one: Measurement) -> Self:
        """Return the cell of a measurement; of few rows only the name."""
        known = {key: value for key, value in one.to_json().items() if key != "nonfinite"}
        return msgspec.convert(known | {"suppressed": bool(one.suppressed)}, cls)


class Check(_Data, frozen=True, kw_only=True):
    """One finding of the gate.

    Attributes
    ----------
    figure : Figure
        Verdict, value, interval, limit and n.
    enforcement : str
        What a bad verdict would have meant: ``"block"``, ``"warn"`` or ``"dry_run"``.
    waiver : str
        Who waived it until when, or that it is waived no more; empty where nobody did.
    cells : tuple of Cell
        The numbers behind it, e.g. one per group.
    """

    figure: Figure
    enforcement: str
    waiver: str = ""
    cells: tuple[Cell, ...] = ()

    @property
    def line(self) -> Figure:
        """The figure as a row of a table: its summary says who waived it, and what it enforces."""
        figure = self.figure
        notes = [figure.summary, self.waiver]
        if self.enforcement != "block" and figure.verdict is not Verdict.PASSED:
            notes.append("only warns" if self.enforcement == "warn" else "dry run")
        return msgspec.structs.replace(figure, summary="; ".join(filter(None, notes)))

    @classmethod
    def of(cls, one: CheckResult) -> Self:
        """Return the card's line of a check's result."""
        figure = Figure.of(one)
        few = one.n is not None and one.n < SMALL_GROUP
        if few and (one.subject or any(cell.group for cell in one.measurements)):
            figure = msgspec.structs.replace(
                figure,
                value=None,
                interval=None,
                n=None,
                summary=f"not shown: it rests on fewer than {SMALL_GROUP} rows",
            )
        return cls(
            figure=figure,
            enforcement=one.enforcement.value,
            waiver=waiver_words(one),
            cells=tuple(map(Cell.of, one.measurements)),
        )


class Judged(_Data, frozen=True, kw_only=True):
    """What the gate decided, and on what grounds.

    Attributes
    ----------
    allowed : bool
        Whether it lets the version through now.
    because, by : str
        Why, and who ran it.
    at : float
        When (seconds, UTC).
    approved_by, approved_because : str
        Who let it through although the gate could not decide, and why; empty where nobody did.
    checks : tuple of Check
        Worst verdict first.
    """

    allowed: bool
    because: str
    by: str
    at: float
    approved_by: str = ""
    approved_because: str = ""
    checks: tuple[Check, ...] = ()


class Lineage(_Data, frozen=True, kw_only=True):
    """What a version and its evidence can be traced to; empty where it is not recorded.

    Attributes
    ----------
    version_digest, model_digest : str
        SHA-256 of what decides an answer, and of the model file.
    model_format : str
    data_digest, policy_digest : str
        SHA-256 of the training and test data, and of all that the gate judged by.
    code_version : str
        The mlguard that judged.
    commit : str
        Git commit of the project when it was registered.
    python, platform : str
        What the gate ran on.
    libraries : dict of str to str
        Version of the libraries that decide an answer, by name.
    n_libraries : int
        How many were installed; the evidence lists all.
    environment_digest : str
        SHA-256 of interpreter, platform and all libraries.
    """

    version_digest: str
    model_digest: str
    model_format: str
    data_digest: str = ""
    policy_digest: str = ""
    code_version: str = ""
    commit: str = ""
    python: str = ""
    platform: str = ""
    libraries: dict[str, str] = msgspec.field(default_factory=dict)
    n_libraries: int = 0
    environment_digest: str = ""


class Card(_Data, frozen=True, kw_only=True):
    """All that is on record about one version of an app.

    Attributes
    ----------
    app, version, project, environment : str
    at : float
        When the card was made (seconds, UTC).
    description, owner, decision, success_metric : str
        What app.toml says today of the app.
    task, input : str
        Kind of prediction, and type of one row.
    state : str
        Where the version is in its life, reached at ``since``.
    registered_at : float
    registered_by, message : str
    activated_at, confirmed_at : float or None
        When it was last promoted, and confirmed since.
    baked_s : float
        Seconds that it was watched after that.
    quarantine : str
        Why its bytes are barred; empty where they are not.
    inputs : tuple of Input
    classes : tuple of str or None
        Possible answers; None for a regression.
    thresholds : dict of str to float
        Score from which the positive class is answered, for everybody and per group.
    data : dict of str to str
        Files and columns that app.toml names today.
    judged : Judged or None
        None where no gate has judged it.
    waived : tuple of Waived
        The promises that it needed to pass.
    lineage : Lineage
    happenings : tuple of Happening
        What happened to it, newest first.
    limits : tuple of str
        What it was not tested on and what could not be decided.
    """

    app: str
    version: str
    project: str
    environment: str
    at: float
    description: str
    owner: str
    decision: str
    success_metric: str
    task: str
    input: str
    state: str
    since: float
    registered_at: float
    registered_by: str
    message: str
    activated_at: float | None
    confirmed_at: float | None
    baked_s: float
    quarantine: str
    inputs: tuple[Input, ...]
    classes: tuple[str, ...] | None
    thresholds: dict[str, float]
    data: dict[str, str]
    judged: Judged | None
    waived: tuple[Waived, ...]
    lineage: Lineage
    happenings: tuple[Happening, ...]
    limits: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the card as strict JSON values; times are RFC 3339, UTC."""
        document: dict[str, Any] = _dated(msgspec.to_builtins(self))
        return document


def _dated(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: rfc3339(one)
            if (key in _TIMES or key == "registered_at") and isinstance(one, int | float)
            else _dated(one)
            for key, one in value.items()
        }
    return [_dated(one) for one in value] if isinstance(value, list | tuple) else value


def build_card(
    settings: AppSettings,
    registry: Registry,
    version: Version,
    *,
    project: str,
    environment: str,
    now: float,
) -> Card:
    """Put together what is on record about a version.

    Parameters
    ----------
    settings : AppSettings
        Of its app, as they are today.
    registry : Registry
    version : Version
    project, environment : str
        Where it is registered, for the head of the card.
    now : float
        When the card is made, seconds since the epoch.

    Raises
    ------
    RegistryError
        If the registry cannot be read.
    """
    app, manifest = version.app, version.manifest
    schema = manifest.get("input_schema") or {}
    found = registry.evidence(app, version.digest)
    newest = found[0] if found else None
    decision = None if newest is None else registry.decision_now(newest)
    book = registry.waiver_book(app)
    needed = () if decision is None else book.leaned_on(decision.results, version.digest)
    barred = registry.quarantined(app, version.digest)
    classes = schema.get("classes")
    events = sorted(registry.events(app), key=lambda one: -one.seq)
    inputs = tuple(msgspec.convert(one, Input) for one in schema.get("features", ()))
    return Card(
        app=app,
        version=version.name,
        project=project,
        environment=environment,
        at=now,
        description=settings.app.description,
        owner=settings.app.owner,
        decision=settings.app.decision,
        success_metric=settings.app.success_metric,
        task=manifest.get("task") or settings.app.task,
        input=schema.get("input") or settings.app.input,
        state=version.state.value,
        since=version.state_at,
        registered_at=version.registered_at,
        registered_by=version.registered_by,
        message=version.message,
        activated_at=version.activated_at,
        confirmed_at=version.confirmed_at,
        baked_s=version.baked_s,
        quarantine="" if barred is None else barred.reason,
        inputs=inputs,
        classes=None if classes is None else tuple(map(str, classes)),
        thresholds=_thresholds(manifest),
        data=_data(settings),
        judged=None if newest is None or decision is None else _judged(newest, decision),
        waived=tuple(Waived.of(one, book.now) for one in needed),
        lineage=_lineage(version, newest),
        happenings=tuple(happening(one) for one in events if _concerns(one, version.name)),
        limits=tuple(_limits(settings, inputs, newest, decision)),
    )


def _thresholds(manifest: dict[str, Any]) -> dict[str, float]:
    """Return the thresholds where they decide: between two classes."""
    classes = (manifest.get("input_schema") or {}).get("classes")
    two = classes is not None and len(classes) == 2  # binary
    return dict(manifest.get("thresholds") or {}) if two else {}


def _data(settings: AppSettings) -> dict[str, str]:
    data = settings.data
    named = {
        "train": data.train,
        "test": data.test,
        "target": data.target,
        "groups compared by": ", ".join(data.sensitive),
        "time": data.time,
        "id": data.id,
        "read as missing": ", ".join(map(repr, data.missing_values)),
    }
    return {key: value for key, value in named.items() if value}


def _judged(evidence: Evidence, decision: GateDecision) -> Judged:
    ordered = sorted(decision.results, key=lambda one: (-one.verdict.severity, one.name))
    return Judged(
        allowed=decision.allowed,
        because=decision.because,
        by=evidence.actor,
        at=evidence.at,
        approved_by=str(evidence.decision.get("approved_by") or ""),
        approved_because=str(evidence.decision.get("approved_because") or ""),
        checks=tuple(map(Check.of, ordered)),
    )


def _lineage(version: Version, evidence: Evidence | None) -> Lineage:
    lineage = Lineage(
        version_digest=version.digest,
        model_digest=str(version.manifest["model_sha256"]),
        model_format=str(version.manifest.get("model_format") or ""),
        commit=version.commit,
    )
    if evidence is None:
        return lineage
    lock = evidence.decision.get("environment") or {}
    libraries = lock.get("libraries") or {}
    return msgspec.structs.replace(
        lineage,
        python=str(lock.get("python") or ""),
        platform=str(lock.get("platform") or ""),
        libraries={name: libraries[name] for name in TELLING if name in libraries},
        n_libraries=len(libraries),
        environment_digest=str(lock.get("sha256") or ""),
        data_digest=evidence.data_digest,
        policy_digest=evidence.policy_digest,
        code_version=evidence.code_version,
    )


def _concerns(event: Event, name: str) -> bool:
    return name in (event.version, event.detail.get("from"), event.detail.get("to"))


def _limits(
    settings: AppSettings,
    inputs: Iterable[Input],
    evidence: Evidence | None,
    decision: GateDecision | None,
) -> Iterable[str]:
    """Say what nobody tested: it is what a reader of the card would otherwise assume."""
    if evidence is None or decision is None:
        yield "No gate has judged this version."
    else:
        for one in decision.results:
            if one.verdict is Verdict.INCONCLUSIVE:
                needed = "" if not one.n_min else f" (about {count(one.n_min)} rows would tell)"
                yield f"{one.name} could not be decided{needed}."
            elif one.verdict in (Verdict.SKIPPED, Verdict.ERRORED):
                yield f"{one.name} was {one.verdict.word}: {Check.of(one).figure.summary}"
        small = {
            cell.group for one in decision.results for cell in one.measurements if cell.suppressed
        }
        if small:
            yield (
                f"Figures of fewer than {SMALL_GROUP} rows are not shown; "
                f"there are such of {listed(sorted(small))}."
            )
        yield from (f"Not judged: {one}" for one in decision.not_applicable)
    if not settings.data.sensitive:
        yield "No groups of people were compared: [data] sensitive names no column."
    if any(one.seen for one in inputs):
        yield "Values outside those listed under the inputs: the data had none."
    yield f"Rows unlike those of {settings.data.test}: the gate judges on that file alone."
    yield "What app.toml says of the app and its data is what it says today."
