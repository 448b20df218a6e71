"""From a model file to the version that serves: described, compiled, refused, found again."""

import hashlib
import time
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from mlguard.config import load_app, load_project
from mlguard.deploy.candidate import inspect_candidate
from mlguard.deploy.compiled import CHECK, on_compilation, with_compilation
from mlguard.deploy.rollout import Request, Rollout
from mlguard.errors import ModelRunError, RefusedError
from mlguard.models.bundle import Manifest
from mlguard.models.formats import save_model
from mlguard.models.predictor import load_predictor
from mlguard.policy import gate_decision
from mlguard.registry import Registry, State
from mlguard.results import CheckResult, Enforcement, Verdict

APP = """
[app]
description = "d"
owner = "o"
decision = "e"
success_metric = "m"
[data]
test = "test.csv"
target = "y"
[model]
"""
pytestmark = pytest.mark.slow  # a process or two in each test

#: A class whose first answer takes for ever.
HANGING = """
import time
class Hanging:
    def predict(self, rows):
        time.sleep(3600)
"""


@pytest.fixture
def shop(tmp_path):
    """A project with one app of three classes; `write` gives it a [model] table."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(90, 2)), columns=["a", "b"])
    rows["y"] = (rows["a"] > 0).astype(int) + (rows["b"] > 0.5)
    folder = tmp_path / "serving" / "shop"
    folder.mkdir(parents=True)
    (tmp_path / "mlguard.toml").write_text("")
    rows.to_csv(folder / "test.csv", index=False)

    def write(model=""):
        (folder / "app.toml").write_text(APP + model)
        project = load_project(tmp_path)
        return project, load_app(project, "shop")

    features = rows[["a", "b"]].to_numpy()
    linear = LogisticRegression().fit(features, rows["y"])
    tree = DecisionTreeClassifier(random_state=0).fit(features, rows["y"])
    for name, model in (("linear", linear), ("tree", tree)):
        save_model(model, folder / f"{name}.skops")
    return SimpleNamespace(folder=folder, write=write, rows=rows, linear=linear, tree=tree)


def test_a_candidate_comes_with_what_it_was_compiled_to(shop):
    """Bytes, digest and record belong together, and a server answers as the original does."""
    candidate = inspect_candidate(*shop.write(), shop.folder / "linear.skops")
    manifest = candidate.manifest
    assert manifest.runtime == "linear"
    assert manifest.compiled_sha256 == hashlib.sha256(candidate.compiled).hexdigest()
    assert manifest.compilation["comparison"]["n_rows"] == len(shop.rows)
    file = shop.folder / "compiled"
    file.write_bytes(candidate.compiled)
    answer = load_predictor(Manifest.from_json(manifest.to_json()), file).predict(shop.rows)
    assert np.array_equal(answer.labels, shop.linear.predict(shop.rows[["a", "b"]].to_numpy()))


def test_the_runtime_is_part_of_the_identity_and_the_bytes_are_not(shop):
    """Asking for another runtime is another version; a newer converter is not."""
    file = shop.folder / "tree.skops"
    found = inspect_candidate(*shop.write(), file).manifest
    assert found.runtime == "onnx"
    plain = inspect_candidate(*shop.write('runtime = "original"'), file).manifest
    assert (plain.runtime, plain.compiled_sha256) == ("original", "")
    assert plain.digest != found.digest
    assert {plain.digest, found.digest} < set(found.any_runtime)
    assert found.compiled("onnx", b"of a newer converter", {}).digest == found.digest


def test_a_pickle_is_served_as_numbers(shop):
    """Its code runs where it is looked at, and nowhere else."""
    joblib.dump(shop.tree, shop.folder / "tree.joblib")
    candidate = inspect_candidate(*shop.write("allow_pickle = true"), shop.folder / "tree.joblib")
    assert candidate.manifest.model_format == "pickle"
    assert candidate.manifest.in_process


def decision(manifest):
    """The gate's decision on a candidate that passed one check."""
    passed = CheckResult(id="baseline.beats", verdict=Verdict.PASSED, summary="better")
    return with_compilation(gate_decision("shop", "v1", [passed]), manifest)


def test_what_compiling_found_is_evidence_and_blocks_only_where_it_was_asked_for(shop):
    """Under "auto" the original serves; under "onnx" nothing does."""
    from sklearn.neighbors import KNeighborsClassifier

    file = shop.folder / "near.skops"
    save_model(KNeighborsClassifier().fit(shop.rows[["a", "b"]].to_numpy(), shop.rows["y"]), file)
    allowed = decision(inspect_candidate(*shop.write(), file).manifest)
    assert allowed.allowed
    result = on_compilation(allowed)
    assert (result.id, result.verdict) == (CHECK, Verdict.PASSED)
    assert "faster as it is" in result.summary
    refused = decision(inspect_candidate(*shop.write('runtime = "onnx"'), file).manifest)
    assert refused.exit_code == 1
    assert on_compilation(refused).enforcement is Enforcement.BLOCK
    assert on_compilation(refused).next_step
    # Evidence from before there was such a thing says nothing of it.
    assert on_compilation(gate_decision("shop", "v1", [])) is None


def test_the_same_file_is_looked_at_again_only_where_that_could_tell(shop):
    """Unchanged settings and data: the registered version. Otherwise: anew."""
    project, settings = shop.write()
    file = shop.folder / "linear.skops"
    with Registry.open(project) as registry:
        looked = []
        rollout = Rollout(project, settings, registry, progress=looked.append)
        candidate = rollout._candidate(file)
        version = rollout._version(Request(model=file), candidate)
        assert version.state is State.VERIFIED
        assert len(looked) == 1
        assert rollout._candidate(file).digest == candidate.digest
        assert len(looked) == 1
        # The test data is what compiling was judged on.
        shop.rows.head(80).to_csv(shop.folder / "test.csv", index=False)
        again = rollout._candidate(file)
        assert len(looked) == 2
        assert again.digest == candidate.digest
        assert again.manifest.compilation["comparison"]["n_rows"] == 80


def test_a_version_from_before_can_be_deployed_again(shop):
    """Its manifest says nothing of compiling; as the original it is the same version."""
    file = shop.folder / "linear.skops"
    project, settings = shop.write('runtime = "original"')
    now = inspect_candidate(project, settings, file).manifest
    document = now.to_json()
    for key in ("compiled_sha256", "compilation", "allow_code", "own_process"):
        del document[key]
    before = Manifest.from_json(document)
    assert before.digest == now.digest
    assert before.serving_sha256 == before.model_sha256
    with Registry.open(project) as registry:
        registry.register("shop", name=None, manifest=before, model_file=file)
        looked = []
        rollout = Rollout(project, settings, registry, progress=looked.append)
        known = registry.version_by_digest("shop", now.digest)
        registry.mark(known.id, State.VERIFIED, reason="loaded")
        assert rollout._candidate(file).manifest == before
        assert looked == []


def test_a_quarantine_holds_however_the_model_is_run(shop):
    """Another runtime is another digest, and the same failure."""
    file = shop.folder / "linear.skops"
    project, settings = shop.write()
    with Registry.open(project) as registry:
        rollout = Rollout(project, settings, registry)
        plain = inspect_candidate(*shop.write('runtime = "original"'), file)
        quarantined = {plain.digest: SimpleNamespace(incident=7, reason="it failed")}
        registry.quarantined = lambda _app, digest: quarantined.get(digest)
        with pytest.raises(RefusedError, match="quarantined by incident 7"):
            rollout._refuse_quarantined(inspect_candidate(project, settings, file))


def test_a_model_that_hangs_is_ended_by_its_own_limit(shop):
    """Not by the minute that loading and compiling may take."""
    from mlguard.models.code import candidate_file

    (shop.folder / "hanging.py").write_text(HANGING)
    project, settings = shop.write("allow_code = true\nwall_limit_s = 1.5")
    packed = candidate_file(f"{shop.folder / 'hanging.py'}:Hanging", [], shop.folder)
    began = time.monotonic()
    with pytest.raises(ModelRunError, match="no answer within its time limit") as caught:
        inspect_candidate(project, settings, packed)
    assert time.monotonic() - began < 60
    assert "wall_limit_s" in caught.value.hint
