"""What a monitor is, for those who run one and those who write one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from mlguard.monitors.window import ProfileWindow, WindowData
from mlguard.results import MonitorResult

Clock = Literal["rows", "labels"]


class Monitor(Protocol):
    """A judgement on windows of live traffic.

    A class named by an entry point of ``mlguard.monitors``; its name is the monitor's id.  It is
    built as ``(settings, reference, app)``: its table of app.toml, the reference document of the
    version, and the app's settings.  It may be built anew for every window.
    """

    @property
    def id(self) -> str:
        """Family of its results' ids."""

    @property
    def clock(self) -> str:
        """``"rows"``: windows of answers; ``"labels"``: windows of labels as they arrive."""

    @property
    def sequential(self) -> bool:
        """Whether it takes labels one by one and remembers; then it is a :class:`Sequential`."""

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Judge a closed window, or for a sequential monitor, take newly labelled rows."""


class Sequential(Monitor, Protocol):
    """A monitor that is never done: it takes every label once and keeps a state."""

    @property
    def n(self) -> int:
        """Labels taken so far."""

    def evidence(self, subject: str = "") -> list[int]:
        """Return the query ids of the rows that an alarm rests on: that of one subject, if any."""

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs, as JSON values."""

    def restore(self, document: Mapping[str, Any]) -> None:
        """Go on from a snapshot."""


@runtime_checkable
class Profiled(Protocol):
    """A monitor of rows that needs no rows where servers keep profiles of them."""

    @property
    def profiled(self) -> bool:
        """Whether it can judge by what is counted on the grid of this version's reference."""

    def judge_profile(self, window: ProfileWindow) -> list[MonitorResult]:
        """Judge a closed window by what was counted of it."""


@runtime_checkable
class Looking(Protocol):
    """A monitor that may look at the first rows of a window before it closes."""

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many rows, rising."""

    def look(self, window: WindowData) -> list[MonitorResult]:
        """Judge the first rows; FAILED is final, anything else is forgotten."""
