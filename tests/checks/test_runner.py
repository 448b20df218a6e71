"""The one runner, with the real child process: what is decided, reported and written."""

import json
import subprocess
import sys
import time
from xml.etree import ElementTree as ET

import pytest

from mlguard.checks import run_gate
from mlguard.errors import ConfigError, DataError, ModelFileError, NotFoundError
from mlguard.results import CheckResult, Enforcement, GateDecision, Verdict

#: Only what a test is about; every check costs time in a child process.
NOTHING = """
[gate.data_quality]
enabled = false
[gate.privacy]
enabled = false
[gate.fairness]
enabled = false
[gate.baseline]
enabled = false
"""


@pytest.fixture(autouse=True)
def _few_plugins(request, monkeypatch):
    """Leave out the other plug-ins of this environment: they cost more than a small gate."""
    if request.node.name != "test_a_gate_judges_everything_and_writes_it_down":
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def by_name(decision):
    return {one.name: one for one in decision.results}


def test_a_gate_judges_everything_and_writes_it_down(project, tmp_path):
    """A whole gate: declared checks, a suite and functions; progress, reference and JUnit."""
    project.suite(
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age"}},
        {
            "type": "expect_column_values_to_be_in_set",
            "kwargs": {"column": "city", "value_set": ["Ulm"]},
            "severity": "warning",
        },
    )
    project.test("def test_rows(test): assert len(test) == 3000\n")
    steps = []
    decision = run_gate(
        project.root,
        "credit",
        results=tmp_path / "results.jsonl",
        reference=tmp_path / "reference.json",
        junit=tmp_path / "junit.xml",
        failures_dir=tmp_path / "failures",
        on_progress=steps.append,
    )
    assert decision.allowed, str(decision)
    assert decision.exit_code == 0
    found = by_name(decision)
    assert found["data_quality.expect_column_values_to_not_be_null[age]"].verdict == "passed"
    warned = found["data_quality.expect_column_values_to_be_in_set[city]"]
    assert (warned.verdict, warned.enforcement) == (Verdict.FAILED, Enforcement.WARN)
    assert found["tests.test_rows"].verdict is Verdict.PASSED
    assert found["fairness.false_negative_rate_difference[sex]"].interval is not None
    assert all(one.duration_s >= 0 for one in decision.results)
    ended = [step for step in steps if step.verdict is not None]
    assert [step.name for step in ended] == [one.name for one in decision.results]
    assert [step.done for step in ended] == list(range(1, len(ended) + 1))
    assert {step.total for step in ended} == {len(ended)}
    assert json.loads((tmp_path / "reference.json").read_text())["n_rows"] == 3000
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]
    assert suite.get("tests") == str(len(decision.results))
    assert suite.get("failures") == suite.get("errors") == "0"
    assert list((tmp_path / "failures").iterdir())
    left = {path.name for path in project.root.rglob("*") if path.is_file()}
    assert not [name for name in left if name.endswith((".pyc", ".tmp"))]
    assert not (project.root / ".pytest_cache").exists()
    assert GateDecision.from_json(json.loads(json.dumps(decision.to_json()))) == decision


def test_functions_that_fail_raise_and_skip_are_mapped(project):
    """One run: a refusal, an error with its traceback, a broken file that hides nothing else."""
    project.settings(NOTHING)
    project.test(
        "import pytest\n"
        "def test_no(): assert False, 'not good enough'\n"
        "def test_oops(): raise KeyError('gone')\n"
        "def test_skip(): pytest.skip('no data yet')\n"
    )
    project.test("import no_such_module\n", name="test_broken.py")
    decision = run_gate(project.root, "credit")
    found = by_name(decision)
    assert found["tests.test_no"].verdict is Verdict.FAILED
    assert found["tests.test_oops"].verdict is Verdict.ERRORED
    assert "KeyError" in found["tests.test_oops"].details["traceback"]
    assert found["tests.test_skip"].verdict is Verdict.SKIPPED
    assert found["gate.collection[checks/credit/test_broken.py]"].verdict is Verdict.ERRORED
    assert not decision.allowed
    assert decision.exit_code == 1
    assert "fairness: switched off in app.toml" in decision.not_applicable


def test_no_check_is_no_pass(project):
    """An app with nothing to judge is not allowed, and the reason is named."""
    project.settings(NOTHING)
    decision = run_gate(project.root, "credit")
    assert not decision.allowed
    assert decision.exit_code == 5
    assert [one.reason for one in decision.results] == ["no_checks"]
    assert "nothing passes vacuously" in decision.results[0].summary


def test_a_child_that_dies_is_not_allowed(project):
    """A check that takes the process with it: what ran before is kept, the killer is named."""
    project.settings(NOTHING)
    project.test(
        "import os, signal\n"
        "def test_fine(): pass\n"
        "def test_fatal(): os.kill(os.getpid(), signal.SIGKILL)\n"
        "def test_never(): pass\n"
    )
    decision = run_gate(project.root, "credit")
    found = by_name(decision)
    assert found["tests.test_fine"].verdict is Verdict.PASSED
    assert found["gate.run"].verdict is Verdict.ERRORED
    assert "died of signal 9 while it judged checks/credit/test_credit.py::test_fatal" in (
        found["gate.run"].summary
    )
    assert decision.exit_code == 5


def test_a_conftest_that_does_not_import_is_named(project):
    """What stops pytest before it begins closes the gate in its own words."""
    project.settings(NOTHING)
    (project.checks / "conftest.py").write_text("raise RuntimeError('bad conftest')\n")
    (result,) = run_gate(project.root, "credit").results
    assert result.verdict is Verdict.ERRORED
    assert result.summary.endswith("RuntimeError: bad conftest")


def test_strange_names_are_judged_and_harmless(project, test_frame, train_frame):
    """Columns with line feeds, brackets and reversed text are judged under their own name."""
    odd = "se\u202ex\n::[1]"
    frames = {"train": train_frame, "test": test_frame}
    project.data(**{part: one.rename(columns={"sex": odd}) for part, one in frames.items()})
    name = json.dumps(odd)
    project.settings(
        "[gate.data_quality]\nenabled = false\n"
        "[gate.privacy]\nenabled = false\n[gate.baseline]\nenabled = false\n",
        project.base.replace('"sex"', name),
    )
    decision = run_gate(project.root, "credit")
    assert decision.allowed, str(decision)
    assert [one.subject for one in decision.results] == [odd, odd]
    assert all("\u202e" not in one.summary for one in decision.results)


def test_a_check_that_leaves_early_is_not_allowed(project):
    """``os._exit(0)`` looks like success to a shell, and is none."""
    project.settings(NOTHING)
    project.test("import os\ndef test_sly(): os._exit(0)\n")
    decision = run_gate(project.root, "credit")
    assert not decision.allowed
    assert "ended early with code 0" in decision.results[0].summary


def test_a_gate_that_hangs_is_ended(project):
    """With a limit on the wall time a check that never ends is ERRORED, its children gone."""
    project.settings(NOTHING)
    project.test(
        "import subprocess, sys, time\n"
        "def test_hangs():\n"
        "    subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    )
    began = time.monotonic()
    decision = run_gate(project.root, "credit", wall_s=6)
    assert time.monotonic() - began < 60
    assert "took longer than 6 s" in by_name(decision)["gate.run"].summary
    assert decision.exit_code == 5


def test_a_candidate_that_answers_nan_is_refused(project, tmp_path, train_frame, fitted):
    """NaN on every row is FAILED by fairness and baseline, and never passed."""
    import copy

    import numpy as np

    from mlguard.models.formats import save_model

    broken = copy.deepcopy(fitted)
    broken.steps[-1][1].coef_ = np.full_like(broken.steps[-1][1].coef_, np.nan)
    save_model(broken, tmp_path / "nan.skops")
    project.settings("[gate.data_quality]\nenabled = false\n[gate.privacy]\nenabled = false\n")
    decision = run_gate(
        project.root,
        "credit",
        model=tmp_path / "nan.skops",
        reference=tmp_path / "reference.json",
    )
    found = by_name(decision)
    assert decision.exit_code == 1
    assert found["baseline.beats[majority]"].reason == "not_finite"
    assert found["fairness.false_positive_rate_difference[sex]"].reason == "not_finite"
    assert found["gate.reference"].verdict is Verdict.ERRORED
    assert not (tmp_path / "reference.json").exists()
    assert decision.candidate == "nan.skops"


def test_bad_data_is_named_and_never_passed(project, test_frame):
    """A column without a value and a target of one class are FAILED by name."""
    project.settings("[gate.fairness]\nenabled = false\n")
    project.data(test=test_frame.assign(income=float("nan"), y=1))
    decision = run_gate(project.root, "credit")
    found = by_name(decision)
    schema = found["data_quality.schema"]
    assert schema.verdict is Verdict.FAILED
    assert "every test row has the same class '1'" in schema.summary
    assert "'income' has no value in any row" in schema.summary
    assert found["baseline.beats[majority]"].verdict in (Verdict.ERRORED, Verdict.INCONCLUSIVE)
    assert found["data_quality.leakage"].verdict is Verdict.INCONCLUSIVE
    assert not decision.allowed


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda p: (p.app / "test.csv").unlink(), DataError, "test.csv"),
        (lambda p: (p.app / "test.csv").write_text("income,age,city,sex,y\n"), DataError, "rows"),
        (
            lambda p: p.settings("", p.base.replace("[data]", '[data]\ntarget = "yy"')),
            DataError,
            r"did you mean 'y'",
        ),
        (lambda p: (p.app / "model.skops").write_bytes(b"nothing"), ModelFileError, "model.skops"),
    ],
    ids=["no-file", "no-rows", "no-target", "no-model"],
)
def test_what_cannot_be_loaded_is_an_error_not_a_verdict(project, spoil, error, says):
    """A missing file, an empty one, an absent target, a file that is no model: exit 2."""
    project.settings("")
    spoil(project)
    with pytest.raises(error, match=says) as caught:
        project.subject().preflight()
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_what_the_child_cannot_load_is_an_error_here(project):
    """The error crosses the process with its kind, its code and its advice."""
    project.settings(NOTHING)
    project.test("def test_rows(test): assert len(test)\n")
    (project.app / "test.csv").write_text("income,age,city,sex,y\n")
    with pytest.raises(DataError, match="rows") as caught:
        run_gate(project.root, "credit")
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_what_is_asked_wrongly_is_refused_before_anything_runs(project, tmp_path):
    """No such app, no such model file, a wrong app.toml."""
    with pytest.raises(NotFoundError, match="no app 'crdit'"):
        run_gate(project.root, "crdit")
    with pytest.raises(NotFoundError, match="no model file"):
        run_gate(project.root, "credit", model=tmp_path / "none.skops")
    project.settings("[gate.fairnes]\n")
    with pytest.raises(ConfigError, match="unknown key 'fairnes'"):
        run_gate(project.root, "credit")


def test_settings_of_pytest_cannot_hide_a_check(project, monkeypatch):
    """Options in the project's configuration and in the environment deselect nothing."""
    project.settings(NOTHING)
    project.test("def test_one(): pass\ndef test_two(): assert False\n")
    (project.root / "pytest.ini").write_text("[pytest]\naddopts = -k test_one -x\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--deselect checks/credit/test_credit.py::test_two")
    decision = run_gate(project.root, "credit")
    assert by_name(decision)["tests.test_two"].verdict is Verdict.FAILED


def test_a_check_that_is_deselected_is_missed(project):
    """What a conftest takes away after it was announced closes the gate."""
    project.settings(NOTHING)
    project.test("def test_one(): pass\ndef test_two(): assert False\n")
    (project.checks / "conftest.py").write_text(
        "def pytest_runtest_protocol(item):\n    return True if 'two' in item.name else None\n"
    )
    decision = run_gate(project.root, "credit")
    assert by_name(decision)["gate.lost[checks/credit/test_credit.py::test_two]"].blocks


def test_progress_that_raises_ends_the_child(project):
    """An interrupt while the gate runs leaves no process behind."""
    project.settings(NOTHING)
    project.test("import time\ndef test_a(): pass\ndef test_b(): time.sleep(600)\n")

    def interrupt(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_gate(project.root, "credit", on_progress=interrupt)
    listed = subprocess.run(
        ["pgrep", "-f", f"rootdir={project.root}"], capture_output=True, text=True, check=False
    )
    assert listed.stdout == ""


def test_junit_is_red_exactly_where_the_gate_is_closed(tmp_path):
    """A case per result: failures block, an undecided one is of type inconclusive."""
    from mlguard.checks.junit import write_junit
    from mlguard.policy import gate_decision

    def result(name, verdict, **more):
        return CheckResult(id=f"fairness.{name}", verdict=verdict, summary=f"\x00{name}", **more)

    decision = gate_decision(
        "credit",
        "v1",
        [
            result("a", Verdict.PASSED, value=0.1, interval=(0.0, 0.2), limit=0.3, n=10),
            result("b", Verdict.FAILED),
            result("c", Verdict.INCONCLUSIVE),
            result("d", Verdict.INCONCLUSIVE, on_inconclusive=Enforcement.WARN),
            result("e", Verdict.ERRORED),
            result("f", Verdict.FAILED, enforcement=Enforcement.WARN),
        ],
    )
    write_junit(decision, tmp_path / "deep" / "junit.xml")
    (suite,) = ET.parse(tmp_path / "deep" / "junit.xml").getroot()
    shown = {case.get("name"): [(one.tag, one.get("type")) for one in case][1:] for case in suite}
    assert shown == {
        "a": [("system-out", None)],
        "b": [("failure", "failed")],
        "c": [("failure", "inconclusive")],
        "d": [("skipped", "inconclusive")],
        "e": [("error", "errored")],
        "f": [("skipped", "failed")],
    }
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("2", "1", "2")
    properties = {one.get("name"): one.get("value") for one in suite[0][0]}
    assert properties["mlguard.low"] == "0.0"


def test_the_runner_itself_is_light():
    """Whoever only starts a gate loads neither pandas nor scikit-learn."""
    code = (
        "import sys\nfrom mlguard.checks import run_gate, reference_document\n"
        "print(sorted({'pandas', 'sklearn', 'scipy', 'pytest', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
