"""A deployment that cannot finish switches nothing and leaves nothing in the way of the next."""

import pytest

from mlguard.deploy.rollout import Rollout
from mlguard.errors import ConflictError, ModelRunError, PendingError
from mlguard.registry import State


@pytest.fixture
def staging(world):
    """An app whose v1 serves, and whose v2, live once before, has begun to be deployed again."""
    first = world.deploy("v1", (1.0, 1.0))
    second = world.deploy("v2", (1.0, 0.9))
    world.registry.rollback("loan", automatic=False, reason="to begin again")
    assert world.registry.app("loan").active.id == first.id
    rollout = Rollout(
        world.project,
        world.settings,
        world.registry,
        clock=world.clock,
        elapsed=world.clock,
        sleep=lambda _: world.clock.advance(5.0),
    )
    return world, rollout, world.registry.begin("loan", second.id), second


def unchanged(world):
    """Return whether v1 still serves and the way is free for another deployment."""
    registry = world.registry
    return (
        registry.app("loan").active.name == "v1"
        and registry.candidate("loan") is None
        and registry.operation("loan") is None
    )


def hello(world, **beat):
    registry = world.registry
    registry.server_hello("s1", host="here", pid=1, url="http://here")
    registry.server_beat("s1", **{"observed": {}, "loaded": [], "failed": {}} | beat)


def test_a_server_that_cannot_load_it_stops_the_deployment(staging):
    """The reason of the server is told, and the candidate does not linger."""
    world, rollout, operation, second = staging
    hello(world, failed={second.id: "out of memory"})
    with pytest.raises(ModelRunError, match="s1 could not load v2: out of memory"):
        rollout._stage(operation, second)
    assert unchanged(world)


def test_a_server_that_says_nothing_is_waited_for_and_then_named(staging):
    """Exit code 8 names who is waited for; nothing was switched."""
    world, rollout, operation, second = staging
    hello(world)
    rollout.sleep = lambda _: (world.clock.advance(5.0), hello(world))
    with pytest.raises(PendingError, match="s1 did not load v2"):
        rollout._stage(operation, second)
    assert unchanged(world)
    assert world.registry.version_by_id(second.id).state is State.STANDBY  # as it was before


@pytest.mark.parametrize("jump_s", [86400.0, -86400.0])
def test_a_clock_that_jumps_changes_no_wait(staging, jump_s):
    """A day either way while servers load: waited for as long as ever, its lease kept meanwhile."""
    world, rollout, operation, second = staging
    timeout = world.settings.rollout.load_timeout
    passed = [0.0]
    hello(world)

    def sleep(_):
        passed[0] += 5.0
        world.clock.advance(5.0 + (jump_s if len(passed) == 1 else 0.0))
        passed.append(passed[0])
        hello(world)
        if len(passed) > 3:
            # Somebody else finds it alive, by the clock as it is now.
            with pytest.raises(ConflictError, match="has been running"):
                world.registry.begin("loan", second.id)

    rollout.elapsed = lambda: passed[0]
    rollout.sleep = sleep
    with pytest.raises(PendingError, match="s1 did not load v2"):
        rollout._stage(operation, second)
    assert timeout < passed[0] <= timeout + 10.0
    assert unchanged(world)


def test_an_interruption_leaves_no_candidate(staging):
    """Ctrl-C while servers load takes the candidate back at once."""
    world, rollout, operation, second = staging
    hello(world)

    def interrupt(_):
        raise KeyboardInterrupt

    rollout.sleep = interrupt
    with pytest.raises(KeyboardInterrupt):
        rollout._stage(operation, second)
    assert unchanged(world)
