"""Every command in a real project: exit code, JSON document, what it says, what it leaves alone."""

import json
import subprocess
import sys
import tomllib

import pytest

from mlguard.project import Project


def events(folder):
    """Return the whole audit trail."""
    return Project(folder).registry.events()


@pytest.fixture
def weak(project):
    """A model file that no gate should let through: it always answers the same class."""
    import pandas as pd
    from sklearn.dummy import DummyClassifier

    from mlguard.models.formats import save_model

    train = pd.read_csv(project / "serving/iris/data/train.csv")
    model = DummyClassifier().fit(train.drop(columns="species"), train["species"])
    save_model(model, project / "weak.skops")
    return project / "weak.skops"


def test_a_first_deployment_is_told_in_ten_lines(deployed):
    """What was judged, what serves and what to type next, and nothing of how it is done."""
    said = (deployed.parent / "said.txt").read_text().splitlines()
    assert len(said) <= 10, said
    assert said[0].startswith("iris  candidate v1 (model.skops)")
    assert "  v1 is live (generation 1)." in said
    assert said[-1].startswith("  next: mlguard serve")


def test_a_deployment_of_what_is_known_loads_nothing_that_judges(project):
    """Same bytes, same data: the answer is on record, and costs no more than looking it up."""
    code = (
        "import json, sys\nfrom mlguard.project import Project\n"
        "done = Project(sys.argv[1]).deploy('iris')\n"
        "print(json.dumps([done.exit_code, done.changed, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(project)], capture_output=True, check=True
    )
    exit_code, changed, loaded = json.loads(done.stdout)
    assert (exit_code, changed) == (0, False)
    heavy = {"evidently", "great_expectations", "matplotlib", "onnxruntime", "pandas", "sklearn"}
    assert not heavy & set(loaded)


def test_the_same_bytes_again_change_nothing(mlguard, project):
    """Deploying what serves already is no error and leaves no trace."""
    before = events(project)
    done = mlguard("deploy", "iris", "--json", folder=project)
    assert done.code == 0
    assert done.document["changed"] is False
    assert done.document["active"]["version"] == "v1"
    assert events(project) == before


def test_a_refused_candidate_leaves_the_live_version_alone(mlguard, project, weak):
    """A weak model exits 1, says which check, value, limit and n, and stands in the history."""
    done = mlguard("deploy", "iris", "--model", weak, "--json", folder=project)
    assert done.code == 1
    assert done.document["verdict"] == "failed"
    failed = [one for one in done.document["checks"] if one["verdict"] == "failed"]
    assert "baseline.beats" in {one["id"] for one in failed}
    beats = next(one for one in failed if one["id"] == "baseline.beats")
    assert beats["limit"] == 0.0
    assert beats["n"] == 75
    assert beats["interval"][0] <= beats["value"] <= beats["interval"][1]
    assert done.document["active"] == {**done.document["active"], "version": "v1", "state": "LIVE"}
    history = mlguard("history", "iris", folder=project)
    assert history.code == 0
    assert "v2" in history.out
    assert "baseline.beats" in history.out


def test_a_refusal_says_what_to_do_next(mlguard, project, weak):
    """The last line of a refusal is the next step, and the groups stand above it."""
    done = mlguard("check", "iris", "--model", weak, folder=project)
    assert done.code == 1
    assert "✗ refused" in done.out
    assert "baseline.beats" in done.out
    assert done.out.rstrip().splitlines()[-1].strip()
    assert max(len(line) for line in done.out.splitlines()) <= 80


def test_check_registers_nothing(mlguard, project, weak):
    """A check leaves the registry as it was."""
    before = events(project)
    mlguard("check", "iris", "--model", weak, folder=project)
    mlguard("deploy", "iris", "--model", weak, "--dry-run", folder=project)
    assert events(project) == before


def damaged(project, weak):
    file = project / "damaged.skops"
    file.write_bytes(weak.read_bytes()[:400])
    return ["--model", file]


def no_model(project, _weak):
    file = project / "notes.skops"
    file.write_text("this is no model")
    return ["--model", file]


def absent_model(project, _weak):
    return ["--model", project / "nowhere.skops"]


def unknown_key(project, _weak):
    toml = project / "serving/iris/app.toml"
    toml.write_text(toml.read_text() + "\n[gate.baselin]\nmargin = 0.1\n")
    return []


def missing_data(project, _weak):
    toml = project / "serving/iris/app.toml"
    toml.write_text(toml.read_text().replace("data/test.csv", "data/tset.csv"))
    return []


def absent_target(project, weak):
    toml = project / "serving/iris/app.toml"
    toml.write_text(toml.read_text().replace('target = "species"', 'target = "specie"'))
    return ["--model", weak]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (damaged, "damaged.skops"),
        (no_model, "notes.skops"),
        (absent_model, "nowhere.skops"),
        (unknown_key, "did you mean 'baseline'?"),
        (missing_data, "tset.csv"),
        (absent_target, "species"),
    ],
)
def test_a_broken_input_exits_2_and_changes_nothing(mlguard, project, weak, break_it, said):
    """What cannot be judged at all is named, with what to do, and nothing is registered."""
    words = break_it(project, weak)
    before = events(project)
    done = mlguard("deploy", "iris", *words, "--json", folder=project)
    assert done.code == 2, done.out
    assert done.document["ok"] is False
    assert said in done.document["error"]["message"]
    assert done.document["error"]["hint"]
    assert "Traceback" not in done.err
    assert events(project) == before


def test_a_model_that_would_run_code_is_refused(mlguard, project):
    """A pickle is not opened unless app.toml allows it; the message names the key."""
    import pickle

    file = project / "model.pkl"
    file.write_bytes(pickle.dumps({"no": "model"}))
    done = mlguard("deploy", "iris", "--model", file, folder=project)
    assert done.code == 1
    assert "allow_pickle" in done.err


def test_an_unknown_app_names_the_known_ones(mlguard, project):
    """A typing error in the app's name is met with the nearest name."""
    done = mlguard("deploy", "irs", folder=project)
    assert done.code == 2
    assert "did you mean 'iris'?" in done.err


def test_outside_a_project_the_way_in_is_said(mlguard, tmp_path):
    """Without mlguard.toml the message says how to get one."""
    done = mlguard("status", folder=tmp_path)
    assert done.code == 2
    assert "mlguard init" in done.err


def test_nothing_to_go_back_to_is_a_refusal(mlguard, project):
    """The first version has no predecessor: exit 1, and the default output is offered."""
    done = mlguard("rollback", "iris", "--reason", "testing", folder=project)
    assert done.code == 1
    assert "--to-default" in done.err


def test_a_reason_is_needed(mlguard, project):
    """What moves traffic by hand must say why."""
    assert mlguard("rollback", "iris", folder=project).code == 2
    assert mlguard("block", "iris", "--reason", " ", folder=project).code == 2


def test_the_default_output_and_back(mlguard, project):
    """Blocking an app is degraded service, and unblocking ends it."""
    assert mlguard("block", "iris", "--reason", "recall", folder=project).code == 0
    status = mlguard("status", "iris", "--json", folder=project)
    assert status.code == 7
    assert status.document["mode"] == "DEFAULT_OUTPUT"
    assert mlguard("unblock", "iris", "--reason", "all clear", folder=project).code == 0
    assert mlguard("status", "iris", folder=project).code == 0


@pytest.mark.soak
def test_a_hold_bars_new_versions_until_it_is_lifted(mlguard, project):
    """Under a hold a deploy that would pass exits 1, after resume it goes live."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    from mlguard.models.formats import save_model

    flowers, species = load_iris(return_X_y=True)
    save_model(LogisticRegression(max_iter=500).fit(flowers, species), project / "other.skops")
    assert mlguard("hold", "iris", "--reason", "audit week", folder=project).code == 0
    held = mlguard("deploy", "iris", "--model", "other.skops", folder=project)
    assert held.code == 1, held.out
    assert "audit week" in held.err
    assert mlguard("resume", "iris", "--reason", "audit is over", folder=project).code == 0
    done = mlguard("deploy", "iris", "--model", "other.skops", "--json", folder=project)
    assert done.code == 0, done.err
    assert done.document["reused_evidence"] is True
    assert (done.document["from"], done.document["to"]) == ("v1", "v2")
    assert done.document["active"]["state"] == "BAKING"
    assert done.document["rollback_target"] == "v1"
    back = mlguard("rollback", "iris", "--reason", "not yet", "--json", folder=project)
    assert back.code == 0
    assert back.document["active"]["version"] == "v1"
    at = mlguard("history", "iris", "--verify", "--json", folder=project)
    assert at.code == 0
    assert at.document["verified"] is True


def test_history_answers_what_served_at_a_time(mlguard, project):
    """At a moment before the first deploy nothing served; now it is v1."""
    before = mlguard("history", "iris", "--at", "2020-01-01", "--json", folder=project)
    assert before.document["served"] is None
    now = mlguard("history", "iris", "--at", "2999-01-01T00:00:00Z", "--json", folder=project)
    assert now.document["served"] == "v1"
    assert mlguard("history", "iris", "--at", "noon", folder=project).code == 2


def test_config_prints_toml_that_says_the_same(mlguard, project):
    """The settings in force, written back, are the settings in force."""
    done = mlguard("config", "iris", folder=project)
    printed = tomllib.loads(done.out)
    assert printed["monitor"]["concept_drift"]["average_run_length"] == 100_000
    (project / "serving/iris/app.toml").write_text(done.out)
    again = mlguard("config", "iris", folder=project)
    assert again.out == done.out


def test_init_never_overwrites(mlguard, project):
    """A folder that holds a project already is left as it is."""
    done = mlguard("init", project, folder=project)
    assert done.code == 2
    assert "nothing was written" in done.err


def test_json_is_the_only_thing_on_stdout(mlguard, project):
    """With --json one document stands on stdout, whatever the command."""
    for words in (["status"], ["status", "iris"], ["history"], ["config"], ["monitor", "--once"]):
        done = mlguard(*words, "--json", folder=project)
        assert json.loads(done.out)["schema_version"] == "1.0"
        assert done.out.count("\n") == 1


def test_colour_stays_on_the_terminal(mlguard, project):
    """Piped output holds no escape sequences."""
    assert "\x1b" not in mlguard("status", folder=project, FORCE_COLOR="1").out
