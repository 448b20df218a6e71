"""A card says what the registry has on record about a version, and what nobody tested."""

import json
from html.parser import HTMLParser

import pytest

from mlguard.reports import card_page
from mlguard.reports.card import build_card
from mlguard.results import CheckResult, GateDecision, Measurement, Verdict

DAY = 86_400.0
EVIL = "<script>alert(1)</script>|`x`\n# owned"


def make(lived, name, now):
    version = lived.registry.version("credit", name)
    return build_card(
        lived.settings, lived.registry, version, project="lending", environment="prod", now=now
    )


def judge(lived, *results, allowed=True, not_applicable=()):
    """Deploy v1, where it is not, and judge it once more; return its card."""
    version = next(iter(lived.registry.versions("credit")), None) or lived.deploy("v1")
    decision = GateDecision(
        app="credit",
        candidate="v1",
        allowed=allowed,
        results=results,
        because="because of the test",
        not_applicable=not_applicable,
    )
    lived.registry.record_evidence(
        "credit", version.digest, decision.to_json(),
        policy_digest="p" * 64, data_digest="d" * 64, code_version="0.1",
    )  # fmt: skip
    return make(lived, "v1", lived.now)


def gap(**changes):
    return CheckResult(
        **{
            "id": "fairness.false_negative_rate_difference",
            "subject": "sex",
            "verdict": Verdict.FAILED,
            "summary": "F 0.31, M 0.20",
            "value": 0.11,
            "limit": 0.05,
            "interval": (0.07, 0.15),
            "n": 2584,
            "measurements": (
                Measurement(
                    name="false_negative_rate", value=0.31, low=0.27, high=0.35, n=1204, group="F"
                ),
                Measurement(name="false_negative_rate", value=0.7654, n=3, group="X"),
            ),
        }
        | changes
    )


class Text(HTMLParser):
    """Text and tags of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_who_what_and_where_from(rolled_back, now):
    """State, author, digests and what the gate decided are those of the registry."""
    card = make(rolled_back, "v7", now)
    version = rolled_back.registry.version("credit", "v7")
    assert (card.owner, card.decision) == ("lending <lending@example.com>", "grant a loan")
    assert (card.state, card.since) == (version.state.value, version.state_at)
    assert card.registered_by == "anna"
    assert card.lineage.version_digest == version.digest
    assert card.lineage.model_digest == version.manifest["model_sha256"]
    assert (card.lineage.data_digest, card.lineage.policy_digest) == ("d", "p")
    assert card.judged.allowed
    assert [one.figure.name for one in card.judged.checks] == ["baseline.beats"]


def test_a_rollback_stands_on_both_cards(rolled_back, now):
    """The version that was left, and the one that traffic went to, both tell of it."""
    left, reached = make(rolled_back, "v8", now), make(rolled_back, "v7", now)
    for card in (left, reached):
        assert any(one.what == "rolled back to v7" for one in card.happenings)
    assert "0.51" in left.quarantine
    assert reached.quarantine == ""
    assert [one.at for one in left.happenings] == sorted(
        (one.at for one in left.happenings), reverse=True
    )


@pytest.mark.parametrize("render", [card_page.markdown, card_page.html])
def test_every_number_has_its_interval_limit_and_n(lived, render):
    """A failed check shows its numbers, and each group its own."""
    card = judge(lived, gap(), allowed=False)
    shown = Text(render(card)).text.replace("\\", "")
    for piece in ("failed", "0.11 [0.07, 0.15]", "0.05", "2,584", "0.31 [0.27, 0.35]", "1,204"):
        assert piece in shown


@pytest.mark.parametrize("render", [card_page.markdown, card_page.html])
def test_a_small_group_appears_by_name_only(lived, render):
    """Of three people no figure is shown, neither on the page nor in the document."""
    few = gap(id="fairness.accuracy", subject="X", n=3, value=0.3333, summary="X 0.3333")
    card = judge(lived, gap(), few)
    shown = render(card) + json.dumps(card.to_json())
    assert "not shown, fewer than 10 rows" in shown
    assert any("there are such of X" in one for one in card.limits)
    assert "0.7654" not in shown
    assert "0.77" not in shown
    assert "0.33" not in shown


def test_what_was_not_judged_is_said(lived):
    """Undecided, skipped and inapplicable checks all stand among the limits."""
    card = judge(
        lived,
        gap(verdict=Verdict.INCONCLUSIVE, n=90, n_min=320),
        gap(id="data_quality.overlap", subject="", verdict=Verdict.SKIPPED, summary="no train"),
        not_applicable=("expectations: there is no suite",),
    )
    said = "\n".join(card.limits)
    assert "[sex] could not be decided (about 320 rows would tell)" in said
    assert "data_quality.overlap was skipped: no train" in said
    assert "Not judged: expectations: there is no suite" in said
    assert "test.csv" in said


def test_a_version_that_no_gate_judged(lived):
    """The card says so instead of showing an empty table."""
    version = lived.deploy("v1")
    bare = make(lived, "v1", lived.now)
    assert bare.judged is not None
    file = lived.root / "other.bin"
    file.write_bytes(b"other")
    from mlguard.data.frames import file_digest
    from mlguard.models.bundle import Manifest

    manifest = Manifest.from_json(version.manifest | {"model_sha256": file_digest(str(file))})
    lived.registry.register("credit", name="v2", manifest=manifest, model_file=file)
    card = make(lived, "v2", lived.now)
    assert card.judged is None
    assert card.limits[0] == "No gate has judged this version."
    assert "No gate has judged this version." in card_page.html(card)
    assert "No gate has judged this version" in card_page.markdown(card)
    assert card.lineage.code_version == ""


def test_a_waiver_stands_with_owner_reason_ticket_and_end(lived):
    """Who answers for a finding is on the card, as of now."""
    version = lived.deploy("v1")
    lived.registry.waive(
        "credit", "fairness.false_negative_rate_difference", subject="sex", digest=version.digest,
        owner="bea", reason="until the retraining", ticket="T-7", expires=lived.now + 30 * DAY,
    )  # fmt: skip
    card = judge(lived, gap(), allowed=False)
    [waived] = card.waived
    assert (waived.owner, waived.reason, waived.ticket) == ("bea", "until the retraining", "T-7")
    assert waived.expires == pytest.approx(lived.now + 30 * DAY, abs=5)
    assert card.judged.allowed
    assert "waived by bea" in card.judged.checks[0].waiver
    for page in (card_page.markdown(card), card_page.html(card)):
        assert "until the retraining" in page
        assert "F 0.31, M 0.20; waived by bea" in page
        assert "T-7" in page.replace("\\", "")
    lived.now += 31 * DAY
    later = make(lived, "v1", lived.now)
    assert later.waived[0].state == "expired"
    assert not later.judged.allowed


def test_text_from_outside_stays_text(lived):
    """A summary cannot become markup, a heading or a cell."""
    card = judge(lived, gap(summary=EVIL, subject=EVIL))
    page = card_page.html(card)
    assert "script" not in Text(page).tags
    assert "default-src 'none'" in page
    lines = card_page.markdown(card).splitlines()
    assert not any(line.startswith("# owned") for line in lines)
    assert "<script>" not in "".join(lines).replace("\\<script\\>", "")


def test_the_document_is_strict_and_dated(rolled_back, now):
    """Every time is RFC 3339, and nothing is NaN."""
    document = make(rolled_back, "v8", now).to_json()
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document
    assert document["registered_at"].endswith("Z")
    assert document["judged"]["at"].endswith("Z")
    assert all(one["at"].endswith("Z") for one in document["happenings"])
