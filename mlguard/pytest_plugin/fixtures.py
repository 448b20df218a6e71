"""The fixtures of ``checks/<app>/test_*.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlguard.checks.evidence import JudgedModel, Subject

if TYPE_CHECKING:
    import httpx
    import pandas as pd


@pytest.fixture
def mlguard_subject(request: pytest.FixtureRequest) -> Subject:
    """Return everything that is judged: the app that the test's folder names, or --mlguard-app."""
    gate: Any = request.config.pluginmanager.get_plugin("mlguard-session")
    owner = gate.home(request.node.path)
    if owner is None and gate.only is not None:
        from mlguard.config import find_root

        owner = (find_root(request.config.invocation_params.dir), gate.only)
    if owner is None:
        pytest.fail(
            f"nobody knows which app {request.node.nodeid} is about: put it below "
            "checks/<app>/ of a project that has serving/<app>/app.toml, or say --mlguard-app",
            pytrace=False,
        )
    subject: Subject = gate.subject(*owner)
    return subject


@pytest.fixture
def app(mlguard_subject: Subject) -> str:
    """Return the name of the app under judgement."""
    return mlguard_subject.settings.name


@pytest.fixture
def candidate(mlguard_subject: Subject) -> JudgedModel:
    """Return the version under judgement; ``candidate.predict(test)``."""
    return mlguard_subject.candidate


@pytest.fixture
def baseline(mlguard_subject: Subject) -> JudgedModel:
    """Return the simple model that ``[gate.baseline] beats`` names, trained."""
    from mlguard.checks.baseline import baseline_name

    return mlguard_subject.baseline(baseline_name(mlguard_subject.settings))


@pytest.fixture
def active(mlguard_subject: Subject) -> JudgedModel:
    """Return the version that serves now; the test is skipped where none does."""
    found = mlguard_subject.active
    if found is None:
        pytest.skip(f"no version of {mlguard_subject.settings.name} is live")
    return found


@pytest.fixture
def train(mlguard_subject: Subject) -> pd.DataFrame:
    """Return the rows of ``[data] train``; the test is skipped where none are declared."""
    frame = mlguard_subject.train
    if frame is None:
        pytest.skip(f"[data] train of {mlguard_subject.settings.name} is not declared")
    # Copy on write: what a test changes, only that test sees.
    return frame.copy(deep=False)


@pytest.fixture
def test(mlguard_subject: Subject) -> pd.DataFrame:
    """Return the rows of ``[data] test``."""
    return mlguard_subject.test.copy(deep=False)


@pytest.fixture
def served(mlguard_subject: Subject) -> Iterator[httpx.Client]:
    """Serve the candidate behind the real HTTP server, with time to answer, as an httpx client."""
    from mlguard.pytest_plugin.served import serve_candidate

    with serve_candidate(mlguard_subject) as client:
        yield client
