"""A rollback by hand: what serves next is tried before anything moves; a dry run moves nothing."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlguard.deploy.standby import refuse_unfit
from mlguard.errors import IntegrityError, RefusedError
from mlguard.models.bundle import serving_sha256
from mlguard.models.formats import save_model
from mlguard.project import Project


@pytest.fixture
def two(world):
    """Version one, then version two, with test data to ask them."""
    world.deploy("one", (1.0, 1.0))
    world.deploy("two", (1.0, 0.9))
    rows = world.rows(30)
    lines = [f"{income},{debt},0,F" for income, debt in rows]
    (world.root / "serving/loan/test.csv").write_text("\n".join(["income,debt,paid,sex", *lines]))
    return world


@pytest.fixture
def guarded(two):
    """The project as a user has it."""
    project = Project(two.root)
    yield project
    project.registry.close()


def told_that_it_would_not_help(world, version):
    """Open the incident of a monitor that has played its window to a version."""
    active = world.registry.app("loan").active
    incident = world.registry.open_incident(
        "loan",
        monitor="data_drift.marginals",
        version_id=active.id,
        summary="income drifted",
        level="freeze",
        facts={
            "trials": [
                {"version": version, "outcome": "unhelpful", "reason": "0.31 against 0.30 now"}
            ]
        },
    )
    return getattr(incident, "id", incident)


def test_the_target_is_loaded_and_asked_first(guarded, two):
    """The outcome says what was tried; then, and only then, it serves."""
    done = guarded.rollback("loan", reason="complaints")
    assert (done.exit_code, done.to) == (0, "one")
    assert "20 rows answered the same twice" in " ".join(done.lines)
    assert two.active() == "one"


@pytest.mark.parametrize(
    ("held", "said"), [(True, "a row answered the same twice"), (False, "20 rows answered")]
)
def test_what_somebody_holds_loaded_is_not_loaded_again(guarded, two, held, said):
    """Its bytes are checked all the same; where it does not stand by, a process tries it."""
    settings, version = guarded.app("loan"), two.registry.version("loan", "one")
    asked = []

    def stands_by():
        asked.append(version.name)
        return held

    tried = refuse_unfit(guarded.settings, settings, two.registry, version, stands_by=stands_by)
    assert asked == ["one"]
    assert said in tried.reason
    path = two.registry.artifacts.get(serving_sha256(version.manifest))
    path.chmod(0o644)
    path.write_bytes(b"else")
    with pytest.raises(RefusedError, match="has changed"):
        refuse_unfit(guarded.settings, settings, two.registry, version, stands_by=stands_by)


@pytest.fixture
def broken_before(two, monkeypatch):
    """A version before the one that serves that cannot answer: it was fitted to three columns."""

    def fitted(_weights):
        rows = np.random.default_rng(1).normal(size=(50, 3))
        return LogisticRegression().fit(rows, rows[:, 0] > 0)

    with monkeypatch.context() as patch:
        patch.setattr(two, "model", fitted)
        patch.setattr(two, "reference", lambda _estimator: {})
        two.deploy("broken", (1.0, 1.0))
    two.deploy("three", (1.0, 0.8))
    return two


@pytest.mark.parametrize("force", [False, True])
def test_one_that_cannot_answer_is_refused(guarded, broken_before, force):
    """Bytes that are intact and load, and answer no row: nothing moves, forced or not."""
    with pytest.raises(RefusedError, match="broken cannot serve: ") as refused:
        guarded.rollback("loan", reason="complaints", force=force)
    assert "--to VERSION" in refused.value.hint
    assert broken_before.active() == "three"


def test_one_whose_bytes_changed_is_refused(guarded, two):
    """Not even with --force: what would serve is not what was deployed."""
    version = two.registry.version("loan", "one")
    path = two.registry.artifacts.get(serving_sha256(version.manifest))
    path.chmod(0o644)
    path.write_bytes(b"else")
    with pytest.raises((IntegrityError, RefusedError)):
        guarded.rollback("loan", reason="complaints", force=True)
    assert two.active() == "two"


def test_lost_test_data_stand_in_nobodys_way(guarded, two):
    """At 3 a.m. with the data gone, loading must do; a dry run says what is missing."""
    (two.root / "serving/loan/test.csv").unlink()
    done = guarded.rollback("loan", reason="complaints")
    assert two.active() == "one"
    assert "the test data cannot be read" in " ".join(done.lines)


def test_one_that_would_not_help_needs_force(guarded, two):
    """A monitor played the failing window to it: without --force that is believed."""
    incident = told_that_it_would_not_help(two, "one")
    with pytest.raises(RefusedError, match=r"would not help: 0\.31 against 0\.30 now") as refused:
        guarded.rollback("loan", reason="complaints")
    assert "--force" in refused.value.hint
    assert refused.value.data["incident"] == incident
    assert two.active() == "two"
    assert guarded.rollback("loan", reason="complaints", force=True).to == "one"


def files_of(root):
    """Return every byte of the registry and of the artifacts, with every name."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        # Keeps the folder out of git; whoever needs the folder first writes it.
        if path.is_file() and path.name != ".gitignore"
    }


@pytest.mark.soak
def test_a_dry_run_leaves_every_byte_as_it_was(two, tmp_path):
    """Neither a rollback nor a deployment that is only tried changes the database or the blobs."""
    two.registry.close()
    save_model(two.model((0.5, 0.5)), two.root / "serving/loan/model.skops")
    state = two.root / ".mlguard"
    before = files_of(state)
    assert any(name.endswith("registry.db") for name in before)
    assert any("artifacts" in name for name in before)
    project = Project(two.root)
    assert project.rollback("loan", reason="what if", dry_run=True).exit_code == 0
    assert project.rollback("loan", reason="what if", to_default=True, dry_run=True).exit_code == 0
    done = project.deploy("loan", dry_run=True)
    assert done.changed is False
    assert done.decision.results
    project.registry.close()
    after = files_of(state)
    assert after == before
