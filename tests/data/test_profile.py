"""Summaries of columns merge to the summary of the whole."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlguard.data.profile import CELLS, FeatureProfile, Profile

numbers = st.lists(st.one_of(st.none(), st.floats(width=32), st.integers(-5, 5)), max_size=40)
texts = st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "", "ü"]), st.text()), max_size=40)


def counted(profile: FeatureProfile) -> tuple:
    """Everything of a profile that must be exactly equal."""
    return (profile.counts.tolist(), profile.missing, profile.low, profile.high)


def close(first: float, second: float, scale: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-9 * (1 + scale))


@settings(deadline=None)  # other work on the machine is no failure
@given(reference=numbers, parts=st.lists(numbers, min_size=3, max_size=3))
def test_numbers_merge_in_any_order_and_grouping(reference, parts):
    """(a + b) + c, a + (b + c) and (c + b) + a are the summary of all rows."""
    grid = FeatureProfile.reference(np.array(reference, dtype=object), "number")
    a, b, c = (grid.summarise(np.array(part, dtype=object)) for part in parts)
    whole = grid.summarise(np.array([one for part in parts for one in part], dtype=object))
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(b).merge(a)):
        assert counted(merged) == counted(whole)
        assert close(merged.total, whole.total, abs(a.total) + abs(b.total) + abs(c.total))
        assert close(merged.squares, whole.squares, whole.squares)


@settings(deadline=None)
@given(reference=texts, parts=st.lists(texts, min_size=3, max_size=3))
def test_categories_merge_in_any_order_and_grouping(reference, parts):
    """Category counts of parts add up to those of the whole, in any order."""
    grid = FeatureProfile.reference(np.array(reference, dtype=object), "category")
    a, b, c = (grid.summarise(np.array(part, dtype=object)) for part in parts)
    whole = grid.summarise(np.array([one for part in parts for one in part], dtype=object))
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(b).merge(a)):
        assert counted(merged) == counted(whole)
    assert whole.n_rows == sum(len(part) for part in parts)


@settings(deadline=None)
@given(numbers, numbers)
def test_a_number_is_counted_in_the_cell_whose_upper_edge_it_does_not_pass(reference, values):
    """Cell i holds edges[i-1] < x <= edges[i]; every value that is not missing has one."""
    grid = FeatureProfile.reference(np.array(reference, dtype=object), "number")
    found = grid.summarise(np.array(values, dtype=object))
    bounds = [-math.inf, *grid.edges.tolist(), math.inf]
    present = [one for one in values if one is not None and not math.isnan(one)]
    for cell, count in enumerate(found.counts.tolist()):
        low, high = bounds[cell], bounds[cell + 1]
        inside = [one for one in present if (low < one <= high) or (cell == 0 and one == -math.inf)]
        assert len(inside) == count
    assert found.missing == len(values) - len(present)


def test_the_json_round_trip_keeps_everything():
    """A profile read back from its JSON merges with the original."""
    rng = np.random.default_rng(0)
    profile = Profile.reference(
        {"x": rng.normal(size=500), "c": rng.choice(["a", "b", None], 500), "empty": [None] * 500},
        {"c": "category"},
    )
    text = json.dumps(profile.to_json(), allow_nan=False)
    again = Profile.from_json(json.loads(text))
    doubled = again.merge(profile)
    assert doubled.n_rows == 1000
    for name in ("x", "c", "empty"):
        assert counted(again[name]) == counted(profile[name])
        assert doubled[name].n == 2 * profile[name].n
    assert math.isnan(again["empty"].mean)
    assert again["empty"].missing_share == 1.0


def test_sixteen_parts_give_the_answer_of_the_whole():
    """A window summarised by sixteen processes is the window summarised by one."""
    rng = np.random.default_rng(1)
    values = rng.lognormal(size=16_000)
    grid = FeatureProfile.reference(rng.lognormal(size=5_000), "number")
    parts = [grid.summarise(part) for part in np.split(values, 16)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert counted(merged) == counted(grid.summarise(values))
    assert merged.mean == pytest.approx(values.mean(), rel=1e-12)
    assert merged.variance == pytest.approx(values.var(), rel=1e-9)


def test_moments_keep_their_digits_far_from_zero():
    """A variance of 1 around 1e9 is still 1."""
    values = 1e9 + np.random.default_rng(2).normal(size=10_000)
    assert FeatureProfile.reference(values, "number").variance == pytest.approx(
        values.var(), rel=1e-6
    )


def test_a_numeric_feature_takes_at_most_4_kb():
    """The longest decimals and the largest counts still fit."""
    rng = np.random.default_rng(3)
    values = -rng.random(100_000) * 10.0 ** rng.integers(-300, -200, 100_000)
    profile = FeatureProfile.reference(values, "number")
    big = FeatureProfile.from_json(
        profile.to_json() | {"counts": [99_999_999] * len(profile.counts), "missing": 10**12}
    )
    assert len(profile.edges) == CELLS + 1
    assert len(json.dumps(big.to_json(), separators=(",", ":"))) <= 4096


def test_few_different_values_have_a_cell_each():
    """On a discrete feature the grid loses nothing."""
    values = np.repeat([1.0, 2.0, 5.0], [50, 30, 20])
    profile = FeatureProfile.reference(values, "integer")
    assert profile.counts.tolist() == [0, 50, 30, 20, 0]
    moved = profile.summarise([0.0, 1.0, 1.5, 7.0])
    assert moved.counts.tolist() == [1, 1, 1, 0, 1]


def test_the_cells_of_a_continuous_feature_have_about_equal_mass():
    """Quantile cells: none is empty in the reference but the two beyond its range."""
    values = np.random.default_rng(4).exponential(size=9_600)
    counts = FeatureProfile.reference(values, "number").counts
    assert counts[0] == 0
    assert counts[-1] == 0
    assert counts[1:-1].min() >= 90
    assert counts[1:-1].max() <= 110


def test_the_grid_distance_is_a_lower_bound_of_kolmogorov_smirnov():
    """Differences of cumulative shares on the grid stay within one cell of scipy's distance."""
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(5)
    reference, current = rng.normal(size=4_000), rng.normal(0.3, 1.2, size=3_000)
    grid = FeatureProfile.reference(reference, "number")
    other = grid.summarise(current)
    on_grid = np.abs(np.cumsum(grid.counts) / 4_000 - np.cumsum(other.counts) / 3_000).max()
    exact = ks_2samp(reference, current).statistic
    largest_cell = max(grid.counts.max() / 4_000, other.counts.max() / 3_000)
    assert on_grid <= exact + 1e-12
    assert exact <= on_grid + largest_cell


def test_unseen_and_rare_categories_are_told_apart():
    """A category that the reference had, however rarely, is not unseen."""
    many = [f"c{one:04d}" for one in range(300) for _ in range(2)] + ["often"] * 100
    profile = FeatureProfile.reference(many, "category")
    assert profile.unseen_share == 0.0
    assert profile.counts[-2] > 0
    now = profile.summarise(["often", "never", min(profile.rare), None])
    assert now.counts[profile.categories.index("often")] == 1
    assert (int(now.counts[-2]), int(now.counts[-1]), now.missing) == (1, 1, 1)
    assert now.unseen_share == pytest.approx(1 / 3)


def test_booleans_and_times_have_grids_too():
    """Truth values are categories, points in time are numbers of seconds."""
    profile = Profile.reference(
        {
            "b": np.array([True, False, True]),
            "t": np.array(["2026-01-01", "NaT", "2026-01-02"], "M8[s]"),
        },
        {"b": "boolean", "t": "time"},
    )
    assert profile["b"].categories == ("False", "True")
    assert profile["t"].high - profile["t"].low == 86_400
    assert profile["t"].missing == 1


@pytest.mark.parametrize("kind", ["number", "category"])
def test_nothing_at_all_is_summarised(kind):
    """No rows and one row are summaries; shares without rows are NaN."""
    nothing = FeatureProfile.reference([], kind)
    assert (nothing.n_rows, nothing.n) == (0, 0)
    assert math.isnan(nothing.missing_share)
    assert math.isnan(nothing.mean)
    one = nothing.summarise([1])
    assert (one.n_rows, one.n) == (1, 1)


def test_infinite_and_huge_numbers_do_no_harm():
    """Infinity falls into the outer cells and stays out of the moments; JSON stays strict."""
    biggest = np.finfo(np.float64).max
    profile = FeatureProfile.reference([-biggest, 0.0, biggest, math.inf, -math.inf], "number")
    assert profile.n == 5
    json.dumps(profile.to_json(), allow_nan=False)
    assert (profile.low, profile.high) == (-biggest, biggest)


def test_an_absent_column_is_missing_and_a_new_one_is_ignored():
    """A summary always has the reference's columns."""
    profile = Profile.reference({"x": [1.0, 2.0]})
    now = profile.summarise({"y": [1.0, 2.0, 3.0]})
    assert list(now.features) == ["x"]
    assert now["x"].missing == now.n_rows == 3


def test_what_does_not_belong_together_is_not_merged():
    """Other grids, other columns, and columns of different length are refused."""
    one, two = (
        FeatureProfile.reference([1.0, 2.0], "number"),
        FeatureProfile.reference([3.0], "number"),
    )
    with pytest.raises(ValueError, match="same grid"):
        one.merge(two)
    with pytest.raises(ValueError, match="same columns"):
        Profile.reference({"x": [1.0]}).merge(Profile.reference({"y": [1.0]}))
    with pytest.raises(ValueError, match="different length"):
        Profile.reference({"x": [1.0], "y": []})
