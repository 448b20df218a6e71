"""Whatever a model does, it does it in a process of its own, and the reason comes back."""

import importlib
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlguard.config import ModelTable
from mlguard.data.frames import file_digest
from mlguard.errors import (
    DataError,
    IntegrityError,
    ModelFileError,
    ModelRunError,
    UntrustedModelError,
)
from mlguard.models.bundle import Manifest
from mlguard.models.formats import save_model
from mlguard.models.isolation import (
    child_environment,
    plain_rows,
    predict_in_child,
    run_in_child,
)
from mlguard.models.schema import Feature, InputSchema, input_schema

MODULE = """
    import ctypes, mmap, os, signal, subprocess, sys, threading, time

    def echo(payload):
        print("noise on standard output")
        print("noise on standard error", file=sys.stderr)
        return payload

    def environment(payload):
        return dict(os.environ)

    def fail(payload):
        raise RuntimeError("no good\\nsecond line")

    def leave(payload):
        sys.exit(3)

    def refuse(payload):
        from mlguard.errors import DataError
        raise DataError("bad data", hint="mend it", column="x")

    def hang(payload):
        while True:
            time.sleep(1)

    def announce_and_hang(path):
        with open(path, "w") as stream:
            stream.write(str(os.getpid()))
        hang(path)

    def spin(payload):
        while True:
            pass

    def deaf(payload):
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except OSError:
                pass
        hang(payload)

    def segfault(payload):
        print("about to fall")
        sys.stdout.flush()
        ctypes.string_at(0)

    def vanish(payload):
        os._exit(payload)

    def eat(payload):
        held = []
        while True:
            held.append(bytearray(1 << 20))

    def eat_numpy(payload):
        import numpy
        return float(numpy.ones(1 << 28).sum())

    def eat_shared(payload):
        held = mmap.mmap(-1, 1 << 30)
        for place in range(0, 1 << 30, 4096):
            held[place] = 1
        time.sleep(60)

    def flood(payload):
        for _ in range(200):
            print("x" * 10_000)
        return "x" * 5_000_000

    def close_everything(payload):
        os.closerange(0, 4096)

    def leave_a_thread(payload):
        threading.Thread(target=hang, args=(None,)).start()
        return "done"

    def leave_a_process(payload):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                                 close_fds=False)
        return child.pid

    def no_json(payload):
        return {1, 2}

    class Model:
        classes_ = None

        def __init__(self, how):
            self.how = how

        def predict(self, rows):
            import numpy
            if self.how == "nan":
                return numpy.full(len(rows), numpy.nan)
            if self.how == "short":
                return numpy.zeros(len(rows) - 1)
            if self.how == "random":
                return numpy.random.default_rng().random(len(rows))
            if self.how == "vanish":
                os._exit(9)
            if self.how == "sometimes" and (rows[:, 0] > 0).any():
                raise ValueError("positive numbers hurt")
            return rows.sum(axis=1)
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A module that children can import, with functions and models that misbehave."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "unruly_target.py").write_text(textwrap.dedent(MODULE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(folder)
        yield "unruly_target"


def run(name, payload=None, **limits):
    return run_in_child(f"unruly_target:{name}", payload, **{"wall_s": 20, **limits})


def n_descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def gone(pid):
    """Whether a process is gone, or dead and only waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_an_answer_comes_back_whatever_the_model_prints(module):
    """The answer has a pipe of its own; NaN, nesting and big payloads survive."""
    payload = {"a": [1, 2.5, None, "é", True], "big": "x" * 3_000_000}
    assert run("echo", payload) == payload
    assert np.isnan(run("echo", float("nan")))
    assert len(run("flood")) == 5_000_000


def test_the_environment_holds_no_secrets(module, monkeypatch):
    """Only named variables are passed on; telemetry is off, one thread each."""
    monkeypatch.setenv("MLGUARD_ADMIN_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = run("environment")
    assert "secret" not in found.values()
    assert (
        found["ORT_DISABLE_TELEMETRY"] == found["DO_NOT_TRACK"] == found["OMP_NUM_THREADS"] == "1"
    )
    assert found["PATH"] == os.environ["PATH"]
    assert child_environment({"MORE": "x"})["MORE"] == "x"


@pytest.mark.parametrize(
    ("name", "payload", "reason"),
    [
        ("fail", None, r"the model raised RuntimeError: no good"),
        ("leave", None, r"the model raised SystemExit: 3"),
        ("segfault", None, r"died: signal SIGSEGV"),
        ("vanish", 0, r"died: it left with exit status 0 before it answered"),
        ("vanish", 7, r"died: it left with exit status 7 before it answered"),
        ("close_everything", None, r"died: it"),
        ("no_json", None, r"raised an answer that is no JSON"),
        ("absent", None, r"raised AttributeError"),
    ],
)
def test_a_death_gives_its_reason(module, name, payload, reason):
    """Raise, exit, segfault, os._exit, closed pipes: each is a ModelRunError that says so."""
    with pytest.raises(ModelRunError, match=reason) as raised:
        run(name, payload)
    if name == "segfault":
        assert "about to fall" in raised.value.data["output"]
        assert "about to fall" in raised.value.hint


@pytest.mark.parametrize("name", ["hang", "spin", "deaf"])
def test_a_hang_is_killed_at_the_wall(module, name):
    """Sleeping, computing or deaf to signals: stopped in time, with what to set."""
    began = time.monotonic()
    with pytest.raises(ModelRunError, match="no answer within 1 s") as raised:
        run(name, wall_s=1)
    assert time.monotonic() - began < 5
    assert "wall_limit_s" in raised.value.hint


@pytest.mark.parametrize("name", ["eat", "eat_numpy", "eat_shared"])
def test_too_much_memory_is_said_so(module, name):
    """Python objects, a numpy array, shared memory: none passes the limit."""
    with pytest.raises(ModelRunError, match="more than 300 MiB of memory") as raised:
        run(name, memory_mib=300)
    assert "memory_mib" in raised.value.hint


def test_errors_of_ours_come_back_as_themselves(module):
    """What mlguard can explain keeps class, words, advice and facts."""
    with pytest.raises(DataError, match="bad data") as raised:
        run("refuse")
    assert (raised.value.hint, raised.value.data) == ("mend it", {"column": "x"})


def test_nothing_that_a_model_started_outlives_it(module):
    """Its threads do not delay the answer, its processes are killed with it."""
    assert run("leave_a_thread") == "done"
    began = time.monotonic()
    pid = run("leave_a_process")
    assert time.monotonic() - began < 10
    deadline = time.monotonic() + 5
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(pid)


def test_a_child_dies_with_its_parent(module, tmp_path):
    """kill -9 of the process that waits: the kernel ends the child, whatever it is doing."""
    script = """
        from mlguard.models.isolation import run_in_child
        run_in_child("unruly_target:announce_and_hang", PATH, wall_s=600)
    """
    file = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script).replace("PATH", repr(str(file)))]
    )
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    pid = int(file.read_text())
    parent.kill()
    parent.wait()
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(pid)


def test_children_leave_no_descriptors_and_no_zombies(module):
    """A hundred deploys later the parent is as it was."""
    before = n_descriptors()
    for _ in range(3):
        run("echo", 1)
        with pytest.raises(ModelRunError):
            run("vanish", 1)
    assert n_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture(scope="module")
def version(tmp_path_factory, numbers, make_settings):
    """A good version: manifest and file."""
    path = tmp_path_factory.mktemp("version") / "m.skops"
    frame = numbers.assign(y=(numbers["a"] > 0).map({True: "yes", False: "no"}))
    model = LogisticRegression().fit(frame[["a", "b"]], frame["y"])
    save_model(model, path)
    settings = make_settings()
    return Manifest.of(path, input_schema(model, frame, settings), settings.model), path, model


def test_a_child_that_loads_a_model_carries_no_test_tools(version):
    """Neither pytest nor the libraries of checks and reports are in a process that serves."""
    script = (
        "import sys; from mlguard.models.formats import load_model; load_model(sys.argv[1]); "
        "print([one for one in ('pytest', 'great_expectations', 'evidently', 'matplotlib') "
        "if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(version[1])], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def smoke_test(manifest, path, rows):
    """Load a version in a child and ask it some rows, twice, as a standby's rehearsal does."""
    payload = {
        "manifest": manifest.to_json(),
        "model_path": str(path),
        "rows": plain_rows(rows, manifest.schema.names),
    }
    try:
        return SimpleNamespace(**run_in_child("mlguard.models.trial:smoke", payload))
    except ModelRunError as error:
        return SimpleNamespace(ok=False, reason=error.message)


def test_a_good_version_passes_its_smoke_test(version, numbers):
    """It loads, answers finitely and twice the same; time and memory are measured."""
    manifest, path, model = version
    report = smoke_test(manifest, path, numbers.head(5))
    assert (report.ok, report.reason, report.repeatable) == (True, "", True)
    assert report.labels == model.predict(numbers[["a", "b"]].head(5)).tolist()
    assert len(report.scores) == 5
    assert report.load_s > 0
    assert report.peak_mib > 10


def test_a_mixed_table_is_answered_in_a_child_as_at_home(
    lender, applicants, make_settings, tmp_path
):
    """Missing cells, truth values and texts survive the way to the child."""
    save_model(lender, tmp_path / "m.skops")
    settings = make_settings(app={"input": "table"})
    schema = input_schema(lender, applicants, settings)
    manifest = Manifest.of(tmp_path / "m.skops", schema, settings.model)
    found = predict_in_child(manifest, tmp_path / "m.skops", applicants)
    rows = applicants[list(schema.names)]
    assert found.labels.tolist() == lender.predict(rows).tolist()
    np.testing.assert_allclose(found.scores, lender.predict_proba(rows)[:, 1])


def test_a_file_that_is_not_the_versions_is_refused(version, numbers, tmp_path):
    """Other bytes, no model, and no permission are errors of their own, raised at home."""
    manifest, path, _ = version
    other = tmp_path / "m.skops"
    other.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(IntegrityError):
        smoke_test(manifest, other, numbers.head(1))
    other.write_bytes(b"no model")
    forged = Manifest.from_json(manifest.to_json() | {"model_sha256": file_digest(str(other))})
    with pytest.raises(ModelFileError):
        smoke_test(forged, other, numbers.head(1))


@pytest.fixture
def misbehaving(module, tmp_path):
    """Return a version whose model misbehaves in a given way."""
    kind = importlib.import_module(module).Model
    features = (Feature("a", "number"), Feature("b", "number"))
    schema = InputSchema("doubles", "regression", features)

    def make(how, *, allow_pickle=True):
        path = tmp_path / f"{how}.joblib"
        joblib.dump(kind(how), path)
        model = ModelTable(allow_pickle=allow_pickle)
        return Manifest.of(path, schema, model), path

    return make


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("nan", "3 of 3 rows: the model answered NaN or infinity"),
        ("short", r"predict answered shape \(2,\), expected \(3,\)"),
        ("random", "answered differently the second time"),
        ("vanish", "left with exit status 9"),
        ("sometimes", "the model raised ValueError: positive numbers hurt"),
    ],
)
def test_a_bad_version_fails_its_smoke_test_with_the_reason(misbehaving, how, reason):
    """A real model that does it, in a real process: not ok, and why."""
    manifest, path = misbehaving(how)
    report = smoke_test(manifest, path, [[1, 2], [3, 4], [-5, 6]])
    assert not report.ok
    assert re.search(reason, report.reason)


def test_a_pickle_without_permission_is_refused_in_the_child(misbehaving):
    """The refusal comes back as UntrustedModelError."""
    manifest, path = misbehaving("fine", allow_pickle=False)
    with pytest.raises(UntrustedModelError, match="runs code"):
        smoke_test(manifest, path, [[1, 2]])


def test_rows_that_make_a_version_raise_are_found(misbehaving):
    """Replaying a window: the rows that hurt are not valid, the others are answered."""
    manifest, path = misbehaving("sometimes")
    rows = np.array([[-1.0, 0], [1, 0], [-2, 0], [2, 0]])
    found = predict_in_child(manifest, path, rows)
    assert found.valid.tolist() == [True, False, True, False]
    assert found.outputs()[0] == -1.0
    assert smoke_test(manifest, path, []).reason == "there were no rows to try it on"
