"""What app.toml may say of keys, thresholds per group and floors, and what it is told otherwise."""

import pytest

from mlguard.config import load_app, load_project
from mlguard.errors import ConfigError

APP = """
[app]
description = "d"
owner = "o"
decision = "d"
success_metric = "s"
{app}
[data]
test = "test.csv"
sensitive = ["sex", "race"]
{rest}
"""
ON = 'groups_affect_decisions = true\nkeys = ["portal"]'
BY_SEX = '[model.thresholds]\ndefault = 0.5\n"sex=F" = 0.46'


def load(root, app="", rest=""):
    (root / "mlguard.toml").write_text("")
    folder = root / "serving" / "loan"
    folder.mkdir(parents=True)
    (folder / "app.toml").write_text(APP.format(app=app, rest=rest))
    return load_app(load_project(root), "loan")


def test_thresholds_per_group_are_read(tmp_path):
    """A default and groups of one declared attribute."""
    settings = load(tmp_path, ON, BY_SEX)
    assert settings.model.thresholds == {"default": 0.5, "sex=F": 0.46}
    assert settings.model.threshold_attribute == "sex"
    assert settings.app.keys == ["portal"]


def test_nothing_said_is_one_threshold_and_no_keys(tmp_path):
    """As it always was."""
    settings = load(tmp_path)
    assert settings.model.thresholds == {"default": 0.5}
    assert settings.model.threshold_attribute == ""
    assert (settings.app.keys, settings.app.groups_affect_decisions) == ([], False)


@pytest.mark.parametrize(
    ("app", "rest", "said"),
    [
        (ON, BY_SEX.replace("0.46", "1.46"), "[model.thresholds] sex=F = 1.46"),
        (ON, BY_SEX.replace("0.46", "-0.1"), "greater than or equal to 0"),
        (ON, BY_SEX.replace("sex", "age"), "age, which is not in [data] sensitive"),
        (ON, BY_SEX.replace("sex", "rce"), "did you mean 'race'?"),
        (ON, BY_SEX.replace("default = 0.5\n", ""), 'needs a key "default"'),
        (ON, BY_SEX.replace("sex=F", "F"), 'write a group as "sex=F"'),
        (ON, BY_SEX.replace("sex=F", "sex= F"), 'write a group as "sex=F"'),
        (ON, BY_SEX + '\n"race=B" = 0.4', "choose one attribute"),
        (ON + '\ntask = "regression"', BY_SEX, "a regression has none"),
        ("", BY_SEX, "groups_affect_decisions = true"),
        ("groups_affect_decisions = true", BY_SEX, "name their keys in [app] keys"),
        ('keys = ["Portal Key"]', "", "should match pattern"),
        ("", "[monitor.fairness]\nharm_class = true", "give a floor"),
        ("", "[monitor.fairness]\nfloor = 1.5", "less than or equal to 1"),
        (
            "",
            '[monitor.fairness]\nfloor = 0.5\nmetric = "false_positive_rate"',
            "has no floor; those that have: selection_rate",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_words(tmp_path, app, rest, said):
    """Each mistake names what is wrong and what is allowed."""
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, app, rest)
    assert said in raised.value.message
    assert raised.value.message.startswith(f"{tmp_path}/serving/loan/app.toml: ")
