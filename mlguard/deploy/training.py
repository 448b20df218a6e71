"""Run an app's training script where what it writes is missing.

``check``, ``deploy``, ``up`` and the pytest plug-in all need the same files.  A lock in
``.mlguard`` makes the second of two runs wait for the first instead of training again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from mlguard.config import AppSettings
from mlguard.errors import DataError, ModelFileError
from mlguard.models.code import source_of

Progress = Callable[[str], None]


def missing_files(settings: AppSettings) -> list[str]:
    """Return the local files named in app.toml that are not there, as written in it."""
    named = [settings.model.path, *settings.model.files, settings.data.train, settings.data.test]
    return [
        text
        for text in named
        if text and "://" not in text and not (settings.folder / source_of(text)).exists()
    ]


def train_missing(
    settings: AppSettings, *, state_dir: Path, progress: Progress = lambda _: None
) -> bool:
    """Run ``[model] train`` if a file it should have written is missing.

    Parameters
    ----------
    settings : AppSettings
        The app.
    state_dir : Path
        ``.mlguard`` of the project; holds the lock.
    progress : callable
        Told in one line what is going on.

    Returns
    -------
    bool
        Whether the script was run.

    Raises
    ------
    DataError, ModelFileError
        If a file is missing and there is no script, or the script fails, or it does not
        write the file.
    """
    if not missing_files(settings):
        return False
    if not settings.model.train:
        raise _missing(settings, hint="make the file, or name a script in [model] train")
    script = settings.folder / settings.model.train
    if not script.is_file():
        raise DataError(
            f"[model] train names {settings.model.train!r}, but there is no {script}",
            hint="write the script, or correct the name in app.toml",
        )
    with FileLock(state_dir / f"train-{settings.name}.lock"):
        if not missing_files(settings):
            return False
        progress(f"training {settings.name}: {settings.model.train}")
        done = subprocess.run(  # noqa: S603  the project's own script, named in its app.toml
            [sys.executable, str(script)],
            cwd=settings.folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise DataError(
            f"{script} ended with code {done.returncode}:\n{tail}",
            hint=f"run it by hand to see more: python {script}",
        )
    if missing_files(settings):
        raise _missing(settings, hint=f"{script} ran without an error but did not write it")
    return True


def _missing(settings: AppSettings, *, hint: str) -> DataError | ModelFileError:
    text = missing_files(settings)[0]
    key = "[data]"
    if text in (settings.model.path, *settings.model.files):
        key = "[model] path" if text == settings.model.path else "[model] files"
    kind = DataError if key == "[data]" else ModelFileError
    return kind(f"{key} of {settings.name} names {text!r}, but there is no such file", hint=hint)
