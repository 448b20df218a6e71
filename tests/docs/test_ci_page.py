"""The workflow and the hook of the page on CI are YAML, and their commands do what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "ci.md"


@pytest.fixture(scope="module")
def documents():
    """The YAML blocks of the page."""
    found = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(one) for one in found]


def test_the_workflow_and_the_hook_are_what_they_say(documents):
    """Steps have an action or a script, the hook an id, a command and the files it is about."""
    workflow, hooks = documents
    steps = workflow["jobs"]["gate"]["steps"]
    assert all(("uses" in one) != ("run" in one) for one in steps)
    assert workflow["permissions"] == {"contents": "read"}
    [hook] = hooks["repos"][0]["hooks"]
    assert hook["entry"].split()[:3] == ["mlguard", "check", "credit"]
    assert re.search(hook["files"], "checks/credit/test_credit.py")
    assert re.search(hook["files"], "serving/credit/app.toml")
    assert not re.search(hook["files"], "serving/iris/app.toml")


@pytest.mark.soak
def test_the_step_of_the_workflow_runs(documents, tmp_path):
    """In a fresh project the step ends with 0 and leaves a summary and a JUnit file."""
    from mlguard.cli.starting import write_template

    step = next(one for one in documents[0]["jobs"]["gate"]["steps"] if "name" in one)
    project = tmp_path / "project"
    write_template("project_template", project)
    commands = tmp_path / "bin"
    commands.mkdir()
    typed = commands / "mlguard"
    typed.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m mlguard.cli "$@"\n')
    typed.chmod(0o755)
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash to run the step with")
    done = subprocess.run(
        [bash, "-e", "-c", step["run"]],
        cwd=project,
        env=os.environ
        | {
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "allowed" in (tmp_path / "summary.md").read_text("utf-8")
    assert len(list((project / "junit").glob("*.xml"))) == 1
