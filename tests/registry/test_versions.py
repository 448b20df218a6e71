"""Registration, names, evidence and references, on both databases."""

import hashlib

import pytest

from mlguard.errors import ConflictError, IntegrityError, NotFoundError, RefusedError, UsageError
from mlguard.registry import State


def test_versions_are_numbered_unless_named(house):
    """v1, v2, …; a name of one's own does not disturb the numbers."""
    assert house.register("one").name == "v1"
    assert house.register("two", name="october").name == "october"
    assert house.register("three").name == "v2"
    assert house.register("four", name="v9").name == "v9"
    assert house.register("five").name == "v10"
    assert [one.name for one in house.registry.versions("iris")] == [
        "v10",
        "v9",
        "v2",
        "october",
        "v1",
    ]
    assert house.register("one", app="credit").name == "v1"


def test_a_registered_version_says_everything_about_itself(house):
    """Digest, manifest, who, when, why, from which commit."""
    content = "one"
    sha = hashlib.sha256(content.encode()).hexdigest()
    version = house.register(content)
    assert version.state is State.REGISTERED
    assert version.manifest["model_sha256"] == sha
    assert version.registered_by == "ann"
    assert version.registered_at == house.clock.now
    registry = house.registry
    assert registry.version("iris", "v1") == version
    assert registry.version_by_id(version.id) == version
    assert registry.version_by_digest("iris", version.digest) == version
    assert registry.version_by_digest("iris", "0" * 64) is None
    assert registry.artifacts.get(sha).read_text() == content
    assert registry.events("iris")[0].detail["model_sha256"] == sha


def test_registering_again_is_no_change(house):
    """Same name and content, or same content without a name: the same version, no event."""
    version = house.register("one", name="a")
    events = len(house.registry.events())
    assert house.register("one", name="a") == version
    assert house.register("one") == version
    assert len(house.registry.events()) == events
    assert house.register("one", name="b").id != version.id


def test_a_version_is_immutable(house):
    """The same name for other content conflicts and says which digests."""
    version = house.register("one", name="a")
    with pytest.raises(ConflictError, match="immutable") as caught:
        house.register("two", name="a")
    assert caught.value.data["digest"] == version.digest
    with pytest.raises(ConflictError, match="immutable"):
        house.register("one", name="a", threshold=0.6)


@pytest.mark.parametrize("name", ["", "V1", "a/b", "../x", "a b", "x" * 65, "\n"])
def test_names_are_plain(house, name):
    """Nothing that a path, a header or a terminal could trip over."""
    with pytest.raises(UsageError, match="cannot be the name"):
        house.register("one", name=name)
    with pytest.raises(UsageError, match="cannot be the name"):
        house.register("one", app=name)
    assert house.registry.versions("iris") == []


def test_a_file_that_is_not_the_manifest_s_is_refused(house):
    """A model that was written anew in between is no version."""
    bundle = type("Other", (), {"model_sha256": "0" * 64, "digest": "1" * 64, "to_json": dict})()
    with pytest.raises(IntegrityError, match="its manifest says 000000000000"):
        house.registry.register(
            "iris", name=None, manifest=bundle, model_file=house.file("something")
        )
    assert house.registry.versions("iris") == []


def test_unknown_versions_are_named_with_the_known_ones(house):
    """The hint lists what there is."""
    house.register("one")
    with pytest.raises(NotFoundError, match="no version 'v7'") as caught:
        house.registry.version("iris", "v7")
    assert "v1" in caught.value.hint
    with pytest.raises(NotFoundError):
        house.registry.version_by_id(99)


def test_marking_twice_is_marking_once(house):
    """Where a version is in the state already, nothing is written."""
    version = house.register("one")
    house.registry.mark(version.id, State.VERIFIED, reason="ok")
    events = len(house.registry.events())
    house.registry.mark(version.id, State.VERIFIED, reason="ok")
    assert len(house.registry.events()) == events


@pytest.mark.parametrize("state", ["STAGED", "SHADOW", "CANARY", "BAKING", "LIVE", "STANDBY"])
def test_traffic_is_not_marked(house, state):
    """States with traffic are reached by operations and moves only."""
    version = house.passed("one")
    before = house.facts()
    with pytest.raises(RefusedError, match="cannot be marked"):
        house.registry.mark(version.id, State(state), reason="please")
    assert house.facts() == before


def test_evidence_is_kept_by_digest_newest_first(house):
    """Old evidence stays beside the new; another name of the same content shares it."""
    version = house.register("one")
    first = house.judge(version, allowed=False)
    house.clock.advance(60)
    second = house.judge(version)
    found = house.registry.evidence("iris", version.digest)
    assert [one.id for one in found] == [second, first]
    assert (found[0].allowed, found[0].verdict, found[0].actor) == (True, "passed", "ann")
    assert found[0].policy_digest == "policy"
    assert found[0].decision["results"][0]["value"] == 0.02
    other = house.register("one", name="b")
    assert house.registry.evidence("iris", other.digest) == found
    assert house.registry.evidence("iris", "0" * 64) == []


def test_a_refusal_is_an_event_and_a_mail(house):
    """`history` shows it, and its author is told the number."""
    version = house.register("one")
    house.judge(version, allowed=False)
    event = house.registry.events("iris", kind="refused")[0]
    assert event.version == "v1"
    assert event.detail["check"] == "fairness.accuracy_difference[sex]"
    assert (event.detail["value"], event.detail["limit"], event.detail["n"]) == (0.02, 0.1, 400)
    mail = house.registry.outbox.rows()
    assert {one.kind for one in mail} == {"refused"}
    assert mail[0].facts["interval"] == [0.0, 0.05]
    house.judge(version)
    assert house.registry.outbox.rows() == mail


def test_references_are_kept_by_digest(house):
    """Setting one again replaces it."""
    version = house.register("one")
    assert house.registry.reference("iris", version.digest) is None
    house.registry.set_reference("iris", version.digest, {"loss": {"n": 10, "errors": 1}})
    house.registry.set_reference("iris", version.digest, {"loss": {"n": 20, "errors": 1}})
    assert house.registry.reference("iris", version.digest) == {"loss": {"n": 20, "errors": 1}}
