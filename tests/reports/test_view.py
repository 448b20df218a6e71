"""The report as data."""

import json
import math

import numpy as np
import pytest

from mlguard.reports.view import (
    Figure,
    Point,
    ReportView,
    Story,
    TimeChart,
    chart_from_json,
    chart_to_json,
)
from mlguard.results import MonitorResult, Verdict


def test_a_report_survives_json(sample):
    """What a child process reads is what the parent wrote."""
    text = json.dumps(sample.to_json(), allow_nan=False)
    assert ReportView.from_json(json.loads(text)) == sample


def test_numbers_that_json_does_not_have_become_null():
    """Strict JSON has no NaN; numpy's numbers are numbers."""
    chart = TimeChart(
        title="t",
        alt="a",
        metric="error",
        points=(Point(at=np.float64(1.0), value=math.nan, low=-math.inf, n=np.int64(3)),),
    )
    document = chart_to_json(chart)
    json.dumps(document, allow_nan=False)
    assert document["points"] == [{"at": 1.0, "value": None, "low": None, "high": None, "n": 3}]
    assert chart_from_json(document).points[0].value is None


def test_what_is_no_report_is_refused():
    """A file of another kind is named as such."""
    with pytest.raises(ValueError, match="no report"):
        ReportView.from_json({"app": 3})
    with pytest.raises(ValueError, match="no chart"):
        chart_from_json({"chart": "pie"})


def test_a_figure_is_made_of_a_result():
    """A monitor's result keeps its number, its interval and its n."""
    result = MonitorResult(
        id="data_drift.ks",
        verdict=Verdict.FAILED,
        summary="s",
        subject="age",
        value=0.3,
        limit=0.1,
        interval=(0.2, math.inf),
        n=500,
        version="v8",
    )
    figure = Figure.of(result, at=7.0)
    assert (figure.name, figure.value, figure.interval) == ("data_drift.ks[age]", 0.3, (0.2, None))
    assert (figure.version, figure.at) == ("v8", 7.0)


def test_nothing_judged_is_undecided_not_passed():
    """An empty report passes nothing."""
    empty = ReportView(
        app="a", project="p", environment="e", since=0.0, until=1.0, at=1.0,
        story=Story(happened="h", serves="s"),
    )  # fmt: skip
    assert empty.verdict is Verdict.INCONCLUSIVE
