"""Trying out: rows through a model and its monitors, without a server or against one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.errors import RefusedError
from mlguard.project.base import Base, Progress, silent

if TYPE_CHECKING:
    from mlguard.deploy.backtest import Backtested
    from mlguard.deploy.calibrate_figures import Calibrated
    from mlguard.deploy.replay import Replayed


class Trying(Base):
    """The commands that replay rows."""

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
        progress: Progress = silent,
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

    def calibrate(self, name: str, *, model: Any = None, progress: Progress = silent) -> Calibrated:
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
        progress: Progress = silent,
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
