"""The five answers at the head of a report, from what happened in its period.

The gravest thing that happened and still matters is told: the default output in force, then a
rollback, then an open incident, then the worst verdict, then that all is within its limits,
then that there was nothing to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlguard.reports.view import Figure, Story
from mlguard.results import Verdict
from mlguard.wording import count, estimate, listed, moment, number

if TYPE_CHECKING:
    from mlguard.registry.records import AppState, Event, Hold, Incident


def tell(
    state: AppState,
    *,
    events: Sequence[Event],
    incidents: Sequence[Incident],
    holds: Sequence[Hold],
    figures: Sequence[Figure],
    predictions: int,
) -> Story:
    """Tell what happened to an app in a period.

    Parameters
    ----------
    state : AppState
        What serves now.
    events : sequence of Event
        Of the period, newest first.
    incidents : sequence of Incident
        Open ones, newest first.
    holds : sequence of Hold
    figures : sequence of Figure
        Everything that was judged.
    predictions : int
        Rows answered in the period.
    """
    held = " New deploys are held." if holds else ""
    if state.active is not None and state.mode.value == "SERVE":
        rolled = next((one for one in events if one.kind == "rolled_back"), None)
        if rolled is not None:
            return _rolled_back(state, rolled, held)
        if incidents:
            return _incident(state, incidents, held)
        return _judged(state, figures, predictions, held)
    return _nobody(state, held)


def _serves(state: AppState) -> str:
    if state.active is None:
        return "Nothing serves."
    since = f", since {moment(state.since)}" if state.since is not None else ""
    watched = ", still being watched" if state.active.state.value == "BAKING" else ""
    return f"{state.active.name} serves{since} (generation {state.generation}){watched}."


def _nobody(state: AppState, held: str) -> Story:
    if state.generation == 0:
        return Story(
            happened=f"{state.app} has never been deployed.",
            serves="Nothing serves.",
            next_step="Deploy a first version:",
            command=f"mlguard deploy {state.app}",
        )
    return Story(
        happened=f"{state.app} answers with its default output.",
        serves="No model answers: every request gets the default output and says so.",
        why=_sentence(state.reason),
        did=f"mlguard took the model out of traffic.{held}",
        next_step="A human is needed. See what led to it, then deploy a version that passes:",
        command=f"mlguard deploy {state.app}",
    )


def _rolled_back(state: AppState, event: Event, held: str) -> Story:
    detail = event.detail
    source, target = detail.get("from"), detail.get("to") or event.version
    incident = detail.get("incident")
    automatic = bool(detail.get("automatic"))
    how = "mlguard" if automatic else event.actor
    quarantined = f" and quarantined {source}" if detail.get("quarantined") else ""
    resolves = f" --resolves {incident}" if automatic and incident else ""
    return Story(
        happened=f"{state.app} was rolled back from {source} to {target}.",
        serves=_serves(state),
        why=_sentence(f"{event.reason}{_numbers(detail, event.reason)}") + _behind(detail),
        did=f"On {moment(event.at)} {how} switched all traffic to {target}{quarantined}.{held}",
        next_step=f"See what led to it, then deploy a version that mends {source}:",
        command=f"mlguard deploy {state.app}{resolves}",
    )


def _numbers(detail: dict[str, Any], said: str) -> str:
    value, limit = detail.get("value"), detail.get("limit")
    if not isinstance(value, int | float):
        return ""
    text = estimate(value, detail.get("interval"), detail.get("n"))
    if text in said:
        return ""
    bound = f"; limit {number(limit)}" if isinstance(limit, int | float) else ""
    return f" ({detail.get('check') or 'measured'}: {text}{bound})"


def _incident(state: AppState, incidents: Sequence[Incident], held: str) -> Story:
    first = incidents[0]
    more = f" {count(len(incidents))} incidents are open." if len(incidents) > 1 else ""
    return Story(
        happened=f"Incident {first.id} is open on {state.app}: {first.monitor} is over its limit.",
        serves=_serves(state),
        why=_sentence(first.summary) + _behind(first.facts),
        did=f"mlguard opened it on {moment(first.opened_at)}.{more}{held}",
        next_step="Look at its numbers below; then wait, roll back, or deploy a fix:",
        command=f"mlguard incident {first.id}",
    )


def _behind(facts: dict[str, Any]) -> str:
    """Say what is behind an alarm, where that was found out when it was raised."""
    said = facts.get("explained")
    return f" {said}" if isinstance(said, str) and said else ""


def _judged(state: AppState, figures: Sequence[Figure], predictions: int, held: str) -> Story:
    verdicts = [one.verdict for one in figures]
    failed = [one for one in figures if one.verdict in (Verdict.FAILED, Verdict.ERRORED)]
    warned = [one for one in figures if one.verdict is Verdict.WARNED]
    open_ones = [one for one in figures if one.verdict is Verdict.INCONCLUSIVE]
    moved = f"No traffic was moved.{held}"
    if failed or warned:
        bad = failed or warned
        whose = "its limit" if len(bad) == 1 else "their limits"
        word = f"over {whose}" if failed else f"above {whose}, not proven"
        names = listed([one.subject or one.id for one in bad], 4)
        step = next((one.next_step for one in bad if one.next_step), "")
        command = step if step.startswith("mlguard ") else f"mlguard status {state.app}"
        return Story(
            happened=f"{count(len(bad))} of {count(len(verdicts))} figures of {state.app} "
            f"{'is' if len(bad) == 1 else 'are'} {word}: {names}.",
            serves=_serves(state),
            why=_sentence(bad[0].summary or _figure(bad[0])),
            did=moved,
            next_step="Look at what moved below, then decide whether the model is to follow:"
            if not step or step.startswith("mlguard ")
            else step,
            command=command,
        )
    if not predictions:
        return Story(
            happened=f"{state.app} was not asked anything in this period.",
            serves=_serves(state),
            why="Without traffic there is nothing to judge.",
            did=moved,
            next_step="Check that callers reach the server:",
            command=f"mlguard status {state.app}",
        )
    if open_ones and len(open_ones) == len(verdicts):
        return Story(
            happened=f"Nothing about {state.app} could be decided yet.",
            serves=_serves(state),
            why=_sentence(open_ones[0].summary or "There is too little data"),
            did=moved,
            next_step="More rows and labels will tell. See what is waited for:",
            command=f"mlguard status {state.app}",
        )
    undecided = f"; {count(len(open_ones))} undecided" if open_ones else ""
    judged = len(verdicts) - len(open_ones)
    return Story(
        happened=f"All is within its limits on {state.app}."
        if judged
        else f"No monitor has judged {state.app} yet.",
        serves=_serves(state),
        why=f"{count(judged)} figures from {count(predictions)} predictions are within their "
        f"limits{undecided}.",
        did=moved,
        next_step="Nothing is needed.",
    )


def _figure(figure: Figure) -> str:
    limit = f"; limit {number(figure.limit)}" if figure.limit is not None else ""
    return f"{figure.name}: {estimate(figure.value, figure.interval, figure.n)}{limit}"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?…" else f"{text}."
