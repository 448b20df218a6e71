"""One detector for each group, and one promise for all of them."""

import json

import numpy as np
import pytest

from mlguard.config import ConceptDriftMonitor, FairnessMonitor
from mlguard.monitors.budget import looks_per_label, own_run_length
from mlguard.monitors.concept_drift import ConceptDrift
from mlguard.monitors.group_loss import GroupLoss
from mlguard.monitors.window import Coverage
from mlguard.results import Verdict

#: 10 % errors on 2,000 reference rows of each group.
REFERENCE = {
    "loss": {"kind": "error", "n": 4000, "n_errors": 400, "scale": 1.0},
    "groups": {"sex": {one: {"n": 2000, "n_errors": 200} for one in ("F", "M")}},
}


def people(rng, n, women=0.5):
    return np.where(rng.random(n) < women, "F", "M")


def window_of(make_window, wrong, sex, **named):
    """Labelled rows: the label is always 1."""
    return make_window(
        len(wrong),
        output=np.where(wrong, 0, 1).tolist(),
        label=[1] * len(wrong),
        groups=[{} if one is None else {"sex": one} for one in sex],
        **named,
    )


def failures(results):
    return [one for one in results if one.verdict is Verdict.FAILED]


def first_alarm(monitor, make_window, wrong, sex, *, part=250):
    """Feed rows in parts; return the first alarm and the labels fed until then."""
    for start in range(0, len(wrong), part):
        rows = slice(start, start + part)
        found = failures(
            monitor.judge(window_of(make_window, wrong[rows], sex[rows], first=start + 1))
        )
        if found:
            return found[0], start + part
    return None, len(wrong)


def test_a_group_goes_wrong_while_the_average_stays_fine(make_window, app):
    """Women's errors triple, men's vanish: fairness.loss alarms, concept_drift does not."""
    rng = np.random.default_rng(2)
    sex = people(rng, 3000, women=0.2)
    wrong = rng.random(3000) < np.where(sex == "F", 0.3, 0.05)
    assert 0.09 < wrong.mean() < 0.115
    groups = GroupLoss(FairnessMonitor(), REFERENCE, app)
    alarm, _ = first_alarm(groups, make_window, wrong, sex)
    assert (alarm.id, alarm.subject, alarm.sequential) == ("fairness.loss", "sex=F", True)
    assert alarm.limit == pytest.approx(0.1 + 0.02, abs=0.015)
    assert alarm.interval[0] < 0.3 < alarm.interval[1]
    whole = ConceptDrift(ConceptDriftMonitor(), REFERENCE, app)
    assert first_alarm(whole, make_window, wrong, sex)[0] is None


def test_false_alarms_of_all_groups_keep_the_promise(make_window, app):
    """Two attributes, five groups, at the edge of what is accepted: the mean run is A or more."""
    groups = {
        "sex": {one: {"n": 2000, "n_errors": 200} for one in "FM"},
        "race": {one: {"n": 2000, "n_errors": 200} for one in "ABC"},
    }
    goal = 300
    watched = app.model_copy(
        update={
            "data": app.data.model_copy(update={"sensitive": ["sex", "race"]}),
            "monitor": app.monitor.model_copy(
                update={"concept_drift": ConceptDriftMonitor(average_run_length=goal)}
            ),
        }
    )
    settings = FairnessMonitor(window_rows=100_000, window=1e9)
    runs = []
    for seed in range(40):
        rng = np.random.default_rng([7, seed])
        monitor = GroupLoss(settings, {**REFERENCE, "groups": groups}, watched)
        theta = monitor._groups["sex"]["F"].theta
        n, part = 0, 20
        while True:
            wrong = rng.random(part) < theta
            named = [
                {"sex": str(one), "race": str(other)}
                for one, other in zip(
                    rng.choice(list("FM"), part, p=[0.2, 0.8]),
                    rng.choice(list("ABC"), part, p=[0.1, 0.3, 0.6]),
                    strict=True,
                )
            ]
            data = make_window(
                part,
                output=np.where(wrong, 0, 1).tolist(),
                label=[1] * part,
                groups=named,
                first=n + 1,
            )
            alarms = failures(monitor.judge(data))
            n += part
            if alarms or n >= 20 * goal:
                break
        # The alarm fell in the last part; runs that were cut off count as no longer.
        runs.append(n - part if alarms else n)
    assert np.mean(runs) >= goal
    # Not by never looking: some alarm is raised well before the end.
    assert np.mean(runs) < 15 * goal


def test_an_alarm_comes_within_few_labels_of_the_group(make_window, app):
    """From 10 % to 30 % errors: a median of at most 120 labels of that group."""
    delays = []
    for seed in range(20):
        rng = np.random.default_rng([8, seed])
        sex = people(rng, 2000, women=0.3)
        wrong = rng.random(2000) < np.where(sex == "F", 0.3, 0.1)
        monitor = GroupLoss(FairnessMonitor(), REFERENCE, app)
        alarm, _ = first_alarm(monitor, make_window, wrong, sex, part=100)
        assert alarm is not None
        assert alarm.subject == "sex=F"
        delays.append(alarm.details["alarm"]["labels"])
    assert np.median(delays) <= 120


def test_the_budget_is_shared_by_attribute_and_not_by_group(app):
    """The version's own detector and one look for each attribute of each label."""
    assert looks_per_label(app) == 2
    assert own_run_length(1000, app) == 2000
    many = app.model_copy(
        update={"data": app.data.model_copy(update={"sensitive": ["sex", "race"]})}
    )
    assert own_run_length(1000, many) == 3000
    off = app.monitor.model_copy(update={"fairness": FairnessMonitor(enabled=False)})
    assert own_run_length(1000, app.model_copy(update={"monitor": off})) == 1000


def test_a_restart_in_the_middle_changes_nothing(make_window, app):
    """A snapshot after any part goes on to the same findings."""
    rng = np.random.default_rng(9)
    sex = people(rng, 1200)
    wrong = rng.random(1200) < np.where(sex == "F", 0.35, 0.1)
    settings = FairnessMonitor(window_rows=150)
    steady = GroupLoss(settings, REFERENCE, app)
    resumed = GroupLoss(settings, REFERENCE, app)
    for start in range(0, 1200, 200):
        rows = slice(start, start + 200)
        data = window_of(make_window, wrong[rows], sex[rows], first=start + 1)
        document = json.loads(json.dumps(resumed.snapshot()))
        resumed = GroupLoss(settings, REFERENCE, app)
        resumed.restore(document)
        assert resumed.judge(data) == steady.judge(data)
    assert resumed.n == steady.n == 1200
    assert resumed.evidence("sex=F") == steady.evidence("sex=F") != []
    assert resumed.evidence("sex=X") == []


def test_groups_in_the_inputs_count_too(make_window, app):
    """A logged column of that name tells the group where the caller does not."""
    monitor = GroupLoss(FairnessMonitor(window_rows=100), REFERENCE, app)
    found = monitor.judge(
        make_window(
            200, output=[0] * 200, label=[1] * 200, columns={"sex": np.array(["F"] * 200, object)}
        )
    )
    assert failures(found)[0].subject == "sex=F"


def test_groups_that_nobody_knows_have_no_detector(make_window, app):
    """Unknown groups, rows without one, a reference without groups: nothing is said of them."""
    wrong = np.ones(300, bool)
    monitor = GroupLoss(FairnessMonitor(window_rows=50), REFERENCE, app)
    assert monitor.judge(window_of(make_window, wrong, ["X"] * 150 + [None] * 150)) == []
    for reference in ({}, {"groups": {}}, {"groups": {"sex": {"F": {"n": 2, "n_errors": 2}}}}):
        monitor = GroupLoss(FairnessMonitor(window_rows=50), reference, app)
        assert monitor.judge(window_of(make_window, wrong, ["F"] * 300)) == []
        assert monitor.n == 300


def test_missing_labels_are_not_told_for_every_group(make_window, app):
    """The windowed comparison says it; here nothing is judged on the labels that did come."""
    monitor = GroupLoss(FairnessMonitor(window_rows=50), REFERENCE, app)
    coverage = Coverage(n_due=1000, n_labelled=100)
    data = window_of(make_window, np.ones(200, bool), ["F"] * 200, coverage=coverage)
    assert monitor.judge(data) == []
