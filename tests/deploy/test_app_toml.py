"""Thresholds are put into an app.toml of people's own, and nothing else of it changes."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.config import load_app, load_project
from mlguard.deploy.app_toml import edited, write_thresholds
from mlguard.errors import ConfigError

FILE = """\
# At the top.
[model]  # the candidate
path = "model.skops"  # its file
trusted_types = [
    "a.B",  # ours
]

# Whom we compare.
[gate.fairness]
at_most = 0.1
"""
TABLE = """\

[model.thresholds]  # chosen in March
# for everybody else
default = 0.5  # as before
"sex=F" = 0.46
"""


def document(text):
    return tomllib.loads(text)


def test_a_table_is_added_behind_its_model():
    """It stands after the last key of [model], before what introduces the next table."""
    new = edited(FILE, {"default": 0.4, "sex=F": 0.25})
    assert new == FILE.replace(
        "]\n\n# Whom", ']\n\n[model.thresholds]\ndefault = 0.4\n"sex=F" = 0.25\n\n# Whom'
    )


def test_a_table_that_is_there_keeps_its_comments():
    """Values change in place, new keys follow, keys that are gone go, comments stay."""
    new = edited(FILE + TABLE, {"default": 0.61, "sex=M": 0.5})
    assert new == FILE + TABLE.replace("= 0.5  #", "= 0.61  #").replace(
        '"sex=F" = 0.46', '"sex=M" = 0.5'
    )


def test_without_a_model_table_it_stands_at_the_end():
    """An app.toml that says nothing of the model gets the table last."""
    text = '[app]\nowner = "x"\n'
    assert edited(text, {"default": 0.3}) == text + "\n[model.thresholds]\ndefault = 0.3\n"


def test_line_ends_stay_what_they_are():
    """A file from Windows stays one."""
    new = edited((FILE + TABLE).replace("\n", "\r\n"), {"default": 0.4})
    assert "\n" not in new.replace("\r\n", "")


@given(
    thresholds=st.dictionaries(
        st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=12).map(
            lambda value: f"sex={value}"
        ),
        st.floats(0, 1),
        max_size=4,
    ),
    base=st.sampled_from([FILE, FILE + TABLE, '[app]\nowner = "x"\n', ""]),
)
def test_read_back_it_is_the_old_document_with_these_thresholds(thresholds, base):
    """For any names of groups and any file; and a second edit changes nothing more."""
    wanted = {"default": 0.5} | thresholds
    new = edited(base, wanted)
    expected = document(base)
    expected.setdefault("model", {})["thresholds"] = wanted
    assert document(new) == expected
    assert document(edited(new, wanted)) == expected


@pytest.fixture
def app(lender):
    project = load_project(lender)
    return project, load_app(project, "credit"), lender / "serving/credit/app.toml"


def test_the_file_is_replaced_whole_with_its_permissions(app):
    """It loads again, says the new thresholds, and nothing is left beside it."""
    project, settings, file = app
    file.chmod(0o640)
    before = sorted(file.parent.iterdir())
    assert write_thresholds(project, settings, {"default": 0.4321}) is True
    again = load_app(project, "credit")
    assert again.model.thresholds == {"default": 0.4321}
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(file.parent.iterdir()) == before
    assert write_thresholds(project, again, {"default": 0.4321}) is False


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("thresholds = {default = 0.5}\n", "edited by hand only"),
        ("thresholds.default = 0.5\n", "edited by hand only"),
    ],
)
def test_another_way_of_writing_them_is_left_alone(app, written, words):
    """The error holds the lines to put there, and the file is as it was."""
    project, _, file = app
    text = file.read_text().replace('path = "model.skops"\n', f'path = "model.skops"\n{written}')
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as raised:
        write_thresholds(project, load_app(project, "credit"), {"default": 0.4})
    assert "[model.thresholds]" in raised.value.hint
    assert file.read_text() == text


def test_what_mlguard_would_not_accept_is_not_written(app):
    """Thresholds per group need the word of the people who answer for it."""
    project, settings, file = app
    text = file.read_text()
    with pytest.raises(ConfigError, match="Nothing was changed") as raised:
        write_thresholds(project, settings, {"default": 0.5, "sex=F": 0.4})
    assert str(file) in raised.value.message
    assert "mlguard-app-" not in str(raised.value)
    assert file.read_text() == text


def test_a_table_inside_a_text_is_no_table(app):
    """What looks like the table inside a string is left alone, and the error says so."""
    project, _, file = app
    text = file.read_text().replace(
        'description = "Will the loan be paid back?"',
        'description = """\n[model.thresholds]\ndefault = 0.9\n"""',
    )
    file.write_text(text)
    with pytest.raises(ConfigError, match="edited by hand only"):
        write_thresholds(project, load_app(project, "credit"), {"default": 0.4})
    assert file.read_text() == text
