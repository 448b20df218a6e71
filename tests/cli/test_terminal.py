"""What comes from outside – names of columns, models, reasons – cannot play with a terminal."""

import re

import pytest

from mlguard.cli.terminal import WIDTH, Terminal, outcome_lines, plain
from mlguard.deploy.outcome import Outcome
from mlguard.policy import gate_decision
from mlguard.results import CheckResult, Measurement, Verdict

HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "a\r✓ passed",
    "line\nv9 is live",
    "\u202egnp.exe",
    "::error file=x::boo",
    "x" * 10_000,
    "\x00\x07\x9b1m",
]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def outcome(text):
    """Return a refusal in which a hostile text stands wherever one can."""
    failed = CheckResult(
        id="fairness.gap",
        subject=text,
        verdict=Verdict.FAILED,
        summary=f"gap {text}",
        value=0.2,
        limit=0.1,
        interval=(0.1, 0.3),
        n=100,
        measurements=(
            Measurement(name="rate", group=f"sex={text}", value=0.2, n=50),
            Measurement(name="rate", group="sex=F", value=0.4, n=50),
        ),
    )
    decision = gate_decision("iris", "model.skops", [failed], [text])
    return Outcome(
        command="deploy", app="iris", decision=decision, lines=(text,), next_step=text, exit_code=1
    )


@pytest.mark.parametrize("text", HOSTILE, ids=[repr(one[:12]) for one in HOSTILE])
def test_a_hostile_text_stays_text(text, capsys):
    """No control character is printed, and no line can be begun by data."""
    Terminal(no_color=True).write(outcome_lines(outcome(text)))
    printed = capsys.readouterr().out
    assert not CONTROL.search(printed)
    assert not any(line.startswith(("::", "v9", "✓")) for line in printed.splitlines())


def test_no_sentence_is_wider_than_the_screen():
    """Long sentences are wrapped, also where they hold no space."""
    long = outcome("").replace(decision=None, lines=("z" * 500,), next_step="y" * 300)
    assert max(len(plain(line)) for line in outcome_lines(long)) <= WIDTH


def test_what_was_not_asked_for_one_reason_is_one_line():
    """Families of which nothing could be asked, and checks that do not apply, by their reason."""

    def skipped(name, why):
        return CheckResult(id=name, verdict=Verdict.SKIPPED, summary=why)

    results = [
        skipped("data_quality.categories", "no such column"),
        CheckResult(id="data_quality.schema", verdict=Verdict.PASSED, summary="fine"),
        skipped("privacy.pii", "no such column"),
        skipped("privacy.proxies", "no such column"),
    ]
    absent = ["fairness: nobody is named", "privacy.k: nobody is named", "odd"]
    decision = gate_decision("iris", "model.skops", results, absent)
    shown = [
        plain(line)
        for line in outcome_lines(Outcome(command="check", app="iris", decision=decision))
    ]
    assert shown[1:] == [
        "  data quality   ✓ 1 of 1, 1 skipped",
        "  – privacy: no such column",
        "  – fairness, privacy.k: nobody is named",
        "  – odd",
    ]


def test_a_lost_comparison_says_its_sentence_above_the_numbers():
    """Beside a baseline's numbers stands what they mean."""
    lost = CheckResult(
        id="baseline.beats",
        subject="majority",
        verdict=Verdict.FAILED,
        summary="does not beat majority: accuracy 0.59 against 0.60",
        value=-0.01,
        limit=0.0,
        interval=(-0.02, 0.0),
        n=900,
        measurements=(
            Measurement(name="accuracy", group="v2", value=0.59, n=900),
            Measurement(name="accuracy", group="majority", value=0.60, n=900),
        ),
    )
    decision = gate_decision("iris", "model.skops", [lost], [])
    shown = [
        plain(line)
        for line in outcome_lines(Outcome(command="check", app="iris", decision=decision))
    ]
    text = " ".join(" ".join(shown).split())
    assert "does not beat majority: accuracy 0.59 against 0.60" in text
    assert "v2 0.59, n = 900" in text


@pytest.mark.parametrize("line", ["::error::x", "   ::set-output name=a::b"])
def test_no_line_is_a_command_for_a_ci_runner(line):
    """A runner trims blanks before it looks for two colons."""
    assert not plain(line).lstrip().startswith("::")
