"""Exceptions in a real project: a refused model goes live under waivers, until they end."""

import time

import pytest

from mlguard.errors import RefusedError
from mlguard.project import Project

DAY = 86_400.0


@pytest.fixture
def mlguard(in_process):
    """What is asked here is what a command decides, not what a process does."""
    return in_process


@pytest.fixture
def weak(project):
    """A model file that the gate refuses: it always answers the same class."""
    import pandas as pd
    from sklearn.dummy import DummyClassifier

    from mlguard.models.formats import save_model

    train = pd.read_csv(project / "serving/iris/data/train.csv")
    model = DummyClassifier().fit(train.drop(columns="species"), train["species"])
    save_model(model, project / "weak.skops")
    return project / "weak.skops"


def waive_all(mlguard, project, document, *scope):
    """Waive whatever blocked, for thirty days."""
    blocked = [one for one in document["checks"] if one["verdict"] == "failed"]
    assert blocked
    for one in blocked:
        name = f"{one['id']}[{one['subject']}]" if one["subject"] else one["id"]
        done = mlguard(
            "waive", "iris", name, *scope, "--owner", "bea", "--reason", "until the retraining",
            "--ticket", "T-7", "--expires", "30d", "--json", folder=project,
        )  # fmt: skip
        assert done.code == 0, done.out
        assert done.document["changed"] is True
        assert "No check" not in " ".join(done.document["lines"])
    return blocked


@pytest.mark.soak
@pytest.mark.marathon
def test_a_refused_model_goes_live_under_waivers_and_not_after_them(mlguard, project, weak):
    """Deploy, check, status, history and report name who answers; revoked, it blocks again."""
    refused = mlguard("deploy", "iris", "--model", weak, "--json", folder=project)
    assert refused.code == 1
    blocked = waive_all(mlguard, project, refused.document, "--version", "v2")

    done = mlguard("deploy", "iris", "--model", weak, "--json", folder=project)
    assert done.code == 0, done.out
    assert done.document["reused_evidence"] is True
    assert done.document["verdict"] == "failed"
    waived = [one for one in done.document["checks"] if one["waived_by"]]
    assert {one["id"] for one in waived} == {one["id"] for one in blocked}
    assert {(one["waived_by"], one["waiver"]["ticket"]) for one in waived} == {("bea", "T-7")}
    assert {one["verdict"] for one in waived} == {"failed"}

    status = mlguard("status", "iris", "--json", folder=project)
    assert {one["state"] for one in status.document["waivers"]} == {"active"}
    later = Project(project, clock=lambda: time.time() + 24 * DAY)
    assert {one.state(later.clock()) for one in later.status("iris")[0].waived.waivers} == {
        "expiring"
    }
    told = mlguard("status", "iris", folder=project)
    assert "waived by bea, T-7 until" in " ".join(told.out.split())
    assert "until the retraining" in mlguard("history", "iris", folder=project).out
    page = project / "report.html"
    assert mlguard("report", "iris", "--html", page, folder=project).code == 0
    assert "waived by bea, T-7 until" in page.read_text()

    for one in status.document["waivers"]:
        ended = mlguard("waive", "iris", "--revoke", one["id"], "--reason", "no", folder=project)
        assert ended.code == 0, ended.err
    assert "was revoked on" in mlguard("waive", "iris", "--list", folder=project).out
    assert "refused" in mlguard("status", "iris", folder=project).out
    assert mlguard("rollback", "iris", "--reason", "back", folder=project).code == 0
    again = mlguard("deploy", "iris", "--model", weak, folder=project)
    assert again.code == 1
    assert "it blocks again" in " ".join(again.out.split())


@pytest.mark.soak
@pytest.mark.marathon
def test_check_honours_waivers_and_released_bytes_are_judged_again(mlguard, project, weak):
    """A waiver opens `check` too; after quarantine and release no old evidence counts."""
    first = Project(project)
    outcome = first.deploy("iris", model=weak)
    assert outcome.exit_code == 1
    waive_all(mlguard, project, outcome.to_json(), "--any-version")
    checked = mlguard("check", "iris", "--model", weak, folder=project)
    assert checked.code == 0, checked.out
    assert "✓ allowed" in checked.out
    assert "waived by bea, T-7 until" in " ".join(checked.out.split())
    assert first.deploy("iris", model=weak).exit_code == 0
    assert first.rollback("iris", reason="bad", quarantine=True).exit_code == 0
    barred = mlguard("deploy", "iris", "--model", weak, folder=project)
    assert barred.code == 1
    assert "quarantined" in barred.err

    (incident,) = first.registry.incidents("iris", open_only=True)
    early = mlguard("release", "iris", "v2", "--reason", "understood", folder=project)
    assert early.code == 1
    first.close_incident(incident.id, cause="the limit was read wrongly")
    first.resume("iris", reason="understood")
    freed = mlguard("release", "iris", "v2", "--reason", "understood", "--json", folder=project)
    assert (freed.code, freed.document["changed"]) == (0, True)
    assert first.registry.version("iris", "v2").state == "VERIFIED"
    again = mlguard("release", "iris", "v2", "--reason", "again", "--json", folder=project)
    assert (again.code, again.document["changed"]) == (0, False)

    # The gate runs again, and the waivers end between its "yes" and the switch.
    def clock():
        staged = late.registry.candidate("iris") is not None
        return time.time() + (31 * DAY if staged else 0)

    late = Project(project, clock=clock)
    content = late.registry.version("iris", "v2").digest
    known = len(late.registry.evidence("iris", content))
    with pytest.raises(RefusedError, match="the waiver by bea, T-7 expired on"):
        late.deploy("iris", model=weak)
    assert len(late.registry.evidence("iris", content)) == known + 1
    assert late.registry.candidate("iris") is None
    assert late.registry.app("iris").active.name == "v1"
    after = first.deploy("iris", model=weak)
    assert (after.exit_code, after.reused_evidence) == (1, True)
    assert "the waiver by bea, T-7 expired on" in after.lines[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fairness.gap", "--version", "v1"], "a waiver ends"),
        (["fairness.gap", "--expires", "30d"], "one version or for any"),
        (["fairness.gap", "--any-version", "--version", "v1", "--expires", "1d"], "or for any"),
        (["fairness.gap", "--any-version", "--expires", "91d"], "90 d at most"),
        (["fairness.gap", "--any-version", "--expires", "2020-01-01"], "ended already"),
        (["fairness.gap", "--any-version", "--expires", "soon"], "no end of a waiver"),
        (["fairness.gap", "--digest", "abc", "--expires", "1d"], "64 hex digits"),
        (["fairness.gap", "--version", "v9", "--expires", "1d"], "no version 'v9'"),
        (["gate.run", "--any-version", "--expires", "1d"], "nobody can waive"),
        ([], "say one of"),
        (["fairness.gap", "--list"], "say one of"),
        (["--revoke", "9"], "no waiver 9"),
    ],
)
def test_a_waiver_that_is_none_is_refused(capsys, monkeypatch, project, words, said):
    """What is missing or too wide is said, with exit 2; nothing is written."""
    from mlguard.cli.__main__ import main

    before = Project(project).registry.events()
    typed = ["mlguard", "waive", "iris", *words, "--owner", "bea", "--reason", "why"]
    monkeypatch.setattr("sys.argv", [*typed, "--project", str(project)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert Project(project).registry.events() == before


def test_a_name_that_no_check_has_is_met_with_the_nearest(project):
    """A waiver for a typing error is given, and said to cover nothing that is known."""
    done = Project(project).waive(
        "iris", "baseline.beat[majority]", owner="bea", reason="why", expires="1d", any_version=True
    )
    assert "did you mean baseline.beats[majority]?" in done.lines[-1]
