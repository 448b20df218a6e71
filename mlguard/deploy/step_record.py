"""The step that a rollout is at, as it is on record: which one, and what was found so far.

The watcher writes it (:mod:`mlguard.deploy.watch_rollout`); whoever only shows a rollout reads it
here, without loading what judges one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlguard.results import CheckResult

if TYPE_CHECKING:
    from mlguard.registry import Operation, Registry, Rolling

#: The comparisons, by the word that ``[rollout] compare`` has for them.
ERRORS, FAILURES, LOSS = "errors", "failures", "loss"
COMPARISONS = (ERRORS, FAILURES, LOSS)


def check_id(comparison: str) -> str:
    """Return the id of a comparison as a check."""
    return f"rollout.{comparison}"


def state_name(operation: Operation) -> str:
    """Return the name under which the state of a step is stored."""
    return f"rollout/{operation.id}/{operation.step}"


def step_words(operation: Operation) -> str:
    """Say which step a rollout is at: ``"shadow (step 1 of 3)"``."""
    if operation.step < 0:
        return "loading"
    what = operation.steps[operation.step]
    word = "shadow" if what == "shadow" else f"{float(what):.4g} of the callers"
    return f"{word} (step {operation.step + 1} of {len(operation.steps)})"


def step_findings(registry: Registry, rolling: Rolling) -> list[CheckResult]:
    """Return what was last found about the step that a rollout is at; empty before the first."""
    operation = rolling.operation
    known = registry.monitor_state(
        operation.app, rolling.version.id, operation.expected_generation, state_name(operation)
    )
    return [CheckResult.from_json(one) for one in (known or {}).get("findings", [])]
