"""mlguard card, on a project that was really deployed; its document keeps to the schema."""

import json
import platform
from importlib.metadata import version
from importlib.resources import files

import jsonschema
import pytest

from mlguard.project import Project

SCHEMA = json.loads(files("mlguard").joinpath("schemas/command.schema.json").read_text("utf-8"))


@pytest.fixture
def mlguard(in_process):
    """What is asked here is what a command says, not what a process does."""
    return in_process


def test_the_active_version_as_markdown(mlguard, deployed):
    """The bare command prints Markdown: inputs with ranges, classes, findings, lineage."""
    done = mlguard("card", "iris", folder=deployed)
    assert done.code == 0, done.err
    assert done.out.startswith("# iris v1\n")
    known = Project(deployed).registry.version("iris", "v1")
    for piece in ("the first version", "## What the gate found", "setosa", known.digest):
        assert piece in done.out


def test_files_and_the_document(mlguard, deployed, tmp_path):
    """Both files are written whole, and --json tells which."""
    page, text = tmp_path / "card.html", tmp_path / "card.md"
    done = mlguard(
        "card", "iris", "v1", "--html", page, "--markdown", text, "--json", folder=deployed
    )
    document = done.document
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["files"] == [str(page), str(text)]
    assert document["changed"] is True
    assert document["card"]["classes"]
    assert all(one["low"] < one["high"] for one in document["card"]["inputs"])
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert text.read_text("utf-8").startswith("# iris v1\n")


def test_the_whole_evidence(mlguard, deployed):
    """--evidence prints what the registry has, as one document of the version's digest."""
    document = mlguard("card", "iris", "--evidence", folder=deployed).document
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    registry = Project(deployed).registry
    [known] = registry.evidence("iris", document["digest"])
    [shown] = document["evidence"]
    assert shown["decision"] == known.decision
    assert shown["data_digest"] == known.data_digest


def test_a_version_of_one_app_can_be_named_alone(mlguard, deployed):
    """``card v1`` is the card of the one app that has a v1, with what it was judged with."""
    done = mlguard("card", "v1", "--json", folder=deployed)
    assert done.code == 0, done.err
    known = done.document["card"]["lineage"]
    assert (done.document["app"], done.document["version"]) == ("iris", "v1")
    assert known["python"] == platform.python_version()
    assert known["libraries"]["numpy"] == version("numpy")
    evidence = mlguard("card", "v1", "--evidence", folder=deployed).document["evidence"]
    lock = evidence[0]["decision"]["environment"]
    assert lock["sha256"] == known["environment_digest"]
    assert len(lock["libraries"]) == known["n_libraries"] > 20
    assert mlguard("card", "v7", folder=deployed).code == 2


def test_what_cannot_be_shown(mlguard, deployed, tmp_path):
    """A version that does not exist, and two outputs at once, end with exit code 2."""
    missing = mlguard("card", "iris", "v9", "--json", folder=deployed)
    assert missing.code == 2
    assert "v9" in missing.document["error"]["message"]
    both = mlguard("card", "iris", "--evidence", "--html", tmp_path / "x.html", folder=deployed)
    assert both.code == 2
    assert not (tmp_path / "x.html").exists()


def test_from_python(deployed):
    """Project.card is the same view, of the active version or a named one."""
    project = Project(deployed)
    card = project.card("iris")
    assert card.version == "v1"
    assert card.lineage == project.card("iris", "v1").lineage
    assert card.judged.allowed
