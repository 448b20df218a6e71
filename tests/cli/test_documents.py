"""Every --json document keeps to the schema that is shipped, and the schema is strict enough."""

import json
from importlib.resources import files

import jsonschema
import pytest

SCHEMA = json.loads(files("mlguard").joinpath("schemas/command.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def valid(done):
    """Return a command's document once it has been held against the schema."""
    document = done.document
    VALIDATOR.validate(document)
    assert document["exit_code"] == done.code
    return document


def test_the_schema_is_one():
    """The shipped file is itself a valid JSON Schema."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.soak
def test_judging_and_moving(mlguard, project):
    """check, deploy, refusals, undone and repeated moves: one shape for all."""
    import pandas as pd
    from sklearn.dummy import DummyClassifier

    from mlguard.models.formats import save_model

    train = pd.read_csv(project / "serving/iris/data/train.csv")
    weak = DummyClassifier().fit(train.drop(columns="species"), train["species"])
    save_model(weak, project / "weak.skops")

    def typed(*words):
        return valid(mlguard(*words, "--json", folder=project))

    assert typed("deploy", "iris")["changed"] is False
    refused = typed("deploy", "iris", "--model", "weak.skops")
    assert (refused["exit_code"], refused["verdict"]) == (1, "failed")
    assert refused["checks"]
    assert typed("deploy", "iris", "--model", "weak.skops")["reused_evidence"] is True
    assert typed("rollback", "iris", "--reason", "r")["error"]["code"]
    assert typed("rollback", "iris", "--to-default", "--reason", "r")["exit_code"] == 0
    assert typed("status")["apps"][0]["mode"] == "DEFAULT_OUTPUT"
    assert typed("status", "iris")["mode"] == "DEFAULT_OUTPUT"
    assert typed("unblock", "iris", "--reason", "r")["active"]["version"] == "v1"
    assert typed("hold", "iris", "--reason", "r")["ok"] is True
    assert typed("resume", "iris", "--reason", "r")["ok"] is True
    assert typed("history")["events"]
    assert typed("history", "iris", "--verify", "--at", "2040-01-01")["verified"] is True


@pytest.mark.parametrize(
    "words",
    [
        ("check", "iris", "--model", "nosuch.skops"),
        ("deploy", "nosuch"),
        ("rollback", "iris", "--reason", " "),
        ("status", "nosuch"),
        ("history", "iris", "--at", "yesterday"),
    ],
    ids=lambda words: words[0],
)
def test_errors(mlguard, project, words):
    """What failed says so in the same document, with a code and a message."""
    document = valid(mlguard(*words, "--json", folder=project))
    assert document["exit_code"] == 2
    assert document["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"ok": True},
        {"exit_code": 9},
        {"active": {"version": "v1"}},
        {"verdict": "fine"},
        {"checks": None},
        {"error": None, "ok": True, "exit_code": 1},
        {"schema_version": "2.0"},
    ],
)
def test_another_shape_is_told_apart(change):
    """The schema is no rubber stamp: a wrong value anywhere is refused."""
    from mlguard.deploy.outcome import Outcome

    document = Outcome(command="deploy", app="iris", exit_code=1).to_json()
    VALIDATOR.validate(document)
    assert not VALIDATOR.is_valid(document | change)
