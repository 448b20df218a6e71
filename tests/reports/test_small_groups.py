"""A group of seven people is named and never measured, wherever anything is shown.

One app is deployed, asked, and watched; seven of its people are of the group Zyx.  Every place
that shows figures per group is read, as text or as JSON: none may say a number about Zyx.
"""

import dataclasses
import json
import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pandas as pd
import pytest

from mlguard.checks.explain import report_text
from mlguard.checks.github import annotation_lines
from mlguard.checks.junit import write_junit
from mlguard.checks.markdown import markdown
from mlguard.cli.fairness import fairness_lines
from mlguard.cli.terminal import finding_lines, outcome_lines, plain
from mlguard.dashboard.series import by_group
from mlguard.data.labels import LabelStore, default_url
from mlguard.data.prediction_log import PredictionLog
from mlguard.deploy.card import evidence_document
from mlguard.deploy.reporting import make_report
from mlguard.monitors.fairness import FairnessGap
from mlguard.monitors.group_loss import GroupLoss
from mlguard.monitors.window import WindowData
from mlguard.notify.mail import compose
from mlguard.notify.notice import notice
from mlguard.project import Project
from mlguard.reports import card_page
from mlguard.results import Finding, Measurement

pytestmark = pytest.mark.slow
FEW = "Zyx"
NOW = 1_795_357_320.0
#: What may stand after the group's name: that it is small, what was measured,
#: and the share that app.toml states.
SAID = re.compile(r"rate of 1|0\.20|fewer than 10( rows)?|fewer than 30|&lt; 10|< 10|needs 30")
#: A group's name and what is said of it, up to where something else begins.
ABOUT = re.compile(rf"{FEW}(?P<said>(?:[^;,|<>{{}}\[\]()\n.]|\.\d|\(|\d,\d|(?<! ) (?! )){{0,60}})")
SETTINGS = """
enforcement = "warn"
optional_groups = ["sex=Zyx"]
base_rate_at_most = 0.01
representation_at_most = 0.01
population = {"sex=F" = 0.4, "sex=M" = 0.4, "sex=Zyx" = 0.2}
[gate.fairness.delayed_impact]
success = 75
failure = -150
enforcement = "warn"
[gate.baseline]
by = ["sex"]
enforcement = "warn"
on_inconclusive = "warn"
[gate.behaviour.minimum_functionality.easy]
file = "cases.csv"
at_least = 0.0
[monitor.fairness]
metric = "false_negative_rate"
"""


def with_few(frame: pd.DataFrame) -> pd.DataFrame:
    """Seven rows of the group: their truth is a yes, and five of them look like a no."""
    few = frame.head(7).assign(sex=FEW, y=1, income=[-3.0] * 5 + [3.0] * 2, debts=0.0)
    return pd.concat([frame, few[frame.columns]], ignore_index=True)


@dataclasses.dataclass
class Lived:
    """An app that was deployed, with what its deployment came to."""

    project: Project
    outcome: object

    @property
    def results(self):
        return self.outcome.decision.results


@pytest.fixture(scope="module")
def lived(lender_folder, tmp_path_factory):
    """The lender, deployed with the group among its people, then asked by it."""
    import shutil

    folder = tmp_path_factory.mktemp("few") / "lender"
    shutil.copytree(lender_folder, folder)
    app = folder / "serving/credit"
    for part in ("train", "test"):
        with_few(pd.read_csv(app / f"{part}.csv")).to_csv(app / f"{part}.csv", index=False)
    pd.read_csv(app / "test.csv").head(4).to_csv(app / "cases.csv", index=False)
    with (app / "app.toml").open("a") as file:
        file.write(SETTINGS)
    project = Project(folder, clock=lambda: NOW)
    outcome = project.deploy("credit")
    assert outcome.decision is not None, outcome.lines
    return Lived(project, outcome)


def traffic(lived):
    """Answers to both large groups and the small one, and what was true of them."""
    rng = np.random.default_rng(0)
    groups = ["F"] * 200 + ["M"] * 200 + [FEW] * 7
    label = np.array([*rng.integers(0, 2, 400), *[1] * 7])
    answer = np.where(rng.random(407) < 0.2, 1 - label, label)
    answer[400:] = [0, 0, 0, 0, 0, 1, 1]
    return groups, label, answer


def written(lived):
    """Write the traffic to log and labels, as a server does."""
    groups, label, answer = traffic(lived)
    version = lived.project.registry.app("credit").active
    settings = lived.project.settings
    log = PredictionLog(settings.log_dir)
    writer = log.writer("credit", version.id, "p")
    writer.append(
        [
            {
                "query_id": one,
                "time": NOW - 1000 + one,
                "generation": 1,
                "default": False,
                "valid": True,
                "output": str(answer[one]),
                "groups": json.dumps({"sex": groups[one]}),
            }
            for one in range(len(groups))
        ]
    )
    writer.close()
    labels = LabelStore(default_url(settings.log_dir, "credit"))
    for one, true in enumerate(label.tolist()):
        labels.put(one, true, source="s", at=NOW - 500)
    labels.close()


def window(lived) -> WindowData:
    """The same as monitors see it."""
    groups, label, answer = traffic(lived)
    n = len(groups)

    def objects(values):
        found = np.empty(n, object)
        found[:] = list(values)
        return found

    ids = np.arange(n)
    return WindowData(
        version="v1",
        generation=1,
        query_id=ids,
        time=NOW - 1000.0 + ids,
        columns={},
        output=objects(answer.tolist()),
        score=np.full(n, np.nan),
        default=np.zeros(n, bool),
        valid=np.ones(n, bool),
        inputs_kept=np.zeros(n, bool),
        explanation=objects([None] * n),
        groups=[{"sex": one} for one in groups],
        label=objects(label.tolist()),
        labelled=np.ones(n, bool),
        source=objects(["default"] * n),
        seq=ids + 1,
        arrived=NOW - 500.0 + ids,
    )


def tells_nothing(text: str, *, where: str, named: bool = True) -> None:
    """Hold a text to it: no number stands behind the group's name."""
    assert not named or FEW in text, f"{where} does not name the group at all"
    for found in ABOUT.finditer(text):
        said = SAID.sub("", found["said"])
        assert not re.search(r"\d", said), (where, found[0])


def numbers_of(value, path=""):
    """Yield the numbers that a document holds about the group: in it, or under its name."""
    if isinstance(value, dict):
        about = FEW in str(value.get("group", ""))
        for key, one in value.items():
            mine = FEW in str(key) or (about and key in ("value", "n", "low", "high", "interval"))
            if mine:
                yield from ((f"{path}.{key}", n) for n in plain_numbers(one))
            if not (mine and not isinstance(one, dict)):
                yield from numbers_of(one, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from numbers_of(one, f"{path}[{place}]")


def plain_numbers(value):
    """Yield the numbers in a value at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from plain_numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def holds_nothing(document, *, where: str) -> None:
    """Hold a JSON document to it, but for what app.toml states of the group."""
    document = json.loads(json.dumps(document))
    assert FEW in json.dumps(document), f"{where} does not name the group at all"
    found = [one for one in numbers_of(document) if one[1] != 0.2]  # the stated share
    assert not found, (where, found)


class Rows(HTMLParser):
    """The text of a page, each row of a table on a line of its own."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        self.text += "\n" if tag in ("tr", "p", "div", "li", "text") else ""
        self.text += " | " if tag in ("td", "th") else ""
        for name in ("alt", "aria-label", "title"):
            self.text += f"\n{told[name]}\n" if told.get(name) else ""

    def handle_data(self, data):
        self.text += data


def lines(shown) -> str:
    return "\n".join(map(plain, shown))


# --- the rule itself ------------------------------------------------------------------------


def test_a_measurement_of_few_forgets_its_figures_also_when_read_back():
    """Nine rows of a group have no figures, ten have, and everybody's are everybody's."""
    few = Measurement(name="error", group="sex=X", value=0.5, n=9, low=0.1, high=0.9, unit="ms")
    assert (few.value, few.n, few.low, few.high) == (None, None, None, None)
    assert few.shown() == few.suppressed == "fewer than 10 rows"
    assert Measurement.from_json(few.to_json()) == few
    old = {"name": "error", "group": "sex=X", "value": 0.5, "n": 9, "low": 0.1, "high": 0.9}
    assert Measurement.from_json(old).value is None
    assert Measurement(name="error", group="sex=X", value=0.5, n=10).shown() == "0.50, n = 10"
    assert Measurement(name="error", value=0.5, n=3).value == 0.5


# --- every surface ----------------------------------------------------------------------------


def test_what_the_gate_shows_says_nothing_about_few(lived, tmp_path):
    """Terminal, JSON, Markdown, JUnit, annotations, notebooks, and a failing test's message."""
    decision = lived.outcome.decision
    per_group = [one for one in lived.results if any(FEW in m.group for m in one.measurements)]
    assert {one.id.partition(".")[2] for one in per_group} >= {
        "false_negative_rate_difference",
        "representation",
        "label_base_rate_difference",
        "beats_in",
    }
    tells_nothing(lines(outcome_lines(lived.outcome)), where="mlguard deploy")
    holds_nothing(lived.outcome.to_json(), where="--json")
    tells_nothing(markdown(decision).replace("&#61;", "="), where="--markdown")
    write_junit(decision, tmp_path / "junit.xml")
    tells_nothing((tmp_path / "junit.xml").read_text(), where="--junit")
    tells_nothing("\n".join(annotation_lines(decision)), where="--github")
    tells_nothing(Rows(decision._repr_html_()).text, where="a notebook")
    for one in per_group:
        tells_nothing(report_text(one), where=f"pytest: {one.name}")


def test_the_card_and_the_evidence_say_nothing_about_few(lived):
    """Markdown, HTML and JSON of the version's card; the record that it is made from."""
    card = lived.project.card("credit")
    tells_nothing(card_page.markdown(card), where="card --markdown")
    tells_nothing(Rows(card_page.html(card)).text, where="card --html")
    holds_nothing(card.to_json(), where="card --json")
    record = evidence_document(lived.project.registry, "credit", "v1")
    holds_nothing(record, where="card --evidence")


def test_the_figures_per_group_say_nothing_about_few(lived, tmp_path):
    """``mlguard fairness`` with thresholds and pictures: text, JSON and what stands for them."""
    for thresholds in (False, True):
        plots = tmp_path / str(thresholds)
        found = lived.project.fairness("credit", by="sex", thresholds=thresholds, plots=plots)
        tells_nothing(lines(fairness_lines(found)), where=f"fairness, thresholds {thresholds}")
        holds_nothing(found.to_json() | {"plots": []}, where="fairness --json")
        said = (plots / "README.md").read_text()
        tells_nothing(said, where="what stands for the pictures", named=False)


def test_the_dashboard_says_nothing_about_few(lived):
    """Its charts of groups, drawn from the gate's findings."""
    shown = by_group(lived.results, "the gate")
    assert shown
    for one in shown:
        document = json.loads(msgspec.json.encode(one.chart))
        assert not list(numbers_of(document)), one.key
        tells_nothing(one.chart.alt, where="what stands for the chart", named=False)


def test_monitors_mails_and_incidents_say_nothing_about_few(lived):
    """A comparison of groups in service, as a finding, on a terminal, in a mail, in facts."""
    project = lived.project
    settings = project.app("credit")
    version = project.registry.app("credit").active
    reference = project.registry.reference("credit", version.digest)
    found = FairnessGap(settings.monitor.fairness, reference, settings).judge(window(lived))
    per_group = [one for one in found if any(FEW in m.group for m in one.measurements)]
    assert per_group
    for one in per_group:
        holds_nothing(one.to_json(), where="status --json")
        tells_nothing(lines(finding_lines(one, "")), where="status")
        tells_nothing(one.summary + f" {FEW}", where="summary")
        facts = one.to_json() | {"app": "credit", "at": NOW, "incident": 1, "check": one.name}
        told = notice("alert", facts)
        mail = compose(
            told,
            facts,
            sender="a@example.com",
            recipient="b@example.com",
            message_id="<1@example.com>",
            now=NOW,
        )
        for part in mail.walk():
            if part.get_content_maintype() == "text":
                tells_nothing(Rows(part.get_content()).text, where=part.get_content_type())
    losses = GroupLoss(settings.monitor.fairness, reference, settings).judge(window(lived))
    for one in losses:
        if FEW in one.subject:
            assert (one.value, one.interval) == (None, None)
            assert "0.71" not in one.summary


def test_the_report_says_nothing_about_few(lived, tmp_path):
    """HTML, Markdown and JSON of a period in which seven of them were answered."""
    written(lived)
    project = lived.project
    reported = make_report(
        project.settings,
        project.app("credit"),
        project.registry,
        since=NOW - 2000,
        until=NOW,
        now=NOW,
        html=tmp_path / "report.html",
        markdown=tmp_path / "report.md",
        evidently=False,
    )
    page = (tmp_path / "report.html").read_text()
    tells_nothing(Rows(page).text, where="report --html")
    text = (tmp_path / "report.md").read_text()
    tells_nothing(text, where="report --markdown", named=False)
    holds_nothing(reported.to_json()["report"], where="report --json")


def test_a_finding_about_few_that_somebody_stored_before_is_read_without_them():
    """Evidence of an older release held the figures; whoever reads it now does not get them."""
    old = {
        "id": "fairness.accuracy_difference",
        "verdict": "failed",
        "summary": "differs",
        "measurements": [{"name": "accuracy", "group": "sex=Zyx", "value": 0.71, "n": 7}],
    }
    holds_nothing(Finding.from_json(old).to_json(), where="the registry")
