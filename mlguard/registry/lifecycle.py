"""The life of a version as one table, and the guards of every move: pure, no database, no clock.

Theory of operation
-------------------
*Everything that decides whether a version may change its state stands in this file.*  The
stores read facts inside a transaction, ask here what follows from them, and write exactly
that.  A refused command raises and has changed nothing.

1.  A version is in one :class:`State`.  ``TABLE`` holds every legal step as
    ``(command, state) -> Rule``; there is no other way for a state to change.
2.  An app is ``(generation, active, mode)``: the only mutable pointer.  A *move* replaces it as a
    whole and raises the generation by one; a :class:`Move` says what becomes of it and of
    every version involved, so that one transaction can write it.
3.  *Active* is the one version in BAKING or LIVE; *candidate* the one in STAGED, SHADOW or
    CANARY.  At most one of each per app.
4.  Safety rests on two numbers, compared inside the transaction: the *generation* that a
    command expected, and the *fence* of the operation it belongs to.  Leases only decide when
    somebody else may take over, so a paused process or a jumping clock delays, never corrupts.
5.  Only a version that was *confirmed* (LIVE once) can be gone back to: STANDBY is reached
    from LIVE alone.  Order in time is order of audit events (``activated_seq``,
    ``confirmed_seq``), because clocks go back and sequence numbers do not.
6.  An automatic move condemns the bytes, not the name: the digest is quarantined, and no
    version with that digest is moved to again until a human releases it.
7.  Going back is never blocked by a hold, a lease or a running deployment: it fences the
    deployment out.  Going forward is blocked by all of them.

The rules are numbered T1 to T16.  Beside them stand the manual rollback (M) and three steps
that the commands need: a version that is deployed again is gated again (T5), a standby may be
deployed again (T7), and a candidate that is drained returns to where it came from (T16), so
that a deployment that dies never costs a rollback target.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mlguard.errors import ConflictError, RefusedError


@enum.unique
class State(enum.StrEnum):
    """Where a version is in its life."""

    REGISTERED = "REGISTERED"
    VERIFIED = "VERIFIED"
    PASSED = "PASSED"
    REJECTED = "REJECTED"
    HELD = "HELD"
    STAGED = "STAGED"
    SHADOW = "SHADOW"
    CANARY = "CANARY"
    BAKING = "BAKING"
    LIVE = "LIVE"
    STANDBY = "STANDBY"
    QUARANTINED = "QUARANTINED"
    BROKEN = "BROKEN"
    ARCHIVED = "ARCHIVED"


@enum.unique
class Mode(enum.StrEnum):
    """What an app answers with: its active version, or the default output."""

    SERVE = "SERVE"
    DEFAULT_OUTPUT = "DEFAULT_OUTPUT"


CANDIDATE = frozenset({State.STAGED, State.SHADOW, State.CANARY})
ACTIVE = frozenset({State.BAKING, State.LIVE})
#: States in which a version's answers reach callers or its bytes see their rows.
TRAFFIC = ACTIVE | {State.SHADOW, State.CANARY}


@enum.unique
class Command(enum.StrEnum):
    """What can be done to one version."""

    REGISTER = "register"
    VERIFY = "verify"
    BREAK = "break"
    REPAIR = "repair"
    ACCEPT = "accept"
    REJECT = "reject"
    WITHHOLD = "withhold"
    APPROVE = "approve"
    REGATE = "regate"
    STAGE = "stage"
    SHADOW = "shadow"
    CANARY = "canary"
    WITHDRAW = "withdraw"
    FAIL = "fail"
    PROMOTE = "promote"
    LAUNCH = "launch"
    DISPLACE = "displace"
    SUPERSEDE = "supersede"
    CONFIRM = "confirm"
    CONDEMN = "condemn"
    RESTORE = "restore"
    RELEASE = "release"
    ARCHIVE = "archive"
    DRAIN = "drain"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class Rule:
    """One legal step of one version.

    Attributes
    ----------
    id : str
        Number of the rule, ``"T1"`` to ``"T16"``, or ``"M"`` for the manual rollback.
    command : Command
        What does it.
    source : State or None
        Where the version is before; None where it does not exist yet.
    target : State
        Where it is after.
    says : str
        What it means, for the documentation's table.
    """

    id: str
    command: Command
    source: State | None
    target: State
    says: str


def _rules(
    number: str, command: Command, sources: Iterable[State | None], target: State, says: str
) -> list[Rule]:
    return [Rule(number, command, source, target, says) for source in sources]


def _in_order(states: Iterable[State]) -> list[State]:
    return [state for state in State if state in set(states)]


_S = State
_C = Command
_IDLE = [state for state in State if state not in TRAFFIC | {_S.BROKEN, _S.ARCHIVED}]
_CANDIDATES = _in_order(CANDIDATE)

#: Every legal step, in the order of the rules' numbers.
RULES: tuple[Rule, ...] = (
    *_rules("T1", _C.REGISTER, [None], _S.REGISTERED, "bytes stored, name taken"),
    *_rules("T2", _C.VERIFY, [_S.REGISTERED], _S.VERIFIED, "loads and answers golden rows"),
    *_rules("T3", _C.BREAK, _IDLE, _S.BROKEN, "bytes missing, changed or not loadable"),
    *_rules("T3", _C.REPAIR, [_S.BROKEN], _S.REGISTERED, "identical bytes put back"),
    *_rules("T4", _C.ACCEPT, [_S.VERIFIED], _S.PASSED, "the gate allows it"),
    *_rules("T5", _C.REJECT, [_S.VERIFIED], _S.REJECTED, "a required check failed"),
    *_rules("T6", _C.WITHHOLD, [_S.VERIFIED], _S.HELD, "undecided, or approval is missing"),
    *_rules("T6", _C.APPROVE, [_S.HELD], _S.PASSED, "a human lets it through"),
    *_rules(
        "T5",
        _C.REGATE,
        [_S.PASSED, _S.REJECTED, _S.HELD],
        _S.VERIFIED,
        "deployed again: the gate runs again beside the old evidence",
    ),
    *_rules("T7", _C.STAGE, [_S.PASSED, _S.STANDBY], _S.STAGED, "loaded and warm, no traffic"),
    *_rules("T8", _C.SHADOW, [_S.STAGED], _S.SHADOW, "sees mirrored rows, answers nobody"),
    *_rules("T8", _C.CANARY, _CANDIDATES, _S.CANARY, "answers a share of the callers"),
    *_rules("T8", _C.WITHDRAW, _CANDIDATES, _S.HELD, "a step stayed undecided to its deadline"),
    *_rules("T8", _C.FAIL, _CANDIDATES, _S.QUARANTINED, "a step failed"),
    *_rules("T9", _C.PROMOTE, _CANDIDATES, _S.BAKING, "answers everybody, being watched"),
    *_rules("T9", _C.DISPLACE, [_S.LIVE], _S.STANDBY, "the version to go back to"),
    *_rules("T9", _C.SUPERSEDE, [_S.BAKING], _S.PASSED, "left before it was confirmed"),
    *_rules("T9a", _C.LAUNCH, [_S.STAGED], _S.LIVE, "the first of its app: nothing to compare"),
    *_rules("T10", _C.CONFIRM, [_S.BAKING], _S.LIVE, "watched long enough"),
    *_rules("T11", _C.CONDEMN, _in_order(ACTIVE), _S.QUARANTINED, "failed while it served"),
    *_rules("T11", _C.RESTORE, [_S.STANDBY], _S.LIVE, "gone back to"),
    *_rules("T14", _C.RELEASE, [_S.QUARANTINED], _S.VERIFIED, "a human lets it be gated again"),
    *_rules("T15", _C.ARCHIVE, [_S.STANDBY], _S.ARCHIVED, "too old to go back to"),
    *_rules("T16", _C.DRAIN, _CANDIDATES, _S.PASSED, "its deployment ended without promoting it"),
    *_rules("T16", _C.RETURN, _CANDIDATES, _S.STANDBY, "as drain, for one that was a standby"),
)

#: ``(command, state) -> rule``.
TABLE: dict[tuple[Command, State | None], Rule] = {
    (rule.command, rule.source): rule for rule in RULES
}

#: Commands that carry no traffic, need no operation and move no pointer.
QUIET = frozenset(
    {
        Command.VERIFY,
        Command.BREAK,
        Command.ACCEPT,
        Command.REJECT,
        Command.WITHHOLD,
        Command.APPROVE,
        Command.REGATE,
        Command.REPAIR,
    }
)


def step(command: Command, state: State | None) -> State:
    """Return the state that a command leads to.

    Parameters
    ----------
    command : Command
        What is to be done.
    state : State or None
        Where the version is; None where it does not exist yet.

    Returns
    -------
    State

    Raises
    ------
    RefusedError
        If the table has no such step.
    """
    rule = TABLE.get((command, state))
    if rule is None:
        allowed = [other.source for other in RULES if other.command is command]
        names = ", ".join("a new version" if one is None else one.value for one in allowed)
        raise RefusedError(
            f"cannot {command.value} a version that is {state or 'not registered'}; "
            f"that is for: {names}",
            hint="look at its state with `mlguard status` and at how it got there with "
            "`mlguard history`",
            command=command.value,
            state=None if state is None else state.value,
        )
    return rule.target


def quiet_command(state: State, target: State) -> Command:
    """Return the command without traffic that leads from one state to another.

    Raises
    ------
    RefusedError
        If there is none: the step needs an operation or a move, or does not exist.
    """
    for rule in RULES:
        if rule.command in QUIET and (rule.source, rule.target) == (state, target):
            return rule.command
    onward = sorted({r.target.value for r in RULES if r.command in QUIET and r.source is state})
    raise RefusedError(
        f"a version that is {state} cannot be marked {target}; "
        f"it can be marked {', '.join(onward) or 'nothing'}",
        hint="states with traffic are reached by deploy, promote, rollback and confirm only",
        state=state.value,
        target=target.value,
    )


# --- moves: what becomes of the pointer --------------------------------------------------


class Placed(Protocol):
    """What the guards need to know of a version."""

    @property
    def id(self) -> int:
        """Identity within the registry."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def digest(self) -> str:
        """Identity of its content."""

    @property
    def state(self) -> State:
        """Where it is in its life."""

    @property
    def activated_seq(self) -> int | None:
        """Audit event that last promoted it."""

    @property
    def confirmed_seq(self) -> int | None:
        """Audit event that confirmed it since; None while it never was."""


AnyPlaced = TypeVar("AnyPlaced", bound=Placed)


@dataclass(frozen=True, slots=True)
class Scene:
    """One app as it stands, read inside the transaction that will change it.

    Attributes
    ----------
    app : str
        Its name.
    generation : int
        Number of the last move; 0 before the first.
    mode : Mode
        What it answers with.
    active, candidate : Placed or None
        The version that serves, and the one that is being rolled out.
    standby : tuple of Placed
        Versions that were confirmed once.
    launched : bool
        Whether any version of the app ever was active.
    quarantined : frozenset of str
        Digests that automation never moves to.
    """

    app: str
    generation: int
    mode: Mode
    active: Placed | None
    candidate: Placed | None
    standby: tuple[Placed, ...]
    launched: bool
    quarantined: frozenset[str]


@dataclass(frozen=True, slots=True)
class Move:
    """What one transaction writes.

    Attributes
    ----------
    generation : int
        The new generation; the old one is ``generation - 1``.
    mode : Mode
        What the app answers with from now on.
    active : int or None
        Id of the version that serves from now on.
    steps : tuple of (int, Command)
        Versions that change, in an order in which no app ever has two active versions.
    """

    generation: int
    mode: Mode
    active: int | None
    steps: tuple[tuple[int, Command], ...]


def drained(candidate: Placed) -> Command:
    """Return how a candidate leaves without being promoted: back to where it came from."""
    return Command.DRAIN if candidate.confirmed_seq is None else Command.RETURN


def _drain(scene: Scene) -> tuple[tuple[int, Command], ...]:
    if scene.candidate is None:
        return ()
    return ((scene.candidate.id, drained(scene.candidate)),)


def expect_generation(scene: Scene, expected: int | None) -> None:
    """Refuse a command that decided on an older state of the app.

    Raises
    ------
    ConflictError
        If the generation is not the expected one.
    """
    if expected is not None and expected != scene.generation:
        raise ConflictError(
            f"{scene.app} is at generation {scene.generation}, not {expected}: somebody else "
            "moved it in between; nothing was changed",
            hint=f"look at `mlguard history {scene.app}` and decide again",
            clause="generation",
            generation=scene.generation,
            expected=expected,
        )


def refuse_quarantined(scene: Scene, version: Placed, incident: int | None) -> None:
    """Refuse bytes that are in quarantine.

    Raises
    ------
    RefusedError
        If the version's digest is quarantined.
    """
    if version.digest in scene.quarantined:
        number = "" if incident is None else f" (incident {incident})"
        raise RefusedError(
            f"{scene.app} {version.name}: these bytes are in quarantine{number}",
            hint="fix the model and deploy the new bytes; the same bytes stay refused",
            clause="quarantine",
            incident=incident,
            digest=version.digest,
        )


def refuse_baking(scene: Scene, *, supersede: bool) -> None:
    """Refuse to displace a version that is still being watched.

    Raises
    ------
    ConflictError
        If the active version is BAKING and nobody said ``supersede``.
    """
    if scene.active is not None and scene.active.state is State.BAKING and not supersede:
        raise ConflictError(
            f"{scene.app} {scene.active.name} is still being watched (BAKING)",
            hint=f"wait until it is confirmed, go back with `mlguard rollback {scene.app}`, or "
            f"replace it unconfirmed with `mlguard deploy {scene.app} --supersede`",
            clause="baking",
            version=scene.active.name,
        )


def promotion(scene: Scene, version: Placed, *, supersede: bool) -> Move:
    """Return the move that makes a candidate serve (T9, T9a for the first of its app).

    Raises
    ------
    ConflictError
        If the version is not the candidate any more, or another one is BAKING.
    """
    if scene.candidate is None or scene.candidate.id != version.id:
        raise ConflictError(
            f"{scene.app} {version.name} is {version.state}, not the candidate any more",
            hint="its deployment ended or was replaced; deploy it again",
            clause="candidate",
        )
    refuse_baking(scene, supersede=supersede)
    steps: list[tuple[int, Command]] = []
    if scene.active is not None:
        leave = Command.DISPLACE if scene.active.state is State.LIVE else Command.SUPERSEDE
        steps.append((scene.active.id, leave))
    steps.append((version.id, Command.PROMOTE if scene.launched else Command.LAUNCH))
    return Move(scene.generation + 1, Mode.SERVE, version.id, tuple(steps))


def manual_targets(
    active: Placed | None, standby: Iterable[AnyPlaced], quarantined: frozenset[str]
) -> list[AnyPlaced]:
    """Return the versions a human's rollback may go to, best first.

    They were confirmed before the active one was activated, latest first: a second rollback
    goes one further back, and never forward again.
    """
    return [
        one
        for one in automatic_targets(None, standby, quarantined)
        if active is None or (active.activated_seq or 0) > (one.confirmed_seq or 0)
    ]


def automatic_targets(
    active: Placed | None, standby: Iterable[AnyPlaced], quarantined: frozenset[str]
) -> list[AnyPlaced]:
    """Return the versions an automatic rollback may go to, best first.

    Standby by confirmation, latest first, without the bytes that serve now and those in
    quarantine.
    """
    barred = quarantined | (frozenset() if active is None else {active.digest})
    fit = [one for one in standby if one.digest not in barred and one.confirmed_seq is not None]
    return sorted(fit, key=lambda one: -(one.confirmed_seq or 0))


def going_back(scene: Scene, target: Placed, *, condemn: bool) -> Move:
    """Return the move to an earlier version (T11 with ``condemn``, else the manual M).

    Raises
    ------
    RefusedError
        If the target already serves, was never confirmed, or is in quarantine.
    """
    if scene.active is not None and scene.active.id == target.id:
        raise RefusedError(f"{scene.app} {target.name} serves already", clause="active")
    refuse_quarantined(scene, target, None)
    if condemn and scene.active is not None and scene.active.digest == target.digest:
        raise RefusedError(
            f"{scene.app} {target.name} holds the same bytes as {scene.active.name}, "
            "which is being condemned",
            hint="name another version, see `mlguard status`",
            clause="quarantine",
        )
    step(Command.RESTORE, target.state)
    steps = [*_drain(scene)]
    if scene.active is not None:
        if condemn:
            leave = Command.CONDEMN
        elif scene.active.state is State.LIVE:
            leave = Command.DISPLACE
        else:
            leave = Command.SUPERSEDE
        steps.append((scene.active.id, leave))
    steps.append((target.id, Command.RESTORE))
    return Move(scene.generation + 1, Mode.SERVE, target.id, tuple(steps))


def giving_up(scene: Scene) -> Move:
    """Return the automatic move to the default output (T12): the active version is condemned.

    Raises
    ------
    RefusedError
        If nothing serves.
    """
    if scene.active is None:
        raise RefusedError(f"nothing serves {scene.app}", clause="active")
    steps = (*_drain(scene), (scene.active.id, Command.CONDEMN))
    return Move(scene.generation + 1, Mode.DEFAULT_OUTPUT, None, steps)


def blocking(scene: Scene) -> Move:
    """Return a human's move to the default output (T13): the pointer is kept.

    A running deployment is fenced out, as by every move that takes traffic away.

    Raises
    ------
    RefusedError
        If the app was never deployed: it answers with the default output anyway.
    """
    if not scene.launched:
        raise RefusedError(
            f"{scene.app} was never deployed: it answers with its default output already",
            clause="active",
        )
    active = None if scene.active is None else scene.active.id
    return Move(scene.generation + 1, Mode.DEFAULT_OUTPUT, active, _drain(scene))


def unblocking(scene: Scene) -> Move:
    """Return the move back from the default output to the version that was kept (T13).

    Raises
    ------
    RefusedError
        If no version is active.
    """
    if scene.active is None:
        raise RefusedError(
            f"{scene.app} has no active version to go back to",
            hint=f"deploy one: mlguard deploy {scene.app}",
            clause="active",
        )
    return Move(scene.generation + 1, Mode.SERVE, scene.active.id, ())


# --- automatic moves: budget and cooldown ------------------------------------------------


class Limits(Protocol):
    """How much may happen without a human (``[auto]`` of app.toml)."""

    @property
    def budget(self) -> int:
        """Automatic moves in ``budget_window``."""

    @property
    def budget_window(self) -> float:
        """Seconds."""

    @property
    def cooldown(self) -> float:
        """Seconds after the first move of a window; doubles with each further one."""

    @property
    def cooldown_max(self) -> float:
        """Longest cooldown in seconds."""


def refuse_automatic(app: str, moves: Sequence[float], now: float, limits: Limits) -> None:
    """Refuse an automatic move that would exceed the budget or comes within the cooldown.

    Parameters
    ----------
    app : str
        Whose moves they are.
    moves : sequence of float
        Times of its automatic moves, in seconds since the epoch.  One in the future (the
        clock went back) counts as just made.
    now : float
        The time, in seconds since the epoch.
    limits : Limits
        Budget and cooldown.

    Raises
    ------
    RefusedError
        Naming the clause, ``"budget"`` or ``"cooldown"``.
    """
    recent = [at for at in moves if at > now - limits.budget_window]
    if len(recent) >= limits.budget:
        raise RefusedError(
            f"{app}: {len(recent)} automatic moves in the last "
            f"{limits.budget_window / 3600:g} h; the budget is {limits.budget}",
            hint=f"a human decides now: mlguard status {app}, then mlguard rollback or resume",
            clause="budget",
        )
    if recent:
        wait = min(limits.cooldown * 2 ** (len(recent) - 1), limits.cooldown_max)
        since = now - max(recent)
        if since < wait:
            raise RefusedError(
                f"{app}: the last automatic move was {max(since, 0) / 60:.1f} min ago; "
                f"the next may come after {wait / 60:g} min",
                hint="wait for the cooldown, or let a human decide: mlguard rollback",
                clause="cooldown",
            )
