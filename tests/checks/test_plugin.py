"""The plug-in under pytest itself: what is collected, what fails, what is recorded."""

import json
import subprocess
import sys
import time
from xml.etree import ElementTree as ET

import pytest

from mlguard.results import CheckResult, Verdict

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def loaded(fitted):
    """What a run would import, imported before: pytester forgets what a run imports."""
    import alembic.command
    import sklearn.dummy
    import sklearn.impute
    import sklearn.tree

    from mlguard.checks import baseline, data_quality, fairness, reference, simple_models
    from mlguard.models import bundle, predictor
    from mlguard.pytest_plugin import fixtures, served, session
    from mlguard.registry import store

    return (
        alembic,
        store,
        baseline,
        data_quality,
        fairness,
        reference,
        simple_models,
        bundle,
        predictor,
        fixtures,
        served,
        session,
        sklearn,
        fitted,
    )


@pytest.fixture
def run(pytester, project, monkeypatch, loaded):
    """Run pytest in the project, in this process: what is slow to import is shared."""

    def run(*arguments, results=True):
        monkeypatch.chdir(project.root)
        journal = project.root / "results.jsonl"
        journal.unlink(missing_ok=True)
        options = ["-p", "no:cacheprovider", f"--rootdir={project.root}", "-W", "error"]
        # The other plug-ins of this environment cost more than a run, and so does collecting
        # the garbage of everything that is loaded here.
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        options += ["-p", "mlguard", "-p", "no:unraisableexception"]
        options += [f"--mlguard-results={journal}"] if results else []
        done = pytester.runpytest_inprocess(*options, *arguments)
        lines = journal.read_text().splitlines() if journal.exists() else []
        found = {
            one.name: one
            for line in lines
            if (entry := json.loads(line))["kind"] == "result"
            and (one := CheckResult.from_json(entry["result"]))
        }
        return done, found, [json.loads(line) for line in lines]

    return run


OTHERS = """
[gate.data_quality]
enabled = false
[gate.privacy]
enabled = false
[gate.baseline]
enabled = false
"""


def test_declared_checks_are_items_named_by_app_and_check(run, project):
    """``pytest serving`` collects one item per check and group of each app.toml."""
    done, _, _ = run("serving", "--collect-only", "-q")
    done.stdout.fnmatch_lines(
        [
            "serving/credit/app.toml::data_quality.schema",
            "serving/credit/app.toml::fairness.false_positive_rate_difference?sex?",
            "serving/credit/app.toml::baseline.beats?majority?",
        ]
    )


def test_a_good_candidate_passes_and_every_result_is_recorded(run, project):
    """Declared checks and functions pass, and the journal holds a result of each."""
    project.test(
        "from mlguard.checks import assert_beats, assert_no_gap\n"
        "def test_alike(candidate, test):\n"
        "    assert_no_gap(candidate, test, metric='accuracy', by='sex', at_most=0.2)\n"
        "def test_better(candidate, baseline, test):\n"
        "    assert_beats(candidate, baseline, test)\n"
        "def test_plain(app, candidate, train, test):\n"
        "    assert app == 'credit'\n"
        "    assert len(candidate.predict(test).labels) == len(test)\n"
        "def test_live(active):\n"
        "    raise AssertionError('never runs')\n"
    )
    done, found, journal = run("checks", "serving")
    done.assert_outcomes(passed=17, skipped=2)
    assert found["fairness.accuracy_difference[sex in test_alike]"].verdict is Verdict.PASSED
    assert found["baseline.beats[majority in test_better]"].verdict is Verdict.PASSED
    assert found["tests.test_plain"].verdict is Verdict.PASSED
    assert found["tests.test_live"].verdict is Verdict.SKIPPED
    assert found["tests.test_live"].summary == "no version of credit is live"
    assert found["baseline.no_worse_than[live]"].verdict is Verdict.SKIPPED
    assert [one["kind"] for one in journal[:1] + journal[-1:]] == ["plan", "finished"]
    assert len(journal[0]["items"]) == 19
    done.stdout.fnmatch_lines(["*no item: credit: data_quality.expectations: no suite in*"])


def test_outcomes_of_functions_are_verdicts(run, project):
    """Failure, error, skip, xfail and a broken fixture each have their verdict and reason."""
    project.settings(OTHERS + "[gate.fairness]\nenabled = false\n")
    project.test(
        "import pytest\n"
        "from mlguard.checks import assert_no_gap\n"
        "def test_fails(): assert 1 == 2, 'one is not two'\n"
        "def test_says_no(): pytest.fail('no')\n"
        "def test_raises(): 1 / 0\n"
        "def test_skips(): pytest.skip('not today')\n"
        "@pytest.mark.xfail(reason='known')\n"
        "def test_expected(): assert False\n"
        "@pytest.fixture\n"
        "def broken(): raise RuntimeError('no fixture')\n"
        "def test_broken_setup(broken): pass\n"
        "@pytest.mark.parametrize('x', [1, 2])\n"
        "def test_many(x): assert x == 1\n"
        "class TestGroup:\n"
        "    def test_inside(self): pass\n"
        "def test_gap(candidate, test):\n"
        "    assert_no_gap(candidate, test, metric='accuracy', by='sex', at_most=0.001)\n"
        "def test_caught(candidate, test):\n"
        "    with pytest.raises(AssertionError):\n"
        "        assert_no_gap(candidate, test, metric='accuracy', by='sex', at_most=0.001)\n"
    )
    done, found, _ = run("checks", "serving")
    verdicts = {name: one.verdict.value for name, one in found.items()}
    assert verdicts == {
        "tests.test_fails": "failed",
        "tests.test_says_no": "failed",
        "tests.test_raises": "errored",
        "tests.test_skips": "skipped",
        "tests.test_expected": "warned",
        "tests.test_broken_setup": "errored",
        "tests.test_many[1]": "passed",
        "tests.test_many[2]": "failed",
        "tests.TestGroup.test_inside": "passed",
        "fairness.accuracy_difference[sex in test_gap]": "inconclusive",
        "tests.test_caught": "passed",
    }
    assert found["tests.test_fails"].summary.startswith("one is not two")
    assert "ZeroDivisionError: division by zero" in found["tests.test_raises"].summary
    assert "1 / 0" in found["tests.test_raises"].details["traceback"]
    assert found["tests.test_skips"].summary == "not today"
    assert "RuntimeError: no fixture" in found["tests.test_broken_setup"].summary
    done.assert_outcomes(passed=3, failed=5, skipped=1, xfailed=1, errors=1)


def test_a_failing_item_prints_a_table_and_no_stack(run, project):
    """What a declared check prints is its numbers and the next step, not this library."""
    project.settings(OTHERS + "[gate.fairness]\nmetrics = ['accuracy']\nat_most = 0.001\n")
    done, found, _ = run("serving")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "? undecided  fairness.accuracy_difference*sex*",
            "*group  *measured  *n  *value  *interval*",
            "*sex=?  *accuracy*",
            "*sex=?  *accuracy*",
            "*next: judge it on about * rows of each group",
        ]
    )
    assert "Traceback" not in done.stdout.str()
    assert found["fairness.accuracy_difference[sex]"].blocks


def test_what_only_warns_is_skipped_with_its_reason(run, project):
    """A bad verdict that app.toml lets through is neither green nor red."""
    project.settings(
        OTHERS + "[gate.fairness]\nmetrics = ['accuracy']\nat_most = 0.001\n"
        "on_inconclusive = 'warn'\n"
    )
    done, found, _ = run("serving")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["? undecided, warns only  fairness.accuracy_difference*"])
    assert not found["fairness.accuracy_difference[sex]"].blocks


def test_a_wrong_app_toml_says_what_is_wrong(run, project):
    """An unknown key is a collection error with the message of the settings, no stack."""
    project.settings("[gate.fairnes]\n")
    done, found, _ = run("serving")
    assert done.ret == 2
    done.stdout.fnmatch_lines(["*unknown key 'fairnes'*did you mean 'fairness'*"])
    assert "Traceback" not in done.stdout.str()
    (broken,) = found.values()
    assert broken.verdict is Verdict.ERRORED
    assert broken.id == "gate.collection"


def test_a_test_file_that_does_not_import_is_errored(run, project):
    """A file that hides its checks behind an error is named, and blocks."""
    project.test("import no_such_module\ndef test_a(): pass\n")
    _, found, _ = run("checks")
    assert found["gate.collection[checks/credit/test_credit.py]"].blocks


def test_one_app_can_be_chosen(run, project):
    """``--mlguard-app`` leaves the other apps out, their functions too."""
    other = project.root / "serving/other"
    other.mkdir()
    (other / "app.toml").write_text(project.base)
    (other / "model.skops").write_bytes((project.app / "model.skops").read_bytes())
    for part in ("train.csv", "test.csv"):
        (other / part).write_bytes((project.app / part).read_bytes())
    folder = project.root / "checks/other"
    folder.mkdir()
    (folder / "test_other.py").write_text("def test_other(app): assert app == 'other'\n")
    project.test("def test_mine(app): assert app == 'credit'\n")
    done, _, _ = run("checks", "serving", "--mlguard-app=credit", "--collect-only", "-q")
    assert "test_mine" in done.stdout.str()
    assert "other" not in done.stdout.str()
    done, _, _ = run("checks")
    done.assert_outcomes(passed=2)


def test_another_model_can_be_judged(run, project, tmp_path, train_frame):
    """``--mlguard-model`` judges that file; it must be said whose candidate it is."""
    from sklearn.dummy import DummyClassifier

    from mlguard.models.formats import save_model

    path = tmp_path / "dummy.skops"
    columns = ["income", "age", "city"]
    save_model(DummyClassifier().fit(train_frame[columns], train_frame["y"]), path)
    project.settings(
        "[gate.data_quality]\nenabled = false\n"
        "[gate.privacy]\nenabled = false\n[gate.fairness]\nenabled = false\n"
    )
    done, found, _ = run("serving", "--mlguard-app=credit", f"--mlguard-model={path}")
    done.assert_outcomes(failed=1, skipped=1)
    assert "does not beat majority" in found["baseline.beats[majority]"].summary
    done, _, _ = run("serving", f"--mlguard-model={path}")
    assert done.ret == pytest.ExitCode.USAGE_ERROR


def test_what_is_missing_is_trained_once(run, project):
    """The plug-in runs the app's training script where the model is missing."""
    model = (project.app / "model.skops").read_bytes()
    (project.app / "model.skops").unlink()
    (project.app / "stored").write_bytes(model)
    (project.app / "train.py").write_text(
        "import shutil, pathlib\nhere = pathlib.Path(__file__).parent\n"
        "shutil.copy(here / 'stored', here / 'model.skops')\n"
    )
    project.settings(OTHERS + '[model]\ntrain = "train.py"\n')
    done, _, _ = run("serving")
    done.assert_outcomes(passed=2)


def test_a_test_may_change_its_frame(run, project):
    """What one test does to its rows, no other test sees."""
    project.settings(OTHERS + "[gate.fairness]\nenabled = false\n")
    project.test(
        "def test_a(test): test['age'] = 0\n"
        "def test_b(test): test.drop(test.index, inplace=True)\n"
        "def test_c(test, candidate): assert (test['age'] > 0).all() and len(test) == 3000\n"
    )
    done, _, _ = run("checks")
    done.assert_outcomes(passed=3)


def test_a_test_outside_an_app_is_told_where_it_belongs(run, project):
    """A fixture that needs an app says where to put the test."""
    (project.root / "checks/test_lost.py").write_text("def test_lost(candidate): pass\n")
    done, found, _ = run("checks/test_lost.py")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*put it below checks/<app>/*"])
    assert found == {}


@pytest.mark.slow
def test_the_server_fixture_asks_the_candidate_over_http(run, project):
    """``served`` is the candidate behind the real routes: same answer as in memory."""
    project.settings(OTHERS + "[gate.fairness]\nenabled = false\n")
    project.test(
        "def test_http(served, candidate, test):\n"
        "    rows = test.head(20)\n"
        "    batch = rows[candidate.features].to_dict('records')\n"
        "    reply = served.post('/credit/predict', json={'input_batch': batch})\n"
        "    assert reply.status_code == 200, reply.text\n"
        "    outputs = [one['output'] for one in reply.json()['batch_predictions']]\n"
        "    assert outputs == candidate.predict(rows).labels.tolist()\n"
    )
    done, _, _ = run("checks")
    done.assert_outcomes(passed=1)


@pytest.mark.slow
def test_it_works_under_xdist(run, project):
    """With two workers every result still reaches the one journal."""
    project.settings("[gate.data_quality]\nenabled = false\n[gate.privacy]\nenabled = false\n")
    done, found, journal = run("serving", "-p", "xdist", "-n", "2")
    done.assert_outcomes(passed=3, skipped=1)
    assert len(found) == 4
    assert journal[-1]["kind"] == "finished"


def test_it_is_inert_outside_a_project(tmp_path):
    """Elsewhere there are no fixtures of ours, and nothing is imported."""
    (tmp_path / "test_own.py").write_text(
        "import sys, pytest\n"
        "def test_own(request):\n"
        "    with pytest.raises(pytest.FixtureLookupError):\n"
        "        request.getfixturevalue('candidate')\n"
        "    assert not {'mlguard.config', 'mlguard.checks', 'pydantic'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_costs_less_than_fifty_milliseconds(tmp_path):
    """Importing the plug-in, once pytest is there, takes a few milliseconds."""
    code = (
        "import pytest, time\nbegan = time.process_time()\n"
        "import mlguard.pytest_plugin\nprint(time.process_time() - began)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.05


def test_a_gate_outside_a_project_is_refused(tmp_path):
    """Options of the gate make no sense without a project."""
    command = [sys.executable, "-m", "pytest", "--mlguard-app=credit", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no mlguard.toml" in done.stderr


def waive(project, check, *, clock=time.time, digest=None):
    """Waive a finding of the project's app for a day, by a clock of one's own."""
    from mlguard.config import load_project
    from mlguard.registry import Registry

    with Registry.open(load_project(project.root), clock=clock) as registry:
        registry.waive(
            "credit",
            check,
            owner="bea",
            reason="mended soon",
            digest=digest,
            expires=clock() + 86_400,
        )


WAIVED = """
[gate.data_quality]
enabled = false
[gate.privacy]
enabled = false
[gate.baseline]
enabled = false
[gate.fairness]
metrics = ["selection_rate"]
at_most = 0.0001
decide = "estimate"
"""


def test_what_is_waived_is_an_expected_failure(run, project):
    """Declared checks and functions that fail only by it are x, with owner and end."""
    project.settings(WAIVED)
    project.test(
        "from mlguard.checks import assert_no_gap\n"
        "def test_alike(candidate, test):\n"
        "    assert_no_gap(candidate, test, metric='selection_rate', by='sex', at_most=0.0001,\n"
        "                  decide='estimate')\n"
        "def test_other():\n"
        "    assert False\n"
    )
    check = "fairness.selection_rate_difference"
    waive(project, check, digest=project.subject().manifest.digest)
    done, found, _ = run("checks", "serving", "-rx")
    done.assert_outcomes(failed=1, xfailed=2)
    assert {name: (one.verdict, one.waived_by) for name, one in found.items()} == {
        f"{check}[sex]": (Verdict.FAILED, "bea"),
        f"{check}[sex in test_alike]": (Verdict.FAILED, "bea"),
        "tests.test_other": (Verdict.FAILED, None),
    }
    done.stdout.fnmatch_lines(["XFAIL serving/credit/app.toml::*waived by bea until *UTC*"])


def test_a_waiver_that_ended_blocks_and_says_so(run, project):
    """After its end the item fails again, and its text names who promised what until when."""
    project.settings(WAIVED)
    waive(project, "fairness.selection_rate_difference", clock=lambda: 1_000_000.0)
    done, found, _ = run("serving")
    done.assert_outcomes(failed=1)
    assert found["fairness.selection_rate_difference[sex]"].waived_by is None
    done.stdout.fnmatch_lines(["*the waiver by bea expired on 1970-01-13 13:46 UTC*"])


def test_the_junit_file_of_pytest_holds_the_numbers(run, project):
    """Each case carries verdict, value, interval, limit and n as properties, functions too."""
    project.settings(WAIVED.replace('decide = "estimate"', ""))
    project.test(
        "from mlguard.checks import assert_directional, assert_invariant\n"
        "def test_two(candidate, test):\n"
        "    assert_invariant(candidate, test, column='income', change='noise')\n"
        "    assert_directional(candidate, test, column='income', multiply=1.1)\n"
    )
    run("checks", "serving", "--junitxml=junit.xml")
    cases = {
        case.get("name"): [(one.get("name"), one.get("value")) for one in case.iter("property")]
        for case in ET.parse(project.root / "junit.xml").iter("testcase")
    }
    declared = dict(cases["fairness.selection_rate_difference[sex]"])
    assert declared["mlguard.limit"] == "0.0001"
    low, value, high = (float(declared[f"mlguard.{one}"]) for one in ("low", "value", "high"))
    assert low <= value <= high
    asked = [value for name, value in cases["test_two"] if name == "mlguard.check"]
    assert asked == [
        "behaviour.invariance[income, noise in test_two]",
        "behaviour.directional[income in test_two]",
    ]
    assert dict(cases["test_two"])["mlguard.verdict"] == "passed"


def test_waivers_that_cannot_be_read_let_nothing_through(run, project):
    """A registry that is no database leaves the gate shut, and is named."""
    project.settings(WAIVED)
    state = project.root / ".mlguard"
    state.mkdir()
    (state / "registry.db").write_text("this is no database, long enough to look like one" * 40)
    done, _, _ = run("serving")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["! credit: its waivers could not be read:*"])
