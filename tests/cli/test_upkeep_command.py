"""`why` and `registry verify|repair|gc`, and lines that cannot be read, as a user types them."""

import hashlib
import json
import sqlite3
from importlib.resources import files

import jsonschema
import pytest

SCHEMA = json.loads(files("mlguard").joinpath("schemas/command.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def typed(mlguard, project):
    """Type a command with --json; its document keeps to the schema."""

    def type_it(*words):
        done = mlguard(*words, "--json", folder=project)
        document = done.document
        VALIDATOR.validate(document)
        assert document["exit_code"] == done.code
        return document

    return type_it


def test_why_tells_a_version_s_story(typed, mlguard, project):
    """State, reason, events in order, evidence, next step; the same for people."""
    found = typed("why", "iris")
    assert (found["version"], found["state"]) == ("v1", "LIVE")
    kinds = [one["kind"] for one in found["events"]]
    assert kinds[0] == "registered"
    assert {"verified", "gate_passed", "passed", "staged", "promoted"} <= set(kinds)
    assert [one["seq"] for one in found["events"]] == sorted(one["seq"] for one in found["events"])
    assert found["evidence"][0]["allowed"] is True
    assert found["blocking"] == []
    shown = mlguard("why", "iris", "v1", folder=project)
    assert "LIVE: answers everybody, and is confirmed" in shown.out
    assert "promoted" in shown.out
    assert typed("why", "iris", "v7")["exit_code"] == 2


def test_verify_finds_a_flipped_bit_and_repair_puts_it_back(typed, project):
    """Exit 1 by name; only the identical file mends it (the app's own model, by default)."""
    assert typed("registry", "verify")["ok"] is True
    digest = hashlib.sha256((project / "serving/iris/model.skops").read_bytes()).hexdigest()
    blob = project / ".mlguard/artifacts" / digest[:2] / digest
    good = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    found = typed("registry", "verify")
    assert (found["exit_code"], found["items"][0]["kind"]) == (1, "bytes")
    assert found["items"][0]["version"] == "v1"
    other = project / "other"
    other.write_bytes(b"other")
    assert typed("registry", "repair", "--from", other)["exit_code"] == 1
    would = typed("registry", "repair", "--dry-run")
    assert (would["changed"], would["items"][0]["kind"]) == (False, "put back")
    assert blob.read_bytes() != good
    assert typed("registry", "repair")["changed"] is True
    assert blob.read_bytes() == good
    assert typed("registry", "verify")["ok"] is True
    assert typed("registry", "repair")["changed"] is False


def test_an_edited_audit_trail_is_named(typed, project):
    """`registry verify` and `history --verify` exit 1 with the first bad entry (fault 39)."""
    by_hand = sqlite3.connect(project / ".mlguard/registry.db")
    with by_hand:
        by_hand.execute("UPDATE events SET actor = 'nobody' WHERE seq = 2")
    by_hand.close()
    assert typed("history", "--verify")["first_bad"] == 2
    found = typed("registry", "verify")
    assert found["exit_code"] == 1
    assert "entry 2" in found["items"][0]["summary"]


def test_gc_and_its_dry_run(typed):
    """There is nothing to collect in a young registry, and saying so changes nothing."""
    for words in (("--dry-run",), ()):
        found = typed("registry", "gc", *words)
        assert (found["changed"], found["items"]) == (False, [])


def test_what_is_so_already_is_not_a_change(typed):
    """block, unblock and hold twice: the second says `changed: false`."""
    for command in ("block", "unblock", "hold"):
        assert typed(command, "iris", "--reason", "r")["changed"] is True
        assert typed(command, "iris", "--reason", "r")["changed"] is False


@pytest.mark.parametrize(
    "words",
    [("deploy",), ("registry", "polish"), ("nosuch",), ("status", "--nosuch"), ()],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_a_line_that_cannot_be_read_is_a_document_too(typed, words):
    """Exit 2, the message, and what to type, on stdout as JSON."""
    found = typed(*words)
    assert found["exit_code"] == 2
    assert found["error"]["code"] == "usage"
    assert found["error"]["hint"].startswith("mlguard")
