"""What the stored log says of people: found by what values look like, in whatever column."""

from dataclasses import dataclass

import pytest

from mlguard.data.log_privacy import look_into
from mlguard.data.mirrored import mirrored_folder
from mlguard.data.prediction_log import PredictionLog


@dataclass
class Input:
    name: str
    kind: str


FEATURES = (Input("note", "text"), Input("amount", "number"), Input("uid", "integer"))


def rows(n, *, start=0, note="none", **more):
    return [
        {
            "query_id": start + one,
            "time": 1.0 + start + one,
            "generation": 1,
            "default": False,
            "features": [note.format(one), 1.5, one],
            **{name: value.format(one) for name, value in more.items()},
        }
        for one in range(n)
    ]


def write(log, found, *, version=1, close=True, redact=(), process="p"):
    writer = log.writer("app", version, process, FEATURES, redact=redact)
    writer.append(found)
    writer.flush()
    if close:
        writer.close()
    return writer


def test_what_callers_wrote_is_looked_at_wherever_it_stands(tmp_path):
    """A text, the uid, a group's value and an answer; a feature has its own name back."""
    log = PredictionLog(tmp_path)
    write(
        log,
        rows(
            40,
            note="write to ann{}@example.com",
            uid="Maria Petra {}",
            groups='{{"contact": "+49 30 1234{}", "sex": "F"}}',
            output='"dear john{}@example.com"',
        ),
    )
    found = look_into(log, "app")
    assert {name: one.kind for name, one in found.found.items()} == {
        "contact": "phone",
        "note": "mail",
        "output": "mail",
        "uid": "name",
    }
    assert (found.n_rows, found.found["note"].found, found.found["note"].n) == (40, 40, 40)
    assert found.inputs == {"note", "amount", "uid"}


def test_a_log_that_holds_nobody_is_told_apart(tmp_path):
    """Numbers, categories and pseudonyms are no sign of anybody."""
    log = PredictionLog(tmp_path)
    write(log, rows(40, note="green", uid="8f3c-{}", groups='{{"sex": "F"}}', output="1"))
    found = look_into(log, "app")
    assert (found.n_rows, found.found) == (40, {})


def test_growing_segments_mirrors_and_every_version_count(tmp_path):
    """One that a server is writing, one of a candidate in the shadow, one of an older version."""
    log = PredictionLog(tmp_path)
    write(log, rows(30))
    writer = write(log, rows(30, start=100, uid="a{}@example.com"), version=2, close=False)
    write(log, rows(30, start=200, note="b{}@example.com"), version=mirrored_folder(3))
    found = look_into(log, "app")
    assert found.n_rows == 90
    assert sorted(found.found) == ["note", "uid"]
    writer.close()


def test_the_newest_rows_are_looked_at_and_not_more_than_asked_for(tmp_path):
    """A log of any size costs a few thousand rows a version."""
    log = PredictionLog(tmp_path)
    write(log, rows(50, note="old{}@example.com"), process="a")
    newest = write(log, rows(50, start=100), process="b", close=False)
    assert look_into(log, "app", most_rows=50).found == {}
    found = look_into(log, "app", most_rows=60)
    assert (found.n_rows, found.found["note"].found) == (60, 10)
    newest.close()


def test_erased_rows_and_redacted_columns_are_not_there(tmp_path):
    """What was taken out cannot be found; an app without a log has no rows."""
    log = PredictionLog(tmp_path)
    write(log, rows(30, note="ann{}@example.com"), redact=["note"])
    write(log, rows(1, start=50, uid="ann{}@example.com"), process="q")
    assert sorted(look_into(log, "app").found) == ["uid"]
    log.erase("app", [50], at=0.0)
    assert look_into(log, "app").found == {}
    assert look_into(log, "other").n_rows == 0


@pytest.mark.parametrize("groups", ["no json", "[1]", '{"sex": null}', None])
def test_groups_that_say_nothing_say_nothing(tmp_path, groups):
    """Whatever stands in the column of groups, looking at it does not fail."""
    log = PredictionLog(tmp_path)
    found = rows(3)
    for one in found:
        one["groups"] = groups
    write(log, found)
    assert look_into(log, "app").n_rows == 3
