"""promote, abort, confirm, approve and a rollback's dry run as they are typed, and as documents."""

import json
from importlib.resources import files

import jsonschema
import pytest

SCHEMA = json.loads(files("mlguard").joinpath("schemas/command.schema.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("promote", "iris"), 0, "v1 answers everybody already"),
        (("abort", "iris"), 0, "Nothing of iris was being rolled out"),
        (("confirm", "iris"), 0, "v1 is confirmed already"),
        (("approve", "iris", "--reason", "r"), 2, "no version of iris waits"),
        (("approve", "iris", "v1", "--reason", "r"), 1, "v1 is LIVE"),
        (("promote", "iris", "--accept-inconclusive", "loos", "--reason", "r"), 2, "rollout.loss"),
        (("rollback", "iris", "--dry-run", "--reason", "r"), 1, "nothing to go back to"),
    ],
    ids=lambda one: one[0] if isinstance(one, tuple) else None,
)
def test_what_changes_nothing_says_so(mlguard, deployed, words, code, says):
    """One document of the shipped schema, with the exit code, whatever there is to say."""
    done = mlguard(*words, "--json", folder=deployed)
    document = done.document
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert (done.code, document["exit_code"], document["changed"]) == (code, code, False)
    error = document["error"] or {"message": "", "hint": ""}
    assert says in " ".join([*document["lines"], error["message"], error["hint"]])
    assert document["active"] is None or document["active"]["version"] == "v1"
