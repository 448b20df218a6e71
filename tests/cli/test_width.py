"""Everything that people read fits 80 columns, whatever it is called; colour is for terminals."""

import os
import pty
import re
import shutil
import subprocess
import sys

import pytest

from mlguard.cli.starting import write_template
from mlguard.cli.terminal import WIDTH, headline, outcome_lines, plain
from mlguard.deploy.outcome import Outcome
from mlguard.policy import gate_decision
from mlguard.results import CheckResult, Measurement, Verdict

APP = "a-" + "long.name_" * 6 + "xx"
VERSION = "v-" + "2026.11.22-" * 5 + "final.x"


def too_wide(text):
    return [line for line in text.splitlines() if len(line) > WIDTH]


def test_a_headline_of_long_names_takes_more_lines():
    """The mark stays at the right edge, and no character of a name is lost."""
    assert [plain(one) for one in headline("iris  v1", ("✓ live", ""))] == [
        "iris  v1" + " " * 66 + "✓ live"
    ]
    lines = [plain(one) for one in headline(f"{APP}  {VERSION}", ("! being watched", ""))]
    assert max(map(len, lines)) <= WIDTH
    assert lines[-1].endswith("! being watched")
    assert f"{APP}{VERSION}" in re.sub(r"\s|! being watched", "", "".join(lines))


def test_groups_with_long_names_are_wrapped():
    """A group is a value of the data and may be a sentence."""
    groups = [
        Measurement(name="rate", group=f"city={letter * 120}", value=0.2, low=0.1, high=0.3, n=500)
        for letter in "ab"
    ]
    failed = CheckResult(
        id="fairness.false_negative_rate_difference", subject="c" * 200, verdict=Verdict.FAILED,
        summary="s" * 300, value=0.2, limit=0.1, interval=(0.1, 0.3), n=1000,
        measurements=tuple(groups),
    )  # fmt: skip
    decision = gate_decision(APP, VERSION, [failed], ["n" * 200])
    outcome = Outcome(command="check", app=APP, decision=decision, lines=("l" * 200,), exit_code=1)
    assert not too_wide("\n".join(plain(line) for line in outcome_lines(outcome)))


@pytest.fixture(scope="module")
def long_names(tmp_path_factory, mlguard):
    """A project whose app and version have names of the greatest length, deployed."""
    folder = tmp_path_factory.mktemp("long") / "project"
    write_template("project_template", folder)
    for room in ("checks", "serving"):
        shutil.move(folder / room / "iris", folder / room / APP)
    # One of its tests asks the server by the app's name.
    tests = folder / "checks" / APP / "test_iris.py"
    tests.write_text(tests.read_text().replace("/iris/", f"/{APP}/"))
    done = mlguard("deploy", APP, "--version", VERSION, "--message", "m" * 300, folder=folder)
    assert done.code == 0, done.err
    return folder, done


@pytest.mark.soak
@pytest.mark.parametrize("command", ["deploy", "check", "status", "history", "backtest"])
def test_commands_fit_the_screen_with_the_longest_names(long_names, mlguard, command):
    """The real command, on a project with the longest names there can be."""
    folder, done = long_names
    rows = folder / "serving" / APP / "data" / "test.csv"
    words = {"check": [APP], "status": [APP], "history": [APP], "backtest": [APP, rows]}
    if command != "deploy":
        done = mlguard(command, *words[command], folder=folder)
    assert done.code == 0, done.err
    assert done.out
    assert too_wide(done.out) == []


def on_a_terminal(*words, folder, **environment):
    """Return what a command prints where stdout is a terminal."""
    main, other = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlguard.cli", *words],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=other, stderr=subprocess.DEVNULL,
        env=clean | {"TERM": "xterm-256color", "COLUMNS": "80"} | environment,
    )  # fmt: skip
    os.close(other)
    found = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # Linux says so at the end
            break
        if not piece:
            break
        found += piece
    os.close(main)
    assert process.wait(60) == 0
    return found.decode()


def test_colour_is_for_terminals_and_can_be_switched_off(deployed):
    """Colour on a terminal; none with NO_COLOR or --no-color."""
    assert "\x1b[" in on_a_terminal("status", "iris", folder=deployed)
    assert "\x1b[" not in on_a_terminal("status", "iris", folder=deployed, NO_COLOR="1")
    assert "\x1b[" not in on_a_terminal("status", "iris", "--no-color", folder=deployed)
