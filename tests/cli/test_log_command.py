"""`log erase`, as a user types it."""

import json
from importlib.resources import files

import jsonschema
import pytest

from mlguard.data.labels import LabelStore, default_url
from mlguard.data.prediction_log import PredictionLog

SCHEMA = json.loads(files("mlguard").joinpath("schemas/command.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def mlguard(in_process):
    """What is asked here is what a command says, not what a process does."""
    return in_process


@pytest.fixture
def logged(project):
    """A log with three rows of ann and one of bob; two of ann's have labels."""
    log = PredictionLog(project / ".mlguard/log")
    writer = log.writer("iris", 1, "p")
    writer.append(
        [
            {"query_id": one, "time": 1.0 + one, "generation": 1, "default": False, "uid": uid}
            for one, uid in enumerate(["ann", "ann", "bob", "ann"])
        ]
    )
    writer.close()
    labels = LabelStore(default_url(project / ".mlguard/log", "iris"))
    for one in (0, 2, 3):
        labels.put(one, 1, source="s", at=5.0)
    labels.close()
    return log


def typed(mlguard, project, *words):
    done = mlguard("log", "erase", *words, "--json", folder=project)
    VALIDATOR.validate(done.document)
    return done.document


def test_a_person_s_rows_are_erased_and_the_audit_tells_how_many(mlguard, project, logged):
    """Counted first, then gone, then nothing is left to do; the uid is written nowhere."""
    would = typed(mlguard, project, "iris", "--uid", "ann", "--dry-run")
    assert (would["rows"], would["labels"], would["changed"]) == (3, 2, False)
    assert logged.read("iris").num_rows == 4
    done = typed(mlguard, project, "iris", "--uid", "ann", "--reason", "she asked")
    assert (done["rows"], done["labels"], done["changed"]) == (3, 2, True)
    assert logged.read("iris")["uid"].to_pylist() == ["bob"]
    again = typed(mlguard, project, "iris", "--uid", "ann")
    assert (again["rows"], again["labels"], again["changed"]) == (0, 0, False)
    history = mlguard("history", "iris", "--json", folder=project).document["events"]
    [event] = [one for one in history if one["kind"] == "erased"]
    assert event["reason"] == "she asked"
    assert event["detail"] == {"rows": 3, "labels": 2}
    assert "ann" not in json.dumps(history)


def test_one_prediction_by_its_id(mlguard, project, logged):
    """And what it says to people."""
    done = mlguard("log", "erase", "iris", "--id", "2", folder=project)
    assert done.code == 0
    assert "1 rows of the prediction log and 1 labels erased" in " ".join(done.out.split())
    assert logged.read("iris")["query_id"].to_pylist() == [0, 1, 3]


@pytest.mark.parametrize("words", [["iris"], ["iris", "--id", "1", "--uid", "ann"], ["no"]])
def test_what_cannot_be_meant_is_refused(mlguard, project, logged, words):
    """Neither or both of the two, or an app that is not there: exit 2, nothing changed."""
    assert typed(mlguard, project, *words)["exit_code"] == 2
    assert logged.read("iris").num_rows == 4


# --- log check ------------------------------------------------------------------------------


def check(mlguard, project):
    done = mlguard("log", "check", "iris", "--json", folder=project)
    VALIDATOR.validate(done.document)
    return done


def test_a_log_with_personal_data_is_named_column_by_column(mlguard, project):
    """Exit 1 while the log holds it: redacted since, it warns; allowed, it is meant to be there."""
    log = PredictionLog(project / ".mlguard/log")
    writer = log.writer("iris", 1, "p")
    writer.append(
        [
            {
                "query_id": one,
                "time": 1.0 + one,
                "generation": 1,
                "default": False,
                "uid": f"ann.{one}@example.com",
            }
            for one in range(20)
        ]
    )
    writer.close()
    found = check(mlguard, project)
    told = found.document
    assert (found.code, told["verdict"], told["columns"], told["written"]) == (
        1,
        "failed",
        ["uid"],
        ["uid"],
    )
    assert "'uid' (mail addresses: 100 % of 20 values)" in told["summary"]
    assert '[log] redact = ["uid"]' in told["next_step"]
    assert "example.com" not in found.out
    settings = project / "serving/iris/app.toml"
    text = settings.read_text("utf-8")
    settings.write_text(f'{text}\n[log]\nredact = ["uid"]\n', "utf-8")
    since = check(mlguard, project)
    assert (since.code, since.document["verdict"], since.document["written"]) == (1, "warned", [])
    assert "kept out by now, but in older rows still" in since.document["summary"]
    assert "mlguard log erase iris --uid UID" in since.document["next_step"]
    doctor = mlguard("doctor", "--json", folder=project).document["findings"]
    [seen] = [one for one in doctor if one["id"] == "log.iris"]
    assert (seen["state"], seen["summary"]) == ("warn", since.document["summary"])
    settings.write_text(f'{text}\n[gate.privacy.pii]\nallow = ["uid"]\n', "utf-8")
    assert (check(mlguard, project).code, check(mlguard, project).document["verdict"]) == (
        0,
        "passed",
    )


def test_a_log_that_is_not_there_is_no_pass(mlguard, project, logged):
    """Without rows nothing was looked at; with harmless ones it passes; options of erase do not."""
    done = mlguard("log", "check", "iris", folder=project)
    assert (done.code, "No sign of personal data" in " ".join(done.out.split())) == (0, True)
    for one in (project / ".mlguard/log/iris/1").iterdir():
        one.unlink()
    empty = check(mlguard, project)
    assert (empty.code, empty.document["verdict"], empty.document["rows"]) == (0, "skipped", 0)
    assert mlguard("log", "check", "iris", "--uid", "ann", folder=project).code == 2
