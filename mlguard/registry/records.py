"""What the registry hands out: frozen plain data, one class per table of facts.

Times are seconds since the epoch (UTC); documents are JSON values.  A record is a copy: it
never changes when the registry does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlguard.registry.lifecycle import Mode, State


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable bundle of model bytes and what belongs to them, and where it is in its life.

    Attributes
    ----------
    id : int
        Identity within this registry.
    app, name : str
        Whose it is, and what people call it.
    digest : str
        SHA-256 of the manifest, hex: identity of the content.
    manifest : dict
        Model digest, input schema, thresholds, runtime, task.
    state : State
        Where it is in its life.
    registered_at : float
        When it was registered, by ``registered_by``.
    message, commit : str
        What its author said, and the git commit; empty where there is none.
    activated_at, confirmed_at : float or None
        When it was last promoted, and confirmed since.
    baked_s : float
        Seconds it has been watched since it was promoted.
    incident : int or None
        The incident that condemned it.
    activated_seq, confirmed_seq : int or None
        The audit events of the two times: order that no clock can change.
    state_at : float
        When it reached its state.
    """

    id: int
    app: str
    name: str
    digest: str
    manifest: dict[str, Any]
    state: State
    registered_at: float
    registered_by: str
    message: str
    commit: str
    activated_at: float | None
    confirmed_at: float | None
    baked_s: float
    incident: int | None
    activated_seq: int | None = None
    confirmed_seq: int | None = None
    state_at: float = 0.0


@dataclass(frozen=True, slots=True)
class AppState:
    """What serves an app now.

    Attributes
    ----------
    app : str
        Its name.
    generation : int
        Number of its last move; 0 before the first.
    mode : Mode
        Whether the active version answers, or the default output.
    active : Version or None
        The version that serves, or that would if the app were not blocked.
    since : float or None
        When the last move happened.
    reason : str
        Why it happened.
    """

    app: str
    generation: int
    mode: Mode
    active: Version | None
    since: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A deployment in progress, or, with ``result``, one that ended long ago.

    Attributes
    ----------
    id : str
        Identity, for messages.
    app, kind : str
        Whose it is and what it does (``"deploy"``).
    key : str or None
        Idempotency key.
    version_id : int
        What is being rolled out.
    expected_generation : int
        The app's generation when it began; promoting compares it.
    fence : int
        Its number among the operations of the app; a higher one has fenced it out.
    owner : str
        Process that runs it, for people.
    started_at, beat_at : float
        Begin, and last sign of life.
    supersede : bool
        Whether it may displace a version that is still BAKING.
    resolves : int or None
        Incident whose hold it may pass, and lifts.
    policy_digest : str or None
        Policy that its evidence must have been judged by; None: any.
    evidence_max_age : float
        Seconds after which evidence is too old for it.
    steps : tuple of (str or float)
        What the version goes through before it answers everybody: ``"shadow"``, then shares
        of the callers.
    step : int
        Place in ``steps`` of the one it is at; -1 before the first.
    step_at : float or None
        Since when it is there.
    result : dict or None
        What it came to, where the same key was used before.
    """

    id: str
    app: str
    kind: str
    key: str | None
    version_id: int
    expected_generation: int
    fence: int
    owner: str
    started_at: float
    beat_at: float
    supersede: bool = False
    resolves: int | None = None
    policy_digest: str | None = None
    evidence_max_age: float = 30 * 86400.0
    steps: tuple[str | float, ...] = ()
    step: int = -1
    step_at: float | None = None
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Rolling:
    """A version that is being rolled out, and who rolls it out.

    Attributes
    ----------
    operation : Operation
        The deployment.
    version : Version
        Its version, as it stands.
    alive : bool
        Whether whoever deploys it gave a sign of life lately.
    """

    operation: Operation
    version: Version
    alive: bool

    @property
    def mirrored(self) -> bool:
        """Whether it is shown requests without answering them."""
        return self.alive and self.version.state is State.SHADOW

    @property
    def weight(self) -> float:
        """Share of the callers that it answers now."""
        if not self.alive or self.version.state is not State.CANARY:
            return 0.0
        return float(self.operation.steps[self.operation.step])


@dataclass(frozen=True, slots=True)
class Hold:
    """A bar to promotions.

    Attributes
    ----------
    after_move : bool
        Whether an automatic move set it: then only a human (or the deployment that resolves
        the incident) lifts it.
    expires : float or None
        When it ends by itself; None: never.
    mute : bool
        Whether it keeps mail back, but for a rollback's and the default output's.
    """

    id: int
    app: str
    reason: str
    actor: str
    created_at: float
    expires: float | None
    incident: int | None
    after_move: bool
    mute: bool = False


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Bytes that nothing is moved to until a human releases them."""

    app: str
    digest: str
    incident: int | None
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Incident:
    """What a failing monitor opened: one thread of mail, one line of the audit trail.

    Attributes
    ----------
    level : str
        How far it went: ``"alert"``, ``"freeze"``, ``"rollback"`` or ``"default_output"``.
    state : str
        ``"open"``, ``"cleared"`` (by itself) or ``"closed"`` (by a human, with a cause).
    facts : dict
        The numbers that opened it, updated while it lasts.
    """

    id: int
    app: str
    monitor: str
    version_id: int | None
    version: str
    generation: int
    summary: str
    facts: dict[str, Any]
    level: str
    state: str
    cause: str
    opened_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit trail.

    Attributes
    ----------
    seq : int
        Its number in the chain, from 1 without gaps, over all apps.
    at : float
        When it happened, by the clock of its writer.
    app : str
        Whom it is about.
    generation : int
        The app's generation after it.
    moved : bool
        Whether it made that generation.
    kind, actor, reason : str
        What, who and why.
    version : str
        Name of the version concerned; empty where there is none.
    detail : dict
        The numbers.
    """

    seq: int
    at: float
    app: str
    generation: int
    moved: bool
    kind: str
    actor: str
    reason: str
    version: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a gate decided about some bytes, and on what grounds.

    Attributes
    ----------
    allowed : bool
        Whether the gate let them through.
    verdict : str
        Its worst verdict.
    decision : dict
        ``GateDecision.to_json()``.
    policy_digest, data_digest, code_version : str
        What it was judged by, on, and with: evidence is reusable where all three are the same.
    """

    id: int
    app: str
    digest: str
    allowed: bool
    verdict: str
    decision: dict[str, Any]
    policy_digest: str
    data_digest: str
    code_version: str
    at: float
    actor: str


@dataclass(frozen=True, slots=True)
class Server:
    """A process that answers, and what it says of itself.

    Attributes
    ----------
    observed : dict
        App -> generation that it serves.
    loaded : tuple of int
        Ids of the versions that it holds warm.
    failed : dict
        Id of a version that it could not load -> why.
    """

    id: str
    host: str
    pid: int
    url: str
    started_at: float
    beat_at: float
    observed: dict[str, int]
    loaded: tuple[int, ...]
    failed: dict[int, str]


@dataclass(frozen=True, slots=True)
class IdBlock:
    """Query ids reserved by one process for one version in one generation."""

    app: str
    version_id: int | None
    generation: int
    first: int
    size: int
    server_id: str


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One mail to one recipient.

    Attributes
    ----------
    attempts : int
        How often it was taken up for sending, this time included.
    message_id : str
        Its own; where it is sent by itself it is that of every attempt.
    state : str
        ``PENDING``, ``SENDING``, ``RETRY``, ``SENT``, ``DEAD`` or ``MUTED``.
    told_in : str
        Message-ID of the message that it was sent in, or may have been; empty: of none.
    next_at : float
        Not to be sent before, seconds since the epoch.
    lease_until : float or None
        Until when it is somebody's who sends it.
    settled_at : float or None
        When it was sent or given up.
    error : str
        Why the last attempt failed.
    """

    id: int
    app: str
    kind: str
    recipient: str
    facts: dict[str, Any]
    incident: int | None
    attempts: int
    message_id: str
    created_at: float
    state: str = "PENDING"
    told_in: str = ""
    next_at: float = 0.0
    lease_until: float | None = None
    settled_at: float | None = None
    error: str = ""
