"""Names and values that attack, through every text that is made of a decision or a report."""

import json
import re
import xml.etree.ElementTree as ET

import pytest

from mlguard.checks.github import annotation_lines
from mlguard.checks.junit import write_junit
from mlguard.checks.markdown import markdown as gate_markdown
from mlguard.cli.terminal import WIDTH, Terminal, outcome_lines
from mlguard.deploy.outcome import Outcome
from mlguard.policy import gate_decision
from mlguard.reports import render
from mlguard.reports.view import Change, Figure, Happening, ReportView, Service, Story
from mlguard.results import CheckResult, Measurement, Verdict

ATTACKS = {
    "script": '"><script>alert(1)</script><img src=x onerror=alert(1)>',
    "lines": "a\r\nBcc: all@example.com\n::error::forged\n# owned",
    "direction": "\u202egnp.exe\u2066\u2069\u200f",
    "long": "y" * 10_000,
    "command": "::error file=a::b",
    "markup": "|a|`b`<br>[x](javascript:alert(1))",
    "screen": "\x1b[2J\x1b]0;owned\x07\x9b31m\x00",
}
#: Nothing that a screen would obey: controls but the line feed, and what turns the direction.
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def result(attack):
    return CheckResult(
        id="fairness.gap", subject=attack, verdict=Verdict.FAILED, summary=f"gap of {attack}",
        value=0.2, limit=0.1, interval=(0.1, 0.3), n=100, next_step=attack,
        measurements=(
            Measurement(name="rate", group=f"sex={attack}", value=0.2, n=50),
            Measurement(name="rate", group="sex=F", value=0.4, n=50),
        ),
    )  # fmt: skip


def outcome(attack):
    decision = gate_decision("credit", "model.skops", [result(attack)], [attack])
    return Outcome(
        command="check", app="credit", decision=decision, lines=(attack,), next_step=attack,
        exit_code=1,
    )  # fmt: skip


def report(attack):
    figure = Figure.of(result(attack), at=1.0)
    return ReportView(
        app="credit", project=attack, environment=attack, since=0.0, until=1.0, at=1.0,
        story=Story(happened=attack, serves=attack, why=attack, did=attack, next_step=attack,
                    command=f"mlguard deploy {attack}"),
        version=attack, description=attack, owner=attack, served_then=attack, last_report=0.5,
        figures=(figure,), gate=(figure,),
        changes=(Change(name=attack, before=None, after=Verdict.FAILED),),
        happenings=(Happening(at=1.0, what=attack, who=attack, why=attack),),
        service=Service(predictions=1, causes=((attack, 1),), by_version=((attack, 1), ("b", 2))),
        not_judged=(attack,), attachments=(attack,),
    )  # fmt: skip


@pytest.fixture(params=ATTACKS.values(), ids=ATTACKS)
def attack(request):
    return request.param


def test_on_the_page_of_a_report(attack):
    """No tag, no attribute, no address: everything is text."""
    text = render.html(report(attack), lambda chart, width: b"")
    assert "<script" not in text
    assert "<img" not in text
    assert not OBEYED.search(text)
    assert not re.search(r'(href|src)="(?!#)[^"]*(javascript:|<)', text)
    assert len(text.encode()) < render.MAX_HTML


@pytest.mark.parametrize("make", ["report", "gate"])
def test_in_markdown(attack, make):
    """No HTML, no heading and no command of its own, no link that runs something."""
    text = (
        render.markdown(report(attack))
        if make == "report"
        else gate_markdown(outcome(attack).decision)
    )
    prose = re.sub(r"```\w*\n.*?\n```", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<(script|img)", prose)
    assert not OBEYED.search(text)
    lines = text.splitlines()
    assert not any(line.lstrip().startswith(("::", "# owned", "Bcc:")) for line in lines)
    assert "[x](javascript" not in prose


def test_on_a_terminal(attack, capsys):
    """Nothing is obeyed, nothing begins a line as a command, nothing is wider than the screen."""
    Terminal(no_color=True).write(outcome_lines(outcome(attack)))
    lines = capsys.readouterr().out.splitlines()
    assert not OBEYED.search("\n".join(lines))
    assert not any(line.lstrip().startswith("::") for line in lines)
    assert max(map(len, lines)) <= WIDTH


def test_in_annotations(attack):
    """One line each, and one command in it."""
    for line in annotation_lines(outcome(attack).decision):
        assert len(line.splitlines()) == 1
        assert line.startswith(("::error title=credit ", "::warning title=credit "))
        assert line.count("::error") + line.count("::warning") >= 1
        title = line.removeprefix("::error title=").partition("::")[0]
        assert "," not in title
        assert ":" not in title


def test_in_documents(attack, tmp_path):
    """JSON is strict and gives the value back as it was; JUnit is XML."""
    text = json.dumps(outcome(attack).to_json(), allow_nan=False)
    assert len(text.splitlines()) == 1
    assert json.loads(text)["checks"][0]["subject"] == attack
    assert json.loads(render.to_json(report(attack)))["version"] == attack
    write_junit(outcome(attack).decision, tmp_path / "junit.xml")
    assert ET.parse(tmp_path / "junit.xml").getroot().iter("testcase")
