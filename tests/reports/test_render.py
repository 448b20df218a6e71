"""The report as HTML, Markdown and JSON: complete, self-contained, escaped, bounded."""

import json
import re
from datetime import datetime
from html.parser import HTMLParser

import msgspec
import pytest

from mlguard.reports import render
from mlguard.reports.view import Change, ReportView, Story
from mlguard.results import Verdict

SVG = b'<svg role="img" aria-label="x"><text>drawn</text></svg>'


def blank(chart, width):
    """Draw nothing, quickly."""
    return SVG


class Page(HTMLParser):
    """Tags, attributes, text and headings of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.headings = [], [], [], []
        self._in = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._in.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        if tag in self._in:
            while self._in.pop() != tag:
                pass

    def handle_data(self, data):
        if self._in and self._in[-1] in ("style", "script"):
            return
        self.words.append(data)
        if self._in and self._in[-1] in ("h1", "h2"):
            self.headings.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_page_says_everything(sample):
    """The five answers come first, then each section with its numbers."""
    page = Page(render.html(sample, blank))
    assert page.headings == [
        "credit was rolled back from v8 to v7.",
        "Performance over time",
        "Verdicts of the monitors",
        "Drift of the data",
        "Per group",
        "Calibration",
        "Service",
        "What changed since the period before",
        "What the gate found about v7",
        "Waived in what serves",
        "History",
        "What could not be said",
    ]
    for said in (
        "v7 serves (generation 12).",
        "mlguard deploy credit --resolves 42",
        "0.31 [0.27, 0.35]",
        "1,204",
        "of 320 needed",
        "✗ failed",
        "? undecided",
        "0 % → 2 %",
        "X: not shown, fewer than 10 rows",
        "too late (3)",
        "waived by bea, T-7 until 2026-11-27 14:22 UTC (in 5 d)",
    ):
        assert said in page.text, said
    assert page.text.index("v7 serves") < page.text.index("Why") < page.text.index("What mlguard")


def test_the_page_loads_nothing_from_anywhere(sample):
    """Style and pictures are inside, and a policy in the page forbids the rest."""
    text = render.html(sample, blank)
    page = Page(text)
    assert not {"script", "link", "iframe", "img", "object", "form"} & set(page.tags)
    assert not re.search(r"https?://", text.replace("http://www.w3.org", ""))
    assert "@import" not in text
    assert "url(" not in text
    policy = next(value for _, name, value in page.attributes if "default-src" in value)
    assert policy.startswith("default-src 'none'")


def hostile(value):
    """Put an attack into every text of a document, but not where a word is fixed."""
    fixed = ("verdict", "before", "after", "kind", "chart", "measure", "schema_version")
    if isinstance(value, dict):
        return {key: one if key in fixed else hostile(one) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one) for one in value]
    if isinstance(value, str):
        return '"><script>alert(1)</script>\n::error::|`x`\u202e' + "y" * 10_000
    return value


@pytest.fixture
def attacked(sample):
    return ReportView.from_json(hostile(sample.to_json()))


def test_hostile_values_cannot_become_markup(attacked):
    """Every text of a report may come from outside."""
    text = render.html(attacked, blank)
    assert "script" not in Page(text).tags
    assert "\u202e" not in text
    assert len(text.encode()) < render.MAX_HTML


def test_hostile_values_cannot_become_markdown(attacked):
    """No HTML, no new table cell, no workflow command, no line of their own."""
    text = render.markdown(attacked)
    outside_code = re.sub(r"```sh\n.*?\n```", "", text, flags=re.DOTALL)
    assert "<script>" not in outside_code
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    rows = [line for line in text.splitlines() if line.startswith("| ✗")]
    assert rows
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) <= 7


def test_a_report_stays_small_whatever_it_holds(sample):
    """Charts of what drifted least give way first; every number stays in the table."""
    one = sample.drift[0]
    many = msgspec.structs.replace(
        sample,
        drift=tuple(
            msgspec.structs.replace(
                one,
                feature=f"feature {place}",
                chart=msgspec.structs.replace(one.chart, feature=f"feature {place}"),
            )
            for place in range(300)
        ),
    )
    text = render.html(many, lambda chart, width: SVG + b" " * 40_000)
    assert len(text.encode()) < 500_000
    assert "feature 299" in text
    assert '<figure class="card">' in text


def test_an_empty_report_is_a_page_too():
    """An app that was never deployed has a report that says so."""
    empty = ReportView(
        app="a", project="p", environment="e", since=0.0, until=1.0, at=1.0,
        story=Story(happened="a has never been deployed.", serves="Nothing serves."),
    )  # fmt: skip
    page = Page(render.html(empty, blank))
    assert page.headings[0] == "a has never been deployed."
    assert "No monitor has judged" in page.text
    assert render.markdown(empty).startswith("# a has never been deployed.")


def test_markdown_has_the_same_numbers(sample):
    """A reader of the pull request sees what a reader of the page sees."""
    text = render.markdown(sample)
    for said in ("credit was rolled back", "KS 0.31", "mlguard deploy credit --resolves 42"):
        assert said in text
    assert "| verdict | what | value | limit | n |" in text


def test_json_is_strict_and_reads_back(sample):
    """Programs read what people see; times are RFC 3339 in UTC and nothing else differs."""
    document = json.loads(render.to_json(sample), parse_constant=pytest.fail)
    assert document["verdict"] == "failed"
    assert document["until"] == "2026-11-22T14:22:00.000Z"
    assert document["figures"][0]["at"] == document["until"]

    def undated(value):
        if isinstance(value, dict):
            return {key: undated(one) for key, one in value.items()}
        if isinstance(value, list):
            return [undated(one) for one in value]
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value):
            return datetime.fromisoformat(value).timestamp()
        return value

    assert ReportView.from_json(undated(document)) == sample


def test_what_changed_is_said_since_the_last_report(sample):
    """Both texts name the report that it is held against, what served then, and what is new."""
    new = Change(name="service.latency", before=None, after=Verdict.FAILED)
    view = msgspec.structs.replace(
        sample, last_report=sample.since, served_then="v6", changes=(*sample.changes, new)
    )
    page, text = Page(render.html(view, blank)), render.markdown(view)
    assert "What changed since the last report, 2026-11-15 14:22 UTC" in page.headings
    assert "v6 served then; v7 serves now" in page.text
    assert "service.latency not judged → ✗ failed" in page.text
    assert "## What changed since the last report, 2026-11-15 14:22 UTC" in text
    assert "- v6 served then" in text
    assert "- service.latency: not judged → failed" in text


def test_tables_have_headings_for_those_who_listen(sample):
    """Every row and column of a table is named by a header cell."""
    page = Page(render.html(sample, blank))
    scopes = [value for tag, name, value in page.attributes if (tag, name) == ("th", "scope")]
    assert scopes.count("row") >= 4
    assert scopes.count("col") >= 15
    assert ("html", "lang", "en") in page.attributes
