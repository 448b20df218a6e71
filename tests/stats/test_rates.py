"""Rates per group, against fairlearn and against published figures."""

import math

import fairlearn.metrics as fairlearn
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_score

from mlguard.errors import UsageError
from mlguard.stats.rates import (
    MISSING,
    RATE_METRICS,
    Confusion,
    Rate,
    group_codes,
    group_losses,
    group_rates,
)

ORACLES = {
    "selection_rate": fairlearn.selection_rate,
    "true_positive_rate": fairlearn.true_positive_rate,
    "false_positive_rate": fairlearn.false_positive_rate,
    "false_negative_rate": fairlearn.false_negative_rate,
    "true_negative_rate": fairlearn.true_negative_rate,
    "precision": precision_score,
    "accuracy": accuracy_score,
}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(4)
    groups = rng.choice(["a", "b", "c"], 900)
    y_true = (rng.random(900) < 0.4).astype(int)
    y_pred = (rng.random(900) < 0.3 + 0.3 * y_true).astype(int)
    return y_true, y_pred, groups


@pytest.mark.parametrize("metric", RATE_METRICS)
def test_every_metric_is_fairlearns(metric, rows):
    """Each rate agrees with fairlearn (scikit-learn for precision and accuracy) in each group."""
    y_true, y_pred, groups = rows
    frame = fairlearn.MetricFrame(
        metrics=ORACLES[metric], y_true=y_true, y_pred=y_pred, sensitive_features=groups
    )
    found = {name: rate.value for name, rate in group_rates(metric, *rows).items()}
    assert found == pytest.approx(frame.by_group.to_dict())


def test_compas_as_published(shared_data):
    """ProPublica's table: FPR 44.85 and 23.45 %, FNR 27.99 and 47.72 %, on all 7214 rows."""
    frame = pd.read_csv(shared_data / "fairness/compas/compas-scores-two-years.csv.gz")
    table = Confusion.count(frame["two_year_recid"], frame["decile_score"] >= 5, frame["race"])
    published = {"African-American": (44.85, 27.99), "Caucasian": (23.45, 47.72)}
    for name, (fpr, fnr) in published.items():
        assert round(100 * table.rates("false_positive_rate")[name].value, 2) == fpr
        assert round(100 * table.rates("false_negative_rate")[name].value, 2) == fnr


def test_a_rate_over_nothing_is_undefined():
    """A group without positives has no true positive rate; fairlearn would call it 0."""
    rates = group_rates("true_positive_rate", [0, 0, 1], [1, 0, 1], ["f", "f", "m"])
    assert rates["f"].value is None
    assert rates["f"].n == 0
    assert rates["m"].value == 1.0


def test_one_class_against_the_rest():
    """Of many classes one is positive; accuracy counts them all."""
    y_true = ["cat", "dog", "cow", "cat"]
    y_pred = ["cat", "cow", "cow", "dog"]
    table = Confusion.count(y_true, y_pred, ["x"] * 4, positive="cat")
    assert table.rates("true_positive_rate")["x"] == Rate(1, 2)
    assert table.rates("true_negative_rate")["x"] == Rate(2, 2)
    assert table.rates("accuracy")["x"] == Rate(2, 4)


@given(st.integers(0, 900))
def test_parts_add_up_to_the_whole(cut):
    """Windows counted apart and added are the whole, in any cut."""
    rng = np.random.default_rng(7)
    columns = [rng.integers(0, 2, 900), rng.integers(0, 2, 900), rng.integers(0, 4, 900)]
    whole = Confusion.count(*columns)
    parts = Confusion.count(*[one[:cut] for one in columns])
    parts += Confusion.count(*[one[cut:] for one in columns])
    assert parts == whole
    assert Confusion.from_json(parts.to_json()) == whole


def test_missing_attributes_are_a_group():
    """None, NaN, NaT and pandas' NA are people of whom the attribute is unknown."""
    values = np.array(["f", None, float("nan"), pd.NA, pd.NaT, "m"], dtype=object)
    names, codes = group_codes(values)
    assert names == [MISSING, "f", "m"]
    assert codes.tolist() == [1, 0, 0, 0, 0, 2]
    assert group_codes(np.array([1.0, math.nan, 1.0]))[0] == ["1.0", MISSING]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pd.Series(["b", "a"], dtype="category"), ["a", "b"]),
        (pd.Series(["b", None], dtype="str"), [MISSING, "b"]),
        (pd.Series([True, False]), ["False", "True"]),
        ([3, 1, 2], ["1", "2", "3"]),
        ([], []),
    ],
)
def test_groups_of_any_type_have_names(values, names):
    """Groups are named by their text, whatever column they come from."""
    assert group_codes(values)[0] == names


def test_arrays_that_do_not_fit_are_refused():
    """A length that differs would pair the wrong rows."""
    with pytest.raises(UsageError, match="one entry a row"):
        group_rates("accuracy", [1, 0], [1, 0, 1], ["a", "a", "a"])
    with pytest.raises(UsageError, match="one a row"):
        group_losses([1.0], ["a", "b"])
    with pytest.raises(UsageError, match="unknown rate 'recall'"):
        group_rates("recall", [1], [1], ["a"])


def test_losses_are_split_by_group():
    """Every loss lands in its group, in order."""
    found = group_losses([0.1, 0.2, 0.3], ["m", "f", "m"])
    assert {name: one.tolist() for name, one in found.items()} == {"f": [0.2], "m": [0.1, 0.3]}
