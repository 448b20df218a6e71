"""What every command of a project stands on: its folder, settings, registry, candidate."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.config import AppSettings, ProjectSettings, load_app
from mlguard.errors import UsageError

if TYPE_CHECKING:
    from mlguard.deploy.outcome import Outcome
    from mlguard.registry import AppState, Registry

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Take a line of progress and say nothing."""


class Base:
    """A folder with ``mlguard.toml``, opened."""

    settings: ProjectSettings
    clock: Callable[[], float]

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

    def train_missing(self, name: str, *, progress: Progress = silent) -> bool:
        """Run the app's training script if a file that it writes is missing."""
        from mlguard.deploy.training import train_missing

        state_dir = self.settings.make_state_dir()
        return train_missing(self.app(name), state_dir=state_dir, progress=progress)

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

    def _outcome(self, command: str, name: str, **fields: Any) -> Outcome:
        from mlguard.deploy.outcome import Outcome
        from mlguard.deploy.rollout import state_fields

        state = self.registry.app(name)
        return Outcome(command=command, app=name, **state_fields(self.registry, state), **fields)
