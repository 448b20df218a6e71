"""A version on its way in: each step of its rollout is judged beside the version that serves.

The watcher drives, because it outlives whoever typed `deploy`: it takes the rows and labels that
came since its last look, holds the two versions against each other, and goes on, waits, or ends
the rollout as :func:`mlguard.policy.step_decision` says.  What it knows stands in the registry
together with how far it has read, so that a restart judges no row twice and forgets none.

===================  ==================================================================
``rollout.errors``   valid rows on which the model raised or gave nonsense, against a limit
``rollout.failures``  valid rows that got the default answer, against the live version
``rollout.loss``     loss on labelled rows, against the live version
===================  ==================================================================

As a shadow both versions answer the same rows, so differences are judged; as a canary each
answers its own callers, so the two losses are.  ``[rollout] alpha`` is shared by all comparisons
of all steps.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlguard.config import ProjectSettings
from mlguard.data.mirrored import mirrored_folder
from mlguard.deploy.fingerprints import policy_digest
from mlguard.deploy.step_record import (
    COMPARISONS,
    ERRORS,
    FAILURES,
    LOSS,
    check_id,
    state_name,
    step_words,
)
from mlguard.deploy.watch_actions import TickEvent
from mlguard.deploy.watch_app import AppWatch
from mlguard.deploy.watch_clock import Stopwatch, boot_id
from mlguard.deploy.watch_labels import Answerer
from mlguard.deploy.watch_rows import Place, walk
from mlguard.errors import ConflictError, RefusedError
from mlguard.monitors.losses import loss, reference_scale, row_losses
from mlguard.monitors.service import NOT_THE_MODEL
from mlguard.policy import StepDecision, step_decision
from mlguard.registry import State
from mlguard.results import CheckResult, Verdict
from mlguard.stats.concurrent import Ceiling, Paired, Standing, TwoArms

if TYPE_CHECKING:
    import pyarrow as pa

    from mlguard.registry import Operation, Rolling, Version

#: Rows before a version may be called broken.
_ERRORS_N_MIN = 20
#: What is known of a step is stored this often while it waits.
_STORE_S = 5.0
#: A refusal that says that the grounds of the rollout are gone, not that it has to wait.
_GROUNDLESS = ("evidence", "waiver", "quarantine")

_Values = npt.NDArray[np.float64]
_NONE: _Values = np.empty(0)


@dataclass(slots=True)
class Comparisons:
    """The three comparisons of one step."""

    errors: Ceiling
    failures: TwoArms | Paired
    loss: TwoArms | Paired

    @classmethod
    def of(cls, watch: AppWatch, operation: Operation) -> Comparisons:
        """Begin the comparisons of the step that an operation is at."""
        rules = watch.settings.rollout
        alpha = rules.alpha / (len(COMPARISONS) * len(operation.steps))
        kind = Paired if operation.steps[operation.step] == "shadow" else TwoArms
        limit = watch.settings.monitor.service.model_errors
        failures, losses = (
            kind(margin=rules.margin, alpha=alpha, n_min=rules.step_min_rows) for _ in range(2)
        )
        return cls(Ceiling(limit=limit, alpha=alpha, n_min=_ERRORS_N_MIN), failures, losses)

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs."""
        return {name: getattr(self, name).snapshot() for name in COMPARISONS}

    def restore(self, document: Mapping[str, Any]) -> Comparisons:
        """Go on from a snapshot."""
        for name in COMPARISONS:
            getattr(self, name).restore(document[name])
        return self


@dataclass(slots=True, kw_only=True)
class RolloutWatch:
    """Drives the rollout of one app in one pass.

    Attributes
    ----------
    watch : AppWatch
        The pass.
    active : Version
        What serves.
    project : ProjectSettings
        Whose checks the rollout was let through by.
    monotonic : float
        Seconds that only ever grow.
    """

    watch: AppWatch
    active: Version
    project: ProjectSettings
    monotonic: float
    events: list[TickEvent] = field(default_factory=list)

    def drive(self) -> None:
        """Judge the step that is due, and do what that asks for."""
        registry, app = self.watch.registry, self.watch.app
        rolling = registry.rolling(app)
        if rolling is None:
            return
        if not rolling.alive:
            # Sooner than the round of tidying up: nobody's candidate answers nobody.
            for said in registry.reconcile(app):
                self._tell("reconciled", said)
            return
        if rolling.operation.step < 0 or not self._stands(rolling):
            return
        known = self._read(rolling)
        findings = [CheckResult.from_json(one) for one in known["findings"]]
        rules = self.watch.settings.rollout
        decision = step_decision(
            findings,
            [check_id(one) for one in (ERRORS, *rules.compare)],
            rules,
            elapsed_s=Stopwatch.from_json(known["clock"]).elapsed_s,
        )
        self._keep(rolling, known, decision)
        try:
            self._act(rolling, decision, findings)
        except (ConflictError, RefusedError) as error:
            # A hold, a server that has not loaded it yet, somebody faster: the next pass sees.
            if error.data.get("clause") in _GROUNDLESS:
                self._drain(rolling, error.message)
            else:
                self._tell("deferred", error.message)

    def _tell(self, kind: str, summary: str, **detail: Any) -> None:
        self.events.append(
            TickEvent(
                at=self.watch.now, app=self.watch.app, kind=kind, summary=summary, detail=detail
            )
        )

    # --- does it still stand? ------------------------------------------------------------

    def _stands(self, rolling: Rolling) -> bool:
        """Drain a rollout whose grounds are gone; return whether it goes on."""
        operation = rolling.operation
        try:
            self.watch.registry.recheck(operation)
        except RefusedError as error:
            self._drain(rolling, error.message)
            return False
        except ConflictError:
            return False
        policy = policy_digest(self.project, self.watch.settings, self.active.digest)
        if operation.policy_digest not in (None, policy):
            self._drain(rolling, "the rules that it was judged by have changed meanwhile")
            return False
        return True

    def _drain(self, rolling: Rolling, why: str) -> None:
        try:
            self.watch.registry.abort(rolling.operation, why)
        except ConflictError as error:
            self._tell("deferred", error.message)
        else:
            self._tell("drained", f"{rolling.version.name} gets no more traffic: {why}")

    # --- doing ---------------------------------------------------------------------------

    def _act(self, rolling: Rolling, decision: StepDecision, findings: list[CheckResult]) -> None:
        registry, operation, name = self.watch.registry, rolling.operation, rolling.version.name
        detail = {"findings": [one.to_json() for one in findings]}
        where = f"{name}, {step_words(operation)}"
        why = f"{where}: {decision.because}"
        match decision.act:
            case "fail":
                worst = next(one for one in findings if one.verdict is Verdict.FAILED)
                document = worst.to_json()
                numbers = {key: document[key] for key in ("value", "limit", "interval", "n")}
                registry.fail(operation, why, check=worst.name, detail={**detail, **numbers})
                self._tell("rollout_failed", why, check=worst.name)
            case "withdraw":
                registry.withdraw(operation, why, detail=detail)
                self._tell("withdrawn", why)
            case "go_on" if operation.step + 1 < len(operation.steps):
                after = registry.advance(operation, reason=why, detail=detail)
                self._tell("advanced", f"{name}: {step_words(after.operation)}; {why}")
            case "go_on":
                registry.promote(operation, reason=why, detail=detail)
                self._tell("promoted", f"{name} answers everybody; {why}")
            case _:
                pass

    # --- reading -------------------------------------------------------------------------

    def _key(self, rolling: Rolling) -> tuple[str, int, int, str]:
        operation = rolling.operation
        return (
            self.watch.app,
            rolling.version.id,
            operation.expected_generation,
            state_name(operation),
        )

    def _read(self, rolling: Rolling) -> dict[str, Any]:
        """Take what came since the last look; return the step's state as it is now."""
        operation = rolling.operation
        known = self.watch.memory.state(self._key(rolling))
        clock = Stopwatch.from_json(None if known is None else known["clock"]).read(
            wall=self.watch.now, monotonic=self.monotonic, boot=boot_id(), serving=True
        )
        if known is None:
            since = operation.step_at or self.watch.now
            start = Place(since=since).to_json()
            cursor = self.watch.labels.cursor_at(since)
            known = {"new": start, "live": start, "cursor": cursor, "findings": []}
        comparisons = Comparisons.of(self.watch, operation)
        if "comparisons" in known:
            comparisons.restore(known["comparisons"])
        shadow = rolling.version.state is State.SHADOW
        places = (self._pairs if shadow else self._arms)(rolling, known, comparisons)
        cursor = self._labels(rolling, known["cursor"], comparisons, shadow=shadow)
        rules = self.watch.settings
        return {
            **places,
            "clock": clock.to_json(),
            "cursor": cursor,
            "comparisons": comparisons.snapshot(),
            "findings": [
                one.to_json()
                for one in _findings(
                    comparisons,
                    rules.rollout.margin,
                    rules.rollout.step_min_rows,
                    version=rolling.version.name,
                    live=self.active.name,
                )
            ],
            "stored": known.get("stored", float("-inf")),
        }

    def _keep(self, rolling: Rolling, known: dict[str, Any], decision: StepDecision) -> None:
        known["because"] = decision.because
        key = self._key(rolling)
        # Between two stores a restart reads the same rows again, which comes to the same.
        if decision.act == "wait" and 0 <= self.watch.now - known["stored"] < _STORE_S:
            self.watch.memory.keep(key, known)
        else:
            self.watch.memory.store(key, {**known, "stored": self.watch.now})

    def _fresh(self, version_id: int | str, place: Place) -> tuple[pa.Table, Place]:
        stretch = walk(
            self.watch.log,
            self.watch.app,
            version_id=version_id,
            generation=self.watch.state.generation,
            place=place,
            window_s=float("inf"),
            window_rows=2**62,
            now=self.watch.now,
            block_of=self.watch.memory.block_of,
        )
        n = stretch.rows.num_rows
        return stretch.rows, stretch.after(n) if n else dataclasses.replace(
            place, seen_at=self.watch.now
        )

    def _arms(
        self, rolling: Rolling, known: Mapping[str, Any], comparisons: Comparisons
    ) -> dict[str, Any]:
        """Take the rows that each version answered its own callers."""
        new, new_place = self._fresh(rolling.version.id, Place.from_json(known["new"]))
        live, live_place = self._fresh(self.active.id, Place.from_json(known["live"]))
        errors, failures = _failed(new)
        comparisons.errors.update(errors)
        comparisons.failures.update(failures, _failed(live)[1])
        return {"new": new_place.to_json(), "live": live_place.to_json()}

    def _pairs(
        self, rolling: Rolling, known: Mapping[str, Any], comparisons: Comparisons
    ) -> dict[str, Any]:
        """Take the rows that both answered."""
        new, place = self._fresh(mirrored_folder(rolling.version.id), Place.from_json(known["new"]))
        live = self.watch.log.read(
            self.watch.app,
            version_id=self.active.id,
            generation=self.watch.state.generation,
            query_ids=new.column("query_id").to_pylist(),
        )
        comparisons.errors.update(_failed(new)[0])
        ours, theirs = _failed_by_id(new), _failed_by_id(live)
        both = [one for one in ours if one in theirs]
        comparisons.failures.update([ours[one] for one in both], [theirs[one] for one in both])
        return {"new": place.to_json(), "live": known["live"]}

    # --- labels --------------------------------------------------------------------------

    def _labels(
        self, rolling: Rolling, cursor: int, comparisons: Comparisons, *, shadow: bool
    ) -> int:
        """Take the labels that arrived for rows of this step; return how far they were read."""
        generation = self.watch.state.generation
        ours = Answerer(rolling.version.id, generation)
        theirs = Answerer(self.active.id, generation)
        scale = reference_scale(self.watch.memory.reference(self.watch.app, self.active.digest))
        task = self.watch.settings.app.task
        since = rolling.operation.step_at or 0.0
        for batch in self.watch.reader().read(cursor):
            parts = []
            for owner in (ours, theirs):
                data = batch.parts.get(owner)
                # What was answered before the step says nothing about the two side by side.
                data = None if data is None else data.take(data.time >= since)
                parts.append((data, *_losses(data, task, scale)))
            (_, new, _), (data, live, judged) = parts
            if not shadow:
                comparisons.loss.update(new, live)
            elif data is not None and len(live):
                ids = data.query_id[judged].tolist()
                labels = dict(zip(ids, data.label[judged].tolist(), strict=True))
                found = self._mirrored_losses(rolling, labels, task, scale)
                known = dict(zip(ids, live.tolist(), strict=True))
                both = [one for one in ids if one in found]
                comparisons.loss.update([found[one] for one in both], [known[one] for one in both])
            cursor = batch.cursor
        return cursor

    def _mirrored_losses(
        self, rolling: Rolling, labels: Mapping[int, Any], task: Any, scale: float
    ) -> dict[int, float]:
        rows = self.watch.log.read(
            self.watch.app,
            version_id=mirrored_folder(rolling.version.id),
            generation=self.watch.state.generation,
            query_ids=list(labels),
        )
        found = {}
        for query_id, output, default in _columns(rows, "query_id", "output", "default"):
            if default or output is None:
                continue
            one = loss(json.loads(output), labels[query_id], task=task, scale=scale)
            if not np.isnan(one):
                found[query_id] = one
        return found


def _columns(rows: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    yield from zip(*(rows.column(name).to_pylist() for name in names), strict=True)


def _losses(data: Any, task: Any, scale: float) -> tuple[_Values, Any]:
    if data is None or not len(data):
        return _NONE, np.empty(0, bool)
    losses, judged = row_losses(data, task=task, scale=scale)
    return losses[judged], judged


def _failed(rows: pa.Table) -> tuple[_Values, _Values]:
    """Return, of the valid rows, which the model failed on, and which got the default answer."""
    valid = [
        (bool(default), bool(default) and explanation not in NOT_THE_MODEL)
        for default, explanation, valid in _columns(rows, "default", "explanation", "valid")
        if valid
    ]
    return (
        np.array([broken for _, broken in valid], float),
        np.array([failed for failed, _ in valid], float),
    )


def _failed_by_id(rows: pa.Table) -> dict[int, float]:
    return {
        query_id: float(default)
        for query_id, default, valid in _columns(rows, "query_id", "default", "valid")
        if valid
    }


def _findings(
    comparisons: Comparisons, margin: float, n_min: int, *, version: str, live: str
) -> list[CheckResult]:
    errors = comparisons.errors
    words = {
        ERRORS: f"valid rows on which {version} gave no prediction",
        FAILURES: f"default answers of {version} beyond those of {live}",
        LOSS: f"loss of {version} beyond that of {live}",
    }
    return [
        _finding(ERRORS, errors.standing, errors.limit, errors.n_min, words[ERRORS]),
        _finding(FAILURES, comparisons.failures.standing, margin, n_min, words[FAILURES]),
        _finding(LOSS, comparisons.loss.standing, margin, n_min, words[LOSS]),
    ]


def _finding(name: str, standing: Standing, limit: float, n_min: int, words: str) -> CheckResult:
    n = standing.n if name == ERRORS else min(standing.n, standing.n_other)
    rows = "labelled rows" if name == LOSS else "rows"
    low, high = standing.low, standing.high
    if standing.state == "few":
        verdict, reason = Verdict.INCONCLUSIVE, "no_labels" if name == LOSS and not n else "few"
        says = f"{words}: {n} {rows}, {n_min} are needed"
    else:
        verdict, reason = {
            "worse": (Verdict.FAILED, "limit_exceeded"),
            "alike": (Verdict.PASSED, ""),
            "above": (Verdict.INCONCLUSIVE, "not_proven"),
        }[standing.state]
        value = 0.0 if standing.value is None else standing.value
        # Rows that change on their way can rule out every mean: the estimate stays inside.
        high = max(high, low, value)
        says = (
            f"{words}: {value:+.1%} ({low:+.1%} to {high:+.1%}) on {n} {rows}, at most {limit:+.1%}"
        )
    return CheckResult(
        id=check_id(name),
        verdict=verdict,
        summary=says,
        value=standing.value,
        limit=limit,
        interval=(low, high),
        n=n,
        n_min=n_min,
        reason=reason,
    )
