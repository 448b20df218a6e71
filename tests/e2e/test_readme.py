"""Every command of the README is typed, and what it shows is what comes back."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: Commands that are typed elsewhere: tox runs this test, pip installed what it tests.
ELSEWHERE = ("pip install",)


def blocks():
    """Return the console blocks of the README as lists of (command, output)."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        entries = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        found += [tuple(entry.partition("\n")[::2]) for entry in entries]
    return found


def masked(text):
    """Return text with its numbers and its line breaks made alike."""
    return re.sub(r"\d[\d,.]*", "#", " ".join(text.split()))


def shown(beginning):
    """Return the output that the README shows for the command with this beginning."""
    return next(output for command, output in blocks() if command.startswith(beginning))


@pytest.fixture
def project(tmp_path):
    """The example project as a fresh clone has it: nothing trained, nothing deployed."""
    folder = tmp_path / "project"
    made = shutil.ignore_patterns("data", "*.skops", ".mlguard", "__pycache__")
    for name in ("serving", "checks"):
        shutil.copytree(ROOT / name, folder / name, ignore=made)
    shutil.copyfile(ROOT / "mlguard.toml", folder / "mlguard.toml")
    return folder


def test_the_commands_of_the_readme_do_what_it_shows(project, running):
    """One server for all of them, on a free port instead of 1337."""
    with running("up", "--port", "0", folder=project) as (_, url, _out):
        code = None
        for command, output in blocks():
            if command.startswith((*ELSEWHERE, "mlguard demo")):
                continue
            if command == "echo $?":
                assert code == int(output)
                continue
            words = shlex.split(command.replace("localhost:1337", url.removeprefix("http://")))
            if words[0] == "mlguard":
                words = [sys.executable, "-P", "-m", "mlguard.cli", *words[1:]]
            elif shutil.which(words[0]) is None:
                pytest.skip(f"no {words[0]} on this machine")
            done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
            code = done.returncode
            if words[0] == "curl":
                query_id = re.compile(r'"query_id":\d+')
                assert query_id.sub("", done.stdout) == query_id.sub("", output.strip())
            else:
                assert done.stdout == output


def test_the_set_up_commands_are_the_two_that_ci_runs():
    """The README promises two commands; the second one is what .ci/run calls."""
    commands = [command for command, _ in blocks()]
    assert "pip install . && mlguard up" in commands
    assert "pip install tox && tox" in commands
    ci = (ROOT / ".ci" / "run").read_text()
    assert "pip install" in ci
    assert "tox" in ci
