"""What monitors' results ask for: ladders, alarms, guards, and the two rules that never bend."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlguard.config import AutoTable, WindowedMonitor
from mlguard.policy import (
    Action,
    Level,
    Standing,
    Trial,
    clears,
    condition,
    cooldown_s,
    decide,
    is_blind,
    settle,
)
from mlguard.results import MonitorResult, Verdict

P, S, W, I, E, F = Verdict  # noqa: E741
LIVE = Standing(baking=False, elapsed_s=1e6)
ROLLBACK = WindowedMonitor(action="rollback")


def results(verdicts, *, check="data_drift.features", sequential=False, n=500, n_min=30):
    sizes = n if isinstance(n, list) else [n] * len(verdicts)
    return [
        MonitorResult(id=check, verdict=one, summary="", n=size, n_min=n_min, sequential=sequential)
        for one, size in zip(verdicts, sizes, strict=True)
    ]


def level(verdicts, rules=ROLLBACK, standing=LIVE, auto=None, **named):
    return decide(results(verdicts, **named), rules, auto or AutoTable(), standing).level


# --- the ladder --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], Level.NONE),
        ([P, P], Level.NONE),
        ([F], Level.ALERT),
        ([F, F], Level.FREEZE),
        ([F, F, F], Level.ROLLBACK),
        ([F, F, P], Level.NONE),
        ([F, F, P, F], Level.ALERT),
        ([F, F, W, F], Level.ALERT),
        ([W, W], Level.NONE),
        ([W, W, W], Level.ALERT),
        ([F, I, F], Level.FREEZE),
        ([F, F, I], Level.FREEZE),
        ([F, F, E, F], Level.ROLLBACK),
    ],
)
def test_a_live_version_climbs_the_ladder(verdicts, expected):
    """One failing window alerts, two freeze, three roll back; undecided ones change nothing."""
    assert level(verdicts) is expected


def test_a_baking_version_falls_sooner():
    """Two failing windows roll back what is not confirmed yet."""
    assert level([F, F], standing=dataclasses.replace(LIVE, baking=True)) is Level.ROLLBACK


@pytest.mark.parametrize("action", ["alert", "freeze", "rollback", "default_output"])
def test_no_monitor_goes_further_than_it_may(action):
    """`action` is the highest level that a monitor may reach."""
    assert level([F] * 5, WindowedMonitor(action=action)) is Level[action.upper()]


def test_a_sequential_alarm_acts_at_once():
    """A detector with its own promise needs no ladder."""
    assert level([P, P, F], sequential=True) is Level.ROLLBACK
    assert level([F, P], sequential=True) is Level.NONE


def test_a_hard_check_acts_at_once_with_enough_rows():
    """Twenty broken rows are enough, nineteen climb the ladder."""
    assert level([F], check="service.model_errors", n=20, n_min=20) is Level.ROLLBACK
    assert level([F], check="service.model_errors", n=19, n_min=20) is Level.ALERT
    assert level([F], check="service.load", n=1, n_min=1) is Level.ROLLBACK


# --- the two rules -----------------------------------------------------------------------

_verdicts = st.lists(st.sampled_from(list(Verdict)), min_size=1, max_size=7)
_rules = st.builds(
    WindowedMonitor,
    action=st.sampled_from(["alert", "freeze", "rollback", "default_output"]),
    alert_after=st.integers(1, 5),
    freeze_after=st.integers(1, 5),
    rollback_after=st.integers(1, 5),
)
_autos = st.builds(
    AutoTable,
    rollback=st.booleans(),
    grace=st.sampled_from([0.0, 600.0]),
    budget=st.integers(0, 3),
)
_standings = st.builds(
    Standing,
    baking=st.booleans(),
    elapsed_s=st.sampled_from([0.0, 599.0, 1e5]),
    move_ages_s=st.lists(st.floats(0, 1e6), max_size=3).map(tuple),
)
_ids = st.sampled_from(["data_drift.features", "service.model_errors", "concept_drift.loss"])


_kinds = st.fixed_dictionaries({"check": _ids, "sequential": st.booleans()})


@settings(max_examples=1000)
@given(_verdicts, st.data(), st.tuples(_rules, _standings, _autos), _kinds)
def test_worse_is_never_milder(verdicts, data, facts, kind):
    """Replacing any verdict of any history by a worse one never lowers the level."""
    # Too few rows are a reason to be undecided, and for no other verdict.
    few = data.draw(st.booleans())
    sizes = [5 if few and one is I else 500 for one in verdicts]
    place = data.draw(st.integers(0, len(verdicts) - 1))
    worse = data.draw(
        st.sampled_from([one for one in Verdict if one.severity >= verdicts[place].severity])
    )
    changed = [*verdicts]
    changed[place] = worse
    assert level(changed, *facts, n=sizes, **kind) >= level(verdicts, *facts, n=sizes, **kind)


@given(
    st.lists(st.sampled_from([P, S, W, I, E]), min_size=1, max_size=9),
    _rules,
    _standings,
    _kinds,
)
def test_only_failures_move_traffic(verdicts, rules, standing, kind):
    """Without a FAILED result nothing is rolled back and no default is answered."""
    found = level(verdicts, rules, standing, **kind)
    assert not found.moves_traffic


@given(_verdicts, _rules, _autos, _standings, _kinds)
def test_every_action_says_why(verdicts, rules, auto, standing, kind):
    """There is a sentence for whatever is done, and it is never more than wanted."""
    found = decide(results(verdicts, **kind), rules, auto, standing)
    assert found.because
    assert found.level <= max(found.wanted, Level.NONE)
    assert bool(found.deferred) == (found.level < found.wanted)


# --- blind -------------------------------------------------------------------------------


def test_a_monitor_that_judges_nothing_freezes():
    """Three windows with enough rows and no verdict: the monitor is blind."""
    assert level([P, I, I]) is Level.NONE
    assert level([P, I, E, I]) is Level.FREEZE
    assert level([P, I, E, I], WindowedMonitor(action="alert")) is Level.ALERT


def test_too_few_rows_are_not_blindness():
    """An app with little traffic is never frozen for it."""
    few = results([I] * 9, n=5, n_min=30)
    assert not is_blind(few)
    assert decide(few, ROLLBACK, AutoTable(), LIVE).level is Level.NONE
    assert not is_blind(results([I] * 9, n=None, n_min=None))


def test_conditions():
    """Idle, waiting, armed and blind are told apart."""
    asked = {"needs_labels": True, "n_rows": 9, "n_labels": 3}
    assert condition([], **asked | {"n_rows": 0}) == "idle"
    assert condition([], **asked | {"n_labels": 0}) == "waiting"
    assert condition([], **asked) == "armed"
    assert condition(results([I, I, I]), **asked | {"n_rows": 0}) == "blind"


# --- guards ------------------------------------------------------------------------------


def test_grace_defers_everything_but_a_hard_check():
    """Right after a switch nothing is done, unless rows are plainly broken."""
    fresh = dataclasses.replace(LIVE, elapsed_s=599.0)
    found = decide(results([F] * 3), ROLLBACK, AutoTable(), fresh)
    assert (found.level, found.wanted, found.deferred) == (Level.NONE, Level.ROLLBACK, "grace")
    assert level([F], standing=fresh, check="service.model_errors") is Level.ROLLBACK


def test_the_budget_ends_in_a_freeze():
    """Two automatic moves in a day are enough."""
    spent = dataclasses.replace(LIVE, move_ages_s=(80_000.0, 50_000.0))
    found = decide(results([F] * 3), ROLLBACK, AutoTable(), spent)
    assert (found.level, found.wanted, found.deferred) == (
        Level.FREEZE,
        Level.ROLLBACK,
        "budget",
    )
    older = dataclasses.replace(LIVE, move_ages_s=(90_000.0, 50_000.0))
    assert level([F] * 3, standing=older) is Level.ROLLBACK


def test_the_cooldown_doubles_up_to_its_cap():
    """Each automatic move within the budget's window doubles the pause after it."""
    auto = AutoTable(budget=9)
    assert [cooldown_s([0.0] * n, auto) for n in range(4)] == [0, 1800, 3600, 7200]
    assert cooldown_s([0.0] * 99, auto) == 86400
    found = decide(
        results([F] * 3), ROLLBACK, auto, dataclasses.replace(LIVE, move_ages_s=(1000.0,))
    )
    assert (found.level, found.deferred) == (Level.FREEZE, "cooldown")
    assert "800 s more" in found.because


def test_automatic_moves_may_be_switched_off():
    """[auto] rollback = false leaves the freeze."""
    found = decide(results([F] * 3), ROLLBACK, AutoTable(rollback=False), LIVE)
    assert (found.level, found.deferred) == (Level.FREEZE, "off")


def test_an_incident_clears_after_windows_in_order():
    """Three windows that passed, in a row, end it; warnings do not."""
    assert clears(results([F, P, P, P]), ROLLBACK)
    assert not clears(results([F, P, P]), ROLLBACK)
    assert not clears(results([F, P, W, P]), ROLLBACK)


# --- going back, or not ------------------------------------------------------------------


def wish(wanted=Level.ROLLBACK):
    return Action(level=wanted, because="it failed", wanted=wanted)


def trial(outcome, version="v1"):
    return Trial(version=version, outcome=outcome, reason="because")


@pytest.mark.parametrize(
    ("trials", "hard", "auto", "expected"),
    [
        (["qualified"], False, {}, Level.ROLLBACK),
        (["unfit", "qualified"], False, {}, Level.ROLLBACK),
        (["unhelpful"], False, {}, Level.FREEZE),
        (["unhelpful"], False, {"on_data_break": "default_output"}, Level.DEFAULT_OUTPUT),
        (["unproven"], False, {"on_data_break": "default_output"}, Level.FREEZE),
        (["unfit"], False, {}, Level.FREEZE),
        (["unfit"], True, {}, Level.DEFAULT_OUTPUT),
        ([], False, {}, Level.FREEZE),
        ([], False, {"on_no_target": "default_output"}, Level.DEFAULT_OUTPUT),
        ([], True, {}, Level.DEFAULT_OUTPUT),
        (["unfit", "unhelpful"], False, {}, Level.FREEZE),
    ],
)
def test_what_a_wish_to_move_becomes(trials, hard, auto, expected):
    """Back where a version qualifies; else freeze, or the default where that was chosen."""
    found = settle(wish(), [trial(one) for one in trials], hard=hard, auto=AutoTable(**auto))
    assert found.level is expected


@pytest.mark.parametrize("trials", [[], ["unfit"], ["unhelpful"], ["unproven"]])
def test_a_guard_against_harm_prefers_the_default(trials):
    """A monitor that may answer the default does so where no version qualifies."""
    found = settle(
        wish(Level.DEFAULT_OUTPUT), [trial(one) for one in trials], hard=False, auto=AutoTable()
    )
    assert found.level is Level.DEFAULT_OUTPUT


def test_every_refusal_is_named():
    """The reason lists each version that was tried and why it was not taken."""
    found = settle(
        wish(), [trial("unfit", "v2"), trial("unfit", "v1")], hard=False, auto=AutoTable()
    )
    assert "v2: because; v1: because" in found.because
