"""Evidence is reused only where everything that judges is as it was."""

import pytest

from mlguard.cli.starting import write_template
from mlguard.config import load_app, load_project
from mlguard.deploy.fingerprints import policy_digest


@pytest.fixture
def folder(tmp_path):
    """A project as `mlguard init` writes it."""
    write_template("project_template", tmp_path)
    return tmp_path


def digest(folder, active=""):
    """Return the policy digest of iris."""
    project = load_project(folder)
    return policy_digest(project, load_app(project, "iris"), active)


def append(path, text):
    path.write_text((path.read_text() if path.exists() else "") + text)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("serving/iris/app.toml", "\n[gate.fairness]\nat_most = 0.2\n"),
        ("serving/iris/app.toml", '\n[gate.baseline.beats]\nenforcement = "warn"\n'),
        ("checks/iris/test_iris.py", "\n# stricter\n"),
        ("checks/iris/expectations/iris.json", " "),
        ("checks/conftest.py", "limit = 1\n"),
    ],
)
def test_what_judges_is_part_of_the_digest(folder, file, text):
    """A changed limit, check, suite or shared fixture asks for a new run of the gate."""
    before = digest(folder)
    append(folder / file, text)
    assert digest(folder) != before


def test_the_live_version_is_part_of_the_digest(folder):
    """A candidate is compared with it, so another one asks for a new comparison."""
    assert digest(folder, "one") != digest(folder, "other")


def test_what_only_watches_is_not(folder):
    """A monitor's setting changes nothing that the gate found."""
    before = digest(folder)
    append(folder / "serving/iris/app.toml", "\n[monitor.data_drift]\nks = 0.2\n")
    assert digest(folder) == before
