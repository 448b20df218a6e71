"""What monitors of the inputs have in common: a reference's profile, and windows counted on it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from mlguard.config import AppSettings, WindowedMonitor
from mlguard.monitors.window import WindowData

if TYPE_CHECKING:
    import numpy.typing as npt

    from mlguard.data.profile import Profile

Settings = TypeVar("Settings", bound=WindowedMonitor)


class ByProfile(Generic[Settings]):
    """A monitor that judges what was counted of a window's inputs.

    Parameters
    ----------
    settings : WindowedMonitor
        Its table of app.toml.
    reference : mapping
        The version's reference; its ``"profile"`` is read.
    app : AppSettings
        The app that is watched.
    """

    #: Whatever the reference: where it has no profile, that is what is said.
    profiled: ClassVar[bool] = True

    def __init__(self, settings: Settings, reference: Mapping[str, Any], app: AppSettings) -> None:
        self.settings = settings
        self.app = app
        self._reference = reference

    @cached_property
    def profile(self) -> Profile | None:
        """The reference's profile; None where the version has none."""
        from mlguard.data.profile import Profile

        document = self._reference.get("profile")
        return None if document is None else Profile.from_json(document)

    def counted(self, window: WindowData) -> Profile | None:
        """Return the counts of a window's valid rows; None where there is nothing to count.

        Rows whose inputs the log does not have say nothing of them.
        """
        if self.profile is None or not window.columns:
            return None
        rows = window.valid & window.inputs_kept
        known = known_columns(self.profile, window.columns)
        if not rows.all():
            known = {name: values[rows] for name, values in known.items()}
        return self.profile.only(known).summarise(known)

    def left_out(self, window: WindowData) -> list[str]:
        """Return the logged columns that the reference's profile cannot count."""
        known = {} if self.profile is None else self.profile.features
        counted = {} if self.profile is None else known_columns(self.profile, window.columns)
        return [name for name in known if name in window.columns and name not in counted]


def known_columns(
    profile: Profile, columns: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns that a reference's profile can count.

    Times are logged as text, and the passing of time is no drift.
    """
    return {
        name: columns[name]
        for name, one in profile.features.items()
        if name in columns and not (one.shape == "number" and columns[name].dtype == object)
    }
