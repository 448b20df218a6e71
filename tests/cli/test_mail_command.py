"""`notify test`, `outbox` and `hold --mute`, as a user types them."""

import json
import sqlite3
from importlib.resources import files

import jsonschema
import pytest

SCHEMA = json.loads(files("mlguard").joinpath("schemas/command.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def bare(tmp_path):
    """A project without an app; its registry is made by the first command."""
    (tmp_path / "mlguard.toml").write_text('[project]\nname = "lending"\n')
    return tmp_path


@pytest.fixture
def typed(mlguard, bare):
    """Type a command with --json; its document keeps to the schema."""

    def type_it(*words):
        done = mlguard(*words, "--json", folder=bare)
        document = done.document
        VALIDATOR.validate(document)
        assert document["exit_code"] == done.code
        return document

    return type_it


def test_a_test_message_says_what_happened_to_each(typed, bare):
    """Written where nothing is configured; a port where nobody listens is 3, a typing error 2."""
    found = typed("notify", "test")
    assert (found["exit_code"], found["recipients"][0]["recipient"]) == (0, "file")
    (message,) = (bare / ".mlguard/outbox").glob("*-test-*.eml")
    assert str(message) in found["recipients"][0]["said"]
    (bare / "mlguard.toml").write_text(
        '[notify.email]\nsmtp = "smtp://127.0.0.1:9"\nto = ["a@example.com"]\n'
    )
    found = typed("notify", "test")
    assert (found["exit_code"], found["notifications"]["failed"]) == (3, 1)
    assert "could not be used" in found["recipients"][0]["said"]
    assert typed("notify", "test", "--to", "nobody:here")["exit_code"] == 2


def test_the_outbox_is_listed_tried_again_and_dropped(typed, mlguard, bare):
    """What is dead is status 7 until a human acts; each row says what it waits for."""
    assert typed("outbox")["mail"] == []
    with sqlite3.connect(bare / ".mlguard/registry.db") as database:
        for number, (state, error) in enumerate(
            [("DEAD", "550 no such user"), ("PENDING", ""), ("SENT", "")], 1
        ):
            database.execute(
                "INSERT INTO outbox (id, app, kind, recipient, facts, state, attempts, message_id,"
                " created_at, next_at, settled_at, error) VALUES (?, 'credit', 'alert',"
                " 'a@example.com', '{}', ?, 1, '<m@x>', 1e9, 1e9, 1e9, ?)",
                (number, state, error),
            )
    database.close()
    found = typed("outbox")
    assert (found["exit_code"], [one["id"] for one in found["mail"]]) == (7, [2, 1])
    assert "550 no such user" in found["mail"][1]["says"]
    assert found["next_step"] == "mlguard outbox retry 1"
    shown = mlguard("outbox", "--all", folder=bare)
    assert shown.code == 7
    assert max(len(line) for line in shown.out.splitlines()) <= 80
    assert "alert credit to a@example.com" in shown.out
    assert typed("outbox", "retry", "1")["changed"] is True
    assert typed("outbox")["exit_code"] == 0
    assert typed("outbox", "drop", "1")["exit_code"] == 2  # without a reason
    assert typed("outbox", "drop", "1", "--reason", "old news")["mail"][0]["state"] == "DROPPED"
    assert typed("outbox")["counts"]["DROPPED"] == 1
    assert typed("outbox", "retry", "3")["error"]["message"] == "mail 3 was sent"
    assert typed("outbox", "retry")["exit_code"] == 2
