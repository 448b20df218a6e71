"""Whether a version that could be gone back to has earned it."""

import dataclasses

import numpy as np
import pytest

from mlguard.deploy.qualify import Failure, try_targets
from mlguard.errors import IntegrityError, ModelRunError
from mlguard.models.bundle import Manifest
from mlguard.models.predictions import Predictions
from mlguard.monitors.window import WindowData
from mlguard.results import Finding, Verdict


@dataclasses.dataclass
class Target:
    name: str
    manifest: dict


def target(name="v1", features=("x",)):
    schema = {
        "input": "table",
        "task": "classification",
        "features": [{"name": one, "kind": "number"} for one in features],
        "classes": [0, 1],
    }
    return Target(name, Manifest("0" * 64, "skops", schema).to_json())


def rows(current, *, labelled=True, columns=None):
    """Rows whose label is 1 and whose current answers are given."""
    n = len(current)
    filled = np.full(n, None, dtype=object)
    output, label = filled.copy(), filled.copy()
    output[:] = [int(one) for one in current]
    if labelled:
        label[:] = [1] * n
    return WindowData(
        version="v2",
        generation=2,
        query_id=np.arange(n),
        time=np.arange(n, dtype=float),
        columns={"x": np.zeros(n)} if columns is None else columns,
        output=output,
        score=np.full(n, np.nan),
        default=np.zeros(n, bool),
        valid=np.ones(n, bool),
        inputs_kept=np.ones(n, bool),
        explanation=filled,
        groups=[{}] * n,
        label=label,
        labelled=np.full(n, labelled),
        source=filled,
        seq=np.arange(n),
        arrived=np.arange(n, dtype=float),
    )


def trial(window, answers, *, hard=False, theta=0.1, fetch=None, targets=None, **options):
    def replay(manifest, path, played):
        given = answers[: len(played)]
        return Predictions(np.array(given), None, np.ones(len(given), bool))

    check = options.pop("check", "fairness.gap")
    failure = Failure(check=check, hard=hard, window=window, theta=theta)
    failure = dataclasses.replace(failure, rejudge=options.pop("rejudge", None))
    found = try_targets(
        targets or [target()],
        failure,
        at_most=3,
        fetch=fetch or (lambda digest: digest),
        replay=options.pop("replay", replay),
        **options,
    )
    return found[-1]


def test_a_target_below_theta_and_below_the_current_qualifies():
    """A loss that is acceptable, on rows where the current version's is not."""
    found = trial(rows([0, 1] * 30), [1] * 57 + [0] * 3)
    assert found.outcome == "qualified"
    assert "0.05" in found.reason
    assert "0.50" in found.reason


def test_a_target_that_is_clearly_better_qualifies_above_theta():
    """A proven gain is enough where nothing is acceptable."""
    assert trial(rows([0] * 100), [1] * 60 + [0] * 40).outcome == "qualified"


def test_a_target_that_is_as_bad_does_not():
    """The same break hits both: going back would not help."""
    found = trial(rows([0, 1] * 50), [1, 0] * 50)
    assert found.outcome == "unhelpful"


def test_a_little_better_by_luck_does_not():
    """Two rows of a hundred prove nothing."""
    current = [0] * 50 + [1] * 50
    assert trial(rows(current), [1] * 2 + current[2:]).outcome == "unhelpful"


@pytest.mark.parametrize(
    "window",
    [None, rows([0] * 19), rows([0] * 100, labelled=False), rows([0] * 100, columns={})],
)
def test_without_rows_to_compare_on_nothing_is_proven(window):
    """No rows, too few, no labels or no logged inputs: unproven, with the reason."""
    found = trial(window, [1] * 100)
    assert found.outcome == "unproven"
    assert found.reason


def test_a_hard_check_asks_for_answers_only():
    """What answers is better than what does not, whatever its loss."""
    assert trial(rows([0] * 40, labelled=False), [0] * 40, hard=True).outcome == "qualified"
    assert trial(None, [], hard=True).outcome == "qualified"


def test_comparison_may_be_switched_off():
    """[auto] qualify = false asks a soft check's target only to answer."""
    assert trial(rows([1] * 40), [0] * 40, needs_comparison=False).outcome == "qualified"


def corrupt(digest):
    raise IntegrityError("the bytes are not what was registered")


def hangs(manifest, path, played):
    raise ModelRunError("the model did not answer within 60 s")


def partly(manifest, path, played):
    valid = np.arange(len(played)) > 0
    return Predictions(np.ones(len(played), int), None, valid)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fetch": corrupt}, "cannot be read"),
        ({"replay": hangs}, "does not run"),
        ({"replay": partly}, "no prediction on 1 of 40"),
        ({"targets": [target(features=("x", "y"))]}, "not in the log: y"),
    ],
)
def test_what_is_unfit_says_why(options, words):
    """Corrupt bytes, a hanging model, lost rows or unknown inputs are refusals of integrity."""
    found = trial(rows([0] * 40), [1] * 40, **options)
    assert found.outcome == "unfit"
    assert words in found.reason


def test_targets_are_tried_in_order_until_one_qualifies():
    """The first success wins, at most so many are tried, and every refusal is kept."""
    failure = Failure(check="c", hard=True, window=None)
    broken = {"v3"}

    def fetch(digest):
        if broken:
            broken.pop()
            corrupt(digest)
        return digest

    names = ["v3", "v2", "v1"]
    found = try_targets([target(one) for one in names], failure, at_most=3, fetch=fetch)
    assert [(one.version, one.outcome) for one in found] == [("v3", "unfit"), ("v2", "qualified")]
    broken.add("v3")
    assert len(try_targets([target(one) for one in names], failure, at_most=1, fetch=fetch)) == 1


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (Verdict.PASSED, "qualified"),
        (Verdict.WARNED, "qualified"),
        (Verdict.FAILED, "unhelpful"),
        (Verdict.INCONCLUSIVE, "unproven"),
        (Verdict.ERRORED, "unproven"),
    ],
)
def test_a_check_of_answers_judges_the_targets(verdict, outcome):
    """Where the check can judge a window, it judges the target's answers in it."""
    seen = []

    def rejudge(window):
        seen.append(window.output.tolist())
        return [Finding(id="fairness.gap", verdict=verdict, summary="the gap")]

    assert trial(rows([0] * 40), [1] * 40, rejudge=rejudge).outcome == outcome
    assert seen == [[1] * 40, [0] * 40]


@pytest.mark.parametrize(("high", "outcome"), [(0.3, "qualified"), (0.5, "unproven")])
def test_an_undecided_check_may_still_show_a_gain(high, outcome):
    """A gap whose interval lies below the current version's is better, decided or not."""

    def rejudge(window):
        target = window.output[0] == 1
        return [
            Finding(
                id="fairness.gap",
                verdict=Verdict.INCONCLUSIVE if target else Verdict.FAILED,
                summary="the gap",
                interval=(0.0, high) if target else (0.4, 0.6),
            )
        ]

    assert trial(rows([0] * 40), [1] * 40, rejudge=rejudge).outcome == outcome


def test_a_target_answers_each_group_by_its_own_threshold():
    """Scores of 0.4 are a yes for women and a no for men: so the target would serve them."""
    manifest = {**target().manifest, "thresholds": {"default": 0.5, "sex=F": 0.3}}
    sex = ["F", "M", None, "X"] * 10
    window = dataclasses.replace(
        rows([0] * 40), groups=[{} if one is None else {"sex": one} for one in sex]
    )
    seen = []

    def replay(manifest, path, played):
        n = len(played)
        return Predictions(np.zeros(n, int), np.full(n, 0.4), np.ones(n, bool))

    def rejudge(window):
        seen.append(window.output.tolist())
        return [Finding(id="fairness.gap", verdict=Verdict.PASSED, summary="the gap")]

    trial(window, [], replay=replay, rejudge=rejudge, targets=[Target("v1", manifest)])
    assert seen[0] == [1, 0, 0, 0] * 10


@pytest.mark.parametrize(("low", "outcome"), [(0.65, "qualified"), (0.55, "unproven")])
def test_an_undecided_floor_may_still_show_a_gain(low, outcome):
    """Of a floor more is better: the target's interval lies above the current version's."""

    def rejudge(window):
        target = window.output[0] == 1
        return [
            Finding(
                id="fairness.accuracy_floor",
                verdict=Verdict.INCONCLUSIVE if target else Verdict.FAILED,
                summary="the lowest group",
                interval=(low, 0.9) if target else (0.4, 0.6),
            )
        ]

    found = trial(rows([0] * 40), [1] * 40, rejudge=rejudge, check="fairness.accuracy_floor")
    assert found.outcome == outcome


def test_what_else_a_target_is_not_good_at_does_not_count():
    """Going back is for the check that failed; another one may fail there as it did before."""

    def rejudge(window):
        return [
            Finding(id="fairness.gap", verdict=Verdict.PASSED, summary="the gap"),
            Finding(id="fairness.other", verdict=Verdict.FAILED, summary="another"),
        ]

    assert trial(rows([0] * 40), [1] * 40, rejudge=rejudge).outcome == "qualified"
