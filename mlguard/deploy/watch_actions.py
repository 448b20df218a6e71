"""From what the monitors found to what is done: incidents, holds, rollback, default output.

The rules are :mod:`mlguard.policy`'s; here they are asked on every pass, about all results of
the current generation, and what they want is compared with what was done already.  So nothing
depends on being awake in the right second: a wish that a grace period or a cooldown defers is
there again on the next pass, and one that was met is not met twice.

Results of earlier generations are never asked about: labels that come late are credited to the
version that answered, and move nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlguard.deploy.explaining import explain_alarm, rows_before
from mlguard.deploy.qualify import N_MIN, Failure, Replayer, try_targets
from mlguard.deploy.watch_app import AppWatch
from mlguard.errors import ConflictError, IntegrityError, RefusedError, UsageError
from mlguard.monitors.losses import acceptable_loss, reference_scale
from mlguard.monitors.window import WindowData, window_data
from mlguard.policy import (
    Action,
    Level,
    Standing,
    Trial,
    clears,
    is_blind,
    is_hard,
    settle,
)
from mlguard.results import MonitorResult, Verdict

if TYPE_CHECKING:
    from mlguard.registry import Incident, Version

_log = logging.getLogger(__name__)

#: An incident that cleared this recently is opened again, not anew: what flaps is one thread.
REOPEN_S = 86400.0
#: Words that belong to one mail and must not stay in the incident for the next.
_WORDS = ("happened", "serves", "did", "next", "command")
#: Facts of a finding that go into mail.
_FACTS = (
    "value",
    "limit",
    "interval",
    "n",
    "n_min",
    "window",
    "measurements",
    "summary",
    "nonfinite",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TickEvent:
    """One thing that happened in a pass.

    Attributes
    ----------
    at : float
        When, seconds since the epoch.
    app : str
        To whom; empty for all.
    kind : str
        ``verdict, alert, frozen, rolled_back, default_output, cleared, confirmed, unconfirmed,
        advanced, promoted, withdrawn, rollout_failed, drained, deferred, reconciled, rehearsed,
        explained, delivered, report, log, error``.
    summary : str
        One sentence.
    detail : dict
        The numbers, as JSON values.
    """

    at: float
    app: str
    kind: str
    summary: str
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON values."""
        return {
            "at": self.at,
            "app": self.app,
            "kind": self.kind,
            "summary": self.summary,
            **self.detail,
        }


@dataclass(slots=True, kw_only=True)
class Actor:
    """Acts for one app on what one pass has found.

    Attributes
    ----------
    watch : AppWatch
        The pass.
    active : Version
        What serves.
    standing : Standing
        Where the app stands.
    replay : callable, optional
        Plays rows to a model; default: in a child process.
    """

    watch: AppWatch
    active: Version
    standing: Standing
    replay: Replayer | None = None
    events: list[TickEvent] = field(default_factory=list)

    @property
    def _key(self) -> tuple[str, int, int, str]:
        return self.watch.app, self.active.id, self.watch.state.generation, "policy"

    def act(self) -> bool:
        """Compare what is wanted with what was done, do what is left; return whether it moved."""
        wishes: list[tuple[Action, str, list[MonitorResult]]] = []
        for name, history in self.watch.memory.history(
            self.watch.app, self.watch.state.generation
        ).items():
            if not history or not self.watch.table(history[-1].family).enabled:
                continue
            action = self.watch.judging.wanted(history, self.watch.settings.auto, self.standing)
            wishes.append((action, name, history))
        # The gravest first: after a move the rest is about a version that no longer serves.
        wishes.sort(key=lambda one: (-one[0].level, not is_hard(one[2][-1])))
        return any(self._consider(action, name, history) for action, name, history in wishes)

    def _said(self) -> dict[str, dict[str, Any]]:
        found = self.watch.memory.state(self._key) or {"said": {}}
        return dict(found["said"])

    def _note(self, name: str, said: Mapping[str, Any] | None) -> None:
        known = self._said()
        known.pop(name, None)
        if said is not None:
            known[name] = dict(said)
        self.watch.memory.store(self._key, {"said": known})

    def _tell(self, kind: str, summary: str, **detail: Any) -> None:
        self.events.append(
            TickEvent(
                at=self.watch.now, app=self.watch.app, kind=kind, summary=summary, detail=detail
            )
        )

    # --- one check -----------------------------------------------------------------------

    def _consider(self, action: Action, name: str, history: list[MonitorResult]) -> bool:
        """Do what one check asks for, unless it was done; return whether traffic moved."""
        said = self._said().get(name)
        fingerprint = _fingerprint(action, history) + self._ripeness(action, history)
        if said is not None and said["asked"] == fingerprint:
            return False
        if action.level is Level.NONE:
            rules = self.watch.table(history[-1].family)
            if said is not None and said["incident"] is not None and clears(history, rules):
                self._clear(name, said["incident"], history[-1])
            elif action.deferred:
                self._tell("deferred", action.because, check=name, wanted=action.wanted.word)
                self._note(name, {"asked": fingerprint, "level": 0, "incident": None})
            return False
        trials: list[Trial] = []
        final = action
        if action.level.moves_traffic:
            trials = self._try_targets(history)
            final = settle(action, trials, hard=is_hard(history[-1]), auto=self.watch.settings.auto)
        try:
            final, incident = self._do(final, name, history, trials, said)
        except (ConflictError, IntegrityError) as error:
            # Somebody was faster, or a target broke: the next pass sees the new state.
            self._tell("deferred", error.message, check=name)
            return isinstance(error, ConflictError)
        if not final.level.moves_traffic:
            self._note(
                name,
                {"asked": fingerprint, "level": int(final.level), "incident": incident.id},
            )
        return final.level.moves_traffic

    def _ripeness(self, action: Action, history: Sequence[MonitorResult]) -> str:
        """Name how much an alarm rests on by now, in doublings.

        A sequential alarm may be raised by fewer labels than a comparison of versions needs;
        the comparison is made again when they have doubled.
        """
        failed = _last_failed(history)
        if not (action.wanted.moves_traffic and failed.sequential):
            return ""
        monitor = self.watch.sequential(self.watch.owner(failed), self.active)
        n = 0 if monitor is None else len(monitor.evidence(failed.subject))
        return f"/{n.bit_length() if n >= N_MIN else 0}"

    def _clear(self, name: str, incident: int, last: MonitorResult) -> None:
        why = f"{name} is in order again: {last.summary}"
        self.watch.registry.update_incident(
            incident,
            state="cleared",
            facts={**_finding_facts(last), **dict.fromkeys(_WORDS, ""), "why": why},
        )
        self.watch.registry.resume(self.watch.app, why, incident=incident)
        self._note(name, None)
        self._tell("cleared", why, check=name, incident=incident)

    def _try_targets(self, history: list[MonitorResult]) -> list[Trial]:
        targets = self.watch.registry.rollback_targets(self.watch.app, automatic=True)
        auto = self.watch.settings.auto
        return try_targets(
            targets,
            self._failure(history),
            at_most=auto.targets_tried,
            fetch=self.watch.registry.artifacts.get,
            replay=self.replay,
            needs_comparison=auto.qualify,
        )

    def _failure(self, history: list[MonitorResult]) -> Failure:
        failed = _last_failed(history)
        settings = self.watch.settings
        reference = self.watch.memory.reference(self.watch.app, self.active.digest)
        try:
            theta = acceptable_loss(reference, tolerance=settings.monitor.concept_drift.tolerance)
        except UsageError:
            theta = None
        if failed.sequential and failed.limit is not None:
            theta = failed.limit
        monitor = self.watch.monitor(self.watch.owner(failed), self.active.digest)
        rejudges = monitor is not None and getattr(monitor, "judges_answers", False)
        return Failure(
            check=failed.name,
            hard=is_hard(failed),
            window=self._failing_rows(failed),
            task=settings.app.task,
            scale=reference_scale(reference),
            theta=theta,
            rejudge=monitor.judge if monitor is not None and rejudges else None,
        )

    def _failing_rows(self, failed: MonitorResult) -> WindowData | None:
        """Read the rows that a failure rests on, with their labels."""
        read = self.watch.log.read
        where: dict[str, Any] = {
            "version_id": self.active.id,
            "generation": self.watch.state.generation,
        }
        if failed.sequential:
            monitor = self.watch.sequential(self.watch.owner(failed), self.active)
            ids = [] if monitor is None else monitor.evidence(failed.subject)
            table = read(self.watch.app, query_ids=ids, **where)
        elif failed.window is not None and failed.window.n_rows:
            until = math.nextafter(failed.window.end, math.inf)
            table = read(self.watch.app, since=failed.window.start, until=until, **where)
        else:
            # A failure without rows of its own, e.g. to load: any recent ones will do.
            table = read(self.watch.app, since=self.watch.now - REOPEN_S, **where)
        if not table.num_rows:
            return None
        labels = self.watch.labels.get(table.column("query_id").to_pylist())
        return window_data(table, version=self.active.name, labels=labels)

    # --- doing ---------------------------------------------------------------------------

    def _do(
        self,
        final: Action,
        name: str,
        history: list[MonitorResult],
        trials: Sequence[Trial],
        said: Mapping[str, Any] | None,
    ) -> tuple[Action, Incident]:
        failed = _last_failed(history)
        facts = {
            "check": name,
            "monitor": failed.family,
            "version": self.active.name,
            **_finding_facts(failed),
            **_change_point(failed),
            **(self._explained(history) if said is None or final.level > said["level"] else {}),
            "trials": [one.to_json() for one in trials],
            "no_target": final.wanted.moves_traffic
            and bool(final.level is Level.FREEZE and not final.deferred)
            and all(one.outcome == "unfit" for one in trials),
            "why": f"{final.because}. {failed.summary}.",
            **dict.fromkeys(_WORDS, ""),
        }
        if final.level is Level.FREEZE:
            facts |= _freeze_words(self.watch.app, self.active.name, name, final, history)
        mail = "alert" if final.level is Level.ALERT else None
        incident = self._incident(name, final.level, failed.summary, facts, mail)
        match final.level:
            case Level.ROLLBACK:
                return self._roll_back(final, incident, facts, trials[-1])
            case Level.DEFAULT_OUTPUT:
                return self._give_up(final, incident, facts)
            case Level.FREEZE:
                self._freeze(final, incident, facts, said, blind=is_blind(history))
            case _:
                if said is None or said["level"] < Level.ALERT:
                    self._tell("alert", facts["why"], check=name, incident=incident.id)
        return final, incident

    def _explained(self, history: Sequence[MonitorResult]) -> dict[str, Any]:
        """Explain a failure; whatever goes wrong with that must not keep a rollback waiting."""
        failed = _last_failed(history)
        try:
            after = self._failing_rows(failed)
            if after is None:
                return {}
            before = rows_before(
                self.watch.log,
                self.watch.labels,
                self.watch.app,
                after,
                version_id=self.active.id,
                window_s=self.watch.table(failed.family).window,
            )
            reference = self.watch.memory.reference(self.watch.app, self.active.digest)
            found = explain_alarm(
                self.watch.settings,
                reference,
                self.watch.judging.build("data_drift", reference),
                before=before,
                after=after,
                since=_since(history, after),
            )
        # It reads rows of any shape and asks a monitor.
        except Exception:  # noqa: BLE001  see above
            _log.exception("explaining %s of %s", failed.name, self.watch.app)
            return {}
        return {"explanation": found, "explained": " ".join(found["said"])}

    def _incident(
        self, name: str, level: Level, summary: str, facts: dict[str, Any], mail: str | None
    ) -> Incident:
        registry = self.watch.registry
        for one in registry.incidents(self.watch.app):
            if (one.monitor, one.version_id) != (name, self.active.id):
                continue
            fresh = one.state == "cleared" and self.watch.now - one.updated_at < REOPEN_S
            if one.state == "open" or fresh:
                known = Level[one.level.upper()]
                return registry.update_incident(
                    one.id, level=max(level, known).word, facts=facts, state="open"
                )
            break
        return registry.open_incident(
            self.watch.app,
            monitor=name,
            version_id=self.active.id,
            summary=summary,
            facts=facts,
            level=level.word,
            mail=mail,
        )

    def _roll_back(
        self, final: Action, incident: Incident, facts: dict[str, Any], trial: Trial
    ) -> tuple[Action, Incident]:
        registry = self.watch.registry
        target = registry.version(self.watch.app, trial.version)
        why = f"{facts['why']} {target.name}: {trial.reason}."
        try:
            registry.rollback(
                self.watch.app,
                to=target,
                automatic=True,
                reason=why,
                expected_generation=self.watch.state.generation,
                incident=incident.id,
                detail=facts,
                auto=self.watch.settings.auto,
            )
        except RefusedError as error:
            return self._freeze_instead(final, incident, facts, error)
        self._tell(
            "rolled_back",
            why,
            check=facts["check"],
            incident=incident.id,
            **{"from": self.active.name, "to": target.name},
        )
        return final, incident

    def _give_up(
        self, final: Action, incident: Incident, facts: dict[str, Any]
    ) -> tuple[Action, Incident]:
        try:
            self.watch.registry.block(
                self.watch.app,
                facts["why"],
                automatic=True,
                incident=incident.id,
                expected_generation=self.watch.state.generation,
                detail=facts,
                auto=self.watch.settings.auto,
            )
        except RefusedError as error:
            return self._freeze_instead(final, incident, facts, error)
        self._tell("default_output", facts["why"], check=facts["check"], incident=incident.id)
        return final, incident

    def _freeze_instead(
        self, final: Action, incident: Incident, facts: dict[str, Any], error: RefusedError
    ) -> tuple[Action, Incident]:
        """Freeze where the registry refused the move: budget, cooldown, a target that is gone."""
        frozen = Action(
            level=Level.FREEZE, because=f"{final.because}; {error.message}", wanted=final.wanted
        )
        facts = {**facts, "why": f"{frozen.because}. {facts.get('summary', '')}"}
        self._freeze(frozen, incident, facts, None)
        return frozen, incident

    def _freeze(
        self,
        final: Action,
        incident: Incident,
        facts: dict[str, Any],
        said: Mapping[str, Any] | None,
        *,
        blind: bool = False,
    ) -> None:
        # A human who resumed has seen it: the same incident does not freeze again.
        if said is not None and said["level"] >= Level.FREEZE:
            return
        self.watch.registry.hold(
            self.watch.app,
            final.because,
            incident=incident.id,
            mail="blind" if blind else "frozen",
        )
        self._tell("frozen", facts["why"], check=facts["check"], incident=incident.id)

    def tidy(self) -> None:
        """Clear the incidents of versions that serve no more, but those that a human must close."""
        registry = self.watch.registry
        for one in registry.incidents(self.watch.app, open_only=True):
            serves = one.version_id == self.active.id
            if serves or one.level in (Level.ROLLBACK.word, Level.DEFAULT_OUTPUT.word):
                continue
            why = f"{one.version} does not serve any more"
            registry.update_incident(
                one.id, state="cleared", facts={**dict.fromkeys(_WORDS, ""), "why": why}
            )
            registry.resume(self.watch.app, why, incident=one.id)
            self._tell("cleared", f"{one.monitor}: {why}", incident=one.id)


def _last_failed(history: Sequence[MonitorResult]) -> MonitorResult:
    """Return the failure that is acted on; the last result where a blind monitor is."""
    return next((one for one in reversed(history) if one.verdict is Verdict.FAILED), history[-1])


def _fingerprint(action: Action, history: Sequence[MonitorResult]) -> str:
    """Name a wish, so that it is met once: it is a new one after a new failure."""
    failed = _last_failed(history)
    end = None if failed.window is None else failed.window.end
    return f"{action.level.word}/{action.wanted.word}/{action.deferred}/{end}/{failed.n}"


def _finding_facts(result: MonitorResult) -> dict[str, Any]:
    document = result.to_json()
    return {key: document[key] for key in _FACTS if key in document}


def _since(history: Sequence[MonitorResult], after: WindowData) -> float:
    """Return when a failure began: its change point, or the first window of its run."""
    alarm = _last_failed(history).details.get("alarm")
    if isinstance(alarm, dict):
        return float(alarm["change_point"]["time"])
    since = float(after.time.min())
    for one in reversed(history):
        if one.verdict is not Verdict.FAILED:
            break
        since = since if one.window is None else min(since, one.window.start)
    return since


def _change_point(result: MonitorResult) -> dict[str, Any]:
    alarm = result.details.get("alarm")
    if not isinstance(alarm, dict):
        return {}
    return {"change_point": alarm["change_point"], "delay_labels": alarm["delay_labels"]}


def _freeze_words(
    app: str, version: str, name: str, final: Action, history: Sequence[MonitorResult]
) -> dict[str, str]:
    if is_blind(history):
        happened = f"{app} is not being watched: {name} gives no verdict."
    elif final.wanted.moves_traffic and not final.deferred:
        happened = f"{name} failed on {version}, and a rollback would not help."
    elif final.wanted.moves_traffic:
        happened = f"{name} failed on {version}, and a rollback has to wait ({final.deferred})."
    else:
        happened = f"{name} failed on {version}; new deploys of {app} are held."
    return {
        "happened": happened,
        "serves": f"{version} keeps serving.",
        "did": "mlguard holds promotions; a rollback stays possible.",
        "next": "See the evidence, then decide: roll back, or deploy a fix.",
        "command": f"mlguard status {app}",
    }
