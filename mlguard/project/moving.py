"""Backward, or nowhere: roll back, answer the default output, hold, release."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from mlguard.errors import ConfigError, NotFoundError, RefusedError
from mlguard.models.bundle import serving_sha256
from mlguard.project.base import Base

if TYPE_CHECKING:
    from mlguard.deploy.outcome import Outcome
    from mlguard.registry import Version


class Moving(Base):
    """The commands that move traffic by hand, or forbid it."""

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

    def _default_output(self, name: str) -> str:
        """Return what people call the default output: with its value, where app.toml tells it."""
        try:
            return f"its default output {self.app(name).app.default_output!r}"
        except (ConfigError, NotFoundError):
            return "its default output"

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
