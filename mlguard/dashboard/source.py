"""What the dashboard asks of the server that it is a part of: plain callables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlguard.config import ProjectSettings
    from mlguard.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the pages get what they show.

    Attributes
    ----------
    project : ProjectSettings
        The project that is served.
    registry : callable
        Returns the open registry; raises RegistryError where it cannot be reached.
    names : callable
        Returns the apps of the project and of the registry.
    serving : callable
        Returns what this process answers with, by app: the version's name, or None for the
        default output.  Known without the registry.
    figures : callable
        Returns the server's figures in Prometheus' text form.
    example : callable
        Returns JSON of a row that a version with some manifest can read; ``"…"`` where there is
        no version.
    clock : callable
        The time, in seconds since the epoch.
    """

    project: ProjectSettings
    registry: Callable[[], Registry]
    names: Callable[[], list[str]]
    serving: Callable[[], Mapping[str, str | None]]
    figures: Callable[[], bytes]
    example: Callable[[dict[str, Any] | None], str]
    clock: Callable[[], float] = time.time
