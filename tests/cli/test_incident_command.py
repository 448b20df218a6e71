"""``mlguard incident`` as it is typed: its documents keep to the shipped schema."""

import json
from importlib.resources import files

import jsonschema
import pytest

SCHEMA = json.loads(files("mlguard").joinpath("schemas/command.schema.json").read_text("utf-8"))


def valid(done):
    """Return a command's document once it has been held against the schema."""
    jsonschema.Draft202012Validator(SCHEMA).validate(done.document)
    assert done.document["exit_code"] == done.code
    return done.document


@pytest.mark.soak
def test_incidents_from_the_first_to_the_last(mlguard, project):
    """None, one that is listed and told, closed with its cause, closed again."""
    from mlguard.project import Project

    assert valid(mlguard("incident", "--json", folder=project))["incidents"] == []
    assert "There was no incident" in mlguard("incident", folder=project).out
    Project(project).registry.open_incident(
        "iris",
        monitor="data_drift.features",
        version_id=1,
        summary="petal: KS distance 0.31 [0.25, 0.37], n = 500, tolerated 0.10",
        facts={"value": 0.31, "limit": 0.1, "interval": [0.25, 0.37], "n": 500},
        level="alert",
        mail=None,
    )
    [listed] = valid(mlguard("incident", "--json", folder=project))["incidents"]
    assert (listed["id"], listed["state"], listed["level"]) == (1, "open", "alert")
    told = mlguard("incident", "1", folder=project)
    assert told.code == 0
    assert "0.31 [0.25, 0.37], n = 500; limit 0.10" in told.out
    assert max(map(len, told.out.splitlines())) <= 80
    assert told.out.splitlines()[-1] == '  next: mlguard incident 1 --close --cause "…"'
    # It rests on no rows that were logged: no check is invented.
    assert valid(mlguard("incident", "1", "--as-check", "--json", folder=project))["incident"] == 1
    assert mlguard("incident", "1", "--as-check", folder=project).code == 5
    closed = valid(
        mlguard("incident", "1", "--close", "--cause", "a new sensor", "--json", folder=project)
    )
    assert (closed["changed"], closed["incidents"][0]["cause"]) == (True, "a new sensor")
    again = valid(mlguard("incident", "1", "--close", "--cause", "x", "--json", folder=project))
    assert again["changed"] is False


@pytest.mark.parametrize(
    "words",
    [
        ("9",),
        ("1", "--close"),
        ("1", "--close", "--cause", " "),
        ("1", "--cause", "x"),
        ("--close", "--cause", "x"),
        ("1", "--force"),
        ("1", "--close", "--cause", "x", "--as-check"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_told(mlguard, project, words):
    """A number that nobody has, a cause that is missing: exit 2, and what to type instead."""
    document = valid(mlguard("incident", *words, "--json", folder=project))
    assert document["exit_code"] == 2
    assert document["error"]["hint"]
