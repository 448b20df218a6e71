"""The delayed-impact check: what it counts, what it decides, and when it says nothing."""

import numpy as np
import pandas as pd
import pytest

from mlguard.checks.declaration import Item, judge
from mlguard.checks.delayed_impact import ID, find_impact
from mlguard.checks.evidence import JudgedModel
from mlguard.checks.fairness import Fairness
from mlguard.config import DelayedImpactGate, FairnessGate
from mlguard.errors import ConfigError, DataError, UsageError
from mlguard.results import Verdict

TABLE = """
[gate.fairness.delayed_impact]
success = 75
failure = -150
"""


class Threshold:
    """Answers 1 from a score on."""

    classes_ = np.array([0, 1])

    def __init__(self, limit):
        self.limit = limit

    def predict(self, rows):
        from mlguard.models.predictions import Predictions

        scores = rows["s"].to_numpy(float)
        labels = (scores >= self.limit).astype(int)
        return Predictions(labels, scores, np.isfinite(scores))


def model(limit=0.5):
    return JudgedModel("model", Threshold(limit), target="y", features=["s"], classes=(0, 1))


def people(n=4000, seed=0, shift=0.0):
    """Two groups alike, but that in B the score promises more than comes true."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["A", "B"], n)
    score = rng.random(n)
    truth = rng.random(n) < np.clip(score - shift * (group == "B"), 0, 1)
    return pd.DataFrame(
        {"s": score, "g": group, "y": truth.astype(int), "points": 400 + 300 * score}
    )


def gate(**keys):
    return FairnessGate(delayed_impact=DelayedImpactGate(success=75, failure=-150, **keys))


def values(found):
    return {one.group: one.value for one in found.measurements}


def test_it_counts_successes_and_failures_of_those_answered_yes():
    """Without a score column a mean is c+ for each success and c- for each failure, over all."""
    rows = people()
    found = find_impact(model(), rows, by="g", gate=gate())
    for name in "AB":
        mine = rows[rows["g"] == name]
        moved = np.where(mine["s"] >= 0.5, np.where(mine["y"] == 1, 75, -150), 0)
        assert values(found)[f"g={name}"] == pytest.approx(moved.mean())
    assert found.verdict is Verdict.PASSED


def test_a_group_that_loses_fails_and_is_named():
    """Where the answers lower one group's mean score, the check says whose, and by how much."""
    found = find_impact(model(), people(shift=0.35), by="g", gate=gate())
    assert found.verdict is Verdict.FAILED
    assert found.reason == "limit_exceeded"
    assert found.interval[1] < 0
    assert "mean score of g=B by −" in found.summary
    assert "Active harm: the mean falls for g=B" in found.summary
    assert found.details["harm"]["B"] == "active"
    assert found.details["at_max_utility"]["B"] > found.value


def test_a_stricter_threshold_does_less_for_people_than_maximum_utility():
    """Nobody's mean falls, and the relative harm of refusing too many is told."""
    found = find_impact(model(0.9), people(), by="g", gate=gate(utility_failure=-1.5))
    assert found.verdict is Verdict.PASSED
    assert set(found.details["harm"].values()) == {"relative"}


def test_the_score_is_kept_on_its_scale():
    """At the upper end nobody can rise, so the mean rises less than counting says."""
    counted = find_impact(model(), people(), by="g", gate=gate())
    kept = find_impact(model(), people(), by="g", gate=gate(score="points", low=300, high=700))
    free = find_impact(model(), people(), by="g", gate=gate(score="points"))
    assert values(free) == pytest.approx(values(counted))
    assert all(values(kept)[name] < values(counted)[name] for name in ("g=A", "g=B"))


def test_a_known_probability_of_success_is_taken_as_it_is():
    """With a column of it, what came true does not matter."""
    rows = people().assign(rho=1.0)
    found = find_impact(model(), rows, by="g", gate=gate(score="points", probability="rho"))
    for name in "AB":
        share = (rows[rows["g"] == name]["s"] >= 0.5).mean()
        assert values(found)[f"g={name}"] == pytest.approx(75 * share)


def test_near_the_limit_it_takes_a_margin_to_pass():
    """A mean near 0 is undecided until people say how large a fall must show."""
    rows = people(n=6000, shift=0.25)
    strict = find_impact(model(0.835), rows, by="g", gate=gate())
    assert strict.verdict is Verdict.INCONCLUSIVE
    assert strict.details["smallest_margin"] > 0
    assert "smallest margin" in strict.summary
    wide = gate(margin=2 * strict.details["smallest_margin"])
    loose = find_impact(model(0.835), rows, by="g", gate=wide)
    assert loose.verdict in (Verdict.PASSED, Verdict.WARNED)


def test_a_small_group_is_undecided_unless_it_is_optional():
    """Ten people decide nothing, in either direction."""
    rows = pd.concat([people(4000), people(10).assign(g="C")])
    found = find_impact(model(), rows, by="g", gate=gate())
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "few")
    optional = FairnessGate(
        delayed_impact=gate().delayed_impact, optional_groups=["g=C"], min_group_size=30
    )
    assert find_impact(model(), rows, by="g", gate=optional).verdict is Verdict.PASSED


def test_identical_groups_at_no_change_fail_rarely():
    """At the limit itself the family's error is kept: of 200 draws at most a few fail."""
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(200):
        truth = rng.random(600) < 2 / 3
        rows = pd.DataFrame({"s": 1.0, "g": rng.choice(list("ABC"), 600), "y": truth.astype(int)})
        failed += find_impact(model(), rows, by="g", gate=gate()).verdict is Verdict.FAILED
    assert failed <= 10


def test_an_unusable_prediction_fails():
    """A NaN is not left out."""
    rows = people(100)
    rows.loc[3, "s"] = np.nan
    found = find_impact(model(), rows, by="g", gate=gate())
    assert (found.verdict, found.reason) == (Verdict.FAILED, "not_finite")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"score": "pints"}, "names the column 'pints'"),
        ({"score": "points", "low": 600}, "missing or outside 600 to ∞"),
        ({"score": "points", "probability": "points"}, "missing or outside 0.00 to 1"),
    ],
)
def test_columns_that_do_not_fit_are_errors(keys, words):
    """They are named, with how many rows are wrong."""
    with pytest.raises(DataError, match=words):
        find_impact(model(), people(200), by="g", gate=gate(**keys))


def test_three_classes_are_no_yes_and_no():
    """The check says what it needs."""
    three = JudgedModel("m", Threshold(0.5), target="y", features=["s"], classes=(0, 1, 2))
    with pytest.raises(UsageError, match="does not tell two classes apart"):
        find_impact(three, people(100), by="g", gate=gate())


# --- as an item of the gate -------------------------------------------------------------------


def items(subject):
    declared = Fairness().declare(subject.settings, subject.project.root)
    return [one for one in declared.items if one.id == ID]


def test_it_is_an_item_where_its_table_stands(project):
    """One item per attribute, with the family's policy unless its own table says otherwise."""
    assert items(project.subject()) == []
    project.settings("[gate.fairness]\nenforcement = 'warn'\ndecide = 'proof'\n" + TABLE)
    (item,) = items(project.subject())
    assert item.name == "fairness.delayed_impact[sex]"
    assert item.policy.enforcement == "warn"
    assert item.policy.decide == "proof"
    project.settings(TABLE + "enabled = false\n")
    assert items(project.subject()) == []


def test_it_judges_a_trained_candidate(project):
    """The gate's own path: a model file, the test rows, one result with its groups."""
    project.settings(TABLE)
    subject = project.subject()
    (item,) = items(subject)
    result = judge(item, subject, clock=lambda: 0.0)
    assert result.verdict is Verdict.PASSED, result.summary
    assert {one.group for one in result.measurements} == {"sex=F", "sex=M"}
    assert isinstance(item, Item)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("\n[gate.fairness.delayed_impact]\nfailure = -1\n", "success is missing"),
        (TABLE + "low = 300\n", "name its column"),
        (TABLE + "score = 's'\nlow = 300\nhigh = 200\n", "low must lie below high"),
        (TABLE + "scor = 's'\n", "did you mean 'score'"),
    ],
)
def test_a_table_that_says_too_little_is_refused(project, more, words):
    """The message names table and key."""
    project.settings(more)
    with pytest.raises(ConfigError, match=words):
        project.subject()
