"""The transition table and the guards of every move, without a database."""

from dataclasses import dataclass, replace
from itertools import product

import pytest

from mlguard.errors import ConflictError, RefusedError
from mlguard.registry.lifecycle import (
    ACTIVE,
    CANDIDATE,
    QUIET,
    RULES,
    TABLE,
    TRAFFIC,
    Command,
    Mode,
    Scene,
    State,
    automatic_targets,
    blocking,
    expect_generation,
    giving_up,
    going_back,
    manual_targets,
    promotion,
    quiet_command,
    refuse_automatic,
    step,
    unblocking,
)


@dataclass(frozen=True)
class Piece:
    id: int
    state: State
    digest: str = ""
    activated_seq: int | None = None
    confirmed_seq: int | None = None

    @property
    def name(self) -> str:
        return f"v{self.id}"


@dataclass(frozen=True)
class Limits:
    budget: int = 2
    budget_window: float = 86400.0
    cooldown: float = 1800.0
    cooldown_max: float = 86400.0


def scene(active=None, candidate=None, standby=(), **named) -> Scene:
    values = {
        "app": "iris",
        "generation": 7,
        "mode": Mode.SERVE,
        "active": active,
        "candidate": candidate,
        "standby": tuple(standby),
        "launched": True,
        "quarantined": frozenset(),
    }
    return Scene(**{**values, **named})


LIVE = Piece(1, State.LIVE, "one", activated_seq=10, confirmed_seq=12)
STANDBY = Piece(2, State.STANDBY, "two", activated_seq=3, confirmed_seq=5)
STAGED = Piece(3, State.STAGED, "three")


def test_every_step_is_in_the_table_or_is_refused():
    """A step leads where the table says; any other raises and says where it could be done."""
    for command, state in product(Command, [None, *State]):
        if (command, state) in TABLE:
            assert step(command, state) is TABLE[command, state].target
        else:
            with pytest.raises(RefusedError, match=command.value) as caught:
                step(command, state)
            assert caught.value.exit_code == 1
            assert caught.value.hint


def test_no_step_is_written_twice():
    """A command leads from one state to one state."""
    assert len(TABLE) == len(RULES)


def test_every_rule_of_the_life_cycle_is_there():
    """T1 to T16 but those that move no version (T12, T13) have their steps."""
    assert {rule.id for rule in RULES} == {
        "T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8",
        "T9", "T9a", "T10", "T11", "T14", "T15", "T16",
    }  # fmt: skip


def test_every_state_can_be_reached_and_left():
    """No state is decoration; only ARCHIVED is an end."""
    assert {rule.target for rule in RULES} == set(State)
    assert set(State) - {rule.source for rule in RULES} == {State.ARCHIVED}


def test_only_a_confirmed_version_becomes_a_standby():
    """STANDBY is reached from LIVE, or by a candidate that was one before."""
    into = {(rule.command, rule.source) for rule in RULES if rule.target is State.STANDBY}
    assert into == {(Command.DISPLACE, State.LIVE)} | {
        (Command.RETURN, state) for state in CANDIDATE
    }


def test_quiet_commands_never_touch_traffic():
    """What needs no operation neither starts nor ends in a state with traffic."""
    for rule in RULES:
        if rule.command in QUIET:
            assert rule.source not in TRAFFIC
            assert rule.target not in TRAFFIC | {State.STANDBY, State.QUARANTINED}


def test_marking_knows_the_quiet_steps_and_no_other():
    """A state is marked by the one quiet command that leads there, or not at all."""
    quiet = [rule for rule in RULES if rule.command in QUIET]
    for source, target in product(State, State):
        ways = [rule.command for rule in quiet if (rule.source, rule.target) == (source, target)]
        assert len(ways) <= 1
        if ways:
            assert quiet_command(source, target) is ways[0]
        else:
            with pytest.raises(RefusedError, match=source.value):
                quiet_command(source, target)


def test_promotion_displaces_what_is_live():
    """LIVE becomes STANDBY before the candidate becomes BAKING; one generation."""
    move = promotion(scene(LIVE, STAGED), STAGED, supersede=False)
    assert move.steps == ((1, Command.DISPLACE), (3, Command.PROMOTE))
    assert (move.generation, move.mode, move.active) == (8, Mode.SERVE, 3)


def test_the_first_version_of_an_app_is_live_at_once():
    """Nothing was ever active, so there is nothing to compare with (T9a)."""
    move = promotion(scene(None, STAGED, launched=False, generation=0), STAGED, supersede=False)
    assert move.steps == ((3, Command.LAUNCH),)


def test_after_default_output_a_version_bakes():
    """The first deploy after the default output is watched like any other."""
    empty = scene(None, STAGED, mode=Mode.DEFAULT_OUTPUT)
    assert promotion(empty, STAGED, supersede=False).steps == ((3, Command.PROMOTE),)


def test_a_baking_version_is_displaced_only_where_superseded():
    """A second deploy conflicts; superseding leaves the unconfirmed one PASSED."""
    baking = replace(LIVE, state=State.BAKING, confirmed_seq=None)
    with pytest.raises(ConflictError, match="BAKING") as caught:
        promotion(scene(baking, STAGED), STAGED, supersede=False)
    assert "--supersede" in caught.value.hint
    steps = promotion(scene(baking, STAGED), STAGED, supersede=True).steps
    assert steps == ((1, Command.SUPERSEDE), (3, Command.PROMOTE))


def test_only_the_candidate_is_promoted():
    """A version that was drained meanwhile is not."""
    with pytest.raises(ConflictError, match="not the candidate"):
        promotion(scene(LIVE), replace(STAGED, state=State.PASSED), supersede=False)


def test_a_stale_generation_conflicts():
    """Who decided on an older state is told so."""
    expect_generation(scene(LIVE), None)
    expect_generation(scene(LIVE), 7)
    with pytest.raises(ConflictError, match="generation 7, not 6"):
        expect_generation(scene(LIVE), 6)


def test_a_second_manual_rollback_goes_one_further_back():
    """Targets were confirmed before the active version was activated: never forward again."""
    first = Piece(1, State.STANDBY, "a", 1, 1)
    second = Piece(2, State.STANDBY, "b", 2, 3)
    third = Piece(3, State.LIVE, "c", 4, 5)
    assert manual_targets(third, [first, second], frozenset()) == [second, first]
    gone_back = replace(second, state=State.LIVE)
    left = replace(third, state=State.STANDBY)
    assert manual_targets(gone_back, [first, left], frozenset()) == [first]
    assert manual_targets(replace(first, state=State.LIVE), [left], frozenset()) == []
    assert manual_targets(None, [first, left], frozenset()) == [left, first]


def test_automatic_targets_are_other_bytes_latest_confirmed_first():
    """Same digest, quarantined digest and never confirmed are no targets."""
    same = Piece(4, State.STANDBY, "one", 1, 9)
    barred = Piece(5, State.STANDBY, "five", 1, 8)
    older = Piece(6, State.STANDBY, "six", 1, 2)
    never = Piece(7, State.STANDBY, "seven", 1, None)
    standby = [older, same, barred, never, STANDBY]
    assert automatic_targets(LIVE, standby, frozenset({"five"})) == [STANDBY, older]


@pytest.mark.parametrize(
    ("state", "condemn", "leaves"),
    [
        (State.LIVE, True, Command.CONDEMN),
        (State.BAKING, True, Command.CONDEMN),
        (State.LIVE, False, Command.DISPLACE),
        (State.BAKING, False, Command.SUPERSEDE),
    ],
)
def test_going_back_drains_the_candidate_and_lets_the_active_go(state, condemn, leaves):
    """Automatic: QUARANTINED. By hand: LIVE to STANDBY, BAKING to PASSED. No one waits."""
    active = replace(LIVE, state=state)
    move = going_back(scene(active, STAGED, [STANDBY]), STANDBY, condemn=condemn)
    assert move.steps == ((3, Command.DRAIN), (1, leaves), (2, Command.RESTORE))
    assert (move.mode, move.active, move.generation) == (Mode.SERVE, 2, 8)


def test_a_drained_candidate_that_was_a_standby_is_one_again():
    """A deployment that ends costs no rollback target."""
    candidate = replace(STANDBY, id=4, state=State.CANARY)
    move = going_back(scene(LIVE, candidate, [STANDBY]), STANDBY, condemn=False)
    assert move.steps[0] == (4, Command.RETURN)


@pytest.mark.parametrize("state", sorted(set(State) - {State.STANDBY}))
def test_nothing_but_a_standby_is_gone_back_to(state):
    """Any other state was never confirmed, is broken, or serves."""
    with pytest.raises(RefusedError):
        going_back(scene(LIVE), replace(STANDBY, state=state), condemn=False)


def test_quarantined_and_condemned_bytes_are_not_gone_back_to():
    """Neither by their own quarantine nor by the one that is about to be written."""
    with pytest.raises(RefusedError, match="quarantine"):
        going_back(scene(LIVE, quarantined=frozenset({"two"})), STANDBY, condemn=False)
    with pytest.raises(RefusedError, match="same bytes"):
        going_back(scene(LIVE), replace(STANDBY, digest="one"), condemn=True)
    going_back(scene(LIVE), replace(STANDBY, digest="one"), condemn=False)
    with pytest.raises(RefusedError, match="serves already"):
        going_back(scene(LIVE), LIVE, condemn=False)


def test_giving_up_empties_the_pointer():
    """The automatic move to the default output condemns what serves (T12)."""
    move = giving_up(scene(LIVE, STAGED))
    assert move.steps == ((3, Command.DRAIN), (1, Command.CONDEMN))
    assert (move.mode, move.active) == (Mode.DEFAULT_OUTPUT, None)
    with pytest.raises(RefusedError):
        giving_up(scene(None))


def test_blocking_keeps_the_pointer_and_unblocking_needs_it():
    """A human's default output is undone in one step (T13)."""
    move = blocking(scene(LIVE, STAGED))
    assert (move.mode, move.active) == (Mode.DEFAULT_OUTPUT, 1)
    assert move.steps == ((3, Command.DRAIN),)
    assert unblocking(scene(LIVE, mode=Mode.DEFAULT_OUTPUT)).mode is Mode.SERVE
    with pytest.raises(RefusedError, match="no active version"):
        unblocking(scene(None, mode=Mode.DEFAULT_OUTPUT))
    with pytest.raises(RefusedError, match="never deployed"):
        blocking(scene(None, launched=False))


@pytest.mark.parametrize("serving", [None, *sorted(ACTIVE)])
def test_no_move_ever_leaves_two_active_versions(serving):
    """Replaying the steps of any move, at every point at most one version is active."""
    active = None if serving is None else replace(LIVE, state=serving)
    now = scene(active, STAGED, [STANDBY])
    moves = [promotion(now, STAGED, supersede=True)]
    moves += [going_back(now, STANDBY, condemn=condemn) for condemn in (True, False)]
    moves += [giving_up(now)] if active else []
    for move in moves:
        states = {one.id: one.state for one in (active, STAGED, STANDBY) if one is not None}
        for version, command in move.steps:
            states[version] = step(command, states[version])
            assert sum(state in ACTIVE for state in states.values()) <= 1
        assert [one for one, state in states.items() if state in ACTIVE] == [
            one for one in [move.active] if one is not None
        ]


def test_the_budget_of_automatic_moves():
    """Two in a window; the third is refused, until the first has left the window."""
    refuse_automatic("iris", [], 1e6, Limits())
    with pytest.raises(RefusedError, match="budget is 2") as caught:
        refuse_automatic("iris", [1e6 - 80000, 1e6 - 40000], 1e6, Limits())
    assert caught.value.data["clause"] == "budget"
    refuse_automatic("iris", [1e6 - 86401, 1e6 - 40000], 1e6, Limits())
    with pytest.raises(RefusedError):
        refuse_automatic("iris", [], 1e6, Limits(budget=0))


def test_the_cooldown_doubles():
    """30 minutes after the first move, an hour after the second."""
    wide = Limits(budget=9)
    refuse_automatic("iris", [1e6 - 1800], 1e6, wide)
    with pytest.raises(RefusedError, match="after 30 min"):
        refuse_automatic("iris", [1e6 - 1799], 1e6, wide)
    with pytest.raises(RefusedError, match="after 60 min"):
        refuse_automatic("iris", [1e6 - 9000, 1e6 - 1800], 1e6, wide)
    capped = replace(wide, cooldown_max=1000.0)
    refuse_automatic("iris", [1e6 - 9000, 1e6 - 1800], 1e6, capped)


def test_a_clock_that_went_back_shortens_no_cooldown():
    """A move in the future counts as just made."""
    with pytest.raises(RefusedError, match=r"0\.0 min ago"):
        refuse_automatic("iris", [1e6 + 86400], 1e6, Limits())
