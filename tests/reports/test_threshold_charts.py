"""Charts of threshold policies: their titles are findings, and they read without colour."""

import io

import numpy as np
import pytest

from mlguard.reports.charts import draw
from mlguard.reports.curves import DASHES, SHAPES
from mlguard.reports.threshold_charts import (
    POINTS,
    calibration_chart,
    outcome_chart,
    rates_chart,
    roc_chart,
)
from mlguard.reports.view import chart_from_json, chart_to_json
from mlguard.stats.score_table import ScoreTable, Utility
from mlguard.stats.thresholds import choose


def group(seed, shift, n=2000, impact=(75.0, -150.0)):
    rng = np.random.default_rng(seed)
    score = np.clip(rng.beta(2, 2, n) - shift, 0, 1)
    truth = rng.random(n) < score + shift
    return ScoreTable.of_rows(score, truth, np.where(truth, *impact))


@pytest.fixture
def tables():
    return {"F": group(1, 0.2), "M": group(2, 0.0)}


@pytest.fixture
def policies(tables):
    utility, half = Utility(), {"F": 0.5, "M": 0.5}
    return {
        title: {
            name: table.operate(cut, utility)
            for (name, table), cut in zip(
                tables.items(),
                choose(policy, tables, shares=half, utility=utility).values(),
                strict=True,
            )
        }
        for title, policy in (
            ("one threshold for all", "max_utility"),
            ("equal opportunity", "equal_opportunity"),
        )
    }


def test_the_roc_says_who_is_refused_more_often(tables, policies):
    """The widest gap is the title, and the words that stand for it hold each point."""
    chart = roc_chart("sex", tables, policies)
    single = policies["one threshold for all"]
    gap = single["M"].true_positive_rate - single["F"].true_positive_rate
    assert chart.title == (
        f"With one threshold for all, a positive of sex=F is refused more often than one of M, "
        f"by {100 * gap:.0f} points"
    )
    assert "TPR" in chart.alt
    (panel,) = chart.panels
    assert len(panel.marks) == 4
    for one in panel.curves:
        assert len(one.x) <= POINTS
        assert (one.x[0], one.y[0]) == (0.0, 0.0)
        assert (one.x[-1], one.y[-1]) == (1.0, 1.0)


def test_the_outcome_curve_names_the_harm(policies):
    """A policy that lowers a mean score is the title; otherwise the smallest rise is."""
    harmful = {"F": group(1, 0.2, impact=(5.0, -150.0)), "M": group(2, 0.0, impact=(5.0, -150.0))}
    points = {
        name: {
            key: table.operate(policies[name][key].cut, Utility()) for key, table in harmful.items()
        }
        for name in policies
    }
    assert "falls by" in outcome_chart("sex", "score", harmful, points).title
    kind = {key: group(3, 0.0, impact=(5.0, 1.0)) for key in "FM"}
    points = {
        name: {
            key: table.operate(policies[name][key].cut, Utility()) for key, table in kind.items()
        }
        for name in policies
    }
    assert outcome_chart("sex", "score", kind, points).title.startswith("No policy lowers")


def test_rates_stand_beside_each_other_with_the_policies_marked(tables, policies):
    """One panel a rate and one for the delayed impact, on one axis of thresholds."""
    chart = rates_chart("sex", tables, policies)
    assert [one.label for one in chart.panels] == [
        "share answered yes",
        "true positive rate",
        "false positive rate",
        "delayed impact",
    ]
    unknown = {name: ScoreTable(one.scores, one.mass, one.success) for name, one in tables.items()}
    assert len(rates_chart("sex", unknown, policies).panels) == 3


def test_calibration_has_intervals_and_needs_rows():
    """The furthest bin is the title; twenty rows draw nothing."""
    rng = np.random.default_rng(0)
    score = rng.random(4000)
    is_f = rng.random(4000) < 0.5
    truth = rng.random(4000) < np.where(is_f, score, score**2)
    chart = calibration_chart("sex", score, truth, {"F": is_f, "M": ~is_f})
    assert "sex=M" in chart.title
    for one in chart.panels[0].curves:
        assert all(low <= y <= high for low, y, high in zip(one.low, one.y, one.high, strict=True))
    few = np.arange(4000) < 20
    assert calibration_chart("sex", score, truth, {"F": few}) is None


def test_the_charts_are_plain_data(tables, policies):
    """They go to the process that draws as JSON and come back as they were."""
    chart = rates_chart("sex", tables, policies)
    assert chart_from_json(chart_to_json(chart)) == chart


@pytest.mark.parametrize("medium", ["mail", "page"])
@pytest.mark.parametrize("width", [340, 640])
def test_they_are_drawn_for_both_media(tables, policies, medium, width):
    """On a phone and on a page, as PNG and as SVG, whatever the groups are called."""
    long = {f"<b>{name}</b>$x$ {'long ' * 20}": table for name, table in tables.items()}
    renamed = {
        title: dict(zip(long, points.values(), strict=True)) for title, points in policies.items()
    }
    for chart in (
        roc_chart("sex", tables, policies),
        rates_chart("sex", tables, policies),
        outcome_chart("sex", "score", long, renamed),
    ):
        drawn = draw(chart, medium=medium, width=width)
        assert drawn.startswith(b"\x89PNG" if medium == "mail" else b"<svg")
        assert b"<b>" not in drawn


def test_groups_and_policies_differ_without_colour(tables, policies):
    """In grey the lines still have their own dashes, and the marks their own shapes."""
    from PIL import Image

    assert len(set(map(str, DASHES))) == len(DASHES)
    assert len(set(SHAPES)) == len(SHAPES)
    png = draw(roc_chart("sex", tables, policies), medium="mail", width=560)
    with Image.open(io.BytesIO(png)) as image:
        grey = np.asarray(image.convert("L"))
    assert (grey < 160).sum() > 2000
