"""What pages are made of: live counts, charts of recorded verdicts, pictures that are kept."""

from __future__ import annotations

import math

import pytest

from mlguard.dashboard.gallery import NARROW, WIDE, Gallery, digest_of, standing_alone
from mlguard.dashboard.live import Live, LiveFigures, read_figures
from mlguard.dashboard.series import by_group, group_chart, key_of, over_time
from mlguard.registry.records import Event
from mlguard.reports.drawing import DrawingError
from mlguard.reports.view import Mark, Point, TimeChart
from mlguard.results import Measurement, MonitorResult, Verdict
from mlguard.serving.metrics import Metrics

# --- live counts -----------------------------------------------------------------------------


def test_counts_are_those_of_the_metrics():
    """Read back from the text that /metrics answers; other apps are left out."""
    metrics = Metrics()
    metrics.predictions.labels("credit", "v7", "").inc(90)
    metrics.predictions.labels("credit", "v8", "").inc(6)
    metrics.predictions.labels("credit", "v7", "too late").inc(4)
    metrics.predictions.labels("iris", "v1", "").inc(1000)
    metrics.labels.labels("credit", "stored").inc(5)
    metrics.labels.labels("credit", "same").inc(2)
    metrics.labels.labels("credit", "conflict").inc(3)
    metrics.queued.labels("credit").set(11)
    for seconds in (0.002, 0.004, 0.004, 0.2):
        metrics.latency.labels("credit").observe(seconds)
    live = read_figures(metrics.render().decode(), "credit")
    assert live == Live(
        predictions=100, defaults=4, labels=7, waiting=11, median_ms=5.0, p99_ms=250.0,
        by_version=(("v7", 90), ("v8", 6)), causes=(("too late", 4),),
    )  # fmt: skip
    assert live.default_share == 0.04


def test_an_app_that_nobody_asked_has_no_times():
    """Nothing, not zero milliseconds."""
    live = read_figures(Metrics().render().decode(), "credit")
    assert live == Live()
    assert live.default_share is None


def test_times_beyond_the_last_bucket_have_no_bound():
    """Infinite, and written so."""
    metrics = Metrics()
    metrics.latency.labels("credit").observe(60)
    live = read_figures(metrics.render().decode(), "credit")
    assert live.median_ms == math.inf


def test_a_rate_is_of_the_last_minute():
    """Two looks make one; old looks and counts from before a restart do not count."""
    metrics = Metrics()
    now = [0.0]
    rows = metrics.predictions.labels("credit", "v7", "")
    live = LiveFigures(metrics.render, lambda: now[0])
    rows.inc(10)
    assert live.of("credit").per_second is None
    now[0] = 10.0
    rows.inc(50)
    assert live.of("credit").per_second == 5.0
    now[0] = 65.0
    assert live.of("credit").per_second == 0.0
    live._figures = Metrics().render  # as after a restart
    now[0] = 70.0
    assert live.of("credit").per_second is None


# --- charts ----------------------------------------------------------------------------------


def finding(at, value, *, name="data_drift.ks", subject="income", limit=0.1, version="v1"):
    verdict = Verdict.FAILED if value > limit else Verdict.PASSED
    return at, MonitorResult(
        id=name, subject=subject, verdict=verdict, value=value, limit=limit, n=100,
        interval=(value - 0.01, value + 0.01), summary="", version=version,
    )  # fmt: skip


def event(at, kind, version="", **detail):
    return Event(
        seq=int(at), at=at, app="a", generation=1, moved=True, kind=kind, actor="anna",
        reason="r", version=version, detail=detail,
    )  # fmt: skip


def test_each_monitor_shows_its_worst_figure():
    """One chart for each monitor; failing before passing, near its limit before far."""
    results = [
        *(finding(at, 0.02, subject="calm") for at in (1.0, 2.0)),
        *(finding(at, 0.09, subject="near") for at in (1.0, 2.0)),
        *(finding(at, value, name="concept_drift.error", subject="", limit=0.3)
          for at, value in ((1.0, 0.2), (2.0, 0.35))),
        finding(1.0, 0.5, name="fairness.gap", subject="once"),
    ]  # fmt: skip
    shown = over_time(
        results, [event(1.5, "promoted", "v2"), event(1.7, "incident_opened", incident=4)]
    )
    assert [one.chart.metric for one in shown] == ["concept_drift.error", "data_drift.ks of near"]
    assert [one.verdict for one in shown] == [Verdict.FAILED, Verdict.PASSED]
    assert shown[0].chart.marks == (
        Mark(at=1.5, label="v2"),
        Mark(at=1.7, label="incident 4", kind="incident"),
    )
    assert [one.value for one in shown[0].chart.points] == [0.2, 0.35]
    assert shown[0].key == key_of("time", "concept_drift.error")


def groups_of(*cells, verdict=Verdict.FAILED, name="fairness.false_negative_rate_difference"):
    return MonitorResult(
        id=name, subject="sex", verdict=verdict, summary="gap 0.11", value=0.11, limit=0.05,
        measurements=tuple(
            Measurement(name="false_negative_rate", value=value, low=0.1, high=0.4, n=n,
                        group=f"sex={group}")
            for group, value, n in cells
        ),
    )  # fmt: skip


def test_groups_of_few_rows_appear_by_name_only():
    """Nine rows could point at a person; the title compares the others."""
    chart = group_chart(groups_of(("F", 0.31, 90), ("M", 0.2, 80), ("X", 0.9, 9)))
    assert [(one.group, one.value, one.n) for one in chart.groups] == [
        ("F", 0.31, 90),
        ("M", 0.2, 80),
        ("X", None, None),
    ]
    assert chart.title == "False-negative rate is 0.11 higher for F than for M"
    assert "X" not in chart.alt
    assert chart.band == (0.2, 0.25)


def test_one_group_is_no_comparison():
    """Nor is a rate that nobody could estimate."""
    chart = group_chart(groups_of(("F", 0.31, 90), ("M", None, 80)))
    assert chart.title == "False-negative rate by sex cannot be compared yet"
    assert group_chart(groups_of()) is None


def test_of_each_comparison_the_newest_counts():
    """Findings come newest first; the worst is shown first."""
    old = groups_of(("F", 0.5, 90), ("M", 0.2, 80))
    new = groups_of(("F", 0.2, 90), ("M", 0.2, 80), verdict=Verdict.PASSED)
    other = groups_of(("F", 0.4, 90), ("M", 0.2, 80), name="fairness.accuracy_difference")
    shown = by_group([new, old, other], "live traffic")
    assert [(one.verdict, one.source) for one in shown] == [
        (Verdict.FAILED, "live traffic"),
        (Verdict.PASSED, "live traffic"),
    ]
    assert shown[1].chart.title == "False-negative rate is the same for F and M"


# --- pictures --------------------------------------------------------------------------------


def chart(value):
    points = tuple(Point(at=float(at), value=value, low=0.0, high=1.0) for at in range(3))
    return TimeChart(title="t", alt="a", metric="m", points=points)


class Drawer:
    """Draws nothing, and counts."""

    def __init__(self):
        self.calls = []
        self.fails = False

    def __call__(self, charts):
        self.calls.append([width for _, width in charts])
        if self.fails:
            raise DrawingError("no library")
        return [f'<svg width="{width}"><text/></svg>'.encode() for _, width in charts]


def test_a_page_is_drawn_by_one_process_and_kept():
    """All charts at both widths in one go; nothing again until a number changes."""
    drawer = Drawer()
    gallery = Gallery(drawer)
    one, two = chart(0.1), chart(0.2)
    assert b'width="880"' in gallery.picture(one, WIDE, [one, two])
    assert drawer.calls == [[WIDE, NARROW, WIDE, NARROW]]
    gallery.picture(two, NARROW)
    gallery.picture(one, NARROW)
    assert len(drawer.calls) == 1
    gallery.picture(chart(0.3), WIDE)
    assert drawer.calls[1:] == [[WIDE, NARROW]]
    assert digest_of(one) == digest_of(chart(0.1)) != digest_of(two)


def test_what_cannot_be_drawn_is_not_tried_at_each_look():
    """A page that many look at does not start a process for each look."""
    drawer, now = Drawer(), [0.0]
    drawer.fails = True
    gallery = Gallery(drawer, lambda: now[0])
    for _ in range(3):
        with pytest.raises(DrawingError):
            gallery.picture(chart(0.1), WIDE)
    assert len(drawer.calls) == 1
    now[0] = 31.0
    drawer.fails = False
    assert gallery.picture(chart(0.1), WIDE)
    assert len(drawer.calls) == 2


def test_a_picture_brings_its_colours():
    """An image has no part in the style of the page that shows it."""
    text = standing_alone(b'<svg role="img"><text>x</text></svg>').decode()
    assert text.startswith('<svg role="img"><style>')
    assert "--ink" in text
    assert text.count("<style>") == 1
