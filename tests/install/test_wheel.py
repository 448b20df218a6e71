"""The wheel holds the library, all of it, and nothing else."""

import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from mlguard.version import VERSION

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Names of the files in a wheel built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(folder))
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_top_level_is_mlguard_alone(contents):
    """`checks`, `serving` and `reports` are common names: no environment gets them from us."""
    tops = {name.partition("/")[0] for name in contents}
    assert tops == {"mlguard", f"mlguard-{VERSION}.dist-info"}


def test_every_file_of_the_library_is_there(contents):
    """Templates, migrations and the projects that init and demo copy are packaged."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "mlguard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout: nothing says which files there should be")
    assert set(done.stdout.splitlines()) <= contents


def test_the_version_is_said_once_and_the_same():
    """pyproject.toml and the library name the same version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
