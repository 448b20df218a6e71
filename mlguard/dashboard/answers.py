"""How an app is, in a word with its shape, and the five answers at the head of its page.

The gravest thing that is so *now* speaks: the default output, then what nobody watches, then a
rollback that nothing has followed yet, then what fails, then what warns, then what is still too
new to tell, then that all is well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from mlguard.dashboard.live import Live
from mlguard.deploy.status import AppStatus, MonitorStatus
from mlguard.registry import Event, Mode
from mlguard.reports.story import tell
from mlguard.reports.view import Story
from mlguard.results import MonitorResult, Verdict
from mlguard.wording import ago, count, listed, moment


@dataclass(frozen=True, slots=True)
class Condition:
    """How an app is.

    Attributes
    ----------
    key : str
        ``"well", "quiet", "undecided", "new", "warned", "failing", "rolled-back", "blind",
        "degraded"`` or ``"default-output"``.
    mark, word : str
        Shape and word.
    style : str
        Which verdict it is coloured like.
    """

    key: str
    mark: str
    word: str
    style: str

    @property
    def grave(self) -> bool:
        """Whether somebody should look."""
        return self.style == "failed"


WELL = Condition("well", "✓", "well", "passed")
WATCHED = Condition("watched", "!", "well, still being watched", "warned")
QUIET = Condition("quiet", "–", "no traffic yet", "skipped")
UNDECIDED = Condition("undecided", "?", "nothing judged yet", "inconclusive")
NEW = Condition("new", "–", "nothing deployed", "skipped")
WARNED = Condition("warned", "!", "warned", "warned")
FAILING = Condition("failing", "✗", "failing", "failed")
ROLLED_BACK = Condition("rolled-back", "✗", "rolled back", "failed")
BLIND = Condition("blind", "✗", "blind", "failed")
DEGRADED = Condition("degraded", "✗", "degraded", "failed")
DEFAULT_OUTPUT = Condition("default-output", "✗", "default output", "failed")


def condition_of(status: AppStatus, live: Live, moves: Sequence[Event]) -> Condition:
    """Return how an app is.

    Parameters
    ----------
    status : AppStatus
        What ``mlguard status`` says.
    live : Live
        What it was asked since the server started.
    moves : sequence of Event
        The moves of its traffic, newest first.
    """
    state = status.state
    if state.generation == 0:
        return NEW
    if state.mode is Mode.DEFAULT_OUTPUT or state.active is None:
        return DEFAULT_OUTPUT
    grave = (
        (BLIND, any(one.state == "blind" for one in status.monitors)),
        (DEGRADED, status.degraded or status.config_error),
        (ROLLED_BACK, _last_rollback(status, moves)),
        (FAILING, status.incidents or _with(status, Verdict.FAILED, Verdict.ERRORED)),
        (WARNED, _with(status, Verdict.WARNED)),
    )
    for condition, so in grave:
        if so:
            return condition
    if not any(_decided(one) for one in status.monitors):
        return UNDECIDED if live.predictions or _judged(status) else QUIET
    return WATCHED if state.active.state.value == "BAKING" else WELL


def _judged(status: AppStatus) -> list[MonitorStatus]:
    return [one for one in status.monitors if one.last is not None]


def _decided(one: MonitorStatus) -> bool:
    return one.last is not None and one.last.verdict not in (Verdict.INCONCLUSIVE, Verdict.SKIPPED)


def _with(status: AppStatus, *verdicts: Verdict) -> list[MonitorStatus]:
    return [one for one in status.monitors if one.last is not None and one.last.verdict in verdicts]


def _last_rollback(status: AppStatus, moves: Sequence[Event]) -> Event | None:
    """Return the rollback by mlguard that made what serves now, if that is how it came."""
    last = next((one for one in moves if one.moved), None)
    active = status.state.active
    if last is None or last.kind != "rolled_back" or active is None:
        return None
    return last if last.version == active.name else None


def story_of(status: AppStatus, condition: Condition, live: Live, moves: Sequence[Event]) -> Story:
    """Return the five answers.

    Parameters
    ----------
    status : AppStatus
        What ``mlguard status`` says.
    condition : Condition
        How the app is.
    live : Live
        What it was asked since the server started.
    moves : sequence of Event
        The moves of its traffic, newest first.
    """
    rollback = _last_rollback(status, moves) if condition is ROLLED_BACK else None
    told = tell(
        status.state,
        events=[] if rollback is None else [rollback],
        incidents=(),
        holds=status.holds,
        figures=(),
        predictions=live.predictions,
    )
    if rollback is not None or condition in (NEW, DEFAULT_OUTPUT):
        return told
    held = " Promotions are held." if status.holds else ""
    return msgspec.structs.replace(_now(status, condition, live, held), serves=told.serves)


def _now(status: AppStatus, condition: Condition, live: Live, held: str) -> Story:
    app = status.app
    if condition in (BLIND, DEGRADED):
        return _unwatched(status, condition, held)
    if condition is FAILING and status.incidents:
        return _incident(status, held)
    if condition in (FAILING, WARNED):
        return _beyond(status, condition, held)
    asked = f"{count(live.predictions)} rows were answered since the server started"
    if condition is QUIET:
        return Story(
            happened=f"{app} serves, and nobody has asked it anything yet.",
            serves="",
            why="Without traffic there is nothing to judge.",
            did=f"No traffic was moved.{held}",
            next_step="Ask it once, and see the answer come back:",
        )
    if condition is UNDECIDED:
        waiting = _judged(status)
        return Story(
            happened=f"Nothing about {app} could be decided yet.",
            serves="",
            why=_sentence(_last(waiting[0]).summary)
            if waiting
            else f"{asked}; no monitor has judged a window of them yet.",
            did=f"No traffic was moved.{held}",
            next_step="More rows and labels will tell; the monitors below say what they wait for.",
        )
    judged = [one for one in status.monitors if _decided(one)]
    others = [one.id.replace("_", " ") for one in status.monitors if not _decided(one)]
    rest = f"; undecided or waiting: {listed(others)}" if others else ""
    return Story(
        happened=f"All is within its limits on {app}.",
        serves="",
        why=f"{listed([one.id.replace('_', ' ') for one in judged])} "
        f"{'is' if len(judged) == 1 else 'are'} within limits{rest}.",
        did=f"No traffic was moved.{held}",
        next_step="Nothing is needed.",
    )


def _unwatched(status: AppStatus, condition: Condition, held: str) -> Story:
    blind = [one for one in status.monitors if one.state == "blind"]
    names = listed([one.id.replace("_", " ") for one in blind])
    if condition is BLIND:
        last = max((one.at for one in blind if one.at is not None), default=None)
        return Story(
            happened=f"{status.app} is served, but not watched: {names} should have judged by now.",
            serves="",
            why=f"The last verdict came {ago(last, status.now)}."
            if last is not None
            else "There has been no verdict about what serves.",
            did=f"No traffic was moved: where nothing is judged, nothing is decided.{held}",
            next_step="See whether the watcher runs, and what its log says; or judge once by hand:",
            command=f"mlguard monitor {status.app} --once",
        )
    first, *more = (*status.degraded, *filter(None, [status.config_error]))
    return Story(
        happened=f"{status.app} needs a human: {first}.",
        serves="",
        why=_sentence("; ".join(more)),
        did=f"What serves goes on answering.{held}",
        next_step="See what is wrong:",
        command=f"mlguard status {status.app}",
    )


def _incident(status: AppStatus, held: str) -> Story:
    first = status.incidents[0]
    others = len(status.incidents) - 1
    more = f" {count(others)} more {'is' if others == 1 else 'are'} open." if others else ""
    return Story(
        happened=f"Incident {first.id} is open on {status.app}: "
        f"{first.monitor.replace('_', ' ')} is over its limit.",
        serves="",
        why=_sentence(first.summary),
        did=f"mlguard opened it on {moment(first.opened_at)}; traffic is unchanged.{more}{held}",
        next_step="Look at its numbers; then wait, roll back below, or deploy what mends it:",
        command=f"mlguard deploy {status.app} --resolves {first.id}",
    )


def _beyond(status: AppStatus, condition: Condition, held: str) -> Story:
    failed = condition is FAILING
    verdicts = (Verdict.FAILED, Verdict.ERRORED) if failed else (Verdict.WARNED,)
    bad = _with(status, *verdicts)
    names = listed([one.id.replace("_", " ") for one in bad])
    where = "over its limit" if failed else "above its limit, not proven"
    if len(bad) > 1:
        where = where.replace("its limit", "their limits")
    grace = (
        f" Nothing acts before {moment(status.acts_from)}, a while after a switch."
        if failed and status.acts_from is not None
        else ""
    )
    return Story(
        happened=f"{names[0].upper()}{names[1:]} of {status.app} "
        f"{'is' if len(bad) == 1 else 'are'} {where}.",
        serves="",
        why=_sentence(_last(bad[0]).summary),
        did=f"No traffic was moved.{grace}{held}",
        next_step="Look at the numbers below; then wait, roll back, or deploy what mends it.",
    )


def _last(one: MonitorStatus) -> MonitorResult:
    assert one.last is not None
    return one.last


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?…" else f"{text}."
