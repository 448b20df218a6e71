"""`--junit`, `--markdown`, `--github` and `--fail-on`, typed as CI would."""

from xml.etree import ElementTree as ET

import pytest

from mlguard.cli.continuous import FailOn, Reporting
from mlguard.deploy.outcome import Outcome
from mlguard.policy import gate_decision
from mlguard.results import CheckResult, Enforcement, Verdict


@pytest.fixture
def weak(project):
    """A candidate that no gate should let through."""
    import pandas as pd
    from sklearn.dummy import DummyClassifier

    from mlguard.models.formats import save_model

    train = pd.read_csv(project / "serving/iris/data/train.csv")
    model = DummyClassifier().fit(train.drop(columns="species"), train["species"])
    save_model(model, project / "weak.skops")
    return project / "weak.skops"


@pytest.mark.slow
def test_a_refusal_is_told_in_every_form(mlguard, project, weak):
    """JUnit has a failure, the summary says so, the annotations come after the guarded text."""
    done = mlguard(
        *("check", "iris", "--model", weak, "--github"),
        *("--junit", "out/junit.xml", "--markdown", "out/summary.md"),
        folder=project,
    )
    assert done.code == 1
    suite = ET.parse(project / "out/junit.xml").getroot()[0]
    assert int(suite.get("failures")) >= 1
    assert "refused" in (project / "out/summary.md").read_text(encoding="utf-8")
    lines = done.out.splitlines()
    assert lines[0].startswith("::stop-commands::")
    token = lines[0].removeprefix("::stop-commands::")
    end = lines.index(f"::{token}::")
    assert not [one for one in lines[1:end] if one.lstrip().startswith("::")]
    assert any(one.startswith("::error title=iris baseline.beats") for one in lines[end:])


@pytest.mark.soak
def test_deploy_lists_the_rows_that_broke_a_check(in_process, project, weak):
    """Asked for rows the gate runs again, whatever evidence there is; what serves says how."""

    def deployed(*words):
        return in_process("deploy", "iris", "--json", *words, folder=project).document

    first = deployed("--model", weak, "--failures-dir", "a")
    listed = {one.name: one.read_text("utf-8") for one in (project / "a").iterdir()}
    assert (first["verdict"], first["reused_evidence"]) == ("failed", False)
    assert listed["data_quality-overlap-test.csv"].splitlines()[0] == "id,column,rule"
    assert "is in train too" in listed["data_quality-overlap-test.csv"]
    assert deployed("--model", weak)["reused_evidence"] is True
    again = deployed("--model", weak, "--failures-dir", "b")
    assert again["reused_evidence"] is False
    assert {one.name: one.read_text("utf-8") for one in (project / "b").iterdir()} == listed
    live = deployed("--failures-dir", "c")
    assert live["next_step"] == "mlguard check iris --failures-dir c"
    assert not (project / "c").exists()


@pytest.mark.soak
def test_deploy_writes_them_too_and_reuses_evidence(mlguard, project, weak):
    """A second deploy of the same bytes reuses what the gate found, and tells it again."""
    for reused in (False, True):
        done = mlguard(
            *("deploy", "iris", "--model", weak, "--junit", "j.xml", "--json", "--github"),
            *("--fail-on", "never"),
            folder=project,
        )
        # Asked for JSON, stdout is one document and annotations are on stderr.
        assert (done.code, done.document["exit_code"]) == (0, 0)
        assert done.document["verdict"] == "failed"
        assert "::error title=iris" in done.err
        assert done.document["reused_evidence"] is reused
        assert int(ET.parse(project / "j.xml").getroot()[0].get("failures")) >= 1
        (project / "j.xml").unlink()
    done = mlguard("deploy", "iris", "--junit", "j.xml", "--markdown", "s.md", folder=project)
    assert done.code == 0
    assert "serves these bytes already" in (project / "s.md").read_text(encoding="utf-8")
    assert ET.parse(project / "j.xml").getroot()[0].get("tests") == "0"


def test_what_cannot_be_judged_is_told_as_an_error(mlguard, project):
    """A model file that is none: exit code as ever, an error in each form."""
    (project / "no.skops").write_text("no model")
    done = mlguard(
        *("check", "iris", "--model", "no.skops", "--github"),
        *("--junit", "j.xml", "--markdown", "s.md"),
        folder=project,
    )
    assert done.code not in (0, 1)
    assert ET.parse(project / "j.xml").getroot()[0].get("errors") == "1"
    assert "::error title=iris gate.run::errored" in done.out
    assert "nothing could be judged" in (project / "s.md").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize(
    ("fail_on", "verdicts", "code", "expected"),
    [
        (None, ["warned", "inconclusive"], 0, 0),
        ("warned", ["warned"], 0, 1),
        ("warned", ["inconclusive"], 0, 5),
        ("warned", ["passed", "skipped"], 0, 0),
        ("inconclusive", ["warned"], 0, 0),
        ("inconclusive", ["warned", "inconclusive"], 0, 5),
        ("warned", ["warned"], 4, 4),
        ("never", ["failed"], 1, 0),
        ("never", ["inconclusive"], 5, 0),
        ("never", ["passed"], 3, 3),
    ],
)
def test_the_exit_code_is_what_ci_asks_for(fail_on, verdicts, code, expected):
    """Warnings can be made to fail, verdicts to be ignored; an outage stays one."""
    results = [
        CheckResult(
            id=f"baseline.{place}",
            verdict=Verdict(verdict),
            summary="",
            enforcement=Enforcement.WARN,
        )
        for place, verdict in enumerate(verdicts)
    ]
    outcome = Outcome(
        command="check",
        app="iris",
        exit_code=code,
        decision=gate_decision("iris", "model.skops", results, []),
    )
    chosen = None if fail_on is None else FailOn(fail_on)
    report = Reporting("check", "iris", None, None, github=False, fail_on=chosen, json=False)
    assert report.judged(outcome).exit_code == expected


def test_an_unknown_wish_is_a_usage_error(mlguard, project):
    """A word that --fail-on does not know ends with 2 before anything is judged."""
    assert mlguard("check", "iris", "--fail-on", "sometimes", folder=project).code == 2
