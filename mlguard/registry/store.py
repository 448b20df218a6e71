"""The face of the registry: opened from the project's settings, closed when done."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from mlguard.config import ProjectSettings
from mlguard.registry.artifacts import ArtifactStore
from mlguard.registry.database import Database
from mlguard.registry.observations import Observations
from mlguard.registry.outbox import Outbox
from mlguard.registry.reconcile import Reconcile
from mlguard.registry.rollback import Rollback
from mlguard.registry.stepping import Stepping
from mlguard.registry.upkeep import Upkeep

#: Who gets mail where nobody is configured: the notifier that writes files.
FILE_RECIPIENT = "file"
#: The recipient that events are posted to.
WEBHOOK_RECIPIENT = "webhook"


def current_actor() -> str:
    """Return who runs this process, for the audit trail."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A number without a name, as in many containers.
        return f"uid {os.getuid()}"


def recipients_of(project: ProjectSettings) -> tuple[str, ...]:
    """Return who is told of what happens in a project, each once."""
    table = project.notify
    people = list(table.email.to) if table.email is not None else []
    programs = [WEBHOOK_RECIPIENT] if table.webhook is not None else []
    return tuple(dict.fromkeys([*(people or [FILE_RECIPIENT]), *programs, *table.also]))


def _remains(project: ProjectSettings) -> list[str]:
    """Return the local folders that show that versions were registered here, or answered."""
    found = []
    if "://" not in project.artifacts_url and any(Path(project.artifacts_url).glob("??/*")):
        found.append(Path(project.artifacts_url).name)
    # Default outputs, those of version 0, are logged before anything was ever registered.
    if any(project.log_dir.glob("*/[1-9]*")):
        found.append(project.log_dir.name)
    return found


class Registry(Stepping, Rollback, Reconcile, Observations, Upkeep):
    """Every fact that mlguard keeps, and every command that changes one.

    Make one with :meth:`open`.  It may be shared between threads; each process opens its own.
    Every failure of the database or the artifact store is a
    :class:`~mlguard.errors.RegistryError`: nothing was decided then, and whoever answers
    requests goes on with what it has.

    Attributes
    ----------
    artifacts : ArtifactStore
        The versions' bytes.
    outbox : Outbox
        The mail that was promised.
    recipients : tuple of str
        Who gets it.
    """

    recipients: tuple[str, ...]

    @classmethod
    def open(
        cls,
        project: ProjectSettings,
        *,
        clock: Callable[[], float] = time.time,
        actor: str | None = None,
    ) -> Self:
        """Open a project's registry; create it, or bring its schema up to date, where needed.

        Parameters
        ----------
        project : ProjectSettings
            Says where database and artifacts are, and who gets mail.
        clock : callable
            The time, in seconds since the epoch.
        actor : str, optional
            Who acts, for the audit trail; by default the user of this process.

        Returns
        -------
        Registry
            Also a context manager that closes it.

        Raises
        ------
        ConfigError
            If the settings name a database that cannot hold a registry.
        UsageError
            If a newer mlguard has changed the schema.
        ConflictError
            If the schema is an older one, and somebody is deploying by it.
        RegistryError
            If the database cannot be reached.
        """
        database = Database(project.registry_url, remains=lambda: _remains(project))
        database.prepare(clock=clock)
        email = project.notify.email
        recipients = recipients_of(project)
        sender = email.sender if email is not None else ""
        outbox = Outbox(
            database,
            recipients=recipients,
            domain=sender.rpartition("@")[2].strip(" >") or "mlguard.localhost",
            clock=clock,
            authors=project.notify.authors,
        )
        registry = cls(
            database,
            ArtifactStore(project.artifacts_url, project.state_dir / "cache" / "artifacts"),
            outbox,
            facts={
                "project": project.project.name,
                "environment": project.project.environment,
            },
            clock=clock,
            actor=actor or current_actor(),
        )
        registry.recipients = recipients
        return registry

    def close(self) -> None:
        """Close the idle connections; the registry opens new ones where it is used again."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
