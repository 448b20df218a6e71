"""Upkeep: the registry's bytes and facts, rows of people who want them gone, mail."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlguard.errors import ConfigError, UsageError
from mlguard.project.base import Base

if TYPE_CHECKING:
    from mlguard.deploy.erasing import Erased
    from mlguard.deploy.log_check import LogChecked
    from mlguard.deploy.mailing import Queue, Tested
    from mlguard.deploy.upkeep import Upkept


class Upkeep(Base):
    """The commands that keep the project in order."""

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

    def check_log(self, name: str) -> LogChecked:
        """Look for personal data in what an app's prediction log has stored.

        Parameters
        ----------
        name : str
            Name of the app.

        Raises
        ------
        NotFoundError, ConfigError
            If there is no such app, or its app.toml is not valid.
        """
        from mlguard.deploy.log_check import check_log

        return check_log(self.settings, self.app(name))

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
