"""Judging: the gate, groups of people, what to expect of data, and findings that are waived."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlguard.errors import UsageError
from mlguard.project.base import Base, Progress, silent

if TYPE_CHECKING:
    from mlguard.deploy.fairness import Examined
    from mlguard.deploy.mitigation import Method
    from mlguard.deploy.outcome import Outcome
    from mlguard.deploy.waiving import Waived
    from mlguard.results import GateDecision
    from mlguard.stats.thresholds import Policy


class Gating(Base):
    """The commands that judge."""

    def check(
        self,
        name: str,
        *,
        model: Any = None,
        junit: Path | None = None,
        failures_dir: Path | None = None,
        progress: Progress = silent,
    ) -> GateDecision:
        """Run the gate on a candidate; nothing is registered and no traffic moves.

        Parameters
        ----------
        name : str
            The app.
        model : path-like or scikit-learn estimator, optional
            The candidate; default ``[model] path`` of the app.
        junit : Path, optional
            Where a JUnit file is written.
        failures_dir : Path, optional
            Folder where the rows that broke a check are listed by their id.
        progress : callable, optional
            Told in one line what is going on.
        """
        from mlguard.checks.runner import run_gate
        from mlguard.deploy.rollout import gate_step

        settings = self.app(name)
        self.train_missing(name, progress=progress)
        with self._model_file(settings, model) as file:
            return run_gate(
                self.root,
                name,
                model=file,
                junit=junit,
                failures_dir=failures_dir,
                on_progress=lambda step: progress(gate_step(step)),
            )

    def examine(
        self,
        name: str,
        *,
        model: Any = None,
        junit: Path | None = None,
        failures_dir: Path | None = None,
        progress: Progress = silent,
    ) -> Outcome:
        """Run the gate as :meth:`check` does, and return it as the outcome of a command."""
        from mlguard.deploy.outcome import Outcome
        from mlguard.deploy.rollout import state_fields

        decision = self.check(
            name, model=model, junit=junit, failures_dir=failures_dir, progress=progress
        )
        advice = [one.next_step for one in decision.blocking if one.next_step]
        return Outcome(
            command="check",
            app=name,
            decision=decision,
            exit_code=decision.exit_code,
            lines=(f"{decision.because[:1].upper()}{decision.because[1:]}. Nothing was changed.",),
            next_step=f"mlguard deploy {name}" if decision.allowed else "".join(advice[:1]),
            **state_fields(self.registry, self.registry.app(name)),
        )

    def suggest(self, name: str, *, force: bool = False, progress: Progress = silent) -> Outcome:
        """Propose expectations and limits from the training data, as files to edit.

        Parameters
        ----------
        name : str
            The app.
        force : bool
            Replace what an earlier proposal wrote.
        progress : callable, optional
            Told in one line what is going on.

        Raises
        ------
        RefusedError
            If a file is there already, and ``force`` is not given.
        DataError
            If there is no training data, or too little to propose anything from.
        """
        from mlguard.deploy.suggesting import suggest

        self.train_missing(name, progress=progress)
        return suggest(self.settings, self.app(name), force=force, progress=progress)

    def fairness(
        self,
        name: str,
        *,
        model: Any = None,
        by: str | None = None,
        thresholds: bool = False,
        write: str | None = None,
        mitigate: str | None = None,
        plots: Path | None = None,
        progress: Progress = silent,
    ) -> Examined:
        """Measure a candidate per group of people; nothing is judged and no traffic moves.

        Parameters
        ----------
        name : str
            The app.
        model : path-like or scikit-learn estimator, optional
            The candidate; default ``[model] path`` of the app.
        by : str, optional
            One attribute; default all that app.toml names.
        thresholds : bool
            Compare policies of thresholds.
        write : str, optional
            Policy to write into app.toml: ``max_utility``, ``max_utility_per_group``,
            ``demographic_parity`` or ``equal_opportunity``.
        mitigate : str, optional
            Make a candidate beside the original: ``thresholds`` or ``reweighing``.
        plots : Path, optional
            Folder for pictures.
        progress : callable, optional
            Told in one line what is going on.

        Raises
        ------
        MlguardError
            For everything that cannot be measured or written; see :mod:`mlguard.errors`.
        """
        from mlguard.deploy.fairness import Wish, examine

        settings = self.app(name)
        wish = Wish(
            by=by,
            thresholds=thresholds,
            write=cast("Policy | None", write),
            mitigate=cast("Method | None", mitigate),
            plots=plots,
        )
        if mitigate and not (model is None or isinstance(model, str | Path)):
            raise UsageError(
                "a mitigated candidate stands beside the original, and an estimator has no file",
                hint="save it first, and name the file",
            )
        self.train_missing(name, progress=progress)
        with self._model_file(settings, model) as file:
            return examine(self.settings, settings, file, wish, progress=progress)

    def waive(
        self,
        name: str,
        check: str,
        *,
        owner: str,
        reason: str,
        expires: str,
        version: str | None = None,
        digest: str | None = None,
        any_version: bool = False,
        subject: str | None = None,
        ticket: str = "",
    ) -> Waived:
        """Let a finding close no gate until a date; its verdict stays what it is.

        Parameters
        ----------
        name : str
            The app.
        check : str
            ``family.name``, or ``family.name[subject]`` as the gate prints it.
        owner, reason : str
            Who answers for it and mends it, and why it is acceptable until then.
        expires : str
            A length (``"30d"``) or a day (``"2026-12-31"``, UTC), at most 90 days away.
        version, digest : str, optional
            The one version it is for, by name or by digest.
        any_version : bool
            Whether it is for every version instead, later ones too.
        subject : str, optional
            The subject, where it does not stand in ``check``; default all.
        ticket : str
            Where the work is tracked.

        Raises
        ------
        UsageError
            If it names no one version and not any, nobody answers for it, no reason is given,
            or its end is past or too far away.
        """
        from mlguard.deploy.waiving import digest_of, end_of, given

        settings = self.app(name)
        content = digest_of(
            self.registry, name, version=version, digest=digest, any_version=any_version
        )
        before = self.registry.waiver_book(name)
        waiver = self.registry.waive(
            name,
            check,
            subject=subject,
            digest=content,
            owner=owner,
            reason=reason,
            ticket=ticket,
            expires=end_of(expires, before.now),
        )
        new = waiver not in before.waivers
        return given(self.settings, settings, self.registry, waiver, new=new)

    def waivers(self, name: str) -> Waived:
        """Return all waivers of an app, newest first, ended ones too."""
        from mlguard.deploy.waiving import listed_waivers

        self.app(name)
        return listed_waivers(self.registry, name)

    def revoke_waiver(self, name: str, waiver_id: int, *, reason: str) -> Waived:
        """End a waiver now; what serves goes on serving, and the next gate refuses again."""
        from mlguard.deploy.waiving import revoked

        self._reason(reason)
        self.app(name)
        return revoked(self.registry, name, waiver_id, reason)
