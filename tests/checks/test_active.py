"""The candidate against the version that serves, found through a real registry."""

import pytest

from mlguard.checks.baseline import Baseline
from mlguard.checks.declaration import judge
from mlguard.config import load_project
from mlguard.models.bundle import Manifest
from mlguard.registry import Registry, State
from mlguard.results import CheckResult, GateDecision, Verdict


@pytest.fixture
def live(project):
    """Bring the project's model into service as v1."""
    subject = project.subject()
    result = CheckResult(id="baseline.beats", verdict=Verdict.PASSED, summary="beats majority")
    decision = GateDecision(
        app="credit", candidate="v1", allowed=True, results=(result,), because="passed"
    )
    with Registry.open(load_project(project.root), actor="ann") as registry:
        version = registry.register(
            "credit", name="v1", manifest=subject.manifest, model_file=subject.model_path
        )
        registry.mark(version.id, State.VERIFIED, reason="smoke test passed")
        evidence = registry.record_evidence(
            "credit",
            version.digest,
            decision.to_json(),
            policy_digest="policy",
            data_digest="data",
            code_version="code",
        )
        registry.mark(version.id, State.PASSED, reason="gate passed", evidence_id=evidence)
        operation = registry.begin("credit", version.id)
        registry.stage(operation)
        registry.promote(operation, reason="deployed")
    return version


def no_worse_than(project, **options):
    subject = project.subject(**options)
    item = Baseline().declare(subject.settings, project.root).items[1]
    return judge(item, subject, clock=lambda: 0.0)


def test_the_live_version_against_itself_is_identical(project, live):
    """The bytes that serve now are no worse than themselves, by identity."""
    found = no_worse_than(project)
    assert found.verdict is Verdict.PASSED
    assert found.reason == "identical"
    assert "exactly like v1" in found.summary
    assert found.details["flips"] == 0


def test_a_worse_candidate_is_refused_with_its_flips(project, live, tmp_path, train_frame):
    """A model that sees less than the live one is FAILED, by how much and on how many rows."""
    from sklearn.linear_model import LogisticRegression

    from mlguard.models.formats import save_model

    model = LogisticRegression().fit(train_frame[["age"]], train_frame["y"])
    save_model(model, tmp_path / "age.skops")
    found = no_worse_than(project, model=tmp_path / "age.skops", name="v2")
    assert found.verdict is Verdict.FAILED
    assert "is worse than v1 by more than 0.02" in found.summary
    assert found.details["flips"] > 100
    assert found.details["lost"] > found.details["gained"]


def test_a_live_version_that_can_not_be_read_is_errored(project, live):
    """If the stored bytes are damaged nothing is concluded: ERRORED, never skipped or passed."""
    digest = Manifest.from_json(live.manifest).model_sha256
    (stored,) = (path for path in (project.root / ".mlguard").rglob("*") if digest in path.name)
    stored.chmod(0o644)
    stored.write_bytes(b"damaged")
    found = no_worse_than(project)
    assert found.verdict is Verdict.ERRORED
    assert found.blocks


def test_judging_makes_no_database(project):
    """A project that never deployed has no registry after its gate either."""
    assert project.subject().active is None
    assert not (project.root / ".mlguard").exists()
