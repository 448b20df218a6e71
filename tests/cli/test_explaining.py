"""``mlguard explain``: one prediction taken apart, with and without its row."""

import json
from importlib.resources import files

import jsonschema
import pytest

from mlguard.data.labels import LabelStore, default_url
from mlguard.data.prediction_log import PredictionLog
from mlguard.errors import NotFoundError
from mlguard.models.bundle import Manifest
from mlguard.models.formats import save_model
from mlguard.models.schema import InputSchema
from mlguard.project import Project
from mlguard.registry.lifecycle import State
from mlguard.results import CheckResult, GateDecision, Verdict

SCHEMA = json.loads(files("mlguard").joinpath("schemas/command.schema.json").read_text("utf-8"))
SETOSA = [5.1, 3.5, 1.4, 0.2]
AT = 1_767_225_600.0


def asked(folder, rows=(SETOSA,), *, redact=(), **facts):
    """Log rows as the server does; returns their query ids."""
    project = Project(folder)
    active = project.registry.app("iris").active
    ids = project.registry.reserve_ids("iris", active.id, 1, "s1", 1000)
    features = InputSchema.from_json(active.manifest["input_schema"]).features
    writer = PredictionLog(project.settings.log_dir).writer(
        "iris", active.id, "s1", features, redact=redact
    )
    fixed = {
        "time": AT,
        "generation": 1,
        "default": False,
        "explanation": None,
        "output": "0",
        "score": None,
        "uid": "u7",
        "groups": {"site": "A"},
        "latency_ms": 1.25,
        "valid": True,
    }
    writer.append(
        [
            fixed | facts | {"query_id": query_id, "features": row}
            for query_id, row in zip(ids, rows, strict=False)
        ]
    )
    writer.close()
    return ids


def promoted(folder, name, file):
    """Take a version through the registry's own steps, without a gate."""
    project = Project(folder)
    registry, settings = project.registry, project.app("iris")
    schema = InputSchema.from_json(registry.app("iris").active.manifest["input_schema"])
    manifest = Manifest.of(file, schema, settings.model)
    version = registry.register("iris", name=name, manifest=manifest, model_file=file)
    registry.mark(version.id, State.VERIFIED, reason="tried")
    fine = CheckResult(id="test.passes", verdict=Verdict.PASSED, summary="fine")
    decision = GateDecision(
        app="iris", candidate=name, allowed=True, results=(fine,), because="fine"
    )
    registry.record_evidence(
        "iris",
        version.digest,
        decision.to_json(),
        policy_digest="p",
        data_digest="d",
        code_version="c",
    )
    registry.mark(version.id, State.PASSED, reason="fine")
    operation = registry.begin("iris", version.id)
    registry.stage(operation)
    registry.promote(operation, reason="test")


def test_a_prediction_with_everything(project, mlguard):
    """Row, answer, version, label, and what the version answers to the row today."""
    query_id = asked(project)[0]
    settings = Project(project).settings
    store = LabelStore(default_url(settings.log_dir, "iris"))
    store.put(query_id, 2, source="portal", at=AT + 60)
    store.close()
    done = mlguard("explain", "iris", query_id, folder=project)
    assert (done.code, done.err) == (0, "asking v1\n")
    for said in (
        f"iris  query {query_id}",
        "✓ answered",
        "2026-01-01",
        "v1",
        "generation 1",
        "site=A",
        "u7",
        "5.1",
        "2   from portal",
        "(the same version): 0",
        f"mlguard card iris {Project(project).registry.app('iris').active.name}",
    ):
        assert said in done.out, (said, done.out)
    assert max(map(len, done.out.splitlines())) <= 80


def test_its_document(project, mlguard):
    """--json keeps to the schema that is shipped, and says the same."""
    query_id = asked(project, rows=[[5.1, 3.5, 99.0, 0.2]])[0]
    document = mlguard("explain", "iris", query_id, "--json", folder=project).document
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["logged"]["row"] | {"petal_length": 99.0} == document["logged"]["row"]
    assert [one["column"] for one in document["unusual"]] == ["petal_length"]
    assert document["label"] is None
    (same,) = document["others"]
    assert (same["role"], same["problem"]) == ("answered", None)
    refused = mlguard("explain", "iris", 10**14, "--json", folder=project)
    jsonschema.Draft202012Validator(SCHEMA).validate(refused.document)
    assert refused.code == 2


def test_why_it_was_the_default(project):
    """The reason stands beside the output."""
    why = "Failed to retrieve a prediction response within the specified latency SLO"
    query_id = asked(project, default=True, explanation=why, output="null")[0]
    found = Project(project).explain("iris", query_id)
    assert (found.logged.default, found.logged.why_default) == (True, why)


def test_a_lost_row_still_has_a_version(project, mlguard):
    """An id without a row: version and generation by its block, and why there is no more."""
    query_id = asked(project, rows=[])[17]
    found = Project(project).explain("iris", query_id)
    active = Project(project).registry.app("iris").active
    assert (found.version, found.generation) == (active.name, 1)
    assert found.logged is None
    assert found.not_asked == "its row is not in the log"
    assert "no row" in mlguard("explain", "iris", query_id, folder=project).out


def test_what_is_redacted_is_not_shown(project):
    """Neither what was never written nor what is redacted since; nobody is asked half a row."""
    never = asked(project, redact=("petal_width", "uid"))[0]
    found = Project(project).explain("iris", never)
    assert "petal_width" not in found.logged.row
    assert found.logged.hidden == ("petal_width",)
    assert found.logged.uid is None
    assert found.not_asked.endswith("petal_width")
    assert found.others == ()
    file = project / "serving/iris/app.toml"
    text = file.read_text()
    assert "[log]" not in text
    file.write_text(text + '\n[log]\nredact = ["petal_length"]\n')
    since = Project(project).explain("iris", asked(project)[0])
    assert since.logged.hidden == ("petal_length",)


def test_ids_of_nobody(project):
    """Never reserved, and drawn while the registry was away but not logged."""
    for query_id in (0, 10**14, 2**52 + 7):
        with pytest.raises(NotFoundError, match="nobody was given"):
            Project(project).explain("iris", query_id)


def test_other_versions_are_asked_too(project):
    """The active version answers today what it was deployed for; one without its bytes says so."""
    query_id = asked(project)[0]
    before = Project(project).registry.app("iris").active.name
    import pandas as pd
    from sklearn.tree import DecisionTreeClassifier

    train = pd.read_csv(project / "serving/iris/data/train.csv")
    tree = DecisionTreeClassifier(random_state=0, max_depth=4)
    save_model(tree.fit(train.drop(columns="species"), train["species"]), project / "tree.skops")
    promoted(project, "second", project / "tree.skops")
    found = Project(project).explain("iris", query_id)
    roles = {one.version: one.role for one in found.others}
    assert roles[before] == "answered"
    assert roles["second"] == "active"
    assert {one.output for one in found.others} == {0}
    broken = Project(project).registry.version("iris", "second").manifest["model_sha256"]
    for path in (project / ".mlguard/artifacts").rglob(f"*{broken[-40:]}*"):
        path.unlink()
    problems = {
        one.version: one.problem for one in Project(project).explain("iris", query_id).others
    }
    assert problems[before] == ""
    assert problems["second"]
