"""Waiting for servers: until they have loaded a version, serve it, and have served it long enough.

Servers do what the registry says by themselves; whoever deploys only looks at what they report,
keeps the lease of the deployment alive meanwhile, and names those that lag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlguard.config import RolloutTable
from mlguard.deploy.training import Progress
from mlguard.errors import ModelRunError, PendingError
from mlguard.registry import AppState, Operation, Registry, State, Version
from mlguard.wording import duration

#: How often servers are asked whether they have loaded or switched, in seconds.
POLL_S = 0.1
#: How often the lease of the running operation is renewed, in seconds.
BEAT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers of a project, as one deployment sees them.

    Attributes
    ----------
    registry : Registry
    app : str
    rules : RolloutTable
        ``[rollout]``.
    progress, elapsed, sleep : callable
        As those of the deployment.
    """

    registry: Registry
    app: str
    rules: RolloutTable
    progress: Progress
    elapsed: Callable[[], float]
    sleep: Callable[[float], None]

    def load(self, operation: Operation, version: Version) -> None:
        """Wait until every live server has loaded a version beside what it serves.

        Raises
        ------
        PendingError
            If one has not after ``load_timeout``.
        ModelRunError
            If one cannot; its reason is told.
        ConflictError
            If another command has taken over meanwhile.
        """
        timeout = self.rules.load_timeout
        beaten = self.elapsed()
        deadline = beaten + timeout
        while waiting := self._not_loaded(version):
            self.progress(f"loading {version.name} on {', '.join(waiting)}")
            now = self.elapsed()
            if now > deadline:
                raise PendingError(
                    f"{', '.join(waiting)} did not load {version.name} within "
                    f"{duration(timeout)}; nothing was switched",
                    hint=f"look at the server's log, then: mlguard deploy {self.app}",
                    app=self.app,
                )
            if now - beaten >= BEAT_S:
                beaten = now
                self.registry.beat(operation)
            self.sleep(POLL_S)

    def _not_loaded(self, version: Version) -> list[str]:
        waiting = []
        for server in self.registry.live_servers():
            if version.id in server.failed:
                raise ModelRunError(
                    f"server {server.id} could not load {version.name}: "
                    f"{server.failed[version.id]}",
                    hint="nothing was switched; see the server's log",
                    app=self.app,
                )
            if version.id not in server.loaded:
                waiting.append(server.id)
        return waiting

    def follow(self, state: AppState) -> None:
        """Wait until every live server answers by a generation.

        Raises
        ------
        PendingError
            If one does not after ``load_timeout``, or one may go on with an older generation that
            nobody hears of.
        """
        deadline = self.elapsed() + self.rules.load_timeout
        while behind := [
            server.id
            for server in self.registry.live_servers()
            if server.observed.get(self.app, 0) < state.generation
        ]:
            if self.elapsed() > deadline:
                raise PendingError(
                    f"promoted, but {', '.join(behind)} does not serve generation "
                    f"{state.generation} yet",
                    hint=f"it will catch up by itself; see: mlguard status {self.app}",
                    app=self.app,
                    servers=behind,
                )
            self.sleep(POLL_S)
        silent = self.silent(state)
        if silent:
            # Nobody waited for them, but nobody has seen them end either.
            raise PendingError(
                f"promoted, but {', '.join(silent)} cannot be heard and may still answer with an "
                "older version",
                hint="it catches up by itself when it reaches the registry again, or end it; "
                f"see: mlguard status {self.app}",
                app=self.app,
                servers=silent,
            )

    def silent(self, state: AppState) -> list[str]:
        """Return the servers that were cut off and last served an older generation."""
        return [
            server.id
            for server in self.registry.silent_servers()
            if server.observed.get(self.app, state.generation) < state.generation
        ]

    def confirm(self, version: Version) -> AppState:
        """Wait until a version is watched no longer; return what serves then.

        Raises
        ------
        PendingError
            If nobody confirms it within a minute of its time.
        """
        deadline = self.elapsed() + self.rules.bake + 60
        while True:
            now = self.registry.version_by_id(version.id)
            state = self.registry.app(self.app)
            if now is None or now.state is not State.BAKING:
                return state
            if self.elapsed() > deadline:
                raise PendingError(
                    f"{version.name} serves but is not confirmed yet",
                    hint="the monitors confirm it: is `mlguard serve` running?",
                    app=self.app,
                )
            self.sleep(POLL_S)
