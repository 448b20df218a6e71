"""Evidence is reused only where everything that judges is as it was."""

import pytest

from mlguard.cli.starting import write_template
from mlguard.config import load_app, load_project
from mlguard.deploy.fingerprints import Grounds, policy_digest
from mlguard.policy import gate_decision
from mlguard.registry import Registry
from mlguard.results import CheckResult, Verdict

NOW = 1_795_357_320.0


@pytest.fixture
def folder(tmp_path):
    """A project as `mlguard init` writes it."""
    write_template("project_template", tmp_path)
    return tmp_path


def digest(folder, active=""):
    """Return the policy digest of iris."""
    project = load_project(folder)
    return policy_digest(project, load_app(project, "iris"), active)


def append(path, text):
    path.write_text((path.read_text() if path.exists() else "") + text)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("serving/iris/app.toml", "\n[gate.fairness]\nat_most = 0.2\n"),
        ("serving/iris/app.toml", '\n[gate.baseline.beats]\nenforcement = "warn"\n'),
        ("checks/iris/test_iris.py", "\n# stricter\n"),
        ("checks/iris/expectations/iris.json", " "),
        ("checks/conftest.py", "limit = 1\n"),
    ],
)
def test_what_judges_is_part_of_the_digest(folder, file, text):
    """A changed limit, check, suite or shared fixture asks for a new run of the gate."""
    before = digest(folder)
    append(folder / file, text)
    assert digest(folder) != before


def test_the_live_version_is_part_of_the_digest(folder):
    """A candidate is compared with it, so another one asks for a new comparison."""
    assert digest(folder, "one") != digest(folder, "other")


def test_what_only_watches_is_not(folder):
    """A monitor's setting changes nothing that the gate found."""
    before = digest(folder)
    append(folder / "serving/iris/app.toml", "\n[monitor.data_drift]\nks = 0.2\n")
    assert digest(folder) == before


# --- reuse, with a real registry ------------------------------------------------------------


def judged(folder, verdict=Verdict.PASSED, digest="a" * 64):
    """Record what a gate found about some bytes, on the grounds that there are now."""
    project = load_project(folder)
    grounds = Grounds.of(project, load_app(project, "iris"), "live")
    result = CheckResult(id="baseline.beats", verdict=verdict, summary="as it was")
    with Registry.open(project, clock=lambda: NOW) as registry:
        registry.record_evidence(
            "iris",
            digest,
            gate_decision("iris", "v1", [result], ()).to_json(),
            policy_digest=grounds.policy,
            data_digest=grounds.data,
            code_version=grounds.code,
        )


def reused(folder, *, digest="a" * 64, active="live", oldest=NOW, **code):
    """Return what would be reused now."""
    project = load_project(folder)
    grounds = Grounds.of(project, load_app(project, "iris"), active, **code)
    with Registry.open(project, clock=lambda: NOW) as registry:
        return grounds.reusable(registry.evidence("iris", digest), oldest=oldest)


@pytest.fixture
def with_data(folder):
    """The same with data, training rows and rows to calibrate on."""
    (folder / "serving/iris/data").mkdir()
    for part in ("train", "test", "calibration", "dev"):
        (folder / f"serving/iris/data/{part}.csv").write_text("a,species\n1,setosa\n")
    app = folder / "serving/iris/app.toml"
    text = app.read_text()
    text = text.replace(
        "[data]\n", '[data]\ncalibration = "data/calibration.csv"\ndev = "data/dev.csv"\n'
    )
    app.write_text(text)
    judged(folder)
    return folder


def test_the_same_bytes_on_the_same_grounds_are_not_judged_again(with_data):
    """Nothing has changed: what was found is found again, also by another process."""
    found = reused(with_data)
    assert found is not None
    assert (found.at, found.verdict) == (NOW, "passed")


@pytest.mark.parametrize("part", ["train", "test", "calibration", "dev"])
def test_other_data_is_judged_anew(with_data, part):
    """One row more in any file that the app is trained, calibrated or judged on."""
    append(with_data / f"serving/iris/data/{part}.csv", "2,virginica\n")
    assert reused(with_data) is None


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("serving/iris/app.toml", "\n[gate.baseline.beats]\nconfidence_level = 0.9\n"),
        ("serving/iris/app.toml", "\n[model.thresholds]\ndefault = 0.4\n"),
        ("checks/iris/test_new.py", "def test_it(): pass\n"),
    ],
)
def test_another_policy_is_judged_by(with_data, file, text):
    """A limit, a threshold, one more test."""
    append(with_data / file, text)
    assert reused(with_data) is None


def test_other_bytes_another_live_version_and_another_mlguard_are_judged_anew(with_data):
    """Each of the three by itself."""
    assert reused(with_data, digest="b" * 64) is None
    assert reused(with_data, active="another") is None
    assert reused(with_data, code="0.0.0") is None


def test_old_evidence_and_that_of_a_check_that_raised_are_not_reused(with_data):
    """What is older than ``evidence_max_age``; a check that raised may not raise again."""
    assert reused(with_data, oldest=NOW + 1) is None
    judged(with_data, Verdict.ERRORED, digest="c" * 64)
    assert reused(with_data, digest="c" * 64) is None
    judged(with_data, Verdict.FAILED, digest="d" * 64)
    assert reused(with_data, digest="d" * 64).verdict == "failed"
