"""The pytest plug-in: declared checks as items, fixtures, recorded results.

``pip install mlguard`` registers it, so it is imported by every run of pytest in that
environment.  Outside an mlguard project it adds its options and nothing else; what it does
inside one is in :mod:`mlguard.pytest_plugin.session`, :mod:`~mlguard.pytest_plugin.items` and
:mod:`~mlguard.pytest_plugin.fixtures`, which are imported only there.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; they are few because app.toml holds the rest."""
    group = parser.getgroup("mlguard", "checks of models and data")
    group.addoption(
        "--mlguard-app",
        metavar="APP",
        help="judge this app only; the others' checks are deselected",
    )
    group.addoption(
        "--mlguard-model",
        metavar="FILE",
        help="judge this model file instead of the app's [model] path; needs --mlguard-app",
    )
    group.addoption(
        "--mlguard-results",
        metavar="FILE",
        help="append every result to this file, one JSON object a line",
    )
    group.addoption(
        "--mlguard-reference",
        metavar="FILE",
        help="write what the monitors compare live traffic with to this JSON file",
    )
    group.addoption(
        "--mlguard-failures-dir",
        metavar="DIR",
        help="list the rows that broke a check by their id in this folder",
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Leave the project's folder as it is where this run is a gate's."""
    if not early_config.known_args_namespace.mlguard_results:
        return (yield)
    from mlguard.pytest_plugin.byte_code import TidyCollection, none_written

    early_config.pluginmanager.register(TidyCollection(), "mlguard-tidy-collection")
    with none_written():
        return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Come alive where there is a project."""
    if not _in_project(config):
        if config.getoption("--mlguard-app") or config.getoption("--mlguard-results"):
            raise pytest.UsageError(
                f"no mlguard.toml at or above {config.invocation_params.dir}; "
                "go to a project's folder, or make one: mlguard init"
            )
        return
    if config.getoption("--mlguard-model") and not config.getoption("--mlguard-app"):
        raise pytest.UsageError("--mlguard-model needs --mlguard-app: whose candidate is it?")

    from mlguard.pytest_plugin import fixtures
    from mlguard.pytest_plugin.session import GateSession

    config.pluginmanager.register(fixtures, "mlguard-fixtures")
    config.pluginmanager.register(GateSession(config), "mlguard-session")


def _in_project(config: pytest.Config) -> bool:
    """Whether the run starts in a project, or was pointed at one."""
    places = [config.invocation_params.dir, config.rootpath]
    places += [
        (config.invocation_params.dir / str(one).split("::")[0]).resolve() for one in config.args
    ]
    return any(project_of(place) is not None for place in places)


def project_of(place: Path) -> Path | None:
    """Return the nearest folder at or above a place that holds an ``mlguard.toml``."""
    for folder in (place, *place.parents):
        if (folder / "mlguard.toml").is_file():
            return folder
    return None
