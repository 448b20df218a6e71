"""``mlguard.Project``: everything the commands do, from Python.

The command line, the server's API and the pytest plug-in are thin over this class; a notebook
uses it directly::

    project = mlguard.Project(".")
    project.check("iris", model=estimator)
    project.deploy("iris", model=estimator, message="retrained on October")

Rooms are imported by the methods that need them: asking for a status loads no scikit-learn.

==============  ==========================================================================
``base``        folder, settings, registry, the candidate's file
``gating``      judging: the gate, groups of people, what to expect of data, waivers
``deploying``   forward: deploy, promote, abort, confirm, approve
``moving``      backward, or nowhere: rollback, block, hold, resume, release
``reading``     looking: status, history, why, card, explain, report
``watching``    the monitors, and the incidents that they open
``trying``      rows through a model and its monitors: backtest, calibrate, replay
``upkeep``      the registry's bytes and facts, rows that must go, mail
==============  ==========================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mlguard.config import find_root, load_project
from mlguard.project.deploying import Deploying
from mlguard.project.gating import Gating
from mlguard.project.moving import Moving
from mlguard.project.trying import Trying
from mlguard.project.upkeep import Upkeep
from mlguard.project.watching import Watching

__all__ = ["Project"]


class Project(Gating, Deploying, Moving, Watching, Trying, Upkeep):
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
        self.settings = load_project(find_root() if root is None else root)
        self.clock = clock
