"""What the data says about groups before a model has seen it."""

import numpy as np
import pandas as pd
import pytest

from mlguard.checks.data_bias import declared
from mlguard.checks.fairness import Fairness
from mlguard.errors import DataError
from mlguard.results import Verdict


def judged(project, toml, *, train=None, test=None):
    """The data's own checks of the gate, by name."""
    project.settings(f"[gate.fairness]\nmetrics = ['accuracy']\n{toml}\n")
    if train is not None:
        project.data(train=train)
    if test is not None:
        project.data(test=test)
    subject, family = project.subject(), Fairness()
    items = [
        one
        for one in family.declare(subject.settings, project.root).items
        if "accuracy" not in one.id
    ]
    return {item.name: family.run(item, subject) for item in items}


def test_nothing_is_judged_that_nobody_stated(project):
    """Without a population or a limit the data's checks are no items."""
    project.settings("")
    assert declared(project.subject().settings) == []


@pytest.mark.parametrize(
    ("stated", "verdict"), [(0.5, Verdict.PASSED), (0.3, Verdict.FAILED), (0.44, Verdict.WARNED)]
)
def test_representation_is_held_against_the_stated_population(project, stated, verdict):
    """Shares of the training rows: half of them are women, and that is what should be stated."""
    found = judged(
        project,
        "representation_at_most = 0.04\n"
        f"population = {{'sex=F' = {stated}, 'sex=M' = {1 - stated}}}",
    )["fairness.representation[sex]"]
    assert found.verdict is verdict, found.summary
    train = pd.read_csv(project.app / "train.csv")
    share = (train["sex"] == "F").mean()
    values = {(one.group, one.name): one.value for one in found.measurements}
    assert values["sex=F", "share of rows"] == pytest.approx(share)
    assert values["sex=F", "stated share"] == stated
    assert found.value == pytest.approx(abs(share - stated))
    assert found.summary.startswith("In [data] train: sex=")
    assert "of the stated population" in found.summary


def test_a_stated_group_that_is_absent_fails(project):
    """Nobody of a group that is a tenth of the people: a share of 0, and enough rows to say so."""
    found = judged(project, "population = {'sex=X' = 0.1}")["fairness.representation[sex]"]
    assert found.verdict is Verdict.FAILED
    assert "sex=X is 0.00" in found.summary
    assert "no share is stated for sex=F and sex=M" in found.details["notes"]


def test_an_attribute_that_the_data_lacks_is_an_error(project):
    """A stated share of a column that is not there never passes."""
    with pytest.raises(DataError, match="no attribute 'race'"):
        judged(project, "population = {'race=B' = 0.1}")


def test_few_rows_say_nothing_about_representation(project):
    """Forty rows neither pass nor fail a limit of five points."""
    train = pd.read_csv(project.app / "train.csv").head(40)
    found = judged(project, "population = {'sex=F' = 0.5}", train=train)
    found = found["fairness.representation[sex]"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.n_min > 40


def test_base_rates_are_compared_per_group(project):
    """Labels that come true more often for one group fail the limit that was stated."""
    train = pd.read_csv(project.app / "train.csv")
    found = judged(project, "base_rate_at_most = 0.1")["fairness.label_base_rate_difference[sex]"]
    assert found.verdict is Verdict.PASSED
    rates = train.groupby("sex")["y"].mean()
    assert {one.group: one.value for one in found.measurements} == {
        f"sex={name}": pytest.approx(rate) for name, rate in rates.items()
    }
    men = train["sex"] == "M"
    train.loc[men, "y"] = np.where(train.index[men] % 3 > 0, 1, train.loc[men, "y"])
    project.data(train=train)
    found = judged(project, "base_rate_at_most = 0.1")["fairness.label_base_rate_difference[sex]"]
    assert found.verdict is Verdict.FAILED
    assert "1 comes true more often for sex=M" in found.summary


def test_missing_values_are_compared_per_group_and_feature(project):
    """The feature that is missing most unevenly speaks, and is named."""
    train = pd.read_csv(project.app / "train.csv")
    train.loc[train.index % 50 == 0, "age"] = np.nan
    train.loc[(train["sex"] == "F") & (train.index % 3 == 0), "income"] = np.nan
    found = judged(project, "missing_at_most = 0.1", train=train)
    found = found["fairness.missing_rate_difference[sex]"]
    assert found.verdict is Verdict.FAILED
    assert "missing share of income differs by" in found.summary
    assert "The value is missing more often for sex=F" in found.summary
    assert found.value == pytest.approx(1 / 3, abs=0.03)


def test_nothing_missing_anywhere_passes(project):
    """No missing value in any group: alike, with the rows to say so."""
    found = judged(project, "missing_at_most = 0.1")["fairness.missing_rate_difference[sex]"]
    assert found.verdict is Verdict.PASSED
    assert found.value == 0


def test_each_can_be_switched_off_and_softened(project):
    """``[gate.fairness.representation]`` is a table like any check's."""
    project.settings(
        "[gate.fairness]\nmetrics = ['accuracy']\npopulation = {'sex=F' = 0.3}\n"
        "missing_at_most = 0.1\n"
        "[gate.fairness.representation]\nenforcement = 'warn'\n"
        "[gate.fairness.missing_rate_difference]\nenabled = false\n"
    )
    subject, family = project.subject(), Fairness()
    declaration = family.declare(subject.settings, project.root)
    found = family.run(declaration.items[-1], subject)
    assert found.verdict is Verdict.FAILED
    assert not found.blocks
    assert "fairness.missing_rate_difference[sex]: switched off in app.toml" in (
        declaration.not_applicable
    )


def test_weights_stand_for_the_people_that_rows_stand_for(project):
    """A sample that was drawn unevenly is held against the population by its weights."""
    train = pd.read_csv(project.app / "train.csv")
    train["weight"] = np.where(train["sex"] == "F", 3.0, 1.0)
    settings = "population = {'sex=F' = 0.75}\nweight = 'weight'"
    test = pd.read_csv(project.app / "test.csv").assign(weight=1.0)
    found = judged(project, settings, train=train, test=test)["fairness.representation[sex]"]
    assert found.verdict is Verdict.PASSED
    assert found.n < len(train)
