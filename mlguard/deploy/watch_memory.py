"""What a watcher keeps in mind between two passes; all of it stands in the registry as well.

Reading it back every second would cost more than judging.  A watcher that is not the leader
forgets everything: what another process decided meanwhile is in the registry, not here.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlguard.deploy.watch_labels import Answerer
from mlguard.deploy.watch_rows import unknown_block
from mlguard.results import MonitorResult

if TYPE_CHECKING:
    from mlguard.data.profile import Profile
    from mlguard.registry import IdBlock, Registry

#: Results of one check that a decision may look back on.
HISTORY = 60
#: Results read back after a restart, over all checks of an app.
_READ_BACK = 600

#: Names the state of one monitor: app, version, generation, monitor.
Key = tuple[str, int, int, str]


@dataclass(slots=True)
class Memory:
    """Caches over one registry."""

    registry: Registry
    _states: dict[Key, dict[str, Any] | None] = field(default_factory=dict)
    _references: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _profiles: dict[tuple[str, str], Profile] = field(default_factory=dict)
    _histories: dict[tuple[str, int], dict[str, list[MonitorResult]]] = field(default_factory=dict)
    _blocks: dict[int, IdBlock] = field(default_factory=dict)
    _firsts: list[int] = field(default_factory=list)
    _names: dict[int, tuple[str, str]] = field(default_factory=dict)

    def forget(self) -> None:
        """Forget what another process may have changed."""
        self._states.clear()
        self._references.clear()
        self._profiles.clear()
        self._histories.clear()

    # --- states --------------------------------------------------------------------------

    def state(self, key: Key) -> dict[str, Any] | None:
        """Return what was stored under a key, if anything."""
        if key not in self._states:
            self._states[key] = self.registry.monitor_state(*key)
        return self._states[key]

    def store(self, key: Key, document: Mapping[str, Any]) -> None:
        """Store a state; where the registry fails, nothing is remembered either."""
        self.registry.set_monitor_state(*key, document)
        self._states[key] = dict(document)

    def keep(self, key: Key, document: Mapping[str, Any]) -> None:
        """Remember a state here only, where losing a moment of it does not matter."""
        self._states[key] = dict(document)

    def forget_generations(self, app: str, current: int) -> None:
        """Drop what belongs to earlier generations of an app."""
        # Generation 0 holds what belongs to the app as a whole.
        for key in [k for k in self._states if k[0] == app and 0 < k[2] < current]:
            del self._states[key]
        for place in [p for p in self._histories if p[0] == app and p[1] < current]:
            del self._histories[place]

    # --- references and names ------------------------------------------------------------

    def reference(self, app: str, digest: str) -> dict[str, Any]:
        """Return the reference of some bytes; empty where there is none yet."""
        found = self._references.get((app, digest))
        if found is None:
            found = self.registry.reference(app, digest)
            if found is None:
                return {}
            self._references[app, digest] = found
        return found

    def profile(self, app: str, digest: str) -> Profile | None:
        """Return the profile of some bytes' reference; None where there is none."""
        known = self._profiles.get((app, digest))
        if known is None:
            document = self.reference(app, digest).get("profile")
            if document is None:
                return None
            from mlguard.data.profile import Profile

            known = self._profiles[app, digest] = Profile.from_json(document)
        return known

    def version(self, version_id: int) -> tuple[str, str]:
        """Return name and digest of a version."""
        if version_id not in self._names:
            found = self.registry.version_by_id(version_id)
            self._names[version_id] = found.name, found.digest
        return self._names[version_id]

    # --- results -------------------------------------------------------------------------

    def history(self, app: str, generation: int) -> dict[str, list[MonitorResult]]:
        """Return the results of a generation by name of their check, oldest first."""
        place = app, generation
        if place not in self._histories:
            found: dict[str, list[MonitorResult]] = defaultdict(list)
            for _, result in reversed(self.registry.monitor_results(app, limit=_READ_BACK)):
                if result.window is not None and result.window.generation == generation:
                    found[result.name].append(result)
            self._histories[place] = found
        return self._histories[place]

    def record(self, app: str, result: MonitorResult) -> bool:
        """Record a result; False where it was recorded before, by a pass that was cut short."""
        if self._knows(app, result):
            return False
        self.registry.record_monitor_result(app, result)
        self._remember(app, result)
        return True

    def record_judged(
        self, app: str, results: Sequence[MonitorResult], key: Key, document: Mapping[str, Any]
    ) -> list[MonitorResult]:
        """Record results with the state that their monitor has then; return those that are new."""
        # By what tells results apart: a monitor may say a thing twice.
        told: dict[tuple[Any, ...], MonitorResult] = {}
        for one in results:
            told.setdefault((one.name, one.window, one.version, one.n), one)
        new = [one for one in told.values() if not self._knows(app, one)]
        self.registry.record_judged(app, new, key, document)
        for one in new:
            self._remember(app, one)
        self._states[key] = dict(document)
        return new

    def _of(self, app: str, result: MonitorResult) -> list[MonitorResult]:
        if result.window is None:
            raise ValueError(f"{result.name} names no window")
        return self.history(app, result.window.generation)[result.name]

    def _knows(self, app: str, result: MonitorResult) -> bool:
        return any(
            (one.window, one.version, one.n) == (result.window, result.version, result.n)
            for one in self._of(app, result)
        )

    def _remember(self, app: str, result: MonitorResult) -> None:
        history = self._of(app, result)
        history.append(result)
        del history[:-HISTORY]

    # --- query ids -----------------------------------------------------------------------

    def _block(self, query_id: int) -> IdBlock | None:
        place = bisect.bisect_right(self._firsts, query_id) - 1
        if place >= 0:
            known = self._blocks[self._firsts[place]]
            if query_id < known.first + known.size:
                return known
        found = self.registry.id_block(query_id)
        if found is not None and found.first not in self._blocks:
            self._blocks[found.first] = found
            bisect.insort(self._firsts, found.first)
        return found

    def who_answered(self, query_id: int) -> Answerer | None:
        """Return who answered a query, None where its id was never given out."""
        found = self._block(query_id)
        return None if found is None else Answerer(found.version_id, found.generation)

    def block_of(self, query_id: int) -> tuple[int, int]:
        """Return first id and size of the block of a query id."""
        found = self._block(query_id)
        return unknown_block(query_id) if found is None else (found.first, found.size)
