"""A project as `mlguard init` writes it, deployed once; and how to type a command in it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlguard.cli.starting import write_template
from mlguard.cli.terminal import outcome_lines, plain
from mlguard.project import Project

SCHEMA = jsonschema.Draft202012Validator(
    json.loads(files("mlguard").joinpath("schemas/command.schema.json").read_text("utf-8"))
)


@dataclass
class Typed:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Its one JSON document; strict, so NaN does not parse."""

        def refuse(constant: str) -> None:
            raise ValueError(constant)

        found: dict[str, Any] = json.loads(self.out, parse_constant=refuse)
        # Whatever a test is about, every document keeps to the schema that is shipped.
        SCHEMA.validate(found)
        return found


@pytest.fixture(scope="session")
def mlguard():
    """Type ``mlguard …`` in a folder, in a process of its own."""

    def type_command(*words, folder, **environment) -> Typed:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mlguard.cli", *map(str, words)],
            cwd=folder,
            env=os.environ | {"COLUMNS": "80"} | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Typed(done.returncode, done.stdout, done.stderr)

    return type_command


@pytest.fixture(scope="session")
def deployed(tmp_path_factory) -> Path:
    """A project whose app iris was deployed; never changed by a test."""
    folder = tmp_path_factory.mktemp("deployed") / "project"
    write_template("project_template", folder)
    outcome = Project(folder).deploy("iris", message="the first version")
    assert outcome.exit_code == 0, outcome.lines
    (folder.parent / "said.txt").write_text("\n".join(map(plain, outcome_lines(outcome))))
    return folder


@pytest.fixture
def project(deployed, tmp_path) -> Path:
    """A copy of the deployed project that a test may do anything to."""
    folder = tmp_path / "project"
    shutil.copytree(deployed, folder)
    return folder
