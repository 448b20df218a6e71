"""Names and values that attack, through every surface that people or their programs look at.

Gate and report on screen, page, in Markdown, annotations, JUnit and JSON; mail and webhook; and
what the registry keeps, through ``status``, ``history``, the card and every page of the dashboard.
"""

import asyncio
import json
import re
import time
import xml.etree.ElementTree as ET
from email import message_from_bytes, policy
from html.parser import HTMLParser
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import typer
from fastapi import FastAPI
from sklearn.linear_model import LogisticRegression

from mlguard.checks.github import annotation_lines
from mlguard.checks.junit import write_junit
from mlguard.checks.markdown import markdown as gate_markdown
from mlguard.cli.session import session
from mlguard.cli.status import history_lines, status_lines
from mlguard.cli.terminal import WIDTH, Terminal, outcome_lines
from mlguard.config import load_app, load_project
from mlguard.dashboard.routes import Dashboard
from mlguard.dashboard.source import Source
from mlguard.deploy.history import History
from mlguard.deploy.outcome import Outcome
from mlguard.deploy.status import app_status
from mlguard.errors import RefusedError
from mlguard.models.bundle import Manifest
from mlguard.models.formats import save_model
from mlguard.models.schema import Feature, InputSchema
from mlguard.notify.delivery import Delivery
from mlguard.notify.mail import compose
from mlguard.notify.notice import KINDS, notice
from mlguard.notify.webhook import document
from mlguard.policy import gate_decision
from mlguard.registry import Registry
from mlguard.registry.lifecycle import State
from mlguard.reports import card_page, render
from mlguard.reports.card import build_card
from mlguard.reports.view import Change, Figure, Happening, ReportView, Service, Story
from mlguard.results import CheckResult, Enforcement, Measurement, MonitorResult, Verdict

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


def result(attack, verdict=Verdict.FAILED, enforcement=Enforcement.BLOCK):
    return CheckResult(
        id="fairness.gap", subject=attack, verdict=verdict, summary=f"gap of {attack}",
        enforcement=enforcement, value=0.2, limit=0.1, interval=(0.1, 0.3), n=100, next_step=attack,
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


class Page(HTMLParser):
    """What a browser makes of a page: its tags, its attributes, its longest run of one letter."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))


def check_page(text, scripts=()):
    """Nothing in a page comes from an attack but words: no tag, no handler, no address."""
    assert not OBEYED.search(text)
    assert "y" * 2000 not in text
    found = Page(text).elements
    assert tuple(given["src"] for tag, given in found if tag == "script") == scripts
    for tag, given in found:
        assert tag not in ("iframe", "object", "base")
        assert not [name for name in given if name.startswith("on")]
        for name in ("href", "src"):
            assert "javascript:" not in (given.get(name) or "")
            assert given.get(name) != "x"


def check_lines(text, *, width=None, also=("Bcc:", "# owned")):
    """Nothing on a screen or in a log is obeyed, and no line is a command, a header, a title."""
    lines = text.splitlines()
    assert not OBEYED.search(text)
    assert not any(line.lstrip().startswith(("::", *also)) for line in lines)
    assert width is None or max(map(len, lines)) <= width


def test_on_the_page_of_a_report(attack):
    """No tag, no attribute, no address: everything is text."""
    text = render.html(report(attack), lambda chart, width: b"")
    check_page(text)
    assert "<img" not in text
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
    check_lines(text)
    assert "[x](javascript" not in prose


def test_on_a_terminal(attack, capsys):
    """Nothing is obeyed, nothing begins a line as a command, nothing is wider than the screen."""
    Terminal(no_color=True).write(outcome_lines(outcome(attack)))
    check_lines(capsys.readouterr().out, width=WIDTH)


def said_by_a_command(error, *steps):
    """Run a command that says its steps and then fails."""
    with session("check", project=None, json=False, quiet=False, no_color=True) as run:
        with run.steps("checking") as progress:
            for one in steps:
                progress(one)
        raise error


def test_in_an_error_and_in_progress(attack, capsys):
    """CI runners read stderr as well."""
    with pytest.raises(typer.Exit):
        said_by_a_command(RefusedError(attack, hint=attack), attack)
    # An error may be of several lines; what a line of it says is no header there.
    check_lines(capsys.readouterr().err, also=())


def test_in_the_words_of_a_bug(attack, capsys):
    """A traceback ends with the text of its error, and that may be anything."""
    with pytest.raises(typer.Exit):
        said_by_a_command(ValueError(attack))
    said = capsys.readouterr().err
    check_lines(said, also=())
    assert "Traceback" in said


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


@pytest.mark.parametrize("kind", [*KINDS, "something_new"])
def test_in_mail_and_webhook(attack, kind):
    """One subject, no header of its own, text without commands, HTML without tags, strict JSON."""
    facts = {
        **dict.fromkeys(
            ("app", "project", "environment", "from", "to", "check", "subject", "why", "reason",
             "table_title", "candidate", "active", "actor", "next", "serves", "happened", "did"),
            attack,
        ),
        "incident": 42, "value": 0.2, "limit": 0.1, "interval": [0.1, 0.3], "n": 100, "at": 1e9,
        "measurements": [{"name": attack, "group": attack, "value": 0.1, "n": 100}],
        "waivers": [{"check": attack, "subject": attack, "says": attack}],
        "sections": [{"title": attack, "lines": [attack]}], "counted": [attack],
        "events": [{"subject": attack, "headline": attack}],
    }  # fmt: skip
    said = notice(kind, facts, topic=attack)
    message = compose(
        said, facts, sender="mlguard@example.com", recipient="team@example.com",
        message_id="<inc-x-42.0@example.com>", now=1e9,
    )  # fmt: skip
    parsed = message_from_bytes(message.as_bytes(), policy=policy.default)
    assert parsed["Bcc"] is None
    assert parsed["Subject"].startswith("[")
    assert len(parsed["Subject"].splitlines()) == 1
    assert not OBEYED.search(parsed["Subject"])
    text, page = (
        parsed.get_body((part,)).get_content().replace("\r\n", "\n") for part in ("plain", "html")
    )
    check_lines(text)
    check_page(page)
    told = document(
        Delivery(recipient="webhook", notice=said, facts=facts, message_id="<m@x>", created_at=1e9),
        1e9,
    )
    text = json.dumps(told, allow_nan=False)
    assert len(text.splitlines()) == 1
    assert json.loads(text)["facts"]["why"] == attack
    for name in ("subject", "happened", "serves", "why", "did", "next", "command"):
        assert not OBEYED.search(told[name])


APP = """
[app]
description = {0}
owner = {0}
decision = {0}
success_metric = {0}
[data]
test = "test.csv"
sensitive = ["sex"]
"""


class Besieged:
    """A project with an app for each attack, and the attack wherever the registry keeps words."""

    def __init__(self, root):
        (root / "mlguard.toml").write_text('[project]\nname = "<b>lending</b>"\n')
        rows = np.random.default_rng(1).normal(size=(40, 2))
        model = LogisticRegression().fit(rows, rows[:, 0] > 0)
        save_model(model, root / "model.skops")
        for name, attack in ATTACKS.items():
            folder = root / "serving" / name
            folder.mkdir(parents=True)
            (folder / "app.toml").write_text(APP.format(json.dumps(attack)))
        self.project = load_project(root)
        self.registry = Registry.open(self.project, actor=ATTACKS["markup"])
        for name, attack in ATTACKS.items():
            self.fill(name, attack, root / "model.skops")
        source = Source(
            project=self.project,
            registry=lambda: self.registry,
            names=lambda: [*ATTACKS],
            serving=lambda: dict.fromkeys(ATTACKS, "v1"),
            figures=lambda: b"",
            example=lambda _manifest: "[1.0, 2.0]",
        )
        self.pages = FastAPI()
        Dashboard(source, reader=lambda _request: None, headers={}).add_to(self.pages)

    def get(self, path):
        """Return the text of a page."""

        async def ask():
            transport = httpx.ASGITransport(app=self.pages)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as one:
                return (await one.get(path)).text

        return asyncio.run(ask())

    def fill(self, app, attack, model):
        registry = self.registry
        features = tuple(Feature(f"{attack[:900]}{at}", "number", 0.0, 9.0) for at in (1, 2))
        schema = InputSchema("doubles", "classification", features, (0, 1))
        manifest = Manifest.of(model, schema, load_app(self.project, app).model)
        version = registry.register(
            app, name="v1", manifest=manifest, model_file=model, message=attack, commit="0f3c"
        )
        registry.mark(version.id, State.VERIFIED, reason=attack)
        warned = result(attack, Verdict.WARNED, Enforcement.WARN)
        decision = gate_decision(app, "v1", [warned], [attack])
        evidence = registry.record_evidence(
            app, version.digest, decision.to_json(),
            policy_digest="p", data_digest="d", code_version="c",
        )  # fmt: skip
        registry.mark(version.id, State.PASSED, reason=attack, evidence_id=evidence)
        operation = registry.begin(app, version.id)
        registry.stage(operation)
        registry.promote(operation, reason=attack)
        for value in (0.2, 0.3):
            found = result(attack)
            registry.record_monitor_result(
                app,
                MonitorResult(
                    id="fairness.gap", subject=attack, version="v1", verdict=Verdict.FAILED,
                    value=value, limit=0.1, n=100, summary=attack, reason=attack,
                    measurements=found.measurements,
                ),
            )  # fmt: skip
        self.incident = registry.open_incident(
            app, monitor="fairness", version_id=version.id, summary=attack, level="alert",
            facts={"check": "fairness.gap", "subject": attack, "value": 0.3, "limit": 0.1},
        )  # fmt: skip
        registry.update_incident(self.incident.id, state="closed", cause=attack)
        registry.hold(app, attack)


@pytest.fixture(scope="module")
def besieged(tmp_path_factory):
    made = Besieged(tmp_path_factory.mktemp("besieged"))
    yield made
    made.registry.close()


@pytest.fixture(params=ATTACKS)
def besieged_app(request):
    return request.param


def test_in_status_and_history(besieged, besieged_app, capsys):
    """What the registry keeps is shown on a screen without being obeyed by it."""
    registry = besieged.registry
    settings = load_app(besieged.project, besieged_app)
    status = app_status(
        registry, besieged_app, settings, config_error=ATTACKS[besieged_app], now=time.time()
    )
    events = tuple(registry.events(besieged_app)[::-1])
    Terminal(no_color=True).write(status_lines([status]))
    Terminal(no_color=True).write(history_lines(History(app=besieged_app, events=events)))
    said = capsys.readouterr().out
    assert "incident_opened" in said
    check_lines(said, width=WIDTH)


def test_on_a_card(besieged, besieged_app):
    """As a page and as Markdown."""
    settings = load_app(besieged.project, besieged_app)
    version = besieged.registry.version(besieged_app, "v1")
    card = build_card(
        settings, besieged.registry, version, project="<b>", environment="<b>", now=time.time()
    )
    check_page(card_page.html(card))
    text = card_page.markdown(card)
    check_lines(text)
    assert not re.search(r"(?<!\\)<(script|img|b>)", re.sub(r"`[^`]*`", "", text))
    assert "[x](javascript" not in text


def test_on_every_page_of_the_dashboard(besieged, besieged_app):
    """All apps, one app, an incident, a card, and what is not there."""
    place = [*ATTACKS].index(besieged_app)
    script = ("/apps/-/dashboard.js",)
    for path, scripts in (
        ("/", script),
        (f"/apps/{besieged_app}", script),
        (f"/incidents/{place + 1}", script),
        (f"/apps/{besieged_app}/versions/v1", ()),
        (f"/apps/{quote(ATTACKS[besieged_app][:200].replace('/', '-'), safe='')}", script),
    ):
        text = besieged.get(path)
        check_page(re.sub(r'(?<=dashboard.js)\?[^"]*', "", text), scripts)
