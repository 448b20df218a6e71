"""Counts of columns by group: mergeable, small, and shown only where nobody stands out."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.data.joint import ANSWER, ATTRIBUTES, CELLS, GROUPS, JointCounts, class_name, merged
from mlguard.data.profile import SCORE, FeatureProfile, Profile

GROUP = st.none() | st.sampled_from(["F", "M", "x", "y"])
ROWS = st.lists(
    st.tuples(st.floats(allow_nan=True, allow_infinity=True, width=32), GROUP, st.booleans()),
    max_size=30,
)
KINDS = {"x": "number", "c": "category"}


def profile_of(rows):
    """A profile's arguments for rows of a number, a group and an answer."""
    values, groups, answers = (list(one) for one in zip(*rows, strict=True)) if rows else ([],) * 3
    columns = {
        "x": np.array(values, float),
        "c": np.array(["a" if one else "b" for one in answers], object),
    }
    names = [class_name(int(one)) for one in answers]
    return columns, {"groups": {"sex": groups}, "answers": names}


def counts(profile):
    return {
        (attribute, name): one.counts.tolist()
        for attribute, columns in profile.joint.items()
        for name, one in columns.items()
    }


@given(reference=ROWS, parts=st.lists(ROWS, min_size=3, max_size=3))
def test_joint_counts_merge_in_any_order_and_grouping(reference, parts):
    """Of parts, however put together, they are those of the whole, and no row is lost."""
    columns, named = profile_of(reference)
    grid = Profile.reference(columns, KINDS, **named)
    first, second, third = (grid.summarise(found, **more) for found, more in map(profile_of, parts))
    columns, named = profile_of([row for part in parts for row in part])
    whole = grid.summarise(columns, **named)
    assert counts(first.merge(second).merge(third)) == counts(whole)
    assert counts(third.merge(first.merge(second))) == counts(whole)
    for one in whole.joint["sex"].values():
        assert one.counts.sum() == sum(map(len, parts))
    again = Profile.from_json(json.loads(json.dumps(whole.to_json())))
    assert counts(again) == counts(whole)


def test_counts_are_those_of_a_cross_table():
    """pandas' crosstab of the same cells and groups."""
    rng = np.random.default_rng(0)
    values, sex = rng.normal(size=3000), rng.choice(["F", "M"], 3000)
    values[:40] = np.nan
    one = JointCounts.reference(values, sex.tolist())
    cells = np.searchsorted(one.edges, values)
    cells[np.isnan(values)] = CELLS
    table = pd.crosstab(sex, cells)
    assert one.counts[:2].tolist() == table.to_numpy().tolist()
    assert one.counts[2:].sum() == 0
    # Cells of about equal mass.
    shares = one.counts[:2, :-1].sum(axis=0) / 2960
    assert np.abs(shares - 1 / CELLS).max() < 0.01


def test_what_has_no_name_is_counted_all_the_same():
    """New groups and rows that name none, new categories and missing ones: a place for each."""
    one = JointCounts.reference(["a", "b", "b"], ["F", "M", "M"], names=["b", "a"])
    found = one.summarise(one.cells(["a", "new", None]), one.codes(["F", "other", None]))
    assert found.counts.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert found.n_unknown == 1
    assert {name: row.sum() for name, row in found.of_groups().items()} == {"F": 1, "others": 1}


def test_few_groups_and_attributes_are_told_apart():
    """The most frequent groups by name; a third attribute is not counted."""
    groups = [f"g{place}" for place in range(20) for _ in range(20 - place)]
    columns = {"x": np.arange(len(groups), dtype=float)}
    named = dict.fromkeys(("one", "two", "three"), groups)
    profile = Profile.reference(columns, {"x": "number"}, groups=named)
    assert list(profile.joint) == ["one", "two"][:ATTRIBUTES]
    assert profile.joint["one"]["x"].groups == tuple(f"g{place}" for place in range(GROUPS))


def test_a_numeric_feature_with_its_groups_takes_at_most_4_kb():
    """As a server keeps it: all groups, all attributes, the longest decimals, large counts."""
    rng = np.random.default_rng(3)
    values = rng.random(100_000) * 10.0 ** rng.integers(0, 3, 100_000)
    groups = {name: rng.choice([f"group-{n}" for n in range(9)], 100_000).tolist() for name in "ab"}
    profile = Profile.reference({"x": values}, {"x": "number"}, groups=groups)
    joint = [columns["x"] for columns in profile.joint.values()]
    assert len(joint) == ATTRIBUTES
    document = [profile["x"].to_json(), *(one.to_json() for one in joint)]
    assert len(json.dumps(document, separators=(",", ":"))) <= 4096


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ([100, 50, 0, 0], [100, 50, 0, 0]),
        ([100, 50, 3, 0], [100, None, None, 0]),
        ([100, 4, 3, 0], [100, None, None, 0]),
        ([9, 0, 0, 0], [None, 0, 0, 0]),
    ],
)
def test_small_counts_are_not_told(row, shown):
    """Fewer than ten are hidden, with a second count where the row's total would tell one."""
    one = JointCounts.reference(["a"], ["F"], names=["a", "b", "c"])
    assert one.counted(np.array([row, row, row])).told() == [shown] * 3


def test_parts_without_groups_make_no_half_counts():
    """A part that was counted without groups leaves none, rather than those of the others."""
    columns, named = profile_of([(1.0, "F", True), (2.0, "M", False)])
    grid = Profile.reference(columns, KINDS, **named)
    with_groups, without = grid.summarise(columns, **named), grid.summarise(columns)
    assert with_groups.merge(without).joint == {} == without.joint
    assert merged({}, {}) == {}
    other = JointCounts.reference([3.0, 4.0], ["F", "F"])
    with pytest.raises(ValueError, match="same grid"):
        grid.joint["sex"]["x"].merge(other)


def test_scores_and_answers_are_counted_beside_the_features():
    """Of a classifier its classes, the positive one always by name; only() keeps what is asked."""
    scores = np.linspace(0, 1, 40)
    profile = Profile.reference(
        {"x": scores, SCORE: scores},
        {"x": "number", SCORE: "number"},
        groups={"sex": ["F", "M"] * 20},
        answers=["0"] * 40,
        classes=["0", "1"],
    )
    assert set(profile.joint["sex"]) == {"x", SCORE, ANSWER}
    assert profile.joint["sex"][ANSWER].names == ("0", "1")
    assert set(profile.only(["x"]).joint["sex"]) == {"x"}
    assert isinstance(profile["x"], FeatureProfile)
