"""An incident, told, learned from and closed: on real rows, models and a real registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files

import jsonschema
import numpy as np
import pandas as pd
import pytest

from mlguard.deploy.calibrate_history import calibrate
from mlguard.deploy.explaining_later import LaterExplanations
from mlguard.errors import RefusedError, UndecidedError, UsageError
from mlguard.project import Project

SCHEMA = json.loads(files("mlguard").joinpath("schemas/command.schema.json").read_text("utf-8"))
NARROW, WIDE = (1.0, 0.0), (1.0, 1.0)


def debt_breaks(rows):
    """What an upstream change does to a feature: its sign is turned."""
    return rows * np.array([1.0, -3.0])


@pytest.fixture
def rolled_back(world):
    """A version that was rolled back when a feature broke that only it uses."""
    rows = world.rows(300)
    table = pd.DataFrame(rows, columns=["income", "debt"]).assign(
        sex=np.where(np.arange(300) % 2, "F", "M"), paid=world.truth(rows)
    )
    table.to_csv(world.root / "serving" / "loan" / "test.csv", index=False)
    world.deploy("v1", NARROW)
    world.pass_time(3600)
    world.deploy("v2", WIDE)
    watcher = world.watcher()
    world.traffic(600)
    world.run(watcher)
    world.traffic(200, see=debt_breaks)
    assert "rolled_back" in {one.kind for one in world.run(watcher)}
    return world


@pytest.fixture
def project(rolled_back):
    found = Project(rolled_back.root, clock=rolled_back.clock)
    # The same registry, and so the same connection: a test writes through both.
    found.__dict__["registry"] = rolled_back.registry
    return found


def judge(world, model):
    """Run the app's own checks on a model, as its gate would."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "checks"),
            *("-p", "no:cacheprovider", "--mlguard-app", "loan"),
            *("--mlguard-model", str(world.root / model)),
        ],
        cwd=world.root,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_version_that_was_wrong_from_its_first_row_is_held_against_the_test_data(world):
    """Nothing was answered before: the answers on [data] test stand for it, and it is said."""
    rows = world.rows(300)
    table = pd.DataFrame(rows, columns=["income", "debt"]).assign(
        sex=np.where(np.arange(300) % 2, "F", "M"), paid=world.truth(rows)
    )
    table.to_csv(world.root / "serving" / "loan" / "test.csv", index=False)
    world.deploy("v1", NARROW)
    world.pass_time(3600)
    world.deploy("v2", WIDE)
    later = LaterExplanations(world.project, world.registry)
    watcher = world.watcher(explain=later)
    world.traffic(200, see=debt_breaks)
    events = world.run(watcher, passes=2)
    assert "rolled_back" in {one.kind for one in events}
    [said] = [one.summary for one in events if one.kind == "explained"]
    assert "on the test data" in said
    [incident] = world.registry.incidents("loan")
    explanation = incident.facts["explanation"]
    assert (explanation["compared_with"], explanation["n_before"]) == ("test", 300)
    assert explanation["loss"]["n_before"] == 300
    assert explanation["loss"]["change"]["value"] > 0.1
    assert explanation["loss"]["cells"][0] == "debt"
    # Once is enough.
    world.pass_time(100)
    assert later(world.settings, world.clock.now) is None


def test_a_calibration_draws_from_the_prediction_log(world):
    """Where enough of what the active version answered has labels, that is the history."""
    world.deploy("v1", WIDE)
    rng = np.random.default_rng(5)
    rows = world.rows(900)
    ids = world.serve(rows)
    wrong = rng.random(900) < 0.05
    world.label(ids, np.where(wrong, 1 - world.truth(rows), world.truth(rows)))
    found = calibrate(world.project, world.settings, world.registry)
    assert (found.source, found.model) == ("the prediction log", "v1")
    assert (found.n_rows, found.n_labels) == (900, 900)
    measured = {one.monitor: one for one in found.measured}
    assert {"concept_drift", "data_drift", "service"} <= set(measured)
    # What was drawn from the history itself is no drift.
    assert measured["data_drift"].false_alarms <= 0.1 * measured["data_drift"].n
    assert measured["service"].power[-1].found == measured["service"].power[-1].n
    assert measured["concept_drift"].extra["loss"] == pytest.approx(0.05, abs=0.03)


def test_an_incident_is_told(project):
    """What happened, since when, which input moved, how much each part explains, rows, history."""
    told = project.incidents(1)
    document = told.to_json()
    jsonschema.validate(document, SCHEMA)
    [one] = document["incidents"]
    assert (one["level"], one["state"], one["version"], one["serves"]) == (
        "rollback",
        "open",
        "v2",
        "v1",
    )
    found = one["explanation"]
    assert found["features"][0]["feature"] == "debt"
    assert found["features"][0]["interval"][0] > found["features"][0]["tolerated"]
    loss = found["loss"]
    parts = [part["value"] for part in loss["parts"].values()]
    assert sum(parts) == pytest.approx(loss["after"] - loss["before"], abs=1e-9)
    # Truth follows what debt was before it broke: the same inputs are answered worse.
    assert loss["parts"]["concept"]["value"] > 0.4
    assert max(parts) == loss["parts"]["concept"]["value"]
    assert found["segments"][0]["value"] > 0.1
    assert all(row["loss"] == 1.0 for row in one["examples"]["after"])
    assert all(row["loss"] == 0.0 for row in one["examples"]["before"])
    assert list(one["examples"]["after"][0]["row"]) == ["debt", "income"]
    assert {"incident_opened", "rolled_back"} <= {event["kind"] for event in one["events"]}
    assert one["reproduce"][0] == "mlguard incident 1 --as-check"
    assert told.next_step == "mlguard deploy loan --resolves 1"
    jsonschema.validate(project.incidents().to_json(), SCHEMA)


def test_mail_and_report_say_what_is_behind_it(rolled_back):
    """The mail of a rollback has the gist and no row of data; the report has it too."""
    from mlguard.notify.notice import notice
    from mlguard.reports.story import tell

    incident = rolled_back.registry.incident(1)
    said = notice("rolled_back", {"app": "loan", "to": "v1", **incident.facts})
    text = dict(said.numbers)["Behind it"]
    assert "debt moved furthest" in text
    assert "answered worse" in text
    assert "query_id" not in json.dumps(incident.facts["explanation"])
    registry = rolled_back.registry
    story = tell(
        registry.app("loan"),
        events=sorted(registry.events("loan"), key=lambda one: -one.seq),
        incidents=registry.incidents("loan", open_only=True),
        holds=registry.holds("loan"),
        figures=[],
        predictions=0,
    )
    assert "debt moved furthest" in story.why


@pytest.mark.soak
def test_the_same_failure_blocks_the_next_candidate(project, rolled_back):
    """The check of an incident fails the version that failed, and passes the one before it."""
    made = project.incident_check(1)
    assert made.changed
    assert made.files == ("checks/loan/test_incident_1.py", "checks/loan/incident_1.parquet")
    assert made.next_step == "mlguard check loan"
    test = rolled_back.root / made.files[0]
    compile(test.read_text(), str(test), "exec")
    bad, good = judge(rolled_back, "v2.skops"), judge(rolled_back, "v1.skops")
    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert "incident.loss" in bad.stdout
    assert good.returncode == 0, good.stdout + good.stderr
    assert "1 passed" in good.stdout
    # Somebody may have edited it.
    with pytest.raises(RefusedError, match="are there already"):
        project.incident_check(1)
    test.write_text("edited")
    assert project.incident_check(1, force=True).changed
    assert "assert_loss" in test.read_text()


@pytest.mark.slow
def test_its_rows_replay_the_alarm(project, rolled_back, tmp_path):
    """The rows before and after, with the version's bytes, raise the same alarm in a backtest."""
    told = project.incident_rows(1, tmp_path / "rows.csv")
    words = told.next_step.split()
    assert words[:3] == ["mlguard", "backtest", "loan"]
    done = subprocess.run(
        [sys.executable, "-m", "mlguard.cli", *words[1:], "--json"],
        cwd=rolled_back.root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    change = int(words[words.index("--change") + 1])
    alarms = [
        one
        for one in json.loads(done.stdout)["events"]
        if one["monitor"] == "concept_drift" and one["verdict"] == "failed"
    ]
    assert 0 <= alarms[0]["row"] - change < 60
    with pytest.raises(RefusedError, match="there already"):
        project.incident_rows(1, tmp_path / "rows.csv")


def test_what_is_redacted_is_not_shown(project, rolled_back):
    """A column that is redacted now is in no example, and no check is made without it."""
    file = rolled_back.root / "serving" / "loan" / "app.toml"
    file.write_text(file.read_text() + '[log]\nredact = ["debt"]\n')
    told = project.incidents(1).to_json()["incidents"][0]
    assert list(told["examples"]["after"][0]["row"]) == ["income"]
    with pytest.raises(UsageError, match="debt"):
        project.incident_check(1)


def test_closing_asks_for_the_cause(project, rolled_back):
    """An incident is closed with its cause, once, and on record; what clears stays closed."""
    with pytest.raises(UsageError, match="cause"):
        project.close_incident(1, cause=" ")
    closed = project.close_incident(1, cause="upstream turned a sign")
    assert closed.changed
    assert "still held" in closed.lines[0]
    assert closed.next_step.startswith("mlguard resume loan")
    jsonschema.validate(closed.to_json(), SCHEMA)
    again = project.close_incident(1, cause="another word")
    assert not again.changed
    assert rolled_back.registry.incident(1).cause == "upstream turned a sign"
    event = max(rolled_back.registry.events("loan"), key=lambda one: one.seq)
    assert (event.kind, event.reason) == ("incident_closed", "upstream turned a sign")
    rolled_back.registry.update_incident(1, state="cleared")
    assert rolled_back.registry.incident(1).state == "closed"
    # With its incident closed, the version may be judged again, and needs the gate to serve.
    assert project.release("loan", "v2", reason="the feed is mended").changed


def test_rows_that_are_gone_say_so(project, rolled_back):
    """Where retention took the rows, the incident is still told, and no check is invented."""
    import shutil

    shutil.rmtree(rolled_back.project.log_dir / "loan")
    assert project.incidents(1).to_json()["incidents"][0]["examples"] == {}
    with pytest.raises(UndecidedError, match="not in the prediction log"):
        project.incident_check(1)


def test_a_model_that_raised_is_asked_the_same_rows(world):
    """The check of model errors demands an answer to the rows that got none."""
    world.deploy("v1", NARROW)
    world.pass_time(3600)
    world.deploy("v2", WIDE)
    watcher = world.watcher()
    world.serve(world.rows(100), defaults=np.arange(100) % 2 == 0)
    assert "rolled_back" in {one.kind for one in world.run(watcher)}
    project = Project(world.root, clock=world.clock)
    made = project.incident_check(1)
    text = (world.root / made.files[0]).read_text()
    assert "assert_answers(candidate, pd.read_parquet(ROWS))" in text
    assert len(pd.read_parquet(world.root / made.files[1])) > 5
    project.registry.close()
