"""Forward: a candidate through its gate and its steps until it serves everybody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.project.base import Base, Progress, silent

if TYPE_CHECKING:
    from mlguard.deploy.outcome import Outcome


class Deploying(Base):
    """The commands that bring a version forward."""

    def deploy(
        self,
        name: str,
        *,
        model: Any = None,
        version: str | None = None,
        message: str = "",
        dry_run: bool = False,
        wait: bool = False,
        supersede: bool = False,
        replace_candidate: bool = False,
        resolves: int | None = None,
        failures_dir: Path | None = None,
        progress: Progress = silent,
    ) -> Outcome:
        """Put a candidate through the gate and, if it passes, make it live.

        Parameters
        ----------
        name : str
            The app.
        model : path-like or scikit-learn estimator, optional
            The candidate; default ``[model] path`` of the app.
        version : str, optional
            Name for the version; default ``v1``, ``v2``, ….
        message : str, optional
            What is new in it; kept in the history.
        dry_run : bool
            Judge only.
        wait : bool
            Return when the version is confirmed, not when it is active.
        supersede, replace_candidate : bool
            Displace a version that is still watched, or one that is staged.
        resolves : int, optional
            Incident that this version fixes; lifts its hold.
        failures_dir : Path, optional
            Folder where the rows that broke a check are listed by their id; the gate runs, also
            where it has judged the same before.
        progress : callable, optional
            Told in one line what is going on.

        Returns
        -------
        Outcome
            ``exit_code`` 0 where the version is active, 1 where the gate refused it, 5 where it
            could not decide.

        Raises
        ------
        MlguardError
            For everything that is not a verdict; see :mod:`mlguard.errors`.
        """
        from mlguard.deploy.rollout import Request, Rollout

        settings = self.app(name)
        self.train_missing(name, progress=progress)
        with self._model_file(settings, model) as file:
            request = Request(
                model=file,
                version=version,
                message=message,
                dry_run=dry_run,
                wait=wait,
                supersede=supersede,
                replace_candidate=replace_candidate,
                resolves=resolves,
                failures_dir=failures_dir,
            )
            rollout = Rollout(
                self.settings, settings, self.registry, progress=progress, clock=self.clock
            )
            return rollout.run(request)

    def promote(
        self, name: str, *, accept_inconclusive: Sequence[str] = (), reason: str = ""
    ) -> Outcome:
        """Let the version that is being rolled out answer everybody now.

        Parameters
        ----------
        name : str
            The app.
        accept_inconclusive : sequence of str, optional
            Comparisons taken undecided, for this rollout only: ``"rollout.loss"`` or ``"loss"``.
        reason : str, optional
            Why; needed where something is accepted.

        Returns
        -------
        Outcome
            ``exit_code`` 5 where something is undecided that is not accepted.

        Raises
        ------
        RefusedError
            If a comparison failed, a hold or the gate's evidence stands in the way, or nothing
            is being rolled out.
        ConflictError
            If it is being loaded still, or somebody else moved the app.
        """
        from mlguard.deploy.steering import promote

        return promote(
            self.settings,
            self.app(name),
            self.registry,
            accept=accept_inconclusive,
            reason=reason,
        )

    def abort(self, name: str, *, reason: str = "") -> Outcome:
        """End the rollout of an app; its candidate gets no more traffic."""
        from mlguard.deploy.steering import abort

        self._seen(name)
        return abort(self.registry, name, reason=reason)

    def confirm(self, name: str, *, reason: str = "") -> Outcome:
        """Confirm the version that is being watched before its time is over.

        Raises
        ------
        RefusedError
            If a monitor, or an open incident, speaks against it.
        """
        from mlguard.deploy.steering import confirm

        self._seen(name)
        return confirm(self.registry, name, reason=reason)

    def approve(self, name: str, version: str | None = None, *, reason: str) -> Outcome:
        """Let a version through that waits for a human; nothing is deployed by it.

        Parameters
        ----------
        name : str
            The app.
        version : str, optional
            The version; default the one that waits.
        reason : str
            Why; kept in the history.

        Raises
        ------
        RefusedError
            If it does not wait, or a second person is needed and this is the first.
        """
        from mlguard.deploy.steering import approve

        return approve(self.app(name), self.registry, version=version, reason=reason)
