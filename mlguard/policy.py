"""Every rule "evidence → allow, hold, freeze, roll back, default output", in one place.

Pure: no clock, no database, no file.  What happened comes in as results and plain facts,
what to do comes out, always with one sentence that says why.

Rule 1: a gate fails closed.  No results, a check that raised, or an undecided check that
blocks: the candidate is not allowed.

Rule 2: a server fails static.  Only FAILED moves traffic.  An undecided or crashed monitor
may freeze promotions (it is blind), never more.

Rule 3: windowed verdicts climb a ladder of consecutive FAILED windows, because one window in
a hundred fails by luck.  Undecided windows neither climb nor reset it.  A sequential monitor
carries its own promise and acts at once, and so does a hard check: what it counts is broken,
not drifting.

Rule 4: no result is milder for being worse: replacing any verdict of a history by a worse one
never lowers the level.

Rule 5: what a human or a machine just switched gets time (grace), an automatic move is
followed by a pause that doubles (cooldown), and there are only so many (budget).  All three
leave the freeze in force.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

from mlguard.results import CheckResult, Finding, GateDecision, MonitorResult, Verdict
from mlguard.waivers import WaiverBook, waiver_note, waiver_words

#: Monitors' checks that count something broken; one FAILED window of them is enough.
HARD_CHECKS = frozenset({"service.model_errors", "service.crash", "service.load"})
#: Rows that a hard check needs before it may act, unless it says how many itself.
HARD_N_MIN = 20
#: FAILED windows in a row that roll back a version that is not confirmed yet.
BAKING_ROLLBACK_AFTER = 2
#: Windows in a row that warned, or worse, and alert together.
ALERT_AFTER_WARNED = 3
#: Windows in a row that had enough rows and gave no verdict before a monitor is called blind.
BLIND_AFTER = 3
#: Or so many seconds of windows, whichever comes first.
BLIND_S = 86400.0

#: Verdicts that say something about the version.
DECIDED = (Verdict.PASSED, Verdict.WARNED, Verdict.FAILED)
_IN_ORDER = (Verdict.PASSED, Verdict.SKIPPED, Verdict.WARNED)


# --- the gate ----------------------------------------------------------------------------


def gate_decision(
    app: str,
    candidate: str,
    results: Iterable[CheckResult],
    not_applicable: Iterable[str] = (),
) -> GateDecision:
    """Decide whether a candidate may go on.

    Parameters
    ----------
    app, candidate : str
        Whom the decision is about.
    results : iterable of CheckResult
        Everything that was judged, in the order it ran.
    not_applicable : iterable of str
        Checks that do not apply, each with its reason.

    Returns
    -------
    GateDecision
        Allowed where at least one check gave a judgement (SKIPPED is none) and no result
        blocks (:attr:`~mlguard.results.CheckResult.blocks`).
    """
    found = tuple(results)
    blocking = [one for one in found if one.blocks]
    judged = [one for one in found if one.verdict is not Verdict.SKIPPED]
    if blocking:
        because = _refusal(blocking)
    elif not found:
        because = "no check ran, and nothing passes vacuously"
    elif not judged:
        because = f"all {_count(len(found), 'check')} were skipped, and nothing passes vacuously"
    else:
        because = _admission(judged)
    return GateDecision(
        app=app,
        candidate=candidate,
        allowed=bool(judged) and not blocking,
        results=found,
        because=because,
        not_applicable=tuple(not_applicable),
    )


def judged_again(
    decision: GateDecision, book: WaiverBook, digest: str, *, approved: bool = False
) -> GateDecision:
    """Return what a decision comes to with the waivers that are valid now.

    Parameters
    ----------
    decision : GateDecision
        What was found, with or without waivers of its time.
    book : WaiverBook
        The waivers, and the time.
    digest : str
        Content of the candidate.
    approved : bool
        Whether a human let through what blocked then.  What a waiver held open then still
        needs a valid one: nobody approved that.

    Returns
    -------
    GateDecision
        The same verdicts; ``allowed`` and ``because`` as of now.
    """
    results = tuple(book.apply(one, digest) for one in decision.results)
    found = gate_decision(decision.app, decision.candidate, results, decision.not_applicable)
    if not approved:
        return found
    lapsed = [
        now
        for then, now in zip(decision.results, results, strict=True)
        if then.waived_by is not None and now.blocks
    ]
    return replace(
        found,
        allowed=not lapsed,
        because=_refusal(lapsed) if lapsed else "a human let through what blocked it",
    )


def _refusal(blocking: list[CheckResult]) -> str:
    parts = []
    for verdict in (Verdict.FAILED, Verdict.ERRORED, Verdict.INCONCLUSIVE):
        names = [one.name for one in blocking if one.verdict is verdict]
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            parts.append(f"{len(names)} {verdict.word} ({shown})")
    lapsed = [f"{one.name}: {waiver_words(one)}" for one in blocking if waiver_note(one)]
    return f"blocked by {_count(len(blocking), 'check')}: " + "; ".join(parts + lapsed)


def _admission(judged: list[CheckResult]) -> str:
    passed = sum(one.verdict is Verdict.PASSED for one in judged)
    sentence = f"{passed} of {_count(len(judged), 'check')} passed and none blocks"
    waived = [one for one in judged if one.waived_by is not None]
    if waived:
        sentence += "; waived: " + ", ".join(f"{one.name} by {one.waived_by}" for one in waived)
    return sentence


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


# --- what a monitor's history asks for ---------------------------------------------------


@enum.unique
class Level(enum.IntEnum):
    """How far an action goes, from mild to severe."""

    NONE = 0
    ALERT = 1
    FREEZE = 2
    ROLLBACK = 3
    DEFAULT_OUTPUT = 4

    @property
    def word(self) -> str:
        """The level as it is written in app.toml and in mail."""
        return self.name.lower()

    @property
    def moves_traffic(self) -> bool:
        """Whether requests are answered by something else afterwards."""
        return self >= Level.ROLLBACK


Deferral = Literal["", "grace", "cooldown", "budget", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What the policy asks for, and why.

    Attributes
    ----------
    level : Level
        What to do now.
    because : str
        One sentence for people.
    wanted : Level
        What the evidence alone asks for; above ``level`` where something defers it.
    deferred : str
        What stands between the two: ``"grace"``, ``"cooldown"``, ``"budget"``, ``"off"``
        (automatic moves are switched off), or empty.
    """

    level: Level
    because: str
    wanted: Level = Level.NONE
    deferred: Deferral = ""


class LadderRules(Protocol):
    """The keys of ``[monitor.<name>]`` that the ladder reads."""

    @property
    def action(self) -> str: ...  # noqa: D102
    @property
    def alert_after(self) -> int: ...  # noqa: D102
    @property
    def freeze_after(self) -> int: ...  # noqa: D102
    @property
    def rollback_after(self) -> int: ...  # noqa: D102
    @property
    def clear_after(self) -> int: ...  # noqa: D102


class AutoRules(Protocol):
    """The keys of ``[auto]`` that the policy reads."""

    @property
    def rollback(self) -> bool: ...  # noqa: D102
    @property
    def on_no_target(self) -> str: ...  # noqa: D102
    @property
    def on_data_break(self) -> str: ...  # noqa: D102
    @property
    def grace(self) -> float: ...  # noqa: D102
    @property
    def cooldown(self) -> float: ...  # noqa: D102
    @property
    def cooldown_max(self) -> float: ...  # noqa: D102
    @property
    def budget(self) -> int: ...  # noqa: D102
    @property
    def budget_window(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an app stands when its monitors are heard.

    Attributes
    ----------
    baking : bool
        Whether the active version is not confirmed yet.
    elapsed_s : float
        Seconds since the last change of generation, on a clock that no one can set.
    move_ages_s : tuple of float
        Age of each automatic move that is known, in any order.
    """

    baking: bool
    elapsed_s: float
    move_ages_s: tuple[float, ...] = ()


def decide(
    history: Sequence[MonitorResult], rules: LadderRules, auto: AutoRules, standing: Standing
) -> Action:
    """Decide what one check of one monitor asks for.

    Parameters
    ----------
    history : sequence of MonitorResult
        What it found in the current generation, oldest first; all with one name.
    rules, auto : LadderRules, AutoRules
        ``[monitor.<name>]`` and ``[auto]``.
    standing : Standing
        Where the app stands.

    Returns
    -------
    Action
        At most ``rules.action``.  A level that moves traffic is a wish: whether there is
        something to go back to, and whether it would help, is for :func:`settle`.
    """
    if not history:
        return Action(level=Level.NONE, because="nothing was judged yet")
    cap = Level[rules.action.upper()]
    wanted, because = max(
        _ladder(history, rules, standing, cap),
        _blindness(history, rules),
        _warnings(history),
        key=lambda one: one[0],
    )
    wanted = min(wanted, cap)
    if wanted is Level.NONE:
        return Action(level=wanted, because=because)
    if standing.elapsed_s < auto.grace and not is_hard(history[-1]):
        # A hard check is exempt: rows that every request loses are no warming up.
        return Action(
            level=Level.NONE,
            because=f"{because}; within {auto.grace:.0f} s after a switch nothing is done",
            wanted=wanted,
            deferred="grace",
        )
    if not wanted.moves_traffic:
        return Action(level=wanted, because=because, wanted=wanted)
    deferred, why = _deferral(auto, standing)
    return Action(
        level=Level.FREEZE if deferred else wanted,
        because=f"{because}; {why}" if deferred else because,
        wanted=wanted,
        deferred=deferred,
    )


def is_hard(result: Finding) -> bool:
    """Whether one FAILED window of this check is enough to act."""
    return result.id in HARD_CHECKS


def failed_in_a_row(history: Sequence[Finding]) -> int:
    """Count the FAILED windows at the end; undecided ones neither count nor end the row."""
    n = 0
    for one in reversed(history):
        if one.verdict is Verdict.FAILED:
            n += 1
        elif one.verdict in _IN_ORDER:
            break
    return n


def _ladder(
    history: Sequence[MonitorResult], rules: LadderRules, standing: Standing, cap: Level
) -> tuple[Level, str]:
    name = history[-1].name
    failed = failed_in_a_row(history)
    if not failed:
        return Level.NONE, f"{name} found nothing that asks for action"
    row = [one for one in history[-_reach(history, failed) :] if one.verdict is Verdict.FAILED]
    if row[-1].sequential:
        return cap, f"{name} raised its alarm"
    # Any of the row, not its last: a later failure in fewer rows takes nothing back.
    if any(is_hard(one) and (one.n or 0) >= (one.n_min or HARD_N_MIN) for one in row):
        return cap, f"{name} failed, and one window of it is enough"
    move_after = rules.rollback_after
    if standing.baking:
        move_after = min(move_after, BAKING_ROLLBACK_AFTER)
    steps = (
        (rules.alert_after, Level.ALERT),
        (rules.freeze_after, Level.FREEZE),
        (move_after, cap),
    )
    level = max((level for after, level in steps if failed >= after), default=Level.NONE)
    return level, f"{name} failed in {_count(failed, 'window')} in a row"


def _warnings(history: Sequence[MonitorResult]) -> tuple[Level, str]:
    """Alert where no window of a few was in order, even if none of them failed."""
    recent = [one for one in history if not _too_few(one)][-ALERT_AFTER_WARNED:]
    if len(recent) < ALERT_AFTER_WARNED or any(
        one.verdict in (Verdict.PASSED, Verdict.SKIPPED) for one in recent
    ):
        return Level.NONE, ""
    return (
        Level.ALERT,
        f"{history[-1].name} found none of {ALERT_AFTER_WARNED} windows in order",
    )


def _reach(history: Sequence[MonitorResult], failed: int) -> int:
    """Return how many results at the end hold the last ``failed`` failures."""
    for reach, one in enumerate(reversed(history), start=1):
        failed -= one.verdict is Verdict.FAILED
        if not failed:
            return reach
    return len(history)


def is_blind(history: Sequence[Finding], *, windows: int = BLIND_AFTER) -> bool:
    """Whether a monitor had enough rows in its last windows and gave no verdict.

    Windows below their own minimum say nothing about the monitor and are passed over, so
    that an app without traffic is never blind.  Windows that together last :data:`BLIND_S` are
    enough, however few they are.
    """
    judged = [one for one in history if not _too_few(one)]
    last = judged[-windows:]
    if (
        len(last) == windows
        and not any(one.verdict in _IN_ORDER for one in last)
        and any(one.verdict is not Verdict.FAILED for one in last)
    ):
        return True
    silent = list(
        itertools.takewhile(
            lambda one: one.verdict not in (*_IN_ORDER, Verdict.FAILED), reversed(judged)
        )
    )
    spans = [one.window for one in silent if isinstance(one, MonitorResult) and one.window]
    return bool(spans) and spans[0].end - spans[-1].start >= BLIND_S


def _blindness(history: Sequence[MonitorResult], rules: LadderRules) -> tuple[Level, str]:
    windows = max(BLIND_AFTER, rules.freeze_after)
    if not is_blind(history, windows=windows):
        return Level.NONE, ""
    name = history[-1].name
    return Level.FREEZE, f"{name} is blind: no verdict in {windows} windows that had rows"


def _too_few(one: Finding) -> bool:
    return one.verdict is Verdict.INCONCLUSIVE and (
        one.n is None or one.n_min is None or one.n < one.n_min
    )


def _deferral(auto: AutoRules, standing: Standing) -> tuple[Deferral, str]:
    if not auto.rollback:
        return "off", "automatic moves are switched off ([auto] rollback = false)"
    recent = [age for age in standing.move_ages_s if age < auto.budget_window]
    if len(recent) >= auto.budget:
        hours = auto.budget_window / 3600
        return "budget", f"the budget of {auto.budget} automatic moves in {hours:.0f} h is spent"
    pause = cooldown_s(standing.move_ages_s, auto)
    if standing.move_ages_s and min(standing.move_ages_s) < pause:
        left = pause - min(standing.move_ages_s)
        return "cooldown", f"the pause after the last automatic move lasts {left:.0f} s more"
    return "", ""


def cooldown_s(move_ages_s: Sequence[float], auto: AutoRules) -> float:
    """Return how long automatic moves pause after the latest one.

    ``cooldown`` after the first, doubled for each further one within ``budget_window``, at
    most ``cooldown_max``.
    """
    earlier = sum(age < auto.budget_window for age in move_ages_s) - 1
    if earlier < 0:
        return 0.0
    # The exponent is bounded so that a long history cannot overflow.
    return float(min(auto.cooldown * 2.0 ** min(earlier, 60), auto.cooldown_max))


def clears(history: Sequence[MonitorResult], rules: LadderRules) -> bool:
    """Whether the last ``clear_after`` windows passed, which ends an incident.

    A windowed monitor fires where the breach is proven and clears where its estimate keeps
    the limit: the interval between the two is what keeps it from flapping.
    """
    recent = history[-rules.clear_after :]
    return len(recent) == rules.clear_after and all(one.verdict is Verdict.PASSED for one in recent)


# --- whether going back is possible and would help ---------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What was found out about one version that could be gone back to.

    Attributes
    ----------
    version : str
        Its name.
    outcome : str
        ``"qualified"``; ``"unhelpful"``: it would do no better on the failing window;
        ``"unproven"``: there was nothing to compare it on; ``"unfit"``: missing, corrupt,
        incompatible or not loadable.
    reason : str
        One sentence with the numbers.
    """

    version: str
    outcome: Literal["qualified", "unhelpful", "unproven", "unfit"]
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return the trial as JSON values."""
        return {"version": self.version, "outcome": self.outcome, "reason": self.reason}

    @classmethod
    def unfit(cls, version: str, reason: str) -> Self:
        """Return a refusal for integrity."""
        return cls(version=version, outcome="unfit", reason=reason)


def settle(action: Action, trials: Sequence[Trial], *, hard: bool, auto: AutoRules) -> Action:
    """Turn the wish to move traffic into what can be done.

    Parameters
    ----------
    action : Action
        From :func:`decide`, with a level that moves traffic.
    trials : sequence of Trial
        What was found about each target, in the order it was tried; empty: there is none.
    hard : bool
        Whether the check is hard.
    auto : AutoRules
        ``[auto]``.

    Returns
    -------
    Action
        ROLLBACK where a target qualified, else FREEZE or DEFAULT_OUTPUT.  A monitor whose
        ``action`` is "default_output" guards against harm: where no target qualifies, it
        would rather give the default answer.
    """
    if any(one.outcome == "qualified" for one in trials):
        return replace(action, level=Level.ROLLBACK)
    harm = action.wanted is Level.DEFAULT_OUTPUT
    tried = "; ".join(f"{one.version}: {one.reason}" for one in trials)
    if any(one.outcome == "unhelpful" for one in trials):
        blocks = harm or auto.on_data_break == "default_output"
        why = f"rollback would not help ({tried})"
    elif any(one.outcome == "unproven" for one in trials):
        blocks = harm
        why = f"nothing shows that a rollback would help ({tried})"
    else:
        blocks = harm or hard or auto.on_no_target == "default_output"
        why = (
            f"no version can be gone back to ({tried})" if tried else "there is no earlier version"
        )
    return replace(
        action,
        level=Level.DEFAULT_OUTPUT if blocks else Level.FREEZE,
        because=f"{action.because}; {why}",
    )


# --- the steps of a rollout --------------------------------------------------------------


class StepRules(Protocol):
    """The keys of ``[rollout]`` that a step is judged by."""

    @property
    def step_min_time(self) -> float: ...  # noqa: D102
    @property
    def step_deadline(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDecision:
    """What becomes of one step of a rollout.

    Attributes
    ----------
    act : {"wait", "go_on", "withdraw", "fail"}
        Wait; go on to the next step, or to everybody; end it undecided; end it as worse.
    because : str
        One sentence for people.
    undecided : tuple of str
        Checks that must be decided and are not.
    """

    act: Literal["wait", "go_on", "withdraw", "fail"]
    because: str
    undecided: tuple[str, ...] = ()


def step_decision(
    findings: Sequence[CheckResult],
    required: Iterable[str],
    rules: StepRules,
    *,
    elapsed_s: float,
    accepted: Iterable[str] = (),
) -> StepDecision:
    """Decide one step of a rollout.

    Parameters
    ----------
    findings : sequence of CheckResult
        The comparisons with the version that serves, as they stand.
    required : iterable of str
        Ids of those that must be decided; one that is not among the findings is undecided.
    rules : StepRules
        ``[rollout]``.
    elapsed_s : float
        Seconds since the step began, on a clock that no one can set.
    accepted : iterable of str
        Ids that a human takes undecided; a FAILED one fails all the same.

    Returns
    -------
    StepDecision
        Only FAILED ends a rollout before its deadline.  Nothing passes for want of rows.
    """
    failed = [one for one in findings if one.verdict is Verdict.FAILED]
    if failed:
        return StepDecision(act="fail", because="; ".join(one.summary for one in failed))
    decided = {one.id for one in findings if one.verdict in _IN_ORDER} | set(accepted)
    undecided = tuple(name for name in required if name not in decided)
    if not undecided and elapsed_s >= rules.step_min_time:
        return StepDecision(
            act="go_on", because="; ".join(one.summary for one in findings) or "accepted"
        )
    known = {one.id: one.summary for one in findings}
    missing = "; ".join(known.get(name, f"{name} has not been judged") for name in undecided)
    if elapsed_s >= rules.step_deadline:
        return StepDecision(
            act="withdraw",
            because=f"undecided for {rules.step_deadline / 3600:g} h: {missing}",
            undecided=undecided,
        )
    if undecided:
        return StepDecision(act="wait", because=missing, undecided=undecided)
    left = rules.step_min_time - elapsed_s
    return StepDecision(act="wait", because=f"nothing speaks against it; {left:.0f} s to go")


# --- what a monitor is doing -------------------------------------------------------------

Condition = Literal["armed", "idle", "waiting", "blind"]


def condition(
    history: Sequence[Finding], *, needs_labels: bool, n_rows: int, n_labels: int
) -> Condition:
    """Say what a monitor is doing, for ``status``.

    Parameters
    ----------
    history : sequence of Finding
        Its results in the current generation, oldest first.
    needs_labels : bool
        Whether it judges labels.
    n_rows, n_labels : int
        Predictions and labels of the current generation that it has seen lately.
    """
    if is_blind(history):
        return "blind"
    if n_rows == 0:
        return "idle"
    return "waiting" if needs_labels and n_labels == 0 else "armed"
