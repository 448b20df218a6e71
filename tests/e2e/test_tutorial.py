"""The tutorial is followed to the letter: its files are written, its commands typed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "tutorial.md"
PLUG_INS = DOCS / "how-to" / "plug-ins.md"
_FILE = re.compile(r"^% file: (\S+)\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps():
    """Return the page's files and commands, in the order in which a reader meets them."""
    text = PAGE.read_text(encoding="utf-8")
    found = [(one.start(), "file", one[1], one[2]) for one in _FILE.finditer(text)]
    for block in _CONSOLE.finditer(text):
        for place, entry in enumerate(re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]):
            command, _, output = entry.partition("\n")
            found.append((block.start() + place, "command", command, output))
    return [one[1:] for one in sorted(found)]


def masked(text):
    """Return text with its numbers, and spaces that depend on their widths, made alike."""
    return re.sub(r"\d[\d,.]*(e-?\d+)?", "#", " ".join(text.split()))


def typed(command, url):
    """Return a line of the page as the words of a process."""
    words = shlex.split(
        command.replace("http://localhost:1337", url).replace(
            "localhost:1337", url.removeprefix("http://")
        )
    )
    if words[0] == "mlguard":
        return [sys.executable, "-P", "-m", "mlguard.cli", *words[1:]]
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    return words


def test_the_page_has_no_block_that_is_not_run():
    """Whatever is fenced is a file that is written or commands that are typed."""
    text = PAGE.read_text(encoding="utf-8")
    fences = len(re.findall(r"^```\w+$", text, re.MULTILINE))
    assert fences == len(_FILE.findall(text)) + len(_CONSOLE.findall(text))


@pytest.mark.marathon
def test_the_tutorial_works(tmp_path, running):
    """Every command ends well and prints what the page shows; only numbers may differ."""
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    folder = tmp_path / "empty"
    folder.mkdir()
    todo = steps()
    at = next(place for place, one in enumerate(todo) if one[1] == "mlguard serve")

    def follow(some, url=""):
        for kind, name, text in some:
            if kind == "file":
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
                continue
            done = subprocess.run(
                typed(name, url), cwd=folder, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (name, done.stdout, done.stderr)
            if text:
                assert masked(text) == masked(done.stdout), name

    follow(todo[:at])
    with running("serve", "--port", "0", folder=folder) as (_, url, out):
        assert "mlguard serves churn on http://" in out.read_text()
        follow(todo[at + 1 :], url)
    # Markdown escapes what names have.
    report = (folder / "report.md").read_text().replace("\\", "")
    assert "✗ failed" in report
    assert "concept_drift.loss" in report


def test_the_plug_ins_of_the_page_are_found_and_judge(tmp_path):
    """The package of the page, installed, takes part in the gate and in a replay."""
    folder, site = tmp_path / "project", tmp_path / "site"
    files = {name: text for kind, name, text in steps() if kind == "file"}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    package = dict(_FILE.findall(PLUG_INS.read_text(encoding="utf-8")))
    made = tomllib.loads(package["pyproject.toml"])["project"]
    # What an installer leaves behind, without its build tools.
    info = site / f"our_guards-{made['version']}.dist-info"
    info.mkdir(parents=True)
    (site / "our_guards.py").write_text(package["our_guards.py"], encoding="utf-8")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {made['name']}\nVersion: {made['version']}\n"
    )
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in made["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))

    def documented(*words):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mlguard.cli", *words, "--json"],
            cwd=folder, env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    subprocess.run([sys.executable, "make_csv.py"], cwd=folder, check=True)
    found = {one["id"]: one for one in documented("check", "churn")["checks"]}
    assert found["cost.wrong_answers"]["verdict"] == "passed"
    assert found["cost.wrong_answers"]["n"] == 4800
    documented("deploy", "churn")
    monitors = documented("backtest", "churn", "next_month.csv")["summary"]["monitors"]
    assert "calls" in json.dumps(monitors)
