"""Split-conformal sets and intervals: the threshold, the answer, the manifest."""

import numpy as np
import pytest

from mlguard.errors import UsageError
from mlguard.models.uncertainty import Uncertainty
from mlguard.stats.conformal import conformal_threshold, rows_needed


@pytest.mark.parametrize(("n", "coverage"), [(9, 0.9), (40, 0.9), (99, 0.99), (200, 0.8)])
def test_the_threshold_is_the_order_statistic_of_the_definition(n, coverage):
    """numpy's "higher" quantile at ceil((n + 1) coverage) / n is the published form of it."""
    values = np.random.default_rng(n).exponential(size=n)
    level = min(1.0, np.ceil(round((n + 1) * coverage, 9)) / n)
    expected = np.quantile(values, level, method="inverted_cdf")
    assert conformal_threshold(values, coverage) == pytest.approx(expected)


def test_too_few_rows_promise_nothing():
    """Nine rows are the least for 90 %; eight are refused with the number needed."""
    assert rows_needed(0.9) == 9
    assert conformal_threshold(range(9), 0.9) == 8.0
    with pytest.raises(UsageError, match="at least 9 calibration rows, and there are 8"):
        conformal_threshold(range(8), 0.9)


def of(kind, classes=(), threshold=0.7):
    return Uncertainty(kind, 0.9, threshold, 50, "a" * 64, classes)


def test_an_answer_says_its_set_or_interval():
    """Classes whose score is at least one minus the threshold, and always the answer itself."""
    three = of("set", ("a", "b", "c"))
    assert three.said("b", [0.35, 0.6, 0.05]) == {"set": ["a", "b"], "coverage": 0.9}
    assert of("set", ("a", "b", "c"), 0.1).said("b", [0.3, 0.6, 0.1])["set"] == ["b"]
    two = of("set", (0, 1))
    assert two.said(1, 0.65)["set"] == [0, 1]
    assert two.said(1, 0.75)["set"] == [1]
    assert of("interval", threshold=2.5).said(10.0, 10.0) == {
        "interval": [7.5, 12.5],
        "coverage": 0.9,
    }
    assert two.said(1, None) is None
    assert (two.needs_all_scores, three.needs_all_scores) == (False, True)


def test_it_is_read_back_from_a_manifest():
    """What was registered is what is served; a manifest without it offers none."""
    two = of("set", (0, 1))
    manifest = {"uncertainty": two.to_json(), "input_schema": {"classes": [0, 1]}}
    assert Uncertainty.of(manifest) == two
    assert Uncertainty.of({"input_schema": {}}) is None
    assert Uncertainty.of({"uncertainty": {}, "input_schema": {}}) is None
