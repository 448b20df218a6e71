"""``mlguard.Project``: everything the commands do, from Python.

The command line, the server's API and the pytest plug-in are thin over this class; a notebook
uses it directly::

    project = mlguard.Project(".")
    project.check("iris", model=estimator)
    project.deploy("iris", model=estimator, message="retrained on October")

Rooms are imported by the methods that need them: asking for a status loads no scikit-learn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlguard.config import (
    AppSettings,
    ProjectSettings,
    find_root,
    load_app,
    load_project,
    parse_duration,
)
from mlguard.errors import ConfigError, NotFoundError, RefusedError, UsageError
from mlguard.models.bundle import serving_sha256

if TYPE_CHECKING:
    from mlguard.deploy.backtest import Backtested
    from mlguard.deploy.calibrate_figures import Calibrated
    from mlguard.deploy.erasing import Erased
    from mlguard.deploy.explanation import Explanation
    from mlguard.deploy.fairness import Examined
    from mlguard.deploy.history import History
    from mlguard.deploy.incidents import Incidents
    from mlguard.deploy.mailing import Queue, Tested
    from mlguard.deploy.mitigation import Method
    from mlguard.deploy.monitoring import Monitored
    from mlguard.deploy.outcome import Outcome
    from mlguard.deploy.replay import Replayed
    from mlguard.deploy.reporting import Reported
    from mlguard.deploy.status import AppStatus
    from mlguard.deploy.upkeep import Upkept
    from mlguard.deploy.waiving import Waived
    from mlguard.deploy.why import Why
    from mlguard.registry import AppState, Registry, Version
    from mlguard.reports.card import Card
    from mlguard.results import GateDecision
    from mlguard.stats.thresholds import Policy

Progress = Callable[[str], None]


def _silent(_: str) -> None:
    """Take a line of progress and say nothing."""


class Project:
    """A folder with ``mlguard.toml``: its apps, their versions, what serves them.

    Parameters
    ----------
    root : path-like, optional
        The project's folder; default: the nearest one at or above the current folder.
    clock : callable
        Seconds since the epoch; handed in so that tests need no sleeping.

    Raises
    ------
    NotFoundError
        If there is no ``mlguard.toml``.
    ConfigError
        If it is not valid.
    """

    def __init__(
        self, root: Path | str | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings: ProjectSettings = load_project(find_root() if root is None else root)
        self.clock = clock

    def __repr__(self) -> str:
        return f"Project({str(self.root)!r}, apps={self.app_names()})"

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.settings.root

    @cached_property
    def registry(self) -> Registry:
        """The registry, opened and migrated when first used."""
        from mlguard.registry import Registry

        self.settings.make_state_dir()
        return Registry.open(self.settings, clock=self.clock)

    def app_names(self) -> list[str]:
        """Names of the apps declared under ``serving/``, sorted."""
        return self.settings.app_names()

    def app(self, name: str) -> AppSettings:
        """Return the settings of one app.

        Raises
        ------
        NotFoundError, ConfigError
            If there is no such app, or its app.toml is not valid.
        """
        return load_app(self.settings, name)

    # --- judging and deploying -----------------------------------------------------------

    def train_missing(self, name: str, *, progress: Progress = _silent) -> bool:
        """Run the app's training script if a file that it writes is missing."""
        from mlguard.deploy.training import train_missing

        state_dir = self.settings.make_state_dir()
        return train_missing(self.app(name), state_dir=state_dir, progress=progress)

    def check(
        self,
        name: str,
        *,
        model: Any = None,
        junit: Path | None = None,
        failures_dir: Path | None = None,
        progress: Progress = _silent,
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
        progress: Progress = _silent,
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

    def suggest(self, name: str, *, force: bool = False, progress: Progress = _silent) -> Outcome:
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
        progress: Progress = _silent,
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
        progress: Progress = _silent,
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

    @contextlib.contextmanager
    def _model_file(self, settings: AppSettings, model: Any) -> Iterator[Path]:
        """Give the candidate as a file: the app's own, the one named, or a saved estimator."""
        if model is None:
            yield self._packed(settings, settings.path(settings.model.path))
        elif isinstance(model, str | Path):
            yield self._packed(settings, Path(model).resolve())
        else:
            from mlguard.models.formats import save_model

            with tempfile.TemporaryDirectory(prefix="mlguard-model-") as scratch:
                file = Path(scratch) / f"{type(model).__name__}.skops"
                save_model(model, file)
                yield file

    def _packed(self, settings: AppSettings, model: str | Path) -> Path:
        """Return a model file; a class of the user's is packed into one."""
        from mlguard.models.code import candidate_file

        return candidate_file(model, settings.model.files, self.settings.state_dir / "packed")

    # --- moving traffic by hand ----------------------------------------------------------

    def rollback(
        self,
        name: str,
        *,
        reason: str,
        to: str | None = None,
        to_default: bool = False,
        quarantine: bool = False,
        force: bool = False,
        dry_run: bool = False,
    ) -> Outcome:
        """Go back to the version that was confirmed before the one that serves now.

        The bytes that would serve are read, loaded and asked a few rows before anything moves.

        Parameters
        ----------
        name : str
            The app.
        reason : str
            Why; kept in the history and told in the mail.
        to : str, optional
            Version to go to instead.
        to_default : bool
            Answer the default output instead of any version.
        quarantine : bool
            Bar the current version's bytes from serving again.
        force : bool
            Go there although a monitor has found that it would not help.
        dry_run : bool
            Say what would happen; change nothing.

        Raises
        ------
        RefusedError
            If there is nothing to go back to, or it cannot serve, or it would not help.
        IntegrityError
            If the target's bytes are not what they were.
        """
        self._reason(reason)
        if to_default:
            return self.block(name, reason=reason, dry_run=dry_run)
        before = self._seen(name)
        target = self._rollback_target(name, to)
        self.registry.artifacts.get(serving_sha256(target.manifest))  # its digest is checked here
        serving = before.active.name if before.active else "the default output"
        if dry_run:
            return self._rollback_tried(name, serving, target)
        from mlguard.deploy.standby import refuse_unfit

        tried = refuse_unfit(self.settings, self.app(name), self.registry, target, force=force)
        after = self.registry.rollback(
            name,
            to=target,
            automatic=False,
            reason=reason,
            expected_generation=before.generation,
            quarantine=quarantine,
        )
        return self._outcome(
            "rollback",
            name,
            changed=True,
            from_=serving,
            to=target.name,
            lines=(
                f"{target.name} serves now instead of {serving} (generation {after.generation}).",
                f"Tried before: {tried.reason}.",
                f"Reason: {reason}",
            ),
            next_step=f"mlguard status {name}",
        )

    def _rollback_tried(self, name: str, serving: str, target: Version) -> Outcome:
        """Load the target in a child process and ask it a few rows; change nothing."""
        from mlguard.deploy.standby import rehearse

        tried = rehearse(self.settings, self.app(name), self.registry, target)
        would = f"Would go from {serving} to {target.name}"
        if tried.ok:
            lines = (f"{would}: {tried.reason}. Nothing was changed.",)
        else:
            lines = (f"{would}, but it does not work: {tried.reason}. Nothing was changed.",)
        others = [one.name for one in self.registry.rollback_targets(name) if one != target]
        instead = f"--to {others[0]}" if others else "--to-default"
        return self._outcome(
            "rollback",
            name,
            exit_code=0 if tried.ok else 1,
            from_=serving,
            to=target.name,
            lines=lines,
            next_step="" if tried.ok else f"mlguard rollback {name} {instead} --dry-run --reason …",
        )

    def _rollback_target(self, name: str, to: str | None) -> Version:
        if to is not None:
            version = self.registry.version(name, to)
            if version is None:
                known = ", ".join(one.name for one in self.registry.versions(name)) or "none"
                raise NotFoundError(f"{name} has no version {to!r}", hint=f"its versions: {known}")
            return version
        targets = self.registry.rollback_targets(name)
        if not targets:
            raise RefusedError(
                f"nothing to go back to: no version of {name} was confirmed before this one",
                hint=f"answer the default output instead: mlguard rollback {name} --to-default "
                "--reason …",
                app=name,
            )
        return targets[0]

    def block(self, name: str, *, reason: str, dry_run: bool = False) -> Outcome:
        """Answer the default output instead of the model, until :meth:`unblock`."""
        self._reason(reason)
        before = self._seen(name)
        output = self._default_output(name)
        after = before if dry_run else self.registry.block(name, reason)
        changed = after.generation != before.generation
        if dry_run:
            line = f"{name} would answer {output} to everybody. Nothing was changed."
        elif changed:
            line = f"{name} answers {output} to everybody."
        else:
            line = f"{name} answers {output} to everybody already. Nothing was changed."
        return self._outcome(
            "block",
            name,
            changed=changed,
            lines=(line,),
            next_step=f"mlguard unblock {name} --reason …",
        )

    def unblock(self, name: str, *, reason: str) -> Outcome:
        """Let the active version answer again."""
        self._reason(reason)
        before = self._seen(name)
        after = self.registry.unblock(name, reason)
        changed = after.generation != before.generation
        serving = after.active.name if after.active else "no version"
        line = f"{serving} of {name} answers again."
        if not changed:
            line = f"{serving} of {name} answers already. Nothing was changed."
        return self._outcome("unblock", name, changed=changed, lines=(line,))

    def hold(self, name: str, *, reason: str, hours: float = 24, mute: bool = False) -> Outcome:
        """Let no new version go live for some hours; a rollback stays possible.

        Parameters
        ----------
        name, reason : str
            Whose, and why.
        hours : float
            How long it lasts.
        mute : bool
            Keep mail about the app back while it lasts; a rollback and the default output are
            told all the same, and what monitors find is recorded and acted on.
        """
        self._reason(reason)
        self._seen(name)
        before = {one.id for one in self.registry.holds(name)}
        held = self.registry.hold(name, reason, expires=self.clock() + hours * 3600, mute=mute)
        return self._outcome(
            "hold",
            name,
            changed=held.id not in before,
            lines=(
                f"No new version of {name} goes live for {hours:g} h. Rollback stays possible.",
                *(
                    ("Mail about it is muted, but for a rollback's and the default output's.",)
                    if mute
                    else ()
                ),
            ),
            next_step=f"mlguard resume {name} --reason …",
        )

    def resume(self, name: str, *, reason: str) -> Outcome:
        """Lift every hold of an app."""
        self._reason(reason)
        self._seen(name)
        held = self.registry.holds(name)
        if held:
            self.registry.resume(name, reason)
        line = f"New versions of {name} may go live again." if held else f"{name} was not on hold."
        return self._outcome("resume", name, changed=bool(held), lines=(line,))

    def release(self, name: str, version: str, *, reason: str) -> Outcome:
        """Let quarantined bytes be judged again; they must pass the gate to serve.

        Parameters
        ----------
        name, version : str
            The app, and a version with these bytes; all versions with them are released.
        reason : str
            Why; kept in the history.

        Raises
        ------
        RefusedError
            If the incident that condemned them is still open.
        """
        from mlguard.deploy.steering import refuse_registrar

        self._reason(reason)
        self._seen(name)
        found = self.registry.version(name, version)
        with contextlib.suppress(ConfigError, NotFoundError):
            refuse_registrar(self.app(name), self.registry, found, "release")
        barred = self.registry.quarantined(name, found.digest) is not None
        line = f"{version} was not in quarantine."
        if barred:
            self.registry.release(name, version, reason)
            line = f"{version} may be deployed again, after it has passed the gate again."
        held = bool(self.registry.holds(name))
        if held:
            line += f" {name} is still on hold."
        return self._outcome(
            "release",
            name,
            changed=barred,
            lines=(line,),
            next_step=f"mlguard resume {name} --reason …" if held else f"mlguard deploy {name}",
        )

    # --- steering a rollout --------------------------------------------------------------

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

    # --- waivers -------------------------------------------------------------------------

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

    def _reason(self, reason: str) -> None:
        if not reason.strip():
            raise UsageError("a reason is needed: it is what people will read in the history")

    def _seen(self, name: str) -> AppState:
        """Return what serves an app, asking app.toml only where nothing was ever deployed.

        Going back must not wait until a settings file is mended, or found again.
        """
        state = self.registry.app(name)
        if state.generation == 0:
            self.app(name)
        return state

    def _default_output(self, name: str) -> str:
        """Return what people call the default output: with its value, where app.toml tells it."""
        try:
            return f"its default output {self.app(name).app.default_output!r}"
        except (ConfigError, NotFoundError):
            return "its default output"

    def _outcome(self, command: str, name: str, **fields: Any) -> Outcome:
        from mlguard.deploy.outcome import Outcome
        from mlguard.deploy.rollout import state_fields

        state = self.registry.app(name)
        return Outcome(command=command, app=name, **state_fields(self.registry, state), **fields)

    # --- looking -------------------------------------------------------------------------

    def status(self, name: str | None = None) -> list[AppStatus]:
        """Say what serves each app, since when and why, and what is watched.

        An app whose app.toml is not valid, or not there any more, is listed with the error:
        what serves goes on.
        """
        from mlguard.data.disk_floor import disk_of
        from mlguard.deploy.status import app_status

        if name is None:
            served = {state.app for state in self.registry.apps() if state.generation}
            names = sorted(served | set(self.app_names()))
        else:
            if name not in self.app_names():
                self._seen(name)
            names = [name]
        found = []
        for one in names:
            settings, problem = None, ""
            try:
                settings = self.app(one)
            except (ConfigError, NotFoundError) as error:
                problem = error.message
            found.append(
                app_status(
                    self.registry,
                    one,
                    settings,
                    config_error=problem,
                    now=self.clock(),
                    disk=disk_of(
                        self.settings.log_dir, int(self.settings.server.min_free_mib * 2**20)
                    ),
                )
            )
        return found

    def history(
        self,
        name: str | None = None,
        *,
        at: str | None = None,
        verify: bool = False,
        limit: int = 30,
    ) -> History:
        """Return what was done, by whom and why.

        Parameters
        ----------
        name : str, optional
            One app; default all.
        at : str, optional
            ISO 8601 time: what served then.
        verify : bool
            Check that no entry was edited or deleted.
        limit : int
            Newest entries to return.
        """
        from mlguard.deploy.history import read_history

        if name is not None:
            self._seen(name)
        return read_history(self.registry, name, at=at, verify=verify, limit=limit)

    def explain(self, name: str, query_id: int, *, progress: Progress = _silent) -> Explanation:
        """Take one prediction apart: row, version, why default, label, what others say today.

        Parameters
        ----------
        name : str
            The app.
        query_id : int
            As it stood in the answer.
        progress : callable, optional
            Told in one line what is going on.

        Raises
        ------
        NotFoundError
            If nobody was given that id by this app.
        """
        from mlguard.deploy.explain import explain

        self._seen(name)
        try:
            settings = self.app(name)
        except (ConfigError, NotFoundError):
            settings = None  # what was answered is known whatever the file says today
        return explain(
            self.settings,
            self.registry,
            name,
            query_id,
            settings=settings,
            now=self.clock(),
            progress=progress,
        )

    def report(
        self,
        name: str,
        *,
        window: str = "7d",
        html: Path | None = None,
        markdown: Path | None = None,
        email: bool = False,
        progress: Progress = _silent,
    ) -> Reported:
        """Write the drift and quality report of a window of live traffic.

        Parameters
        ----------
        name : str
            The app.
        window : str
            How far back, e.g. ``"24h"`` or ``"7d"``.
        html : Path, optional
            Where it goes; default ``reports/<app>/<day>.html``.
        markdown : Path, optional
            Where it goes as Markdown, too.
        email : bool
            Mail it as well.
        progress : callable, optional
            Told in one line what is going on.
        """
        from mlguard.deploy.reporting import mail_report, make_report, report_path

        settings = self.app(name)
        try:
            length = parse_duration(window)
        except ValueError as error:
            raise UsageError(f"{window!r} is no window: {error}") from error
        now = self.clock()
        made = make_report(
            self.settings,
            settings,
            self.registry,
            since=now - length,
            until=now,
            now=now,
            html=Path(html).resolve() if html else report_path(self.settings, name, now),
            markdown=Path(markdown).resolve() if markdown else None,
            progress=progress,
        )
        return mail_report(self.settings, self.registry, made) if email else made

    def card(self, name: str, version: str | None = None) -> Card:
        """Return all that is on record about a version.

        Parameters
        ----------
        name : str
            The app.
        version : str, optional
            Name of the version; default the active one.

        Raises
        ------
        NotFoundError
            If there is no such version, or none is active.
        """
        from mlguard.deploy.card import make_card

        return make_card(self.settings, self.app(name), self.registry, version, now=self.clock())

    def evidence(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Return all evidence about a version's content, newest first, as one JSON document.

        Figures of small groups are in it: it is the record that a decision is proved with.
        """
        from mlguard.deploy.card import evidence_document

        self._seen(name)
        return evidence_document(self.registry, name, version)

    def why(self, name: str, version: str | None = None) -> Why:
        """Say why a version is in its state: what was done to it, and on what evidence.

        Parameters
        ----------
        name : str
            The app.
        version : str, optional
            Name of the version; default the active one.

        Raises
        ------
        NotFoundError
            If there is no such version, or none is active.
        """
        from mlguard.deploy.why import explain_version

        self._seen(name)
        return explain_version(self.registry, name, version)

    # --- upkeep --------------------------------------------------------------------------

    def verify_registry(self) -> Upkept:
        """Read every stored byte and compare every fact with the audit trail; change nothing."""
        from mlguard.deploy.upkeep import verify_registry

        return verify_registry(self.registry)

    def repair_registry(
        self, sources: Sequence[Path | str] | None = None, *, dry_run: bool = False
    ) -> Upkept:
        """Put identical bytes back where they were lost; nothing else counts as them.

        Parameters
        ----------
        sources : sequence of path-like, optional
            Files, or folders of files, among which the bytes are; default the model of each app.
        dry_run : bool
            Say what would be done; change nothing.
        """
        from mlguard.deploy.upkeep import offered_files, repair_registry

        if sources:
            files = [Path(one).resolve() for one in sources]
            missing = [one for one in files if not one.exists()]
            if missing:
                raise UsageError(f"there is no {missing[0]}", hint="--from FILE, or a folder")
        else:
            files = []
            for name in self.app_names():
                # An app whose settings are not valid has nothing to offer.
                with contextlib.suppress(ConfigError):
                    settings = self.app(name)
                    files.append(Path(settings.path(settings.model.path)))
        return repair_registry(self.registry, offered_files(files), dry_run=dry_run)

    def collect_registry(self, *, dry_run: bool = False) -> Upkept:
        """Archive standbys that are too old to go back to; remove bytes that nobody needs.

        Parameters
        ----------
        dry_run : bool
            Say what would be done; change nothing.
        """
        from mlguard.deploy.upkeep import collect_registry

        return collect_registry(self.registry, dry_run=dry_run)

    def erase(
        self,
        name: str,
        *,
        query_id: int | None = None,
        uid: str | None = None,
        reason: str = "",
        dry_run: bool = False,
    ) -> Erased:
        """Remove a prediction, or all of a caller's, from the prediction log and the labels.

        Parameters
        ----------
        name : str
            Name of the app.
        query_id : int, optional
            One prediction.
        uid : str, optional
            All that was asked with this ``uid``.
        reason : str
            Why; the audit trail keeps it.
        dry_run : bool
            Count; change nothing.

        Raises
        ------
        UsageError
            If not exactly one of ``query_id`` and ``uid`` is given.
        """
        from mlguard.deploy.erasing import erase

        self._seen(name)
        return erase(
            self.settings,
            self.registry,
            name,
            query_id=query_id,
            uid=uid,
            reason=reason,
            dry_run=dry_run,
        )

    # --- mail ----------------------------------------------------------------------------

    def test_notifiers(self, to: Sequence[str] | None = None) -> Tested:
        """Send a test message to every recipient, and say for each what happened.

        Parameters
        ----------
        to : sequence of str, optional
            To these instead: addresses, or ``"webhook"``.
        """
        from mlguard.deploy.mailing import try_notifiers
        from mlguard.registry.store import recipients_of

        recipients = tuple(to) if to else recipients_of(self.settings)
        key = f"{int(self.clock() * 1000):x}"
        return try_notifiers(self.settings, recipients, key=key, now=self.clock())

    def outbox(self, *, everything: bool = False) -> Queue:
        """Return the mail that waits or is dead, and what each waits for.

        Parameters
        ----------
        everything : bool
            The newest hundred, also what was sent.
        """
        from mlguard.deploy.mailing import outbox_list

        return outbox_list(self.settings, self.registry, everything=everything, now=self.clock())

    def retry_mail(self, mail_id: int) -> Queue:
        """Give a mail that is dead or waits another chance, with the next pass."""
        from mlguard.deploy.mailing import outbox_retry

        return outbox_retry(self.registry, mail_id, now=self.clock())

    def drop_mail(self, mail_id: int, *, reason: str) -> Queue:
        """Take a mail that is dead or waits out of the queue; it is never sent."""
        from mlguard.deploy.mailing import outbox_drop

        self._reason(reason)
        return outbox_drop(self.registry, mail_id, reason, now=self.clock())

    # --- watching ------------------------------------------------------------------------

    def monitor(self, name: str | None = None, *, once: bool = True) -> Monitored | None:
        """Judge the windows that are due and act by policy.

        Parameters
        ----------
        name : str, optional
            One app; default all.
        once : bool
            Return after one pass; else watch until SIGTERM or SIGINT, and return None.
        """
        from mlguard.deploy.monitoring import monitor_forever, monitor_once

        if name is not None:
            self.app(name)
        if once:
            found = monitor_once(self.settings, self.registry, only=name, clock=self.clock)
            needed = [f"{one.app}: {why}" for one in self.status(name) for why in one.degraded]
            return dataclasses.replace(found, degraded=tuple(needed))
        monitor_forever(self.settings, self.registry, only=name, clock=self.clock)
        return None

    # --- incidents -----------------------------------------------------------------------

    def incidents(self, number: int | None = None) -> Incidents:
        """List the incidents of all apps, newest first, or tell one with all that is known of it.

        Parameters
        ----------
        number : int, optional
            The one to tell.

        Raises
        ------
        NotFoundError
            If there is none of that number.
        """
        from mlguard.deploy.incidents import LISTED, Incidents

        now = self.clock()
        if number is None:
            found = tuple(self.registry.incidents())[:LISTED]
            return Incidents(
                found=found, now=now, next_step=f"mlguard incident {found[0].id}" if found else ""
            )
        return self._incident(number)

    def _incident(
        self,
        number: int,
        *,
        changed: bool = False,
        lines: Sequence[str] = (),
        files: Sequence[str] = (),
        next_step: str = "",
    ) -> Incidents:
        from mlguard.deploy.incidents import Incidents, tell

        settings = None
        with contextlib.suppress(ConfigError, NotFoundError):
            settings = self.app(self.registry.incident(number).app)
        story = tell(self.settings, settings, self.registry, number)
        return Incidents(
            found=(story.incident,),
            story=story,
            now=self.clock(),
            changed=changed,
            lines=tuple(lines),
            files=tuple(files),
            next_step=next_step or story.next_step,
        )

    def close_incident(self, number: int, *, cause: str) -> Incidents:
        """Close an incident with what it was; one that is closed stays as it is.

        Parameters
        ----------
        number : int
            Its number.
        cause : str
            What it was; kept in the history.

        Raises
        ------
        UsageError
            If no cause is given.
        NotFoundError
            If there is none of that number.
        """
        from mlguard.deploy.incidents import close

        if not cause.strip():
            raise UsageError(
                "an incident is closed with its cause", hint=f'say it: --close --cause "…" {number}'
            )
        incident, changed = close(self.registry, number, cause.strip())
        line = f"Incident {number} is closed: {incident.cause}."
        if not changed:
            line = f"Incident {number} was closed before: {incident.cause}."
        if self.registry.holds(incident.app):
            line += f" New deploys of {incident.app} are still held."
        return self._incident(number, changed=changed, lines=(line,))

    def incident_check(
        self, number: int, *, force: bool = False, progress: Progress = _silent
    ) -> Incidents:
        """Write a pytest check from an incident's rows, so that it blocks the next candidate.

        Parameters
        ----------
        number : int
            The incident's number.
        force : bool, default False
            Replace a check that is there.
        progress : callable, optional
            Told in one line what is going on.

        Raises
        ------
        RefusedError
            If its files are there already.
        UndecidedError
            If its rows are gone or too few, or no limit tells a good version from a bad one.
        UsageError
            If what the model sees is not in the log.
        """
        from mlguard.deploy.incident_check import CheckWriter
        from mlguard.deploy.incident_rows import read_rows

        incident = self.registry.incident(number)
        settings = self.app(incident.app)
        progress(f"reading the rows of incident {number}")
        found = read_rows(self.settings, settings, self.registry, incident)
        made = CheckWriter(
            project=self.settings,
            settings=settings,
            registry=self.registry,
            incident=incident,
            found=found,
        ).write(force=force)
        return self._incident(
            number,
            changed=made.changed,
            lines=made.lines,
            files=[str(one.relative_to(self.root)) for one in made.files],
            next_step=f"mlguard check {incident.app}",
        )

    def incident_rows(self, number: int, file: Path | str) -> Incidents:
        """Write the labelled rows of an incident, and those before it, as a table to replay.

        Parameters
        ----------
        number : int
            The incident's number.
        file : path-like
            CSV or Parquet file.

        Raises
        ------
        RefusedError
            If the file is there already.
        UndecidedError
            If its rows are gone, or none has a label.
        """
        from mlguard.deploy.incident_rows import read_rows
        from mlguard.deploy.incident_table import export_rows

        incident = self.registry.incident(number)
        settings = self.app(incident.app)
        found = read_rows(self.settings, settings, self.registry, incident)
        line, command = export_rows(settings, self.registry, incident, found, Path(file))
        return self._incident(
            number, changed=True, lines=(line,), files=(str(file),), next_step=command
        )

    # --- traffic -------------------------------------------------------------------------

    def backtest(
        self,
        name: str,
        data: str | Path,
        *,
        model: Any = None,
        label_delay: int = 0,
        window: int | None = None,
        start: int | None = None,
        change: int | None = None,
        plot: Path | None = None,
        progress: Progress = _silent,
    ) -> Backtested:
        """Replay labelled rows through a model and the monitors; nothing is registered or moved.

        Parameters
        ----------
        name : str
            The app.
        data : path-like or str
            CSV or Parquet file, or fsspec URL, with the target column.
        model : path-like or scikit-learn estimator, optional
            The model; default the active version, else ``[model] path``.
        label_delay : int, default 0
            Rows after which a row's label arrives.
        window : int, optional
            Rows of a window of every monitor; default each one's ``window_rows``.
        start : int, optional
            Learn the reference on the 2,000 rows from here and judge those after them; default:
            learn it on ``[data] test`` and judge all.
        change : int, optional
            Row at which the world is known to have changed.
        plot : Path, optional
            Where a picture (PNG) is written.
        progress : callable, optional
            Told in one line what is going on.

        Raises
        ------
        MlguardError
            If the file cannot be read, an option makes no sense for it, or the model does not
            run.
        """
        from mlguard.deploy.backtest import backtest

        settings = self.app(name)
        if model is None and self.registry.app(name).active is None:
            self.train_missing(name, progress=progress)
        with contextlib.ExitStack() as stack:
            file = None
            if model is not None:
                file = stack.enter_context(self._model_file(settings, model))
            return backtest(
                self.settings,
                settings,
                self.registry,
                str(data),
                model=file,
                label_delay=label_delay,
                window=window,
                start=start,
                change=change,
                plot=plot,
                progress=progress,
            )

    def calibrate(
        self, name: str, *, model: Any = None, progress: Progress = _silent
    ) -> Calibrated:
        """Measure how often the monitors cry wolf on the app's own history, and what they see.

        Parameters
        ----------
        name : str
            The app.
        model : path-like or scikit-learn estimator, optional
            A model whose history is ``[data] test``; default the active version and what it
            answered, else ``[model] path``.
        progress : callable, optional
            Told in one line what is going on.

        Raises
        ------
        MlguardError
            If the data cannot be read or the model does not run.
        """
        from mlguard.deploy.calibrate_history import calibrate

        settings = self.app(name)
        if model is None and self.registry.app(name).active is None:
            self.train_missing(name, progress=progress)
        with contextlib.ExitStack() as stack:
            file = None
            if model is not None:
                file = stack.enter_context(self._model_file(settings, model))
            return calibrate(self.settings, settings, self.registry, model=file, progress=progress)

    def replay(
        self,
        name: str,
        data: str,
        *,
        url: str = "http://127.0.0.1:1337",
        rate: float = 0,
        labels: bool = True,
        progress: Progress = _silent,
    ) -> Replayed:
        """Send the rows of a file, and their labels, to a running server.

        Parameters
        ----------
        name : str
            The app.
        data : str
            CSV or Parquet file, or fsspec URL.
        url : str
            The server.
        rate : float
            Rows a second; 0: as fast as it goes.
        labels : bool
            Whether to send each row's target as its label.
        progress : callable, optional
            Told in one line how far it is.
        """
        from mlguard.client import Client
        from mlguard.deploy.replay import replay
        from mlguard.serving.access import key_value

        settings = self.app(name)
        key = next((one for one in map(key_value, settings.app.keys) if one), None)
        active = self.registry.app(name).active
        if active is None:
            raise RefusedError(
                f"nothing serves {name}, so there is nobody to ask",
                hint=f"mlguard deploy {name}",
                app=name,
            )
        features = [one["name"] for one in active.manifest["input_schema"]["features"]]
        with Client(url, key=key) as client:
            return replay(
                settings, data, features, client, rate=rate, labels=labels, progress=progress
            )
