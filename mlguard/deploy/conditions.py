"""What each monitor of an app is doing, as the watcher left it on record.

Apart from the watcher, so that whoever only shows it loads nothing that judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlguard.registry import AppState, Registry


def conditions(registry: Registry, state: AppState) -> dict[str, Any]:
    """Return what each monitor of an app is doing: armed, idle, waiting or blind.

    Empty where no watcher has looked at the version that serves yet.
    """
    if state.active is None:
        return {}
    found = registry.monitor_state(state.app, state.active.id, state.generation, "conditions")
    monitors: dict[str, Any] = (found or {}).get("monitors", {})
    return monitors
