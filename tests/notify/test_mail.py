"""The e-mail: its structure, its size, its headers, and that nothing in it can do anything."""

import json
from dataclasses import dataclass
from email import message_from_bytes, policy
from html.parser import HTMLParser

import pytest

from mlguard.errors import UsageError
from mlguard.notify.mail import check_address, compose, thread
from mlguard.notify.notice import notice

#: Time of the facts in conftest.
START = 1_795_357_320.0
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 2000


@dataclass(frozen=True)
class Drawn:
    png: bytes = PNG
    title: str = "Error rose"
    alt: str = "Error 0.31 [0.27, 0.35]"


def mail(facts, kind="rolled_back", *, pictures=(), **options):
    options = {"now": START + 5, "message_id": "<inc-x-42.2@example.com>", **options}
    message = compose(
        notice(kind, facts),
        facts,
        sender="mlguard@example.com",
        recipient="team@example.com",
        pictures=pictures,
        **options,
    )
    return message_from_bytes(message.as_bytes(), policy=policy.default)


def shape(part):
    if not part.is_multipart():
        return part.get_content_type()
    return (part.get_content_type(), *(shape(one) for one in part.iter_parts()))


class Tags(HTMLParser):
    """Every tag and every attribute of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]


def test_the_structure_is_the_promised_one(facts):
    """Text, HTML with its pictures, and the facts as a file, each where programs look for it."""
    assert shape(mail(facts, pictures=[Drawn(), Drawn()])) == (
        "multipart/mixed",
        (
            "multipart/alternative",
            "text/plain",
            ("multipart/related", "text/html", "image/png", "image/png"),
        ),
        "application/json",
    )


def test_every_picture_is_shown_by_its_content_id(facts):
    """The HTML refers to each picture by cid, with words that carry the number."""
    parsed = mail(facts, pictures=[Drawn(), Drawn()])
    found = Tags(parsed.get_body(("html",)).get_content())
    sources = [value for tag, name, value in found.attributes if (tag, name) == ("img", "src")]
    ids = [
        "cid:" + part["Content-ID"].strip("<>")
        for part in parsed.walk()
        if part.get_content_type() == "image/png"
    ]
    assert sources == ids
    assert ("img", "alt", Drawn().alt) in found.attributes


def test_the_text_is_complete_in_itself(facts):
    """Without HTML and pictures a reader has verdict, number, limit, n, from, to and command."""
    text = mail(facts, pictures=[Drawn()]).get_body(("plain",)).get_content()
    for said in (
        "credit was rolled back from v8 to v7.",
        "v7 serves now",
        "0.31 [0.27, 0.35], n = 1,204",
        "0.22",
        "mlguard deploy credit --resolves 42",
        "Error 0.31 [0.27, 0.35]",
        "4,120 predictions",
    ):
        assert said in text
    assert max(len(line) for line in text.splitlines()) < 100


def test_what_is_waived_stands_in_both_parts(facts):
    """Plain text and HTML name the check, whose word it is and until when."""
    says = "waived by bea until 2026-12-01 00:00 UTC (in 9 d)"
    waiver = {"check": "fairness.gap", "subject": "sex", "says": says}
    message = mail({**facts, "waivers": [waiver]})
    for kind in ("plain", "html"):
        text = " ".join(message.get_body((kind,)).get_content().split())
        assert f"fairness.gap[sex]: {says}." in text


def test_the_headers_thread_and_ask_no_machine_to_answer(facts):
    """Root and previous message in References; automatic replies are not invited."""
    parsed = mail(facts)
    assert parsed["Message-ID"] == "<inc-x-42.2@example.com>"
    assert parsed["In-Reply-To"] == "<inc-x-42.0@example.com>"
    assert parsed["References"] == "<inc-x-42.0@example.com> <inc-x-42.1@example.com>"
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert parsed["X-Auto-Response-Suppress"] == "All"
    assert parsed["List-Id"] == "<credit.prod.mlguard.example.com>"
    assert parsed["Date"].datetime.timestamp() == START + 5
    assert parsed["To"] == "team@example.com"


def test_the_root_of_a_thread_refers_to_nothing():
    """Number 0 starts the thread; an id without a number stands alone."""
    assert thread("<inc-x-42.0@example.com>")[1] == ()
    assert thread("<test-9@example.com>") == ("<test-9@example.com>", ())


def test_the_html_loads_nothing_and_runs_nothing(facts):
    """No script, no remote picture, no link, no form, no handler."""
    found = Tags(mail(facts, pictures=[Drawn()]).get_body(("html",)).get_content())
    assert not {"script", "link", "iframe", "form", "object", "svg"} & set(found.tags)
    for tag, name, value in found.attributes:
        assert not name.startswith("on")
        assert "http" not in value, (tag, name, value)
        assert "url(" not in value


HOSTILE = "<script>alert(1)</script>\r\nBcc: all@example.com\u202e::error::" + "x" * 10_000


def test_hostile_values_are_escaped_everywhere(facts):
    """Names and values from outside can neither become markup nor a header."""
    strange = {
        **facts,
        "app": HOSTILE,
        "environment": HOSTILE,
        "from": HOSTILE,
        "check": HOSTILE,
        "why": HOSTILE,
        "table_title": HOSTILE,
        "measurements": [{"name": HOSTILE, "group": HOSTILE, "value": 0.1, "n": 100}],
    }
    parsed = mail(strange, pictures=[Drawn(alt=HOSTILE)])
    assert parsed["Bcc"] is None
    assert len(parsed["Subject"]) < 700
    html = parsed.get_body(("html",)).get_content()
    assert "script" not in Tags(html).tags
    assert "\u202e" not in html
    assert len(html.encode()) < 100_000
    text = parsed.get_body(("plain",)).get_content()
    assert not any(line.startswith(("::", "Bcc:")) for line in text.splitlines())


def test_sizes_are_bounded(facts):
    """However much is told, the HTML stays below what mail programs cut and the file small."""
    rows = [
        {"id": "data_drift.ks", "subject": f"feature {place} " + "y" * 200, "value": 0.2, "n": 900}
        for place in range(4000)
    ]
    parsed = mail({**facts, "figures": rows}, pictures=[Drawn()] * 9 + [Drawn(png=b"0" * 200_000)])
    assert len(parsed.get_body(("html",)).get_content().encode()) < 100_000
    attached = next(parsed.iter_attachments())
    assert len(attached.get_payload(decode=True)) <= 256_000
    assert json.loads(attached.get_content())["left_out"]
    assert sum(part.get_content_type() == "image/png" for part in parsed.walk()) == 6


def test_the_attached_facts_are_strict_json_without_small_groups_and_secrets(facts):
    """What travels as a file follows the same rules as what is shown."""
    parsed = mail({**facts, "value": float("nan"), "url": "smtp://me:pw@host"})
    attached = next(parsed.iter_attachments())
    assert attached.get_filename() == "drift.json"
    document = json.loads(attached.get_content(), parse_constant=pytest.fail)
    assert document["value"] is None
    assert document["measurements"][1] == {
        "group": "sex=X",
        "name": "error",
        "suppressed": "fewer than 10 rows",
    }
    assert "pw" not in document["url"]


def test_a_late_message_says_so(facts):
    """After an outage the reader must not take old news for new."""
    parsed = mail(facts, now=START + 5 * 3600)
    for part in ("plain", "html"):
        text = parsed.get_body((part,)).get_content()
        assert text.index("5 h late") < text.index("What mlguard did")


@pytest.mark.parametrize(
    "text",
    ["", "team", "a@b\nBcc: c@d", "a b@example.com", "a@b, c@d", "a@b>", "<script>@x"],
)
def test_what_is_no_single_address_is_refused(text):
    """A line break or a second address never gets into a header."""
    with pytest.raises(UsageError, match="no e-mail address"):
        check_address(text)


def test_a_long_word_does_not_break_the_phone(facts):
    """The command and the names may be broken anywhere."""
    long = "fairness.false_negative_rate_difference[race]"
    html = mail({**facts, "check": long}).get_body(("html",)).get_content()
    assert "word-break:break-word" in html
    assert "fairness.<wbr>false_<wbr>negative_<wbr>rate_<wbr>difference<wbr>[race]" in html
    assert "n\u00a0=\u00a01,204" in html
    assert "14:22\u00a0UTC" in html
