"""A project as `mlguard init` writes it, deployed once; and how to type a command in it."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
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


@pytest.fixture
def in_process(monkeypatch):
    """Type ``mlguard …`` in a folder, in this process: for what a process of its own is not about.

    Starting one takes longer than most commands do.
    """
    from mlguard.cli.__main__ import main

    def type_command(*words, folder, **environment) -> Typed:
        out, err = io.StringIO(), io.StringIO()
        code: int | str | None = 0
        with monkeypatch.context() as patch, warnings.catch_warnings():
            # As in a process that nobody told to make errors of them.
            warnings.simplefilter("ignore")
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["mlguard", *map(str, words)])
            for name, value in {"COLUMNS": "80", **environment}.items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    main()
                except SystemExit as end:
                    code = end.code
        assert isinstance(code, int | None), code
        return Typed(code or 0, out.getvalue(), err.getvalue())

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
