"""The progress of long work: a bar where people look at a screen, lines elsewhere, else nothing."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from mlguard.cli.terminal import WIDTH, Steps, Terminal
from mlguard.wording import Step

#: What draws a bar in its place again and again.
BAR = "━"
ERASED = "\x1b[2K"
COLOURED = re.compile(r"\x1b\[[\d;]*(?:3[0-8]|9[0-7])[\d;]*m")

#: A piece of long work whose steps have names that a library of markup could take for its own.
WORK = """
import contextlib, sys, time, typer
from mlguard.cli.session import session
from mlguard.wording import Step
options = {name: name in sys.argv for name in ("json", "quiet", "no_color")}
with contextlib.suppress(typer.Exit), session("check", project=None, **options) as run:
    with run.steps("checking iris") as steps:
        steps("training iris: train.py")
        time.sleep(0.12)
        for done in range(1, 4):
            steps(Step(f"gate {done}/3: fairness.gap[sex] [/b] \\x1b[2J", done, 3))
            time.sleep(0.12)
        steps("loading v2 on server-1")
        time.sleep(0.12)
    run.say(["  v2 is live"])
"""


def on_a_screen(*words, stdout=True, folder=None, **environment):
    """Run Python where stderr (and stdout) is a terminal; return its screen, stdout and code."""
    main, other = pty.openpty()
    clean = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-P", *words],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=other if stdout else subprocess.PIPE,
        stderr=other, env=clean | {"TERM": "xterm-256color", "COLUMNS": "80"} | environment,
    ) as process:  # fmt: skip
        os.close(other)
        screen = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:  # Linux says so at the end
                break
            if not piece:
                break
            screen += piece
        os.close(main)
        out = b"" if process.stdout is None else process.stdout.read()
    return screen.decode(), out.decode(), process.returncode


def left_on(screen):
    """Return the lines that a screen shows in the end: what was erased or written over is gone."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", screen):
        if token == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif token == ERASED:
            lines[row] = ""
        elif found := re.fullmatch(r"\x1b\[(\d*)A", token):
            row -= int(found[1] or 1)
        elif token[0] not in "\x1b\r":
            lines[row] = token
    return [line for line in lines if line.strip()]


def test_a_bar_fills_on_a_terminal_and_is_gone_at_the_end():
    """It says the step with its whole name, how far it is, and leaves the result alone."""
    screen, _, code = on_a_screen("-c", WORK)
    assert code == 0
    assert BAR in screen
    assert "gate 2/3: fairness.gap[sex] [/b] \\u001b[2J" in re.sub(r"\x1b\[[\d;]*m", "", screen)
    assert "loading v2 on server-1" in screen
    assert COLOURED.search(screen)
    assert left_on(screen) == ["  v2 is live"]


@pytest.mark.parametrize("how", [{"words": ["no_color"]}, {"NO_COLOR": "1"}])
def test_a_bar_without_colour(how):
    """The bar stays; its colours go."""
    words = how.pop("words", [])
    screen, _, _ = on_a_screen("-c", WORK, *words, **how)
    assert BAR in screen
    assert not COLOURED.search(screen)
    assert left_on(screen) == ["  v2 is live"]


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"TERM": "dumb"}, {"TERM": ""}])
def test_a_line_a_step_where_no_line_can_be_redrawn(environment):
    """A CI log and a terminal without a cursor: nothing but text, and what is hostile is shown."""
    screen, _, _ = on_a_screen("-c", WORK, **environment)
    assert "\x1b" not in screen.replace("\x1b[?25h", "")
    assert screen.split("\r\n") == [
        "training iris: train.py",
        *(f"gate {done}/3: fairness.gap[sex] [/b] \\u001b[2J" for done in (1, 2, 3)),
        "loading v2 on server-1",
        "  v2 is live",
        "",
    ]


def test_a_line_a_step_where_stdout_is_piped():
    """What reads the pipe may write to the same screen: nothing is redrawn on it."""
    screen, out, _ = on_a_screen("-c", WORK, stdout=False)
    assert out == "  v2 is live\n"
    assert BAR not in screen
    assert "gate 3/3" in screen


@pytest.mark.parametrize("word", ["json", "quiet"])
def test_nothing_where_silence_was_asked_for(word):
    """Neither bar nor line."""
    screen, _, _ = on_a_screen("-c", WORK, word)
    assert screen == ""


def test_no_step_is_a_command_for_a_ci_runner(capsys):
    """Runners read stderr as well, and a step may name what comes from data."""
    with Terminal(no_color=True).steps("x", total=None, silent=False) as steps:
        steps("checked a\n::error file=x::boo")
        steps("::error::boo")
        steps("::error::boo")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["checked a ::error file=x::boo", ": :error::boo"]


def test_a_bar_whose_lines_are_counted_counts_lines():
    """Whoever knows how many lines there will be gets one bar, also for work that counts itself."""
    bar = Progress(console=Console(file=io.StringIO()))
    steps = Steps(bar, "telling", lines=10, silent=False)
    steps(Step("sent 10 %", 1, 10))
    steps("waiting")
    assert [(one.completed, one.total) for one in bar.tasks] == [(2, 10)]


def test_a_bar_shows_how_far_the_work_is_where_that_is_known():
    """It pulses while nobody knows; what there was before does not start its clock anew."""
    bar = Progress(console=Console(file=io.StringIO()))
    steps = Steps(bar, "checking", silent=False)
    began = bar.tasks[0].start_time
    shown = []
    for step in ("training", Step("gate 9/10", 9, 10), Step("gate 10/10", 10, 10), "loading"):
        steps(step)
        (task,) = bar.tasks
        assert task.start_time == began
        assert not task.finished or step == "gate 10/10"
        shown.append((task.description, task.completed, task.total))
    assert shown == [
        ("training", 0, None),
        ("gate 9/10", 9, 10),
        ("gate 10/10", 10, 10),
        ("loading", 0, None),
    ]


def test_a_line_is_never_wider_than_the_screen():
    """However long a name is."""
    screen, _, _ = on_a_screen("-c", WORK.replace("gap[sex]", "x" * 500))
    assert max(map(len, re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", screen).split("\r"))) <= WIDTH


@pytest.mark.soak
@pytest.mark.parametrize(
    "command",
    [
        "check",
        "backtest",
        *(
            pytest.param(one, marks=pytest.mark.marathon)
            for one in ("deploy", "calibrate", "report")
        ),
    ],
)
def test_long_commands_draw_a_bar(project, command):
    """The real ones, on a real project; what they print stays."""
    rows = ["serving/iris/data/test.csv"] if command == "backtest" else []
    screen, _, code = on_a_screen("-m", "mlguard.cli", command, "iris", *rows, folder=project)
    assert code == 0
    assert BAR in screen
    assert not any(BAR in line for line in left_on(screen))
    assert "next: " in screen
