"""What people are told about each kind of event."""

import json

import pytest

from mlguard.notify.notice import KINDS, notice, without_secrets, without_small_groups


def test_a_rollback_answers_the_five_questions(facts):
    """From what to what, what serves, why with the number, what was done, the next command."""
    told = notice("rolled_back", facts)
    assert told.headline == "credit was rolled back from v8 to v7."
    assert told.serves == "v7 serves now, generation 12."
    assert told.why == "concept_drift.error on v8: 0.31 [0.27, 0.35], n = 1,204; limit 0.22."
    assert "quarantined" in told.did
    assert told.command == "mlguard deploy credit --resolves 42"
    assert told.tone == "failed"


def test_the_subject_has_the_state_in_brackets_and_the_identity_outside(facts):
    """What changes within an incident stands in brackets; the rest threads its messages."""
    fired = notice("alert", {**facts, "to": None}, topic="concept_drift")
    rolled = notice("rolled_back", facts, topic="concept_drift")
    assert rolled.subject == "[ROLLED BACK v8 → v7] mlguard prod credit: concept_drift, incident 42"
    assert fired.subject.startswith("[FIRING] ")
    assert fired.subject.partition("]")[2] == rolled.subject.partition("]")[2]


@pytest.mark.parametrize("kind", [*KINDS, "something_new"])
def test_every_kind_has_words_even_without_facts(kind):
    """An event without a single fact still makes a readable message."""
    told = notice(kind, {})
    assert told.headline
    assert told.subject.startswith("[")
    assert told.next_step or told.command


def test_a_clause_of_the_registry_does_not_replace_a_sentence(facts):
    """The audit trail's clauses and bare commands give way to whole sentences."""
    told = notice("rolled_back", {**facts, "did": "went back to v7", "next": "mlguard resume x"})
    assert told.did.startswith("mlguard switched all traffic")
    assert told.command == "mlguard deploy credit --resolves 42"


def test_a_sentence_in_the_facts_replaces_ours(facts):
    """Who decides may say it better, and then our command does not follow their words."""
    told = notice("rolled_back", {**facts, "did": "We moved it.", "next": "Call Anna."})
    assert (told.did, told.next_step, told.command) == ("We moved it.", "Call Anna.", "")
    told = notice("rolled_back", {**facts, "did": "mlguard holds promotions."})
    assert told.did == "mlguard holds promotions."


def test_a_reason_with_its_number_is_not_told_twice(facts):
    """Where the reason has the number, the number is not put before it again."""
    told = notice("rolled_back", {**facts, "why": "error 0.31 is over 0.22"})
    assert told.why == "error 0.31 is over 0.22."


def test_a_blocked_app_says_how_to_unblock(facts):
    """A human's default output is undone by a human, not by a deploy."""
    told = notice("default_output", {**facts, "automatic": False, "to": None})
    assert told.command.startswith("mlguard unblock credit")


def test_an_unblocked_app_is_told_by_what_serves():
    """Cleared without a check means that the model answers again."""
    assert notice("cleared", {"app": "credit", "to": "v7"}).headline == (
        "credit answers with v7 again."
    )


def test_a_refusal_names_the_candidate_and_the_step(facts):
    """A refused candidate is told with what to type first."""
    told = notice(
        "refused",
        {"app": "credit", "version": "naive", "why": "gap 0.11", "next": "mlguard fairness credit"},
    )
    assert told.headline == "naive was refused for credit."
    assert told.command == "mlguard fairness credit"


def test_a_refusal_begins_like_a_sentence(facts):
    """The gate's clause becomes the mail's first word; a column's name is left as it is."""
    said = {"app": "credit", "version": "v9", "why": "blocked by 1 check: 1 failed (a.b)"}
    assert notice("refused", said).why == "Blocked by 1 check: 1 failed (a.b)."
    assert notice("refused", {**said, "why": "income drifted"}).why == "income drifted."


@pytest.mark.parametrize("kind", ["alert", "frozen", "reminder"])
def test_news_of_an_incident_leads_to_what_is_known_of_it(facts, kind):
    """Its own command; where there is no incident, the report."""
    assert notice(kind, facts).command == "mlguard incident 42"
    assert notice(kind, {**facts, "incident": None}).command == "mlguard report credit"


def test_a_digest_says_from_when_on_it_tells():
    """What its facts say comes before our general words."""
    assert notice("digest", {"why": "From Monday on."}).why == "From Monday on."
    assert notice("digest", {}).why == "What could wait is told once a day."


def test_small_groups_lose_their_figures(facts):
    """Fewer than ten rows could point at a person."""
    told = notice("rolled_back", facts)
    assert [row.estimate for row in told.table] == [
        "0.34 [0.29, 0.39], n = 611",
        "fewer than 10 rows",
    ]
    assert "0.6" not in json.dumps(without_small_groups(facts))


def test_passwords_in_addresses_are_struck_out():
    """A URL with a password may stand in a reason; the password may not leave the house."""
    said = without_secrets({"why": "postgresql+psycopg://me:hunter2@db/x is gone"})
    assert said == {"why": "postgresql+psycopg://me:***@db/x is gone"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "much", [1], {}])
def test_strange_numbers_do_not_break_the_words(facts, value):
    """A figure that is no number is told as such or left out."""
    told = notice("rolled_back", {**facts, "value": value, "interval": value, "n": None})
    assert told.headline


def test_strange_names_stay_on_one_line():
    """Line breaks, escapes and marks that turn the reading direction are shown, not obeyed."""
    told = notice("alert", {"app": "a\r\nBcc: x", "check": "\x1b[31mred\u202e", "version": "[v]"})
    for text in (told.subject, told.headline):
        assert text.isprintable()
    assert "\\u202e" in told.headline
    assert "\\u001b" in told.headline


def test_a_long_table_is_cut_and_counted(facts):
    """A mail shows thirty rows and says how many more there are."""
    rows = [{"id": f"x.{place}", "value": 0.1, "n": 100} for place in range(50)]
    told = notice("report", {**facts, "figures": rows})
    assert (len(told.table), told.more_rows) == (30, 20)


def test_a_mail_names_what_was_waived_in_what_serves(facts):
    """By whose word and until when; many are counted, strange ones are made printable."""
    waiver = {
        "check": "fairness.gap",
        "subject": "sex\n",
        "says": "waived by bea until 2026-12-01 00:00 UTC (in 9 d)",
    }
    told = notice("rolled_back", {**facts, "waivers": [waiver]})
    assert told.waived == (
        "fairness.gap[sex ]: waived by bea until 2026-12-01 00:00 UTC (in 9 d).",
    )
    assert notice("rolled_back", {**facts, "waivers": [waiver] * 7}).waived[-1] == "and 2 more"
    assert notice("rolled_back", facts).waived == ()


def test_an_endless_word_does_not_push_the_answers_off_the_screen(facts):
    """Ten kilobytes of one letter, a line break, a reading direction, a workflow command."""
    hostile = "x" * 10_000 + "\r\n\u202e::error file=a::<script>"
    said = notice("alert", {**facts, "why": hostile, "check": hostile, "table_title": hostile})
    for text in (said.subject, said.headline, said.why, said.table_title):
        assert len(text) < 1_000
        assert max(len(word) for word in text.split()) <= 165
        assert not {"\r", "\n", "\u202e"} & set(text)
        assert not text.startswith("::")


def test_the_worst_figure_stands_first(facts):
    """By verdict, then by how far it is on its way to its limit; not by its name."""
    figures = [
        {"id": "a", "verdict": "passed", "value": 0.09, "limit": 0.1},
        {"id": "b", "verdict": "failed", "value": 0.11, "limit": 0.1},
        {"id": "c", "verdict": "failed", "value": 0.9, "limit": 0.1},
        {"id": "d", "verdict": "failed", "value": None, "limit": 0.1},
    ]
    said = notice("report", {**facts, "figures": figures})
    assert [row.name for row in said.table] == ["c", "b", "d", "a"]
